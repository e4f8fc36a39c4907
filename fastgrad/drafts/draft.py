"""The tape of a program that is not expected back: one array of integers, ENTRY words an entry (`kernels.flat`).

A draft stands where a node of the trace cache would: `trace.node is trace.draft`, and its edges lead nowhere, so every quick
look-up misses and the slow ways in `recording` come here. Nothing is kept for the next time. `unfold` makes nodes of the
entries and the trace goes on with those; everything that asks for `trace.real` or `trace.entries()` does that.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import recording as tape
from ..execute import _forced
from ..kernels.flat import DONE, ENTRY, FIXED, FULL, LEAF, MISSING, NUMBER, RELEASED, walk
from ..ops import arrays
from ..ops.table import CONVERT
from ..recording import ALIAS, CONSTANT, SCALAR, Node, Trace
from ..reverse import SECOND_TIME
from .kinds import LOCAL, Kind, Kinds, Rule

_new = object.__new__
_FORMATS = {"f4": "f", "f8": "d", "i8": "q", "i4": "i", "u1": "B", "b1": "?"}
_NO_EDGES: dict[Any, Any] = {}
_NONE = array("B")


class Draft:
    """What one trace has recorded."""

    __slots__ = (
        "by_number", "cells", "constants", "flat", "forms", "kinds", "known", "leaf_bytes", "limit", "next", "numbered", "numbers", "quick",
        "released", "tail",
    )  # fmt: skip

    def __init__(self, kinds: Kinds, enabled: bool) -> None:
        self.kinds = kinds
        self.known = kinds.rules
        self.by_number = kinds.by_number
        self.quick = kinds.quick[enabled]
        self.numbered = kinds.numbered[enabled]
        self.forms: list[int] = []  # by slot: the number of its kind
        self.flat = array("q")  # the entries
        self.tail: list[int] = []  # the youngest ones, which are still to be moved there
        self.cells = array("q")  # the values of Python numbers
        self.numbers: dict[int, Any] = {}  # slot of a Python number -> its value
        self.constants: dict[Any, int] = {}  # constants and conversions of numbers -> slot
        self.released = _NONE  # by slot: a backward has given up what its rule reads
        self.leaf_bytes = 0
        self.limit = tape.LIMIT  # entries it may hold before it is run
        self.next = _NO_EDGES

    def switch(self, enabled: bool) -> None:
        """Go on in another grad mode."""
        self.quick, self.numbered = self.kinds.quick[enabled], self.kinds.numbered[enabled]

    def entries(self) -> array[int]:
        """All entries as one array."""
        if self.tail:
            self.flat.extend(array("q", self.tail))
            self.tail.clear()
        return self.flat

    # ---- recording

    def one(self, tr: Trace, code: int, a: int) -> Any:
        """Record an operation of one tensor that needs nothing else; None if that has to be found out first."""
        forms = self.forms
        slot = len(forms)
        kind = self.quick.get((code, forms[a]))
        if kind is None or slot >= self.limit:
            return None
        forms.append(kind.number)
        self.tail += (kind.number, a, 0, 0)
        t = _new(tape.TENSOR)
        t._at = (tr.epoch, slot)
        t._meta = kind
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    def two(self, tr: Trace, code: int, a: int, b: int) -> Any:
        """The same for an operation of two tensors."""
        forms = self.forms
        slot = len(forms)
        kind = self.quick.get((code, forms[a], forms[b]))
        if kind is None or slot >= self.limit:
            return None
        forms.append(kind.number)
        self.tail += (kind.number, a, b, 0)
        t = _new(tape.TENSOR)
        t._at = (tr.epoch, slot)
        t._meta = kind
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    def record(self, tr: Trace, op: Any, operands: Sequence[Any], attrs: Any) -> Any:
        """Record an operation, and return its tensor; None if drafts can't hold it."""
        epoch = tr.epoch
        slots = [t._at[1] if t._at[0] == epoch else tape.enter(tr, t) for t in operands]
        if tr.draft is not self:
            return None
        forms = self.forms
        numbers = [forms[s] for s in slots]
        quick = (op.code, *numbers) if attrs is None else (op.code, *numbers, attrs)
        kind: Kind | None = self.quick.get(quick)
        if kind is not None:
            self._append(kind, *slots)
        else:
            of = [self.by_number[n].form for n in numbers]
            key = (op.code, attrs, tr.grad_enabled, *of)
            rule = self.known.get(key)
            if rule is None:
                rule = self.kinds.find(key, op, of, attrs, tr.grad_enabled)
            kind = rule.simple
            if kind is not None:
                self.quick[quick] = kind
                self._append(kind, *slots)
            elif rule.outs:
                kind = self._several(rule, slots)
            if kind is None:
                return None
        t = _new(tape.TENSOR)
        t._at = (epoch, len(forms) - 1)
        t._meta = kind
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    def scalar(self, tr: Trace, op: Any, a: Any, at: int, value: Any, swapped: bool) -> Any:
        """Record an operation of a tensor and a Python number: the number, its conversion, and the operation."""
        forms = self.forms
        slot = len(forms)
        key = (op.code, type(value), forms[at], swapped)
        found = self.numbered.get(key)
        if found is None:
            number = self.number(tr, SCALAR, value, (SCALAR.code, type(value)), None)
            made = self.record(tr, op, (number, a) if swapped else (a, number), None)
            if made is not None and len(forms) == slot + 3 and self.kind(slot + 1).what == NUMBER:
                self.numbered[key] = (self.kind(slot), self.kind(slot + 1), made._meta)
            return made
        number, converted, kind = found
        place = self._cell(value, converted.dtype)  # nobody reads the number itself
        forms += (number.number, converted.number, kind.number)
        b = slot + 1
        left, right = (b, at) if swapped else (at, b)
        self.tail += (number.number, place, 0, 0, converted.number, place, slot, 0, kind.number, left, right, 0)
        self.numbers[slot] = value
        tr.scalars.append(value)
        t = _new(tape.TENSOR)
        t._at = (tr.epoch, slot + 2)
        t._meta = kind
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    def _several(self, rule: Rule, slots: Sequence[int]) -> Kind | None:
        """The entries of a rule that converts operands first; its last one is the result."""
        made: list[int] = []
        for kind, operands in rule.entries:
            at = [slots[x] if x < LOCAL else made[x - LOCAL] for x in operands]
            if kind.what == NUMBER:
                made.append(self._converted(at[0], kind))
            elif kind.what == FIXED:
                made.append(self._append(kind, *operands))
            else:
                made.append(self._append(kind, *at))
        out = rule.outs[0]
        if out < LOCAL or made[out - LOCAL] != len(self.forms) - 1:
            return None
        return rule.entries[out - LOCAL][0]

    def _append(self, kind: Kind, a: int = 0, b: int = 0, c: int = 0) -> int:
        slot = len(self.forms)
        self.forms.append(kind.number)
        self.tail += (kind.number, a, b, c)
        return slot

    def is_number(self, slot: int) -> bool:
        """Whether an entry is a Python number, which no kernel of a draft makes a tensor of."""
        form = self.by_number[self.forms[slot]].form
        return form is not None and form.is_number

    def copied(self, slot: int) -> int:
        """An entry that copies a value into memory of its own."""
        form = self.by_number[self.forms[slot]].form
        key = (arrays.clone.code, None, True, form)
        rule = self.known.get(key) or self.kinds.find(key, arrays.clone, [form], None, True)
        assert rule.simple is not None
        return self._append(rule.simple, slot)

    # ---- inputs

    def leaf(self, tr: Trace, shape: Any, dtype: Any, requires_grad: bool, nbytes: int, strides: Any = None) -> int:
        """An input whose address comes next in the trace's list; an alias has strides."""
        self.leaf_bytes += nbytes
        if self.leaf_bytes > tape.LEAF_BYTES:
            self.limit = 0
        kind = self.kinds.leaf(shape, dtype, requires_grad, strides)
        return self._append(kind, len(tr.addresses))

    def alias(self, tr: Trace, current: int, meta: Any, strides: Any) -> int:
        """Another view of the memory of an input."""
        strides = strides if strides is not None else arrays.contiguous_strides(meta.shape)
        kind = self.kinds.leaf(meta.shape, meta.dtype, meta.requires_grad, strides)
        return self._append(kind, len(tr.addresses), current)

    def number(self, tr: Trace, op: Any, value: Any, key: Any, source: Any) -> Any:
        """A Python number; constants with one key are one entry."""
        slot = self.constants.get(key) if op is CONSTANT else None
        kind = self.kinds.number(op, tape._number_type(value), True)
        if slot is None:
            slot = self._append(kind, self._cell(value, kind.dtype))
            self.numbers[slot] = value
            if op is CONSTANT:
                self.constants[key] = slot
            else:
                tr.scalars.append(value)
        t = _new(tape.TENSOR)
        t._at = (tr.epoch, slot)
        t._meta = kind
        t._storage = t._grad = t._origin = None
        t._whole = True
        t._number = (op, value, key, source)
        return t

    def _converted(self, slot: int, kind: Kind) -> int:
        """A Python number as a value of a dtype: converted once, from the number itself."""
        key = (slot, kind.dtype)
        made = self.constants.get(key)
        if made is None:
            made = self._append(kind, self._cell(self.numbers[slot], kind.dtype), slot)
            self.constants[key] = made
        return made

    def _cell(self, value: Any, dtype: Any) -> int:
        cells = self.cells
        place = len(cells)
        cells.append(0)
        try:
            struct.pack_into(_FORMATS[dtype.code], cells, 8 * place, value)
        except (OverflowError, ValueError, TypeError, struct.error):
            with np.errstate(all="ignore"):
                struct.pack_into(
                    f"{dtype.itemsize}s", cells, 8 * place, np.asarray(value).astype(dtype.numpy).tobytes()
                )
        return place

    # ---- composites

    def composite(self, tr: Trace, label: str | None, function: Any, arguments: Any) -> Any:
        """Record what a composite does; its results carry its label."""
        first = len(self.forms)
        tr.static += 1
        try:
            out = function(*arguments)
        finally:
            tr.static -= 1
        return self._labelled(tr, out, label, first)

    def _labelled(self, tr: Trace, out: Any, label: str | None, first: int) -> Any:
        if isinstance(out, tape.TENSOR):
            slot = out._at[1] if out._at[0] == tr.epoch else tape.enter(tr, out)
            if tr.draft is not self:
                node = tr.entries()[slot]
                if label is not None and slot >= first:
                    node.name = label
                return tape.result(tr, node)
            kind = self.by_number[self.forms[slot]]
            if label is not None and slot >= first and kind.requires_grad and kind.name != label:
                self.forms[slot] = self.entries()[ENTRY * slot] = self.kinds.renamed(kind, label).number
            return self.tensor(tr, slot)
        return None if out is None else tuple([self._labelled(tr, x, label, first) for x in out])

    def kind(self, slot: int) -> Kind:
        """The kind of an entry."""
        return self.by_number[self.forms[slot]]

    def tensor(self, tr: Trace, slot: int) -> Any:
        """A tensor for an entry."""
        t = _new(tape.TENSOR)
        t._at = (tr.epoch, slot)
        t._meta = self.by_number[self.forms[slot]]
        t._storage = t._grad = t._origin = None
        t._whole = True
        tr.live.append(t)
        return t

    # ---- backward

    def backward(
        self, tr: Trace, start: dict[int, list[Any]], retain: bool, leaves: Any, graph: Any = None
    ) -> dict[int, list[Any]] | None:
        """Append the adjoint entries of a walk from the slots of `start` (slot -> parts of its gradient); returns the parts
        at the sources by slot, or None if drafts can't hold them. The walk goes over this tape, or over a graph that another
        draft has left. `leaves` are the parts that have reached leaves before, by identity: if they are given, the sums go on
        from them."""
        given = tape.slots_of(tr, [g for parts in start.values() for g in parts])
        starts = list(zip([slot for slot, parts in start.items() for _ in parts], given, strict=True))
        inside = graph.entered(tr) if graph is not None else ()
        if tr.draft is not self:
            return None
        sources = tr.sources if graph is None else graph.sources
        ends = [s if type(s) is tuple else id(s if s._stands_for is None else s._stands_for) for s in sources.values()]
        fold = leaves is not None and len(set(ends)) == len(ends)  # no two sources are the same leaf's
        before = []
        if fold and leaves:
            for slot, end in zip(sources, ends, strict=True):
                parts = leaves[end][1] if end in leaves and slot <= max(start) else ()
                starts += zip([slot] * len(parts), tape.slots_of(tr, parts), strict=True)
                before.append(parts)
            if tr.draft is not self:
                return None
        flat, kinds = self.entries(), self.kinds
        size, count = max(start) + 1, len(self.forms)
        limit = 3 * size + len(starts)
        address = kinds.space(5 * size + 4 * limit)
        past = self if graph is None else graph.draft
        released = past.released_flags(size)
        passed = array("B", bytes(size))
        pairs = array("q", [x for pair in starts for x in pair])
        block = kinds.block
        struct.pack_into(
            "8q", block, 48, address, address + 8 * size, address + 16 * size, limit, released.buffer_info()[0],
            passed.buffer_info()[0], address + 16 * size + 16 * limit, fold,
        )  # fmt: skip
        struct.pack_into("4q", block, 112, size - 1, count, 0, 0)
        more = array("q", [x for pair in inside for x in pair])
        inside_at = address + 8 * (2 * size + 4 * limit)
        struct.pack_into(
            "10q", block, 176, len(starts), pairs.buffer_info()[0], 0 if graph is None else past.flat.buffer_info()[0],
            inside_at, 0 if graph is None else graph.places.buffer_info()[0], inside_at + 8 * size, len(tr.addresses), 0, len(inside),
            more.buffer_info()[0],
        )  # fmt: skip
        code = FULL
        try:
            while code != DONE:
                if code == FULL:
                    flat.frombytes(bytes(8 * ENTRY * (6 * size + 64)))
                elif code == MISSING:
                    if not (kinds.add_sum if block[18] else kinds.add_adjoint)(block[19], block[20]):
                        block[15] = count
                        return None
                else:
                    assert code == RELEASED
                    block[15] = count
                    raise RuntimeError(SECOND_TIME)
                struct.pack_into(
                    "6q", block, 0, flat.buffer_info()[0], kinds.kinds.buffer_info()[0], kinds.adjoints.buffer_info()[0],
                    kinds.index.buffer_info()[0], len(kinds.index) // 2 - 1, len(flat) // ENTRY,
                )  # fmt: skip
                code = walk()(kinds.block_at, 0)
        finally:
            del flat[ENTRY * block[15] :]
        self.forms += flat[ENTRY * count :: ENTRY]
        if graph is not None:
            tr.leaves += graph.memory()
            listed = 3 * size + 4 * limit
            tr.addresses += kinds.room[listed : listed + block[29]]
        if not retain:
            count = past.release(passed)
            if graph is not None:
                graph.passed(count)
        for parts in before:
            if parts:
                parts.clear()
        found: dict[int, list[Any]] = {}
        where = 2 * size + 2 * limit
        for i in range(where, where + 2 * block[17], 2):
            found.setdefault(kinds.room[i], []).append(self.tensor(tr, kinds.room[i + 1]))
        return found

    def released_flags(self, size: int) -> array[int]:
        """What has been given up, for at least so many slots."""
        if len(self.released) < size:
            self.released = self.released + array("B", bytes(size - len(self.released)))
        return self.released

    def release(self, passed: array[int]) -> int:
        """Give up what the rules of the marked slots read; returns how many had not been."""
        size = len(passed)
        before = int.from_bytes(self.released_flags(size)[:size].tobytes(), "little")
        after = before | int.from_bytes(passed.tobytes(), "little")
        self.released[:size] = array("B", after.to_bytes(size, "little"))
        return after.bit_count() - before.bit_count()

    def is_spent(self, slot: int) -> bool:
        """Whether every way from a slot to an input passes an entry whose saved values have been given up."""
        flat, by_number, released = self.entries(), self.by_number, self.released
        stack, seen = [slot], set()
        while stack:
            slot = stack.pop()
            if slot in seen or (slot < len(released) and released[slot]):
                continue
            seen.add(slot)
            kind = by_number[flat[ENTRY * slot]]
            if kind.what == LEAF or self.kinds.saved(kind):
                return False
            at = ENTRY * slot + 1
            for form, operand in zip(kind.forms, flat[at : at + len(kind.forms)], strict=True):
                if form.requires_grad:
                    stack.append(operand)
        return True


