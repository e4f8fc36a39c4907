"""Functions of the order of elements: `sort`, `topk`, `unique`, and repetitions. They observe values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import recording as tape
from .. import return_types
from ..dispatch import tensor_operand
from ..dtypes import FLOAT, bool_
from ..ops import arrays
from .arguments import integer, numpy_names
from .creation import as_tensor, wrap
from .positions import gather, index_select
from .reductions import wrap_dim

if TYPE_CHECKING:
    from ..tensor import Tensor


@numpy_names
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) elements along a dimension and their positions. Observes `input`."""
    tensor_operand(input, "topk")

    dim, k = wrap_dim("topk", dim, input.ndim), integer("topk", "k", k)
    if not 0 <= k <= (input.shape[dim] if input.ndim else 1):
        raise RuntimeError("selected index k out of range")
    if input.dtype is bool_:
        raise RuntimeError("topk: does not support bool tensors; convert the input with .int()")
    if not input.ndim:
        return sort(input, dim)
    positions = argsort(input, dim, largest, True)
    positions = tape.apply(
        arrays.slice_, (positions,), tuple([(0, 1, k if d == dim else n) for d, n in enumerate(input.shape)])
    )
    return return_types.topk(gather(input, dim, positions), positions)


@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The positions that would sort along a dimension. Observes `input`."""
    tensor_operand(input, "argsort")
    tape.leave_capture("an order of values")
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

    positions = argsort(input, dim, descending, stable)
    return return_types.sort(gather(input, dim, positions), positions)


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The different values, ascending, or the different slices along a dimension. Observes `input`.

    NaN differs from everything, itself too.
    """
    if dim is not None:
        dim = wrap_dim("unique", dim, tensor_operand(input, "unique").ndim)
        if not input.ndim:
            raise IndexError(f"unique: dimension {dim} specified, but the tensor has no dimensions")
        if 0 in [n for d, n in enumerate(input.shape) if d != dim]:
            raise RuntimeError(
                f"unique: slices of shape {list(input.shape)} along dimension {dim} hold nothing to compare"
            )
    array = tensor_operand(input, "unique").detach().numpy()
    values, inverse, counts = np.unique(array, return_inverse=True, return_counts=True, axis=dim, equal_nan=False)
    results = [as_tensor(values)]
    if return_inverse:
        results.append(as_tensor(inverse.reshape(input.shape if dim is None else -1).astype(np.int64)))
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
    size = input.shape[dim] if input.ndim else 1
    if isinstance(repeats, tape.TENSOR):
        if repeats.dtype.category == FLOAT or repeats.dtype is bool_:
            raise RuntimeError(f"repeat_interleave: repeats has to be Long or Int tensor, got {repeats.dtype}")
        times = repeats.detach().numpy()
        if times.ndim > 1 or times.size not in (1, size):
            raise RuntimeError(
                f"repeat_interleave: repeats must have the same size as input along dim, but got {times.size} for {size}"
            )
    else:
        times = np.asarray(integer("repeat_interleave", "repeats", repeats))
    if times.size and times.min() < 0:
        raise RuntimeError("repeat_interleave: repeats can not be negative")
    return index_select(input, dim, as_tensor(np.repeat(np.arange(size), times)))
