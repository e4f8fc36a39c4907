"""Threads: what one writes every other one reads, gradients add up, and nothing is lost or kept.

References are sums that a lost or doubled update would change; threads are switched between as often as Python can.
"""

from __future__ import annotations

import _thread
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastgrad
from fastgrad import nn, recording


@pytest.fixture(params=[5e-3, 1e-6], ids=["as usual", "switching often"], autouse=True)
def _switching(request: pytest.FixtureRequest) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None], n: int) -> None:
    """Run `work(0)` to `work(n - 1)` in threads of their own, at the same time."""
    errors: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("way", ["add_", "item", "copy_", "data"])
def test_rows_written_by_threads_are_all_there(way: str) -> None:
    x = fastgrad.zeros(6, 5)

    def work(i: int) -> None:
        for k in range(5):
            if way == "add_":
                x[i].add_(1.0)
            elif way == "item":
                x[i, k] = 1.0
            elif way == "copy_":
                x[i].copy_(fastgrad.full((5,), k + 1.0))
            else:
                x.data[i] += 1.0

    together(work, 6)
    assert x.tolist() == np.full((6, 5), 1.0 if way == "item" else 5.0).tolist()


def test_updates_in_place_add_up() -> None:
    m = nn.Linear(4, 1)
    with fastgrad.no_grad():
        m.weight.zero_()

    def work(i: int) -> None:
        for _ in range(30):
            with fastgrad.no_grad():
                m.weight.add_(1.0)
            m(fastgrad.ones(1, 4)).sum().item()

    together(work, 4)
    assert m.weight.tolist() == [[120.0] * 4]


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_threads_add_up(shared: bool) -> None:
    w = fastgrad.ones(4, requires_grad=True)
    loss = (w * 3.0).sum()

    def work(i: int) -> None:
        for _ in range(10):
            if shared:
                loss.backward(retain_graph=True)
            else:
                (w * float(i + 1)).sum().backward()

    together(work, 5)
    assert w.grad is not None
    assert w.grad.tolist() == [150.0] * 4


def test_each_thread_trains_its_own_while_all_read_one() -> None:
    target = fastgrad.tensor([1.0, 2.0])

    def work(i: int) -> None:
        w = fastgrad.zeros(2, requires_grad=True)
        o = fastgrad.optim.SGD([w], lr=0.25)
        for _ in range(30):
            o.zero_grad()
            ((w - target) ** 2).sum().backward()
            o.step()
        assert np.allclose(w.detach().numpy(), [1, 2], atol=1e-6)

    together(work, 4)


def test_a_thread_that_waits_has_written() -> None:
    """A worker of a pool lives on without a look at what it has recorded; others read it, write on, and so does it."""
    w = fastgrad.zeros(3, requires_grad=True)
    with ThreadPoolExecutor(1) as pool:

        def step(by: float) -> None:
            with fastgrad.no_grad():
                w.add_(by)

        for k in range(1, 6):
            pool.submit(step, 1.0).result()
            step(2.0)
            y = w * 1.0
            pool.submit(step, 4.0).result()
            assert y.tolist() == [7.0 * k - 4] * 3
            assert w.tolist() == [7.0 * k] * 3


def test_what_was_recorded_before_another_thread_writes_keeps_its_values() -> None:
    w = fastgrad.tensor([2.0, 3.0], requires_grad=True)
    y = (w * w).sum()

    def write(_: int) -> None:
        with fastgrad.no_grad():
            w.fill_(100.0)

    together(write, 1)
    y.backward()
    assert (y.item(), w.tolist()) == (13.0, [100.0, 100.0])
    assert w.grad is not None
    assert w.grad.tolist() == [4.0, 6.0]


