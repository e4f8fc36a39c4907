"""Where buffers live: the arena of a plan, placed by lifetime while records are written, and words that never move.

`Arena` hands out byte ranges in the order in which values come to life and takes them back when their last reader is written
down: first fit in a list of gaps. `Words` is memory for tables, constants and Python numbers, at addresses that stay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

ALIGNMENT = 64
NUMPY = {"f4": "f4", "f8": "f8", "i8": "i8", "i4": "i4", "u1": "u1", "b1": "?"}  # dtype code -> NumPy's


def aligned(nbytes: int) -> int:
    """The size rounded up so that what follows is aligned."""
    return (max(nbytes, 1) + ALIGNMENT - 1) & -ALIGNMENT


class Arena:
    """Byte ranges by lifetime; `size` is the peak."""

    __slots__ = ("_gaps", "size")

    def __init__(self) -> None:
        self.size = 0
        self._gaps: list[tuple[int, int]] = []  # (offset, bytes), by offset

    def take(self, nbytes: int) -> int:
        """The offset of a free range."""
        nbytes = aligned(nbytes)
        gaps = self._gaps
        for i, (offset, free) in enumerate(gaps):
            if free >= nbytes:
                if free == nbytes:
                    del gaps[i]
                else:
                    gaps[i] = (offset + nbytes, free - nbytes)
                return offset
        if gaps and gaps[-1][0] + gaps[-1][1] == self.size:
            offset = gaps.pop()[0]
        else:
            offset = self.size
        self.size = offset + nbytes
        return offset

    def free(self) -> list[tuple[int, int]]:
        """The gaps below the end of what is in use."""
        gaps = self._gaps
        return gaps[:-1] if gaps and gaps[-1][0] + gaps[-1][1] == self.size else gaps[:]

    def give(self, offset: int, nbytes: int) -> None:
        """Take a range back."""
        gaps = self._gaps
        nbytes = aligned(nbytes)
        i = bisect_left(gaps, (offset, nbytes))
        gaps.insert(i, (offset, nbytes))
        if i + 1 < len(gaps) and offset + nbytes == gaps[i + 1][0]:
            gaps[i : i + 2] = [(offset, nbytes + gaps[i + 1][1])]
        if i > 0 and gaps[i - 1][0] + gaps[i - 1][1] == offset:
            gaps[i - 1 : i + 1] = [(gaps[i - 1][0], gaps[i - 1][1] + gaps[i][1])]


class Words:
    """int64 memory in chunks that never move."""

    __slots__ = ("_free", "_next", "chunks")

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self._next = 0
        self._free = 0

    def put(self, values: Sequence[int]) -> int:
        """Store words; returns their address."""
        n = len(values)
        if n > self._free:
            size = max(n, min(64 << len(self.chunks), 65536))
            chunk = np.zeros(size, np.int64)
            self.chunks.append(chunk)
            self._next, self._free = chunk.ctypes.data, size
        address = self._next
        chunk = self.chunks[-1]
        start = chunk.size - self._free
        chunk[start : start + n] = values
        self._next += 8 * n
        self._free -= n
        return address

    def block(self, n: int) -> tuple[Any, int]:
        """Words that somebody will write to, as an array, and their address."""
        address = self.put((0,) * n)
        chunk = self.chunks[-1]
        end = chunk.size - self._free
        return chunk[end - n : end], address

    def cell(self, dtype: Any) -> tuple[Any, int]:
        """One word seen as an array of one element of a NumPy type, and its address."""
        word, address = self.block(1)
        return word.view(dtype)[:1], address

    def row(self, n: int, dtype: Any) -> tuple[list[Any], int]:
        """Cells that follow each other, and the address of the first one."""
        words, address = self.block(n)
        return [words[i : i + 1].view(dtype)[:1] for i in range(n)], address


def fill(cell: Any, value: Any) -> None:
    """Store a Python number in a cell, converted as an array's elements are."""
    try:
        memoryview(cell)[0] = value
    except (OverflowError, ValueError, TypeError):
        with np.errstate(all="ignore"):
            cell[0] = np.asarray(value).astype(cell.dtype)
