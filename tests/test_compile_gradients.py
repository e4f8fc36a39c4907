"""Gradients in compiled functions: how a step leaves them, and what stands there when it is called again.

Every step runs in PyTorch, plain and compiled, with the same changes between the calls; after each call all that can be seen is
compared, and which handles are one tensor, and what a write through each of them changes.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad

CALLS = 13


def state(T: Any) -> Any:
    """What the steps know: two parameters, a buffer of one's shape, a larger one, and a name that others are put under."""
    a = types.SimpleNamespace(T=T, w=T.nn.Parameter(T.ones(2, 2)), v=T.nn.Parameter(T.ones(2)))
    a.buffer, a.flat, a.sums = T.zeros(2, 2), T.zeros(6), T.zeros(4)
    a.other = a.buffer
    return a


def loss(a: Any, x: Any) -> Any:
    return ((a.w * a.v) @ x).sum()


def begin(a: Any, x: Any) -> None:
    a.w.grad = a.v.grad = None
    loss(a, x).backward()


def a_buffer(a: Any, x: Any) -> None:
    begin(a, x)
    a.buffer.copy_(a.w.grad)
    a.w.grad = a.buffer


def only_a_buffer(a: Any, x: Any) -> None:
    a.buffer.add_(1)
    a.w.grad = a.buffer


def a_view_of_a_buffer(a: Any, x: Any) -> Any:
    a.w.grad = a.flat[1:5].view(2, 2)
    a.flat.add_(1)
    return a.flat.sum()


def views_of_a_result(a: Any, x: Any) -> Any:
    begin(a, x)
    g = a.T.cat([p.grad.reshape(-1) for p in (a.w, a.v)])
    a.w.grad, a.v.grad = g[:4].view(2, 2), g[4:]
    g.mul_(2)


def views_of_what_is_returned(a: Any, x: Any) -> Any:
    gw, gv = a.T.autograd.grad(loss(a, x), [a.w, a.v])
    g = a.T.cat([gw.reshape(-1), gv])
    a.w.grad, a.v.grad = g[:4].view_as(a.w), g[4:]
    return g / 2, g


def the_argument(a: Any, x: Any) -> Any:
    a.v.grad = x
    return x * 2


def a_result_that_is_returned(a: Any, x: Any) -> Any:
    g = x * 2
    a.v.grad = g
    return g, g[:1]


def one_for_two(a: Any, x: Any) -> None:
    g = x * 3
    a.v.grad = g
    a.w.grad = g[None] + a.w.detach()
    a.v.grad = a.w.grad[0]


def viewed(a: Any, x: Any) -> None:
    begin(a, x)
    a.sums.copy_(a.w.grad.view(-1))


def views_are_returned(a: Any, x: Any) -> Any:
    begin(a, x)
    return a.w.grad.view(-1), a.w.grad[0], a.w.grad


def written_through_views(a: Any, x: Any) -> None:
    begin(a, x)
    a.w.grad[0].zero_()
    a.w.grad.view(-1)[3] = 7.0


def rows_are_scaled(a: Any, x: Any) -> Any:
    begin(a, x)
    for row in a.w.grad:
        row.div_(row.norm() + 1)
    return a.w.grad


def all_are_scaled(a: Any, x: Any) -> Any:
    begin(a, x)
    norm = a.T.cat([p.grad.flatten() for p in (a.w, a.v)]).norm()
    for p in (a.w, a.v):
        p.grad.mul_(1 / (1 + norm))
    return norm


def written_detached(a: Any, x: Any) -> None:
    begin(a, x)
    a.sums.copy_(a.w.grad.detach().reshape(-1))
    a.w.grad.detach().mul_(3)
    a.w.grad.data.add_(1)


def transposed(a: Any, x: Any) -> None:
    begin(a, x)
    a.w.grad, a.v.grad = a.w.grad.t(), a.v.grad[:]


def accumulated(a: Any, x: Any) -> Any:
    loss(a, x).backward()
    return a.w.grad, a.v.grad


def accumulated_and_viewed(a: Any, x: Any) -> Any:
    loss(a, x).backward()
    a.sums.add_(a.w.grad.view(-1))
    a.w.grad.view(-1).mul_(0.5)
    return a.w.grad.view(-1), a.w.grad[0]


def added_to_the_old_one(a: Any, x: Any) -> Any:
    old = a.w.grad
    begin(a, x)
    if old is not None:
        a.w.grad.add_(old, alpha=0.5)
    return old


