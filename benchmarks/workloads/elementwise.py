"""Value and gradient of mean(tanh(sin(x) * exp(-x**2))), x of n elements: nothing but mathematics and memory."""

import math
import os
from typing import Any

import numpy as np

from ..goals import faster
from ..workload import Step, Workload


def data(n: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n).astype(dtype)


def _with_pytorch_names(torch: Any, n: int, dtype: str) -> Step:
    x = torch.tensor(data(n, dtype)).requires_grad_()

    def step() -> Any:
        x.grad = None
        loss = torch.tanh(torch.sin(x) * torch.exp(-(x**2))).mean()
        loss.backward()
        return loss.item()

    return step


def fastgrad_plain(**arguments: Any) -> Step:
    import fastgrad

    return _with_pytorch_names(fastgrad, **arguments)


def fastgrad_compiled(n: int, dtype: str) -> Step:
    import fastgrad

    x = fastgrad.tensor(data(n, dtype)).requires_grad_()

    @fastgrad.compile
    def value_and_gradient() -> Any:
        x.grad = None
        loss = fastgrad.tanh(fastgrad.sin(x) * fastgrad.exp(-(x**2))).mean()
        loss.backward()
        return loss

    return lambda: value_and_gradient().item()


def torch_eager(**arguments: Any) -> Step:
    import torch

    return _with_pytorch_names(torch, **arguments)


def torch_compiled(n: int, dtype: str) -> Step:
    """By way of torch.func, as one graph: faster than a compiled function with `backward`."""
    import torch

    x = torch.tensor(data(n, dtype))

    def loss_of(x: Any) -> Any:
        return torch.tanh(torch.sin(x) * torch.exp(-(x**2))).mean()

    evaluate = torch.compile(torch.func.grad_and_value(loss_of))
    return lambda: evaluate(x)[1].item()


def jax_jit(n: int, dtype: str) -> Step:
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    jnp = jax.numpy
    x = jnp.asarray(data(n, dtype))
    evaluate = jax.jit(jax.value_and_grad(lambda x: jnp.mean(jnp.tanh(jnp.sin(x) * jnp.exp(-(x**2))))))
    return lambda: jax.block_until_ready(evaluate(x))[0]


def hips_autograd(n: int, dtype: str) -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad

    x = data(n, dtype)
    evaluate = value_and_grad(lambda x: anp.mean(anp.tanh(anp.sin(x) * anp.exp(-(x**2)))))
    return lambda: evaluate(x)[0]


def numpy_by_hand(n: int, dtype: str) -> Step:
    x = data(n, dtype)

    def step() -> Any:
        s, c, e = np.sin(x), np.cos(x), np.exp(-(x * x))
        y = np.tanh(s * e)
        gradient = (1 - y * y) * e * (c - 2 * x * s) / n
        return y.mean() + 0 * gradient[0]

    return step


def pytensor(n: int, dtype: str) -> Step:
    import pytensor
    import pytensor.tensor as pt

    pytensor.config.floatX = dtype
    x = pt.vector("x", dtype=dtype)
    loss = pt.tanh(pt.sin(x) * pt.exp(-(x**2))).mean(dtype=dtype)
    outputs = [pytensor.Out(out, borrow=True) for out in (loss, pytensor.grad(loss, x))]
    evaluate = pytensor.function([pytensor.In(x, borrow=True)], outputs, mode="NUMBA")
    evaluate.trust_input = True
    values = data(n, dtype)
    return lambda: evaluate(values)[0]


def drjit(n: int, dtype: str) -> Step:
    import drjit as dr
    from drjit.llvm import ad

    if "BENCHMARK_THREADS" in os.environ:
        dr.set_thread_count(int(os.environ["BENCHMARK_THREADS"]))
    array = {"float32": ad.Float32, "float64": ad.Float64}[dtype]
    x = array(data(n, dtype))

    @dr.freeze
    def evaluate(x: Any) -> Any:
        dr.enable_grad(x)
        loss = dr.mean(dr.tanh(dr.sin(x) * dr.exp(-(x * x))))
        dr.backward(loss)
        return dr.detach(loss), dr.grad(x)

    def step() -> Any:
        loss, gradient = evaluate(dr.detach(x))
        dr.eval(loss, gradient)
        dr.sync_thread()
        return loss[0]

    return step


def numba_by_hand(n: int, dtype: str) -> Step:
    """One fused loop with polynomials that LLVM vectorises, in parallel over blocks where that pays: the floor."""
    from numba import njit, prange

    x = data(n, dtype)
    gradient = np.empty_like(x)
    point = _point(dtype)
    scale, zero = x.dtype.type(1 / n), x.dtype.type(0)

    @njit(error_model="numpy", fastmath={"reassoc"})
    def block(x: Any, gradient: Any, start: Any, stop: Any) -> Any:
        total = zero
        for i in range(start, stop):
            y, g = point(x[i])
            total += y
            gradient[i] = g * scale
        return total

    threads = int(os.environ.get("NUMBA_NUM_THREADS", "1"))
    if threads == 1:

        @njit
        def evaluate(x: Any, gradient: Any) -> Any:
            return block(x, gradient, np.uintp(0), np.uintp(x.size)) / x.size

    else:
        size = 8192

        @njit(parallel=True)
        def evaluate(x: Any, gradient: Any) -> Any:
            count = (x.size + size - 1) // size
            sums = np.empty(count)
            for k in prange(count):
                sums[k] = block(x, gradient, np.uintp(k * size), np.uintp(min((k + 1) * size, x.size)))
            return sums.sum() / x.size

    return lambda: evaluate(x, gradient)


