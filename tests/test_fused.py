"""Loops compiled into one kernel give the bits of the block loop and of the operations run one by one."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

import fastgrad
from fastgrad.kernels import background, build, fused

SIZES = [(1,), (2,), (63,), (64,), (65,), (1023,), (1024,), (1025,), (3, 1), (1, 7), (16, 16), (7, 11), (33, 40), (40, 33), (5, 6, 7),
         (130, 3, 9), (2500,), (50, 70), (3, 2000)]  # fmt: skip


def bits(t):
    """The bytes of a tensor; all NaNs are one."""
    found = np.array(t.detach().numpy())
    found[found != found] = np.nan if found.dtype.kind == "f" else 0
    return found.tobytes()


def operands(rng, shape, dtype):
    """Tensors that broadcast to a shape in many ways."""
    full = fastgrad.tensor(rng.uniform(-2, 2, shape), dtype=dtype)
    found = [full, fastgrad.tensor(rng.uniform(-2, 2, shape), dtype=dtype)]
    for axis in range(len(shape)):
        part = list(shape)
        part[axis] = 1
        found.append(fastgrad.tensor(rng.uniform(-2, 2, part), dtype=dtype))
    found.append(fastgrad.tensor(rng.uniform(-2, 2, shape[-1:]), dtype=dtype))
    found.append(fastgrad.tensor(rng.uniform(-2, 2, ()), dtype=dtype))
    found.append(fastgrad.tensor(rng.uniform(-2, 2, shape[::-1]), dtype=dtype).permute(*range(len(shape))[::-1]))
    wide = fastgrad.tensor(rng.uniform(-2, 2, (*shape[:-1], shape[-1] + 3)), dtype=dtype)
    found.append(wide[..., 2 : 2 + shape[-1]])
    found.append(fastgrad.tensor(rng.uniform(-2, 2, (*shape[:-1], 2 * shape[-1])), dtype=dtype)[..., ::2])
    return found


UNARY = ["sin", "cos", "exp", "tanh", "sigmoid", "relu", "neg", "abs", "square", "sqrt", "log1p", "tan", "erf"]


def program(rng, shape, leaves):
    """A random function of the leaves: a list of steps that every run repeats."""
    plan = []
    for _ in range(rng.integers(3, 14)):
        plan.append((rng.choice(["unary", "add", "mul", "sub", "div", "where", "number"]), *rng.integers(0, 1000, 3)))
    totals = rng.integers(0, 3)

    def run():
        values = list(leaves)
        for kind, i, j, k in plan:
            a, b = values[i % len(values)], values[j % len(values)]
            if kind == "unary":
                name = UNARY[k % len(UNARY)]
                a = a.abs() if name in ("sqrt", "log1p") else a
                values.append(getattr(fastgrad, name)(a))
            elif kind == "where":
                values.append(fastgrad.where(a > b, a, b * 0.5))
            elif kind == "number":
                values.append(a * 1.25 + 0.5)
            else:
                values.append({"add": a + b, "mul": a * b, "sub": a - b, "div": a / (b.abs() + 1)}[kind])
        out = sum([v * 0.1 for v in values[-3:]]) + leaves[0]
        return [out, *[v.sum() for v in values[-1 : -1 - totals : -1]]]

    return run


def at_tier(tier, function):
    fastgrad.set_tier(tier)
    try:
        return [bits(t) for t in function()]
    finally:
        fastgrad.set_tier(None)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [fastgrad.float32, fastgrad.float64], ids=str)
def test_random_loops_give_the_same_bits_in_every_tier(shape, dtype):
    rng = np.random.default_rng(abs(hash((shape, str(dtype)))) % 1000)
    run = program(rng, shape, operands(rng, shape, dtype))
    expected = at_tier(0, run)
    assert at_tier(1, run) == expected
    assert at_tier(2, run) == expected


@pytest.mark.parametrize("n", [5, 64, 1000, 3000])
def test_gradients_through_a_loop_give_the_same_bits(n):
    rng = np.random.default_rng(n)
    data = rng.uniform(-3, 3, n)

    def run():
        x = fastgrad.tensor(data, requires_grad=True)
        y = (fastgrad.tanh(fastgrad.sin(x) * fastgrad.exp(-x * x)) + fastgrad.cos(x).pow(3)).mean()
        y.backward()
        return [y, x.grad]

    expected = at_tier(0, run)
    assert at_tier(1, run) == expected
    assert at_tier(2, run) == expected
    x = data
    inner = np.sin(x) * np.exp(-x * x)
    exact = (1 - np.tanh(inner) ** 2) * np.exp(-x * x) * (np.cos(x) - 2 * x * np.sin(x)) - 3 * np.cos(x) ** 2 * np.sin(
        x
    )
    np.testing.assert_allclose(np.frombuffer(expected[1]), exact / n, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n", [3, 300, 5000])
def test_special_values_and_huge_angles_take_the_careful_way(n):
    data = np.resize([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, -3e18, 1e-310, 7.0, 1e8], n)

    def run():
        x = fastgrad.tensor(data, dtype=fastgrad.float64)
        return [fastgrad.sin(x) * 2 + fastgrad.cos(x * 0.5), fastgrad.tan(x) - x, (fastgrad.exp(-x) + x).sum()]

    expected = at_tier(0, run)
    assert at_tier(1, run) == expected
    assert at_tier(2, run) == expected
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(np.frombuffer(expected[0]), np.sin(data) * 2 + np.cos(data * 0.5), rtol=1e-14)


@pytest.mark.parametrize("tier", [1, 2])
def test_a_loop_lands_in_memory_that_it_reads(tier):
    data = np.linspace(-1, 1, 3000)
    w, v = fastgrad.tensor(data), fastgrad.tensor(data * 2)
    fastgrad.set_tier(tier)
    try:
        for _ in range(3):
            with fastgrad.no_grad():
                v.mul_(0.9).add_(fastgrad.sin(w))
                w.sub_(v * 0.1)
        got = w.numpy().copy(), v.numpy().copy()
    finally:
        fastgrad.set_tier(None)
    x, y = data, data * 2
    for _ in range(3):
        y = y * 0.9 + np.sin(x)
        x = x - y * 0.1
    np.testing.assert_allclose(got[0], x, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(got[1], y, rtol=1e-13, atol=1e-14)


def test_integers_and_bools_inside_a_loop():
    a, b = np.arange(-700, 700), np.resize([3, -2, 0, 5], 1400)

    def run():
        x, y = fastgrad.tensor(a), fastgrad.tensor(b)
        mask = (x > y) & (x != 3)
        return [
            fastgrad.where(mask, x * y, x - y),
            mask,
            mask.sum(),
            (x.to(fastgrad.int32) + 1).to(fastgrad.float32) * mask,
        ]

    expected = at_tier(0, run)
    assert at_tier(1, run) == expected
    assert at_tier(2, run) == expected
    mask = (a > b) & (a != 3)
    assert expected[0] == np.where(mask, a * b, a - b).tobytes()
    assert expected[2] == np.int64(mask.sum()).tobytes()


def test_constants_are_computed_while_planning():
    x = fastgrad.ones(64, requires_grad=True)

    @fastgrad.compile
    def step(x):
        x.grad = None
        loss = ((x * 3 - 1) ** 2).mean()
        loss.backward()
        return loss

    assert step(x).item() == 4
    np.testing.assert_array_equal(x.grad.numpy(), np.full(64, np.float32(2 / 64 * 2 * 3)))
    replay = next(r for replays in step._replays.values() for r in replays)
    assert replay.program.count <= 2  # the loop, and what follows its sum


def source_of_a_new_kernel():
    step = fused.Step(f"a * float32({time.time_ns() % 10**9})", (0,), "f4", 1)
    return fused.source(fused.Loop((fused.Operand("f4", (1,), 0),), (step,), (), 2))


def test_the_helper_process_compiles_a_kernel_and_leaves_it_on_disk():
    source = source_of_a_new_kernel()
    assert build.lookup(source) is None
    found = []
    background.request(source, found.append)
    background.request(source, found.append)
    background.wait([source])
    assert len(found) == 2 and found[0] == found[1] == build.lookup(source)
    assert build._place(source)[1].exists()


def test_a_kernel_that_cannot_be_compiled_is_named_and_the_helper_goes_on():
    broken = f"def kernel(record):\n    undefined_{time.time_ns()}()\n"
    found = []
    background.request(broken, found.append)
    background.wait([broken])
    assert not found and "undefined" in background.failures.pop(broken)
    good = source_of_a_new_kernel()
    background.request(good, found.append)
    background.wait([good])
    assert len(found) == 1


def test_a_helper_that_dies_costs_one_kernel():
    first, second = source_of_a_new_kernel(), source_of_a_new_kernel()
    found = []
    background.request(first, found.append)
    background.wait([first])
    background._helper.process.kill()
    background.request(second, found.append)
    background.wait([second])
    third = source_of_a_new_kernel()
    background.request(third, found.append)
    background.wait([third])
    assert len(found) >= 2
    background.failures.pop(second, None)


def test_a_hot_program_moves_up_and_keeps_its_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", str(tmp_path))
    x = fastgrad.tensor(np.linspace(-2, 2, 5001 + time.time_ns() % 997), requires_grad=True)
    factor = 1 + time.time_ns() % 10**6 / 1e6
    results = set()
    for _ in range(80):
        x.grad = None
        y = (fastgrad.exp(x * x * -0.5) * fastgrad.sin(x) * factor).sum()
        y.backward()
        results.add(bits(y) + bits(x.grad))
    time.sleep(0.1)
    background.wait()
    for _ in range(5):
        x.grad = None
        y = (fastgrad.exp(x * x * -0.5) * fastgrad.sin(x) * factor).sum()
        y.backward()
        results.add(bits(y) + bits(x.grad))
    assert len(results) == 1


SECOND_PROCESS = """
import numpy as np, fastgrad
from fastgrad.kernels import build
x = fastgrad.tensor(np.linspace(-1, 1, 2000), requires_grad=True)
{tier}
(fastgrad.exp(x) * fastgrad.sin(x) + 3 * x).sum().backward()
print(x.grad.numpy().tobytes().hex()[:64], build.counters["kernels compiled"])
"""


def test_the_next_process_starts_on_tier_2(tmp_path):
    def run(tier):
        environment = {"FASTGRAD_CACHE_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", SECOND_PROCESS.format(tier=tier)], capture_output=True, text=True,
                              env=environment, check=True)  # fmt: skip
        return done.stdout.split()

    first, compiled = run("fastgrad.set_tier(2)")
    again, none = run("")
    assert first == again
    assert int(compiled) > 0 and int(none) == 0


def test_a_tier_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="0, 1, 2 or None"):
        fastgrad.set_tier(3)
    done = subprocess.run([sys.executable, "-c", "import fastgrad"], capture_output=True, text=True,
                          env={"FASTGRAD_TIER": "fast", "PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert done.returncode != 0 and "FASTGRAD_TIER must be 0, 1 or 2" in done.stderr


@pytest.mark.parametrize("shape", [(150_001,), (401, 400), (3, 70_000), (70_000, 3)], ids=str)
def test_loops_on_several_threads_give_the_same_bits(shape):
    rng = np.random.default_rng(1)
    run = program(rng, shape, operands(rng, shape, fastgrad.float32))
    threads = fastgrad.get_num_threads()
    expected = at_tier(0, run)
    try:
        for n in (1, 2, 5):
            fastgrad.set_num_threads(n)
            assert at_tier(1, run) == expected
            assert at_tier(2, run) == expected
    finally:
        fastgrad.set_num_threads(threads)


def test_compile_waits_for_its_kernels():
    factor = 1 + time.time_ns() % 10**6 / 1e6

    @fastgrad.compile(wait=True)
    def step(x):
        return (fastgrad.exp(x) * factor + x).sum()

    x = fastgrad.tensor(np.linspace(0, 1, 3000))
    first = bits(step(x))
    replay = next(r for replays in step._replays.values() for r in replays)
    assert not replay.program.hot
    place = next(k for k in range(replay.program.count) if replay.program.words[k, 1] == 3000)
    from fastgrad.kernels.loops import block_loop

    assert replay.program.words[place, 0] != block_loop()
    assert bits(step(x)) == first


def test_the_kernels_directory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build, "_pruned", [])
    monkeypatch.setattr(build, "LIMIT", 10_000)
    for k in range(20):
        (tmp_path / f"fastgrad_{k}.o").write_bytes(b"x" * 1000)
    (tmp_path / "mine.txt").write_text("not a kernel")
    build.build(source_of_a_new_kernel())
    left = [p for p in tmp_path.iterdir() if p.name.startswith("fastgrad_")]
    assert len(left) <= 7 and (tmp_path / "mine.txt").exists()
