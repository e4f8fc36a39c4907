"""sigmoid logsigmoid softplus silu gelu_tanh: functions of e**x.

sigmoid(x) = 2**n / (2**n + e) with exp(-x) = 2**-n e: nothing overflows, and the left tail keeps its relative accuracy
down to the subnormal numbers, because the power of two is applied last. softplus is log1p(exp(x)) with exp(x) a pair.
"""

import numpy as np

from .native import bits_of_float64, copysign, fabs, float64_of_bits, fma
from .vmath_core import (
    ONE_BITS_F64,
    ONE_F32,
    ZERO_F32,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    power_of_two_f32,
    scale_by_bits_f64,
    scale_down_f32,
    two_sum,
)
from .vmath_exp import (
    EXP_F64,
    EXP_MIN_F64,
    exp_f32,
    exp_kernel_f64,
    exp_parts_f32,
    reduce_exp_bits_f64,
)
from .vmath_log import INF_F32, LN2_HI_F64, NAN_F32, log1p_f32, log_of_sum_f64

SQRT2_F64 = 1.4142135623730951
SIGMOID_MIN_F64 = -780.0  # beyond: x sigmoid(x) is -0, rounded
SIGMOID_MIN_F32, SIGMOID_MAX_F32 = float32s(-115.0, 20.0)
TINY_EXPONENT_F32 = np.float32(-30.0)

# gelu_tanh(x) = x sigmoid(x (A + B x**2)), A = 2 sqrt(2 / pi), B = 0.044715 A
GELU_A_HI_F64, GELU_A_LO_F64 = 1.5957691216057308, -9.96930880911092e-17
GELU_B_HI_F64, GELU_B_LO_F64 = 0.07135481627260025, -6.175149918155315e-19
GELU_A_HI_F32, GELU_A_LO_F32 = float32s(1.5957691216057308, -4.534068e-08)
GELU_B_HI_F32, GELU_B_LO_F32 = float32s(0.07135481627260025, 2.3988325e-09)
GELU_MAX_F64 = 30.0  # beyond: x and -0, rounded
GELU_MAX_F32 = np.float32(15.0)


@elementary
def sigmoid_parts_f64(x, b, r, rl):
    """b, c, q with sigmoid(x) = 2**n (c + q), n in the low bits of b, n = 0 for x >= 0; from -|x| = n log 2 + r + rl.

    With e = exp(-|x|) = p (1 + s), p = 2**n, and c = 1 - p / 2, which is near sigmoid(|x|): sigmoid(|x|) is c + m / (1 + e) and
    sigmoid(-|x|) is p (c + (m + s) / (1 + e)), where m = 1 - c - c e; for p = 1 rather 1 / 2 - m / (1 + e). The factor
    1 / (1 + e) goes in as 1 - e / (1 + e).
    """
    negative = bits_of_float64(x) >> 63
    t = fma(r * r, fma(r, polynomial(r, EXP_F64), 0.5), rl)
    s = r + t
    power = (b << 52) + ONE_BITS_F64
    p = float64_of_bits(power if power > 0 else 0)
    c = fma(-0.5, p, 1.0)
    m = fma(-c * p, s, fma(-c, p, 1.0 - c))
    far = negative & ((b << 52) >> 63)  # all bits where p < 1 and x < 0
    m = float64_of_bits(bits_of_float64(m) ^ ((negative ^ far) << 63))
    r = float64_of_bits(bits_of_float64(r) & far)
    m = m + float64_of_bits(bits_of_float64(t) & far)
    e = fma(p, s, p)
    return b & negative, c, r + fma(-(r + m), e / (1.0 + e), m)


@elementary
def reduce_sigmoid_f64(x):
    """b, r, rl: -|x| = n log 2 + r + rl, n in the low bits of b; x beyond SIGMOID_MIN is taken for that."""
    a = -fabs(x)
    return reduce_exp_bits_f64(SIGMOID_MIN_F64 if a < SIGMOID_MIN_F64 else a)


@elementary
def sigmoid_parts_f32(x, xl):
    """n, h, l with sigmoid(x + xl) = 2**n (h + l), as sigmoid_parts_f64."""
    a = SIGMOID_MAX_F32 if x > SIGMOID_MAX_F32 else x
    a = SIGMOID_MIN_F32 if a < SIGMOID_MIN_F32 else a
    n, e = exp_parts_f32(-a, -xl)
    n = -n
    d, dl = two_sum(power_of_two_f32(TINY_EXPONENT_F32 if n < TINY_EXPONENT_F32 else n), e)
    h = ONE_F32 / d
    return n, h, fma(-h, dl, fma(-h, d, ONE_F32)) * h


@elementary
def sigmoid_f64(x):
    b, r, rl = reduce_sigmoid_f64(x)
    b, c, q = sigmoid_parts_f64(x, b, r, rl)
    return scale_by_bits_f64(c + q, b)


