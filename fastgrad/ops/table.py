"""The rows of the operation table: what an operation declares, and how it is inferred and recorded.

An `Elementwise` row is a scalar rule and a gradient rule. An `ArrayOperation` declares a shape rule, a lowering to kernels and
a gradient rule. A `View` declares a shape rule and what it does to strides; it moves no data. Gradient rules get
`g, y, a, b, ...` (and the attributes last, if the row has any) and return one gradient an operand, None where there is none.
Rules are run with Tensors while gradients are recorded; which operands' values they read follows from the entries they make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import dtypes
from .. import recording as tape
from ..dtypes import FLOAT
from .symbol import FUNCTIONS, read

OPERATIONS: dict[str, Operation] = {}
BY_CODE: list[Operation] = []

Shape = tuple[int, ...]
Label = str | Callable[..., str] | None  # what `grad_fn` shows: a text, or a function of the operands' nodes


class Operation:
    """One row."""

    kind = "array"
    fallible: Fault | None = None  # the error that its kernel may find

    def __init__(self, name: str, gradient: Callable[..., Any] | None, label: Label) -> None:
        if name in OPERATIONS:
            raise ValueError(f"operation {name} is declared twice")
        self.name = name
        self.gradient = gradient
        self.label_of = label if callable(label) else None
        self.label = label if isinstance(label, str) else name.replace("_", " ").title().replace(" ", "")
        self.code = len(BY_CODE)
        OPERATIONS[name] = self
        BY_CODE.append(self)

    def __repr__(self) -> str:
        return f"<operation {self.name}>"

    def __call__(self, *operands: Any, attrs: Any = None) -> Any:
        """Record the operation on tensors; Python numbers become constants or inputs."""
        return tape.apply(self, [x if hasattr(x, "_at") else tape.scalar(x) for x in operands], attrs)

    def record(
        self, tr: tape.Trace, key: Any, slots: tuple[int, ...], metas: Sequence[tape.Node], attrs: Any
    ) -> tape.Node:
        """Infer, and make the entry's node (after nodes of conversions, if the operands need any)."""
        raise NotImplementedError

    def differentiable(self, tr: tape.Trace, metas: Sequence[tape.Node], dtype: dtypes.dtype) -> bool:
        """Whether the entry will have a gradient."""
        return (
            tr.grad_enabled
            and self.gradient is not None
            and dtype.category == FLOAT
            and any([m.requires_grad for m in metas])
        )

    def gradients(self, g: Any, y: Any, operands: Sequence[Any], attrs: Any) -> Sequence[Any]:
        """One gradient an operand, recorded by the rule."""
        assert self.gradient is not None
        return self.gradient(g, y, *operands) if attrs is None else self.gradient(g, y, *operands, attrs)


def broadcast(name: str, shapes: Sequence[Shape]) -> Shape:
    """The shape that shapes broadcast to; the error names the operation."""
    longest = max(len(s) for s in shapes)
    result = [1] * longest
    for shape in shapes:
        lead = longest - len(shape)
        for i, size in enumerate(shape):
            if size != 1 and result[lead + i] != size:
                if result[lead + i] != 1:
                    listed = " and ".join(str(list(s)) for s in shapes)
                    raise RuntimeError(
                        f"{name}: the size of tensor a ({result[lead + i]}) must match the size of tensor b ({size}) at "
                        f"non-singleton dimension {lead + i}; the shapes {listed} do not broadcast"
                    )
                result[lead + i] = size
    return tuple(result)


