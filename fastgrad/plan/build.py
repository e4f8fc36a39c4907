"""The passes in their order: entries in, program out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .. import recording as tape
from .assemble import Assembler
from .fold import fold
from .group import group, singles
from .program import Program
from .section import Section, ancestors
from .simplify import simplify


def plan(
    entries: Sequence[Any],
    writes: dict[int, int],
    want: Sequence[int],
    save: Iterable[int],
    tier: int | None,
    guarded: bool = False,
) -> Program:
    """The program that computes the wanted and saved values and the writes; tier 0 straight from the tape, tier 1 planned, tier 2
    with loops compiled into fused kernels; None is tier 1 that moves up to tier 2 where use makes it worth it.

    A guarded program lands nothing in leaves' memory before all else is computed, so that it can be dropped until then. One with
    positions that may be out of range computes and checks them before anything else, if they do not depend on one another; else
    it lands as late.
    """
    section = Section(entries, writes, want, save)
    if tier != 0:
        simplify(section)
        fold(section)
    arrange = singles if tier == 0 else group
    fallible = [slot for slot in section.order if getattr(entries[slot].op, "fallible", False)]
    first = ancestors(section, [entries[slot].operands[1] for slot in fallible])
    checked = bool(fallible) and not guarded and first.isdisjoint(fallible)
    assembler = Assembler(section, guarded or bool(fallible), tier)
    for number, slot in enumerate(section.want):
        slot = section.flat(slot)
        node = entries[slot]
        computed = getattr(node.op, "kind", None) not in (None, "view") and slot not in section.folded
        if computed and slot not in assembler.saved_roots:
            assembler.outputs.setdefault(slot, number)
    if checked:
        whole = section.order
        section.order = [slot for slot in whole if slot in first]
        before = arrange(section)
        section.order = [slot for slot in whole if slot not in first]
        after, section.order = arrange(section), whole
        assembler.assemble(before, fallible, after)
    else:
        assembler.assemble(arrange(section))
    tape.statistics["planned"] += 1
    return Program(assembler)
