"""Results as text, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .goals import best_peer
from .peers import OURS, PEERS
from .runner import Measurement, Result
from .units import amount

__all__ = ["as_json", "as_markdown", "as_text", "first_calls", "goals", "load", "ratios"]


def reference(result: Result) -> Measurement | None:
    """What a line's ratio is taken to: fastgrad at its best, else the best there is."""
    measured = [m for m in result.measurements.values() if m.times]
    ours = [m for m in measured if m.peer in OURS]
    return min(ours or measured, key=lambda m: m.median, default=None)


def ratios(result: Result) -> list[tuple[str, float]]:
    """The ratios that matter, above 1 where fastgrad is better but for those to code by hand, where 1 is the limit."""
    medians = result.medians()
    best = best_peer(medians)
    pairs = [
        (best, "fastgrad_compiled", f"best peer ({PEERS[best].label}) / fastgrad.compile" if best else ""),
        ("fastgrad_loop", "numba_by_hand", "step.loop / Numba by hand, one call a step"),
        ("fastgrad_loop", "numba_loop", "step.loop / Numba by hand, all steps in one call"),
        ("fastgrad_compiled", "numba_by_hand", "fastgrad.compile / Numba by hand"),
        ("torch_eager", "fastgrad_plain", "PyTorch eager / plain loop"),
    ]
    return [
        (label, medians[over] / medians[under]) for over, under, label in pairs if over in medians and under in medians
    ]


def as_text(result: Result) -> str:
    """A block of lines, the best peer first; the ratio is to fastgrad's best, above 1 where fastgrad is better."""
    unit = result.workload.unit
    lines = [result.workload.name]
    base = reference(result)
    for m in sorted((m for m in result.measurements.values() if m.times), key=lambda m: m.median):
        assert base is not None
        threads = f"{m.threads} thread{'s' * (m.threads > 1)}" if m.threads else ""
        lines.append(
            f"  {PEERS[m.peer].label:22}{amount(m.median, unit):>10}   best {amount(m.best, unit):>8}"
            f"{m.median / base.median:11.2f} x   first {m.first:6.2f} s   {threads}".rstrip()
        )
    for m in result.measurements.values():
        if m.error or m.skipped:
            lines.append(f"  {PEERS[m.peer].label:22}{m.error or f'skipped: {m.skipped}'}")
    lines += [f"  - {label}: {ratio:.2f}" for label, ratio in ratios(result)]
    for goal in result.workload.goals:
        verdict = {True: "reached", False: "MISSED", None: "not measured"}[goal.met(result.medians())]
        lines.append(f"  * {goal.describe(unit)}: {verdict} {goal.reached(result.medians(), unit)}".rstrip())
    return "\n".join(lines)


def as_markdown(results: Iterable[Result]) -> str:
    """One table: a row for each workload, a column for each peer that was measured, and the ratios."""
    results = list(results)
    columns = [key for key in PEERS if any(r.measurements[key].times for r in results if key in r.measurements)]
    head = ["workload", *(PEERS[key].label for key in columns), "best peer / compile", "PyTorch / plain"]
    rows = []
    for result in results:
        medians, unit = result.medians(), result.workload.unit
        compared = [_ratio(medians, best_peer(medians), "fastgrad_compiled")]
        compared.append(_ratio(medians, "torch_eager", "fastgrad_plain"))
        cells = [amount(medians[key], unit) if key in medians else "" for key in columns]
        rows.append([result.workload.name, *cells, *compared])
    return _markdown(head, rows)


def goals(results: Iterable[Result]) -> str:
    """A row for each goal: what was wanted, what was measured."""
    rows = []
    for result in results:
        for goal in result.workload.goals:
            medians, unit = result.medians(), result.workload.unit
            met = {True: "yes", False: "**no**", None: "not measured"}[goal.met(medians)]
            rows.append([result.workload.name, goal.describe(unit), goal.reached(medians, unit), met])
    return _markdown(["workload", "goal", "measured", "reached"], rows)


def first_calls(results: Iterable[Result]) -> str:
    """Like `as_markdown`, for the seconds from nothing to the end of the first step."""
    results = list(results)
    columns = [key for key in PEERS if any(r.measurements[key].times for r in results if key in r.measurements)]
    rows = []
    for result in results:
        found = [result.measurements.get(key) for key in columns]
        rows.append([result.workload.name, *(amount(m.first * 1e9) if m and m.times else "" for m in found)])
    return _markdown(["workload", *(PEERS[key].label for key in columns)], rows)


def as_json(results: Iterable[Result], machine: dict[str, Any]) -> str:
    """Everything, for a file."""
    data = {"machine": machine, "results": [result.as_json() for result in results]}
    return json.dumps(_rounded(data), indent=None, separators=(",", ":")).replace('{"workload"', '\n{"workload"') + "\n"


def load(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """The machine and the results of a file that `as_json` wrote; workloads that are no more are left out."""
    from .registry import every

    data = json.loads(path.read_text())
    known = every()
    kept = [r for r in data["results"] if r["workload"] in known]
    return data["machine"], [Result.from_json(r, known[r["workload"]]) for r in kept]


def _ratio(medians: dict[str, float], over: str | None, under: str) -> str:
    return f"{medians[over] / medians[under]:.2f} x" if over in medians and under in medians else ""


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _rounded(data: Any) -> Any:
    """Five digits are more than a clock is worth."""
    if isinstance(data, float):
        return float(f"{data:.5g}")
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    return [_rounded(value) for value in data] if isinstance(data, list) else data
