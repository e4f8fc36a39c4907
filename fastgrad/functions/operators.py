"""What Python's operators do: the recorders of `dispatch`, and how they meet NumPy arrays and foreign objects.

An array on either side makes the result a tensor, in the type that NumPy computes in, with the tensor's gradient. For anything
else that is neither tensor nor number an operator returns NotImplemented, so that Python asks the other object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import recording as tape
from ..dispatch import as_number, binary, pair
from ..dtypes import FLOAT, float64, from_numpy_dtype
from ..ops import arrays
from ..ops import elementwise as e
from . import in_place, pointwise, products
from .creation import wrap

if TYPE_CHECKING:
    from ..tensor import Tensor

Record = Callable[[Any, Any], Any]


def _met(input: Tensor, array: np.ndarray, quotient: bool = False) -> tuple[Tensor, Tensor]:
    """A tensor and an array as tensors of the type that NumPy computes in."""
    wanted = from_numpy_dtype(np.result_type(input.dtype.numpy, array.dtype))
    if quotient and wanted.category < FLOAT:
        wanted = float64
    other = wrap(np.array(array, dtype=wanted.numpy, order="C"))  # a copy: whoever holds the array may change it
    return pointwise.convert(input, wanted), other


def _foreign(record: Record, input: Tensor, other: Any) -> Any:
    return record(*_met(input, other)) if isinstance(other, np.ndarray) else NotImplemented


def _foreign_quotient(record: Record, input: Tensor, other: Any) -> Any:
    return record(*_met(input, other, True)) if isinstance(other, np.ndarray) else NotImplemented


def _both(
    op: Any, foreign: Callable[..., Any] = _foreign, make: Callable[..., Record] = binary
) -> tuple[Record, Record]:
    """An operator, and its form with the tensor on the right."""
    return make(op, otherwise=foreign), make(op, swapped=True, otherwise=foreign)


add, radd = _both(e.add)
sub, rsub = _both(e.sub)
mul, rmul = _both(e.mul)
truediv, rtruediv = _both(e.div, _foreign_quotient)
floordiv, rfloordiv = _both(e.floor_divide, make=pointwise.division)
mod, rmod = _both(e.remainder, make=pointwise.division)
bitwise_and, rand = _both(e.bitwise_and)
bitwise_or, ror = _both(e.bitwise_or)
bitwise_xor, rxor = _both(e.bitwise_xor)
lshift, rlshift = _both(e.bitwise_left_shift)
rshift, rrshift = _both(e.bitwise_right_shift)
lt, le, gt, ge, eq, ne = (binary(op, otherwise=_foreign) for op in (e.lt, e.le, e.gt, e.ge, e.eq, e.ne))

_power, rpow = _both(e.pow)
pow = pointwise.power(_power)


def _matrix_product(input: Tensor, other: Any) -> Any:
    if isinstance(other, tape.TENSOR):
        return products.matmul(input, other)
    return products.matmul(*_met(input, other)) if isinstance(other, np.ndarray) else NotImplemented


matmul = pair(arrays.matmul, _matrix_product)


def rmatmul(input: Tensor, other: Any) -> Any:
    """`other @ input` for an array."""
    if not isinstance(other, np.ndarray):
        return NotImplemented
    right, left = _met(input, other)
    return products.matmul(left, right)


def _in_place(write: Callable[..., Tensor]) -> Record:
    """The operator of a write; for an array Python goes on with the operator that makes a new tensor, as in PyTorch."""

    def operator(input: Tensor, other: Any) -> Any:
        if isinstance(other, tape.TENSOR) or as_number(other) is not None:
            return write(input, other)
        return NotImplemented

    return operator


iadd, isub = _in_place(in_place.add_), _in_place(in_place.sub_)
imul, itruediv = _in_place(in_place.mul_), _in_place(in_place.div_)
ipow, imod, ifloordiv = _in_place(in_place.pow_), _in_place(in_place.remainder_), _in_place(in_place.floor_divide_)
bitwise_and_ = in_place.writer("bitwise_and_", pointwise.bitwise_and)
bitwise_or_ = in_place.writer("bitwise_or_", pointwise.bitwise_or)
bitwise_xor_ = in_place.writer("bitwise_xor_", pointwise.bitwise_xor)
bitwise_left_shift_ = in_place.writer("bitwise_left_shift_", pointwise.bitwise_left_shift)
bitwise_right_shift_ = in_place.writer("bitwise_right_shift_", pointwise.bitwise_right_shift)
iand, ior, ixor = _in_place(bitwise_and_), _in_place(bitwise_or_), _in_place(bitwise_xor_)
ilshift, irshift = _in_place(bitwise_left_shift_), _in_place(bitwise_right_shift_)
