"""The quick ways into the tape: recorders for operations of one and two tensors, and for composites.

A recorder looks one edge up and makes one tensor; everything else is in `recording`. The bodies below are written out rather than
shared because they are what a training loop spends its time in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from . import recording as tape
from .ops.table import Operation
from .recording import COMPOSITE, Edge, Node, Urgent, apply_scalar, apply_slow, enter, local

_new = object.__new__


def tensor_operand(value: Any, name: str) -> Any:
    """An argument that must be a Tensor."""
    if isinstance(value, tape.TENSOR):
        return value
    raise TypeError(f"{name}(): argument must be Tensor, not {type(value).__name__}")


def unary(op: Operation) -> Callable[[Any], Any]:
    """A recorder for an operation of one tensor."""
    code, name = op.code, op.name

    def record(input: Any) -> Any:
        tr = local.trace
        try:
            epoch, slot = input._at
        except AttributeError:
            raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}") from None
        if epoch != tr.epoch:
            slot = enter(tr, input)
        node = tr.node.next.get((code, slot))
        if node is None:
            made = tr.draft.one(tr, code, slot) if tr.draft is not None else None
            return apply_slow(tr, op, (input,), None) if made is None else made
        tr.node = node
        t = _new(tape.TENSOR)
        t._at = (tr.epoch, node.slot)
        t._meta = node
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    record.__name__ = name
    record.__doc__ = f"{name} of every element of `input`."
    return record


def binary(
    op: Operation, swapped: bool = False, otherwise: Callable[..., Any] | None = None
) -> Callable[[Any, Any], Any]:
    """A recorder for an operation of two tensors, or of a tensor and a number.

    `otherwise(record, input, other)` answers for an operand that is neither; without it that is a TypeError.
    """
    code, name = op.code, op.name

    def record(input: Any, other: Any) -> Any:
        tr = local.trace
        Tensor = tape.TENSOR
        if not isinstance(other, Tensor):
            kind = type(other)
            if kind is float or (kind is int and -(1 << 63) <= other < 1 << 64) or kind is bool:
                if isinstance(input, Tensor):
                    return apply_scalar(op, input, other, swapped)
                raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
            number = as_number(other)
            if number is not None:
                return record(input, number)
            if otherwise is not None:
                return otherwise(record, input, other)
            raise TypeError(f"{name}(): argument 'other' must be Tensor or number, not {kind.__name__}")
        if not isinstance(input, Tensor):
            number = as_number(input)
            if number is None:
                raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
            if isinstance(number, Tensor):
                return record(number, other)
            return apply_scalar(op, other, number, not swapped)
        a, b = (other, input) if swapped else (input, other)
        epoch = tr.epoch
        e, left = a._at
        if e != epoch:
            left = enter(tr, a)
            epoch = tr.epoch
        e, right = b._at
        if e != epoch:
            right = enter(tr, b)
            if tr.epoch != epoch:
                return record(input, other)
        node = tr.node.next.get((code, left, right))
        if node is None:
            made = tr.draft.two(tr, code, left, right) if tr.draft is not None else None
            return apply_slow(tr, op, (a, b), None) if made is None else made
        tr.node = node
        t = _new(Tensor)
        t._at = (epoch, node.slot)
        t._meta = node
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    record.__name__ = name
    record.__doc__ = f"{name} of `input` and `other`, element by element, broadcast."
    return record


def pair(op: Operation, general: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A recorder for an operation of two tensors that goes to `general` wherever this place of the trace is new."""
    code = op.code

    def record(input: Any, other: Any) -> Any:
        tr = local.trace
        try:
            e, left = input._at
            f, right = other._at
        except AttributeError:
            return general(input, other)
        epoch = tr.epoch
        if e != epoch:
            left = enter(tr, input)
            epoch = tr.epoch
        if f != epoch:
            right = enter(tr, other)
            if tr.epoch != epoch:
                return record(input, other)
        node = tr.node.next.get((code, left, right))
        if node is None:
            return _shortcut(tr, (code, left, right), general, input, other)
        if type(node) is Edge:  # the general way was one stretch
            tr.node = node.end
            node = node.outputs
        else:
            tr.node = node
        t = _new(tape.TENSOR)
        t._at = (epoch, node.slot)
        t._meta = node
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    record.__name__ = general.__name__
    record.__doc__ = general.__doc__
    return record


