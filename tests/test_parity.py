"""Every operation gives PyTorch's values, dtypes, shapes, gradients and second gradients, and NumPy's values.

A case is an expression over a module `torch` and inputs: `a, b, c` floats, `w` floats that need no gradient, `i, j`
integers, `m` a mask. Statements may come before it, separated by semicolons. The same text runs in fastgrad and in
PyTorch and, in its NumPy form, in NumPy.
Finite differences and NumPy are references that do not need PyTorch; where PyTorch is absent its comparisons skip.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastgrad

# -------------------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Input:
    """A shape and what its values are."""

    shape: tuple[int, ...]
    kind: str = "any"
    high: int = 1

    def array(self, seed: int, dtype: str = "float64") -> np.ndarray:
        rng = np.random.default_rng(seed)
        if self.kind == "index":
            return rng.integers(0, self.high, self.shape)
        if self.kind == "mask":
            return np.asarray(rng.integers(0, 2, self.shape), dtype=bool)
        values = {
            "any": lambda: rng.uniform(-2, 2, self.shape),
            "positive": lambda: rng.uniform(0.3, 2, self.shape),
            "unit": lambda: rng.uniform(0.05, 0.95, self.shape),
        }[self.kind]()
        return np.asarray(values, dtype=dtype)


def positive(*shape: int) -> Input:
    return Input(shape, "positive")


def unit(*shape: int) -> Input:
    return Input(shape, "unit")


def mask(*shape: int) -> Input:
    return Input(shape, "mask")


def index(high: int, *shape: int) -> Input:
    return Input(shape, "index", high)


@dataclass(frozen=True)
class Case:
    source: str
    inputs: dict[str, Input]
    numpy: str = ""
    smooth: bool = True  # has gradients

    def __str__(self) -> str:
        return f"{self.source} {' '.join(str(list(i.shape)).replace(' ', '') for i in self.inputs.values())}"

    def arrays(self, dtype: str = "float64") -> dict[str, np.ndarray]:
        seed = zlib.crc32(self.source.encode())
        return {name: given.array(seed + k, dtype) for k, (name, given) in enumerate(self.inputs.items())}


def case(source: str, numpy: str = "", smooth: bool = True, **inputs: Any) -> Case:
    given = {name: spec if isinstance(spec, Input) else Input(spec) for name, spec in inputs.items()}
    return Case(source, given, numpy, smooth)


SHAPES = ((), (2, 0, 3), (3, 4), (1100,))
PAIRS = (
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((3, 1), (1, 4)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((), ()),
    ((0, 3), (3,)),
    ((1,), (0,)),
    ((2, 1, 3), (4, 1)),
    ((1, 1), (5,)),
)
UNARY = (
    ("-a", "-a", "any"),
    ("torch.neg(a)", "-a", "any"),
    ("a.abs()", "np.abs(a)", "any"),
    ("torch.sign(a)", "np.sign(a)", "any"),
    ("a.exp()", "np.exp(a)", "any"),
    ("torch.log(a)", "np.log(a)", "positive"),
    ("torch.log1p(a)", "np.log1p(a)", "positive"),
    ("a.sqrt()", "np.sqrt(a)", "positive"),
    ("torch.square(a)", "np.square(a)", "any"),
    ("a.reciprocal()", "np.reciprocal(a)", "positive"),
    ("a.sin()", "np.sin(a)", "any"),
    ("torch.cos(a)", "np.cos(a)", "any"),
    ("torch.tanh(a)", "np.tanh(a)", "any"),
    ("a.sigmoid()", "1 / (1 + np.exp(-a))", "any"),
    ("torch.relu(a)", "np.maximum(a, 0)", "any"),
    ("F.relu(a)", "np.maximum(a, 0)", "any"),
    ("a ** 2", "a ** 2", "any"),
    ("a ** 3", "a ** 3", "any"),
    ("a ** -1", "1 / a", "positive"),
    ("a.pow(2.5)", "a ** 2.5", "positive"),
    ("a ** 0", "a ** 0", "any"),
    ("1.5 ** a", "1.5 ** a", "any"),
    ("a + 1.5", "a + 1.5", "any"),
    ("2 - a", "2 - a", "any"),
    ("a * 3", "a * 3", "any"),
    ("a / 4", "a / 4", "any"),
    ("3 / a", "3 / a", "positive"),
    ("a.clamp(-0.5, 1)", "np.clip(a, -0.5, 1)", "any"),
    ("torch.clamp(a, min=0.1)", "np.maximum(a, 0.1)", "any"),
    ("a.clamp(max=0.1)", "np.minimum(a, 0.1)", "any"),
    ("torch.where(a > 0, a, 0.25)", "np.where(a > 0, a, 0.25)", "any"),
    ("a.clone()", "a", "any"),
)
FURTHER_UNARY = (
    ("torch.exp2(a)", "np.exp2(a)", "any"),
    ("torch.expm1(a)", "np.expm1(a)", "any"),
    ("torch.log2(a)", "np.log2(a)", "positive"),
    ("torch.log10(a)", "np.log10(a)", "positive"),
    ("torch.rsqrt(a)", "1 / np.sqrt(a)", "positive"),
    ("torch.tan(a)", "np.tan(a)", "unit"),
    ("torch.erf(a)", "np.vectorize(math.erf, otypes=[float])(a)", "any"),
    ("torch.asin(a)", "np.arcsin(a)", "unit"),
    ("a.arccos()", "np.arccos(a)", "unit"),
    ("torch.atan(a)", "np.arctan(a)", "any"),
    ("torch.asinh(a)", "np.arcsinh(a)", "any"),
    ("torch.arccosh(a + 1.2)", "np.arccosh(a + 1.2)", "positive"),
    ("a.atanh()", "np.arctanh(a)", "unit"),
    ("torch.erfc(a)", "np.vectorize(math.erfc, otypes=[float])(a)", "any"),
    ("torch.sinc(a)", "np.sinc(a)", "any"),
    ("torch.deg2rad(a)", "np.deg2rad(a)", "any"),
    ("a.rad2deg()", "np.rad2deg(a)", "any"),
    ("torch.xlogy(a, 2.5)", "a * np.log(2.5)", "any"),
    ("torch.xlogy(2.5, a)", "2.5 * np.log(a)", "positive"),
    ("F.softplus(a)", "np.log1p(np.exp(a))", "any"),
    ("F.logsigmoid(a)", "-np.log1p(np.exp(-a))", "any"),
    ("torch.floor(a)", "np.floor(a)", "any"),
    ("a.ceil()", "np.ceil(a)", "any"),
    ("torch.trunc(a)", "np.trunc(a)", "any"),
    ("torch.round(a)", "np.round(a)", "any"),
    ("torch.round(a, decimals=1)", "np.round(a, 1)", "any"),
    ("a % 0.7", "a % 0.7", "any"),
)
BINARY = (
    ("a + b", "a + b", "any"),
    ("torch.add(a, b, alpha=2)", "a + 2 * b", "any"),
    ("a - b", "a - b", "any"),
    ("torch.sub(a, b, alpha=0.5)", "a - 0.5 * b", "any"),
    ("a * b", "a * b", "any"),
    ("torch.mul(a, b)", "a * b", "any"),
    ("a / b", "a / b", "positive"),
    ("torch.div(a, b)", "a / b", "positive"),
    ("a ** b", "a ** b", "positive"),
    ("torch.pow(a, b)", "a ** b", "positive"),
    ("torch.maximum(a, b)", "np.maximum(a, b)", "any"),
    ("torch.minimum(a, b)", "np.minimum(a, b)", "any"),
    ("torch.atan2(a, b)", "np.arctan2(a, b)", "positive"),
    ("a.hypot(b)", "np.hypot(a, b)", "positive"),
    ("torch.xlogy(a, b)", "a * np.log(b)", "positive"),
    ("torch.where(a > b, a, b)", "np.where(a > b, a, b)", "any"),
    ("torch.where(a < b, a * b, b.sin())", "np.where(a < b, a * b, np.sin(b))", "any"),
)
COMPARISONS = (
    ("a == b", "a == b"),
    ("a != b", "a != b"),
    ("a < b", "a < b"),
    ("a <= b", "a <= b"),
    ("a > b", "a > b"),
    ("a >= b", "a >= b"),
    ("torch.eq(a, a)", "a == a"),
    ("torch.logical_and(a > 0, b > 0)", "(a > 0) & (b > 0)"),
    ("torch.logical_or(a, b)", "np.logical_or(a, b)"),
    ("torch.logical_xor(a > 0, b > 0)", "(a > 0) ^ (b > 0)"),
    ("(a > 0) & (b > 0)", "(a > 0) & (b > 0)"),
    ("(a > 0) | (b > 0)", "(a > 0) | (b > 0)"),
    ("torch.isnan(a / b)", "np.isnan(a / b)"),
    ("torch.isfinite(a)", "np.isfinite(a)"),
)


def elementwise_cases() -> Iterator[Case]:
    for (source, numpy, kind), shape in itertools.product(UNARY, SHAPES):
        yield case(source, numpy, a=Input(shape, kind))
    for (source, numpy, kind), (first, second) in itertools.product(BINARY, PAIRS):
        yield case(source, numpy, a=Input(first, kind), b=Input(second, kind))
    for (source, numpy), (first, second) in itertools.product(COMPARISONS, PAIRS[:4]):
        if "b" in source or second == first:
            yield case(source, numpy, smooth=False, a=first, b=second)
    for (source, numpy, kind), shape in itertools.product(FURTHER_UNARY, ((), (3, 4))):
        yield case(source, numpy, a=Input(shape, kind))
    for shape in ((), (3, 4)):  # PyTorch's sinh and cosh overflow early, its erfinv is good to 12 digits near 1
        yield case("torch.sinh(a)", "np.sinh(a)", a=shape)
        yield case("a.cosh()", "np.cosh(a)", a=shape)
        yield case("torch.erfinv(torch.erf(a))", "a", a=unit(*shape))
        yield case("torch.logaddexp(a, b)", "np.logaddexp(a, b)", a=shape, b=(4,))
    yield case("torch.remainder(a, b)", "np.remainder(a, b)", a=(3, 4), b=positive(4))
    yield case("torch.floor_divide(a, b)", "np.floor_divide(a, b)", smooth=False, a=(3, 4), b=positive(4))
    yield case("a // 0.7, 3 // a, i // 2, i % 3, 7 % (i + 1)", smooth=False, a=(5,), i=index(9, 4))
    for name in ("floor", "trunc"):
        yield case(f"torch.div(a, b, rounding_mode='{name}')", f"np.{name}(a / b)", a=(3, 4), b=positive(4))
    yield case("torch.lerp(a, b, 0.3)", "a + 0.3 * (b - a)", a=(3, 4), b=(3, 4))
    yield case("torch.addcmul(a, b, c, value=2)", "a + 2 * b * c", a=(3, 4), b=(4,), c=(3, 1))
    yield case("torch.addcdiv(a, b, c, value=2)", "a + 2 * b / c", a=(3, 4), b=(4,), c=positive(3, 1))
    yield case("a.clamp(b, c)", "np.clip(a, b, c)", a=(3, 4), b=Input((4,)), c=positive(3, 1))
    yield case("torch.isinf(a / 0)", "np.isinf(a * np.inf)", smooth=False, a=(3,))
    yield case("i & 3, i | 4, i ^ 5, ~i", smooth=False, i=index(9, 4))
    yield case("torch.isclose(a, a + 1e-9), torch.allclose(a, a), torch.equal(a, a)", smooth=False, a=(3,))
    yield case("torch.logical_not(a > 0)", "~(a > 0)", smooth=False, a=(3,))
    yield case("~(a > 0)", "~(a > 0)", smooth=False, a=(3,))
    yield case("torch.where(m, a, b)", "np.where(m, a, b)", m=mask(3, 1), a=(3, 4), b=(4,))
    yield case("a.where(m, b)", "np.where(m, a, b)", m=mask(4), a=(3, 4), b=())
    yield case("torch.where(m, 1.5, a)", "np.where(m, 1.5, a)", m=mask(3, 4), a=(3, 4))
    yield case("torch.sigmoid(a) * torch.tanh(a) + a / (1 + a.abs())", a=(7,))


REDUCTIONS = (
    ("a.sum({})", "a.sum({})"),
    ("a.mean({})", "a.mean({})"),
    ("a.var({})", "a.var({}, ddof=1)"),
    ("a.std({})", "a.std({}, ddof=1)"),
    ("a.amax({})", "a.max({})"),
    ("torch.amin(a, {})", "a.min({})"),
    ("a.logsumexp({})", "np.log(np.exp(a).sum({}))"),
)
ONE_AXIS = (
    ("a.prod({})", "a.prod({})"),
    ("a.max({}).values", "a.max({})"),
    ("torch.min(a, {})[0]", "a.min({})"),
    ("a.argmax({})", "a.argmax({})"),
    ("torch.argmin(a, {})", "a.argmin({})"),
    ("torch.max(a, {}).indices", "a.argmax({})"),
)


def reduction_cases() -> Iterator[Case]:
    for shape, axis in (((5,), 0), ((3, 4), 0), ((3, 4), -1), ((2, 3, 4), 1), ((1100, 2), 0), ((2, 1100), 1)):
        for keep in (False, True) if len(shape) < 4 and max(shape) < 9 else (False,):
            arguments = f"dim={axis}, keepdim={keep}", f"axis={axis}, keepdims={keep}"
            for source, numpy in REDUCTIONS + ONE_AXIS:
                if "prod" in source and max(shape) > 9:
                    continue
                extra = (arguments[0], numpy.format(arguments[1]).replace(", , ", ", "))
                yield case(
                    source.format(extra[0]), extra[1], smooth="arg" not in source and "ind" not in source, a=shape
                )
    for shape, axes in (((2, 3, 4), (0, 2)), ((2, 3, 4), (-1, 0)), ((2, 3), (0, 1))):
        for source, numpy in REDUCTIONS:
            yield case(source.format(f"{axes}"), numpy.format(f"axis={axes}"), a=shape)
    for shape in ((), (5,), (3, 4), (1,)):
        for name in ("sum", "mean", "prod", "max", "min"):
            yield case(f"a.{name}()", f"a.{name}()", a=shape)
        for name in ("argmax", "argmin"):
            yield case(f"torch.{name}(a)", f"np.{name}(a)", smooth=False, a=shape)
    for name in ("var", "std"):
        yield case(f"a.{name}()", f"a.{name}(ddof=1)", a=(3, 4))
        yield case(f"a.{name}(unbiased=False)", f"a.{name}()", a=(3, 4))
        yield case(f"torch.{name}(a, dim=1, correction=0)", f"a.{name}(1)", a=(3, 4))
        yield case(f"torch.{name}(a, 0, False)", f"a.{name}(0)", a=(3, 4))
    for source, numpy in (("a.sum()", "a.sum()"), ("a.prod()", "a.prod()"), ("a.sum(0)", "a.sum(0)")):
        yield case(source, numpy, a=(0, 3))
    yield case("a.sum(1)", "a.sum(1)", a=(0, 3))
    yield case("a.amax(1)", "a.max(1)", a=(0, 3))
    yield case("a.mean(1)", "a.mean(1)", a=(0, 3))
    yield case("a.logsumexp(1)", a=(0, 3))
    yield case("a.sum(dim=())", "a.sum()", a=(2, 3))
    yield case("a.sum([0])", "a.sum(0)", a=(2, 3))
    yield case("a.sum(-1, True)", "a.sum(-1, keepdims=True)", a=(2, 3))
    yield case("torch.sum(a, dtype=torch.float64)", "a.sum(dtype=np.float64)", a=(2, 3))
    yield case("a.max(b)", "np.maximum(a, b)", a=(2, 3), b=(3,))
    yield case("torch.min(a, b)", "np.minimum(a, b)", a=(2, 3), b=(3,))
    for name in ("all", "any"):
        yield case(f"torch.{name}(m)", f"np.{name}(m)", smooth=False, m=mask(3, 4))
        yield case(f"m.{name}(1)", f"np.{name}(m, 1)", smooth=False, m=mask(3, 4))
        yield case(f"m.{name}(dim=0, keepdim=True)", f"np.{name}(m, 0, keepdims=True)", smooth=False, m=mask(3, 4))
        yield case(f"a.{name}()", f"np.{name}(a)", smooth=False, a=(3, 4))
        yield case(f"m.{name}()", f"np.{name}(m)", smooth=False, m=mask(0))
    yield case("m.sum()", "m.sum()", smooth=False, m=mask(3, 4))
    yield case("m.sum(0)", "m.sum(0)", smooth=False, m=mask(3, 4))
    yield case("i.sum(), i.prod(), i.max(), i.min(), i.argmax()", smooth=False, i=index(9, 2, 3))
    yield case("i.max(1)", smooth=False, i=index(3, 2, 5))
    yield case("i.amin(0), i.float().mean()", smooth=False, i=index(9, 2, 3))


SHAPING = (
    case("a.reshape(4, 3)", "a.reshape(4, 3)", a=(3, 4)),
    case("a.reshape(-1)", "a.reshape(-1)", a=(2, 3, 4)),
    case("a.reshape((2, -1))", "a.reshape((2, -1))", a=(3, 4)),
    case("torch.reshape(a, (6, 2))", "a.reshape(6, 2)", a=(3, 4)),
    case("a.reshape(())", "a.reshape(())", a=(1,)),
    case("a.reshape(0, 5)", "a.reshape(0, 5)", a=(0, 3)),
    case("a.T.reshape(-1)", "a.T.reshape(-1)", a=(3, 4)),
    case("a.contiguous().view(2, 6)", "a.reshape(2, 6)", a=(3, 4)),
    case("a.contiguous().view(-1, 2)", "a.reshape(-1, 2)", a=(3, 4)),
    case("a.flatten()", "a.flatten()", a=(2, 3)),
    case("a.flatten()", "a.flatten()", a=()),
    case("a.flatten(1)", "a.reshape(2, 12)", a=(2, 3, 4)),
    case("torch.flatten(a, 0, 1)", "a.reshape(6, 4)", a=(2, 3, 4)),
    case("a.squeeze()", "a.squeeze()", a=(1, 3, 1)),
    case("a.squeeze(0)", "a.squeeze(0)", a=(1, 3, 1)),
    case("a.squeeze(1)", "a", a=(1, 3, 1)),
    case("torch.squeeze(a, -1)", "a.squeeze(-1)", a=(1, 3, 1)),
    case("a.squeeze((0, 2))", "a.squeeze((0, 2))", a=(1, 3, 1)),
    case("a.unsqueeze(0)", "a[None]", a=(3,)),
    case("torch.unsqueeze(a, -1)", "a[..., None]", a=(2, 3)),
    case("a.unsqueeze(0)", "a[None]", a=()),
    case("a.transpose(0, 1)", "a.swapaxes(0, 1)", a=(3, 4)),
    case("torch.transpose(a, 0, -1)", "a.swapaxes(0, -1)", a=(2, 3, 4)),
    case("a.permute(2, 0, 1)", "a.transpose(2, 0, 1)", a=(2, 3, 4)),
    case("torch.permute(a, (1, 0))", "a.T", a=(3, 4)),
    case("a.permute(-1, 0, 1)", "a.transpose(-1, 0, 1)", a=(2, 3, 4)),
    case("a.T", "a.T", a=(3, 4)),
    case("a.t()", "a.T", a=(3, 4)),
    case("a.mT", "a.swapaxes(1, 2)", a=(2, 3, 4)),
    case("a.expand(3, 4)", "np.broadcast_to(a, (3, 4))", a=(4,)),
    case("a.expand(-1, 4)", "np.broadcast_to(a, (3, 4))", a=(3, 1)),
    case("a.expand(2, 3)", "np.broadcast_to(a, (2, 3))", a=()),
    case("a.expand((2, 3, 4))", "np.broadcast_to(a, (2, 3, 4))", a=(3, 1)),
    case("a.expand_as(b) * b", "a * b", a=(3, 1), b=(3, 4)),
    case("torch.cat([a, b])", "np.concatenate([a, b])", a=(2, 3), b=(1, 3)),
    case("torch.cat((a, b, a), dim=1)", "np.concatenate((a, b, a), 1)", a=(2, 3), b=(2, 1)),
    case("torch.cat([a, b], -1)", "np.concatenate([a, b], -1)", a=(2, 3), b=(2, 0)),
    case("torch.cat([a])", "a", a=(2,)),
    case("torch.stack([a, b])", "np.stack([a, b])", a=(2, 3), b=(2, 3)),
    case("torch.stack([a, b], dim=-1)", "np.stack([a, b], -1)", a=(2, 3), b=(2, 3)),
    case("torch.stack((a, a, b))", "np.stack((a, a, b))", a=(), b=()),
    case("a.split(2)", "np.split(a, [2, 4])", a=(5, 2)),
    case("torch.split(a, [1, 3, 1], dim=1)", "np.split(a, [1, 4], 1)", a=(2, 5)),
    case("a.split(7)", "[a]", a=(5,)),
    case("a.chunk(2)", "np.array_split(a, 2)", a=(5,)),
    case("torch.chunk(a, 4, dim=-1)", a=(2, 6)),
    case("a.chunk(3, 1)[1]", "a[:, 2:4]", a=(2, 6)),
    case("b, c = a.split(1); b * c", "a[0:1] * a[1:2]", a=(2, 3)),
)
INDEXING = (
    case("a[1]", "a[1]", a=(3, 4)),
    case("a[-1, 2]", "a[-1, 2]", a=(3, 4)),
    case("a[1:]", "a[1:]", a=(3, 4)),
    case("a[:, ::2]", "a[:, ::2]", a=(3, 5)),
    case("a[..., -1]", "a[..., -1]", a=(2, 3, 4)),
    case("a[None]", "a[None]", a=(3,)),
    case("a[:, None, 1]", "a[:, None, 1]", a=(3, 4)),
    case("a[2:1]", "a[2:1]", a=(3, 4)),
    case("a[-100:100:3]", "a[-100:100:3]", a=(7,)),
    case("a[...]", "a[...]", a=(3, 4)),
    case("a[()]", "a[()]", a=(3, 4)),
    case("a[0, ..., None, 1:3]", "a[0, ..., None, 1:3]", a=(2, 3, 4)),
    case("a[1:][0]", "a[1:][0]", a=(3, 4)),
    case("a.T[1:, ::2]", "a.T[1:, ::2]", a=(3, 4)),
    case("a[i]", "a[i]", a=(3, 4), i=index(3, 5)),
    case("a[i]", "a[i]", a=(3, 4), i=index(3, 2, 2)),
    case("a[i]", "a[i]", a=(3, 4), i=index(3)),
    case("a[i]", "a[i]", a=(3, 4), i=index(3, 0)),
    case("a[-1 - i]", "a[-1 - i]", a=(3, 4), i=index(3, 5)),
    case("a[:, i]", "a[:, i]", a=(3, 4), i=index(4, 5)),
    case("a[i, j]", "a[i, j]", a=(3, 4), i=index(3, 5), j=index(4, 5)),
    case("a[i, j]", "a[i, j]", a=(3, 4), i=index(3, 2, 1), j=index(4, 3)),
    case("a[i, 1]", "a[i, 1]", a=(3, 4), i=index(3, 5)),
    case("a[1:, i]", "a[1:, i]", a=(3, 4), i=index(4, 2)),
    case("a[i, :, j]", "a[i, :, j]", a=(3, 4, 5), i=index(3, 2), j=index(5, 2)),
    case("a[:, i, j]", "a[:, i, j]", a=(3, 4, 5), i=index(4, 2), j=index(5, 2)),
    case("a[i, None]", "a[i, None]", a=(3, 4), i=index(3, 2)),
    case("a[..., i]", "a[..., i]", a=(2, 3, 4), i=index(4, 2)),
    case("a[[0, 2, 0]]", "a[[0, 2, 0]]", a=(3, 4)),
    case("a[:, [1, -1]]", "a[:, [1, -1]]", a=(3, 4)),
    case("a[[0, 1], [1, 2]]", "a[[0, 1], [1, 2]]", a=(3, 4)),
    case("a[m]", "a[m]", a=(3, 4), m=mask(3, 4)),
    case("a[m]", "a[m]", a=(3, 4), m=mask(3)),
    case("a[:, m]", "a[:, m]", a=(3, 4), m=mask(4)),
    case("a[a > 0]", "a[a > 0]", a=(3, 4)),
    case("a[torch.arange(3), i]", "a[np.arange(3), i]", a=(3, 4), i=index(4, 3)),
    case("torch.gather(a, 0, i)", "np.take_along_axis(a, i, 0)", a=(3, 4), i=index(3, 2, 4)),
    case("a.gather(1, i)", "np.take_along_axis(a, i, 1)", a=(3, 4), i=index(4, 3, 6)),
    case("a.gather(-1, i)", "np.take_along_axis(a, i, -1)", a=(5,), i=index(5, 2)),
    case("a.gather(1, i)", a=(3, 4), i=index(4, 2, 2)),
    case("torch.index_select(a, 1, i)", "np.take(a, i, 1)", a=(3, 4), i=index(4, 3)),
    case("a.index_select(0, i)", "np.take(a, i, 0)", a=(3, 4), i=index(3, 6)),
    case("a.index_add(0, i, b)", a=(3, 4), i=index(3, 5), b=(5, 4)),
    case("torch.index_add(a, 1, i, b, alpha=2)", a=(3, 4), i=index(4, 2), b=(3, 2)),
    case("torch.nonzero(m)", "np.argwhere(m)", smooth=False, m=mask(3, 4)),
    case("i[1:], i[i > 1], i[::2]", smooth=False, i=index(5, 7)),
)
WRITING = (
    case("x = a * 1; x[1] = b; x", a=(3, 4), b=(4,)),
    case("x = a * 1; x[:, 2] = 5; x", a=(3, 4)),
    case("x = a * 1; x[1:, ::2] = b; x", a=(3, 4), b=(2, 2)),
    case("x = a * 1; x[...] = b; x", a=(3, 4), b=()),
    case("x = a * 1; x[0, 1] = b.sum(); x", a=(3, 4), b=(2,)),
    case("x = a * 1; x[[2, 0]] = b; x", a=(3, 4), b=(2, 4)),
    case("x = a * 1; x[[0, 2]] = 1.5; x", a=(3, 4)),
    case("x = a * 1; x[m] = 0.5; x", a=(3, 4), m=mask(3, 4)),
    case("x = a * 1; x[x > 0] = b; x", a=(3, 4), b=()),
    case("x = a * 1; x[[0, 1], [2, 3]] = b; x", a=(3, 4), b=(2,)),
    case("x = a * 1; x[1] += b; x", a=(3, 4), b=(4,)),
    case("x = a * 1; x[1] *= x[0].clone(); x", a=(3, 4)),
    case("x = torch.zeros(3, 4, dtype=a.dtype); x[1] = a; x", a=(4,)),
    case("x = torch.zeros(3, dtype=a.dtype); x[0] = a; x[1] = a * a; x[2] = x[0].clone() * x[1].clone(); x", a=()),
    case("x = a * 1; x[1:] = x[:-1] * 2; x", a=(4, 2)),
    case("x = a * 1; x.add_(b); x", a=(3, 4), b=(4,)),
    case("x = a * 1; x.add_(b, alpha=3); x", a=(3, 4), b=()),
    case("x = a * 1; x.sub_(b); x", a=(3, 4), b=(3, 1)),
    case("x = a * 1; x.mul_(b); x", a=(3, 4), b=(4,)),
    case("x = a * 1; x.mul_(2).add_(1); x", a=(3, 4)),
    case("x = a * 1; x.div_(b); x", a=(3, 4), b=positive(4)),
    case("x = a * 1; x += b; x -= 2; x *= b; x /= 4; x", a=(3, 4), b=(4,)),
    case("x = a * 1; x **= 2; x", a=(3,)),
    case("x = a * 1; y = x + x; x.zero_(); x + y", "a + a", a=(3,)),
    case("x = a * 1; x.fill_(2.5); x + a", a=(3,)),
    case("x = a * 1; x.copy_(b); x * a", a=(3, 4), b=(4,)),
    case("x = a * 1; y = x[1]; y.mul_(3); x", a=(3, 4)),
    case("x = a * 1; y = x.T; y[0] = 1; x + y.T", a=(3, 4)),
    case("x = a.contiguous() * 1; y = x.view(12); y[::5] = 0; x", a=(3, 4)),
    case("x = a * 1; y, z = x[0], x[0]; y.add_(1); z.mul_(2); x * y", a=(3, 4)),
    case("x = a * 1; y = x[1:]; x.mul_(2); y", a=(3, 4)),
    case("x = a.contiguous() * 1; y = x.reshape(2, 6)[1]; y *= b; x", a=(3, 4), b=(6,)),
    case("x = a * 1; y = x.unsqueeze(0).transpose(0, 1); y[2] += 1; x", a=(3, 4)),
    case("x = a.contiguous() * 1; y = x.flatten(); y.add_(b); x", a=(3, 4), b=()),
    case("x = a.tanh() + 0; x[1] = 0; x.sum() * x", a=(3,)),
)
FURTHER = (
    case("a.repeat(2, 3)", "np.tile(a, (2, 3))", a=(3, 2)),
    case("torch.movedim(a, 0, 2)", "np.moveaxis(a, 0, 2)", a=(2, 3, 4)),
    case("torch.narrow(a, 1, 1, 2)", "a[:, 1:3]", a=(3, 4)),
    case("torch.unbind(a, 1)", "[a[:, 0], a[:, 1]]", a=(3, 2)),
    case("a.select(1, -1)", "a[:, -1]", a=(3, 4)),
    case("torch.hstack([a, b])", "np.hstack([a, b])", a=(3, 2), b=(3, 1)),
    case("torch.vstack([a, b])", "np.vstack([a, b])", a=(3,), b=(2, 3)),
    case("torch.tril(a, -1)", "np.tril(a, -1)", a=(3, 4)),
    case("a.triu(1)", "np.triu(a, 1)", a=(2, 3, 4)),
    case("torch.flip(a, (0, 1))", "np.flip(a, (0, 1))", a=(2, 3)),
    case("a.view_as(b) * b", "a.reshape(b.shape) * b", a=(6,), b=(2, 3)),
    case("torch.cumsum(a, 1)", "np.cumsum(a, 1)", a=(3, 4)),
    case("torch.diagonal(a, 1)", "np.diagonal(a, 1)", a=(3, 4)),
    case("torch.diag(a)", "np.diag(a)", a=(3,)),
    case("torch.diag(a, -1)", "np.diag(a, -1)", a=(3, 3)),
    case("torch.trace(a)", "np.trace(a)", a=(3, 4)),
    case("torch.norm(a)", "np.linalg.norm(a)", a=(3, 4)),
    case("a.norm(2, 1)", "np.linalg.norm(a, 2, 1)", a=(3, 4)),
    case("a.norm(1)", "np.abs(a).sum()", a=(5,)),
    case("torch.addmm(a, b, c, beta=2, alpha=0.5)", "2 * a + 0.5 * b @ c", a=(4,), b=(2, 3), c=(3, 4)),
    case("torch.baddbmm(a, b, c)", "a + b @ c", a=(5, 2, 4), b=(5, 2, 3), c=(5, 3, 4)),
    case("a.masked_fill(m, -1.5)", "np.where(m, -1.5, a)", a=(3, 4), m=mask(3, 4)),
    case("torch.masked_select(a, m)", "a[m]", a=(3, 4), m=mask(3, 4)),
    case("torch.scatter(a, 0, i, b)", a=(3, 4), i=index(1, 1, 4), b=(1, 4)),
    case("a.scatter(1, i, 2.5)", a=(3, 4), i=index(4, 3, 2)),
    case("torch.scatter_add(a, 0, i, b)", a=(3, 4), i=index(3, 5, 4), b=(5, 4)),
    case("a.index_copy(0, i, b)", a=(3, 4), i=index(3, 1), b=(1, 4)),
    case("a.index_fill(1, i, 9.0)", a=(3, 4), i=index(4, 2)),
    case("torch.take(a, i)", "np.take(a, i)", a=(3, 4), i=index(12, 2, 2)),
    case("torch.topk(a, 2)", a=(3, 5)),
    case("a.topk(2, 0, largest=False).values", a=(3, 5)),
    case("torch.sort(a, 1)[0]", "np.sort(a, 1)", a=(3, 5)),
    case("a.sort(descending=True)", a=(5,)),
    case("torch.argsort(a)", "np.argsort(a)", smooth=False, a=(3, 5)),
    case("torch.unique(i)", "np.unique(i)", smooth=False, i=index(4, 9)),
    case("torch.unique(i, return_inverse=True, return_counts=True)", smooth=False, i=index(4, 9)),
    case("torch.repeat_interleave(a, 3, 0)", "np.repeat(a, 3, 0)", a=(2, 3)),
    case("torch.where(m)", "list(np.where(m))", smooth=False, m=mask(3, 4)),
)
PRODUCTS = (
    *(
        case("a @ b", "a @ b", a=first, b=second)
        for first, second in (
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 4)),
            ((2, 3), (3, 4)),
            ((1, 3), (3, 1)),
            ((2, 3), (2, 3, 4)),
            ((2, 2, 3), (3, 4)),
            ((2, 2, 3), (3,)),
            ((3,), (2, 3, 4)),
            ((5, 2, 3), (5, 3, 4)),
            ((5, 1, 2, 3), (4, 3, 2)),
            ((1, 2, 3), (5, 3, 4)),
            ((0, 3), (3, 4)),
            ((2, 0), (0, 4)),
            ((0,), (0,)),
            ((2, 3), (3, 0)),
            ((0, 2, 3), (0, 3, 4)),
            ((17, 33), (33, 9)),
            ((70, 40), (40, 65)),
        )
    ),
    case("torch.matmul(a, b.T)", "a @ b.T", a=(2, 3), b=(4, 3)),
    case("a.T @ b.T", "a.T @ b.T", a=(3, 2), b=(4, 3)),
    case("a.T @ a", "a.T @ a", a=(3, 2)),
    case("a[:, ::2] @ b[1:]", "a[:, ::2] @ b[1:]", a=(3, 4), b=(3, 2)),
    case("a.mT @ b", "a.swapaxes(1, 2) @ b", a=(2, 3, 4), b=(2, 3, 5)),
    case("a.expand(2, 3, 4) @ b", "a @ b", a=(3, 4), b=(2, 4, 2)),
    case("a.matmul(b).relu() @ b.T", a=(2, 3), b=(3, 4)),
    case("torch.mm(a, b)", "a @ b", a=(2, 3), b=(3, 4)),
    case("torch.bmm(a, b)", "a @ b", a=(5, 2, 3), b=(5, 3, 4)),
    case("torch.mv(a, b)", "a @ b", a=(2, 3), b=(3,)),
    case("torch.dot(a, b)", "a @ b", a=(3,), b=(3,)),
    case("a.dot(a)", "a @ a", a=(4,)),
    case("torch.outer(a, b)", "np.outer(a, b)", a=(3,), b=(4,)),
    case("F.linear(a, b)", "a @ b.T", a=(2, 3), b=(4, 3)),
    case("F.linear(a, b, c)", "a @ b.T + c", a=(2, 3), b=(4, 3), c=(4,)),
    case("F.linear(a, b, c)", "a @ b.T + c", a=(5, 2, 3), b=(4, 3), c=(4,)),
    case("F.linear(a, b, c)", "a @ b.T + c", a=(3,), b=(4, 3), c=(4,)),
)
LOSSES = (
    case("F.softmax(a, dim=1)", "np.exp(a) / np.exp(a).sum(1, keepdims=True)", a=(3, 4)),
    case("torch.softmax(a, 0)", "np.exp(a) / np.exp(a).sum(0)", a=(3, 4)),
    case("a.softmax(-1)", "np.exp(a) / np.exp(a).sum(-1, keepdims=True)", a=(2, 3, 4)),
    case("F.softmax(a, dim=0)", a=()),
    case("F.softmax(a, dim=1)", a=(2, 0)),
    case("F.softmax(a * 400, dim=0)", a=(5,)),
    case("F.softmax(a, dim=0, dtype=torch.float64)", a=(5,)),
    case("F.log_softmax(a, dim=1)", "a - np.log(np.exp(a).sum(1, keepdims=True))", a=(3, 4)),
    case("torch.log_softmax(a, -1)", "a - np.log(np.exp(a).sum(-1, keepdims=True))", a=(2, 3, 4)),
    case("a.log_softmax(0) * 2", a=(5,)),
    case("torch.logsumexp(a * 400, 0)", a=(5,)),
    case("F.mse_loss(a, b)", "((a - b) ** 2).mean()", a=(3, 4), b=(3, 4)),
    case("F.mse_loss(a, b, reduction='sum')", "((a - b) ** 2).sum()", a=(3, 4), b=(3, 4)),
    case("F.mse_loss(a, b, reduction='none')", "(a - b) ** 2", a=(3, 4), b=(3, 4)),
    *(
        case(f"F.{name}({inner}, i{more})", a=shape, i=index(4, *batch))
        for name, inner in (("cross_entropy", "a"), ("nll_loss", "F.log_softmax(a, 1)"))
        for more in ("", ", reduction='sum'", ", reduction='none'", ", ignore_index=2")
        for shape, batch in (((3, 4), (3,)), ((2, 4, 3), (2, 3)))
    ),
    case("F.cross_entropy(a, i)", a=(4,), i=index(4)),
    case("F.cross_entropy(a, i, weight=w)", a=(3, 4), i=index(4, 3), w=positive(4)),
    case("F.cross_entropy(a, i, label_smoothing=0.1)", a=(3, 4), i=index(4, 3)),
    case("F.cross_entropy(a, b)", a=(3, 4), b=unit(3, 4)),
    case("F.nll_loss(F.log_softmax(a, 1), i, weight=w)", a=(3, 4), i=index(4, 3), w=positive(4)),
    case("F.binary_cross_entropy_with_logits(a, b)", a=(3, 4), b=unit(3, 4)),
    case("F.binary_cross_entropy_with_logits(a, b, reduction='sum')", a=(5,), b=unit(5)),
    case("F.binary_cross_entropy_with_logits(a * 100, b, reduction='none')", a=(5,), b=unit(5)),
    case("F.binary_cross_entropy_with_logits(a, b, weight=w)", a=(3, 4), b=unit(3, 4), w=positive(4)),
    case("F.binary_cross_entropy_with_logits(a, b, pos_weight=w)", a=(3, 4), b=unit(3, 4), w=positive(4)),
    case("F.one_hot(i)", smooth=False, i=index(4, 5)),
    case("F.one_hot(i, num_classes=6)", smooth=False, i=index(4, 2, 3)),
    case("F.dropout(a, 0.5, training=False)", "a", a=(3, 4)),
    case("F.dropout(a, 0.0)", "a", a=(3, 4)),
    case("F.dropout(a, p=1.0)", "0 * a", a=(3, 4)),
    case("F.relu(a), torch.tanh(a), F.sigmoid(a)", a=(3, 4)),
)
CONVERSIONS = (
    case("a.double() * 2", a=(3,)),
    case("a.to(torch.float64).sin()", a=(3,)),
    case("a.type(torch.float64)", a=(3,)),
    case("a.to('cpu')", a=(3,)),
    case("a.to(b)", a=(3,), b=(1,)),
    case("a.to(dtype=torch.float32).double()", a=(3,)),
    case("a.float(), a.long(), a.int(), a.bool(), a.to(torch.uint8)", smooth=False, a=positive(3, 4)),
    case("i.float() / 3, i.double(), i.bool(), i.int()", smooth=False, i=index(5, 4)),
    case("m.float(), m.long(), m * 2, m + m, m * 1.5", smooth=False, m=mask(5)),
    case("a * i", a=(3, 4), i=index(5, 4)),
    case("a * m", a=(3, 4), m=mask(4)),
    case("i / 2, i * 2, i + 0.5, i - 1, i ** 2, i == 2, -i, i.abs()", smooth=False, i=index(5, 4)),
    case("a.detach() * a", "a * a", a=(3,)),
    case("a.contiguous(), a.T.contiguous()", a=(3, 4)),
    case("torch.zeros_like(a) + a, torch.ones_like(a), torch.full_like(a, 3)", a=(3, 4)),
    case("a.numel(), a.ndim, a.dim(), a.shape[0], a.size(1), tuple(a.size()), len(a)", smooth=False, a=(3, 4)),
    case("a.is_floating_point(), a.element_size(), a.is_contiguous(), a.T.is_contiguous()", smooth=False, a=(3, 4)),
    case("a.T.stride(), a[:, ::2].stride(), a.stride(0)", smooth=False, a=(3, 4)),
)

CASES = (
    *elementwise_cases(),
    *reduction_cases(),
    *SHAPING,
    *INDEXING,
    *WRITING,
    *FURTHER,
    *PRODUCTS,
    *LOSSES,
    *CONVERSIONS,
)
SMOOTH = tuple(c for c in CASES if c.smooth)
# in float64 all the way, and every value moves with its input
MOVING = tuple(c for c in SMOOTH if "float32" not in c.source and "detach" not in c.source)


def each(cases: tuple[Case, ...]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[str(c).encode("unicode_escape").decode() for c in cases])


# ------------------------------------------------------------------------------------------------------------ running


def evaluate(source: str, names: dict[str, Any]) -> Any:
    """The value of the last expression after the statements before it."""
    *statements, last = source.split("; ")
    scope = dict(names)
    exec("\n".join(statements), scope)
    return eval(last, scope)


def run(source: str, module: Any, **tensors: Any) -> list[Any]:
    """All results of a case, as a flat list."""
    result = evaluate(source, {"torch": module, "F": module.nn.functional, "np": np, **tensors})
    return list(result) if isinstance(result, tuple | list) else [result]


def shown(value: Any) -> np.ndarray:
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


def assert_close(ours: Any, theirs: Any, tolerance: float, what: str = "") -> None:
    """The same dtype and shape, values within `tolerance` of their largest, NaN and infinity in the same places."""
    a, b = shown(ours), shown(theirs)
    assert a.dtype == b.dtype, f"{what}dtype {a.dtype}, expected {b.dtype}"
    assert a.shape == b.shape, f"{what}shape {a.shape}, expected {b.shape}"
    scale = np.max(np.abs(b[np.isfinite(b)]), initial=1.0) if b.dtype.kind == "f" else 0
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=what)


def moving(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs that a gradient is taken for."""
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f" and name != "w"}


