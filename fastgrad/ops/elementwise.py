"""Elementwise rows: a scalar rule and a gradient rule each, over `a, b, c` inputs, `y` own output, `g` incoming gradient."""

from __future__ import annotations

import math
from typing import Any

from .symbol import (
    abs_,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    ceil,
    cos,
    cosh,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    floor,
    floordiv,
    fmod_,
    hypot,
    log,
    log1p,
    log2,
    log10,
    logsigmoid,
    lshift,
    modulo,
    pow_,
    round_,
    rshift,
    sigmoid,
    sin,
    sinh,
    softplus,
    sqrt,
    tan,
    tanh,
    trunc,
    truncdiv,
    where,
    zero,
)  # fmt: skip
from .table import Elementwise, elementwise

# arithmetic
add = elementwise("add", lambda a, b: a + b, lambda g, y, a, b: (g, g))
sub = elementwise(
    "sub", lambda a, b: a - b, lambda g, y, a, b: (g, -g), types="signed",
    label=lambda a, b: "RsubBackward1" if a.weak else "Sub",
)  # fmt: skip
add_scaled = elementwise(
    "add_scaled", lambda a, b, c: a + c * b, lambda g, y, a, b, c: (g, g * c, None), types="scaled", label="Add"
)
sub_scaled = elementwise(
    "sub_scaled", lambda a, b, c: a - c * b, lambda g, y, a, b, c: (g, -g * c, None), types="scaled signed", label="Sub"
)
mul = elementwise("mul", lambda a, b: a * b, lambda g, y, a, b: (g * b, g * a), neutral_ones=(1, 0))
div = elementwise(
    "div", lambda a, b: a / b, lambda g, y, a, b: (g / b, -g * (y / b)), types="float",
    label=lambda a, b: "Mul" if a.weak else "Div", neutral_ones=(1,),
)  # fmt: skip
neg = elementwise("neg", lambda a: -a, lambda g, y, a: (-g,), types="signed")
reciprocal = elementwise("reciprocal", lambda a: 1 / a, lambda g, y, a: (-g * (y * y),), types="float")
two = elementwise("two", lambda a: where(a == a, 2, 2), lambda g, y, a: (zero(g),), types="count")
twice = elementwise(
    "twice", lambda a: 2 * a, lambda g, y, a: (g * two(a),), types="count"
)  # its derivative's is zero, not none
square = elementwise("square", lambda a: a * a, lambda g, y, a: (g * twice(a),), types="count", label="Pow")
cube = elementwise("cube", lambda a: a * a * a, lambda g, y, a: (g * (3 * square(a)),), types="count", label="Pow")
inverse_square = elementwise(
    "inverse_square", lambda a: 1 / (a * a), lambda g, y, a: (g * (-2 * (y / a)),), types="float", label="Pow"
)
pow = elementwise(  # 0 ** 0 and powers of a zero base have the gradients PyTorch gives them
    "pow",
    lambda a, b: pow_(a, b),
    lambda g, y, a, b: (
        where(b == 0, 0, g * (b * pow_(a, where(b == 0, 0, b - 1)))),
        where((a == 0) & (b >= 0), 0, g * (y * log(where((a == 0) & (b >= 0), 1, a)))),
    ),
    types="number",
    label=lambda a, b: "PowBackward2" if a.weak else "Pow" if b.weak else "PowBackward1",
)
floor_divide = elementwise(
    "floor_divide", lambda a, b: floordiv(a, b), lambda g, y, a, b: (zero(g), zero(g)), types="number"
)
remainder = elementwise(
    "remainder", lambda a, b: modulo(a, b), lambda g, y, a, b: (g, -g * floor_divide(a, b)), types="number"
)
trunc_divide = elementwise(
    "trunc_divide", lambda a, b: truncdiv(a, b), lambda g, y, a, b: (zero(g), zero(g)), types="number", label="Div"
)
fmod = elementwise("fmod", lambda a, b: fmod_(a, b), lambda g, y, a, b: (g, -g * trunc_divide(a, b)), types="number")

