"""Elementwise functions: arithmetic, exponentials, comparisons, choices, conversions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import recording as tape
from ..devices import check_device
from ..dispatch import as_number, binary, composite, tensor_operand, unary
from ..dtypes import BOOL, FLOAT, dtype, get_default_dtype, result_type, to_dtype
from ..ops import arrays
from ..ops import elementwise as e
from ..ops.table import CONVERT, Operation
from .arguments import fit, number

if TYPE_CHECKING:
    from ..tensor import Tensor

Number = float | int | bool
_type = type

_add, _sub, _mul = binary(e.add), binary(e.sub), binary(e.mul)
_div = binary(e.div)
mul = _mul
multiply = _mul
neg = negative = unary(e.neg)
abs = absolute = unary(e.abs)
sign = unary(e.sign)
exp, exp2, expm1 = unary(e.exp_op), unary(e.exp2_op), unary(e.expm1_op)
log, log2, log10, log1p = unary(e.log_op), unary(e.log2_op), unary(e.log10_op), unary(e.log1p_op)
sqrt, rsqrt, square, reciprocal = unary(e.sqrt_op), unary(e.rsqrt), unary(e.square), unary(e.reciprocal)
sin, cos, tan, tanh = unary(e.sin_op), unary(e.cos_op), unary(e.tan_op), unary(e.tanh_op)
asin, acos, atan = unary(e.asin_op), unary(e.acos_op), unary(e.atan_op)
sinh, cosh = unary(e.sinh_op), unary(e.cosh_op)
asinh, acosh, atanh = unary(e.asinh_op), unary(e.acosh_op), unary(e.atanh_op)
arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh
sigmoid, relu, erf = unary(e.sigmoid_op), unary(e.relu), unary(e.erf_op)
erfc, erfinv = unary(e.erfc_op), unary(e.erfinv_op)
floor, ceil, trunc = unary(e.floor_op), unary(e.ceil_op), unary(e.trunc_op)
_round = unary(e.round_op)
isnan, isfinite, isinf = unary(e.isnan), unary(e.isfinite), unary(e.isinf)
logical_not = unary(e.logical_not)
eq, ne, lt = binary(e.eq), binary(e.ne), binary(e.lt)
le, gt, ge = binary(e.le), binary(e.gt), binary(e.ge)
not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge
bitwise_and, bitwise_or, bitwise_xor = binary(e.bitwise_and), binary(e.bitwise_or), binary(e.bitwise_xor)
bitwise_left_shift, bitwise_right_shift = binary(e.bitwise_left_shift), binary(e.bitwise_right_shift)
logsigmoid = unary(e.logsigmoid_op)


def _is_whole(x: Any) -> bool:
    """Whether a tensor or number is of an integer type."""
    return x._meta.dtype.category < FLOAT if isinstance(x, tape.TENSOR) else isinstance(x, int)


def _held_as(value: int, kind: dtype) -> int:
    """What an integer becomes in a dtype of integers, up to its sign; beside booleans it stays what it is."""
    return value if kind.category == BOOL else value % 2 ** (8 * kind.itemsize)


def division(
    op: Operation, swapped: bool = False, otherwise: Callable[..., Any] | None = None
) -> Callable[[Any, Any], Any]:
    """A recorder, as `binary` makes it, for a division that keeps integers: where they are divided by zero it is an error."""
    plain = binary(op, swapped, otherwise and (lambda _, input, other: otherwise(record, input, other)))

    def record(input: Any, other: Any) -> Any:
        left, right = [
            x if isinstance(x, tape.TENSOR) or (number := as_number(x)) is None else number
            for x in ((other, input) if swapped else (input, other))
        ]
        if not (_is_whole(left) and _is_whole(right)) or (isinstance(left, tape.TENSOR) and left._meta.numel == 0):
            return plain(input, other)
        if isinstance(right, tape.TENSOR):
            right = tape.apply(arrays.divisor, (right,), op.name)
        elif _held_as(right, left._meta.dtype) == 0:
            raise arrays.zero_division(op.name)
        return plain(right, left) if swapped else plain(left, right)

    record.__name__, record.__doc__ = plain.__name__, plain.__doc__
    return record


_floor_divide, _trunc_divide = division(e.floor_divide), division(e.trunc_divide)
remainder, fmod = division(e.remainder), division(e.fmod)


def _of_tensors(op: Operation) -> Callable[[Any, Any], Tensor]:
    """A recorder for an operation of two tensors that takes no numbers."""
    record, name = binary(op), op.name

    def checked(input: Tensor, other: Tensor) -> Tensor:
        if not isinstance(other, tape.TENSOR):
            raise TypeError(f"{name}(): argument 'other' (position 2) must be Tensor, not {_type(other).__name__}")
        return record(tensor_operand(input, name), other)

    checked.__name__, checked.__doc__ = name, record.__doc__
    return checked


maximum, minimum = _of_tensors(e.maximum), _of_tensors(e.minimum)
atan2, hypot, logaddexp = _of_tensors(e.atan2_op), _of_tensors(e.hypot_op), _of_tensors(e.logaddexp)
arctan2 = atan2
xlogy = binary(e.xlogy)
logical_and, logical_or, logical_xor = _of_tensors(e.logical_and), _of_tensors(e.logical_or), _of_tensors(e.logical_xor)

_sin_quotient = unary(e.sin_quotient)


def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), 1 at zero."""
    return _sin_quotient(_mul(tensor_operand(input, "sinc"), math.pi))


