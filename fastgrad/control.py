"""Switches and windows: run at once, number of threads, counters, the tape as a table."""

from __future__ import annotations

import os
from typing import Any

from . import recording as tape
from .kernels import build, entrance, pool
from .tensor import Tensor


class eager:
    """Run every operation at once, for debugging; results are bitwise the same.

    >>> with fastgrad.eager():
    ...     y = fastgrad.ones(2) + 1
    """

    def __enter__(self) -> eager:
        tr = tape.local.trace
        tape.flush(tr)
        self._previous = tr.eager
        tr.eager = True
        tr.reset()
        return self

    def __exit__(self, *exception: Any) -> None:
        tr = tape.local.trace
        tr.eager = self._previous
        if exception[0] is None:
            tape.flush(tr)
        tr.reset()


def set_num_threads(n: int) -> None:
    """Set how many threads a sweep may use for large work. Results have the same bits whatever the number.

    >>> before = fastgrad.get_num_threads()
    >>> fastgrad.set_num_threads(1)
    >>> fastgrad.get_num_threads()
    1
    >>> fastgrad.set_num_threads(before)
    """
    if not isinstance(n, int) or n < 1:
        raise RuntimeError("set_num_threads expects a positive integer")
    pool.set_threads(n)


def get_num_threads() -> int:
    """How many threads a sweep may use for large work: at first, as many as there are CPUs for this process."""
    return pool.threads()


def stats() -> dict[str, int]:
    """Counters since the process began.

    `missed` entries recorded in a new place, `planned` programs made, `runs` of programs, `foreign runs` for a value that
    another thread or a guard asked for, `kernels compiled` and `kernels loaded`.
    """
    runs = tape.statistics["runs"] + entrance.runs[0]
    return {**tape.statistics, "runs": runs, **build.counters}


def tape_table(t: Tensor) -> str:
    """The tape a pending tensor stands on, as a table of entries: slot, operation, operands, shape, dtype, user's line."""
    tape.unfold(tape.local.trace)
    meta = t._meta
    if isinstance(meta, tape.Signature):
        if t._origin is None:
            return "a leaf: no tape"
        entries = t._origin[0].entries
        last = t._origin[1]
    else:
        entries = tape.local.trace.entries()
        last = meta.slot
    rows = [("slot", "operation", "operands", "shape", "dtype", "grad", "attributes", "line")]
    for node in entries[: last + 1]:
        line = f"{os.path.basename(node.line[0])}:{node.line[1]}" if node.line else ""
        attrs = "" if node.attrs is None else str(node.attrs)
        rows.append(
            (str(node.slot), node.op.name, " ".join(map(str, node.operands)), str(list(node.shape)), node.dtype.name,
             "yes" if node.requires_grad else "", attrs, line)
        )  # fmt: skip
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
