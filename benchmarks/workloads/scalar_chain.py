"""A chain of a million operations on one number, written as a Python loop, then its gradient; per operation.

x -> x * a, x -> x + b in turns, with a and b such that x stays near 1; the value and the gradients to x, a and b. What is
unrolled is as long as the data are: nothing of it can be planned cheaply, and a recursion anywhere would overflow.
"""

from typing import Any

from ..workload import Step, Workload

X, A, B = 1.0, 0.999, 0.001


def _chain(x: Any, a: Any, b: Any, length: int) -> Any:
    for _ in range(length // 2):
        x = x * a
        x = x + b
    return x


def _with_pytorch_names(torch: Any, length: int) -> Step:
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (X, A, B)]

    def step() -> Any:
        for leaf in leaves:
            leaf.grad = None
        y = _chain(leaves[0], leaves[1], leaves[2], length)
        y.backward()
        return y.item() + leaves[1].grad.item()

    return step


def fastgrad_plain(length: int) -> Step:
    import fastgrad

    return _with_pytorch_names(fastgrad, length)


def torch_eager(length: int) -> Step:
    import torch

    return _with_pytorch_names(torch, length)


def hips_autograd(length: int) -> Step:
    from autograd import value_and_grad

    evaluate = value_and_grad(lambda p: _chain(p[0], p[1], p[2], length))

    def step() -> Any:
        value, gradient = evaluate((X, A, B))
        return value + gradient[1]

    return step


def casadi(length: int) -> Step:
    """The expression is built once, which `first` shows; a step evaluates it."""
    import casadi as ca
    import numpy as np

    symbols = [ca.SX.sym(name) for name in "xab"]
    y = _chain(symbols[0], symbols[1], symbols[2], length)
    packed = ca.vertcat(*symbols)
    function = ca.Function("chain", [packed], [y, ca.gradient(y, packed)])
    buffer, call = function.buffer()
    values = [np.array([X, A, B]), np.zeros(1), np.zeros(3)]
    buffer.set_arg(0, values[0].data)
    buffer.set_res(0, values[1].data)
    buffer.set_res(1, values[2].data)

    def step(keep_alive: Any = (function, buffer)) -> Any:
        call()
        return values[1][0] + values[2][1]

    return step


def jax_jit(length: int) -> Step:
    """With `lax.scan`: a million operations as Python writes them would compile for hours."""
    import jax

    jax.config.update("jax_enable_x64", True)

    def value(p: Any) -> Any:
        return jax.lax.scan(lambda x, _: (x * p[1] + p[2], None), p[0], None, length=length // 2)[0]

    evaluate = jax.jit(jax.value_and_grad(value))
    p = tuple(jax.numpy.asarray(v) for v in (X, A, B))

    def step() -> Any:
        y, gradient = jax.block_until_ready(evaluate(p))
        return y + gradient[1]

    return step


def numba_by_hand(length: int) -> Step:
    """States kept on the way, as a reverse sweep would, although this chain needs less."""
    import numpy as np
    from numba import njit

    states = np.empty(length // 2)

    @njit(error_model="numpy")
    def evaluate(x: float, a: float, b: float, states: Any) -> Any:
        for i in range(states.size):
            states[i] = x
            x = x * a + b
        g, ga, gb = 1.0, 0.0, 0.0
        for i in range(states.size - 1, -1, -1):
            gb += g
            ga += g * states[i]
            g *= a
        return x, g, ga, gb

    def step() -> Any:
        y, _, ga, _ = evaluate(X, A, B, states)
        return y + ga

    return step


def _workload(length: int, name: str, **options: Any) -> Workload:
    arguments = {"length": length}
    return Workload(
        f"scalar chain of {name} operations, per operation",
        __name__.rpartition(".")[2],
        arguments,
        count=length,
        once=True,
        **options,
    )


WORKLOADS = [_workload(1_000_000, "a million")]
