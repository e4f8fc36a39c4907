"""Grouping: elementwise entries over the same number of elements become one loop, with the sums that end it.

A unit is a list of slots that execute together: one slot, or the members of a loop. Units stand in an order in which every
entry comes after what it reads: an entry joins the youngest loop of its length that is not older than its operands' units, else
it opens a unit at the end. Inputs, views, and numbers converted when they are stored execute nothing and belong to no unit. What is not in the section's
order (it may be a part of a section) is there before all units.
"""

from __future__ import annotations

from typing import Any

from .. import recording as tape
from ..ops import arrays
from ..ops.table import CONVERT, Elementwise
from .section import Section

_SCALAR_RULES = ("elementwise", "convert")
_WEIGHT = 200  # of a loop's members together: an arithmetic operation weighs 1, a function 8


def _kind(node: Any) -> str | None:
    return getattr(node.op, "kind", None)


def singles(section: Section) -> list[list[int]]:
    """Every entry by itself, in the order of the tape."""
    entries = section.entries
    return [[slot] for slot in section.order if _kind(entries[slot]) not in (None, "view")]


def group(section: Section) -> list[list[int]]:
    """Units of entries, loops among them."""
    entries, same, flat = section.entries, section.same, section.flat
    units: list[list[int]] = []
    member: dict[int, int] = {}  # slot of a loop's member -> its unit
    after: dict[int, int] = {}  # slot -> the first unit that may read all of its value
    newest: dict[int, int] = {}  # number of elements -> its youngest loop
    weights: dict[int, int] = {}
    for slot in section.order:
        node = entries[slot]
        kind = _kind(node)
        if kind is None or kind == "view" or is_stored_number(section, slot):
            after[slot] = max([after.get(same.get(x, x), 0) for x in node.operands], default=0)
            continue
        unit = -1
        if kind in _SCALAR_RULES and node.numel:
            bound = 0
            for x in node.operands:
                x = same.get(x, x)
                base = flat(x)
                inside = base in member and entries[base].numel == node.numel
                bound = max(bound, member[base] if inside else after.get(x, 0))
            weight = _weight(node)
            unit = newest.get(node.numel, -1)
            if unit < bound or unit < 0 or weights[unit] + weight > _WEIGHT:
                newest[node.numel] = unit = len(units)
                weights[unit] = 0
                units.append([])
            weights[unit] += weight
            member[slot] = unit
        elif node.op is arrays.sum and node.numel == 1 and flat(node.operands[0]) in member:
            unit = member[flat(node.operands[0])]
        if unit < 0:
            unit = len(units)
            units.append([])
        units[unit].append(slot)
        after[slot] = unit + 1
    return units


def _weight(node: Any) -> int:
    if not isinstance(node.op, Elementwise):
        return 1
    codes = (node.dtype.code,) * len(node.operands)
    return 1 + 7 * node.op.text(codes).count("vmath.")


def is_stored_number(section: Section, slot: int) -> bool:
    """Whether an entry converts a Python number for the first time: the number is stored in that type at once."""
    node = section.entries[slot]
    return node.op is CONVERT and number_of(section, node.operands[0]) is not None


def number_of(section: Section, slot: int) -> Any:
    """The entry of the Python number that a slot is, expanded perhaps, in the number's own type; or None."""
    node = section.entries[section.canonical(slot)]
    while _kind(node) == "view":
        node = section.entries[section.canonical(node.operands[0])]
    return node if node.op is tape.SCALAR or node.op is tape.CONSTANT else None
