"""Stretches of a program that repeat become counted loops, which compute the same bits with as many records as one iteration.

Tier 0 executes the tape as it is: it is the reference of all tests here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_bits

import fastgrad as torch
from fastgrad import execute
from fastgrad import recording as tape
from fastgrad.plan import periods

Step = Callable[[int], list[Any]]
RNG = np.random.default_rng(5)


def data(*shape: int, dtype: str = "float64", grad: bool = False) -> Any:
    return torch.tensor(RNG.uniform(-1, 1, shape).astype(dtype), requires_grad=grad)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The programs that have been planned."""
    made: list[Any] = []
    for module in (execute, torch.replaying):
        original = module.plan

        def plan(*args: Any, original: Any = original, **options: Any) -> Any:
            made.append(original(*args, **options))
            return made[-1]

        monkeypatch.setattr(module, "plan", plan)
    return made


# ---- loops as users write them; each takes the number of iterations and returns what is to be compared


def runge_kutta(n: int, shape: tuple[int, ...] = ()) -> list[Any]:
    p = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 0.5, 0.12, 0.35)]
    x, y = torch.full(shape, 1.0, dtype=torch.float64), torch.full(shape, 0.5, dtype=torch.float64)
    h = 0.05

    def slope(x: Any, y: Any) -> tuple[Any, Any]:
        return p[0] * x - p[1] * x * y, p[2] * x * y - p[3] * y

    loss = 0.0
    for i in range(n):
        k1, l1 = slope(x, y)
        k2, l2 = slope(x + h / 2 * k1, y + h / 2 * l1)
        k3, l3 = slope(x + h / 2 * k2, y + h / 2 * l2)
        k4, l4 = slope(x + h * k3, y + h * l3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        y = y + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
        loss = loss + ((x - 0.1 * i) * (x - 0.1 * i)).sum() + ((y - 0.2 * i) * (y - 0.2 * i)).sum()
    loss.backward()
    return [loss, x, y, *[v.grad for v in p]]


def runge_kutta_of_vectors(n: int) -> list[Any]:
    return runge_kutta(n, (5,))


def recurrent(n: int) -> list[Any]:
    rng = np.random.default_rng(0)
    w, u, b = (
        torch.tensor(rng.normal(0, 0.3, s).astype("float32"), requires_grad=True) for s in ((4, 6), (6, 6), (6,))
    )
    xs = torch.tensor(rng.normal(0, 1, (n, 3, 4)).astype("float32"))
    h = torch.zeros(3, 6)
    for t in range(n):
        h = torch.tanh(xs[t] @ w + h @ u + b)
    loss = (h * h).mean()
    loss.backward()
    return [loss, h, w.grad, u.grad, b.grad]


def recurrent_in_reverse(n: int) -> list[Any]:
    rng = np.random.default_rng(1)
    w = torch.tensor(rng.normal(0, 0.3, (4, 4)), requires_grad=True)
    xs = torch.tensor(rng.normal(0, 1, (n, 4)), requires_grad=True)
    h = torch.zeros(4, dtype=torch.float64)
    for t in reversed(range(n)):
        h = torch.sin(w @ h + xs[t])
    h.sum().backward()
    return [h, w.grad, xs.grad]


def accumulation(n: int) -> list[Any]:
    rng = np.random.default_rng(2)
    w = torch.tensor(rng.normal(0, 0.3, (5, 2)), requires_grad=True)
    batches = [(torch.tensor(rng.normal(0, 1, (7, 5))), torch.tensor(rng.normal(0, 1, (7, 2)))) for _ in range(n)]
    total = 0.0
    for x, y in batches:
        loss = ((x @ w - y) ** 2).mean() / n
        loss.backward()
        total = total + loss.detach()
    return [total, w.grad]


def newton(n: int) -> list[Any]:
    a = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)
    x = a * 0.5
    for _ in range(n):
        x = x - (x * x - a) / (2 * x)
    x.sum().backward()
    return [x, a.grad]