def leaves(case: Case, module: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    smooth = moving(arrays) if case.smooth else {}
    return {name: module.tensor(array, requires_grad=name in smooth) for name, array in arrays.items()}


def scalar(results: list[Any], module: Any) -> Any:
    """A weighted sum of all differentiable results: every element has its own weight."""
    total = 0.0
    for k, y in enumerate(r for r in results if r.requires_grad):
        weights = np.cos(np.arange(math.prod(y.shape)) + k).reshape(tuple(y.shape)).astype(shown(y).dtype)
        total = total + (y * module.tensor(weights)).sum()
    return total


def gradients(case: Case, module: Any, arrays: dict[str, np.ndarray], order: int = 1) -> list[Any]:
    """Gradients of `scalar` for every float input, of order 1, or 1 and 2 (None where there is none)."""
    tensors = leaves(case, module, arrays)
    inputs = [t for t in tensors.values() if t.requires_grad]
    loss = scalar(run(case.source, module, **tensors), module)
    first = module.autograd.grad(loss, inputs, create_graph=order > 1, allow_unused=True)
    if order == 1:
        return list(first)
    total = sum((x * x).sum() / 2 for x in inputs)
    total = total + scalar([g for g in first if g is not None], module)
    return [*first, *module.autograd.grad(total, inputs, allow_unused=True)]


# -------------------------------------------------------------------------------------------------- values, gradients


@each(CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_dtypes_and_shapes_are_pytorch_s(case: Case, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    arrays = case.arrays(dtype)
    theirs = run(case.source, torch, **leaves(case, torch, arrays))
    ours = run(case.source, fastgrad, **leaves(case, fastgrad, arrays))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, 1e-12 if dtype == "float64" else 4e-6)
        assert getattr(a, "requires_grad", None) == getattr(b, "requires_grad", None)


@each(tuple(c for c in CASES if c.numpy))
def test_values_are_numpy_s(case: Case) -> None:
    arrays = case.arrays()
    theirs = evaluate(case.numpy, {"np": np, "math": math, **arrays})
    ours = run(case.source, fastgrad, **leaves(case, fastgrad, arrays))
    theirs = theirs if isinstance(theirs, list) else [theirs]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, np.asarray(b), 1e-12)


@each(SMOOTH)
def test_first_and_second_gradients_are_pytorch_s(case: Case) -> None:
    torch = pytest.importorskip("torch")
    theirs = gradients(case, torch, case.arrays(), order=2)
    ours = gradients(case, fastgrad, case.arrays(), order=2)
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        order = "first gradient: " if k < len(ours) // 2 else "second gradient: "
        assert (a is None) == (b is None), f"{order}{a}, expected {b}"
        if a is not None:
            assert_close(a, b, 1e-10, order)


@each(SMOOTH)
def test_float32_gradients_are_pytorch_s(case: Case) -> None:
    torch = pytest.importorskip("torch")
    for a, b in zip(*(gradients(case, m, case.arrays("float32")) for m in (fastgrad, torch)), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, 1e-5)


def slopes(
    function: Callable[[dict[str, np.ndarray]], float], arrays: dict[str, np.ndarray], gradient: list[Any]
) -> Iterator[tuple[float, float]]:
    """Along three random directions: the derivative by central differences, and by the gradient."""
    names = list(moving(arrays))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        direction = {name: rng.choice([-1.0, 1.0], arrays[name].shape) for name in names}
        step = 1e-5
        ahead, behind = (
            function({**arrays, **{name: arrays[name] + sign * step * direction[name] for name in names}})
            for sign in (1, -1)
        )
        inner = sum(
            float((shown(g) * direction[name]).sum()) for name, g in zip(names, gradient, strict=True) if g is not None
        )
        yield (ahead - behind) / (2 * step), inner


@each(MOVING)
def test_gradients_are_the_finite_differences(case: Case) -> None:
    arrays = case.arrays()

    def value(moved: dict[str, np.ndarray]) -> float:
        return scalar(run(case.source, fastgrad, **leaves(case, fastgrad, moved)), fastgrad).item()

    for difference, slope in slopes(value, arrays, gradients(case, fastgrad, arrays)):
        assert slope == pytest.approx(difference, rel=1e-6, abs=1e-6)


@each(MOVING)
def test_second_gradients_are_the_finite_differences(case: Case) -> None:
    arrays = case.arrays()

    def value(moved: dict[str, np.ndarray]) -> float:
        """The function whose gradient is the second gradient: the first gradients, weighted, and x²/2."""
        first = [shown(g) for g in gradients(case, fastgrad, moved) if g is not None]
        weighted = (g * np.cos(np.arange(g.size) + k).reshape(g.shape) for k, g in enumerate(dependent(first)))
        squares = (array**2 / 2 for array in moving(moved).values())
        return float(sum(w.sum() for w in weighted) + sum(s.sum() for s in squares))

    tensors = leaves(case, fastgrad, arrays)
    inputs = [t for t in tensors.values() if t.requires_grad]
    loss = scalar(run(case.source, fastgrad, **tensors), fastgrad)
    graph = [g for g in fastgrad.autograd.grad(loss, inputs, create_graph=True, allow_unused=True) if g is not None]

    def dependent(first: list[np.ndarray]) -> list[np.ndarray]:
        return [g for g, recorded in zip(first, graph, strict=True) if recorded.requires_grad]

    second = gradients(case, fastgrad, arrays, order=2)[len(inputs) :]
    for difference, slope in slopes(value, arrays, second):
        assert slope == pytest.approx(difference, rel=1e-5, abs=1e-5)


def laid_out(module: Any, array: np.ndarray, how: str, requires_grad: bool) -> tuple[Any, Any]:
    """A leaf, and a view of it with the array's values in another memory layout."""
    if how == "transposed":
        leaf = module.tensor(np.array(array.T, order="C"), requires_grad=requires_grad)
        return leaf, leaf.permute(*reversed(range(array.ndim))) if array.ndim > 1 else leaf
    if how == "strided":
        leaf = module.tensor(np.repeat(array, 2, axis=-1) if array.ndim else array, requires_grad=requires_grad)
        return leaf, leaf[..., ::2] if array.ndim else leaf
    padded = np.zeros(tuple(n + 2 for n in array.shape), array.dtype)  # offset: a window into something larger
    padded[(slice(1, -1),) * array.ndim] = array
    leaf = module.tensor(padded, requires_grad=requires_grad)
    return leaf, leaf[(slice(1, -1),) * array.ndim] if array.ndim else leaf


@each(tuple(c for c in CASES if "stride" not in c.source and "contiguous()" not in c.source))
def test_the_memory_layout_of_the_inputs_does_not_matter(case: Case) -> None:
    arrays = case.arrays()
    plain = run(case.source, fastgrad, **leaves(case, fastgrad, arrays))
    expected = gradients(case, fastgrad, arrays) if case.smooth else []
    for how in ("transposed", "strided", "window"):
        assert_layout_does_not_matter(case, arrays, how, plain, expected)


def assert_layout_does_not_matter(
    case: Case, arrays: dict[str, np.ndarray], how: str, plain: list[Any], expected: list[Any]
) -> None:
    smooth = moving(arrays) if case.smooth else {}
    pairs = {name: laid_out(fastgrad, array, how, name in smooth) for name, array in arrays.items()}
    views = {name: view for name, (_, view) in pairs.items()}
    moved = run(case.source, fastgrad, **views)
    for a, b in zip(moved, plain, strict=True):
        assert_close(a, b, 1e-13, f"{how}: ")
    if case.smooth:
        inputs = [view for view in views.values() if view.requires_grad]
        ours = fastgrad.autograd.grad(scalar(moved, fastgrad), inputs, allow_unused=True)
        for a, b in zip(ours, expected, strict=True):
            assert (a is None) == (b is None), how
            if a is not None:
                assert_close(a, b, 1e-12, f"{how}: ")


def test_a_write_after_a_use_leaves_the_gradient_of_the_value_that_was_used() -> None:
    """PyTorch refuses these backward passes; here tensors are values on the tape."""
    a = fastgrad.tensor([0.5, -1.0, 2.0], dtype=fastgrad.float64, requires_grad=True)
    x = a * 1
    y = x * x
    x.zero_()
    z = x.exp()
    x[1] = 5
    (y * z).sum().backward()
    assert a.grad.tolist() == [1.0, -2.0, 4.0]

    b = fastgrad.tensor([2.0, 3.0], requires_grad=True)
    loss = (b * b).sum()
    with fastgrad.no_grad():
        b.mul_(100)
    loss.backward()
    assert b.grad.tolist() == [4.0, 6.0]
    assert b.tolist() == [200.0, 300.0]

    c = fastgrad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = c * 1
    x[1] *= x[0]
    x[2] = x[1] * x[2]
    x.sum().backward()
    assert x.tolist() == [1.0, 2.0, 6.0]
    assert c.grad.tolist() == [1.0 + 2.0 + 6.0, 1.0 + 3.0, 2.0]


# ------------------------------------------------------------------------------------------------------ special values

SPECIAL = (
    *(math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-8, -1e-8, 2.0, 3.0, -3.0, 10.0, -10.0),
    *(20.0, 50.0, -50.0, 88.0, 89.0, -87.5, -104.0, 709.0, 710.0, -745.0, -746.0, math.pi, 100.0, 12345.678, 1e5, -1e5),
    *(1e10, 1e30, 1e38, -1e38, 1e-30, 1e-38, 1e-42, 0.9999999, 1.0000001, -0.9999999),
)
HUGE = (1e300, -1e300, 1e-300, 5e-324, 1e16, 1e200)
SPECIAL_UNARY = sorted(
    {source for source, _, _ in UNARY + FURTHER_UNARY} | {"torch.isnan(a)", "torch.isfinite(a)", "a.logsumexp(0)"}
)
SPECIAL_UNARY += ["F.softmax(a, 0)", "F.log_softmax(a, 0)", "a.amax(0)", "a.max()", "a.min(0)", "a.sum()", "a.argmax()"]
SPECIAL_UNARY += [
    "a ** 0.5",
    "a ** 1.5",
    "a ** -2",
    "a ** -0.5",
    "(-2.0) ** a",
    "0.0 ** a",
    "a.bool()",
    "a > 0",
    "a == a",
]
SPECIAL_UNARY += ["torch.logical_not(a)"]


def special_values(dtype: str) -> np.ndarray:
    return np.array(SPECIAL + (HUGE if dtype == "float64" else ())).astype(dtype)


def assert_same_specials(ours: Any, theirs: Any, dtype: str, signed_zeros: bool = True) -> None:
    a, b = shown(ours), shown(theirs)
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=1e-14 if dtype == "float64" else 4e-7, atol=1e-45)
    if a.dtype.kind == "f" and signed_zeros:
        zero = (a == 0) & (b == 0)
        np.testing.assert_array_equal(np.signbit(a[zero]), np.signbit(b[zero]), "the sign of a zero")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("source", SPECIAL_UNARY)
