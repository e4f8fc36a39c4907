"""One step of gradient descent on the mean squared error of `x @ w + b`: x (n, d), w (d, 1), b (1,), every row."""

import os
from functools import partial
from typing import Any

import numpy as np

from ..goals import faster, near, within
from ..workload import Loop, Step, Unavailable, Workload

RATE = 0.01


def data(n: int, d: int, dtype: str) -> list[np.ndarray]:
    """x, y, and the start of w and b."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((n, d)), rng.standard_normal((d, 1))
    y = x @ w + 0.1 * rng.standard_normal((n, 1))
    return [a.astype(dtype) for a in (x, y, np.zeros((d, 1)), np.zeros(1))]


def _with_pytorch_names(torch: Any, n: int, d: int, dtype: str) -> Any:
    """A step that takes its data as arguments, and the data."""
    x, y, w, b = (torch.tensor(a) for a in data(n, d, dtype))
    w.requires_grad_()
    b.requires_grad_()
    optimizer = torch.optim.SGD([w, b], lr=RATE)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = ((x @ w + b - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step, x, y


def fastgrad_plain(**arguments: Any) -> Step:
    import fastgrad

    step, x, y = _with_pytorch_names(fastgrad, **arguments)
    return lambda: step(x, y)


def fastgrad_compiled(**arguments: Any) -> Step:
    import fastgrad

    step, x, y = _with_pytorch_names(fastgrad, **arguments)
    return fastgrad.compile(lambda: step(x, y))


def fastgrad_loop(**arguments: Any) -> Loop:
    """Every epoch is one step: the batch is all rows."""
    import fastgrad

    step, x, y = _with_pytorch_names(fastgrad, **arguments)
    step = fastgrad.compile(step)
    if not hasattr(step, "loop"):
        raise Unavailable("this fastgrad has no step.loop")
    return Loop(lambda epochs: step.loop(x, y, batch_size=len(x), epochs=epochs)[-1, -1])


def torch_eager(**arguments: Any) -> Step:
    import torch

    step, x, y = _with_pytorch_names(torch, **arguments)
    return lambda: step(x, y)


def torch_compiled(n: int, d: int, dtype: str) -> Step:
    """The whole step by way of torch.func, as one graph: three times as fast as a compiled model with `backward`."""
    import torch

    x, y, w, b = (torch.tensor(a) for a in data(n, d, dtype))

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        w, b = parameters
        return ((x @ w + b - y) ** 2).mean()

    @torch.compile
    def update(parameters: Any, x: Any, y: Any) -> Any:
        gradients, loss = torch.func.grad_and_value(loss_of)(parameters, x, y)
        for a, da in zip(parameters, gradients, strict=True):
            a.sub_(da, alpha=RATE)
        return loss

    return lambda: update((w, b), x, y)


def jax_jit(n: int, d: int, dtype: str) -> Step:
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    x, y, w, b = (jax.numpy.asarray(a) for a in data(n, d, dtype))

    def loss_of(w: Any, b: Any, x: Any, y: Any) -> Any:
        return ((x @ w + b - y) ** 2).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(w: Any, b: Any, x: Any, y: Any) -> Any:
        loss, (dw, db) = jax.value_and_grad(loss_of, argnums=(0, 1))(w, b, x, y)
        return loss, w - RATE * dw, b - RATE * db

    def step() -> Any:
        nonlocal w, b
        loss, w, b = update(w, b, x, y)
        return jax.block_until_ready(loss)

    return step


def hips_autograd(n: int, d: int, dtype: str) -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad

    x, y, w, b = data(n, d, dtype)

    def loss_of(parameters: Any) -> Any:
        w, b = parameters
        return anp.mean((x @ w + b - y) ** 2)

    evaluate = value_and_grad(loss_of)

    def step() -> Any:
        nonlocal w, b
        loss, (dw, db) = evaluate((w, b))
        w, b = w - RATE * dw, b - RATE * db
        return loss

    return step


def numpy_by_hand(n: int, d: int, dtype: str) -> Step:
    x, y, w, b = data(n, d, dtype)

    def step() -> Any:
        residual = x @ w + b - y
        loss = np.vdot(residual, residual) / n
        w[...] -= (2 * RATE / n) * (x.T @ residual)
        b[...] -= (2 * RATE / n) * residual.sum()
        return loss

    return step


def _by_hand(n: int, d: int, dtype: str) -> Any:
    """A compiled update, and its arguments."""
    from numba import njit

    x, y, w, b = data(n, d, dtype)
    w, y = w[:, 0].copy(), y[:, 0].copy()
    scale, zero = w.dtype.type(2 * RATE / n), w.dtype.type(0)

    if n * d > 100_000:

        @njit(error_model="numpy", fastmath={"contract", "reassoc"})
        def update(x: Any, y: Any, w: Any, b: Any, g: Any) -> Any:  # one pass over x: each row twice while it is in L1
            g[:] = zero
            gb = zero
            loss = zero
            for i in range(x.shape[0]):
                r = b[0] - y[i]
                for j in range(x.shape[1]):
                    r += x[i, j] * w[j]
                loss += r * r
                gb += r
                for j in range(x.shape[1]):
                    g[j] += r * x[i, j]
            for j in range(x.shape[1]):
                w[j] -= scale * g[j]
            b[0] -= scale * gb
            return loss / x.shape[0]

    else:
        # Column by column, so that the loops over rows vectorise.
        x = np.asfortranarray(x)

        @njit(error_model="numpy", fastmath={"contract", "reassoc"})
        def update(x: Any, y: Any, w: Any, b: Any, r: Any) -> Any:
            for i in range(x.shape[0]):
                r[i] = b[0] - y[i]
            for j in range(x.shape[1]):
                for i in range(x.shape[0]):
                    r[i] += x[i, j] * w[j]
            loss = zero
            total = zero
            for i in range(x.shape[0]):
                loss += r[i] * r[i]
                total += r[i]
            for j in range(x.shape[1]):
                g = zero
                for i in range(x.shape[0]):
                    g += r[i] * x[i, j]
                w[j] -= scale * g
            b[0] -= scale * total
            return loss / x.shape[0]

    scratch = np.empty(max(n, d), w.dtype)
    return update, (x, y, w, b, scratch)


def numba_by_hand(**arguments: Any) -> Step:
    update, values = _by_hand(**arguments)
    x, y, w, b, scratch = values
    return lambda: update(x, y, w, b, scratch)


def numba_loop(**arguments: Any) -> Loop:
    """The loop over steps is compiled, too; every step's loss is kept, as in `step.loop`."""
    from numba import njit

    update, (x, y, w, b, scratch) = _by_hand(**arguments)

    @njit
    def run(steps: int, x: Any, y: Any, w: Any, b: Any, scratch: Any) -> Any:
        losses = np.empty(steps, w.dtype)
        for k in range(steps):
            losses[k] = update(x, y, w, b, scratch)
        return losses

    return Loop(lambda steps: run(steps, x, y, w, b, scratch)[-1])


