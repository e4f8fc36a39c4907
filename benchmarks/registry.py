"""All workloads, by name, in the order of the table."""

from __future__ import annotations

from .workloads import chain, elementwise, linear_regression, perceptron, random_trees, runge_kutta, startup

__all__ = ["WORKLOADS"]

WORKLOADS = {
    workload.name: workload
    for module in (linear_regression, perceptron, elementwise, runge_kutta, chain, random_trees, startup)
    for workload in module.WORKLOADS
}
