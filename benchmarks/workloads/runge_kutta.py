"""Fit of the Lotka-Volterra equations: steps of the classical Runge-Kutta method, unrolled, then value and gradient.

x' = a x - b x y, y' = c x y - d y, from a known start; the loss is the mean squared distance to a trajectory at all
steps, the gradient is with respect to a, b, c, d, and one small step of descent follows. All scalars, float64.
"""

import os
from functools import partial
from typing import Any

import numpy as np

from ..goals import faster
from ..workload import Step, Workload

H, RATE = 0.05, 1e-4
START = (1.0, 0.5)
TRUE, GUESS = (1.1, 0.4, 0.1, 0.4), (1.0, 0.5, 0.12, 0.35)


def _advance(x: Any, y: Any, p: Any) -> tuple[Any, Any]:
    """One step, written once for everything that has + and *."""
    a, b, c, d = p

    def slope(x: Any, y: Any) -> tuple[Any, Any]:
        xy = x * y
        return a * x - b * xy, c * xy - d * y

    k1, l1 = slope(x, y)
    k2, l2 = slope(x + H / 2 * k1, y + H / 2 * l1)
    k3, l3 = slope(x + H / 2 * k2, y + H / 2 * l2)
    k4, l4 = slope(x + H * k3, y + H * l3)
    return x + H / 6 * (k1 + 2 * k2 + 2 * k3 + k4), y + H / 6 * (l1 + 2 * l2 + 2 * l3 + l4)


def trajectory(steps: int) -> np.ndarray:
    """What is to be fitted, (steps, 2)."""
    rows = []
    x, y = START
    for _ in range(steps):
        x, y = _advance(x, y, TRUE)
        rows.append((x, y))
    return np.array(rows)


def _unrolled(p: Any, target: list[list[float]]) -> Any:
    x: Any
    y: Any
    x, y = START
    loss: Any = 0.0
    for u, v in target:
        x, y = _advance(x, y, p)
        loss = loss + (x - u) * (x - u) + (y - v) * (y - v)
    return loss / len(target)


def _with_pytorch_names(torch: Any, steps: int) -> Step:
    p = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in GUESS]
    target = trajectory(steps).tolist()
    optimizer = torch.optim.SGD(p, lr=RATE)

    def step() -> Any:
        optimizer.zero_grad()
        loss = _unrolled(p, target)
        loss.backward()
        optimizer.step()
        return loss

    return step


def fastgrad_plain(steps: int) -> Step:
    import fastgrad

    return _with_pytorch_names(fastgrad, steps)


def fastgrad_compiled(steps: int) -> Step:
    import fastgrad

    return fastgrad.compile(_with_pytorch_names(fastgrad, steps))


def torch_eager(steps: int) -> Step:
    import torch

    return _with_pytorch_names(torch, steps)


def hips_autograd(steps: int) -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad

    target = trajectory(steps).tolist()
    evaluate = value_and_grad(lambda p: _unrolled((p[0], p[1], p[2], p[3]), target))
    p = anp.array(GUESS)

    def step() -> Any:
        nonlocal p
        loss, gradient = evaluate(p)
        p = p - RATE * gradient
        return loss

    return step


def jax_jit(steps: int) -> Step:
    """With `lax.scan`, as its users are told to: unrolled, it compiles for minutes."""
    import jax

    jax.config.update("jax_enable_x64", True)
    target = jax.numpy.asarray(trajectory(steps))
    p = jax.numpy.asarray(GUESS)

    def loss_of(p: Any, target: Any) -> Any:
        def one(state: Any, row: Any) -> Any:
            x, y = _advance(state[0], state[1], p)
            return (x, y), (x - row[0]) ** 2 + (y - row[1]) ** 2

        start = tuple(jax.numpy.asarray(v) for v in START)
        return jax.lax.scan(one, start, target)[1].mean()

    @partial(jax.jit, donate_argnums=0)
    def update(p: Any, target: Any) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(p, target)
        return loss, p - RATE * gradient

    def step() -> Any:
        nonlocal p
        loss, p = update(p, target)
        return jax.block_until_ready(loss)

    return step


def casadi(steps: int) -> Step:
    import casadi as ca

    symbols = ca.SX.sym("p", 4)
    loss = _unrolled([symbols[i] for i in range(4)], trajectory(steps).tolist())
    new = symbols - RATE * ca.gradient(loss, symbols)
    function = ca.Function("step", [symbols], [loss, new])
    buffer, call = function.buffer()
    p, value = np.array(GUESS), np.zeros(1)
    buffer.set_arg(0, p.data)
    buffer.set_res(0, value.data)
    buffer.set_res(1, p.data)

    def step(keep_alive: Any = (function, buffer)) -> Any:
        call()
        return value[0]

    return step


def pytensor(steps: int) -> Step:
    """With `scan`: unrolled, it compiles for minutes."""
    import pytensor

    pytensor.config.floatX = "float64"
    target, p = pytensor.shared(trajectory(steps)), pytensor.shared(np.array(GUESS))

    def one(row: Any, x: Any, y: Any, p: Any) -> Any:
        x, y = _advance(x, y, (p[0], p[1], p[2], p[3]))
        return x, y, (x - row[0]) ** 2 + (y - row[1]) ** 2

    start = [np.float64(v) for v in START]
    outputs = pytensor.scan(one, target, [*start, None], [p], strict=True, return_updates=False)
    loss = outputs[2].mean()
    update = pytensor.function([], loss, updates={p: p - RATE * pytensor.grad(loss, p)}, mode="NUMBA")
    update.trust_input = True
    return update


