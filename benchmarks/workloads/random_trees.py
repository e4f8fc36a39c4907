"""Programs that never repeat: every step draws another random expression over 8 elements, and takes its gradient.

An expression is a list of instructions (operation, operand, operand) on a growing list of values, of which only the
last few are used, as in a tree; nothing can be learnt from one step for the next. Shown per operation.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..workload import Step, Workload

SIZE, LENGTH, RECENT = 8, 50, 6


def programs() -> Iterator[list[list[int]]]:
    """Instructions of one program after the other; drawn many at once, so that drawing costs next to nothing."""
    rng = np.random.default_rng(0)
    while True:
        drawn = rng.integers(0, [5, RECENT, RECENT], (200, LENGTH, 3))
        yield from drawn.tolist()


def evaluate(x: Any, program: list[list[int]], tanh: Callable[[Any], Any], sin: Callable[[Any], Any]) -> Any:
    """The last value; operands count back from the newest."""
    values = [x] * RECENT
    for operation, i, j in program:
        a, b = values[-1 - i], values[-1 - j]
        if operation == 0:
            values.append(a + b)
        elif operation == 1:
            values.append(tanh(a) * b)
        elif operation == 2:
            values.append(a - b)
        elif operation == 3:
            values.append(tanh(a))
        else:
            values.append(sin(a))
    return values[-1]


def _with_pytorch_names(torch: Any) -> Step:
    x = torch.tensor(np.linspace(0.1, 0.8, SIZE)).requires_grad_()
    source = programs()

    def step() -> Any:
        x.grad = None
        loss = evaluate(x, next(source), torch.tanh, torch.sin).sum()
        loss.backward()
        return loss.item()

    return step


def fastgrad_plain() -> Step:
    import fastgrad

    return _with_pytorch_names(fastgrad)


def torch_eager() -> Step:
    import torch

    return _with_pytorch_names(torch)


def hips_autograd() -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad

    x = np.linspace(0.1, 0.8, SIZE)
    source = programs()
    value_and_gradient = value_and_grad(lambda x: anp.sum(evaluate(x, next(source), anp.tanh, anp.sin)))
    return lambda: value_and_gradient(x)[0]


def jax_eager() -> Step:
    """Without jit, which would compile every program for a tenth of a second."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    x = jnp.linspace(0.1, 0.8, SIZE)
    source = programs()
    value_and_gradient = jax.value_and_grad(lambda x: evaluate(x, next(source), jnp.tanh, jnp.sin).sum())
    return lambda: jax.block_until_ready(value_and_gradient(x))[0]


def casadi() -> Step:
    """An expression graph for every program, evaluated once."""
    import casadi as ca

    x = np.linspace(0.1, 0.8, SIZE)
    source = programs()
    symbol = ca.SX.sym("x", SIZE)

    def step() -> Any:
        loss = ca.sum1(evaluate(symbol, next(source), ca.tanh, ca.sin))
        value, _ = ca.Function("tree", [symbol], [loss, ca.gradient(loss, symbol)])(x)
        return float(value)

    return step


def drjit() -> Step:
    """Every program is traced and compiled anew."""
    import drjit as dr
    from drjit.llvm.ad import Float64

    values = np.linspace(0.1, 0.8, SIZE)
    source = programs()

    def step() -> Any:
        x = Float64(values)
        dr.enable_grad(x)
        loss = dr.sum(evaluate(x, next(source), dr.tanh, dr.sin))
        dr.backward(loss)
        gradient = dr.grad(x)
        value = dr.detach(loss)
        dr.eval(value, gradient)
        return value[0]

    return step


WORKLOADS = [
    Workload("random trees, never repeating, per operation", __name__.rpartition(".")[2], count=LENGTH, quick=True)
]
