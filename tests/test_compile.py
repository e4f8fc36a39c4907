"""A compiled function does what the function does: same values, same side effects, on every call, or an error that says why not.

The reference is the same Python function run without `compile`, and NumPy where a value can be written down.
"""

from __future__ import annotations

import collections
import copy
import functools
import gc
import itertools
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_bits

import fastgrad as torch
from fastgrad.compiled import CompileError, Escape

F = torch.nn.functional
HERE = Path(__file__).name
CALLS = 12  # more than it takes to record, to replay, and to write the quick way of a replay


def array(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def tensor(*shape: int, seed: int = 0, **options: Any) -> torch.Tensor:
    return torch.tensor(array(*shape, seed=seed), **options)


def assert_same(left: Any, right: Any) -> None:
    """Nested results agree in structure, types and bits."""
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert same_bits(left, right), f"{left} is not {right}"
        assert left.requires_grad == right.requires_grad
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


@dataclass
class Setup:
    """A model, its optimizer and a step, twice: to be run in Python and compiled."""

    model: Any
    optimizer: Any
    step: Callable[..., Any]

    def state(self) -> list[Any]:
        found = [p.detach() for p in self.model.parameters()]
        found += [p.grad for p in self.model.parameters() if p.grad is not None]
        for p in self.model.parameters():
            found += [v for v in self.optimizer.state[p].values() if isinstance(v, torch.Tensor)]
        return found


def build(make_optimizer: Callable[..., Any], compiled: bool, dropout: float = 0.0) -> Setup:
    torch.manual_seed(3)
    layers = [torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(7, 2)]
    model = torch.nn.Sequential(*[x for x in layers if dropout or not isinstance(x, torch.nn.Dropout)])
    optimizer = make_optimizer(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y) * scale
        loss.backward()
        optimizer.step()
        return loss

    return Setup(model, optimizer, torch.compile(step) if compiled else step)


def both(make_optimizer: Callable[..., Any], **options: Any) -> tuple[Setup, Setup]:
    return build(make_optimizer, False, **options), build(make_optimizer, True, **options)


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "SGD nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "SGD dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.25),
    "SGD weight decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
    "SGD maximize": lambda p: torch.optim.SGD(p, lr=0.01, maximize=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "Adam weight decay": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, betas=(0.5, 0.75), eps=1e-3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
}


# ------------------------------------------------------------------------------------------------ replay equals Python


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_training_step_is_the_plain_one(name: str) -> None:
    plain, compiled = both(OPTIMIZERS[name])
    for i in range(30):
        x, y = tensor(8, 5, seed=i), tensor(8, 2, seed=i + 100)
        assert_same(compiled.step(x, y), plain.step(x, y))
        assert_same(compiled.state(), plain.state())


def test_steps_may_change_between_compiled_and_plain() -> None:
    plain, compiled = both(OPTIMIZERS["Adam"])
    for i in range(24):
        x, y = tensor(8, 5, seed=i), tensor(8, 2, seed=i + 100)
        step = compiled.step if i % 3 else compiled.step.__wrapped__
        assert_same(step(x, y), plain.step(x, y))
    assert_same(compiled.state(), plain.state())


def test_a_loop_with_a_compiled_step_runs_one_program_a_step(spent: Any) -> None:
    setup = build(OPTIMIZERS["SGD momentum"], True)
    x, y = tensor(8, 5), tensor(8, 2)
    for _ in range(CALLS):
        setup.step(x, y)
    held, count = setup.step.replays, spent()
    for _ in range(20):
        setup.step(x, y)
    assert [count[k] for k in ("runs", "planned", "missed", "kernels compiled")] == [20, 0, 0, 0]
    assert setup.step.replays == held


def test_results_of_former_calls_keep_their_values() -> None:
    step = torch.compile(lambda x: (x * 2, x.sum()))
    results = [step(torch.full((3,), float(i))) for i in range(CALLS)]
    for i, (double, total) in enumerate(results):
        assert double.tolist() == [2.0 * i] * 3
        assert total.item() == 3.0 * i


def test_results_handed_to_numpy_keep_their_values() -> None:
    step = torch.compile(lambda x: x * 2)
    arrays = [step(torch.full((3,), float(i))).numpy() for i in range(CALLS)]
    views = [step(torch.full((3,), float(i)))[1:] for i in range(CALLS)]
    for i in range(CALLS):
        assert arrays[i].tolist() == [2.0 * i] * 3
        assert views[i].tolist() == [2.0 * i] * 2


