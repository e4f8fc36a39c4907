"""One training step of a recurrent net: h = tanh(x_t @ u + h @ w + b) over `time` steps, a linear read-out at the end.

x is (time, batch, inputs), the loss the mean squared distance of the read-out to y (batch, 1); SGD. Parameters are
u (inputs, hidden), w (hidden, hidden), b (hidden,), v (hidden, 1). Everything float32.
"""

from functools import partial
from typing import Any

import numpy as np

from ..workload import Step, Workload

RATE = 0.01


def data(time: int, batch: int, inputs: int, hidden: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """x, y, parameters."""
    rng = np.random.default_rng(0)
    shapes = ((inputs, hidden), (hidden, hidden), (hidden,), (hidden, 1))
    p = [rng.uniform(-1, 1, s).astype(np.float32) / np.float32(np.sqrt(hidden)) for s in shapes]
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((time, batch, inputs), (batch, 1)))
    return x, y, p


def _loss(x: Any, y: Any, p: Any, tanh: Any, zero: Any) -> Any:
    """Written once for everything with `@`, unrolled over time."""
    u, w, b, v = p
    h = zero
    for row in x:
        h = tanh(row @ u + h @ w + b)
    return ((h @ v - y) ** 2).mean()


def _with_pytorch_names(torch: Any, time: int, batch: int, inputs: int, hidden: int) -> Step:
    values, target, start = data(time, batch, inputs, hidden)
    x, y = [torch.tensor(row) for row in values], torch.tensor(target)
    p = [torch.tensor(a).requires_grad_() for a in start]
    optimizer = torch.optim.SGD(p, lr=RATE)
    zero = torch.zeros(batch, hidden)

    def step() -> Any:
        optimizer.zero_grad()
        loss = _loss(x, y, p, torch.tanh, zero)
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