def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return _mul(tensor_operand(input, "deg2rad"), math.pi / 180)


def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return _mul(tensor_operand(input, "rad2deg"), 180 / math.pi)


def _is_one(number: Any) -> bool:
    return _type(number) is int and number == 1


def _scaled(op: Operation, input: Any, other: Any, alpha: Number) -> Tensor:
    name = op.name.removesuffix("_scaled")
    numbers = [
        x if isinstance(x, tape.TENSOR) and role != "alpha" else number(name, role, x)
        for role, x in (("input", input), ("other", other), ("alpha", alpha))
    ]
    return tape.apply(op, [x if isinstance(x, tape.TENSOR) else tape.scalar(x) for x in numbers])


def add(input: Tensor, other: Tensor | Number, *, alpha: Number = 1) -> Tensor:
    """`input + alpha * other`, broadcast.

    >>> fastgrad.add(fastgrad.tensor([1.0, 2.0]), 10, alpha=2)
    tensor([21., 22.])
    """
    return _add(input, other) if _is_one(alpha) else _scaled(e.add_scaled, input, other, alpha)


def sub(input: Tensor, other: Tensor | Number, *, alpha: Number = 1) -> Tensor:
    """`input - alpha * other`, broadcast."""
    return _sub(input, other) if _is_one(alpha) else _scaled(e.sub_scaled, input, other, alpha)


subtract = sub


def div(input: Tensor, other: Tensor | Number, *, rounding_mode: str | None = None) -> Tensor:
    """`input / other`; `rounding_mode` "floor" or "trunc" rounds the quotient and keeps integer types."""
    if rounding_mode is None:
        return _div(input, other)
    if rounding_mode == "floor":
        return _floor_divide(input, other)
    if rounding_mode == "trunc":
        return _trunc_divide(input, other)
    raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'")


divide = true_divide = div


def floor_divide(input: Tensor, other: Tensor | Number) -> Tensor:
    """The quotient rounded towards minus infinity."""
    return _floor_divide(input, other)


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounded to the nearest integer (or decimal place), halves to even."""
    if decimals == 0:
        return _round(input)
    return _round(input * 10.0**decimals) / 10.0**decimals


_POWERS: dict[float, Callable[[Any], Any]] = {
    1: lambda a: _mul(a, 1),
    2: square,
    3: e.cube,
    0.5: sqrt,
    -0.5: rsqrt,
    -1: reciprocal,
    -2: e.inverse_square,
}


@composite("Pow")
def _special_power(input: Tensor, exponent: float) -> Tensor:
    return _POWERS[exponent](input)


def power(record: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`pow` upon a recorder of the general power."""

    def pow(input: Tensor | Number, exponent: Tensor | Number) -> Tensor:
        """`input ** exponent`, either of them a tensor; small integer and half powers are products and roots."""
        kind = exponent.__class__
        if kind is not int and kind is not float and not isinstance(exponent, (int, float, tape.TENSOR)):
            plain = as_number(exponent)  # NumPy's
            exponent = exponent if plain is None else plain
        if (kind is int or kind is float or isinstance(exponent, (int, float))) and isinstance(input, tape.TENSOR):
            if input._meta.dtype.category == FLOAT:
                if exponent == 2:
                    return square(input)
                if exponent in _POWERS:
                    return _special_power(input, float(exponent))
            elif exponent == 1:
                return _mul(input, exponent)
            elif exponent < 0 and isinstance(exponent, int):
                raise RuntimeError("pow: Integers to negative integer powers are not allowed.")
            else:
                _held("pow", "exponent", exponent, input)
        return record(input, exponent)

    return pow


