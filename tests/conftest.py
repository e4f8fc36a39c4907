"""What all tests share: global settings put back after each test, and a Python process of its own for those that need one.

Kernels come from one cache directory for the whole run: FASTGRAD_CACHE_DIR, or the user's own if that is not set. Child
processes inherit it; only a test about the cache itself gives its children another one.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgrad

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Every test starts with the defaults, whatever the one before it has changed."""
    threads = fastgrad.get_num_threads()
    tier = fastgrad.execute._forced[0]
    fastgrad.manual_seed(0)
    trace = fastgrad.recording.local.trace
    trace.limit, trace.lengthened = fastgrad.recording.LIMIT, 0
    trace.strangers = 0  # how new the programs of earlier tests were is not this one's business
    fastgrad.recording.unfold(trace)
    background = sys.modules.get("fastgrad.kernels.background")
    if background is not None:
        background._helper.asked = 0  # a process has a limit of kernels, the suite asks for more
    yield
    fastgrad.set_num_threads(threads)
    fastgrad.set_tier(tier)
    fastgrad.set_default_dtype(fastgrad.float32)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    """Docstring examples say `fastgrad` and `np` without importing them."""
    doctest_namespace["fastgrad"] = fastgrad
    doctest_namespace["np"] = np


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run source text in another Python process; `environment` is added to this one's, None takes a variable away."""

    def run(source: str, *, check: bool = True, **environment: Any) -> subprocess.CompletedProcess[str]:
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
            env=child_environment(environment), cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if check:
            assert process.returncode == 0, process.stderr
            assert process.stderr == ""
        return process

    return run


@pytest.fixture
def python_handles_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also in a worker process that was started without a handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def child_environment(changes: dict[str, Any]) -> dict[str, str]:
    """This process's environment with changes, and this fastgrad first on the path."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    merged = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **{k: v for k, v in changes.items() if v is not None}}
    return {k: str(v) for k, v in merged.items() if k not in changes or changes[k] is not None}


def alone(test: Callable[[], None]) -> Callable[[], None]:
    """The test in a process of its own, for what is measured there: a process that ran thousands of tests grows by itself."""

    @functools.wraps(test)
    def run() -> None:
        file = Path(inspect.getfile(test))
        code = f"import sys; sys.path.insert(0, {str(file.parent)!r}); import {file.stem}; {file.stem}.{test.__name__}.__wrapped__()"
        ended = subprocess.run([sys.executable, "-c", code], env=child_environment({}), capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    return run


class Spent:
    """How far the counters of `fastgrad.stats()` have moved since this was made."""

    def __init__(self) -> None:
        self._before = fastgrad.stats()

    def __getitem__(self, name: str) -> int:
        return fastgrad.stats()[name] - self._before[name]


@pytest.fixture
def spent() -> type[Spent]:
    """`spent()` starts counting; `count["planned"]` tells how many programs have been planned since."""
    return Spent


def same_bits(left: Any, right: Any) -> bool:
    """Whether two tensors or arrays agree in type, shape and every bit."""
    left, right = (np.asarray(x.detach().numpy() if isinstance(x, fastgrad.Tensor) else x) for x in (left, right))
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
