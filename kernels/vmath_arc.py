"""asin acos atan atan2.

asin and acos (after fdlibm): an odd polynomial for |x| <= 1/2, else pi / 2 - 2 asin(sqrt((1 - |x|) / 2)) with the root
as a pair. atan and atan2 (after Cephes): num / den turned by pi / 4 or pi / 2 so that the quotient is at most
sqrt(2) - 1; the multiple of pi / 4 is kept as a pair.
"""

import numpy as np

from .native import bits_of_float32, bits_of_float64, copysign, fabs, fma
from .vmath_core import (
    HALF_F32,
    ONE_F32,
    TWO_F32,
    ZERO_F32,
    divide_pairs_f64,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    sqrt_pair_f32,
    sqrt_pair_f64,
)

# (asin(a) / a - 1) / a**2 in a**2, a <= 1/2, minimax
ASIN_F64 = (  # 2**-59.8
    0.1666666666666676, 0.07499999999970808, 0.044642857174649206, 0.030381942704544085, 0.02237221510929682,
    0.017351609393938015, 0.01398085630116658, 0.01139858891084622, 0.010782218171752005, 0.0036984604456860833,
    0.021727960763304455, -0.021029641527445752, 0.03264865841113109,
)  # fmt: skip
ASIN_F32 = float32s(0.16666752, 0.074953064, 0.04546977, 0.024180807, 0.042166345)  # 2**-27.6
# (atan(q) / q - 1) / q**2 in q**2, q <= sqrt(2) - 1, minimax
ATAN_F64 = (  # 2**-59.4
    -0.333333333333332, 0.19999999999953672, -0.1428571428019955, 0.11111110783501085, -0.09090897757982472,
    0.07692060221884546, -0.0666310426059763, 0.05847892157537113, -0.05039324233703563, 0.0380652356176029,
    -0.017908147545219084,
)  # fmt: skip
ATAN_F32 = float32s(-0.33333316, 0.19998528, -0.14244391, 0.10599169, -0.060900554)  # 2**-30.4
ATAN_WIDE_F32 = float32s(  # the same, q <= 1, 2**-28.5
    -0.333333, 0.1999853, -0.14264014, 0.10950861, -0.08399208, 0.05787887, -0.031093534, 0.010866272, -0.0017821451,
)  # fmt: skip

PI_HI_F64, PI_LO_F64 = 3.141592653589793, 1.2246467991473532e-16
HALF_PI_HI_F64, HALF_PI_LO_F64 = 1.5707963267948966, 6.123233995736766e-17
QUARTER_PI_HI_F64, QUARTER_PI_LO_F64 = 0.7853981633974456, 2.6951514290790595e-15  # 48 bits and the rest
PI_HI_F32, PI_LO_F32 = float32s(3.1415927410125732, -8.742277657347586e-08)
HALF_PI_HI_F32, HALF_PI_LO_F32 = float32s(1.5707963705062866, -4.371138828673793e-08)
QUARTER_PI_HI_F32, QUARTER_PI_LO_F32 = float32s(0.7853975296020508, 6.337953975283657e-07)  # 20 bits and the rest

TAN_PI_8_F64, TAN_3PI_8_F64 = 0.4142135623730951, 2.414213562373095
TAN_PI_8_F32, TAN_3PI_8_F32 = float32s(0.4142135623730951, 2.414213562373095)
ATAN_MAX_F32, NAN_F32 = float32s(2.0**30, np.nan)


@elementary
def asin_parts_f64(x):
    """inner, h, l: |x| <= 1/2 and asin(|x|) = h + l, or inner false and asin(|x|) = pi / 2 - 2 (h + l)."""
    a = fabs(x)
    inner = a <= 0.5
    z = fma(-0.5, a, 0.5)
    s, sl, _ = sqrt_pair_f64(z)
    z = a * a if inner else z
    h = a if inner else s
    return inner, h, fma(h * z, polynomial(z, ASIN_F64), 0.0 if inner else sl)


@elementary
def asin_f64(x):
    inner, h, l = asin_parts_f64(x)
    s, e = fast_two_sum(HALF_PI_HI_F64, -2.0 * h)
    outer = s + (e + fma(-2.0, l, HALF_PI_LO_F64))
    return copysign(h + l if inner else outer, x)


@elementary
def acos_f64(x):
    inner, h, l = asin_parts_f64(x)
    negative = x < 0.0
    base = HALF_PI_HI_F64 if inner else (PI_HI_F64 if negative else 0.0)
    low = HALF_PI_LO_F64 if inner else (PI_LO_F64 if negative else 0.0)
    factor = 1.0 if inner else 2.0
    factor = factor if inner == negative else -factor
    s, e = fast_two_sum(base, factor * h)
    return s + (e + fma(factor, l, low))


