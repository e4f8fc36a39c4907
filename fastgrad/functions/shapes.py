"""Functions that change shapes, join and cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import recording as tape
from ..dispatch import composite, tensor_operand
from ..dtypes import dtype as _dtype
from ..ops import arrays
from ..ops.elementwise import where_op
from ..ops.table import CONVERT, View
from ..recording import count
from .arguments import integer, numpy_names
from .reductions import wrap_dim, wrap_dims
from .views import is_contiguous, strides_of, view, view_as_bits

if TYPE_CHECKING:
    from ..tensor import Tensor


def sizes(name: str, args: Sequence[Any], named: Any = None) -> tuple[int, ...]:
    """Sizes given one by one, as one sequence, or by keyword."""
    if named is not None:
        if args:
            raise TypeError(f"{name}(): sizes are given twice, by position and by keyword")
        if not isinstance(named, (tuple, list)):
            raise TypeError(f"{name}(): argument 'size' must be tuple of ints, not {type(named).__name__}")
        args = (named,)
    if len(args) == 1 and hasattr(args[0], "__len__") and not hasattr(args[0], "__index__"):
        args = tuple(args[0])
    return tuple([integer(name, "size", x) for x in args])


def _given(name: str, args: Sequence[Any], named: Any = None) -> tuple[int, ...]:
    """`sizes` for functions that want some argument, be it an empty sequence."""
    if not args and named is None:
        raise TypeError(f"{name}() missing 1 required positional argument")
    return sizes(name, args, named)


def _complete(name: str, shape: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...]:
    """A new shape with its -1 worked out."""
    n = count(shape)
    if -1 in new:
        known = count([s for s in new if s != -1])
        if new.count(-1) > 1:
            raise RuntimeError(f"{name}: only one dimension can be inferred")
        if known == 0 or n % known:
            if known == 0 and n == 0:
                raise RuntimeError(
                    f"{name}: cannot reshape tensor of 0 elements into shape {list(new)} because the unspecified "
                    "dimension size -1 can be any value and is ambiguous"
                )
            raise RuntimeError(f"{name}: shape '{list(new)}' is invalid for input of size {n}")
        new = tuple([n // known if s == -1 else s for s in new])
    if any(s < 0 for s in new):
        raise RuntimeError(f"{name}: invalid shape dimension in {list(new)}")
    if count(new) != n:
        raise RuntimeError(f"{name}: shape '{list(new)}' is invalid for input of size {n} (shape {list(shape)})")
    return new


def _reshaped(input: Tensor, new: tuple[int, ...], op: View = arrays.reshape) -> Tensor:
    made = view(input, op, new)
    return tape.apply(op, (input,), new) if made is None else made


def reshape(input: Tensor, *sizes_: Any, shape: Any = None) -> Tensor:
    """The elements under another shape: a view where possible, else a copy. One size may be -1."""
    tensor_operand(input, "reshape")
    return _reshaped(input, _complete("reshape", input.shape, _given("reshape", sizes_, shape)))


def view_as_shape(input: Tensor, *sizes_: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """The elements under another shape, or the bits as elements of another dtype (which have no gradient): always a view.

    RuntimeError for a shape that no strides give, and for a dtype of another size into which the last dimension does not go.

    >>> fastgrad.tensor([1.0, -2.0]).view(fastgrad.int32)
    tensor([ 1065353216, -1073741824], dtype=fastgrad.int32)
    """
    if dtype is None and isinstance(sizes_[0] if sizes_ else None, _dtype):
        dtype, *sizes_ = sizes_  # type: ignore[assignment]
    if dtype is not None:
        if sizes_ or size is not None:
            raise TypeError("view(): takes sizes or a dtype, not both")
        return view_as_bits(input, dtype)
    new = _complete("view", input.shape, _given("view", sizes_, size))
    made = view(input, arrays.reshape, new)
    if made is None:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return made


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions from `start_dim` to `end_dim` run together; the tensor itself if that is one dimension."""
    tensor_operand(input, "flatten")
    shape = input.shape
    first, last = wrap_dim("flatten", start_dim, len(shape)), wrap_dim("flatten", end_dim, len(shape))
    if not shape:
        return reshape(input, 1)
    if first > last:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return input
    return reshape(input, (*shape[:first], count(shape[first : last + 1]), *shape[last + 1 :]))