pow = power(binary(e.pow))


def _held(name: str, role: str, value: Any, other: Any) -> Any:
    """A number to be put beside a tensor: an integer must fit its dtype, unless that is bool and gives way."""
    found = number(name, role, value)
    if _type(found) is int and isinstance(other, tape.TENSOR) and other._meta.dtype.category != BOOL:
        fit(name, found, other._meta.dtype)
    return found


def clamp(input: Tensor, min: Tensor | Number | None = None, max: Tensor | Number | None = None) -> Tensor:
    """Elements below `min` become `min`, those above `max` become `max`; NaN stays."""
    if min is None and max is None:
        raise RuntimeError("clamp: At least one of 'min' or 'max' must not be None")
    result = input
    if min is not None:
        result = clamp_min(result, min)
    if max is not None:
        result = clamp_max(result, max)
    return result


clip = clamp
_clamp_min, _clamp_max = binary(e.clamp_min), binary(e.clamp_max)


def clamp_min(input: Tensor, min: Tensor | Number) -> Tensor:
    """Elements below `min` become `min`."""
    return _clamp_min(input, min if isinstance(min, tape.TENSOR) else _held("clamp", "min", min, input))


def clamp_max(input: Tensor, max: Tensor | Number) -> Tensor:
    """Elements above `max` become `max`."""
    return _clamp_max(input, max if isinstance(max, tape.TENSOR) else _held("clamp", "max", max, input))


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """Elements of `input` where `condition` is true, else of `other`; with the condition alone, the positions of its true ones."""
    if input is None and other is None:
        from .positions import nonzero

        return nonzero(tensor_operand(condition, "where"), as_tuple=True)
    tensor_operand(condition, "where")
    if condition.dtype.name not in ("bool", "uint8"):
        raise RuntimeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype {condition.dtype}"
        )
    operands = [
        x if isinstance(x, tape.TENSOR) else tape.scalar(_held("where", role, x, y))
        for role, x, y in (("input", input, other), ("other", other, input))
    ]
    return tape.apply(e.where_op, (condition, *operands))


