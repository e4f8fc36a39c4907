"""Indexing: `x[...]`, `x[...] = v`.

A basic index (integers, slices, None, `...`) is a view. Positions (int64 tensors, arrays, lists, masks) are brought to one
list of positions into one flattened dimension, and then taken, put or added along it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import recording as tape
from ..dispatch import as_number, tensor_operand
from ..dtypes import INTEGER, bool_, int64
from ..ops import arrays
from ..ops.table import broadcast
from ..recording import count
from .arguments import fit, type_of
from .creation import as_tensor, wrap
from .data import array_of
from .positions import check_known, chosen, nonzero, single, written
from .views import view

if TYPE_CHECKING:
    from ..tensor import Tensor


def _is_integer(part: Any) -> bool:
    return (
        not isinstance(part, (bool, np.bool_))
        and hasattr(part, "__index__")
        and not isinstance(part, (np.ndarray, tape.TENSOR))
    )


def _parts(index: Any, shape: tuple[int, ...]) -> list[Any]:
    """The parts of an index, `...` filled up, lists and arrays as tensors, masks as positions."""
    parts = [_part(p) for p in (index if isinstance(index, tuple) or _is_several(index) else (index,))]
    spans = [0 if p is None or p is Ellipsis else p.mask.ndim if isinstance(p, _Mask) else 1 for p in parts]
    free = len(shape) - sum(spans)
    if any([p is Ellipsis for p in parts]):  # only the first stands for anything
        first = [p is Ellipsis for p in parts].index(True)
        kept = [k for k, p in enumerate(parts) if p is not Ellipsis or k == first]
        parts, spans = [parts[k] for k in kept], [spans[k] for k in kept]
    if free < 0:
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
    if not any([p is Ellipsis for p in parts]):
        parts, spans = [*parts, Ellipsis], [*spans, 0]
    flat: list[Any] = []
    d = 0
    for p, span in zip(parts, spans, strict=True):
        if p is Ellipsis:
            flat += [slice(None)] * free
            d += free
        elif isinstance(p, _Mask):
            _check_mask(p.mask, shape, d)
            flat += [_Position(q, span == 0, True) for q in nonzero(p.mask, as_tuple=True)]
        else:
            flat.append(p)
        d += span
    return flat


def _check_mask(mask: Tensor, shape: tuple[int, ...], d: int) -> None:
    if tuple(mask.shape) != tuple(shape[d : d + mask.ndim]):
        raise IndexError(
            f"The shape of the mask {list(mask.shape)} at index {d} does not match the shape of the indexed tensor "
            f"{list(shape)} at index {d}"
        )


def _is_several(index: Any) -> bool:
    """Whether a list stands for a tuple of indices, as PyTorch still has it (with a warning) for short ones of more than integers."""
    if not isinstance(index, list) or len(index) >= 32:
        return False
    several = any([p is None or p is Ellipsis or isinstance(p, (list, tuple, slice, tape.TENSOR)) for p in index])
    if several:
        warnings.warn(
            "Using a non-tuple sequence for multidimensional indexing is deprecated; use x[tuple(index)] instead of x[index], or "
            "x[fastgrad.tensor(index)] for one index of several dimensions",
            stacklevel=2,
        )
    return several


def _part(p: Any) -> Any:
    """One part: None, Ellipsis, slice, int, positions or a mask."""
    if p is None or p is Ellipsis or isinstance(p, slice):
        return p
    if isinstance(p, (bool, np.bool_)):
        return _Mask(as_tensor(bool(p)))
    if isinstance(p, tape.TENSOR) and p.ndim == 0 and p.dtype.category == 1:
        return int(p)
    if _is_integer(p):
        return p.__index__()
    if isinstance(p, (list, tuple, np.ndarray, range)):
        p = array_of(p, None)
        p = wrap(p.astype(np.int64) if p.size == 0 and p.dtype.kind == "f" else p)
        if p.ndim == 0 and p.dtype.category == INTEGER:
            return int(p)
    if not isinstance(p, tape.TENSOR):
        error = TypeError if isinstance(p, str) else IndexError
        raise error(
            f"only integers, slices (`:`), ellipsis (`...`), None and long or bool tensors are valid indices (got {type(p).__name__})"
        )
    if p.dtype.name in ("bool", "uint8"):
        return _Mask(p)
    if p.dtype.category != 1:
        raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors, got {p.dtype}")
    return _Position(p if p.dtype is int64 else p.to(int64))


class _Mask(NamedTuple):
    """A bool tensor in an index."""

    mask: Tensor


class _Position(NamedTuple):
    """Positions along a dimension, which is new if a mask without dimensions gave them, and whether a mask did."""

    positions: Tensor
    added: bool = False
    masked: bool = False


def _cut(p: slice, size: int) -> tuple[int, int, int]:
    bounds = slice(_int(p.start), _int(p.stop), _int(p.step))
    if bounds.step is not None and bounds.step <= 0:
        raise ValueError("step must be greater than zero")
    start, stop, step = bounds.indices(size)
    return start if stop > start else 0, step, max(0, -(-(stop - start) // step))


def _int(x: Any) -> Any:
    return x.__index__() if isinstance(x, tape.TENSOR) else x


def _basic(input: Tensor, parts: list[Any]) -> tuple[Tensor, list[Any]]:
    """Apply slices, integers and None; positions stay, each with the dimension it now stands at."""
    shape, new, positions = input.shape, [], []
    cut: list[Any] = []
    op = arrays.slice_
    d = 0
    for p in parts:
        if p is None or (isinstance(p, _Position) and p.added):
            new.append(1)
            positions.append(None if p is None else p.positions)
            continue
        size = shape[d]
        if isinstance(p, int):
            if not -size <= p < size:
                raise IndexError(f"index {p} is out of bounds for dimension {d} with size {size}")
            cut.append(p % size)
            op = arrays.select
        elif isinstance(p, slice):
            part = _cut(p, size)
            cut.append(part)
            op = op if part == (0, 1, size) else arrays.slice_
            new.append(part[2])
            positions.append(None)
        else:
            cut.append((0, 1, size))
            new.append(size)
            positions.append(p.positions)
        d += 1
    if tuple(cut) != tuple([(0, 1, n) for n in shape]):
        input = view(input, op, tuple(cut))  # type: ignore[assignment]
    if tuple(new) != input.shape:
        input = view(input, arrays.unsqueeze, tuple(new))  # type: ignore[assignment]
    return input, positions


def getitem(input: Tensor, index: Any) -> Tensor:
    """`input[index]`: a view for a basic index, a copy for positions and masks."""
    if isinstance(index, int) and not isinstance(index, bool) and input.ndim:
        parts: list[Any] = [index] + [slice(None)] * (input.ndim - 1)
    elif isinstance(index, int) and not isinstance(index, bool):
        raise IndexError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim tensor to a number"
        )
    else:
        parts = _parts(index, input._meta.shape)
    result, positions = _basic(input, parts)
    if any([p is not None for p in positions]):
        return _take(result, positions)
    return result if result is not input else view(input, arrays.reshape, input.shape)  # type: ignore[return-value]


def _linear(shape: Sequence[int], positions: list[Any]) -> tuple[Tensor, tuple[int, ...], list[int], bool]:
    """Positions along several dimensions as positions along their product: (positions, their shape, dimensions, adjacent)."""
    dims = [d for d, p in enumerate(positions) if p is not None]
    given = [positions[d] for d in dims]
    wide = np.broadcast_shapes(*[tuple(p.shape) for p in given]) if len(given) > 1 else tuple(given[0].shape)
    if len(given) == 1:
        return given[0], wide, dims, True
    total: Any = None
    for d, p in zip(dims, given, strict=True):
        size = shape[d]
        checked = tape.apply(arrays.index, (as_tensor(np.arange(size)), p), 0)  # IndexError, and negative ones wrapped
        total = checked if total is None else total * size + checked
    adjacent = dims[-1] - dims[0] + 1 == len(dims)
    return total, wide, dims, adjacent


def _front(input: Tensor, dims: list[int]) -> tuple[Tensor, tuple[int, ...]]:
    """The given dimensions first and run together."""
    rest = [d for d in range(input.ndim) if d not in dims]
    moved = tape.apply(arrays.permute, (input,), (*dims, *rest)) if dims != list(range(len(dims))) else input
    kept = tuple([input.shape[d] for d in rest])
    return tape.apply(arrays.reshape, (moved,), (count([input.shape[d] for d in dims]), *kept)), kept


def _broadcast_error(positions: list[Any]) -> IndexError:
    shapes = ", ".join([str(list(p.shape)) for p in positions if p is not None])
    return IndexError(f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}")


def _take(input: Tensor, positions: list[Any]) -> Tensor:
    try:
        index, wide, dims, adjacent = _linear(input.shape, positions)
    except ValueError:
        raise _broadcast_error(positions) from None
    if len(dims) == 1:
        return tape.apply(arrays.index, (input, index), dims[0])
    flat, kept = _front(input, dims)
    taken = tape.apply(arrays.index, (flat, index), 0)
    if adjacent and dims[0] > 0:
        k, lead = len(wide), dims[0]
        order = (*range(k, k + lead), *range(k), *range(k + lead, k + len(kept)))
        taken = tape.apply(arrays.permute, (taken,), order)
    return taken


def _assigned(input: Tensor, value: Any) -> Any:
    """The right side of an assignment: a tensor, or a number that the dtype holds."""
    if isinstance(value, tape.TENSOR):
        return value
    if isinstance(value, (np.ndarray, list, tuple)):
        return wrap(array_of(value, input.dtype))
    found = None if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 else as_number(value)
    if found is None and isinstance(value, int):
        raise ValueError(f"Overflow when unpacking long long: {value} needs more than 64 bits")
    if found is None:
        raise TypeError(f"can't assign a {type_of(value)} to a tensor of {input.dtype}")
    return fit("assignment", found, input.dtype)


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """`input[index] = value`, the value broadcast."""
    from .in_place import assign, copy_, fill_

    value = _assigned(input, value)
    number_of_one = not isinstance(value, tape.TENSOR) or value.numel() == 1
    if number_of_one and isinstance(index, tape.TENSOR) and index.dtype is bool_ and index.ndim:
        _check_mask(index, input._meta.shape, 0)
        mask = index.reshape(*index.shape, *(1,) * (input.ndim - index.ndim))
        one = value.reshape(()) if isinstance(value, tape.TENSOR) else value
        assign(input, chosen(mask, single("assignment", input, one), input))
        return
    parts = _parts(index, input._meta.shape)
    target, positions = _basic(input, parts)
    if all([p is None for p in positions]):
        (copy_ if isinstance(value, tape.TENSOR) else fill_)(target, value)
        return
    for d, p in enumerate(positions):
        if p is not None:
            check_known(p, target.shape[d], d)
    if isinstance(value, tape.TENSOR) and number_of_one and all([p.masked for p in parts if isinstance(p, _Position)]):
        value = value.to(input.dtype)
    try:
        linear, wide, dims, adjacent = _linear(target.shape, positions)
    except ValueError:
        raise _broadcast_error(positions) from None
    kept = [n for d, n in enumerate(target.shape) if d not in dims]
    lead = dims[0] if adjacent else 0
    shape = (*kept[:lead], *wide, *kept[lead:])
    value = written("assignment", target, value)
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = tape.apply(arrays.reshape, (value,), value.shape[1:])
    try:
        fits = np.broadcast_shapes(tuple(value.shape), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to indexing result of shape {list(shape)}"
        )
    if tuple(value.shape) != shape:
        value = tape.apply(arrays.expand, (value,), shape)
    if len(dims) == 1:
        assign(target, tape.apply(arrays.index_put, (target, linear, value), dims[0]))
        return
    k = len(wide)
    value = tape.apply(arrays.permute, (value,), (*range(lead, lead + k), *range(lead), *range(lead + k, len(shape))))
    flat, _ = _front(target, dims)
    put = tape.apply(arrays.index_put, (flat, linear, value), 0)
    rest = [d for d in range(target.ndim) if d not in dims]
    order = (*dims, *rest)
    put = tape.apply(arrays.reshape, (put,), tuple([target.shape[d] for d in order]))
    assign(target, tape.apply(arrays.permute, (put,), arrays._inverse(order)))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is true, as a vector. Observes the mask."""
    tensor_operand(input, "masked_select")
    tensor_operand(mask, "masked_select")
    if mask.dtype is not bool_:
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype}")
    shape = broadcast("masked_select", [input.shape, mask.shape])
    return getitem(input.expand(shape), mask.expand(shape))
