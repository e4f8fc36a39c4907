"""Functions that read or write where positions or masks say: `gather`, `scatter`, `index_*`, `masked_fill`, `take`.

Positions lie in int64 tensors. Those that lie in memory when something is to be written are checked at once, so that an error
leaves everything as it was; the others are checked by the kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import recording as tape
from ..dispatch import tensor_operand
from ..dtypes import int64
from ..ops import arrays
from ..ops.elementwise import where_op
from ..ops.table import CONVERT
from ..recording import count
from .arguments import fit, number, numpy_names
from .creation import as_tensor
from .reductions import wrap_dim

if TYPE_CHECKING:
    from ..tensor import Tensor


def check_known(
    index: Tensor, size: int, d: int, error: type[Exception] = IndexError, from_the_end: bool = True
) -> None:
    """An error at once where positions to be written to lie in memory, so that a caught error has changed nothing.

    Positions that are still to be computed are checked by the kernel. Negative ones count `from_the_end`, or are wrong.
    """
    tr, storage = tape.local.trace, index._storage
    if tr.capture is not None and tr.capture.catching:
        tr.capture.release(tape.MAY_BE_CAUGHT)
        index._materialize()
        storage = index._storage
    if storage is None or storage.array is None or storage in tr.written or tr.capture is not None or tr.static:
        return
    if index._meta.numel:
        values = index._view_of_memory()
        low, high = int(values.min()), int(values.max())
        lowest = -size if from_the_end else 0
        if low < lowest or high >= size:
            wrong = low if low < lowest else high
            raise error(f"index {wrong} is out of bounds for dimension {d} with size {size}")


def written(name: str, input: Tensor, value: Any) -> Tensor:
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


def chosen(mask: Tensor, value: Tensor, input: Tensor) -> Tensor:
    """`value`, a tensor of one number and of the input's dtype, where the mask is true, else the input."""
    return tape.apply(where_op, (mask, value, input))


