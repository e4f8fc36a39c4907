"""The passes in their order: entries in, program out."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any

from .. import recording as tape
from .assemble import Assembler
from .fold import fold
from .group import group, singles
from .program import Program
from .repeat import Unlike
from .roll import Rolled, roll, units
from .section import Section, ancestors
from .simplify import simplify

MANY = 2000  # entries of a large plan


def plan(
    entries: Sequence[Any],
    writes: dict[int, int],
    want: Sequence[int],
    save: Iterable[int],
    tier: int | None,
    guarded: bool = False,
    fixed: dict[int, Any] | None = None,
) -> Program:
    """The program that computes the wanted and saved values and the writes; tier 0 straight from the tape, tier 1 planned, tier 2
    with loops compiled into fused kernels; None is tier 1 that moves up to tier 2 where use makes it worth it.

    A guarded program lands nothing in leaves' memory before all else is computed, so that it can be dropped until then. One with
    positions that may be out of range computes and checks them before anything else, if they do not depend on one another; else
    it lands as late. `fixed` are the slots of Python numbers that will never change, and their values.
    """
    tape.statistics["planned"] += 1
    collecting = len(entries) > MANY and gc.isenabled()
    if collecting:
        gc.disable()  # a plan makes many objects and no cycles: looking for some took half of the time
    try:
        section = Section(entries, writes, want, save, fixed)
        if tier != 0:
            simplify(section)
            fold(section)
        return _planned(section, tier, guarded)
    finally:
        if collecting:
            gc.enable()


def _planned(section: Section, tier: int | None, guarded: bool) -> Program:
    refused: frozenset[int] = frozenset()
    order = section.order
    while True:
        rolled = roll(section, refused) if tier != 0 else None
        try:
            return Program(_assembled(section, rolled, tier, guarded))
        except Unlike as stretch:  # planned again without that loop
            refused |= {stretch.slot}
            section.order = order


def _assembled(section: Section, rolled: Rolled | None, tier: int | None, guarded: bool) -> Assembler:
    entries = section.entries
    fallible = [slot for slot in section.order if getattr(entries[slot].op, "fallible", None)]
    assembler = Assembler(section, guarded or bool(fallible), tier)
    for number, slot in enumerate(section.want):
        slot = section.flat(slot)
        node = entries[slot]
        computed = getattr(node.op, "kind", None) not in (None, "view") and slot not in section.folded
        if computed and slot not in assembler.saved_roots:
            assembler.outputs.setdefault(slot, number)
    arrange = singles if tier == 0 else group
    if rolled is not None:
        for family in rolled.families:
            assembler.families.update(dict.fromkeys(family, family))
        assembler.assemble(units(section, rolled, group))
        return assembler
    first = ancestors(section, [entries[slot].operands[entries[slot].op.fallible.operand] for slot in fallible])
    if fallible and not guarded and first.isdisjoint(fallible):
        before = section.part([slot for slot in section.order if slot in first])
        after = section.part([slot for slot in section.order if slot not in first])
        assembler.assemble(arrange(before), fallible, arrange(after))
    else:
        assembler.assemble(arrange(section))
    return assembler
