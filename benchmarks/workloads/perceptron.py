"""One training step of a perceptron: cross entropy, gradients, SGD or Adam.

Weights are (inputs, outputs) per layer, and a list [w, b, w, b, ...] is all parameters; every peer starts with the
same. `tanh` says whether hidden layers end in tanh or in ReLU.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..goals import faster
from ..workload import Loop, Step, Unavailable, Workload

RATE, BETA1, BETA2, EPSILON = 0.01, 0.9, 0.999, 1e-8


def data(sizes: list[int], batch: int, dtype: str) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """x (batch, inputs), classes (batch,), parameters."""
    rng = np.random.default_rng(0)
    parameters = []
    for inputs, outputs in pairwise(sizes):
        parameters.append(rng.uniform(-1, 1, (inputs, outputs)).astype(dtype) / np.sqrt(inputs).astype(dtype))
        parameters.append(np.zeros(outputs, dtype))
    x = rng.standard_normal((batch, sizes[0])).astype(dtype)
    return x, rng.integers(0, sizes[-1], batch), parameters


def one_hot(classes: np.ndarray, count: int, dtype: str) -> np.ndarray:
    return np.eye(count, dtype=dtype)[classes]


def _with_pytorch_names(
    torch: Any, sizes: list[int], batch: int, tanh: bool, adam: bool, dtype: str, **options: Any
) -> Any:
    """A step that takes its data as arguments, and the data. `options` are Adam's."""
    values, classes, start = data(sizes, batch, dtype)
    layers: list[Any] = []
    for w, b in zip(start[::2], start[1::2], strict=True):
        layer = torch.nn.Linear(*w.shape)
        layer.weight = torch.nn.Parameter(torch.tensor(np.ascontiguousarray(w.T)))
        layer.bias = torch.nn.Parameter(torch.tensor(b))
        layers += [layer, torch.nn.Tanh() if tanh else torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    loss_of = torch.nn.CrossEntropyLoss()
    parameters = model.parameters()
    optimizer = torch.optim.Adam(parameters, lr=RATE, **options) if adam else torch.optim.SGD(parameters, lr=RATE)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, torch.tensor(values), torch.tensor(classes)


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
    """Adam is the fused one, which is the fastest here; SGD's forms are alike."""
    import torch

    step, x, y = _with_pytorch_names(torch, **arguments, fused=True)
    return lambda: step(x, y)


def torch_compiled(sizes: list[int], batch: int, tanh: bool, adam: bool, dtype: str) -> Step:
    """The whole step by way of torch.func, as one graph: faster than a compiled model with `backward`."""
    import torch

    values, classes, start = data(sizes, batch, dtype)
    x, y = torch.tensor(values), torch.tensor(classes)
    p = [torch.tensor(a) for a in start]
    m, v = ([torch.zeros_like(a) for a in p] for _ in range(2))
    t = torch.zeros(())

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(p), 2):
            x = x @ p[i] + p[i + 1]
            if i + 2 < len(p):
                x = torch.tanh(x) if tanh else torch.relu(x)
        return torch.nn.functional.cross_entropy(x, y)

    @torch.compile
    def update(p: Any, m: Any, v: Any, t: Any, x: Any, y: Any) -> Any:
        g, loss = torch.func.grad_and_value(loss_of)(p, x, y)
        if not adam:
            for a, da in zip(p, g, strict=True):
                a.sub_(da, alpha=RATE)
            return loss
        t.add_(1)
        c1, c2 = 1 - BETA1**t, 1 - BETA2**t
        for a, da, b, c in zip(p, g, m, v, strict=True):
            b.lerp_(da, 1 - BETA1)
            c.mul_(BETA2).addcmul_(da, da, value=1 - BETA2)
            a.sub_(RATE / c1 * b / ((c / c2).sqrt() + EPSILON))
        return loss

    return lambda: update(p, m, v, t, x, y)