def power_iteration(n: int) -> list[Any]:
    rng = np.random.default_rng(3)
    m = torch.tensor(rng.normal(0, 1, (6, 6)), requires_grad=True)
    v = torch.ones(6, dtype=torch.float64)
    for _ in range(n):
        v = m @ v
        v = v / (v * v).sum().sqrt()
    value = (v * (m @ v)).sum()
    value.backward()
    return [value, m.grad]


def two_steps_back(n: int) -> list[Any]:
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x, f1, f2 = torch.tensor(1.0, dtype=torch.float64), 0.5 * a, 0.25 * a
    for _ in range(n):
        f0 = torch.sin(x) * a
        x = x + 0.1 * (1.5 * f0 - 0.4 * f1 - 0.1 * f2)
        f1, f2 = f0, f1
    x.backward()
    return [x, a.grad]


def swap(n: int) -> list[Any]:
    a = torch.tensor(0.3, dtype=torch.float64)
    x, y = a * 1.0, a * 2.0
    for _ in range(n):
        x, y = y * a + torch.sin(x), x * a + torch.cos(y)
        x = x * a
        y = y * a - 0.5
    return [x, y]


def inner_loops(n: int) -> list[Any]:
    a = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
    x = a * 2
    total = 0.0
    for i in range(n):
        for _ in range(7):
            x = torch.sin(x) * a + 0.1
        total = total + (x * (i + 0.5)).sum()
        x = x * 1.5
    total.backward()
    return [total, a.grad]


def all_states(n: int) -> list[Any]:
    a = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
    x, states = a * 2, []
    for _ in range(n):
        x = torch.cos(x * a) + torch.sin(x) * 0.25
        states.append(x)
    out = torch.stack(states)
    (out * out).sum().backward()
    return [out, *states[::3], a.grad]


def descent(n: int) -> list[Any]:
    rng = np.random.default_rng(4)
    x, y = torch.tensor(rng.normal(0, 1, (8, 3))), torch.tensor(rng.normal(0, 1, (8, 1)))
    w = torch.tensor(rng.normal(0, 1, (3, 1)), requires_grad=True)
    for _ in range(n):
        loss = ((x @ w - y) ** 2).mean()
        (g,) = torch.autograd.grad(loss, w)
        w = (w - 0.1 * g).detach().requires_grad_()
    return [loss, w]


def unrolled_descent(n: int) -> list[Any]:
    rng = np.random.default_rng(4)
    x, y = torch.tensor(rng.normal(0, 1, (8, 3))), torch.tensor(rng.normal(0, 1, (8, 1)))
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    w = torch.tensor(rng.normal(0, 1, (3, 1)), requires_grad=True)
    v = w * 1.0
    for _ in range(n):
        (g,) = torch.autograd.grad(((x @ v - y) ** 2).mean(), v, create_graph=True)
        v = v - rate * g
    ((x @ v - y) ** 2).mean().backward()
    return [v, w.grad, rate.grad]


def wide(n: int) -> list[Any]:
    rng = np.random.default_rng(6)
    w = torch.tensor(rng.normal(0, 0.2, (40, 40)).astype("float32"), requires_grad=True)
    h = torch.tensor(rng.normal(0, 1, (50, 40)).astype("float32"))
    for _ in range(n):
        h = torch.tanh(h @ w) * 1.1 + torch.sigmoid(h)
    h.sum().backward()
    return [h, w.grad]


def gathers(n: int) -> list[Any]:
    table = torch.tensor(np.random.default_rng(7).normal(0, 1, (9, 3)), requires_grad=True)
    index = torch.tensor([1, 4, 4, 8])
    h = torch.zeros(4, 3, dtype=torch.float64)
    for _ in range(n):
        h = torch.tanh(h + table[index]) * 0.5
    h.sum().backward()
    return [h, table.grad]


def random_numbers(n: int) -> list[Any]:
    torch.manual_seed(3)
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = a * 1.0
    for _ in range(n):
        x = x * 0.9 + a * torch.randn(3, dtype=torch.float64)
    x.sum().backward()
    return [x, a.grad]


