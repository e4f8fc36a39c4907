"""Hooks and kept gradients: generated programs call them in the order in which PyTorch does, with the same gradients."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import fastgrad

ERRORS = (RuntimeError, KeyError, TypeError)
MODIFIED = "modified by an inplace operation"


def numbers(t: Any) -> Any:
    """A tensor's values, rounded; None where there is none."""
    return None if t is None else [round(x, 5) for x in t.detach().reshape(-1).tolist()]


def program(T: Any, seed: int) -> list[Any]:
    """Run the program of a seed; what it saw."""
    rng, log = random.Random(seed), []  # type: ignore[var-annotated]
    leaves = [
        T.tensor([rng.uniform(0.5, 1.5) for _ in range(3)], dtype=T.float64, requires_grad=True) for _ in range(2)
    ]
    alive, handles = list(leaves), []  # type: ignore[var-annotated]
    calls: dict[
        int, list[Any]
    ] = {}  # of each tensor's hooks in this statement: whose turn is first is the libraries' own affair
    counter = iter(range(1000))

    def step(statement: Callable[[], Any]) -> None:
        calls.clear()
        try:
            statement()
            log.extend(sorted(calls.items()))
        except ERRORS as error:
            log.append(MODIFIED if MODIFIED in str(error) else type(error).__name__)
            if statement in (back, back_to_some, grad):  # how far it came, too
                for t in leaves:
                    t.grad = None
                del alive[len(leaves) :]

    def calculate() -> None:
        a, b = rng.choice(alive), rng.choice(alive)
        made = rng.choice(
            [lambda: a + b, lambda: a * b, lambda: a * 2, lambda: a[0:3], lambda: a.sin(), lambda: a * 1]
        )()
        if rng.random() < 0.3:
            made.tolist()
        alive.append(made)

    def write() -> None:
        t = rng.choice(alive)
        rng.choice([lambda: t.add_(0.5), lambda: t.mul_(2.0), lambda: t.add_(alive[0])])()

    def hook(make: Callable[[int], Callable[[Any], Any]], register: str = "register_hook") -> Callable[[], None]:
        def statement() -> None:
            place, name = rng.randrange(len(alive)), next(counter)
            number[0] = place
            handle = getattr(alive[place], register)(make(name))
            handles.append(handle)
            of.setdefault(place, []).append(handle)

        return statement

    number, of = [0], {}  # type: ignore[var-annotated]

    def noter() -> Callable[[Any], None]:
        place = number[0]
        return lambda what: calls.setdefault(place, []).append(what)

    def observes(name: int) -> Callable[[Any], Any]:
        note = noter()
        return lambda g: note((name, numbers(g), g.requires_grad))

    def scales(name: int) -> Callable[[Any], Any]:
        note = noter()
        return lambda g: (note((name, "scales")), g * 2)[1]

    def removes(name: int) -> Callable[[Any], Any]:
        victim, place, note = rng.randint(0, 3), number[0], noter()

        def call(g: Any) -> None:
            note((name, "removes"))
            of[place][min(victim, len(of[place]) - 1)].remove()

        return call

    def removes_itself(name: int) -> Callable[[Any], Any]:
        own, place, note = len(of.get(number[0], ())), number[0], noter()

        def call(g: Any) -> None:
            note((name, "removes itself"))
            of[place][own].remove()

        return call

    def forgets(name: int) -> Callable[[Any], Any]:
        note = noter()

        def call(p: Any) -> None:
            note((name, "after", numbers(p.grad)))
            p.grad = None

        return call

    def notes(name: int) -> Callable[[Any], Any]:
        note = noter()
        return lambda p: note((name, "after", numbers(p.grad)))

    def remove() -> None:
        if handles:
            rng.choice(handles).remove()

    def keep() -> None:
        t = rng.choice(alive)
        t.retain_grad()
        log.append(("keeps", t.retains_grad))

    def root() -> Any:
        t = rng.choice(alive[-3:])
        return (t * rng.choice(alive)).sum()

    def options() -> dict[str, Any]:
        return {"retain_graph": True}

    def back() -> None:
        root().backward(**options())

    def back_to_some() -> None:
        root().backward(inputs=rng.sample(leaves, 1), **options())

    def grad() -> None:
        found = T.autograd.grad(root(), leaves, create_graph=rng.random() < 0.4, allow_unused=True, **options())
        log.append(("found", [numbers(g) for g in found]))

    def look() -> None:
        log.append(("grads", [numbers(t.grad) for t in alive]))

    def forget() -> None:
        rng.choice(alive).grad = None

    statements = [
        *[calculate] * 6, *[write] * 2, *[keep] * 3, *[back] * 4, back_to_some, back_to_some, grad, grad, look, look, forget, remove,
        *[hook(observes)] * 3, hook(scales), hook(scales), hook(removes), hook(removes_itself),
        hook(forgets, "register_post_accumulate_grad_hook"), hook(notes, "register_post_accumulate_grad_hook"),
    ]  # fmt: skip
    for _ in range(rng.randint(8, 20)):
        step(rng.choice(statements))
        if log and log[-1] == MODIFIED:
            return log
    look()
    return log


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", range(6))
def test_generated_hooks_are_called_as_in_pytorch(block: int) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(40 * block, 40 * block + 40):
        mine, theirs = program(fastgrad, seed), program(torch, seed)
        if theirs and theirs[-1] == MODIFIED:  # fastgrad's own operations give the gradient of the value that was used
            mine, theirs = mine[: len(theirs) - 1], theirs[:-1]
        assert mine == theirs, seed


