"""pow sqrt rsqrt cbrt hypot.

pow in float64 takes the logarithm as a pair good to 2**-64 (after SLEEF), multiplies exactly and exponentiates the
pair; pow in float32 does the same in plain float64, by logarithms to base 2. cbrt polishes an estimate by a polynomial and
a Newton step.
"""

import numpy as np

from .native import (
    bits_of_float32,
    bits_of_float64,
    copysign,
    fabs,
    float32_of_bits,
    float64_of_bits,
    fma,
    rint,
    sqrt,
)
from .vmath_core import (
    ONE_F32,
    ROUND_F64,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    power_of_bits_f64,
    scale_by_bits_f64,
    sqrt_pair_f64,
)
from .vmath_exp import EXP_F64, clamp_exp_f64, reduce_exp_bits_f64
from .vmath_log import INTEGER_F64, LN2_HI_F64, LN2_LO_F64, split_any_f64, split_f64

# (2 atanh(s) / s - 2) / s**2 = 2 / 3 + s**2 R(s**2), s <= 0.1716
TWO_THIRDS_HI_F64 = 0.6666666666666666
TWO_THIRDS_LO_F64 = 3.700743415417188e-17
POW_LOG_F64 = (  # R, minimax, relative error of the logarithm 2**-73.5
    0.3999999999999998, 0.2857142857144384, 0.2222222221778975, 0.18181818843989858,
    0.1538455842885084, 0.13336264484040156, 0.1167578105540293, 0.11981750365038962,
)  # fmt: skip
# for pow_f32: log2(m) / s = 2 atanh(s) / (s log 2) in s**2, s <= 0.1716, 2**-37.8, and 2**r on |r| <= 1/2, 2**-29.0, both minimax
POW_LOG2_F32 = (2.885390081790086, 0.9617966733421196, 0.5770835848936633, 0.4116727236649211, 0.3407300130714004)
POW_EXP2_F32 = (
    1.000000000554172, 0.6931472057361125, 0.24022646890577753, 0.055503287772197346,
    0.009618488966838246, 0.0013399931366474356, 0.00015345809408112463,
)  # fmt: skip
POW_MAX_F32, POW_MIN_F32 = 129.0, -152.0  # beyond: inf and 0, rounded

# The bits of x**(-1/3), as an integer, are about CBRT_BITS less a third of those of x (float64: of the upper 32 bits); then
# y (1 + e P(e)) with e = 1 - x y**3 is x**(-1/3) for |e| <= 0.1031 (float32: 0.1035), P minimax
CBRT_BITS_F64, CBRT_BITS_F32 = 1430186287.0 + ROUND_F64, np.float32(1419895442.0)
CBRT_F64 = (  # absolute error of e P(e) 2**-31.2
    0.33333333716150687, 0.2222222433630304, 0.17283303506799194,
    0.14402035380933353, 0.1264462362097348, 0.11294121139627514,
)  # fmt: skip
CBRT_F32 = float32s(0.3333297, 0.22338745, 0.17452697)  # 2**-17.8
THIRD_F32, UP_F32, ROOT_DOWN_F32, TINY_F32 = float32s(1.0 / 3.0, 2.0**24, 2.0**-8, 2.0**-126)
INF_F32 = np.float32(np.inf)

EXPONENT_MASK_F64, EXPONENT_MIN_F64, EXPONENT_MAX_F64 = 0x7FF << 52, 1 << 52, 2045 << 52
EXPONENT_SUM_F64 = 2046 << 52


@elementary
def sqrt_f64(x):
    return sqrt(x)


@elementary
def sqrt_f32(x):
    return sqrt(x)


@elementary
def log_pair_f64(x):
    """log(x) as a pair with relative error 2**-64, for positive finite x; log(1) is exactly 0."""
    k, m = split_any_f64(x)
    f = m - 1.0
    d, dl = fast_two_sum(1.0, m)
    inverse = 1.0 / d
    s = f * inverse
    sl = (fma(-s, d, f) - s * dl) * inverse
    z = s * s
    p = s * z
    pl = fma(3.0 * sl, z, fma(s, fma(s, s, -z), fma(s, z, -p)))
    q = p * TWO_THIRDS_HI_F64
    ql = fma(pl, TWO_THIRDS_HI_F64, fma(p, TWO_THIRDS_LO_F64, fma(p, TWO_THIRDS_HI_F64, -q)))
    ql = fma(p, z * polynomial(z, POW_LOG_F64), ql)
    h, l = fast_two_sum(2.0 * s, q)
    a, al = fast_two_sum(k * LN2_HI_F64, h)
    return fast_two_sum(a, al + fma(k, LN2_LO_F64, l + fma(2.0, sl, ql)))


@elementary
def signed_power_f64(x, y, power):
    """x**y from |x|**y: 1 where it is exact, the sign of an odd power, and NaN for a root of a negative number."""
    power = 1.0 if (y == 0.0) | (fabs(x) == 1.0) else power
    half = 0.5 * y
    odd = fabs(half - rint(half)) == 0.5
    power = np.nan if (x < 0.0) & (x > -np.inf) & (rint(y) != y) else power
    return copysign(power, x) if odd else power


