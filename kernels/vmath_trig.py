"""sin cos tan: reduction by pi / 2 in three parts with fma (Cody and Waite), then minimax polynomials on |r| <= pi / 4.

Both polynomials are computed and one is selected by the quadrant. Exact up to TRIG_LIMIT; the quadrant is read from the low
bits of the rounded quotient. The `_full` functions, which branch, take larger arguments too: their quotient comes from the
binary digits of 2 / pi (Payne and Hanek).
"""

import numpy as np

from numba import njit

from .native import bits_of_float32, bits_of_float64, fabs, float32_of_bits, float64_of_bits, fma
from .vmath_core import (
    HALF_F32,
    ONE_F32,
    ROUND_F32,
    ROUND_F64,
    ZERO_F32,
    divide_pairs_f32,
    divide_pairs_f64,
    elementary,
    fast_two_sum,
    float32s,
    polynomial,
    two_sum,
)

TRIG_LIMIT_F64 = 2.0**30
TRIG_LIMIT_F32 = np.float32(2.0**20)

TWO_OVER_PI_F64 = 0.6366197723675814
PIO2_1_F64, PIO2_2_F64, PIO2_3_F64 = 1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33
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

INT_0, INT_1, INT_2, INT_30 = np.int32(0), np.int32(1), np.int32(2), np.int32(30)

# 2 / pi in base 2**32, and masks, for the arguments beyond the limit
TWO_OVER_PI_DIGITS = np.array(
    [
        2734261102, 1313084713, 4230436817, 4113882560, 3680671129, 1011060801, 4266746795, 3736847713, 3072618042,
        1112396512, 105459434, 164729372, 4263373596, 2972297022, 3900847605, 784024708, 3919343654, 3026157121,
        965858873, 2203269620, 2625920907, 3187222587, 536385535, 3724908559, 4012839307, 1510632735, 1832287951,
        667617719, 1330003814, 2657085997, 1965537991, 3957715323, 1023883767, 2320667370, 1811636145, 529358088,
        1443049542, 4235946923, 4040145952, 2599695901,
    ],
    np.uint64,
)  # fmt: skip
U30, U32, U52 = np.uint64(30), np.uint64(32), np.uint64(52)
MASK32 = np.uint64(0xFFFFFFFF)
SIGNIFICAND, IMPLICIT = np.uint64(2**52 - 1), np.uint64(2**52)


@elementary
def reduce_f64(x):
    """q, r, rl: x = n pi / 2 + r + rl with the quadrant n in the low bits of q, for |x| <= TRIG_LIMIT_F64."""
    rounded = fma(x, TWO_OVER_PI_F64, ROUND_F64)
    n = rounded - ROUND_F64
    a = fma(-n, PIO2_1_F64, x)  # exact
    p = n * PIO2_2_F64
    pl = fma(n, PIO2_2_F64, -p)
    b = a - p
    t = b - a
    bl = (a - (b - t)) - (p + t)
    low = bl - fma(n, PIO2_3_F64, pl)
    r = b + low
    return bits_of_float64(rounded), r, (b - r) + low


@elementary
def reduce_f32(x):
    """q, r, rl: x = n pi / 2 + r + rl with the quadrant n in the low bits of q, for |x| <= TRIG_LIMIT_F32."""
    rounded = fma(x, TWO_OVER_PI_F32, ROUND_F32)
    n = rounded - ROUND_F32
    a = fma(-n, PIO2_1_F32, x)  # exact
    p = n * PIO2_2_F32
    pl = fma(n, PIO2_2_F32, -p)
    b = a - p
    t = b - a
    bl = (a - (b - t)) - (p + t)
    low = bl - fma(n, PIO2_3_F32, pl)
    r = b + low
    return bits_of_float32(rounded), r, (b - r) + low


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
def sine_tail_f32(r, rl):
    """sin(r + rl) - r."""
    z = r * r
    return fma(r * z, polynomial(z, SIN_F32), fma(-HALF_F32 * z, rl, rl))


@elementary
def cosine_parts_f32(r, rl):
    """cos(r + rl) as a rounded sum and what is left."""
    z = r * r
    half = HALF_F32 * z
    w = ONE_F32 - half
    return w, ((ONE_F32 - w) - half) + fma(z * z, polynomial(z, COS_F32), -r * rl)


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
    """tan(q pi / 2 + r + rl)."""
    s, sl = fast_two_sum(r, sine_tail_f64(r, rl))
    c, cl = cosine_parts_f64(r, rl)
    c, cl = fast_two_sum(c, cl)
    odd = (q & 1) != 0
    h, l = divide_pairs_f64(c if odd else s, cl if odd else sl, s if odd else c, sl if odd else cl)
    return -(h + l) if odd else h + l


