"""Rows with a shape rule and kernels of their own: views, reductions, products, gathers, random numbers.

`lower(emit, y, operands, attrs)` writes records with the planner's assembler (`plan.assemble.Assembler`): slots in, references
to memory out. Reductions see their operand as (outer, reduced, inner); positions are int64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import recording as tape
from ..dtypes import bool_, int64
from ..kernels import gather as gather_kernels
from ..kernels import random as random_kernels
from ..kernels import reduce as reduce_kernels
from ..recording import count
from . import products
from .elementwise import eq
from .symbol import where, zero
from .table import CONVERT, ArrayOperation, Fault, Shape, View, broadcast


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """Row-major element strides."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(shape[i + 1], 1)
    return tuple(strides)


# ---- views


def reshape_strides(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """The strides of the same memory under another shape, or None if it would have to be copied."""
    if count(shape) == 0:
        return contiguous_strides(new)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[int] = []
    i = 0
    for size in reversed(new):
        if size == 1:
            result.append(result[-1] if result else 1)
            continue
        need = size
        if not old:
            return None
        # take from the innermost group of old dimensions that run on without a gap
        n, s = old[-1]
        if n == need:
            old.pop()
            result.append(s)
        elif n % need == 0:
            old[-1] = (n // need, s * need)
            result.append(s)
        else:
            step, total = s, n
            old.pop()
            while total < need or total % need:
                if not old:
                    return None
                n2, s2 = old.pop()
                if s2 != step * total:
                    return None
                total *= n2
            result.append(step)
            if total != need:
                old.append((total // need, step * need))
        i += 1
    return tuple(reversed(result))


def _reshape_shape(shape: Shape, new: Shape) -> Shape:
    return new


def _permute(shape: Shape, strides: Shape, dims: Shape) -> tuple[Shape, int]:
    return tuple([strides[d] for d in dims]), 0


def _inverse(dims: Shape) -> Shape:
    return tuple(sorted(range(len(dims)), key=dims.__getitem__))


def _expand_shape(shape: Shape, new: Shape) -> Shape:
    return new


def _expand(shape: Shape, strides: Shape, new: Shape) -> tuple[Shape, int]:
    lead = len(new) - len(shape)
    moved = [0 if (n == 1 and m != 1) else s for n, s, m in zip(shape, strides, new[lead:], strict=True)]
    return (0,) * lead + tuple(moved), 0


def _slice_shape(shape: Shape, parts: Any) -> Shape:
    return tuple([p[2] for p in parts if not isinstance(p, int)])


def _slice(shape: Shape, strides: Shape, parts: Any) -> tuple[Shape, int]:
    """One part a dimension: (start, step, size), or a position, which removes the dimension."""
    offset, moved = 0, []
    for p, s in zip(parts, strides, strict=True):
        if isinstance(p, int):
            offset += p * s
        else:
            offset += p[0] * s
            moved.append(p[1] * s)
    return tuple(moved), offset


def sum_to(g: Any, shape: Shape) -> Any:
    """Add up a broadcast gradient to the shape of its operand."""
    if g.shape == shape:
        return g
    lead = len(g.shape) - len(shape)
    dims = tuple(range(lead)) + tuple([i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1])
    if dims:
        g = sum(g, attrs=dims)
    return g if g.shape == shape else reshape(g, attrs=shape)


def full_like(a: Any, value: float, shape: Shape | None = None) -> Any:
    """A constant of a's dtype, expanded to a's shape (or another)."""
    number = tape.constant(value)
    if a.dtype is not number.dtype:
        number = CONVERT(number, attrs=a.dtype)
    return expand(number, attrs=a.shape if shape is None else shape)


zero.tensor = lambda g: full_like(g, 0.0)


def _scatter_geometry(a: Any, parts: Any) -> tuple[Shape, Shape | None, int]:
    strides, offset = _slice(a.shape, contiguous_strides(a.shape), parts)
    return _slice_shape(a.shape, parts), strides, offset


def _unstride(g: Any, a: Any, geometry: Any) -> Any:
    shape, strides, offset = geometry
    if strides is not None:
        repeated = tuple([i for i, (n, s) in enumerate(zip(shape, strides, strict=True)) if s == 0 and n > 1])
        if repeated:
            g = sum(g, attrs=repeated)
            kept = [i for i in range(len(shape)) if i not in repeated]
            shape, strides = tuple([shape[i] for i in kept]), tuple([strides[i] for i in kept])
    return as_strided_scatter(full_like(a, 0.0), g, attrs=(shape, strides, offset))


# Views that do the same under several names (`unsqueeze` is a reshape) have a row each: the names appear in `grad_fn`.


def _reshaping(name: str, label: str | None = None) -> View:
    return View(
        name,
        _reshape_shape,
        lambda shape, strides, new: None if (s := reshape_strides(shape, strides, new)) is None else (s, 0),
        lambda g, y, a, k: (reshape(g, attrs=a.shape),),
        label,
    )


def _permuting(name: str, label: str | None = None) -> View:
    return View(
        name,
        lambda shape, dims: tuple([shape[d] for d in dims]),
        _permute,
        lambda g, y, a, k: (permute(g, attrs=_inverse(k)),),
        label,
    )


def _slicing(name: str) -> View:
    return View(
        name,
        _slice_shape,
        _slice,
        lambda g, y, a, k: (as_strided_scatter(full_like(a, 0.0), g, attrs=_scatter_geometry(a, k)),),
    )


reshape, unsqueeze = _reshaping("reshape", "View"), _reshaping("unsqueeze")
squeeze, squeeze_dim = _reshaping("squeeze"), _reshaping("squeeze_dim", "SqueezeBackward1")
permute, swap, t = _permuting("permute"), _permuting("transpose"), _permuting("t")
expand = View("expand", _expand_shape, _expand, lambda g, y, a, k: (sum_to(g, a.shape),))
slice_, select = _slicing("slice"), _slicing("select")


def _diagonal_shape(shape: Shape, k: tuple[int, int, int]) -> Shape:
    offset, dim1, dim2 = k
    length = min(shape[dim1] + min(offset, 0), shape[dim2] - max(offset, 0))
    return (*[n for d, n in enumerate(shape) if d not in (dim1, dim2)], max(length, 0))


def _diagonal(shape: Shape, strides: Shape, k: tuple[int, int, int]) -> tuple[Shape, int]:
    offset, dim1, dim2 = k
    start = offset * strides[dim2] if offset >= 0 else -offset * strides[dim1]
    rest = [s for d, s in enumerate(strides) if d not in (dim1, dim2)]
    return (*rest, strides[dim1] + strides[dim2]), start if _diagonal_shape(shape, k)[-1] else 0


def _diagonal_geometry(a: Any, k: tuple[int, int, int]) -> tuple[Shape, Shape, int]:
    return (_diagonal_shape(a.shape, k), *_diagonal(a.shape, contiguous_strides(a.shape), k))


diagonal = View(  # attrs: how far to the right of the main one, and the dimensions of rows and of columns
    "diagonal",
    _diagonal_shape,
    _diagonal,
    lambda g, y, a, k: (as_strided_scatter(full_like(a, 0.0), g, attrs=_diagonal_geometry(a, k)),),
)


class AsStrided(View):
    """Shape, strides and offset upon a contiguous tensor: how a tensor sees its memory again after another one wrote to it."""

    def record_value(self, tr: tape.Trace, slot: int, geometry: Any, detached: bool) -> tape.Node:
        meta = tr.entries()[slot]
        key = (self.code, slot, geometry, detached)
        requires = meta.requires_grad and not detached
        return tape.extend(tr, key, self, (slot,), geometry, geometry[0], meta.dtype, requires)


as_strided = AsStrided(
    "as_strided",
    lambda shape, k: k[0],
    lambda shape, strides, k: (k[1] if k[1] is not None else contiguous_strides(k[0]), k[2]),
    lambda g, y, a, k: (_unstride(g, a, k),),
)
tape.AS_STRIDED = as_strided
# the first operand's value with the second one's history: what a tensor is after its memory was written without gradients
rewritten = View(
    "rewritten", lambda shape, k: shape, lambda shape, strides, k: (strides, 0), lambda g, y, a, b: (None, g)
)
tape.REWRITTEN = rewritten
# the result of a user-defined Function: its first operand's value, with the other operands behind it
function = View("function", lambda shape, k: shape, lambda shape, strides, k: (strides, 0), lambda g, y, *rest: (g,))
detach = View("detach", lambda shape, k: shape, lambda shape, strides, k: (strides, 0), None)  # type: ignore[arg-type]


def _lower_scatter(emit: Any, y: int, operands: tuple[int, ...], attrs: Any) -> None:
    base, value = operands
    shape, strides, offset = attrs
    target = emit.upon(y, base)
    if count(shape):
        source = emit.contiguous(value)
        emit.store(target, offset, shape, strides or contiguous_strides(shape), source, emit.code(y))


as_strided_scatter: ArrayOperation = ArrayOperation(
    "as_strided_scatter",
    lambda metas, k: (metas[0].shape, metas[0].dtype),
    _lower_scatter,
    lambda g, y, a, b, k: (
        as_strided_scatter(g, full_like(g, 0.0, b.shape), attrs=k),
        as_strided(g, attrs=k),
    ),
    label="CopySlices",
    in_place=True,
)


# ---- joining


def _cat_infer(metas: Sequence[Any], dim: int) -> tuple[Shape, Any]:
    first = metas[0].shape
    total = 0
    for i, m in enumerate(metas):
        if len(m.shape) != len(first):
            raise RuntimeError(f"cat: Tensors must have same number of dimensions: got {len(first)} and {len(m.shape)}")
        for d, (p, q) in enumerate(zip(first, m.shape, strict=True)):
            if d != dim and p != q:
                raise RuntimeError(
                    f"cat: Sizes of tensors must match except in dimension {dim}. Expected size {p} but got size {q} "
                    f"for tensor number {i} in the list."
                )
        total += m.shape[dim]
    return (*first[:dim], total, *first[dim + 1 :]), metas[0].dtype


def _cat_lower(emit: Any, y: int, operands: tuple[int, ...], dim: int) -> None:
    shape = emit.shape(y)
    strides = contiguous_strides(shape)
    target = emit.out(y)
    start = 0
    for slot in operands:
        part = emit.shape(slot)
        if count(part):
            emit.store(target, start * strides[dim], part, strides, emit.contiguous(slot), emit.code(y))
        start += part[dim]


def _cat_gradient(g: Any, y: Any, *rest: Any) -> list[Any]:
    *operands, dim = rest
    start, parts = 0, []
    for a in operands:
        cut = tuple([(start, 1, a.shape[d]) if d == dim else (0, 1, n) for d, n in enumerate(g.shape)])
        parts.append(slice_(g, attrs=cut))
        start += a.shape[dim]
    return parts


cat = ArrayOperation("cat", _cat_infer, _cat_lower, _cat_gradient, promote=True)


# ---- reductions; attrs: the reduced dimensions, ascending; results have them removed


def _reduced(shape: Shape, dims: Shape) -> Shape:
    return tuple([n for i, n in enumerate(shape) if i not in dims])


def _kept(shape: Shape, dims: Shape) -> Shape:
    return tuple([1 if i in dims else n for i, n in enumerate(shape)])


def _frame(emit: Any, slot: int, dims: Shape) -> tuple[Any, tuple[int, int, int]]:
    """A contiguous operand as (outer, reduced, inner); permuted first if the reduced dimensions are not side by side."""
    shape = emit.shape(slot)
    if not dims:
        return emit.contiguous(slot), (count(shape), 1, 1)
    first, last = dims[0], dims[-1]
    if last - first + 1 == len(dims):
        return emit.contiguous(slot), (count(shape[:first]), count(shape[first : last + 1]), count(shape[last + 1 :]))
    kept = tuple([i for i in range(len(shape)) if i not in dims])
    reduced = count([shape[d] for d in dims])
    return emit.contiguous(slot, kept + dims), (count([shape[i] for i in kept]), reduced, 1)


def _sum_lower(emit: Any, y: int, operands: tuple[int, ...], dims: Shape) -> None:
    a, frame = _frame(emit, operands[0], dims)
    code = emit.code(y)
    scratch = emit.scratch(reduce_kernels.sum_scratch(frame[2])) if frame[2] > 1 else 0
    emit.record(reduce_kernels.sum_kernel(code), count(frame), emit.out(y), a, emit.table(frame), scratch)


def _expand_back(g: Any, a: Any, dims: Shape) -> Any:
    return expand(reshape(g, attrs=_kept(a.shape, dims)), attrs=a.shape)


sum = ArrayOperation(
    "sum",
    lambda metas, dims: (_reduced(metas[0].shape, dims), metas[0].dtype),
    _sum_lower,
    lambda g, y, a, dims: (_expand_back(g, a, dims),),
)


def _fold(name: str) -> Any:
    def lower(emit: Any, y: int, operands: tuple[int, ...], dims: Shape) -> None:
        a, frame = _frame(emit, operands[0], dims)
        emit.record(reduce_kernels.fold_kernel(name, emit.code(y)), count(frame), emit.out(y), a, emit.table(frame))

    return lower


def _extreme_infer(metas: Sequence[Any], dims: Shape) -> tuple[Shape, Any]:
    shape = metas[0].shape
    if any([shape[d] == 0 for d in dims]):
        text = (
            f"amax/amin: cannot take the extreme over a dimension of size 0 (shape {list(shape)}); there is no identity"
        )
        raise (RuntimeError if len(dims) == len(shape) > 1 else IndexError)(text)
    return _reduced(shape, dims), metas[0].dtype


def _extreme_gradient(g: Any, y: Any, a: Any, dims: Shape) -> tuple[Any, ...]:
    y = _expand_back(y, a, dims)
    chosen = eq(a, y) | ((a != a) & (y != y))  # a NaN is an extreme, too
    share = CONVERT(chosen, attrs=g.dtype)
    number = sum(share, attrs=dims)
    return (share * _expand_back(g / number, a, dims),)


def _products_of_others(a: Any, dims: Shape) -> Any:
    """For each element the product of the others in its group, by products of runs of doubled lengths: no quotient, so that it is right
    and can be differentiated wherever elements are zero."""
    rest = tuple([d for d in range(len(a.shape)) if d not in dims])
    order = (*rest, *dims)
    moved = permute(a, attrs=order)
    m, n = count([a.shape[d] for d in rest]), count([a.shape[d] for d in dims])
    rows = reshape(moved, attrs=(m, n))

    def running(x: Any, front: bool) -> Any:
        """The product of all elements in front of each, or behind."""
        x = _shifted(x, m, n, 1, front)
        step = 1
        while step < n:
            x = x * _shifted(x, m, n, step, front)
            step *= 2
        return x

    others = running(rows, True) * running(rows, False)
    back = [0] * len(order)
    for i, d in enumerate(order):
        back[d] = i
    return permute(reshape(others, attrs=tuple([a.shape[d] for d in order])), attrs=tuple(back))


def _shifted(x: Any, m: int, n: int, by: int, right: bool) -> Any:
    """Rows moved by some places, ones where nothing comes from."""
    ones = expand(CONVERT(tape.constant(1.0), attrs=x.dtype), attrs=(m, min(by, n)))
    if by >= n:
        return ones
    rest = slice_(x, attrs=((0, 1, m), (0 if right else by, 1, n - by)))
    return cat(*((ones, rest) if right else (rest, ones)), attrs=1)


def _prod_gradient(g: Any, y: Any, a: Any, dims: Shape) -> tuple[Any, ...]:
    if tape.local.trace.grad_enabled and a.requires_grad and count([a.shape[d] for d in dims]):
        return (_expand_back(g, a, dims) * _products_of_others(a, dims),)
    is_zero = a == 0
    zeros = _expand_back(sum(CONVERT(is_zero, attrs=a.dtype), attrs=dims), a, dims)
    others = _expand_back(prod(where(is_zero, 1, a), attrs=dims), a, dims)
    whole = _expand_back(g, a, dims)
    lone = where(zeros == 1, others, 0)
    rest = where(zeros == 0, _expand_back(y, a, dims) / where(is_zero, 1, a), 0)
    return (whole * where(is_zero, lone, rest),)


prod = ArrayOperation(
    "prod", lambda metas, dims: (_reduced(metas[0].shape, dims), metas[0].dtype), _fold("prod"), _prod_gradient
)
amax = ArrayOperation("amax", _extreme_infer, _fold("amax"), _extreme_gradient)
amin = ArrayOperation("amin", _extreme_infer, _fold("amin"), _extreme_gradient)


def _arg_infer(metas: Sequence[Any], dims: Shape) -> tuple[Shape, Any]:
    if metas[0].dtype is bool_:
        raise RuntimeError("argmax/argmin: does not support bool input; convert it with .int()")
    return _extreme_infer(metas, dims)[0], int64


def _arg(name: str) -> Any:
    def lower(emit: Any, y: int, operands: tuple[int, ...], dims: Shape) -> None:
        a, frame = _frame(emit, operands[0], dims)
        kernel = reduce_kernels.arg_kernel(name, emit.code(operands[0]))
        emit.record(kernel, count(frame), emit.out(y), a, emit.table(frame))

    return lower


argmax = ArrayOperation("argmax", _arg_infer, _arg("argmax"), None)
argmin = ArrayOperation("argmin", _arg_infer, _arg("argmin"), None)


def _running(name: str, backwards: bool, other: Callable[[], ArrayOperation]) -> ArrayOperation:
    """Running sums along a dimension, from its front or its end; the gradient of one is the other."""

    def lower(emit: Any, y: int, operands: tuple[int, ...], dim: int) -> None:
        shape = emit.shape(y)
        frame = (count(shape[:dim]), shape[dim], count(shape[dim + 1 :]))
        kernel = reduce_kernels.cumsum_kernel(emit.code(y), backwards)
        emit.record(kernel, count(shape), emit.out(y), emit.contiguous(operands[0]), emit.table(frame))

    return ArrayOperation(
        name, lambda metas, dim: (metas[0].shape, metas[0].dtype), lower, lambda g, y, a, dim: (other()(g, attrs=dim),)
    )


cumsum: ArrayOperation = _running("cumsum", False, lambda: cumsum_back)
cumsum_back: ArrayOperation = _running("cumsum_back", True, lambda: cumsum)


# ---- products


def transpose(a: Any) -> Any:
    """The last two dimensions exchanged."""
    n = len(a.shape)
    return permute(a, attrs=(*range(n - 2), n - 1, n - 2))


def lies_transposed(t: Any) -> bool:
    """Whether a matrix is another one's transpose: its gradient is then computed as that one's, without a copy."""
    m, n = t.shape[-2:]
    if m == 1 or n == 1:
        return False
    meta = t._meta
    op = getattr(meta, "op", None)
    if op is permute:
        last = len(t.shape) - 1
        return meta.attrs[-2:] == (last, last - 1)
    strides = meta.attrs[1] if op is tape.ALIAS else t._strides
    return strides is not None and strides[-2] == 1 and strides[-1] != 1


class _Product(ArrayOperation):
    def record(
        self, tr: tape.Trace, key: Any, slots: tuple[int, ...], metas: Sequence[tape.Node], attrs: Any
    ) -> tape.Node:
        node = super().record(tr, key, slots, metas, attrs)
        if len(metas[0].shape) > 2 or len(metas[1].shape) > 2:
            node.name = "Bmm"
        return node


def _matmul_infer(metas: Sequence[Any], k: Any) -> tuple[Shape, Any]:
    a, b = metas
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"matmul: expected both operands to have the same dtype, but got {a.dtype} and {b.dtype}; "
            f"convert one with .to({a.dtype})"
        )
    if a.dtype is bool_:
        raise NotImplementedError(
            f'"matmul" not implemented for {a.dtype}; convert the operands with .int() or .float()'
        )
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(
            f"matmul: mat1 and mat2 shapes cannot be multiplied ({'x'.join(map(str, a.shape))} and "
            f"{'x'.join(map(str, b.shape))}): the inner sizes {a.shape[-1]} and {b.shape[-2]} differ"
        )
    batch = broadcast("matmul", [a.shape[:-2], b.shape[:-2]]) if len(a.shape) > 2 or len(b.shape) > 2 else ()
    return (*batch, a.shape[-2], b.shape[-1]), a.dtype


def _matrix(emit: Any, slot: int, batch: Shape) -> tuple[Any, int, tuple[int, int]]:
    """Reference, batch step and (row, column) steps of an operand that BLAS can read, copied if need be."""
    shape = emit.shape(slot)
    m, n = shape[-2:]
    wanted = (*batch, m, n)
    lead = len(wanted) - len(shape)
    strides = emit.strides(slot)
    strides = (0,) * lead + tuple(
        [0 if p == 1 and q != 1 else s for p, q, s in zip(shape, wanted[lead:], strides, strict=True)]
    )
    step = reshape_strides(batch, strides[:-2], (count(batch),)) if batch else (0,)
    row, column = strides[-2:]
    if n == 1 and row == 1:
        column = max(m, 1)
    elif m == 1 and column == 1:
        row = max(n, 1)
    fits = (column == 1 and row >= max(n, 1)) or (row == 1 and column >= max(m, 1))
    if step is not None and fits:
        return emit.place(slot), step[0], (row, column)
    if step is not None and not any(strides[:-2]):
        return emit.contiguous_part(slot, (m, n), strides[-2:]), 0, (n, 1)
    return emit.contiguous_expanded(slot, wanted), m * n, (n, 1)


def _matmul_lower(emit: Any, y: int, operands: tuple[int, ...], k: Any) -> None:
    shape = emit.shape(y)
    batch, (m, n) = shape[:-2], shape[-2:]
    inner = emit.shape(operands[0])[-1]
    code = emit.code(y)
    target = emit.out(y)
    if count(shape) == 0:
        return
    if inner == 0:
        emit.fill_zero(target, count(shape), code)
        return
    a, a_step, a_steps = _matrix(emit, operands[0], batch)
    b, b_step, b_steps = _matrix(emit, operands[1], batch)
    batches = count(batch)
    if batches > 1 and b_step == 0 and a_steps == (inner, 1) and a_step == m * inner:
        m, batches = m * batches, 1  # one tall product instead of many
    products.lower(
        emit,
        code,
        target,
        products.Factor(a, a_step, *a_steps),
        products.Factor(b, b_step, *b_steps),
        m,
        n,
        inner,
        batches,
    )


matmul: ArrayOperation = _Product(
    "matmul",
    _matmul_infer,
    _matmul_lower,
    lambda g, y, a, b: (
        sum_to(matmul(g, transpose(b)), a.shape),
        sum_to(transpose(matmul(transpose(g), a)) if lies_transposed(b) else matmul(transpose(a), g), b.shape),
    ),
    label="Mm",
)


# ---- positions; attrs: the dimension


def _check_index(name: str, meta: Any) -> None:
    if meta.dtype is not int64:
        raise RuntimeError(f"{name}: expected int64 positions, got {meta.dtype}")


def _take_infer(metas: Sequence[Any], dim: int) -> tuple[Shape, Any]:
    a, index = metas
    _check_index("index_select", index)
    return (*a.shape[:dim], *index.shape, *a.shape[dim + 1 :]), a.dtype


def _positions(emit: Any, slot: int, index: int, dim: int) -> tuple[Any, tuple[int, ...]]:
    shape = emit.shape(slot)
    return emit.contiguous(index), (
        count(shape[:dim]), count(emit.shape(index)), count(shape[dim + 1 :]), shape[dim],
    )  # fmt: skip


def _check_positions(emit: Any, node: Any, number: int) -> None:
    base, positions = node.operands[:2]
    size = emit.shape(base)[node.attrs]
    least = -size if gather_kernels.wraps(node.op.name) else 0
    index, n = emit.contiguous(positions), count(emit.shape(positions))
    emit.record(gather_kernels.bounds_kernel(), number, n, index, emit.error, least, size)


def _out_of_bounds(node: Any, position: int, size: int) -> str:
    return f"{node.op.name}: index {position} is out of bounds for dimension {node.attrs} with size {size}"


# PyTorch's errors: of positions along a dimension, of positions for every element, of a loss's targets
POSITIONS = Fault(1, _check_positions, lambda node, position, size: IndexError(_out_of_bounds(node, position, size)))
ELEMENTS = Fault(1, _check_positions, lambda node, position, size: RuntimeError(_out_of_bounds(node, position, size)))
TARGETS = Fault(
    1,
    _check_positions,
    lambda node, position, size: IndexError(f"nll_loss: Target {position} is out of bounds for {size} classes"),
)


def _take_lower(name: str) -> Any:
    def lower(emit: Any, y: int, operands: tuple[int, ...], dim: int) -> None:
        index, frame = _positions(emit, operands[0], operands[1], dim)
        kernel = gather_kernels.gather_kernel(name, emit.code(y))
        emit.fallible(kernel, emit.out(y), emit.contiguous(operands[0]), index, emit.table(frame), 0)

    return lower


def _upon_lower(name: str) -> Any:
    def lower(emit: Any, y: int, operands: tuple[int, ...], dim: int) -> None:
        base, index_slot, source = operands
        if name.startswith("scatter"):
            shape, part = emit.shape(base), emit.shape(index_slot)
            index = emit.contiguous(index_slot)
            frame: tuple[int, ...] = (count(shape[:dim]), part[dim], count(shape[dim + 1 :]), shape[dim])
        else:
            index, frame = _positions(emit, base, index_slot, dim)
        values = emit.contiguous(source)
        target = emit.upon(y, base)
        kernel = gather_kernels.gather_kernel(name, emit.code(y))
        emit.fallible(kernel, target, target, index, emit.table(frame), values)

    return lower


def _upon_infer(metas: Sequence[Any], dim: int) -> tuple[Shape, Any]:
    _check_index("index_add", metas[1])
    return metas[0].shape, metas[0].dtype


def _taking(name: str, label: str | None = None) -> ArrayOperation:
    return ArrayOperation(
        name,
        _take_infer,
        _take_lower(name),
        lambda g, y, a, b, dim: (index_add(full_like(a, 0.0), b, g, attrs=dim), None),
        label,
        fallible=POSITIONS,
    )


index_select, index = _taking("index_select"), _taking("index")  # `index` lets positions count from the end
index_add = ArrayOperation(
    "index_add",
    _upon_infer,
    _upon_lower("index_add"),
    lambda g, y, a, b, c, dim: (g, None, index(g, b, attrs=dim)),
    fallible=POSITIONS,
    in_place=True,
)
index_put: ArrayOperation = ArrayOperation(  # positions given twice: the last one wins
    "index_put",
    _upon_infer,
    _upon_lower("index_put"),
    lambda g, y, a, b, c, dim: (index_put(g, b, full_like(g, 0.0, c.shape), attrs=dim), None, index(g, b, attrs=dim)),
    fallible=POSITIONS,
    in_place=True,
)


def _gather_infer(metas: Sequence[Any], dim: int) -> tuple[Shape, Any]:
    _check_index("gather", metas[1])
    return metas[1].shape, metas[0].dtype


def _gather_lower(emit: Any, y: int, operands: tuple[int, ...], dim: int) -> None:
    shape, part = emit.shape(operands[0]), emit.shape(operands[1])
    frame = (count(shape[:dim]), part[dim], count(shape[dim + 1 :]), shape[dim])
    kernel = gather_kernels.gather_kernel("gather", emit.code(y))
    index = emit.contiguous(operands[1])
    emit.fallible(kernel, emit.out(y), emit.contiguous(operands[0]), index, emit.table(frame), 0)


def _gathering(name: str, fault: Fault) -> ArrayOperation:
    return ArrayOperation(
        name,
        _gather_infer,
        _gather_lower,
        lambda g, y, a, b, dim: (scatter_add(full_like(a, 0.0), b, g, attrs=dim), None),
        fallible=fault,
    )


gather = _gathering("gather", ELEMENTS)
of_target = _gathering("of_target", TARGETS)  # what a loss takes of every row of scores
scatter_add: ArrayOperation = ArrayOperation(
    "scatter_add",
    _upon_infer,
    _upon_lower("scatter_add"),
    lambda g, y, a, b, c, dim: (g, None, gather(g, b, attrs=dim)),
    fallible=ELEMENTS,
    in_place=True,
)
scatter: ArrayOperation = ArrayOperation(
    "scatter",
    _upon_infer,
    _upon_lower("scatter"),
    lambda g, y, a, b, c, dim: (scatter(g, b, full_like(g, 0.0, c.shape), attrs=dim), None, gather(g, b, attrs=dim)),
    fallible=ELEMENTS,
    in_place=True,
)


# ---- divisors


def _check_divisor(emit: Any, node: Any, number: int) -> None:
    operand = node.operands[0]
    n = count(emit.shape(operand))
    emit.record(gather_kernels.zeros_kernel(emit.code(operand)), number, n, emit.contiguous(operand), emit.error, 0, 0)


def _divisor_lower(emit: Any, y: int, operands: tuple[int, ...], name: str) -> None:
    _check_divisor(emit, emit.entries[y], emit.failing_number(emit.entries[y]))
    emit.upon(y, operands[0])


divisor = ArrayOperation(  # an integer divisor, none of which may be zero; attrs: the name of the division
    "divisor",
    lambda metas, name: (metas[0].shape, metas[0].dtype),
    _divisor_lower,
    None,
    fallible=Fault(0, _check_divisor, lambda node, position, _: zero_division(node.attrs, f" at element {position}")),
    in_place=True,
)


# ---- values that must be so


def _check_required(emit: Any, node: Any, number: int) -> None:
    operand = node.operands[1]
    n = count(emit.shape(operand))
    emit.record(gather_kernels.zeros_kernel(emit.code(operand)), number, n, emit.contiguous(operand), emit.error, 0, 0)


def _required_lower(emit: Any, y: int, operands: tuple[int, ...], _: str) -> None:
    _check_required(emit, emit.entries[y], emit.failing_number(emit.entries[y]))
    emit.upon(y, operands[0])


required = ArrayOperation(  # the first operand, if all of the second, a mask, is true; attrs: what is wrong else
    "required",
    lambda metas, wrong: (metas[0].shape, metas[0].dtype),
    _required_lower,
    lambda g, y, a, b, wrong: (g, None),
    fallible=Fault(1, _check_required, lambda node, position, _: RuntimeError(f"{node.attrs}, not element {position}")),
    in_place=True,
)


def zero_division(name: str, where: str = "") -> RuntimeError:
    """The error of an integer division by zero."""
    return RuntimeError(
        f"ZeroDivisionError: {name}: an integer is divided by zero{where}; divide floats, or mask the zeros"
    )


# ---- random numbers; operands: seed, offset and two parameters, all Python numbers; attrs: (shape, dtype)


def _random(name: str) -> ArrayOperation:
    def lower(emit: Any, y: int, operands: tuple[int, ...], attrs: Any) -> None:
        seed, offset, low, high = operands
        kind = "i8" if name == "integers" else "f8"
        emit.record(
            random_kernels.random_kernel(name, emit.code(y)), count(attrs[0]), emit.out(y), emit.number(seed, "i8"),
            emit.number(offset, "i8"), emit.number(low, kind), emit.number(high, kind), 0,
        )  # fmt: skip

    return ArrayOperation("random_" + name, lambda metas, attrs: attrs, lower, None)


RANDOM = {name: _random(name) for name in ("uniform", "normal", "bernoulli", "integers")}


# ---- copies


def _clone_lower(emit: Any, y: int, operands: tuple[int, ...], k: Any) -> None:
    emit.copy(y, operands[0])


clone = ArrayOperation("clone", lambda metas, k: (metas[0].shape, metas[0].dtype), _clone_lower, lambda g, y, a: (g,))
