"""Records that execute other records: the block-wise loop, and the counted loop.

The block-wise loop of tier 1 runs a group of records block by block, so that their intermediates stay in the L1 cache.

Record of a loop: [kernel, n, body, count, advance, pointers, start, 0]. `body` is the address of `count` ordinary records over
BLOCK elements, `advance` that of an int64 table with WORDS entries a record: by how many bytes (or units) each word of the record
moves from one block to the next. Word 1 of a body record is the number of elements and is set by the loop. `pointers` and
`start` are for the fused kernel that may take this one's place (`fused.py`).

BLOCK is also the partition of every reduction, so a loop cut into blocks and a kernel that runs through give the same bits.

The counted loop runs records again and again, as a stretch of the tape that repeats would have it.
Record: [kernel, times, body, count, advance, rows, gathered, number]. `body` is the address of `rows` records, of which the first
`count` are executed in every iteration; the others are bodies of loops among them. `advance` says, for all words of all rows,
by how much they move from one iteration to the next. `gathered` holds `number` pairs (place of a word, address of a table): words
that the table gives for each iteration.
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


_COUNTED = """
from numba import uintp
from fastgrad.kernels.native import call_kernel, int64_at
from fastgrad.kernels.sweep import WORDS

def kernel(record):
    times, body, count, number = record[1], record[2], record[3], record[7]
    words, advance, gathered = int64_at(body), int64_at(record[4]), int64_at(record[6])
    total = uintp(record[5] * WORDS)
    for i in range(times):
        for j in range(number):
            words[gathered[2 * j]] = int64_at(gathered[2 * j + 1])[i]
        for k in range(count):
            call_kernel(words[k * WORDS], body + 8 * WORDS * k)
        for j in range(total):
            words[j] += advance[j]
    for j in range(total):
        words[j] -= advance[j] * times
"""


def counted_loop() -> int:
    """The address of the kernel of counted loops."""
    return build(_COUNTED)