@pytest.mark.parametrize("reader", ["compiled", "loop"])
def test_compiled_steps_read_what_a_thread_wrote(reader: str) -> None:
    w = fastgrad.zeros(2, requires_grad=True)
    x = fastgrad.ones(4, 2)

    @fastgrad.compile
    def step(x: fastgrad.Tensor) -> fastgrad.Tensor:
        w.grad = None
        loss = (x * w).sum()
        loss.backward()
        with fastgrad.no_grad():
            w.sub_(w.grad * 0.25)
        return loss

    def call() -> None:
        if reader == "compiled":
            step(x)
        else:
            step.loop(x, batch_size=4, epochs=1)

    expected = 0.0
    with ThreadPoolExecutor(1) as pool:

        def write() -> None:
            with fastgrad.no_grad():
                w.add_(3.0)

        for _ in range(8):
            pool.submit(write).result()
            call()
            expected += 2.0
            assert w.tolist() == [expected] * 2


def test_a_compiled_step_reads_an_argument_that_a_thread_wrote() -> None:
    x = fastgrad.zeros(3)
    double = fastgrad.compile(lambda x: x * 2)
    with ThreadPoolExecutor(1) as pool:
        for k in range(1, 8):
            pool.submit(lambda: x.add_(1.0)).result()
            assert double(x).tolist() == [2.0 * k] * 3


def test_threads_that_come_and_go_leave_nothing_behind() -> None:
    w = fastgrad.zeros(4, requires_grad=True)
    seen: list[weakref.ref[fastgrad.Tensor]] = []
    traces = len(recording._traces)

    def work(_: int) -> None:
        loss = ((w - 1) ** 2).sum()
        loss.backward()
        with fastgrad.no_grad():
            w.sub_(w.grad * 0.25)
        w.grad = None
        seen.append(weakref.ref(loss))

    for _ in range(20):
        together(work, 2)
    gc.collect()
    assert len(recording._traces) == traces
    assert all(r() is None for r in seen)
    together(work, 1)
    before = fastgrad.stats()["missed"]
    together(work, 1)
    assert fastgrad.stats()["missed"] == before, "a new thread finds the programs of those before it"


def somewhere(place: str, pool: ThreadPoolExecutor, work: Callable[[], object]) -> None:
    """Run in this thread, in a worker that lives on, or in one that ends."""
    if place == "here":
        work()
    elif place == "worker":
        pool.submit(work).result()
    else:
        together(lambda i: work() and None, 1)


PLACES = ("here", "worker", "new thread")
WRITES: dict[str, Callable[[fastgrad.Tensor], object]] = {
    "data": lambda t: t.data.clamp_(-0.25, 0.25),
    "a view of data": lambda t: t.data.view(-1).fill_(1.5),
    "detach": lambda t: t.detach().add_(1),
    "two": lambda t: (t.data.add_(1), t.detach().view(-1).mul_(2)),
    "a leaf on its memory": lambda t: t.detach().requires_grad_(),
}


