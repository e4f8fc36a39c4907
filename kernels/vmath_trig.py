"""sin cos tan: reduction by pi / 2 in three parts with fma (Cody and Waite), then minimax polynomials on |r| <= pi / 4.

Both polynomials are computed and one is selected by the quadrant, which is read from the low bits of the rounded
quotient; good up to TRIG_LIMIT. The `_full` functions, which branch, take larger arguments too: their quotient comes
from the binary digits of 2 / pi (Payne and Hanek).
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .native import bits_of_float32, bits_of_float64, fabs, float32_of_bits, float64_of_bits, fma
from .vmath_core import (
    HALF_F32,
    ONE_F32,
    ROUND_F32,
    ROUND_F64,
    ZERO_F32,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    two_sum,
)

full = njit(error_model="numpy")

TRIG_LIMIT_F64 = 2.0**24
TRIG_LIMIT_F32 = np.float32(2.0**20)

TWO_OVER_PI_F64 = 0.6366197723675814
PIO2_1_F64, PIO2_2_F64 = 1.5707963267948966, 6.123233995736766e-17
PIO2_SHORT_F64, PIO2_REST_F64 = (
    6.123233932053594e-17,
    6.36831716351095e-25,
)  # 27 bits of what follows PIO2_1, and the rest
TWO_OVER_PI_F32 = np.float32(0.6366197723675814)
PIO2_1_F32, PIO2_2_F32, PIO2_3_F32 = float32s(1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)

# (sin(r) / r - 1) / r**2 and (cos(r) - 1 + r**2 / 2) / r**4 in r**2, |r| <= pi / 4, minimax
SIN_F64 = (  # 2**-57.9
    -0.1666666666666663, 0.00833333333332184, -0.00019841269829358517,
    2.755731353850025e-06, -2.505073438498458e-08, 1.5895432913194042e-10,
)  # fmt: skip
COS_F64 = (  # 2**-63.9
    0.041666666666666595, -0.001388888888887333, 2.480158728898744e-05,
    -2.755731421126799e-07, 2.0875704435625068e-09, -1.1358691688272142e-11,
)  # fmt: skip
SIN_F32 = float32s(-0.16666655, 0.008332188, -0.00019518097)  # 2**-27.9
COS_F32 = float32s(0.041666646, -0.001388731, 2.4432316e-05)  # 2**-33.0
# (tan(r) / r - 1) / r**2 in r**2, minimax, 2**-28.2; |r| <= 0.826, as n is not always the nearest integer near TRIG_LIMIT_F32
TAN_F32 = float32s(0.3333337, 0.1333196, 0.05413892, 0.020880248, 0.01185851, -0.0011799525, 0.0049883933)

INT_0, INT_1, INT_2, INT_30 = np.int32(0), np.int32(1), np.int32(2), np.int32(30)

# 2 / pi in base 2**64 after a leading zero, and constants for the arguments beyond the limit
TWO_OVER_PI_DIGITS = (
    0,
    0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561, 0xB7246E3A424DD2E0,
    0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484, 0xE99C7026B45F7E41, 0x3991D639835339F4,
    0x9C845F8BBDF9283B, 0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7, 0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB, 0xF0CFBC209AF4361D,
    0xA9E391615EE61B08,
)  # fmt: skip
U0, U1, U2, U11, U32, U62, U63 = (np.uint64(n) for n in (0, 1, 2, 11, 32, 62, 63))
MASK32 = np.uint64(0xFFFFFFFF)
SIGNIFICAND, IMPLICIT = np.uint64(2**52 - 1), np.uint64(2**52)


@elementary
def reduce_f64(x):
    """q, r, rl: x = n pi / 2 + r + rl with the quadrant n in the low bits of q, for |x| <= TRIG_LIMIT_F64.

    Of the four steps only the one that makes r rounds, and a - r is exact: where r is smaller than n PIO2_SHORT, the
    27 bits make r itself exact. |rl| < 2**-53, which may be more than an ulp of r next to multiples of pi / 2.
    """
    rounded = fma(x, TWO_OVER_PI_F64, ROUND_F64)
    n = rounded - ROUND_F64
    a = fma(-n, PIO2_1_F64, x)
    r = fma(-n, PIO2_SHORT_F64, a)
    return bits_of_float64(rounded), r, fma(-n, PIO2_REST_F64, fma(-n, PIO2_SHORT_F64, a - r))


@elementary
def reduce_f32(x):
    """q, r: x = n pi / 2 + r with the quadrant n in the low bits of q, for |x| <= TRIG_LIMIT_F32; |error| <= 1 ulp."""
    rounded = fma(x, TWO_OVER_PI_F32, ROUND_F32)
    n = rounded - ROUND_F32
    a = fma(-n, PIO2_1_F32, x)  # exact
    return bits_of_float32(rounded), fma(-n, PIO2_3_F32, fma(-n, PIO2_2_F32, a))


@elementary
def reduce_pair_f32(x):
    """q, r, rl: as reduce_f32, with what the rounding of r has lost."""
    rounded = fma(x, TWO_OVER_PI_F32, ROUND_F32)
    n = rounded - ROUND_F32
    a = fma(-n, PIO2_1_F32, x)  # exact
    p = n * PIO2_2_F32
    r, rl = two_sum(a, -p)
    return bits_of_float32(rounded), r, rl - fma(n, PIO2_3_F32, fma(n, PIO2_2_F32, -p))


@elementary
def sine_tail_f64(r, rl):
    """sin(r + rl) - r."""
    z = r * r
    return fma(r * z, polynomial(z, SIN_F64), fma(-0.5 * z, rl, rl))


@elementary
def cosine_parts_f64(r, rl):
    """cos(r + rl) as a rounded sum and what is left."""
    z = r * r
    half = 0.5 * z
    w = 1.0 - half
    return w, ((1.0 - w) - half) + fma(z * z, polynomial(z, COS_F64), -r * rl)


@elementary
def sine_f32(r):
    z = r * r
    return fma(r * z, polynomial(z, SIN_F32), r)


@elementary
def cosine_f32(r):
    z = r * r
    return fma(z, fma(z, polynomial(z, COS_F32), -HALF_F32), ONE_F32)


@elementary
def quadrant_sine_f64(q, r, rl):
    """sin(q pi / 2 + r + rl)."""
    c, cl = cosine_parts_f64(r, rl)
    y = c + cl if (q & 1) != 0 else r + sine_tail_f64(r, rl)
    return float64_of_bits(bits_of_float64(y) ^ ((q & 2) << 62))


@elementary
def quadrant_sine_f32(q, r):
    """sin(q pi / 2 + r)."""
    y = cosine_f32(r) if (q & INT_1) != INT_0 else sine_f32(r)
    return float32_of_bits(np.int32(bits_of_float32(y) ^ np.int32((q & INT_2) << INT_30)))


@elementary
def quadrant_tangent_f64(q, r, rl):
    """tan(q pi / 2 + r + rl), with the sine as a pair."""
    s, sl = fast_two_sum(r, sine_tail_f64(r, rl))
    c, cl = cosine_parts_f64(r, rl)
    c = c + cl
    odd = (q & 1) != 0
    n = -c if odd else s
    d = s if odd else c
    inverse = 1.0 / d
    t = n * inverse
    return fma(fma(sl, -t if odd else 1.0, fma(-t, d, n)), inverse, t)


@elementary
def quadrant_tangent_f32(q, r, rl):
    """tan(q pi / 2 + r + rl)."""
    z = r * r
    t = r + fma(r * z, polynomial(z, TAN_F32), fma(rl, z, rl))
    return -ONE_F32 / t if (q & INT_1) != INT_0 else t


@elementary
def sin_f64(x):
    q, r, rl = reduce_f64(x)
    y = quadrant_sine_f64(q, r, rl)
    return y if x != 0.0 else x


@elementary
def cos_f64(x):
    q, r, rl = reduce_f64(x)
    return quadrant_sine_f64(q + 1, r, rl)


@elementary
def tan_f64(x):
    q, r, rl = reduce_f64(x)
    y = quadrant_tangent_f64(q, r, rl)
    return y if x != 0.0 else x


@elementary
def sin_f32(x):
    q, r = reduce_f32(x)
    y = quadrant_sine_f32(q, r)
    return y if x != ZERO_F32 else x


@elementary
def cos_f32(x):
    q, r = reduce_f32(x)
    return quadrant_sine_f32(np.int32(q + INT_1), r)


@elementary
def tan_f32(x):
    q, r, rl = reduce_pair_f32(x)
    y = quadrant_tangent_f32(q, r, rl)
    return y if x != ZERO_F32 else x


@intrinsic
def digit_of_two_over_pi(typingctx, index):
    """TWO_OVER_PI_DIGITS[index], a load from a constant of the module."""
    if index != types.int64:
        return None

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        table = ir.Constant(ir.ArrayType(word, len(TWO_OVER_PI_DIGITS)), TWO_OVER_PI_DIGITS)
        pointer = cgutils.global_constant(builder, "two_over_pi", table)
        return builder.load(builder.gep(pointer, [ir.Constant(word, 0), args[0]]))

    return types.uint64(index), codegen


@intrinsic
def high_word(typingctx, a, b):
    """The upper 64 bits of the product of two uint64."""
    if not a == b == types.uint64:
        return None

    def codegen(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(a, b), codegen


@full
def digits_of_two_over_pi(position):
    """64 binary digits of 2 / pi, beginning with the one after `position` (at least -64)."""
    position += 64
    index = position >> 6
    shift = np.uint64(position & 63)
    low = digit_of_two_over_pi(index + 1) >> U1 >> (U63 - shift)
    return digit_of_two_over_pi(index) << shift | low


@full
def reduce_full_f64(x):
    """As reduce_f64, for 2**24 < |x| < inf.

    |x| = m 2**e with a 64-bit integer m. The product of m and 256 digits of 2 / pi, beginning where they matter modulo
    4, has the quadrant in its two uppermost bits (of 192) and the fraction of a quadrant in the 190 below.
    """
    bits = np.uint64(bits_of_float64(fabs(x)))
    position = np.int64(bits >> np.uint64(52)) - 1088
    m = ((bits & SIGNIFICAND) | IMPLICIT) << U11
    w1 = digits_of_two_over_pi(position + 64)
    w2 = digits_of_two_over_pi(position + 128)
    low = m * w2
    term = high_word(m, digits_of_two_over_pi(position + 192))
    low += term
    carry = U1 if low < term else U0
    middle = m * w1
    term = high_word(m, w2) + carry  # at most 2**64 - 1
    middle += term
    carry = U1 if middle < term else U0
    high = m * digits_of_two_over_pi(position) + high_word(m, w1) + carry
    # the fraction of a quadrant in two's complement, so that it lies in [-1/2, 1/2)
    n = np.int64(high >> U62)
    high = high << U2 | middle >> U62
    middle = middle << U2 | low >> U62
    low = low << U2
    negative = high >> U63 != U0
    if negative:
        n += 1
        high, middle, low = ~high, ~middle, ~low
    h, l = two_sum(np.float64(high >> U32) * 2.0**-32, np.float64(high & MASK32) * 2.0**-64)
    h, e = two_sum(h, np.float64(middle >> U32) * 2.0**-96)
    l += e
    h, e = two_sum(h, np.float64(middle & MASK32) * 2.0**-128)
    l += e + np.float64(low) * 2.0**-192
    r = h * PIO2_1_F64
    rl = fma(h, PIO2_1_F64, -r) + fma(h, PIO2_2_F64, l * PIO2_1_F64)
    r, rl = fast_two_sum(r, rl)
    if negative != (x < 0.0):
        r, rl = -r, -rl
    return (-n if x < 0.0 else n), r, rl


@full
def sin_full_f64(x):
    if not fabs(x) > TRIG_LIMIT_F64:
        return sin_f64(x)
    if not fabs(x) < np.inf:
        return np.nan
    q, r, rl = reduce_full_f64(x)
    return quadrant_sine_f64(q, r, rl)


@full
def cos_full_f64(x):
    if not fabs(x) > TRIG_LIMIT_F64:
        return cos_f64(x)
    if not fabs(x) < np.inf:
        return np.nan
    q, r, rl = reduce_full_f64(x)
    return quadrant_sine_f64(q + 1, r, rl)


@full
def tan_full_f64(x):
    if not fabs(x) > TRIG_LIMIT_F64:
        return tan_f64(x)
    if not fabs(x) < np.inf:
        return np.nan
    q, r, rl = reduce_full_f64(x)
    return quadrant_tangent_f64(q, r, rl)


@full
def sin_full_f32(x):
    return np.float32(sin_full_f64(np.float64(x))) if fabs(x) > TRIG_LIMIT_F32 else sin_f32(x)


@full
def cos_full_f32(x):
    return np.float32(cos_full_f64(np.float64(x))) if fabs(x) > TRIG_LIMIT_F32 else cos_f32(x)


@full
def tan_full_f32(x):
    return np.float32(tan_full_f64(np.float64(x))) if fabs(x) > TRIG_LIMIT_F32 else tan_f32(x)
