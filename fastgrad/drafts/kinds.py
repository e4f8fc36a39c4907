"""Kinds of entries in drafts, and the templates made from them.

A `Form` is what matters of a value to those who read it: shape, dtype, gradient flag, strides, and whether it is a Python
number. A `Kind` is an operation upon forms: it holds what was inferred, and is the `_meta` of pending tensors. `Kinds` is one
thread's table of both, with the integer tables that the compiled passes read (laid out in `kernels.flat`).

Nothing is declared twice: an operation's inference and its gradient rule are run once on a trace of their own, and the
entries they make there become a `Rule`; its records come from `plan.template`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import recording as tape
from ..dtypes import dtype as Dtype
from ..kernels.flat import COMPUTED, FIXED, KIND, LEAF, NUMBER, VIEW
from ..ops import arrays
from ..ops.arrays import contiguous_strides, sum_to
from ..ops.elementwise import add
from ..ops.table import CONVERT, reads
from ..plan.memory import Words, aligned
from ..plan.template import template
from ..recording import Signature, Trace

BOUND = 20_000  # kinds in a table before it is dropped and made anew
OPERANDS = 3  # how many an entry can have
GRADIENT, OWN, FIRST, LOCAL = 0, 1, 2, 5  # what operands of a rule's entries mean: see `kernels.flat`


class Form:
    """What readers of a value have to know."""

    __slots__ = ("dtype", "is_number", "mark", "number", "requires_grad", "shape", "strides", "weak")

    def __init__(self, number: int, key: tuple[Any, ...]) -> None:
        self.number = number
        self.shape, self.dtype, self.requires_grad, self.weak, self.is_number, self.strides, self.mark = key


class Kind:
    """An operation upon forms, and what was inferred of its result."""

    __slots__ = (
        "_signature", "attrs", "dtype", "form", "forms", "name", "number", "numel", "op", "requires_grad", "saves", "shape",
        "weak", "what",
    )  # fmt: skip

    def __init__(self, number: int, what: int, node: Any, forms: tuple[Form, ...], form: Form) -> None:
        self.number = number
        self.what = what
        self.op = node.op
        self.attrs = node.attrs
        self.name = node.name
        self.shape: tuple[int, ...] = node.shape
        self.dtype: Dtype = node.dtype
        self.requires_grad: bool = node.requires_grad
        self.numel: int = node.numel
        self.weak = form.weak
        self.forms = forms
        self.form = form
        self.saves: tuple[int, ...] | None = None  # operands of its gradient rule that are values: OWN, FIRST + i
        self._signature: Signature | None = None

    @property
    def signature(self) -> Signature:
        """What a tensor with this value is once it has been computed."""
        found = self._signature
        if found is None:
            name = self.name or self.op.label if self.requires_grad else None
            found = self._signature = Signature.of(self.shape, self.dtype, self.requires_grad, name)
        return found


class Rule:
    """Entries that a function of tensors makes: (kind, operands) with operands relative, and its results."""

    __slots__ = ("entries", "outs", "simple")

    def __init__(self, entries: list[tuple[Kind, tuple[int, ...]]], outs: list[int]) -> None:
        self.entries = entries
        self.outs = outs
        self.simple: Kind | None = None  # the one entry, if there is no more and it reads the operands as they come


_UNSUPPORTED = Rule([], [])


class Kinds:
    """One thread's forms, kinds and rules."""

    def __init__(self) -> None:
        self._forms: dict[Any, Form] = {}
        self._by_number: list[Any] = [None]
        self._kinds: dict[Any, Kind | None] = {}
        self._constants: dict[Any, int] = {}
        self.rules: dict[Any, Rule] = {}
        self.by_number: list[Any] = [None]  # numbers begin at 1: a zero key is an empty place in the index
        self.leaves: dict[Any, Kind] = {}
        self.kinds = array("q", bytes(8 * KIND))
        self.records = array("q")
        self.adjoints = array("q")
        self.index = array("q", bytes(16 * 1024))
        self.filled = 0
        self.words = Words()
        self._keep: list[Any] = []
        self._prepared: set[int] = set()
        self.quick: tuple[dict[Any, Kind], dict[Any, Kind]] = (
            {},
            {},
        )  # by grad mode: rules of one entry, by operands' kinds
        self.numbered: tuple[dict[Any, Any], dict[Any, Any]] = (
            {},
            {},
        )  # by grad mode: operations of a tensor and a number
        self.drafted = 0  # entries of all drafts
        self.missed = 0  # rules made
        self._stops = 0  # drafts in a row that had to be turned into nodes
        self._pause = 0  # traces that will not be drafts
        self.recent: dict[int, tuple[int, int]] = {}  # digests of the last drafts: how often they came, `drafted` then
        self.block = array("q", bytes(8 * 32))  # what the compiled passes are told, and tell
        self.block_at = self.block.buffer_info()[0]
        self.room = array("q")  # their memory
        self.program = array("q", bytes(64 * 1024))  # records

    @property
    def is_full(self) -> bool:
        """Whether it is time for another table."""
        return len(self.by_number) > BOUND or len(self.quick[0]) + len(self.quick[1]) + len(self.rules) > 10 * BOUND

    def is_useful(self) -> bool:
        """Whether the next trace should be a draft. Programs whose shapes are always new find nothing here: to make a rule costs
        more than to plan an entry. And what drafts can't hold may come back: each one in a row that had to be turned into
        nodes makes the trace cache's turn longer."""
        self.drafted += 16
        if self._pause > 0:
            self._pause -= 1
            return False
        return self.missed < 512 + self.drafted // 16

    def stopped(self) -> None:
        """A draft has been turned into nodes."""
        self._stops = min(self._stops + 1, 4)
        self._pause = (1 << self._stops) - 1

    def finished(self) -> None:
        """A draft has run as one."""
        self._stops = 0

    def space(self, words: int) -> int:
        """The address of so many words for the time of one pass."""
        if len(self.room) < words:
            self.room = array("q", bytes(16 * words))
        return self.room.buffer_info()[0]

    # ---- forms and kinds

    def form(
        self, shape: Any, dtype: Any, requires_grad: bool = False, weak: bool = False, is_number: bool = False,
        strides: Any = None, mark: Any = None,
    ) -> Form:  # fmt: skip
        """The form of a value."""
        key = (shape, dtype, requires_grad, weak, is_number, strides, mark)
        found = self._forms.get(key)
        if found is None:
            found = self._forms[key] = Form(len(self._by_number), key)
            self._by_number.append(found)
        return found

    def leaf(self, shape: Any, dtype: Any, requires_grad: bool, strides: Any) -> Kind:
        """The kind of an input with memory; an alias is one with strides."""
        key = (shape, dtype, requires_grad, strides)
        found = self.leaves.get(key)
        if found is None:
            node = _node(tape.LEAF, (shape, strides, None), shape, dtype, requires_grad)
            found = self.leaves[key] = self._add(
                LEAF, node, (), self.form(shape, dtype, requires_grad, strides=strides)
            )
        return found

    def number(self, op: Any, dtype: Any, weak: bool) -> Kind:
        """The kind of a Python number, or of its conversion."""
        key = (op, dtype, weak)
        found = self.leaves.get(key)
        if found is None:
            node = _node(op, dtype if op is CONVERT else None, (), dtype, False)
            found = self.leaves[key] = self._add(NUMBER, node, (), self.form((), dtype, weak=weak, is_number=True))
        return found

    def _fixed(self, value: Any, dtype: Any, weak: bool) -> tuple[Kind, int]:
        """A constant in a rule, and the address of its cell."""
        key = (type(value), repr(value), dtype, weak)
        found = self._kinds.get(key)
        if found is None:
            node = _node(tape.CONSTANT, value, (), dtype, False)
            found = self._kinds[key] = self._add(FIXED, node, (), self.form((), dtype, weak=weak, is_number=True))
            cell, address = self.words.cell(dtype.numpy)
            with np.errstate(all="ignore"):
                cell[0] = value
            self._constants[key] = address
        return found, self._constants[key]

    def renamed(self, kind: Kind, name: str) -> Kind:
        """The same kind under the name of a composite."""
        node = _node(kind.op, kind.attrs, kind.shape, kind.dtype, kind.requires_grad, name)
        found = self._computed(node, kind.forms)
        return kind if found is None else found

    def _add(self, what: int, node: Any, forms: tuple[Form, ...], form: Form) -> Kind:
        number = len(self.by_number)
        kind = Kind(number, what, node, forms, form)
        self.by_number.append(kind)
        size = aligned(kind.numel * kind.dtype.itemsize)
        self.kinds.extend((what, size, form.number, kind.requires_grad, 0, 0, 0, 0, len(forms), 0, 0, 0))
        return kind

    def _computed(self, node: Any, forms: tuple[Form, ...]) -> Kind | None:
        """The kind of an entry that views or computes, or None if drafts can't hold it."""
        key = (node.op, tuple([f.number for f in forms]), node.attrs, node.requires_grad, node.name, node.dtype)
        if key in self._kinds:
            return self._kinds[key]
        found = self._kinds[key] = self._make(node, forms)
        return found

    def _make(self, node: Any, forms: tuple[Form, ...]) -> Kind | None:
        op = node.op
        if op.kind == "view":
            return self._view(node, forms)
        is_array = op.kind == "array"
        if len(forms) > OPERANDS or (is_array and (op.fallible or any([f.is_number for f in forms]))):
            return None
        made = template(op, node.attrs, node.shape, node.dtype, forms)
        if made is None:
            return None
        kind = self._add(COMPUTED, node, forms, self.form(node.shape, node.dtype, node.requires_grad))
        at = KIND * kind.number
        self.kinds[at + 4] = len(self.records) // 9
        self.kinds[at + 5] = len(made.records)
        self.kinds[at + 6] = made.scratch
        for words, tags in made.records:
            self.records.extend((*words, tags))
        self._keep.append(made.keep)
        return kind

    def _view(self, node: Any, forms: tuple[Form, ...]) -> Kind | None:
        op, base = node.op, forms[0]
        if len(forms) > 1 or (op is arrays.as_strided and base.strides is not None):
            return None
        moved = op.move(
            base.shape, contiguous_strides(base.shape) if base.strides is None else base.strides, node.attrs
        )
        if moved is None:
            return None
        strides, offset = moved
        plain = None if strides == contiguous_strides(node.shape) else strides
        mark = node.attrs if op is arrays.permute else None
        form = self.form(node.shape, node.dtype, node.requires_grad, strides=plain, mark=mark)
        kind = self._add(VIEW, node, forms, form)
        self.kinds[KIND * kind.number + 1] = offset * node.dtype.itemsize
        return kind

    # ---- rules

    def rule(self, op: Any, forms: Sequence[Form], attrs: Any, enabled: bool) -> Rule | None:
        """The entries that recording an operation makes: conversions of operands, and the operation."""
        if getattr(op, "fallible", False):
            return None
        return self._recorded(forms, lambda operands: [tape.apply(op, operands, attrs)], range(len(forms)), enabled)

    def _recorded(
        self, forms: Sequence[Form], function: Callable[[list[Any]], Sequence[Any]], refs: Sequence[int], enabled: bool
    ) -> Rule | None:
        """Run a function of tensors of these forms on a trace of its own; None if drafts can't hold what it records."""
        self.missed += 1
        outer = tape.local.trace
        tr = tape.local.trace = Trace()
        try:
            tr.grad_enabled = enabled
            tr.node = tr.root if enabled else tape.twin(tr.root)
            tr.static = 1
            made = []
            for i, form in enumerate(forms):
                is_alias = form.strides is not None and form.mark is None
                op = arrays.permute if form.mark is not None else tape.ALIAS if is_alias else tape.LEAF
                attrs = (form.shape, form.strides, None) if is_alias else form.mark
                node = tape.extend(tr, ("operand", i), op, (), attrs, form.shape, form.dtype, form.requires_grad)
                node.weak = form.weak
                made.append(tape.blank((tr.epoch, node.slot), node))
            results = [None if t is None else t._at[1] for t in function(made)]
            nodes = tr.entries()
        finally:
            tape.local.trace = outer
        return self._translated(nodes, list(forms), results, list(refs))

    def _translated(self, nodes: Any, forms: list[Form], results: list[Any], refs: list[int]) -> Rule | None:
        first = len(forms)
        reached, stack = set(), [x for x in results if x is not None]
        while stack:
            slot = stack.pop()
            if slot not in reached:
                reached.add(slot)
                stack.extend(nodes[slot].operands)
        values: dict[int, Any] = {}  # constants, by slot
        entries: list[tuple[Kind, tuple[int, ...]]] = []
        for slot in range(first, len(nodes)):
            node = nodes[slot]
            if slot not in reached:
                forms.append(None)  # type: ignore[arg-type]
                refs.append(-1)
                continue
            kind: Kind | None
            operands = tuple([refs[x] for x in node.operands])
            source = node.operands[0] if node.operands else -1
            if node.op is tape.CONSTANT:
                kind, address = self._fixed(node.attrs, node.dtype, True)
                values[slot], operands = node.attrs, (address,)
            elif node.op is CONVERT and source in values:
                kind, address = self._fixed(values[source], node.dtype, False)
                operands = (address,)
            elif node.op is CONVERT and forms[source].is_number and forms[source].weak:
                kind = self.number(CONVERT, node.dtype, False)
            elif type(node.op) is tape.Marker or (node.op is CONVERT and forms[source].is_number):
                return None  # a number that is converted twice would be rounded twice
            else:
                kind = self._computed(node, tuple([forms[x] for x in node.operands]))
            if kind is None:
                return None
            entries.append((kind, operands))
            forms.append(kind.form)
            refs.append(LOCAL + len(entries) - 1)
        return Rule(entries, [-1 if x is None else refs[x] for x in results])

    def find(self, key: Any, op: Any, forms: Sequence[Form], attrs: Any, enabled: bool) -> Rule:
        """The rule for recording an operation, noted under its key; one without results if drafts can't hold it."""
        rule = self.rule(op, forms, attrs, enabled)
        if rule is None:
            rule = _UNSUPPORTED
        elif len(rule.entries) == 1 and rule.entries[0][0].what in (
            VIEW,
            COMPUTED,
        ):  # it reads the operands as they come
            rule.simple = rule.entries[0][0]
        self.rules[key] = rule
        return rule

    # ---- gradients

    def prepare(self, numbers: set[int]) -> None:
        """Fill in, for kinds that a graph is kept of, what their gradient rules read and what stands for a kept value."""
        for number in numbers - self._prepared:
            kind = self.by_number[number]
            form = kind.form
            mask = sum([1 << ref - 1 for ref in self.saved(kind)])
            stands = self.leaf(form.shape, form.dtype, False, form.strides).number
            beneath = self.leaf((1,), form.dtype, False, None).number if form.strides is not None else 0
            self.kinds[KIND * number + 9 : KIND * number + 12] = array("q", (mask, stands, beneath))
            self._prepared.add(number)

    def saved(self, kind: Kind) -> tuple[int, ...]:
        """Which values the gradient rule of a kind reads."""
        found = kind.saves
        if found is None:
            is_made = kind.requires_grad and kind.what in (VIEW, COMPUTED)
            names = reads(kind.op, kind.forms, kind, kind.attrs) if is_made else ()
            found = kind.saves = tuple([OWN if n == "y" else FIRST + ord(n) - ord("a") for n in sorted(names)])
        return found

    def add_adjoint(self, x: int, y: int) -> bool:
        """Note the gradient rule of kind x for a gradient of form y; False if drafts can't hold it."""
        kind, g = self.by_number[x], self._by_number[y]
        own = kind.form
        forms = [g, own, *kind.forms]

        def function(tensors: list[Any]) -> list[Any]:
            made = kind.op.gradients(tensors[0], tensors[1], tensors[2:], kind.attrs)
            return [
                sum_to(t, f.shape) if t is not None and f.requires_grad else None
                for t, f in zip(made, kind.forms, strict=False)
            ]

        rule = self._recorded(forms, function, range(len(forms)), False)
        return rule is not None and self._note((x << 31 | y) << 1, rule, bool(self.saved(kind)))

    def add_sum(self, x: int, y: int) -> bool:
        """Note the sum of two parts of a gradient, of forms x and y; False if drafts can't hold it."""
        forms = [self._by_number[x], self._by_number[y]]
        rule = self._recorded(forms, lambda parts: [tape.apply(add, parts)], range(2), False)
        return rule is not None and self._note((x << 31 | y) << 1 | 1, rule, False)

    def _note(self, key: int, rule: Rule, is_reader: bool) -> bool:
        if any([kind.what == NUMBER for kind, _ in rule.entries]):
            return False
        place = len(self.adjoints)
        outs = [*rule.outs, -1, -1, -1][:OPERANDS]
        self.adjoints.extend((len(rule.entries), is_reader, *outs))
        for kind, operands in rule.entries:
            self.adjoints.extend((kind.number, *operands, *(0,) * (OPERANDS - len(operands))))
        if 4 * self.filled > len(self.index):
            old = self.index
            self.index = array("q", bytes(16 * len(old)))
            for i in range(0, len(old), 2):
                if old[i]:
                    self._insert(old[i], old[i + 1])
        self._insert(key, place)
        self.filled += 1
        return True

    def _insert(self, key: int, place: int) -> None:
        mask = len(self.index) // 2 - 1
        at = key * 11400714819323199 & mask
        while self.index[2 * at]:
            at = (at + 1) & mask
        self.index[2 * at], self.index[2 * at + 1] = key, place


def _node(op: Any, attrs: Any, shape: Any, dtype: Any, requires_grad: bool, name: str | None = None) -> tape.Node:
    node = tape.Node(None, op, (), attrs, True)
    node.shape, node.dtype, node.requires_grad, node.numel = shape, dtype, requires_grad, tape.count(shape)
    node.name = name
    return node
