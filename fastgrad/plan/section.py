"""The part of a tape that a run needs, as columns by slot.

A `Section` is what the passes work on: `entries[slot]` is a node (operation, operands, attributes, shape, dtype), `order` the
slots that are computed, oldest first, `same[slot]` the slot whose value stands for it. `writes` says which leaf's memory gets
which value at the end, `want` which values are handed back, `save` which are kept for a later backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        "folded",
        "numbers",
        "order",
        "same",
        "save",
        "want",
        "writes",
    )

    def __init__(
        self, entries: Sequence[Any], writes: dict[int, int], want: Sequence[int], save: Iterable[int]
    ) -> None:
        self.entries = entries
        self.writes = writes
        self.want = want
        self.save = frozenset(save)
        self.same: dict[int, int] = {}
        self.folded: dict[int, Any] = {}  # slots of constants that were computed while planning -> array of one element
        self._flat: dict[int, int] = {}
        self._spread: dict[tuple[int, tuple[int, ...]], tuple[int, int] | None] = {}
        self.bindings, self.numbers = inputs(entries)
        self.order = live(entries, [*want, *self.save, *writes.values()])

    def canonical(self, slot: int) -> int:
        """The slot whose value stands for this one's."""
        same = self.same
        while slot in same:
            slot = same[slot]
        return slot

    def flat(self, slot: int) -> int:
        """The slot whose elements these are, in the same order: views that only change the shape are looked through."""
        found = self._flat.get(slot)
        if found is None:
            found = self.canonical(slot)
            while True:
                node = self.entries[found]
                if getattr(node.op, "kind", None) != "view" or not self._keeps_order(node):
                    break
                found = self.canonical(node.operands[0])
            self._flat[slot] = found
        return found

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

    def _keeps_order(self, view: Any) -> bool:
        base = self.entries[self.canonical(view.operands[0])]
        if base.numel != view.numel or view.op is arrays.as_strided:
            return False
        moved = view.op.move(base.shape, arrays.contiguous_strides(base.shape), view.attrs)
        return moved is not None and moved[1] == 0 and is_contiguous(view.shape, moved[0])


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


def live(entries: Sequence[Any], roots: Sequence[int]) -> list[int]:
    """The slots that the roots depend on, ascending."""
    needed = bytearray(len(entries))
    for slot in roots:
        needed[slot] = 1
    order = []
    for slot in range(max(roots, default=-1), -1, -1):
        if needed[slot]:
            order.append(slot)
            for operand in entries[slot].operands:
                needed[operand] = 1
    order.reverse()
    return order


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
