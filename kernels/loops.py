"""The block-wise loop of tier 1: a group of records run block by block, so that their intermediates stay in the L1 cache.

Record of a loop: [kernel, n, body, count, advance, pointers, start, 0]. `body` is the address of `count` ordinary records over
BLOCK elements, `advance` that of an int64 table with WORDS entries a record: by how many bytes (or units) each word of the record
moves from one block to the next. Word 1 of a body record is the number of elements and is set by the loop. `pointers` and
`start` are for the fused kernel that may take this one's place (`fused.py`).

BLOCK is also the partition of every reduction, so a loop cut into blocks and a kernel that runs through give the same bits.
"""

from .build import build

BLOCK = 1024

_SOURCE = """
from fastgrad.kernels.native import call_kernel, int64_at
from fastgrad.kernels.sweep import WORDS
from fastgrad.kernels.loops import BLOCK

def kernel(record):
    n, body, count = record[1], record[2], record[3]
    words = int64_at(body)
    if n <= BLOCK:
        for i in range(count):
            words[i * WORDS + 1] = n
            call_kernel(words[i * WORDS], body + 8 * WORDS * i)
        return
    advance = int64_at(record[4])
    total = count * WORDS
    done = 0
    while done < n:
        size = min(BLOCK, n - done)
        for i in range(count):
            words[i * WORDS + 1] = size
            call_kernel(words[i * WORDS], body + 8 * WORDS * i)
        for j in range(total):
            words[j] += advance[j]
        done += size
    blocks = (n + BLOCK - 1) // BLOCK
    for j in range(total):
        words[j] -= advance[j] * blocks
"""


def block_loop() -> int:
    """The address of the loop kernel."""
    return build(_SOURCE)