def test_gradients_of_former_calls_keep_their_values() -> None:
    w = torch.ones(3, requires_grad=True)

    @torch.compile
    def step(x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()

    gradients = []
    for i in range(CALLS):
        step(torch.full((3,), float(i)))
        gradients.append(w.grad)
    assert [g.tolist() for g in gradients] == [[float(i)] * 3 for i in range(CALLS)]


def test_results_written_to_by_the_caller_do_not_come_back() -> None:
    step = torch.compile(lambda x: x * 2)
    x = torch.ones(3)
    for _ in range(CALLS):
        y = step(x)
        assert y.tolist() == [2.0, 2.0, 2.0]
        y.add_(5)
        y.tolist()


def test_a_step_without_results_has_its_effects() -> None:
    total = torch.zeros(3)

    @torch.compile
    def add(x: Any) -> None:
        total.add_(x)

    for i in range(CALLS):
        assert add(torch.full((3,), float(i))) is None
    assert total.tolist() == [float(sum(range(CALLS)))] * 3


def test_every_tier_and_eager_give_the_same_bits() -> None:
    outcomes = []
    for tier, eager in ((0, False), (1, False), (None, False), (None, True)):
        torch.set_tier(tier)
        setup = build(OPTIMIZERS["Adam"], True)
        for i in range(8):
            x, y = tensor(8, 5, seed=i), tensor(8, 2, seed=i)
            if eager:
                with torch.eager():
                    setup.step(x, y)
            else:
                setup.step(x, y)
        outcomes.append([t.numpy().copy() for t in setup.state()])
    for other in outcomes[1:]:
        assert all(same_bits(a, b) for a, b in zip(outcomes[0], other, strict=True))


def test_a_compiled_function_calls_another() -> None:
    inner = torch.compile(lambda x: torch.exp(x) * 2)
    outer = torch.compile(lambda x: inner(x) + inner(x * 0.5))
    for i in range(CALLS):
        x = tensor(4, seed=i)
        np.testing.assert_allclose(outer(x).numpy(), 2 * np.exp(x.numpy()) + 2 * np.exp(x.numpy() / 2), rtol=1e-6)
    assert outer.replays == 1


def test_pending_work_runs_before_a_compiled_call() -> None:
    w = torch.ones(3)
    step = torch.compile(lambda x: x * w)
    for i in range(CALLS):
        w.fill_(float(i))
        x = torch.ones(3) * 2
        before = w * 10
        y = step(x)
        assert (before.tolist(), y.tolist()) == ([10.0 * i] * 3, [2.0 * i] * 3)


# ----------------------------------------------------------------------------------------------- numbers and signatures


def test_floats_are_inputs() -> None:
    step = torch.compile(lambda x, rate: x * rate + 1)
    x = tensor(4)
    for i in range(CALLS):
        assert_same(step(x, i / 7), x * (i / 7) + 1)
    assert step.replays == 1


@pytest.mark.parametrize("value", [0.0, -0.0, float("inf"), float("nan"), 1e-300, 1e300, -2.5])
def test_special_floats_are_inputs(value: float) -> None:
    step = torch.compile(lambda x, rate: (x * rate, rate / x, x - rate))
    x = torch.tensor([1.0, -2.0])
    for rate in (0.5, 1.5, 2.5, value, 0.5, value):
        assert_same(step(x, rate), (x * rate, rate / x, x - rate))
    assert step.replays == 1


FLOATS: dict[str, Callable[[torch.Tensor, float], Any]] = {
    "full": lambda x, r: torch.full((2,), r),
    "full_like": lambda x, r: torch.full_like(x, r),
    "fill_": lambda x, r: torch.zeros(2).fill_(r),
    "item": lambda x, r: setitem(torch.zeros(2), r),
    "clamp": lambda x, r: x.clamp(-r, r),
    "where": lambda x, r: torch.where(x > r, x, r),
    "alpha": lambda x, r: torch.add(x, x, alpha=r),
    "power": lambda x, r: (x * x) ** r,
    "comparison": lambda x, r: x > r,
    "an integer tensor": lambda x, r: torch.arange(3) * r,
    "dropout": lambda x, r: F.dropout(x, 0.5) * r,
    "integer and true division": lambda x, r: (x // r, x % r, x / r),
    "a tensor of it": lambda x, r: torch.tensor([r, 1.0]),
    "a list": lambda x, r: x + torch.tensor(r),
    "uniform_": lambda x, r: torch.zeros(3).uniform_(0, r),
    "double precision": lambda x, r: x.double() * r,
    "math": lambda x, r: x * (r**2 + 1 / r - abs(r) + max(r, 0.5)),
    "round trip": lambda x, r: x * r * (1 / r),
    "returned": lambda x, r: (x, r),
}


def setitem(t: torch.Tensor, value: float) -> torch.Tensor:
    t[0] = value
    return t


def test_a_float_that_becomes_data_by_itself_is_replayed_or_refused() -> None:
    compiled = torch.compile(FLOATS["a list"])
    for rate in (0.5, 1.5, 0.25, 2.0, 3.0):
        x = torch.tensor([1.0, -2.0])
        try:
            assert_same(compiled(x, rate), x + rate)
        except CompileError as error:
            assert "can't be replayed" in str(error)


@pytest.mark.parametrize("name", sorted(FLOATS.keys() - {"a list"}))
def test_a_float_is_used_as_in_python(name: str) -> None:
    """Each of these gives what Python gives; never another type or value."""
    compiled, x = torch.compile(FLOATS[name]), torch.tensor([1.0, -2.0])
    for rate in (0.5, 1.5, 0.25, 2.0, 3.0):
        torch.manual_seed(1)
        expected = FLOATS[name](x, rate)
        torch.manual_seed(1)
        assert_same(compiled(x, rate), expected)


def test_a_float_may_be_compared_in_python_only_by_recording_again() -> None:
    def step(x: Any, rate: float) -> Any:
        return x + 1 if rate > 0.5 else x - 1

    compiled, x = torch.compile(step), tensor(3)
    for rate in (0.0, 1.0, 0.0, 0.75, 0.25, 1.0, 1.0, 0.0, 0.0, 1.0):
        assert_same(compiled(x, rate), step(x, rate))


def test_floats_keep_their_meaning_as_python_numbers() -> None:
    def step(x: Any, a: float, b: float) -> Any:
        return x * (a + b) + a**2 * x - b / a + x**a

    compiled, x = torch.compile(step), torch.tensor([1.0, 2.0])
    for i in range(1, 8):
        np.testing.assert_allclose(compiled(x, float(i), 2.0).numpy(), step(x, float(i), 2.0).numpy(), rtol=1e-6)


def test_integers_and_texts_are_part_of_the_signature() -> None:
    def step(x: Any, n: int, how: str, flag: bool) -> Any:
        for _ in range(n):
            x = x * 2 if how == "double" else x + n
        return x if flag else -x

    compiled, x = torch.compile(step), tensor(3)
    cases = list(itertools.product((0, 1, 3), ("double", "add"), (True, False)))
    for _ in range(5):
        for n, how, flag in cases:
            assert_same(compiled(x, n, how, flag), step(x, n, how, flag))
    assert compiled.replays == len(cases)


def test_true_and_one_are_different_arguments() -> None:
    compiled = torch.compile(lambda x, k: x + 1 if k is True else x - 1)
    x = torch.zeros(1)
    for _ in range(4):
        assert [compiled(x, k).item() for k in (True, 1, 0, False)] == [1.0, -1.0, -1.0, -1.0]


def test_a_schedule_does_not_record_again(spent: Any) -> None:
    plain, compiled = both(OPTIMIZERS["SGD momentum"])
    x, y = tensor(8, 5), tensor(8, 2)
    for i in range(CALLS):
        for setup in (plain, compiled):
            setup.optimizer.param_groups[0]["lr"] = 0.1 / (1 + i)
            setup.step(x, y, 1.0 + i)
        assert_same(compiled.state(), plain.state())
    held, count = compiled.step.replays, spent()
    for i in range(20):
        compiled.optimizer.param_groups[0]["lr"] = 0.01 / (1 + i)
        compiled.optimizer.param_groups[0]["momentum"] = 0.9 - 0.01 * i
        compiled.step(x, y, 2.0 + i)
    assert (compiled.step.replays, count["planned"], count["missed"], count["runs"]) == (held, 0, 0, 20)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD weight decay", "SGD dampening"])
def test_options_of_optimizers_are_inputs(name: str) -> None:
    plain, compiled = both(OPTIMIZERS[name])
    x, y = tensor(8, 5), tensor(8, 2)
    for i in range(CALLS):
        for setup in (plain, compiled):
            group = setup.optimizer.param_groups[0]
            group["lr"] = 0.1 / (1 + i)
            group["weight_decay"] = 0.01 * (1 + i)
            if "betas" in group:
                group["betas"] = (0.9 - 0.01 * i, 0.99 - 0.01 * i)
                group["eps"] = 10.0 ** (-8 + i % 3)
            setup.step(x, y)
        assert_same(compiled.state(), plain.state())
    assert compiled.step.replays <= 2


def test_an_option_switched_from_zero_is_noticed() -> None:
    plain, compiled = both(OPTIMIZERS["SGD"])
    x, y = tensor(8, 5), tensor(8, 2)
    for i in range(CALLS):
        for setup in (plain, compiled):
            if i == 6:
                setup.optimizer.param_groups[0]["weight_decay"] = 0.5
            if i == 9:
                setup.optimizer.param_groups[0]["momentum"] = 0.5
            setup.step(x, y)
        assert_same(compiled.state(), plain.state())


def test_a_last_short_batch_is_a_second_signature() -> None:
    plain, compiled = both(OPTIMIZERS["SGD"])
    data, target = tensor(20, 5), tensor(20, 2)
    for _ in range(5):
        for start in range(0, 20, 8):
            batch = data[start : start + 8], target[start : start + 8]
            assert_same(compiled.step(*batch), plain.step(*batch))
    assert_same(compiled.state(), plain.state())
    assert compiled.step.replays == 2


def test_shapes_and_dtypes_are_the_signature() -> None:
    compiled = torch.compile(lambda x: x * 2 + 1)
    arguments = [
        torch.ones(3),
        torch.ones(3, 1),
        torch.ones(3, dtype=torch.float64),
        torch.ones(3, dtype=torch.int64),
        torch.ones(()),
    ]
    for _ in range(4):
        for x in arguments:
            assert_same(compiled(x), x * 2 + 1)
    assert compiled.replays == len(arguments)


def test_grad_mode_is_part_of_the_signature() -> None:
    w = torch.ones(3, requires_grad=True)
    compiled = torch.compile(lambda x: (w * x).sum())
    x = torch.ones(3)
    for _ in range(CALLS):
        assert compiled(x).requires_grad
        with torch.no_grad():
            assert not compiled(x).requires_grad


def test_arguments_that_require_gradients_are_another_signature() -> None:
    compiled = torch.compile(lambda x: (x * x).sum())
    for _ in range(CALLS):
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        loss = compiled(x)
        loss.backward()
        assert x.grad.tolist() == [2.0, 4.0]
        assert not compiled(x.detach()).requires_grad
    assert compiled.replays == 2


# ----------------------------------------------------------------------------------------------------------- branches


def test_a_branch_on_a_value_takes_the_right_way_both_ways() -> None:
    def step(x: Any) -> Any:
        return x * 10 if x.sum() > 0 else x - 1

    compiled = torch.compile(step)
    for sign in (1, 1, 1, -1, 1, -1, -1, -1, 1, 1, -1, 1, 1, 1, 1, -1):
        x = torch.tensor([1.0, 2.0]) * sign
        assert_same(compiled(x), step(x))
    assert compiled.replays == 2


def test_a_branch_in_a_training_step_never_lands_the_other_answer() -> None:
    def make() -> tuple[Any, Callable[..., Any]]:
        w, seen = torch.tensor([1.0, 1.0], requires_grad=True), torch.zeros(())

        def step(x: Any) -> Any:
            seen.add_(1)
            loss = ((w * x) ** 2).sum()
            loss.backward()
            with torch.no_grad():
                if loss > 3:
                    w.sub_(0.1 * w.grad)
                else:
                    w.add_(0.5)
            w.grad = None
            return loss

        return (w, seen), step

    (w, seen), plain = make()
    (v, counted), step = make()
    compiled = torch.compile(step)
    for i in range(40):
        x = torch.tensor([0.5, 1.0 + (i % 5)])
        assert_same(compiled(x), plain(x))
        assert_same((v, counted), (w, seen))
    assert compiled.replays == 2


def test_branches_in_sequence() -> None:
    def step(x: Any) -> Any:
        steps = 0
        while x.sum() < 20:
            x = x * 2 if x[0] > x[1] else x + 3
            steps += 1
        return x, steps

    compiled = torch.compile(step)
    for i in range(30):
        x = torch.tensor([1.0 + i % 3, 2.0 + i % 2])
        assert_same(compiled(x), step(x))


def test_a_nan_takes_its_branch() -> None:
    def step(x: Any) -> Any:
        return torch.zeros(1) if torch.isnan(x).any() else x * 2

    compiled = torch.compile(step)
    for value in (1.0, 1.0, float("nan"), 1.0, float("nan"), float("nan"), 2.0):
        x = torch.tensor([value])
        assert_same(compiled(x), step(x))


def test_a_branch_on_a_parameter_is_checked_with_its_present_value() -> None:
    w = torch.tensor(5.0, requires_grad=True)

    @torch.compile
    def step() -> Any:
        if w > 2:
            with torch.no_grad():
                w.sub_(1.0)
            return torch.ones(())
        return torch.zeros(())

    assert [step().item() for _ in range(8)] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert w.item() == 2.0


def test_a_branch_leaves_random_numbers_in_step() -> None:
    def step(x: Any) -> Any:
        noise = torch.rand(3)
        if x.sum() > 0:
            return noise + 10
        return noise + torch.rand(3) * 100

    torch.manual_seed(5)
    signs = [1, 1, -1, -1, 1, -1, 1, 1, -1, 1]
    expected = [step(torch.ones(2) * s).tolist() for s in signs]
    torch.manual_seed(5)
    compiled = torch.compile(step)
    assert [compiled(torch.ones(2) * s).tolist() for s in signs] == expected


def test_more_outcomes_than_are_kept_are_still_right() -> None:
    def step(x: Any) -> Any:
        for i in range(20):
            if x[i] > 0:
                return x * i
        return x

    compiled = torch.compile(step)
    for _ in range(2):
        for i in range(20):
            x = torch.zeros(20) - 1
            x[i] = 1.0
            assert_same(compiled(x), step(x))
    assert compiled.replays <= 8


# ----------------------------------------------------------------------------------------------- what cannot be replayed


READS: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda y: y.sum().item(),
    "float": lambda y: float(y.sum()),
    "int": lambda y: int(y.sum()),
    "tolist": lambda y: y.tolist(),
    "numpy": lambda y: y.numpy(),
    "array": lambda y: np.asarray(y),
    "print": lambda y: repr(y),
    "format": lambda y: f"{y.sum():.3f}",
    "nonzero": lambda y: torch.nonzero(y),
    "mask": lambda y: y[y > 0],
    "unique": lambda y: torch.unique(y),
    "an argument": lambda y: y,
}


@pytest.mark.parametrize("read", [name for name in READS if name != "an argument"])
def test_reading_a_value_inside_is_an_error_that_names_line_and_remedy(read: str) -> None:
    def step(x: Any) -> Any:
        y = x * 2
        READS[read](y)
        return y

    line = READS[read].__code__.co_firstlineno
    compiled = torch.compile(step)
    for _ in range(2):
        with pytest.raises(CompileError) as caught:
            compiled(tensor(3))
        message = str(caught.value)
        assert f"{HERE}:{line}" in message
        assert "outside" in message and "step" in message
    assert (torch.ones(3) * 2).tolist() == [2.0, 2.0, 2.0], "the tape goes on"


def test_reading_an_argument_inside_is_an_error() -> None:
    compiled = torch.compile(lambda x: x * x.sum().item())
    with pytest.raises(CompileError):
        compiled(tensor(3))
    compiled = torch.compile(lambda x: x * x[0].item())
    with pytest.raises(CompileError):
        compiled(tensor(3))
    compiled = torch.compile(lambda x, n: x * n.item())
    with pytest.raises(CompileError):
        compiled(tensor(3), torch.tensor(2.0))


def test_reading_a_captured_tensor_inside_is_an_error() -> None:
    scale = torch.tensor(2.0)
    compiled = torch.compile(lambda x: x * scale.item())
    for _ in range(3):
        with pytest.raises(CompileError):
            compiled(tensor(3))


def test_a_user_defined_function_inside_is_an_error() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    with pytest.raises(CompileError, match="Function"):
        torch.compile(lambda x: Double.apply(x))(torch.ones(2, requires_grad=True))


def test_a_compile_error_is_a_runtime_error() -> None:
    assert issubclass(CompileError, RuntimeError) and issubclass(Escape, CompileError)


def test_a_tensor_kept_outside_is_an_error_that_names_its_line_and_the_remedy() -> None:
    kept: list[Any] = []

    def step(x: Any) -> Any:
        y = x * 2
        kept.append(y)
        return y + 1

    line = step.__code__.co_firstlineno + 1
    compiled = torch.compile(step)
    with pytest.raises(Escape) as caught:
        for _ in range(5):
            compiled(torch.ones(2, 3, 5, 7))
    assert f"{HERE}:{line}" in str(caught.value)
    assert "[2, 3, 5, 7]" in str(caught.value)
    assert "Return it" in str(caught.value)
    assert all((t == 2).all() for t in kept)


def test_a_tensor_kept_as_an_attribute_is_right_and_then_refused() -> None:
    model = torch.nn.Linear(2, 2)

    @torch.compile
    def step(x: Any) -> Any:
        model.last = model(x)
        return model.last.sum()

    right = 0
    with pytest.raises(Escape, match=r"keeps a tensor of shape \[2\] outside"):
        for i in range(CALLS):
            x = torch.full((2,), float(i))
            total = step(x)
            assert_same(model.last, model(x))
            assert_same(total, model(x).sum())
            right += 1
    assert right


def test_state_made_by_the_first_calls_is_no_error() -> None:
    """An optimizer's momentum appears in the first call and is found by the others."""
    setup = build(OPTIMIZERS["Adam amsgrad"], True)
    for _ in range(CALLS):
        setup.step(tensor(8, 5), tensor(8, 2))
    assert setup.step.replays == 1


@pytest.mark.parametrize("argument", [{1, 2}, bytearray(b"x"), np.ones(3)], ids=["a set", "bytes", "an array"])
def test_arguments_that_cannot_be_compared_are_an_error(argument: Any) -> None:
    with pytest.raises(CompileError, match=type(argument).__name__):
        torch.compile(lambda x, y: x)(torch.ones(2), argument)


# ------------------------------------------------------------------------------------------------- names that are bound anew


def test_a_closure_cell_bound_to_another_tensor() -> None:
    w = torch.tensor([1.0])

    @torch.compile
    def step(x: Any) -> Any:
        return x * w

    for i in range(5):
        w = torch.tensor([float(i)])
        for _ in range(CALLS):
            assert step(torch.ones(1)).item() == i


def test_a_closure_cell_bound_to_another_number() -> None:
    factor = 1.0
    step = torch.compile(lambda x: x * factor)
    for factor in (1.0, 2.0, 2.0, 3.0, 1.0):
        for _ in range(CALLS):
            assert step(torch.ones(1)).item() == factor


def test_a_cell_without_a_value() -> None:
    step = torch.compile(lambda x: x * w)  # noqa: F821
    with pytest.raises(NameError):
        step(torch.ones(1))
    w = torch.tensor([2.0])
    for _ in range(CALLS):
        assert step(torch.ones(1)).item() == 2.0
    del w
    with pytest.raises(NameError):
        step(torch.ones(1))


SCALE: Any = 1.0
HELPED: Any = None


def helper(x: Any) -> Any:
    return x * HELPED


def test_a_global_bound_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    step = torch.compile(lambda x: x * SCALE)
    for value in (torch.tensor([2.0]), torch.tensor([3.0]), 4.0, 5.0, torch.tensor([6.0])):
        monkeypatch.setattr(module, "SCALE", value)
        for _ in range(CALLS):
            assert step(torch.ones(1)).item() == float(value)


def test_a_global_of_a_function_that_is_called_bound_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    step = torch.compile(lambda x: helper(x) + 1)
    for value in (2.0, 3.0, 4.0):
        monkeypatch.setattr(module, "HELPED", torch.tensor([value]))
        for _ in range(CALLS):
            assert step(torch.ones(1)).item() == value + 1


def test_a_cell_of_a_function_that_is_called_bound_anew() -> None:
    w = torch.tensor([1.0])

    def inner(x: Any) -> Any:
        return x * w

    step = torch.compile(lambda x: inner(x) + 1)
    for i in range(4):
        w = torch.tensor([float(i)])
        for _ in range(CALLS):
            assert step(torch.ones(1)).item() == i + 1


def test_an_attribute_bound_anew() -> None:
    class Holder:
        pass

    holder = Holder()
    step = torch.compile(lambda x: x * holder.w)
    for value in (2.0, 3.0, 4.0):
        holder.w = torch.tensor([value])
        for _ in range(CALLS):
            assert step(torch.ones(1)).item() == value


def test_an_item_of_a_captured_container_bound_anew() -> None:
    weights = {"w": torch.tensor([1.0])}
    parts = [torch.tensor([1.0])]
    step = torch.compile(lambda x: x * weights["w"] + parts[0])
    for value in (2.0, 3.0, 4.0):
        weights["w"] = torch.tensor([value])
        parts[0] = torch.tensor([value * 10])
        for _ in range(CALLS):
            assert step(torch.ones(1)).item() == value * 11


def test_a_module_parameter_replaced() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    step = torch.compile(lambda x: model(x))
    for value in (1.0, 2.0, 3.0):
        model.weight = torch.nn.Parameter(torch.full((1, 2), value))
        for _ in range(CALLS):
            assert step(torch.ones(2)).item() == 2 * value


def test_a_module_replaced_in_its_parent() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh())
    step = torch.compile(lambda x: model(x))
    x = tensor(2)
    for replacement in (torch.nn.Sigmoid(), torch.nn.ReLU(), torch.nn.Tanh()):
        model[1] = replacement
        for _ in range(CALLS):
            assert_same(step(x), model(x))