@elementary
def sigmoid_f32(x):
    n, h, l = sigmoid_parts_f32(x, ZERO_F32)
    return scale_down_f32(h + l, n)


@elementary
def product_f64(x, b, c, q):
    """2**n x (c + q), n in the low bits of b; NaN for x = -inf."""
    v = SIGMOID_MIN_F64 if x < SIGMOID_MIN_F64 else x
    h, l = fast_two_sum(c, q)
    y = v * h
    y = scale_by_bits_f64(y + fma(v, l, fma(v, h, -y)), b) if x < np.inf else x
    return copysign(y, x) if x > -np.inf else np.nan


@elementary
def product_f32(x, n, h, l):
    """2**n x (h + l); NaN for x = -inf."""
    v = SIGMOID_MIN_F32 if x < SIGMOID_MIN_F32 else x
    y = scale_down_f32(fma(v, h, v * l), n) if x < INF_F32 else x
    return copysign(y, x) if x > -INF_F32 else NAN_F32


@elementary
def silu_f64(x):
    """x sigmoid(x); NaN for -inf, as in PyTorch."""
    b, r, rl = reduce_sigmoid_f64(x)
    b, c, q = sigmoid_parts_f64(x, b, r, rl)
    return product_f64(x, b, c, q)


@elementary
def silu_f32(x):
    """x sigmoid(x); NaN for -inf, as in PyTorch."""
    n, h, l = sigmoid_parts_f32(x, ZERO_F32)
    return product_f32(x, n, h, l)


@elementary
def gelu_tanh_f64(x):
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2; NaN for -inf, as in PyTorch."""
    x = -GELU_MAX_F64 if (x < -GELU_MAX_F64) & (x > -np.inf) else x
    v = GELU_MAX_F64 if x > GELU_MAX_F64 else x
    w = v * v
    wl = fma(v, v, -w)
    p = GELU_B_HI_F64 * w
    pl = fma(GELU_B_HI_F64, w, -p) + fma(GELU_B_HI_F64, wl, GELU_B_LO_F64 * w)
    t, tl = two_sum(GELU_A_HI_F64, p)
    tl = tl + (pl + GELU_A_LO_F64)
    u = v * t
    ul = fma(v, tl, fma(v, t, -u))
    b, r, rl = reduce_sigmoid_f64(u)
    r, rl = fast_two_sum(r, rl + (ul if u < 0.0 else -ul))
    b, c, q = sigmoid_parts_f64(u, b, r, rl)
    return product_f64(x, b, c, q)


@elementary
def gelu_tanh_f32(x):
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2; NaN for -inf, as in PyTorch."""
    x = -GELU_MAX_F32 if (x < -GELU_MAX_F32) & (x > -INF_F32) else x
    v = GELU_MAX_F32 if x > GELU_MAX_F32 else x
    w = v * v
    wl = fma(v, v, -w)
    p = GELU_B_HI_F32 * w
    pl = fma(GELU_B_HI_F32, w, -p) + fma(GELU_B_HI_F32, wl, GELU_B_LO_F32 * w)
    t, tl = two_sum(GELU_A_HI_F32, p)
    tl = tl + (pl + GELU_A_LO_F32)
    u = v * t
    n, h, l = sigmoid_parts_f32(u, fma(v, tl, fma(v, t, -u)))
    return product_f32(x, n, h, l)


@elementary
def softplus_f64(x):
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    a = -fabs(x)
    a = EXP_MIN_F64 if a < EXP_MIN_F64 else a
    b, r, rl = reduce_exp_bits_f64(a)
    eh, el = exp_kernel_f64(r, rl)
    eh = scale_by_bits_f64(eh, b)
    el = scale_by_bits_f64(el, b)
    u, c = fast_two_sum(1.0, eh)
    c = c + el
    upper = u > SQRT2_F64
    k = 1.0 if upper else 0.0
    f, l = log_of_sum_f64(k, u * 0.5 if upper else u, c * 0.5 if upper else c)
    h, e = fast_two_sum(k * LN2_HI_F64, f)
    l = l + e
    far = a < -20.0  # there log1p(e) = e - e**2 / 2, and c would lose bits
    h = eh if far else h
    l = fma(-0.5 * eh, eh, el) if far else l
    s, e = two_sum(x if x > 0.0 else 0.0, h)
    return s + (e + l) if x < np.inf else x


@elementary
def softplus_f32(x):
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    return (x if x > ZERO_F32 else ZERO_F32) + log1p_f32(exp_f32(-fabs(x)))


@elementary
def logsigmoid_f64(x):
    return 0.0 - softplus_f64(-x)


@elementary
def logsigmoid_f32(x):
    return ZERO_F32 - softplus_f32(-x)
