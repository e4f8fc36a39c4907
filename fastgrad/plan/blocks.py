"""Tier 1's form of a loop: the records of its first block, and by how much their words move from one block to the next.

Values that stay inside of the loop lie in blocks of memory that are used again as soon as nobody reads them any more. A row's
value that elements read is first repeated into such a block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..kernels import copy as copy_kernels
from ..kernels import reduce as reduce_kernels
from ..kernels.loops import BLOCK

if TYPE_CHECKING:
    from .assemble import Reference
    from .loop import ColumnTotal, LoopUnit, Member, Total


class Body:
    """The body of a loop from iteration `start` on: `records`, of which the first ones run in every block and have a row in
    `advance`; the others close the loop."""

    def __init__(self, loop: LoopUnit, start: int) -> None:
        self.loop = loop
        self.start = start
        self.records: list[list[Any]] = []
        self.advance: list[list[int]] = []
        self._local: dict[int, Reference] = {}  # blocks of values that stay inside, by ~number
        self._wide: dict[int, Reference] = {}  # blocks of rows' values that are repeated for the elements
        self._idle: list[
            tuple[int, int]
        ] = []  # (offset, bytes) of blocks whose value nobody reads any more in an iteration
        self._readers: dict[int, int] = {}

    def write(self) -> None:
        """Write all records."""
        loop = self.loop
        for x in loop.inputs:
            if x.block is not None:
                record = [copy_kernels.load(x.dtype), 0, x.block, x.reference, x.table, self.start * x.width]
                self._add(record, x.width, [0, 0, 0, loop.chunk * x.width])
        for m in loop.members:
            for k in m.reads:
                self._readers[k] = self._readers.get(k, 0) + 1
        following: dict[int, list[Callable[[], None]]] = {}  # what takes in a value as soon as it is there
        for t in loop.totals:
            following.setdefault(t.of, []).append(partial(self._add_up, t))
        for c in loop.column_totals:
            following.setdefault(c.of, []).append(partial(self._add_rows, c))
        for k in following:
            self._readers[k] = self._readers.get(k, 0) + 1
        for number, m in enumerate(loop.members):
            self._member(number, m)
            for take_in in following.pop(~number, ()):
                take_in()
            for k in m.reads:
                self._readers[k] -= 1
                if self._readers[k] == 0:
                    self._give(k)
        for rest in following.values():
            for take_in in rest:
                take_in()
        for t in loop.row_totals:
            if t.whole:
                self.records.append(loop.closing(t))
        for c in loop.column_totals:
            if c.whole and c.groups > 1:
                self.records.append(loop.column_closing(c))

    def record(self, m: Member, n: int, number: int = 0) -> list[Any]:
        """The record of a member."""
        found = [self._where(k, m.width) for k in m.reads]
        y = self._where(~number, m.width)[1]
        modes = ["w" if mode == "v" and source == y else mode for mode, source in found]
        kernel = self.loop.emit._kernel(m.node, m.node.operands, modes)
        return [kernel, n, y, *[source for _, source in found]]

    def _add(self, record: list[Any], width: int, steps: list[int]) -> None:
        self.records.append(record)
        self.advance.append([0, width, *steps])

    def _member(self, number: int, m: Member) -> None:
        loop = self.loop
        if m.y is None:
            self._local[~number] = self._take(m.width * m.node.dtype.itemsize)
        if m.fold:
            source, columns = self._where(m.reads[0], loop.columns)[1], loop.columns
            y = self._where(~number, 1)[1]
            kernel = reduce_kernels.row_fold(m.fold, m.node.dtype.code)
            self._add([kernel, loop.n, y, source, columns], 1, [self._step(~number), self._step(m.reads[0])])
        else:
            record = self.record(m, loop.n, number)
            steps = [0 if self._is_wide(k, m.width) else self._step(k) for k in m.reads]
            self._add(record, m.width, [self._step(~number), *steps])
        if m.width == 1 and any(x.width > 1 and not x.fold and ~number in x.reads for x in loop.members):
            self._repeat(number, m)

    def _repeat(self, number: int, m: Member) -> None:
        """A row's value, for all its elements."""
        loop, dtype = self.loop, m.node.dtype
        source = self._where(~number, 1)[1]
        block = self._wide[~number] = self._take(loop.columns * dtype.itemsize)
        table = loop.emit.table((2, loop.count, 1, loop.columns, 0))
        self._add([copy_kernels.load(dtype.code), 0, block, source, table, 0], loop.columns, [0, self._step(~number)])

    def _add_rows(self, c: ColumnTotal) -> None:
        """The rows of a block, added to the sums of their groups."""
        source, columns = self._where(c.of, self.loop.columns)[1], self.loop.columns
        kernel = reduce_kernels.rows_sum(self.loop.emit.code(c.slot))
        record = [kernel, 0, c.partials, source, columns, self.start]
        self._add(record, 1, [0, self._step(c.of), 0, self.loop.chunk])

    def _add_up(self, t: Total) -> None:
        """The sum of a block."""
        code, size = self.loop.emit.code(t.slot), self.loop.emit.entries[t.slot].dtype.itemsize
        kernel = reduce_kernels.whole_sum(code) if t.whole else reduce_kernels.block_sum(code)
        y = t.y if t.whole else moved(t.y, self.start // BLOCK * size)
        source = self._where(t.of, self.loop.columns or 1)[1]
        self._add([kernel, 0, y, source], self.loop.columns or 1, [size, self._step(t.of)])

    def _is_wide(self, k: int, width: int) -> bool:
        return k < 0 and self.loop.members[~k].width < width

    def _step(self, k: int) -> int:
        """By how many bytes an operand moves from block to block."""
        return self.loop.chunk * self._bytes(k)

    def _bytes(self, k: int) -> int:
        """By how many bytes an operand moves in an iteration."""
        if k < 0:
            m = self.loop.members[~k]
            return 0 if m.y is None else m.width * m.node.dtype.itemsize
        x = self.loop.inputs[k]
        return x.width * x.size if x.steps == (1,) else 0

    def _where(self, k: int, width: int) -> tuple[str, Any]:
        """Mode and source of an operand of an elementwise record."""
        if self._is_wide(k, width):
            return "v", self._wide[k]
        if k < 0:
            return "v", self._local[k] if k in self._local else moved(
                self.loop.members[~k].y, self._bytes(k) * self.start
            )
        x = self.loop.inputs[k]
        if x.block is not None:
            return "v", x.block
        return ("v" if x.steps == (1,) else "s"), moved(x.reference, self._bytes(k) * self.start)

    def _take(self, size: int) -> Reference:
        """A block of so many bytes an iteration: one that is idle by now, or a new one for the time of the loop."""
        nbytes = min(self.loop.count, self.loop.chunk) * size
        for i, (offset, free) in enumerate(self._idle):
            if free == nbytes:
                del self._idle[i]
                return (0, 0, offset)
        return self.loop.emit.scratch(nbytes)

    def _give(self, k: int) -> None:
        if k >= 0:
            return
        m = self.loop.members[~k]
        blocks = min(self.loop.count, self.loop.chunk) * m.node.dtype.itemsize
        if k in self._local:
            self._idle.append((self._local[k][2], blocks * m.width))
        if k in self._wide:
            self._idle.append((self._wide[k][2], blocks * self.loop.columns))


def moved(reference: Any, nbytes: int) -> Any:
    """A reference so many bytes further on."""
    return (reference[0], reference[1], reference[2] + nbytes) if nbytes else reference
