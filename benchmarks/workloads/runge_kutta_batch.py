"""The fit of runge_kutta.py to many trajectories at once: states are vectors of `batch` numbers, the four parameters scalars.

Every trajectory starts somewhere else; the loss is the mean squared distance over all steps and trajectories. float64.
"""

import os
from functools import partial
from typing import Any

import numpy as np

from ..workload import Step, Workload
from .runge_kutta import GUESS, RATE, TRUE, H, _advance


def data(steps: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts (2, batch), and what is to be fitted, (steps, 2, batch)."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0.5, 1.5, (2, batch))
    rows, (x, y) = [], starts
    for _ in range(steps):
        x, y = _advance(x, y, TRUE)
        rows.append((x, y))
    return starts, np.array(rows)


def _loss(p: Any, starts: Any, target: Any, mean: Any) -> Any:
    """Unrolled; the squares of all steps are added before their mean is taken."""
    x, y = starts
    total: Any = 0.0
    for u, v in target:
        x, y = _advance(x, y, p)
        total = total + (x - u) * (x - u) + (y - v) * (y - v)
    return mean(total) / len(target)


def _with_pytorch_names(torch: Any, steps: int, batch: int) -> Step:
    starts, target = data(steps, batch)
    start = [torch.tensor(row) for row in starts]
    rows = [(torch.tensor(u), torch.tensor(v)) for u, v in target]
    p = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in GUESS]
    optimizer = torch.optim.SGD(p, lr=RATE)

    def step() -> Any:
        optimizer.zero_grad()
        loss = _loss(p, start, rows, torch.mean)
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


def torch_compiled(steps: int, batch: int) -> Step:
    """The whole step by way of torch.func, as one graph, unrolled."""
    import torch

    starts, target = data(steps, batch)
    start, rows = torch.tensor(starts), torch.tensor(target)
    p = torch.tensor(GUESS, dtype=torch.float64)

    def loss_of(p: Any, start: Any, rows: Any) -> Any:
        return _loss(p.unbind(0), start.unbind(0), [row.unbind(0) for row in rows.unbind(0)], torch.mean)

    @torch.compile
    def update(p: Any, start: Any, rows: Any) -> Any:
        g, loss = torch.func.grad_and_value(loss_of)(p, start, rows)
        p.sub_(g, alpha=RATE)
        return loss

    return lambda: update(p, start, rows)


def jax_jit(steps: int, batch: int) -> Step:
    """With `lax.scan`."""
    import jax

    jax.config.update("jax_enable_x64", True)
    starts, target = (jax.numpy.asarray(a) for a in data(steps, batch))
    p = jax.numpy.asarray(GUESS)

    def loss_of(p: Any, starts: Any, target: Any) -> Any:
        def one(state: Any, row: Any) -> Any:
            x, y = _advance(state[0], state[1], p)
            return (x, y), (x - row[0]) ** 2 + (y - row[1]) ** 2

        return jax.lax.scan(one, (starts[0], starts[1]), target)[1].mean()

    @partial(jax.jit, donate_argnums=0)
    def update(p: Any, starts: Any, target: Any) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(p, starts, target)
        return loss, p - RATE * gradient

    def step() -> Any:
        nonlocal p
        loss, p = update(p, starts, target)
        return jax.block_until_ready(loss)

    return step


def hips_autograd(steps: int, batch: int) -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad

    starts, target = data(steps, batch)
    evaluate = value_and_grad(lambda p: _loss((p[0], p[1], p[2], p[3]), starts, target, anp.mean))
    p = anp.array(GUESS)

    def step() -> Any:
        nonlocal p
        loss, gradient = evaluate(p)
        p = p - RATE * gradient
        return loss

    return step


def pytensor(steps: int, batch: int) -> Step:
    """With `scan`."""
    import pytensor

    pytensor.config.floatX = "float64"
    starts, target = (pytensor.shared(a) for a in data(steps, batch))
    p = pytensor.shared(np.array(GUESS))

    def one(row: Any, x: Any, y: Any, p: Any) -> Any:
        x, y = _advance(x, y, (p[0], p[1], p[2], p[3]))
        return x, y, (x - row[0]) ** 2 + (y - row[1]) ** 2

    outputs = pytensor.scan(one, target, [starts[0], starts[1], None], [p], strict=True, return_updates=False)
    loss = outputs[2].mean()
    update = pytensor.function([], loss, updates={p: p - RATE * pytensor.grad(loss, p)}, mode="NUMBA")
    update.trust_input = True
    return update


