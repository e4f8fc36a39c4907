"""Nothing is left for the collector: with `gc.disable()`, loops of every kind keep as many objects as they had.

Each body runs until its programs are known, then some hundred times more; what the collector finds afterwards, and what has
become more, are counted. Programs that are remembered (bounded tables) do not count, hence the allowance.
"""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import fastgrad
from fastgrad import nn

TIMES = 200

w = fastgrad.tensor([1.0, 2.0, 3.0], requires_grad=True)
x = fastgrad.tensor([0.5, 0.25, 0.125])
data = fastgrad.ones(4, 3)
model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
sgd = fastgrad.optim.SGD([w], lr=1e-4, momentum=0.9)
adam = fastgrad.optim.Adam(model.parameters())


class Square(fastgrad.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Any) -> Any:
        ctx.save_for_backward(a)
        return a * a

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (a,) = ctx.saved_tensors
        return g * 2 * a


class Broken(fastgrad.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Any) -> Any:
        return a * a

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        raise ValueError("half-way")


@fastgrad.compile
def trained(a: Any) -> Any:
    w.grad = None
    loss = ((a * w) ** 2).sum()
    loss.backward()
    with fastgrad.no_grad():
        w.sub_(w.grad, alpha=1e-4)
    return loss


@fastgrad.compile
def broken(a: Any) -> Any:
    y = (a * w).sum()
    if y.numel() == 1:
        raise ValueError("half-way")
    return y


def plain(i: int) -> None:
    w.grad = None
    ((w * x) ** 2).sum().backward()
    with fastgrad.no_grad():
        w.sub_(w.grad, alpha=1e-4)


def observing(i: int) -> None:
    plain(i)
    w.tolist()


def evaluating(i: int) -> None:
    (w * w).exp().sum().item()


def optimizer(i: int) -> None:
    sgd.zero_grad()
    ((w * x) ** 2).sum().backward()
    sgd.step()


def modules(i: int) -> None:
    adam.zero_grad()
    loss = (model(data) ** 2).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    loss.item()


def new_modules(i: int) -> None:
    layer = nn.Linear(3, 2)
    steps = fastgrad.optim.Adam(layer.parameters())
    layer(data).sum().backward()
    steps.step()
    layer.weight.tolist()


def states(i: int) -> None:
    model.load_state_dict(model.state_dict())
    copy.deepcopy(model)


def grad(i: int) -> None:
    (g,) = fastgrad.autograd.grad((w**3).sum(), w)
    g.tolist()


def create_graph(i: int) -> None:
    (g,) = fastgrad.autograd.grad((w**3).sum(), w, create_graph=True)
    (h,) = fastgrad.autograd.grad(g.sum(), w)
    h.tolist()


def functions(i: int) -> None:
    w.grad = None
    Square.apply(w).sum().backward()
    w.grad.tolist()


def leaf_hooks(i: int) -> None:
    handle = w.register_hook(lambda g: g * 2)
    w.grad = None
    (w * 2).sum().backward()
    w.grad.tolist()
    handle.remove()


def hooks(i: int) -> None:
    h = w * 2
    h.register_hook(lambda g: g * 3)
    h.retain_grad()
    w.grad = None
    (h * h).sum().backward()
    h.grad.tolist()


def error_in_a_hook(i: int) -> None:
    def hook(g: Any) -> Any:
        raise ValueError("half-way")

    h = w * 2
    h.register_hook(hook)
    raises(ValueError, lambda: h.sum().backward())


def compiled(i: int) -> None:
    trained(x)


def newly_compiled(i: int) -> None:
    fastgrad.compile(lambda a: (a * w).sum())(x).item()


def looped(i: int) -> None:
    trained.loop(data, batch_size=2)


def views(i: int) -> None:
    a = fastgrad.zeros(3, 3)
    a[0] = x
    a[1].add_(1)
    a.t().mul_(2)
    a.tolist()


def writes_in_a_gradient(i: int) -> None:
    a = w * 2
    a.mul_(3)
    a[0] = 1.0
    w.grad = None
    a.view(3, 1).sum().backward()
    w.grad.tolist()


