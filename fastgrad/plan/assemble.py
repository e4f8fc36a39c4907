"""The assembler: gives every value a place and writes the records of each unit.

A `Place` says where a value is: (kind, number, byte offset) with kinds ARENA (offset into the arena), BINDING (an address of
the trace's inputs), OUTPUT (a buffer made for each run), KEPT (the buffer of values kept for a later backward) and FIXED (an
address that never changes), and element strides upon it. Words of records that hold such a reference are noted in
`relocations` and filled in when the program runs. Operations lower themselves with the methods from `contiguous` on.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from .. import recording as tape
from ..kernels import copy as copy_kernels
from ..kernels import elementwise as elementwise_kernels
from ..kernels import pool
from ..kernels.build import build, lookup
from ..kernels.sweep import RECORD_BYTES, WORDS
from ..ops import arrays
from ..ops.arrays import contiguous_strides
from ..ops.table import Elementwise
from . import repeat
from .loop import LoopUnit
from .memory import NUMPY, Arena, Words, aligned, fill
from .section import Section, is_contiguous, merge

ARENA, BINDING, OUTPUT, KEPT, FIXED = range(5)
Reference = tuple[int, int, int]  # kind, number, byte offset

_BYTES = {"f4": 4, "f8": 8, "i8": 8, "i4": 4, "u1": 1, "b1": 1}


class Place:
    """Where a value's elements are."""

    __slots__ = ("dense", "number", "reference", "root", "strides")

    def __init__(
        self,
        root: int,
        reference: Reference | None,
        strides: tuple[int, ...],
        number: str | None,
        dense: bool = False,
    ) -> None:
        self.dense = dense  # known to be row-major without gaps
        self.root = root  # the slot whose buffer this is
        self.reference = reference
        self.strides = strides
        self.number = number  # dtype code of a Python number's cell, for inputs without memory


