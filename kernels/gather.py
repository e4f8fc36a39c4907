"""Kernels that read or write where an index array says, and those that only report what is wrong with one.

Shapes: a and y are (outer, size, inner), a list of positions is `count` int64 values along the middle axis. Where PyTorch has it
so, negative positions count from the end; one that is out of range is reported in the error cell (record number + 1, position, size) and skipped,
and the program's effects are then dropped by the caller.
Records: [kernel, record number, y, a, index, table, error, source]   table: outer, count, inner, size
         bounds [kernel, record number, n, index, error, least, size, 0]   reports only
         zeros [kernel, record number, n, a, error, 0, 0, 0]   reports (record number + 1, place, 0) if an integer is zero
"""

from .build import build
from .elementwise import pointer

_HEAD = """
from numba import uintp, float32, float64, int32, int64, uint8
from fastgrad.kernels.native import float32_at, float64_at, int32_at, int64_at, uint8_at

def kernel(record):
    y, a, index, table, error = {at}(record[2]), {at}(record[3]), int64_at(record[4]), int64_at(record[5]), int64_at(record[6])
    source = {at}(record[7])
    outer, count, inner, size = table[0], table[1], table[2], table[3]
"""

_WRAP = """
{indent}if place < 0:
{indent}    place += size
"""
_CHECK = """
{indent}if (place < 0) | (place >= size):
{indent}    if error[0] == 0:
{indent}        error[0], error[1], error[2] = record[1] + 1, {index}, size
{indent}    continue
"""

_BY_POSITION = """
    for o in range(outer):
        for j in range(count):
            place = index[j]
{check}
            far, near = uintp((o * size + place) * inner), uintp((o * count + j) * inner)
            for i in range(uintp(inner)):
                {move}
"""

_BY_ELEMENT = """
    for o in range(outer):
        for j in range(count):
            for i in range(inner):
                near = (o * count + j) * inner + i
                place = index[near]
{check}
                far = (o * size + place) * inner + i
                {move}
"""

_BOUNDS = """
from numba import uintp
from fastgrad.kernels.native import int64_at

def kernel(record):
    index, error, least, size = int64_at(record[3]), int64_at(record[4]), record[5], record[6]
    n = record[2]
    wrong = 0
    for i in range(uintp(n)):
        wrong |= (index[i] < least) | (index[i] >= size)
    if wrong != 0 and error[0] == 0:
        for i in range(n):
            if (index[i] < least) | (index[i] >= size):
                error[0], error[1], error[2] = record[1] + 1, index[i], size
                return
"""

_ZEROS = """
from numba import uintp
from fastgrad.kernels.native import int64_at, {at}

def kernel(record):
    n, a, error = record[2], {at}(record[3]), int64_at(record[4])
    zeros = 0
    for i in range(uintp(n)):
        zeros |= a[i] == 0
    if zeros != 0 and error[0] == 0:
        for i in range(n):
            if a[i] == 0:
                error[0], error[1], error[2] = record[1] + 1, i, 0
                return
"""

# name -> (by element?, negative positions?, what is done with element `far` of the big array and `near` of the small one)
_MOVES = {
    "index_select": (False, False, "y[near + i] = a[far + i]"),
    "index": (False, True, "y[near + i] = a[far + i]"),
    "index_add": (False, True, "y[far + i] += source[near + i]"),
    "index_put": (False, True, "y[far + i] = source[near + i]"),
    "gather": (True, False, "y[near] = a[far]"),
    "scatter_add": (True, False, "y[far] += source[near]"),
    "scatter": (True, False, "y[far] = source[near]"),
}


def bounds_kernel() -> int:
    """The kernel that reports a position outside of least to size - 1."""
    return build(_BOUNDS)


def zeros_kernel(dtype: str) -> int:
    """The kernel that reports the first zero of an array of integers."""
    return build(_ZEROS.format(at=pointer(dtype)))


def wraps(name: str) -> bool:
    """Whether an operation's negative positions count from the end."""
    return name in _MOVES and _MOVES[name][1]


def gather_kernel(name: str, dtype: str) -> int:
    """The kernel of an operation in `_MOVES`; the adding and putting ones change y in place."""
    by_element, wraps, move = _MOVES[name]
    check = _WRAP + _CHECK if wraps else _CHECK
    if by_element:
        body = _BY_ELEMENT.format(check=check.format(indent=" " * 16, index="index[near]"), move=move)
    else:
        body = _BY_POSITION.format(check=check.format(indent=" " * 12, index="index[j]"), move=move)
    return build(_HEAD.format(at=pointer(dtype)) + body)
