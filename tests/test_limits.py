"""Memory that is not there is an exception: nothing has changed, everything works afterwards, and no process ends with a signal."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, child_environment

import fastgrad
from fastgrad.kernels import memory

resource = pytest.importorskip("resource")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits of address space hold on Linux")

TRAINING = """
import resource, sys

def limit():
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)

if sys.argv[2] == "import":
    limit()
import fastgrad
if sys.argv[2] == "work":
    limit()

w = fastgrad.tensor([i / 64 for i in range(64)], requires_grad=True)

def step(n):
    w.grad = None
    h = fastgrad.tanh(fastgrad.ones(n, 64) * w)
    loss = (h.exp() * h).mean()
    loss.backward()
    with fastgrad.no_grad():
        w.sub_(w.grad, alpha=0.1)
    return loss

def product(n):
    return (fastgrad.randn(n, 50) @ fastgrad.randn(50, 300)).sum()

caught = 0
fastgrad.set_num_threads(2)
for n in (10, 1000, 10**6, 4 * 10**7, 10**5, 3):
    for f in (step, fastgrad.compile(step), product):
        before = w.tolist()
        try:
            f(n).item()
        except MemoryError:
            caught += 1
            assert w.tolist() == before
for _ in range(3):
    step(5).item()
assert (fastgrad.ones(3) * 2).sum().item() == 6.0
print("caught", caught)
"""


def under_limit(mebibytes: int, when: str, **environment: Any) -> subprocess.CompletedProcess[str]:
    """Train in a process with so much address space."""
    return subprocess.run(
        [sys.executable, "-c", TRAINING, str(mebibytes), when],
        env=child_environment(environment), cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@LINUX
@pytest.mark.parametrize("when", ["import", "work"])
@pytest.mark.parametrize("mebibytes", random.Random(7).sample(range(320, 1200), 5))
def test_training_under_a_limit_works_or_raises(mebibytes: int, when: str) -> None:
    process = under_limit(mebibytes, when)
    assert process.returncode in (0, 1), process.stderr
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1]
        assert "MemoryError" in last or "ImportError" in last or "OSError" in last, process.stderr


@LINUX
def test_training_under_a_limit_without_compiled_kernels_works_or_raises(tmp_path: Path) -> None:
    process = under_limit(random.Random(8).randrange(320, 600), "import", FASTGRAD_CACHE_DIR=tmp_path)
    assert process.returncode == 0 or (process.returncode == 1 and "MemoryError" in process.stderr)


@LINUX
def test_a_step_that_does_not_fit_leaves_everything_as_it_was() -> None:
    process = under_limit(1500, "work")
    assert process.returncode == 0, process.stderr
    assert int(process.stdout.split()[-1]) >= 2


LARGE = [
    lambda n: fastgrad.zeros(n),
    lambda n: fastgrad.ones(10**4, n // 10**4),
    lambda n: fastgrad.full((n,), 2.5),
    lambda n: fastgrad.rand(n),
    lambda n: fastgrad.randint(0, 3, (n,)),
    lambda n: fastgrad.zeros(1).expand(n).clone(),
    lambda n: fastgrad.zeros(1).expand(n) + 1,
    lambda n: fastgrad.cat([fastgrad.zeros(1).expand(n)] * 2),
    lambda n: fastgrad.ones(10**4)[:, None] * fastgrad.ones(1).expand(n // 10**4),
    lambda n: fastgrad.arange(n),
    lambda n: fastgrad.linspace(0, 1, n),
    lambda n: fastgrad.eye(10**4, n // 10**4),
    lambda n: fastgrad.randperm(n),
]


@pytest.mark.parametrize("make", LARGE)
@pytest.mark.parametrize("n", [10**13, 10**15, 10**17])
def test_what_no_machine_has_is_refused_at_once(make: Callable[[int], Any], n: int) -> None:
    with pytest.raises((MemoryError, RuntimeError)):
        make(n)
    assert fastgrad.ones(2).sum().item() == 2.0


def test_the_error_says_how_many_bytes_are_wanted_and_how_many_there_are() -> None:
    with pytest.raises(
        fastgrad.OutOfMemoryError, match=r"zeros needs 4000000000000 bytes, and there are \d+"
    ) as caught:
        fastgrad.zeros(10**12)
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, RuntimeError)


def test_a_program_larger_than_the_machine_raises_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    w = fastgrad.ones(8, requires_grad=True)
    small = (w * 3).sum()
    before = w.detach().clone()
    large = fastgrad.ones(1).expand(2**27).clone()
    with fastgrad.no_grad():
        w.add_(large.sum() * 0 + 1)
    other = large * 2
    monkeypatch.setattr(memory, "available", lambda: 2**28 + 1)
    with pytest.raises(fastgrad.OutOfMemoryError, match=rf"needs \d+ bytes, and there are {2**28 + 1}"):
        other.sum().item()
    monkeypatch.undo()
    del large, other
    assert w.tolist() == before.tolist()
    assert small.item() == 24.0
    w.grad = None
    (w * w).sum().backward()
    assert w.grad.tolist() == [2.0] * 8


def test_the_same_program_runs_when_there_is_memory_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def value() -> tuple[float, Any]:
        x = fastgrad.ones(1).expand(2**26 + 2**22).clone()
        return (x * 2)[5].item(), x

    monkeypatch.setattr(memory, "available", lambda: 1000)
    for _ in range(2):
        with pytest.raises(fastgrad.OutOfMemoryError):
            value()
    monkeypatch.undo()
    assert value()[0] == 2.0


def test_available_memory_knows_limits_of_the_process(python: Callable[..., Any]) -> None:
    source = """
        import resource
        from fastgrad.kernels import memory
        free = memory.available()
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        assert 0 < memory.available() < 2**31 <= free
        try:
            memory.reserve(2**32, "a test")
        except memory.OutOfMemoryError as error:
            assert "a test needs 4294967296 bytes" in str(error)
        else:
            raise AssertionError
        memory.reserve(2**20, "a test")
    """
    python(source)
