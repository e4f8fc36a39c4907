"""Counted loops: the records of a stretch that repeats, written once.

Values that only their own iteration reads lie in the arena as usual. The others have places of their own: a row for each
iteration where readers elsewhere want all of them, with rows before the first for initial values; or one buffer that every
iteration writes again. A value that is carried on but may not be overwritten at once is computed elsewhere and copied at the
end of the iteration.

What moves from one iteration to the next is not worked out: the assembler writes down two neighbouring iterations, and their
words are compared. That they go on so was established by `roll`; a word that differs in another way than it may is refused
(`Unlike`), and the stretch is planned as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import recording as tape
from ..kernels.loops import CLOSING, block_loop, counted_loop
from ..kernels.sweep import WORDS
from .loop import runs_twice
from .memory import ALIGNMENT, NUMPY, aligned
from .roll import Roll

if TYPE_CHECKING:
    from .assemble import Assembler

ARENA, BINDING, OUTPUT, KEPT, FIXED = range(5)  # as in `assemble`, which imports this file


class Unlike(Exception):
    """Two iterations of a loop differ in more than what moves; `slot` is the first one of the stretch."""

    def __init__(self, slot: int) -> None:
        super().__init__(slot)
        self.slot = slot


def number(emit: Assembler, slot: int, code: str) -> int:
    """The address of a Python number's cell, in a row with those of the numbers that loops step over together with it."""
    family = emit.families[slot]
    fixed = [emit.section.fixed.get(member) for member in family]
    if None not in fixed and all([type(x) is type(fixed[0]) and x == fixed[0] != 0 for x in fixed]):
        cell, address = emit.words.cell(NUMPY[code])
        emit.cell(slot, code, cell, address)
        emit._numbers.update(dict.fromkeys([(member, code) for member in family], address))
        return address
    cells, first = emit.words.row(len(family), NUMPY[code])
    for i, member in enumerate(family):
        emit.cell(member, code, cells[i], first + 8 * i)
        emit.in_row[first + 8 * i] = first
    return emit._numbers[slot, code]


def write(emit: Assembler, roll: Roll) -> None:
    """Write a loop's record, and those of its body behind the main ones."""
    stacked = _places(emit, roll)
    copied = _copied(emit, roll)
    outer = emit.records, emit.bodies
    loops = len(emit.loops)
    written = []
    for i in (roll.depth, roll.depth + 1):
        emit.records, emit.bodies = [], []
        _iteration(emit, roll, i, copied)
        bodies, moving = _sorted(emit.records, emit.bodies)
        written.append((emit.records, bodies))
    emit.records, emit.bodies = outer
    first = len(emit.bodies)
    rows, advance, gathered = _compare(emit, roll, written, first)
    row_of = {id(record): row for record, row in zip([*written[0][0], *written[0][1]], rows, strict=True)}
    found, emit.loops[loops:] = emit.loops[loops:], []
    hot = [(row_of[id(record)], source) for record, source in found if id(record) in row_of]
    emit.loops += hot
    emit.bodies += rows
    tables: list[Any] = []
    for word, numbers, offset in gathered:
        tables += [word, _rows(emit, [(BINDING, n, offset) for n in numbers])]
    emit.record(
        counted_loop(), roll.count, ("body", first), len(written[0][0]), emit.table(advance), len(rows),
        _rows(emit, tables) if tables else 0, len(gathered),
    )  # fmt: skip
    if hot:
        emit.trims.append((emit.records[-1], [record for record, _ in hot], len(written[0][0]) + moving))
    emit.note(roll.iteration(roll.depth), roll.count, len(emit.records) - 1)
    for slot, times in roll.outside:
        if emit.entries[slot].op not in (tape.SCALAR, tape.CONSTANT):
            root = emit.root(slot)
            emit.remaining[root] -= times - 1
            emit._done(root)
    emit.rolled.append((roll.period, roll.count, stacked))


def _sorted(records: list[list[Any]], bodies: list[list[Any]]) -> tuple[list[list[Any]], int]:
    """The rows behind an iteration's records, those of block loops' bodies last, and the number of the others: when fused kernels
    have taken the block loops' places, only these have to move. References in the records follow."""
    last: set[int] = set()
    for record in (*records, *bodies):
        if record and record[0] == block_loop():
            count = record[3] % CLOSING + record[3] // CLOSING
            last |= set(range(record[2][1], record[2][1] + count))
    order = [k for k in range(len(bodies)) if k not in last] + sorted(last)
    place = {old: new for new, old in enumerate(order)}
    for record in (*records, *bodies):
        for column, word in enumerate(record):
            if type(word) is tuple and word[0] == "body":
                record[column] = ("body", place[word[1]])
    return [bodies[k] for k in order], len(bodies) - len(last)


def _rows(emit: Assembler, words: list[Any]) -> tuple[str, int]:
    """Put words behind the records; a reference to the first one."""
    first = len(emit.bodies)
    emit.bodies += [words[start : start + WORDS] for start in range(0, len(words), WORDS)]
    return ("body", first)


