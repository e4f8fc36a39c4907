"""Grouping: elementwise entries over the same elements become one loop, with the reductions among them.

A unit is a list of slots that execute together: one slot, or the members of a loop. Units stand in an order in which every
entry comes after what it reads: an entry joins a loop that is not older than its operands' units, else it opens a unit at the
end. Inputs, views, and numbers converted when they are stored execute nothing and belong to no unit.

A loop is flat (n elements, and the full sums that end it), or it runs over rows: `columns` elements each, entries over the
elements and entries over the rows, folds of rows (sum, prod, amax, amin over the last dimensions), entries over elements that read a
row's value, and sums over all rows (of the rows' values, or column by column).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import recording as tape
from ..kernels.loops import BLOCK
from ..ops import arrays
from ..ops.table import CONVERT, Elementwise
from .section import Section

_SCALAR_RULES = ("elementwise", "convert")
_WEIGHT = 200  # of a loop's members together: an arithmetic operation weighs 1, a function 8
_COLUMNS = 4096  # the longest rows that a loop runs over
_FOLDS = (arrays.sum, arrays.prod, arrays.amax, arrays.amin)


def _kind(node: Any) -> str | None:
    return getattr(node.op, "kind", None)


def singles(section: Section) -> list[list[int]]:
    """Every entry by itself, in the order of the tape."""
    entries = section.entries
    return [[slot] for slot in section.order if _kind(entries[slot]) not in (None, "view")]


def group(section: Section) -> list[list[int]]:
    """Units of entries, loops among them."""
    grouping = _Grouping(section)
    for slot in section.order:
        grouping.add(slot)
    return [unit.slots for unit in grouping.units]


@dataclass
class _Unit:
    """Entries that execute together; `n` elements (0: it is no loop), in rows of `columns` (0: it is flat)."""

    n: int = 0
    columns: int = 0
    slots: list[int] = field(default_factory=list)
    weight: int = 0
    blocks: bool = False  # a sum needs the partition of all elements into blocks: rows would cut them otherwise

    def takes(self, columns: int) -> bool:
        """Whether the loop may run over rows of so many columns."""
        return self.columns == columns or not (self.columns or self.blocks)


class _Grouping:
    """The units so far."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.units: list[_Unit] = []
        self.member: dict[int, int] = {}  # slot whose value a loop has for each element or row -> its unit
        self.after: dict[int, int] = {}  # slot -> the first unit that may read all of its value
        self.newest: dict[int, int] = {}  # number of elements or rows -> its youngest loop
        self.sizes: set[int] = set()  # numbers of elements of loops over rows

    def add(self, slot: int) -> None:
        """Put the next entry into a unit."""
        section = self.section
        node = section.entries[slot]
        kind = _kind(node)
        if kind is None or kind == "view" or is_stored_number(section, slot):
            self.after[slot] = max([self.after.get(section.canonical(x), 0) for x in node.operands], default=0)
            return
        unit = -1
        if kind in _SCALAR_RULES and node.numel:
            unit = self._elementwise(node)
            self.member[slot] = unit
        elif node.op in _FOLDS and node.numel:
            unit = self._fold(slot, node)
        if unit < 0:
            unit = self._open(0)
        self.units[unit].slots.append(slot)
        self.after[slot] = unit + 1

    def _open(self, n: int) -> int:
        self.units.append(_Unit(n))
        unit = len(self.units) - 1
        if n:
            self.newest[n] = unit
        return unit

    def _elementwise(self, node: Any) -> int:
        section, member = self.section, self.member
        n, bound, near = node.numel, 0, -1
        for x in node.operands:
            x = section.canonical(x)
            base = section.flat(x)
            unit = member.get(base, -1)
            if unit < 0 or section.entries[base].numel != n:
                unit = self._rows_of(x, node)
            if unit < 0:
                bound = max(bound, self.after.get(x, 0))
            else:
                bound, near = max(bound, unit), max(near, unit)
        weight = _weight(node)
        wanted = near if near == bound and self._is_rows(near) else self.newest.get(n, -1)
        for unit in (wanted, self.newest.get(n, -1)):
            if unit >= bound and self.units[unit].weight + weight <= _WEIGHT:
                break
        else:
            unit = self._open(n)
        self.units[unit].weight += weight
        return unit

    def _is_rows(self, unit: int) -> bool:
        return unit >= 0 and self.units[unit].columns > 0

    def _rows_of(self, x: int, node: Any) -> int:
        """The unit over rows in which an operand is a row's value, repeated for all its elements; or -1."""
        found = self.section.spread(x, node.shape) if node.numel in self.sizes else None
        if found is None:
            return -1
        unit = self.member.get(found[0], -1)
        fits = unit >= 0 and self.units[unit].columns == found[1] and self.units[unit].n == node.numel
        return unit if fits else -1

    def _fold(self, slot: int, node: Any) -> int:
        """The loop that a reduction joins or opens, or -1."""
        entries, units = self.section.entries, self.units
        x = self.section.canonical(node.operands[0])
        base, n = self.section.flat(x), entries[x].numel
        unit = self.member.get(base, -1) if entries[base].numel == n else -1
        columns = n // node.numel
        over_rows = unit >= 0 and units[unit].columns > 0
        if node.op is arrays.sum and node.numel == 1:
            if unit < 0:
                return -1
            if not over_rows:  # all elements of a flat loop
                units[unit].blocks |= n > BLOCK
                return unit
            if n != units[unit].n:  # all rows
                return unit
            if columns != units[unit].columns:  # all elements of the rows
                return unit if n <= BLOCK else -1
        if leading(entries[x].shape, node) and 1 < node.numel <= _COLUMNS and unit >= 0:
            if units[unit].n == n and units[unit].takes(node.numel):
                self._over_rows(unit, node.numel)
                return unit
            return -1
        if not _trailing(entries[x].shape, node.attrs) or not 1 < columns <= _COLUMNS:
            return -1
        bound = self.after.get(x, 0) if unit < 0 else unit
        if unit >= 0 and not (units[unit].n == n and units[unit].takes(columns)):
            bound, unit = unit + 1, -1
        if unit < 0:
            newest = self.newest.get(n, -1)
            same = newest >= bound and units[newest].n == n and units[newest].columns == columns
            unit = newest if same else self._open(n)
        self._over_rows(unit, columns)
        self.member[slot] = unit
        return unit

    def _over_rows(self, unit: int, columns: int) -> None:
        """Let a loop run over rows, in which a reduction joins it."""
        found = self.units[unit]
        found.columns = columns
        self.sizes.add(found.n)
        found.weight += 2
        rows = found.n // columns
        self.newest[rows] = max(self.newest.get(rows, -1), unit)


