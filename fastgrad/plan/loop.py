"""Loops: a unit of elementwise entries over the same elements, and the reductions among them, written as records.

A loop is described once, as members whose operands are where they are, and written twice: as a body of ordinary records that
run block by block (tier 1, `blocks.py`), and as the source of one fused kernel (tier 2), whose address takes the place of the
block loop's in word 0 of the record when it has been compiled. A fused kernel that is there already is used at once, and no body
written.

An iteration of a flat loop is one element. An iteration of a loop over rows is a row: members over elements have `columns`
values in it (their `width`), members over rows, and folds of rows, have one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..kernels import copy as copy_kernels
from ..kernels import fused, pool, stages
from ..kernels import reduce as reduce_kernels
from ..kernels import rows as rows_kernels
from ..kernels.loops import BLOCK, CLOSING, block_loop
from ..kernels.sweep import WORDS
from ..ops import arrays
from ..ops.table import Elementwise
from .blocks import Body
from .group import geometry, leading
from .section import is_contiguous, merge

if TYPE_CHECKING:
    from .assemble import Assembler, Reference

FIXED = 4
PARALLEL = 40_000.0  # nanoseconds of work, roughly, from which on a loop is worth several threads
MOST_PARTS = 16  # that a loop is cut into


@dataclass
class Input:
    """Memory that the loop reads: `steps` as in `fused.Operand`, `table` of a strided operand."""

    reference: Reference
    dtype: str
    size: int
    steps: tuple[int, ...] | None
    table: int = 0
    width: int = 1
    block: Reference | None = None  # where tier 1 (or a fused kernel) loads it


@dataclass
class Member:
    """An elementwise entry or a fold of rows: its operands are inputs (an index) or members before it (~index); `y` is None for a
    value that stays inside."""

    slot: int
    node: Any
    text: str
    reads: list[int]
    width: int = 1
    fold: str = ""
    y: Reference | None = None


@dataclass
class Total:
    """A sum of all elements (or of all rows' values): `whole` if it is complete in the loop, else its blocks are added later."""

    slot: int
    of: int
    y: Reference
    whole: bool


@dataclass
class ColumnTotal:
    """The sum of all rows, column by column: `partials` has one for each group of rows, and is the result if there is one group;
    `whole` if the loop adds these up, too."""

    slot: int
    of: int
    y: Reference
    partials: Reference
    groups: int
    whole: bool


@dataclass
class LoopUnit:
    """One loop while it is written."""

    emit: Assembler
    slots: list[int]
    inputs: list[Input] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)  # of elements
    row_totals: list[Total] = field(default_factory=list)  # of rows' values
    column_totals: list[ColumnTotal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n, self.columns = geometry(self.emit.section, self.slots)
        self.count = self.n // self.columns if self.columns else self.n  # iterations
        self.chunk = max(1, BLOCK // self.columns) if self.columns else BLOCK  # iterations of a block
        self._index: dict[int, int] = {}  # slot of a member -> ~its number
        self._known: dict[Any, int] = {}  # what an input is -> its number
        self._matrix = self.columns  # columns of matrices that are read at steps of their own

    def write(self) -> None:
        """Describe the loop, then write its records."""
        if self.n == 0:
            self._describe()
            return
        ranges = self._ranges()
        self._describe(len(ranges) == 1)
        simple = all(x.steps is not None and len(x.steps) < 2 for x in self.inputs)
        alone = len(self.members) == 1 and not self.totals and not self.columns
        if alone and not simple and self.emit.tier == 0 and self.n <= BLOCK:  # straight from the tape, without a loop
            self._load_blocks(True)
            for x in self.inputs:
                if x.block is not None:
                    self.emit.record(copy_kernels.load(x.dtype), self.n, x.block, x.reference, x.table, 0)
            rows = [(Body(self, 0).record(self.members[0], self.n), "")]
        elif simple and alone:
            rows = [(Body(self, start).record(self.members[0], size), "") for start, size in ranges]
        else:
            rows = self._rows(ranges)
        if len(rows) == 1:
            self.emit.loop_record(*rows[0])
        else:
            first = len(self.emit.bodies)
            for record, source in rows:
                self.emit.loop_record(record, source, self.emit.bodies)
            self.emit.record(pool.parallel(), len(rows), ("body", first), pool.address())
        for total in self.totals:
            if not total.whole:
                self._finish(total)
        for total in self.row_totals:
            if not total.whole:
                self.emit.record(*self.closing(total))
        for column in self.column_totals:
            if not column.whole:
                self.emit.record(*self.column_closing(column))

    def _ranges(self) -> list[tuple[int, int]]:
        """(start, size) of the parts that may run on several threads: whole blocks each."""
        weight = 0.0  # nanoseconds an iteration, roughly
        for slot in self.slots:
            node = self.emit.entries[slot]
            size = max(node.numel, self._operand_of(node).numel)
            text = node.op.text(self._codes(node)) if isinstance(node.op, Elementwise) else ""
            weight += (0.15 + 0.7 * text.count("vmath.")) * (self.columns if size == self.n and self.columns else 1)
        parts = min(2 * pool.available(), MOST_PARTS) if weight * self.count >= PARALLEL else 1
        step = reduce_kernels.ROWS if self.columns else BLOCK
        blocks = (self.count + step - 1) // step
        if parts < 3:  # one CPU
            return [(0, self.count)]
        edges = [min(blocks * k // parts * step, self.count) for k in range(parts + 1)]
        return [(a, b - a) for a, b in pairwise(edges) if b > a]

    def _codes(self, node: Any) -> tuple[str, ...]:
        return tuple([self.emit.entries[x].dtype.code for x in node.operands])

    def _rows(self, ranges: list[tuple[int, int]]) -> list[tuple[list[Any], str]]:
        """The record of each range, and the source of the fused kernel that may replace its block loop."""
        source = self._source() if self.emit.tier in (None, 2) else ""
        kernel = self.emit.fused(source)
        loaded = any(x.steps is None for x in self.inputs)
        rows: list[tuple[list[Any], str]] = []
        pointers: Any = None
        for start, size in ranges:
            if kernel is None or loaded:
                self._load_blocks(kernel is None)
            if pointers is None or loaded:
                pointers = self._pointers()
            if kernel is not None:
                rows.append(([kernel, size, 0, 0, 0, pointers, start, 0], ""))
                continue
            body = Body(self, start)
            body.write()
            first = len(self.emit.bodies)
            self.emit.bodies += body.records
            table = self.emit.table([w for row in body.advance for w in row + [0] * (WORDS - len(row))])
            count = len(body.advance) + CLOSING * (len(body.records) - len(body.advance))
            rows.append(([block_loop(), size, ("body", first), count, table, pointers, start, self.chunk], source))
        return rows

    # ---- the description

    def _describe(self, single: bool = True) -> None:
        emit, entries = self.emit, self.emit.entries
        described: list[tuple[int, Any, list[int]]] = []
        uses: dict[int, int] = {}
        for slot in self.slots:
            node = entries[slot]
            fold = node.op.kind == "array" and not self._is_total(node)
            reads = [self._operand(x, node, fold) for x in node.operands]
            for k in reads:
                uses[k] = uses.get(k, 0) + 1
            described.append((slot, node, reads))
            if fold or node.op.kind != "array":
                self._index[slot] = ~(len(self._index))
        careful = runs_twice(emit, self.slots)
        over_rows = {reads[0] for _, node, reads in described if node.op.kind == "array" and self._is_of_rows(node)}
        for k, (slot, node, reads) in enumerate(described):
            if slot not in self._index:
                self._total(slot, node, reads[0], single)
                continue
            member = Member(slot, node, "a", reads, self._width(node))
            if isinstance(node.op, Elementwise):
                member.text = node.op.text(self._codes(node))
            elif node.op.kind == "array":
                member.fold = node.op.name
            number = ~len(self.members)
            self.members.append(member)
            inside = emit.remaining[slot] == uses.get(number, 0)
            private = inside and slot not in emit.saved_roots and slot not in emit.rows
            if not private:
                landing = (
                    None if careful else emit._landing(slot, self._element_reads(described[: k + 1], member.width))
                )
                member.y = emit._new(slot, landing)
            elif number in over_rows:
                member.y = emit.scratch(self.count * node.dtype.itemsize)

    def _is_total(self, node: Any) -> bool:
        """Whether a reduction is the sum of everything, and not a fold of rows."""
        if not self.columns or self._is_of_rows(node) or leading(self._operand_of(node).shape, node):
            return True
        return node.numel == 1 and self.count > 1

    def _operand_of(self, node: Any) -> Any:
        return self.emit.entries[self.emit.section.canonical(node.operands[0])]

    def _is_of_rows(self, node: Any) -> bool:
        return self.columns > 0 and self._operand_of(node).numel == self.count

    def _width(self, node: Any) -> int:
        return self.columns if self.columns and node.numel == self.n else 1

    def _total(self, slot: int, node: Any, of: int, single: bool) -> None:
        """A sum of everything: of elements while the loop runs, of rows' values at its end."""
        emit = self.emit
        if self._is_of_rows(node):
            whole = single and self.count <= BLOCK
            y = emit._new(slot, emit._landing(slot, ()))
            self.row_totals.append(Total(slot, of, y, whole))
            return
        if self.columns and leading(self._operand_of(node).shape, node):
            groups = (self.count + reduce_kernels.ROWS - 1) // reduce_kernels.ROWS
            y = partials = emit._new(slot, emit._landing(slot, ()))
            if groups > 1:
                partials = emit.scratch(groups * self.columns * node.dtype.itemsize)
            self.column_totals.append(ColumnTotal(slot, of, y, partials, groups, single or groups == 1))
            return
        whole = self.n <= BLOCK
        if whole:
            y = emit._new(slot, emit._landing(slot, ()))
        else:
            y = emit.scratch((self.n + BLOCK - 1) // BLOCK * node.dtype.itemsize)
        self.totals.append(Total(slot, of, y, whole))

    def _element_reads(self, described: list[tuple[int, Any, list[int]]], width: int) -> list[int]:
        """The values that the loop reads element for element so far, once for each reading."""
        emit, found = self.emit, []
        for _, node, reads in described:
            for x, k in zip(node.operands, reads, strict=True):
                x = emit.section.canonical(x)
                if k < 0 or emit.entries[x].numel != (self.n if width == self.columns else self.count):
                    continue
                if self.columns and node.op.kind != "array" and self._width(node) != width:
                    continue
                if emit.place_of(x).root == x and is_contiguous(emit.shape(x), emit.strides(x)):
                    found.append(x)
        return found

    def _operand(self, x: int, node: Any, fold: bool) -> int:
        """The number of an operand: that of an input, or ~that of a member."""
        emit = self.emit
        x = emit.section.canonical(x)
        flat = emit.section.flat(x)
        if flat in self._index:
            return self._index[flat]
        meta = emit.entries[x]
        frame = node.shape if node.op.kind != "array" else meta.shape
        size = arrays.count(frame)
        width = self.columns if self.columns and size == self.n else 1
        if width > 1:
            repeated = emit.section.spread(x, frame)
            if repeated is not None and repeated[0] in self._index:
                return self._index[repeated[0]]
        place = emit.place_of(x)
        code = meta.dtype.code
        if place.reference is None:
            reference: Reference = (FIXED, 0, emit.number(x, code))
            steps: Any = None if fold else ()
            return self._input(reference, meta, steps, ((size, 0),) if fold else (), width)
        strides = place.strides
        if meta.shape != frame:
            strides, _ = arrays._expand(meta.shape, strides, frame)
        merged = tuple([(n, s) for n, s in merge(frame, strides) if n > 1])
        if size == 1 or merged == ((size, 1),):
            return self._input(place.reference, meta, (1,), (), width)
        steps = None
        if not any([s for _, s in merged]):
            steps = ()
        elif len(merged) == 2 and merged[1][1] in (0, 1) and self._matrix in (0, merged[1][0]) and width == self._row:
            steps = (merged[0][1], merged[1][1])
            self._matrix = merged[1][0]
        return self._input(place.reference, meta, None if fold else steps, merged, width)

    @property
    def _row(self) -> int:
        """The width of what has matrices for operands."""
        return self.columns or 1

    def _input(self, reference: Reference, meta: Any, steps: Any, merged: Any, width: int) -> int:
        code = meta.dtype.code
        key = (reference, code, steps, merged, width)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.inputs)
            table = self.emit.table([len(merged), *[w for pair in merged for w in pair]]) if merged else 0
            self.inputs.append(Input(reference, code, meta.dtype.itemsize, steps, table, width))
        return found

    # ---- tier 2

    def _source(self) -> str:
        """The source of the fused kernel."""
        memories: dict[Any, int] = {}

        def memory(reference: Any) -> int:
            return memories.setdefault(reference, len(memories))

        operands = []
        for x in self.inputs:
            place = memory(x.reference if x.steps is not None else ("block", id(x)))
            operands.append(fused.Operand(x.dtype, x.steps, place, x.width > 1))
        steps = []
        for m in self.members:
            result = memory(m.y) if m.y is not None else -1
            code = m.node.dtype.code
            steps.append(fused.Step(m.text, tuple(m.reads), code, result, m.width > 1, m.fold))
        sums = [fused.Sum(t.of, self.emit.code(t.slot), t.whole) for t in self.totals]
        if self.columns:
            closing = [fused.Sum(t.of, self.emit.code(t.slot), True) for t in self.row_totals if t.whole]
            down = []
            for c in self.column_totals:
                y = memory(c.y) if c.whole and c.groups > 1 else -1
                down.append(stages.ColumnSum(c.of, self.emit.code(c.slot), memory(c.partials), y))
            rows = self.count if self.n <= fused.SMALL else 0
            return rows_kernels.source(
                stages.Rows(
                    tuple(operands), tuple(steps), tuple(sums), tuple(closing), tuple(down), len(memories),
                    self.columns, rows,
                )
            )  # fmt: skip
        small = self.n <= fused.SMALL or (self._matrix and self.n <= BLOCK)
        return fused.source(
            fused.Loop(tuple(operands), tuple(steps), tuple(sums), len(memories), self.n if small else 0, self._matrix)
        )

    def _pointers(self) -> Any:
        """The rows of addresses that a fused kernel reads."""
        words: list[Any] = []
        for x in self.inputs:
            words += [x.reference] if x.steps is not None else [x.block or 0, x.reference, x.table]
        words += [m.y for m in self.members if m.y is not None]
        words += [t.y for t in self.totals]
        words += [t.y for t in self.row_totals if t.whole]
        for c in self.column_totals:
            words += [c.partials, c.y] if c.whole and c.groups > 1 else [c.partials]
        first = len(self.emit.bodies)
        for k in range(0, len(words), WORDS):
            self.emit.bodies.append(words[k : k + WORDS])
        return ("body", first)

    def _load_blocks(self, every: bool) -> None:
        """Blocks for strided operands: for all of them, or for those that a fused kernel loads, too."""
        for x in self.inputs:
            if x.steps is None or (every and len(x.steps) == 2):
                x.block = self.emit.scratch(min(self.count, self.chunk) * x.width * x.size)

    # ---- after the loop

    def _finish(self, total: Total) -> None:
        """Add the sums of blocks."""
        emit, slot = self.emit, total.slot
        y = emit._new(slot, emit._landing(slot, ()))
        blocks = (self.n + BLOCK - 1) // BLOCK
        emit.record(reduce_kernels.partial_sum(emit.code(slot)), blocks, y, total.y)

    def column_closing(self, total: ColumnTotal) -> list[Any]:
        """The record that adds the sums of groups of rows."""
        return [
            reduce_kernels.rows_total(self.emit.code(total.slot)),
            total.groups,
            total.y,
            total.partials,
            self.columns,
        ]

    def closing(self, total: Total) -> list[Any]:
        """The record that adds the values of all rows."""
        code, of, y = self.emit.code(total.slot), self.members[~total.of].y, total.y
        if self.count <= BLOCK:
            return [reduce_kernels.whole_sum(code), self.count, y, of]
        return [reduce_kernels.sum_kernel(code), self.count, y, of, self.emit.table((1, self.count, 1)), 0]


def runs_twice(emit: Assembler, slots: list[int]) -> bool:
    """Whether a fused loop may compute some of its elements a second time (huge angles), so that it must not overwrite what it
    reads."""
    nodes = [emit.entries[slot] for slot in slots]
    texts = [n.op.text(tuple([emit.code(x) for x in n.operands])) for n in nodes if isinstance(n.op, Elementwise)]
    return len(slots) > 1 and any(["_full_" in text for text in texts])
