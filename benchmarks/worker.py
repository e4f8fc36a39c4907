"""A process that runs the steps of one peer on request: one line of JSON in, one out.

`{"do": "build", "workload": name, "peer": key}` builds a step and runs it once; then `check` runs it a few times and
returns its number, `time` repeats it for about `seconds` and returns the amount of one (nanoseconds, or what the step
itself measures), `drop` forgets it, `quit` ends. Answers have `"error"` instead when something raised, `"unavailable"`
when the peer can't do this here. The library's own output goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from .peers import OURS, PEERS
from .workload import Difference, Loop, Step, Unavailable, Workload

__all__ = ["Runner", "main"]


class Runner:
    """One step, run once, and how often to repeat it so that a timing lasts as long as asked for."""

    def __init__(self, workload: Workload, peer: str) -> None:
        built = workload.build(peer)
        steps = list(built) if isinstance(built, Difference) else [built]
        self.parts = [step.run if isinstance(step, Loop) else _repeated(step) for step in steps]
        self.repeats: list[int | None] = [1 if workload.once else None] * len(self.parts)
        self.measures = workload.unit != "ns"
        self.last, *_ = [part(1) for part in self.parts]

    def check(self, steps: int) -> float | None:
        """The number the last of `steps` further steps returns; of none, the first step's."""
        if steps:
            self.last = self.parts[0](steps)
        return None if self.last is None else float(self.last.item() if hasattr(self.last, "item") else self.last)

    def time(self, seconds: float) -> float:
        """Nanoseconds of one step (of its difference to the baseline), the mean over about `seconds`; or what a step
        returns, if that is what the workload measures."""
        if self.measures:
            return float(self.parts[0](1))
        times = [self._time_part(i, seconds) for i in range(len(self.parts))]
        return times[0] - sum(times[1:])

    def _time_part(self, i: int, seconds: float) -> float:
        repeats = self.repeats[i]
        if repeats is None:
            repeats, elapsed = 1, _time(self.parts[i], 1)
            while elapsed < 0.2e9 * seconds:
                repeats *= 2
                elapsed = _time(self.parts[i], repeats)
            repeats = self.repeats[i] = max(1, round(repeats * 1e9 * seconds / elapsed))
        return _time(self.parts[i], repeats) / repeats


def _repeated(step: Step) -> Callable[[int], Any]:
    def run(repeats: int) -> Any:
        for _ in range(repeats - 1):
            step()
        return step()

    return run


def _time(run: Callable[[int], Any], repeats: int) -> int:
    start = time.perf_counter_ns()
    run(repeats)
    return time.perf_counter_ns() - start


class _Worker:
    def __init__(self) -> None:
        self.runner: Runner | None = None

    def build(self, workload: str, peer: str) -> dict[str, Any]:
        from .registry import every

        if peer in OURS and "BENCHMARK_THREADS" in os.environ:
            importlib.import_module("fastgrad").set_num_threads(int(os.environ["BENCHMARK_THREADS"]))
        for name in PEERS[peer].needs:
            importlib.import_module(name)  # "first" is without imports, which `startup` measures
        start = time.perf_counter()
        self.runner = Runner(every()[workload], peer)
        return {"seconds": time.perf_counter() - start}

    def check(self, steps: int) -> dict[str, Any]:
        assert self.runner is not None
        answer = {"value": self.runner.check(steps)}
        if (
            "fastgrad.kernels.background" in sys.modules
        ):  # its loops are compiled in another process, which would use the other core
            repeats = list(self.runner.repeats)
            self.runner.time(0.2)
            sys.modules["fastgrad.kernels.background"].wait()
            self.runner.repeats = repeats  # those calls compiled machine code of their own
        return answer

    def time(self, seconds: float) -> dict[str, Any]:
        assert self.runner is not None
        return {"amount": self.runner.time(seconds)}

    def drop(self) -> dict[str, Any]:
        self.runner = None
        gc.collect()
        return {}

    def version(self, names: list[str]) -> dict[str, Any]:
        found = {name: getattr(importlib.import_module(name), "__version__", None) for name in names}
        return {name: version or importlib.metadata.version(name) for name, version in found.items()}


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
        except Unavailable as error:
            answer = {"unavailable": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