class Elementwise(Operation):
    """y[i] = rule(a[i], b[i], ...), operands broadcast.

    `types` says what it computes in: "any" the promoted type, "float" a floating-point type, "compare" the promoted type with
    a bool result, "logical" bool operands and result, "test" one operand with a bool result, "where" (bool, promoted,
    promoted), "scaled" (promoted, promoted, a number in their type), "count" the promoted type with bool as int64. The others
    are the promoted type and refuse what PyTorch refuses: "number" bool, "signed" (and "scaled signed") any bool operand, "bits" floats, "bits number" both.
    `neutral_ones` are the operands that, where they are 1, make the result the other operand, bit for bit.
    """

    kind = "elementwise"

    def __init__(
        self,
        name: str,
        rule: Callable[..., Any],
        gradient: Callable[..., Any] | None,
        types: str,
        label: Label,
        neutral_ones: tuple[int, ...] = (),
    ) -> None:
        super().__init__(name, gradient, label)
        self.rule = rule
        self.neutral_ones = neutral_ones
        self.types = types
        self._texts: dict[tuple[str, ...], str] = {}

    def text(self, codes: tuple[str, ...]) -> str:
        """The rule as source over operand names."""
        found = self._texts.get(codes)
        if found is None:
            found = self._texts[codes] = read(self.rule, codes).text
        return found

    def compute_type(self, metas: Sequence[tape.Node]) -> dtypes.dtype:
        """The type that the rule computes in; raises for operands that the operation does not take."""
        first = metas[0]
        if len(metas) == 1:
            common = first.dtype if not first.weak else dtypes.result_type([(first.dtype, True, True)])
        else:
            second = metas[1]
            if first.dtype is second.dtype and not first.weak and not second.weak:
                common = first.dtype
            else:
                common = dtypes.result_type([(m.dtype, not m.shape, m.weak) for m in metas])
        types = self.types
        if types == "float" and common.category != FLOAT:
            return dtypes.get_default_dtype()
        if types == "logical":
            return dtypes.bool_
        if types == "count" and common is dtypes.bool_:
            return dtypes.int64
        if ("number" in types and common is dtypes.bool_) or ("bits" in types and common.category == FLOAT):
            raise NotImplementedError(f'"{self.name}" not implemented for {common}; convert the operands first')
        if "signed" in types and any([m.dtype is dtypes.bool_ for m in metas]):
            raise RuntimeError(
                f"{self.name}: not supported with a bool tensor; to invert a mask, use the `~` or `logical_not()` operator instead"
            )
        return common

    def _wanted(self, metas: Sequence[tape.Node]) -> list[dtypes.dtype]:
        """The types that the operands are converted to."""
        if self.types == "where":
            common = self.compute_type(metas[1:])
            return [dtypes.bool_, common, common]
        if "scaled" in self.types:
            common, factor = self.compute_type(metas[:2]), metas[2].dtype
            if factor.category == FLOAT and common.category != FLOAT:
                raise RuntimeError(
                    f"{self.name}: For integral input tensors, argument alpha must not be a floating point number."
                )
            if factor is dtypes.bool_ and common is not dtypes.bool_:
                raise RuntimeError(f"{self.name}: Boolean alpha only supported for Boolean results.")
            return [common] * 3
        return [self.compute_type(metas)] * len(metas)

    def record(
        self, tr: tape.Trace, key: Any, slots: tuple[int, ...], metas: Sequence[tape.Node], attrs: Any
    ) -> tape.Node:
        shape = metas[0].shape
        if len(metas) > 1:
            for m in metas:
                if m.shape != shape:
                    shape = broadcast(self.name, [m.shape for m in metas])
                    break
        wanted = self._wanted(metas)
        result = dtypes.bool_ if self.types in ("compare", "logical", "test") else wanted[-1]
        label = self.label_of(*metas) if self.label_of is not None else None
        slots, metas = convert(tr, slots, metas, wanted)
        node = tape.extend(
            tr, (self.code, *slots), self, slots, attrs, shape, result, self.differentiable(tr, metas, result)
        )
        if label is not None:
            node.name = label
        return node


class Convert(Operation):
    """y = a converted to the dtype in the attributes."""

    kind = "convert"

    def record(
        self, tr: tape.Trace, key: Any, slots: tuple[int, ...], metas: Sequence[tape.Node], attrs: Any
    ) -> tape.Node:
        m = metas[0]
        return tape.extend(tr, key, self, slots, attrs, m.shape, attrs, self.differentiable(tr, metas, attrs))


def convert(
    tr: tape.Trace, slots: tuple[int, ...], metas: Sequence[tape.Node], wanted: Sequence[dtypes.dtype]
) -> tuple[tuple[int, ...], Sequence[tape.Node]]:
    """Record the conversions that operands need, and return the operands to use."""
    if all([m.dtype is w and not m.weak for m, w in zip(metas, wanted, strict=True)]):
        return slots, metas
    new_slots, new_metas = [], []
    for slot, meta, dtype in zip(slots, metas, wanted, strict=True):
        if meta.dtype is not dtype or meta.weak:
            known = tr.constants.get((slot, dtype)) if meta.weak else None
            if known is None:
                known = CONVERT.record(tr, (CONVERT.code, slot, dtype), (slot,), [meta], dtype)
                if meta.weak:
                    tr.constants[slot, dtype] = known
            meta, slot = known, known.slot
        new_slots.append(slot)
        new_metas.append(meta)
    return tuple(new_slots), new_metas


