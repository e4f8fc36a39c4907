"""Memory that several handles share: what is written through one of them is what every other one reads, at once.

Programs are random sequences of everyday statements. NumPy's views are the reference: every handle has a twin there, which shares
memory with the twins of the others in the same way.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastgrad


class Program:
    """Handles and their twins, and what may be done to them."""

    def __init__(self, rng: random.Random, steps: int) -> None:
        self.rng = rng
        self.steps = steps
        self.log: list[str] = []
        self.handles: list[tuple[Any, np.ndarray]] = []
        self.losses: list[tuple[Any, float]] = []
        self._new()

    def _keep(self, t: Any, a: np.ndarray) -> None:
        self.handles.append((t, a))

    def _new(self) -> None:
        data = np.array([self.rng.randint(-4, 4) for _ in range(6)], np.float64)
        kind = self.rng.choice(["tensor", "parameter", "numpy", "leaf"])
        shape = self.rng.choice([(6,), (2, 3), (3, 2)])
        data = data.reshape(shape)
        if kind == "numpy":
            t = fastgrad.from_numpy(data)
            if self.rng.random() < 0.5:
                self._keep(t, data)
                return
            self._keep(t, t.numpy())
            return
        twin = data.copy()
        t = fastgrad.tensor(data, requires_grad=kind == "leaf")
        if kind == "parameter":
            if self.rng.random() < 0.5:
                self._keep(t, twin)
            t = fastgrad.nn.Parameter(t)
        self._keep(t, twin)

    # ---- more handles

    def view(self, t: Any, a: np.ndarray) -> None:
        """A view of some kind, outside of any gradient or through the leaf itself."""
        r = self.rng
        if r.random() < 0.3:
            t = t.detach()
        elif r.random() < 0.5:
            t = t.data
        with fastgrad.no_grad():
            kind = r.randrange(7)
            if kind == 0 or a.ndim == 0:
                self._keep(t.view(t.shape), a.view())
            elif kind == 1:
                i = r.randrange(a.shape[0])
                self._keep(t[i], a[i, ...])
            elif kind == 2:
                i = r.randrange(a.shape[0])
                self._keep(t[i:], a[i:])
            elif kind == 3:
                self._keep(t[::2], a[::2])
            elif kind == 4 and a.ndim == 2:
                self._keep(t.t(), a.T)
            elif kind == 5 and a.ndim == 2:
                j = r.randrange(a.shape[1])
                self._keep(t[:, j], a[:, j])
            elif kind == 6 and a.flags.c_contiguous:
                self._keep(t.view(-1), a.reshape(-1))
            else:
                self._keep(t.detach(), a)

    def parameter(self, t: Any, a: np.ndarray) -> None:
        self._keep(fastgrad.nn.Parameter(t), a)

    def rebind(self, t: Any, a: np.ndarray) -> None:
        """`.data` becomes another tensor's memory, or new memory."""
        places = [k for k, (x, _) in enumerate(self.handles) if x is t]
        if self.rng.random() < 0.5:
            other, twin = self.rng.choice(self.handles)
            t.data, a = other.data, twin
        else:
            t.data, a = t.data * 2 - 1, np.array(a * 2 - 1, order="C")
        for k in places:
            self.handles[k] = (t, a)

    # ---- writes

    def write(self, t: Any, a: np.ndarray) -> None:
        """A write of some kind, in one of the ways in which a leaf may be written to."""
        r = self.rng
        way = r.randrange(3)
        if way == 0:
            t = t.data
        elif way == 1:
            t = t.detach()
        with fastgrad.no_grad():
            v = float(r.randint(-3, 3))
            kind = r.randrange(9)
            if kind == 0:
                t.add_(v)
                a += v
            elif kind == 1:
                t.mul_(2.0)
                a *= 2
            elif kind == 2:
                t.fill_(v)
                a[...] = v
            elif kind == 3:
                t.copy_(t * 1 - v)
                a[...] = a * 1 - v
            elif kind == 4:
                t[...] = v
                a[...] = v
            elif kind == 5 and a.ndim:
                i = r.randrange(a.shape[0])
                t[i] = v
                a[i] = v
            elif kind == 6 and a.ndim:
                i = r.randrange(a.shape[0])
                t[i:] += v
                a[i:] += v
            elif kind == 7 and a.ndim:
                t[t > 1] = v
                a[a > 1] = v
            else:
                t.sub_(v)
                a -= v

    def from_outside(self, t: Any, a: np.ndarray) -> None:
        """NumPy writes to memory that it shares with a tensor."""
        if t.requires_grad:
            t = t.detach()
        n = t.numpy()
        n[...] = n + 1
        if not np.shares_memory(n, a) or a is n:
            a[...] = a + 1 if not np.shares_memory(n, a) else a

    # ---- reads

    def read(self, t: Any, a: np.ndarray) -> None:
        assert t.tolist() == a.tolist()

    def use(self, t: Any, a: np.ndarray) -> None:
        """A value that is computed now and looked at later."""
        self.losses.append(((t * 3).sum(), float((a * 3).sum())))

    def train(self, t: Any, a: np.ndarray) -> None:
        """A step on a leaf: the gradient is that of the value that was there."""
        if not t.requires_grad or not t.is_leaf:
            return
        t.grad = None
        loss = (t * t).sum()
        self.losses.append((loss, float((a * a).sum())))
        loss.backward()
        if self.rng.random() < 0.5:
            t.data.add_(t.grad, alpha=-0.25)
        elif self.rng.random() < 0.5:
            with fastgrad.no_grad():
                t -= 0.25 * t.grad
        else:
            fastgrad.optim.SGD([t], lr=0.25).step()
        a -= 0.25 * (2 * a)

    def run(self, run_in: Callable[[Callable[[], None]], None]) -> None:
        actions = [
            self.view,
            self.parameter,
            self.rebind,
            self.write,
            self.write,
            self.write,
            self.read,
            self.use,
            self.train,
        ]
        for _ in range(self.steps):
            if self.rng.random() < 0.08:
                self._new()
                continue
            action = self.rng.choice(actions)
            t, a = self.rng.choice(self.handles)
            self.log.append(f"{action.__name__} {[k for k, (x, _) in enumerate(self.handles) if x is t]}")
            run_in(lambda action=action, t=t, a=a: action(t, a))
        for k, (t, a) in enumerate(self.handles):
            assert t.tolist() == a.tolist(), (k, self.log)
        for loss, value in self.losses:
            assert loss.item() == value, self.log


def here(work: Callable[[], None]) -> None:
    work()


def in_thread(work: Callable[[], None]) -> None:
    """Run in a thread that ends."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("seed", range(150))
def test_every_handle_reads_what_any_handle_wrote(seed: int) -> None:
    Program(random.Random(seed), 25).run(here)


@pytest.mark.parametrize("seed", range(60))
def test_every_handle_reads_what_any_handle_wrote_eagerly(seed: int) -> None:
    with fastgrad.eager():
        Program(random.Random(1000 + seed), 25).run(here)


@pytest.mark.parametrize("seed", range(80))
def test_what_a_thread_wrote_is_there_after_it_has_ended(seed: int) -> None:
    rng = random.Random(2000 + seed)
    Program(rng, 25).run(lambda work: (in_thread if rng.random() < 0.4 else here)(work))


@pytest.mark.parametrize("seed", range(80))
def test_what_a_thread_that_lives_on_wrote_is_read_by_all(seed: int) -> None:
    rng = random.Random(3000 + seed)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        ways = [here, lambda work: one.submit(work).result(), lambda work: other.submit(work).result()]
        Program(rng, 25).run(lambda work: rng.choice(ways)(work))