def the_old_one_again(a: Any, x: Any) -> Any:
    old = a.w.grad
    begin(a, x)
    new, a.w.grad = a.w.grad, old
    return new, old


def a_view_of_the_old_one(a: Any, x: Any) -> Any:
    if a.v.grad is None:
        loss(a, x).backward()
    a.v.grad = a.v.grad.view(2, 1).mul_(0.5).view(-1)
    return a.v.grad


def exchanged(a: Any, x: Any) -> None:
    first = a.w.grad
    if first is not None:
        a.v.grad = first[0]
    a.w.grad = a.buffer if first is None else first.t()


def zeroed(a: Any, x: Any) -> Any:
    for p in (a.w, a.v):
        if p.grad is not None:
            p.grad.detach_()
            p.grad.zero_()
    loss(a, x).backward()
    return a.w.grad.view(-1)[1]


def taken_away(a: Any, x: Any) -> Any:
    loss(a, x).backward()
    g, a.w.grad = a.w.grad, None
    return g.view(-1), g


def beside_a_write(a: Any, x: Any) -> Any:
    loss(a, x).backward()
    a.buffer.add_(1)
    a.flat.mul_(2)
    return a.w.grad * 2 + a.buffer, a.flat.sum(), a.other + 1


def beside_a_write_to_the_argument(a: Any, x: Any) -> Any:
    loss(a, x).backward()
    x.add_(1)
    return a.v.grad * x


def of_one_tensor_or_two(a: Any, x: Any) -> Any:
    if a.w.grad is a.buffer:
        return x * 3
    if a.w.grad is a.other:
        return x * 4
    return x * 2 if a.w.grad is None else x * 1


STEPS: list[Callable[[Any, Any], Any]] = [
    a_buffer, only_a_buffer, a_view_of_a_buffer, views_of_a_result, views_of_what_is_returned, the_argument, a_result_that_is_returned,
    one_for_two, viewed, views_are_returned, written_through_views, rows_are_scaled, all_are_scaled, written_detached, transposed,
    accumulated, accumulated_and_viewed, added_to_the_old_one, the_old_one_again, a_view_of_the_old_one, exchanged, zeroed, taken_away,
    beside_a_write, beside_a_write_to_the_argument, of_one_tensor_or_two,
]  # fmt: skip


def no_change(a: Any, x: Any, k: int) -> None:
    pass


def forgotten(a: Any, x: Any, k: int) -> None:
    if k % 3 == 0:
        a.w.grad = None


def new_ones(a: Any, x: Any, k: int) -> None:
    a.w.grad, a.v.grad = a.T.full((2, 2), float(k)), a.T.full((2,), -float(k))


def a_step(a: Any, x: Any, k: int) -> None:
    with a.T.no_grad():
        for p in (a.w, a.v):
            if p.grad is not None:
                p.sub_(0.1 * p.grad)
                p.grad.mul_(0.5)


def what_is_known(a: Any, x: Any, k: int) -> None:
    a.w.grad = [a.buffer, a.flat[1:5].view(2, 2), a.T.ones(2, 2), a.flat[2:].view(2, 2), a.buffer.t()][k % 5]
    a.v.grad = [a.buffer[0], x, a.w.grad[1], a.flat[:2], None][k % 5]


def each_other(a: Any, x: Any, k: int) -> None:
    g = a.T.full((7,), 0.5)
    a.w.grad = g[k % 3 : k % 3 + 4].view(2, 2)
    a.v.grad = g[5:] if k % 2 else g[1:3]


def the_other(a: Any, x: Any, k: int) -> None:
    a.other = [a.buffer, a.T.ones(2, 2)][k % 2]
    if k % 4 > 1:
        a.w.grad = a.other


CHANGES = [no_change, forgotten, new_ones, a_step, what_is_known, each_other, the_other]


def flat(value: Any) -> list[Any]:
    return [t for v in value for t in flat(v)] if isinstance(value, tuple) else [value]


def shown(handles: list[Any]) -> list[Any]:
    return [None if t is None else t.tolist() for t in handles]


