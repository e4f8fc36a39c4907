"""The workloads under pytest-benchmark: fastgrad and the peers of this environment, in one process.

`pytest benchmarks --benchmark-only` compares them quickly, a group for each workload with a goal; without the flag every
step of the small ones runs, and the peers must agree. `-k` chooses by name. No test is about a time: the table of
`python -m benchmarks` measures better, as there every peer has a process of its own, and says which goals are reached.
"""

import importlib.util
import statistics

import pytest

from .peers import OURS, PEERS
from .registry import WORKLOADS
from .worker import Runner
from .workload import Difference, Loop, Unavailable, Workload

pytestmark = pytest.mark.filterwarnings("ignore")

# Steps of a loop in one call: enough that the call is a small part.
_STEPS = 100


def _installed(peer: str) -> bool:
    return all(importlib.util.find_spec(name) for name in PEERS[peer].needs)


def _peers(workload: Workload) -> list[str]:
    return [peer for peer in workload.peers() if _installed(peer) and not PEERS[peer].slow]


_QUICK = [workload for workload in WORKLOADS.values() if workload.quick]
_EACH = [(w, peer) for w in WORKLOADS.values() if w.quick or w.goals for peer in _peers(w)]


@pytest.mark.parametrize("workload", _QUICK, ids=lambda workload: workload.name)
def test_peers_agree(workload: Workload) -> None:
    values = {}
    for peer in _peers(workload):
        try:
            values[peer] = Runner(workload, peer).check(steps=2)
        except Unavailable:
            continue
    middle = statistics.median_low([value for value in values.values() if value is not None])
    for peer, value in values.items():
        assert value == pytest.approx(middle, rel=workload.tolerance), peer


@pytest.mark.benchmark(max_time=0.2, min_rounds=3)
@pytest.mark.parametrize(
    "workload, peer", _EACH, ids=[f"{workload.name}-{PEERS[peer].label}" for workload, peer in _EACH]
)
def test_step(benchmark, workload: Workload, peer: str) -> None:
    if not benchmark.enabled and (peer not in OURS or not workload.quick):
        pytest.skip("measured with --benchmark-only")
    claims = ", ".join(goal.describe(workload.unit) for goal in workload.goals)
    benchmark.group = f"{workload.name} (goal: {claims})" if claims else workload.name
    try:
        built = workload.build(peer)
    except Unavailable as reason:
        pytest.skip(str(reason))
    if isinstance(built, Loop):
        benchmark.group = f"{workload.name}, {_STEPS} steps in one call"
        built.run(_STEPS)
        benchmark(built.run, _STEPS)
    elif workload.once:
        value = benchmark.pedantic(built)
        if workload.unit == "B":
            benchmark.extra_info["bytes"] = value
    else:
        step = built.step if isinstance(built, Difference) else built
        step()
        benchmark(step)