@numpy_names
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Dimensions of size 1 removed."""
    tensor_operand(input, "squeeze")
    shape = input.shape
    dims = wrap_dims("squeeze", dim, len(shape)) if dim is not None else tuple(range(len(shape)))
    new = tuple([n for i, n in enumerate(shape) if n != 1 or i not in dims])
    return _reshaped(input, new, arrays.squeeze if dim is None else arrays.squeeze_dim)


@numpy_names
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A dimension of size 1 inserted before `dim`."""
    tensor_operand(input, "unsqueeze")
    shape = input.shape
    dim = wrap_dim("unsqueeze", dim, len(shape) + 1)
    return _reshaped(input, (*shape[:dim], 1, *shape[dim:]), arrays.unsqueeze)


def permute(input: Tensor, *order_: Any, dims: Any = None) -> Tensor:
    """The dimensions in another order."""
    tensor_operand(input, "permute")
    order = _given("permute", order_, dims)
    n = input.ndim
    if len(order) != n:
        raise RuntimeError(
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {n} is not equal to len(dims) = {len(order)}"
        )
    order = tuple([wrap_dim("permute", d, n) for d in order])
    if len(set(order)) != n:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return view(input, arrays.permute, order)  # type: ignore[return-value]


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    return _exchanged(input, dim0, dim1, arrays.swap)


def _exchanged(input: Tensor, dim0: int, dim1: int, op: View) -> Tensor:
    tensor_operand(input, "transpose")
    n = input.ndim
    a, b = wrap_dim("transpose", dim0, n), wrap_dim("transpose", dim1, n)
    order = list(range(n))
    if n:
        order[a], order[b] = b, a
    return view(input, op, tuple(order))  # type: ignore[return-value]


