"""All workloads, by name, in the order of the table."""

from __future__ import annotations

from .workload import Workload
from .workloads import (
    chain,
    elementwise,
    linear_regression,
    memory,
    perceptron,
    random_trees,
    recurrent,
    runge_kutta,
    runge_kutta_batch,
    scalar_chain,
    startup,
)

__all__ = ["WORKLOADS", "every"]

_MODULES = (
    linear_regression,
    perceptron,
    recurrent,
    elementwise,
    runge_kutta,
    runge_kutta_batch,
    chain,
    scalar_chain,
    random_trees,
    startup,
    memory,
)

WORKLOADS: dict[str, Workload] = {workload.name: workload for module in _MODULES for workload in module.WORKLOADS}


def every() -> dict[str, Workload]:
    """Those of the table, and those that are only points of a plot."""
    from .scaling import SERIES

    return {workload.name: workload for series in SERIES for workload in series.points.values()} | WORKLOADS
