"""Sums, means, extremes and what is made of them, over any dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import recording as tape
from .. import return_types
from ..dispatch import composite, tensor_operand
from ..dtypes import FLOAT, bool_, dtype, float64, int64, to_dtype, uint8
from ..ops import arrays, elementwise
from ..ops.table import CONVERT
from .arguments import flag, integer, number, numpy_names
from .pointwise import exp, log, sqrt, where

if TYPE_CHECKING:
    from ..tensor import Tensor

Dims = int | Sequence[int] | None


def wrap_dim(name: str, dim: int, n: int) -> int:
    """A dimension counted from the front; IndexError if there is no such dimension."""
    dim = integer(name, "dim", dim)
    low, high = (-n, n - 1) if n else (-1, 0)
    if not low <= dim <= high:
        raise IndexError(f"{name}: Dimension out of range (expected to be in range of [{low}, {high}], but got {dim})")
    return dim % n if n else 0


def wrap_dims(name: str, dim: Dims, n: int) -> tuple[int, ...]:
    """Dimensions counted from the front, ascending; None and () mean all."""
    given = dim if isinstance(dim, (tuple, list)) else () if dim is None else (dim,)
    if not given:
        return tuple(range(n))
    dims = [wrap_dim(name, d, n) for d in given]
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"{name}: dim {dims[-1]} appears multiple times in the list of dims")
    return tuple(sorted(dims)) if n else ()


def _reduce(op: Any, name: str, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    shape = input.shape
    dims = wrap_dims(name, dim, len(shape))
    result = tape.apply(op, (input,), dims)
    if keepdim and dims:
        result = tape.apply(arrays.reshape, (result,), arrays._kept(shape, dims))
    return result


def _number_type(input: Tensor, wanted: dtype | None) -> Tensor:
    if wanted is None:
        wanted = int64 if input.dtype.category != FLOAT else input.dtype
    else:
        wanted = to_dtype(wanted)
    return input if input.dtype is wanted else tape.apply(CONVERT, (input,), wanted)


# The composites of whole tensors and of dimensions are apart because PyTorch gives their gradients different names.


@composite("Sum")
def _sum_all(input: Tensor, dtype: Any) -> Tensor:
    return _reduce(arrays.sum, "sum", _number_type(input, dtype), None, False)


@composite("SumBackward1")
def _sum(input: Tensor, dim: Any, keepdim: bool, dtype: Any) -> Tensor:
    return _reduce(arrays.sum, "sum", _number_type(input, dtype), dim, keepdim)


@composite("Mean")
def _mean_all(input: Tensor, dtype: Any) -> Tensor:
    return _average(input, None, False, dtype)


@composite("MeanBackward1")
def _mean(input: Tensor, dim: Any, keepdim: bool, dtype: Any) -> Tensor:
    return _average(input, dim, keepdim, dtype)


def _average(input: Tensor, dim: Any, keepdim: bool, dtype: Any) -> Tensor:
    if dtype is not None:
        input = _number_type(input, dtype)
    if input.dtype.category != FLOAT:
        raise RuntimeError(
            f"mean(): could not infer output dtype. Input dtype must be a floating point dtype, got {input.dtype}; "
            "convert it with .float() or pass dtype"
        )
    dims = wrap_dims("mean", dim, input.ndim)
    n = tape.count([input.shape[d] for d in dims])
    return _reduce(arrays.sum, "mean", input, dims if dims else None, keepdim) / float(n)


@composite("Prod")
def _prod_all(input: Tensor, dtype: Any) -> Tensor:
    return _reduce(arrays.prod, "prod", _number_type(input, dtype), None, False)


@composite("ProdBackward1")
def _prod(input: Tensor, dim: Any, keepdim: bool, dtype: Any) -> Tensor:
    return _reduce(arrays.prod, "prod", _number_type(input, dtype), dim, keepdim)


def _kept(name: str, keepdim: Any, keepdims: Any = False) -> bool:
    """Whether dimensions stay with size 1, given under PyTorch's or NumPy's name."""
    if keepdim is False and keepdims is False:
        return False
    return flag(name, "keepdim", keepdim) or flag(name, "keepdims", keepdims)


def _dims(dim: Any, axis: Any = None) -> Any:
    """Dimensions given under PyTorch's or NumPy's name, as a part of a key."""
    if axis is not None:
        if dim is not None:
            raise TypeError("got both dim and axis, which are one argument")
        dim = axis
    if isinstance(dim, (tuple, list)):
        return tuple([integer("dim", "dim", d) for d in dim])
    return dim if dim is None else integer("dim", "dim", dim)


def _one_dim(name: str, dim: Any, axis: Any) -> Any:
    """A single dimension given under PyTorch's or NumPy's name."""
    found = _dims(dim, axis)
    return found if found is None else integer(name, "dim", found)


def sum(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: dtype | None = None,
    axis: Dims = None,
    keepdims: bool = False,
) -> Tensor:
    """The sum over dimensions (all by default); integers add up in int64. `axis` and `keepdims` are NumPy's names.

    >>> fastgrad.sum(fastgrad.ones(2, 3), 1)
    tensor([3., 3.])
    """
    if dim is None and axis is None and not keepdim and not keepdims:
        return _sum_all(tensor_operand(input, "sum"), dtype)
    return _sum(tensor_operand(input, "sum"), _dims(dim, axis), _kept("sum", keepdim, keepdims), dtype)


def mean(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: dtype | None = None,
    axis: Dims = None,
    keepdims: bool = False,
) -> Tensor:
    """The mean over dimensions (all by default)."""
    if dim is None and axis is None and not keepdim and not keepdims:
        return _mean_all(input if isinstance(input, tape.TENSOR) else tensor_operand(input, "mean"), dtype)
    return _mean(tensor_operand(input, "mean"), _dims(dim, axis), _kept("mean", keepdim, keepdims), dtype)


def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: dtype | None = None, axis: int | None = None,
    keepdims: bool = False,
) -> Tensor:  # fmt: skip
    """The product over a dimension (all by default)."""
    if dim is None and axis is None and not keepdim and not keepdims:
        return _prod_all(tensor_operand(input, "prod"), dtype)
    return _prod(tensor_operand(input, "prod"), _one_dim("prod", dim, axis), _kept("prod", keepdim, keepdims), dtype)


@composite("Amax")
def _amax(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    return _reduce(arrays.amax, "amax", input, dim, keepdim)


@composite("Amin")
def _amin(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    return _reduce(arrays.amin, "amin", input, dim, keepdim)


def amax(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None, keepdims: bool = False
) -> Tensor:
    """The largest elements over dimensions; equal ones share the gradient."""
    return _amax(tensor_operand(input, "amax"), _dims(dim, axis), _kept("amax", keepdim, keepdims))


def amin(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None, keepdims: bool = False
) -> Tensor:
    """The smallest elements over dimensions; equal ones share the gradient."""
    return _amin(tensor_operand(input, "amin"), _dims(dim, axis), _kept("amin", keepdim, keepdims))


def _along(input: Tensor, dim: int, keepdim: bool, largest: bool) -> tuple[Tensor, Tensor]:
    dim = wrap_dim("max" if largest else "min", dim, input.ndim)
    if input.ndim == 0:
        return tape.apply(arrays.clone, (input,)), tape.apply(CONVERT, (tape.constant(0),), int64)
    comparable = tape.apply(CONVERT, (input,), uint8) if input.dtype is bool_ else input
    places = _reduce(arrays.argmax if largest else arrays.argmin, "max" if largest else "min", comparable, dim, True)
    values = tape.apply(arrays.gather, (input, places), dim)
    if not keepdim:
        shape = arrays._reduced(input.shape, (dim,))
        values, places = (tape.apply(arrays.reshape, (x,), shape) for x in (values, places))
    return values, places


@composite("Max")
def _max_along(input: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    return _along(input, dim, keepdim, True)


@composite("Min")
def _min_along(input: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    return _along(input, dim, keepdim, False)


@composite("MaxBackward1")
def _max_all(input: Tensor) -> Tensor:
    return _reduce(arrays.amax, "max", input, None, False)


@composite("MinBackward1")
def _min_all(input: Tensor) -> Tensor:
    return _reduce(arrays.amin, "min", input, None, False)


def _max_or_min(input: Any, args: tuple[Any, ...], kwargs: dict[str, Any], largest: bool) -> Any:
    from .pointwise import maximum, minimum

    name = "max" if largest else "min"
    tensor_operand(input, name)
    if unknown := kwargs.keys() - {"dim", "other", "keepdim", "axis", "keepdims"}:
        raise TypeError(f"{name}() got an unexpected keyword argument '{unknown.pop()}'")
    if len(args) > 2 or (args and kwargs.keys() & {"dim", "axis", "other"}) or kwargs.keys() >= {"dim", "axis"}:
        raise TypeError(f"{name}() takes a dimension or another tensor, once")
    dim = kwargs.get("dim", kwargs.get("axis", args[0] if args else None))
    other = kwargs.get("other", args[0] if args else None)
    if isinstance(other, tape.TENSOR):
        return (maximum if largest else minimum)(input, other)
    if dim is None:
        if input.numel() == 0:
            raise RuntimeError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                "Specify the reduction dim with the 'dim' argument."
            )
        return (_max_all if largest else _min_all)(input)
    keepdim = kwargs.get("keepdim", kwargs.get("keepdims", args[1] if len(args) > 1 else False))
    found = return_types.max if largest else return_types.min
    return found(*(_max_along if largest else _min_along)(input, integer(name, "dim", dim), _kept(name, keepdim)))


def max(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`max(input)`, `max(input, dim, keepdim=False)` with positions, or `max(input, other)` element by element."""
    return _max_or_min(input, args, kwargs, True)