def _point(dtype: str) -> Any:
    """x -> tanh(sin(x) * exp(-x**2)) and its derivative, for moderate x, from polynomials in plain arithmetic."""
    from numba import njit

    real = np.dtype(dtype).type
    double = dtype == "float64"
    integer = np.int64 if double else np.int32
    bits = 52 if double else 23
    round_off = real(1.5 * 2.0**bits)
    one = integer((1023 << 52) if double else (127 << 23))
    shift = integer(bits)
    log2e, ln2_high = real(1 / math.log(2)), real(0.693145751953125)
    ln2_low = real(math.log(2) - 0.693145751953125)
    two_over_pi = real(2 / math.pi)
    half_pi_high, half_pi_low = real(1.57080078125), real(math.pi / 2 - 1.57080078125)
    terms = 12 if double else 6
    e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12 = (real(1 / math.factorial(k) * (k <= terms)) for k in range(2, 13))
    s3, s5, s7, s9, s11, s13, s15 = (real((-1) ** (k // 2) / math.factorial(k)) for k in range(3, 17, 2))
    c2, c4, c6, c8, c10, c12, c14, c16 = (real((-1) ** (k // 2) / math.factorial(k)) for k in range(2, 18, 2))
    r1, r2 = real(1), real(2)

    if double:

        @njit(inline="always")
        def series(r: Any) -> Any:
            high = e7 + r * (e8 + r * (e9 + r * (e10 + r * (e11 + r * e12))))
            return r1 + r * (r1 + r * (e2 + r * (e3 + r * (e4 + r * (e5 + r * (e6 + r * high))))))

        @njit(inline="always")
        def sine(r: Any, q: Any) -> Any:
            return r + r * q * (s3 + q * (s5 + q * (s7 + q * (s9 + q * (s11 + q * (s13 + q * s15))))))

        @njit(inline="always")
        def cosine(q: Any) -> Any:
            high = c8 + q * (c10 + q * (c12 + q * (c14 + q * c16)))
            return r1 + q * (c2 + q * (c4 + q * (c6 + q * high)))
    else:

        @njit(inline="always")
        def series(r: Any) -> Any:
            return r1 + r * (r1 + r * (e2 + r * (e3 + r * (e4 + r * (e5 + r * e6)))))

        @njit(inline="always")
        def sine(r: Any, q: Any) -> Any:
            return r + r * q * (s3 + q * (s5 + q * (s7 + q * s9)))

        @njit(inline="always")
        def cosine(q: Any) -> Any:
            return r1 + q * (c2 + q * (c4 + q * (c6 + q * c8)))

    @njit(inline="always")
    def exp(x: Any) -> Any:
        shifted = x * log2e + round_off
        k = shifted - round_off
        r = (x - k * ln2_high) - k * ln2_low
        power = integer((real(shifted).view(integer) << shift) + one).view(real)
        return series(r) * power

    @njit(inline="always")
    def point(x: Any) -> Any:
        shifted = x * two_over_pi + round_off
        k = shifted - round_off
        quadrant = real(shifted).view(integer)
        r = (x - k * half_pi_high) - k * half_pi_low
        q = r * r
        sine_r, cosine_r = sine(r, q), cosine(q)
        odd = (quadrant & 1) != 0
        s, c = (cosine_r, sine_r) if odd else (sine_r, cosine_r)
        s = -s if (quadrant & 2) != 0 else s
        c = -c if ((quadrant + 1) & 2) != 0 else c
        e = exp(-(x * x))
        f = exp(r2 * s * e)
        y = (f - r1) / (f + r1)
        return y, (r1 - y * y) * e * (c - r2 * x * s)

    return point


def workload(n: int, dtype: str, **options: Any) -> Workload:
    """The workload of this size."""
    name = f"tanh(sin x exp(-x^2)) n=1e{round(math.log10(n))} {dtype}"
    tolerance = {"float64": 1e-9, "float32": 2e-3}[dtype]
    return Workload(name, __name__.rpartition(".")[2], {"n": n, "dtype": dtype}, tolerance=tolerance, **options)


_GOALS = {
    (1000, "float64"): 2.5,
    (100_000, "float32"): 1.8,
    (100_000, "float64"): 1.8,
    (10_000_000, "float32"): 1.8,
    (10_000_000, "float64"): 1.8,
}

WORKLOADS = [
    workload(
        n,
        dtype,
        quick=n == 1000,
        goals=(faster("fastgrad_compiled", _GOALS[n, dtype]),) if (n, dtype) in _GOALS else (),
    )
    for n in (1000, 100_000, 10_000_000)
    for dtype in ("float32", "float64")
]
