"""Expressions of a tensor `x`, an int `n` and a float `k`: what functions and operators do with numbers that differ from call to call.

`module(folder)` writes them as the lambdas of a file, which `compile` can read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

EXPRESSIONS = """
x + k | x - k | k - x | x * k | k * x | x / k | k / x | x // k | k // x | x % k | k % x | x ** k | k ** x | -x * k
x > k | k > x | x == k | x != k | (x > k).sum() | x >= n | x < n | T.add(x, k) | T.add(x, x, alpha=k)
T.add(x, x, alpha=n) | T.sub(x, k) | T.sub(x, x, alpha=k) | T.mul(x, k) | T.div(x, k)
T.div(x, k, rounding_mode="floor") | T.pow(x, k) | T.pow(k, x) | T.pow(x, n) | T.fmod(x, k) | T.remainder(x, k)
T.remainder(k, x) | T.floor_divide(x, k) | T.true_divide(x, k) | T.maximum(x, T.tensor(k))
T.minimum(x, T.full_like(x, k)) | T.atan2(x, T.tensor(k)) | T.clamp(x, k) | T.clamp(x, max=k) | T.clamp(x, k, k + 1)
x.clamp(min=-k, max=k) | x.clip(k) | x.clamp(n) | T.where(x > 0, x, k) | T.where(x > 0, k, x)
T.where(x > k, k, k + 1) | x.where(x > 0, k) | T.where(x > 0, n, x) | T.full((2,), k) | T.full((2,), n)
T.full_like(x, k) | T.full((n,), k) | T.zeros(n) | T.ones(n, 2) | T.arange(n) | T.arange(k) | T.arange(0, 3, k)
T.arange(k, k + 3) | T.linspace(0, k, 4) | T.linspace(k, 1, n) | T.eye(n) | T.logspace(0, k, 3) | T.tensor(k)
T.tensor([k, 1.]) | T.tensor([[k, n], [1, 2]]) | T.tensor(n) | T.as_tensor(k) | T.tensor(k, dtype=T.float64)
T.as_tensor([k, k]) | T.tensor([n, n]) | x.new_tensor([k]) | x.new_full((2,), k) | x.clone().add_(k)
x.clone().mul_(k) | x.clone().fill_(k) | x.clone().sub_(k) | x.clone().div_(k) | x.clone().clamp_(k)
x.clone().pow_(k) | x.clone().add_(x, alpha=k) | x.clone().masked_fill_(x > 1, k) | x.masked_fill(x > 1, k)
x.clone().lerp_(x * 2, k) | T.lerp(x, x * 2, k) | x.addcmul(x, x, value=k) | x.addcdiv(x, x, value=k)
T.addmm(x, x, x.t() if x.dim() > 1 else x, beta=k, alpha=k) | x.index_fill(0, T.tensor([0]), k)
x.index_add(0, T.tensor([0]), x[:1], alpha=k) | x.scatter(0, T.zeros_like(x, dtype=T.int64), k) | F.leaky_relu(x, k)
F.elu(x, k) | F.threshold(x, k, k) | F.hardtanh(x, -k, k) | F.softplus(x, k) | F.softplus(x, k, n) | F.celu(x, k)
F.softshrink(x, k) | F.hardshrink(x, k) | F.logsigmoid(x * k) | F.relu(x - k) | F.gelu(x * k) | F.silu(x * k)
F.huber_loss(x, x * 2, delta=k) | F.smooth_l1_loss(x, x * 2, beta=k) | F.normalize(x, p=k, dim=0)
F.normalize(x, dim=0, eps=k) | F.layer_norm(x, x.shape[-1:], eps=k) | F.mse_loss(x, x * k)
F.cosine_similarity(x, x * k, dim=0) | F.pairwise_distance(x, x * k) | T.norm(x, k) | x.norm(p=k) | x.norm(p=n)
x.norm(k, dim=0) | T.std(x, correction=n) | x.var(unbiased=n > 1) | x.sum(dim=n % x.dim()) | x.softmax(n % x.dim())
x.cumsum(n % x.dim()) | x.mean(n % x.dim()) | x.argmax(n % x.dim()) | x.topk(n % 2 + 1) | x.sort(n % x.dim())
x.repeat(n, *[1] * (x.dim() - 1)) | x.expand(n, *x.shape) | x.tile((n,)) | x[n % 2] | x[:n] | x[n % 2:]
x[..., n % 2] | x[[n % 2, 0]] | x.narrow(0, n % 2, 1) | x.select(0, n % 2) | x.view(-1)[n] | x.reshape(n % 1 + 1, -1)
x.unsqueeze(n % 2) | x.split(n) | x.chunk(n) | x.flip(n % x.dim()) | x.transpose(0, n % x.dim())
x.diagonal(n % 2) if x.dim() > 1 else x | x.tril(n - 2) if x.dim() > 1 else x | x.repeat_interleave(n)
T.isclose(x, x * k, rtol=k) | T.allclose(x, x * k) | T.cat([x, T.full_like(x, k)]) | T.stack([x * k, x])
T.einsum("...,->...", x, T.tensor(k)) | T.outer(x.view(-1), T.tensor([k, n])) | T.logaddexp(x, T.tensor(k))
T.hypot(x, T.tensor(k)) | T.xlogy(x, k) | T.nn.functional.dropout(x, 0.0 * k) | x.float() * k | x.double() * k
x.long() * k | x.long() * n | x.long() + k | (x > 1) * k | (x > 1) + n | x.int() // n | x.long() ** n | x.long() / n
x.long() % n | x.long() & n | x.long() << n | x.long().clamp(n) | x.long().pow(n) | operator.or_(x.bool(), n > 1)
T.tensor(2, dtype=T.int64) * k | T.tensor(2.0) * k | T.tensor(2.0, dtype=T.float64) * k | T.tensor(2) + n
T.ones(2, dtype=T.int64) * n + k | T.zeros(2, dtype=T.int64).float() + n * k | float(k) * x | int(k) * x
round(k, 1) * x | abs(-k) * x | max(k, 1.0) * x | min(n, 2) * x | sum([k, n, 1]) * x | math.sqrt(k) * x
math.exp(-k) * x | math.log(k) * x | math.cos(k) * x | k.is_integer() * x | divmod(n, 2)[1] * x | pow(k, 2) * x
(k if n % 2 else -k) * x | bool(n % 2) * x | np.sqrt(k) * x | np.float32(k) * x | x * np.float64(k)
np.array([k]).sum() * x | float(np.exp(k)) * x | np.clip(k, 0, 1) * x | f"{k:.1f}".__len__() * x
str(n).__len__() * x | x * math.pow(.9, n) | x * (1 - .9 ** n) | x * k ** n | x * (k and 2) | x * (not n % 2)
x * (k > 1) | x * int(k > 1) | x / math.factorial(n) | x * math.floor(k) | x * math.fmod(k, n) | x * math.atan2(k, n)
x * (n << 1) | x * (n & 1) | x * (~n) | x * divmod(k, n)[0] | x * math.comb(5, n) | x * math.isnan(k)
x * complex(k, 0).real | x * k.hex().__len__() | x * n.bit_length() | x * k.as_integer_ratio()[0] | x * k.real
x * n.numerator | x * float(f"{k}") | x * float(str(k)) | x * int(str(n)) | x * range(10)[n] | x * len(range(n))
x * [1., 2., 3., 4., 5.][n] | x * {1: 2., 2: 3., 3: 4.}.get(n, 5.) | x * (k, n)[n % 2] | x * sorted([k, 1., n])[1]
x * list(range(n + 1))[-1] | x * sum(range(n)) | x * any([n > 1, k > 1]) | x * isinstance(k, float)
x * (type(n) is int) | x * (type(k) is float) | x * isinstance(n, int) | x * (k == n) | x * (k is None)
x * (n in (1, 2)) | x * (n in {1: 0}) | x * {n: 3.}[n] | x * {k: 3.}[k] | x * tuple([n])[0]
x * functools.reduce(operator.mul, [k, n]) | x * functools.reduce(lambda a, b: a + b, [k, n, 1.])
x * operator.add(k, n) | x * operator.itemgetter(n % 2)([k, 1.]) | x * next(iter([k]))
x * [j for j in (k, n) if j > 1][0] if k > 1 or n > 1 else x | x * sum(j * k for j in range(n))
x * max([k, n], key=lambda v: -v) | x * "abc".count("a" * n) | x * math.hypot(k, n) | x * math.copysign(1., -k)
x * math.trunc(k) | x * math.ceil(k) | x * math.gcd(n, 6) | x * math.tanh(k) | x * math.degrees(k)
x * math.dist([k], [n]) | x * math.prod([k, n]) | x * math.fsum([k, n]) | x * np.mean([k, n])
x * float(T.tensor(k).dim() + 1) | x * (lambda a=k: a)() | x * (lambda *a: a[0])(k, n) | x * (lambda **a: a["k"])(k=k)
T.manual_seed(n) and x * 1 | T.nn.init.constant_(T.empty(2), k) | T.randn(3).mul(0) + k | T.rand(n).mul(0)
T.normal(0., k, (3,)).mul(0) | T.normal(k, 1., (3,)).mul(0) | T.normal(x, k).mul(0) | T.randint(0, n, (2,)).mul(0)
T.bernoulli(T.full((2,), 0. * k))
x * statistics.mean([k, 1.0]) | x * statistics.stdev([k, 1.0, n]) | x * statistics.median([k, n])
"""
HEAD = """\
import functools, math, operator, statistics
import numpy as np
import fastgrad as T
F = T.nn.functional
"""


def texts() -> list[str]:
    """The expressions, one by one."""
    return [text.strip() for line in EXPRESSIONS.split("\n") for text in line.split(" | ") if text.strip()]


def module(folder: Path) -> Any:
    """A module with a list `functions`."""
    path = folder / "numbers_given.py"
    path.write_text(HEAD + "functions = [\n" + "".join([f"    lambda x, n, k: {text},\n" for text in texts()]) + "]\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
