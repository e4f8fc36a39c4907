"""Copies between contiguous and strided memory, and fills.

A strided operand is described by a table of int64: [dimensions, size 0, step 0, size 1, step 1, ...] outermost first, steps
in elements (0 repeats). `start` is the linear row-major index of the first element, so that a block of a loop can be loaded.
Records: load  [kernel, n, y, a, table, start, 0, 0]   y[i] = a[strided(start + i)]
         store [kernel, n, y, a, table, start, 0, 0]   y[strided(start + i)] = a[i]
         fill  [kernel, n, y, a, 0, 0, 0, 0]           y[i] = a[0]
"""

from .build import build
from .elementwise import pointer

_WALK = """
@njit
def {name}(y, a, table, start, n):
    d = table[0]
    inner, step = table[2 * d - 1], table[2 * d]
    done = 0
    while done < n:
        rest = start + done
        column = rest % inner
        rest = rest // inner
        offset = column * step
        for k in range(d - 1, 0, -1):
            size = table[2 * k - 1]
            offset += (rest % size) * table[2 * k]
            rest = rest // size
        count = min(inner - column, n - done)
        {move}
        done += count
"""

_GATHER = """
        if step == 1:
            for i in range(uintp(count)):
                y[uintp(done) + i] = a[uintp(offset) + i]
        elif step == 0:
            value = a[offset]
            for i in range(uintp(count)):
                y[uintp(done) + i] = value
        else:
            for i in range(count):
                y[done + i] = a[offset + i * step]
"""

_SCATTER = """
        if step == 1:
            for i in range(uintp(count)):
                y[uintp(offset) + i] = a[uintp(done) + i]
        else:
            for i in range(count):
                y[offset + i * step] = a[done + i]
"""

# The functions by themselves: fused kernels load strided operands block by block
LOAD = _WALK.format(name="load", move=_GATHER.strip())
_STORE = _WALK.format(name="store", move=_SCATTER.strip())

_KERNEL = """
from numba import njit, uintp
from fastgrad.kernels.native import int64_at, {at}
{walk}

def kernel(record):
    {name}({at}(record[2]), {at}(record[3]), int64_at(record[4]), record[5], record[1])
"""

_FILL = """
from numba import uintp
from fastgrad.kernels.native import {at}

def kernel(record):
    y, a = {at}(record[2]), {at}(record[3])
    value = a[0]
    for i in range(uintp(record[1])):
        y[i] = value
"""


def load(dtype: str) -> int:
    """The kernel that gathers a strided operand into contiguous memory."""
    return build(_KERNEL.format(at=pointer(dtype), walk=LOAD, name="load"))


def store(dtype: str) -> int:
    """The kernel that scatters contiguous memory over a strided operand."""
    return build(_KERNEL.format(at=pointer(dtype), walk=_STORE, name="store"))


def fill(dtype: str) -> int:
    """The kernel that repeats one value."""
    return build(_FILL.format(at=pointer(dtype)))
