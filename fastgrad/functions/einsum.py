"""Einstein's sums of products: an equation in letters becomes permutations, sums, and one matrix product a pair of operands.

Operands are contracted from the left. For each pair, letters fall into four groups: in both and still needed (batches), in both
and not needed any more (summed by the product), in one only (rows, columns). The product is one call over all batches.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .. import recording as tape
from ..dispatch import composite, tensor_operand
from ..ops import arrays
from ..ops.elementwise import mul
from .products import diagonal

if TYPE_CHECKING:
    from ..tensor import Tensor

Label = str | int  # a letter, or a dimension of the ellipsis counted from the right (0 the last)


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products by the names of dimensions, as `torch.einsum`.

    equation: a letter a dimension for each operand, parted by commas; after `->` those of the result, in its order. A letter that
    the result lacks is summed over; one that stands twice in an operand takes its diagonal; `...` stands for dimensions
    without names, which broadcast. Without `->` the result has the letters that occur once, in alphabetical order, after the
    ellipsis. Also as `einsum(a, [0, 1], b, [1, 2], [0, 2])`. RuntimeError if the equation does not fit the operands.

    >>> a, b = fastgrad.ones(2, 3), fastgrad.ones(3, 4)
    >>> fastgrad.einsum("ij,jk->ik", a, b).shape
    fastgrad.Size([2, 4])
    >>> fastgrad.einsum("ii", fastgrad.eye(3))
    tensor(3.)
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not operands:
        raise RuntimeError("einsum(): must provide at least one operand")
    for x in operands:
        tensor_operand(x, "einsum")
    return _einsum(equation, tuple(operands))


def _from_lists(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The form `a, [0, 1], b, [1, 2], [0, 2]` as an equation."""

    def text(sublist: Sequence[Any]) -> str:
        letters = string.ascii_uppercase + string.ascii_lowercase
        if any([x is not Ellipsis and not (isinstance(x, int) and 0 <= x < 52) for x in sublist]):
            raise RuntimeError(f"einsum(): subscripts in a list must be 0 to 51 or Ellipsis, got {list(sublist)}")
        return "".join(["..." if x is Ellipsis else letters[x] for x in sublist])

    pairs = len(arguments) // 2
    if not pairs or not all([isinstance(x, (list, tuple)) for x in arguments[1::2]]):
        raise TypeError("einsum(): expected an equation, or operands each followed by a list of subscripts")
    equation = ",".join([text(arguments[2 * i + 1]) for i in range(pairs)])
    if len(arguments) % 2:
        equation += "->" + text(arguments[-1])
    return equation, arguments[: 2 * pairs : 2]


@composite("Einsum")
def _einsum(equation: str, operands: tuple[Tensor, ...]) -> Tensor:
    terms, output = _parse(equation, tuple([len(x.shape) for x in operands]))
    sizes = _sizes(terms, operands)
    factors = [_plain(x, labels, sizes) for x, labels in zip(operands, terms, strict=True)]
    value, labels = factors[0]
    value, labels = _summed(value, labels, {x for _, other in factors[1:] for x in other} | set(output))
    for i, (right, names) in enumerate(factors[1:], 2):
        needed = {x for _, other in factors[i:] for x in other} | set(output)
        right, names = _summed(right, names, needed | set(labels))
        value, labels = _summed(value, labels, needed | set(names))
        value, labels = _contracted(value, labels, right, names, needed)
    missing = [x for x in output if x not in labels]  # all operands have size one there
    if missing:
        labels = [*labels, *missing]
        value = value.reshape(*value.shape, *[1] * len(missing))
    return _permuted(value, labels, output)