def doubled() -> tuple[Any, Any]:
    """A leaf and a tensor made of it."""
    w = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    return w, w * 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [(lambda g: g[:1], RuntimeError), (lambda g: g.double(), RuntimeError), (lambda g: 2.0, TypeError)],
)
def test_what_a_hook_returns_is_checked(answer: Any, error: type[Exception]) -> None:
    for which in (0, 1):
        pair = doubled()
        pair[which].register_hook(answer)
        with pytest.raises(error, match="hook"):
            pair[1].sum().backward()
        w, _ = doubled()
        (w * 3).sum().backward()
        assert w.grad.tolist() == [3, 3]


def test_reading_the_gradient_of_a_tensor_that_gets_none_warns() -> None:
    w, h = doubled()
    with pytest.warns(UserWarning, match="not a leaf Tensor is being accessed"):
        assert h.grad is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert w.grad is None and fastgrad.ones(1).grad is None
        h.retain_grad()
        assert h.grad is None
        h.sum().backward()
        assert h.grad.tolist() == [1, 1] and h.detach().grad is None


def test_a_kept_gradient_goes_with_the_value_and_hooks_stay() -> None:
    w, h = doubled()
    seen = []
    h.register_hook(lambda g: seen.append(g.tolist()))
    h.retain_grad()
    h.mul_(3)
    assert h.retains_grad
    h.sum().backward()
    assert h.grad.tolist() == [1, 1] and seen == [[3, 3]] and w.grad.tolist() == [6, 6]


def test_a_hook_belongs_to_one_tensor_whatever_is_recorded_next() -> None:
    w = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    for k in range(4):
        first = w * 2
        first.tolist()
        second = (w * 2).sum()
        second.item()
        first.register_hook(lambda g, k=k: seen.append((k, g.tolist())))
        second.backward()
        assert seen == []
        first.sum().backward()
        assert seen == [(k, [1.0, 1.0])]
        seen.clear()


def test_inputs_limit_what_is_called_and_what_is_given_up() -> None:
    a, b = (fastgrad.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    seen = []
    x, y = a.exp(), b.exp()
    x.register_hook(lambda g: seen.append("x"))
    y.register_hook(lambda g: seen.append("y"))
    (x * y).sum().backward(inputs=[b])
    assert seen == ["y"] and a.grad is None
    x.sum().backward()
    assert seen == ["y", "x"] and a.grad is not None


def test_backward_into_a_tensor_that_is_no_leaf_keeps_its_gradient() -> None:
    w, h = doubled()
    h.sum().backward(inputs=[h], retain_graph=True)
    assert h.retains_grad and h.grad.tolist() == [1, 1] and w.grad is None
    held = h.grad
    h.sum().backward()
    assert held.tolist() == [1, 1] and h.grad.tolist() == [2, 2] and w.grad.tolist() == [2, 2]


def test_a_handle_is_a_context() -> None:
    w, h = doubled()
    with h.register_hook(lambda g: g * 10):
        h.sum().backward(retain_graph=True)
    h.sum().backward()
    assert w.grad.tolist() == [22, 22]


def test_a_view_written_outside_of_any_gradient_keeps_its_gradient_when_asked() -> None:
    x = fastgrad.tensor(2.0, requires_grad=True)
    v = x.unsqueeze(0)
    with fastgrad.no_grad():
        v[0][...] -= 1
    v.retain_grad()
    assert v.retains_grad
    (v * 3).sum().backward()
    assert v.grad is not None
    assert (v.grad.tolist(), v.item()) == ([3.0], 1.0)
