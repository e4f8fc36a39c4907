"""One step of gradient descent on the mean squared error of `x @ w + b`: x (n, d), w (d, 1), b (1,), every row."""

from typing import Any

import numpy as np

from ..workload import Step, Workload

RATE = 0.01


def data(n: int, d: int, dtype: str) -> list[np.ndarray]:
    """x, y, and the start of w and b."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((n, d)), rng.standard_normal((d, 1))
    y = x @ w + 0.1 * rng.standard_normal((n, 1))
    return [a.astype(dtype) for a in (x, y, np.zeros((d, 1)), np.zeros(1))]


def _with_pytorch_names(torch: Any, n: int, d: int, dtype: str, compile_loss: bool = False) -> Step:
    x, y, w, b = (torch.tensor(a) for a in data(n, d, dtype))
    w.requires_grad_()
    b.requires_grad_()
    optimizer = torch.optim.SGD([w, b], lr=RATE)

    def loss_of(x: Any, y: Any) -> Any:
        return ((x @ w + b - y) ** 2).mean()

    if compile_loss:
        loss_of = torch.compile(loss_of)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def fastgrad_plain(**arguments: Any) -> Step:
    import fastgrad

    return _with_pytorch_names(fastgrad, **arguments)


def fastgrad_compiled(**arguments: Any) -> Step:
    import fastgrad

    return fastgrad.compile(_with_pytorch_names(fastgrad, **arguments))


def torch_eager(**arguments: Any) -> Step:
    import torch

    return _with_pytorch_names(torch, **arguments)


def torch_compiled(**arguments: Any) -> Step:
    import torch

    return _with_pytorch_names(torch, **arguments, compile_loss=True)


def jax_jit(n: int, d: int, dtype: str) -> Step:
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    x, y, w, b = (jax.numpy.asarray(a) for a in data(n, d, dtype))

    def loss_of(w: Any, b: Any, x: Any, y: Any) -> Any:
        return ((x @ w + b - y) ** 2).mean()

    @jax.jit
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


def numba_by_hand(n: int, d: int, dtype: str) -> Step:
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
    return lambda: update(x, y, w, b, scratch)


def pytensor(n: int, d: int, dtype: str) -> Step:
    import pytensor
    import pytensor.tensor as pt

    pytensor.config.floatX = dtype
    x, y, w0, b0 = data(n, d, dtype)
    w, b = pytensor.shared(w0), pytensor.shared(b0)
    tx, ty = pt.matrix("x", dtype=dtype), pt.matrix("y", dtype=dtype)
    loss = ((tx @ w + b - ty) ** 2).mean(dtype=dtype)
    dw, db = pytensor.grad(loss, [w, b])
    rate = np.asarray(RATE, dtype)
    update = pytensor.function([tx, ty], loss, updates={w: w - rate * dw, b: b - rate * db}, mode="NUMBA")
    update.trust_input = True
    return lambda: update(x, y)


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


def _workload(n: int, d: int, dtype: str, **options: Any) -> Workload:
    exact = {"float64": 1e-9, "float32": 1e-3}[dtype]
    arguments = {"n": n, "d": d, "dtype": dtype}
    return Workload(
        f"linear regression {n}x{d} {dtype}", __name__.rpartition(".")[2], arguments, tolerance=exact, **options
    )


WORKLOADS = [
    _workload(64, 8, "float32", quick=True),
    _workload(64, 8, "float64", quick=True),
    _workload(442, 10, "float32"),
    _workload(442, 10, "float64"),
    _workload(100_000, 32, "float32", without=("casadi",)),
]
