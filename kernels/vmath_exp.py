"""exp exp2 expm1, and e**r as a pair for the functions made of it.

All start from x = n log 2 + r with |r| <= log(2) / 2 (Cody and Waite; in float64 the remainder is a pair) and a
minimax polynomial for e**r. Where something follows in float64 (a quotient, a logarithm), e**r goes on as a pair.
"""

import numpy as np

from .native import bits_of_float32, bits_of_float64, copysign, fma
from .vmath_core import (
    HALF_F32,
    ONE_F32,
    ROUND_F32,
    ROUND_F64,
    TWO_F32,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    power_of_two_f32,
    power_of_two_f64,
    scale_by_bits_f32,
    scale_by_bits_f64,
)

LOG2E_F64 = 1.4426950408889634
LN2_HI_F64 = 0.6931471805598903  # 42 bits
LN2_LO_F64 = 5.497923018708371e-14
LOG2E_F32 = np.float32(1.4426950408889634)
LN2_HI_F32 = np.float32(0.693145751953125)  # 16 bits
LN2_LO_F32 = np.float32(1.4286068203094173e-06)

# (e**r - 1 - r - r**2 / 2) / r**3 on |r| <= log(2) / 2, minimax, relative error of e**r 2**-57.3
EXP_F64 = (
    0.16666666666666685, 0.04166666666660273, 0.008333333333315, 0.0013888888927296762, 0.0001984126990201089,
    2.4801508053686163e-05, 2.755722916249039e-06, 2.7625435989177787e-07, 2.5113965694329233e-08,
)  # fmt: skip
EXP_F32 = float32s(0.16666515, 0.041666377, 0.008369406, 0.0013942706)  # 2**-28.1
# the same for the relative error of e**r - 1
EXPM1_F64 = (  # 2**-61.5
    0.16666666666666677, 0.04166666666666661, 0.008333333333321199, 0.0013888888888918271, 0.0001984126988763876,
    2.480158726036683e-05, 2.7557242343594822e-06, 2.7557323507490546e-07, 2.5109788866358143e-08,
    2.090147074992668e-09,
)  # fmt: skip
EXPM1_F32 = float32s(0.16666666, 0.041666467, 0.008333644, 0.001393506, 0.00019663582)  # 2**-31.0
# (e**r - 1) / r, 2**-34.3
EXP_SHORT_F64 = (
    0.9999999999722811, 0.5000000079231164, 0.16666666967464666, 0.041666266718809374,
    0.008333251296519139, 0.0013946256890560566, 0.00019923527380451256,
)  # fmt: skip

LN2_FULL_HI_F64, LN2_FULL_LO_F64 = 0.6931471805599453, 2.3190468138462996e-17
LN2_F32 = np.float32(0.6931471805599453)
EXP_MAX_F64, EXP_MIN_F64 = 710.0, -746.0  # beyond: inf and 0, rounded
EXP_MAX_F32, EXP_MIN_F32 = float32s(89.0, -104.0)
EXP2_MAX_F64, EXP2_MIN_F64 = 1024.0, -1076.0
EXP2_MAX_F32, EXP2_MIN_F32 = float32s(128.0, -151.0)
EXPM1_MIN_F32 = np.float32(-30.0)


@elementary
def clamp_exp_f64(x):
    x = EXP_MAX_F64 if x > EXP_MAX_F64 else x
    return EXP_MIN_F64 if x < EXP_MIN_F64 else x


@elementary
def clamp_exp_f32(x):
    x = EXP_MAX_F32 if x > EXP_MAX_F32 else x
    return EXP_MIN_F32 if x < EXP_MIN_F32 else x


@elementary
def reduce_exp_bits_f64(x):
    """b, r, rl with x = n log 2 + r + rl, |r| <= log(2) / 2, n in the low bits of b, for |x| < 1000."""
    rounded = fma(x, LOG2E_F64, ROUND_F64)
    n = rounded - ROUND_F64
    high = fma(-n, LN2_HI_F64, x)
    r = fma(-n, LN2_LO_F64, high)
    return bits_of_float64(rounded), r, fma(-n, LN2_LO_F64, high - r)


@elementary
def reduce_exp_bits_f32(x):
    """b, r with x = n log 2 + r, n in the low bits of b, for |x| < 200."""
    rounded = fma(x, LOG2E_F32, ROUND_F32)
    n = rounded - ROUND_F32
    return bits_of_float32(rounded), fma(-n, LN2_LO_F32, fma(-n, LN2_HI_F32, x))


