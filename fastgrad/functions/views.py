"""Views: tensors that share another tensor's memory.

A view knows its place in the shared `Storage` (offset and strides in elements). Where a gradient will be needed the view is
recorded as an operation, too; otherwise it is only a place, and costs the tape nothing until it is used.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import recording as tape
from ..dtypes import dtype
from ..ops.arrays import contiguous_strides, detach
from ..ops.table import View
from ..recording import STALE, Signature, Storage
from ..structure import structure_version
from .creation import from_numpy

if TYPE_CHECKING:
    from ..tensor import Tensor


def storage_of(t: Tensor) -> Storage:
    """A tensor's memory; a pending result gets a storage that waits for it."""
    storage = t._storage
    if storage is None:
        meta = t._meta
        storage = t._storage = Storage(None, 0, meta.numel, meta.numel * meta.dtype.itemsize)
        storage.at = t._at
    return storage


def strides_of(t: Tensor) -> tuple[int, ...]:
    """A tensor's element strides."""
    return t._strides if t._strides is not None else contiguous_strides(t._meta.shape)


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements lie in row-major order without gaps."""
    expected = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n == 0:
            return True
        if n != 1:
            if s != expected:
                return False
            expected *= n
    return True


def share(t: Tensor, base: Tensor, strides: tuple[int, ...], offset: int) -> Tensor:
    """Put a tensor on the memory of another."""
    t._offset = base._offset + offset
    t._strides = None if is_contiguous(t._meta.shape, strides) else strides
    t._whole = False
    return join(t, base)


def join(t: Tensor, base: Tensor) -> Tensor:
    """Give a tensor the storage of another. But for `attach` there is no way to get a second handle: a storage knows them all."""
    storage = storage_of(base)
    t._storage = storage
    if storage.aliases is None:
        storage.aliases = [weakref.ref(base)]
    elif len(storage.aliases) > storage.alias_limit:
        storage.aliases = [r for r in storage.aliases if r() is not None]
        storage.alias_limit = 2 * len(storage.aliases) + 64
    storage.aliases.append(weakref.ref(t))
    return t


def attach(t: Tensor, storage: Storage) -> Tensor:
    """Make a tensor the first handle of a storage, or another one."""
    t._storage = storage
    storage.aliases = [*(storage.aliases or ()), weakref.ref(t)]
    return t


def leave(t: Tensor) -> None:
    """A tensor gives up its storage, which goes on with its other handles."""
    storage = t._storage
    if storage is not None and storage.aliases is not None:
        storage.aliases = [r for r in storage.aliases if r() is not None and r() is not t]


def _place(t: Tensor) -> tuple[Any, ...]:
    return t._meta.shape, t._meta.dtype, t._offset, t._strides, t._whole


def set_data(t: Tensor, value: Tensor) -> None:
    """`t.data = value`: the tensor stands for another one's memory from now on, and keeps its own gradient flag."""
    if t._storage is not None and t._storage is value._storage and _place(t) == _place(value):
        return  # `t.data += x` puts back what it has written
    tr = tape.local.trace
    tape.leave_capture("`.data` of a tensor is replaced")
    source = value.detach()
    if source._storage is None or source._storage.array is None:
        tape.materialize(source)
    tape.flush(tr)
    if type(t._meta) is not Signature:  # another thread has yet to run it
        tape.materialize(t)
    if t._storage is source._storage:
        structure_version[0] += 1  # what a replay knows a tensor by is its storage
    move(t, source)
    t._meta = Signature.of(source._meta.shape, source._meta.dtype, t._meta.requires_grad)
    t._at = STALE


def set_(
    input: Tensor, source: Tensor | None = None, storage_offset: int = 0, size: Any = None, stride: Any = None
) -> Tensor:
    """Make a tensor stand for the memory of `source`, of the same dtype: for all that `source` stands for or, if `size` is given, for
    that shape with these element strides (row-major by default) from an offset of the memory on. Without a source it is empty.

    RuntimeError for another dtype, for a place outside of the memory, and for a leaf that requires a gradient, unless in `no_grad`.

    >>> a, b = fastgrad.zeros(2), fastgrad.arange(4.0)
    >>> a.set_(b, 1, (2,)).fill_(7.0)
    tensor([7., 7.])
    >>> b
    tensor([0., 7., 7., 3.])
    """
    if tape.local.trace.grad_enabled and input._meta.requires_grad and input.is_leaf:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
    if source is None:
        source = input.new_empty(0)
    elif not isinstance(source, tape.TENSOR):
        raise TypeError(f"set_(): argument 'source' must be Tensor, not {type(source).__name__}")
    if source._meta.dtype is not input._meta.dtype:
        raise RuntimeError(f"Could not set tensor of type {source._meta.dtype} to a tensor of type {input._meta.dtype}")
    set_data(input, source)
    if size is None:
        return input
    shape = tuple([int(n) for n in size])
    strides = contiguous_strides(shape) if stride is None else tuple([int(s) for s in stride])
    if len(strides) != len(shape):
        raise RuntimeError(f"set_(): mismatch in length of strides and shape: {list(strides)} for {list(shape)}")
    extent = 1 + sum([(n - 1) * s for n, s in zip(shape, strides, strict=True)]) if 0 not in shape else 0
    if min((*shape, *strides, storage_offset, 0)) < 0 or storage_offset + extent > input._storage.numel:
        raise RuntimeError(
            f"set_(): sizes {list(shape)}, strides {list(strides)} and offset {storage_offset} reach outside of a memory of "
            f"{input._storage.numel} elements"
        )
    structure_version[0] += 1
    input._offset, input._whole = storage_offset, False
    input._strides = None if is_contiguous(shape, strides) else strides
    input._meta = Signature.of(shape, input._meta.dtype, input._meta.requires_grad)
    return input


