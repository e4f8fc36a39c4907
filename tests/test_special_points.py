"""Values, first and second derivatives at zeros, ties, knees, infinities and NaN: PyTorch's, for every public function of numbers.

Where PyTorch's own answer is not what mathematics says, the point is left out here by name, with the reason.
"""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest

import fastgrad

torch = pytest.importorskip("torch")

POINTS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e-30, -1e-30, 1e30, 100.0, -100.0, math.inf, -math.inf, math.nan]
UNARY = [
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "deg2rad",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "log",
    "log10",
    "log1p",
    "log2",
    "neg",
    "rad2deg",
    "reciprocal",
    "relu",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
]
COMPOSED = [
    "x ** 0", "x ** 1", "x ** 2", "x ** 3", "x ** -1", "x ** -2", "x ** 0.5", "x ** -0.5", "x ** 2.5", "2.0 ** x", "0.0 ** x",
    "x.clamp(-1, 1)", "x.clamp(min=0)", "x.clamp(max=0.5)", "F.relu(x)", "F.elu(x)", "F.elu(x, 0.5)", "F.leaky_relu(x)", "F.softplus(x)", "F.silu(x)",
    "F.gelu(x)", "F.gelu(x, approximate='tanh')", "F.logsigmoid(x)", "T.where(x > 0, x.log(), x)", "x / x", "x - x", "1 / x", "x * 0",
    "T.lerp(x, x * 2, 0.5)", "F.smooth_l1_loss(x, T.ones_like(x), reduction='none')",
    "F.huber_loss(x, T.ones_like(x), reduction='none', delta=0.5)", "F.smooth_l1_loss(x, T.ones_like(x), reduction='none', beta=0.5)",
    "F.mse_loss(x, T.ones_like(x), reduction='none')", "F.l1_loss(x, T.ones_like(x), reduction='none')",
    "F.binary_cross_entropy_with_logits(x, T.ones_like(x), reduction='none')",
    "F.binary_cross_entropy_with_logits(x, T.zeros_like(x), reduction='none')",
    "F.kl_div(x, T.full_like(x, 0.5), reduction='none')", "F.kl_div(x * 0 - 1, x, reduction='none')",
]  # fmt: skip
BINARY = [
    "atan2",
    "hypot",
    "maximum",
    "minimum",
    "pow",
    "remainder",
    "xlogy",
    "logaddexp",
    "mul",
    "div",
    "sub",
    "fmax",
    "fmin",
    "fmod",
]  # of a tensor and a tensor
LEFT_OUT = {
    "F.elu(x)": [math.nan],  # PyTorch's slope at NaN is 1 in short tensors, NaN in long ones; its curvature is 0
    "F.elu(x, 0.5)": [math.nan],
    "T.sinc(x)": [0.0, 1e-30, -1e-30, 1e30],  # PyTorch's derivative cancels near zero: see test_sinc_near_zero
    "x ** 0.5": [-0.0, -math.inf],  # roots and odd powers of what is not positive: signs and NaN
    "x ** -0.5": [-0.0, -math.inf],
    "x ** 2.5": [-math.inf],
    "0.0 ** x": POINTS,  # PyTorch's curvature is NaN, that of a constant is 0
    "F.gelu(x)": [-3.0, 1e30, math.inf],  # PyTorch: NaN at infinity, and fewer digits in float32
    "F.smooth_l1_loss(x, T.ones_like(x), reduction='none')": [math.nan],  # the curvature at NaN
    "F.smooth_l1_loss(x, T.ones_like(x), reduction='none', beta=0.5)": [math.nan],
    "F.huber_loss(x, T.ones_like(x), reduction='none', delta=0.5)": [math.nan],
}


