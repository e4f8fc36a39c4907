"""What a workload is: a module that builds the same step for every peer, and the arguments it builds it with.

A workload's module has one function per peer, named by the peer's key (see peers.py). It takes the workload's arguments
and returns `step`, a callable without arguments that does one step, waits for it, and returns a number (or a 0-d array
or tensor) that all peers must agree on; or a `Difference` of two such steps; or a `Loop` of steps.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .goals import Goal

__all__ = ["Difference", "Loop", "Unavailable", "Workload"]

Step = Callable[[], Any]


class Difference(NamedTuple):
    """The time of `step` minus the time of `baseline`: what only the former does."""

    step: Step
    baseline: Step


class Loop(NamedTuple):
    """`run(k)` does k steps in one call, and returns the number of the last."""

    run: Callable[[int], Any]


class Unavailable(Exception):
    """What a builder raises if its peer can't do this here: the peer is skipped, with the reason."""


@dataclass(frozen=True)
class Workload:
    """One line of the table.

    `module` is the name of the file in workloads/; `arguments` go to its functions. A step does `count` times what the
    line names; the time shown is for one. `tolerance` is relative, between the numbers that the peers' steps return.
    Those with `quick` are part of `--quick`; `once` forbids to repeat a step within one timing; the peers `without` are
    left out although they have a function. `goals` are what fastgrad should reach. With `unit` "B" a step's number is
    itself what is measured, in bytes.
    """

    name: str
    module: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1
    tolerance: float | None = 1e-9
    quick: bool = False
    once: bool = False
    without: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()
    unit: str = "ns"

    def peers(self) -> list[str]:
        """The keys of the peers that this workload has a function for."""
        from .peers import PEERS

        module = self._load()
        return [key for key in PEERS if hasattr(module, key) and key not in self.without]

    def build(self, peer: str) -> Step | Difference | Loop:
        """The step of `peer`, ready to run."""
        return getattr(self._load(), peer)(**self.arguments)

    def _load(self) -> Any:
        return importlib.import_module(f".workloads.{self.module}", __package__)
