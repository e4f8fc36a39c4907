"""Plots of time over size, from a file of results: `python -m benchmarks.plots docs/benchmarks/times.json docs/benchmarks`.

One PNG for each series of scaling.py: both axes logarithmic, a line for each peer, in the same colour in all plots.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .peers import PEERS
from .runner import Result
from .scaling import SERIES, Series
from .table import load
from .units import amount

__all__ = ["draw", "import_matplotlib"]

# fastgrad in blues and thick, code by hand in greys, libraries in colours that are told apart without red and green.
_STYLES: dict[str, dict[str, Any]] = {
    "fastgrad_compiled": {"color": "#0b4f9e", "linewidth": 2.6, "zorder": 5},
    "fastgrad_plain": {"color": "#4f9be8", "linewidth": 2.6, "zorder": 4},
    "fastgrad_loop": {"color": "#0b4f9e", "linewidth": 2.0, "linestyle": (0, (1, 1)), "zorder": 5},
    "numba_by_hand": {"color": "#555555", "linestyle": "--"},
    "numba_loop": {"color": "#555555", "linestyle": ":"},
    "numpy_by_hand": {"color": "#a0a0a0", "linestyle": "--"},
    "pytensor": {"color": "#1b8a6b"},
    "casadi": {"color": "#8c5a2b"},
    "drjit": {"color": "#b5a000"},
    "jax_jit": {"color": "#8452b8"},
    "torch_eager": {"color": "#e0701f"},
    "torch_compiled": {"color": "#e0701f", "linestyle": "-."},
    "hips_autograd": {"color": "#d46aa6"},
}
_POINT: dict[str, Any] = {"color": "#777777", "linewidth": 1.6, "marker": "o", "markersize": 3.5}


def import_matplotlib() -> None:
    """Load it, for files and no window."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install -e '.[plot]'") from error
    matplotlib.use("Agg")


def draw(results: list[Result], directory: Path) -> list[Path]:
    """Write a PNG for each series that has been measured; returns the files."""
    import_matplotlib()
    directory.mkdir(parents=True, exist_ok=True)
    medians = {result.workload.name: result.medians() for result in results}
    return [path for series in SERIES if (path := _draw_series(series, medians, directory))]


def _draw_series(series: Series, medians: dict[str, dict[str, float]], directory: Path) -> Path | None:
    from matplotlib import pyplot

    found = {at: medians[w.name] for at, w in series.points.items() if medians.get(w.name)}
    if len(found) < 2:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 4.4), facecolor="white", layout="constrained")
    for peer in _STYLES:
        points = [(at, times[peer]) for at, times in found.items() if peer in times]
        if points:
            axes.plot(*zip(*points, strict=True), label=PEERS[peer].label, **_POINT | _STYLES[peer])
    axes.set(xscale="log", yscale="log", xlabel=series.axis, ylabel="time of one step")
    axes.set_title(series.title, fontsize=11)
    axes.yaxis.set_major_formatter(lambda value, _: amount(value).replace(".00 ", " ").replace(".0 ", " "))
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    path = directory / f"{series.key}.png"
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)
    return path


def main() -> None:
    """Read results, write plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("times", type=Path, help="what --json or --report wrote")
    parser.add_argument("directory", type=Path, help="where the plots go")
    arguments = parser.parse_args()
    paths = draw(load(arguments.times)[1], arguments.directory)
    print("\n".join(map(str, paths)) or "no series has two points in this file: measure with --scaling")


if __name__ == "__main__":
    main()
