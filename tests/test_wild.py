"""Programs that never come back: drafts give the bits of every other way, cost little, and keep nothing."""

from __future__ import annotations

import gc
import random
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import same_bits

import fastgrad
from fastgrad import recording
from fastgrad.drafts.draft import Draft


@pytest.fixture
def drafts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every trace is a draft."""
    fastgrad.recording.flush(recording.local.trace)
    monkeypatch.setattr(recording, "STRANGERS", 0)
    recording.local.trace.reset()
    yield
    recording.flush(recording.local.trace)
    monkeypatch.undo()
    recording.local.trace.reset()


def drafting() -> bool:
    return type(recording.local.trace.node) is Draft


def tree(seed: int, x: Any, w: Any, length: int = 30, indices: float = 0.1) -> Any:
    """Another expression for every seed; `indices` is the share of positions, which drafts can't hold."""
    rng = random.Random(seed)
    values = [x, x]
    for _ in range(length):
        a, b = values[-1 - rng.randrange(2)], values[-1 - rng.randrange(2)]
        operations: list[Callable[[], Any]] = [
            lambda a=a, b=b: a + b,
            lambda a=a, b=b: a * b.tanh(),
            lambda a=a, b=b: a - 0.5 * b,
            lambda a=a: a.sin(),
            lambda a=a: (a @ w.T).tanh(),
            lambda a=a, b=b: fastgrad.nn.functional.softmax(a * 0.1, 0) + b,
            lambda a=a: a[[3, 2, 1, 0]] if rng.random() < indices else a.exp().log1p(),
        ]
        values.append(rng.choice(operations)())
    return values[-1].sum()


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    return (
        fastgrad.tensor(rng.uniform(-1, 1, 4), requires_grad=True),
        fastgrad.tensor(rng.uniform(-1, 1, (4, 4)), requires_grad=True),
    )


def gradients(seed: int, observe: bool, twice: bool) -> list[Any]:
    x, w = data()
    for i in range(1 + twice):
        loss = tree(seed + i, x, w)
        if observe:
            loss.item()
        loss.backward()
    return [loss.detach(), x.grad, w.grad]


@pytest.mark.parametrize("observe", [False, True], ids=["pending", "observed"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "accumulated"])
@pytest.mark.parametrize("seed", range(12))
def test_drafts_give_the_same_bits(seed: int, observe: bool, twice: bool, request: pytest.FixtureRequest) -> None:
    expected = gradients(seed, observe, twice)
    request.getfixturevalue("drafts")
    assert drafting()
    for ours, theirs in zip(gradients(seed, observe, twice), expected, strict=True):
        assert same_bits(ours, theirs)


def chain(length: int) -> list[Any]:
    rng = random.Random(1)
    x, a = fastgrad.tensor(0.3, requires_grad=True), fastgrad.tensor(0.99, requires_grad=True)
    y = x
    for _ in range(length):
        y = rng.choice([y * a, y + a, y - a, y.tanh()][:3]) if rng.random() < 0.9 else y.tanh()
    y.backward()
    return [y.detach(), x.grad, a.grad]


def test_a_chain_longer_than_any_trace_gives_the_same_bits(drafts: None) -> None:
    """Its drafts are cut where traces are full, and the gradient's parts are added in the order of one long tape."""
    ours = chain(10_000)
    with fastgrad.eager():
        theirs = chain(10_000)
    assert all(same_bits(a, b) for a, b in zip(ours, theirs, strict=True))


def test_programs_that_never_come_back_become_drafts_and_keep_nothing() -> None:
    recording.local.trace.kinds = None
    x, w = data()

    def step(seed: int) -> None:
        x.grad = w.grad = None
        loss = tree(seed, x, w, 20, 0.0)
        loss.backward()
        loss.item()

    for seed in range(60):
        step(seed)
    recording.flush(recording.local.trace)
    before = fastgrad.stats()
    tracemalloc.start()
    try:
        for seed in range(60, 360):
            step(seed)
            if seed == 150:
                gc.collect()
                start = tracemalloc.get_traced_memory()[0]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert fastgrad.stats()["planned"] - before["planned"] < 10, "drafts are not planned"
    assert grown < 1 << 20


def test_a_program_that_comes_back_is_planned_again(drafts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "STRANGERS", 1)
    recording.local.trace.strangers, recording.local.trace.kinds = 5, None
    recording.local.trace.reset()
    assert drafting()
    x, w = data()
    for _ in range(12):
        x.grad = w.grad = None
        loss = tree(1, x, w)
        loss.backward()
        loss.item()
    assert not drafting()
    before = fastgrad.stats()
    for _ in range(5):
        x.grad = w.grad = None
        loss = tree(1, x, w)
        loss.backward()
        loss.item()
    assert fastgrad.stats()["missed"] == before["missed"]


