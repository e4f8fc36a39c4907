"""Logarithms: log log2 log10 log1p.

x = 2**k m with m in [sqrt(1/2), sqrt(2)). float64 follows fdlibm, log(1 + f) = f - f**2 / 2 + s (f**2 / 2 + R(s**2))
with s = f / (2 + f), as a pair where more follows. float32 uses one polynomial in f (after Cephes).
"""

import numpy as np

from .native import bits_of_float32, bits_of_float64, float32_of_bits, float64_of_bits, fma
from .vmath_core import (
    EXPONENT_BITS_F64,
    HALF_F32,
    ONE_BITS_F64,
    ONE_F32,
    ROUND_F64,
    ZERO_F32,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    power_of_two_f32,
    two_sum,
)

LN2_HI_F64 = 0.6931471805598903  # 42 bits
LN2_LO_F64 = 5.497923018708371e-14
LN2_HI_F32 = np.float32(0.693145751953125)  # 16 bits
LN2_LO_F32 = np.float32(1.4286068203094173e-06)

SQRT_HALF_BITS_F64 = 0x3FE6A09E667F3BCD
SQRT_HALF_BITS_F32 = 0x3F3504F3
INTEGER_F64 = 0x4338000000000000  # the bits of 1.5 * 2**52

# (2 atanh(s) / s - 2) / s**2 in s**2, s <= 0.1716, minimax, relative error of the logarithm 2**-59.5
LOG_F64 = (
    0.6666666666666734, 0.39999999999416286, 0.28571428742159344, 0.22222198587481362,
    0.1818356394348248, 0.15314052868172093, 0.1479598992271407,
)  # fmt: skip
# (log1p(f) - f + f**2 / 2) / f**3 between sqrt(1/2) - 1 and sqrt(2) - 1, minimax, relative error 2**-29.2
LOG_F32 = float32s(
    0.33333313, -0.25000176, 0.20002231, -0.16658902, 0.14209025, -0.1255703, 0.12119934, -0.108802006, 0.052731257
)

INV_LN2_HI_F64, INV_LN2_LO_F64 = 1.4426950408889634, 2.0355273740931033e-17
INV_LN10_HI_F64, INV_LN10_LO_F64 = 0.4342944819032518, 1.098319650216765e-17
LOG10_2_HI_F64, LOG10_2_LO_F64 = 0.30102999566361177, 3.694239077158931e-13  # 40 bits and the rest
INV_LN2_F32 = np.float32(1.4426950408889634)
INV_LN10_HI_F32, INV_LN10_LO_F32 = float32s(0.4342944920063019, -1.010305e-08)
LOG10_2_HI_F32, LOG10_2_LO_F32 = float32s(0.301025390625, 4.605038981195214e-06)  # 16 bits and the rest

INF_F32, NAN_F32, TINY_F32, UP_F32 = float32s(np.inf, np.nan, 2.0**-126, 2.0**25)
UP_EXPONENT_F32, HUGE_F32, MAX_EXPONENT_F32 = float32s(25.0, 2.0**40, 120.0)


@elementary
def split_f64(x):
    """k and m of x = 2**k m, m in [sqrt(1/2), sqrt(2)), for positive normal x."""
    offset = bits_of_float64(x) - SQRT_HALF_BITS_F64
    k = float64_of_bits((offset >> 52) + INTEGER_F64) - ROUND_F64
    m = float64_of_bits((offset & 0xFFFFFFFFFFFFF) + SQRT_HALF_BITS_F64)
    return k, m


@elementary
def split_f32(x):
    """k and m of x = 2**k m, m in [sqrt(1/2), sqrt(2)), for positive normal x."""
    offset = np.int32(bits_of_float32(x) - np.int32(SQRT_HALF_BITS_F32))
    k = np.float32(np.int32(offset >> np.int32(23)))
    m = float32_of_bits(np.int32(np.int32(offset & np.int32(0x7FFFFF)) + np.int32(SQRT_HALF_BITS_F32)))
    return k, m


@elementary
def log1p_kernel_f64(f):
    """square, t with log(1 + f) = f - square + t, square = f**2 / 2."""
    square = 0.5 * f * f
    s = f / (f + 2.0)
    z = s * s
    return square, s * fma(z, polynomial(z, LOG_F64), square)


@elementary
def log_of_sum_f64(k, m, c):
    """f, l with k log 2 + log(m + c) = k LN2_HI + f + l: m in [sqrt(1/2), sqrt(2)], |c| <= 2**-52 (any c if m == 1)."""
    g = m - 1.0
    f = g + c
    low = c - (f - g)
    square, t = log1p_kernel_f64(f)
    t = t + fma(-low, f, low)  # 1 / (1 + f) is about 1 - f
    return f, fma(k, LN2_LO_F64, t) - square


@elementary
def log_parts_f32(k, f):
    """k log 2 + log(1 + f)."""
    z = f * f
    tail = fma(f * z, polynomial(f, LOG_F32), fma(-HALF_F32, z, k * LN2_LO_F32))
    return fma(k, LN2_HI_F32, f + tail)