def test_parameters_loaded_from_a_state_dict() -> None:
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    step = torch.compile(lambda x: model(x))
    x = tensor(4, 3)
    for _ in range(CALLS):
        step(x)
    model.load_state_dict(other.state_dict())
    for _ in range(CALLS):
        assert_same(step(x), other(x))


def test_parameters_whose_data_is_replaced() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    step = torch.compile(lambda x: (x * w).sum())
    x = torch.ones(2)
    for i in range(4):
        w.data = torch.tensor([float(i), 1.0])
        for _ in range(CALLS):
            assert step(x).item() == i + 1


def test_train_and_eval_are_noticed() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(64, 1, bias=False))
    step = torch.compile(lambda x: model(x))
    x = torch.ones(64)
    for _ in range(3):
        model.eval()
        assert len({step(x).item() for _ in range(CALLS)}) == 1
        model.train()
        assert len({step(x).item() for _ in range(CALLS)}) > CALLS // 2


def test_requires_grad_switched_on_a_parameter() -> None:
    model = torch.nn.Linear(2, 1)
    step = torch.compile(lambda x: model(x).sum())
    x = torch.ones(2)
    for _ in range(CALLS):
        assert step(x).requires_grad
    for p in model.parameters():
        p.requires_grad_(False)
    for _ in range(CALLS):
        assert not step(x).requires_grad


