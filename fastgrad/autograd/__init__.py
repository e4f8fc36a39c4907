"""Gradients: `backward`, `grad`, grad modes, user-defined functions, checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import recording as tape
from .. import reverse
from ..functions.creation import zeros, zeros_like
from ..functions.shapes import stack
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
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _given(gradients: Any, count: int) -> tuple[Any, ...]:
    """The gradients to start from, one for each output."""
    return (None,) * count if gradients is None else _sequence(gradients)


def _roots(outputs: Sequence[Tensor], given: Sequence[Any], name: str) -> list[Tensor | None]:
    """The gradients to start from, checked against their tensors."""
    for g in given:
        if g is not None and not isinstance(g, Tensor):
            raise TypeError(f"{name}: gradients can be either Tensors or None, but got {type(g).__name__}")
    if len(given) != len(outputs):
        raise RuntimeError(f"{name}: got {len(outputs)} tensors and {len(given)} gradients")
    checked: list[Tensor | None] = []
    for i, (output, g) in enumerate(zip(outputs, given, strict=True)):
        if not isinstance(output, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(output).__name__}")
        if not output.requires_grad:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        if g is None:
            if output.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            checked.append(None)
            continue
        if tuple(g.shape) != tuple(output.shape):
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{i}] has a shape of {g.shape} and output[{i}] has a shape of {output.shape}."
            )
        checked.append(g.to(output.dtype))
    return checked


def _check_inputs(inputs: Sequence[Any], name: str) -> None:
    """Whether gradients with respect to these can be asked for."""
    if not inputs:
        raise RuntimeError(f"`inputs` argument to `{name}()` cannot be empty.")
    for i, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: element {i} of inputs is not a Tensor but a {type(t).__name__}")
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
    gradients = _roots(outputs, _given(grad_tensors, len(outputs)), "backward")
    if not outputs:
        return
    tr = tape.local.trace
    start, epoch, slot, given = tr.node, tr.epoch, outputs[0]._at[1], len(tr.addresses)
    simple = simple and outputs[0]._at[0] == epoch and not tr.hooks and not tr.functions and tr.capture is None
    simple = simple and all(
        [type(t) is not tuple and t._grad is None and not t._looked_at for t in tr.sources.values()]
    )
    wanted = None
    if inputs is not None:
        wanted = _sequence(inputs)
        _check_inputs(wanted, "backward")
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
) -> Any:
    """The gradients of the sum of outputs with respect to inputs, returned instead of accumulated: a tuple, or a dict where
    `inputs` is one.

    `grad_outputs` are the factors of the outputs, of their shapes; with `is_grads_batched` they have one more dimension in
    front, and so do the results: a walk for each of its elements. An input that takes no part is a RuntimeError, unless
    `allow_unused` makes its result None or `materialize_grads` makes it zeros.

    >>> x = fastgrad.tensor(3.0, requires_grad=True)
    >>> fastgrad.autograd.grad(x * x, x)
    (tensor(6.),)
    >>> x = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    >>> fastgrad.autograd.grad(x * x, x, fastgrad.eye(2), is_grads_batched=True)
    (tensor([[2., 0.],
            [0., 4.]]),)
    """
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False."
        )
    roots, wanted = _sequence(outputs), _sequence(inputs.values() if type(inputs) is dict else inputs)
    _check_inputs(wanted, "grad")
    given = _given(grad_outputs, len(roots))
    keep = create_graph if retain_graph is None else retain_graph
    if is_grads_batched:
        results = _batched(roots, given, keep, create_graph, wanted)
    else:
        results = _gradients(roots, given, keep, create_graph, wanted)
    if materialize_grads:
        results = [
            g if g is not None else zeros_like(t, requires_grad=bool(create_graph))
            for g, t in zip(results, wanted, strict=True)
        ]
    elif not allow_unused and any([g is None for g in results]):
        raise RuntimeError(
            "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this is "
            "the desired behavior."
        )
    tape.settle(tape.local.trace)
    return dict(zip(inputs, results, strict=True)) if type(inputs) is dict else tuple(results)


def _gradients(
    roots: Sequence[Tensor], given: Sequence[Any], keep: bool, create: bool, wanted: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients of one walk, in the order of the inputs."""
    found = reverse.run(roots, _roots(roots, given, "grad"), keep, create, wanted, False)
    return [found.get(id(t)) for t in wanted]


def _batched(
    roots: Sequence[Tensor], given: Sequence[Any], keep: bool, create: bool, wanted: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients of a walk for each element of the given gradients' first dimension, stacked."""
    sizes = set()
    for root, g in zip(roots, given, strict=False):
        if not isinstance(g, Tensor) or g.ndim == 0 or tuple(g.shape[1:]) != tuple(root.shape):
            shape = f"the shape {g.shape}" if isinstance(g, Tensor) else repr(g)
            raise RuntimeError(
                f"grad: with is_grads_batched=True the first dimension of each grad_output is the batch, and the others are those "
                f"of its output, {root.shape}; got {shape}"
            )
        sizes.add(g.shape[0])
    if len(sizes) != 1:
        raise RuntimeError(f"grad: the first dimensions of batched grad_outputs differ: {sorted(sizes)}")
    count = sizes.pop()
    rows = [
        _gradients(roots, [g[i] for g in given], keep or i + 1 < count, create, wanted) for i in range(count)
    ]  # fmt: skip
    if not rows:
        return [zeros(0, *t.shape, dtype=t.dtype) for t in wanted]
    return [None if column[0] is None else stack(column) for column in zip(*rows, strict=True)]


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """The tensor itself; kept for old scripts."""
    return data.requires_grad_(requires_grad) if data.is_leaf else data
