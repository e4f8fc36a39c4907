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


class Section:
    """One run's entries and what it has to deliver."""

    __slots__ = ("bindings", "entries", "fixed", "numbers", "order", "same", "save", "want", "writes")

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
