"""Every row of the operation table: its values are those of its rule read with NumPy, its gradients those of finite differences.

The tests loop over the table, so a new row is tested without a line here, unless it needs operands of its own: `DOMAINS`
tells where elementwise operands lie, `CALLS` how rows that are not elementwise are called.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import same_bits

import fastgrad as torch
from fastgrad.ops import arrays
from fastgrad.ops.table import CONVERT, OPERATIONS, Elementwise

ROWS = [op for op in OPERATIONS.values() if isinstance(op, Elementwise)]
DIFFERENTIABLE = [op for op in ROWS if op.gradient is not None]
FLOATS = (np.float32, np.float64)
INTEGERS = (np.int64, np.int32, np.uint8)
SIZES = (0, 1, 7, 1023, 1024, 1025, 5000)  # around a block of 1024


def each(rows: list[Elementwise]) -> Any:
    return pytest.mark.parametrize("op", rows, ids=lambda op: op.name)


each_row = each(ROWS)
each_row_on_floats = each([op for op in ROWS if "bits" not in op.types.split()])
each_gradient = each(DIFFERENTIABLE)
each_gradient_of_one = each([op for op in DIFFERENTIABLE if op.rule.__code__.co_argcount == 1])
each_gradient_of_several = each([op for op in DIFFERENTIABLE if op.rule.__code__.co_argcount > 1])
DIVISIONS = ("floor_divide", "remainder", "trunc_divide", "fmod")
# integer division of special values follows PyTorch rather than NumPy, and is tested in test_parity and test_integers
each_row_on_special_values = each(
    [op for op in ROWS if not {"bits", "logical"} & set(op.types.split()) and op.name not in DIVISIONS]
)

# Where the operands of a row lie; two intervals apart keep away from ties, jumps and poles.
DEFAULT = ((-2.0, 2.0), (-2.0, 2.0), (-2.0, 2.0))
DOMAINS: dict[str, tuple[tuple[float, float], ...]] = {
    "log": ((0.2, 3.0),), "log2": ((0.2, 3.0),), "log10": ((0.2, 3.0),), "log1p": ((-0.7, 3.0),), "sqrt": ((0.2, 3.0),),
    "rsqrt": ((0.2, 3.0),), "reciprocal": ((0.4, 3.0),), "div": ((-2.0, 2.0), (0.4, 3.0)), "tan": ((-1.2, 1.2),),
    "pow": ((0.3, 2.0), (-2.0, 3.0)), "abs": ((0.1, 2.0),), "sign": ((-2.0, -0.1),), "relu": ((0.1, 2.0),),
    "remainder": ((-1.3, -1.05), (0.7, 0.9)), "floor_divide": ((1.05, 1.3), (0.7, 0.9)),
    "fmod": ((-1.3, -1.05), (0.7, 0.9)), "trunc_divide": ((1.05, 1.3), (0.7, 0.9)),
    "floor": ((1.1, 1.9),), "ceil": ((-1.9, -1.1),), "trunc": ((1.1, 1.9),), "round": ((1.6, 2.4),),
    "asin": ((-0.8, 0.8),), "acos": ((-0.8, 0.8),), "atanh": ((-0.8, 0.8),), "acosh": ((1.3, 3.0),), "erfinv": ((-0.8, 0.8),),
    "atan2": ((0.4, 2.0), (-2.0, 2.0)), "hypot": ((0.4, 2.0), (-2.0, 2.0)), "xlogy": ((0.1, 2.0), (0.4, 3.0)),
    "sin_quotient": ((0.4, 3.0),), "inverse_square": ((0.4, 3.0),), "binary_cross_entropy": ((0.2, 0.8), (0.1, 0.9)),
    "huber": ((1.2, 2.0), (0.4, 1.0)), "smooth_l1": ((-0.4, 0.4), (0.5, 1.0)),
    "maximum": ((-2.0, 0.4), (0.5, 2.0)), "minimum": ((-2.0, 0.4), (0.5, 2.0)),
    "clamp_min": ((-2.0, 0.4), (0.5, 2.0)), "clamp_max": ((-2.0, 0.4), (0.5, 2.0)),
}  # fmt: skip
JUMPS = {
    *DIVISIONS,
    "floor",
    "ceil",
    "trunc",
    "round",
    "sign",
}  # the reading must be in the operands' own type


def arity(op: Elementwise) -> int:
    return op.rule.__code__.co_argcount


def kinds(op: Elementwise) -> set[str]:
    return set(op.types.split())


def operands(op: Elementwise, n: Any, dtype: Any, swapped: bool = False) -> list[np.ndarray]:
    """Arrays for a row: its domain for floats, small numbers for integers (no zero divisors, no negative powers)."""
    random = np.random.default_rng(zlib.crc32(op.name.encode()))
    shape = n if isinstance(n, tuple) else (n,)
    found = []
    for i in range(arity(op)):
        low, high = DOMAINS.get(op.name, DEFAULT)[i] if dtype in FLOATS else (0, 9)
        if (
            swapped
            and op.name in DOMAINS
            and arity(op) == 2
            and op.name not in ("pow", "div", "remainder", "floor_divide")
        ):
            low, high = DOMAINS[op.name][1 - i]
        if dtype is bool:
            values = random.integers(0, 2, shape)
        elif dtype not in FLOATS:
            low = 1 if op.name in (*DIVISIONS, "pow") else low if dtype is np.uint8 else -9
            values = random.integers(low, 4 if op.name == "pow" else high, shape)
        else:
            values = random.uniform(low, high, shape)
        found.append(np.asarray(values, dtype=dtype))
    if "where" in kinds(op):
        found[0] = np.asarray(random.integers(0, 2, shape), dtype=bool)
    return found


def applied(op: Elementwise, given: list[Any]) -> torch.Tensor:
    """The row called with tensors; the factor of a scaled row is a number."""
    if "scaled" in kinds(op):
        return op(*given[:2], factor(given[2]))
    return op(*given)


def factor(values: Any) -> Any:
    """A Python number in place of an operand that is one."""
    dtype = values.dtype.numpy if isinstance(values, torch.Tensor) else values.dtype
    return 0.75 if np.issubdtype(dtype, np.floating) else 3


def reading(op: Elementwise, arrays: list[np.ndarray]) -> np.ndarray:
    """The rule read with NumPy, operands converted as the row says."""
    if "logical" in kinds(op):
        arrays = [a.astype(bool) for a in arrays]
    if "float" in kinds(op):
        arrays = [a if a.dtype in FLOATS else a.astype(np.float32) for a in arrays]
    if "count" in kinds(op):
        arrays = [a.astype(np.int64) if a.dtype == bool else a for a in arrays]
    if "test" in kinds(op):
        arrays = [a.astype(np.uint8) if a.dtype == bool else a for a in arrays]
    if "scaled" in kinds(op):
        arrays = [*arrays[:2], arrays[0].dtype.type(factor(arrays[0]))]
    shape = np.broadcast_shapes(*[np.shape(a) for a in arrays])
    with np.errstate(all="ignore"):
        return np.broadcast_to(op.rule(*arrays), shape)


def tensors(given: list[np.ndarray], requires_grad: bool = False) -> list[torch.Tensor]:
    return [torch.tensor(a, requires_grad=requires_grad and a.dtype in FLOATS) for a in given]


# ----------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@each_row_on_floats
def test_values_are_those_of_the_rule_read_with_numpy(op: Elementwise, dtype: Any) -> None:
    given = operands(op, 3001, dtype)
    found = applied(op, tensors(given)).numpy()
    in_own_type = op.name in JUMPS or "where" in kinds(op)
    expected = reading(op, given if in_own_type else [a.astype(np.float64) for a in given])
    assert found.shape == expected.shape == (3001,)
    if expected.dtype == bool:
        assert found.dtype == bool
        np.testing.assert_array_equal(found, expected)
    else:
        assert found.dtype == dtype
        eps = np.finfo(dtype).eps
        scale = 1.0 if in_own_type else max(np.abs(a).max() for a in given if a.dtype == dtype)
        np.testing.assert_allclose(found, expected, rtol=(4 if in_own_type else 6) * eps, atol=2 * eps * scale)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@each([op for op in ROWS if "bits" in op.types.split()])
def test_operations_on_bits_refuse_floats(op: Elementwise, dtype: Any) -> None:
    with pytest.raises((NotImplementedError, RuntimeError), match="not implemented"):
        applied(op, tensors(operands(op, 5, dtype)))


REFUSE_TRUTHS = [op for op in ROWS if {"number", "signed"} & set(op.types.split())]
WITH_A_NUMBER = [
    op for op in ROWS if "scaled" in op.types.split()
]  # beside truths: PyTorch's promotion, in test_parity


@each(REFUSE_TRUTHS)
def test_arithmetic_refuses_truths(op: Elementwise) -> None:
    with pytest.raises((NotImplementedError, RuntimeError)):
        applied(op, tensors(operands(op, 5, bool)))


@pytest.mark.parametrize(
    ("op", "dtype"),
    [(op, dtype) for op in ROWS for dtype in INTEGERS]
    + [(op, bool) for op in ROWS if op not in REFUSE_TRUTHS + WITH_A_NUMBER],
    ids=lambda x: x.name if isinstance(x, Elementwise) else x.__name__,
)
def test_values_of_integers_and_truths(op: Elementwise, dtype: Any) -> None:
    types = kinds(op)
    given = operands(op, 3001, dtype)
    found = applied(op, tensors(given)).numpy()
    expected = reading(op, given)
    if "float" in types:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    else:
        if types & {"compare", "logical", "test"}:
            assert found.dtype == bool
        elif "count" not in types:
            assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected.astype(found.dtype))


@each_row_on_special_values
def test_special_values_are_those_of_the_rule_read_with_numpy(op: Elementwise) -> None:
    """NaN, infinities and signed zeros."""
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5])
    given = [np.asarray(a).reshape(-1) for a in np.meshgrid(*[special] * arity(op))]
    if "where" in kinds(op):
        given[0] = given[0] > 0
    for dtype in FLOATS:
        typed = [a if a.dtype == bool else a.astype(dtype) for a in given]
        found = applied(op, tensors(typed)).numpy()
        np.testing.assert_allclose(
            found, reading(op, typed).astype(found.dtype), rtol=6 * np.finfo(dtype).eps, equal_nan=True
        )


@each_row_on_floats
def test_operands_broadcast_and_need_not_be_contiguous(op: Elementwise) -> None:
    whole = operands(op, (6, 5), np.float64)
    narrow = [a if i % 2 == 0 else a[:, :1] for i, a in enumerate(whole)]
    expected = reading(op, narrow)
    turned = [torch.tensor(np.ascontiguousarray(a.T)).T for a in narrow]
    padded = [torch.tensor(np.repeat(a, 2, axis=0))[::2] for a in narrow]
    for given in (tensors(narrow), turned, padded):
        found = applied(op, given)
        assert tuple(found.shape) == (6, 5)
        np.testing.assert_allclose(found.numpy(), expected, rtol=2e-15, atol=1e-15)
    scalars = [a[0, 0] for a in whole]
    found = applied(op, tensors([np.asarray(a) for a in scalars]))
    assert found.shape == ()
    np.testing.assert_allclose(found.numpy(), reading(op, [np.asarray(a) for a in scalars]), rtol=2e-15, atol=1e-15)


@each_row_on_floats
def test_every_size_gives_the_same_bits_in_both_tiers(op: Elementwise) -> None:
    """Alone, inside of a loop with other operations, with its gradients, and with a sum at the end of the loop."""

    def program(n: int, dtype: Any) -> list[np.ndarray]:
        given = tensors(operands(op, n, dtype), requires_grad=True)
        alone = applied(op, given)
        moved = [t if t.dtype is torch.bool else t * 1.0 for t in given]
        inside = applied(op, moved)
        if inside.requires_grad:
            mixed = (inside * 0.5 + moved[-1]) * inside
        else:
            mixed = inside.to(moved[-1].dtype) * moved[-1]
        total = mixed.sum()
        results = [alone, mixed, total]
        if total.requires_grad:
            total.backward()
            results += [t.grad for t in given if t.grad is not None]
        return [t.detach().numpy().copy() for t in results]

    for n in SIZES:
        for dtype in FLOATS:
            outcomes = []
            for tier in (0, 1):
                torch.set_tier(tier)
                outcomes.append(program(n, dtype))
            for i, (zero, one) in enumerate(zip(*outcomes, strict=True)):
                assert same_bits(zero, one), f"n={n} {dtype.__name__} result {i}"


@each_row_on_floats
def test_a_block_is_computed_as_its_elements_alone(op: Elementwise) -> None:
    """An element's value does not depend on its place: vectorised, in the rest of a block, in a block that is not full."""
    for dtype in FLOATS:
        given = operands(op, 1037, dtype)
        whole = applied(op, tensors(given)).numpy()
        for part in (slice(0, 1), slice(3, 10), slice(1020, 1037), slice(1, 1037), slice(1036, 1037)):
            assert same_bits(applied(op, tensors([a[part].copy() for a in given])).numpy(), whole[part].copy())


