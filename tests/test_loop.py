"""`step.loop` is the Python loop over batches: same losses, parameters, gradients, state and random counters, bit for bit.

The reference is that loop, written out in `python_loop` with the step as plain Python.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_bits

import fastgrad as torch
from fastgrad.compiled import CompileError

F = torch.nn.functional
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 5)).astype(np.float32)
Y = RNG.normal(size=(50, 3)).astype(np.float32)
CLASSES = RNG.integers(0, 3, 50)


@dataclass
class Setup:
    """A step, and the tensors it changes."""

    step: Callable[..., Any]
    params: list[Any]
    optimizer: Any = None
    others: list[Any] = field(default_factory=list)

    def state(self) -> list[Any]:
        found = [p.detach() for p in self.params] + [p.grad for p in self.params] + self.others
        if self.optimizer is not None:
            for p in self.params:
                found += [v for v in self.optimizer.state[p].values() if isinstance(v, torch.Tensor)]
        return [*found, torch.get_rng_state()]


def python_loop(
    step: Any, *arrays: Any, batch_size: int, epochs: int = 1, shuffle: bool = False, generator: Any = None,
    drop_last: bool = False, progress: Any = None,
) -> np.ndarray:  # fmt: skip
    tensors = [torch.tensor(np.array(a)) if isinstance(a, np.ndarray) else a for a in arrays]
    n = len(tensors[0])
    losses = []
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator) if shuffle else torch.arange(n)
        row = []
        for rows in order.split(batch_size):
            if drop_last and len(rows) < batch_size:
                continue
            loss = step(*[t[rows] for t in tensors])
            loss = loss[0] if isinstance(loss, tuple) else loss
            row.append(loss.detach().numpy().copy().reshape(()))
        losses.append(np.array(row))
        if progress is not None:
            progress(epoch, losses[-1])
    return np.array(losses)


def assert_same(left: Any, right: Any) -> None:
    assert len(left) == len(right)
    for i, (a, b) in enumerate(zip(left, right, strict=True)):
        assert (a is None) == (b is None) and (a is None or same_bits(a, b)), f"{i}: {a} is not {b}"


def check(make: Callable[[], Setup], *arrays: Any, **options: Any) -> np.ndarray:
    """The loop and the Python loop agree, from the start and when they go on."""
    ends = []
    for compiled in (False, True):
        torch.manual_seed(11)
        setup = make()
        found = []
        step = torch.compile(setup.step) if compiled else setup.step
        for _ in range(2):
            given = dict(options)
            if "generator" in given:
                given["generator"] = torch.Generator().manual_seed(given["generator"])
            losses = step.loop(*arrays, **given) if compiled else python_loop(step, *arrays, **given)
            found.append((losses, setup.state(), [p._version for p in setup.params]))
        ends.append(found)
    for (left, left_state, left_versions), (right, right_state, right_versions) in zip(*ends, strict=True):
        assert same_bits(left, right), f"{left} is not {right}"
        assert_same(left_state, right_state)
        assert left_versions == right_versions
    return ends[1][0][0]


def network(
    make_optimizer: Callable[..., Any], dropout: float = 0.0, classify: bool = False, dtype: Any = None, clip: float = 0.0,
) -> Callable[[], Setup]:  # fmt: skip
    def make() -> Setup:
        layers = [torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(7, 3)]
        model = torch.nn.Sequential(*[x for x in layers if dropout or not isinstance(x, torch.nn.Dropout)])
        if dtype is not None:
            model.to(dtype)
        optimizer = make_optimizer(model.parameters())

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y) if classify else F.mse_loss(model(x), y)
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            return loss

        return Setup(step, list(model.parameters()), optimizer)

    return make


def sgd(params: Any) -> Any:
    return torch.optim.SGD(params, lr=0.1)


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD": sgd,
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
}


# ------------------------------------------------------------------------------------------- equal to the Python loop


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_optimizers(name: str, shuffle: bool) -> None:
    check(network(OPTIMIZERS[name]), X, Y, batch_size=8, epochs=7, shuffle=shuffle)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize(
    "options",
    [{"dropout": 0.3}, {"classify": True}, {"dropout": 0.3, "classify": True}, {"clip": 0.5}],
    ids=["dropout", "cross entropy", "both", "clipped"],
)
def test_models(options: dict[str, Any], shuffle: bool) -> None:
    targets = CLASSES if options.get("classify") else Y
    check(network(OPTIMIZERS["Adam"], **options), X, targets, batch_size=8, epochs=7, shuffle=shuffle)


def test_a_generator_of_its_own_leaves_the_default_one_to_dropout() -> None:
    check(network(sgd, dropout=0.5), X, Y, batch_size=7, epochs=5, shuffle=True, generator=5)


def test_float64() -> None:
    arrays = X.astype(np.float64), Y.astype(np.float64)
    losses = check(network(sgd, dtype=torch.float64), *arrays, batch_size=8, epochs=4, shuffle=True)
    assert losses.dtype == np.float64


@pytest.mark.parametrize(
    ("size", "drop_last"), [(n, False) for n in (1, 7, 25, 49, 50, 80)] + [(n, True) for n in (1, 7, 25, 49, 50)]
)
def test_batch_sizes(size: int, drop_last: bool) -> None:
    losses = check(network(sgd), X, Y, batch_size=size, epochs=3, drop_last=drop_last, shuffle=size == 7)
    assert losses.shape == (3, 50 // size if drop_last else -(-50 // size))


def test_all_rows_are_one_batch_without_a_batch_size() -> None:
    torch.manual_seed(0)
    left = network(sgd)()
    torch.manual_seed(0)
    right = network(sgd)()
    losses = torch.compile(left.step).loop(X, Y, epochs=12)
    assert same_bits(losses, python_loop(right.step, X, Y, batch_size=50, epochs=12))
    assert_same(left.state(), right.state())


def test_tensors_and_arrays_are_the_same() -> None:
    found = []
    for arrays in ((X, CLASSES), (torch.tensor(X), torch.tensor(CLASSES))):
        torch.manual_seed(4)
        found.append(
            torch.compile(network(sgd, classify=True)().step).loop(*arrays, batch_size=9, epochs=5, shuffle=True)
        )
    assert same_bits(*found)


def test_large_arrays_in_loops_of_many_blocks() -> None:
    def make() -> Setup:
        w = torch.zeros(3000, requires_grad=True)
        optimizer = torch.optim.Adam([w], lr=0.01)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (torch.sin(x * w) - x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        return Setup(step, [w], optimizer)

    check(make, RNG.normal(size=(10, 3000)).astype(np.float32), batch_size=4, epochs=5, shuffle=True)


def test_several_arrays_of_all_types() -> None:
    arrays = [
        RNG.normal(size=(23, 2)).astype(np.float32), RNG.normal(size=(23, 3)), RNG.integers(-5, 5, (23, 2)),
        RNG.integers(-5, 5, 23).astype(np.int32), RNG.integers(0, 9, (23, 5)).astype(np.uint8), RNG.random((23, 3)) < 0.5,
    ]  # fmt: skip

    def make() -> Setup:
        w = torch.ones(3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.001)

        def step(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
            optimizer.zero_grad()
            rest = (a * c).sum(1) + d + e.sum(1)
            loss = ((torch.where(f, b, -b) @ w - rest) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return Setup(step, [w], optimizer)

    for shuffle in (False, True):
        check(make, *arrays, batch_size=5, epochs=4, shuffle=shuffle)


def test_the_loss_may_come_first_in_a_tuple_and_need_no_gradient() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)

    @torch.compile
    def evaluate(x: Any, y: Any) -> Any:
        hits = (model(x).argmax(1) == y).sum()
        return hits, model(x)

    hits = evaluate.loop(X, CLASSES, batch_size=8, epochs=3)
    assert hits.dtype == np.int64 and hits.shape == (3, 7)
    expected = [
        (model(torch.tensor(X[i : i + 8])).argmax(1).numpy() == CLASSES[i : i + 8]).sum() for i in range(0, 50, 8)
    ]
    assert hits.tolist() == [expected] * 3


def test_a_total_written_in_place_may_be_the_loss() -> None:
    def make() -> Setup:
        total = torch.zeros(1)

        def step(x: Any) -> Any:
            total.add_(x.sum())
            return total

        return Setup(step, [], None, [total])

    check(make, X, batch_size=8, epochs=5)


def test_a_method() -> None:
    class Model:
        def __init__(self) -> None:
            self.w = torch.zeros(5, requires_grad=True)
            self.optimizer = torch.optim.SGD([self.w], lr=0.1)

        @torch.compile
        def step(self, x: Any) -> Any:
            self.optimizer.zero_grad()
            loss = ((x @ self.w - 1) ** 2).mean()
            loss.backward()
            self.optimizer.step()
            return loss

    models = Model(), Model()
    for model in models:
        losses = model.step.loop(X, batch_size=20, epochs=6)
        assert losses.shape == (6, 3) and losses[-1, 0] < losses[0, 0]
    assert same_bits(models[0].w, models[1].w)
    assert models[0].step == models[0].step and models[0].step != models[1].step


# ------------------------------------------------------------------------------------------------- what replays depend on


def test_a_step_that_adds_to_gradients() -> None:
    def make() -> Setup:
        w = torch.zeros(5, requires_grad=True)

        def step(x: Any) -> Any:
            loss = ((x @ w - 1) ** 2).mean()
            loss.backward()
            with torch.no_grad():
                w.sub_(w.grad * 0.01)
            return loss

        return Setup(step, [w])

    check(make, X, batch_size=8, epochs=6)
    check(make, X, batch_size=10, epochs=6, shuffle=True)


def test_a_gradient_that_the_user_holds_stays_as_it_is() -> None:
    torch.manual_seed(0)
    setup = network(sgd)()
    step = torch.compile(setup.step)
    step.loop(X, Y, batch_size=10, epochs=3)
    held = [p.grad for p in setup.params]
    before = [g.numpy().copy() for g in held]
    step.loop(X, Y, batch_size=10, epochs=3)
    assert_same(held, before)
    assert not same_bits(setup.params[0].grad, held[0])


def test_guards_that_differ_from_batch_to_batch() -> None:
    def make() -> Setup:
        w = torch.zeros(5, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.05)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            out = x @ w
            if x[0, 0] > 0:
                out = out * 2
            if out.mean() > 0.5:
                out = torch.tanh(out)
            loss = ((out - 1) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return Setup(step, [w], optimizer)

    check(make, X, batch_size=4, epochs=8)
    check(make, X, batch_size=4, epochs=8, shuffle=True)


def test_known_branches_are_taken_without_python(spent: Any) -> None:
    w = torch.zeros(5, requires_grad=True)

    @torch.compile
    def step(x: Any) -> Any:
        loss = (x @ w).sum() * (2 if x[0, 0] > 0 else 3)
        return loss

    step.loop(X, batch_size=5, epochs=1)
    assert step.replays == 2
    count = spent()
    step.loop(X, batch_size=5, epochs=20)
    assert step.replays == 2 and count["missed"] == 0 and count["runs"] == 200 and count["planned"] == 0


def test_a_guard_on_a_floating_point_value() -> None:
    values = np.array([[0.0], [-0.0], [1.0], [-2.0], [np.nan], [0.0]], np.float32)

    def make() -> Setup:
        total = torch.zeros(1)

        def step(x: Any) -> Any:
            total.add_(1.0 if x.sum() else 10.0)
            return total

        return Setup(step, [], None, [total])

    assert check(make, values, batch_size=1, epochs=3)[0].tolist() == [10, 20, 21, 22, 23, 33]


def test_random_numbers_of_a_branch_that_was_not_taken_are_given_back() -> None:
    def make() -> Setup:
        w = torch.zeros(5, requires_grad=True)

        def step(x: Any) -> Any:
            noise = torch.rand(3)
            if x[0, 0] > noise[0]:
                noise = noise + torch.rand(3)
            return (x @ w).sum() + noise.sum()

        return Setup(step, [w])

    check(make, X, batch_size=5, epochs=8, shuffle=True)


def test_options_change_between_epochs() -> None:
    ends = []
    for compiled in (False, True):
        torch.manual_seed(1)
        setup = network(OPTIMIZERS["momentum"])()
        group = setup.optimizer.param_groups[0]
        told = []

        def progress(epoch: int, losses: np.ndarray, group: Any = group, told: Any = told) -> None:
            told.append((epoch, losses.copy()))
            group["lr"] *= 0.8
            if epoch == 3:
                group["weight_decay"] = 0.1  # another program from here on
            if epoch == 5:
                group["weight_decay"] = 0.0

        options: dict[str, Any] = {"batch_size": 8, "epochs": 8, "progress": progress}
        if compiled:
            torch.compile(setup.step).loop(X, Y, **options)
        else:
            python_loop(setup.step, X, Y, **options)
        ends.append((setup.state(), told))
    assert_same(ends[0][0], ends[1][0])
    assert [e for e, _ in ends[1][1]] == list(range(8))
    assert_same([x for _, x in ends[0][1]], [x for _, x in ends[1][1]])


def test_progress_may_use_the_step_and_rebind_names() -> None:
    scale = torch.ones(1)

    def make(compiled: bool) -> tuple[Any, Any]:
        w = torch.zeros(5, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.05)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = ((x @ w * scale - 1) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return torch.compile(step) if compiled else step, w

    found = []
    for compiled in (False, True):
        scale = torch.ones(1)
        step, w = make(compiled)

        def progress(epoch: int, losses: Any, step: Any = step) -> None:
            nonlocal scale
            step(torch.tensor(X[:8]))
            if epoch == 2:
                scale = torch.full((1,), 0.5)

        options: dict[str, Any] = {"batch_size": 8, "epochs": 6, "progress": progress}
        losses = step.loop(X, **options) if compiled else python_loop(step, X, **options)
        found.append([losses, w.detach(), w.grad])
    assert_same(*found)


def test_a_loop_inside_of_a_loop() -> None:
    torch.manual_seed(0)
    setup = network(sgd)()
    step = torch.compile(setup.step)
    torch.manual_seed(0)
    plain = network(sgd)()
    part = X[:20], Y[:20]

    def looped(epoch: int, losses: Any) -> None:
        step.loop(*part, batch_size=10, epochs=3, shuffle=True)

    def plainly(epoch: int, losses: Any) -> None:
        python_loop(plain.step, *part, batch_size=10, epochs=3, shuffle=True)

    torch.manual_seed(1)
    step.loop(X, Y, batch_size=10, epochs=4, shuffle=True, progress=looped)
    torch.manual_seed(1)
    python_loop(plain.step, X, Y, batch_size=10, epochs=4, shuffle=True, progress=plainly)
    assert_same(setup.state(), plain.state())


def test_progress_ends_the_loop() -> None:
    setup = network(sgd)()
    losses = torch.compile(setup.step).loop(
        X, Y, batch_size=10, epochs=100, progress=lambda epoch, _: np.bool_(epoch == 6)
    )
    assert losses.shape == (7, 5) and np.isfinite(losses).all()


def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    torch.compile(network(sgd)().step).loop(X, Y, batch_size=10, epochs=30, progress=True)
    shown = capsys.readouterr().err
    assert "150/150" in shown and "loss" in shown


def test_a_step_that_changes_its_batch_leaves_the_arrays_alone() -> None:
    def make() -> Setup:
        total = torch.zeros(())

        def step(x: Any) -> Any:
            x.mul_(2.0)
            total.add_(x.sum())
            return x.sum()

        return Setup(step, [], None, [total])

    before = X.copy()
    check(make, X, batch_size=8, epochs=4)
    assert same_bits(X, before)


def test_an_array_that_the_step_itself_changes() -> None:
    def make_with(data: Any) -> Callable[..., Any]:
        def step(x: Any) -> Any:
            data[3:20].mul_(0.9)
            data[:2].copy_(x[:2] * 0.5)
            return (x * x).sum() + x.sum()

        return step

    found = []
    for compiled in (False, True):
        data = torch.tensor(X)
        step = make_with(data)
        losses = torch.compile(step).loop(data, batch_size=5, epochs=3) if compiled else (
            python_loop(step, data, batch_size=5, epochs=3))  # fmt: skip
        found.append([losses, data])
    assert_same(*found)


def test_grad_modes_have_replays_of_their_own() -> None:
    model = torch.nn.Linear(5, 1)
    step = torch.compile(lambda x: model(x).sum())
    with torch.no_grad():
        first = step.loop(X, batch_size=10, epochs=4)
    assert same_bits(first, step.loop(X, batch_size=10, epochs=4))


def test_loops_in_eager_mode() -> None:
    found = []
    for eager in (False, True):
        torch.manual_seed(2)
        setup = network(OPTIMIZERS["Adam"], dropout=0.2)()
        step = torch.compile(setup.step)
        if eager:
            with torch.eager():
                found.append([step.loop(X, Y, batch_size=10, epochs=4, shuffle=True), *setup.state()])
        else:
            found.append([step.loop(X, Y, batch_size=10, epochs=4, shuffle=True), *setup.state()])
    assert_same(*found)


def test_both_tiers() -> None:
    found = []
    for tier in (0, 1):
        torch.set_tier(tier)
        torch.manual_seed(2)
        setup = network(OPTIMIZERS["Adam"], dropout=0.2)()
        found.append([torch.compile(setup.step).loop(X, Y, batch_size=10, epochs=4, shuffle=True), *setup.state()])
    assert_same(*found)


def test_what_is_pending_runs_first() -> None:
    setup = network(sgd)()
    step = torch.compile(setup.step)
    x, y = torch.tensor(X), torch.tensor(Y)
    step.loop(x, y, batch_size=10, epochs=3)
    with torch.no_grad():
        setup.params[0].mul_(2.0)
        x.add_(1.0)
    plain = [p.detach().clone() for p in setup.params]
    losses = step.loop(x, y, batch_size=50)
    hidden = torch.tanh((torch.tensor(X) + 1.0) @ plain[0].T + plain[1])
    expected = F.mse_loss(hidden @ plain[2].T + plain[3], torch.tensor(Y))
    assert np.allclose(losses[0, 0], expected.item(), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- arrays' memory


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "columns of a wider array": lambda a: np.concatenate([a, a], axis=1)[:, : a.shape[1]],
    "Fortran's order": lambda a: np.asfortranarray(a),
    "one row for all": lambda a: np.broadcast_to(a[:1], a.shape),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_layouts(layout: str, shuffle: bool) -> None:
    check(network(sgd), LAYOUTS[layout](X), LAYOUTS[layout](Y), batch_size=8, epochs=3, shuffle=shuffle)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 7, 8, 12, 13, 23, 40])
def test_rows_of_any_width_are_gathered_whole(width: int, dtype: Any) -> None:
    rows = 25_000 if width == 12 and dtype is np.float32 else 50  # once so many that rows are asked for ahead
    x = RNG.integers(0, 200, (rows, width)).astype(dtype)
    batches = torch.zeros(7, width, dtype=torch.float64)

    def step(batch: Any) -> Any:
        batches.mul_(3.0)
        batches.add_(batch)
        return batches.sum()

    ends = []
    for loop in (torch.compile(step).loop, lambda *args, **kwargs: python_loop(step, *args, **kwargs)):
        batches.zero_()
        generator = torch.Generator().manual_seed(1)
        losses = loop(x, batch_size=7, epochs=2, shuffle=True, generator=generator, drop_last=True)
        ends.append([losses[:, :9], batches.clone()])
    assert_same(*ends)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("offset", [0, 64, 3], ids=["aligned", "behind a header", "not aligned"])
def test_memory_mapped_files(tmp_path: Path, shuffle: bool, offset: int) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"\1" * offset + X.tobytes())
    mapped = np.memmap(file, np.float32, "r", offset, X.shape)
    torch.manual_seed(0)
    left = network(sgd)()
    torch.manual_seed(0)
    right = network(sgd)()
    losses = torch.compile(left.step).loop(mapped, Y, batch_size=8, epochs=4, shuffle=shuffle)
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    network(sgd)()
    assert same_bits(losses, python_loop(right.step, X, Y, batch_size=8, epochs=4, shuffle=shuffle))
    assert_same(left.state()[:-1], right.state()[:-1])
    assert same_bits(torch_state, torch.get_rng_state())
    assert file.read_bytes() == b"\1" * offset + X.tobytes()


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_memory_mapped_files_are_not_copied(tmp_path: Path, shuffle: bool) -> None:
    np.save(tmp_path / "x.npy", np.ones((50_000, 100), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    w = torch.zeros(100, requires_grad=True)
    step = torch.compile(lambda x: (x @ w).sum())
    step.loop(mapped[:1000], batch_size=100)
    tracemalloc.start()
    try:
        losses = step.loop(mapped, batch_size=100, epochs=2, shuffle=shuffle)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert losses.shape == (2, 500) and peak < mapped.nbytes / 10


def test_the_arrays_are_given_back_at_once() -> None:
    step = torch.compile(network(sgd)().step)
    array = X.copy()
    before = sys.getrefcount(array)
    step.loop(array, Y, batch_size=8, epochs=3)
    assert sys.getrefcount(array) == before


# ------------------------------------------------------------------------------------------------------------- errors


def test_an_index_out_of_range_stops_before_its_batch() -> None:
    wrong = CLASSES.copy()
    wrong[33] = 3
    torch.manual_seed(0)
    setup = network(OPTIMIZERS["Adam"], classify=True)()
    step = torch.compile(setup.step)
    step.loop(X, CLASSES, batch_size=8, epochs=2)
    torch.manual_seed(0)
    plain = network(OPTIMIZERS["Adam"], classify=True)()
    python_loop(plain.step, X, CLASSES, batch_size=8, epochs=2)
    expected = python_loop(plain.step, X[:32], CLASSES[:32], batch_size=8)
    with pytest.raises(IndexError, match=r"Target 3 is out of bounds.*test_loop\.py") as caught:
        step.loop(X, wrong, batch_size=8, epochs=2)
    assert_same(setup.state(), plain.state())
    losses = caught.value.losses
    assert caught.value.steps == 4
    assert losses.shape == (2, 7) and same_bits(losses[0, :4], expected[0]) and np.isnan(losses.reshape(-1)[4:]).all()
    assert same_bits(step.loop(X, CLASSES, batch_size=8), python_loop(plain.step, X, CLASSES, batch_size=8))
    assert_same(setup.state(), plain.state())


def test_an_error_in_progress_keeps_the_losses() -> None:
    def progress(epoch: int, losses: Any) -> None:
        if epoch == 2:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough") as caught:
        torch.compile(network(sgd)().step).loop(X, Y, batch_size=10, epochs=5, progress=progress)
    assert np.isfinite(caught.value.losses).all(axis=1).tolist() == [True, True, True, False, False]


WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no arrays": ((), {}, TypeError, "expected the arrays"),
    "lengths": ((X, Y[:40]), {}, ValueError, r"same number of rows, got \[50, 40\]"),
    "no rows": ((X[:0], Y[:0]), {}, ValueError, "no rows"),
    "0-dimensional": ((np.array(1.0),), {}, ValueError, "0-dimensional"),
    "a list": (([1.0, 2.0],), {}, TypeError, "array 0 is a list"),
    "float16": ((X, Y.astype(np.float16)), {}, TypeError, "float16"),
    "big-endian": ((X.astype(">f4"), Y), {}, TypeError, ">f4"),
    "gradients": ((X, torch.tensor(Y, requires_grad=True)), {}, RuntimeError, "array 1 requires gradients"),
    "batch_size 0": ((X, Y), {"batch_size": 0}, ValueError, "batch_size must be positive"),
    "batch_size -1": ((X, Y), {"batch_size": -1}, ValueError, "batch_size must not be negative, got -1"),
    "batch_size 2.5": ((X, Y), {"batch_size": 2.5}, TypeError, "batch_size must be an integer, got float"),
    "batch_size too large": ((X, Y), {"batch_size": 51, "drop_last": True}, ValueError, "leaves nothing of 50 rows"),
    "epochs -1": ((X, Y), {"epochs": -1}, ValueError, "epochs must not be negative"),
    "epochs None": ((X, Y), {"epochs": None}, TypeError, "epochs must be an integer"),
    "generator": ((X, Y), {"shuffle": True, "generator": 3}, TypeError, "generator must be"),
    "progress": ((X, Y), {"progress": "yes"}, TypeError, "progress must be"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str) -> None:
    arrays, options, kind, message = WRONG[case]
    setup = network(sgd)()
    before = [p.detach().clone() for p in setup.params]
    with pytest.raises(kind, match=message):
        torch.compile(setup.step).loop(*arrays, **options)
    assert_same([p.detach() for p in setup.params], before)


def test_no_epochs() -> None:
    setup = network(sgd)()
    state = torch.get_rng_state()
    losses = torch.compile(setup.step).loop(X, Y, batch_size=8, epochs=0, shuffle=True)
    assert losses.shape == (0, 7) and same_bits(state, torch.get_rng_state())


def test_what_a_step_must_return() -> None:
    with pytest.raises(TypeError, match=r"must return its loss.*got NoneType"):
        torch.compile(lambda x: None).loop(X)
    with pytest.raises(RuntimeError, match=r"single number, got a tensor of shape \[8, 5\]"):
        torch.compile(lambda x: x * 2).loop(X, batch_size=8)
    step = torch.compile(lambda x: x * 2)
    step(torch.tensor(X[:8]))
    with pytest.raises(RuntimeError, match=r"single number, got a tensor of shape \[8, 5\]"):
        step.loop(X, batch_size=8)


def test_what_compile_refuses_is_refused() -> None:
    with pytest.raises(CompileError, match=r"reading a tensor's value.*test_loop\.py"):
        torch.compile(lambda x: torch.tensor(x.sum().item())).loop(X, batch_size=8)
    with pytest.raises(CompileError, match="drawing a random order"):
        torch.compile(lambda x: x[torch.randperm(8)].sum()).loop(X, batch_size=8)
    inner = torch.compile(lambda x: x.sum())
    outer = torch.compile(lambda x: inner.loop(x) and x.sum())
    with pytest.raises(CompileError, match=r"step\.loop inside"):
        outer(torch.tensor(X))


def test_a_step_that_cannot_run_in_compiled_code_says_so() -> None:
    w = torch.ones(5, requires_grad=True)

    def step(x: Any) -> Any:
        w.grad = None
        loss = ((x @ w) ** 2).sum()
        loss.backward(create_graph=True)
        return loss

    with pytest.warns(RuntimeWarning, match=r"runs batch by batch.*history") as told:
        losses = torch.compile(step).loop(X, batch_size=5, epochs=4)
    assert np.allclose(losses, python_loop(step, X, batch_size=5, epochs=4))
    assert w.grad.requires_grad and [Path(x.filename).name for x in told] == ["test_loop.py"]


def test_a_step_whose_gradients_come_and_go_says_so() -> None:
    def make() -> Setup:
        w = torch.zeros(5, requires_grad=True)

        def step(x: Any) -> Any:
            if w.grad is None:
                loss = (x @ w).sum()
                loss.backward()
            else:
                loss = w.grad.sum()
                w.grad = None
            return loss

        return Setup(step, [w])

    with pytest.warns(RuntimeWarning, match="runs batch by batch"):
        check(make, X, batch_size=5, epochs=4)


# --------------------------------------------------------------------------------------------------- Ctrl-C and threads


def interrupted(step: Any, *arrays: Any, **options: Any) -> tuple[int, np.ndarray]:
    """Loop for very long, press Ctrl-C soon, and return the number of batches done and the losses."""
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            step.loop(*arrays, **options)
    finally:
        timer.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    losses = caught.value.losses
    return int(np.isfinite(losses).sum()), losses


@pytest.mark.skipif(os.name == "nt", reason="a process can't send itself Ctrl-C")
@pytest.mark.parametrize("progress", [None, lambda epoch, losses: None], ids=["slices", "epochs"])
def test_ctrl_c_stops_between_batches(progress: Any, python_handles_ctrl_c: None) -> None:
    arrays = X[:, :2], Y[:, 0]
    torch.manual_seed(3)

    def make() -> Setup:
        w = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=1e-4, momentum=0.9)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = ((x @ w - y) ** 2).mean() + torch.rand(1).sum() * 0.0
            loss.backward()
            optimizer.step()
            return loss

        return Setup(step, [w], optimizer)

    setup = make()
    step = torch.compile(setup.step)
    step.loop(*arrays, batch_size=20, epochs=3)
    count, losses = interrupted(step, *arrays, batch_size=20, epochs=3_000_000, shuffle=True, progress=progress)
    assert 100 < count < losses.size
    assert np.isfinite(losses.reshape(-1)[:count]).all()
    end = setup.state()
    torch.manual_seed(3)
    again = make()
    other = torch.compile(again.step)
    other.loop(*arrays, batch_size=20, epochs=3)
    other.loop(*arrays, batch_size=20, epochs=count // 3, shuffle=True)
    if count % 3 == 0:
        assert_same(end[:-1], again.state()[:-1])
    else:  # the rest of an epoch
        order = torch.randperm(50).numpy()
        for i in range(count % 3):
            rows = order[20 * i : 20 * i + 20]
            again.step(torch.tensor(arrays[0][rows]), torch.tensor(arrays[1][rows]))
        assert_same(end, again.state())


@pytest.mark.skipif(os.name == "nt", reason="a process can't send itself Ctrl-C")
def test_a_handler_of_ctrl_c_that_goes_on() -> None:
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        step = torch.compile(network(sgd)().step)
        ended = time.perf_counter() + 0.5
        losses = step.loop(X, Y, batch_size=50, epochs=1_000_000, progress=lambda *_: time.perf_counter() > ended)
        mine = signal.getsignal(signal.SIGINT)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert pressed == [1] and np.isfinite(losses).all() and mine is not signal.default_int_handler


def test_threads_may_loop_over_one_step_at_once() -> None:
    w = torch.ones(5)
    step = torch.compile(lambda x: (torch.tanh(x * w) ** 2).sum())
    parts = [RNG.normal(size=(64, 5)).astype(np.float32) for _ in range(4)]
    expected = [step.loop(x, batch_size=8) for x in parts]
    found: list[Any] = [None] * 4

    def work(k: int) -> None:
        found[k] = step.loop(parts[k], batch_size=8, epochs=2000)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k in range(4):
        assert same_bits(found[k], np.repeat(expected[k], 2000, axis=0))


def test_other_threads_run_meanwhile() -> None:
    step = torch.compile(network(sgd)().step)
    step.loop(X, Y, batch_size=50, epochs=3)
    ticks = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    step.loop(X, Y, batch_size=50, epochs=100_000)
    stop.set()
    thread.join()
    assert len(ticks) > 20


# -------------------------------------------------------------------------------------------------------------- counts


def test_a_known_step_is_neither_recorded_nor_planned_again(spent: Any) -> None:
    step = torch.compile(network(OPTIMIZERS["Adam"], dropout=0.3)().step)
    step.loop(X, Y, batch_size=8, epochs=2)
    count = spent()
    step.loop(X, Y, batch_size=8, epochs=50, shuffle=True)
    assert [count[k] for k in ("runs", "planned", "missed", "kernels compiled")] == [350, 0, 0, 0]


def test_permutations_are_those_of_randperm() -> None:
    g = torch.Generator().manual_seed(7)
    found = torch.compile(lambda x: x.sum()).loop(np.arange(20), batch_size=1, epochs=6, shuffle=True, generator=g)
    g.manual_seed(7)
    expected = [torch.randperm(20, generator=g).tolist() for _ in range(6)]
    assert found.tolist() == expected
    assert len({tuple(row) for row in expected}) == 6


def test_every_order_is_as_likely_as_any_other() -> None:
    g = torch.Generator().manual_seed(1)
    counts = {order: 0 for order in itertools.permutations(range(4))}
    draws = 4800
    for _ in range(draws):
        counts[tuple(torch.randperm(4, generator=g).tolist())] += 1
    expected = draws / len(counts)
    chi_square = sum((c - expected) ** 2 / expected for c in counts.values())
    assert chi_square < 60  # 23 degrees of freedom: exceeded with a probability of 4e-5