def nodes(draft: Draft) -> list[Node]:
    """The entries as nodes of a path of their own; the first one's parent is its root. Another thread may ask, too."""
    node = Node(None, None, (), None, True)
    path = []
    count = len(draft.tail) // ENTRY + len(draft.flat) // ENTRY
    flat, by_number = draft.flat + array("q", draft.tail), draft.by_number
    while len(flat) < ENTRY * count:  # some were moved from one to the other in between
        flat = draft.flat + array("q", draft.tail)
    for slot in range(len(flat) // ENTRY):
        kind = by_number[flat[ENTRY * slot]]
        op, attrs, operands = kind.op, kind.attrs, tuple(flat[ENTRY * slot + 1 : ENTRY * slot + 1 + len(kind.forms)])
        if kind.what == LEAF:
            if kind.form.strides is None:
                attrs = None
            else:
                op, operands = ALIAS, (flat[ENTRY * slot + 2],)
        elif kind.what == NUMBER:
            if op is CONVERT:
                operands = (flat[ENTRY * slot + 2],)
            else:
                attrs = draft.numbers[slot] if op is CONSTANT else None
        node = Node(node, op, operands, attrs, True)
        node.slot, node.end = slot, slot + 1
        node.shape, node.dtype, node.requires_grad, node.numel = kind.shape, kind.dtype, kind.requires_grad, kind.numel
        node.weak, node.name = kind.weak, kind.name
        path.append(node)
    return path


def look(tr: Trace) -> tuple[list[Node], set[int]]:
    """The entries of a trace's draft as nodes, and the slots whose saved values have been given up."""
    draft = tr.draft
    return nodes(draft), {slot for slot, given_up in enumerate(draft.released) if given_up}


def unfold(tr: Trace) -> None:
    """Go on with nodes instead of a draft."""
    draft = tr.draft
    if draft is None:
        return
    tr.draft = None
    path = nodes(draft)
    if path:
        draft.kinds.stopped()
    last = path[-1] if path else tr.root
    if path:
        last.leaf_bytes = draft.leaf_bytes
    tr.known = last
    tr.node = last if tr.grad_enabled else tape.twin(last)
    tr.path = path
    tr.released = {slot for slot, given_up in enumerate(draft.released) if given_up}
    epoch = tr.epoch
    for t in tr.live:
        if type(t._meta) is Kind and tape.epoch_of(t) == epoch:
            t._meta = path[t._at[1]]


def begin(tr: Trace) -> None:
    """Record the trace that begins now as a draft, unless its entries have to run at once or are asked for a plan."""
    if _forced[0] is None and not tr.eager and tr.capture is None and getattr(tape.local, "trace", None) is tr:
        kinds = tr.kinds
        if kinds is None or kinds.is_full:
            kinds = tr.kinds = Kinds()
        if kinds.is_useful() or not tape.STRANGERS:
            tr.draft = tr.node = Draft(kinds, tr.grad_enabled)


tape.unfold = unfold
tape.look = look
tape.begin_draft = begin
