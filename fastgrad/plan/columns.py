"""A section's entries as arrays, for passes that compare many of them.

The sequence leaves the inputs out: entry k of it has a signature (operation, dtype, shape, attributes), up to WIDTH operands,
and offsets, the parts of a view's attributes that may differ between iterations of a loop. `inputs_read` is 0 for an operand
in the sequence and a number above 0, one for each kind of input, for an input; -1 where there is no operand. `reference` is the
operand's position in the sequence, or an input's slot. `root` is the position of the entry whose memory a value lies in, -1 if
that is an input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import recording as tape
from ..ops import arrays
from .section import Section

WIDTH = 4

_SLICES = (arrays.slice_, arrays.select)
_STRIDED = (arrays.as_strided, arrays.as_strided_scatter, tape.ALIAS)


def split(op: Any, attrs: Any) -> tuple[Any, tuple[int, ...]]:
    """Attributes without the offsets among them, and the offsets: what is read starts there, and nothing else depends on them."""
    if op in _SLICES:
        return tuple([None if isinstance(x, int) else x[1:] for x in attrs]), tuple(
            [x if isinstance(x, int) else x[0] for x in attrs]
        )
    if op in _STRIDED:
        return attrs[:2], (attrs[2],)
    return attrs, ()


class Columns:
    """The arrays; see the file's head."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.slots: list[int] = []
        self.inputs: list[int] = []
        self.signature: Any = None
        self.inputs_read: Any = None
        self.reference: Any = None
        self.offsets: Any = None
        self.root: Any = None
        self.root_slot: Any = None  # slot of the root, inputs' roots included
        self.size: Any = None
        self.elementwise: Any = None
        self.is_input: Any = None  # by slot
        self.sinks: Any = None  # positions of roots whose values are handed back, kept or written
        self.read_slots: Any = None  # root slot of every reading
        self._reads: tuple[Any, Any] = (None, None)  # positions of reader and root of every reading of memory
        self._landed: Any = None
        self._used: Any = None  # slots that are handed back, kept or written
        self._named: Any = None  # positions of all operands in the sequence

    @property
    def executed(self) -> Any:
        """Which entries are more than a view."""
        return self.root == np.arange(len(self.slots))

    def reads(self) -> tuple[Any, Any]:
        """Positions of reader and root (-1: an input) of every reading; views read nothing."""
        return self._reads

    def shape_and_type(self, k: int) -> tuple[Any, Any]:
        """Of an entry's value."""
        node = self.section.entries[self.slots[k]]
        return node.shape, node.dtype

    def readers(self) -> Any:
        """How many operands name each entry, what the section hands on included."""
        n = len(self.slots)
        counts = np.bincount(self._named, minlength=n)
        np.add.at(counts, self._used, 1)
        return counts

    def landed(self, start: int, end: int) -> int:
        """How many values between two positions are written to leaves' memory."""
        return int(((self._landed >= start) & (self._landed < end)).sum())

    def reorder(self, order: Any) -> None:
        """Put the sequence into another order: the old positions in their new order."""
        n = len(self.slots)
        place = np.empty(n + 1, np.int64)
        place[order] = np.arange(n)
        place[n] = -1  # for -1, an input
        slots = self.slots
        self.slots = [slots[k] for k in order.tolist()]
        for name in ("signature", "inputs_read", "reference", "offsets", "root", "root_slot", "size", "elementwise"):
            setattr(self, name, getattr(self, name)[order])
        self.reference = np.where(
            self.inputs_read == 0, place[np.where(self.inputs_read == 0, self.reference, 0)], self.reference
        )
        self.root = place[self.root]
        reader, root = self._reads
        self._reads = place[reader], place[root]
        self.sinks = place[self.sinks]
        self._landed, self._used, self._named = place[self._landed], place[self._used], place[self._named]


