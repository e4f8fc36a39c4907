"""A program: records ready to be swept, and what has to be filled in before each run.

`words` is an int64 array of records, the main ones first, the bodies of loops behind them. Words that depend on the run are
filled in only when what they point to has moved: the arena, the inputs' addresses, the results' buffers, the buffer of kept
values. `run` is one call of the compiled sweep.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..kernels import background
from ..kernels.loops import MOVING
from ..kernels.sweep import RECORD_BYTES, WORDS, sweep
from .assemble import ARENA, BINDING, FIXED, KEPT, OUTPUT, Assembler
from .memory import fill

HOT = 20  # runs after which a program's loops move to tier 2
PIECE = 1 << 16  # records swept between two looks for Ctrl-C


class Program:
    """The executable form of a section."""

    __slots__ = (
        "__weakref__",
        "_arena_at",
        "_binding_at",
        "_bound",
        "_cells",
        "_flags",
        "_flat",
        "_keep",
        "_kept",
        "_kept_at",
        "_numbers",
        "_output_at",
        "_outputs",
        "_trims",
        "address",
        "arena",
        "arena_bytes",
        "checks_first",
        "count",
        "error_cell",
        "hot",
        "kept",
        "kept_bytes",
        "lines",
        "notes",
        "rolled",
        "runs",
        "section",
        "split",
        "sweep",
        "words",
    )  # fmt: skip

    def __init__(self, assembler: Assembler) -> None:
        main = assembler.records
        rows = main + assembler.bodies
        self.words = np.zeros((max(len(rows), 1), WORDS), np.int64)
        self.address = self.words.ctypes.data
        self.count = len(main)
        self.split = assembler.split
        relocations: list[tuple[int, int, int, int]] = []
        table: list[list[int]] = []
        for row, record in enumerate(rows):
            filled = []
            for column, word in enumerate(record):
                if type(word) is tuple:
                    if word[0] == "body":
                        word = self.address + RECORD_BYTES * (len(main) + word[1])
                    elif word[0] == FIXED:
                        word = word[2]
                    else:
                        relocations.append((word[0], word[1], row * WORDS + column, word[2]))
                        word = 0
                filled.append(word)
            table.append(filled + [0] * (WORDS - len(filled)))
        if table:
            self.words[:] = table
        self._flat: Any = memoryview(self.words.reshape(-1))  # type: ignore[arg-type]
        self._arena_at = _columns([r for r in relocations if r[0] == ARENA])
        self._kept_at = [(r[2], r[3]) for r in relocations if r[0] == KEPT]
        self._binding_at = _by_number(relocations, BINDING)
        self._output_at = _by_number(relocations, OUTPUT)
        self._cells = [(number, memoryview(cell), cell) for number, cell, _ in assembler.cells]
        self._keep = assembler.words  # tables and cells live as long as the program
        self.arena = self._kept = 0
        self._flags: Any = None  # whether machine code has bound something
        self._bound: Sequence[int] = ()
        self._outputs: Sequence[int] = ()
        self._numbers: Sequence[Any] = ()
        self.sweep = sweep()
        self.arena_bytes = assembler.arena.size
        self.kept_bytes = assembler.kept_bytes
        self.kept = assembler.kept
        self.error_cell = assembler.error_cell
        self.checks_first = assembler.checks_first
        self.lines = assembler.lines
        self.rolled = assembler.rolled  # (entries of an iteration, iterations, bytes of their buffers) of counted loops
        self.runs = 0
        self.notes, self.section = assembler.notes, assembler.section
        at = {id(record): row for row, record in enumerate(rows)}
        self.hot = [(at[id(record)] * WORDS, source) for record, source in assembler.loops]  # may move to tier 2
        self._trims = [
            ({at[id(x)] * WORDS for x in hot}, at[id(record)] * WORDS + MOVING, moving)
            for record, hot, moving in assembler.trims
        ]

    def bind(
        self, addresses: Sequence[int], numbers: Sequence[Any], arena: int, outputs: Sequence[int], kept: int
    ) -> None:
        """Fill in what has moved since the last run."""
        if self._flags is not None and self._flags[0]:
            self.forget()
        if arena != self.arena:
            self.bind_arena(arena)
        if addresses != self._bound:
            self.bind_addresses(addresses)
        if outputs != self._outputs:
            self.bind_outputs(outputs)
        if kept != self._kept:
            self.bind_kept(kept)
        if numbers != self._numbers or 0.0 in numbers:  # 0.0 == -0.0
            self.bind_numbers(numbers)

    @contextmanager
    def elsewhere(self, addresses: Sequence[int], arena: int, outputs: Sequence[int], kept: int) -> Iterator[None]:
        """Bound to other memory for a while; afterwards all is as it was."""
        pairs = [x for at in (self._binding_at, self._output_at) for _, uses in at for x in uses]
        places = np.array([place for place, _ in [*pairs, *self._kept_at]] + list(self._arena_at[0]), np.int64)
        flat = self.words.reshape(-1)
        before = flat[places], self._bound, self._outputs, self.arena, self._kept
        try:
            self._bound = self._outputs = ()
            self.bind_addresses(addresses)
            self.bind_outputs(outputs)
            self.bind_arena(arena)
            self.bind_kept(kept)
            yield
        finally:
            flat[places], self._bound, self._outputs, self.arena, self._kept = before

    def bind_kept(self, kept: int) -> None:
        """Where values kept for a later backward go."""
        flat = self._flat
        for place, offset in self._kept_at:
            flat[place] = kept + offset
        self._kept = kept

    def bind_output(self, number: int, address: int) -> None:
        """Where one result goes."""
        flat = self._flat
        for n, uses in self._output_at:
            if n == number:
                for place, offset in uses:
                    flat[place] = address + offset
        self._outputs = ()

    def bind_arena(self, arena: int) -> None:
        """Where temporaries go."""
        places, offsets = self._arena_at
        self.words.reshape(-1)[places] = offsets + arena
        self.arena = arena

    def bind_addresses(self, addresses: Sequence[int]) -> None:
        """Where the inputs are."""
        flat, bound = self._flat, self._bound
        fresh = len(bound) != len(addresses)
        for number, uses in self._binding_at:
            address = addresses[number]
            if fresh or bound[number] != address:
                for place, offset in uses:
                    flat[place] = address + offset
        self._bound = list(addresses)

    def bind_outputs(self, outputs: Sequence[int]) -> None:
        """Where the results go."""
        flat, bound = self._flat, self._outputs
        fresh = len(bound) != len(outputs)
        for number, uses in self._output_at:
            address = outputs[number]
            if fresh or bound[number] != address:
                for place, offset in uses:
                    flat[place] = address + offset
        self._outputs = list(outputs)

    def bind_numbers(self, numbers: Sequence[Any]) -> None:
        """The Python numbers."""
        for number, cell, array in self._cells:
            try:
                cell[0] = numbers[number]
            except (OverflowError, ValueError, TypeError):
                fill(array, numbers[number])
        self._numbers = list(numbers)

    # ---- what machine code binds, as addresses

    def uses_of_input(self, number: int) -> list[tuple[int, int]]:
        """The words that name an input: address of the word, offset in bytes."""
        return self._uses(self._binding_at, number)

    def uses_of_output(self, number: int) -> list[tuple[int, int]]:
        """The words that name a result."""
        return self._uses(self._output_at, number)

    def uses_of_arena(self) -> list[tuple[int, int]]:
        """The words that name a temporary."""
        places, offsets = self._arena_at
        return [(self.address + 8 * int(p), int(o)) for p, o in zip(places, offsets, strict=True)]

    def _uses(self, table: list[tuple[int, list[tuple[int, int]]]], number: int) -> list[tuple[int, int]]:
        return [(self.address + 8 * place, offset) for n, uses in table if n == number for place, offset in uses]

    def cells_of(self, number: int) -> list[tuple[int, int]] | None:
        """The cells of a number: address and bytes; None unless all are floating-point numbers of four or eight bytes."""
        cells = [array for n, _, array in self._cells if n == number]
        if any([array.dtype.kind != "f" or array.itemsize not in (4, 8) for array in cells]):
            return None
        return [(array.ctypes.data, array.itemsize) for array in cells]

    def forget(self) -> None:
        """Machine code has bound other addresses and numbers than those noted here."""
        self._bound = self._outputs = self._numbers = ()
        self.arena = 0
        if self._flags is not None:
            self._flags[0] = 0

    def follow(self, flags: Any) -> None:
        """Machine code binds from now on, and says so in `flags`."""
        self.forget()
        self._flags = flags

    def unfollow(self) -> None:
        """No machine code binds any more."""
        self.forget()
        self._flags = None

    def run(self, check: Callable[[], bool] | None) -> bool:
        """Sweep everything. IndexError, or False when `check` fails, before anything is written to memory that outlives
        the run."""
        if self.hot:
            self.runs += 1
            if self.runs == HOT:
                self.move_up()
        if self.error_cell is None and check is None:
            if self.count <= PIECE:
                self.sweep(self.address, self.count)
            else:
                self._pieces(0, self.count)
            return True
        self._pieces(0, self.split)
        if self.error_cell is not None and self.error_cell[0]:
            self._raise()
        if check is not None and not check():
            return False
        self._pieces(self.split, self.count)
        return True

    def move_up(self) -> list[str]:
        """Have the loops' fused kernels compiled; each takes its place when it is ready. Returns their sources."""
        hot, self.hot = self.hot, []
        this = weakref.ref(self)
        for place, source in hot:

            def store(address: int, place: int = place) -> None:
                program = this()
                if program is not None:
                    program._flat[place] = address  # one store: a sweep that is running finds one kernel or the other
                    program._trim(place)

            background.request(source, store)
        return [source for _, source in hot]

    def _trim(self, place: int) -> None:
        """A loop is fused: a counted loop none of whose loops is left moves no rows of theirs any more."""
        for rest, where, moving in self._trims:
            rest.discard(place)
            if not rest:
                self._flat[where] = moving

    def _raise(self) -> None:
        record, position, size = (int(x) for x in self.error_cell)
        self.error_cell[:] = 0
        node = self.lines[record - 1]
        where = f" (recorded at {node.line[0]}:{node.line[1]})" if node.line else ""
        error = node.op.fallible.error(node, position, size)
        raise type(error)(f"{error}{where}")

    def _pieces(self, start: int, end: int) -> None:
        while start < end:
            count = min(PIECE, end - start)
            self.sweep(self.address + RECORD_BYTES * start, count)
            start += count


def _by_number(relocations: list[tuple[int, int, int, int]], wanted: int) -> list[tuple[int, list[tuple[int, int]]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for kind, number, place, offset in relocations:
        if kind == wanted:
            found.setdefault(number, []).append((place, offset))
    return sorted(found.items())


def _columns(relocations: list[tuple[int, int, int, int]]) -> tuple[Any, Any]:
    places = np.array([r[2] for r in relocations], np.int64)
    return places, np.array([r[3] for r in relocations], np.int64)
