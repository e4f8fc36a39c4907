"""Constants: elementwise entries whose operands are all constants are computed while planning.

They are computed by a program of their own, straight from the tape, so that the bits are those that the plan would have had.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import recording as tape
from .assemble import Assembler
from .group import is_stored_number, number_of
from .program import Program
from .section import Section

_KNOWN: dict[Any, Any] = {}  # what was computed before, by operation and operands
_LIMIT = 10_000


def fold(section: Section) -> None:
    """Compute single-element entries of constants, and take them out of the section."""
    entries = section.entries
    keys: dict[int, Any] = {}
    saved = {_base(section, slot) for slot in section.save}  # these go to the memory that a later backward reads
    fresh = False
    for slot in section.order:
        node = entries[slot]
        kind = getattr(node.op, "kind", None)
        if node.numel != 1 or kind not in ("elementwise", "convert") or is_stored_number(section, slot):
            continue
        if slot in saved:
            continue
        parts = [_key(section, keys, x) for x in node.operands]
        if None in parts:
            continue
        keys[slot] = (node.op.code, node.dtype.code, *parts)
        fresh = fresh or keys[slot] not in _KNOWN
    if not keys:
        return
    if fresh:
        if len(_KNOWN) > _LIMIT:
            _KNOWN.clear()
        _compute(section, keys)
    section.folded = {slot: _KNOWN[key] for slot, key in keys.items()}
    section.order = [slot for slot in section.order if slot not in keys]


def _base(section: Section, slot: int) -> int:
    """The slot whose element a view shows."""
    base = section.canonical(slot)
    while getattr(section.entries[base].op, "kind", None) == "view":
        base = section.canonical(section.entries[base].operands[0])
    return base


def _key(section: Section, keys: dict[int, Any], slot: int) -> Any:
    """What a constant operand is, or None for anything else."""
    base = _base(section, slot)
    if base in keys:
        return keys[base]
    node = section.entries[base]
    code = node.dtype.code
    if node.op is not tape.CONSTANT:
        if not is_stored_number(section, base):
            return None
        node = number_of(section, node.operands[0])
        if node.op is not tape.CONSTANT:
            return None
    return (code, repr(node.attrs))


def _compute(section: Section, keys: dict[int, Any]) -> None:
    part = Section(section.entries, {}, list(keys), ())
    part.same, part.order = section.same, list(keys)
    assembler = Assembler(part, False, 0)
    assembler.outputs = {slot: number for number, slot in enumerate(keys)}
    assembler.assemble([[slot] for slot in keys])
    program = Program(assembler)
    made = [np.empty(1, section.entries[slot].dtype.numpy) for slot in keys]
    arena = np.empty(program.arena_bytes + 64, np.uint8)
    program.bind([], [], arena.ctypes.data + -arena.ctypes.data % 64, [x.ctypes.data for x in made], 0)
    program.run(None)
    for key, value in zip(keys.values(), made, strict=True):
        _KNOWN[key] = value