def in_place(n: int) -> list[Any]:
    w = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for i in range(n):
        w -= 0.1 * torch.sin(w) + 0.01 * i
        w[1] *= 0.5
    return [w]


def rows_written(n: int) -> list[Any]:
    out = torch.zeros(n, 3, dtype=torch.float64)
    x = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    v = x * 1.0
    for i in range(n):
        v = torch.sin(v) + x
        out[i] = v
    (out * out).sum().backward()
    return [out, x.grad]


def lists_of_parameters(n: int) -> list[Any]:
    rng = np.random.default_rng(8)
    layers = [torch.tensor(rng.normal(0, 0.4, (5, 5)), requires_grad=True) for _ in range(n)]
    h = torch.tensor(rng.normal(0, 1, (2, 5)))
    for w in layers:
        h = torch.tanh(h @ w)
    h.sum().backward()
    return [h, *[w.grad for w in layers]]


LOOPS: list[Step] = [
    runge_kutta, runge_kutta_of_vectors, recurrent, recurrent_in_reverse, accumulation, newton, power_iteration,
    two_steps_back, swap, inner_loops, all_states, descent, unrolled_descent, wide, gathers, random_numbers, in_place,
    rows_written, lists_of_parameters,
]  # fmt: skip


def values(step: Step, n: int, tier: int) -> list[Any]:
    torch.set_tier(tier)
    return [torch.tensor(np.array(x.detach().numpy())) for x in step(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 12, 30])
@pytest.mark.parametrize("step", LOOPS, ids=lambda f: f.__name__)
def test_loops_give_the_bits_of_the_tape(step: Step, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "GAIN", 1)
    for expected, got in zip(values(step, n, 0), values(step, n, 1), strict=True):
        assert same_bits(expected, got)


def fitted(x: Any, scale: float, n: int) -> Any:
    """Value, and gradient by x, of a loop over a number that changes from call to call."""
    y = x * scale
    for i in range(n):
        y = torch.sin(y) * x + scale * 0.5 + 0.01 * i
    loss = (y * y).sum()
    loss.backward()
    return loss


@pytest.mark.parametrize("n", [2, 5, 6, 17])
def test_compiled_loops_give_the_bits_of_the_tape(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "GAIN", 1)
    start = RNG.normal(0, 1, 4)
    results = []
    for tier in (0, 1):
        torch.set_tier(tier)
        x = torch.tensor(start, requires_grad=True)
        step = torch.compile(lambda x, scale: fitted(x, scale, n))
        found = []
        for i in range(4):
            x.grad = None
            found += [step(x, 0.5 + i).detach().clone(), x.grad.clone()]
        results.append(found)
    for expected, got in zip(*results, strict=True):
        assert same_bits(expected, got)


# ---- that they are loops


ROLLED = [
    runge_kutta, runge_kutta_of_vectors, recurrent, recurrent_in_reverse, accumulation, newton, power_iteration,
    two_steps_back, swap, inner_loops, wide, gathers, random_numbers, in_place,
]  # fmt: skip


@pytest.mark.parametrize("step", ROLLED, ids=lambda f: f.__name__)
def test_records_do_not_grow_with_the_number_of_iterations(
    step: Step, plans: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tape.local.trace, "limit", 1 << 20)
    counts = []
    for n in (14, 44):
        plans.clear()
        values(step, n, 1)
        assert sum([times for program in plans for _, times, _ in program.rolled]) > n / 2
        counts.append(max(program.count for program in plans))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("step", ROLLED, ids=lambda f: f.__name__)
def test_tier_0_rolls_nothing(step: Step, plans: list[Any]) -> None:
    values(step, 14, 0)
    assert plans and not any(program.rolled for program in plans)


# ---- programs at random, and programs that only look as if they repeated