def drjit(steps: int, batch: int) -> Step:
    """Unrolled into one kernel."""
    import drjit as dr
    from drjit.llvm.ad import Float64

    if "BENCHMARK_THREADS" in os.environ:
        dr.set_thread_count(int(os.environ["BENCHMARK_THREADS"]))
    starts, target = data(steps, batch)
    start, rows = [Float64(a) for a in starts], [(Float64(u), Float64(v)) for u, v in target]
    p = [Float64(v) for v in GUESS]

    @dr.freeze
    def update(p: Any, start: Any, rows: Any) -> Any:
        dr.enable_grad(p)
        loss = _loss(p, start, rows, dr.mean)
        dr.backward(loss)
        return dr.detach(loss), [dr.detach(a) - RATE * dr.grad(a) for a in p]

    def step() -> Any:
        nonlocal p
        loss, p = update(p, start, rows)
        dr.eval(loss, p)
        dr.sync_thread()
        return loss[0]

    return step


def numba_by_hand(steps: int, batch: int) -> Step:
    """One trajectory forward and back after the other, its states in the cache."""
    from numba import njit

    starts, target = data(steps, batch)
    p, states, target = np.array(GUESS), np.empty((steps + 1, 2)), np.ascontiguousarray(target.transpose(2, 0, 1))

    @njit(inline="always")
    def slope(x: float, y: float, a: float, b: float, c: float, d: float) -> Any:
        xy = x * y
        return a * x - b * xy, c * xy - d * y

    @njit(error_model="numpy", fastmath={"contract"})
    def trajectory(start_x: float, start_y: float, states: Any, target: Any, p: Any, g: Any) -> float:
        a, b, c, d = p[0], p[1], p[2], p[3]
        n = target.shape[0]
        half, sixth = H / 2, H / 6
        states[0, 0], states[0, 1] = start_x, start_y
        loss = 0.0
        for i in range(n):
            x, y = states[i, 0], states[i, 1]
            k1, l1 = slope(x, y, a, b, c, d)
            k2, l2 = slope(x + half * k1, y + half * l1, a, b, c, d)
            k3, l3 = slope(x + half * k2, y + half * l2, a, b, c, d)
            k4, l4 = slope(x + H * k3, y + H * l3, a, b, c, d)
            x += sixth * (k1 + 2 * k2 + 2 * k3 + k4)
            y += sixth * (l1 + 2 * l2 + 2 * l3 + l4)
            states[i + 1, 0], states[i + 1, 1] = x, y
            loss += (x - target[i, 0]) ** 2 + (y - target[i, 1]) ** 2
        gx = gy = 0.0
        for i in range(n - 1, -1, -1):
            gx += 2 * (states[i + 1, 0] - target[i, 0])
            gy += 2 * (states[i + 1, 1] - target[i, 1])
            x, y = states[i, 0], states[i, 1]
            k1, l1 = slope(x, y, a, b, c, d)
            x2, y2 = x + half * k1, y + half * l1
            k2, l2 = slope(x2, y2, a, b, c, d)
            x3, y3 = x + half * k2, y + half * l2
            k3, l3 = slope(x3, y3, a, b, c, d)
            x4, y4 = x + H * k3, y + H * l3
            sx, sy, qx, qy = gx, gy, 0.0, 0.0
            for stage in range(4):
                if stage == 0:
                    u, v, k, l = x4, y4, sixth * gx, sixth * gy
                elif stage == 1:
                    u, v, k, l = x3, y3, 2 * sixth * gx + H * qx, 2 * sixth * gy + H * qy
                elif stage == 2:
                    u, v, k, l = x2, y2, 2 * sixth * gx + half * qx, 2 * sixth * gy + half * qy
                else:
                    u, v, k, l = x, y, sixth * gx + half * qx, sixth * gy + half * qy
                qx, qy = (a - b * v) * k + c * v * l, -b * u * k + (c * u - d) * l
                sx, sy = sx + qx, sy + qy
                g[0] += u * k
                g[1] -= u * v * k
                g[2] += u * v * l
                g[3] -= v * l
            gx, gy = sx, sy
        return loss

    @njit(error_model="numpy")
    def update(starts: Any, target: Any, states: Any, p: Any) -> float:
        g = np.zeros(4)
        loss = 0.0
        count = target.shape[0]
        for k in range(count):
            loss += trajectory(starts[0, k], starts[1, k], states, target[k], p, g)
        scale = 1 / (count * target.shape[1])
        for j in range(4):
            p[j] -= RATE * scale * g[j]
        return loss * scale

    return lambda: update(starts, target, states, p)


def _workload(steps: int, batch: int, **options: Any) -> Workload:
    arguments = {"steps": steps, "batch": batch}
    return Workload(
        f"Runge-Kutta fit of {batch} trajectories, {steps} steps", __name__.rpartition(".")[2], arguments, **options
    )


WORKLOADS = [_workload(20, 1000)]