@elementary
def asin_parts_f32(x):
    """As asin_parts_f64."""
    a = fabs(x)
    inner = a <= HALF_F32
    z = fma(-HALF_F32, a, HALF_F32)
    s, sl, _ = sqrt_pair_f32(z)
    z = a * a if inner else z
    h = a if inner else s
    return inner, h, fma(h * z, polynomial(z, ASIN_F32), ZERO_F32 if inner else sl)


@elementary
def asin_f32(x):
    inner, h, l = asin_parts_f32(x)
    outer = fma(-TWO_F32, h, HALF_PI_HI_F32) + fma(-TWO_F32, l, HALF_PI_LO_F32)
    return copysign(h + l if inner else outer, x)


@elementary
def acos_f32(x):
    inner, h, l = asin_parts_f32(x)
    negative = x < ZERO_F32
    base = HALF_PI_HI_F32 if inner else (PI_HI_F32 if negative else ZERO_F32)
    low = HALF_PI_LO_F32 if inner else (PI_LO_F32 if negative else ZERO_F32)
    factor = ONE_F32 if inner else TWO_F32
    factor = factor if inner == negative else -factor
    s, e = fast_two_sum(base, factor * h)
    return s + (e + fma(factor, l, low))


@elementary
def atan_f64(x):
    a = fabs(x)
    a = 2.0**60 if a > 2.0**60 else a
    middle = a > TAN_PI_8_F64
    far = a > TAN_3PI_8_F64
    up, up_low = fast_two_sum(1.0, a)
    down, down_low = fast_two_sum(-1.0, a)
    n = -1.0 if far else (down if middle else a)
    d = a if far else (up if middle else 1.0)
    turn = middle != far
    q, ql = divide_pairs_f64(n, down_low if turn else 0.0, d, up_low if turn else 0.0)
    k = 2.0 if far else (1.0 if middle else 0.0)
    z = q * q
    s, e = fast_two_sum(k * QUARTER_PI_HI_F64, q)
    return copysign(s + (e + fma(q * z, polynomial(z, ATAN_F64), fma(k, QUARTER_PI_LO_F64, ql))), x)


@elementary
def atan_f32(x):
    a = fabs(x)
    a = ATAN_MAX_F32 if a > ATAN_MAX_F32 else a
    middle = a > TAN_PI_8_F32
    far = a > TAN_3PI_8_F32
    n = -ONE_F32 if far else (a - ONE_F32 if middle else a)
    d = a if far else (a + ONE_F32 if middle else ONE_F32)
    q = n / d
    k = TWO_F32 if far else (ONE_F32 if middle else ZERO_F32)
    z = q * q
    tail = fma(q * z, polynomial(z, ATAN_F32), k * QUARTER_PI_LO_F32)
    return copysign(fma(k, QUARTER_PI_HI_F32, q) + tail, x)


@elementary
def atan2_f64(y, x):
    ax = fabs(x)
    ay = fabs(y)
    swap = ay > ax
    d = ay if swap else ax
    n = ax if swap else ay
    both = n == np.inf
    n = (1.0 if both else 0.0) if d == np.inf else n
    d = 1.0 if (d == np.inf) | (d == 0.0) else d
    scale = 2.0**-200 if d > 2.0**900 else (2.0**500 if d < 2.0**400 else 1.0)
    n = n * scale
    d = d * scale
    turn = n > TAN_PI_8_F64 * d
    up, up_low = fast_two_sum(d, n)
    down, down_low = fast_two_sum(-d, n)
    q, ql = divide_pairs_f64(down if turn else n, down_low if turn else 0.0, up if turn else d, up_low if turn else 0.0)
    z = q * q
    tail = fma(q * z, polynomial(z, ATAN_F64), ql)
    negative = bits_of_float64(x) < 0
    k = 1.0 if turn else 0.0
    k = 2.0 - k if swap else k
    k = 4.0 - k if negative else k
    flip = -1.0 if swap != negative else 1.0
    s, e = fast_two_sum(k * QUARTER_PI_HI_F64, flip * q)
    angle = s + (e + fma(flip, tail, k * QUARTER_PI_LO_F64))
    return np.nan if (x != x) | (y != y) else copysign(angle, y)


@elementary
def atan2_f32(y, x):
    """One polynomial as far as 1: no second division, and nothing to scale."""
    ax = fabs(x)
    ay = fabs(y)
    swap = ay > ax
    n = ax if swap else ay
    d = ay if swap else ax
    q = n / d if n < d else (ONE_F32 if d > ZERO_F32 else ZERO_F32)
    z = q * q
    tail = fma(q * z, polynomial(z, ATAN_WIDE_F32), q)
    negative = bits_of_float32(x) < np.int32(0)
    high = HALF_PI_HI_F32 if swap else (PI_HI_F32 if negative else ZERO_F32)
    low = HALF_PI_LO_F32 if swap else (PI_LO_F32 if negative else ZERO_F32)
    angle = high + (low - tail if swap != negative else low + tail)
    return NAN_F32 if (x != x) | (y != y) else copysign(angle, y)