def test_an_update_after_a_draft_is_a_known_trace(drafts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = data()
    optimizer = fastgrad.optim.Adam([x, w], lr=0.01)
    for seed in range(12):
        if seed == 6:
            missed = fastgrad.stats()["planned"]
        optimizer.zero_grad()
        (x * w).tanh().sum().backward() if seed % 2 else (x + w).sin().mean().backward()
        optimizer.step()
    assert fastgrad.stats()["planned"] == missed


def test_what_a_draft_cannot_hold_goes_on_with_nodes(drafts: None) -> None:
    x, _ = data()
    y = (x * 2).tanh()
    assert drafting()
    z = y[fastgrad.tensor([2, 0])]  # positions may be out of range: such an entry names its line
    assert not drafting()
    z.sum().backward()
    expected = np.zeros(4)
    expected[[2, 0]] = (2 / np.cosh(2 * x.detach().numpy()) ** 2)[[2, 0]]
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12)


def test_a_draft_shows_its_tape(drafts: None) -> None:
    x, _ = data()
    y = (x * x).sum()
    assert drafting()
    shown = fastgrad.tape(y)
    assert [line.split()[1] for line in shown.splitlines()[1:]] == ["leaf", "mul", "sum"]
    assert y.grad_fn.name() == "SumBackward0"


def test_errors_are_those_of_any_other_trace(drafts: None) -> None:
    x, _ = data()
    with pytest.raises(RuntimeError, match="must match the size"):
        (x * 2) + fastgrad.ones(3)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    y.item()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_a_saved_value_is_the_one_that_was_used(drafts: None) -> None:
    """A leaf written after the run that read it: the graph keeps the old value."""
    x, w = data()
    before = w.detach().numpy().copy()
    y = (x * w[0]).sum()
    y.item()
    with fastgrad.no_grad():
        w.mul_(3.0)
    y.backward()
    assert same_bits(x.grad, before[0])


def test_another_thread_may_ask_for_a_draft_value(drafts: None) -> None:
    x, _ = data()
    y = (x * 3).exp()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(y.detach().numpy().copy()))
    thread.start()
    thread.join()
    assert drafting(), "the draft goes on as it was"
    z = (y + x).sum()
    z.backward()
    np.testing.assert_allclose(found[0], np.exp(3 * x.detach().numpy()), rtol=1e-14)
    np.testing.assert_allclose(x.grad.numpy(), 3 * found[0] + 1, rtol=1e-14)


def test_a_compiled_function_is_called_between_drafts(drafts: None) -> None:
    x, _ = data()
    double = fastgrad.compile(lambda a: a * 2)
    for _ in range(3):
        y = double(x.detach()) + x
        y.sum().backward()
    assert same_bits(x.grad, np.full(4, 3.0))


def test_the_cost_of_an_operation_does_not_grow_with_the_tape(drafts: None) -> None:
    """By the number of calls of functions, Python's and C's, which no other program on the machine can change."""

    def cost(length: int) -> float:
        chain(length)
        return _calls(lambda: chain(length)) / length

    few = cost(2_000)
    assert few > 1
    assert cost(16_000) < 1.5 * few


def _calls(function: Callable[[], Any]) -> int:
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return counted


def test_views_that_are_alive_do_not_end_a_draft(drafts: None) -> None:
    """A view with a history shares the memory of what it views, whichever of them is looked at."""
    x, w = data()
    y = (x @ w).tanh()
    view = y.reshape(2, 2)
    loss = view.sin().sum()
    loss.item()
    assert drafting()
    np.testing.assert_array_equal(view.detach().numpy().reshape(4), y.detach().numpy())
    loss.backward()
    expected = np.cos(np.tanh(x.detach().numpy() @ w.detach().numpy())) * (1 - y.detach().numpy() ** 2)
    np.testing.assert_allclose(x.grad.numpy(), w.detach().numpy() @ expected, rtol=1e-12)
    y.detach()[0] = 5.0
    assert view[0, 0].item() == 5.0


def test_programs_with_callbacks_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts can't hold hooks: after some of them in a row the trace cache has a longer turn, and finds what comes back."""
    trace = recording.local.trace
    monkeypatch.setattr(recording, "STRANGERS", 4)
    trace.strangers, trace.kinds = 8, None
    trace.reset()
    x, _ = data()

    def step() -> None:
        x.grad = None
        y = fastgrad.sin(x)
        y.register_hook(lambda g: None)
        (y * y).sum().backward()
        x.grad.numpy()

    for _ in range(40):
        step()
    before = fastgrad.stats()["planned"]
    for _ in range(5):
        step()
    assert fastgrad.stats()["planned"] == before