# --------------------------------------------------------------------------------------------------------- gradients


def differences(op: Elementwise, given: list[np.ndarray], i: int) -> np.ndarray:
    """The derivative with respect to operand i, by central differences of the NumPy reading, extrapolated once."""

    def slope(h: float) -> np.ndarray:
        up, down = ([a + h if j == i else a for j, a in enumerate(given)] for h in (h, -h))
        return (reading(op, up) - reading(op, down)) / (2 * h)

    return (4 * slope(5e-4) - slope(1e-3)) / 3


@each_gradient
def test_gradients_are_finite_differences_of_the_numpy_reading(op: Elementwise) -> None:
    if op.name == "overwrite" or "scaled" in kinds(op):
        wanted = range(2)
    else:
        wanted = range(1 if "where" in kinds(op) else 0, arity(op))
    for swapped in (False, True):
        given = operands(op, 50, np.float64, swapped)
        leaves = tensors(given, requires_grad=True)
        y = applied(op, leaves)
        weights = np.random.default_rng(1).normal(size=50)
        y.backward(torch.tensor(weights))
        for i in wanted:
            np.testing.assert_allclose(
                leaves[i].grad.numpy(), weights * differences(op, given, i), rtol=1e-7, atol=1e-8
            )


@each_gradient_of_several
def test_gradients_of_broadcast_operands_are_summed(op: Elementwise) -> None:
    given = operands(op, (4, 5), np.float64)
    full = [a.copy() for a in given]
    last = 1 if "scaled" in kinds(op) else arity(op) - 1
    for narrow in (given[last][:1], given[last][:, :1], given[last][:1, :1], given[last][0]):
        arrays = [narrow if i == last else a for i, a in enumerate(full)]
        spread = [np.broadcast_to(a, (4, 5)).copy() for a in arrays]
        leaves, wide = tensors(arrays, requires_grad=True), tensors(spread, requires_grad=True)
        applied(op, leaves).sum().backward()
        applied(op, wide).sum().backward()
        for leaf, other in zip(leaves, wide, strict=True):
            if other.grad is None:
                assert leaf.grad is None
                continue
            assert leaf.grad.shape == leaf.shape
            summed = other.grad.numpy()
            while summed.ndim > len(leaf.shape):
                summed = summed.sum(0)
            axes = tuple([k for k, n in enumerate(leaf.shape) if n == 1])
            np.testing.assert_allclose(
                leaf.grad.numpy(), summed.sum(axes, keepdims=True) if axes else summed, rtol=1e-13, atol=1e-14
            )


