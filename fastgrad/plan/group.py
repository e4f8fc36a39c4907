"""Grouping: elementwise entries over the same large iteration space become one loop, with the sums that end it.

A unit is a list of slots that execute together: one slot, or the members of a loop. Units stand in an order in which every
entry comes after what it reads (of this part of a section: other parts are other units): an entry joins the youngest loop of its shape that is not older than its operands' units, else
it opens a unit at the end. Inputs and views execute nothing and belong to no unit.
"""

from __future__ import annotations

from typing import Any

from ..kernels.loops import BLOCK
from ..ops import arrays
from .section import Section

_SCALAR_RULES = ("elementwise", "convert")


def _kind(node: Any) -> str | None:
    return getattr(node.op, "kind", None)


def singles(section: Section) -> list[list[int]]:
    """Every entry by itself, in the order of the tape."""
    entries = section.entries
    return [[slot] for slot in section.order if _kind(entries[slot]) not in (None, "view")]


def group(section: Section) -> list[list[int]]:
    """Units of entries, loops among them."""
    entries, same = section.entries, section.same
    units: list[list[int]] = []
    member: dict[int, int] = {}  # slot of a loop's member -> its unit
    after: dict[int, int] = {}  # slot -> the first unit that may read all of its value
    newest: dict[Any, int] = {}  # shape -> its youngest loop
    for slot in section.order:
        node = entries[slot]
        kind = _kind(node)
        operands = [same.get(x, x) for x in node.operands]
        if kind is None or kind == "view":
            after[slot] = max([after.get(x, 0) for x in operands], default=0)
            continue
        unit = -1
        if kind in _SCALAR_RULES and node.numel > BLOCK:
            bound = max([_bound(entries, member, after, x, node.shape) for x in operands], default=0)
            unit = newest.get(node.shape, -1)
            if unit < bound or unit < 0:
                newest[node.shape] = unit = len(units)
                units.append([])
            member[slot] = unit
        elif node.op is arrays.sum and operands[0] in member and len(node.attrs) == len(entries[operands[0]].shape):
            unit = member[operands[0]]
        if unit < 0:
            unit = len(units)
            units.append([])
        units[unit].append(slot)
        after[slot] = unit + 1
    return units


def _bound(entries: Any, member: dict[int, int], after: dict[int, int], operand: int, shape: Any) -> int:
    unit = member.get(operand)
    return unit if unit is not None and entries[operand].shape == shape else after.get(operand, 0)