def run(T: Any, step: Any, change: Any, compiled: bool) -> list[Any]:
    a = state(T)
    call = T.compile(lambda x: step(a, x)) if compiled else lambda x: step(a, x)
    seen: list[Any] = []
    x = T.tensor([2.0, 3.0])
    for k in range(CALLS):
        try:
            answer = call(x)
        except RuntimeError as error:
            assert not isinstance(error, fastgrad.compiled.CompileError), error
            answer = None
        handles = [a.w, a.v, a.buffer, a.flat, a.sums, a.other, x, a.w.grad, a.v.grad, *flat(answer)]
        seen.append(shown(handles))
        seen.append([next(i for i, h in enumerate(handles) if h is t) for t in handles])
        for n, t in enumerate(handles):
            if t is not None:
                t.detach().mul_(1 + (n + 1) / 64)
                seen.append(shown(handles))
        with T.no_grad():
            for p in (a.w, a.v, a.buffer, a.flat):
                p.fill_(1 + k / 4)
        x = T.tensor([2.0 + k / 2, 3.0]) if k % 3 else x.clone()
        change(a, x, k)
    return seen


def check(runs: list[list[Any]]) -> None:
    for k, (plain, compiled, theirs) in enumerate(zip(*runs, strict=True)):
        assert plain == compiled, f"compiled, look {k}"
        assert len(plain) == len(theirs)
        assert _close(plain, theirs), f"look {k}"


def _close(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, list):
        return len(mine) == len(theirs) and all(_close(x, y) for x, y in zip(mine, theirs, strict=True))
    return bool(mine == theirs or mine == pytest.approx(theirs, rel=1e-5, abs=1e-6))


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", STEPS, ids=lambda f: f.__name__)
def test_gradients_are_left_as_by_the_function_itself(step: Any, change: Any) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "grad and param do not obey")
        check([run(fastgrad, step, change, False), run(fastgrad, step, change, True), run(torch, step, change, False)])


# ------------------------------------------------------------------------------------------------ an optimizer's lists


def more_parameters(T: Any, optimizer: Any, others: list[Any], k: int) -> None:
    """Add to, take from and exchange an optimizer's groups and their parameters, with options of their own."""
    groups = optimizer.param_groups
    if k == 2:
        optimizer.add_param_group({"params": [others[0]], "lr": 0.01})
    elif k == 4:
        groups[0]["params"].append(others[1])
    elif k == 6:
        groups[0]["params"].pop(0)
    elif k == 8:
        groups.reverse()
    elif k == 10:
        del groups[0]
    elif k == 11:
        groups[0]["params"] = [others[2]]
    elif k == 12:
        optimizer.param_groups = [{**groups[0], "params": list(others), "lr": 0.5}]


def trained(T: Any, name: str, whole: bool, compiled: bool) -> list[Any]:
    ws = [T.full((2,), 1.0 + k, requires_grad=True) for k in range(5)]
    optimizer = getattr(T.optim, name)(ws[:2], lr=0.1)

    def walk(x: Any) -> None:
        y = x
        for w in ws:
            y = y * w
        y.sum().backward()

    def train(x: Any) -> None:
        optimizer.zero_grad()
        walk(x)
        optimizer.step()

    parts = [train] if whole else [lambda x: optimizer.zero_grad(), walk, lambda x: optimizer.step()]
    calls = [T.compile(f) if compiled else f for f in parts]
    x, seen = T.tensor([0.01, 0.02]), []
    for k in range(16):
        more_parameters(T, optimizer, ws[2:], k)
        for call in calls:
            call(x)
        seen.append(shown([*ws, *[w.grad for w in ws]]))
    return seen


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_an_optimizer_goes_through_its_lists_as_they_are(name: str, whole: bool) -> None:
    torch = pytest.importorskip("torch")
    kinds = [(fastgrad, False), (fastgrad, True), (torch, False)]
    check([trained(T, name, whole, compiled) for T, compiled in kinds])


# --------------------------------------------------------------------------------------------------------------- hooks


def for_one_walk(a: Any, x: Any) -> None:
    handles = [
        a.v.register_hook(lambda g: g * a.k),
        a.w.register_post_accumulate_grad_hook(lambda p: [p.grad.mul_(a.k), None][1]),
    ]
    begin(a, x)
    for handle in handles:
        handle.remove()


def of_a_result(a: Any, x: Any) -> Any:
    a.w.grad = a.v.grad = None
    y = a.w * a.v
    y.register_hook(lambda g: g * a.k)
    y.sum().backward(retain_graph=True)
    (y @ x).sum().backward()
    return a.w.grad


