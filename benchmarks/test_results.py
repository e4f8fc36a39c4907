"""What becomes of measured times: goals, ratios, tables, the page; and a run of workers that is small enough for a test."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from . import report, runner, table
from .goals import best_peer, faster, near, within
from .peers import FLOORS, OURS, PEERS, ROOT, cache_variables
from .registry import WORKLOADS, every
from .runner import Measurement, Pool, Result, Settings
from .scaling import SERIES
from .units import amount
from .workload import Workload

MEDIANS = {"fastgrad_compiled": 2000.0, "casadi": 5000.0, "torch_eager": 60_000.0, "numba_by_hand": 500.0}
MACHINE = {"lines": ["two cores"], "versions": {}, "cores": 2, "load": 0.0}


def _result(workload: Workload, medians: dict[str, float] = MEDIANS) -> Result:
    return Result(
        workload, {key: Measurement(key, [value] * 3, first=1.5, value=1.0) for key, value in medians.items()}
    )


def test_best_peer_is_a_library_and_neither_fastgrad_nor_code_by_hand() -> None:
    assert best_peer(MEDIANS) == "casadi"
    assert best_peer({key: 1.0 for key in (*OURS, *FLOORS)}) is None


@pytest.mark.parametrize(
    "goal, met, description, reached",
    [
        (faster("fastgrad_compiled", 4), False, "fastgrad.compile 4 x as fast as best peer", "2.5 x as fast (CasADi (SX))"),
        (faster("fastgrad_compiled", 2.5), True, "fastgrad.compile 2.5 x as fast as best peer", "2.5 x as fast (CasADi (SX))"),
        (faster("fastgrad_compiled", 40, "torch_eager"), False, "fastgrad.compile 40 x as fast as PyTorch eager", "30 x as fast"),
        (near("fastgrad_compiled", 4, "numba_by_hand"), True, "fastgrad.compile ≤ 4 x Numba by hand", "4 x"),
        (within("fastgrad_compiled", 1200), False, "fastgrad.compile ≤ 1.20 µs", "2.00 µs"),
        (within("fastgrad_loop", 1200), None, "fastgrad, step.loop ≤ 1.20 µs", ""),
    ],
)  # fmt: skip
def test_goals(goal, met, description, reached) -> None:
    assert goal.met(MEDIANS) is met
    assert goal.describe() == description
    assert goal.reached(MEDIANS) == reached


def test_goals_name_peers_that_are_measured() -> None:
    for workload in WORKLOADS.values():
        for goal in workload.goals:
            assert goal.mode in workload.peers(), workload.name
            assert goal.against in (None, "best peer", *workload.peers()), workload.name


def test_amounts_have_three_digits() -> None:
    assert [amount(v) for v in (0.5, 999.6, 1e6, math.nan)] == ["0.50 ns", "1.00 µs", "1.00 ms", "-"]
    assert amount(1536, "B") == "1.50 KiB"


def test_text_and_markdown_show_medians_ratios_and_goals() -> None:
    result = _result(WORKLOADS["linear regression 64x8 float32"])
    result.measurements["fastgrad_loop"] = Measurement("fastgrad_loop", skipped="not here")
    text = table.as_text(result)
    assert "skipped: not here" in text
    assert "best peer (CasADi (SX)) / fastgrad.compile: 2.50" in text
    assert "fastgrad.compile ≤ 1.20 µs: MISSED 2.00 µs" in text
    assert "PyTorch eager" in table.as_markdown([result]) and "2.50 x" in table.as_markdown([result])
    assert table.goals([result]).count("**no**") == 2


def test_results_survive_a_file(tmp_path: Path) -> None:
    result = _result(next(iter(SERIES[0].points.values())))
    (tmp_path / "times.json").write_text(table.as_json([result], MACHINE))
    machine, [again] = table.load(tmp_path / "times.json")
    assert machine == MACHINE
    assert again.workload == result.workload
    assert again.medians() == MEDIANS


def test_names_of_workloads_are_unique_and_points_are_the_table_s_where_they_are_in_it() -> None:
    assert all(name == workload.name for name, workload in every().items())
    for series in SERIES:
        assert len({w.name for w in series.points.values()}) == len(series.points)
        for workload in series.points.values():
            listed = WORKLOADS.get(workload.name, workload)
            assert (listed.module, dict(listed.arguments)) == (workload.module, dict(workload.arguments))


def test_the_page_and_its_plots_are_written_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "benchmarks.md").write_text((ROOT / "docs" / "benchmarks.md").read_text())
    times = tmp_path / "times.json"
    results = [_result(w) for w in WORKLOADS.values()] + [_result(w) for s in SERIES for w in s.points.values()]
    times.write_text(table.as_json(results, MACHINE))
    text = report.write(times, tmp_path).read_text()
    assert "- two cores" in text
    assert "| linear regression 64x8 float32 | fastgrad.compile ≤ 1.20 µs | 2.00 µs | **no** |" in text
    assert {p.name for p in (tmp_path / "benchmarks").glob("*.png")} == {f"{series.key}.png" for series in SERIES}
    assert report.write(times, tmp_path).read_text() == text


def test_a_page_without_its_marks_is_refused_before_and_after_measuring(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report.check(ROOT / "docs")
    with pytest.raises(FileNotFoundError):
        report.check(tmp_path)
    (tmp_path / "benchmarks.md").write_text("nothing")
    (tmp_path / "times.json").write_text(table.as_json([_result(next(iter(WORKLOADS.values())))], MACHINE))
    with pytest.raises(ValueError, match="<!-- begin machine -->"):
        report.check(tmp_path)
    with pytest.raises(ValueError, match="<!-- begin machine -->"):
        report.write(tmp_path / "times.json", tmp_path)


def _measure(workload: Workload, *peers: str, fresh: bool = False) -> Result:
    with Pool({peer: sys.executable for peer in peers}, subprocess.DEVNULL, fresh) as pool:
        return runner.measure(workload, peers, pool, Settings(3, 0.002, threads=False))


def test_workers_measure_and_report_what_they_cannot_do() -> None:
    fastgrad = pytest.importorskip("fastgrad")
    result = _measure(WORKLOADS["linear regression 64x8 float64"], "fastgrad_plain", "numpy_by_hand", "fastgrad_loop")
    assert all(len(result.measurements[peer].times) == 3 for peer in ("fastgrad_plain", "numpy_by_hand"))
    loop = result.measurements["fastgrad_loop"]
    assert not loop.error
    assert bool(loop.times) is hasattr(fastgrad.compile(lambda: None), "loop")
    assert bool(loop.skipped) is not bool(loop.times)


def test_workers_know_the_points_of_plots() -> None:
    for series in SERIES:
        workload = next(w for w in series.points.values() if w.name not in WORKLOADS)
        peer = next(peer for peer in ("numpy_by_hand", "fastgrad_plain") if peer in workload.peers())
        assert not _measure(workload, peer).measurements[peer].error


def test_a_peer_that_disagrees_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    measurements = {key: Measurement(key, value=value) for key, value in (("a", 1.0), ("b", 1.0), ("c", 1.1))}
    runner._compare(Workload("", "", tolerance=1e-3), measurements)
    assert [m.error.partition(":")[0] for m in measurements.values()] == ["", "", "disagrees"]


def test_fresh_caches_are_each_worker_s_own_and_go_away(tmp_path: Path) -> None:
    with Pool({"numpy_by_hand": sys.executable}, subprocess.DEVNULL, fresh_caches=True) as pool:
        assert pool.caches is not None
        directory = Path(pool.caches.name)
        pool.get("numpy_by_hand", None)
        assert (directory / "numpy_by_hand").is_dir()
    assert not directory.exists()
    assert all(str(tmp_path) in value for name, value in cache_variables(str(tmp_path)).items() if "DIR" in name)


def test_every_peer_has_a_workload() -> None:
    assert set(PEERS) == {peer for workload in WORKLOADS.values() for peer in workload.peers()}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux only")
def test_memory_of_a_step_holds_at_least_parameters_and_gradients() -> None:
    workload = WORKLOADS["peak memory, 784-512-512-10, batch 256, SGD: training step"]
    step = workload.build("numpy_by_hand")
    assert callable(step)
    parameters = 4 * (784 * 512 + 512 * 512 + 512 * 10)
    assert 2 * parameters < step() < 40 * parameters
