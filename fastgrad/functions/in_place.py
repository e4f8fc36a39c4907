"""Writing in place: a tensor's handle gets a new value, and so does everything that shares its memory.

A write records the new value of the whole shared memory and marks where it has to land when the trace runs. Gradients always
see the value that was there when an operation was recorded.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import recording as tape
from ..hooks import move_watch
from ..ops import arrays
from ..ops.elementwise import overwrite
from ..ops.table import broadcast
from ..recording import STALE, Node, Signature, Storage, Trace, Urgent
from . import pointwise
from .arguments import fit, integer, number
from .creation import as_tensor
from .random import all_held, bernoulli, draw, draw_integers
from .views import storage_of

if TYPE_CHECKING:
    from ..tensor import Tensor


def _check(t: Tensor, tr: Trace) -> None:
    """Whether this tensor may be written to in the present grad mode."""
    if tr.grad_enabled and t._meta.requires_grad:
        if t.is_leaf:
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        if t._unwritable:
            raise RuntimeError(
                "a result of an autograd Function that is one of its arguments, or a view of one, is being modified inplace: this "
                "would override the Function's backward. Return a clone() from forward."
            )
    base = t._base
    if base is not None and tr.grad_enabled and base._meta.requires_grad:
        if base.is_leaf:
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")
        if t._detached and not t.requires_grad:
            raise RuntimeError(
                "A view was created in no_grad mode and is being modified inplace with grad mode enabled: whether the gradient "
                "is to know of it can't be told. Make the view outside of no_grad, or write under no_grad, or to a detach()."
            )
    shape = t._meta.shape
    if (
        t._strides is not None
        and any([s == 0 and n > 1 for s, n in zip(t._strides, shape, strict=True)])
        and 0 not in shape
    ):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )


def assign(t: Tensor, value: Tensor) -> Tensor:
    """Make `value` (same shape and dtype) the value of `t`, in its memory."""
    tr = tape.local.trace
    _check(t, tr)
    assert value._meta.dtype is t._meta.dtype and value._meta.shape == t._meta.shape
    if tr.static:
        raise RuntimeError("in-place operations cannot be part of a composite")
    if tr.shared is not None and _is_late(tr, t):
        value = value.clone()  # one that outlives the trace, which ends before anything is entered
        tape.flush(tr)
    if value._meta.requires_grad and not tr.grad_enabled:
        value = value.detach()  # a parameter, say, that another one is a copy of
    value_slot = tape.slots_of(tr, (value,))[0]
    if tr.draft is not None and t._storage is None and t._at[0] == tr.epoch and not t._meta.requires_grad:
        meta = tr.draft.kind(value_slot)
        if not meta.requires_grad:  # no memory yet, and no history: another value is all there is to it
            t._at, t._meta = (tr.epoch, value_slot), meta
            t._writes += 1
            return t
    own = type(value._meta) is Node and value._storage is None  # else the node may be another trace's
    value_node = value._meta if own else tr.entries()[value_slot]
    if value_node.requires_grad and (value_node.op is tape.LEAF or value_node.op is tape.ALIAS):
        value = value.clone()  # the copy is an entry of its own, not the input
        value_slot = tape.slots_of(tr, (value,))[0]
        value_node = tr.entries()[value_slot]
    if tr.grad_enabled and t._meta.requires_grad and not value_node.requires_grad and not t.is_leaf:
        value_slot = _overwritten(tr, t, value_slot)
        value_node = tr.entries()[value_slot]
    storage = t._storage
    if storage is None and t._at[0] == tr.epoch:
        _remember(tr, t, value_slot, t._at[1])
        _rebind(tr, t, value_node)
        t._writes += 1
        return t
    storage = storage_of(t)
    if storage.array is None and storage.at[0] != tr.epoch:
        tape.materialize(t)
        return assign(t, value)
    with tape.writing:
        _write(tr, t, storage, value_slot, value_node)
    if storage.shared and tape.exported(storage) and tr.capture is None:
        tape.flush(tr)
    else:
        tape.settle(tr)
    return t


def _is_late(tr: Trace, t: Tensor) -> bool:
    """Whether a tensor, or what it is a view of, has a younger history than what another thread has seen of the trace."""
    late = False
    for x in (t, t._base):
        if x is not None:
            if type(x._meta) is not Signature and tape.epoch_of(x) != tr.epoch:
                tape.materialize(x)
            late = late or tape.is_younger(tr, x)
    return late


def _write(tr: Trace, t: Tensor, storage: Storage, value_slot: int, value_node: Any) -> None:
    """Record that a value is written to a tensor's place in its memory."""
    if storage.array is not None and storage.writer is not tr.mark:
        tape.claim(tr, storage)
    if storage.savers:
        tape.protect({storage: 0})  # a graph that reads the old value gets a copy of it
    if storage.array is not None:
        current = tr.entered.get(storage)
        if current is None:
            current = tape.enter_storage(tr, t)
    else:
        current = storage.at[1]
    if storage not in tr.written and storage.array is not None:
        tr.written[storage] = current
    made, made_node = value_slot, value_node
    if not t._whole:
        if tr.capture is not None:
            tr.capture.fixed.add(storage)
        base = t._base
        mine = tape.is_related(t)
        if base is not None and base._whole and base._meta.requires_grad and base._storage is storage:
            current, mine = tape.slots_of(tr, (base,))[0], True  # with the base's history
        whole = _handle(tr, current)
        part = _handle(tr, value_slot)
        tr.static += 1
        try:
            if whole._meta.requires_grad and not mine:
                whole = tape.apply(arrays.detach, (whole,))  # the history that other handles have is none of this one's
            geometry = (t._meta.shape, t._strides, t._offset)
            scattered = tape.apply(arrays.as_strided_scatter, (whole, part), geometry)
            made, made_node = scattered._at[1], scattered._meta
        finally:
            tr.static -= 1
        tr.live.pop()
    if storage.array is not None:
        tape.mark(tr, (tape.WRITE.code, tr.written[storage], made), tape.WRITE, (tr.written[storage], made))
        tr.entered[storage] = made
    else:
        _remember(tr, storage, made, current)
        storage.at = (tr.epoch, made)
        storage.version += 1
    related = made_node.requires_grad
    storage.family = weakref.ref(t if t._base is None else t._base) if related else None
    for reference in storage.aliases or ():
        other = reference()
        if other is not None:
            if type(other._meta) is Signature:
                other._at = STALE
            else:
                tape.displace(tr, other)
            if other is t:
                continue
            if other is t._base or (related and not other._detached and tape.is_related(other)):
                _history(tr, other, made)
    if t._meta.requires_grad and type(t._meta) is Signature and not value_node.requires_grad:
        t._at = STALE  # written under no_grad: it keeps its history, and the next reader of a parameter is another iteration
    else:
        _rebind(tr, t, value_node)


