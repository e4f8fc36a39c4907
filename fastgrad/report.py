"""`report()` of a compiled step: what its program consists of, and what each part costs.

A row is a unit of the plan: an operation, a loop of several, a stretch that is repeated. Bytes are those that the unit reads and writes
outside of itself, flops one for each element of an elementwise operation or reduction and two for each multiplication of a
product. Estimates assume a core that does five cheap operations or one and a half elementary functions a nanosecond, 100 GFLOP/s
in products and 20 GB/s beyond the cache; measured times are those of the unit's records alone, run on memory of its own.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from .kernels import loops
from .kernels.sweep import RECORD_BYTES
from .ops import arrays
from .ops.table import Elementwise
from .plan.program import Program

_CACHE = 1 << 20  # bytes that stay in the cache
_RECORD = 5e-9  # seconds that a record costs
_MEASURE = 200e-6  # seconds that a unit is run for


@dataclass(frozen=True)
class Row:
    """One unit: its operations, shape, how often it is repeated, records, tier (None where there is no loop), bytes, flops,
    seconds estimated and measured, and the user's line."""

    operations: str
    shape: tuple[int, ...]
    times: int
    records: int
    tier: int | None
    bytes: int
    flops: int
    estimated: float
    measured: float
    line: str


@dataclass(frozen=True)
class Report:
    """A compiled step in numbers; `print` shows it as a table."""

    rows: list[Row]
    records: int
    kernels: int
    temporary_bytes: int
    kept_bytes: int
    input_bytes: int
    output_bytes: int
    flops: int
    seconds: float

    @property
    def bytes(self) -> int:
        """All memory that a call needs at once."""
        return self.temporary_bytes + self.kept_bytes + self.input_bytes + self.output_bytes

    def __str__(self) -> str:
        head = ("operations", "shape", "times", "records", "tier", "bytes", "flops", "estimated", "measured", "line")
        lines = [head]
        for r in self.rows:
            tier = "" if r.tier is None else str(r.tier)
            lines.append(
                (r.operations, "x".join(map(str, r.shape)) or "1", str(r.times), str(r.records), tier, f"{r.bytes:,}", f"{r.flops:,}",
                 _duration(r.estimated), _duration(r.measured), r.line)
            )  # fmt: skip
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        left = (0, 1, 9)
        table = [
            "  ".join(
                x.ljust(w) if k in left else x.rjust(w) for k, (x, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        total = (
            f"{self.records} records, {self.kernels} kernels, {self.flops:,} flops, {_duration(self.seconds)} measured; "
            f"{self.bytes:,} bytes: {self.input_bytes:,} inputs, {self.output_bytes:,} results, {self.temporary_bytes:,} "
            f"temporary, {self.kept_bytes:,} kept"
        )
        return "\n".join([*table, total])


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def report(program: Program, specs: list[tuple[int, Any]]) -> Report:
    """The report of a program whose results have these sizes and dtypes."""
    section = program.section
    seconds = _measured(program, specs)
    rows = [_row(program, note, spent) for note, spent in zip(program.notes, seconds[:-1], strict=True)]
    covered = sum([r.records for r in rows])
    if covered < program.count:
        rest = program.count - covered
        rows.append(Row("copies and checks", (), 1, rest, None, 0, 0, rest * _RECORD, seconds[-1], ""))
    inputs = sum([n for _, n in _inputs(section)])
    outputs = sum([n * dtype.itemsize for n, dtype in specs])
    kernels = len({int(x) for x in program.words[: program.count, 0]})
    return Report(
        rows, program.count, kernels, program.arena_bytes, program.kept_bytes, inputs, outputs,
        sum([r.flops for r in rows]), sum([r.measured for r in rows]),
    )  # fmt: skip


def _row(program: Program, note: Any, measured: float) -> Row:
    slots, times, first, last, written = note
    section = program.section
    entries = section.entries
    nodes = [entries[s] for s in slots]
    names = Counter([n.op.name for n in nodes])
    inside, seen = set(slots), set()
    nbytes = flops = 0
    nanoseconds = 0.0
    for node in nodes:
        for x in node.operands:
            x = section.flat(x)
            if x not in inside and x not in seen and entries[x].numel:
                seen.add(x)
                nbytes += _size(section, x)
        work = node.numel
        if node.op is arrays.matmul:
            work = 2 * node.numel * entries[node.operands[0]].shape[-1]
            nanoseconds += work / 100
        elif isinstance(node.op, Elementwise):
            text = node.op.text(tuple([entries[x].dtype.code for x in node.operands]))
            nanoseconds += node.numel * (0.15 + 0.7 * text.count("vmath."))
        else:
            work = max([node.numel, *[entries[x].numel for x in node.operands]])
            nanoseconds += 0.15 * work
        flops += work
    nbytes += sum([entries[s].numel * entries[s].dtype.itemsize for s in written])
    memory = nbytes / 20 if nbytes > _CACHE else 0.0
    tier = None
    if any([n.op.kind in ("elementwise", "convert") for n in nodes]):
        tier = 1 if _block_loops(program, first, last) else 2 if len(slots) > 1 else 1
    shape = max([tuple(n.shape) for n in nodes], key=lambda s: int(np.prod(s, dtype=np.int64)), default=())
    line = next((f"{n.line[0]}:{n.line[1]}" for n in nodes if n.line), "")
    text = " ".join([name if count == 1 else f"{count} {name}" for name, count in names.items()])
    return Row(
        text if len(text) <= 60 else text[:57] + "...", shape, times, last - first, tier, nbytes * times, flops * times,
        (last - first) * _RECORD + max(nanoseconds, memory) * times * 1e-9, measured, line,
    )  # fmt: skip


def _block_loops(program: Program, first: int, last: int) -> bool:
    """Whether records from first to last, or those that they run, are loops of tier 1."""
    kernel, base = loops.block_loop(), program.address
    rest = list(range(first, last))
    seen = set(rest)
    while rest:
        row = rest.pop()
        words = program.words[row]
        if int(words[0]) == kernel:
            return True
        for word in (int(words[2]), int(words[3])):  # a parallel record's, or a counted loop's
            at, odd = divmod(word - base, RECORD_BYTES)
            if odd == 0 and program.count <= at < len(program.words) and at not in seen:
                count = int(words[1]) if word == int(words[2]) else 1
                found = [k for k in range(at, min(at + min(count, 64), len(program.words))) if k not in seen]
                seen.update(found)
                rest += found
    return False


def _size(section: Any, slot: int) -> int:
    node = section.entries[slot]
    while getattr(node.op, "kind", None) == "view" and section.entries[node.operands[0]].numel < node.numel:
        node = section.entries[section.canonical(node.operands[0])]
    return node.numel * node.dtype.itemsize


def _inputs(section: Any) -> list[tuple[Any, int]]:
    """The node of each input, and its bytes."""
    found = []
    for slot in section.bindings:
        node = section.entries[slot]
        extent = node.numel
        if node.numel and node.op.name != "leaf" and node.attrs[1]:
            extent = 1 + sum([(n - 1) * abs(s) for n, s in zip(node.shape, node.attrs[1], strict=True)])
        found.append((node, extent * node.dtype.itemsize))
    return found


def _measured(program: Program, specs: list[tuple[int, Any]]) -> list[float]:
    """Seconds of each unit, and of what belongs to none, on memory of its own."""
    inputs = []
    for node, nbytes in _inputs(program.section):
        array = np.zeros(nbytes + 64, np.uint8)
        if node.dtype.is_floating_point:
            array[: nbytes // node.dtype.itemsize * node.dtype.itemsize].view(node.dtype.numpy)[:] = 0.5
        inputs.append(array)
    memory = [np.zeros(n + 128, np.uint8) for n in (program.arena_bytes, program.kept_bytes)]
    outputs = [np.zeros(n * dtype.itemsize + 64, np.uint8) for n, dtype in specs]
    arena, kept = [x.ctypes.data + -x.ctypes.data % 64 for x in memory]
    with program.elsewhere([x.ctypes.data for x in inputs], arena, [x.ctypes.data for x in outputs], kept):
        program.sweep(program.address, program.count)
        parts = [_seconds(program, first, last) for _, _, first, last, _ in program.notes]
        covered = {k for _, _, first, last, _ in program.notes for k in range(first, last)}
        rest = [_seconds(program, k, k + 1) for k in range(program.count) if k not in covered]
        if program.error_cell is not None:
            program.error_cell[:] = 0
    return [*parts, sum(rest)]


def _seconds(program: Program, first: int, last: int) -> float:
    if first == last:
        return 0.0
    sweep, start, count = program.sweep, program.address + RECORD_BYTES * first, last - first
    clock = time.perf_counter

    def spent(repeats: int, n: int) -> float:
        begin = clock()
        for _ in range(repeats):
            sweep(start, n)
        return (clock() - begin) / repeats

    once = max(spent(1, count), 1e-7)
    repeats = max(1, min(1000, int(_MEASURE / once)))
    call = min([spent(repeats, 0) for _ in range(3)])
    return max(min([spent(repeats, count) for _ in range(3)]) - call, 0.0)
