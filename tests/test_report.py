"""`report()`: what a compiled step consists of; asking for it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as torch


def trained(batch=64):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = torch.randn(batch, 8), torch.randint(0, 3, (batch,))

    @torch.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, x, y, model


def test_a_report_counts_records_bytes_and_flops():
    step, x, y, model = trained()
    step(x, y), step(x, y)
    report = step.report()
    assert report.records == sum(row.records for row in report.rows)
    assert 0 < report.kernels <= report.records
    products = [row for row in report.rows if row.operations == "matmul"]
    assert sum(row.flops for row in products) == 2 * 64 * (8 * 16 + 16 * 3) * 2 + 2 * 64 * 16 * 3
    state = 4 * sum(p.numel() for p in model.parameters())
    assert report.input_bytes >= 3 * state + 64 * 8 * 4 + 64 * 8
    assert report.output_bytes == state + 4
    assert report.bytes == report.input_bytes + report.output_bytes + report.temporary_bytes + report.kept_bytes
    assert report.seconds > 0 and all(row.estimated > 0 and row.measured >= 0 for row in report.rows if row.records)
    assert all(row.line.startswith(__file__) for row in report.rows if row.line)
    text = str(report)
    assert "cross" not in text and "matmul" in text and f"{report.bytes:,} bytes" in text


def test_asking_changes_nothing():
    plain, asked = trained(), trained()
    for k in range(12):
        a, b = [step(x, y) for step, x, y, _ in (plain, asked)]
        assert a.item() == b.item()
        if k in (1, 3, 9):
            asked[0].report()
    for p, q in zip(plain[3].parameters(), asked[3].parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_tiers_repeats_and_large_loops_show():
    x = torch.rand(300_000, requires_grad=True)

    @torch.compile(wait=True)
    def large():
        x.grad = None
        y = (torch.exp(x) * torch.sin(x)).sum()
        y.backward()
        return y

    large()
    assert {row.tier for row in large.report().rows if row.shape == (300_000,)} == {2}
    torch.set_tier(1)
    try:
        large = torch.compile(large._function)
        large()
        assert {row.tier for row in large.report().rows if row.shape == (300_000,)} == {1}
    finally:
        torch.set_tier(None)

    @torch.compile
    def newton(x):
        for _ in range(60):
            x = x - (x * x - 2) / (2 * x)
        return x

    newton(torch.ones(3, dtype=torch.float64))
    repeated = [row for row in newton.report().rows if row.times > 1]
    assert repeated and repeated[0].times > 50


def test_without_a_call_there_is_nothing_to_report():
    with pytest.raises(RuntimeError, match="no recorded call in this thread"):
        torch.compile(lambda x: x).report()
