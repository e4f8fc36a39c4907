"""Memory that several handles share: what is written through one of them is what every other one reads, at once.

Programs are random sequences of everyday statements. NumPy's views are the reference: every handle has a twin there, which shares
memory with the twins of the others in the same way.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastgrad
from fastgrad import nn


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


def test_a_write_with_a_history_through_detach_gives_others_the_value_only() -> None:
    v, p = fastgrad.arange(4.0), nn.Parameter(fastgrad.ones(4))
    view = v[1:]
    d = v.detach()
    d.mul_(p + 0.75)
    assert (d.requires_grad, v.requires_grad, view.requires_grad) == (True, False, False)
    assert v.tolist() == d.tolist() == [0.0, 1.75, 3.5, 5.25]
    assert view.tolist() == [1.75, 3.5, 5.25]
    w = fastgrad.zeros(4)
    whole = w[:]
    w[1:].add_(p[1:])
    assert (w.requires_grad, whole.requires_grad) == (True, True), "views take part in the history"


def test_a_write_under_no_grad_leaves_the_history() -> None:
    """The gradient is straight through: that of what was recorded before the write, at the values that were used after it."""
    w = fastgrad.ones(4, requires_grad=True)
    h, v, u, old = w * 2, w[1:3], w * 3, (w * 5).clone()
    old.sum().item()  # has run: its history is in an earlier graph
    with fastgrad.no_grad():
        h.clamp_(max=1.5)
        v.mul_(2)
        u[0] = 7.0
        u[1:].fill_(1.0)
        old.zero_()
    assert [t.requires_grad for t in (h, v, u, old)] == [True] * 4
    assert not any(t.is_leaf for t in (h, v, u, old))
    assert type(h.grad_fn).__name__ == "MulBackward0"
    ((h * h).sum() + v.sum() + u.sum() + (old * 10 + old * old).sum()).backward()
    assert w.tolist() == [1, 2, 2, 1]
    assert w.grad is not None
    assert w.grad.tolist() == [
        2 * 1.5 * 2 + 3 + 50,
        2 * 1.5 * 2 + 1 + 3 + 50,
        2 * 1.5 * 2 + 1 + 3 + 50,
        2 * 1.5 * 2 + 3 + 50,
    ]


def test_gradients_keep_their_leaves_when_memory_is_held_by_numpy() -> None:
    """Leaves enter the tape in another order in some iterations, and so do their gradients leave it."""
    b, h = (nn.Parameter(fastgrad.tensor([x], dtype=fastgrad.float64)) for x in (0.5, 1.0))
    x = np.array([1.0, 3.0, -1.0])

    class Same(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a * 1

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 1

    nb, nh, held = 0.5, 1.0, None
    for _ in range(8):
        for p in (b, h):
            p.grad = None
        Same.apply((fastgrad.tensor(x) + b).tanh() * h).sum().backward()
        for p in (b, h):
            p.data.sub_(0.1 * p.grad)
        t = np.tanh(x + nb)
        nb, nh = nb - 0.1 * (nh * (1 - t * t)).sum(), nh - 0.1 * t.sum()
        for p, g in zip(
            (b, h), fastgrad.autograd.grad(((fastgrad.tensor(x) + b).tanh() * h).mean(), (b, h)), strict=True
        ):
            p.grad = g.detach().clone()
        held = b.detach().numpy()
        assert np.allclose([b.item(), h.item(), held[0]], [nb, nh, nb], rtol=1e-12)


FIRST = {
    "product": "y.mul_(p)",
    "sum": "y.add_(p * 2)",
    "copy": "y.copy_(p * p)",
    "item": "y[1] = p[0] * 3",
    "none": "pass",
}
THEN = {
    "fill": "y.fill_(7.0)", "zero": "y.zero_()", "copy": "y.copy_(T.arange(3.0))", "all": "y[...] = 2.5", "item": "y[0] = 5.0",
    "half": "y.mul_(0.5)", "view": "y.view(-1)[1:].fill_(4.0)",
}  # fmt: skip


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("way", ["no_grad", "data"])
def test_what_has_a_history_is_overwritten_outside_of_it(first: str, then: str, way: str) -> None:
    """Values and gradients are PyTorch's, whichever of the handles is read, and when."""
    peer = pytest.importorskip("torch")
    second = THEN[then] if way == "no_grad" else THEN[then].replace("y", "y.data", 1)
    seen = []
    for library in (fastgrad, peer):
        for reads in ("", "float(y.detach().sum())"):
            p, x = library.ones(3, requires_grad=True), library.full((3,), 1.5)
            names = {"T": library, "p": p, "y": x + 1}
            for statement in (FIRST[first], reads, second, reads):
                with library.no_grad() if statement == second and way == "no_grad" else contextlib.nullcontext():
                    exec(statement, names)
            y = names["y"]
            found = [(y.detach() * 2).tolist(), y.requires_grad]
            if y.requires_grad:
                (y * library.arange(1.0, 4.0)).sum().backward()
                found.append(None if p.grad is None else p.grad.tolist())
            seen.append([*found, y.detach().tolist()])
    assert seen[0] == seen[1] == seen[2] == seen[3]