def retained_graphs(i: int) -> None:
    loss = (w * w).sum()
    w.grad = None
    loss.backward(retain_graph=True)
    loss.item()
    loss.backward()
    w.grad.tolist()


def new_programs(i: int) -> None:
    y = w
    for k in range(20):
        y = y * x if (i * 7919 + k * 31) >> (k % 5) & 1 else y + w
    w.grad = None
    y.sum().backward()
    w.grad.tolist()


def at_once(i: int) -> None:
    with fastgrad.eager():
        w.grad = None
        (w * w).sum().backward()


def threads(i: int) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append((w * x).sum()))
    thread.start()
    thread.join()
    found[0].item()


def raises(kind: type[BaseException], body: Callable[[], object]) -> None:
    with pytest.raises(kind):
        body()


def error_in_forward(i: int) -> None:
    raises(RuntimeError, lambda: (w @ fastgrad.ones(5, 5)).sum())


def error_in_backward(i: int) -> None:
    raises(ValueError, lambda: Broken.apply(w).sum().backward())


def error_at_the_end(i: int) -> None:
    raises(IndexError, lambda: (w * 2)[fastgrad.tensor([7])].sum().backward() or w.grad.tolist())  # type: ignore[func-returns-value]
    w.grad = None


def error_of_a_second_backward(i: int) -> None:
    loss = (w * w).sum()
    loss.backward()
    raises(RuntimeError, loss.backward)
    w.grad = None


def error_in_a_step(i: int) -> None:
    def closure() -> Any:
        ((w * x) ** 2).sum().backward()
        raise ValueError("half-way")

    raises(ValueError, lambda: sgd.step(closure))


def error_in_a_compiled_function(i: int) -> None:
    raises(ValueError, lambda: broken(x))


def error_of_memory(i: int) -> None:
    raises(MemoryError, lambda: fastgrad.zeros(10**14))


BODIES = [
    plain, observing, evaluating, optimizer, modules, new_modules, states, grad, create_graph, functions, leaf_hooks, hooks, error_in_a_hook, compiled, newly_compiled,
    looped, views, writes_in_a_gradient, retained_graphs, new_programs, at_once, threads, error_in_forward, error_in_backward,
    error_at_the_end, error_of_a_second_backward, error_in_a_step, error_in_a_compiled_function, error_of_memory,
]  # fmt: skip


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("body", BODIES, ids=lambda f: f.__name__)
def test_a_loop_leaves_nothing_for_the_collector(body: Callable[[int], None], no_collector: None) -> None:
    for i in range(60):
        body(i)
    gc.collect()
    for i in range(TIMES):
        body(60 + i)
    assert gc.collect() < TIMES // 4


def alive() -> int:
    """Objects of the library that exist when nothing is pending."""
    fastgrad.execute.flush(fastgrad.recording.local.trace)
    kinds = ("Tensor", "Storage", "Graph", "Ready", "Program", "DraftGraph")
    return sum([type(thing).__name__ in kinds for thing in gc.get_objects()])


@pytest.mark.parametrize("body", [b for b in BODIES if not b.__name__.startswith("new")], ids=lambda f: f.__name__)
def test_a_loop_keeps_as_many_tensors_and_graphs(body: Callable[[int], None], no_collector: None) -> None:
    for i in range(60):
        body(i)
    before = alive()
    for i in range(TIMES):
        body(60 + i)
    assert alive() - before < TIMES // 4


def test_a_storage_forgets_the_graphs_that_are_gone() -> None:
    leaf = fastgrad.ones(3, requires_grad=True)
    held = [(leaf * leaf).sum() for _ in range(100)]
    for loss in held:
        loss.item()
    for _ in range(1000):
        (leaf * leaf).sum().item()
    assert len(leaf._storage.savers) < 300
    with fastgrad.no_grad():
        leaf.mul_(5)
    held[0].backward()
    assert leaf.grad.tolist() == [2.0, 2.0, 2.0]