def single(name: str, input: Tensor, value: Any) -> Tensor:
    """A number, or a tensor of one, as a tensor of the input's dtype."""
    if isinstance(value, tape.TENSOR):
        if value.ndim:
            raise RuntimeError(
                f"{name} only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s)."
            )
        return value if value.dtype is input.dtype else tape.apply(CONVERT, (value,), input.dtype)
    return written(name, input, fit(name, number(name, "value", value), input.dtype))


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of elements that are not zero, (number, dimensions), or one vector a dimension. Observes `input`."""
    tensor_operand(input, "nonzero")
    found = np.nonzero(np.atleast_1d(input.detach().numpy()))
    if as_tuple:
        return tuple([as_tensor(x.astype(np.int64)) for x in found])
    return as_tensor(np.stack(found, axis=1).astype(np.int64) if input.ndim else np.zeros((len(found[0]), 0), np.int64))


def _positions(name: str, index: Any) -> Tensor:
    tensor_operand(index, name)
    if name in ("take", "index_copy") and index.dtype is not int64:
        raise RuntimeError(
            f"{name}(): Expected a long tensor for index, but got {index.dtype}; convert it with .long()"
        )
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
    return tape.apply(arrays.index_select, (input, index.reshape(-1)), wrap_dim("index_select", dim, input.ndim))


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
    if 0 in index.shape:
        return input.new_empty(index.shape)
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
    dim = wrap_dim(name, dim, tensor_operand(input, name).ndim)
    index = _positions(name, index)
    if not input.ndim:
        return _scattered(name, op, _vector(input), dim, _vector(index), _vector(src)).reshape(())
    is_tensor = isinstance(src, tape.TENSOR) and not src._meta.weak
    if input.ndim == 1:
        index, src = _vector(index), _vector(src) if is_tensor and index.ndim < 2 else src
    if not is_tensor:
        src = tape.apply(arrays.expand, (single(name, input, src),), tuple(index.shape))
    if src.dtype is not input.dtype:
        raise RuntimeError(f"{name}(): Expected self.dtype to be equal to src.dtype, got {input.dtype} and {src.dtype}")
    if 0 in index.shape:  # of any number of dimensions
        return input.clone()
    cut = tuple([(0, 1, m) for m in index.shape])
    if src.ndim != index.ndim:
        raise RuntimeError(
            f"{name}: Index tensor must have the same number of dimensions as src tensor, got {index.ndim} and {src.ndim}"
        )
    if any([m > n for m, n in zip(index.shape, src.shape, strict=True)]):
        raise RuntimeError(f"{name}: Expected index {list(index.shape)} to be no larger than src {list(src.shape)}")
    if tuple(src.shape) != tuple(index.shape):
        src = tape.apply(arrays.slice_, (src,), cut)
    part = _fitted(name, input, dim, index)
    check_known(index, input.shape[dim], dim, RuntimeError)
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
    dim = wrap_dim("index_add", dim, input.ndim)
    index = _positions("index_add", index)
    if index.ndim > 1:
        raise IndexError(f"index_add(): Index is supposed to be a vector, but got shape {list(index.shape)}")
    if not input.ndim:
        return index_add(_vector(input), dim, _vector(index), _vector(source), alpha=alpha).reshape(())
    if tuple(source.shape) != _slices(input, dim, index):
        raise RuntimeError(
            f"index_add(): source tensor shape must match self tensor shape, excluding the specified dimension. Got "
            f"self.shape = {list(input.shape)} source.shape = {list(source.shape)} and {count(index.shape)} positions"
        )
    if source.dtype is not input.dtype:
        raise RuntimeError(
            f"index_add_(): self ({input.dtype}) and source ({source.dtype}) must have the same scalar type"
        )
    check_known(index, input.shape[dim], dim, from_the_end=False)
    return tape.apply(arrays.index_add, (input, index, source if alpha == 1 else source * alpha), dim)


@numpy_names
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with slices of `source` written at positions along a dimension."""
    dim = wrap_dim("index_copy", dim, tensor_operand(input, "index_copy").ndim)
    index, n = _positions("index_copy", index), tensor_operand(source, "index_copy").ndim
    if index.ndim > 1:
        raise IndexError(f"index_copy(): Index should have dimension 1 or 0, got shape {list(index.shape)}")
    if source.dtype is not input.dtype:
        raise RuntimeError(
            f"index_copy(): self and source expected to have the same dtype, but got {input.dtype} and {source.dtype}; "
            f"convert the source with .to({input.dtype})"
        )
    if n != input.ndim and n * input.ndim:
        raise IndexError(
            f"index_copy(): source has {n} dimensions and self {input.ndim}; when neither is a number, these must be equal"
        )
    if not input.ndim:
        return index_copy(_vector(input), dim, _vector(index), _vector(source)).reshape(())
    wanted = _slices(input, dim, index)
    if n == 0 and count(wanted) == 1:
        source = source.reshape(wanted)
    if tuple(source.shape) != wanted:
        others = [m for d, (m, k) in enumerate(zip(source.shape, wanted, strict=False)) if d != dim and m != k]
        raise (RuntimeError if others or not n else IndexError)(
            f"index_copy(): {count(index.shape)} positions along dimension {dim} of shape {list(input.shape)} take a source of "
            f"shape {list(wanted)}, got {list(source.shape)}"
        )
    check_known(index, input.shape[dim], dim, from_the_end=False)
    return tape.apply(arrays.index_put, (input, index, source), dim)


def _slices(input: Tensor, dim: int, index: Tensor) -> tuple[int, ...]:
    """The shape of a tensor's slices at positions along a dimension."""
    return (*input.shape[:dim], count(index.shape), *input.shape[dim + 1 :])


@numpy_names
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with a number written into the slices at positions along a dimension."""
    tensor_operand(input, "index_fill")
    dim = wrap_dim("index_fill", dim, input.ndim)
    if tensor_operand(index, "index_fill").dtype is not int64:
        raise IndexError(f"index_fill(): Expected dtype int64 for index, got {index.dtype}; convert it with .long()")
    if index.ndim > 1:
        raise RuntimeError(f"index_fill(): Index has to be a vector/scalar, got shape {list(index.shape)}")
    if not input.ndim:
        return index_fill(_vector(input), dim, _vector(index), value).reshape(())
    source = tape.apply(arrays.expand, (single("index_fill", input, value),), _slices(input, dim, index))
    check_known(index, input.shape[dim], dim)
    return tape.apply(arrays.index_put, (input, index, source), dim)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy with a number where the mask is true."""
    tensor_operand(input, "masked_fill")
    if not isinstance(mask, tape.TENSOR) or mask.dtype.name != "bool":
        raise RuntimeError(
            f"masked_fill only supports boolean masks, but got mask with dtype {getattr(mask, 'dtype', type(mask))}"
        )
    return chosen(mask, single("masked_fill", input, value), input)
