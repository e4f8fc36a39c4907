"""Measures workloads: one worker process per peer and number of threads, timed in turns, medians taken.

Turns matter: a machine that slows down for a second slows all peers alike. Every peer is warmed up and checked against
the others first. A peer that can use threads is tried with one and, where a step takes longer than a parallel region is
worth, with all of them, and measured with the better. With fresh caches every peer has empty cache directories of its
own, so that its first call on a workload is one that nothing on disk helps, but what its own earlier workloads left.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from .peers import PEERS, ROOT, environment
from .workload import Workload

# Nanoseconds of a step below which all cores are not tried: waking them costs as much.
_WORTH_THREADS = 100_000

__all__ = ["Measurement", "Pool", "Result", "Settings", "cores", "measure"]


@dataclass(frozen=True)
class Settings:
    """How long to measure: `rounds` turns of `seconds` each, but fewer if the slowest peer would need more than `limit`
    seconds (three are the least); `threads`: whether to try several numbers of threads."""

    rounds: int = 15
    seconds: float = 0.05
    limit: float = 10.0
    threads: bool = True


@dataclass
class Measurement:
    """One peer on one workload; times in nanoseconds, of one step divided by the workload's count (or other amounts, in
    the workload's unit). `first` is the seconds of building and the first step."""

    peer: str
    times: list[float] = field(default_factory=list)
    first: float = math.nan
    threads: int | None = None
    value: float | None = None
    error: str = ""
    skipped: str = ""
    trial: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.times) if self.times else math.nan

    @property
    def best(self) -> float:
        """The shortest time: what is left when nothing else runs on the machine."""
        return min(self.times, default=math.nan)


@dataclass
class Result:
    workload: Workload
    measurements: dict[str, Measurement]

    def medians(self) -> dict[str, float]:
        """The medians of the peers that were measured."""
        return {key: m.median for key, m in self.measurements.items() if m.times}

    def as_json(self) -> dict[str, Any]:
        """Names, and all times."""
        return {"workload": self.workload.name, "peers": {key: asdict(m) for key, m in self.measurements.items()}}

    @staticmethod
    def from_json(data: dict[str, Any], workload: Workload) -> Result:
        """What `as_json` wrote."""
        return Result(workload, {key: Measurement(**fields) for key, fields in data["peers"].items()})


class WorkerError(Exception):
    pass


class _Skip(Exception):
    pass


class _Process:
    """The near end of a worker."""

    def __init__(self, python: str, threads: int | None, caches: str | None, log: Any) -> None:
        self.process = subprocess.Popen(
            [python, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=environment(threads, caches),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        try:
            print(json.dumps(request), file=stdin, flush=True)
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"the worker died (exit status {self.process.wait()})")
        answer = json.loads(line)
        if "unavailable" in answer:
            raise _Skip(answer["unavailable"])
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()  # closes the pipes


class Pool:
    """Workers by interpreter, peer and threads, started when first asked for."""

    def __init__(self, pythons: dict[str, str], log: Any = subprocess.DEVNULL, fresh_caches: bool = False) -> None:
        self.pythons = pythons
        self.log = log
        self.caches = tempfile.TemporaryDirectory(prefix="benchmarks-") if fresh_caches else None
        self.running: dict[tuple[str, int | None], _Process] = {}

    def get(self, peer: str, threads: int | None) -> _Process:
        key = (peer, threads)
        if key not in self.running or self.running[key].process.poll() is not None:
            caches = os.path.join(self.caches.name, peer) if self.caches else None
            if caches:
                os.makedirs(caches, exist_ok=True)
            self.running[key] = _Process(self.pythons[peer], threads, caches, self.log)
        return self.running[key]

    def versions(self) -> dict[str, str]:
        """The version of each module that the peers need."""
        found: dict[str, str] = {}
        for peer in self.pythons:
            found |= self.get(peer, None).ask(do="version", names=PEERS[peer].needs)
        return found

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.running.values():
            process.close()
        self.running.clear()
        if self.caches:
            self.caches.cleanup()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def measure(
    workload: Workload,
    peers: Iterable[str],
    pool: Pool,
    settings: Settings,
    tell: Callable[[str], None] = lambda text: None,
) -> Result:
    """Prepare every peer, check that they agree, and time them in turns."""
    measurements = {peer: Measurement(peer) for peer in peers}
    for peer, measurement in measurements.items():
        tell(f"{workload.name}: {PEERS[peer].label}")
        try:
            _prepare(workload, measurement, pool, settings)
        except _Skip as reason:
            measurement.skipped = str(reason)
        except WorkerError as error:
            measurement.error = str(error)
    _compare(workload, measurements)
    ready = [m for m in measurements.values() if not m.error and not m.skipped]
    slowest = max((m.trial for m in ready), default=0.0)
    turns = min(settings.rounds, max(3, int(settings.limit / max(slowest, settings.seconds))))
    for turn in range(turns):
        tell(f"{workload.name}: turn {turn + 1} of {turns}")
        for i in range(len(ready)):
            measurement = ready[(i + turn) % len(ready)]
            time.sleep(0.002)  # let the pool of the peer before fall asleep
            if measurement.error:
                continue
            try:
                measurement.times.append(_time(workload, measurement, pool, settings.seconds))
            except WorkerError as error:
                measurement.error = str(error)
    for measurement in ready:
        if not measurement.error:
            pool.get(measurement.peer, measurement.threads).ask(do="drop")
    return Result(workload, measurements)


def _time(workload: Workload, measurement: Measurement, pool: Pool, seconds: float) -> float:
    answer = pool.get(measurement.peer, measurement.threads).ask(do="time", seconds=seconds)
    return answer["amount"] / workload.count


def _prepare(workload: Workload, measurement: Measurement, pool: Pool, settings: Settings) -> None:
    """Build with every number of threads worth trying, and keep the fastest; the first call is that of the first."""
    several = settings.threads and PEERS[measurement.peer].threads and cores() > 1 and not workload.once
    best = math.inf
    kept: int | None = None
    for threads in (1, cores()) if several else (None,):
        if best < _WORTH_THREADS:
            break
        worker = pool.get(measurement.peer, threads)
        first = worker.ask(do="build", workload=workload.name, peer=measurement.peer)["seconds"]
        value = worker.ask(do="check", steps=0 if workload.once else 2)["value"]
        if workload.once:
            elapsed = first * 1e9
        else:
            elapsed = min(worker.ask(do="time", seconds=settings.seconds)["amount"] for _ in range(4))
        if math.isnan(measurement.first):
            measurement.first = first
        if elapsed < best:
            if best < math.inf:
                pool.get(measurement.peer, kept).ask(do="drop")
            best, kept = elapsed, threads
            measurement.value, measurement.threads = value, threads
            measurement.trial = max(elapsed * 1e-9, settings.seconds)
        else:
            worker.ask(do="drop")


def _compare(workload: Workload, measurements: dict[str, Measurement]) -> None:
    """A peer whose number is not that of most peers is told so, and not timed."""
    values = {m.peer: m.value for m in measurements.values() if m.value is not None and not m.error}
    if workload.tolerance is None or len(values) < 2:
        return
    middle = statistics.median_low(values.values())
    for peer, value in values.items():
        if not abs(value - middle) <= workload.tolerance * abs(middle):
            measurements[peer].error = f"disagrees: {value!r}, others {middle!r}"