def two_walks(a: Any, x: Any) -> Any:
    begin(a, x)
    return a.T.autograd.grad(loss(a, x) * a.k, [a.w, a.v])


def that_stays(a: Any, x: Any) -> None:
    begin(a, x)
    a.v.register_hook(lambda g: g * 0.5)


def that_was_there(a: Any, x: Any) -> None:
    a.handles.pop().remove()
    begin(a, x)
    a.handles.append(a.w.register_hook(lambda g: g + a.k))


def hooked(T: Any, step: Any, compiled: bool) -> list[Any]:
    a = state(T)
    a.handles, a.k = [], 1.0
    call = T.compile(lambda x: step(a, x)) if compiled else lambda x: step(a, x)
    seen: list[Any] = []
    for k in range(CALLS):
        a.k = 1.0 + k / 4
        if not a.handles or k % 3 == 0:
            hook = [lambda g: g * 2, lambda g: g * a.k, lambda g: g.clamp(-1, 1)][k % 3]
            a.handles.append([a.w, a.v][k % 2].register_hook(hook))
        elif k % 3 == 1:
            a.handles.pop().remove()
            after = a.w.register_post_accumulate_grad_hook(lambda p: [p.grad.add_(a.k), None][1])
            a.handles.append(after)
        elif k == 5:
            a.handles.pop(0).remove()
        if not a.handles:
            a.handles.append(a.v.register_hook(lambda g: None))
        answer = call(T.tensor([2.0, 3.0 + k]))
        seen.append(shown([a.w, a.v, a.w.grad, a.v.grad, *flat(answer)]))
    return seen


HOOKED = [begin, for_one_walk, of_a_result, two_walks, that_stays, that_was_there, accumulated, viewed]


@pytest.mark.parametrize("step", HOOKED, ids=lambda f: f.__name__)
def test_hooks_are_those_that_are_there(step: Any) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*runs its Python", RuntimeWarning)
        check([hooked(fastgrad, step, False), hooked(fastgrad, step, True), hooked(torch, step, False)])


def parts_of_one_result(a: Any, x: Any) -> None:
    gradients = a.T.autograd.grad(loss(a, x), [a.w, a.v])
    together = a.T.cat([g.reshape(-1) for g in gradients])
    for p, g in zip((a.w, a.v), together.split([4, 2]), strict=True):
        p.grad = g.view_as(p)
    a.w.grad.copy_(a.w.data)
    for p in (a.w, a.v):
        p.grad *= 0.5


def a_parameter_of_a_result(a: Any, x: Any) -> Any:
    a.sums.add_(1)
    q = a.T.nn.Parameter(x * a.sums[:2])
    q.requires_grad_()
    (q * q).sum().backward()
    a.sums.view(-1)[np.array([2])] = 2.0
    return q.grad


def a_parameter_of_numbers(a: Any, x: Any) -> Any:
    a.sums.add_(1)
    q = a.T.nn.Parameter(a.T.tensor([1.5, 0.25]))
    q.requires_grad_()
    a.sums.view(-1)[np.array([2])] = 2.0
    return q, x + a.sums[1:3]


def a_layer(a: Any, x: Any) -> Any:
    a.sums.mul_(2)
    layer = a.T.nn.Linear(2, 1)
    layer.load_state_dict({"weight": a.w.detach()[:1] + a.sums[:2], "bias": x[:1]})
    layer(x).sum().backward()
    return layer.weight.grad, a.sums + 1


MADE = [parts_of_one_result, a_parameter_of_a_result, a_parameter_of_numbers, a_layer]


@pytest.mark.parametrize("change", [no_change, what_is_known], ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", MADE, ids=lambda f: f.__name__)
def test_leaves_that_a_function_makes_are_made_by_every_call(step: Any, change: Any) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*runs its Python", RuntimeWarning)
        check([run(fastgrad, step, change, False), run(fastgrad, step, change, True), run(torch, step, change, False)])


def test_hooks_of_other_tensors_leave_what_was_recorded() -> None:
    w, v = fastgrad.ones(2, requires_grad=True), fastgrad.ones(2, requires_grad=True)

    @fastgrad.compile
    def step(x: Any) -> None:
        w.grad = None
        handle = w.register_hook(lambda g: g * 2)
        (w * x).sum().backward()
        handle.remove()

    for _ in range(4):
        step(fastgrad.ones(2))
        v.register_hook(lambda g: g).remove()
    assert step.replays == 1 and w.grad.tolist() == [2, 2]
