"""Entries that need not be computed: products with one, conversions to the same type, views undone, what was computed before.

A pass fills `section.same` and shortens `section.order`; every identity used here gives the same bits, NaN and -0 included.
"""

from __future__ import annotations

from typing import Any

from .. import recording as tape
from ..ops.arrays import expand, permute, reshape, squeeze, squeeze_dim, swap, t, unsqueeze
from ..ops.table import CONVERT, Elementwise
from .section import Section, read

_PERMUTING = (permute, swap, t)
_RESHAPING = (reshape, unsqueeze, squeeze, squeeze_dim)


def simplify(section: Section) -> None:
    """Find entries whose value another entry has, and drop them."""
    entries, same = section.entries, section.same
    seen: dict[Any, int] = {}
    for slot in section.order:
        node = entries[slot]
        op = node.op
        if op is tape.LEAF or op is tape.ALIAS or op is tape.SCALAR:
            continue
        operands = tuple([same.get(x, x) for x in node.operands])
        other = _identity(entries, node, operands)
        if other is None:
            key = (op.code, operands, repr(node.attrs) if op is tape.CONSTANT else node.attrs, node.dtype)
            other = seen.setdefault(key, slot)
        if other != slot:
            same[slot] = same.get(other, other)
    if same:
        roots = [section.canonical(x) for x in (*section.want, *section.save, *section.writes.values())]
        section.order = _live(section, roots)


def _live(section: Section, roots: list[int]) -> list[int]:
    """The slots that the roots depend on now, in their order."""
    entries, same = section.entries, section.same
    needed = bytearray(len(entries))
    for slot in roots:
        needed[slot] = 1
    order = []
    for slot in reversed(section.order):
        if needed[slot] and slot not in same:
            order.append(slot)
            for x in read(entries[slot]):
                needed[same.get(x, x)] = 1
    order.reverse()
    return order


def _identity(entries: Any, node: Any, operands: tuple[int, ...]) -> int | None:
    """The operand that an entry's value equals bit for bit, if there is one."""
    op = node.op
    if type(op) is Elementwise:
        for i in op.neutral_ones:
            other = operands[1 - i]
            if _is_one(entries, operands[i]) and _alike(entries[other], node):
                return other
    elif op is CONVERT:
        if entries[operands[0]].dtype is node.dtype:
            return operands[0]
    elif op in _PERMUTING:
        base = entries[operands[0]]
        if base.op in _PERMUTING and all([base.attrs[d] == i for i, d in enumerate(node.attrs)]):
            return base.operands[0]
    elif op in _RESHAPING:  # any chain of them back to the shape it started from
        slot = operands[0]
        while entries[slot].shape != node.shape and entries[slot].op in _RESHAPING:
            slot = entries[slot].operands[0]
        if entries[slot].shape == node.shape:
            return slot
    elif op is expand and entries[operands[0]].shape == node.shape:
        return operands[0]
    return None


def _alike(operand: Any, node: Any) -> bool:
    return operand.shape == node.shape and operand.dtype is node.dtype and operand.op is not tape.CONSTANT


def _is_one(entries: Any, slot: int) -> bool:
    node = entries[slot]
    while node.op is CONVERT or (getattr(node.op, "kind", None) == "view"):
        node = entries[node.operands[0]]
    return node.op is tape.CONSTANT and node.attrs == 1