def to(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor with another dtype (or itself): `to(dtype)`, `to(device, dtype)`, `to(other)`, with `non_blocking` and `copy`."""
    if unknown := kwargs.keys() - {"dtype", "device", "other", "non_blocking", "copy"}:
        raise TypeError(f"to() got an unexpected keyword argument '{unknown.pop()}'")
    flags = [x for x in args if isinstance(x, bool)]
    copy = kwargs.get("copy", len(flags) > 1 and flags[1])
    wanted = None
    for role, value in [("", x) for x in args] + list(kwargs.items()):
        if value is None or isinstance(value, bool) or role in ("non_blocking", "copy"):
            continue
        if isinstance(value, tape.TENSOR):
            wanted = value.dtype
        elif isinstance(value, dtype) or role == "dtype" or isinstance(value, _type):
            wanted = to_dtype(value)
        else:
            check_device(value)
    if wanted is None or wanted is input.dtype:
        return input.clone() if copy else input
    return convert(input, wanted)


def convert(input: Tensor, wanted: dtype) -> Tensor:
    """The tensor in another dtype; itself if it has it."""
    return input if input.dtype is wanted else tape.apply(CONVERT, (input,), to_dtype(wanted))


def type(input: Tensor, dtype: Any = None) -> Any:
    """The name of the tensor's type, or the tensor converted."""
    names = {"float32": "FloatTensor", "float64": "DoubleTensor", "int64": "LongTensor", "int32": "IntTensor",
             "uint8": "ByteTensor", "bool": "BoolTensor"}  # fmt: skip
    if dtype is None:
        return "fastgrad." + names[input.dtype.name]
    if isinstance(dtype, str):
        short = dtype.rsplit(".", 1)[-1]
        dtype = next((k for k, v in names.items() if v == short), short)
    return convert(input, to_dtype(dtype))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether `|input - other| <= atol + rtol |other|`, element by element; both are of one dtype.

    RuntimeError for dtypes that differ and for a negative `rtol` or `atol`.
    """
    if tensor_operand(input, "isclose").dtype is not tensor_operand(other, "isclose").dtype:
        raise RuntimeError(f"isclose: {input.dtype} did not match {other.dtype}; convert one of them with .to(dtype)")
    for role, bound in (("rtol", rtol), ("atol", atol)):
        if bound < 0:
            raise RuntimeError(f"isclose: {role} must be greater than or equal to zero, but got {bound}")
    close = input == other
    if input.dtype.category != FLOAT:  # differences of unsigned integers would wrap around
        input, other = input.to(get_default_dtype()), other.to(get_default_dtype())
    close = close | ((abs(input - other) <= atol + rtol * abs(other)) & isfinite(other) & isfinite(input))
    return close | (isnan(input) & isnan(other)) if equal_nan else close


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are equal."""
    tensor_operand(input, "equal")
    tensor_operand(other, "equal")
    return input.shape == other.shape and bool((input == other).all())


def lerp(input: Tensor, end: Tensor, weight: Tensor | Number) -> Tensor:
    """`input + weight * (end - input)`, reckoned from the nearer end: weight 1 gives `end` itself.

    All are of one floating-point dtype, apart from a weight that is one number; else RuntimeError.
    """
    kind = tensor_operand(input, "lerp").dtype
    if not isinstance(weight, tape.TENSOR):
        weight = number("lerp", "weight", weight)
    several = isinstance(weight, tape.TENSOR) and weight.ndim
    for role, operand in (("end", tensor_operand(end, "lerp")), *((("weight", weight),) if several else ())):
        if operand.dtype is not kind:
            raise RuntimeError(f"lerp: expected dtype {kind} for `{role}` but got {operand.dtype}; use .to({kind})")
    if kind.category != FLOAT:
        raise NotImplementedError(f'"lerp" not implemented for {kind}; convert the operands with .float()')
    step = end - input
    if isinstance(weight, tape.TENSOR):
        near = (
            abs(weight) < 0.5
        )  # chosen before anything is multiplied, so that the other end can't make a gradient NaN
        return where(near, input, end) + where(near, weight, weight - 1) * step
    return input + weight * step if -0.5 < weight < 0.5 else end - step * (1 - weight)


def _common(*operands: Tensor) -> dtype:
    """The type that PyTorch computes an operation of these tensors in."""
    return result_type([(x._meta.dtype, not x._meta.shape, x._meta.weak) for x in operands])


def _factor(name: str, value: Any, kind: dtype) -> Any:
    """A number to multiply with in a type: a whole one in types of integers, which it must fit."""
    value = number(name, "value", value)
    return value if kind.category == FLOAT or isinstance(value, tape.TENSOR) else int(fit(name, value, kind))


def _plus_scaled(name: str, input: Tensor, value: Any, first: Tensor, second: Tensor, op: Any) -> Tensor:
    """`input + value * op(first, second)`, in the type of all three."""
    kind = _common(*[tensor_operand(x, name) for x in (input, first, second)])
    if kind.category == BOOL:
        raise NotImplementedError(f'"{name}" not implemented for {kind}; convert the operands first')
    value = _factor(name, value, kind)
    first = convert(first, kind)
    return input + (op(first, second) if _is_one(value) else value * op(first, second))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """`input + value * tensor1 * tensor2`."""
    return _plus_scaled("addcmul", input, value, tensor1, tensor2, _mul)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """`input + value * tensor1 / tensor2`; RuntimeError where both of these are of integers, whose division PyTorch refuses, too."""
    if _is_whole(tensor_operand(tensor1, "addcdiv")) and _is_whole(tensor_operand(tensor2, "addcdiv")):
        raise RuntimeError(
            f"addcdiv: integer division of {tensor1.dtype} by {tensor2.dtype} is not supported; convert one with .float()"
        )
    return _plus_scaled("addcdiv", input, value, tensor1, tensor2, _div)


def invert(input: Tensor) -> Tensor:
    """`~input`: not for bool, the bits' complement for integers."""
    tensor_operand(input, "invert")
    if input.dtype.name == "bool":
        return logical_not(input)
    if input.dtype.category == FLOAT:
        raise TypeError(f"~ (bitwise_not) is only implemented on integer and Boolean-type tensors, not {input.dtype}")
    return bitwise_xor(input, 255 if input.dtype.name == "uint8" else -1)


def bitwise_not(input: Tensor) -> Tensor:
    """Not for bool, the bits' complement for integers."""
    if tensor_operand(input, "bitwise_not").dtype.category == FLOAT:
        raise NotImplementedError(f'"bitwise_not" not implemented for {input.dtype}; convert the operands first')
    return invert(input)