def _remember(tr: Trace, holder: Tensor | Storage, made: int, old: int) -> None:
    """What a tensor or storage that has no memory yet stood for before this write, should the trace end in an error."""
    if tr.draft is None:
        tr.before.setdefault(id(holder), []).append((made, old, tr.real.end))


def _overwritten(tr: Trace, t: Tensor, value_slot: int) -> int:
    """All of a tensor replaced by a value without a history: it keeps its own, with a gradient of zeros for what was overwritten."""
    old = _handle(tr, tape.slots_of(tr, (t,))[0])
    tr.static += 1
    try:
        made = tape.apply(overwrite, (old, _handle(tr, value_slot)))
    finally:
        tr.static -= 1
    tr.live.pop()
    return made._at[1]


def _handle(tr: Trace, slot: int) -> Tensor:
    return tape.blank((tr.epoch, slot), tr.entries()[slot])


def _history(tr: Trace, other: Tensor, slot: int) -> None:
    """A tensor whose memory was written through another one takes part in the gradient of what was written."""
    node = tr.entries()[slot]
    if node.requires_grad:
        # a part of the memory, or it has entered as a flat array
        if not other._whole or node.shape != other._meta.shape:
            node = tape.AS_STRIDED.record_value(
                tr, slot, (other._meta.shape, other._strides, other._offset), detached=False
            )
        _rebind(tr, other, node)


