"""Optimizers whose parameters share memory: each update reads what the one before it has written, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad

OPTIMIZERS = {
    "sgd": lambda T, p: T.optim.SGD(p, lr=0.1),
    "decay": lambda T, p: T.optim.SGD(p, lr=0.1, weight_decay=0.5),
    "momentum": lambda T, p: T.optim.SGD(p, lr=0.1, momentum=0.5, dampening=0.25),
    "nesterov": lambda T, p: T.optim.SGD(p, lr=0.1, momentum=0.5, nesterov=True),
    "adam": lambda T, p: T.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "amsgrad": lambda T, p: T.optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda T, p: T.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}
SHARED = {
    "the same memory": lambda flat: (flat[:4], flat[:4]),
    "another shape": lambda flat: (flat[:4].view(2, 2), flat[:4]),
    "transposed": lambda flat: (flat[:4].view(2, 2), flat[:4].view(2, 2).t()),
    "overlapping": lambda flat: (flat[:4], flat[2:6]),
    "side by side": lambda flat: (flat[:4], flat[4:]),
}


def trained(T: Any, make: Callable[..., Any], share: Callable[[Any], tuple[Any, Any]], compiled: bool) -> list[Any]:
    """The memory, and both parameters, after some steps."""
    flat = T.arange(8, dtype=T.float64) / 8 - 0.25
    a, b = (T.nn.Parameter(part) for part in share(flat))
    optimizer = make(T, [a, b])

    def step() -> None:
        optimizer.zero_grad()
        ((a - 0.5) ** 2).sum().backward()
        ((b * b * b).sum() * 0.5).backward()
        optimizer.step()

    run = T.compile(step) if compiled else step
    for _ in range(5):
        run()
    return [x.tolist() for x in (flat, a, b)]


@pytest.mark.parametrize("mode", ["plain", "eager", "compiled"])
@pytest.mark.parametrize("share", SHARED)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_that_share_memory_are_updated_one_after_another(name: str, share: str, mode: str) -> None:
    torch = pytest.importorskip("torch")
    want = trained(torch, OPTIMIZERS[name], SHARED[share], False)
    if mode == "eager":
        with fastgrad.eager():
            got = trained(fastgrad, OPTIMIZERS[name], SHARED[share], False)
    else:
        got = trained(fastgrad, OPTIMIZERS[name], SHARED[share], mode == "compiled")
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_count_of_steps_keeps_its_type_whatever_the_parameters(name: str) -> None:
    p = fastgrad.nn.Parameter(fastgrad.tensor(1.0, dtype=fastgrad.float64))
    optimizer = getattr(fastgrad.optim, name)([p], lr=0.125)
    for _ in range(3):
        optimizer.zero_grad()
        (p * p).backward()
        optimizer.step()
    state = optimizer.state[p]
    assert (state["step"].dtype, state["exp_avg"].dtype) == (fastgrad.float32, fastgrad.float64)
    assert state["step"].item() == 3.0


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_parameters_that_share_memory_with_each_other_and_with_an_array(name: str) -> None:
    T = pytest.importorskip("torch")
    found = []
    for library in (fastgrad, T):
        a, b, c = (library.nn.Parameter(library.ones(3) * k) for k in (1.0, 2.0, 3.0))
        array = a.detach().numpy()
        b.data = a.data
        optimizer = getattr(library.optim, name)([a, b, c], lr=0.125)
        for _ in range(4):
            optimizer.zero_grad()
            (a * b * c * library.arange(3.0)).sum().backward()
            optimizer.step()
        found.append([a.tolist(), b.tolist(), c.tolist(), array.tolist()])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