def test_special_values_go_through_as_in_pytorch(source: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    values = special_values(dtype)
    parts = [values] if "0)" in source and "**" not in source else [values, values[::-1].copy()]
    for part in parts:
        (theirs,), (ours,) = (run(source, m, a=m.tensor(part))[:1] for m in (torch, fastgrad))
        assert_same_specials(ours, theirs, dtype, signed_zeros="relu" not in source and "%" not in source)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("source", [*(source for source, _, _ in BINARY), "a == b", "a < b", "a != b"])
def test_special_values_of_two_operands_go_through_as_in_pytorch(source: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    values = special_values(dtype)
    (theirs,), (ours,) = (
        run(source, m, a=m.tensor(values[:, None].copy()), b=m.tensor(values)) for m in (torch, fastgrad)
    )
    assert_same_specials(ours, theirs, dtype, signed_zeros="alpha" not in source)


POINTS = {  # where a derivative is a matter of convention
    "torch.relu(a)": [0.0, -0.0, math.inf],
    "a.abs()": [0.0, -0.0, -math.inf],
    "torch.sign(a)": [0.0, math.nan],
    "a.sqrt()": [0.0, -1.0, math.inf],
    "a ** 0": [0.0, 2.0],
    "a ** 1": [0.0, 2.0],
    "a ** 2": [0.0, math.inf],
    "a ** 0.5": [0.0, 4.0],
    "a ** 2.0": [0.0, -2.0],
    "0.0 ** a": [0.0, 1.0, 2.0],
    "a.clamp(-1, 1)": [-1.0, 1.0, math.nan, 2.0, math.inf],
    "torch.maximum(a, a.detach())": [0.0, 1.0],
    "torch.maximum(a, torch.zeros_like(a))": [0.0, -0.0, 1.0],
    "torch.minimum(a, torch.zeros_like(a))": [0.0, -0.0, 1.0],
    "a.max()": [1.0, 3.0, 3.0, 3.0],
    "a.min()": [1.0, 1.0],
    "a.amax(0)": [1.0, 3.0, 3.0],
    "a.amin(0)": [1.0, 1.0, 1.0],
    "a.max(0).values": [3.0, 1.0, 3.0],
    "a.prod()": [0.0, 2.0, 3.0],
    "a.prod(0)": [0.0, 2.0, 0.0],
    "a.std()": [1.0, 1.0, 1.0],
    "a.var()": [1.0, 1.0],
    "a.reciprocal()": [0.0, math.inf],
    "torch.log(a)": [0.0, -1.0, math.inf],
    "torch.log1p(a)": [-1.0, -2.0],
    "torch.where(a > 0, a.log(), torch.zeros_like(a))": [0.0, 1.0],
    "a.logsumexp(0)": [-math.inf, -math.inf],
    "F.softmax(a, 0)": [-math.inf, 1.0],
    "F.log_softmax(a, 0)": [-math.inf, 1.0],
    "a.tanh()": [50.0, -50.0, 0.0],
    "torch.asin(a)": [1.0, -1.0, 2.0, 0.0],
    "torch.acosh(a)": [1.0, 0.5],
    "torch.atanh(a)": [1.0, -1.0, 2.0],
    "torch.atan2(a, torch.zeros_like(a))": [0.0, 1.0, -2.0],
    "torch.atan2(torch.zeros_like(a), a)": [0.0, 1.0, -2.0],
    "torch.hypot(a, torch.zeros_like(a))": [0.0, 1.0, -2.0],
    "torch.sinc(a)": [0.0, 0.5, 2.0],
    "torch.erfinv(a)": [1.0, 0.0, 2.0],
    "torch.logaddexp(a, torch.zeros_like(a))": [800.0, -800.0, 0.0],
    "torch.xlogy(a, torch.zeros_like(a))": [0.0, 1.0],
    "torch.xlogy(torch.zeros_like(a), a)": [0.0, 1.0, -1.0],
    "a.sigmoid()": [800.0, -800.0],
    "F.binary_cross_entropy_with_logits(a, torch.ones_like(a))": [800.0, -800.0, 0.0],
    "torch.pow(a, torch.zeros_like(a))": [0.0, 1.0],
    "torch.pow(torch.zeros_like(a), a)": [0.0, 1.0, 2.0],
}


@pytest.mark.parametrize("source", POINTS)
def test_derivatives_at_special_points_are_pytorch_s(source: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for m in (fastgrad, torch):
        a = m.tensor(POINTS[source], dtype=m.float64, requires_grad=True)
        (y,) = run(source, m, a=a)
        y.sum().backward()
        found.append(a.grad)
    assert_close(*found, 1e-14)


# ------------------------------------------------------------------------------------------------------------- dtypes

DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
PROMOTING = (
    *("a + b", "a - b", "a * b", "a / b", "a ** b", "torch.maximum(a, b)", "torch.minimum(a, b)", "a == b", "a < b"),
    *("torch.where(a > 0, a, b)", "torch.logical_and(a, b)", "torch.add(a, b, alpha=2)", "b - a", "b / a", "b ** a"),
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", PROMOTING)
def test_dtypes_are_promoted_as_in_pytorch(source: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")

    def others(m: Any) -> Iterator[Any]:
        for other in DTYPES:
            yield m.tensor([2, 1, 3], dtype=getattr(m, other))
            yield m.tensor(2, dtype=getattr(m, other))
        yield from (2, 1.5, True)

    for theirs_b, ours_b in zip(others(torch), others(fastgrad), strict=True):
        for values in ([1, 2, 3], 3):
            what = f"{source}: {dtype}{np.shape(values)} and {ours_b!r}: "
            ours_a = fastgrad.tensor(values, dtype=getattr(fastgrad, dtype))
            try:
                (theirs,) = run(source, torch, a=torch.tensor(values, dtype=getattr(torch, dtype)), b=theirs_b)
            except (RuntimeError, TypeError):
                with pytest.raises((RuntimeError, TypeError, NotImplementedError)):
                    run(source, fastgrad, a=ours_a, b=ours_b)
                continue
            (ours,) = run(source, fastgrad, a=ours_a, b=ours_b)
            assert_close(ours, theirs, 1e-6 if "32" in str(theirs.dtype) else 1e-14, what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "source",
    [
        *sorted({source for source, _, _ in UNARY}),
        *("a.sum()", "a.sum(0)", "a.prod()", "a.mean()", "a.max()", "a.amax(0)", "a.argmax()", "a.all()", "a.any()"),
        *("a.var()", "a.std()", "a.logsumexp(0)", "torch.softmax(a, 0)", "torch.isnan(a)", "torch.isfinite(a)"),
        *("a @ a", "torch.cat([a, a])", "torch.stack([a, a])", "~a", "a & a", "a | a", "a.sum(dtype=torch.float64)"),
        *("a.mean(dtype=torch.float64)", "a.clamp(1, 2)", "a.clamp(min=1.5)", "torch.cat([a, a.double()])"),
        *("a += 1", "a *= 2", "a.add_(1.5)", "a.div_(2)", "a.fill_(2)", "a.copy_(torch.tensor([1.7, 0, 3]))"),
    ],
)
def test_each_dtype_gives_pytorch_s_dtype_and_values(source: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    in_place = "=" in source.split("(")[0] and "==" not in source
    text = f"{source}; a" if in_place else source
    tensors = [m.tensor([1, 0, 3], dtype=getattr(m, dtype)) for m in (torch, fastgrad)]
    try:
        (theirs,) = run(text, torch, a=tensors[0])
    except (RuntimeError, TypeError, NotImplementedError):
        with pytest.raises((RuntimeError, TypeError, NotImplementedError)):
            run(text, fastgrad, a=tensors[1])
        return
    (ours,) = run(text, fastgrad, a=tensors[1])
    assert_close(ours, theirs, 1e-6 if "32" in str(theirs.dtype) else 1e-14)


# ----------------------------------------------------------------------------------------------------------- creation

CREATION = (
    *("torch.zeros(2, 3)", "torch.zeros((2, 3))", "torch.zeros([2], dtype=torch.int64)", "torch.zeros(())"),
    *("torch.zeros(size=(2,), device='cpu')", "torch.ones(0, 3)", "torch.ones(2, dtype=torch.bool)"),
    *(
        "torch.full((2, 2), 1.5)",
        "torch.full((2,), 7)",
        "torch.full((2,), True)",
        "torch.full((), 3, dtype=torch.uint8)",
    ),
    *("torch.empty(2, 3).shape[1]", "torch.eye(3)", "torch.eye(2, 4, dtype=torch.float64)", "torch.eye(0)"),
    *("torch.arange(5)", "torch.arange(1, 6, 2)", "torch.arange(1.0, 2.0, 0.3)", "torch.arange(3, -1, -1)"),
    *("torch.arange(2, dtype=torch.float32)", "torch.arange(start=1, end=3, step=1)", "torch.arange(0)"),
    *("torch.arange(0.0, 1.0, 0.1)", "torch.linspace(0, 1, 5)", "torch.linspace(-3, 2.5, 7, dtype=torch.float64)"),
    *("torch.linspace(2, 3, 1)", "torch.linspace(0, 1, 0)", "torch.linspace(start=0, end=1, steps=3)"),
    *("torch.linspace(5, -5, 1001)", "torch.tensor(3)", "torch.tensor(3.5)", "torch.tensor(True)", "torch.tensor([])"),
    *("torch.tensor([1, 2])", "torch.tensor([1, 2.5])", "torch.tensor([True, False])", "torch.tensor([[1.0], [2.0]])"),
    *("torch.tensor([1, True])", "torch.tensor([1.5, 2], dtype=torch.int32)", "torch.tensor(np.float64(2.5))"),
    *("torch.tensor(np.arange(3))", "torch.tensor(np.ones(2, dtype=np.float32))", "torch.tensor([np.float32(1), 2.0])"),
    *("torch.tensor((1, 2), dtype=torch.float64)", "torch.tensor([[], []])", "torch.tensor([torch.tensor(1.0), 2.0])"),
    *("torch.tensor(range(3))", "torch.tensor(data=[1.0], dtype=None, device='cpu', requires_grad=False)"),
    *("torch.as_tensor([1.0, 2.0])", "torch.as_tensor(np.arange(3.0))", "torch.as_tensor(2, dtype=torch.float64)"),
    *("torch.from_numpy(np.arange(6.0).reshape(2, 3).T)", "torch.from_numpy(np.array([1, 2], dtype=np.uint8))"),
    *("torch.from_numpy(np.array([True, False]))", "torch.from_numpy(np.arange(10)[::2])"),
    *("torch.zeros_like(torch.ones(2, dtype=torch.int32))", "torch.ones_like(torch.zeros(2, 2), dtype=torch.float64)"),
    *("torch.full_like(torch.zeros(2), 4)", "torch.full_like(torch.arange(3), 4.7)"),
    *(
        "torch.empty_like(torch.zeros(2, 2)).shape[0]",
        "torch.zeros(2).new_zeros(3)",
        "torch.ones(2).new_tensor([1, 2])",
    ),
    *("torch.randn(2, 3).shape[1]", "torch.rand(3, dtype=torch.float64).dtype == torch.float64"),
    *("torch.randint(5, (3,)).dtype == torch.int64", "torch.randint(3, 5, (4, 4)).shape[1]", "torch.randperm(0)"),
    *("torch.randint(0, 3, size=(2,), dtype=torch.int32).dtype == torch.int32", "torch.randperm(6).sum()"),
    *("torch.rand_like(torch.zeros(3)).numel()", "torch.randn_like(torch.zeros(2, 2)).ndim"),
    *("torch.randint_like(torch.zeros(3), 5).dtype == torch.float32", "torch.zeros(torch.Size([2, 3]))"),
    *("torch.zeros(3, requires_grad=True).requires_grad", "torch.is_tensor(torch.zeros(1))", "torch.tensor(2**40)"),
    *("torch.tensor(1e300)", "torch.tensor(1e300, dtype=torch.float64)", "torch.tensor([1, 2]).to(torch.uint8)"),
    *("torch.float", "torch.double", "torch.long", "torch.int", "torch.get_default_dtype()", "torch.zeros(1).device"),
    *("torch.device('cpu')", "torch.Size([1, 2])", "torch.zeros(2, 3).shape", "torch.zeros(2, 3).size()"),
    *("torch.zeros(2, 3).shape.numel()", "torch.cuda.is_available()", "torch.finfo(torch.float32).eps"),
    *("torch.pi", "torch.inf", "torch.float32.is_floating_point", "torch.iinfo(torch.uint8).max"),
)


@pytest.mark.parametrize("source", CREATION)
def test_creation_is_pytorch_s(source: str) -> None:
    torch = pytest.importorskip("torch")
    (theirs, *_), (ours, *_) = (
        [value] if not isinstance(value := evaluate(source, {"torch": m, "np": np}), list) else value
        for m in (torch, fastgrad)
    )
    if not hasattr(theirs, "detach"):
        assert str(ours).replace("fastgrad", "torch") == str(theirs)
        return
    assert_close(ours, theirs, 1e-12 if "64" in str(theirs.dtype) else 1e-6)
    assert str(ours.dtype) == str(theirs.dtype).replace("torch", "fastgrad")


def test_random_numbers_repeat_after_a_seed_and_have_their_distribution() -> None:
    def draw() -> list[np.ndarray]:
        fastgrad.manual_seed(3)
        drawn = fastgrad.randn(20_000), fastgrad.rand(20_000), fastgrad.randint(0, 10, (20_000,)), fastgrad.randperm(50)
        return [d.numpy().copy() for d in drawn]

    normal, uniform, integers, permutation = first = draw()
    assert all(np.array_equal(a, b) for a, b in zip(first, draw(), strict=True))
    assert normal.dtype == uniform.dtype == np.float32
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03 and abs((normal**3).mean()) < 0.1
    assert 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01
    assert sorted(set(integers.tolist())) == list(range(10)) and np.bincount(integers).min() > 1_800
    assert sorted(permutation.tolist()) == list(range(50)) and permutation.tolist() != list(range(50))


def test_a_generator_has_its_own_sequence() -> None:
    first, second = fastgrad.Generator(), fastgrad.Generator()
    first.manual_seed(5)
    second.manual_seed(5)
    fastgrad.manual_seed(0)
    a = fastgrad.randn(4, generator=first)
    fastgrad.rand(3)
    b = fastgrad.randn(4, generator=second)
    assert a.tolist() == b.tolist()
    assert a.tolist() != fastgrad.randn(4, generator=first).tolist()


def test_dropout_keeps_a_share_and_scales_it() -> None:
    fastgrad.manual_seed(1)
    x = fastgrad.ones(20_000, requires_grad=True)
    y = fastgrad.nn.functional.dropout(x, 0.25)
    y.sum().backward()
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(y.detach().numpy()[kept], 1 / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    again = fastgrad.nn.functional.dropout(x, 0.25).detach().numpy() != 0
    assert (again != kept).any()


# ---------------------------------------------------------------------------------------------------------- signatures

CALLS = (
    *("torch.sum(input=a, dim=0, keepdim=True)", "torch.mean(input=a, dim=(0, 1), keepdim=False)", "a.sum(axis=0)"),
    *("torch.max(input=a, dim=1, keepdim=True).values", "torch.argmax(input=a, dim=None, keepdim=False)"),
    *("torch.var(input=a, dim=0, keepdim=True)", "torch.std(a, dim=None, correction=1, keepdim=True)"),
    *("torch.clamp(input=a, min=-1, max=1)", "torch.where(condition=a > 0, input=a, other=a * 2)"),
    *("torch.add(input=a, other=1, alpha=2)", "torch.mul(input=a, other=2)", "torch.pow(input=a, exponent=2)"),
    *("torch.cat(tensors=[a, a], dim=1)", "torch.stack(tensors=[a, a], dim=0)", "torch.transpose(a, dim0=0, dim1=1)"),
    *("a.split(split_size=2, dim=1)[0]", "torch.split(tensor=a, split_size_or_sections=1)[0]"),
    *("torch.chunk(input=a, chunks=2, dim=1)[0]", "a.flatten(start_dim=0, end_dim=1)", "a.permute(dims=(1, 0))"),
    *("a.reshape(shape=(3, 2))", "a.squeeze(dim=0)", "a.unsqueeze(dim=0)", "torch.gather(input=a, dim=1, index=i)"),
    *("torch.index_select(input=a, dim=1, index=i[0])", "torch.matmul(input=a, other=a.T)", "torch.mm(a, mat2=a.T)"),
    *("F.softmax(input=a, dim=1, dtype=torch.float64)", "torch.log_softmax(input=a, dim=1, dtype=None)"),
    *("F.mse_loss(input=a, target=a * 2, reduction='sum')", "F.cross_entropy(input=a, target=i[:, 0])"),
    *("F.cross_entropy(a, i[:, 0], None, reduction='sum', label_smoothing=0.0, ignore_index=-100)",),
    *("F.nll_loss(input=a, target=i[:, 0], weight=None, reduction='mean')", "F.one_hot(i, num_classes=-1)"),
    *("F.linear(input=a, weight=a, bias=None)", "F.dropout(input=a, p=0.5, training=False, inplace=False)"),
    *("F.relu(a, inplace=False)", "torch.logsumexp(input=a, dim=1, keepdim=True)", "torch.prod(input=a, dim=1)"),
    *("torch.all(input=a > 0, dim=0)", "torch.any(a > 0, 1, True)", "torch.amax(input=a, dim=(0,), keepdim=True)"),
    *("torch.outer(input=a[0], vec2=a[1])", "torch.dot(input=a[0], tensor=a[1])", "torch.mv(input=a, vec=a[0])"),
    *("a.to(torch.float64, copy=True)", "a.to(device='cpu', dtype=torch.float64)", "a.to('cpu', torch.float64)"),
    *("a.type_as(i)", "a.expand(2, -1, -1)", "a.view(torch.Size([3, 2]))", "a.view(size=(6,))", "a.clamp(0)"),
    *("torch.maximum(input=a, other=a)", "torch.eq(input=a, other=1)", "torch.reshape(input=a, shape=(-1,))"),
    *("torch.swapaxes(a, 0, 1)", "torch.concat([a, a])", "torch.subtract(a, 1)", "torch.multiply(a, 2)"),
    *("torch.div(a, 2)", "torch.divide(a, 2)", "torch.negative(a)", "torch.absolute(a)"),
    *("torch.lt(a, 0)", "torch.ne(a, 0)", "torch.ge(a, 0)", "torch.le(a, 0)", "torch.gt(a, 0)", "torch.clone(a)"),
)


@pytest.mark.parametrize("source", CALLS)
def test_arguments_have_pytorch_s_names_and_defaults(source: str) -> None:
    torch = pytest.importorskip("torch")
    values, indices = np.array([[0.5, -1.5, 2.0], [1.0, 0.25, -0.75]], np.float32), np.array([[0, 1, 2], [2, 0, 1]])
    (theirs,), (ours,) = (run(source, m, a=m.tensor(values), i=m.tensor(indices)) for m in (torch, fastgrad))
    assert_close(ours, theirs, 1e-6)


# ----------------------------------------------------------------------------------------------------- differentiation

SESSIONS = {
    "gradients accumulate": """
x = torch.tensor([1.0, 2.0], requires_grad=True)
for k in range(3):
    (x * x).sum().backward()
    show(x.grad)
""",
    "zero_ and None start again": """
x = torch.tensor([1.0, 2.0], requires_grad=True)
(x * 3).sum().backward()
held = x.grad
x.grad.zero_()
(x * 4).sum().backward()
show(x.grad, held, held is x.grad)
x.grad = None
(x * 5).sum().backward()
show(x.grad, held)
""",
    "a gradient for the output": """
x = torch.tensor([1.0, 2.0], requires_grad=True)
y = x ** 3
y.backward(torch.tensor([1.0, 0.5]), retain_graph=True)
show(x.grad)
y.backward(gradient=torch.ones(2))
show(x.grad)
""",
    "inputs of backward": """
x = torch.tensor(2.0, requires_grad=True)
w = torch.tensor(3.0, requires_grad=True)
(x * w).backward(inputs=[x])
show(x.grad, w.grad)
""",
    "is_leaf, requires_grad, grad_fn": """
x = torch.tensor(2.0, requires_grad=True)
c = torch.tensor(1.0)
y = x * c
show(x.is_leaf, c.is_leaf, y.is_leaf, x.requires_grad, c.requires_grad, y.requires_grad)
show(x.grad_fn is None, c.grad_fn is None, y.grad_fn.name())
show((y > 1).requires_grad, y.detach().is_leaf, y.long().requires_grad, x.grad is None)
c.requires_grad_()
show((c * 2).requires_grad, c.requires_grad_(False).requires_grad)
""",
    "retain_grad": """
x = torch.tensor([1.0, 2.0], requires_grad=True)
y = x * 2
y.retain_grad()
z = y * y
z.sum().backward()
show(y.grad, x.grad, y.retains_grad, z.retains_grad)
""",
    "no_grad": """
x = torch.tensor(2.0, requires_grad=True)
with torch.no_grad():
    show((x * 2).requires_grad, torch.is_grad_enabled())
    with torch.enable_grad():
        show((x * 2).requires_grad, torch.is_grad_enabled())
    show(torch.ones(1, requires_grad=True).requires_grad)
@torch.no_grad()
def double(a):
    return a * 2
show(double(x).requires_grad, torch.is_grad_enabled(), (x * 2).requires_grad)
with torch.set_grad_enabled(False):
    show((x * 2).requires_grad)
with torch.inference_mode():
    show((x * 2).requires_grad)
""",
    "updates under no_grad": """
w = torch.tensor([1.0, 2.0], requires_grad=True)
same = w
for k in range(3):
    loss = (w ** 2).sum()
    loss.backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
    w.grad = None
    show(loss.item(), w, w is same, w.is_leaf, w.requires_grad)
""",
    "a leaf keeps its graph's old value out of the way": """
w = torch.tensor([1.0, 2.0], requires_grad=True)
v = w.detach()
y = w + 1
v[0] = 7
show(w, v, y)
y.sum().backward()
show(w.grad)
""",
    "data": """
w = torch.tensor([1.0, 2.0], requires_grad=True)
w.data.add_(1)
show(w, w.data.requires_grad, w.is_leaf)
w.data = torch.tensor([5.0, 6.0])
(w * w).sum().backward()
show(w, w.grad)
""",
    "autograd.grad": """
x = torch.tensor(2.0, requires_grad=True)
y = torch.tensor(3.0, requires_grad=True)
show(*torch.autograd.grad(x * y, [x, y]))
show(*torch.autograd.grad(x * x, [x, y], allow_unused=True))
show(*torch.autograd.grad([x * y, x + y], [x, y], grad_outputs=[torch.tensor(2.0), None]))
show(*torch.autograd.grad(x * 2, [x, y], allow_unused=True, materialize_grads=True))
show(x.grad, y.grad)
z = x * y
show(*torch.autograd.grad(z * z, z))
""",
    "gradients to the fifth order": """
x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
y = torch.sin(x) * torch.exp(x)
for k in range(5):
    y, = torch.autograd.grad(y, x, create_graph=True)
    show(y, y.requires_grad)
y.backward()
show(x.grad)
""",
    "a gradient penalty": """
x = torch.tensor([[0.3, -0.8], [1.2, 0.1]], requires_grad=True)
w = torch.tensor([[0.5], [1.5]], requires_grad=True)
out = torch.tanh(x @ w).sum()
g, = torch.autograd.grad(out, x, create_graph=True)
((g ** 2).sum(1).sqrt() - 1).square().mean().backward()
show(w.grad, x.grad)
""",
    "hooks": """
x = torch.tensor([1.0, 2.0], requires_grad=True)
y = x * 2
handle = y.register_hook(lambda g: g * 10)
seen = []
x.register_hook(lambda g: seen.append(g.clone()))
y.sum().backward(retain_graph=True)
show(x.grad, *seen)
handle.remove()
y.sum().backward()
show(x.grad)
""",
    "a branch that is not used has no gradient": """
a = torch.tensor(1.0, requires_grad=True)
b = torch.tensor(1.0, requires_grad=True)
c = b * 2
(a * 2).backward()
show(a.grad, b.grad)
""",
    "a value used many times": """
x = torch.tensor(1.5, requires_grad=True)
y = x
for k in range(20):
    y = y * x + y
y.backward()
show(y, x.grad)
""",
    "a deep chain": """
x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
y = x
for k in range(3000):
    y = y + y * 0.0001
y.backward()
show(y, x.grad)
""",
    "partly detached": """
x = torch.tensor([1.0, 2.0], requires_grad=True)
y = x.detach() * x + x.clone().detach().requires_grad_()
y.sum().backward()
show(x.grad, y)
z = (x * 2).detach_()
show(z.requires_grad, z.is_leaf)
""",
    "an integer on the way cuts the graph": """
x = torch.tensor([1.5, 2.5], requires_grad=True)
y = (x * x.long()).sum()
y.backward()
show(y, x.grad, x.argmax().requires_grad)
""",
    "observations between forward and backward": """
x = torch.tensor([0.1, 0.2], requires_grad=True)
y = torch.exp(x)
show(y.sum().item())
z = y * y
show(z.tolist(), float(z[0].detach()), bool(z[1] > 1), int(z[0].detach() * 3), len(z), [v.item() for v in z])
z.sum().backward()
show(x.grad, np.asarray(x.grad), float(x.grad.numpy().sum()))
""",
    "numpy shares memory": """
array = np.arange(3.0)
x = torch.from_numpy(array)
array[0] = 7
show(x)
x.mul_(2)
show(array.copy())
view = x.numpy()
view[2] = -1
show(x, x.sum(), array.copy())
copy = torch.tensor(array)
array[1] = 100
show(copy, torch.as_tensor(array))
""",
    "formatting and comparing in Python": """
x = torch.tensor([1.0, 2.0, 3.0])
show(f"{x.sum():.3f}", f"{x[0].item()}", x.tolist(), x.max().item(), 2.0 in x, list(x.shape), sum(x), max(x))
show(torch.equal(x, x.clone()), torch.allclose(x, x + 1e-9), round(x.mean().item(), 3), x.sum() == 6)
show(x[1] if x[0] > 0 else x[2], np.sum(x.numpy()), np.asarray(x, dtype=np.float64), [int(v) for v in x])
""",
    "momentum": """
w = torch.tensor([1.0, -2.0], requires_grad=True)
o = torch.optim.SGD([w], lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01)
for k in range(4):
    o.zero_grad()
    (w ** 2).sum().backward()
    o.step()
    show(w)
group = o.state_dict()["param_groups"][0]
show(sorted(o.state_dict()), o.param_groups[0]["lr"], group["momentum"], group["params"])
""",
    "Adam, AdamW, nesterov, maximize": """
w = [torch.tensor([1.0, -2.0], requires_grad=True) for k in range(5)]
os = [torch.optim.Adam([w[0]], lr=0.1), torch.optim.AdamW([w[1]], lr=0.1, weight_decay=0.3),
      torch.optim.SGD([w[2]], lr=0.1, momentum=0.9, nesterov=True), torch.optim.SGD([w[3]], lr=0.01, maximize=True),
      torch.optim.Adam([w[4]], lr=0.05, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True)]
for k in range(5):
    for p, o in zip(w, os):
        o.zero_grad()
        (p ** 2 + p.sin()).sum().backward()
        o.step()
        show(p)
""",
    "parameter groups and a schedule": """
a, b = torch.tensor(1.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
o = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
for k in range(4):
    o.zero_grad()
    (a * a + b * b).backward()
    for group in o.param_groups:
        group["lr"] *= 0.9
    o.step()
    show(a, b)
""",
    "a step without a gradient": """
a, b = torch.tensor(1.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
o = torch.optim.Adam([a, b], lr=0.1)
(a * 2).backward()
o.step()
o.zero_grad(set_to_none=False)
show(a, b, a.grad, b.grad)
""",
    "a module": """
nn = torch.nn
model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1), nn.Sigmoid())
with torch.no_grad():
    for k, p in enumerate(model.parameters()):
        p.copy_(torch.linspace(-1, 1 + k, p.numel()).reshape(p.shape))
x = torch.tensor([[0.5, -1.0], [2.0, 0.1]])
loss = nn.MSELoss()(model(x), torch.ones(2, 1))
loss.backward()
show(loss, *(p.grad for p in model.parameters()), [n for n, p in model.named_parameters()])
show(nn.CrossEntropyLoss()(x, torch.tensor([0, 1])), nn.BCEWithLogitsLoss()(x, torch.ones(2, 2)), nn.ReLU()(x))
show(repr(model), list(model.state_dict()), model.training, model.eval().training)
""",
}


def session(source: str, module: Any) -> list[Any]:
    seen: list[Any] = []

    def show(*values: Any) -> None:
        seen.extend(v.detach().clone().numpy() if hasattr(v, "detach") else v for v in values)

    exec(source, {"torch": module, "np": np, "show": show})
    return seen


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_shows_what_pytorch_shows(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = session(SESSIONS[name], torch), session(SESSIONS[name], fastgrad)
    assert len(ours) == len(theirs)
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if isinstance(b, np.ndarray | float):
            assert_close(a, b, 1e-6, f"value {k}: ")
        elif isinstance(b, list) and b and isinstance(b[0], float):
            assert a == pytest.approx(b, rel=1e-6)
        else:
            assert a == b, f"value {k}"


def test_gradcheck_accepts_a_right_gradient_and_refuses_a_wrong_one() -> None:
    x = fastgrad.tensor([0.5, -1.2], dtype=fastgrad.float64, requires_grad=True)
    assert fastgrad.autograd.gradcheck(lambda a: fastgrad.sin(a) * a, (x,))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        fastgrad.autograd.gradcheck(lambda a: fastgrad.sin(a) * a.detach(), (x,))


# ------------------------------------------------------------------------------------------------------- printed forms

PRINTED = (
    *("torch.tensor(1.0)", "torch.tensor(3)", "torch.tensor(True)", "torch.tensor([])", "torch.zeros(0, 3)"),
    *(
        "torch.tensor([1.0, 2.0])",
        "torch.tensor([1.5, -2.25])",
        "torch.tensor([1, 20, -3])",
        "torch.tensor([True, False])",
    ),
    *("torch.tensor([1e-8, 1.0])", "torch.tensor([1e10, 1.0])", "torch.tensor([1e5, 1.0])", "torch.tensor([123456.0])"),
    *(
        "torch.tensor([0.1, float('nan'), float('inf')])",
        "torch.tensor([1.0, float('nan')])",
        "torch.tensor(float('-inf'))",
    ),
    *(
        "torch.tensor([[1.0, 2.0], [3.5, 4.0]])",
        "torch.arange(24).reshape(2, 3, 4)",
        "torch.eye(3)",
        "torch.arange(30.0)",
    ),
    *("torch.arange(2000)", "torch.arange(10000.0).reshape(100, 100)", "torch.zeros(20, 60)", "torch.zeros(3, 20, 20)"),
    *("torch.ones(2, dtype=torch.float64)", "torch.ones(2, dtype=torch.int32)", "torch.ones(2, dtype=torch.uint8)"),
    *("torch.tensor([0.0001, 0.5])", "torch.tensor([1e-5])", "torch.tensor([1e4, 0.001])", "torch.tensor(12345678)"),
    *(
        "torch.tensor([0.0, 2.5])",
        "torch.tensor([1000.5, 1.0])",
        "torch.tensor([99999.0, 1e8])",
        "torch.tensor(1e-10)",
    ),
    *("torch.ones(2, requires_grad=True)", "torch.ones(2, requires_grad=True) * 2", "torch.float32", "torch.Size([2])"),
    *("torch.ones(2, dtype=torch.float64, requires_grad=True)", "torch.zeros(2, 2).shape", "torch.ones(3, 1)"),
)
GRAD_FUNCTIONS = (
    *("x + 1", "x - 1", "x * 2", "x / 2", "x ** 2", "2 ** x", "-x", "x.abs()", "x.exp()", "x.log()"),
    *("x.sqrt()", "x.sin()", "x.cos()", "x.tanh()", "x.sigmoid()", "torch.relu(x)", "x.sum()", "x.sum(0)", "x.mean()"),
    *("x.mean(0)", "x.max()", "x.amax(0)", "x.prod()", "x.var()", "x.std()", "x.logsumexp(0)", "x.clone()", "x[0]"),
    *("x[0:1]", "x.reshape(1, 2)", "x.view(2, 1)", "x.unsqueeze(0)", "x.expand(2, 2)", "torch.cat([x, x])"),
    *("torch.stack([x, x])", "x @ x", "x.reshape(1, 2) @ x", "x.reshape(1, 2) @ x.reshape(2, 1)", "x.clamp(0, 1)"),
    *("torch.where(x > 0, x, 0.0)", "torch.maximum(x, x)", "x.double()", "torch.softmax(x, 0)", "torch.outer(x, x)"),
    *("torch.log_softmax(x, 0)", "x.reshape(2, 1).T", "x.reshape(2, 1).permute(1, 0)", "x[[0, 1]]", "x.square()"),
    *("torch.nn.functional.mse_loss(x, x)", "x.reshape(2, 1).squeeze()", "x.log1p()", "x.reciprocal()"),
    *("torch.nn.functional.linear(x.reshape(1, 2), x.reshape(1, 2), x[:1])", "x.gather(0, torch.tensor([0]))"),
    *("torch.nn.functional.cross_entropy(x, torch.tensor(0))", "x.index_select(0, torch.tensor([1]))", "x.sign()"),
)


@pytest.mark.parametrize("source", PRINTED)
def test_the_printed_form_is_pytorch_s(source: str) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = (evaluate(source, {"torch": m}) for m in (torch, fastgrad))
    assert repr(ours).replace("fastgrad", "torch") == repr(theirs)
    assert str(ours).replace("fastgrad", "torch") == str(theirs)


@pytest.mark.parametrize("source", GRAD_FUNCTIONS)
def test_the_name_of_a_result_s_grad_fn_is_pytorch_s(source: str) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = (
        evaluate(source, {"torch": m, "x": m.tensor([0.5, 2.0], requires_grad=True)}) for m in (torch, fastgrad)
    )
    overload = re.compile(r"(?<=Backward)\d")
    assert overload.sub("", ours.grad_fn.name()) == overload.sub("", theirs.grad_fn.name())
    assert overload.sub("", repr(ours)).replace("fastgrad", "torch") == overload.sub("", repr(theirs))


def test_print_options_are_pytorch_s() -> None:
    torch = pytest.importorskip("torch")
    for options in ({"precision": 2}, {"threshold": 5, "edgeitems": 2}, {"linewidth": 40}, {"sci_mode": True}):
        shown = []
        for m in (torch, fastgrad):
            m.set_printoptions(**options)
            try:
                shown.append(repr(m.linspace(0, 3, 20)))
            finally:
                m.set_printoptions(profile="default")
        assert shown[1] == shown[0], options


def test_the_default_dtype_is_used_for_what_python_floats_become() -> None:
    assert fastgrad.get_default_dtype() is fastgrad.float32
    fastgrad.set_default_dtype(fastgrad.float64)
    try:
        assert fastgrad.tensor([1.0]).dtype is fastgrad.float64
        assert fastgrad.zeros(1).dtype is fastgrad.float64
        assert (fastgrad.arange(3) / 2).dtype is fastgrad.float64
        assert fastgrad.randn(2).dtype is fastgrad.float64
    finally:
        fastgrad.set_default_dtype(fastgrad.float32)
    assert fastgrad.tensor([1.0]).dtype is fastgrad.float32


@pytest.mark.parametrize(("shape", "dim"), [((0,), 0), ((3, 0), -1), ((0, 3), 0), ((3, 0), 0)])
def test_logsumexp_of_nothing(shape: Any, dim: int) -> None:
    torch = pytest.importorskip("torch")
    for module in (torch, fastgrad):
        x = module.zeros(*shape, requires_grad=True)
        y = module.logsumexp(x, dim)
        assert y.tolist() == [-float("inf")] * y.numel() if y.ndim else y.item() == -float("inf")
        y.sum().backward()
        assert tuple(x.grad.shape) == shape
