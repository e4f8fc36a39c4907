"""A process that runs the steps of one peer on request: one line of JSON in, one out.

`{"do": "build", "workload": name, "peer": key}` builds a step and runs it once; then `check` runs it a few times and
returns its number, `time` repeats it for about `seconds` and returns the nanoseconds of one, `drop` forgets it, `quit`
ends. Answers have `"error"` instead when something raised. The library's own output goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from .peers import OURS
from .workload import Difference, Step

__all__ = ["Runner", "main"]


class Runner:
    """One step, and how often to repeat it so that a timing lasts as long as asked for."""

    def __init__(self, built: Step | Difference, once: bool = False) -> None:
        self.parts = list(built) if isinstance(built, Difference) else [built]
        self.repeats: list[int | None] = [1 if once else None] * len(self.parts)

    def check(self, steps: int) -> float | None:
        """The number the last of `steps` further steps returns."""
        for _ in range(steps):
            value = self.parts[0]()
        return None if value is None else float(value.item() if hasattr(value, "item") else value)

    def time(self, seconds: float) -> float:
        """Nanoseconds of one step (of its difference to the baseline), the mean over about `seconds`."""
        times = [self._time_part(i, seconds) for i in range(len(self.parts))]
        return times[0] - sum(times[1:])

    def _time_part(self, i: int, seconds: float) -> float:
        repeats = self.repeats[i]
        if repeats is None:
            repeats, elapsed = 1, _loop(self.parts[i], 1)
            while elapsed < 0.2e9 * seconds:
                repeats *= 2
                elapsed = _loop(self.parts[i], repeats)
            repeats = self.repeats[i] = max(1, round(repeats * 1e9 * seconds / elapsed))
        return _loop(self.parts[i], repeats) / repeats


def _loop(step: Step, repeats: int) -> int:
    start = time.perf_counter_ns()
    for _ in range(repeats):
        step()
    return time.perf_counter_ns() - start


class _Worker:
    def __init__(self) -> None:
        self.runner: Runner | None = None

    def build(self, workload: str, peer: str) -> dict[str, Any]:
        from .registry import WORKLOADS

        if peer in OURS and "BENCHMARK_THREADS" in os.environ:
            importlib.import_module("fastgrad").set_num_threads(int(os.environ["BENCHMARK_THREADS"]))
        described = WORKLOADS[workload]
        start = time.perf_counter()
        self.runner = Runner(described.build(peer), described.once)
        for part in self.runner.parts:
            part()
        return {"seconds": time.perf_counter() - start}

    def check(self, steps: int) -> dict[str, Any]:
        assert self.runner is not None
        return {"value": self.runner.check(steps)}

    def time(self, seconds: float) -> dict[str, Any]:
        assert self.runner is not None
        return {"nanoseconds": self.runner.time(seconds)}

    def drop(self) -> dict[str, Any]:
        self.runner = None
        gc.collect()
        return {}

    def version(self, names: list[str]) -> dict[str, Any]:
        return {name: str(getattr(importlib.import_module(name), "__version__", "?")) for name in names}


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = _Worker()
    for line in sys.stdin:
        request = json.loads(line)
        action: str = request.pop("do")
        if action == "quit":
            break
        try:
            method: Callable[..., dict[str, Any]] = getattr(worker, action)
            answer = method(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
