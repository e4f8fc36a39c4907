"""Loops: a unit of elementwise entries over the same elements, and the sums that end it, written as records.

A loop is described once, as members whose operands are where they are, and written twice: as a body of ordinary records that
run block by block (tier 1), and as the source of one fused kernel (tier 2), whose address takes the place of the block loop's
in word 0 of the record when it has been compiled. A fused kernel that is there already is used at once, and no body written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..kernels import copy as copy_kernels
from ..kernels import fused, pool
from ..kernels import reduce as reduce_kernels
from ..kernels.loops import BLOCK, block_loop
from ..kernels.sweep import WORDS
from ..ops import arrays
from ..ops.table import Elementwise
from .section import is_contiguous

if TYPE_CHECKING:
    from .assemble import Assembler, Reference

FIXED = 4
PARALLEL = 40_000.0  # nanoseconds of work, roughly, from which on a loop is worth several threads
MOST_PARTS = 16  # that a loop is cut into


@dataclass
class _Input:
    """Memory that the loop reads: `steps` as in `fused.Operand`, `table` of a strided operand."""

    reference: Reference
    dtype: str
    size: int
    steps: tuple[int, ...] | None
    table: int = 0
    block: Reference | None = None  # where tier 1 (or a fused kernel) loads it


@dataclass
class _Member:
    """An elementwise entry: its operands are inputs (an index) or members before it (~index); `y` is None for a value that
    stays inside."""

    slot: int
    node: Any
    text: str
    reads: list[int]
    y: Reference | None = None


@dataclass
class _Total:
    """A sum at the end."""

    slot: int
    of: int
    y: Reference
    whole: bool


@dataclass
class LoopUnit:
    """One loop while it is written."""

    emit: Assembler
    slots: list[int]
    inputs: list[_Input] = field(default_factory=list)
    members: list[_Member] = field(default_factory=list)
    totals: list[_Total] = field(default_factory=list)

    def __post_init__(self) -> None:
        entries = self.emit.entries
        self.n = next(entries[s].numel for s in self.slots if entries[s].op.kind != "array")
        self._index: dict[int, int] = {}  # slot of a member -> ~its number
        self._known: dict[Any, int] = {}  # (reference, strides) -> number of an input
        self._columns = 0

    def write(self) -> None:
        """Describe the loop, then write its records."""
        self._describe()
        if self.n == 0:
            return
        ranges = self._ranges()
        simple = all(x.steps is not None and len(x.steps) < 2 for x in self.inputs)
        if simple and len(self.members) == 1 and not self.totals:
            rows = [(self._record(self.members[0], {}, start, size), "") for start, size in ranges]
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

    def _ranges(self) -> list[tuple[int, int]]:
        """(start, size) of the parts that may run on several threads: whole blocks each."""
        weight = sum([0.15 + 0.7 * m.text.count("vmath.") for m in self.members])  # nanoseconds an element, roughly
        parts = min(2 * pool.available(), MOST_PARTS) if weight * self.n >= PARALLEL else 1
        blocks = (self.n + BLOCK - 1) // BLOCK
        if parts < 3:  # one CPU
            return [(0, self.n)]
        edges = [min(blocks * k // parts * BLOCK, self.n) for k in range(parts + 1)]
        return [(a, b - a) for a, b in pairwise(edges) if b > a]

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
            body, advance = self._body(start)
            first = len(self.emit.bodies)
            self.emit.bodies += body
            table = self.emit.table([w for row in advance for w in row + [0] * (WORDS - len(row))])
            rows.append(([block_loop(), size, ("body", first), len(body), table, pointers, start, 0], source))
        return rows

    # ---- the description

    def _describe(self) -> None:
        emit, entries, section = self.emit, self.emit.entries, self.emit.section
        inside = set(self.slots)
        uses: dict[int, int] = {}
        for slot in self.slots:
            for x in entries[slot].operands:
                x = section.flat(x)
                uses[x] = uses.get(x, 0) + 1
        described: list[tuple[int, Any, list[int]]] = []
        for slot in self.slots:
            node = entries[slot]
            reads = [self._operand(x, node) for x in node.operands]
            described.append((slot, node, reads))
            if node.op.kind != "array":
                self._index[slot] = ~(len(self._index))
        careful = len(described) > 1 and any(
            [node.op.kind == "elementwise" and _is_trigonometric(emit, node) for _, node, _ in described]
        )
        for k, (slot, node, reads) in enumerate(described):
            if node.op.kind == "array":
                whole = self.n <= BLOCK
                if whole:
                    y = emit._new(slot, emit._landing(slot, ()))
                else:
                    y = emit.scratch((self.n + BLOCK - 1) // BLOCK * node.dtype.itemsize)
                self.totals.append(_Total(slot, reads[0], y, whole))
                continue
            codes = tuple([entries[x].dtype.code for x in node.operands])
            text = node.op.text(codes) if isinstance(node.op, Elementwise) else "a"
            member = _Member(slot, node, text, reads)
            self.members.append(member)
            private = emit.remaining[slot] == uses.get(slot, 0) and slot not in emit.saved_roots
            if not private:
                landing = None if careful else emit._landing(slot, self._element_reads(described[: k + 1], inside))
                member.y = emit._new(slot, landing)

    def _element_reads(self, described: list[tuple[int, Any, list[int]]], inside: set[int]) -> list[int]:
        """The values that the loop reads element for element so far, once for each reading."""
        emit, found = self.emit, []
        for _, node, _ in described:
            for x in node.operands:
                x = emit.section.canonical(x)
                if emit.section.flat(x) in inside or emit.entries[x].numel != self.n:
                    continue
                if emit.place_of(x).root == x and is_contiguous(emit.shape(x), emit.strides(x)):
                    found.append(x)
        return found

    def _operand(self, x: int, node: Any) -> int:
        """The number of an operand: that of an input, or ~that of a member."""
        emit = self.emit
        x = emit.section.canonical(x)
        flat = emit.section.flat(x)
        if flat in self._index:
            return self._index[flat]
        place = emit.place_of(x)
        meta = emit.entries[x]
        code, size = meta.dtype.code, meta.dtype.itemsize
        if place.reference is None:
            return self._input((FIXED, 0, emit.number(x, code)), code, size, (), ())
        frame = node.shape if node.op.kind != "array" else meta.shape
        strides = place.strides
        if meta.shape != frame:
            strides, _ = arrays._expand(meta.shape, strides, frame)
        merged = [(n, s) for n, s in merge(frame, strides) if n > 1]
        if self.n == 1:
            return self._input(place.reference, code, size, (1,), ())
        if not any([s for _, s in merged]):
            return self._input(place.reference, code, size, (), ())
        if merged == [(self.n, 1)]:
            return self._input(place.reference, code, size, (1,), ())
        steps = None
        if len(merged) == 2 and merged[1][1] in (0, 1) and self._columns in (0, merged[1][0]):
            steps = (merged[0][1], merged[1][1])
            self._columns = merged[1][0]
        return self._input(place.reference, code, size, steps, tuple(merged))

    def _input(self, reference: Reference, code: str, size: int, steps: Any, merged: Any) -> int:
        key = (reference, code, steps, merged)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.inputs)
            table = self.emit.table([len(merged), *[w for pair in merged for w in pair]]) if merged else 0
            self.inputs.append(_Input(reference, code, size, steps, table))
        return found

    # ---- tier 2

    def _source(self) -> str:
        """The source of the fused kernel."""
        memories: dict[Any, int] = {}

        def memory(reference: Any) -> int:
            return memories.setdefault(reference, len(memories))

        operands = []
        for x in self.inputs:
            operands.append(
                fused.Operand(x.dtype, x.steps, memory(x.reference if x.steps is not None else ("block", id(x))))
            )
        steps = []
        for m in self.members:
            result = memory(m.y) if m.y is not None else -1
            steps.append(fused.Step(m.text, tuple(m.reads), m.node.dtype.code, result))
        sums = [fused.Sum(t.of, self.emit.code(t.slot), t.whole) for t in self.totals]
        small = self.n <= fused.SMALL or (self._columns and self.n <= BLOCK)
        return fused.source(
            fused.Loop(tuple(operands), tuple(steps), tuple(sums), len(memories), self.n if small else 0, self._columns)
        )

    def _pointers(self) -> Any:
        """The rows of addresses that a fused kernel reads."""
        words: list[Any] = []
        for x in self.inputs:
            words += [x.reference] if x.steps is not None else [x.block or 0, x.reference, x.table]
        words += [m.y for m in self.members if m.y is not None]
        words += [t.y for t in self.totals]
        first = len(self.emit.bodies)
        for k in range(0, len(words), WORDS):
            self.emit.bodies.append(words[k : k + WORDS])
        return ("body", first)

    # ---- tier 1

    def _load_blocks(self, every: bool) -> None:
        """Blocks for strided operands: for all of them, or for those that a fused kernel loads, too."""
        for x in self.inputs:
            if x.steps is None or (every and len(x.steps) == 2):
                x.block = self.emit.scratch(min(self.n, BLOCK) * x.size)

    def _body(self, start: int) -> tuple[list[Any], list[Any]]:
        """The records of the block at `start`, and by how much their words move from block to block."""
        emit = self.emit
        body: list[list[Any]] = []
        advance: list[list[int]] = []
        for x in self.inputs:
            if x.block is not None:
                body.append([copy_kernels.load(x.dtype), 0, x.block, x.reference, x.table, start])
                advance.append([0, 0, 0, 0, 0, BLOCK])
        readers: dict[int, int] = {}
        for m in self.members:
            for k in m.reads:
                readers[k] = readers.get(k, 0) + 1
        for t in self.totals:
            readers[t.of] = readers.get(t.of, 0) + 1
        local: dict[int, Reference] = {}
        idle: list[tuple[int, int]] = []  # blocks whose value nobody reads any more in an iteration
        following: dict[int, list[_Total]] = {}
        for t in self.totals:
            following.setdefault(t.of, []).append(t)

        def add_up(of: int, source: Any, step: int) -> None:
            for t in following.pop(of, ()):
                code, size = emit.code(t.slot), emit.entries[t.slot].dtype.itemsize
                kernel = reduce_kernels.whole_sum(code) if t.whole else reduce_kernels.block_sum(code)
                body.append([kernel, 0, _moved(t.y, start // BLOCK * size), source])
                advance.append([0, 0, size, step])

        for number, m in enumerate(self.members):
            if m.y is None:
                local[~number] = (0, 0, self._block(idle, min(self.n, BLOCK) * m.node.dtype.itemsize))
            record = self._record(m, local, start, self.n, number)
            body.append(record)
            advance.append([0, 0, *[self._step(k) for k in (~number, *m.reads)]])
            add_up(~number, record[2], self._step(~number))
            for k in m.reads:
                readers[k] -= 1
                if readers[k] == 0 and k in local:
                    idle.append((local[k][2], min(self.n, BLOCK) * self.members[~k].node.dtype.itemsize))
        for of in list(following):
            add_up(of, self._where(of, local, start)[1], self._step(of))
        return body, advance

    def _step(self, k: int) -> int:
        """By how many bytes an operand moves from block to block."""
        if k < 0:
            m = self.members[~k]
            return 0 if m.y is None else BLOCK * m.node.dtype.itemsize
        x = self.inputs[k]
        return BLOCK * x.size if x.steps == (1,) else 0

    def _where(self, k: int, local: dict[int, Reference], start: int) -> tuple[str, Any]:
        """Mode and source of an operand of a tier 1 record."""
        if k < 0:
            return "v", local[k] if k in local else _moved(self.members[~k].y, self._step(k) // BLOCK * start)
        x = self.inputs[k]
        if x.block is not None:
            return "v", x.block
        return ("v" if x.steps == (1,) else "s"), _moved(x.reference, self._step(k) // BLOCK * start)

    def _record(self, m: _Member, local: dict[int, Reference], start: int, n: int, number: int = 0) -> list[Any]:
        found = [self._where(k, local, start) for k in m.reads]
        y = self._where(~number, local, start)[1]
        modes = ["w" if mode == "v" and source == y else mode for mode, source in found]
        kernel = self.emit._kernel(m.node, m.node.operands, modes)
        return [kernel, n, y, *[source for _, source in found]]

    def _block(self, idle: list[tuple[int, int]], size: int) -> int:
        """The offset of a block inside a loop: one that is idle by now, or a new one for the time of the loop."""
        for i, (offset, free) in enumerate(idle):
            if free == size:
                del idle[i]
                return offset
        return self.emit.scratch(size)[2]

    def _finish(self, total: _Total) -> None:
        """Add the sums of blocks."""
        emit, slot = self.emit, total.slot
        y = emit._new(slot, emit._landing(slot, ()))
        blocks = (self.n + BLOCK - 1) // BLOCK
        emit.record(reduce_kernels.partial_sum(emit.code(slot)), blocks, y, total.y)


def _moved(reference: Any, nbytes: int) -> Any:
    return (reference[0], reference[1], reference[2] + nbytes) if nbytes else reference


def merge(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Sizes and element strides, neighbouring dimensions that run on merged."""
    merged: list[tuple[int, int]] = []
    for n, s in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if merged and merged[-1][1] == n * s:
            merged[-1] = (merged[-1][0] * n, s)
        else:
            merged.append((n, s))
    return merged or [(1, 1)]


def _is_trigonometric(emit: Assembler, node: Any) -> bool:
    """Whether the entry may be computed twice, so that its result must not overwrite what it was made from."""
    codes = tuple([emit.entries[x].dtype.code for x in node.operands])
    return "_full_" in node.op.text(codes)
