"""Rolling up: stretches of a section that repeat become counted loops.

The iterations of a loop in the user's program (time steps, cells, minibatches) are equal stretches of a flat tape: entry k
does what entry k - p did, and its operands have moved by a fixed number of places: by p (a value of the same iteration, or one
carried from an earlier one), by nothing (the loop does not change it), by the length of another loop's iteration, forwards or
backwards (a reverse stretch reads what the forward one computed). `columns` writes the section down as arrays, `periods`
finds where that holds for a period, `_Stretch` looks at one region and says which values need memory that outlives their
iteration. `plan/repeat.py` writes the records. Start reading at `roll`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ..kernels.loops import BLOCK
from . import periods
from .columns import Columns, columns
from .section import Section

DEPTH = 4  # iterations over which a value may be carried
STRAIGHT = 4  # what an entry outside of the loop costs, in values carried from one iteration to the next
FUSED = 4096  # entries up to which a stretch of large elementwise entries stays as it is: it becomes few, wide loops


class Roll:
    """A stretch that becomes a loop: `count` iterations of `period` entries each, their slots one after another."""

    __slots__ = ("body", "carried", "count", "depth", "gathered", "kept", "outside", "period", "slots", "stacked")

    def __init__(self, slots: list[int], period: int, count: int) -> None:
        self.slots = slots
        self.period = period
        self.count = count
        self.depth = 0  # iterations over which values are carried, at most
        self.stacked: dict[int, list[int]] = {}  # position in the body -> slots of initial values, oldest first
        self.kept: dict[int, list[int]] = {}  # the same for positions of which one value at a time is enough
        self.carried: list[tuple[int, int, bool]] = []  # (reader, position it reads of the iteration before, directly?)
        self.gathered: dict[tuple[int, int], list[int]] = {}  # inputs of iterations `depth` and next -> of all
        self.outside: list[tuple[int, int]] = []  # (root, how often iterations that are not written down read it)
        self.body: list[list[int]] = []  # units of positions, in the order of execution

    def iteration(self, i: int) -> list[int]:
        """The slots of one iteration."""
        return self.slots[i * self.period : (i + 1) * self.period]


class Rolled:
    """A section in parts: stretches of slots, and loops."""

    __slots__ = ("families", "parts")

    def __init__(self, parts: list[Any], families: list[list[int]]) -> None:
        self.parts = parts
        self.families = families  # Python numbers whose cells stand in a row, because a loop steps over them


def roll(section: Section, refused: frozenset[int] = frozenset()) -> Rolled | None:
    """The loops of a section; None if it has none. `refused` are first slots of stretches that stay as they are."""
    if len(section.order) < periods.SHORTEST + periods.GAIN:
        return None
    c = columns(section)
    if len(c.slots) < periods.SHORTEST + periods.GAIN:
        return None
    c.reorder(periods.early(c))
    found: list[_Stretch] = []
    links = _Links()
    for start, end, period in periods.regions(c):
        stretch = _Stretch(c, start, end, period, found)
        if stretch.count and c.slots[stretch.start] not in refused and stretch.settle(links):
            found.append(stretch)
    if not found:
        return None
    section.order = c.inputs + c.slots
    parts: list[Any] = []
    done = 0
    for stretch in found:
        parts += [c.slots[done : stretch.start], stretch.roll]
        done = stretch.end
    parts.append(c.slots[done:])
    parts[0] = c.inputs + parts[0]
    return Rolled(parts, links.families())


# ---- one region


class _Stretch:
    """A region, cut to whole iterations whose operands all lie where a loop can find them.

    `count` is 0 where no loop is left. Positions are those of the columns; `found` are the loops before this one.
    """

    def __init__(self, c: Columns, start: int, end: int, period: int, found: list[_Stretch]) -> None:
        self.c = c
        self.period = period
        self.found = found
        self.initial: dict[
            tuple[int, int], int
        ] = {}  # (position, iterations before the first one) -> slot of the value
        start = self._extended(start)
        self.start = start + self._rotation(start, end)
        self.count = (end - self.start) // period
        while self.count >= periods.SHORTEST:
            first, last = self._range()
            if first == 0 and last == self.count:
                break
            self.start += first * period
            self.count = last - first
        self.end = self.start + self.count * period
        if (
            self.count < periods.SHORTEST
            or periods.gain(c, self.start, self.end, period) < periods.GAIN
            or not self._pays()
        ):
            self.count = 0

    def _extended(self, start: int) -> int:
        """Where the region starts if its first iteration may find other values where later ones find those carried on."""
        c, p = self.c, self.period
        low = max(start - p, self.found[-1].end if self.found else 0)
        here, after, then = slice(low, start), slice(low + p, start + p), slice(low + 2 * p, start + 2 * p)
        read = c.inputs_read[after]
        moved = c.reference[then] - c.reference[after]
        equal = (c.inputs_read[here] == read) & ((c.reference[after] - c.reference[here] == moved) | (read != 0))
        first = (read == 0) & (moved == p) & (c.inputs_read[here] >= 0)
        good = (c.signature[here] == c.signature[after]) & (equal | first).all(axis=1)
        if c.offsets.shape[1]:
            good &= (c.offsets[then] - c.offsets[after] == c.offsets[after] - c.offsets[here]).all(axis=1)
        bad = np.flatnonzero(~good)
        return low + (int(bad[-1]) + 1 if len(bad) else 0)

    def _rotation(self, start: int, end: int) -> int:
        """Where in the period to begin: where few values are carried on, and few entries stay outside of the loop."""
        c, p = self.c, self.period
        own = slice(end - p, end)
        reference = c.reference[own]
        moves = (c.inputs_read[own] == 0) & (reference - c.reference[end - 2 * p : end - p] == p)
        reader = np.broadcast_to(np.arange(end - p, end)[:, None], reference.shape)[moves]
        origin = reference[moves]
        if not len(origin):
            return 0
        farthest = np.zeros(p, np.int64)  # by the position of the value in its period: how far its last reader is
        np.maximum.at(farthest, (origin - start) % p, reader - origin)
        at = np.flatnonzero(farthest)
        crossing = np.zeros(2 * p + 1, np.int64)
        np.add.at(crossing, at + 1, 1)
        np.add.at(crossing, at + 1 + farthest[at] % p, -1)
        values = np.cumsum(crossing[:-1])
        values = values[:p] + values[p:]
        values *= (end - start) // p
        values[(end - start) % p + 1 :] += STRAIGHT * p  # an iteration less in the loop
        return int(np.argmin(values))

    def _moves(self) -> tuple[Any, Any, Any]:
        """Of the operands of an iteration: kinds of inputs, by how much each moves from one iteration to the next, and where it
        would be in the first one."""
        c, s, p = self.c, self.start, self.period
        after = c.reference[s + p : s + 2 * p]
        moved = c.reference[s + 2 * p : s + 3 * p] - after
        return c.inputs_read[s + p : s + 2 * p], moved, after - moved

    def _range(self) -> tuple[int, int]:
        """The iterations that can be part of a loop, of those that are left."""
        s, p, n = self.start, self.period, self.count
        read, moved, reference = self._moves()
        inside = read == 0
        first, last = 0, n
        still = inside & (moved == 0) & (reference >= s)
        if still.any():  # a value of the first iterations that later ones read, too
            first = int((reference[still].max() - s) // p) + 1
        own = inside & (moved == p) & (reference >= s - DEPTH * p)
        others = inside & (moved != 0) & ~own
        for at, step in sorted(set(zip(reference[others].tolist(), moved[others].tolist(), strict=True))):
            low, high = self._others(at, step)
            first, last = max(first, low), min(last, high)
        inputs = self._input_slots()[1]
        differ = inputs != inputs[n // 2]
        differ[:DEPTH] &= ~own  # initial values of what is carried
        strange = np.flatnonzero(differ.any(axis=(1, 2)))
        first = max(first, int(max(strange[strange < n // 2], default=-1)) + 1)
        last = min(last, int(min(strange[strange > n // 2], default=n)))
        if first == 0:
            first = self._beginning(own)
        return (first, last) if last > first else (0, 0)

    def _input_slots(self) -> tuple[Any, Any]:
        """Slots of all operands' roots, by iteration, position and operand, and which of them are inputs."""
        c, s, p, n = self.c, self.start, self.period, self.count
        reference = c.reference[s : s + n * p].reshape(n, p, -1)
        read = c.inputs_read[s : s + n * p].reshape(n, p, -1)
        slots = np.where(read > 0, reference, c.root_slot[np.where(read > 0, 0, reference)])
        return slots, c.is_input[slots] & (read >= 0)

    def _others(self, at: int, step: int) -> tuple[int, int]:
        """The iterations in which an operand, `at` in the first one and moving by `step`, is a value of one earlier loop."""
        middle = at + step * (self.count // 2)
        for other in self.found:
            if other.start <= middle < other.end:
                if step % other.period:
                    return 0, 0
                if step > 0:
                    low, high = -((at - other.start) // step), -((at - other.end) // step)
                else:
                    low, high = -((other.end - 1 - at) // -step), (at - other.start) // -step + 1
                return max(low, 0), min(high, self.count)
        return 0, 0

    def _beginning(self, own: Any) -> int:
        """0 if what the first iterations read from before the loop can stand for values carried, else 1."""
        c, s, p = self.c, self.start, self.period
        read, _, virtual = self._moves()
        actual, kinds = c.reference[s : s + p], c.inputs_read[s : s + p]
        other = (read == 0) & ((actual != virtual) | (kinds != 0))
        if (other & ~(own & (virtual < s))).any():
            return 1
        self.initial = {}
        for i in range(DEPTH):
            early = own & (virtual + i * p < s)
            at = c.reference[s + i * p : s + (i + 1) * p][early].tolist()
            kind = c.inputs_read[s + i * p : s + (i + 1) * p][early].tolist()
            for value, is_input, place in zip(at, kind, (virtual[early] + i * p).tolist(), strict=True):
                if not self._starts(value, is_input > 0, place):
                    return 1
        return 0

    def _starts(self, at: int, is_input: bool, place: int) -> bool:
        """Note the value that an early iteration reads where a later one reads a carried one; False if it can't be that.
        `at` is where it lies, `place` where the value carried would."""
        c, s, p = self.c, self.start, self.period
        back = -((place - s) // p)
        here = place + back * p
        root = int(c.root[here])
        if root == here:
            slot = at if is_input else c.slots[at]
            node = c.section.entries[slot]
            return (node.shape, node.dtype) == c.shape_and_type(here) and self._first((here - s) % p, back, slot)
        # A view of it: the same one, of the same value some iterations before.
        if is_input or at != place or c.signature[at] != c.signature[here] or (root < 0) != (c.root[at] < 0):
            return False
        before = int(c.root[at])
        if root < s or root < 0:
            return root < 0 or root - before == here - at
        return (
            root - before == here - at
            and c.shape_and_type(root) == c.shape_and_type(before)
            and self._first((root - s) % p, back, c.slots[before])
        )

    def _first(self, position: int, back: int, slot: int) -> bool:
        return self.initial.setdefault((position, back), slot) == slot

    def _pays(self) -> bool:
        """False for what is better off as it is: stretches that wide block-wise loops take up, and those that mostly write
        results, such as the update of many parameters."""
        c = self.c
        if c.landed(self.start, self.end) >= self.count:
            return False
        sizes = c.size[self.start : self.start + self.period]
        large = sizes > BLOCK
        wide = large & c.elementwise[self.start : self.start + self.period]
        return not (wide.any() and (wide == large).all() and self.count * self.period <= FUSED)

    # ---- what needs memory beyond an iteration

    def settle(self, links: _Links) -> bool:
        """Work out the loop; False if it can't be one after all."""
        c, s, p, n = self.c, self.start, self.period, self.count
        self.roll = roll = Roll(c.slots[s : self.end], p, n)
        reader, root = c.reads()
        among = (root >= s) & (root < self.end)
        own = among & (reader >= s) & (reader < self.end)
        distance = (reader[own] - s) // p - (root[own] - s) // p
        depth = np.zeros(p, np.int64)
        np.maximum.at(depth, (root[own] - s) % p, distance)
        outside = np.concatenate((root[among & ~own], c.sinks[(c.sinks >= s) & (c.sinks < self.end)]))
        rows, places = (outside - s) // p, (outside - s) % p
        stacked = depth > 1
        stacked[places[rows < n - 1]] = True
        kept = ~stacked & (depth > 0)
        kept[places] |= ~stacked[places]
        roll.depth = int(depth.max())
        if roll.depth > DEPTH or n < roll.depth + 3:
            return False
        for position in np.flatnonzero(stacked).tolist():
            roll.stacked[position] = self._initial(position, int(depth[position]))
        for position in np.flatnonzero(kept).tolist():
            roll.kept[position] = self._initial(position, int(depth[position]))
        last = own.copy()
        last[own] = (distance == 1) & (reader[own] >= self.end - p)
        for k, r in zip(reader[last].tolist(), root[last].tolist(), strict=True):
            operands = c.reference[k][c.inputs_read[k] == 0]
            roll.carried.append(((k - s) % p, (r - s) % p, bool((operands[c.root[operands] == r] == r).all())))
        self._outside(reader, root, stacked | kept)
        return self._inputs(links)

    def _initial(self, position: int, depth: int) -> list[int]:
        at = self.start + position
        return [self.initial.get((position, t), self.c.slots[at - t * self.period]) for t in range(depth, 0, -1)]

    def _outside(self, reader: Any, root: Any, lasting: Any) -> None:
        """Count what iterations read that are not written down: all but `depth` and the next one."""
        c, s, p = self.c, self.start, self.period
        inside = (reader >= s) & (reader < self.end)
        iteration = (reader - s) // p
        unwritten = inside & (iteration != self.roll.depth) & (iteration != self.roll.depth + 1)
        local = (root >= s) & (root < self.end)
        local[local] = ~lasting[(root[local] - s) % p]
        slots, counts = np.unique(c.read_slots[unwritten & ~local], return_counts=True)
        self.roll.outside = list(zip(slots.tolist(), counts.tolist(), strict=True))

    def _inputs(self, links: _Links) -> bool:
        """Inputs that change from one iteration to the next: leaves are gathered, numbers get cells in a row."""
        c = self.c
        slots, inputs = self._input_slots()
        h = self.roll.depth
        always = inputs[h:].all(axis=0)  # before that, an input may be the initial value of what is carried
        varying = always & (slots != slots[0]).any(axis=0)
        pairs = set()
        for column in {tuple(x) for x in slots[:, varying].T.tolist()}:
            if c.section.bindings.get(column[0]) is None:
                steps = np.diff(column)
                if not ((steps > 0).all() or (steps < 0).all()):
                    return False
                pairs |= {(min(a, b), max(a, b)) for a, b in pairwise(column)}
            else:
                numbers = [c.section.bindings[x] for x in column]
                key = (numbers[h], numbers[h + 1])
                if key[0] == key[1] or self.roll.gathered.setdefault(key, numbers) != numbers:
                    return False
        return links.add(pairs)


class _Links:
    """Which Python number follows which one in the loops."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}
        self._previous: dict[int, int] = {}

    def add(self, pairs: set[tuple[int, int]]) -> bool:
        """Take in what one loop says; False (and nothing is changed) if that contradicts another one, or itself."""
        following, previous = dict(self._next), dict(self._previous)
        for a, b in pairs:
            if following.setdefault(a, b) != b or previous.setdefault(b, a) != a:
                return False
        self._next, self._previous = following, previous
        return True

    def families(self) -> list[list[int]]:
        """The numbers, one list for each row of cells."""
        found = []
        for first in self._next:
            if first not in self._previous:
                family = [first]
                while family[-1] in self._next:
                    family.append(self._next[family[-1]])
                found.append(family)
        return found


Grouping = Callable[[Section], list[list[int]]]


def units(section: Section, rolled: Rolled, group: Grouping) -> list[Any]:
    """The units of all parts in order: lists of slots, and loops, whose bodies are grouped by themselves."""
    found: list[Any] = []
    for part in rolled.parts:
        if isinstance(part, Roll):
            slots = part.iteration(part.depth)
            position = {slot: j for j, slot in enumerate(slots)}
            part.body = [[position[x] for x in unit] for unit in group(section.part(slots))]
            found.append(part)
        elif part:
            found += group(section.part(part))
    return found
