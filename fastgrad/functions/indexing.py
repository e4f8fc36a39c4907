"""Indexing: `x[...]`, `x[...] = v`, and functions that read or write where positions say.

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
from ..ops.elementwise import where_op
from ..ops.table import CONVERT
from ..recording import count
from .arguments import fit, integer, number, numpy_names, type_of
from .creation import as_tensor, wrap
from .data import array_of
from .reductions import wrap_dim
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
    if sum([p is Ellipsis for p in parts]) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
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


def _check_known(index: Tensor, size: int, d: int) -> None:
    """IndexError at once where positions to be written to lie in memory, so that a caught error has changed nothing.

    Positions that are still to be computed are checked by the kernel.
    """
    tr, storage = tape.local.trace, index._storage
    if storage is None or storage.array is None or storage in tr.written or tr.capture is not None or tr.static:
        return
    if index._meta.numel:
        values = index._view_of_memory()
        low, high = int(values.min()), int(values.max())
        if low < -size or high >= size:
            wrong = low if low < -size else high
            raise IndexError(f"index {wrong} is out of bounds for dimension {d} with size {size}")


def _written(name: str, input: Tensor, value: Any) -> Tensor:
    """A tensor of the same dtype to be written at positions, or a number as one."""
    if not isinstance(value, tape.TENSOR):
        made = tape.scalar(value)
        return made if made.dtype is input.dtype else tape.apply(CONVERT, (made,), input.dtype)
    if value._meta.weak:
        return tape.apply(CONVERT, (value,), input.dtype)
    if value.dtype is not input.dtype:
        raise RuntimeError(
            f"{name}: Index put requires the source and destination dtypes match, got {input.dtype} for the destination and "
            f"{value.dtype} for the source; convert the source with .to({input.dtype})"
        )
    return value


def _chosen(mask: Tensor, value: Tensor, input: Tensor) -> Tensor:
    """`value`, a tensor of one number and of the input's dtype, where the mask is true, else the input."""
    return tape.apply(where_op, (mask, value, input))


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
        assign(input, _chosen(mask, _single("assignment", input, one), input))
        return
    parts = _parts(index, input._meta.shape)
    target, positions = _basic(input, parts)
    if all([p is None for p in positions]):
        (copy_ if isinstance(value, tape.TENSOR) else fill_)(target, value)
        return
    for d, p in enumerate(positions):
        if p is not None:
            _check_known(p, target.shape[d], d)
    if isinstance(value, tape.TENSOR) and number_of_one and all([p.masked for p in parts if isinstance(p, _Position)]):
        value = value.to(input.dtype)
    try:
        linear, wide, dims, adjacent = _linear(target.shape, positions)
    except ValueError:
        raise _broadcast_error(positions) from None
    kept = [n for d, n in enumerate(target.shape) if d not in dims]
    lead = dims[0] if adjacent else 0
    shape = (*kept[:lead], *wide, *kept[lead:])
    value = _written("assignment", target, value)
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


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of elements that are not zero, (number, dimensions), or one vector a dimension. Observes `input`."""
    tensor_operand(input, "nonzero")
    found = np.nonzero(np.atleast_1d(input.detach().numpy()))
    if as_tuple:
        return tuple([as_tensor(x.astype(np.int64)) for x in found])
    return as_tensor(np.stack(found, axis=1).astype(np.int64) if input.ndim else np.zeros((len(found[0]), 0), np.int64))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is true, as a vector. Observes the mask."""
    tensor_operand(input, "masked_select")
    tensor_operand(mask, "masked_select")
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    return getitem(input.expand(shape), mask.expand(shape))


def _positions(name: str, index: Any) -> Tensor:
    tensor_operand(index, name)
    if index.dtype.category != 1:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, got {index.dtype}")
    return index if index.dtype is int64 else index.to(int64)


@numpy_names
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices at positions along a dimension."""
    tensor_operand(input, "index_select")
    index = _positions("index_select", index)
    if index.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    if not input.ndim:
        if index.numel() != 1:
            raise RuntimeError(f"index_select(): Index to scalar can have only 1 value, got {index.numel()} value(s)")
        return index_select(input.reshape(1), dim, index).reshape(())
    return tape.apply(arrays.take, (input, index.reshape(-1)), wrap_dim("index_select", dim, input.ndim))


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions of the flattened tensor."""
    tensor_operand(input, "take")
    return tape.apply(arrays.index, (input.reshape(-1), _positions("take", index)), 0)


