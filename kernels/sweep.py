"""The sweep: calls the kernel of one record after another. It knows no operations.

A program is an int64 array of records of WORDS words each; a record's first word is the address of its kernel, which gets
the record's own address and finds its operands there.
"""

from collections.abc import Callable
from functools import lru_cache

from .build import build, doorway

WORDS = 8
RECORD_BYTES = 8 * WORDS

_SOURCE = """
from fastgrad.kernels.native import call_kernel, int64_at

def sweep(program, count):
    for i in range(count):
        record = program + 64 * i
        call_kernel(int64_at(record)[0], record)
    return count
"""


def sweep_address() -> int:
    """The address of the compiled sweep."""
    return build(_SOURCE)


@lru_cache(maxsize=1)
def sweep() -> Callable[[int, int], int]:
    """The compiled sweep: `sweep()(address of the first record, number of records)`, the GIL released meanwhile."""
    return doorway(sweep_address(), "sweep")