@pytest.mark.parametrize("reader", PLACES)
@pytest.mark.parametrize("writer", PLACES)
@pytest.mark.parametrize("recorder", PLACES)
@pytest.mark.parametrize("write", list(WRITES))
@pytest.mark.parametrize("drafts", [False, True])
def test_a_result_keeps_its_history_whoever_writes_to_its_memory(
    write: str, recorder: str, writer: str, reader: str, drafts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if drafts:
        monkeypatch.setattr(recording, "STRANGERS", 0)
        recording.local.trace.reset()
    for use in (lambda t: t, lambda t: t.tanh() * 0 + t):
        leaf = fastgrad.tensor([0.5, -2.0], requires_grad=True)
        made: list[fastgrad.Tensor] = []
        with ThreadPoolExecutor(1) as pool:
            somewhere(recorder, pool, lambda leaf=leaf, made=made: made.append((leaf * leaf).sum()))
            somewhere(writer, pool, lambda made=made: WRITES[write](made[0]))
            somewhere(reader, pool, lambda made=made, use=use: use(made[0]).backward())
        assert leaf.grad is not None
        assert leaf.grad.tolist() == [1.0, -4.0]


@pytest.mark.parametrize("setter", PLACES)
@pytest.mark.parametrize("recorder", PLACES)
def test_data_assigned_to_a_view_of_another_thread_leaves_its_history(recorder: str, setter: str) -> None:
    leaf = fastgrad.tensor([0.5, -2.0], requires_grad=True)
    made: list[fastgrad.Tensor] = []

    def assign() -> None:
        made[0].data = fastgrad.ones(2)

    with ThreadPoolExecutor(1) as pool:
        somewhere(recorder, pool, lambda: made.append(leaf.view_as(leaf)))
        somewhere(setter, pool, assign)
        assert not made[0].is_leaf
        assert made[0].tolist() == [1.0, 1.0]
        (made[0] * made[0]).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [2.0, 2.0]
    assert leaf.tolist() == [0.5, -2.0]


@pytest.mark.parametrize("export", [lambda t: t.numpy(), lambda t: t[1:].numpy(), np.asarray])
def test_what_another_thread_has_recorded_reads_memory_before_an_array_gets_it(
    export: Callable[[fastgrad.Tensor], np.ndarray],
) -> None:
    source = fastgrad.ones(3)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: source.detach() * 2).result()
        export(source)[...] = 7.0
        later = pool.submit(lambda: source * 2).result()
    assert made.tolist() == [2.0, 2.0, 2.0]
    assert later[1:].tolist() == [14.0, 14.0]


def test_a_thread_that_python_has_not_started_leaves_no_thread_object() -> None:
    done = threading.Event()
    leaf = fastgrad.ones(3, requires_grad=True)

    def work() -> None:
        (leaf * 2).sum().backward()
        fastgrad.compile(lambda x: x * 2)(leaf.detach()).tolist()
        done.set()

    before = set(threading.enumerate())
    _thread.start_new_thread(work, ())
    assert done.wait(60)
    assert set(threading.enumerate()) <= before
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [2.0, 2.0, 2.0]


def test_threads_that_begin_and_end_at_the_same_time_lose_no_trace() -> None:
    before = list(recording._traces)
    x = fastgrad.ones(3)

    def work(i: int) -> None:
        for _ in range(5):
            together(lambda _: (x * 2).tolist() and None, 2)
            assert recording.owner_of(recording.local.trace.epoch) is recording.local.trace

    together(work, 8)
    assert recording._traces == before


def test_a_copy_of_what_another_thread_has_written_in_place() -> None:
    base = fastgrad.tensor([[0.1, 1.5], [-1.25, 3.0]])
    row = base[1::2].diagonal()
    base.detach().add_(1.0)
    row.clamp_(min=-1.25)
    made = []
    thread = threading.Thread(target=lambda: made.append(fastgrad.empty_like(row).copy_(row)))
    thread.start()
    thread.join()
    made[0] += 2.0
    assert made[0].tolist() == [1.75]
    assert row.tolist() == [-0.25]


