"""The workloads under pytest-benchmark: fastgrad and the peers of this environment, in one process.

`pytest benchmarks --benchmark-enable` compares them; without the flag every step runs once, and the peers must agree.
`-k` chooses by name. The table of `python -m benchmarks` measures better: there every peer has a process of its own.
"""

import importlib.util
import statistics

import pytest

from .peers import OURS, PEERS
from .registry import WORKLOADS
from .worker import Runner
from .workload import Difference, Workload

pytestmark = pytest.mark.filterwarnings("ignore")


def _installed(peer: str) -> bool:
    return all(importlib.util.find_spec(name) for name in PEERS[peer].needs)


def _peers(workload: Workload) -> list[str]:
    return [peer for peer in workload.peers() if _installed(peer) and not PEERS[peer].optional]


_QUICK = [workload for workload in WORKLOADS.values() if workload.quick]
_EACH = [(workload, peer) for workload in WORKLOADS.values() for peer in _peers(workload)]


@pytest.mark.parametrize("workload", _QUICK, ids=lambda workload: workload.name)
def test_peers_agree(workload: Workload) -> None:
    values = {peer: Runner(workload.build(peer)).check(steps=3) for peer in _peers(workload)}
    middle = statistics.median_low([value for value in values.values() if value is not None])
    for peer, value in values.items():
        assert value == pytest.approx(middle, rel=workload.tolerance), peer


@pytest.mark.parametrize(
    "workload, peer", _EACH, ids=[f"{workload.name}-{PEERS[peer].label}" for workload, peer in _EACH]
)
def test_step(benchmark, workload: Workload, peer: str) -> None:
    if not benchmark.enabled and (peer not in OURS or not workload.quick):
        pytest.skip("measured with --benchmark-enable only")
    benchmark.group = workload.name
    built = workload.build(peer)
    step = built.step if isinstance(built, Difference) else built
    step()
    benchmark(step)