def _trailing(shape: tuple[int, ...], dims: tuple[int, ...]) -> bool:
    """Whether the dimensions are the last ones; those of one element stand anywhere."""
    kept = [d for d, n in enumerate(shape) if d not in dims and n != 1]
    reduced = [d for d in dims if shape[d] != 1]
    return bool(reduced) and (not kept or kept[-1] < reduced[0])


def leading(shape: tuple[int, ...], node: Any) -> bool:
    """Whether a reduction adds up rows: over the first dimensions."""
    kept = [d for d, n in enumerate(shape) if d not in node.attrs and n != 1]
    reduced = [d for d in node.attrs if shape[d] != 1]
    return node.op is arrays.sum and bool(kept and reduced) and reduced[-1] < kept[0]


def geometry(section: Section, slots: list[int]) -> tuple[int, int]:
    """(elements, columns) of a loop; columns is 0 if it is flat."""
    entries = section.entries
    n = columns = 0
    for slot in slots:
        node = entries[slot]
        if _kind(node) in _SCALAR_RULES:
            n = max(n, node.numel)
            continue
        a = entries[section.canonical(node.operands[0])]
        n = max(n, a.numel)
        if leading(a.shape, node):
            columns = node.numel
        elif node.numel > 1 or node.op is not arrays.sum:
            columns = a.numel // node.numel
    return n, columns


def _weight(node: Any) -> int:
    if not isinstance(node.op, Elementwise):
        return 1
    codes = (node.dtype.code,) * len(node.operands)
    return 1 + 7 * node.op.text(codes).count("vmath.")


def is_stored_number(section: Section, slot: int) -> bool:
    """Whether an entry converts a Python number for the first time: the number is stored in that type at once."""
    node = section.entries[slot]
    return node.op is CONVERT and number_of(section, node.operands[0]) is not None


def number_of(section: Section, slot: int) -> Any:
    """The entry of the Python number that a slot is, expanded perhaps, in the number's own type; or None."""
    node = section.entries[section.canonical(slot)]
    while _kind(node) == "view":
        node = section.entries[section.canonical(node.operands[0])]
    return node if node.op is tape.SCALAR or node.op is tape.CONSTANT else None