# signs and choices; at a tie, and where an operand is NaN, the gradients are PyTorch's
abs = elementwise("abs", lambda a: abs_(a), lambda g, y, a: (g * sign(a),), types="number")
sign: Elementwise = elementwise("sign", lambda a: where(a > 0, 1, where(a < 0, -1, 0)), lambda g, y, a: (zero(g),))
maximum = elementwise(
    "maximum",
    lambda a, b: where((a > b) | (a != a), a, b),
    lambda g, y, a, b: (
        where(a < b, 0, where(a == b, g * 0.5, g)),
        where(a > b, 0, where(a == b, g * 0.5, g)),
    ),
)
minimum = elementwise(
    "minimum",
    lambda a, b: where((a < b) | (a != a), a, b),
    lambda g, y, a, b: (
        where(a > b, 0, where(a == b, g * 0.5, g)),
        where(a < b, 0, where(a == b, g * 0.5, g)),
    ),
)
overwrite = elementwise("overwrite", lambda a, b: b, lambda g, y, a, b: (zero(g), g), label="Copy")
where_op = elementwise(
    "where",
    lambda a, b, c: where(a, b, c),
    lambda g, y, a, b, c: (None, where(a, g, 0), where(a, 0, g)),
    types="where",
)
clamp_min = elementwise(
    "clamp_min",
    lambda a, b: where((a > b) | (a != a), a, b),
    lambda g, y, a, b: (where(a >= b, g, 0), where(a < b, g, 0)),
    label=lambda a, b: "ClampBackward1" if b.weak else "Clamp",
)
clamp_max = elementwise(
    "clamp_max",
    lambda a, b: where((a < b) | (a != a), a, b),
    lambda g, y, a, b: (where(a <= b, g, 0), where(a > b, g, 0)),
    label=lambda a, b: "ClampBackward1" if b.weak else "Clamp",
)
relu = elementwise("relu", lambda a: where(a < 0, 0, a), lambda g, y, a: (relu_slope(g, y),), types="signed")
leaky_relu = elementwise(
    "leaky_relu",
    lambda a, b: where(a > 0, a, a * b),
    lambda g, y, a, b: (leaky_slope(g, a, b), g * where(a > 0, 0, a)),
    types="signed",
)
elu = elementwise(  # its slope below 0 keeps its digits, unlike y + b; at 0 it is b, and has no slope itself, as in PyTorch
    "elu",
    lambda a, b: where(a > 0, a, b * expm1(a)),
    lambda g, y, a, b: (
        g * where(a < 0, b * exp(where(a < 0, a, 0)), where(a > 0, 1, where(a == 0, b, a))),
        g * where(a < 0, expm1(where(a < 0, a, 0)), 0),
    ),
    types="float",
)

# the gradient a of a function with a knee at 0, at b; its own with respect to b is zero, not none
relu_slope: Elementwise = elementwise(
    "relu_slope",
    lambda a, b: where(b <= 0, 0, a),
    lambda g, y, a, b: (relu_slope(g, b), zero(g)),
    label="ThresholdBackwardBackward0",
)
leaky_slope: Elementwise = elementwise(
    "leaky_slope",
    lambda a, b, c: where(b > 0, a, a * c),
    lambda g, y, a, b, c: (leaky_slope(g, b, c), zero(g), g * where(b > 0, 0, a)),
    label="LeakyReluBackwardBackward0",
)

# exponentials and logarithms
exp_op = elementwise("exp", lambda a: exp(a), lambda g, y, a: (g * y,), types="float")
exp2_op = elementwise("exp2", lambda a: exp2(a), lambda g, y, a: (g * (y * math.log(2)),), types="float")
expm1_op = elementwise("expm1", lambda a: expm1(a), lambda g, y, a: (g * (y + 1),), types="float")
log_op = elementwise("log", lambda a: log(a), lambda g, y, a: (g / a,), types="float")
log2_op = elementwise("log2", lambda a: log2(a), lambda g, y, a: (g / (a * math.log(2)),), types="float")
log10_op = elementwise("log10", lambda a: log10(a), lambda g, y, a: (g / (a * math.log(10)),), types="float")
log1p_op = elementwise("log1p", lambda a: log1p(a), lambda g, y, a: (g / (a + 1),), types="float")
sqrt_op = elementwise("sqrt", lambda a: sqrt(a), lambda g, y, a: (g / (2 * y),), types="float")
rsqrt = elementwise("rsqrt", lambda a: 1 / sqrt(a), lambda g, y, a: (g * (-0.5 * (y * y * y)),), types="float")

