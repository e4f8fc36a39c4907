"""The passes in their order: entries in, program out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .. import recording as tape
from .assemble import Assembler
from .group import group, singles
from .program import Program
from .section import Section
from .simplify import simplify


def plan(
    entries: Sequence[Any],
    writes: dict[int, int],
    want: Sequence[int],
    save: Iterable[int],
    tier: int,
    guarded: bool = False,
) -> Program:
    """The program that computes the wanted and saved values and the writes; tier 0 straight from the tape, tier 1 planned.

    A guarded program lands nothing in leaves' memory before all else is computed, so that it can be dropped until then.
    """
    section = Section(entries, writes, want, save)
    if tier > 0:
        simplify(section)
    units = group(section) if tier > 0 else singles(section)
    fallible = guarded or any([getattr(entries[slot].op, "fallible", False) for slot in section.order])
    assembler = Assembler(section, fallible)
    for number, slot in enumerate(section.want):
        slot = section.canonical(slot)
        node = entries[slot]
        computed = getattr(node.op, "kind", None) not in (None, "view")
        if computed and slot not in assembler.saved_roots:
            assembler.outputs.setdefault(slot, number)
    assembler.assemble(units)
    tape.statistics["planned"] += 1
    return Program(assembler)