@elementary
def pow_f64(x, y):
    a = fabs(x)
    h, l = log_pair_f64(a)
    h = h if a < np.inf else a
    h = -np.inf if a == 0.0 else h
    t = y * h
    tl = fma(y, l, fma(y, h, -t)) if fabs(t) < 800.0 else 0.0
    b, r, rl = reduce_exp_bits_f64(clamp_exp_f64(t))
    r, rl = fast_two_sum(r, rl + tl)
    power = 1.0 + (r + fma(r * r, fma(r, polynomial(r, EXP_F64), 0.5), rl))
    return signed_power_f64(x, y, scale_by_bits_f64(power, b))


@elementary
def pow_f32(x, y):
    """2**(y log2 |x|) in float64."""
    x = np.float64(x)
    y = np.float64(y)
    a = fabs(x)
    k, m = split_f64(a)
    s = (m - 1.0) / (m + 1.0)
    h = fma(s, polynomial(s * s, POW_LOG2_F32), k)
    h = h if a < np.inf else a
    h = -np.inf if a == 0.0 else h
    t = y * h
    t = POW_MAX_F32 if t > POW_MAX_F32 else t
    t = POW_MIN_F32 if t < POW_MIN_F32 else t
    rounded = t + ROUND_F64
    power = polynomial(t - (rounded - ROUND_F64), POW_EXP2_F32) * power_of_bits_f64(bits_of_float64(rounded))
    return np.float32(signed_power_f64(x, y, power))


@elementary
def rsqrt_f64(x):
    """1 / sqrt(x), with one Newton step on the exact residual 1 - x y**2."""
    y = 1.0 / sqrt(x)
    h = x * y
    e = fma(-h, y, 1.0) - fma(x, y, -h) * y
    return fma(0.5 * y, e, y) if (x > 0.0) & (x < np.inf) else y


@elementary
def rsqrt_f32(x):
    return ONE_F32 / sqrt(x)


@elementary
def cbrt_f64(x):
    """x y**2 with y = x**(-1/3): an estimate from the bits, a polynomial in its error, and a Newton step on the root."""
    a = fabs(x)
    tiny = a < 2.0**-1022
    v = a * 2.0**54 if tiny else a
    word = float64_of_bits((bits_of_float64(v) >> 32) + INTEGER_F64) - ROUND_F64
    y = float64_of_bits(bits_of_float64(fma(word, -1.0 / 3.0, CBRT_BITS_F64)) << 32)
    e = fma(-v * y, y * y, 1.0)
    y = fma(y * e, polynomial(e, CBRT_F64), y)
    w = y * y
    c = v * w
    c = fma(fma(-c * c, c, v), w * (1.0 / 3.0), c)
    y = copysign(c * 2.0**-18 if tiny else c, x)
    return y if a < np.inf else x


@elementary
def cbrt_f32(x):
    """As cbrt_f64."""
    a = fabs(x)
    tiny = a < TINY_F32
    v = a * UP_F32 if tiny else a
    y = float32_of_bits(np.int32(fma(np.float32(bits_of_float32(v)), -THIRD_F32, CBRT_BITS_F32)))
    e = fma(-v * y, y * y, ONE_F32)
    y = fma(y * e, polynomial(e, CBRT_F32), y)
    w = y * y
    c = v * w
    c = fma(fma(-c * c, c, v), w * THIRD_F32, c)
    y = copysign(c * ROOT_DOWN_F32 if tiny else c, x)
    return y if a < INF_F32 else x


@elementary
def hypot_f64(x, y):
    """sqrt(x**2 + y**2), scaled by a power of two and with the root of a pair."""
    ax = fabs(x)
    ay = fabs(y)
    a = ax if ax > ay else ay
    b = ay if ax > ay else ax
    exponent = bits_of_float64(a) & EXPONENT_MASK_F64
    exponent = EXPONENT_MAX_F64 if exponent > EXPONENT_MAX_F64 else exponent
    exponent = EXPONENT_MIN_F64 if exponent < EXPONENT_MIN_F64 else exponent
    down = float64_of_bits(EXPONENT_SUM_F64 - exponent)
    a = a * down
    b = b * down
    p = a * a
    q = b * b
    v, vl = fast_two_sum(p, q)
    s, sl, half = sqrt_pair_f64(v)
    sl = fma(half, vl + (fma(a, a, -p) + fma(b, b, -q)), sl) if v > 0.0 else 0.0
    h = (s + sl) * float64_of_bits(exponent)
    h = np.nan if (x != x) | (y != y) else h
    return np.inf if (ax == np.inf) | (ay == np.inf) else h


@elementary
def hypot_f32(x, y):
    """sqrt(x**2 + y**2); float64 holds the squares exactly and never overflows."""
    u = np.float64(x)
    v = np.float64(y)
    h = np.float32(sqrt(fma(u, u, v * v)))
    return INF_F32 if (fabs(x) == INF_F32) | (fabs(y) == INF_F32) else h
