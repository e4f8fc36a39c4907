"""Gradients: `backward`, `grad`, grad modes, user-defined functions, checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import recording as tape
from .. import reverse
from ..functions.creation import as_tensor
from ..tensor import Tensor
from .check import GradcheckError, gradcheck, gradgradcheck
from .function import Function
from .modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)

__all__ = [
    "Function",
    "GradcheckError",
    "Variable",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
]


def _sequence(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _roots(outputs: Sequence[Tensor], gradients: Any, name: str) -> list[Tensor | None]:
    """The gradients to start from, checked against their tensors."""
    given = _sequence(gradients) if gradients is not None else (None,) * len(outputs)
    if len(given) != len(outputs):
        raise RuntimeError(f"{name}: got {len(outputs)} tensors and {len(given)} gradients")
    checked: list[Tensor | None] = []
    for output, g in zip(outputs, given, strict=True):
        if not isinstance(output, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(output).__name__}")
        if not output.requires_grad:
            raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
        if g is None:
            if output.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            checked.append(None)
            continue
        if not isinstance(g, Tensor):
            g = as_tensor(g, dtype=output.dtype)
        if tuple(g.shape) != tuple(output.shape):
            raise RuntimeError(
                f"Mismatch in shape: grad_output[0] has a shape of {g.shape} and output[0] has a shape of {output.shape}."
            )
        checked.append(g.to(output.dtype))
    return checked


def _check_inputs(inputs: Sequence[Any]) -> None:
    """Whether gradients with respect to these can be asked for."""
    for i, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise TypeError(f"element {i} of gradients tuple is not a Tensor but a {type(t).__name__}")
        if not t.requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad")


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Accumulate gradients of tensors in the `.grad` of the leaves they were computed from (or of `inputs`)."""
    simple = (
        grad_tensors is None
        and not retain_graph
        and not create_graph
        and inputs is None
        and isinstance(tensors, Tensor)
    )
    if simple and reverse.quick(tensors):
        return
    outputs = _sequence(tensors)
    gradients = _roots(outputs, grad_tensors, "backward")
    tr = tape.local.trace
    start, epoch, slot, given = tr.node, tr.epoch, outputs[0]._at[1], len(tr.addresses)
    simple = simple and outputs[0]._at[0] == epoch and not tr.hooks and not tr.functions and tr.capture is None
    simple = simple and all([type(t) is not tuple and t._grad is None and not t._hooks for t in tr.sources.values()])
    wanted = None
    if inputs is not None:
        wanted = _sequence(inputs)
        if not wanted:
            raise RuntimeError("`inputs` argument to `backward` cannot be empty.")
        _check_inputs(wanted)
        for t in wanted:
            t.retain_grad()
    keep = create_graph if retain_graph is None else retain_graph
    reverse.run(outputs, gradients, keep, create_graph, wanted, True)
    if simple:
        reverse.remember_quick(tr, epoch, start, given, slot)
    tape.settle(tape.local.trace)


tape.backward = backward


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of outputs with respect to inputs, returned instead of accumulated.

    >>> x = fastgrad.tensor(3.0, requires_grad=True)
    >>> fastgrad.autograd.grad(x * x, x)
    (tensor(6.),)
    """
    roots, wanted = _sequence(outputs), _sequence(inputs)
    gradients = _roots(roots, grad_outputs, "grad")
    _check_inputs(wanted)
    keep = create_graph if retain_graph is None else retain_graph
    found = reverse.run(roots, gradients, keep, create_graph, wanted, False)
    results: list[Tensor | None] = [found.get(id(t)) for t in wanted]
    if materialize_grads:
        results = [g if g is not None else t.detach() * 0 for g, t in zip(results, wanted, strict=True)]
    elif not allow_unused and any(g is None for g in results):
        raise RuntimeError(
            "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this is "
            "the desired behavior."
        )
    tape.settle(tape.local.trace)
    return tuple(results)


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """The tensor itself; kept for old scripts."""
    return data.requires_grad_(requires_grad) if data.is_leaf else data