# trigonometric and hyperbolic functions
sin_op = elementwise("sin", lambda a: sin(a), lambda g, y, a: (g * cos(a),), types="float")
cos_op = elementwise("cos", lambda a: cos(a), lambda g, y, a: (g * -sin(a),), types="float")
tan_op = elementwise("tan", lambda a: tan(a), lambda g, y, a: (g * (1 + y * y),), types="float")
asin_op = elementwise("asin", lambda a: asin(a), lambda g, y, a: (g * rsqrt(1 - a * a),), types="float")
acos_op = elementwise("acos", lambda a: acos(a), lambda g, y, a: (-g * rsqrt(1 - a * a),), types="float")
atan_op = elementwise("atan", lambda a: atan(a), lambda g, y, a: (g / (a * a + 1),), types="float")
atan2_op = elementwise(  # at the origin PyTorch's gradients are zero
    "atan2",
    lambda a, b: atan2(a, b),
    lambda g, y, a, b: (
        where(a * a + b * b == 0, 0, g * b * reciprocal(a * a + b * b)),
        where(a * a + b * b == 0, 0, -g * a * reciprocal(a * a + b * b)),
    ),
    types="float",
)
hypot_op = elementwise("hypot", lambda a, b: hypot(a, b), lambda g, y, a, b: (g * (a / y), g * (b / y)), types="float")
sinh_op = elementwise("sinh", lambda a: sinh(a), lambda g, y, a: (g * cosh(a),), types="float")
cosh_op = elementwise("cosh", lambda a: cosh(a), lambda g, y, a: (g * sinh(a),), types="float")
tanh_op = elementwise("tanh", lambda a: tanh(a), lambda g, y, a: (g * (1 - y * y),), types="float")
asinh_op = elementwise("asinh", lambda a: asinh(a), lambda g, y, a: (g * rsqrt(a * a + 1),), types="float")
acosh_op = elementwise("acosh", lambda a: acosh(a), lambda g, y, a: (g * rsqrt(a * a - 1),), types="float")
atanh_op = elementwise("atanh", lambda a: atanh(a), lambda g, y, a: (g * reciprocal(1 - a * a),), types="float")
_SINC = [2 * k * (-1) ** k / math.factorial(2 * k + 1) for k in range(1, 8)]  # (sin(a) / a)' = a (c1 + a^2 (c2 + ...))


def _sinc_slope(a: Any) -> Any:
    """The derivative of sin(a) / a: by its series near 0, where the difference of the closed form cancels."""
    small = abs(a) < 0.5
    far = where(small, 1, a)
    series = _SINC[-1]
    for coefficient in reversed(_SINC[:-1]):
        series = series * (a * a) + coefficient
    return where(small, a * series, (cos(far) - sin(far) / far) / far)


sin_quotient = elementwise(  # sin(a) / a, 1 at 0
    "sin_quotient",
    lambda a: where(a == 0, 1, sin(a) / where(a == 0, 1, a)),
    lambda g, y, a: (g * _sinc_slope(a),),
    types="float",
    label="Sinc",
)

# logarithms of two operands
logaddexp = elementwise(
    "logaddexp",
    lambda a, b: where(a == b, a + math.log(2), where(a > b, a, b) + log1p(exp(-abs_(a - b)))),
    lambda g, y, a, b: (g * sigmoid(a - b), g * sigmoid(b - a)),
    types="float",
)
xlogy = elementwise(
    "xlogy",
    lambda a, b: where((a == 0) & (b == b), 0, a * log(b)),
    lambda g, y, a, b: (g * where((a == 0) & (b <= 0), 0, log(b)), g * (a / b)),
    types="float",
    label=lambda a, b: "XlogyBackward1" if a.weak else "XlogyBackward2" if b.weak else "Xlogy",
)

