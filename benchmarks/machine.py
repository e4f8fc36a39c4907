"""What the times were measured on: processor, cores, memory, system, and the versions of all that took part."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

from .runner import Pool, cores

__all__ = ["describe"]


def _processor() -> str:
    """The name the system has for it; platform.processor() is empty or an architecture on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _features() -> str:
    """The widest vectors the processor has."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ""
    return next((f" ({label})" for name, label in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if name in flags), "")


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, OSError, ValueError):
        return "unknown"


def describe(pool: Pool) -> dict[str, Any]:
    """Facts, and `lines` to print; `load` is the system's load before anything was measured."""
    versions = pool.versions()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    lines = [
        f"{_processor()}{_features()}, {cores()} cores, {_memory()} of memory; {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{datetime.date.today().isoformat()}, load at the start {load:.2f}",
    ]
    if load > 0.5:
        lines.append("The machine was busy with other things: ratios are uncertain, times are too long.")
    return {"lines": lines, "versions": versions, "cores": cores(), "load": load}
