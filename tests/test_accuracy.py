"""Reductions of float32 are as accurate as PyTorch's, over any dimensions, also of values far from zero and of long ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad

torch = pytest.importorskip("torch")

EPS = float(np.finfo(np.float32).eps)
REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, dim: x.sum(dim),
    "mean": lambda x, dim: x.mean(dim),
    "var": lambda x, dim: x.var(dim),
    "std": lambda x, dim: x.std(dim),
    "norm": lambda x, dim: x.norm(dim=dim),
    "norm1": lambda x, dim: x.norm(1, dim=dim),
    "norm3": lambda x, dim: x.norm(3, dim=dim),
    "logsumexp": lambda x, dim: x.logsumexp(dim),
    "cumsum": lambda x, dim: x.cumsum(dim),
    "softmax": lambda x, dim: x.softmax(dim),
    "log_softmax": lambda x, dim: x.log_softmax(dim),
}
SHAPES = [(100_003,), (40_000, 3), (3, 40_000), (257, 129), (30, 41, 53), (1, 70_000), (70_000, 1)]
DATA: dict[str, Callable[[Any, Any], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "far from zero": lambda rng, shape: rng.normal(3e4, 1.0, shape),
    "positive": lambda rng, shape: rng.random(shape),
    "of all sizes": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.uniform(-6, 6, shape),
}


def error(got: Any, exact: np.ndarray, scale: np.ndarray) -> float:
    """The largest error in units of float32's rounding of `scale`."""
    return float((np.abs(np.asarray(got, np.float64) - exact) / (EPS * scale)).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_are_as_accurate_as_pytorchs(name: str, shape: tuple[int, ...]) -> None:
    reduce = REDUCTIONS[name]
    for kind, data in DATA.items():
        x = data(np.random.default_rng(len(shape)), shape).astype(np.float32)
        for dim in range(len(shape)):
            if name in ("var", "std") and shape[dim] == 1:
                continue
            exact = reduce(torch.from_numpy(x.astype(np.float64)), dim).numpy()
            ours = reduce(fastgrad.from_numpy(x), dim).numpy()
            theirs = reduce(torch.from_numpy(x), dim).numpy()
            scale = np.maximum(np.abs(exact), np.float64(np.finfo(np.float32).tiny))
            if name in ("sum", "mean", "cumsum"):  # where terms cancel, that of what was added up
                size = torch.from_numpy(np.abs(x.astype(np.float64)))
                scale = np.maximum(reduce(size, dim).numpy() / np.sqrt(shape[dim]), scale)
            allowed = 16.0 if name in ("var", "std") else 4.0  # PyTorch computes these in float64
            assert error(ours, exact, scale) <= max(allowed, 3.0 * error(theirs, exact, scale)), (kind, dim)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "norm"])
def test_reductions_of_everything_are_as_accurate_as_pytorchs(name: str) -> None:
    reduce = REDUCTIONS[name]
    for shape in SHAPES:
        for kind, data in DATA.items():
            x = data(np.random.default_rng(1), shape).astype(np.float32)
            exact = reduce(torch.from_numpy(x.astype(np.float64)), None).numpy()
            ours, theirs = (reduce(library.from_numpy(x), None).numpy() for library in (fastgrad, torch))
            scale = np.maximum(
                np.abs(exact), np.abs(x).mean(dtype=np.float64) * (np.sqrt(x.size) if name == "sum" else 0)
            )
            assert error(ours, exact, scale) <= max(4.0, 3.0 * error(theirs, exact, scale)), (kind, shape)


@pytest.mark.parametrize("power", [-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 7, 2.5])
def test_powers_are_exact_to_the_last_bits(power: float) -> None:
    x = np.random.default_rng(0).uniform(0.1, 30.0, 20_000).astype(np.float32)
    exact = x.astype(np.float64) ** power
    scale = np.abs(exact)
    assert error((fastgrad.from_numpy(x) ** power).numpy(), exact, scale) <= 2.5


def test_slopes_of_elu_keep_their_digits_far_below_zero() -> None:
    x = fastgrad.tensor(np.linspace(-80, 0, 1001, dtype=np.float32), requires_grad=True)
    fastgrad.nn.functional.elu(x, 0.5).sum().backward()
    assert np.allclose(x.grad.numpy(), 0.5 * np.exp(x.detach().numpy().astype(np.float64)), rtol=1e-6, atol=0)