@each_gradient
def test_second_gradients(op: Elementwise) -> None:
    given = tensors(operands(op, 3, np.float64), requires_grad=True)
    if "scaled" in kinds(op):
        given = given[:2]
        assert torch.autograd.gradcheck(lambda a, b: op(a, b, 0.75), given)
        assert torch.autograd.gradgradcheck(lambda a, b: op(a, b, 0.75), given)
    else:
        assert torch.autograd.gradcheck(op, given)
        assert torch.autograd.gradgradcheck(op, given)


@each_gradient_of_one
def test_third_gradients_in_float64(op: Elementwise) -> None:
    """The second gradient's difference quotient, for rows of one operand."""

    def gradient(values: np.ndarray, order: int) -> np.ndarray:
        x = torch.tensor(values, requires_grad=True)
        y = op(x)
        for _ in range(order):
            if not y.requires_grad:  # the derivative before is constant
                return np.zeros_like(values)
            y = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True)[0]
        return y.detach().numpy()

    values = operands(op, 6, np.float64)[0]
    third = gradient(values, 3)
    up, down = (gradient(values + e, 2) for e in (1e-5, -1e-5))
    assert third.shape == values.shape
    np.testing.assert_allclose(third, (up - down) / 2e-5, rtol=1e-5, atol=1e-6)