def _shortcut(tr: Any, key: Any, general: Callable[[Any, Any], Any], input: Any, other: Any) -> Any:
    """Record in the general way; what that recorded can be found under `key` next time, if it took nothing else in."""
    start, epoch, live, inputs = tr.node, tr.epoch, len(tr.live), (len(tr.addresses), len(tr.scalars))
    made = general(input, other)
    if tr.epoch == epoch and type(start) is Node and type(tr.node) is Node and not tr.static and key not in start.next:
        alone = inputs == (len(tr.addresses), len(tr.scalars)) and len(tr.live) == live + 1 and tr.live[-1] is made
        if alone and type(made._meta) is Node and made._meta is not start:
            start.next[key] = Edge(tr.node, made._meta)
    return made


def as_number(value: Any) -> Any:
    """The Python number in a NumPy scalar or a subclass of float or int, or None; OverflowError for more than 64 bits."""
    on_tape = getattr(value, "on_tape", None)  # a number that `compile` computes again
    if on_tape is not None:
        return on_tape()
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise OverflowError(f"int too big to convert: {value} needs more than 64 bits")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    return None


F = TypeVar("F", bound=Callable[..., Any])


def composite(label: str | None = None) -> Callable[[F], F]:
    """Make a function of tensors one edge of the trace cache.

    The function is recorded when it is met first in some place; later, calling it is one look-up. Its arguments are tensors,
    tuples or lists of tensors, and hashable values, which are part of the key; Python numbers in its body become constants.
    It must not observe values or write in place. Its result carries `label` as the name of its gradient function.
    """

    def decorate(function: F) -> F:
        identity = f"{function.__module__}.{function.__qualname__}"

        @functools.wraps(function)
        def record(*arguments: Any) -> Any:
            tr = local.trace
            if tr.static:
                return function(*arguments)
            epoch = tr.epoch
            parts: list[Any] = [identity]
            for x in arguments:
                if x is None:
                    parts.append(None)
                elif isinstance(x, tape.TENSOR):
                    e, slot = x._at
                    parts.append(slot if e == epoch else enter(tr, x))
                else:
                    parts.append(_part(tr, x))
            key = tuple(parts) if tr.epoch == epoch else _key(tr, identity, arguments)
            edge = tr.node.next.get(key)
            if edge is None:
                return _record(tr, identity, label, function, arguments)
            tr.node = edge.end
            node = edge.outputs
            return tape.result(tr, node) if type(node) is Node else _results(tr, node)

        return record  # type: ignore[return-value]

    return decorate


def _key(tr: Any, identity: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    while True:
        epoch = tr.epoch
        key = (identity, *[_part(tr, x) for x in arguments])
        if tr.epoch == epoch:
            return key


def _part(tr: Any, x: Any) -> Any:
    if isinstance(x, tape.TENSOR):
        at = x._at
        return at[1] if at[0] == tr.epoch else enter(tr, x)
    if x is None:
        return None
    if isinstance(x, (tuple, list)):
        return ("sequence", *[_part(tr, y) for y in x])
    return (type(x), x)


def _results(tr: Any, outputs: Any) -> Any:
    if type(outputs) is Node:
        return tape.result(tr, outputs)
    return None if outputs is None else tuple([_results(tr, x) for x in outputs])


def _record(tr: Any, identity: str, label: str | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    tape.room(tr)
    if tr.draft is not None:
        return tr.draft.composite(tr, label, function, arguments)
    key = _key(tr, identity, arguments)
    start = tr.real
    edge = tape.found(start, key)
    if edge is not None:
        tr.node = edge.end if type(tr.node) is not Urgent else Urgent(edge.end)
        made = _results(tr, edge.outputs)
        tape.settle(tr)
        return made
    first, leaves, numbers = len(tr.live), len(tr.addresses), len(tr.scalars)
    tape.mark(tr, ("start", key), COMPOSITE, (), identity)
    tr.static += 1
    try:
        out = function(*arguments)
    except BaseException:
        del tr.live[first:]  # what was recorded stays on the tape; nobody will want it
        raise
    finally:
        tr.static -= 1
    del tr.live[first:]
    outputs = _nodes(tr, out, start.end, label)
    if len(tr.addresses) == leaves and len(tr.scalars) == numbers:  # it made no inputs of its own
        start.next[key] = Edge(tr.real, outputs)
    made = _results(tr, outputs)
    tape._bound(tr)
    tape.settle(tr)
    return made


def _nodes(tr: Any, out: Any, first: int, label: str | None) -> Any:
    if isinstance(out, tape.TENSOR):
        slot = out._at[1] if out._at[0] == tr.epoch else enter(tr, out)
        node = tr.entries()[slot]
        if label is not None and slot >= first:
            node.name = label
        return node
    return None if out is None else [_nodes(tr, x, first, label) for x in out]
