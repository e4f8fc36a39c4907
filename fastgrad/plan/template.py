"""The records of one operation upon operands whose addresses are not known yet: what the assembler writes for it alone.

A template is made by the ordinary assembler from a section of one entry, so that a program written from templates has the
records, and the bits, of one planned at tier 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import recording as tape
from ..kernels.flat import OPERAND, SCRATCH, Y
from ..kernels.sweep import WORDS
from ..ops.arrays import contiguous_strides
from .assemble import ARENA, BINDING, FIXED, OUTPUT, Assembler, Place
from .section import Section


class Template:
    """Records as (words, tags) (see `kernels.flat`), and what they need."""

    __slots__ = ("keep", "records", "scratch")

    def __init__(self, records: list[tuple[list[int], int]], scratch: int, keep: Any) -> None:
        self.records = records
        self.scratch = scratch
        self.keep = keep  # the tables that records point to


def template(op: Any, attrs: Any, shape: Any, dtype: Any, operands: Sequence[Any]) -> Template | None:
    """The template of an operation upon operands with `shape`, `dtype` and `strides` (None: row-major), or None if its
    records depend on more than that."""
    entries = []
    for slot, operand in enumerate(operands):
        entries.append(_entry(slot, tape.LEAF, (), None, operand.shape, operand.dtype))
    y = len(operands)
    entries.append(_entry(y, op, tuple(range(y)), attrs, shape, dtype))
    assembler = Assembler(Section(entries, {}, [y], ()), False, 0)
    for slot, operand in enumerate(operands):
        strides = operand.strides
        dense = strides is None
        place = Place(slot, (BINDING, slot, 0), contiguous_strides(operand.shape) if dense else strides, None, dense)
        assembler.places[slot] = place
    assembler.outputs[y] = 0
    assembler.assemble([[y]])
    if assembler.bodies or assembler.cells or assembler.error_cell is not None:
        return None
    records = []
    for record in assembler.records:
        words, tags = [], 0
        for column, word in enumerate(record + [0] * (WORDS - len(record))):
            tag = 0
            if type(word) is tuple:
                where, number, word = word
                if where not in (FIXED, ARENA, OUTPUT, BINDING):
                    return None
                if where != FIXED:
                    tag = {ARENA: SCRATCH, OUTPUT: Y, BINDING: OPERAND + number}[where]
            words.append(word)
            tags |= tag << 4 * column
        records.append((words, tags))
    return Template(records, assembler.arena.size, assembler.words)


def _entry(slot: int, op: Any, operands: tuple[int, ...], attrs: Any, shape: Any, dtype: Any) -> tape.Node:
    node = tape.Node(None, op, operands, attrs, False)
    node.slot, node.end = slot, slot + 1
    node.shape, node.dtype, node.requires_grad, node.numel = shape, dtype, False, tape.count(shape)
    return node