swapaxes = swapdims = transpose


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors stay."""
    tensor_operand(input, "t")
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return _exchanged(input, 0, 1 if input.ndim == 2 else 0, arrays.t)


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions moved to other places, the others in their order."""
    tensor_operand(input, "movedim")
    n = input.ndim
    moved, places = (
        [wrap_dim("movedim", d, n) for d in (given if isinstance(given, (tuple, list)) else (given,))]
        for given in (source, destination)
    )
    if len(moved) != len(places):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({moved} dims) should contain the same number of dims as "
            f"destination ({places} dims)"
        )
    for role, dims in (("source", moved), ("destination", places)):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{role}` ({dims})")
    if not n:
        return permute(input, ())
    order = [-1] * n
    for s, d in zip(moved, places, strict=True):
        order[d] = s
    rest = iter([d for d in range(n) if d not in moved])
    return permute(input, [next(rest) if d < 0 else d for d in order])


def expand(input: Tensor, *sizes_: Any, size: Any = None) -> Tensor:
    """Dimensions of size 1 repeated without copying; -1 keeps a size."""
    tensor_operand(input, "expand")
    new, old = _given("expand", sizes_, size), input.shape
    lead = len(new) - len(old)
    if lead < 0:
        raise RuntimeError(
            f"expand: the number of sizes provided ({len(new)}) must be greater or equal to the number of dimensions in "
            f"the tensor ({len(old)})"
        )
    result = []
    for i, n in enumerate(new):
        have = old[i - lead] if i >= lead else None
        if n == -1:
            if have is None:
                raise RuntimeError(
                    f"expand: the expanded size of the tensor (-1) isn't allowed in a leading, non-existing dimension {i}"
                )
            n = have
        elif have is not None and have != n and have != 1:
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at non-singleton dimension "
                f"{i}.  Target sizes: {list(new)}.  Tensor sizes: {list(old)}"
            )
        result.append(n)
    return view(input, arrays.expand, tuple(result))  # type: ignore[return-value]


broadcast_to = expand


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Expanded to another tensor's shape."""
    tensor_operand(other, "expand_as")
    return expand(input, other.shape)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """Viewed under another tensor's shape."""
    tensor_operand(other, "view_as")
    return view_as_shape(input, other.shape)


def tile(input: Tensor, *times_: Any, dims: Any = None) -> Tensor:
    """As `repeat`; dimensions without a number are not repeated."""
    tensor_operand(input, "tile")
    times = sizes("tile", times_, dims)
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


def repeat(input: Tensor, *times_: Any, repeats: Any = None) -> Tensor:
    """Copies of the tensor side by side along every dimension."""
    tensor_operand(input, "repeat")
    times = _given("repeat", times_, repeats)
    shape: tuple[int, ...] = input.shape
    if min(times, default=0) < 0:
        raise RuntimeError(f"repeat: Trying to create tensor with negative dimension: {list(times)}")
    if len(times) < len(shape):
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    shape = (1,) * (len(times) - len(shape)) + tuple(shape)
    paired = tuple([n for pair in zip((1,) * len(shape), shape, strict=True) for n in pair])
    wide = tuple([n for pair in zip(times, shape, strict=True) for n in pair])
    result = expand(reshape(input, paired), wide)
    return reshape(clone(result), tuple([k * n for k, n in zip(times, shape, strict=True)]))


def contiguous(input: Tensor) -> Tensor:
    """The tensor itself if its elements lie in row-major order, else a copy that does."""
    tensor_operand(input, "contiguous")
    return input if is_contiguous(input.shape, strides_of(input)) else clone(input)


def clone(input: Tensor) -> Tensor:
    """A copy in memory of its own, with the gradient passed on."""
    return tape.apply(arrays.clone, (tensor_operand(input, "clone"),))


@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along a dimension.

    >>> fastgrad.cat([fastgrad.ones(2), fastgrad.zeros(1)])
    tensor([1., 1., 0.])
    """
    parts = [tensor_operand(t, "cat") for t in tensors]
    if not parts:
        raise ValueError("cat(): expected a non-empty list of Tensors")
    if any(p.ndim == 0 for p in parts):
        raise RuntimeError(
            f"zero-dimensional tensor (at position {[p.ndim for p in parts].index(0)}) cannot be concatenated"
        )
    longest = max(p.ndim for p in parts)
    parts = [p for p in parts if p.shape != (0,) or longest == 1]  # PyTorch lets an empty vector join anything
    if any([p.ndim != longest for p in parts]):
        raise RuntimeError(
            f"cat: Tensors must have same number of dimensions: got shapes {[list(p.shape) for p in parts]}"
        )
    return tape.apply(arrays.cat, parts, wrap_dim("cat", dim, longest))


concat = concatenate = cat


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    parts = tuple([tensor_operand(t, "stack") for t in tensors])
    if not parts:
        raise RuntimeError("stack expects a non-empty TensorList")
    for i, p in enumerate(parts):
        if p.shape != parts[0].shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(parts[0].shape)} at entry 0 and "
                f"{list(p.shape)} at entry {i}"
            )
    return _stack(parts, wrap_dim("stack", dim, parts[0].ndim + 1))


@composite("Stack")
def _stack(tensors: tuple[Tensor, ...], dim: int) -> Tensor:
    return cat([unsqueeze(p, dim) for p in tensors], dim)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the second dimension (the first for vectors); a number is a vector of one."""
    tensors = [reshape(p, 1) if tensor_operand(p, "hstack").ndim == 0 else p for p in tensors]
    return cat(tensors, 0 if tensors[0].ndim < 2 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the first dimension, vectors as rows."""
    return cat([reshape(p, 1, -1) if tensor_operand(p, "vstack").ndim < 2 else p for p in tensors], 0)


@numpy_names
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` elements from `start` on along a dimension."""
    _check_dimensions("narrow", input)
    dim = wrap_dim("narrow", dim, input.ndim)
    start, length, size = integer("narrow", "start", start), integer("narrow", "length", length), input.shape[dim]
    if start < 0:
        start += size
    if length >= 0 and not 0 <= start <= size:
        raise IndexError(f"narrow: start out of range (expected to be in range of [{-size}, {size}], but got {start})")
    if length < 0 or start + length > size:
        raise RuntimeError(f"narrow: start ({start}) + length ({length}) exceeds dimension size ({size}).")
    cut = tuple([(start, 1, length) if i == dim else (0, 1, n) for i, n in enumerate(input.shape)])
    return view(input, arrays.slice_, cut)  # type: ignore[return-value]


def _check_dimensions(name: str, input: Tensor, n: int = 1) -> None:
    if tensor_operand(input, name).ndim < n:
        raise RuntimeError(f"{name} expects at least a {n}-dimensional tensor, got {input.ndim} dimensions")


@numpy_names
def split_method(input: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`split` under the method's argument names."""
    return split(input, split_size, dim)