def columns(section: Section) -> Columns:
    """Write a section down as arrays."""
    entries, same = section.entries, section.same
    c = Columns(section)
    position = [-1] * len(entries)
    root: list[int] = []
    root_slot: list[int] = []
    signatures: dict[Any, int] = {}
    kinds: dict[Any, int] = {}
    numbers: dict[int, str | None] = {}  # slot of what is a Python number's cell, seen from anywhere -> its dtype code
    signature: list[int] = []
    read: list[tuple[int, ...]] = []
    reference: list[tuple[int, ...]] = []
    offsets: list[tuple[int, ...]] = []
    size: list[int] = []
    named: list[int] = []
    reader: list[int] = []
    read_root: list[int] = []
    read_slot: list[int] = []
    scalar_rules: list[bool] = []
    c.inputs += section.folded
    k = 0
    for slot in section.order:
        node = entries[slot]
        op = node.op
        kind = getattr(op, "kind", None)
        if kind is None:
            if op is not tape.ALIAS or node.attrs[2] is None:
                c.inputs.append(slot)
                if op is tape.SCALAR or op is tape.CONSTANT:
                    numbers[slot] = node.dtype.code
                continue
            kind = "view"
        operands = [same.get(x, x) for x in node.operands]
        attrs = node.attrs
        offset: tuple[int, ...] = ()
        if attrs is not None and (op in _SLICES or op in _STRIDED):
            attrs, offset = split(op, attrs)
        mine, my_slot = k, slot
        if kind == "view" or (kind == "convert" and operands[0] in numbers):
            base = operands[0]
            at = position[base]
            number = numbers.get(base)
            base_root, base_slot = (root[at], root_slot[at]) if at >= 0 else (-1, base)
            if kind == "view":
                mine, my_slot = base_root, base_slot
                if number is not None:
                    numbers[slot] = number
            elif number == entries[base_slot].dtype.code:  # a number stored in another dtype: nothing is computed
                mine, my_slot, kind = -1, base_slot, "view"
                numbers[slot] = node.dtype.code
        key: Any = (op.code, node.dtype, node.shape, attrs, len(operands))
        if len(operands) > WIDTH:
            key = (key, slot)  # never repeats
        elif getattr(op, "fallible", False):
            key = (key, node.line)
        signature.append(signatures.setdefault(key, len(signatures)))
        classes, references = [], []
        for x in operands:
            at = position[x]
            if at >= 0:
                classes.append(0)
                references.append(at)
                named.append(at)
                if kind != "view":
                    reader.append(k)
                    read_root.append(root[at])
                    read_slot.append(root_slot[at])
            else:
                leaf = entries[x]
                classes.append(
                    kinds.setdefault(
                        (leaf.op, leaf.shape, leaf.dtype, leaf.attrs if leaf.op is tape.ALIAS else None), len(kinds) + 1
                    )
                )
                references.append(x)
                if kind != "view":
                    reader.append(k)
                    read_root.append(-1)
                    read_slot.append(x)
        missing = WIDTH - len(classes)
        read.append((*classes, *(-1,) * missing) if missing >= 0 else tuple(classes[:WIDTH]))
        reference.append((*references, *(0,) * missing) if missing >= 0 else tuple(references[:WIDTH]))
        offsets.append(offset)
        root.append(mine)
        root_slot.append(my_slot)
        size.append(node.numel)
        scalar_rules.append(kind in ("elementwise", "convert", "view"))
        position[slot] = k
        c.slots.append(slot)
        k += 1
    c.signature = np.array(signature, np.int64)
    c.inputs_read = np.array(read, np.int64).reshape(k, WIDTH)
    c.reference = np.array(reference, np.int64).reshape(k, WIDTH)
    width = max([len(x) for x in offsets], default=0)
    c.offsets = np.zeros((k, width), np.int64)
    if width:
        for i, offset in enumerate(offsets):
            if offset:
                c.offsets[i, : len(offset)] = offset
    c.root, c.root_slot = np.array(root, np.int64), np.array(root_slot, np.int64)
    c.size, c.elementwise = np.array(size, np.int64), np.array(scalar_rules, bool)
    c.is_input = np.zeros(len(entries), bool)
    c.is_input[c.inputs] = True
    c._reads = np.array(reader, np.int64), np.array(read_root, np.int64)
    c.read_slots = np.array(read_slot, np.int64)
    c._named = np.array(named, np.int64)
    used = [position[section.canonical(x)] for x in (*section.want, *section.save, *section.writes.values())]
    c._used = np.array([x for x in used if x >= 0], np.int64)
    c.sinks = np.array([root[x] for x in used if x >= 0 and root[x] >= 0], np.int64)
    landed = [position[section.canonical(x)] for x in section.writes.values()]
    c._landed = np.array([root[x] for x in landed if x >= 0 and root[x] >= 0], np.int64)
    return c