OPERATIONS = [
    "torch.sin({a})", "{a} + {b}", "{a} * {b}", "{a} - {b} * 0.5", "torch.tanh({a}) * k", "{a} * (0.25 + 0.01 * i)",
    "torch.where({a} > {b}, {a}, {b})", "{a} * {b}.sum() * 0.1", "{a} + rows[i]", "{a} * rows[n - 1 - i]", "(m @ {a}) * 0.3",
    "{a}.flip(0)", "{a} + late[i]", "{a} * p", "torch.cat([{a}[1:], {b}[:1]])", "{a} - {a}.mean()", "{a} * float(i % 3)",
]  # fmt: skip


def body_at_random(rng: random.Random) -> str:
    """The source of a loop over values of three elements: `h0`, `h1`, `h2` are carried, `t*` are made in an iteration."""
    carried = [f"h{j}" for j in range(rng.randint(1, 3))]
    lines, known = [], [*carried, "p"]
    for j in range(rng.randint(1, 7)):
        expression = rng.choice(OPERATIONS).format(a=rng.choice(known), b=rng.choice(known))
        lines.append(f"t{j} = {expression}")
        known.append(f"t{j}")
    rng.shuffle(carried)
    for name in carried:
        lines.append(f"{name} = {rng.choice(known)} * {rng.choice(['0.5', 'k', 'p'])}")
    if rng.random() < 0.3:
        lines.append("total = total + t0.sum()")
    if rng.random() < 0.3:
        lines.append("states.append(t0)")
    if rng.random() < 0.2:
        lines.append(f"out[i] = {rng.choice(known)}.detach()")
    odd = rng.choice(
        ["", "", "", "if i == odd: h0 = h0 + p", "if i != odd: h0 = torch.cos(h0)", "if i % 2: h0 = h0 - p"]
    )
    if odd:
        lines.insert(rng.randint(0, len(lines)), odd)
    return "for i in range(n):\n" + "".join(f"    {line}\n" for line in lines)


def run_at_random(seed: int, tier: int) -> list[Any]:
    rng = random.Random(seed)
    source, n = body_at_random(rng), rng.choice([2, 3, 4, 5, 6, 7, 9, 13, 21])
    data = np.random.default_rng(seed)
    torch.set_tier(tier)
    dtype = rng.choice(["float64", "float32"])

    def tensor(*shape: int, grad: bool = False) -> Any:
        return torch.tensor(data.uniform(-1, 1, shape).astype(dtype), requires_grad=grad)

    p, m = tensor(3, grad=True), tensor(3, 3, grad=rng.random() < 0.5)
    names: dict[str, Any] = {
        "torch": torch, "n": n, "p": p, "m": m, "k": 0.75, "odd": rng.randrange(n), "states": [],
        "rows": tensor(n, 3, grad=rng.random() < 0.5), "late": [tensor(3, grad=rng.random() < 0.5) for _ in range(n)],
        "total": tensor(), "out": tensor(n, 3), "h0": tensor(3), "h1": p * 0.5, "h2": tensor(3, grad=True) * 2,
    }  # fmt: skip
    exec(source, names)
    if rng.random() < 0.3:
        names["h0"].detach().numpy()  # the forward stretch runs by itself
    loss = sum([(names[h] * names[h]).sum() for h in ("h0", "h1", "h2")], names["total"])
    loss = loss + p.sum() + sum([s.sum() for s in names["states"]])
    loss.backward()
    wanted = [loss, names["h0"], names["out"], *names["states"][-2:], p.grad, m.grad, names["rows"].grad]
    wanted += [leaf.grad for leaf in names["late"]]
    return [torch.tensor(np.array(x.detach().numpy())) for x in wanted if x is not None]


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_loops_at_random_give_the_bits_of_the_tape(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "GAIN", 1)
    for seed in range(first, first + 10):
        source = body_at_random(random.Random(seed))
        expected, got = run_at_random(seed, 0), run_at_random(seed, 1)
        assert len(expected) == len(got)
        for left, right in zip(expected, got, strict=True):
            assert same_bits(left, right), f"seed {seed}\n{source}"