# ----------------------------------------------------------------------------------------------------- random numbers


def test_random_numbers_are_drawn_anew_by_every_call() -> None:
    step = torch.compile(lambda x: x + torch.rand(3))
    drawn = [tuple(step(torch.zeros(3)).tolist()) for _ in range(CALLS)]
    assert len(set(drawn)) == CALLS


DRAWS: dict[str, Callable[[], Any]] = {
    "rand": lambda: torch.rand(5),
    "randn": lambda: torch.randn(2, 3, dtype=torch.float64),
    "randint": lambda: torch.randint(0, 1000, (8,)),
    "bernoulli": lambda: torch.bernoulli(torch.full((20,), 0.5)),
    "dropout": lambda: F.dropout(torch.ones(20), 0.5),
    "normal_": lambda: torch.zeros(5).normal_(),
    "uniform_": lambda: torch.zeros(5).uniform_(2, 3),
    "rand_like": lambda: torch.rand_like(torch.ones(4)),
    "two kinds": lambda: (torch.rand(3), torch.randn(4)),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_random_numbers_are_those_of_the_plain_run(draw: str) -> None:
    torch.manual_seed(11)
    expected = [DRAWS[draw]() for _ in range(CALLS)]
    torch.manual_seed(11)
    step = torch.compile(lambda: DRAWS[draw]())
    assert_same([step() for _ in range(CALLS)], expected)


def test_a_generator_of_ones_own() -> None:
    generator = torch.Generator().manual_seed(4)
    expected = [torch.rand(3, generator=generator).tolist() for _ in range(CALLS)]
    generator.manual_seed(4)
    step = torch.compile(lambda: torch.rand(3, generator=generator))
    assert [step().tolist() for _ in range(CALLS)] == expected
    generator.manual_seed(4)
    assert step().tolist() == expected[0]


def test_training_with_dropout_is_the_plain_run() -> None:
    outcomes = []
    for compiled in (False, True):
        setup = build(OPTIMIZERS["Adam"], compiled, dropout=0.3)
        torch.manual_seed(9)
        losses = [setup.step(tensor(8, 5, seed=i), tensor(8, 2, seed=i)) for i in range(20)]
        outcomes.append([t.detach().numpy().copy() for t in (*losses, *setup.state())])
    assert all(same_bits(a, b) for a, b in zip(*outcomes, strict=True))


def test_plain_and_compiled_draws_take_turns() -> None:
    torch.manual_seed(2)
    expected = [torch.rand(2).tolist() for _ in range(2 * CALLS)]
    torch.manual_seed(2)
    step = torch.compile(lambda: torch.rand(2))
    found = []
    for _ in range(CALLS):
        found += [step().tolist(), torch.rand(2).tolist()]
    assert found == expected


# -------------------------------------------------------------------------------------------------------- gradients


def test_a_result_is_differentiated_outside() -> None:
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    step = torch.compile(lambda x: torch.exp(w * x).sum())
    for i in range(CALLS):
        x = torch.tensor([0.5, 0.1 * i])
        w.grad = None
        loss = step(x)
        assert loss.requires_grad and not loss.is_leaf
        loss.backward()
        np.testing.assert_allclose(w.grad.numpy(), x.numpy() * np.exp(np.array([1.0, -2.0]) * x.numpy()), rtol=1e-5)


def test_results_are_differentiated_outside_later_and_in_any_order() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    step = torch.compile(lambda x: (torch.sin(w * x) ** 2).sum())
    inputs = [torch.tensor([0.3 * i, 1.0]) for i in range(CALLS)]
    losses = [step(x) for x in inputs]
    for i in reversed(range(CALLS)):
        (g,) = torch.autograd.grad(losses[i], w)
        u = np.array([1.0, 2.0]) * inputs[i].numpy()
        np.testing.assert_allclose(g.numpy(), 2 * np.sin(u) * np.cos(u) * inputs[i].numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_of_results_reach_arguments_and_beyond() -> None:
    step = torch.compile(lambda x, y: x * y)
    for i in range(CALLS):
        a = torch.tensor([1.0, 2.0 + i], requires_grad=True)
        b = torch.tensor([3.0, 4.0], requires_grad=True)
        step(torch.exp(a), b).sum().backward()
        np.testing.assert_allclose(a.grad.numpy(), np.exp([1.0, 2.0 + i]) * [3, 4], rtol=1e-6)
        np.testing.assert_allclose(b.grad.numpy(), np.exp([1.0, 2.0 + i]), rtol=1e-6)


def test_a_result_is_differentiated_twice_only_with_retain_graph() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    step = torch.compile(lambda x: w * w * x)
    for _ in range(CALLS):
        w.grad = None
        y = step(torch.tensor(3.0))
        y.backward(retain_graph=True)
        y.backward()
        assert w.grad.item() == 24.0
        with pytest.raises(RuntimeError, match="second time"):
            y.backward()


def test_the_parameter_is_written_between_a_call_and_its_backward() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    step = torch.compile(lambda x: w * w * x)
    for _ in range(CALLS):
        with torch.no_grad():
            w.fill_(2.0)
        w.grad = None
        y = step(torch.tensor(3.0))
        with torch.no_grad():
            w.fill_(100.0)
        y.backward()
        assert w.grad.item() == 12.0


def test_the_argument_is_written_between_a_call_and_its_backward() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    step = torch.compile(lambda x: w * x)
    for i in range(CALLS):
        w.grad = None
        x = torch.tensor(float(i))
        y = step(x)
        x.fill_(100.0)
        y.backward()
        assert w.grad.item() == float(i)


def test_a_compiled_write_waits_for_an_earlier_graph() -> None:
    w = torch.tensor(2.0, requires_grad=True)

    @torch.compile
    def double() -> None:
        with torch.no_grad():
            w.mul_(2)

    for i in range(CALLS):
        w.grad = None
        y = w * w * w
        y.item()
        double()
        y.backward()
        assert w.grad.item() == 3 * (2.0 * 2**i) ** 2


def test_higher_derivatives_inside_and_outside() -> None:
    def step(x: Any) -> Any:
        (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        return g

    compiled = torch.compile(step)
    for i in range(CALLS):
        x = torch.tensor([1.0 + i, 2.0], requires_grad=True)
        g = compiled(x)
        assert g.tolist() == [3 * (1.0 + i) ** 2, 12.0]
        g.sum().backward()
        assert x.grad.tolist() == [6 * (1.0 + i), 12.0]


def test_autograd_grad_inside() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    step = torch.compile(lambda x: torch.autograd.grad((w * w * x).sum(), w)[0])
    for i in range(CALLS):
        assert step(torch.tensor([float(i), 1.0])).tolist() == [2.0 * i, 4.0]
    assert w.grad is None


def test_gradients_accumulate_without_zero_grad() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)

    @torch.compile
    def step(x: Any) -> Any:
        loss = (w * x).sum()
        loss.backward()
        return loss

    total = np.zeros(2)
    for i in range(CALLS):
        x = torch.tensor([float(i), 1.0])
        step(x)
        total += x.numpy()
        assert w.grad.tolist() == total.tolist()
        if i == 8:
            w.grad = None
            total[:] = 0
    w.grad.zero_()
    step(torch.ones(2))
    assert w.grad.tolist() == [1.0, 1.0]


def test_gradients_accumulate_over_several_calls_before_an_update() -> None:
    outcomes = []
    for compiled in (False, True):
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.125, momentum=0.5)

        def forward(x: Any, w: Any = w) -> Any:
            loss = ((w * x) ** 2).sum()
            loss.backward()
            return loss

        def update(optimizer: Any = optimizer) -> None:
            optimizer.step()
            optimizer.zero_grad()

        if compiled:
            forward, update = torch.compile(forward), torch.compile(update)
        for i in range(24):
            forward(torch.tensor([0.1 * i, 1.0]))
            if i % 3 == 2:
                update()
        outcomes.append(w.detach().numpy())
    assert same_bits(*outcomes)


def test_zero_grad_inside_that_sets_to_zero() -> None:
    outcomes = []
    for compiled in (False, True):
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.125)

        def step(x: Any, w: Any = w, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad(set_to_none=False)
            loss = ((w * x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        if compiled:
            step = torch.compile(step)
        for i in range(CALLS):
            step(torch.tensor([0.1 * i, 1.0]))
        outcomes.append((w.detach().numpy(), w.grad.numpy()))
    assert all(same_bits(a, b) for a, b in zip(*outcomes, strict=True))


def test_the_gradient_is_the_same_object_only_while_nobody_holds_it() -> None:
    setup = build(OPTIMIZERS["SGD"], True)
    weight = setup.model[0].weight
    for i in range(CALLS):
        setup.step(tensor(8, 5, seed=i), tensor(8, 2, seed=i))
        held = weight.grad
        value = held.numpy().copy()
        setup.step(tensor(8, 5, seed=i + 50), tensor(8, 2, seed=i))
        assert same_bits(held, value)


def test_the_update_by_hand() -> None:
    outcomes = []
    for compiled in (False, True):
        w = torch.tensor([1.0, 2.0], requires_grad=True)

        def step(x: Any, rate: float, w: Any = w) -> Any:
            loss = ((w * x - 1) ** 2).mean()
            loss.backward()
            with torch.no_grad():
                w -= rate * w.grad
            w.grad.zero_()
            return loss

        if compiled:
            step = torch.compile(step)
        losses = [step(tensor(2, seed=i), 0.1 / (1 + i)).detach().numpy().copy() for i in range(CALLS)]
        outcomes.append([w.detach().numpy(), *losses])
    assert all(same_bits(a, b) for a, b in zip(*outcomes, strict=True))


# --------------------------------------------------------------------------------------------- arguments of all kinds


def test_slices_of_the_data_are_arguments() -> None:
    plain, compiled = both(OPTIMIZERS["SGD"])
    data, target = tensor(64, 5), tensor(64, 2)
    for start in range(0, 64, 8):
        batch = data[start : start + 8], target[start : start + 8]
        assert_same(compiled.step(*batch), plain.step(*batch))
    assert compiled.step.replays == 1


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rows": lambda t: t[2:5],
    "columns": lambda t: t[:3, 1:],
    "transposed": lambda t: t.T,
    "every second": lambda t: t[::2],
    "one row": lambda t: t[3],
    "expanded": lambda t: t[0].expand(4, 6),
    "gathered": lambda t: t[torch.tensor([3, 1, 3])],
    "whole": lambda t: t,
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_arguments(name: str) -> None:
    def step(x: Any) -> Any:
        return torch.exp(x) * 2 + x.sum()

    compiled = torch.compile(step)
    for i in range(CALLS):
        x = VIEWS[name](tensor(6, 6, seed=i))
        assert_same(compiled(x), step(x))


def test_views_at_different_places_are_one_signature() -> None:
    compiled = torch.compile(lambda x: x * 2)
    data = tensor(40, 3)
    for i in range(0, 40, 4):
        assert_same(compiled(data[i : i + 4]), data[i : i + 4] * 2)
    assert compiled.replays == 1


def test_a_view_is_written_inside() -> None:
    data = torch.zeros(12)

    @torch.compile
    def step(x: Any, value: float) -> None:
        x.add_(value)

    for i in range(12):
        step(data[i : i + 1], float(i))
    assert data.tolist() == [float(i) for i in range(12)]
    for i in range(0, 12, 3):
        step(data[i : i + 3], 100.0)
    assert data.tolist() == [100.0 + i for i in range(12)]


def test_two_views_of_one_memory() -> None:
    def step(x: Any, y: Any) -> Any:
        x.add_(y)
        return y * 10

    for compiled in (step, torch.compile(step)):
        for _ in range(CALLS):
            data = torch.tensor([1.0, 2.0, 3.0, 4.0])
            result = compiled(data[:2], data[2:])
            assert (data.tolist(), result.tolist()) == ([4.0, 6.0, 3.0, 4.0], [30.0, 40.0])


def test_two_views_that_overlap() -> None:
    def step(x: Any, y: Any) -> Any:
        x.mul_(2)
        return y + 0

    compiled = torch.compile(step)
    for first, second in (
        (slice(0, 2), slice(2, 4)),
        (slice(0, 2), slice(1, 3)),
        (slice(0, 2), slice(0, 2)),
        (slice(1, 3), slice(0, 2)),
    ) * 4:
        ours, theirs = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
        assert compiled(ours[first], ours[second]).tolist() == step(theirs[first], theirs[second]).tolist()
        assert ours.tolist() == theirs.tolist()


def test_the_same_tensor_twice_and_two_tensors() -> None:
    def step(x: Any, y: Any) -> Any:
        x.add_(1)
        return x * 10 + y

    compiled = torch.compile(step)
    for i in range(CALLS):
        a, b = torch.tensor([1.0]), torch.tensor([5.0])
        c, d = torch.tensor([1.0]), torch.tensor([5.0])
        pair, reference = ((a, a), (c, c)) if i % 2 else ((a, b), (c, d))
        assert_same(compiled(*pair), step(*reference))
        assert_same((a, b), (c, d))


def test_an_argument_that_is_a_parameter() -> None:
    def make() -> tuple[torch.Tensor, Callable[[Any], Any]]:
        w = torch.tensor([1.0, 2.0])

        def step(x: Any) -> Any:
            w.add_(1)
            return x * 10 + w

        return w, step

    (w, plain), (v, step) = make(), make()
    compiled = torch.compile(step)
    for i in range(CALLS):
        other = torch.tensor([7.0, 8.0])
        x, y = [(w, v), (other, other), (w[:], v[:]), (w.detach(), v.detach())][i % 4]
        assert_same(compiled(y), plain(x))
        assert_same(v, w)


def test_an_argument_on_memory_of_numpy() -> None:
    compiled = torch.compile(lambda x: x * 2)
    values = np.zeros(3, np.float32)
    x = torch.from_numpy(values)
    for i in range(CALLS):
        values[:] = i
        assert compiled(x).tolist() == [2.0 * i] * 3


def test_an_argument_on_memory_of_numpy_is_written() -> None:
    @torch.compile
    def step(x: Any) -> None:
        x.add_(1)

    values = np.zeros(3, np.float32)
    x = torch.from_numpy(values)
    for i in range(CALLS):
        step(x)
        assert values.tolist() == [i + 1.0] * 3


def test_a_pending_tensor_is_an_argument() -> None:
    compiled = torch.compile(lambda x: x * 2)
    x = tensor(3)
    for _ in range(CALLS):
        assert_same(compiled(torch.exp(x)), torch.exp(x) * 2)
    assert compiled.replays == 1


Pair = collections.namedtuple("Pair", "left right")


def test_nested_containers() -> None:
    def step(batch: Any, options: Any) -> Any:
        (x, y), mask = batch
        total = (x * y)[0] * options["scale"] + options["parts"][1]
        return {"total": total, "pair": (x + 1, [y * 2, mask]), "name": options["name"], "none": None}

    compiled = torch.compile(step)
    for i in range(CALLS):
        batch = ((tensor(2, seed=i), tensor(2, seed=i + 1)), torch.tensor([True, False]))
        options = {"scale": i / 3, "parts": [tensor(2), tensor(2, seed=i + 2)], "name": "x"}
        assert_same(compiled(batch, options), step(batch, options))
    assert compiled.replays == 1


def test_named_tuples_in_and_out() -> None:
    def step(pair: Pair) -> Pair:
        return Pair(pair.right * 2, pair.left)

    compiled = torch.compile(step)
    for i in range(CALLS):
        pair = Pair(tensor(2, seed=i), tensor(2, seed=i + 1))
        result = compiled(pair)
        assert type(result) is Pair
        assert_same(result.left, pair.right * 2)
        assert result.right is pair.left


def test_keyword_arguments_and_defaults() -> None:
    def step(x: Any, y: Any = 3.0, *rest: Any, scale: float = 1.0, **more: Any) -> Any:
        result = x * scale + y
        for value in (*rest, *more.values()):
            result = result + value
        return result

    compiled, x, y = torch.compile(step), tensor(2), tensor(2, seed=1)
    calls: list[tuple[Any, Any]] = [
        ((x,), {}), ((x, y), {}), ((x,), {"y": y}), ((x,), {"scale": 2.0}), ((x,), {"scale": 5.0}), ((x, y, y), {"a": y, "b": 1.0}),
        ((x, 2.0), {}), ((), {"x": x}), ((), {"y": y, "x": x}),
    ]  # fmt: skip
    for _ in range(5):
        for arguments, keywords in calls:
            assert_same(compiled(*arguments, **keywords), step(*arguments, **keywords))


def test_a_wrong_number_of_arguments_is_pythons_error() -> None:
    compiled = torch.compile(lambda x: x * 2)
    for _ in range(CALLS):
        compiled(torch.ones(2))
    with pytest.raises(TypeError):
        compiled()
    with pytest.raises(TypeError):
        compiled(torch.ones(2), torch.ones(2))
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]


def test_an_argument_is_returned_as_it_is() -> None:
    compiled = torch.compile(lambda x, y: (x, y * 2, x))
    for _ in range(CALLS):
        x = torch.ones(2)
        first, _, second = compiled(x, torch.ones(2))
        assert first is x and second is x


def test_a_captured_tensor_is_returned_as_it_is() -> None:
    w = torch.ones(2)
    compiled = torch.compile(lambda x: (w, x + w))
    for _ in range(CALLS):
        assert compiled(torch.ones(2))[0] is w


def test_a_view_of_an_argument_is_a_view_of_that_argument() -> None:
    def step(x: Any) -> Any:
        return x[1:], x.T

    compiled = torch.compile(step)
    for i in range(CALLS):
        x = torch.full((3, 3), float(i))
        part, transposed = compiled(x)
        assert part.tolist() == [[float(i)] * 3] * 2
        x[2, 0] = 50.0
        assert part[1, 0].item() == 50.0
        assert transposed[0, 2].item() == 50.0


def test_a_result_returned_twice_is_one_tensor() -> None:
    def step(x: Any) -> Any:
        y = x * 2
        return y, y

    compiled = torch.compile(step)
    for _ in range(CALLS):
        a, b = compiled(torch.ones(2))
        a.add_(1)
        assert b.tolist() == [3.0, 3.0]


def test_a_view_of_a_result_is_a_view_of_that_result() -> None:
    def step(x: Any) -> Any:
        y = x * 2
        return y, y[1:]

    compiled = torch.compile(step)
    for _ in range(CALLS):
        whole, part = compiled(torch.ones(3))
        whole.add_(1)
        assert part.tolist() == [3.0, 3.0]


# ---------------------------------------------------------------------------------------- methods, modules, decorators


def test_a_method_is_compiled() -> None:
    class Model:
        def __init__(self, scale: float) -> None:
            self.w = torch.tensor([scale])

        @torch.compile
        def step(self, x: Any) -> Any:
            return x * self.w

    first, second = Model(2.0), Model(3.0)
    for _ in range(CALLS):
        assert first.step(torch.ones(1)).item() == 2.0
        assert second.step(torch.ones(1)).item() == 3.0


def test_a_bound_method_is_compiled() -> None:
    class Model:
        def __init__(self) -> None:
            self.w = torch.tensor([2.0])

        def step(self, x: Any) -> Any:
            return x * self.w

    model = Model()
    compiled = torch.compile(model.step)
    for _ in range(CALLS):
        assert compiled(torch.ones(1)).item() == 2.0
    model.w = torch.tensor([5.0])
    for _ in range(CALLS):
        assert compiled(torch.ones(1)).item() == 5.0


def test_a_module_is_compiled() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    compiled = torch.compile(model)
    for i in range(CALLS):
        x = tensor(5, 3, seed=i)
        y = compiled(x)
        assert_same(y, model(x))
        y.sum().backward()
    model[2] = torch.nn.Linear(4, 1)
    assert_same(compiled(x), model(x))


def test_a_module_with_buffers_written_inside() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(2))

        def forward(self, x: Any) -> Any:
            with torch.no_grad():
                self.calls += 1
                self.mean.mul_(0.5).add_(x.mean(dim=0) * 0.5)
            return x - self.mean

    plain, model = Counting(), Counting()
    compiled = torch.compile(model)
    for i in range(CALLS):
        x = tensor(4, 2, seed=i)
        assert_same(compiled(x), plain(x))
        assert_same(model.mean, plain.mean)
    assert model.calls.item() == CALLS


def test_the_decorator_with_options_and_the_wrapped_function() -> None:
    @torch.compile(fullgraph=True)
    def step(x: Any) -> Any:
        """What it says."""
        return x * 2

    assert step.__name__ == "step"
    assert step.__doc__ == "What it says."
    assert step(torch.ones(1)).item() == 2.0
    assert step.__wrapped__(torch.ones(1)).item() == 2.0


def test_a_partial_and_a_callable_object() -> None:
    class Scale:
        def __call__(self, x: Any) -> Any:
            return x * 3

    for function, expected in ((functools.partial(torch.mul, other=torch.tensor([2.0])), 2.0), (Scale(), 3.0)):
        compiled = torch.compile(function)
        for _ in range(CALLS):
            assert compiled(torch.ones(1)).item() == expected


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises((RuntimeError, TypeError), match="int"):
        torch.compile(3)


def test_a_compiled_function_does_not_change_its_model_when_copied() -> None:
    setup = build(OPTIMIZERS["SGD"], True)
    x, y = tensor(8, 5), tensor(8, 2)
    for _ in range(CALLS):
        setup.step(x, y)
    saved = copy.deepcopy(setup.model)
    before = [p.detach().numpy().copy() for p in saved.parameters()]
    for _ in range(CALLS):
        setup.step(x, y)
    assert all(same_bits(p, b) for p, b in zip(saved.parameters(), before, strict=True))


# --------------------------------------------------------------------------------- shapes, dtypes and operations inside


def test_tensors_made_inside_are_made_anew() -> None:
    def step(x: Any) -> Any:
        made = torch.zeros(3)
        made[0] = 5.0
        made += x
        table = torch.tensor([1.0, 2.0, 3.0])
        table.mul_(x)
        return made, table

    compiled = torch.compile(step)
    for i in range(CALLS):
        x = torch.full((3,), float(i))
        made, table = compiled(x)
        assert made.tolist() == [5.0 + i, float(i), float(i)]
        assert table.tolist() == [1.0 * i, 2.0 * i, 3.0 * i]
        made.fill_(99.0)
        table.fill_(99.0)


def test_indices_are_data() -> None:
    compiled = torch.compile(lambda x, i: x[i])
    x = tensor(10, 3)
    for k in range(CALLS):
        i = torch.tensor([k % 10, (3 * k) % 10, -1])
        assert_same(compiled(x, i), x[i])
    assert compiled.replays == 1


def test_an_embedding_step() -> None:
    outcomes = []
    for compiled in (False, True):
        torch.manual_seed(0)
        table = torch.randn(10, 4, requires_grad=True)
        optimizer = torch.optim.SGD([table], lr=0.1)

        def step(i: Any, j: Any, table: Any = table, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = ((table[i] * table[j]).sum(1) - 1).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        if compiled:
            step = torch.compile(step)
        random = np.random.default_rng(0)
        for _ in range(20):
            step(torch.tensor(random.integers(0, 10, 6)), torch.tensor(random.integers(0, 10, 6)))
        outcomes.append(table.detach().numpy())
    assert same_bits(*outcomes)


def test_empty_tensors() -> None:
    compiled = torch.compile(lambda x: (x * 2, x.sum()))
    for _ in range(CALLS):
        assert_same(compiled(torch.ones(0, 3)), (torch.ones(0, 3), torch.tensor(0.0)))


def test_a_recorded_loop_inside() -> None:
    def step(x: Any, rate: float) -> Any:
        for _ in range(300):
            x = x + rate * torch.sin(x)
        return x

    compiled = torch.compile(step)
    for i in range(5):
        x = tensor(4, seed=i)
        assert_same(compiled(x, 0.01 * i), step(x, 0.01 * i))


@pytest.mark.timeout(120)
def test_more_operations_than_a_trace_holds() -> None:
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    @torch.compile
    def step(x: Any) -> Any:
        w.grad = None
        value = x
        for _ in range(5_000):
            value = value * w + 0.001
        value.backward()
        return value

    for i in range(4):
        value = step(torch.tensor(float(i), dtype=torch.float64))
        assert value.item() == pytest.approx(i + 5.0, rel=1e-10)
        assert w.grad.item() == pytest.approx(5_000 * i + 0.001 * 5_000 * 4_999 / 2, rel=1e-10)


# ------------------------------------------------------------------------------------------------------------- errors


def test_an_exception_inside_leaves_everything_usable() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)

    @torch.compile
    def step(x: Any, fail: bool) -> Any:
        loss = (w * x).sum()
        loss.backward()
        if fail:
            raise ZeroDivisionError("on purpose")
        return loss

    x = torch.ones(2)
    for _ in range(3):
        for _ in range(CALLS):
            w.grad = None
            assert step(x, False).item() == 3.0
            assert w.grad.tolist() == [1.0, 1.0]
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            step(x, True)
        assert torch.is_grad_enabled()
        assert (torch.ones(2) + 1).tolist() == [2.0, 2.0]


def test_a_wrong_shape_inside_is_the_plain_error_on_its_line() -> None:
    w = torch.ones(3)
    step = torch.compile(lambda x: x * w)
    for _ in range(CALLS):
        step(torch.ones(3))
    with pytest.raises(RuntimeError, match=re.escape("[4]")):
        step(torch.ones(4))
    assert step(torch.ones(3)).tolist() == [1.0, 1.0, 1.0]
    assert step(torch.ones(1)).tolist() == [1.0, 1.0, 1.0]


def test_an_index_out_of_bounds_is_found_by_every_replay_and_changes_nothing() -> None:
    total = torch.zeros(3)

    @torch.compile
    def step(x: Any, i: Any) -> Any:
        total.add_(1)
        return x[i]

    x = torch.tensor([1.0, 2.0, 3.0])
    for k in range(4):
        assert step(x, torch.tensor([k % 3])).tolist() == [k % 3 + 1.0]
        with pytest.raises(IndexError, match="7"):
            step(x, torch.tensor([7]))
        assert total.tolist() == [k + 1.0] * 3


def test_an_error_in_the_first_call_does_not_spoil_the_next() -> None:
    total = torch.zeros(3)

    @torch.compile
    def step(x: Any, i: Any) -> Any:
        total.add_(1)
        return x[i]

    x = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(IndexError, match="7"):
        step(x, torch.tensor([7]))
    assert total.tolist() == [0.0, 0.0, 0.0]
    for k in range(CALLS):
        assert step(x, torch.tensor([1])).tolist() == [2.0]
        assert total.tolist() == [k + 1.0] * 3


def test_no_grad_inside_is_left_after_an_exception() -> None:
    @torch.compile
    def step(x: Any) -> Any:
        with torch.no_grad():
            return x * torch.ones(5)

    with pytest.raises(RuntimeError):
        step(torch.ones(4))
    assert torch.is_grad_enabled()
    w = torch.ones(2, requires_grad=True)
    assert (w * 2).requires_grad


def test_threads_call_one_compiled_function_at_once() -> None:
    def curve(x: Any) -> Any:
        return (torch.tanh(torch.sin(x) * 2.0) * torch.exp(-(x * x))).cumsum(0) * 1.0

    step = torch.compile(curve)
    wrong: list[Any] = []
    finished: list[int] = []

    def work(k: int) -> None:
        data = [torch.tensor(np.random.default_rng(10 * k + i).standard_normal(60_000)) for i in range(3)]
        expected = [curve(x).numpy().copy() for x in data]
        for i in range(30):
            if not np.array_equal(step(data[i % 3]).numpy(), expected[i % 3]):
                wrong.append((k, i))
        finished.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(finished) == [0, 1] and not wrong


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_an_optimizers_other_state_is_noticed(kind: str) -> None:
    def loads(optimizer: Any, saved: Any, w: Any) -> None:
        optimizer.load_state_dict(saved)

    def clears(optimizer: Any, saved: Any, w: Any) -> None:
        optimizer.state.clear()

    def replaces(optimizer: Any, saved: Any, w: Any) -> None:
        state = optimizer.state[w]
        state.update({name: value.clone() * 0.5 for name, value in state.items() if name != "step"})

    def freezes(optimizer: Any, saved: Any, w: Any) -> None:
        optimizer.param_groups[0]["params"] = []

    def run(compiled: bool, change: Any, warm: int) -> list[Any]:
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        optimizer: Any = torch.optim.Adam([w], lr=0.05)
        if kind == "momentum":
            optimizer = torch.optim.SGD([w], lr=0.05, momentum=0.9)

        def step(c: Any) -> Any:
            optimizer.zero_grad()
            loss = ((w - c) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        call = torch.compile(step) if compiled else step
        c = torch.tensor([0.5, 0.1])
        for _ in range(warm):
            call(c)
        saved = copy.deepcopy(optimizer.state_dict())
        for _ in range(3):
            call(c)
        change(optimizer, saved, w)
        return [call(c).item() for _ in range(10)] + w.tolist()

    for change in (loads, clears, replaces, freezes):
        for warm in (1, 2, 8):
            assert run(True, change, warm) == run(False, change, warm), (change.__name__, warm)


class Callback:
    """What is called around each collection of garbage."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        self.count()

    def count(self) -> None:
        self.calls += 1


@pytest.mark.parametrize("threshold", [1, 3, 10, 40])
@pytest.mark.parametrize("name", ["SGD momentum", "Adam"])
def test_what_is_called_around_collections_is_no_part_of_the_function(name: str, threshold: int) -> None:
    plain, compiled = both(OPTIMIZERS[name])
    callback, before = Callback(), gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(threshold)
    try:
        for i in range(4):
            x, y = tensor(8, 5, seed=i), tensor(8, 2, seed=i + 100)
            assert_same(compiled.step(x, y), plain.step(x, y))
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)
    assert callback.calls
    assert_same(compiled.state(), plain.state())


def test_a_capture_may_end_inside_of_an_optimizer() -> None:
    """What the optimizer runs is not what `compile` can watch: the step is done all the same."""

    def steps(compiled: bool) -> list[float]:
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        optimizer = Interrupted([w], lr=0.1, momentum=0.9)

        def step(x: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            loss = ((w - x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        call = torch.compile(step) if compiled else step
        return [call(torch.tensor([0.5, 0.1])).item() for _ in range(3)] + w.tolist()

    with pytest.warns(RuntimeWarning, match="can't be watched"):
        found = steps(True)
    assert found == steps(False)


class Interrupted(torch.optim.SGD):
    def _step(self, *arguments: Any) -> None:
        list(map(lambda _: time.time(), "a"))
        super()._step(*arguments)