def drjit(steps: int) -> Step:
    """Unrolled into one kernel, on arrays of one number."""
    import drjit as dr
    from drjit.llvm.ad import Float64

    if "BENCHMARK_THREADS" in os.environ:
        dr.set_thread_count(int(os.environ["BENCHMARK_THREADS"]))
    target, p = trajectory(steps).tolist(), [Float64(v) for v in GUESS]

    @dr.freeze
    def update(p: Any) -> Any:
        dr.enable_grad(p)
        loss = _unrolled(p, target)
        dr.backward(loss)
        return dr.detach(loss), [dr.detach(a) - RATE * dr.grad(a) for a in p]

    def step() -> Any:
        nonlocal p
        loss, p = update(p)
        dr.eval(loss, p)
        dr.sync_thread()
        return loss[0]

    return step


def numba_by_hand(steps: int) -> Step:
    """The adjoint of the method by hand: states are kept, slopes computed again on the way back."""
    from numba import njit

    target, p, states = trajectory(steps), np.array(GUESS), np.empty((steps + 1, 2))
    states[0] = START

    @njit(inline="always")
    def slope(x: float, y: float, a: float, b: float, c: float, d: float) -> Any:
        xy = x * y
        return a * x - b * xy, c * xy - d * y

    @njit(inline="always")
    def pull(x: float, y: float, k: float, l: float, b: float, c: float, a: float, d: float) -> Any:
        """The adjoint of `slope`: to x, y, a, b, c, d."""
        return (a - b * y) * k + c * y * l, -b * x * k + (c * x - d) * l, x * k, -x * y * k, x * y * l, -y * l

    @njit(error_model="numpy")
    def update(states: Any, target: Any, p: Any) -> float:
        a, b, c, d = p[0], p[1], p[2], p[3]
        n = target.shape[0]
        loss = 0.0
        for i in range(n):
            x, y = states[i, 0], states[i, 1]
            k1, l1 = slope(x, y, a, b, c, d)
            k2, l2 = slope(x + H / 2 * k1, y + H / 2 * l1, a, b, c, d)
            k3, l3 = slope(x + H / 2 * k2, y + H / 2 * l2, a, b, c, d)
            k4, l4 = slope(x + H * k3, y + H * l3, a, b, c, d)
            x += H / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            y += H / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
            states[i + 1, 0], states[i + 1, 1] = x, y
            loss += (x - target[i, 0]) ** 2 + (y - target[i, 1]) ** 2
        gx = gy = ga = gb = gc = gd = 0.0
        for i in range(n - 1, -1, -1):
            gx += 2 / n * (states[i + 1, 0] - target[i, 0])
            gy += 2 / n * (states[i + 1, 1] - target[i, 1])
            x, y = states[i, 0], states[i, 1]
            k1, l1 = slope(x, y, a, b, c, d)
            x2, y2 = x + H / 2 * k1, y + H / 2 * l1
            k2, l2 = slope(x2, y2, a, b, c, d)
            x3, y3 = x + H / 2 * k2, y + H / 2 * l2
            k3, l3 = slope(x3, y3, a, b, c, d)
            x4, y4 = x + H * k3, y + H * l3
            sx, sy = gx, gy
            qx, qy, ta, tb, tc, td = pull(x4, y4, H / 6 * gx, H / 6 * gy, b, c, a, d)
            ga, gb, gc, gd, sx, sy = ga + ta, gb + tb, gc + tc, gd + td, sx + qx, sy + qy
            qx, qy, ta, tb, tc, td = pull(x3, y3, H / 3 * gx + H * qx, H / 3 * gy + H * qy, b, c, a, d)
            ga, gb, gc, gd, sx, sy = ga + ta, gb + tb, gc + tc, gd + td, sx + qx, sy + qy
            qx, qy, ta, tb, tc, td = pull(x2, y2, H / 3 * gx + H / 2 * qx, H / 3 * gy + H / 2 * qy, b, c, a, d)
            ga, gb, gc, gd, sx, sy = ga + ta, gb + tb, gc + tc, gd + td, sx + qx, sy + qy
            qx, qy, ta, tb, tc, td = pull(x, y, H / 6 * gx + H / 2 * qx, H / 6 * gy + H / 2 * qy, b, c, a, d)
            ga, gb, gc, gd, gx, gy = ga + ta, gb + tb, gc + tc, gd + td, sx + qx, sy + qy
        p[0] -= RATE * ga
        p[1] -= RATE * gb
        p[2] -= RATE * gc
        p[3] -= RATE * gd
        return loss / n

    return lambda: update(states, target, p)


def workload(steps: int, **options: Any) -> Workload:
    """The workload of this size."""
    return Workload(f"Runge-Kutta fit, {steps} steps", __name__.rpartition(".")[2], {"steps": steps}, **options)


WORKLOADS = [workload(20, quick=True), workload(200, goals=(faster("fastgrad_compiled", 2),))]