class Assembler:
    """Writes a program for a section."""

    def __init__(self, section: Section, fallible: bool, tier: int | None) -> None:
        self.section = section
        self.tier = tier  # 0 and 1 use no fused kernels, 2 compiles them now, None takes those that are there and notes the others
        self.loops: list[tuple[list[Any], str]] = []  # records of loops that may be moved to tier 2, and the sources
        self.entries = section.entries
        self._roots: dict[int, int] = {}
        self.is_fallible = fallible
        self.records: list[list[Any]] = []
        self.bodies: list[list[Any]] = []  # records of loops' bodies, placed behind the main ones
        self.words = Words()
        self.arena = Arena()
        self.kept_bytes = 0
        self.places: dict[int, Place] = {}
        self.outputs: dict[int, int] = {}  # slot that is computed straight into an output -> number of the output
        self.kept: dict[int, Place] = {}
        self.sizes: dict[int, int] = {}  # root slot -> bytes in the arena
        self.cells: list[tuple[int, Any, str]] = []  # (number of the Python number, cell, dtype code)
        self.lines: dict[int, Any] = {}  # number -> node, of records that may fail
        self._numbers: dict[tuple[int, str], int] = {}
        self._tables: dict[tuple[int, ...], int] = {}
        self._failing: dict[Any, int] = {}
        self.families: dict[int, Sequence[int]] = {}  # Python number -> those whose cells stand in a row with its own
        self.rows: dict[int, Reference] = {}  # slot -> where it lies, of values that a counted loop has a place for
        self.shared: dict[
            int, list[int]
        ] = {}  # slot -> [values that are still needed, offset, bytes] of its loop's buffer
        self.copies: list[tuple[int, int]] | None = None  # ranges to give back after an iteration
        self.in_row: dict[int, int] = {}  # address of a cell in a row -> address of the row
        # for counted loops: its record, its hot loops' records, and how many rows have to move when all of these are fused
        self.trims: list[tuple[list[Any], list[list[Any]], int]] = []
        # for reports: slots of a unit, how often it is repeated, its records from first to last, slots it writes to memory
        self.notes: list[tuple[Sequence[int], int, int, int, list[int]]] = []
        self.rolled: list[tuple[int, int, int]] = []  # entries, iterations and bytes of buffers of counted loops
        self._scratch: list[tuple[int, int]] = []
        self._node: Any = None
        self.error_cell: Any = None
        self.error = 0
        self.split = 0
        self.checks_first = False  # whether all that may fail is known to be right before anything is handed over
        self.lands: dict[int, int] = {}  # final slot -> leaf whose memory it goes to
        self.landed: set[int] = set()  # leaves whose memory already gets its value from a record
        self.remaining = self._uses()
        self.saved_roots = {self.root(s) for s in section.save}

    # ---- what is needed how often

    def root(self, slot: int) -> int:
        """The slot whose buffer a value lies in, views looked through."""
        found = self._roots.get(slot)
        if found is None:
            entries, same = self.entries, self.section.same
            found = slot
            while True:
                found = same.get(found, found)
                node = entries[found]
                if getattr(node.op, "kind", None) == "view" or node.op is tape.ALIAS:
                    found = node.operands[0]
                else:
                    break
            self._roots[slot] = found
        return found

    def _uses(self) -> dict[int, int]:
        section, entries = self.section, self.entries
        uses: dict[int, int] = {}
        for slot in section.order:
            node = entries[slot]
            if node.op is tape.ALIAS or getattr(node.op, "kind", None) == "view":
                continue
            for operand in node.operands:
                root = self.root(operand)
                uses[root] = uses.get(root, 0) + 1
        for slot in (*section.want, *section.save, *section.writes.values()):
            root = self.root(slot)
            uses[root] = uses.get(root, 0) + 1
        return uses

    def _done(self, slot: int) -> None:
        """One reader of a value less; the last one frees its buffer."""
        root = self.root(slot)
        left = self.remaining[root] = self.remaining[root] - 1
        if left == 0:
            size = self.sizes.pop(root, None)
            if size is not None:
                self.arena.give(self.places[root].reference[2], size)  # type: ignore[index]
            elif root in self.shared:
                share = self.shared[root]
                share[0] -= 1
                if share[0] == 0:
                    self.arena.give(share[1], share[2])

    # ---- places

    def place_of(self, slot: int) -> Place:
        """Where a value is; views and inputs are resolved here."""
        slot = self.section.canonical(slot)
        found = self.places.get(slot)
        if found is None:
            found = self.places[slot] = self._resolve(slot)
        return found

    def _resolve(self, slot: int) -> Place:
        node = self.entries[slot]
        op = node.op
        if slot in self.rows:
            return Place(slot, self.rows[slot], contiguous_strides(node.shape), None, True)
        if slot in self.section.folded:
            word = self.section.folded[slot].tobytes().ljust(8, b"\0")
            address = self.table(struct.unpack("<q", word))
            return Place(slot, (FIXED, 0, address), contiguous_strides(node.shape), None)
        if op is tape.LEAF or (op is tape.ALIAS and node.attrs[2] is None):
            strides = (
                contiguous_strides(node.shape) if op is tape.LEAF else node.attrs[1] or contiguous_strides(node.shape)
            )
            return Place(self.root(slot), (BINDING, self.section.bindings[slot], 0), strides, None)
        if op is tape.SCALAR or op is tape.CONSTANT:
            return Place(slot, None, (), node.dtype.code)
        if op is tape.ALIAS:
            return self._view(node, arrays.as_strided, (node.attrs[0], node.attrs[1], node.attrs[2]))
        if op.kind == "convert":
            base = self.place_of(node.operands[0])
            if self._folds(base):
                return Place(base.root, None, base.strides, node.dtype.code)
        if op.kind == "view":
            return self._view(node, op, node.attrs)
        raise AssertionError(f"{node.op} has no place yet")

    def _folds(self, place: Place) -> bool:
        """Whether a conversion is part of storing a Python number: the first one is, a second one would round it again."""
        return place.number is not None and place.number == self.entries[place.root].dtype.code

    def _view(self, node: Any, op: Any, attrs: Any) -> Place:
        operand = self.section.canonical(node.operands[0])
        base = self.place_of(operand)
        if base.number is not None:  # any view of one number is that number, expanded
            return Place(base.root, None, (0,) * len(node.shape), base.number)
        shape = self.entries[operand].shape
        if op is arrays.as_strided and base.strides != contiguous_strides(shape):
            base = self._copied(operand)
        if op is arrays.as_strided:
            moved = op.move((tape.count(shape),), (1,), attrs)
        else:
            moved = op.move(shape, base.strides, attrs)
        if moved is None:
            base = self._copied(operand)
            moved = op.move(shape, base.strides, attrs)
        strides, offset = moved
        reference = base.reference
        if reference is not None and offset:
            reference = (reference[0], reference[1], reference[2] + offset * node.dtype.itemsize)
        return Place(base.root, reference, strides, base.number)

    def _copied(self, slot: int) -> Place:
        """A contiguous copy of a value, which lives as long as the value itself."""
        node = self.entries[slot]
        size = aligned(node.numel * node.dtype.itemsize)
        reference = (
            (KEPT, 0, self.kept_bytes) if self.root(slot) in self.saved_roots else (ARENA, 0, self.arena.take(size))
        )
        if reference[0] == KEPT:
            self.kept_bytes += size
        elif self.copies is not None:
            self.copies.append((reference[2], size))
        self._load(reference, slot, self.place_of(slot), node.numel)
        return Place(self.place_of(slot).root, reference, contiguous_strides(node.shape), None)

    def _new(self, slot: int, upon: Reference | None = None) -> Reference:
        """A contiguous place for a value that is about to be computed."""
        node = self.entries[slot]
        size = node.numel * node.dtype.itemsize
        if slot in self.rows:
            reference = self.rows[slot]
        elif upon is not None:
            reference = upon
        elif slot in self.saved_roots:
            reference = (KEPT, 0, self.kept_bytes)
            self.kept_bytes += aligned(size)
        elif slot in self.outputs:
            reference = (OUTPUT, self.outputs[slot], 0)
        else:
            reference = (ARENA, 0, self.arena.take(size))
            self.sizes[slot] = size
        self.places[slot] = Place(slot, reference, contiguous_strides(node.shape), None, True)
        return reference

    def _landing(self, slot: int, reads: Sequence[int]) -> Reference | None:
        """The memory a value is written to in the end, if it may be computed there at once: nobody else will read the old
        value, and this record reads it element for element only (`reads`: how often each operand is read so)."""
        leaf = self.lands.get(slot) if self.lands else None
        if leaf is None or self.is_fallible or leaf in self.landed or slot in self.saved_roots or slot in self.rows:
            return None
        if leaf in self.saved_roots or self.remaining.get(leaf, 0) != sum([1 for x in reads if x == leaf]):
            return None
        self.landed.add(leaf)
        return (BINDING, self.section.bindings[leaf], 0)

    # ---- what operations lower themselves with

    def shape(self, slot: int) -> tuple[int, ...]:
        return self.entries[slot].shape

    def code(self, slot: int) -> str:
        return self.entries[slot].dtype.code

    def strides(self, slot: int) -> tuple[int, ...]:
        """Element strides of a value's present place."""
        return self.place_of(slot).strides

    def place(self, slot: int) -> Reference:
        """The first element of a value as it lies."""
        place = self.place_of(slot)
        if place.reference is None:
            return (FIXED, 0, self.number(slot, place.number))
        return place.reference

    def contiguous(self, slot: int, dims: tuple[int, ...] | None = None) -> Reference:
        """A row-major copy of a value (its dimensions permuted by `dims`), or the value itself if it lies so."""
        place = self.place_of(slot)
        shape, strides = self.entries[slot].shape, place.strides
        if dims is not None:
            shape, strides = tuple([shape[d] for d in dims]), tuple([strides[d] for d in dims])
        return self._contiguous(slot, place, shape, strides)

    def contiguous_part(self, slot: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Reference:
        """A row-major copy of the elements at the given strides from a value's first one."""
        return self._contiguous(slot, self.place_of(slot), shape, strides)

    def contiguous_expanded(self, slot: int, shape: tuple[int, ...]) -> Reference:
        """A row-major copy of a value broadcast to a shape."""
        place = self.place_of(slot)
        strides, _ = arrays._expand(self.entries[slot].shape, place.strides, shape)
        return self._contiguous(slot, place, shape, strides)

    def _contiguous(self, slot: int, place: Place, shape: tuple[int, ...], strides: tuple[int, ...]) -> Reference:
        n = tape.count(shape)
        if place.reference is not None and is_contiguous(shape, strides):
            return place.reference
        size = aligned(n * self.entries[slot].dtype.itemsize)
        target = (ARENA, 0, self.arena.take(size))
        self._scratch.append((target[2], size))
        self._load(target, slot, Place(place.root, place.reference, strides, place.number), n, shape)
        return target

    def _load(self, target: Reference, slot: int, place: Place, n: int, shape: tuple[int, ...] | None = None) -> None:
        code = self.code(slot)
        shape = self.entries[slot].shape if shape is None else shape
        if n == 0:
            return
        if place.reference is None:
            source: Reference = (FIXED, 0, self.number(slot, code))
        else:
            source = place.reference
        if not any(place.strides) or n == 1:
            self.record(copy_kernels.fill(code), n, target, source)
        else:
            self.record(copy_kernels.load(code), n, target, source, self.steps(shape, place.strides), 0)

    def steps(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
        """The table of a strided operand, neighbouring dimensions that run on merged."""
        merged = merge(shape, strides)
        return self.table([len(merged), *[x for pair in merged for x in pair]])

    def store(
        self,
        target: Reference,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        source: Reference,
        code: str,
    ) -> None:
        """Write a contiguous source over strided elements of a target."""
        moved = (target[0], target[1], target[2] + offset * _BYTES[code])
        self.record(copy_kernels.store(code), tape.count(shape), moved, source, self.steps(shape, strides), 0)

    def out(self, y: int) -> Reference:
        """The contiguous place of the result."""
        return self._new(y, self._landing(y, ()))

    def upon(self, y: int, base: int) -> Reference:
        """The contiguous place of a result that starts as a copy of `base`: its own memory when nobody else needs that."""
        base = self.section.canonical(base)
        node, place = self.entries[base], self.place_of(base)
        if y in self.rows:
            target = self._new(y)
            if target != place.reference:
                self._load(target, base, place, node.numel)
            return target
        whole = place.reference is not None and place.root == base and self.remaining[base] == 1
        if whole and node.numel and y not in self.saved_roots and base not in self.saved_roots:
            assert place.reference is not None
            if base in self.sizes:
                self.sizes[y] = self.sizes.pop(base)
                self.places[y] = Place(y, place.reference, contiguous_strides(node.shape), None)
                return place.reference
            leaf = self.lands.get(self._chain.get(y, y))
            if (
                leaf is not None
                and not self.is_fallible
                and place.reference == (BINDING, self.section.bindings[leaf], 0)
            ):
                self.landed.add(leaf)
                return self._new(y, place.reference)
        target = self._new(y)
        self._load(target, base, place, node.numel)
        return target

    def copy(self, y: int, a: int) -> None:
        """The result is a contiguous copy."""
        self._load(self.out(y), a, self.place_of(a), self.entries[a].numel)

    def scratch(self, nbytes: int) -> Reference:
        """Memory for the time of one record."""
        offset = self.arena.take(nbytes)
        self._scratch.append((offset, nbytes))
        return (ARENA, 0, offset)

    def table(self, values: Sequence[int]) -> int:
        """The address of constant words; the same one for the same words."""
        key = tuple(values)
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = self.words.put(key)
        return found

    def float_bits(self, value: float, code: str) -> int:
        """A floating-point number's bits as a word."""
        if code == "f4":
            return struct.unpack("<i", struct.pack("<f", value))[0]
        return struct.unpack("<q", struct.pack("<d", value))[0]

    def number(self, slot: int, code: str | None) -> int:
        """The address of a cell that holds a Python number in a dtype."""
        slot = self.place_of(slot).root
        node = self.entries[slot]
        code = code or node.dtype.code
        address = self._numbers.get((slot, code))
        if address is None and slot in self.families:
            address = repeat.number(self, slot, code)
        if address is None:
            cell, address = self.words.cell(NUMPY[code])
            self.cell(slot, code, cell, address)
        return address

    def cell(self, slot: int, code: str, cell: Any, address: int) -> None:
        """Take a cell for a Python number in a dtype: filled for good, or before each run."""
        self._numbers[slot, code] = address
        node = self.entries[slot]
        if node.op is tape.CONSTANT:
            cell[0] = node.attrs
        elif slot in self.section.fixed:
            fill(cell, self.section.fixed[slot])
        else:
            self.cells.append((self.section.numbers[slot], cell, code))

    def fill_zero(self, target: Reference, n: int, code: str) -> None:
        self.record(copy_kernels.fill(code), n, target, self.table((0,)))

    def tasks(self, records: list[list[Any]]) -> None:
        """Write records that do not depend on one another, for the thread pool."""
        first = len(self.bodies)
        self.bodies += records
        self.record(pool.parallel(), len(records), ("body", first), pool.address())

    def record(self, kernel: int, *words: Any) -> None:
        """Write one record."""
        self.records.append([kernel, *words])

    def fallible(self, kernel: int, y: Reference, a: Reference, index: Reference, table: int, source: Any) -> None:
        """Write a record whose kernel may report an error."""
        number = self.failing_number(self._node)
        self.record(kernel, number, y, a, index, table, self.error, source)

    def failing_number(self, node: Any) -> int:
        """By what a record names its entry when it reports an error."""
        if self.error_cell is None:
            self.error_cell, self.error = self.words.block(3)
        number = self._failing.setdefault((node.op, node.attrs, node.line), len(self._failing))
        self.lines[number] = node
        return number

    def _check(self, slots: Sequence[int]) -> None:
        """Write records that check operands of entries; what follows them is executed if nothing was wrong."""
        for slot in slots:
            node = self.entries[slot]
            node.op.fallible.check(self, node, self.failing_number(node))
        self._end_scratch()
        self.split = len(self.records)
        self.checks_first = True

    def _end_scratch(self) -> None:
        for offset, size in self._scratch:
            self.arena.give(offset, size)
        self._scratch.clear()

    # ---- units

    def unit(self, slots: list[int]) -> None:
        """Write the records of one unit."""
        first = len(self.records)
        if len(slots) == 1:
            self._single(slots[0])
        else:
            LoopUnit(self, slots).write()
        for slot in slots:
            for operand in self.entries[slot].operands:
                self._done(operand)
        self._end_scratch()
        if self.copies is None:
            self.note(slots, 1, first)

    def note(self, slots: Sequence[int], times: int, first: int) -> None:
        """Remember what the records from `first` on are."""
        written = [slot for slot in slots if slot in self.places and self.entries[slot].op.kind != "view"]
        self.notes.append((slots, times, first, len(self.records), written))

    def _single(self, slot: int) -> None:
        node = self._node = self.entries[slot]
        op = node.op
        if op.kind == "array":
            operands = tuple([self.section.canonical(x) for x in node.operands])
            op.lower(self, slot, operands, node.attrs)
        elif not (op.kind == "convert" and self._folds(self.place_of(node.operands[0]))):
            LoopUnit(self, [slot]).write()

    def _kernel(self, node: Any, operands: Sequence[int], modes: Sequence[str]) -> int:
        codes = tuple([self.entries[x].dtype.code for x in operands])
        key = (node.op, node.dtype.code, codes, *modes)
        address = _KERNELS.get(key)
        if address is None:
            text = node.op.text(codes) if isinstance(node.op, Elementwise) else "a"
            address = elementwise_kernels.elementwise(text, node.dtype.code, codes, "".join(modes))
            _KERNELS[key] = address
        return address

    def fused(self, source: str) -> int | None:
        """The address of a loop's fused kernel, if it is there: at tier 2 it is compiled now."""
        if self.tier == 2:
            return build(source)
        return lookup(source) if self.tier is None else None

    def loop_record(self, record: list[Any], source: str, where: list[list[Any]] | None = None) -> None:
        """Write the record of a loop, whose kernel the fused one of `source` may replace."""
        (self.records if where is None else where).append(record)
        if source and self.tier is None:
            self.loops.append((record, source))

    # ---- the whole

    def assemble(self, units: list[Any], fallible: Sequence[int] = (), rest: Sequence[list[int]] = ()) -> None:
        """Write all records: the units, then what hands results over and lands values in leaves' memory. The units make what
        may be wrong with the `fallible` entries; these are checked before the `rest` of the units lands anything."""
        section = self.section
        self.lands = {}
        for leaf, value in section.writes.items():
            value = section.canonical(value)
            if value not in self.lands and value not in self.outputs:
                self.lands[value] = leaf
        self._chain = self._chains([*units, *rest])
        for unit in units:
            if type(unit) is list:
                self.unit(unit)
            else:
                repeat.write(self, unit)
        if fallible:
            self._check(fallible)
            self.is_fallible = False
            for unit in rest:
                self.unit(unit)
        self._tail()

    def _chains(self, units: list[Any]) -> dict[int, int]:
        """For every in-place operation, the last one of those that build upon it."""
        end: dict[int, int] = {}
        for unit in reversed(units):
            if type(unit) is not list:
                continue
            slot = unit[0]
            node = self.entries[slot]
            if len(unit) == 1 and getattr(node.op, "in_place", False):
                end.setdefault(slot, slot)
                base = self.section.canonical(node.operands[0])
                if getattr(self.entries[base].op, "in_place", False):
                    end.setdefault(base, end[slot])
        return end

    def _tail(self) -> None:
        """Copies to outputs, then (after everything that may fail) to leaves' memory."""
        section = self.section
        for number, slot in enumerate(section.want):
            canonical = section.canonical(slot)
            node = self.entries[slot]
            place = self.place_of(canonical)
            if place.reference != (OUTPUT, number, 0):
                self._load((OUTPUT, number, 0), slot, place, node.numel)
        for slot in section.save:
            place = self.place_of(slot)
            if place.root in section.writes:  # memory that is about to change: the old value is copied
                node = self.entries[slot]
                reference = (KEPT, 0, self.kept_bytes)
                self.kept_bytes += aligned(node.numel * node.dtype.itemsize)
                self._load(reference, slot, place, node.numel)
                place = Place(slot, reference, contiguous_strides(node.shape), None)
            self.kept[slot] = place
        moves = []
        for leaf, slot in section.writes.items():
            value = section.canonical(slot)
            target = (BINDING, section.bindings[leaf], 0)
            place, node = self.place_of(value), self.entries[value]
            if place.reference == target or value == leaf:
                continue
            source: Any = place.reference
            if source is None or not is_contiguous(node.shape, place.strides) or source[0] == BINDING:
                size = aligned(node.numel * node.dtype.itemsize)
                source = (ARENA, 0, self.arena.take(size))
                self._load(source, value, place, node.numel)
            moves.append((target, source, node))
        if self.is_fallible:
            self.split = len(self.records)
        for target, source, node in moves:
            self.record(
                copy_kernels.load(node.dtype.code), node.numel, target, source, self.table((1, node.numel, 1)), 0
            )


_KERNELS: dict[Any, int] = {}  # (operation, dtypes, modes) -> address


assert RECORD_BYTES == 8 * WORDS
