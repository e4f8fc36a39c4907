"""The functions of `functions/` as methods of Tensor: operators, arithmetic, reductions, shapes, indexing, writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .dtypes import BOOL
from .functions import in_place, indexing, operators, order, pointwise, positions, products, random, reductions, shapes

if TYPE_CHECKING:
    from .tensor import Tensor


class Methods:
    """Base class of Tensor: what needs nothing of it but to be its first argument."""

    __slots__ = ()

    # ---- operators

    __add__, __radd__, __iadd__ = operators.add, operators.radd, operators.iadd
    __sub__, __rsub__, __isub__ = operators.sub, operators.rsub, operators.isub
    __mul__, __rmul__, __imul__ = operators.mul, operators.rmul, operators.imul
    __truediv__, __rtruediv__, __itruediv__ = operators.truediv, operators.rtruediv, operators.itruediv
    __floordiv__, __rfloordiv__, __ifloordiv__ = operators.floordiv, operators.rfloordiv, operators.ifloordiv
    __mod__, __rmod__, __imod__ = operators.mod, operators.rmod, operators.imod
    __pow__, __rpow__, __ipow__ = operators.pow, operators.rpow, operators.ipow
    __matmul__, __rmatmul__ = operators.matmul, operators.rmatmul
    __and__, __rand__, __iand__ = operators.bitwise_and, operators.rand, operators.iand
    __or__, __ror__, __ior__ = operators.bitwise_or, operators.ror, operators.ior
    __xor__, __rxor__, __ixor__ = operators.bitwise_xor, operators.rxor, operators.ixor
    __lshift__, __rlshift__, __ilshift__ = operators.lshift, operators.rlshift, operators.ilshift
    __rshift__, __rrshift__, __irshift__ = operators.rshift, operators.rrshift, operators.irshift
    __lt__, __le__, __gt__, __ge__ = operators.lt, operators.le, operators.gt, operators.ge
    __eq__ = operators.eq  # type: ignore[assignment]
    __ne__ = operators.ne  # type: ignore[assignment]
    __neg__, __abs__, __invert__ = pointwise.neg, pointwise.abs, pointwise.invert
    __getitem__, __setitem__ = indexing.getitem, indexing.setitem
    __hash__ = object.__hash__

    def __pos__(self: Any) -> Any:
        if self._meta.dtype.category == BOOL:
            raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
        return self

    def __delitem__(self, index: Any) -> None:
        raise TypeError("Tensor does not support deleting items")

    # ---- the functions, as methods

    add, sub, mul, div = pointwise.add, pointwise.sub, pointwise.mul, pointwise.div
    subtract, multiply, divide, true_divide = pointwise.sub, pointwise.mul, pointwise.div, pointwise.div
    floor_divide, remainder, fmod, pow = pointwise.floor_divide, pointwise.remainder, pointwise.fmod, pointwise.pow
    bitwise_and, bitwise_or, bitwise_xor = pointwise.bitwise_and, pointwise.bitwise_or, pointwise.bitwise_xor
    bitwise_left_shift, bitwise_right_shift = pointwise.bitwise_left_shift, pointwise.bitwise_right_shift
    neg, negative, abs, absolute, sign = pointwise.neg, pointwise.neg, pointwise.abs, pointwise.abs, pointwise.sign
    exp, exp2, expm1 = pointwise.exp, pointwise.exp2, pointwise.expm1
    log, log2, log10, log1p = pointwise.log, pointwise.log2, pointwise.log10, pointwise.log1p
    sqrt, rsqrt, square, reciprocal = pointwise.sqrt, pointwise.rsqrt, pointwise.square, pointwise.reciprocal
    sin, cos, tan, tanh = pointwise.sin, pointwise.cos, pointwise.tan, pointwise.tanh
    asin, acos, atan, atan2 = pointwise.asin, pointwise.acos, pointwise.atan, pointwise.atan2
    arcsin, arccos, arctan, arctan2 = pointwise.asin, pointwise.acos, pointwise.atan, pointwise.atan2
    sinh, cosh, hypot, sinc = pointwise.sinh, pointwise.cosh, pointwise.hypot, pointwise.sinc
    asinh, acosh, atanh = pointwise.asinh, pointwise.acosh, pointwise.atanh
    arcsinh, arccosh, arctanh = pointwise.asinh, pointwise.acosh, pointwise.atanh
    logaddexp, xlogy = pointwise.logaddexp, pointwise.xlogy
    deg2rad, rad2deg = pointwise.deg2rad, pointwise.rad2deg
    sigmoid, relu, erf = pointwise.sigmoid, pointwise.relu, pointwise.erf
    erfc, erfinv = pointwise.erfc, pointwise.erfinv
    floor, ceil, trunc, round = pointwise.floor, pointwise.ceil, pointwise.trunc, pointwise.round
    isnan, isfinite, isinf = pointwise.isnan, pointwise.isfinite, pointwise.isinf
    logical_not, logical_and = pointwise.logical_not, pointwise.logical_and
    logical_or, logical_xor = pointwise.logical_or, pointwise.logical_xor
    eq, ne, lt, le, gt, ge = pointwise.eq, pointwise.ne, pointwise.lt, pointwise.le, pointwise.gt, pointwise.ge
    maximum, minimum = pointwise.maximum, pointwise.minimum
    clamp, clip, clamp_min, clamp_max = pointwise.clamp, pointwise.clamp, pointwise.clamp_min, pointwise.clamp_max
    lerp, addcmul, addcdiv = pointwise.lerp, pointwise.addcmul, pointwise.addcdiv
    isclose, allclose, equal = pointwise.isclose, pointwise.allclose, pointwise.equal
    bitwise_not = pointwise.bitwise_not

    sum, mean, prod = reductions.sum, reductions.mean, reductions.prod
    max, min, amax, amin = reductions.max, reductions.min, reductions.amax, reductions.amin
    argmax, argmin, var, std = reductions.argmax, reductions.argmin, reductions.var, reductions.std
    all, any, logsumexp, norm, cumsum = (
        reductions.all,
        reductions.any,
        reductions.logsumexp,
        reductions.norm,
        reductions.cumsum,
    )

    reshape, view, flatten = shapes.reshape, shapes.view_as_shape, shapes.flatten
    squeeze, unsqueeze, permute = shapes.squeeze, shapes.unsqueeze, shapes.permute
    transpose, swapaxes, t, movedim = shapes.transpose, shapes.transpose, shapes.t, shapes.movedim
    expand, expand_as, view_as, repeat, tile = (
        shapes.expand,
        shapes.expand_as,
        shapes.view_as,
        shapes.repeat,
        shapes.tile,
    )
    contiguous, clone, narrow, split, chunk = (
        shapes.contiguous,
        shapes.clone,
        shapes.narrow,
        shapes.split_method,
        shapes.chunk,
    )
    unbind, select, tril, triu, flip = shapes.unbind, shapes.select, shapes.tril, shapes.triu, shapes.flip

    matmul, mm, bmm, mv, dot = products.matmul, products.mm, products.bmm, products.mv, products.dot
    outer, ger, addmm, trace, diagonal, diag = (
        products.outer,
        products.outer,
        products.addmm,
        products.trace,
        products.diagonal,
        products.diag,
    )

    gather, scatter, scatter_add = positions.gather, positions.scatter, positions.scatter_add
    index_select, index_add, index_copy, index_fill = (
        positions.index_select,
        positions.index_add,
        positions.index_copy,
        positions.index_fill,
    )
    masked_fill, masked_select, nonzero, take = (
        positions.masked_fill,
        indexing.masked_select,
        positions.nonzero,
        positions.take,
    )
    topk, sort, argsort, unique = order.topk, order.sort, order.argsort, order.unique
    repeat_interleave, bernoulli, multinomial = (
        order.repeat_interleave,
        random.bernoulli,
        random.multinomial,
    )

    add_, sub_, mul_, div_, pow_, neg_ = (
        in_place.add_,
        in_place.sub_,
        in_place.mul_,
        in_place.div_,
        in_place.pow_,
        in_place.neg_,
    )
    abs_, exp_, log_, sqrt_, square_ = in_place.abs_, in_place.exp_, in_place.log_, in_place.sqrt_, in_place.square_
    reciprocal_, tanh_, sigmoid_, relu_ = (
        in_place.reciprocal_,
        in_place.tanh_,
        in_place.sigmoid_,
        in_place.relu_,
    )
    sin_, cos_, floor_, ceil_ = in_place.sin_, in_place.cos_, in_place.floor_, in_place.ceil_
    clamp_, clamp_min_, clamp_max_ = in_place.clamp_, in_place.clamp_min_, in_place.clamp_max_
    bitwise_and_, bitwise_or_, bitwise_xor_ = operators.bitwise_and_, operators.bitwise_or_, operators.bitwise_xor_
    bitwise_left_shift_, bitwise_right_shift_ = operators.bitwise_left_shift_, operators.bitwise_right_shift_
    fmod_, floor_divide_ = in_place.fmod_, in_place.floor_divide_
    addcmul_, addcdiv_, lerp_, remainder_ = (
        in_place.addcmul_,
        in_place.addcdiv_,
        in_place.lerp_,
        in_place.remainder_,
    )
    copy_, fill_, zero_ = in_place.copy_, in_place.fill_, in_place.zero_
    uniform_, normal_, bernoulli_, random_ = (
        in_place.uniform_,
        in_place.normal_,
        in_place.bernoulli_,
        in_place.random_,
    )
    masked_fill_ = in_place.writer("masked_fill_", positions.masked_fill)
    scatter_ = in_place.writer("scatter_", positions.scatter)
    scatter_add_ = in_place.writer("scatter_add_", positions.scatter_add)
    index_add_ = in_place.writer("index_add_", positions.index_add)
    index_copy_ = in_place.writer("index_copy_", positions.index_copy)
    index_fill_ = in_place.writer("index_fill_", positions.index_fill)

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """Own elements where the condition is true, else those of `other`."""
        return pointwise.where(condition, self, other)

    def softmax(self: Any, *args: Any, **kwargs: Any) -> Any:
        """See `fastgrad.nn.functional.softmax`."""
        from .nn.functional import softmax

        return softmax(self, *args, **kwargs)

    def log_softmax(self: Any, *args: Any, **kwargs: Any) -> Any:
        """See `fastgrad.nn.functional.log_softmax`."""
        from .nn.functional import log_softmax

        return log_softmax(self, *args, **kwargs)
