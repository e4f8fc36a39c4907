"""Counter-based random numbers: element i of a draw depends on (seed, offset + i) only, so any order and tier gives the same.

The bits are SplitMix64's (Steele, Lea, Flood 2014: a Weyl sequence and a 64-bit mixing function); normal numbers come from
two of them by Box and Muller. A permutation is a shuffle by Fisher and Yates: the element that goes to place i - 1 is chosen by
number i of the draw. Record: [kernel, n, y, seed, offset, low, high, start], all but start read at 0 as int64
(low and high of `integers`) or float64 (`uniform`, `normal`: low/high, mean/deviation; `bernoulli`: probability in low).
"""

from .build import build
from .elementwise import TYPES, pointer

_SOURCE = """
from numba import float32, float64, int32, int64, uint8, uint64, uintp
from fastgrad.kernels import vmath
from fastgrad.kernels.native import float32_at, float64_at, int32_at, int64_at, sqrt, uint8_at

WEYL, MIX1, MIX2 = uint64(0x9E3779B97F4A7C15), uint64(0xBF58476D1CE4E5B9), uint64(0x94D049BB133111EB)
LOWER = uint64(0xFFFFFFFF)

def kernel(record):
    n, y = uintp(record[1]), {at}(record[2])
    seed, offset = uint64(int64_at(record[3])[0]), uint64(int64_at(record[4])[0]) + uint64(record[7])
    low, high = {parameter}(record[5])[0], {parameter}(record[6])[0]
    key = seed * MIX1 + WEYL
    for i in range(n):
        z = key + (offset + uint64(i)) * WEYL
        z = (z ^ (z >> uint64(30))) * MIX1
        z = (z ^ (z >> uint64(27))) * MIX2
        z = z ^ (z >> uint64(31))
        u = float64(int64(z >> uint64(11))) * 1.1102230246251565e-16
{value}
        y[i] = {kind}(x)
"""

_VALUES = {
    "uniform": "        x = low + (high - low) * u",
    "uniform_f4": "        x = low + (high - low) * (float64(int64(z >> uint64(40))) * 5.9604644775390625e-08)",
    "normal": """        w = (z ^ key) * MIX2
        w = (w ^ (w >> uint64(32))) * MIX1
        w = w ^ (w >> uint64(29))
        v = float64(int64(w >> uint64(11))) * 1.1102230246251565e-16
        x = low + high * (sqrt(-2.0 * vmath.log_f64(1.0 - u)) * vmath.cos_f64(6.283185307179586 * v))""",
    "bernoulli": "        x = 1 if u < low else 0",
    "integers": """        r = uint64(high) - uint64(low)  # the upper word of z * r: every width of range has equal chances
        z1, z0, r1, r0 = z >> uint64(32), z & LOWER, r >> uint64(32), r & LOWER
        middle = z1 * r0 + ((z0 * r0) >> uint64(32))
        carried = z0 * r1 + (middle & LOWER)
        x = int64(uint64(low) + z1 * r1 + (middle >> uint64(32)) + (carried >> uint64(32)))""",
}


def random_kernel(name: str, dtype: str) -> int:
    """The kernel of uniform, normal, bernoulli or integers for a dtype code."""
    value = _VALUES["uniform_f4"] if (name, dtype) == ("uniform", "f4") else _VALUES[name]
    parameter = "int64_at" if name == "integers" else "float64_at"
    return build(_SOURCE.format(at=pointer(dtype), kind=TYPES[dtype][1], parameter=parameter, value=value))


_PERMUTATION = """
from numba import float64, int64, uint64
from fastgrad.kernels.native import int64_at

WEYL, MIX1, MIX2 = uint64(0x9E3779B97F4A7C15), uint64(0xBF58476D1CE4E5B9), uint64(0x94D049BB133111EB)

def kernel(record):
    n, y = record[1], int64_at(record[2])
    key = uint64(int64_at(record[3])[0]) * MIX1 + WEYL + uint64(int64_at(record[4])[0]) * WEYL
    for i in range(n):
        y[i] = i
    for left in range(n, 1, -1):
        z = key + uint64(left - 1) * WEYL
        z = (z ^ (z >> uint64(30))) * MIX1
        z = (z ^ (z >> uint64(27))) * MIX2
        z = z ^ (z >> uint64(31))
        chosen = int64(float64(int64(z >> uint64(11))) * 1.1102230246251565e-16 * float64(left))
        y[left - 1], y[chosen] = y[chosen], y[left - 1]
"""


def permutation_kernel() -> int:
    """The kernel of a random order of 0 to n - 1. Record: [kernel, n, y, seed, offset], all of them int64."""
    return build(_PERMUTATION)