@elementary
def quadrant_tangent_f32(q, r, rl):
    """tan(q pi / 2 + r + rl)."""
    s, sl = fast_two_sum(r, sine_tail_f32(r, rl))
    c, cl = cosine_parts_f32(r, rl)
    c, cl = fast_two_sum(c, cl)
    odd = (q & INT_1) != INT_0
    h, l = divide_pairs_f32(c if odd else s, cl if odd else sl, s if odd else c, sl if odd else cl)
    return -(h + l) if odd else h + l


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
    q, r, rl = reduce_f32(x)
    y = quadrant_sine_f32(q, r)
    return y if x != ZERO_F32 else x


@elementary
def cos_f32(x):
    q, r, rl = reduce_f32(x)
    return quadrant_sine_f32(np.int32(q + INT_1), r)


@elementary
def tan_f32(x):
    q, r, rl = reduce_f32(x)
    y = quadrant_tangent_f32(q, r, rl)
    return y if x != ZERO_F32 else x


@njit(error_model="numpy")
def reduce_full_f64(x):
    """As reduce_f64, for 2**30 < |x| < inf: the product of x's integer significand with 256 bits of 2 / pi, modulo 4."""
    bits = np.uint64(bits_of_float64(fabs(x)))
    exponent = np.int64(bits >> U52) - 1075  # |x| = significand * 2**exponent
    significand = (bits & SIGNIFICAND) | IMPLICIT
    low, high = significand & MASK32, significand >> U32
    first = (exponent - 2) // 32 if exponent > 2 else 0  # digits before it only add multiples of 4
    product = np.zeros(10, np.uint64)  # 32 bits a word, least significant first
    for i in range(8):
        digit = TWO_OVER_PI_DIGITS[first + 7 - i]
        carry = product[i] + digit * low
        product[i] = carry & MASK32
        carry = product[i + 1] + digit * high + (carry >> U32)
        product[i + 1] = carry & MASK32
        product[i + 2] += carry >> U32
    # the value is product * 2**(exponent - 32 (first + 8)): keep the 192 bits below 4
    top = 32 * (first + 8) - exponent + 2
    f = np.empty(6, np.uint64)
    for i in range(6):
        position = top - 32 * (i + 1)
        word = position // 32
        shift = np.uint64(position % 32)
        f[i] = ((product[word] | (product[word + 1] << U32)) >> shift) & MASK32
    n = np.int64(f[0] >> U30)
    f[0] &= np.uint64(0x3FFFFFFF)
    negative = f[0] >= np.uint64(0x20000000)
    if negative:  # above half a quadrant: the next quadrant, and the complement
        n += 1
        borrow = np.uint64(1)
        for i in range(5, -1, -1):
            word = (f[i] ^ (MASK32 if i > 0 else np.uint64(0x3FFFFFFF))) + borrow
            f[i] = word & MASK32
            borrow = word >> U32
    h, l = 0.0, 0.0
    unit = 2.0**-30
    for i in range(6):
        h, e = two_sum(h, np.float64(f[i]) * unit)
        l += e
        unit *= 2.0**-32
    r = h * PIO2_1_F64
    rl = fma(h, PIO2_1_F64, -r) + fma(h, PIO2_2_F64, l * PIO2_1_F64)
    r, rl = fast_two_sum(r, rl)
    if negative != (x < 0.0):
        r, rl = -r, -rl
    return (-n if x < 0.0 else n), r, rl


@njit(error_model="numpy")
def sin_full_f64(x):
    if not fabs(x) > TRIG_LIMIT_F64:
        return sin_f64(x)
    if not fabs(x) < np.inf:
        return np.nan
    q, r, rl = reduce_full_f64(x)
    return quadrant_sine_f64(q, r, rl)


@njit(error_model="numpy")
def cos_full_f64(x):
    if not fabs(x) > TRIG_LIMIT_F64:
        return cos_f64(x)
    if not fabs(x) < np.inf:
        return np.nan
    q, r, rl = reduce_full_f64(x)
    return quadrant_sine_f64(q + 1, r, rl)


@njit(error_model="numpy")
def tan_full_f64(x):
    if not fabs(x) > TRIG_LIMIT_F64:
        return tan_f64(x)
    if not fabs(x) < np.inf:
        return np.nan
    q, r, rl = reduce_full_f64(x)
    return quadrant_tangent_f64(q, r, rl)


@njit(error_model="numpy")
def sin_full_f32(x):
    return np.float32(sin_full_f64(np.float64(x))) if fabs(x) > TRIG_LIMIT_F32 else sin_f32(x)


@njit(error_model="numpy")
def cos_full_f32(x):
    return np.float32(cos_full_f64(np.float64(x))) if fabs(x) > TRIG_LIMIT_F32 else cos_f32(x)


@njit(error_model="numpy")
def tan_full_f32(x):
    return np.float32(tan_full_f64(np.float64(x))) if fabs(x) > TRIG_LIMIT_F32 else tan_f32(x)
