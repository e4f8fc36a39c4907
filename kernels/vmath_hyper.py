"""sinh cosh tanh asinh acosh atanh.

sinh and cosh: with |x| = n log 2 + r, P = 2**(n-1) and M = 2**(-n-1), sinh(|x|) = (P - M) cosh(r) + (P + M) sinh(r)
and cosh(x) = (P + M) cosh(r) + (P - M) sinh(r): two short polynomials, no division, no cancellation. tanh(|x|) is a small
quotient beside |x|, or beside 3 / 4: with d = e**(2|x|) + 1 it is 3 / 4 + (d - 8) / (4 d), which forgives d its rounding. asinh and acosh feed a pair to the logarithm, with a polynomial of their own for small
arguments; atanh reduces its own quotient.
"""

import numpy as np

from .native import copysign, fabs, fma
from .vmath_core import (
    HALF_F32,
    ONE_F32,
    ROUND_F32,
    TWO_F32,
    ZERO_F32,
    divide_pairs_f32,
    divide_pairs_f64,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    power_of_bits_f32,
    power_of_bits_f64,
    power_of_two_f32,
    power_of_two_f64,
    sqrt_pair_f32,
    sqrt_pair_f64,
    two_sum,
)
from .vmath_exp import (
    EXP_F32,
    EXP_F64,
    LN2_HI_F32,
    LN2_LO_F32,
    LOG2E_F32,
    reduce_exp_bits_f32,
    reduce_exp_bits_f64,
    reduce_exp_f64,
)
from .vmath_log import (
    INF_F32,
    LN2_HI_F64,
    LN2_LO_F64,
    NAN_F32,
    log_of_pair_f32,
    log_of_pair_f64,
    split_f32,
    split_f64,
)

# (sinh(r) / r - 1) / r**2 and (cosh(r) - 1) / r**2 in r**2, |r| <= log(2) / 2, minimax
SINH_F64 = (  # 2**-63.9
    0.16666666666666685, 0.008333333333315719, 0.00019841269899614652, 2.755723165830896e-06, 2.511314581038274e-08,
)  # fmt: skip
COSH_F64 = (  # 2**-70.0
    0.5, 0.041666666666666685, 0.0013888888888873283,
    2.4801587349198634e-05, 2.7557251829750074e-07, 2.092176329436957e-09,
)  # fmt: skip
SINH_F32 = float32s(0.16666518, 0.008368971)  # 2**-28.2
COSH_F32 = float32s(0.5, 0.04166646, 0.0013935425)  # 2**-33.2
# (tanh(a) / a - 1) / a**2 in a**2, a <= 0.9, as a quotient, minimax, relative error of tanh 2**-61.8
TANH_UP_F64 = (-0.24647665938256894, -0.01583135782923493, -0.00017991195690987528, -1.277127957171241e-08)
TANH_DOWN_F64 = (0.7394299781477068, 0.34326606474678667, 0.01812892721220621, 0.00018806500702768395)
# the same, a <= 0.625, 2**-27.7
TANH_F32 = float32s(-0.3333328, 0.13331406, -0.05373652, 0.020628193, -0.0056923386)
# (asinh(a) / a - 1) / a**2 in a**2, a <= 0.5, minimax
ASINH_F64 = (  # 2**-60.4
    -0.1666666666666661, 0.07499999999984398, -0.04464285712780656, 0.030381943715130217, -0.022372138323815825,
    0.017352386379883726, -0.013960226028663788, 0.011512939522132394, -0.009533933563708205, 0.007464982688268268,
    -0.004746473270481083, 0.0017173239061481801,
)  # fmt: skip
ASINH_F32 = float32s(-0.16666643, 0.074986406, -0.04438293, 0.028160641, -0.0132220695)  # 2**-29.6
# (atanh(s) / s - 1) / s**2 in s**2, s <= 0.1717, minimax
ATANH_F64 = (  # 2**-59.5
    0.33333333333333676, 0.1999999999970456, 0.14285714371893796, 0.11111099206888533,
    0.09091786692748162, 0.07656899939566719, 0.07399319440215306,
)  # fmt: skip
ATANH_F32 = float32s(0.33333388, 0.19988783, 0.14935803)  # 2**-30.2

HALF_LN2_HI_F64, HALF_LN2_LO_F64 = 0.5 * LN2_HI_F64, 0.5 * LN2_LO_F64
HALF_LN2_HI_F32, HALF_LN2_LO_F32 = HALF_F32 * LN2_HI_F32, HALF_F32 * LN2_LO_F32
SQRT2_F64 = 1.4142135623730951
SQRT2_F32 = np.float32(1.4142135623730951)
HYPERBOLIC_MAX_F64 = 711.0  # beyond: inf
HYPERBOLIC_MAX_F32 = np.float32(90.0)
FOUR_F32, THREE_F32 = float32s(4.0, 3.0)
LEAST_EXPONENT_F32, TINY_F32, BIG_F32 = float32s(-100.0, 2.0**-14, 2.0**14)
TANH_SPLIT_F64 = 0.75
TANH_MAX_F32, TANH_SPLIT_F32 = float32s(10.0, 0.625)