def move(t: Tensor, source: Tensor) -> None:
    """Put a tensor on all of what another stands for: storage, offset and strides."""
    leave(t)
    t._base = None
    t._offset, t._strides, t._whole = source._offset, source._strides, source._whole
    join(t, source)


def place(t: Tensor, base: Tensor, strides: tuple[int, ...] | None, offset: int, whole: bool) -> Tensor:
    """Put a tensor on the memory of another, at known strides."""
    share(t, base, strides_of(t) if strides is None else strides, offset)
    t._whole = whole
    return t


def view(base: Tensor, op: View, attrs: Any) -> Tensor | None:
    """A view of a tensor, or None if its elements would have to be copied."""
    tr = tape.local.trace
    if tr.static:
        return tape.apply(op, (base,), attrs)
    moved = op.move(base._meta.shape, strides_of(base), attrs)
    if moved is None:
        return None
    if base._meta.requires_grad and tr.grad_enabled:
        tape.room(tr)
        tr.static += 1  # the view is on its memory before anything runs
        try:
            t = tape.apply(op, (base,), attrs)
        finally:
            tr.static -= 1
        t._base = base if base._base is None else base._base
        share(t, base, *moved)
        if t._storage.shared and tape.exported(t._storage) and t._at[0] == tr.epoch:
            tape.displace(tr, t)  # its value is in memory that an array may change
        tape.settle(tr)
        return t
    meta = base._meta
    t = tape.blank(STALE, Signature.of(op.infer(meta.shape, attrs), meta.dtype))
    t._detached = meta.requires_grad or (base._detached and base._base is not None)
    t._base = base if base._base is None else base._base
    share(t, base, *moved)
    _wait(t)
    return t


def view_as_bits(base: Tensor, kind: dtype) -> Tensor:
    """The bits of a tensor's memory as elements of another type, outside of any gradient: memory shared as with an array."""
    old = base._meta.dtype
    if kind is old:
        return alias(base)
    title = f"to view {old.name} as {kind.name} (different element sizes), but got"
    if kind.itemsize != old.itemsize:
        shape, strides, ratio = base._meta.shape, strides_of(base), kind.itemsize // old.itemsize
        if not shape:
            raise RuntimeError(
                f"view: self.dim() cannot be 0 to view {old.name} as {kind.name} (different element sizes)"
            )
        if strides[-1] != 1:
            raise RuntimeError(f"view: self.stride(-1) must be 1 {title} {strides[-1]}")
        if ratio > 1:
            for what, number in (
                ("self.size(-1)", shape[-1]),
                ("self.storage_offset()", base._offset),
                *((f"self.stride({d})", s) for d, s in enumerate(strides[:-1]) if base._meta.numel),
            ):
                if number % ratio:
                    raise RuntimeError(f"view: {what} must be divisible by {ratio} {title} {number}")
    tape.leave_capture("the bits of a tensor are read as another dtype")
    array = base.detach().numpy().view(kind.numpy)
    return from_numpy(array if array.size else np.empty(array.shape, array.dtype))


def alias(base: Tensor) -> Tensor:
    """The same elements in the same memory, outside of any gradient."""
    meta = base._meta
    if tape.local.trace.static:
        return tape.apply(detach, (base,))
    t: Tensor = tape.blank(STALE, Signature.of(meta.shape, meta.dtype))
    t._detached = True
    share(t, base, strides_of(base), 0)
    t._whole = base._whole
    _wait(t)
    return t


def _wait(t: Tensor) -> None:
    """A handle on memory that is to be made is listed in the trace that will make it."""
    storage = t._storage
    if storage.array is not None:
        return
    tr = tape.local.trace
    if storage.at[0] == tr.epoch:
        tape.follow(tr, t)
        return
    owner = tape.owner_of(storage.at[0])
    if owner is not None:
        with owner.lock:
            if storage.array is None:
                tape.follow(owner, t)