@elementary
def log_of_pair_f64(u, c, k):
    """log(2**k (u + c)): positive normal u, |c| <= 2**-53 u (any c if u == 1)."""
    exponent, m = split_f64(u)
    down = ONE_BITS_F64 - ((bits_of_float64(u) - SQRT_HALF_BITS_F64) & EXPONENT_BITS_F64)  # of 2**-exponent
    k = k + exponent
    f, l = log_of_sum_f64(k, m, c * float64_of_bits(down if down > 0 else 0))  # 0 from 2**1023 on, where no c counts
    return fma(k, LN2_HI_F64, f + l)


@elementary
def log_of_pair_f32(u, c, k):
    """log(2**k (u + c)): positive normal u, |c| <= 2**-24 u (any c if u == 1; c == 0 if u > 2**120)."""
    exponent, m = split_f32(u)
    power = power_of_two_f32(-(exponent if exponent < MAX_EXPONENT_F32 else MAX_EXPONENT_F32))
    return log_parts_f32(exponent + k, fma(c, power, m - ONE_F32))


@elementary
def split_any_f64(x):
    """split_f64 for subnormal x too."""
    subnormal = x < 2.0**-1022
    k, m = split_f64(x * 2.0**54 if subnormal else x)
    return (k - 54.0 if subnormal else k), m


@elementary
def split_any_f32(x):
    """split_f32 for subnormal x too."""
    subnormal = x < TINY_F32
    k, m = split_f32(x * UP_F32 if subnormal else x)
    return (k - UP_EXPONENT_F32 if subnormal else k), m


@elementary
def log_special_f64(x, y):
    """y = log(x), put right where x is not positive and finite."""
    y = y if x < np.inf else x
    return y if x > 0.0 else (-np.inf if x == 0.0 else np.nan)


@elementary
def log_special_f32(x, y):
    """y = log(x), put right where x is not positive and finite."""
    y = y if x < INF_F32 else x
    return y if x > ZERO_F32 else (-INF_F32 if x == ZERO_F32 else NAN_F32)


@elementary
def log_f64(x):
    k, m = split_any_f64(x)
    f = m - 1.0
    square, t = log1p_kernel_f64(f)
    return log_special_f64(x, fma(k, LN2_HI_F64, f - (square - fma(k, LN2_LO_F64, t))))


@elementary
def log_f32(x):
    k, m = split_any_f32(x)
    return log_special_f32(x, log_parts_f32(k, m - ONE_F32))


@elementary
def log_in_base_f64(k, m, high, low):
    """k + log(m) (high + low) as a sum of two, for m in [sqrt(1/2), sqrt(2)]: f high exactly, and log(1 + f) - f."""
    f = m - 1.0
    _, t = log1p_kernel_f64(f)
    t = fma(-0.5 * f, f, t)
    h = f * high
    a, e = fast_two_sum(k, h)
    return a, e + fma(t, high, fma(f, low, fma(f, high, -h)))


@elementary
def log2_f64(x):
    k, m = split_any_f64(x)
    a, e = log_in_base_f64(k, m, INV_LN2_HI_F64, INV_LN2_LO_F64)
    return log_special_f64(x, a + e)


@elementary
def log2_f32(x):
    k, m = split_any_f32(x)
    return log_special_f32(x, fma(log_parts_f32(ZERO_F32, m - ONE_F32), INV_LN2_F32, k))


@elementary
def log10_f64(x):
    k, m = split_any_f64(x)
    a, e = log_in_base_f64(k * LOG10_2_HI_F64, m, INV_LN10_HI_F64, INV_LN10_LO_F64)
    return log_special_f64(x, a + fma(k, LOG10_2_LO_F64, e))


@elementary
def log10_f32(x):
    k, m = split_any_f32(x)
    h = log_parts_f32(ZERO_F32, m - ONE_F32)
    p = fma(h, INV_LN10_HI_F32, fma(h, INV_LN10_LO_F32, k * LOG10_2_LO_F32))
    return log_special_f32(x, fma(k, LOG10_2_HI_F32, p))


@elementary
def log1p_f64(x):
    u, c = fast_two_sum(1.0 if x < 1.0 else x, x if x < 1.0 else 1.0)
    y = log_of_pair_f64(u, c, 0.0)
    y = y if x < np.inf else x
    y = y if x > -1.0 else (-np.inf if x == -1.0 else np.nan)
    return y if x != 0.0 else x


@elementary
def log1p_f32(x):
    u, c = two_sum(ONE_F32, x)
    y = log_of_pair_f32(u, c if x < HUGE_F32 else ZERO_F32, ZERO_F32)
    y = y if x < INF_F32 else x
    y = y if x > -ONE_F32 else (-INF_F32 if x == -ONE_F32 else NAN_F32)
    return y if x != ZERO_F32 else x