# activations
sigmoid_op = elementwise("sigmoid", lambda a: sigmoid(a), lambda g, y, a: (g * (y * (1 - y)),), types="float")
softplus_op = elementwise("softplus", lambda a: softplus(a), lambda g, y, a: (g * sigmoid(a),), types="float")
logsigmoid_op = elementwise("logsigmoid", lambda a: logsigmoid(a), lambda g, y, a: (g * sigmoid(-a),), types="float")
bce_logits = elementwise(  # the cross entropy of sigmoid(a) and b
    "binary_cross_entropy_with_logits",
    lambda a, b: (1 - b) * a - logsigmoid(a),
    lambda g, y, a, b: (g * (sigmoid(a) - b), -g * a),
    types="float",
)
bce = elementwise(  # of a probability and a target, logarithms kept above -100, as PyTorch keeps them
    "binary_cross_entropy",
    lambda a, b: (b - 1) * where(log1p(-a) < -100, -100, log1p(-a)) - b * where(log(a) < -100, -100, log(a)),
    lambda g, y, a, b: (
        g * ((a - b) / where((1 - a) * a < 1e-12, 1e-12, (1 - a) * a)),
        g * (where(log1p(-a) < -100, -100, log1p(-a)) - where(log(a) < -100, -100, log(a))),
    ),
    types="float",
)

# losses of a difference a that are quadratic below b and linear above
huber = elementwise(
    "huber",
    lambda a, b: where(abs_(a) < b, 0.5 * a * a, b * (abs_(a) - 0.5 * b)),
    lambda g, y, a, b: (g * where(a >= b, b, where(a <= -b, -b, a)), g * where(abs_(a) < b, 0, abs_(a) - b)),
    types="float",
)
smooth_l1 = elementwise(
    "smooth_l1",
    lambda a, b: where(abs_(a) < b, 0.5 * a * a / b, abs_(a) - 0.5 * b),
    lambda g, y, a, b: (
        g * where(a >= b, 1, where(a <= -b, -1, a / b)),
        g * where(abs_(a) < b, -0.5 * (a / b) * (a / b), -0.5),
    ),
    types="float",
)
erf_op = elementwise(
    "erf", lambda a: erf(a), lambda g, y, a: (g * (2 / math.sqrt(math.pi) * exp(-(a * a))),), types="float"
)
erfc_op = elementwise(
    "erfc", lambda a: erfc(a), lambda g, y, a: (g * (-2 / math.sqrt(math.pi) * exp(-(a * a))),), types="float"
)
erfinv_op = elementwise(
    "erfinv", lambda a: erfinv(a), lambda g, y, a: (g * (math.sqrt(math.pi) / 2 * exp(y * y)),), types="float"
)

# rounding (their gradient is zero)
floor_op = elementwise("floor", lambda a: floor(a), lambda g, y, a: (zero(g),), types="number")
ceil_op = elementwise("ceil", lambda a: ceil(a), lambda g, y, a: (zero(g),), types="number")
trunc_op = elementwise("trunc", lambda a: trunc(a), lambda g, y, a: (zero(g),), types="number")
round_op = elementwise("round", lambda a: round_(a), lambda g, y, a: (zero(g),), types="number")

# comparisons and logic
eq = elementwise("eq", lambda a, b: a == b, types="compare")
ne = elementwise("ne", lambda a, b: a != b, types="compare")
lt = elementwise("lt", lambda a, b: a < b, types="compare")
le = elementwise("le", lambda a, b: a <= b, types="compare")
gt = elementwise("gt", lambda a, b: a > b, types="compare")
ge = elementwise("ge", lambda a, b: a >= b, types="compare")
logical_and = elementwise("logical_and", lambda a, b: a & b, types="logical")
logical_or = elementwise("logical_or", lambda a, b: a | b, types="logical")
logical_xor = elementwise("logical_xor", lambda a, b: a ^ b, types="logical")
logical_not = elementwise("logical_not", lambda a: a ^ True, types="logical")
isnan = elementwise("isnan", lambda a: a != a, types="test")
isfinite = elementwise("isfinite", lambda a: (a - a) == 0, types="test")
isinf = elementwise("isinf", lambda a: (a == a) & ((a - a) != 0), types="test")
truth = elementwise("truth", lambda a: a != 0, types="test", label="Bool")
bitwise_and = elementwise("bitwise_and", lambda a, b: a & b, types="bits")
bitwise_or = elementwise("bitwise_or", lambda a, b: a | b, types="bits")
bitwise_xor = elementwise("bitwise_xor", lambda a, b: a ^ b, types="bits")
bitwise_left_shift = elementwise("bitwise_left_shift", lambda a, b: lshift(a, b), types="bits number")
bitwise_right_shift = elementwise("bitwise_right_shift", lambda a, b: rshift(a, b), types="bits number")