def torch_eager(time: int, batch: int, inputs: int, hidden: int) -> Step:
    """With nn.RNN, PyTorch's own loop over time; its second bias stays zero."""
    import torch

    values, target, (u, w, b, v) = data(time, batch, inputs, hidden)
    x, y = torch.tensor(values), torch.tensor(target)
    net: Any = torch.nn.RNN(inputs, hidden)
    read = torch.tensor(v).requires_grad_()
    with torch.no_grad():
        net.weight_ih_l0.copy_(torch.tensor(u.T))
        net.weight_hh_l0.copy_(torch.tensor(w.T))
        net.bias_ih_l0.copy_(torch.tensor(b))
        net.bias_hh_l0.zero_().requires_grad_(False)
    optimizer = torch.optim.SGD([net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0, read], lr=RATE)

    def step() -> Any:
        optimizer.zero_grad()
        loss = ((net(x)[1][0] @ read - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


def torch_compiled(time: int, batch: int, inputs: int, hidden: int) -> Step:
    """The whole step by way of torch.func, as one graph, unrolled."""
    import torch

    values, target, start = data(time, batch, inputs, hidden)
    x, y = torch.tensor(values), torch.tensor(target)
    p = [torch.tensor(a) for a in start]
    zero = torch.zeros(batch, hidden)

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        return _loss(x.unbind(0), y, p, torch.tanh, zero)

    @torch.compile
    def update(p: Any, x: Any, y: Any) -> Any:
        g, loss = torch.func.grad_and_value(loss_of)(p, x, y)
        for a, da in zip(p, g, strict=True):
            a.sub_(da, alpha=RATE)
        return loss

    return lambda: update(p, x, y)


def jax_jit(time: int, batch: int, inputs: int, hidden: int) -> Step:
    """With `lax.scan`."""
    import jax

    jax.config.update("jax_enable_x64", False)
    jnp = jax.numpy
    values, target, start = data(time, batch, inputs, hidden)
    x, y, p = jnp.asarray(values), jnp.asarray(target), [jnp.asarray(a) for a in start]

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        u, w, b, v = p

        def advance(h: Any, row: Any) -> Any:
            return jnp.tanh(row + h @ w), None

        h, _ = jax.lax.scan(advance, jnp.zeros((batch, hidden), x.dtype), x @ u + b)
        return jnp.mean((h @ v - y) ** 2)

    @partial(jax.jit, donate_argnums=0)
    def update(p: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        return loss, [a - RATE * da for a, da in zip(p, g, strict=True)]

    def step() -> Any:
        nonlocal p
        loss, p = update(p, x, y)
        return jax.block_until_ready(loss)

    return step


def pytensor(time: int, batch: int, inputs: int, hidden: int) -> Step:
    """With `scan`."""
    import pytensor
    import pytensor.tensor as pt

    pytensor.config.floatX = "float32"
    values, target, start = data(time, batch, inputs, hidden)
    p = [pytensor.shared(a) for a in start]
    x, y = pytensor.shared(values), pytensor.shared(target)
    u, w, b, v = p
    projected = pt.dot(x.reshape((time * batch, inputs)), u).reshape((time, batch, hidden)) + b
    zero = pt.zeros((batch, hidden), dtype="float32")
    states = pytensor.scan(
        lambda row, h, w: pt.tanh(row + h @ w), projected, [zero], [w], strict=True, return_updates=False
    )
    loss = ((states[-1] @ v - y) ** 2).mean(dtype="float32")
    rate = np.asarray(RATE, np.float32)
    updates = {a: a - rate * da for a, da in zip(p, pytensor.grad(loss, p), strict=True)}
    update = pytensor.function([], loss, updates=updates, mode="NUMBA")
    update.trust_input = True
    return update


def hips_autograd(time: int, batch: int, inputs: int, hidden: int) -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad

    x, y, p = data(time, batch, inputs, hidden)
    zero = np.zeros((batch, hidden), np.float32)

    def loss_of(p: Any) -> Any:
        u, w, b, v = p
        h = zero
        for row in x:
            h = anp.tanh(anp.dot(row, u) + anp.dot(h, w) + b)
        return anp.mean((anp.dot(h, v) - y) ** 2)

    evaluate = value_and_grad(loss_of)

    def step() -> Any:
        nonlocal p
        loss, g = evaluate(p)
        p = [a - RATE * da for a, da in zip(p, g, strict=True)]
        return loss

    return step


def numpy_by_hand(time: int, batch: int, inputs: int, hidden: int) -> Step:
    """All of x @ u as one product, and all its gradient."""
    x, y, (u, w, b, v) = data(time, batch, inputs, hidden)
    flat = x.reshape(time * batch, inputs)
    states = np.zeros((time + 1, batch, hidden), np.float32)
    slopes = np.empty((time, batch, hidden), np.float32)

    def step() -> Any:
        np.add((flat @ u).reshape(time, batch, hidden), b, out=slopes)
        for t in range(time):
            np.tanh(slopes[t] + states[t] @ w, out=states[t + 1])
        residual = states[-1] @ v - y
        back = residual * np.float32(2 / batch)
        dv = states[-1].T @ back
        g = back @ v.T
        dw = np.zeros_like(w)
        for t in range(time - 1, -1, -1):
            h = states[t + 1]
            np.multiply(g, 1 - h * h, out=slopes[t])
            dw += states[t].T @ slopes[t]
            g = slopes[t] @ w.T
        rows = slopes.reshape(time * batch, hidden)
        for a, da in ((u, flat.T @ rows), (w, dw), (b, rows.sum(0)), (v, dv)):
            a -= np.float32(RATE) * da
        return np.mean(residual * residual)

    return step


def numba_by_hand(time: int, batch: int, inputs: int, hidden: int) -> Step:
    from numba import njit

    x, y, (u, w, b, v) = data(time, batch, inputs, hidden)
    flat = x.reshape(time * batch, inputs)
    states = np.zeros((time + 1, batch, hidden), np.float32)
    slopes, g = np.empty((time, batch, hidden), np.float32), np.empty((batch, hidden), np.float32)
    moved, dw, du = np.empty((batch, hidden), np.float32), np.empty_like(w), np.empty_like(u)
    rate, one, two = np.float32(RATE), np.float32(1), np.float32(2 / batch)

    @njit(error_model="numpy", fastmath={"contract"})
    def update(
        flat: Any,
        y: Any,
        u: Any,
        w: Any,
        b: Any,
        v: Any,
        states: Any,
        slopes: Any,
        g: Any,
        moved: Any,
        dw: Any,
        du: Any,
    ) -> Any:
        rows = slopes.reshape(flat.shape[0], u.shape[1])
        np.dot(flat, u, rows)
        for t in range(slopes.shape[0]):
            np.dot(states[t], w, moved)
            for i in range(g.shape[0]):
                for j in range(g.shape[1]):
                    states[t + 1, i, j] = np.tanh(slopes[t, i, j] + moved[i, j] + b[j])
        last = states[slopes.shape[0]]
        residual = np.dot(last, v) - y
        loss = np.float32(0)
        for i in range(g.shape[0]):
            loss += residual[i, 0] * residual[i, 0]
            residual[i, 0] *= two
        for i in range(g.shape[0]):
            for j in range(g.shape[1]):
                g[i, j] = residual[i, 0] * v[j, 0]
        v -= rate * np.dot(last.T, residual)
        total = np.zeros_like(w)
        for t in range(slopes.shape[0] - 1, -1, -1):
            for i in range(g.shape[0]):
                for j in range(g.shape[1]):
                    h = states[t + 1, i, j]
                    slopes[t, i, j] = g[i, j] * (one - h * h)
            np.dot(states[t].T, slopes[t], dw)
            total += dw
            np.dot(slopes[t], w.T, g)
        np.dot(flat.T, rows, du)
        for k in range(rows.shape[0]):
            for j in range(rows.shape[1]):
                b[j] -= rate * rows[k, j]
        u -= rate * du
        w -= rate * total
        return loss / y.shape[0]

    return lambda: update(flat, y, u, w, b, v, states, slopes, g, moved, dw, du)


def _workload(time: int, batch: int, inputs: int, hidden: int, **options: Any) -> Workload:
    name = f"recurrent net, {time} time steps, batch {batch}, {inputs}-{hidden}, SGD"
    arguments = {"time": time, "batch": batch, "inputs": inputs, "hidden": hidden}
    return Workload(name, __name__.rpartition(".")[2], arguments, tolerance=2e-3, **options)


WORKLOADS = [_workload(50, 32, 16, 64)]
