"""Records that execute other records: the block-wise loop, and the counted loop.

The block-wise loop of tier 1 runs a group of records block by block, so that their intermediates stay in the L1 cache.

Record of a loop: [kernel, n, body, count, advance, pointers, start, chunk]. `body` is the address of `count` ordinary records over
`chunk` iterations, `advance` that of an int64 table with WORDS entries a record: by how many bytes (or units) each word of the
record moves from one chunk to the next, and in the place of word 1 how many elements an iteration is. Word 1 of a body record
is the number of elements and is set by the loop. An iteration is an element, and a chunk is BLOCK of them, or an iteration is a
row, and body records are over rows (1) or their elements (as many as there are columns). `count` may have 2**32 times a number of
closing records added, which follow the body's and run once at the end. `pointers` and `start` are for the fused kernel that may
take this one's place (`fused.py`, `rows.py`).

BLOCK is also the partition of every reduction, so a loop cut into blocks and a kernel that runs through give the same bits.

The counted loop runs records again and again, as a stretch of the tape that repeats would have it.
Record: [kernel, times, body, count, advance, rows, gathered, number]. `body` is the address of `rows` records, of which the first
`count` are executed in every iteration; the others are bodies of loops among them. `advance` says, for all words of all rows,
by how much they move from one iteration to the next. `gathered` holds `number` pairs (place of a word, address of a table): words
that the table gives for each iteration.
"""

from .build import build

BLOCK = 1024
LANES = 32  # accumulators of a fold, see `lanes.py`
MOVING = 5  # the word of a counted loop that says how many rows move
CLOSING = 1 << 32  # what `count` has for each closing record

_SOURCE = """
from fastgrad.kernels.native import call_kernel, int64_at
from fastgrad.kernels.sweep import WORDS
from fastgrad.kernels.loops import CLOSING

def kernel(record):
    n, body, count, closing, chunk = record[1], record[2], record[3] % CLOSING, record[3] // CLOSING, record[7]
    words, advance = int64_at(body), int64_at(record[4])
    total = count * WORDS
    done = 0
    while done < n:
        size = min(chunk, n - done)
        for i in range(count):
            words[i * WORDS + 1] = size * advance[i * WORDS + 1]
            call_kernel(words[i * WORDS], body + 8 * WORDS * i)
        done += size
        if n > chunk:
            for j in range(total):
                words[j] += advance[j]
    if n > chunk:
        chunks = (n + chunk - 1) // chunk
        for j in range(total):
            words[j] -= advance[j] * chunks
    for i in range(count, count + closing):
        call_kernel(words[i * WORDS], body + 8 * WORDS * i)
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