class View(Operation):
    """A tensor's elements under another shape. `infer(shape, attrs)` gives the shape or raises; `move(shape, strides, attrs)`
    gives the strides and the added offset, or None if the elements have to be copied first."""

    kind = "view"

    def __init__(
        self,
        name: str,
        infer: Callable[[Shape, Any], Shape],
        move: Callable[[Shape, Shape, Any], tuple[Shape, int] | None],
        gradient: Callable[..., Any],
        label: Label = None,
    ) -> None:
        super().__init__(name, gradient, label)
        self.infer = infer
        self.move = move

    def record(
        self, tr: tape.Trace, key: Any, slots: tuple[int, ...], metas: Sequence[tape.Node], attrs: Any
    ) -> tape.Node:
        m = metas[0]
        shape = self.infer(m.shape, attrs)
        return tape.extend(tr, key, self, slots, attrs, shape, m.dtype, self.differentiable(tr, metas, m.dtype))


class Fault:
    """What may be wrong with the values of an operand, which shows only when the program runs.

    `operand` is its place among the operands; `check(emit, node, number)` writes a record that puts `number + 1` and two more words
    into the error cell if something is wrong; `error(node, word, word)` is the exception that tells it, without its line.
    """

    def __init__(
        self, operand: int, check: Callable[[Any, Any, int], None], error: Callable[[Any, int, int], Exception]
    ) -> None:
        self.operand, self.check, self.error = operand, check, error


class ArrayOperation(Operation):
    """An operation with a kernel of its own.

    `infer(metas, attrs)` gives shape and dtype or raises; `lower(emit, y, operands, attrs)` writes its records with the
    planner's assembler; `promote` converts the operands to their common type first; `fallible` says what error its kernel may report;
    `in_place` ones build y upon their first operand's memory when that is no longer needed.
    """

    def __init__(
        self,
        name: str,
        infer: Callable[..., tuple[Shape, dtypes.dtype]],
        lower: Callable[..., None],
        gradient: Callable[..., Any] | None,
        label: Label = None,
        promote: bool = False,
        fallible: Fault | None = None,
        in_place: bool = False,
    ) -> None:
        super().__init__(name, gradient, label)
        self.infer = infer
        self.lower = lower
        self.promote = promote
        self.fallible = fallible
        self.in_place = in_place

    def record(
        self, tr: tape.Trace, key: Any, slots: tuple[int, ...], metas: Sequence[tape.Node], attrs: Any
    ) -> tape.Node:
        if self.promote:
            common = dtypes.result_type([(m.dtype, not m.shape, m.weak) for m in metas])
            slots, metas = convert(tr, slots, metas, [common] * len(metas))
        shape, dtype = self.infer(metas, attrs)
        if slots != key[1 : 1 + len(slots)]:
            key = (self.code, *slots) if attrs is None else (self.code, *slots, attrs)
        return tape.extend(tr, key, self, slots, attrs, shape, dtype, self.differentiable(tr, metas, dtype))


def elementwise(
    name: str,
    rule: Callable[..., Any],
    gradient: Callable[..., Any] | None = None,
    types: str = "any",
    label: Label = None,
    neutral_ones: tuple[int, ...] = (),
) -> Elementwise:
    """Declare an elementwise operation; it becomes the Tensor reading of the rule function of its name."""
    op = Elementwise(name, rule, gradient, types, label, neutral_ones)
    if name in FUNCTIONS:
        FUNCTIONS[name].tensor = op
    return op


CONVERT: Convert = Convert("to", lambda g, y, a, k: (CONVERT(g, attrs=a.dtype),), "ToCopy")


_READS: dict[Any, frozenset[str]] = {}


def reads(op: Operation, metas: Sequence[Any], y: Any, attrs: Any) -> frozenset[str]:
    """Which of the values `a, b, c, d, y` the gradient rule reads, for operands that require gradients."""
    if op.kind == "elementwise":  # what its rule reads does not depend on shapes
        key: Any = (op, *[m.requires_grad for m in metas])
    else:
        key = (op, tuple([(m.shape, m.dtype, m.requires_grad) for m in metas]), attrs)
    found = _READS.get(key)
    if found is None:
        from .. import reverse

        if len(_READS) > 20_000:
            _READS.clear()
        found = _READS[key] = reverse.values_read(op, metas, y, attrs)
    return found