def _rebind(tr: Trace, t: Tensor, node: Any) -> None:
    """The handle stands for another entry from now on; one that has a history keeps it when the entry has none."""
    if t._meta.requires_grad and not node.requires_grad and type(t._meta) is Node:
        node = tape.rewritten(tr, node, t._meta)
    t._at = (tr.epoch, node.slot)
    if node.requires_grad or type(t._meta) is not Signature:
        tape.follow(tr, t)
        t._meta = node
        if t._origin is not None:
            if tr.capture is not None:  # it noted the tensor, to be looked at in every call; this run needs what it was
                tr.sources.update([(slot, t._origin) for slot, source in tr.sources.items() if source is t])
            t._origin = None
        if t._watch is not None:
            move_watch(t)


def _fitted(name: str, t: Tensor, value: Tensor) -> Tensor:
    """A result in the shape and dtype of the tensor it is written to."""
    shape = t._meta.shape
    if value._meta.shape != shape:
        if broadcast(name, [shape, value._meta.shape]) != shape:
            raise RuntimeError(
                f"{name}: output with shape {list(shape)} doesn't match the broadcast shape {list(value._meta.shape)}"
            )
        value = tape.apply(arrays.expand, (value,), shape)
    kind = t._meta.dtype
    if value._meta.dtype is not kind:
        if value._meta.dtype.category > kind.category:
            raise RuntimeError(
                f"{name}: result type {value._meta.dtype} can't be cast to the desired output type {kind}"
            )
        value = pointwise.convert(value, kind)
    return value


