"""The page of a run: `python -m benchmarks.report docs/benchmarks/times.json docs` writes docs/benchmarks.md and plots.

The page is written by people but for the parts between `<!-- begin NAME -->` and `<!-- end NAME -->`, which are exchanged.
`python -m benchmarks --report docs` measures first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .plots import draw, import_matplotlib
from .registry import WORKLOADS
from .runner import Result
from .table import as_markdown, first_calls, goals, load

__all__ = ["check", "parts", "write"]


def parts(machine: dict[str, Any], results: list[Result]) -> dict[str, str]:
    """The measured parts of the page, by name."""
    table = [r for r in results if r.workload.name in WORKLOADS]
    steps = [r for r in table if not r.workload.once or r.workload.count > 1]
    processes = [r for r in table if r.workload.once and r.workload.count == 1]
    return {
        "machine": "\n".join(f"- {line}" for line in machine["lines"]),
        "goals": goals(table),
        "times": as_markdown(steps),
        "processes": as_markdown(processes),
        "first calls": first_calls([r for r in steps if r.workload.count == 1]),
        "left out": _left_out(table),
    }


def _left_out(results: list[Result]) -> str:
    """Peers that could not be measured, and why."""
    lines = [
        f"- {result.workload.name}: {m.peer}: {m.error or m.skipped}"
        for result in results
        for m in result.measurements.values()
        if m.error or m.skipped
    ]
    return "\n".join(lines) or "Nobody."


def check(directory: Path) -> None:
    """Raise what `write` would raise, before the time for measuring is spent."""
    import_matplotlib()
    _exchange(directory / "benchmarks.md", parts({"lines": []}, []))


def write(times: Path, directory: Path) -> Path:
    """Exchange the measured parts of `directory`/benchmarks.md and draw its plots, from the file `times`."""
    page = directory / "benchmarks.md"
    machine, results = load(times)
    page.write_text(_exchange(page, parts(machine, results)))
    draw(results, directory / "benchmarks")
    return page


def _exchange(page: Path, new: dict[str, str]) -> str:
    """The text of the page with new parts."""
    text = page.read_text()
    for name, part in new.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        head, found, tail = text.partition(begin)
        _, closed, tail = tail.partition(end)
        if not found or not closed:
            raise ValueError(f"{page} has no part between {begin.strip()} and {end}")
        text = f"{head}{begin}\n{part}\n\n{end}{tail}"
    return text


def main() -> None:
    """Write the page from a file of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("times", type=Path, help="what --json or --report wrote")
    parser.add_argument("directory", type=Path, help="where benchmarks.md is")
    arguments = parser.parse_args()
    print(write(arguments.times, arguments.directory))


if __name__ == "__main__":
    main()
