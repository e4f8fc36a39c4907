"""The passes in their order: entries in, program out."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any

from .. import recording as tape
from .assemble import Assembler
from .group import group, singles
from .program import Program
from .repeat import Unlike
from .roll import Rolled, roll, units
from .section import Section
from .simplify import simplify

MANY = 2000  # entries of a large plan


def plan(
    entries: Sequence[Any],
    writes: dict[int, int],
    want: Sequence[int],
    save: Iterable[int],
    tier: int,
    guarded: bool = False,
    fixed: dict[int, Any] | None = None,
) -> Program:
    """The program that computes the wanted and saved values and the writes; tier 0 straight from the tape, tier 1 planned.

    A guarded program lands nothing in leaves' memory before all else is computed, so that it can be dropped until then.
    `fixed` are the slots of Python numbers that will never change, and their values.
    """
    tape.statistics["planned"] += 1
    collecting = len(entries) > MANY and gc.isenabled()
    if collecting:
        gc.disable()  # a plan makes many objects and no cycles: looking for some took half of the time
    try:
        section = Section(entries, writes, want, save, fixed)
        if tier > 0:
            simplify(section)
        return _planned(section, tier, guarded)
    finally:
        if collecting:
            gc.enable()


def _planned(section: Section, tier: int, guarded: bool) -> Program:
    refused: frozenset[int] = frozenset()
    order = section.order
    while True:
        rolled = roll(section, refused) if tier > 0 else None
        try:
            return Program(_assembled(section, rolled, tier, guarded))
        except Unlike as stretch:  # planned again without that loop
            refused |= {stretch.slot}
            section.order = order


def _assembled(section: Section, rolled: Rolled | None, tier: int, guarded: bool) -> Assembler:
    entries = section.entries
    fallible = guarded or any([getattr(entries[slot].op, "fallible", False) for slot in section.order])
    assembler = Assembler(section, fallible)
    for number, slot in enumerate(section.want):
        slot = section.canonical(slot)
        node = entries[slot]
        computed = getattr(node.op, "kind", None) not in (None, "view")
        if computed and slot not in assembler.saved_roots:
            assembler.outputs.setdefault(slot, number)
    if rolled is not None:
        for family in rolled.families:
            assembler.families.update(dict.fromkeys(family, family))
        assembler.assemble(units(section, rolled, group))
    else:
        assembler.assemble(group(section) if tier > 0 else singles(section))
    return assembler
