"""The part of a tape that a run needs, as columns by slot.

A `Section` is what the passes work on: `entries[slot]` is a node (operation, operands, attributes, shape, dtype), `order` the
slots that are computed, oldest first, `same[slot]` the slot whose value stands for it. `writes` says which leaf's memory gets
which value at the end, `want` which values are handed back, `save` which are kept for a later backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from .. import recording as tape
from ..ops import arrays


class Section:
    """One run's entries and what it has to deliver."""

    __slots__ = (
        "_flat",
        "_spread",
        "bindings",
        "entries",
        "fixed",
        "folded",
        "numbers",
        "order",
        "same",
        "save",
        "want",
        "writes",
    )

    def __init__(
        self,
        entries: Sequence[Any],
        writes: dict[int, int],
        want: Sequence[int],
        save: Iterable[int],
        fixed: dict[int, Any] | None = None,
    ) -> None:
        self.entries = entries
        self.writes = writes
        self.want = want
        self.save = frozenset(save)
        self.fixed = fixed or {}  # slots of Python numbers that are the same in every run -> their values
        self.same: dict[int, int] = {}
        self.folded: dict[int, Any] = {}  # slots of constants that were computed while planning -> array of one element
        self._flat: dict[int, int] = {}
        self._spread: dict[tuple[int, tuple[int, ...]], tuple[int, int] | None] = {}
        self.bindings, self.numbers = inputs(entries)
        self.order = live(entries, [*want, *self.save, *writes.values()])

    def part(self, order: list[int]) -> Section:
        """The same section with only some of the slots to be computed."""
        part = copy(self)
        part.order = order
        return part

    def canonical(self, slot: int) -> int:
        """The slot whose value stands for this one's."""
        same = self.same
        while slot in same:
            slot = same[slot]
        return slot

    def flat(self, slot: int) -> int:
        """The slot whose elements these are, in the same order: views that together only change the shape are looked through."""
        found = self._flat.get(slot)
        if found is None:
            chain = [self.canonical(slot)]
            numel = self.entries[slot].numel
            while True:
                node = self.entries[chain[-1]]
                if getattr(node.op, "kind", None) != "view" or node.op is arrays.as_strided:
                    break
                base = self.canonical(node.operands[0])
                if self.entries[base].numel != numel:
                    break
                chain.append(base)
            found = next(s for k, s in reversed(list(enumerate(chain))) if self._keeps_order(chain[: k + 1]))
            self._flat[slot] = found
        return found

    def _keeps_order(self, chain: list[int]) -> bool:
        """Whether the first of a chain of views has the elements of the last one in their order."""
        shape = self.entries[chain[-1]].shape
        strides = arrays.contiguous_strides(shape)
        for slot in reversed(chain[:-1]):
            view = self.entries[slot]
            moved = view.op.move(shape, strides, view.attrs)
            if moved is None or moved[1] != 0:
                return False
            shape, strides = view.shape, moved[0]
        return is_contiguous(shape, strides)

    def spread(self, slot: int, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """(base, columns) if a slot under a shape shows the elements of another slot, each of them `columns` times in a row."""
        key = (slot, shape)
        if key not in self._spread:
            self._spread[key] = self._repeats(slot, shape)
        return self._spread[key]

    def _repeats(self, slot: int, shape: tuple[int, ...]) -> tuple[int, int] | None:
        views = []
        base = self.canonical(slot)
        last = self.entries[base].shape
        while getattr(self.entries[base].op, "kind", None) == "view":
            views.append(self.entries[base])
            base = self.canonical(self.entries[base].operands[0])
        node = self.entries[base]
        strides = arrays.contiguous_strides(node.shape)
        for view in reversed(views):
            if view.op is arrays.as_strided:
                return None
            moved = view.op.move(self.entries[self.canonical(view.operands[0])].shape, strides, view.attrs)
            if moved is None or moved[1]:
                return None
            strides = moved[0]
        strides, _ = arrays._expand(last, strides, shape)
        merged = merge(shape, strides)
        if len(merged) == 1 and node.numel == 1 and merged[0][1] == 0:
            return base, merged[0][0]
        if len(merged) == 2 and merged[0] == (node.numel, 1) and merged[1][1] == 0:
            return base, merged[1][0]
        return None


def inputs(entries: Sequence[Any]) -> tuple[dict[int, int], dict[int, int]]:
    """Which address (of leaves and aliases) and which Python number of the trace each input slot reads."""
    bindings: dict[int, int] = {}
    numbers: dict[int, int] = {}
    for node in entries:
        op = node.op
        if op is tape.LEAF or (op is tape.ALIAS and node.attrs[2] is None):
            bindings[node.slot] = len(bindings)
        elif op is tape.SCALAR:
            numbers[node.slot] = len(numbers)
    return bindings, numbers


def ancestors(section: Section, slots: Sequence[int]) -> set[int]:
    """What the values of some slots are made from, the slots included."""
    found: set[int] = set()
    rest = [section.canonical(slot) for slot in slots]
    while rest:
        slot = rest.pop()
        if slot not in found:
            found.add(slot)
            rest += [section.canonical(x) for x in read(section.entries[slot])]
    return found


def live(entries: Sequence[Any], roots: Sequence[int]) -> list[int]:
    """The slots that the roots depend on, ascending."""
    needed = bytearray(len(entries))
    for slot in roots:
        needed[slot] = 1
    order = []
    for slot in range(max(roots, default=-1), -1, -1):
        if needed[slot]:
            order.append(slot)
            for operand in read(entries[slot]):
                needed[operand] = 1
    order.reverse()
    return order


def read(node: Any) -> Sequence[int]:
    """The operands whose values an entry is computed from: a view may have others, which are only its history."""
    operands: Sequence[int] = node.operands
    return operands[:1] if len(operands) > 1 and getattr(node.op, "kind", None) == "view" else operands


def merge(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
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


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements at these strides lie row-major without gaps."""
    expected = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1:
            if s != expected:
                return n == 0 or 0 in shape
            expected *= n
    return True