@each_row_on_floats
def test_a_row_without_a_gradient_gives_a_constant(op: Elementwise) -> None:
    y = applied(op, tensors(operands(op, 3, np.float64), requires_grad=True))
    assert y.requires_grad == (op.gradient is not None)


@each_gradient
def test_what_a_gradient_does_not_read_may_be_overwritten(op: Elementwise) -> None:
    """The gradient is that of the values used, whatever happens to operands and result afterwards."""
    given = operands(op, 9, np.float64)
    leaves = tensors(given, requires_grad=True)
    y = applied(op, [t if t.dtype is torch.bool else t * 1.0 for t in leaves])
    y.sum().backward()
    expected = [None if t.grad is None else t.grad.numpy().copy() for t in leaves]
    again = tensors(given, requires_grad=True)
    y = applied(op, again)
    y.tolist()
    with torch.no_grad():
        for t in again:
            t.zero_()
        y.detach().fill_(77.0)
    y.sum().backward()
    for t, e in zip(again, expected, strict=True):
        if e is not None:
            np.testing.assert_array_equal(t.grad.numpy(), e)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@each_gradient
def test_gradients_have_the_type_and_shape_of_their_operand(op: Elementwise, dtype: Any) -> None:
    for n in (0, 1, 5):
        leaves = tensors(operands(op, n, dtype), requires_grad=True)
        applied(op, leaves).sum().backward()
        for t in leaves:
            if t.grad is not None:
                assert (t.grad.dtype, t.grad.shape) == (t.dtype, t.shape)


