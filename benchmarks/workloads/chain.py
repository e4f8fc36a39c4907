"""What one operation costs, apart from its arithmetic: a chain of `length` operations on 8 elements, per operation.

- record: operations whose results nobody needs, so that recording them is all that happens (a peer that executes at
  once executes them);
- chain, value and gradient: a loop as users write it, forward and backward;
- sweep: a chain of values without gradients; for compiled peers this is one record of a sweep, or less.

Each is the difference of two lengths, so that what a step costs anyway drops out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..workload import Difference, Step, Workload

SIZE = 8


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(SIZE), 1 + 0.001 * rng.standard_normal(SIZE)


def _chain(x: Any, a: Any, length: int) -> Any:
    """Products and sums in turns, so that nothing folds."""
    for _ in range(length // 2):
        x = x * a
        x = x + a
    return x


def _steps(torch: Any, kind: str, compile_with: Callable[[Step], Step] = lambda step: step) -> Callable[[int], Step]:
    x, a = (torch.tensor(value) for value in data())
    if kind != "sweep":
        x.requires_grad_()

    def record(length: int) -> Step:
        def step() -> Any:
            for _ in range(length):
                x * a
            return x.sum().item()

        return step

    def gradient(length: int) -> Step:
        def step() -> Any:
            x.grad = None
            loss = _chain(x, a, length).sum()
            loss.backward()
            return loss

        step = compile_with(step)
        return lambda: step().item()

    def sweep(length: int) -> Step:
        step = compile_with(lambda: _chain(x, a, length).sum())
        return lambda: step().item()

    return {"record": record, "gradient": gradient, "sweep": sweep}[kind]


def _difference(steps: Callable[[int], Step], length: int, whole: bool) -> Step | Difference:
    return steps(length) if whole else Difference(steps(2 * length), steps(length))


def fastgrad_plain(kind: str, length: int, whole: bool) -> Step | Difference:
    import fastgrad

    return _difference(_steps(fastgrad, kind), length, whole)


def torch_eager(kind: str, length: int, whole: bool) -> Step | Difference:
    import torch

    return _difference(_steps(torch, kind), length, whole)


def fastgrad_compiled(kind: str, length: int, whole: bool) -> Step | Difference:
    import fastgrad

    return _difference(_steps(fastgrad, kind, fastgrad.compile), length, whole)


def jax_jit(kind: str, length: int, whole: bool) -> Step | Difference:
    """With `lax.scan`, as its users are told to: unrolled, it compiles for minutes."""
    import jax

    jax.config.update("jax_enable_x64", True)
    x, a = (jax.numpy.asarray(value) for value in data())

    def steps(length: int) -> Step:
        def loss_of(x: Any, a: Any) -> Any:
            return jax.lax.scan(lambda x, _: (x * a + a, None), x, None, length=length // 2)[0].sum()

        evaluate = jax.jit(loss_of if kind == "sweep" else jax.value_and_grad(loss_of))
        if kind == "sweep":
            return lambda: jax.block_until_ready(evaluate(x, a))
        return lambda: jax.block_until_ready(evaluate(x, a))[0]

    return _difference(steps, length, whole)


def hips_autograd(kind: str, length: int, whole: bool) -> Step | Difference:
    import autograd.numpy as anp
    from autograd import value_and_grad

    x, a = data()

    def steps(length: int) -> Step:
        evaluate = value_and_grad(lambda x: anp.sum(_chain(x, a, length)))
        return lambda: evaluate(x)[0]

    return _difference(steps, length, whole)


def casadi(kind: str, length: int, whole: bool) -> Step | Difference:
    import casadi as ca

    x, a = data()

    def steps(length: int) -> Step:
        symbol = ca.SX.sym("x", SIZE)
        loss = ca.sum1(_chain(symbol, ca.DM(a), length))
        outputs = [loss, ca.gradient(loss, symbol)] if kind == "gradient" else [loss]
        function = ca.Function("chain", [symbol], outputs)
        buffer, call = function.buffer()
        values = [np.array(x), np.zeros(1), np.zeros(SIZE)]
        buffer.set_arg(0, values[0].data)
        for i in range(len(outputs)):
            buffer.set_res(i, values[i + 1].data)

        def step(keep_alive: Any = (function, buffer)) -> Any:
            call()
            return values[1][0]

        return step

    return _difference(steps, length, whole)


def _workload(kind: str, length: int, name: str, without: tuple[str, ...], **options: Any) -> Workload:
    arguments = {"kind": kind, "length": length, "whole": False}
    return Workload(f"{name}, per operation", _MODULE, arguments, count=length, without=without, **options)


def whole(length: int) -> Workload:
    """Value and gradient of one chain, not per operation."""
    arguments = {"kind": "gradient", "length": length, "whole": True}
    return Workload(f"chain of {length} operations on 8 elements, value and gradient", _MODULE, arguments)


_MODULE = __name__.rpartition(".")[2]

WORKLOADS = [
    _workload("record", 500, "record", ("fastgrad_compiled", "hips_autograd", "casadi", "jax_jit"), quick=True),
    _workload("gradient", 200, "chain of 8 elements, value and gradient", (), quick=True),
    _workload("sweep", 1000, "chain of 8 elements, sweep", ("hips_autograd",), quick=True),
]