@pytest.mark.parametrize(
    "source", ["a", "a[:]", "a.view(3)", "a * 2", "T.relu(a)", "b", "b[:]", "a.to(T.float32)", "a.expand(3)"]
)
@pytest.mark.parametrize(
    "write",
    [
        "p.copy_({})",
        "p[...] = {}",
        "p[:] = {}",
        "p[0] = ({})[1]",
        "p.fill_(({})[0])",
        "p.view(-1).copy_({})",
        "p.data.copy_(({}).detach())",
    ],
)
@pytest.mark.parametrize("made", ["leaf", "computed"])
def test_a_write_under_no_grad_gives_no_history(write: str, source: str, made: str) -> None:
    """A copy of a parameter, of a view of it or of what was computed from it leaves what it is written to as it was."""
    peer = pytest.importorskip("torch")
    seen = []
    for library in (fastgrad, peer):
        q, a = library.ones(3, requires_grad=True), library.full((3,), 2.0, requires_grad=True)
        names = {"T": library, "p": q if made == "leaf" else q * 3, "a": a, "b": a * 1.5}
        with library.no_grad():
            exec(write.format(source), names)
        p = names["p"]
        found = [p.is_leaf, p.requires_grad]
        (p * library.arange(3.0)).sum().backward()
        seen.append([*found, p.detach().tolist(), a.grad, None if q.grad is None else q.grad.tolist()])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("stop", [lambda t: t.detach_(), lambda t: t.requires_grad_(False)])
@pytest.mark.parametrize("mode", ["plain", "eager", "draft"])
def test_a_leaf_that_requires_no_gradient_any_more_gets_none(
    mode: str, stop: Callable[[Any], Any], had: bool, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "draft":
        monkeypatch.setattr(fastgrad.recording, "STRANGERS", 0)
        fastgrad.recording.local.trace.reset()
    with fastgrad.eager() if mode == "eager" else contextlib.nullcontext():
        for stopped in (False, True, False, True):  # the same program with a leaf that goes on and one that does not
            seen: list[str] = []
            leaf, other = (fastgrad.ones(3, requires_grad=True) for _ in range(2))
            if had:
                leaf.register_post_accumulate_grad_hook(lambda t, seen=seen: seen.append("leaf"))
                leaf.grad, other.grad = fastgrad.ones(3), fastgrad.ones(3)
            loss = (leaf * other * 2).sum()
            if read:
                loss.item()
            if stopped:
                stop(leaf)
            loss.backward()
            assert other.grad.tolist() == [3.0 if had else 2.0] * 3
            if stopped:
                assert (leaf.grad.tolist() == [1.0] * 3) if had else (leaf.grad is None)
            else:
                assert leaf.grad.tolist() == other.grad.tolist()
            assert seen == (["leaf"] if had and not stopped else [])


@pytest.mark.parametrize("shape, start, end", [((3,), 0, -1), ((2, 3), 1, 1), ((2, 3), 0, 0), ((2, 3, 1), -1, 2)])
def test_flatten_of_one_dimension_is_the_tensor_itself(shape: tuple[int, ...], start: int, end: int) -> None:
    leaf = fastgrad.ones(shape, requires_grad=True)
    assert leaf.flatten(start, end) is leaf
    assert fastgrad.flatten(leaf.detach()).shape == (np.prod(shape),)


@pytest.mark.parametrize("write", ["[0] = 3.0", "[1:].abs_()", ".narrow(0, 1, 2).mul_(-1.0)", ".chunk(2)[0].neg_()"])
@pytest.mark.parametrize("handle", ["p.detach()", "p.data", "c.detach()", "d", "d[:]", "d.view(3, 1).view(-1)"])
@pytest.mark.parametrize("before", ["", "loss = (p * p).sum()", "d.data.sub_(0.5 * p)", "d.detach()[1:].add_(p[1:])"])
def test_a_write_to_a_part_gives_no_handle_the_history_of_another(before: str, handle: str, write: str) -> None:
    peer = pytest.importorskip("torch")
    seen = []
    for library in (fastgrad, peer):
        p = library.tensor([1.0, -2.0, 0.5], requires_grad=True)
        names = {"p": p, "c": p * 2, "d": library.tensor([0.25, 4.0, -1.0])}
        exec(f"{before}\nh = {handle}\nh{write}", names)
        found = [(t.requires_grad, t.is_leaf, t.tolist()) for t in (names[k] for k in "cdhp")]
        (names["h"] * p.detach() + p).sum().backward()
        seen.append([*found, p.grad.tolist()])


MADE = {
    "detached": "d = x.detach()", "data": "d = x.data", "a leaf of its own": "d = x.detach().requires_grad_()",
    "a parameter": "d = T.nn.Parameter(x)", "a detached part": "d = x[2:].detach()", "a view": "d = x.view(2, 3)",
    "a part": "d = x[2:]", "a part of a leaf": "d = x.detach().requires_grad_()[1:]",
}  # fmt: skip
WRITTEN = ("x", "x[1:]", "x.view(-1)[3:]", "d", "d[1:]", "d.view(-1)[:2]", "d.detach()[1:]", "x.view(2, 3)[:, 1]")


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("used", ["", "float(x.sum())", "l = (d * d).sum()", "l = x.sum() + 0"])
def test_a_history_is_given_to_relatives_only(made: str, target: str, used: str) -> None:
    """Which handles on one memory have a history after one of them was written, and their gradients, are PyTorch's."""
    peer = pytest.importorskip("torch")
    seen = []
    for library in (fastgrad, peer):
        p = library.full((), 2.0, requires_grad=True)
        names = {"T": library, "p": p, "x": library.arange(6.0)}
        found: list[Any] = []
        for statement in (MADE[made], used, f"w = {target}", "w.mul_(p)"):
            try:
                exec(statement, names)
            except RuntimeError as error:
                found.append(type(error))
        handles = [names[n] for n in ("x", "d", "w") if n in names]
        found += [(t.requires_grad, t.is_leaf) for t in handles]
        total = sum(
            [(t * library.arange(1.0, 1.0 + t.numel()).view(t.shape)).sum() for t in handles if t.requires_grad], p * 0
        )
        total.backward()
        seen.append([*found, p.grad.item(), *[t.detach().tolist() for t in handles]])
    assert seen[0] == seen[1]
