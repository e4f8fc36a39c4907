"""A plain loop that goes on as before: its traces are run by machine code, and every change is noticed.

The counter of machine code tells which way a run went; NumPy, or the same loop run at once, says what is right.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad as torch
from fastgrad import endings
from fastgrad.kernels import entrance

WARM = endings.AFTER + 2


def quick(call: Callable[[], Any]) -> tuple[Any, bool]:
    """A call's result, and whether machine code has run a trace."""
    before = entrance.runs[0]
    result = call()
    return result, entrance.runs[0] > before


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


class Loop:
    """Linear regression as users write it."""

    def __init__(self, make_optimizer: Callable[..., Any] = lambda p: torch.optim.SGD(p, lr=0.125)) -> None:
        self.x, self.y = torch.tensor(array(16, 3, seed=1)), torch.tensor(array(16, seed=2))
        self.w = torch.tensor(array(3, seed=3), requires_grad=True)
        self.b = torch.zeros((), requires_grad=True)
        self.optimizer = make_optimizer([self.w, self.b])
        self.scale = 1.5
        self.kept: list[Any] = []

    def step(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = ((self.x @ self.w + self.b - self.y) ** 2).mean() * self.scale
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[Any]:
        tensors = [self.w, self.b, self.w.grad, self.b.grad]
        return [np.array(t.tolist()).tobytes() for t in tensors] + [self.w._version]


def at_once(loop: Loop) -> Any:
    with torch.eager():
        return loop.step()


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adam"])
def test_a_loop_is_run_by_machine_code_and_has_the_bits_of_running_at_once(name: str) -> None:
    make = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.125), "momentum": lambda p: torch.optim.SGD(p, lr=0.125, momentum=0.5),
        "Adam": lambda p: torch.optim.Adam(p, lr=0.125),
    }[name]  # fmt: skip
    lazy, eager = Loop(make), Loop(make)
    for i in range(30):
        loss, went = quick(lazy.step)
        assert loss.item() == at_once(eager).item()
        assert lazy.state() == eager.state()
        assert went or i < 3 * WARM


CHANGES: dict[str, tuple[bool, Callable[[Loop], Any]]] = {  # whether the next step may be quick, and the change
    "nothing": (True, lambda loop: None),
    "another input": (True, lambda loop: setattr(loop, "x", torch.tensor(array(16, 3, seed=5)))),
    "another number": (True, lambda loop: setattr(loop, "scale", -0.25)),
    "an int": (False, lambda loop: setattr(loop, "scale", 3)),
    "another learning rate": (True, lambda loop: loop.optimizer.param_groups[0].update(lr=0.5)),
    "an int as learning rate": (True, lambda loop: loop.optimizer.param_groups[0].update(lr=1)),
    "a huge int as learning rate": (False, lambda loop: loop.optimizer.param_groups[0].update(lr=10**30)),
    "another shape": (False, lambda loop: (setattr(loop, "x", torch.ones(4, 3)), setattr(loop, "y", torch.ones(4)))),
    "a parameter written": (False, lambda loop: loop.w.data.fill_(0.5)),
    "new memory of a parameter": (True, lambda loop: setattr(loop.w, "data", torch.tensor(array(3, seed=6)))),
    "a gradient kept": (False, lambda loop: loop.kept.append(loop.w.grad)),
    "a gradient added to": (False, lambda loop: loop.w.grad.add_(1.0)),
    "a numpy array of a gradient": (False, lambda loop: loop.kept.append(loop.w.grad.numpy())),
    "a numpy array of a parameter": (False, lambda loop: loop.kept.append(loop.w.detach().numpy())),
    "a view of a parameter": (False, lambda loop: loop.kept.append(loop.w.detach()[1:])),
    "a graph that wants the old value": (
        False, lambda loop: (loop.kept.append(((loop.w * loop.w) ** 2).sum()), loop.kept[-1].item()),
    ),
    "memory released": (True, lambda loop: gc.collect()),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(name: str) -> None:
    may_be_quick, change = CHANGES[name]
    lazy, eager = Loop(), Loop()
    for _ in range(3 * WARM):
        lazy.step()
        at_once(eager)
    assert lazy.state() == eager.state()
    change(lazy)
    change(eager)
    for i in range(2 * WARM):
        loss, went = quick(lazy.step)
        assert str(loss.tolist()) == str(at_once(eager).tolist())
        assert lazy.state() == eager.state()
        if i == 0:
            assert went or not may_be_quick
    for left, right in zip(lazy.kept, eager.kept, strict=True):
        np.testing.assert_array_equal(np.array(left.tolist()), np.array(right.tolist()))


def test_the_graph_that_wants_an_old_value_gets_it() -> None:
    loop = Loop()
    for _ in range(3 * WARM):
        loop.step()
    old = np.array(loop.w.tolist())
    loss = (loop.w**3).sum()
    loss.item()
    loop.step()
    loop.w.grad = None
    loss.backward()
    np.testing.assert_allclose(np.array(loop.w.grad.tolist()), 3 * old**2, rtol=1e-6)


def test_other_tensors_alive_are_noticed() -> None:
    """The same trace with other results wanted, in any order."""
    rng = np.random.default_rng(0)
    x = torch.tensor(array(5))
    for i in range(300):
        a = x * 2.0
        b = a + float(i)
        c = b * a
        keep = [a, b, c]
        wanted = [keep[k] for k in range(3) if rng.random() < 0.7] if i > 40 else [c]
        expected = [t.tolist() for t in wanted]
        del a, b, c, keep
        v = array(5)
        one, two = v * np.float32(2), v * np.float32(2) + np.float32(i)
        values = [one.tolist(), two.tolist(), (two * one).tolist()]
        assert all(any(np.allclose(e, value, rtol=1e-6) for value in values) for e in expected)


def test_results_that_are_held_keep_their_values() -> None:
    held = []
    for i in range(100):
        x = torch.full((3,), float(i))
        y = x * 2.0 + 1.0
        y._materialize()
        if i % 3:
            held.append((i, y))
        if i % 17 == 0:
            held = held[::2]
        for k, t in held:
            assert t.tolist() == [2.0 * k + 1.0] * 3


def test_a_negative_zero_is_another_number() -> None:
    x = torch.ones(2)
    for i in range(40):
        rate = -0.0 if i % 2 else 0.0
        assert str((x * rate).tolist()) == str([rate, rate])


def test_products_of_all_shapes_are_found_again() -> None:
    shapes = [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3, 2)),
        ((4, 2, 3), (3,)),
        ((4, 2, 3), (4, 3, 2)),
        ((3,), (4, 3, 2)),
    ]
    for left, right in shapes:
        for i in range(5):
            a, b = array(*left, seed=i), array(*right, seed=i + 9)
            x, y = torch.tensor(a, requires_grad=True), torch.tensor(b)
            z = x @ y
            np.testing.assert_allclose(z.detach().numpy(), a @ b, rtol=1e-5, atol=1e-6)
            z.sum().backward()
            assert x.grad.shape == left
            with pytest.raises(RuntimeError):
                x @ torch.ones(7)


