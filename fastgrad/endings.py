"""The table of a trace's ending: what `execute._again` does, in the form that machine code reads.

A trace that reaches a node again, with the same of its tensors alive, runs the same program: inputs, numbers, results and
temporaries are bound, the program is swept, and each living tensor gets its memory, its description and its place in a graph.
`fastgrad.kernels.replay.end` goes through such a table; when something is not as it was, nothing has happened but bindings.
"""

from __future__ import annotations

from typing import Any

from .facts import LET_GO, Rows, Unfit, facts, flat, records
from .kernels import entrance as at
from .plan.program import PIECE
from .recording import Trace

AFTER = 4  # endings of one kind, after which a table is made


def table(tr: Trace, pattern: Any) -> Any:
    """The table of an ending (`execute._Pattern`); None if rows cannot say it."""
    try:
        return _table(tr, pattern)
    except (Unfit, at.Unknown):
        return None


def _table(tr: Trace, pattern: Any) -> at.Table:
    ready, program = pattern.ready, pattern.ready.program
    late = program.error_cell is not None and not program.checks_first
    if program.kept_bytes or late or program.count > PIECE:
        raise Unfit
    if pattern.rooted and ready.spent is None:
        raise Unfit  # a graph is made for every run
    known = facts()
    rows = Rows()
    entries = tr.entries()
    for number in range(len(tr.addresses)):
        uses = program.uses_of_input(number)
        rows.add(0, len(uses), uses=(0, flat(uses)))
    for number in range(len(tr.scalars)):
        cells = program.cells_of(number)
        if cells is None:
            raise Unfit
        rows.add(0, len(cells), cells=(0, flat(cells)))
    origins = {k: (ready.spent, slot) for k, slot in zip(pattern.rooted, pattern.roots, strict=True)}
    for k, (place, pool) in enumerate(zip(pattern.places, ready.outputs, strict=True)):
        uses = program.uses_of_output(k)
        signature = entries[tr.live[place]._at[1]].signature
        origin = rows.of(origins[k]) if k in origins else 0
        rows.add(rows.of(pool), 0, len(uses), place, rows.of(signature), origin, pattern.slots[k], uses=(1, flat(uses)))
    work = sum([node.numel for node in entries])
    uses = program.uses_of_arena()
    header = {
        at.FACTS: known.address, **records(program),
        at.RELEASE: int(work > LET_GO), at.LIVE: len(pattern.alive), at.INPUTS: len(tr.addresses), at.NUMBERS: len(tr.scalars),
        at.RESULTS: len(pattern.places), at.NEEDS: program.arena_bytes, at.ARENA_COUNT: len(uses),
    }  # fmt: skip
    rows.lists += [
        (-1, at.ALIVE, [int(x) for x in pattern.alive]), (-1, at.CHOSEN, [0] * len(pattern.places)), (-1, at.ARENA_USES, flat(uses)),
    ]  # fmt: skip
    made = at.Table.of(rows.rows, header, rows.lists)
    made.alive = [known, program, rows.alive]
    program.follow(made.flags)
    return made