@numpy_names
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """`out[i][j] = input[index[i][j]][j]` for dim 0, and so on: index has as many dimensions as input."""
    tensor_operand(input, "gather")
    index = _positions("gather", index)
    dim = wrap_dim("gather", dim, input.ndim)
    if input.ndim * index.ndim == 0 and input.ndim + index.ndim < 2:  # a number is a vector of one
        return gather(_vector(input), dim, _vector(index)).reshape(index.shape)
    return tape.apply(arrays.gather, (_fitted("gather", input, dim, index), index), dim)


def _vector(t: Any) -> Any:
    """A number as a vector of one."""
    return t.reshape(1) if isinstance(t, tape.TENSOR) and not t.ndim else t


def _fitted(name: str, big: Tensor, dim: int, index: Tensor) -> Tensor:
    """A tensor cut to the index's size in all dimensions but one."""
    if big.ndim != index.ndim:
        raise RuntimeError(
            f"{name}: Index tensor must have the same number of dimensions as input tensor, got {index.ndim} and {big.ndim}"
        )
    cut = []
    for d, (n, m) in enumerate(zip(big.shape, index.shape, strict=True)):
        if d != dim and m > n:
            raise RuntimeError(
                f"{name}: Size does not match at dimension {d} expected index {list(index.shape)} to be no larger than "
                f"self {list(big.shape)} apart from dimension {dim}"
            )
        cut.append((0, 1, n if d == dim else m))
    return (
        big
        if all([c[2] == n for c, n in zip(cut, big.shape, strict=True)])
        else tape.apply(arrays.slice_, (big,), tuple(cut))
    )