def min(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`min(input)`, `min(input, dim, keepdim=False)` with positions, or `min(input, other)` element by element."""
    return _max_or_min(input, args, kwargs, False)


@composite()
def _arg(input: Tensor, dim: int | None, keepdim: bool, largest: bool) -> Tensor:
    op = arrays.argmax if largest else arrays.argmin
    if dim is None:
        shape = input.shape
        flat = tape.apply(arrays.reshape, (input,), (tape.count(shape),))
        place = tape.apply(op, (flat,), (0,))
        return tape.apply(arrays.reshape, (place,), (1,) * len(shape)) if keepdim else place
    return _reduce(op, "argmax" if largest else "argmin", input, dim, keepdim)


def argmax(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
) -> Tensor:
    """The position of the first largest element, in the flattened tensor or along a dimension."""
    return _arg(
        tensor_operand(input, "argmax"), _one_dim("argmax", dim, axis), _kept("argmax", keepdim, keepdims), True
    )


def argmin(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
) -> Tensor:
    """The position of the first smallest element, in the flattened tensor or along a dimension."""
    return _arg(
        tensor_operand(input, "argmin"), _one_dim("argmin", dim, axis), _kept("argmin", keepdim, keepdims), False
    )


@composite("Var")
def _variance(input: Tensor, dim: Any, correction: float, keepdim: bool) -> Tensor:
    if input.dtype.category != FLOAT:
        raise RuntimeError(f"var: only support floating point dtypes, got {input.dtype}")
    dims = wrap_dims("var", dim, input.ndim)
    n = tape.count([input.shape[d] for d in dims])
    centred = input - _reduce(arrays.sum, "var", input, dims or None, True) / float(n)
    total = _reduce(arrays.sum, "var", elementwise.square(centred), dims or None, keepdim)
    if n > 1:  # less what the rounding of the mean has added (Chan, Golub, LeVeque: the corrected two-pass algorithm)
        rest = _reduce(arrays.sum, "var", tape.apply(arrays.detach, (centred,)), dims or None, keepdim)
        rest = elementwise.square(rest) / float(n)
        total = where(total < rest, 0.0, total - rest)  # NaN stays
    return total / float(builtin_max(n - correction, 0) if n else 0)


from builtins import max as builtin_max  # noqa: E402


def _correction(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, float, bool]:
    if unknown := kwargs.keys() - {"dim", "axis", "unbiased", "keepdim", "keepdims", "correction"}:
        raise TypeError(f"{name}() got an unexpected keyword argument '{unknown.pop()}'")
    if (args and kwargs.keys() & {"dim", "axis"} and type(args[0]) is not bool) or kwargs.keys() >= {"dim", "axis"}:
        raise TypeError(f"{name}() takes a dimension once")
    dim = kwargs.get("dim", kwargs.get("axis"))
    unbiased = kwargs.get("unbiased", True)
    keepdim = kwargs.get("keepdim", kwargs.get("keepdims", False))
    rest = list(args)
    if rest and isinstance(rest[0], bool):
        unbiased = rest.pop(0)
    elif rest:
        dim = rest.pop(0)
        if rest:
            unbiased = rest.pop(0)
        if rest:
            keepdim = rest.pop(0)
    correction = kwargs.get("correction", 1 if unbiased else 0)
    return _dims(dim), 1 if correction is None else correction, _kept(name, keepdim)


def var(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The variance over dimensions: `var(input, dim=None, *, correction=1, keepdim=False)`, or PyTorch's `unbiased` form."""
    return _variance(tensor_operand(input, "var"), *_correction("var", args, kwargs))


def _root(total: Tensor, p: float = 2.0) -> Tensor:
    """The p-th root, with a gradient of zero at zero, as PyTorch's norms and deviations have it."""
    safe = where(total == 0, 1.0, total)
    if p == 2.0:
        root = sqrt(safe)
    else:  # 1 / p rounded to float32 would be felt in large and small totals
        wide = tape.apply(CONVERT, (safe,), float64) ** (1.0 / p)
        root = tape.apply(CONVERT, (wide,), total.dtype)
    return where(total == 0, 0.0, root)


@composite("Std")
def _deviation(input: Tensor, dim: Any, correction: float, keepdim: bool) -> Tensor:
    return _root(_variance(input, dim, correction, keepdim))


def std(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The standard deviation, with the arguments of `var`."""
    return _deviation(tensor_operand(input, "std"), *_correction("std", args, kwargs))


@composite()
def _all(input: Tensor, dim: Any, keepdim: bool, every: bool) -> Tensor:
    truth = input if input.dtype is bool_ else elementwise.truth(input)
    count = tape.apply(CONVERT, (truth if not every else elementwise.logical_not(truth),), int64)
    found = count if dim == () else _reduce(arrays.sum, "all" if every else "any", count, dim, keepdim)
    result = found == 0 if every else found != 0
    return tape.apply(CONVERT, (result,), uint8) if input.dtype is uint8 else result


def all(input: Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are true."""
    return _all(tensor_operand(input, "all"), _dims(dim, axis), _kept("all", keepdim, keepdims), True)


def any(input: Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None, keepdims: bool = False) -> Tensor:
    """Whether any element is true."""
    return _all(tensor_operand(input, "any"), _dims(dim, axis), _kept("any", keepdim, keepdims), False)


@composite("Logsumexp")
def _logsumexp(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    dims = wrap_dims("logsumexp", dim, input.ndim)
    if input.numel() == 0:  # the sum of nothing, whose logarithm is -inf
        return log(_reduce(arrays.sum, "logsumexp", exp(input), dims or None, keepdim))
    top = tape.apply(arrays.detach, (_reduce(arrays.amax, "logsumexp", input, dims or None, True),))
    top = where(elementwise.isfinite(top), top, 0.0)
    total = log(_reduce(arrays.sum, "logsumexp", exp(input - top), dims or None, True)) + top
    return total if keepdim or not dims else tape.apply(arrays.reshape, (total,), arrays._reduced(input.shape, dims))


@numpy_names
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over dimensions, without overflow."""
    if tensor_operand(input, "logsumexp").dtype.category != FLOAT:
        from ..dtypes import get_default_dtype

        input = input.to(get_default_dtype())
    return _logsumexp(input, _dims(dim), _kept("logsumexp", keepdim))


@numpy_names
def norm(
    input: Tensor, p: Any = "fro", dim: Dims = None, keepdim: bool = False, *, dtype: dtype | None = None
) -> Tensor:
    """The p-norm over dimensions: "fro" or 2, 1, inf, -inf, 0 or any power; computed in `dtype`.

    RuntimeError for integers and booleans, for another text than "fro", for a negative power of nothing, and for a narrower `dtype`.
    """
    if dtype is not None:
        kind = to_dtype(dtype)
        if kind.category != FLOAT or kind.rank < tensor_operand(input, "norm").dtype.rank:
            raise RuntimeError(
                f"norm: {input.dtype} cannot be computed in {kind}; dtype is a floating point type as wide"
            )
        input = input.to(kind)
    if tensor_operand(input, "norm").dtype.category != FLOAT:
        raise RuntimeError(
            f"norm: expected a floating point tensor as input, got {input.dtype}; convert it with .float()"
        )
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"norm: order {p!r} is not supported; it is a number or 'fro'")
    p = 2.0 if p is None or p == "fro" else float(number("norm", "p", p))
    if p < 0 and input.numel() == 0:
        dims = wrap_dims("norm", _dims(dim), input.ndim)
        if 0 in [input.shape[d] for d in dims]:
            raise RuntimeError(f"norm: the {p} norm of nothing (shape {list(input.shape)}) is not defined")
    return _norm(input, p, _dims(dim), _kept("norm", keepdim))


@composite("LinalgVectorNorm")
def _norm(input: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    size = elementwise.abs(input)
    if p == 2.0:
        total = _reduce(arrays.sum, "norm", elementwise.square(input), dim, keepdim)
        return _root(total)
    if p == 1.0:
        return _reduce(arrays.sum, "norm", size, dim, keepdim)
    if p == float("inf"):
        return _reduce(arrays.amax, "norm", size, dim, keepdim)
    if p == float("-inf"):
        return _reduce(arrays.amin, "norm", size, dim, keepdim)
    if p == 0.0:
        counted = elementwise.overwrite(input, tape.apply(CONVERT, (input != 0,), input.dtype))  # its gradient is zero
        return _reduce(arrays.sum, "norm", counted, dim, keepdim)
    if p < 2.0:  # the slope of a power at zero is infinite, or what is divided by: PyTorch's is zero
        size = where(input == 0, 0.0 if p > 0 else float("inf"), where(input == 0, 1.0, size) ** p)
    else:
        size = size**p
    total = _reduce(arrays.sum, "norm", size, dim, keepdim)
    return _root(total, p) if p > 0 else total ** (1.0 / p)


@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: dtype | None = None) -> Tensor:
    """Running sums along a dimension; integers add up in int64."""
    tensor_operand(input, "cumsum")
    dim = wrap_dim("cumsum", dim, input.ndim)
    if dtype is not None and to_dtype(dtype) is bool_:
        raise NotImplementedError('"cumsum" not implemented for fastgrad.bool; sum up in an integer type')
    number = _number_type(input, dtype)
    return number * 1 if input.ndim == 0 else tape.apply(arrays.cumsum, (number,), dim)
