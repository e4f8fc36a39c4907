"""An error that shows only when a program runs: what came before it has happened, and what does not depend on it has its value."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import fastgrad

BAD = None  # a value that cannot be computed


class Holder:
    """A tensor, what a program without errors would have in it now, and what stays of that after an error."""

    def __init__(self, tensor: Any, value: Any) -> None:
        self.tensor, self.now, self.kept = tensor, value, value

    def put(self, value: Any, failed: bool) -> None:
        self.now = value
        if not failed:
            self.kept = value


def combined(a: Any, b: Any, scale: float) -> Any:
    return BAD if a is BAD or b is BAD else a + scale * b


def program(seed: int, faults: int) -> None:
    rng = random.Random(seed)
    size = 4
    holders: list[Holder] = []
    failing: list[Any] = []
    failed = False
    for k in range(3):  # in memory
        array = np.arange(size) * 1.0 + k
        holders.append(Holder(fastgrad.tensor(array), array))
    positions = fastgrad.tensor([0, 1, 2, size])
    for step in range(rng.randint(4, 16)):
        h, other = rng.choice(holders), rng.choice(holders)
        kind = rng.randrange(9)
        if faults and rng.random() < 0.2:
            faults -= 1
            kind = 9
        if kind == 0:
            holders.append(Holder(h.tensor * 2.0, BAD if h.now is BAD else h.now * 2.0))
        elif kind == 1:
            holders.append(Holder(h.tensor + other.tensor, combined(h.now, other.now, 1.0)))
        elif kind == 2:
            h.tensor.add_(float(step))
            h.put(combined(h.now, float(step), 1.0), failed)
        elif kind == 3:
            h.tensor.add_(other.tensor, alpha=0.5)
            h.put(combined(h.now, other.now, 0.5), failed)
        elif kind == 4:
            h.tensor.copy_(other.tensor)
            h.put(other.now, failed)
        elif kind == 5:
            h.tensor[1] = float(step)
            h.put(BAD if h.now is BAD else np.where(np.arange(size) == 1, float(step), h.now), failed)
        elif kind == 6:
            h.tensor[1:].mul_(2.0)
            h.put(BAD if h.now is BAD else np.where(np.arange(size) >= 1, 2.0 * h.now, h.now), failed)
        elif kind == 7:
            h.tensor.data.sub_(1.0)
            h.put(combined(h.now, 1.0, -1.0), failed)
        elif kind == 8:
            holders.append(Holder(h.tensor.clone(), h.now))
        else:
            failed = True
            failing.append(h.tensor.gather(0, positions))
            if rng.random() < 0.5:
                other.tensor.add_(failing[-1])
                other.put(BAD, failed)
    for tensor in failing:
        with pytest.raises(RuntimeError, match=r"could not be computed|out of bounds"):
            tensor.tolist()
    for h in holders:
        if h.kept is BAD:
            with pytest.raises(RuntimeError, match=r"could not be computed|out of bounds"):
                h.tensor.tolist()
        else:
            assert h.tensor.tolist() == h.kept.tolist()
            h.tensor.add_(1.0)
            assert h.tensor.tolist() == (h.kept + 1.0).tolist()


@pytest.mark.parametrize("faults", [0, 1, 2])
@pytest.mark.parametrize("first", range(0, 400, 100))
def test_what_does_not_depend_on_an_error_is_computed_and_written(first: int, faults: int) -> None:
    for seed in range(first, first + 100):
        program(seed, faults)


def test_a_step_recorded_before_an_error_has_happened() -> None:
    w, v = (fastgrad.nn.Parameter(fastgrad.ones(3)) for _ in range(2))
    optimizer = fastgrad.optim.SGD([w, v], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (w * v).sum().backward()
        optimizer.step()
        picked = w.detach().gather(0, fastgrad.tensor([0, 5]))
        expected = v.detach().clone()
        with fastgrad.no_grad():
            v.add_(picked.sum())
        with pytest.raises(RuntimeError, match=r"index 5 is out of bounds.*test_late_errors.py"):
            picked.tolist()
        assert v.tolist() == expected.tolist() == w.tolist()
    assert w.tolist() == [0.125] * 3
