"""A compiled function reads Python's state as it is now, leaves the same traces in it, and returns aliases as aliases.

The reference is the same function, not compiled, on state of its own. `state_programs` writes the programs that read; what functions
write and what they return stands here.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import gc
import io
import itertools
import logging
import os
import random
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from state_programs import PLACES, USES, Program, check, frames, outcome, programs, shown

import fastgrad as torch
from fastgrad import nn, recording

CALLS = 7
COMMON = ("float", "int", "list", "list of tensors", "dict", "layers")


def names(place: str, use: str) -> list[Program]:
    return [p for p in programs() if p.place == place and p.use == use]


@pytest.mark.parametrize("place", PLACES)
def test_what_a_function_reads_is_read_as_it_is_now(place: str, tmp_path: Path) -> None:
    chosen = random.Random(place).sample([p for p in programs() if p.place == place], 4)
    for program in [Program(place, "float", 0), *chosen]:
        found = check(program, tmp_path)
        assert not found.differences, f"{program.name}\n{found.differences[0]}\n{program.source()}"
        assert len(found.warnings) <= 1


@pytest.mark.parametrize("use", USES)
def test_every_use_of_a_value_follows_its_changes(use: str, tmp_path: Path) -> None:
    for program in names("attribute through a method", use):
        found = check(program, tmp_path)
        assert not found.differences, f"{program.name}\n{found.differences[0]}\n{program.source()}"


@pytest.mark.parametrize("place", [p for p in PLACES if PLACES[p].quick])
def test_the_common_forms_stay_compiled(place: str, tmp_path: Path) -> None:
    program = Program(place, "float", 0)
    found = check(program, tmp_path)
    assert found.frames == 0, found.warnings


@pytest.mark.parametrize("use", COMMON)
def test_numbers_lists_and_layers_stay_compiled(use: str, tmp_path: Path) -> None:
    for program in names("attribute through a method", use):
        if "np." in USES[use].bodies[program.body]:
            continue
        found = check(program, tmp_path)
        assert found.frames == 0, f"{program.name}: {found.warnings}"


@pytest.mark.parametrize("place", [p for p in PLACES if not PLACES[p].quick and "hides" not in p])
def test_what_cannot_be_watched_runs_its_python_with_one_warning_that_names_the_line(
    place: str, tmp_path: Path
) -> None:
    found = check(Program(place, "float", 0), tmp_path)
    assert not found.differences
    if found.frames:
        assert len(found.warnings) == 1
        assert ".py:" in found.warnings[0]


# ------------------------------------------------------------------------------------------------------------ changes


class Counter:
    made = 0

    def __init__(self) -> None:
        self.n = 0
        self.seen: list[Any] = []

    def step(self, x: Any) -> Any:
        self.n += 1
        return x * self.n

    def note(self, x: Any) -> Any:
        self.seen.append(len(self.seen))
        return x + len(self.seen)

    def once(self, x: Any) -> Any:
        if not hasattr(self, "ready"):
            self.ready = True
            return -x
        return x

    def kept(self, x: Any) -> Any:
        Kept = type(self)
        Kept.made += 1
        return x * Kept.made


_now: contextvars.ContextVar[int] = contextvars.ContextVar("_now", default=0)
_log = logging.getLogger("test_compile_state")
total = 0


def _nonlocal(a: Any) -> Callable[..., Any]:
    n = 0

    def f(x: Any) -> Any:
        nonlocal n
        n += 1
        a.n = n
        return x * n

    return f


def _global(x: Any) -> Any:
    global total
    total += 1
    return x * total


def _generator(a: Any) -> Callable[..., Any]:
    steps = (k * 0.5 for k in range(100))
    return lambda x: x * next(steps)


def _pops(a: Any) -> Callable[..., Any]:
    a.items = [float(k) for k in range(20)]
    return lambda x: x * a.items.pop()


def _writes(change: Callable[[Any, Any], Any]) -> Callable[[Any], Callable[..., Any]]:
    """A function that changes its state `a`, and computes with it."""

    def make(a: Any) -> Callable[..., Any]:
        def f(x: Any) -> Any:
            factor = change(a, x)
            return x * (a.n + len(a.items) + len(a.table)) + (0 if factor is None else factor)

        return f

    return make


def _augmented(a: Any, x: Any) -> None:
    a.n += 1


def _several(a: Any, x: Any) -> None:
    a.n, a.other = len(a.items) + 1, a.n
    a.items.append(a.other)


def _item(a: Any, x: Any) -> None:
    a.table["n"] = a.table.get("n", 0) + 1
    a.table[a.table["n"]] = a.n


def _slices(a: Any, x: Any) -> None:
    a.items[:] = [*a.items, 1, 2]
    a.items[0:1] = []


def _deletes(a: Any, x: Any) -> None:
    a.items += [1, 2, 3]
    del a.items[0]


def _removes(a: Any, x: Any) -> None:
    a.extra = 1
    del a.extra
    a.n += 2


def _every_third(a: Any, x: Any) -> Any:
    a.n += 1
    if a.n % 3 == 0:
        a.items.append(a.n)
        return 1.5
    return None


def _deque(a: Any, x: Any) -> None:
    a.items = collections.deque(a.items, maxlen=3)
    a.items.append(a.n)


def _raises(a: Any, x: Any) -> None:
    a.n += 1
    if a.n == 4:
        raise ValueError(f"call {a.n}")


def _recovers(a: Any, x: Any) -> None:
    try:
        a.table["missing"]
    except KeyError:
        a.table["missing"] = 1
    finally:
        a.n += 1


def _lr(a: Any, x: Any) -> None:
    a.optimizer.param_groups[0]["lr"] *= 0.5
    a.n = a.optimizer.param_groups[0]["lr"]


def _train(a: Any, x: Any) -> Any:
    a.model.eval()
    y = a.model(x)
    a.model.train()
    return y


def _switch(a: Any, x: Any) -> Any:
    a.model.train(not a.model.training)
    return a.model(x)


def _grows(a: Any, x: Any) -> Any:
    a.model.append(nn.Tanh())
    return a.model(x)


def _buffer(a: Any, x: Any) -> None:
    a.w.add_(1)
    a.w[0] *= 2


def _data(a: Any, x: Any) -> None:
    a.w.data.mul_(2)
    a.w.data[1] = x.sum().detach()


def _freezes(a: Any, x: Any) -> Any:
    a.model[0].weight.requires_grad_(not a.model[0].weight.requires_grad)
    return a.model(x)


CHANGES: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "a counter of the object": lambda a: a.counter.step,
    "a list of the object": lambda a: a.counter.note,
    "a first use": lambda a: a.counter.once,
    "a class's counter": lambda a: type("Own", (Counter,), {"made": 0})().kept,
    "a nonlocal name": _nonlocal,
    "a generator": _generator,
    "a list that runs empty": _pops,
    "an iterator": lambda a: functools.partial(lambda it, x: x * next(it), itertools.count(1)),
    "an augmented attribute": _writes(_augmented),
    "several attributes": _writes(_several),
    "items of a dict": _writes(_item),
    "slices": _writes(_slices),
    "a deleted item": _writes(_deletes),
    "a deleted attribute": _writes(_removes),
    "every third call": _writes(_every_third),
    "a deque": _writes(_deque),
    "an error in one call": _writes(_raises),
    "an error that is caught": _writes(_recovers),
    "a set": _writes(lambda a, x: a.bag.add(len(a.bag)) or len(a.bag)),
    "setdefault": _writes(lambda a, x: a.table.setdefault(len(a.table), 2.5)),
    "update": _writes(lambda a, x: a.table.update({len(a.table): 1})),
    "setattr": _writes(lambda a, x: setattr(a, "n", a.n + 3)),
    "extend": _writes(lambda a, x: a.items.extend([1, 2])),
    "insert": _writes(lambda a, x: a.items.insert(0, 5)),
    "sort": _writes(lambda a, x: (a.items.append(-len(a.items)), a.items.sort())[0]),
    "print": _writes(lambda a, x: print("call", a.n)),
    "print to a stream": _writes(lambda a, x: print("call", file=a.stream)),
    "a log": _writes(lambda a, x: _log.warning("call %d", a.n)),
    "a write to a file": _writes(lambda a, x: a.stream.write("line\n")),
    "the environment": _writes(lambda a, x: os.environ.__setitem__("FASTGRAD_TEST_STATE", os.environ.get("FASTGRAD_TEST_STATE", "") + "x")),
    "a context variable": _writes(lambda a, x: (_now.set(_now.get() + 1), _now.get())[1]),
    "random": lambda a: lambda x: x * a.random.random(),
    "numpy's generator": lambda a: lambda x: x * a.numpy.normal(),
    "numpy's global generator": lambda a: lambda x: x * np.random.rand(),
    "an array": _writes(lambda a, x: a.array.__setitem__(0, a.array[0] + 1) or float(a.array[0])),
    "a learning rate": _writes(_lr),
    "a mode and back": _writes(_train),
    "a mode": _writes(_switch),
    "a layer that is added": _writes(_grows),
    "a tensor in place": _writes(_buffer),
    "a tensor's data": _writes(_data),
    "a weight's flag": _writes(_freezes),
    "cached": lambda a: functools.partial(lambda g, x: x * g(2), functools.lru_cache(lambda k: a.n + k)),
    "a manager": _writes(lambda a, x: a.enter(a) or None),
}  # fmt: skip


def state() -> Any:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))

    @contextlib.contextmanager
    def manager(a: Any) -> Any:
        a.n += 1
        yield a
        a.n += 10

    def enter(a: Any) -> None:
        with manager(a):
            a.items.append(a.n)

    return types.SimpleNamespace(
        n=1, items=[], table={}, bag=set(), counter=Counter(), stream=io.StringIO(), random=random.Random(5), array=np.ones(3),
        numpy=np.random.default_rng(5), model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), w=torch.ones(3), enter=enter,
    )  # fmt: skip


def traces(a: Any) -> Any:
    own = {
        k: v
        for k, v in vars(a).items()
        if k not in ("counter", "stream", "random", "numpy", "model", "optimizer", "enter")
    }
    parts = [
        own,
        vars(a.counter),
        a.stream.getvalue(),
        a.random.getstate()[1][:5],
        dict(a.model.state_dict()),
        len(a.model),
    ]
    more = [a.optimizer.param_groups[0]["lr"], a.model.training, [p.requires_grad for p in a.model.parameters()]]
    return shown([*parts, *more])


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_function_changes_is_changed_by_every_call(
    name: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for compiled in (False, True):
        monkeypatch.delenv("FASTGRAD_TEST_STATE", raising=False)
        _now.set(0)
        np.random.seed(4)
        caplog.clear()
        a = state()
        f = CHANGES[name](a)
        run = torch.compile(f) if compiled else f
        seen = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for k in range(CALLS):
                seen.append((outcome(run, torch.full((3,), float(k)))[0], traces(a)))
        told = [w for w in caught if "runs its Python" in str(w.message)]
        assert len(told) <= 1
        seen += [
            capsys.readouterr().out,
            [r.getMessage() for r in caplog.records],
            os.environ.get("FASTGRAD_TEST_STATE"),
        ]
        runs.append(seen)
    assert runs[0] == runs[1]


def test_a_global_counter_is_changed_by_every_call() -> None:
    global total
    total = 0
    step = torch.compile(_global)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert [step(torch.ones(())).item() for _ in range(CALLS)] == [1 + k for k in range(CALLS)]
    assert total == CALLS


def test_writes_to_tensors_stay_compiled() -> None:
    a = state()
    step = torch.compile(CHANGES["a tensor in place"](a))
    x = torch.ones(3)
    for _ in range(CALLS):
        step(x)
    assert frames(step, x, __file__) == 0


# ------------------------------------------------------------------------------------------------------------ aliases


class Held:
    def __init__(self) -> None:
        self.w = torch.arange(12.0).reshape(3, 4).clone()
        self.p = nn.Parameter(torch.ones(3, 4))
        self.items = [self.w, self.p]
        self.pair = (self.w, 2)


ALIASES: dict[str, Callable[[Any, Any], Any]] = {
    "the argument": lambda a, x: x,
    "the argument twice": lambda a, x: (x, x),
    "a view twice": lambda a, x: (lambda v: (v, [v], x[1], v))(x[0]),
    "a view of state twice": lambda a, x: (lambda v: (v, v))(a.w.select(0, 1)),
    "a list twice": lambda a, x: (lambda v: (v, {"again": v}, v))([x * 2, a.w[0]]),
    "a view of the argument": lambda a, x: x.view(-1),
    "a row": lambda a, x: x[1],
    "columns": lambda a, x: x[:, 1:3],
    "transposed": lambda a, x: x.t(),
    "detached": lambda a, x: x.detach(),
    "data": lambda a, x: x.data,
    "a view of a view": lambda a, x: x.t()[1:].detach(),
    "reshaped": lambda a, x: x.reshape(4, 3),
    "reshaped with a copy": lambda a, x: x.t().reshape(-1),
    "contiguous": lambda a, x: x.contiguous(),
    "contiguous of transposed": lambda a, x: x.t().contiguous(),
    "the same type": lambda a, x: (x.float(), x.to(torch.float32), x.cpu()),
    "another type": lambda a, x: x.double(),
    "a clone": lambda a, x: x.clone(),
    "flattened": lambda a, x: x.flatten(),
    "squeezed": lambda a, x: x[None].squeeze(0),
    "unbound": lambda a, x: x.unbind(0),
    "chunks": lambda a, x: x.chunk(2, dim=1),
    "split": lambda a, x: x.split(2),
    "narrow": lambda a, x: x.narrow(0, 1, 2),
    "diagonal": lambda a, x: x.diagonal(),
    "expanded": lambda a, x: x[:1].expand(3, 4),
    "in place": lambda a, x: x.add_(1),
    "a view in place": lambda a, x: x[0].mul_(3),
    "an item written": lambda a, x: (x.__setitem__(0, 5.0), x)[1],
    "the tensor": lambda a, x: a.w,
    "the tensor and a sum": lambda a, x: (a.w, a.w + x),
    "a view of the tensor": lambda a, x: a.w.view(-1),
    "rows of the tensor": lambda a, x: [r for r in a.w],
    "the tensor transposed": lambda a, x: a.w.t(),
    "the tensor in place": lambda a, x: a.w.add_(x),
    "the tensor's data": lambda a, x: a.w.data,
    "the parameter": lambda a, x: a.p,
    "the parameter's data": lambda a, x: a.p.data,
    "the parameter detached": lambda a, x: a.p.detach()[0],
    "a view of the parameter": lambda a, x: a.p.view(-1),
    "the list": lambda a, x: a.items,
    "a list of both": lambda a, x: [x, a.w, x.view(-1)],
    "a dict of both": lambda a, x: {"x": x, "w": a.w.view(-1), "y": x + a.w},
    "a result and its views": lambda a, x: (lambda y: (y, y.view(-1), y.t(), y.detach()))(x + a.w),
    "only views of a result": lambda a, x: (lambda y: (y[0], y[1]))(x * 2),
    "a tensor of a tuple": lambda a, x: a.pair[0].view(-1),
    "items of the list": lambda a, x: [t.detach() for t in a.items],
    "a sum and the argument": lambda a, x: (x + 1, x),
    "a part of the argument gets a history": lambda a, x: x[0].mul_(a.p[1]),
    "the tensor gets a history": lambda a, x: a.w[0].mul_(a.p[1] + x[0]),
    "the tensor gets a history unseen": lambda a, x: (a.w.add_(a.p), x + 1)[1],
    "a constant": lambda a, x: torch.zeros(3, 4),
    "a constant twice": lambda a, x: (lambda z: (z, z))(torch.ones(3, 4)),
    "no change": lambda a, x: torch.relu(x),
}  # fmt: skip


def flat(value: Any) -> list[torch.Tensor]:
    stack, found = [value], []
    while stack:
        x = stack.pop(0)
        if isinstance(x, torch.Tensor):
            found.append(x)
        elif isinstance(x, (list, tuple, dict)):
            stack = [*(x.values() if isinstance(x, dict) else x), *stack]
    return found


def which_share(a: Held, x: torch.Tensor, answer: Any) -> list[Any]:
    """Of which handles the answer consists, and what a write through each one changes."""
    handles = [x, a.w, a.p, *flat(answer)]
    found: list[Any] = [[next(i for i, h in enumerate(handles) if h is t) for t in handles], answer is a.items]
    found += [[t.is_leaf, t.requires_grad, type(t), t.stride(), t.storage_offset()] for t in handles]
    for k, t in enumerate(handles):
        with torch.no_grad():
            try:
                t.fill_(float(100 + k))
            except RuntimeError as error:
                found.append(type(error))
        found.append([shown(h) for h in handles])
    return found


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_is_returned_as_an_alias(name: str, grad: bool) -> None:
    runs = []
    f = ALIASES[name]
    warnings.simplefilter("ignore", RuntimeWarning)
    for compiled in (False, True):
        a = Held()
        step = torch.compile(lambda x, a=a: f(a, x)) if compiled else functools.partial(f, a)
        seen: list[Any] = []
        for k in range(CALLS):
            x = torch.full((3, 4), float(k)).requires_grad_(grad)
            try:
                answer = step(x)
            except RuntimeError as error:
                seen.append(str(error))
            else:
                seen.append(which_share(a, x, answer))
            a.w.detach_()
            if k == 4:
                a.w.data = torch.full((3, 4), 0.5)
        runs.append(seen)
    for k, (plain, given) in enumerate(zip(*runs, strict=True)):
        assert plain == given, f"call {k}"


@pytest.mark.parametrize("name", ALIASES)
def test_a_write_with_a_history_to_an_alias_reaches_its_relatives(name: str) -> None:
    runs = []
    f = ALIASES[name]
    warnings.simplefilter("ignore", RuntimeWarning)
    for compiled in (False, True):
        seen: list[Any] = []
        a = Held()
        step = torch.compile(lambda x, a=a: f(a, x)) if compiled else functools.partial(f, a)
        for k in range(CALLS):
            x, factor = torch.full((3, 4), float(k)), torch.tensor(2.0, requires_grad=True)
            answer = flat(step(x))
            handles = [x, a.w, *answer, *[t[-1:] for t in answer if t.dim()]]
            target = handles[k % len(handles)]
            try:
                target.mul_(factor)
            except RuntimeError as error:
                seen.append(type(error))
            flags = [(t.requires_grad, t.is_leaf) for t in handles]
            loss = sum([t.sum() for t in handles if t.requires_grad], torch.zeros(()))
            if loss.requires_grad:
                loss.backward()
            seen.append([flags, shown(handles), None if factor.grad is None else factor.grad.item()])
            a.w = torch.arange(12.0).reshape(3, 4)
            a.items[0], a.pair = a.w, (a.w, 2)
        runs.append(seen)
    for k, (plain, given) in enumerate(zip(*runs, strict=True)):
        assert plain == given, f"call {k}"


# ------------------------------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("write", ["add", "item", "data", "nothing"])
@pytest.mark.parametrize("name", ["read", "written", "view"])
def test_a_write_by_another_thread_while_a_call_is_recorded(name: str, write: str) -> None:
    """Later calls do what the function does, whatever came in between while it was recorded."""

    def writes(w: torch.Tensor) -> None:
        if write == "add":
            w.add_(1)
        elif write == "item":
            w[1] = 7.0
        elif write == "data":
            w.data.mul_(2)
        w.sum().item()

    def make() -> tuple[Any, ...]:
        w, v = torch.ones(3), torch.full((3,), 2.0)

        def f(x: Any) -> Any:
            y = x * (w.view(-1) if name == "view" else w)
            if name == "written":
                w.add_(10)
            y = y + v
            return y + w * 100

        return f, w, v

    f, w, v = make()
    step = torch.compile(f)
    threads: list[threading.Thread] = []

    def collecting(phase: str, info: dict[str, int]) -> None:  # called in the midst of recording
        trace = recording.local.trace
        reached = trace.written if name == "written" else trace.entered
        if trace.capture is not None and w._storage in reached and v._storage in trace.entered and not threads:
            threads.append(threading.Thread(target=writes, args=(w,)))
            threads[0].start()
            threads[0].join()

    before = gc.get_threshold()
    gc.callbacks.append(collecting)
    gc.set_threshold(1)
    try:
        step(torch.ones(3)).sum().item()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collecting)
    assert threads
    plain, other, _ = make()
    other.copy_(w)
    for k in range(CALLS):
        x = torch.full((3,), float(k))
        assert shown(w) == shown(other)
        versions = w._version, other._version
        assert shown([step(x), w]) == shown([plain(x), other])
        assert w._version - versions[0] == other._version - versions[1]
        w.add_(k)
        other.add_(k)


FLAGS: dict[str, Callable[[Any, Any], Any]] = {
    "detached in place": lambda w, x: (w * x, w.detach_())[0],
    "frozen": lambda w, x: (w * x, w.requires_grad_(False))[0],
    "frozen by attribute": lambda w, x: (w * x, setattr(w, "requires_grad", False))[0],
    "frozen and thawed": lambda w, x: (w.requires_grad_(False), w * x, w.requires_grad_(True))[1],
    "a result detached": lambda w, x: (w * x).detach_(),
    "detached twice": lambda w, x: (w.detach() * x).detach_() * w,
}


@pytest.mark.parametrize("name", FLAGS)
def test_changes_of_whether_a_gradient_is_required_happen_in_every_call(name: str) -> None:
    runs = []
    warnings.simplefilter("ignore", RuntimeWarning)
    for compiled in (False, True):
        w, x = torch.ones(3, requires_grad=True), torch.arange(3.0)
        f = functools.partial(FLAGS[name], w)
        step = torch.compile(lambda x, f=f: f(x)) if compiled else f
        seen = []
        for k in range(5):
            y = step(x)
            seen.append((y.requires_grad, w.requires_grad, y.tolist()))
            if k == 2:
                w.requires_grad_(True)
        runs.append(seen)
    assert runs[0] == runs[1]