@lru_cache(maxsize=4096)
def _parse(equation: str, dimensions: tuple[int, ...]) -> tuple[list[list[Label]], list[Label]]:
    """The labels of each operand's dimensions, and those of the result."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(dimensions):
        few = "fewer" if len(texts) > len(dimensions) else "more"
        raise RuntimeError(
            f"einsum(): {few} operands were provided than specified in the equation {equation!r}: {len(dimensions)} "
            f"operands, {len(texts)} terms"
        )
    terms = [_labels(equation, text, n, i) for i, (text, n) in enumerate(zip(texts, dimensions, strict=True))]
    rest = max([sum([isinstance(x, int) for x in term]) for term in terms])
    ellipsis: list[Label] = list(range(rest - 1, -1, -1))
    if not arrow:
        letters = [x for term in terms for x in term if isinstance(x, str)]
        return terms, ellipsis + sorted([x for x in set(letters) if letters.count(x) == 1])
    known = {x for term in terms for x in term}
    output = _labels(equation, right, len(right.replace("...", "")) + (rest if "..." in right else 0), None)
    for x in output:
        if isinstance(x, str) and output.count(x) > 1:
            raise RuntimeError(f"einsum(): output subscript {x} appears more than once in the output of {equation!r}")
        if isinstance(x, str) and x not in known:
            raise RuntimeError(
                f"einsum(): output subscript {x} does not appear in the equation {equation!r} for any input operand"
            )
    return terms, output


def _labels(equation: str, text: str, dimensions: int, operand: int | None) -> list[Label]:
    before, dots, after = text.partition("...")
    for letter in before + after:
        if letter not in string.ascii_letters:
            raise RuntimeError(
                f"einsum(): invalid subscript {letter!r} in the equation {equation!r}, subscripts must be in [a-zA-Z]"
            )
    rest = dimensions - len(before) - len(after)
    if rest < 0 or (rest and not dots):
        why = "" if dots else " and no ellipsis was given"
        raise RuntimeError(
            f"einsum(): the number of subscripts in the equation ({len(before + after)}) does not match the number of "
            f"dimensions ({dimensions}) for operand {operand}{why}: {equation!r}"
        )
    return [*before, *range(rest - 1, -1, -1), *after]


def _sizes(terms: list[list[Label]], operands: Sequence[Tensor]) -> dict[Label, int]:
    """The size of each label; sizes of one broadcast."""
    sizes: dict[Label, int] = {}
    for i, (term, x) in enumerate(zip(terms, operands, strict=True)):
        for label, n in zip(term, x.shape, strict=True):
            seen = sizes.setdefault(label, n)
            if seen == 1:
                sizes[label] = n
            elif n not in (1, seen):
                name = f"subscript {label}" if isinstance(label, str) else "a dimension of the ellipsis"
                raise RuntimeError(
                    f"einsum(): {name} has size {n} for operand {i} which does not broadcast with previously seen size {seen}"
                )
    return sizes


def _plain(x: Tensor, term: list[Label], sizes: dict[Label, int]) -> tuple[Tensor, list[Label]]:
    """An operand without repeated labels, and without dimensions that only broadcast."""
    labels = list(term)
    for label in term:
        while labels.count(label) > 1:
            i = labels.index(label)
            k = labels.index(label, i + 1)
            if x.shape[i] != x.shape[k]:
                raise RuntimeError(
                    f"einsum(): subscript {label} is repeated for an operand but the sizes don't match, "
                    f"{x.shape[k]} != {x.shape[i]}"
                )
            x = diagonal(x, 0, i, k)
            labels = [y for j, y in enumerate(labels) if j not in (i, k)] + [label]
    kept = [i for i, y in enumerate(labels) if x.shape[i] == sizes[y] and x.shape[i] != 1]
    if len(kept) < len(labels):
        x = x.reshape([x.shape[i] for i in kept])
        labels = [labels[i] for i in kept]
    return x, labels


def _summed(x: Tensor, labels: list[Label], needed: set[Label]) -> tuple[Tensor, list[Label]]:
    """Summed over the labels that nobody needs."""
    gone = tuple([i for i, y in enumerate(labels) if y not in needed])
    if gone:
        x = tape.apply(arrays.sum, (x,), gone)
        labels = [y for y in labels if y in needed]
    return x, labels


def _contracted(
    a: Tensor, a_labels: list[Label], b: Tensor, b_labels: list[Label], needed: set[Label]
) -> tuple[Tensor, list[Label]]:
    """The product of two operands, summed over what both have and nobody needs."""
    batch = [x for x in a_labels if x in b_labels and x in needed]
    inner = [x for x in a_labels if x in b_labels and x not in needed]
    rows = [x for x in a_labels if x not in b_labels]
    columns = [x for x in b_labels if x not in a_labels]
    size = dict(zip([*a_labels, *b_labels], [*a.shape, *b.shape], strict=True))
    shape = [size[x] for x in (*batch, *rows, *columns)]
    result = batch + rows + columns
    if not inner:  # nothing to sum: numbers side by side
        left = _permuted(a, a_labels, batch + rows).reshape([size[x] for x in batch + rows] + [1] * len(columns))
        right = _permuted(b, b_labels, batch + columns)
        right = right.reshape([size[x] for x in batch] + [1] * len(rows) + [size[x] for x in columns])
        return mul(left, right), result
    number = [tape.count([size[x] for x in group]) for group in (batch, rows, inner, columns)]
    left = _permuted(a, a_labels, batch + rows + inner).reshape(([number[0]] if batch else []) + number[1:3])
    right = _permuted(b, b_labels, batch + inner + columns).reshape(([number[0]] if batch else []) + number[2:])
    return tape.apply(arrays.matmul, (left, right)).reshape(shape), result


def _permuted(x: Tensor, labels: Sequence[Label], wanted: Sequence[Label]) -> Tensor:
    if list(labels) == list(wanted):
        return x
    return x.permute([labels.index(y) for y in wanted])