def writer(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The in-place form of a function."""

    def write(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tr = tape.local.trace
        _check(input, tr)
        with tape.writing:  # no other thread writes between the value and the write
            eager, tr.node = tr.node, tr.real  # the value and the write run together
            try:
                value = _fitted(name, input, function(input, *args, **kwargs))
            finally:
                if type(eager) is Urgent:
                    tr.node = Urgent(tr.real)
            return assign(input, value)

    write.__name__ = name
    write.__doc__ = f"`{function.__name__}` in place."
    return write


add_, sub_ = writer("add_", pointwise.add), writer("sub_", pointwise.sub)
mul_, div_ = writer("mul_", pointwise.mul), writer("div_", pointwise.div)
pow_, neg_ = writer("pow_", pointwise.pow), writer("neg_", pointwise.neg)
abs_, exp_, log_ = writer("abs_", pointwise.abs), writer("exp_", pointwise.exp), writer("log_", pointwise.log)
sqrt_, square_, reciprocal_ = (
    writer("sqrt_", pointwise.sqrt),
    writer("square_", pointwise.square),
    writer("reciprocal_", pointwise.reciprocal),
)
tanh_, sigmoid_, relu_ = (
    writer("tanh_", pointwise.tanh),
    writer("sigmoid_", pointwise.sigmoid),
    writer("relu_", pointwise.relu),
)
sin_, cos_, floor_, ceil_ = (
    writer("sin_", pointwise.sin),
    writer("cos_", pointwise.cos),
    writer("floor_", pointwise.floor),
    writer("ceil_", pointwise.ceil),
)
clamp_, clamp_min_, clamp_max_ = (
    writer("clamp_", pointwise.clamp),
    writer("clamp_min_", pointwise.clamp_min),
    writer("clamp_max_", pointwise.clamp_max),
)
addcmul_, addcdiv_, lerp_ = (
    writer("addcmul_", pointwise.addcmul),
    writer("addcdiv_", pointwise.addcdiv),
    writer("lerp_", pointwise.lerp),
)
fmod_, remainder_, floor_divide_ = (
    writer("fmod_", pointwise.fmod),
    writer("remainder_", pointwise.remainder),
    writer("floor_divide_", pointwise.floor_divide),
)


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Write `src`, broadcast and converted, into the tensor."""
    value = src
    if not isinstance(src, tape.TENSOR):
        value = (
            as_tensor(src) if isinstance(src, (np.ndarray, list, tuple)) else tape.scalar(number("copy_", "src", src))
        )
    tr = tape.local.trace
    _check(input, tr)
    shape = input._meta.shape
    if value._meta.shape != shape:
        lead = len(value._meta.shape) - len(shape)
        if lead > 0 and value._meta.shape[:lead] == (1,) * lead:
            value = tape.apply(arrays.reshape, (value,), value._meta.shape[lead:])
        try:
            fits = broadcast("copy_", [shape, value._meta.shape]) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise RuntimeError(
                f"The expanded size of the tensor ({list(shape)}) must match the existing size ({list(value._meta.shape)}): "
                "copy_ broadcasts its source to the tensor's shape"
            )
        value = tape.apply(arrays.expand, (value,), shape)
    value = pointwise.convert(value, input._meta.dtype)
    if tr.grad_enabled and input._meta.requires_grad and value._meta.requires_grad and input._whole:
        value = tape.apply(overwrite, (input, value))  # the gradient of what was overwritten is zero, not missing
    return assign(input, value)


def fill_(input: Tensor, value: Any) -> Tensor:
    """Write a number into every element."""
    tr = tape.local.trace
    _check(input, tr)
    if isinstance(value, tape.TENSOR):
        if value.ndim:
            raise RuntimeError(
                f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions."
            )
        return copy_(input, value)
    value = number("fill_", "value", value)
    return _fill(tr, input, tape.scalar(fit("fill_", value, input._meta.dtype)))


def zero_(input: Tensor) -> Tensor:
    """Write zeros."""
    tr = tape.local.trace
    _check(input, tr)
    return _fill(tr, input, tape.constant(0.0))


def _fill(tr: Trace, input: Tensor, number: Tensor) -> Tensor:
    meta = input._meta
    tr.static += 1
    try:
        number = pointwise.convert(number, meta.dtype)
        value = tape.apply(arrays.expand, (number,), meta.shape)
    finally:
        tr.static -= 1
    tr.live.pop()
    return assign(input, value)


def _check_floating(name: str, input: Tensor) -> None:
    _check(input, tape.local.trace)
    if not input._meta.dtype.is_floating_point:
        raise NotImplementedError(f'"{name}" not implemented for {input._meta.dtype}; use a floating-point tensor')


def uniform_(input: Tensor, a: Any = 0.0, b: Any = 1.0, *, generator: Any = None) -> Tensor:
    """Write uniform numbers from [a, b)."""
    _check_floating("uniform_", input)
    a, b = float(number("uniform_", "from", a)), float(number("uniform_", "to", b))
    if a > b:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}")
    return assign(input, draw("uniform", input._meta.shape, input.dtype, a, b, generator))


def normal_(input: Tensor, mean: Any = 0.0, std: Any = 1.0, *, generator: Any = None) -> Tensor:
    """Write normal numbers."""
    _check_floating("normal_", input)
    mean, std = float(number("normal_", "mean", mean)), float(number("normal_", "std", std))
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    return assign(input, draw("normal", input._meta.shape, input.dtype, mean, std, generator))


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Write 1 with probability p (a number, or a tensor that broadcasts), else 0."""
    _check(input, tape.local.trace)
    if isinstance(p, tape.TENSOR):
        return assign(input, pointwise.convert(bernoulli(p.expand(input.shape), generator=generator), input.dtype))
    p = float(number("bernoulli_", "p", p))
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    return assign(input, draw("bernoulli", input._meta.shape, input.dtype, p, 0.0, generator))


def random_(input: Tensor, low: Any = None, high: Any = None, *, generator: Any = None) -> Tensor:
    """Write integers from [low, high): `random_()`, `random_(high)` or `random_(low, high)`; by default all that the dtype holds."""
    _check(input, tape.local.trace)
    if high is None:
        low, high = 0, all_held(input.dtype) + 1 if low is None else low
    bounds = integer("random_", "from", low), integer("random_", "to", high)
    return assign(input, draw_integers("random_", input._meta.shape, input.dtype, *bounds, generator))