@elementary
def hyperbolic_parts_f64(x):
    """p, m, r, rl, s, c: |x| = n log 2 + r + rl, p = 2**(n-3), m = 2**(-n-3), s = sinh(r) - r, c = cosh(r) - 1."""
    a = fabs(x)
    a = HYPERBOLIC_MAX_F64 if a > HYPERBOLIC_MAX_F64 else a
    n, r, rl = reduce_exp_f64(a)
    p = power_of_two_f64(n - 3.0)
    m = power_of_two_f64((-900.0 if n > 897.0 else -n) - 3.0)
    z = r * r
    return p, m, r, rl, r * z * polynomial(z, SINH_F64), z * polynomial(z, COSH_F64)


@elementary
def hyperbolic_parts_f32(x):
    """p, m, s, c: |x| = n log 2 + r, p = 2**(n-3), m = 2**(-n-3), s = sinh(r), c = cosh(r) - 1."""
    a = fabs(x)
    a = HYPERBOLIC_MAX_F32 if a > HYPERBOLIC_MAX_F32 else a
    n = fma(a, LOG2E_F32, ROUND_F32) - ROUND_F32
    r = fma(-n, LN2_LO_F32, fma(-n, LN2_HI_F32, a))
    p = power_of_two_f32(n - THREE_F32)
    m = -n - THREE_F32
    m = power_of_two_f32(LEAST_EXPONENT_F32 if m < LEAST_EXPONENT_F32 else m)
    z = r * r
    return p, m, fma(r * z, polynomial(z, SINH_F32), r), z * polynomial(z, COSH_F32)


@elementary
def sinh_f64(x):
    p, m, r, rl, s, c = hyperbolic_parts_f64(x)
    a, al = fast_two_sum(p, -m)
    b = p + m
    q = b * r
    ql = fma(b, r, -q)
    h, l = fast_two_sum(a, q)
    y = h + (l + fma(a, c, fma(b, s + rl, ql + al)))
    y = copysign(y * 4.0, x)
    return x if fabs(x) < 2.0**-28 else y


@elementary
def sinh_f32(x):
    p, m, s, c = hyperbolic_parts_f32(x)
    a, al = fast_two_sum(p, -m)
    y = copysign((a + fma(p + m, s, fma(a, c, al))) * FOUR_F32, x)
    return x if fabs(x) < TINY_F32 else y


@elementary
def cosh_f64(x):
    p, m, r, rl, s, c = hyperbolic_parts_f64(x)
    a, al = fast_two_sum(p, m)
    b = p - m
    q = b * r
    ql = fma(b, r, -q)
    h, l = fast_two_sum(a, q)
    return (h + (l + fma(a, c, fma(b, s + rl, ql + al)))) * 4.0


@elementary
def cosh_f32(x):
    p, m, s, c = hyperbolic_parts_f32(x)
    a, al = fast_two_sum(p, m)
    return (a + fma(p - m, s, fma(a, c, al))) * FOUR_F32


@elementary
def tanh_f64(x):
    a = fabs(x)
    a = 22.0 if a > 22.0 else a
    small = a < TANH_SPLIT_F64
    b, r, _ = reduce_exp_bits_f64(a + a)
    power = power_of_bits_f64(b)
    d = fma(power, r + r * r * fma(r, polynomial(r, EXP_F64), 0.5), power + 1.0)
    z = a * a
    q = (z * polynomial(z, TANH_UP_F64) if small else d - 8.0) / (polynomial(z, TANH_DOWN_F64) if small else d)
    return copysign(fma(a if small else 0.25, q, a if small else 0.75), x)


@elementary
def tanh_f32(x):
    a = fabs(x)
    a = TANH_MAX_F32 if a > TANH_MAX_F32 else a
    z = a * a
    small = fma(a * z, polynomial(z, TANH_F32), a)
    b, r = reduce_exp_bits_f32(a + a)
    power = power_of_bits_f32(b)
    d = fma(power, fma(r * r, fma(r, polynomial(r, EXP_F32), HALF_F32), r), power + ONE_F32)
    return copysign(ONE_F32 - TWO_F32 / d if a > TANH_SPLIT_F32 else small, x)