def derivatives(lib: Any, expression: str, given: list[np.ndarray]) -> list[np.ndarray]:
    """Value, gradients, and gradients of the gradients' sum. A derivative that is not connected counts as zero."""
    leaves = [lib.tensor(a, requires_grad=True) for a in given]
    names = dict(zip("xz", leaves, strict=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = [eval(expression, {"T": lib, "F": lib.nn.functional, **names})]
    found = list(level)
    for _ in range(2):
        roots = [v for v in level if v.requires_grad]
        if not roots:
            break
        level = lib.autograd.grad(
            roots,
            leaves,
            [lib.ones_like(v) for v in roots],
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        found += level
    made = [v.detach().numpy(force=True) for v in found]
    return made + [np.zeros_like(given[0])] * (1 + 2 * len(leaves) - len(made))


def check(expression: str, given: list[np.ndarray]) -> None:
    ours, theirs = derivatives(fastgrad, expression, given), derivatives(torch, expression, given)
    rtol, atol = (1e-4, 1e-7) if given[0].dtype == np.float32 else (1e-9, 1e-14)
    left_out = np.array(LEFT_OUT.get(expression, []), given[0].dtype)
    ignored = [np.isin(given[0], left_out) | (np.isnan(given[0]) & np.isnan(left_out).any())] * len(ours)
    if expression in ("T.pow(x, z)", "T.logaddexp(x, z)"):  # PyTorch's second derivatives are NaN at zero and far out
        ignored[3:] = [np.isnan(b) & ~np.isnan(given[0]) & ~np.isnan(given[1]) for b in theirs[3:]]
    for order, (a, b, skip) in enumerate(zip(ours, theirs, ignored, strict=True)):
        with np.errstate(all="ignore"):
            wrong = np.flatnonzero(~(np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True) | skip))
        places = [(*(float(v[i]) for v in given), "gives", float(a[i]), "PyTorch", float(b[i])) for i in wrong]
        assert not places, f"{expression}, result {order}: {places}"


def exists(expression: str) -> bool:
    head = expression.split("(")[0]
    return not head.startswith("T.") or hasattr(fastgrad, head[2:])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("expression", [e for e in [f"T.{n}(x)" for n in UNARY] + COMPOSED if exists(e)])
def test_functions_of_one(expression: str, dtype: Any) -> None:
    check(expression, [np.array(POINTS, dtype)])


@pytest.mark.parametrize("expression", [e for e in [f"T.{n}(x, z)" for n in BINARY] if exists(e)])
def test_functions_of_two(expression: str) -> None:
    pairs = np.array(list(itertools.product(POINTS, POINTS)))
    check(expression, [pairs[:, 0].copy(), pairs[:, 1].copy()])


@pytest.mark.parametrize("p", [0.0, 1e-30, 0.25, 1.0])
@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_cross_entropy_of_probabilities_at_the_ends(p: float, target: float) -> None:
    made = []
    for lib in (fastgrad, torch):
        x = lib.tensor([p], dtype=lib.float64, requires_grad=True)
        loss = lib.nn.functional.binary_cross_entropy(x, lib.tensor([target], dtype=lib.float64))
        loss.backward()
        made.append((loss.item(), x.grad.item()))
    assert made[0] == pytest.approx(made[1], rel=1e-8)  # PyTorch's 1e-12 is rounded to float32


def test_sinc_near_zero() -> None:
    """By its series, for all orders that are asked for; the closed form of a derivative cancels there."""
    mpmath = pytest.importorskip("mpmath")
    values = np.array([0.0, 1e-30, 1e-9, -1e-5, 1e-3, 0.01, 0.1, 0.15, 0.1591, 0.1592, 0.2, 0.3, 1.5])
    x = fastgrad.tensor(values, requires_grad=True)
    level = fastgrad.sinc(x)
    with mpmath.workdps(60):
        for order in range(3):
            exact = [float(mpmath.diff(mpmath.sincpi, mpmath.mpf(float(v)), order)) for v in values]
            assert np.allclose(level.detach().numpy(), exact, rtol=1e-13, atol=1e-13 * 10**order), order
            (level,) = fastgrad.autograd.grad(level.sum(), x, create_graph=True)


@pytest.mark.parametrize("zeros", [(), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("dim", [None, 0, 1])
def test_products_with_zeros_have_all_derivatives(zeros: tuple[int, ...], dim: int | None) -> None:
    a = np.array([[2.0, -3.0, 0.5, 4.0], [1.5, 2.5, -1.0, 3.0]])
    a[0, list(zeros)] = 0.0

    def levels(lib: Any) -> list[np.ndarray]:
        x = lib.tensor(a, requires_grad=True)
        level, found = x.prod() if dim is None else x.prod(dim), []
        weights = lib.arange(1.0, 9.0, dtype=lib.float64).reshape(2, 4)
        for _ in range(3 if dim != 0 else 2):
            (g,) = lib.autograd.grad(level.sum(), x, create_graph=True)
            found.append(g.detach().numpy())
            level = g * weights
        return found

    for ours, theirs in zip(levels(fastgrad), levels(torch), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, 4.5, math.inf, -math.inf, 0.0])
@pytest.mark.parametrize("rows", [[[0.0, 0.0], [3.0, -4.0]], [[0.0, 2.0], [1.0, 1.0]]])
def test_norms_at_zero(p: float, rows: list[list[float]]) -> None:
    def slopes(lib: Any) -> Any:
        x = lib.tensor(rows, dtype=lib.float64, requires_grad=True)
        y = lib.norm(x, p, 1)
        y.sum().backward()
        return y.detach().numpy(), np.zeros(x.shape) if x.grad is None else x.grad.numpy()

    for ours, theirs in zip(slopes(fastgrad), slopes(torch), strict=True):
        assert np.allclose(ours, theirs, equal_nan=True)


def test_extremes_that_are_nan_take_the_gradient() -> None:
    x = fastgrad.tensor([1.0, math.nan, 3.0], requires_grad=True)
    for extreme in (fastgrad.max, fastgrad.min, fastgrad.amax, fastgrad.amin):
        (g,) = fastgrad.autograd.grad(extreme(x), x)
        assert g.tolist() == [0, 1, 0]


@pytest.mark.parametrize("loss", ["huber_loss", "smooth_l1_loss"])
@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_knees_that_make_no_sense_are_refused(loss: str, value: float) -> None:
    def refused(lib: Any) -> bool:
        keyword = "delta" if loss == "huber_loss" else "beta"
        try:
            getattr(lib.nn.functional, loss)(lib.ones(2), lib.zeros(2), **{keyword: value})
        except RuntimeError:
            return True
        return False

    assert refused(fastgrad) == refused(torch)


def test_what_is_multiplied_by_zero_is_ignored() -> None:
    """With beta 0 the first term of a product's sum takes no part, NaN in it neither; its gradient is zero."""
    for name, shape in (("addmm", (2, 2)), ("baddbmm", (3, 2, 2))):
        given = [np.full(shape, math.nan), np.ones(shape), np.full(shape, 2.0)]
        made = []
        for lib in (fastgrad, torch):
            leaves = [lib.tensor(a, requires_grad=True) for a in given]
            y = getattr(lib, name)(*leaves, beta=0)
            y.sum().backward()
            made.append([y.detach().numpy(), *[t.grad.numpy() for t in leaves]])
        for ours, theirs in zip(*made, strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("expression", ["x ** 2", "x ** 3", "T.square(x)", "x ** 0"])
def test_high_derivatives_of_powers_are_zero_not_missing(expression: str) -> None:
    made = []
    for lib in (fastgrad, torch):
        x = lib.tensor([3.0, 0.0, -2.0], dtype=lib.float64, requires_grad=True)
        level, found = eval(expression, {"T": lib, "x": x}), []
        for _ in range(4 if expression == "x ** 3" else 3 if expression != "x ** 0" else 1):
            (level,) = lib.autograd.grad(level.sum(), x, create_graph=True)
            found.append(level.detach().numpy())
        made.append(found)
    assert np.allclose(*made)