def jax_jit(sizes: list[int], batch: int, tanh: bool, adam: bool, dtype: str) -> Step:
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    jnp = jax.numpy
    values, classes, start = data(sizes, batch, dtype)
    x, y = jnp.asarray(values), jnp.asarray(classes)
    p = [jnp.asarray(a) for a in start]

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(p), 2):
            x = x @ p[i] + p[i + 1]
            if i + 2 < len(p):
                x = jnp.tanh(x) if tanh else jax.nn.relu(x)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(p: Any, state: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        if not adam:
            return loss, [a - RATE * da for a, da in zip(p, g, strict=True)], state
        t, m, v = state
        t = t + 1
        m = [BETA1 * a + (1 - BETA1) * da for a, da in zip(m, g, strict=True)]
        v = [BETA2 * a + (1 - BETA2) * da * da for a, da in zip(v, g, strict=True)]
        c1, c2 = 1 - BETA1**t, 1 - BETA2**t
        new = [a - RATE / c1 * b / (jnp.sqrt(c / c2) + EPSILON) for a, b, c in zip(p, m, v, strict=True)]
        return loss, new, (t, m, v)

    m, v = ([jnp.zeros_like(a) for a in p] for _ in range(2))
    state: Any = (jnp.zeros((), x.dtype), m, v) if adam else None

    def step() -> Any:
        nonlocal p, state
        loss, p, state = update(p, state, x, y)
        return jax.block_until_ready(loss)

    return step


def hips_autograd(sizes: list[int], batch: int, tanh: bool, adam: bool, dtype: str) -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.scipy.special import logsumexp

    x, classes, p = data(sizes, batch, dtype)
    y = one_hot(classes, sizes[-1], dtype)

    def loss_of(p: Any) -> Any:
        h = x
        for i in range(0, len(p), 2):
            h = anp.dot(h, p[i]) + p[i + 1]
            if i + 2 < len(p):
                h = anp.tanh(h) if tanh else anp.maximum(h, 0)
        return anp.sum(logsumexp(h, axis=1) - anp.sum(h * y, axis=1)) / batch

    evaluate = value_and_grad(loss_of)
    update = _numpy_update(p, adam)

    def step() -> Any:
        loss, g = evaluate(p)
        update(g)
        return loss

    return step


def _numpy_update(p: list[np.ndarray], adam: bool) -> Any:
    """A function that moves `p` in place, given the gradients."""
    m, v = ([np.zeros_like(a) for a in p] for _ in range(2))
    t = 0

    def sgd(g: list[np.ndarray]) -> None:
        for a, da in zip(p, g, strict=True):
            a -= RATE * da

    def adam_update(g: list[np.ndarray]) -> None:
        nonlocal t
        t += 1
        rate, root = RATE / (1 - BETA1**t), float(np.sqrt(1 - BETA2**t))
        for a, da, b, c in zip(p, g, m, v, strict=True):
            b += (1 - BETA1) * (da - b)
            c += (1 - BETA2) * (da * da - c)
            a -= rate * b / (np.sqrt(c) / root + EPSILON)

    return adam_update if adam else sgd


def numpy_by_hand(sizes: list[int], batch: int, tanh: bool, adam: bool, dtype: str) -> Step:
    x, classes, p = data(sizes, batch, dtype)
    rows, last = np.arange(batch), len(p) - 2
    update = _numpy_update(p, adam)

    def step() -> Any:
        inputs, h = [], x
        for i in range(0, len(p), 2):
            inputs.append(h)
            h = h @ p[i]
            h += p[i + 1]
            if i < last:
                h = np.tanh(h) if tanh else np.maximum(h, 0)
        h -= h.max(1, keepdims=True)
        picked = h[rows, classes]
        np.exp(h, out=h)
        total = h.sum(1)
        loss = (np.log(total) - picked).mean()
        h /= total[:, None]
        h[rows, classes] -= 1
        h /= batch
        g: list[Any] = [None] * len(p)
        for i in range(last, -1, -2):
            a = inputs[i // 2]
            g[i], g[i + 1] = a.T @ h, h.sum(0)
            if i:
                h = h @ p[i].T
                h *= (1 - a * a) if tanh else (a > 0)
        update(g)
        return loss

    return step


def _by_hand(sizes: list[int], batch: int, tanh: bool, adam: bool, dtype: str) -> Any:
    """A compiled update, and its arguments."""
    from numba import njit

    x, classes, p = data(sizes, batch, dtype)
    real = np.dtype(dtype).type
    last = len(sizes) - 2
    rate, beta1, beta2, epsilon, one, zero = (real(a) for a in (RATE, BETA1, BETA2, EPSILON, 1, 0))
    rate_of_sgd, share = rate, real(1 / batch)

    @njit(error_model="numpy", fastmath={"contract"})
    def move(p: Any, g: Any, m: Any, v: Any, rate: Any, root: Any) -> None:
        for i in range(p.size):
            if adam:
                m[i] += (one - beta1) * (g[i] - m[i])
                v[i] += (one - beta2) * (g[i] * g[i] - v[i])
                p[i] -= rate * m[i] / (np.sqrt(v[i]) * root + epsilon)
            else:
                p[i] -= rate * g[i]

    @njit(error_model="numpy", fastmath={"contract"})
    def update(
        x: Any, classes: Any, w: Any, b: Any, h: Any, g: Any, dw: Any, db: Any, m: Any, v: Any, n: Any, c: Any, t: Any
    ) -> Any:
        for layer in range(last + 1):
            y, bias = h[layer], b[layer]
            np.dot(x if layer == 0 else h[layer - 1], w[layer], y)
            for i in range(y.shape[0]):
                for j in range(y.shape[1]):
                    a = y[i, j] + bias[j]
                    if layer < last:
                        a = np.tanh(a) if tanh else max(a, zero)
                    y[i, j] = a
        loss, y, d = zero, h[last], g[last]
        for i in range(y.shape[0]):
            top = y[i, 0]
            for j in range(y.shape[1]):
                top = max(top, y[i, j])
            total = zero
            for j in range(y.shape[1]):
                d[i, j] = np.exp(y[i, j] - top)
                total += d[i, j]
            loss += np.log(total) + top - y[i, classes[i]]
            for j in range(y.shape[1]):
                d[i, j] *= share / total
            d[i, classes[i]] -= share
        t[0] += 1
        rate = real(RATE / (1 - BETA1 ** t[0])) if adam else rate_of_sgd
        root = real(1 / np.sqrt(1 - BETA2 ** t[0])) if adam else one
        for layer in range(last, -1, -1):
            d, bias = g[layer], db[layer]
            np.dot((x if layer == 0 else h[layer - 1]).T, d, dw[layer])
            bias[:] = zero
            for i in range(d.shape[0]):
                for j in range(d.shape[1]):
                    bias[j] += d[i, j]
            if layer > 0:
                back, a = g[layer - 1], h[layer - 1]
                np.dot(d, w[layer].T, back)
                for i in range(a.shape[0]):
                    for j in range(a.shape[1]):
                        if tanh:
                            back[i, j] *= one - a[i, j] * a[i, j]
                        elif a[i, j] <= zero:
                            back[i, j] = zero
            move(w[layer].reshape(-1), dw[layer].reshape(-1), m[layer].reshape(-1), v[layer].reshape(-1), rate, root)
            move(b[layer], bias, n[layer], c[layer], rate, root)
        return loss * share

    w, b = tuple(p[::2]), tuple(p[1::2])
    h, g = (tuple(np.empty((batch, size), dtype) for size in sizes[1:]) for _ in range(2))
    dw, m, v = (tuple(np.zeros_like(a) for a in w) for _ in range(3))
    db, n, c = (tuple(np.zeros_like(a) for a in b) for _ in range(3))
    t = np.zeros(1)
    return update, (x, classes, w, b, h, g, dw, db, m, v, n, c, t)


def numba_by_hand(**arguments: Any) -> Step:
    update, values = _by_hand(**arguments)
    return lambda: update(*values)


def numba_loop(**arguments: Any) -> Loop:
    """The loop over steps is compiled, too; every step's loss is kept, as in `step.loop`."""
    from numba import njit

    update, values = _by_hand(**arguments)
    dtype = values[0].dtype

    @njit
    def run(steps: int, values: Any) -> Any:
        losses = np.empty(steps, dtype)
        for k in range(steps):
            losses[k] = update(*values)
        return losses

    return Loop(lambda steps: run(steps, values)[-1])


def pytensor(sizes: list[int], batch: int, tanh: bool, adam: bool, dtype: str) -> Step:
    import pytensor
    import pytensor.tensor as pt

    pytensor.config.floatX = dtype
    values, classes, start = data(sizes, batch, dtype)
    labels = one_hot(classes, sizes[-1], dtype)
    p = [pytensor.shared(a) for a in start]
    x, y = pytensor.shared(values), pytensor.shared(labels)
    h = x
    for i in range(0, len(p), 2):
        h = h @ p[i] + p[i + 1]
        if i + 2 < len(p):
            h = pt.tanh(h) if tanh else pt.maximum(h, 0)
    loss = -(pt.special.log_softmax(h, axis=1) * y).sum(dtype=dtype) / np.asarray(batch, dtype)
    g = pytensor.grad(loss, p)
    rate, beta1, beta2, epsilon, one = (np.asarray(a, dtype) for a in (RATE, BETA1, BETA2, EPSILON, 1))
    updates = {}
    if adam:
        t = pytensor.shared(np.asarray(0, dtype))
        updates[t] = t + one
        c1, c2 = one - beta1 ** (t + one), one - beta2 ** (t + one)
        for a, da in zip(p, g, strict=True):
            m, v = (pytensor.shared(np.zeros_like(a.get_value())) for _ in range(2))
            updates[m] = beta1 * m + (one - beta1) * da
            updates[v] = beta2 * v + (one - beta2) * da * da
            updates[a] = a - rate / c1 * updates[m] / (pt.sqrt(updates[v] / c2) + epsilon)
    else:
        updates = {a: a - rate * da for a, da in zip(p, g, strict=True)}
    update = pytensor.function([], loss, updates=updates, mode="NUMBA")
    update.trust_input = True
    return update


def _workload(
    sizes: list[int], batch: int, tanh: bool = False, adam: bool = False, name: str = "", **options: Any
) -> Workload:
    described = name or f"perceptron {'-'.join(map(str, sizes))}, batch {batch}"
    arguments = {"sizes": sizes, "batch": batch, "tanh": tanh, "adam": adam, "dtype": "float32"}
    return Workload(
        f"{described}, {'Adam' if adam else 'SGD'}",
        __name__.rpartition(".")[2],
        arguments,
        tolerance=2e-3,
        **options,
    )


WORKLOADS = [
    _workload([2, 16, 16, 2], 16, tanh=True, quick=True, goals=(faster("fastgrad_compiled", 2.5),)),
    _workload([784, 128, 10], 32, goals=(faster("fastgrad_compiled", 1.5),)),
    _workload([784, 128, 10], 32, adam=True, goals=(faster("fastgrad_compiled", 1.5),)),
    _workload([784, 512, 512, 10], 256, goals=(faster("fastgrad_compiled", 1.1),)),
    _workload([8] * 17, 8, tanh=True, adam=True, name="32 small parameters: 16 layers of 8, batch 8"),
]