@elementary
def asinh_f64(x):
    a = fabs(x)
    z = x * x
    small = fma(a * z, polynomial(z, ASINH_F64), a)
    big = a > 2.0**30
    v = 2.0**30 if big else a
    p = v * v
    t, tl = two_sum(p, 1.0)
    s, sl, half = sqrt_pair_f64(t)
    sl = fma(half, tl + fma(v, v, -p), sl)
    u, c = two_sum(0.5 * a, 0.5 * (a if big else s))
    y = log_of_pair_f64(u, 0.0 if big else fma(0.5, sl, c), 1.0) if a > 0.5 else small
    return copysign(y if a < np.inf else a, x)


@elementary
def asinh_f32(x):
    a = fabs(x)
    z = x * x
    small = fma(a * z, polynomial(z, ASINH_F32), a)
    big = a > BIG_F32
    v = BIG_F32 if big else a
    p = v * v
    t, tl = two_sum(p, ONE_F32)
    s, sl, half = sqrt_pair_f32(t)
    sl = fma(half, tl + fma(v, v, -p), sl)
    u, c = two_sum(HALF_F32 * a, HALF_F32 * (a if big else s))
    y = log_of_pair_f32(u, ZERO_F32 if big else fma(HALF_F32, sl, c), ONE_F32)
    y = y if a > HALF_F32 else small
    return copysign(y if a < INF_F32 else a, x)


@elementary
def acosh_f64(x):
    big = x > 2.0**28
    t = (2.0 if big else x) - 1.0
    p = t * t
    v, vl = two_sum(t + t, p)
    s, sl, half = sqrt_pair_f64(v)
    sl = fma(half, vl + fma(t, t, -p), sl) if v > 0.0 else 0.0
    w, wl = two_sum(t, s)
    u, c = two_sum(1.0, w)
    y = log_of_pair_f64(x if big else u, 0.0 if big else c + (wl + sl), 1.0 if big else 0.0)
    y = y if x < np.inf else x
    return y if x >= 1.0 else np.nan


@elementary
def acosh_f32(x):
    big = x > BIG_F32
    t = (TWO_F32 if big else x) - ONE_F32
    p = t * t
    v, vl = two_sum(t + t, p)
    s, sl, half = sqrt_pair_f32(v)
    sl = fma(half, vl + fma(t, t, -p), sl) if v > ZERO_F32 else ZERO_F32
    w, wl = two_sum(t, s)
    u, c = two_sum(ONE_F32, w)
    y = log_of_pair_f32(x if big else u, ZERO_F32 if big else c + (wl + sl), ONE_F32 if big else ZERO_F32)
    y = y if x < INF_F32 else x
    return y if x >= ONE_F32 else NAN_F32


@elementary
def atanh_f64(x):
    """log((1 + a) / (1 - a)) / 2 = k log(2) / 2 + atanh(s), s = (1 + a - 2**k (1 - a)) / (1 + a + 2**k (1 - a))."""
    a = fabs(x)
    up, up_low = fast_two_sum(1.0, a)
    down, down_low = fast_two_sum(1.0, -a)
    k, m = split_f64(down)
    k = -k + (1.0 if up > SQRT2_F64 * m else 0.0)
    power = power_of_two_f64(k)
    down = down * power
    down_low = down_low * power
    n, nl = two_sum(up, -down)
    n, nl = fast_two_sum(n, nl + (up_low - down_low))
    d, dl = two_sum(up, down)
    s, sl = divide_pairs_f64(n, nl, d, dl + (up_low + down_low))
    z = s * s
    h, l = fast_two_sum(k * HALF_LN2_HI_F64, s)
    y = h + (l + fma(k, HALF_LN2_LO_F64, fma(s * z, polynomial(z, ATANH_F64), sl)))
    y = y if a < 1.0 else (np.inf if a == 1.0 else np.nan)
    return copysign(y, x)


@elementary
def atanh_f32(x):
    """As atanh_f64."""
    a = fabs(x)
    up, up_low = fast_two_sum(ONE_F32, a)
    down, down_low = fast_two_sum(ONE_F32, -a)
    k, m = split_f32(down)
    k = -k + (ONE_F32 if up > SQRT2_F32 * m else ZERO_F32)
    power = power_of_two_f32(k)
    down = down * power
    down_low = down_low * power
    n, nl = fast_two_sum(up - down, up_low - down_low)
    d, dl = two_sum(up, down)
    s, sl = divide_pairs_f32(n, nl, d, dl + (up_low + down_low))
    z = s * s
    tail = fma(s * z, polynomial(z, ATANH_F32), fma(k, HALF_LN2_LO_F32, sl))
    y = fma(k, HALF_LN2_HI_F32, s) + tail
    y = y if a < ONE_F32 else (INF_F32 if a == ONE_F32 else NAN_F32)
    return copysign(y, x)