def drjit(n: int, d: int, dtype: str) -> Step:
    """Column by column: Dr.Jit has no products of large matrices, and its arrays are vectors."""
    import drjit as dr
    from drjit.llvm import ad

    if "BENCHMARK_THREADS" in os.environ:
        dr.set_thread_count(int(os.environ["BENCHMARK_THREADS"]))
    array = {"float32": ad.Float32, "float64": ad.Float64}[dtype]
    values, target, start, bias = data(n, d, dtype)
    columns = [array(np.ascontiguousarray(values[:, j])) for j in range(d)]
    y, w, b = array(target[:, 0]), [array(a) for a in start], array(bias)

    @dr.freeze
    def update(columns: Any, y: Any, w: Any, b: Any) -> Any:
        dr.enable_grad(w, b)
        residual = b - y
        for column, a in zip(columns, w, strict=True):
            residual = dr.fma(column, a, residual)
        loss = dr.mean(residual * residual)
        dr.backward(loss)
        return dr.detach(loss), [dr.detach(a) - RATE * dr.grad(a) for a in w], dr.detach(b) - RATE * dr.grad(b)

    def step() -> Any:
        nonlocal w, b
        loss, w, b = update(columns, y, w, b)
        dr.eval(loss, w, b)
        dr.sync_thread()
        return loss[0]

    return step


def pytensor(n: int, d: int, dtype: str) -> Step:
    import pytensor

    pytensor.config.floatX = dtype
    x, y, w0, b0 = data(n, d, dtype)
    tx, ty, w, b = (pytensor.shared(a) for a in (x, y, w0, b0))  # shared data are bound faster than arguments
    loss = ((tx @ w + b - ty) ** 2).mean(dtype=dtype)
    dw, db = pytensor.grad(loss, [w, b])
    rate = np.asarray(RATE, dtype)
    update = pytensor.function([], loss, updates={w: w - rate * dw, b: b - rate * db}, mode="NUMBA")
    update.trust_input = True
    return update


def casadi(n: int, d: int, dtype: str) -> Step:
    import casadi as ca

    x, y, w, b = data(n, d, dtype)
    parameters = ca.SX.sym("p", d + 1)
    residual = ca.mtimes(ca.SX(ca.DM(x)), parameters[:d]) + parameters[d] - ca.SX(ca.DM(y))
    loss = ca.sumsqr(residual) / n
    new = parameters - RATE * ca.gradient(loss, parameters)
    function = ca.Function("step", [parameters], [loss, new])
    buffer, call = function.buffer()
    p, value = np.concatenate([w[:, 0], b]).astype(float), np.zeros(1)
    buffer.set_arg(0, p.data)
    buffer.set_res(0, value.data)
    buffer.set_res(1, p.data)  # all reads come before the last write

    def step(keep_alive: Any = (function, buffer)) -> Any:
        call()
        return value[0]

    return step


def workload(n: int, d: int, dtype: str, **options: Any) -> Workload:
    """The workload of this size."""
    exact = {"float64": 1e-9, "float32": 1e-3}[dtype]
    arguments = {"n": n, "d": d, "dtype": dtype}
    return Workload(
        f"linear regression {n}x{d} {dtype}", __name__.rpartition(".")[2], arguments, tolerance=exact, **options
    )


_SMALL = (
    within("fastgrad_compiled", 1200),
    faster("fastgrad_compiled", 4),
    near("fastgrad_loop", 1.2, "numba_by_hand"),
    within("fastgrad_plain", 8000),
)

WORKLOADS = [
    workload(64, 8, "float32", quick=True, goals=_SMALL),
    workload(64, 8, "float64", quick=True, goals=_SMALL),
    workload(442, 10, "float32"),
    workload(442, 10, "float64", goals=(faster("fastgrad_compiled", 2.5),)),
    workload(100_000, 32, "float32", without=("casadi",), goals=(faster("fastgrad_compiled", 1.5),)),
]
