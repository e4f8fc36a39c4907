"""Loops over rows: normalisations and losses run as few loops, and give the bits of the operations run one by one."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad
from fastgrad.kernels import loops, reduce
from fastgrad.kernels.sweep import sweep

F = fastgrad.nn.functional
COLUMNS = [1, 2, 3, 10, 31, 32, 33, 64, 1000, 1025, 5000]


def bits(t):
    """The bytes of a tensor; all NaNs are one."""
    found = np.array(t.detach().numpy())
    found[found != found] = np.nan if found.dtype.kind == "f" else 0
    return found.tobytes()


def at_tier(tier, function):
    fastgrad.set_tier(tier)
    try:
        return [bits(t) for t in function()]
    finally:
        fastgrad.set_tier(None)


def same_in_all_tiers(function, tiers=(1, 2)):
    expected = at_tier(0, function)
    for tier in tiers:
        assert at_tier(tier, function) == expected, f"tier {tier}"
    return expected


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * weight + bias


def softmax_loss(x, target, weight, bias):
    p = F.softmax(x, -1)
    return (p * p).sum(-1).mean(), p


def cross_entropy(x, target, weight, bias):
    return F.cross_entropy(x, target), F.log_softmax(x, -1)


def normalised(x, target, weight, bias):
    y = layer_norm(x, weight, bias)
    return y.sum() + (y * y).mean(), y


def deviations(x, target, weight, bias):
    each = x.var(-1) + (x / (x.std(-1, keepdim=True) + 1)).amax(-1)
    return (each * fastgrad.logsumexp(x, -1)).sum(), each, x.amin(-1), x.prod(-1)


def directions(x, target, weight, bias):
    y = x / (x * x).sum(1, keepdim=True).sqrt()
    angles = fastgrad.sin(y) + fastgrad.tanh(y * weight) * fastgrad.exp(bias)
    return (angles * y).sum(), angles, (y > 0.1).sum(-1)


PROGRAMS = [softmax_loss, cross_entropy, normalised, deviations, directions]


def case(program, rows, columns, dtype):
    rng = np.random.default_rng(rows * 10_000 + columns)
    data, target = rng.normal(size=(rows, columns)), rng.integers(0, columns, rows)
    side = rng.normal(size=(2, columns))

    def run():
        x = fastgrad.tensor(data, dtype=dtype, requires_grad=True)
        weight = fastgrad.tensor(side[0], dtype=dtype, requires_grad=True)
        bias = fastgrad.tensor(side[1], dtype=dtype, requires_grad=True)
        loss, *rest = program(x, fastgrad.tensor(target), weight, bias)
        loss.backward()
        return [loss, *rest, *[t.grad for t in (x, weight, bias) if t.grad is not None]]

    return run


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_block_by_block_gives_the_bits_of_one_by_one(program, columns):
    for rows in (1, 2, 127, 128, 129, *([3000] if columns < 64 else [])):
        same_in_all_tiers(case(program, rows, columns, fastgrad.float32), (1,))
    same_in_all_tiers(case(program, 5, columns, fastgrad.float64), (1,))


@pytest.mark.parametrize("columns", [2, 3, 32, 33, 100, 1025])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_fused_loops_over_rows_give_the_same_bits(program, columns):
    for rows in (100, 129, 700):  # more elements than a small loop has: one kernel for all
        same_in_all_tiers(case(program, rows, columns, fastgrad.float32))


@pytest.mark.parametrize("shape", [(1, 2), (16, 2), (2, 31), (1, 64), (1, 3000)], ids=str)
def test_small_and_single_rows_fused(shape):
    same_in_all_tiers(case(cross_entropy, *shape, fastgrad.float64))
    same_in_all_tiers(case(deviations, *shape, fastgrad.float32))


def test_values_are_those_of_numpy():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(130, 37))
    x = fastgrad.tensor(data, requires_grad=True)
    p = F.softmax(x, -1)
    (p * p).sum().backward()
    e = np.exp(data - data.max(-1, keepdims=True))
    q = e / e.sum(-1, keepdims=True)
    np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-12)
    inner = (2 * q * q).sum(-1, keepdims=True)
    np.testing.assert_allclose(x.grad.numpy(), q * (2 * q - inner), rtol=1e-10, atol=1e-16)
    y = layer_norm(fastgrad.tensor(data), 2.0, 0.5).numpy()
    expected = (data - data.mean(-1, keepdims=True)) / np.sqrt(data.var(-1, keepdims=True) + 1e-5) * 2 + 0.5
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


def test_a_softmax_is_one_loop():
    x = fastgrad.tensor(np.random.default_rng(0).normal(size=(50, 20)))
    w = fastgrad.tensor(np.random.default_rng(1).normal(size=(50, 20)))

    @fastgrad.compile
    def step(x, w):
        return (F.softmax(x, -1) * w).sum(-1), F.log_softmax(w, -1)

    step(x, w)
    replay = next(r for replays in step._replays.values() for r in replays)
    assert replay.program.count <= 2


@pytest.mark.parametrize("tier", [1, 2])
def test_other_dimensions_and_broadcasts_are_still_right(tier):
    rng = np.random.default_rng(3)
    a, b, c = rng.normal(size=(4, 6, 5)), rng.normal(size=(6, 6)), rng.normal(size=(6,))
    fastgrad.set_tier(tier)
    try:
        x, y, z = fastgrad.tensor(a), fastgrad.tensor(b), fastgrad.tensor(c)
        u = x * 2
        v = y + 1
        row = v.sum(-1)  # a row's value that is read across the rows
        found = [
            u - u.sum(1, keepdim=True), u - u.amax(0), u - u.sum((1, 2), keepdim=True), u / u.prod(0, keepdim=True),
            v * row, v * row[:, None], v * row * row[:, None], v.t() - row[:, None], (v - row[:, None]).t() * row,
            u[:, :, 0] - u.sum((0, 2)), (u - u.mean(-1, keepdim=True)).sum(1), z - z.sum(), (z * 2).softmax(0),
            u.reshape(24, 5) - u.sum(-1).reshape(24, 1), u.permute(1, 0, 2) - u.sum(-1).t()[:, :, None],
            u.sum(-1, keepdim=True).expand(4, 6, 7) * 2,
        ]  # fmt: skip
        got = [t.numpy() for t in found]
    finally:
        fastgrad.set_tier(None)
    u, v = a * 2, b + 1
    row = v.sum(-1)
    top = np.exp(c * 2 - (c * 2).max())
    expected = [
        u - u.sum(1, keepdims=True), u - u.max(0), u - u.sum((1, 2), keepdims=True), u / u.prod(0, keepdims=True),
        v * row, v * row[:, None], v * row * row[:, None], v.T - row[:, None], (v - row[:, None]).T * row,
        u[:, :, 0] - u.sum((0, 2)), (u - u.mean(-1, keepdims=True)).sum(1), c - c.sum(), top / top.sum(),
        u.reshape(24, 5) - u.sum(-1).reshape(24, 1), u.transpose(1, 0, 2) - u.sum(-1).T[:, :, None],
        np.broadcast_to(u.sum(-1, keepdims=True), (4, 6, 7)) * 2,
    ]  # fmt: skip
    for k, (g, e) in enumerate(zip(got, expected, strict=True)):
        np.testing.assert_allclose(g, e, rtol=1e-11, atol=1e-13, err_msg=f"number {k}")


def test_full_sums_beside_folds_of_rows():
    for rows, columns in ((20, 30), (300, 30), (1025, 2), (3, 1500)):
        data = np.random.default_rng(rows).normal(size=(rows, columns))

        def run(data=data):
            x = fastgrad.tensor(data, dtype=fastgrad.float32, requires_grad=True)
            y = fastgrad.exp(x * 0.5)
            first = y.sum()
            z = y / y.sum(-1, keepdim=True)
            each = z.amax(-1)
            total = first * 0.01 + (z * z).sum() + each.sum() + (each * each).mean()
            total.backward()
            return [first, each, total, x.grad]

        same_in_all_tiers(run)


def test_strided_rows():
    rng = np.random.default_rng(5)
    data, line = rng.normal(size=(70, 90)), rng.normal(size=(200, 3))

    def run():
        x, s = fastgrad.tensor(data), fastgrad.tensor(line)
        parts = [x.t(), x[:, 3:40], x[::2, ::3], x[:, :1].expand(70, 90), x[3].expand(20, 90)]
        found = [F.softmax(p, -1) for p in parts]
        found += [p.sum(-1) + p.amax(-1) for p in parts]
        return [
            *found,
            (x[:, :50] * x[:, 40:]).sum(-1) * s[:70, 1],
            x - s[:70, 2:],
            (x * x[:, :1]).sum(-1) + s[5:75, 0],
        ]

    same_in_all_tiers(run)


@pytest.mark.parametrize("tier", [1, 2])
@pytest.mark.parametrize("shape", [(40, 30), (300, 100), (1, 70)], ids=str)
def test_rows_change_the_memory_they_read(tier, shape):
    data = np.random.default_rng(1).normal(size=shape)
    fastgrad.set_tier(tier)
    try:
        x, scale = fastgrad.tensor(data), fastgrad.tensor(np.ones(shape[0]))
        for _ in range(2):
            total = fastgrad.log1p(x * x).sum(-1)
            grown = fastgrad.exp(x)
            x.sub_(x.mean(-1, keepdim=True)).div_(x.std(-1, keepdim=True))
            scale.mul_(2).add_(total)
        got = [t.numpy().copy() for t in (x, scale, grown)]
    finally:
        fastgrad.set_tier(None)
    y, s = data, np.ones(shape[0])
    for _ in range(2):
        s = s * 2 + np.log1p(y * y).sum(-1)
        grown = np.exp(y)
        y = y - y.mean(-1, keepdims=True)
        y = y / y.std(-1, ddof=1, keepdims=True)
    for g, e in zip(got, (y, s, grown), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(3000,), (300, 20)], ids=str)
def test_memory_is_overwritten_after_all_parts_have_read_it(shape):
    data = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    fastgrad.set_tier(2)
    try:
        x = fastgrad.tensor(data)
        first, second = fastgrad.log1p(x * x), fastgrad.exp(x)
        x.mul_(2.0)
        assert x.sum(-1).shape == shape[:-1]
        np.testing.assert_allclose(first.numpy(), np.log1p(data * data), rtol=1e-14)
        np.testing.assert_allclose(second.numpy(), np.exp(data), rtol=1e-14)
        np.testing.assert_array_equal(x.numpy(), data * 2)
    finally:
        fastgrad.set_tier(None)


def test_integers_bools_and_special_values():
    a = np.random.default_rng(2).integers(-50, 50, (60, 40))
    wild = np.resize([np.nan, np.inf, -0.0, 0.0, 1.5, -np.inf, 3.0], (60, 40))
    wild[1] = -0.0
    wild[2] = 5.0

    def run():
        x, w = fastgrad.tensor(a), fastgrad.tensor(wild, dtype=fastgrad.float32)
        mask = (x > x.to(fastgrad.float32).mean(-1, keepdim=True)) & (x != 3)
        inside = fastgrad.where(mask, x, 0)
        return [
            mask.sum(-1), inside.sum(-1), inside.amax(-1, keepdim=True) - x, x.amin(-1), mask.any(-1), mask.all(-1),
            (x.to(fastgrad.int32) * 3).amax(-1), x.to(fastgrad.uint8).amin(-1), (w + 0).amax(-1), (-w).amin(-1),
            *[fastgrad.where(t == t, t, 7.0) for t in (F.softmax(w, -1), (w * 1).sum(-1))],  # a NaN's sign is the CPU's affair
            fastgrad.where(w == w, fastgrad.sin(w * 1e6), 0.0) - (w[:, 2:3] * 1).sum(-1, keepdim=True),
        ]  # fmt: skip

    found = same_in_all_tiers(run)
    assert found[3] == a.min(-1).tobytes()
    np.testing.assert_array_equal(np.frombuffer(found[8], np.float32), (wild + 0).astype("f4").max(-1))


@pytest.mark.parametrize("shape", [(2000, 100), (150_000, 2), (70, 3000)], ids=str)
def test_loops_over_rows_on_several_threads_give_the_same_bits(shape):
    threads = fastgrad.get_num_threads()
    run = case(normalised, *shape, fastgrad.float32)
    other = case(cross_entropy, *shape, fastgrad.float32)
    expected = at_tier(0, run), at_tier(0, other)
    try:
        for n in (1, 2, 5):
            fastgrad.set_num_threads(n)
            for tier in (1, 2):
                assert (at_tier(tier, run), at_tier(tier, other)) == expected
    finally:
        fastgrad.set_num_threads(threads)


def test_compiled_and_replayed():
    rng = np.random.default_rng(0)
    data, side = rng.normal(size=(200, 50)), rng.normal(size=(2, 50))
    x, weight, bias = (fastgrad.tensor(a, dtype=fastgrad.float32, requires_grad=True) for a in (data, side[0], side[1]))

    def step():
        x.grad = weight.grad = bias.grad = None
        loss, y = normalised(x, None, weight, bias)
        loss.backward()
        return loss, y

    def results(step):
        return [*step(), x.grad, weight.grad, bias.grad]

    expected = at_tier(0, lambda: results(step))
    fast = fastgrad.compile(step)
    for _ in range(40):
        assert [bits(t) for t in results(fast)] == expected


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "i4", "u1"])
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 64, 1000, 2500])
def test_folds_of_rows_against_numpy(dtype, columns):
    a = np.random.default_rng(columns).uniform(0.9, 1.1, (3, columns)) * (1 if dtype[0] == "f" else 3)
    a = np.ascontiguousarray(a.astype(dtype))
    with np.errstate(over="ignore"):
        wanted = {"sum": a.sum(-1, dtype=dtype), "prod": a.prod(-1, dtype=dtype), "amax": a.max(-1), "amin": a.min(-1)}
    for name, expected in wanted.items():
        y = np.empty(3, dtype)
        record = np.array([reduce.row_fold(name, dtype), 3, y.ctypes.data, a.ctypes.data, columns, 0, 0, 0])
        sweep()(record.ctypes.data, 1)
        np.testing.assert_allclose(y, expected, rtol=1e-3 if dtype == "f4" else 1e-12)


def test_the_order_of_a_fold_is_the_lanes():
    n = 4 * loops.LANES + 5
    a = np.random.default_rng(0).normal(size=n).astype("f4") * np.float32(1e4)
    acc = a[: loops.LANES].copy()
    for k in range(1, 4):
        acc = acc + a[k * loops.LANES : (k + 1) * loops.LANES]
    while len(acc) > 1:
        acc = acc[: len(acc) // 2] + acc[len(acc) // 2 :]
    tail = np.float32(0)
    for x in a[4 * loops.LANES :]:
        tail = tail + x
    assert fastgrad.tensor(a).sum().item() == acc[0] + tail


@pytest.mark.parametrize("columns", [2, 3, 16, 33, 100, 1025, 5000])
def test_sums_of_columns_in_a_loop(columns):
    rng = np.random.default_rng(columns)
    for rows in (2, 127, 128, 129, 300, *([3000] if columns < 40 else [])):
        data, bias = rng.normal(size=(rows, columns)), rng.normal(size=columns)

        def run(data=data, bias=bias, rows=rows):
            x = fastgrad.tensor(data, dtype=fastgrad.float32)
            b = fastgrad.tensor(bias, dtype=fastgrad.float32, requires_grad=True)
            y = fastgrad.tanh(x + b)
            y.sum(-1).square().sum().backward()
            inner = (x * 2).reshape(rows, 1, columns)
            return [b.grad, y.sum(0), y.sum(0, keepdim=True), inner.sum((0, 1)), (inner + 1).sum(0)]

        found = same_in_all_tiers(run, (1, 2) if columns in (3, 100) and rows > 100 else (1,))
        down = np.tanh(data.astype("f4") + bias.astype("f4")).sum(0, dtype="f8")
        np.testing.assert_allclose(np.frombuffer(found[1], np.float32), down, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(np.frombuffer(found[3], np.float32), data.sum(0) * 2, rtol=1e-3, atol=1e-3)