@elementary
def reduce_exp_f64(x):
    """n, r, rl with x = n log 2 + r + rl, |r| <= log(2) / 2, for |x| < 1000."""
    n = fma(x, LOG2E_F64, ROUND_F64) - ROUND_F64
    high = fma(-n, LN2_HI_F64, x)
    r = fma(-n, LN2_LO_F64, high)
    return n, r, fma(-n, LN2_LO_F64, high - r)


@elementary
def expm1_tail_f64(r, rl):
    """t with e**(r + rl) = 1 + r + t; |t| < 0.2 |r|, absolute error 2**-56."""
    return fma(r * r, fma(r, polynomial(r, EXPM1_F64), 0.5), fma(rl, r, rl))


@elementary
def exp_kernel_f64(r, rl):
    """e**(r + rl) as a pair, relative error 2**-56."""
    h, l = fast_two_sum(r, expm1_tail_f64(r, rl))
    h, low = fast_two_sum(1.0, h)
    return h, low + l


@elementary
def exp_parts_f32(x, xl):
    """n, y with e**(x + xl) = 2**n y, for |x| < 200."""
    n = fma(x, LOG2E_F32, ROUND_F32) - ROUND_F32
    r = fma(-n, LN2_LO_F32, fma(-n, LN2_HI_F32, x) + xl)
    p = fma(r, polynomial(r, EXP_F32), HALF_F32)
    return n, ONE_F32 + fma(r * r, p, r)


@elementary
def exp_f64(x):
    b, r, rl = reduce_exp_bits_f64(clamp_exp_f64(x))
    p = fma(r, polynomial(r, EXP_F64), 0.5)
    return scale_by_bits_f64(1.0 + (r + fma(r * r, p, rl)), b)


@elementary
def exp_f32(x):
    b, r = reduce_exp_bits_f32(clamp_exp_f32(x))
    p = fma(r, polynomial(r, EXP_F32), HALF_F32)
    return scale_by_bits_f32(ONE_F32 + fma(r * r, p, r), b)


@elementary
def exp_short_f64(x):
    """e**x to 34 bits in float64, for |x| < 700: what float32 results need."""
    n = fma(x, LOG2E_F64, ROUND_F64) - ROUND_F64
    r = fma(-n, LN2_FULL_HI_F64, x)
    return fma(r, polynomial(r, EXP_SHORT_F64), 1.0) * power_of_two_f64(n)


@elementary
def exp2_f64(x):
    x = EXP2_MAX_F64 if x > EXP2_MAX_F64 else x
    x = EXP2_MIN_F64 if x < EXP2_MIN_F64 else x
    rounded = x + ROUND_F64
    f = x - (rounded - ROUND_F64)
    r = f * LN2_FULL_HI_F64
    rl = fma(f, LN2_FULL_LO_F64, fma(f, LN2_FULL_HI_F64, -r))
    p = fma(r, polynomial(r, EXP_F64), 0.5)
    return scale_by_bits_f64(1.0 + (r + fma(r * r, p, rl)), bits_of_float64(rounded))


@elementary
def exp2_f32(x):
    x = EXP2_MAX_F32 if x > EXP2_MAX_F32 else x
    x = EXP2_MIN_F32 if x < EXP2_MIN_F32 else x
    rounded = x + ROUND_F32
    r = (x - (rounded - ROUND_F32)) * LN2_F32
    p = fma(r, polynomial(r, EXP_F32), HALF_F32)
    return scale_by_bits_f32(ONE_F32 + fma(r * r, p, r), bits_of_float32(rounded))


@elementary
def expm1_f64(x):
    n, r, rl = reduce_exp_f64(clamp_exp_f64(x))
    t = expm1_tail_f64(r, rl)
    # n may be 1024: build everything at half its size
    power = power_of_two_f64((-55.0 if n < -55.0 else n) - 1.0)
    base = power - 0.5
    s, e = fast_two_sum(base, power * r)
    y = (s + (fma(power, t, e) + ((power - base) - 0.5))) * 2.0
    return copysign(y, x)


@elementary
def expm1_f32(x):
    a = clamp_exp_f32(x)
    n = fma(a, LOG2E_F32, ROUND_F32) - ROUND_F32
    r = fma(-n, LN2_LO_F32, fma(-n, LN2_HI_F32, a))
    h = fma(r * r, fma(r, polynomial(r, EXPM1_F32), HALF_F32), r)
    n = EXPM1_MIN_F32 if n < EXPM1_MIN_F32 else n
    power = power_of_two_f32(n - ONE_F32)
    return copysign(fma(power, h, power - HALF_F32) * TWO_F32, x)