def _scattered(name: str, op: Any, input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    index = _positions(name, index)
    dim = wrap_dim(name, dim, input.ndim)
    if not input.ndim:
        return _scattered(name, op, _vector(input), dim, _vector(index), _vector(src)).reshape(())
    if not isinstance(src, tape.TENSOR):
        src = tape.apply(arrays.expand, (_single(name, input, src),), tuple(index.shape))
    if src.dtype is not input.dtype:
        raise RuntimeError(f"{name}(): Expected self.dtype to be equal to src.dtype, got {input.dtype} and {src.dtype}")
    cut = tuple([(0, 1, m) for m in index.shape])
    if any([m > n for m, n in zip(index.shape, src.shape, strict=True)]):
        raise RuntimeError(f"{name}: Expected index {list(index.shape)} to be no larger than src {list(src.shape)}")
    if tuple(src.shape) != tuple(index.shape):
        src = tape.apply(arrays.slice_, (src,), cut)
    part = _fitted(name, input, dim, index)
    _check_known(index, input.shape[dim], dim)
    made = tape.apply(op, (part, index, src), dim)
    if part is input:
        return made
    geometry = arrays._scatter_geometry(input, tuple([(0, 1, n) for n in part.shape]))
    return tape.apply(arrays.as_strided_scatter, (input, made), geometry)


@numpy_names
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
    """A copy with `out[index[i][j]][j] = src[i][j]` for dim 0, and so on."""
    return _scattered("scatter", arrays.scatter, input, dim, index, value if src is None else src)


@numpy_names
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with `out[index[i][j]][j] += src[i][j]` for dim 0, and so on."""
    return _scattered("scatter_add", arrays.scatter_add, input, dim, index, src)


@numpy_names
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """A copy with slices of `source` added at positions along a dimension."""
    tensor_operand(input, "index_add")
    tensor_operand(source, "index_add")
    index = _positions("index_add", index)
    dim = wrap_dim("index_add", dim, input.ndim)
    if not input.ndim:
        return index_add(_vector(input), dim, _vector(index), _vector(source), alpha=alpha).reshape(())
    _check_known(index, input.shape[dim], dim)
    wanted = (*input.shape[:dim], count(index.shape), *input.shape[dim + 1 :])
    if tuple(source.shape) != wanted:
        raise RuntimeError(
            f"index_add(): source tensor shape must match self tensor shape, excluding the specified dimension. Got "
            f"self.shape = {list(input.shape)} source.shape = {list(source.shape)} and {count(index.shape)} positions"
        )
    if source.dtype is not input.dtype:
        raise RuntimeError(
            f"index_add_(): self ({input.dtype}) and source ({source.dtype}) must have the same scalar type"
        )
    return tape.apply(arrays.index_add, (input, index, source if alpha == 1 else source * alpha), dim)


@numpy_names
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with slices of `source` written at positions along a dimension."""
    tensor_operand(input, "index_copy")
    tensor_operand(source, "index_copy")
    if not input.ndim:
        return index_copy(_vector(input), dim, _vector(index), _vector(source)).reshape(())
    index, dim = _positions("index_copy", index), wrap_dim("index_copy", dim, input.ndim)
    _check_known(index, input.shape[dim], dim)
    return tape.apply(arrays.index_put, (input, index, source), dim)


@numpy_names
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with a number written into the slices at positions along a dimension."""
    tensor_operand(input, "index_fill")
    dim = wrap_dim("index_fill", dim, input.ndim)
    if not input.ndim:
        return index_fill(_vector(input), dim, _vector(index), value).reshape(())
    shape = (*input.shape[:dim], count(index.shape), *input.shape[dim + 1 :])
    return index_copy(input, dim, index, tape.apply(arrays.expand, (_single("index_fill", input, value),), shape))


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy with a number where the mask is true."""
    tensor_operand(input, "masked_fill")
    if not isinstance(mask, tape.TENSOR) or mask.dtype.name != "bool":
        raise RuntimeError(
            f"masked_fill only supports boolean masks, but got mask with dtype {getattr(mask, 'dtype', type(mask))}"
        )
    return _chosen(mask, _single("masked_fill", input, value), input)


def _single(name: str, input: Tensor, value: Any) -> Tensor:
    """A number, or a tensor of one, as a tensor of the input's dtype."""
    if isinstance(value, tape.TENSOR):
        if value.ndim:
            raise RuntimeError(
                f"{name} only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s)."
            )
        return value if value.dtype is input.dtype else tape.apply(CONVERT, (value,), input.dtype)
    return _written(name, input, fit(name, number(name, "value", value), input.dtype))


@numpy_names
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) elements along a dimension and their positions. Observes `input`."""
    tensor_operand(input, "topk")
    from .reductions import Extreme

    dim, k = wrap_dim("topk", dim, input.ndim), integer("topk", "k", k)
    if not 0 <= k <= (input.shape[dim] if input.ndim else 1):
        raise RuntimeError("selected index k out of range")
    if not input.ndim:
        return sort(input, dim)
    positions = argsort(input, dim, largest, True)
    positions = tape.apply(
        arrays.slice_, (positions,), tuple([(0, 1, k if d == dim else n) for d, n in enumerate(input.shape)])
    )
    return Extreme(gather(input, dim, positions), positions)


@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The positions that would sort along a dimension. Observes `input`."""
    tensor_operand(input, "argsort")
    dim, values = wrap_dim("sort", dim, input.ndim), input.detach().numpy()
    if not input.ndim:
        return wrap(np.zeros((), np.int64))
    if descending:
        order = np.flip(values.shape[dim] - 1 - np.argsort(np.flip(values, dim), dim, kind="stable"), dim)
    else:
        order = np.argsort(values, dim, kind="stable")
    return as_tensor(np.ascontiguousarray(order).astype(np.int64))


@numpy_names
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Sorted values along a dimension and their positions. Observes `input`."""
    tensor_operand(input, "sort")
    from .reductions import Extreme

    positions = argsort(input, dim, descending, stable)
    return Extreme(gather(input, dim, positions), positions)


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """The different values, ascending. Observes `input`."""
    tensor_operand(input, "unique")
    values, inverse, counts = np.unique(input.detach().numpy(), return_inverse=True, return_counts=True)
    results = [as_tensor(values)]
    if return_inverse:
        results.append(as_tensor(inverse.reshape(input.shape).astype(np.int64)))
    if return_counts:
        results.append(as_tensor(counts.astype(np.int64)))
    return results[0] if len(results) == 1 else tuple(results)


@numpy_names
def repeat_interleave(input: Tensor, repeats: int | Tensor, dim: int | None = None) -> Tensor:
    """Every slice along a dimension repeated; of the flattened tensor if no dimension is given."""
    tensor_operand(input, "repeat_interleave")
    if dim is None:
        input, dim = input.reshape(-1), 0
    dim = wrap_dim("repeat_interleave", dim, input.ndim)
    times = repeats.detach().numpy() if isinstance(repeats, tape.TENSOR) else repeats
    return index_select(input, dim, as_tensor(np.repeat(np.arange(input.shape[dim]), times)))