@pytest.mark.parametrize("where", ["made", "made and written", "a graph"])
def test_a_hook_registered_by_another_thread_is_called(where: str) -> None:
    p = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    r = p * 3.0
    if where == "made and written":
        r.mul_(2.0)
    loss = (r * r).sum()
    if where == "a graph":
        loss.item()
    seen: list[Any] = []

    def work() -> None:
        r.register_hook(lambda g: g * 0.5)
        r.retain_grad()
        r.register_hook(lambda g: seen.append(g.tolist()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    loss.backward()
    factor = 6.0 if where == "made and written" else 3.0
    assert seen == [[factor * 1.0, factor * 2.0]]
    assert r.grad.tolist() == seen[0]
    assert p.grad.tolist() == [factor * g for g in seen[0]]


@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 2)])
@pytest.mark.parametrize("looks", [False, True])
def test_every_view_has_the_history_that_a_thread_writes_to_the_memory(shape: tuple[int, ...], looks: bool) -> None:
    w = fastgrad.ones(2, dtype=fastgrad.float64, requires_grad=True)
    base = fastgrad.full((2, 3), 3.0, dtype=fastgrad.float64)
    view, target = base.reshape(shape), base.reshape(-1)[1]
    value = (w * w).sum()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: target.copy_(value * 3.0)).result()
        if looks:
            assert view.requires_grad
            assert not view.is_leaf
        (view.sum() + base.sum()).backward()
    assert w.grad.tolist() == [12.0, 12.0]


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("reads", [False, True])
def test_a_pending_history_whose_memory_another_thread_takes_over(written: bool, reads: bool) -> None:
    leaf = fastgrad.arange(6.0).reshape(2, 3).requires_grad_()
    view = leaf.view_as(leaf)
    data = view.data
    if written:
        view.data.view(-1)[4] = 0.75
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: data.clamp_(max=2.5)).result()
        (view * view).sum().backward()
        assert leaf.grad.tolist() == [[0.0, 2.0, 4.0], [5.0, 1.5 if written else 5.0, 5.0]]
        if reads:
            view.tolist()
        pool.submit(lambda: data[1].fill_(-0.5)).result()
        (view * view).sum().backward()
    assert leaf.grad.tolist() == [[0.0, 4.0, 8.0], [4.0, 0.5 if written else 4.0, 4.0]]


@pytest.mark.parametrize("registered", ["before", "after", "by the thread"])
@pytest.mark.parametrize("walker", ["here", "the thread", "a new thread"])
def test_a_history_that_two_threads_go_on_from_is_walked_once(registered: str, walker: str) -> None:
    w = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    seen: list[Any] = []
    shared = w * 3.0

    def register() -> None:
        shared.register_hook(lambda g: seen.append(g.tolist()))
        shared.register_hook(lambda g: g * 0.5)
        shared.retain_grad()

    if registered == "before":
        register()
    losses = [(shared * 2.0).sum()]
    with ThreadPoolExecutor(1) as pool:

        def theirs() -> None:
            losses.append((shared * shared).sum() + losses[0])
            if registered == "by the thread":
                register()

        pool.submit(theirs).result()
        if registered == "after":
            register()
        loss = losses[0] * 0.25 + losses[1] * 2.0
        if walker == "here":
            loss.backward()
        elif walker == "the thread":
            pool.submit(loss.backward).result()
        else:
            thread = threading.Thread(target=loss.backward)
            thread.start()
            thread.join()
        whole = [2.25 * 2.0 + 4.0 * 3.0, 2.25 * 2.0 + 4.0 * 6.0]
        assert seen == [whole]
        assert shared.grad.tolist() == [0.5 * g for g in whole]
        assert w.grad.tolist() == [1.5 * g for g in whole]
        with pytest.raises(RuntimeError, match="second time"):
            losses[1].backward()


def test_histories_that_go_to_and_fro_between_threads() -> None:
    w = fastgrad.ones(3, dtype=fastgrad.float64, requires_grad=True)
    expected = fastgrad.ones(3, dtype=fastgrad.float64, requires_grad=True)
    calls = [0, 0]

    def grown(x: fastgrad.Tensor, place: int) -> fastgrad.Tensor:
        y = x * 1.25 + x.sin()

        def note(g: Any) -> None:
            calls[place] += 1

        y.register_hook(note)
        return y

    with ThreadPoolExecutor(1) as pool:
        there, here = w, w
        for k in range(12):
            there = pool.submit(lambda x=here, z=there: grown(x, 0) * 0.5 + z * 0.1).result()
            here = grown(there, 0) * 0.25 + here * 0.2
            if k % 5 == 4:
                here.sum().item()
        (here * there).sum().backward()
    there, here = expected, expected
    for _ in range(12):
        there = grown(here, 1) * 0.5 + there * 0.1
        here = grown(there, 1) * 0.25 + here * 0.2
    (here * there).sum().backward()
    assert calls == [24, 24]
    np.testing.assert_allclose(w.grad.numpy(), expected.grad.numpy(), rtol=1e-12)