def test_without_knowledge_of_the_interpreter_python_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise entrance.Unknown

    monkeypatch.setattr(endings, "facts", unknown)
    lazy, eager = Loop(), Loop()
    lazy.x = eager.x = torch.tensor(array(23, 3))
    lazy.y = eager.y = torch.tensor(array(23))
    for _ in range(2 * WARM):
        loss, went = quick(lazy.step)
        assert loss.item() == at_once(eager).item()
        assert not went


def test_memory_is_safe_in_a_loop_that_changes(python: Any) -> None:
    python(
        """
    import faulthandler, gc, random, sys, threading, weakref
    faulthandler.enable()
    import numpy as np
    import fastgrad as torch
    from fastgrad.kernels import entrance
    random.seed(1)
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.125)
    held, before, dead = [], entrance.runs[0], []
    for i in range(1500):
        value = np.array(w.tolist())
        optimizer.zero_grad()
        loss = ((x * w) ** 2).sum()
        loss.backward()
        optimizer.step()
        data = np.array(x.tolist())
        np.testing.assert_allclose(loss.item(), ((data * value) ** 2).sum(), rtol=1e-5)
        np.testing.assert_allclose(np.array(w.grad.tolist()), 2 * data * data * value, rtol=1e-5)
        choice = random.randrange(50)
        if choice == 0: gc.collect()
        elif choice == 1: x = torch.tensor([random.random(), 1.0, 2.0])
        elif choice == 2: held.append(loss)
        elif choice == 3: held.clear()
        elif choice == 4: held.append(w.grad)
        elif choice == 5: held.append(w.grad.numpy())
        elif choice == 6: w.data = torch.ones(3)
        elif choice == 7: w = torch.ones(3, requires_grad=True); optimizer = torch.optim.SGD([w], lr=0.125)
        elif choice == 8: held.append(w.detach()[1:])
        elif choice == 9: held.append(weakref.ref(loss, lambda r: dead.append((x + 1).sum().item())))
        elif choice == 10: loss = None
        elif choice == 11: w.data.fill_(1.0)
    assert entrance.runs[0] - before > 300, entrance.runs[0] - before
    """,
        PYTHONMALLOC="debug",
    )


def test_threads_run_their_loops_and_read_each_others_tensors(python: Any) -> None:
    python(
        """
    import sys, threading
    import fastgrad as torch
    sys.setswitchinterval(1e-6)
    size, errors, shared = 20_000, [], []
    def work(k):
        try:
            x = torch.full((size,), float(k))
            for i in range(200):
                y = x * 2.0 + float(i)
                shared.append(y)
                z = y * 3.0
                shared.append(z)
                assert z[0].item() == 3.0 * (2.0 * k + i)
                if len(shared) > 8: del shared[:4]
        except BaseException as error:
            errors.append(error)
    def read():
        while any(t.is_alive() for t in threads):
            for t in list(shared):
                t.tolist()
    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads: t.start()
    reader = threading.Thread(target=read); reader.start()
    for t in threads: t.join()
    reader.join()
    assert not errors, errors
    """,
        PYTHONMALLOC="debug",
    )
