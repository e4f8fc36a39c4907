"""Remainders, rounded quotients, shifts and integer powers, as PyTorch has them: scalar functions with branches or calls.

The remainder of floats is exact and takes the divisor's sign; the floored quotient is made from it, so that
`floor_divide(a, b) * b + remainder(a, b)` is a as well as rounding lets it. Integer powers wrap around,
and so does the one quotient of integers that does not fit, that of the least one and -1. What divides integers is checked before.
"""

import numpy as np
from numba import int64, types
from numba.extending import intrinsic, register_jitable

from .native import copysign, floor


@intrinsic
def fmod(typingctx, a, b):
    """The exact remainder of a / b, with the sign of a."""
    if a != b or a not in (types.float32, types.float64):
        return None

    def codegen(context, builder, signature, args):
        return builder.frem(*args)

    return a(a, b), codegen


@register_jitable
def remainder(a, b):
    """a modulo b, with the sign of b; a zero has the sign of a."""
    r = fmod(a, b)
    return r + b if (r != 0) & ((b < 0) != (r < 0)) else r


def _floor_divide(one, half):
    @register_jitable
    def floor_divide(a, b):
        """floor(a / b), from the exact remainder (div_floor_floating in PyTorch's c10)."""
        ratio = a / b
        if b == 0:
            return ratio
        r = fmod(a, b)
        quotient = (a - r) / b
        if (r != 0) & ((b < 0) != (r < 0)):
            quotient -= one
        if quotient == 0:
            return copysign(quotient, ratio)
        whole = floor(quotient)
        return whole + one if quotient - whole > half else whole

    return floor_divide


floor_divide_f64 = _floor_divide(np.float64(1.0), np.float64(0.5))
floor_divide_f32 = _floor_divide(np.float32(1.0), np.float32(0.5))


@register_jitable
def power(a, b):
    """a ** b of integers by squaring; a negative power of anything but 1 and -1 is 0."""
    base, exponent, result = int64(a), int64(b), int64(1)
    if exponent < 0:
        if base == -1:
            return int64(-1) if exponent & 1 else int64(1)
        return int64(base == 1)
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


@register_jitable
def quotient(a, b):
    """floor(a / b) of integers."""
    return -int64(a) if b == -1 else int64(a) // int64(b)


@register_jitable
def truncated_quotient(a, b):
    """a / b of integers, rounded towards zero."""
    floored = quotient(a, b)
    return floored + 1 if (floored < 0) & (floored * int64(b) != int64(a)) else floored


@register_jitable
def truncated_remainder(a, b):
    """The remainder of that division, with the sign of a."""
    return int64(0) if b == -1 else int64(a) - truncated_quotient(a, b) * int64(b)


@register_jitable
def left_shift(a, b, bits):
    """a moved up by b bits; nothing is left of it if there are not so many."""
    return int64(0) if (b < 0) | (b >= bits) else int64(a) << int64(b)


@register_jitable
def right_shift(a, b, bits):
    """a moved down by b bits; only its sign is left if there are not so many."""
    return int64(a) >> (int64(63) if (b < 0) | (b >= bits) else int64(b))
