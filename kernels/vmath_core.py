"""What the elementary functions share: the decorator, polynomials, error-free sums, quotients of pairs, powers of two.

A pair `(h, l)` stands for the unevaluated sum h + l with |l| at most about an ulp of h; it carries what one rounding
would lose. Everything is straight-line code on one scalar (selects, no branches, no tables), so LLVM turns a loop over
it into SIMD code whose lanes have the same bits as the scalar remainder. In float32 code every constant is an
np.float32, because Numba widens float32 against a Python float. Polynomials called minimax were fitted for fastgrad
with Remez' algorithm, the coefficients rounded one after the other; the error is stated behind them.
"""

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from .native import bits_of_float32, bits_of_float64, float32_of_bits, float64_of_bits, fma, sqrt


def elementary(function):
    """Compile a scalar function so that it vanishes into the loop that calls it."""
    return njit(error_model="numpy", forceinline=True)(function)


def float32s(*values):
    """A coefficient tuple in float32."""
    return tuple(np.float32(value) for value in values)


# Adding ROUND to |x| < 2**51 (float32: 2**22) rounds x to an integer and leaves that integer in the low bits.
ROUND_F64 = 1.5 * 2.0**52
ROUND_F32 = np.float32(1.5 * 2.0**23)
EXPONENT_F64 = ROUND_F64 + 1023.0
EXPONENT_F32 = np.float32(1.5 * 2.0**23 + 127.0)
ZERO_F32, HALF_F32, ONE_F32, TWO_F32 = float32s(0.0, 0.5, 1.0, 2.0)
FAR_F32, FAR_POWER_F32 = float32s(-64.0, 2.0**-64)
ONE_BITS_F64, EXPONENT_BITS_F64 = 0x3FF0000000000000, -0x10000000000000  # of 1.0; all but the fraction
ONE_BITS_F32, EXPONENT_BITS_F32 = np.int32(0x3F800000), np.int32(-0x800000)
SHIFT_F32, HALF_SHIFT_F32 = np.int32(23), np.int32(22)


@intrinsic
def polynomial(typingctx, x, coefficients):
    """c[0] + c[1] x + c[2] x**2 + ... for a constant tuple c of x's type, an fma a coefficient (Horner).

    From eight coefficients on, the even and the odd ones above c[1] run side by side, in x**2: half the latency.
    """
    if not isinstance(coefficients, types.UniTuple) or coefficients.dtype != x:
        return None

    def codegen(context, builder, signature, args):
        def horner(c, z):
            total = c.pop()
            while c:
                total = builder.fma(total, z, c.pop())
            return total

        x = args[0]
        c = [builder.extract_value(args[1], i) for i in range(coefficients.count)]
        if len(c) < 8:
            return horner(c, x)
        square = builder.fmul(x, x)
        return horner([*c[:2], builder.fma(horner(c[3::2], square), x, horner(c[2::2], square))], x)

    return x(x, coefficients), codegen


@elementary
def fast_two_sum(a, b):
    """a + b and its rounding error, for |a| >= |b| or a == 0 (Dekker)."""
    s = a + b
    return s, b - (s - a)


@elementary
def two_sum(a, b):
    """a + b and its rounding error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@elementary
def sqrt_pair_f64(x):
    """sqrt(x) as a pair, and 1 / (2 sqrt(x)); NaN below 0."""
    s = sqrt(x)
    half = 0.5 / s
    return s, (fma(-s, s, x) * half if x > 0.0 else 0.0), half


@elementary
def sqrt_pair_f32(x):
    """sqrt(x) as a pair, and 1 / (2 sqrt(x)); NaN below 0."""
    s = sqrt(x)
    half = HALF_F32 / s
    return s, (fma(-s, s, x) * half if x > ZERO_F32 else ZERO_F32), half


@elementary
def divide_pairs_f64(ah, al, bh, bl):
    """(ah + al) / (bh + bl) as a pair, with one division."""
    inverse = 1.0 / bh
    q = ah * inverse
    return q, (fma(-q, bh, ah) + fma(-q, bl, al)) * inverse


@elementary
def divide_pairs_f32(ah, al, bh, bl):
    """(ah + al) / (bh + bl) as a pair, with one division."""
    inverse = ONE_F32 / bh
    q = ah * inverse
    return q, (fma(-q, bh, ah) + fma(-q, bl, al)) * inverse


@elementary
def power_of_two_f64(n):
    """2**n for an integral float n in [-1022, 1023]."""
    return float64_of_bits(bits_of_float64(n + EXPONENT_F64) << 52)


@elementary
def power_of_two_f32(n):
    """2**n for an integral float n in [-126, 127]."""
    return float32_of_bits(np.int32(bits_of_float32(n + EXPONENT_F32) << 23))


@elementary
def power_of_bits_f64(b):
    """2**n for n in [-1022, 1023], n in the low bits of the int64 b (as in the bits of n + ROUND_F64)."""
    return float64_of_bits((b << 52) + ONE_BITS_F64)


@elementary
def power_of_bits_f32(b):
    """2**n for n in [-126, 127], n in the low bits of the int32 b (as in the bits of n + ROUND_F32)."""
    return float32_of_bits(np.int32(np.int32(b << SHIFT_F32) + ONE_BITS_F32))


@elementary
def scale_by_bits_f64(x, b):
    """x * 2**n, rounded once, for n in [-1130, 1024] in the low bits of the int64 b, and any x that is not tiny."""
    half = (b << 51) & EXPONENT_BITS_F64
    return x * float64_of_bits(half + ONE_BITS_F64) * float64_of_bits((b << 52) - half + ONE_BITS_F64)


@elementary
def scale_by_bits_f32(x, b):
    """x * 2**n, rounded once, for n in [-190, 128] in the low bits of the int32 b, and any x that is not tiny."""
    half = np.int32(np.int32(b << HALF_SHIFT_F32) & EXPONENT_BITS_F32)
    rest = np.int32(np.int32(b << SHIFT_F32) - half)
    return x * float32_of_bits(np.int32(half + ONE_BITS_F32)) * float32_of_bits(np.int32(rest + ONE_BITS_F32))


@elementary
def scale_down_f64(x, n):
    """x * 2**n, rounded once, for an integral float n in [-1150, 1000] and any x that is not tiny where n < -128."""
    far = n < -128.0
    return x * power_of_two_f64(n + 128.0 if far else n) * (2.0**-128 if far else 1.0)


@elementary
def scale_down_f32(x, n):
    """x * 2**n, rounded once, for an integral float n in [-190, 120] and any x that is not tiny where n < -64."""
    far = n < FAR_F32
    return x * power_of_two_f32(n - FAR_F32 if far else n) * (FAR_POWER_F32 if far else ONE_F32)