# ----------------------------------------------------------------------------------------------- rows with kernels of their own


def leaf(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> torch.Tensor:
    values = np.random.default_rng([seed, *shape]).uniform(low, high, shape)
    return torch.tensor(values, requires_grad=True)


def index(*values: Any) -> torch.Tensor:
    return torch.tensor(list(values))


Call = tuple[
    Callable[..., Any], Callable[..., Any], list[torch.Tensor]
]  # the call, NumPy's reading, differentiable operands


def put(a: np.ndarray, place: Any, values: Any, add: bool = False) -> np.ndarray:
    result = a.copy()
    if add:
        np.add.at(result, place, values)
    else:
        result[place] = values
    return result


def calls() -> dict[str, list[Call]]:
    """How each row that is not elementwise is reached by public calls."""
    a, b, v = leaf(3, 4), leaf(4, 2, seed=1), leaf(4, seed=2)
    batch, other = leaf(2, 1, 3, 4, seed=3), leaf(5, 4, 2, seed=4)
    i, pairs = index(2, 0, 2), index([0, 1, 2, 0], [2, 2, 0, 1])
    pair_rows = pairs.numpy()
    rows = np.arange(3)[:2, None] * 0 + np.arange(2)[:, None]
    return {
        "to": [(lambda a: a.to(torch.float32).to(torch.float64) * 1.0, lambda a: a.astype(np.float32).astype(np.float64), [])],
        "reshape": [(lambda a: a.reshape(2, 6), lambda a: a.reshape(2, 6), [a]), (lambda a: a.T.reshape(12), lambda a: a.T.reshape(12), [a])],
        "unsqueeze": [(lambda a: a.unsqueeze(1), lambda a: a[:, None], [a])],
        "squeeze": [(lambda a: a.reshape(3, 1, 4, 1).squeeze(), lambda a: a, [a])],
        "squeeze_dim": [(lambda a: a.reshape(3, 1, 4).squeeze(1), lambda a: a, [a])],
        "permute": [(lambda b: b.permute(2, 0, 3, 1), lambda b: b.transpose(2, 0, 3, 1), [batch])],
        "transpose": [(lambda b: b.transpose(-1, 0), lambda b: b.swapaxes(-1, 0), [batch])],
        "t": [(lambda a: a.t() * a.t(), lambda a: a.T * a.T, [a])],
        "expand": [(lambda v: v.expand(3, 4) * 2, lambda v: np.broadcast_to(v, (3, 4)) * 2, [v])],
        "slice": [(lambda a: a[1:, ::2], lambda a: a[1:, ::2], [a]), (lambda a: a.narrow(1, 1, 2), lambda a: a[:, 1:3], [a])],
        "select": [(lambda a: a[1], lambda a: a[1], [a]), (lambda a: a[..., -1], lambda a: a[..., -1], [a])],
        "as_strided": [(rewritten_view, lambda a: np.concatenate([a[:1] * 2, a[1:]])[0], [a])],
        "rewritten": [(rewritten_view, lambda a: np.concatenate([a[:1] * 2, a[1:]])[0], [a])],
        "function": [(own_function, lambda a: a**3, [a])],
        "detach": [(lambda a: a.detach() * a, lambda a: a * a, [])],
        "as_strided_scatter": [(written_row, lambda a, v: put(a * 1, (slice(1, 2),), v), [a, v])],
        "cat": [(lambda a, v: torch.cat([a, v.reshape(1, 4), a]), lambda a, v: np.concatenate([a, v[None], a]), [a, v])],
        "sum": [
            (lambda a: a.sum(), lambda a: a.sum(), [a]),
            (lambda b: b.sum(dim=(0, 2), keepdim=True), lambda b: b.sum((0, 2), keepdims=True), [batch]),
        ],
        "prod": [(lambda a: a.prod(dim=1), lambda a: a.prod(1), [a]), (lambda a: a.prod(), lambda a: a.prod(), [a])],
        "amax": [(lambda a: a.amax(dim=0), lambda a: a.max(0), [a])],
        "amin": [(lambda a: a.amin(), lambda a: a.min(), [a])],
        "argmax": [(lambda a: a.argmax(dim=1), lambda a: a.argmax(1), [])],
        "argmin": [(lambda a: a.argmin(), lambda a: a.argmin(), [])],
        "cumsum": [(lambda a: a.cumsum(dim=1), lambda a: a.cumsum(1), [a]), (lambda a: a.cumsum(0), lambda a: a.cumsum(0), [a])],
        "cumsum_back": [
            (lambda a: arrays.cumsum_back(a, attrs=1), lambda a: np.flip(np.flip(a, 1).cumsum(1), 1), [a])
        ],
        "matmul": [
            (lambda a, b: a @ b, lambda a, b: a @ b, [a, b]), (lambda a, v: a @ v, lambda a, v: a @ v, [a, v]),
            (lambda v, b: v @ b, lambda v, b: v @ b, [v, b]), (lambda v: v @ v, lambda v: v @ v, [v]),
            (lambda b, o: b @ o, lambda b, o: b @ o, [batch, other]), (lambda a: a.T @ a, lambda a: a.T @ a, [a]),
        ],
        "index_select": [(lambda a: a.index_select(0, i), lambda a: a[i.numpy()], [a])],
        "index": [
            (lambda a: a[i], lambda a: a[i.numpy()], [a]),
            (lambda a: a[:, index(3, 3, 0)], lambda a: a[:, [3, 3, 0]], [a]),
            (lambda a: a[i, index(0, 1, 3)], lambda a: a[i.numpy(), [0, 1, 3]], [a]),
        ],
        "index_add": [(lambda a, c: a.index_add(0, i, c), lambda a, c: put(a, i.numpy(), c, add=True), [a, leaf(3, 4, seed=9)])],
        "index_put": [(put_rows, lambda a, c: put(a, [2, 0], c), [a, leaf(2, 4, seed=8)])],
        "gather": [(lambda a: a.gather(0, pairs), lambda a: np.take_along_axis(a, pair_rows, 0), [a])],
        "of_target": [
            (lambda a: torch.nn.functional.nll_loss(a, index(1, 0, 3), reduction="none"), lambda a: -a[np.arange(3), [1, 0, 3]], [a]),
        ],
        "diagonal": [
            (lambda a: a.diagonal(1), lambda a: a.diagonal(1), [a]),
            (lambda a: a.t().diagonal(1), lambda a: a.T.diagonal(1), [a]),
            (lambda a: a.reshape(2, 3, 2).diagonal(-1, 1, 0), lambda a: a.reshape(2, 3, 2).diagonal(-1, 1, 0), [a]),
        ],
        "scatter_add": [
            (lambda a, c: a.scatter_add(0, pairs, c), lambda a, c: put(a, (pair_rows, np.arange(4)), c, add=True), [a, leaf(2, 4, seed=7)])
        ],
        "scatter": [
            (lambda a, c: a.scatter(1, index([3, 0], [1, 2]), c), lambda a, c: put(a, (rows, [[3, 0], [1, 2]]), c), [a, leaf(2, 2, seed=6)])
        ],
        "clone": [(lambda a: a.clone(), lambda a: a.copy(), [a])],
        "required": [(
            lambda a: torch.nn.functional.binary_cross_entropy(torch.sigmoid(a), torch.full((3, 4), 0.25, dtype=torch.float64)),
            lambda a: np.mean(np.log1p(np.exp(a)) - 0.25 * a), [leaf(3, 4)],
        )],
        "divisor": [(lambda: torch.arange(12) // torch.arange(1, 13), lambda: np.arange(12) // np.arange(1, 13), [])],
    }  # fmt: skip


def rewritten_view(a: torch.Tensor) -> torch.Tensor:
    """A view taken before its base was written through another view."""
    base = a * 1
    first = base[0]
    base[:1].mul_(2)
    return first


def own_function(a: torch.Tensor) -> torch.Tensor:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 3 * ctx.saved_tensors[0] ** 2

    return Cube.apply(a)


def written_row(a: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    whole = a * 1
    whole[1:2] = v
    return whole


def put_rows(a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    whole = a * 1
    whole[index(2, 0)] = c
    return whole


CALLS = calls()
RANDOM = {"random_uniform", "random_normal", "random_bernoulli", "random_integers"}
each_call = pytest.mark.parametrize(
    ("name", "number"), [(name, k) for name, some in CALLS.items() for k in range(len(some))], ids=lambda x: str(x)
)


def test_every_row_is_tested() -> None:
    assert set(OPERATIONS) == {op.name for op in ROWS} | set(CALLS) | RANDOM


def inputs(function: Callable[..., Any]) -> list[torch.Tensor]:
    """Operands for calls that have no gradient."""
    return [leaf(3, 4)][: function.__code__.co_argcount]


@each_call
def test_array_operations_give_numpys_values(name: str, number: int) -> None:
    function, numpy, given = CALLS[name][number]
    given = given or inputs(function)
    found = function(*given)
    np.testing.assert_allclose(
        found.detach().numpy(), numpy(*[t.detach().numpy() for t in given]), rtol=1e-13, atol=1e-14
    )


@each_call
def test_array_operations_have_the_gradients_of_finite_differences(name: str, number: int) -> None:
    function, _, given = CALLS[name][number]
    if not given:
        assert OPERATIONS[name].gradient is None or name == "to"
        return
    assert torch.autograd.gradcheck(function, given)


@each_call
def test_array_operations_have_the_second_gradients_of_finite_differences(name: str, number: int) -> None:
    function, _, given = CALLS[name][number]
    if given:
        assert torch.autograd.gradgradcheck(lambda *x: function(*x) * torch.exp(0.3 * function(*x)), given)


@each_call
def test_array_operations_give_the_same_bits_in_both_tiers(name: str, number: int) -> None:
    function, _, given = CALLS[name][number]
    outcomes = []
    for tier in (0, 1):
        torch.set_tier(tier)
        leaves = [t.detach().clone().requires_grad_() for t in given or inputs(function)]
        y = function(*[t * 1.0 for t in leaves])
        z = torch.sin(y.to(torch.float64)) * 2
        if z.requires_grad:
            z.sum().backward()
        outcomes.append(
            [y.detach().numpy(), z.detach().numpy(), *[t.grad.numpy() for t in leaves if t.grad is not None]]
        )
    assert all(same_bits(p, q) for p, q in zip(*outcomes, strict=True))


def test_conversion_passes_gradients_in_the_operands_type() -> None:
    x = torch.tensor([0.5, -1.5], requires_grad=True)
    y = x.double()
    (y * y).sum().backward()
    assert x.grad.dtype is torch.float32
    assert x.grad.tolist() == [1.0, -3.0]
    assert CONVERT.gradient is not None


ALL_TYPES = (np.float32, np.float64, np.int64, np.int32, np.uint8, bool)


@pytest.mark.parametrize("target", ALL_TYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("source", ALL_TYPES, ids=lambda d: d.__name__)
def test_conversion_gives_numpys_values(source: Any, target: Any) -> None:
    values = np.array([0, 1, 2, 3, 100, 200, 255, 7.75]).astype(source)
    for n in (8, 1025):
        given = np.resize(values, n)
        found = torch.tensor(given).to(getattr(torch, np.dtype(target).name)).numpy()
        assert found.dtype == target
        np.testing.assert_array_equal(found, given.astype(target))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    "name", ["sum", "prod", "amax", "amin", "argmax", "argmin", "mean", "var", "logsumexp", "cumsum"]
)
def test_reductions_of_every_size_give_the_same_bits_in_both_tiers(name: str, dtype: Any) -> None:
    random = np.random.default_rng(0)
    for n in SIZES[1:]:
        if name == "var" and n == 1:
            continue
        values = random.uniform(0.9, 1.1, n).astype(dtype)
        reduce = functools.partial(getattr(torch, name), dim=0)
        outcomes = []
        for tier in (0, 1):
            torch.set_tier(tier)
            x = torch.tensor(values, requires_grad=True)
            y = reduce(x * 1.5)
            if y.requires_grad:
                y.sum().backward()
            outcomes.append([y.detach().numpy(), *([x.grad.numpy()] if x.grad is not None else [])])
        assert all(same_bits(p, q) for p, q in zip(*outcomes, strict=True)), n


@pytest.mark.parametrize("kind", sorted(RANDOM))
def test_random_rows_give_the_same_bits_in_both_tiers_whatever_the_size(kind: str) -> None:
    draw = {
        "random_uniform": torch.rand, "random_normal": torch.randn,
        "random_bernoulli": lambda n: torch.zeros(n).bernoulli_(0.25), "random_integers": lambda n: torch.randint(3, 900, (n,)),
    }[kind]  # fmt: skip
    for n in SIZES:
        outcomes = []
        for tier in (0, 1):
            torch.set_tier(tier)
            torch.manual_seed(5)
            outcomes.append([draw(n).numpy(), draw(3).numpy()])
        assert all(same_bits(p, q) for p, q in zip(*outcomes, strict=True))
    assert arrays.RANDOM


def test_random_rows_have_their_distributions() -> None:
    """Means and variances of 200,000 numbers are within six standard errors."""
    n = 200_000
    for draw, mean, variance in (
        (torch.rand(n), 0.5, 1 / 12), (torch.randn(n), 0.0, 1.0), (torch.zeros(n).bernoulli_(0.25), 0.25, 0.1875),
        (torch.randint(0, 10, (n,)), 4.5, 8.25), (torch.zeros(n).uniform_(2, 4), 3.0, 1 / 3), (torch.zeros(n).normal_(1, 2), 1.0, 4.0),
    ):  # fmt: skip
        values = draw.numpy().astype(np.float64)
        assert abs(values.mean() - mean) < 6 * np.sqrt(variance / n)
        assert abs(values.var() / variance - 1) < 0.03
        neighbours = np.corrcoef(values[:-1], values[1:])[0, 1]
        assert abs(neighbours) < 6 / np.sqrt(n)