@numpy_names
def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts of a given size (the last may be smaller), or of the given sizes."""
    _check_dimensions("split", tensor)
    dim = wrap_dim("split", dim, tensor.ndim)
    size = tensor.shape[dim]
    if not isinstance(split_size_or_sections, (tuple, list)):
        step = integer("split", "split_size", split_size_or_sections)
        if step < 0 or (step == 0 and size):
            raise RuntimeError(f"split expects split_size be non-negative, but got split_size={step}")
        parts = [min(step, size - i) for i in range(0, size, step)] if size else [0]
    else:
        parts = [integer("split", "split_sizes", n) for n in split_size_or_sections]
        if sum(parts) != size:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at dimension {dim}), "
                f"but got split_sizes={parts}"
            )
    starts = [sum(parts[:i]) for i in range(len(parts))]
    return tuple([narrow(tensor, dim, s, n) for s, n in zip(starts, parts, strict=True)])


@numpy_names
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal size (the last may be smaller)."""
    _check_dimensions("chunk", input)
    chunks = integer("chunk", "chunks", chunks)
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    size = input.shape[wrap_dim("chunk", dim, input.ndim)]
    if not size:
        return split(input, [0] * chunks, dim)
    return split(input, max(-(-size // chunks), 1), dim)


@numpy_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along a dimension."""
    tensor_operand(input, "unbind")
    dim = wrap_dim("unbind", dim, input.ndim)
    return tuple([select(input, dim, i) for i in range(input.shape[dim])])


@numpy_names
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """One slice along a dimension, which is removed."""
    tensor_operand(input, "select")
    if not input.ndim:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim("select", dim, input.ndim)
    index, size = integer("select", "index", index), input.shape[dim]
    if not -size <= index < size:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(input.shape)} at dimension {dim}"
        )
    cut = tuple([index % size if i == dim else (0, 1, n) for i, n in enumerate(input.shape)])
    return view(input, arrays.select, cut)  # type: ignore[return-value]


def _triangle(name: str, input: Tensor, diagonal: int, upper: bool) -> Tensor:
    import numpy as np

    from .creation import wrap

    _check_dimensions(name, input, 2)
    below = integer(name, "diagonal", diagonal) - upper
    mask = np.tri(input.shape[-2], input.shape[-1], below, bool)
    zero = tape.apply(CONVERT, (tape.constant(0),), input.dtype)
    return tape.apply(where_op, (wrap(~mask if upper else mask), input, zero))


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of matrices, zero elsewhere."""
    return _triangle("tril", input, diagonal, False)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of matrices, zero elsewhere."""
    return _triangle("triu", input, diagonal, True)


def flip(input: Tensor, *dims_: Any, dims: Any = None) -> Tensor:
    """The order along dimensions reversed (a copy). IndexError for a dimension that isn't there, RuntimeError for one given twice."""
    tensor_operand(input, "flip")
    from .creation import arange
    from .positions import index_select

    wanted = [wrap_dim("flip", d, input.ndim) for d in _given("flip", dims_, dims)]
    if len(set(wanted)) != len(wanted):
        raise RuntimeError(f"flip: dim {wanted[-1]} appears multiple times in the list of dims")
    if not wanted or not input.ndim:
        return clone(input)
    for d in wanted:
        input = index_select(input, d, arange(input.shape[d] - 1, -1, -1))
    return input
