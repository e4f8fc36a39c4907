"""What a workload should reach, and whether it did: goals are data, compared with the medians of one run.

`faster(mode, factor)` wants `mode` to be `factor` times as fast as the best peer (or as `than`), `near(mode, factor, of)`
wants it to take at most `factor` times as long as `of`, `within(mode, amount)` is absolute: nanoseconds or bytes.
Code written by hand is a floor, not a peer: the best peer is a library that differentiates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .peers import FLOORS, OURS, PEERS
from .units import amount

__all__ = ["BEST", "Goal", "best_peer", "faster", "near", "within"]

BEST = "best peer"


@dataclass(frozen=True)
class Goal:
    """`mode` takes at most `limit` (nanoseconds or bytes) or, with `against`, `limit` times what that takes."""

    mode: str
    limit: float
    against: str | None = None

    def value(self, medians: Mapping[str, float]) -> float:
        """What is to be at most `limit`; nan if somebody was not measured."""
        mine = medians.get(self.mode, math.nan)
        if self.against is None:
            return mine
        other = best_peer(medians) if self.against == BEST else self.against
        return mine / medians.get(other or "", math.nan)

    def met(self, medians: Mapping[str, float]) -> bool | None:
        """None if it was not measured."""
        value = self.value(medians)
        return None if math.isnan(value) else value <= self.limit

    def describe(self, unit: str = "ns") -> str:
        """`fastgrad.compile ≥ 4 x best peer`."""
        mode = PEERS[self.mode].label
        if self.against is None:
            return f"{mode} ≤ {amount(self.limit, unit)}"
        other = BEST if self.against == BEST else PEERS[self.against].label
        if self.limit < 1:
            return f"{mode} {1 / self.limit:.3g} x as fast as {other}"
        return f"{mode} ≤ {self.limit:.3g} x {other}"

    def reached(self, medians: Mapping[str, float], unit: str = "ns") -> str:
        """What was measured, in the words of the goal; empty if it was not."""
        value = self.value(medians)
        if math.isnan(value):
            return ""
        if self.against is None:
            return amount(value, unit)
        other = best_peer(medians) if self.against == BEST else None
        factor = f"{1 / value:.3g} x as fast" if self.limit < 1 else f"{value:.3g} x"
        return f"{factor} ({PEERS[other].label})" if other else factor


def faster(mode: str, factor: float, than: str = BEST) -> Goal:
    """`mode` is at least `factor` times as fast as `than`."""
    return Goal(mode, 1 / factor, than)


def near(mode: str, factor: float, of: str) -> Goal:
    """`mode` takes at most `factor` times as long (or as much) as `of`."""
    return Goal(mode, factor, of)


def within(mode: str, limit: float) -> Goal:
    """`mode` takes at most `limit` nanoseconds, or bytes."""
    return Goal(mode, limit)


def best_peer(medians: Mapping[str, float]) -> str | None:
    """The fastest library that is not fastgrad."""
    peers = [key for key in medians if key not in OURS and key not in FLOORS]
    return min(peers, key=medians.__getitem__, default=None)