def test_most_loops_at_random_are_rolled(plans: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "GAIN", 1)
    rolled = 0
    for seed in range(1000, 1060):
        plans.clear()
        run_at_random(seed, 1)
        rolled += any(program.rolled for program in plans)
    assert rolled > 30


def other_positions(n: int) -> list[Any]:
    rows = data(n * n, 3, grad=True)
    x = data(3)
    for i in range(n):
        x = torch.sin(x) * 0.5 + rows[i * i]
    return [x]


def other_operations(n: int) -> list[Any]:
    x, rng = data(3), random.Random(3)
    for _ in range(n):
        x = rng.choice([torch.sin, torch.cos, torch.tanh, torch.exp])(x) * 0.5
    return [x]


def other_partners(n: int) -> list[Any]:
    values, rng = [data(3), data(3)], random.Random(4)
    for _ in range(n):
        values.append(torch.sin(values[-1]) * rng.choice(values))
    return [values[-1]]


def all_of_before(n: int) -> list[Any]:
    values = [data(3)]
    for i in range(n):
        values.append(torch.sin(values[-1]) * values[i // 2])
    return [values[-1]]


def other_shapes(n: int) -> list[Any]:
    x = data(2)
    for i in range(n):
        x = torch.cat([torch.sin(x) * 0.5, x[i : i + 1]])
    return [x]


NOT_LOOPS = [other_positions, other_operations, other_partners, all_of_before, other_shapes]


@pytest.mark.parametrize("step", NOT_LOOPS, ids=lambda f: f.__name__)
def test_what_does_not_repeat_stays_as_it_is(step: Step, plans: list[Any]) -> None:
    values(step, 13, 1)
    assert not any(program.rolled for program in plans)


@pytest.mark.parametrize("step", NOT_LOOPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("gain", [1, 32])
def test_what_does_not_repeat_has_the_same_bits(step: Step, gain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "GAIN", gain)
    results = []
    for tier in (0, 1):
        monkeypatch.setitem(globals(), "RNG", np.random.default_rng(5))
        results.append(values(step, 23, tier))
    for expected, got in zip(*results, strict=True):
        assert same_bits(expected, got)


# ---- what else must hold


def test_an_error_in_a_loop_names_the_line(plans: list[Any]) -> None:
    torch.set_tier(1)
    table, index = data(9, 3, grad=True), torch.tensor([1, 4])
    h = torch.zeros(2, 3, dtype=torch.float64)
    for i in range(20):
        h = torch.tanh(h + table[index + i])  # the line
    with pytest.raises(IndexError, match=r"index \d+ is out of bounds for dimension 0 with size 9") as caught:
        h.sum().item()
    assert any(program.rolled for program in plans)
    line = 1 + next(k for k, text in enumerate(Path(__file__).read_text().split("\n")) if text.endswith("# the line"))
    assert f"{__file__}:{line}" in str(caught.value)


def test_values_that_only_pass_through_are_not_stacked(plans: list[Any]) -> None:
    torch.set_tier(1)
    x, y = data(1000), data(1000)
    for _ in range(50):
        x, y = torch.sin(x) + y * 0.5, torch.cos(y) - x * 0.25
    assert torch.isfinite(x.sum() + y.sum())
    ((_, times, nbytes),) = [loop for program in plans for loop in program.rolled]
    assert times > 45
    assert nbytes <= 2 * 8064
    assert sum(program.arena_bytes for program in plans) < 20 * 8064


def test_memory_of_a_gradient_is_a_row_for_each_value_that_is_read_again(plans: list[Any]) -> None:
    torch.set_tier(1)
    a = data(1000, grad=True)
    x = a * 1.0
    for _ in range(50):
        x = torch.sin(x)
    x.sum().backward()
    assert torch.isfinite(a.grad).all()
    assert sum(nbytes for program in plans for _, _, nbytes in program.rolled) < 54 * 8064


def test_numbers_may_change_from_run_to_run(plans: list[Any]) -> None:
    def run(factor: float) -> list[Any]:
        x = torch.tensor([0.5, 0.25], dtype=torch.float64, requires_grad=True)
        y = x * 1.0
        for i in range(20):
            y = torch.sin(y * (factor + 0.01 * i)) + factor
        y.sum().backward()
        return [y, x.grad]

    torch.set_tier(1)
    got = [run(factor) for factor in (0.5, 0.75, -1.0)]
    for y, g in got:
        assert np.isfinite(y.detach().numpy()).all() and np.isfinite(g.numpy()).all()
    assert any(program.rolled for program in plans)
    torch.set_tier(0)
    for found, factor in zip(got, (0.5, 0.75, -1.0), strict=True):
        assert all(same_bits(a, b) for a, b in zip(found, run(factor), strict=True))


def test_a_backward_through_a_full_trace_makes_traces_longer(spent: Any) -> None:
    def step() -> Any:
        w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        x = w
        for _ in range(1500):
            x = torch.sin(x) * 0.9 + w
        x.backward()
        return w.grad

    def measured() -> tuple[int, Any]:
        count = spent()
        g = step()
        bits = g.numpy().tobytes()
        return count["runs"], bits

    first, bits = measured()
    assert first > 1
    second, again = measured()
    assert second == 1 and again == bits


def test_planning_takes_time_in_proportion(plans: list[Any]) -> None:
    """Twenty times the iterations are not much more than twenty times the work: nothing is compared with everything else."""
    import time

    def seconds(n: int) -> float:
        @torch.compile
        def step(x: Any) -> Any:
            y = x
            for _ in range(n):
                y = torch.sin(y * 0.5) + torch.cos(y) * x
            return y

        best = 1e9
        arguments: list[Any] = []
        original = torch.replaying.plan
        torch.replaying.plan = lambda *given, **options: arguments.append(given) or original(*given, **options)
        try:
            step(torch.tensor([0.5, 0.25]))
        finally:
            torch.replaying.plan = original
        for _ in range(3):
            start = time.process_time()
            original(*arguments[0])
            best = min(best, time.process_time() - start)
        return best

    assert seconds(2000) < 60 * max(seconds(100), 0.001)


def test_a_rolled_loop_that_becomes_hot_moves_fewer_rows_and_keeps_its_bits() -> None:
    from fastgrad.kernels import background
    from fastgrad.kernels.loops import MOVING, block_loop, counted_loop

    bounded = [
        "sin",
        "cos",
        "tanh",
        "sigmoid",
        "atan",
        "erf",
        "erfc",
        "asinh",
        "neg",
        "abs",
        "square",
        "expm1",
        "relu",
        "log1p",
    ]
    chosen = np.random.default_rng().permutation(bounded)[:5]  # kernels that are not on disk yet

    def through(x: torch.Tensor) -> torch.Tensor:
        for name in chosen:
            x = getattr(x.clamp(-0.9, 0.9), name)()
        return x

    def fit(p: torch.Tensor) -> torch.Tensor:
        p.grad = None
        x = p * 1.0
        for _ in range(60):
            x = x + (p - through(x)) * 0.01
        loss = (x * x).sum()
        loss.backward()
        return loss

    p = torch.tensor(np.linspace(0.5, 1.5, 3), requires_grad=True)
    call = torch.compile(fit)
    for _ in range(3):
        if not call._replays:  # the first call of a process loads what others find
            call(p)
    program = next(r for replays in call._replays.values() for r in replays).program
    rolled = [k for k in range(program.count) if program.words[k, 0] == counted_loop()]
    before = [int(program.words[k, MOVING]) for k in rolled]
    assert rolled and any(kernel == block_loop() for kernel in program.words[:, 0])
    assert p.grad is not None
    expected = call(p).item(), p.grad.tolist()
    for _ in range(3):
        call(p)
    background.wait()
    assert [int(program.words[k, MOVING]) for k in rolled] < before
    for _ in range(3):
        assert (call(p).item(), p.grad.tolist()) == expected
    torch.set_tier(0)
    try:
        assert (fit(p).item(), p.grad.tolist()) == expected
    finally:
        torch.set_tier(None)