def _places(emit: Assembler, roll: Roll) -> int:
    """Make the buffers of values that outlive their iteration, and fill in what the first iteration finds there; returns their
    bytes."""
    total = 0
    for position, initial in [*roll.stacked.items(), *roll.kept.items()]:
        slots = roll.slots[position :: roll.period]
        node = emit.entries[slots[0]]
        row = node.numel * node.dtype.itemsize
        row = row if row < ALIGNMENT else aligned(row)
        step = row if position in roll.stacked else 0
        size = aligned((len(initial) + roll.count) * row if step else row)
        total += size
        if emit.saved_roots.isdisjoint(slots):
            kind, offset = ARENA, emit.arena.take(size)
            share = [len(slots), offset, size]  # one list for all of them
            emit.shared.update([(slot, share) for slot in slots])
        else:
            kind, offset = KEPT, emit.kept_bytes
            emit.kept_bytes += size
        for i, slot in enumerate(initial):
            emit._load((kind, 0, offset + i * step), slot, emit.place_of(slot), node.numel)
        start = offset + len(initial) * step
        emit.rows.update(zip(slots, [(kind, 0, start + i * step) for i in range(roll.count)], strict=True))
    return total


def _copied(emit: Assembler, roll: Roll) -> list[int]:
    """Positions of values that would overwrite what is still to be read of the iteration before."""
    unit_of = {j: number for number, unit in enumerate(roll.body) for j in unit}
    slots = roll.iteration(1)
    found = set()
    for reader, position, directly in roll.carried:
        if position not in roll.kept or unit_of[reader] < unit_of[position]:
            continue
        node = emit.entries[slots[reader]]
        alike = node.op.kind in ("elementwise", "convert") and node.shape == emit.shape(slots[position])
        alike = alike and not runs_twice(emit, [slots[j] for j in roll.body[unit_of[reader]]])
        if reader == position and getattr(node.op, "in_place", False):
            operands = [emit.root(x) for x in node.operands]
            alike = operands.count(operands[0]) == 1 and operands[0] == roll.slots[position]
        if not (directly and alike and unit_of[reader] == unit_of[position] and reader <= position):
            found.add(position)
    return sorted(found)


def _iteration(emit: Assembler, roll: Roll, i: int, copied: list[int]) -> None:
    """Write down one iteration."""
    slots = roll.iteration(i)
    places = len(emit.places)
    before = emit.arena.free(), emit.kept_bytes
    emit.copies = []
    targets = [(slots[j], emit.rows.pop(slots[j])) for j in copied]
    for unit in roll.body:
        emit.unit([slots[j] for j in unit])
    for slot, target in targets:
        emit._load(target, slot, emit.place_of(slot), emit.entries[slot].numel)
    for slot, target in targets:
        emit.arena.give(emit.place_of(slot).reference[2], emit.sizes.pop(slot))  # type: ignore[index]
        emit.rows[slot] = target
    for offset, size in emit.copies:
        emit.arena.give(offset, size)
    emit.copies = None
    if (emit.arena.free(), emit.kept_bytes) != before:  # the next iteration would find other gaps
        raise Unlike(roll.slots[0])
    for slot in list(emit.places)[places:]:  # copies of views are gone, and another iteration computes elsewhere
        del emit.places[slot]


def _compare(emit: Assembler, roll: Roll, written: list[Any], first: int) -> tuple[Any, list[int], list[Any]]:
    """The first iteration's rows, how all words move, and the words that tables give: (place, numbers of inputs, offset)."""
    (records, bodies), (next_records, next_bodies) = written
    rows, others = [*records, *bodies], [*next_records, *next_bodies]
    if len(records) != len(next_records) or len(rows) != len(others):
        raise Unlike(roll.slots[0])
    advance = [0] * (WORDS * len(rows))
    gathered: list[Any] = []
    result = []
    for row, (record, other) in enumerate(zip(rows, others, strict=True)):
        if len(record) != len(other):
            raise Unlike(roll.slots[0])
        line = []
        for column, (word, following) in enumerate(zip(record, other, strict=True)):
            place = row * WORDS + column
            if type(word) is tuple and word[0] == "body":
                if word != following:
                    raise Unlike(roll.slots[0])
                word = ("body", first + len(records) + word[1])
            elif word != following:
                step = _step(emit, word, following)
                if step is not None:
                    advance[place] = step
                    word = _moved(word, -roll.depth * step)
                else:
                    gathered.append((place, *_inputs(roll, word, following)))
                    word = 0
            line.append(word)
        result.append(line)
    return result, advance, gathered


def _step(emit: Assembler, word: Any, following: Any) -> int | None:
    """By how much a word moves, if it is one that may: cells in a row, buffers with rows, views of one input."""
    if type(word) is not type(following):
        return None
    if type(word) is not tuple:
        return following - word if _alike(emit, word, following) else None
    if word[:2] != following[:2]:
        return None
    kind, _, offset = word
    may = kind in (ARENA, BINDING, KEPT) or (kind == FIXED and _alike(emit, offset, following[2]))
    return following[2] - offset if may else None


def _alike(emit: Assembler, address: int, other: int) -> bool:
    row = emit.in_row.get(address)
    return row is not None and row == emit.in_row.get(other)


def _moved(word: Any, step: int) -> Any:
    return (word[0], word[1], word[2] + step) if type(word) is tuple else word + step


def _inputs(roll: Roll, word: Any, following: Any) -> tuple[list[int], int]:
    """The inputs that a word names in all iterations, and the offset upon them."""
    if (
        type(word) is tuple
        and type(following) is tuple
        and word[0] == following[0] == BINDING
        and word[2] == following[2]
    ):
        numbers = roll.gathered.get((word[1], following[1]))
        if numbers is not None:
            return numbers, word[2]
    raise Unlike(roll.slots[0])
