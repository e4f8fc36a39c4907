"""Series of workloads that differ in one number: what the plots show.

A series names its points by that number. Points that are in the table too are measured once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .workload import Workload
from .workloads import chain, elementwise, linear_regression, runge_kutta

__all__ = ["SERIES", "Series"]


@dataclass(frozen=True)
class Series:
    """One plot: its file's name, its title, what is on the horizontal axis, and the workload at each place there."""

    key: str
    title: str
    axis: str
    points: Mapping[int, Workload]


SERIES = [
    Series(
        "elementwise",
        "value and gradient of mean(tanh(sin x · exp(−x²))), float64",
        "elements",
        {n: elementwise.workload(n, "float64") for n in (10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000)},
    ),
    Series(
        "linear_regression",
        "one step of linear regression, 8 columns, float32",
        "rows",
        {
            n: linear_regression.workload(n, 8, "float32", without=("casadi",) if n > 4096 else ())
            for n in (8, 64, 512, 4096, 32_768, 262_144)
        },
    ),
    Series(
        "chain",
        "value and gradient of a chain of operations on 8 elements",
        "operations",
        {length: chain.whole(length) for length in (10, 100, 1000, 10_000)},
    ),
    Series(
        "runge_kutta",
        "one step of a Runge-Kutta fit of 4 parameters",
        "Runge-Kutta steps (28 operations each)",
        {
            steps: runge_kutta.workload(steps, without=("drjit", "hips_autograd") if steps > 200 else ())
            for steps in (2, 20, 200, 2000)
        },
    ),
]
