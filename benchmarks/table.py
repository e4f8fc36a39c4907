"""Results as text, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable

from .peers import OURS, PEERS
from .runner import Measurement, Result

__all__ = ["as_json", "as_markdown", "as_text", "duration"]


def duration(nanoseconds: float) -> str:
    """Three digits and a unit.

    >>> duration(1234.5), duration(98.76), duration(2.5e9)
    ('1.23 µs', '98.8 ns', '2.50 s')
    """
    if math.isnan(nanoseconds):
        return "-"
    value, unit = nanoseconds, "ns"
    for larger in ("µs", "ms", "s"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    digits = max(0, 2 - math.floor(math.log10(max(abs(value), 1e-2) * 1.0005)))
    return f"{value:.{min(digits, 2)}f} {unit}"


def reference(result: Result) -> Measurement | None:
    """What ratios are taken to: fastgrad at its best, else the fastest."""
    measured = [m for m in result.measurements.values() if m.times]
    ours = [m for m in measured if m.peer in OURS]
    return min(ours or measured, key=lambda m: m.median, default=None)


def as_text(result: Result) -> str:
    """A block of lines, the fastest peer first; the ratio is to fastgrad's best, above 1 where fastgrad is faster."""
    lines = [result.workload.name]
    base = reference(result)
    measured = sorted((m for m in result.measurements.values() if m.times), key=lambda m: m.median)
    for m in measured:
        assert base is not None
        threads = f"{m.threads} thread{'s' * (m.threads > 1)}" if m.threads else ""
        lines.append(
            f"  {PEERS[m.peer].label:22}{duration(m.median):>10}   best {duration(m.best):>8}"
            f"{m.median / base.median:11.2f} x   first {m.first:6.2f} s   {threads}".rstrip()
        )
    lines += [f"  {PEERS[m.peer].label:22}{m.error}" for m in result.measurements.values() if m.error]
    return "\n".join(lines)


def as_markdown(results: Iterable[Result]) -> str:
    """One table: a row for each workload, a column for each peer that was measured."""
    results = list(results)
    columns = [key for key in PEERS if any(r.measurements[key].times for r in results if key in r.measurements)]
    rows = [["workload", *(PEERS[key].label for key in columns)], ["---"] * (len(columns) + 1)]
    for result in results:
        cells = [result.measurements.get(key) for key in columns]
        rows.append([result.workload.name, *(duration(c.median) if c and c.times else "" for c in cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_json(results: Iterable[Result]) -> str:
    """Everything, for a file."""
    machine = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    return json.dumps({"machine": machine, "results": [result.as_json() for result in results]}, indent=1)
