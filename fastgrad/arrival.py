"""Where a backward ends: gradients that arrive at leaves are kept there, or returned.

A leaf's gradient is complete when the last part of it has come. Its hooks are called in that order, as in PyTorch; where hooks of
other tensors see the same walk, at that moment, before the walk goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from . import recording as tape
from .hooks import call_hooks
from .recording import Node, Trace, local
from .tensor import Tensor

__all__ = ["Arrivals", "fresh", "total", "unshared"]


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of a gradient's parts, in their order."""
    g = parts[0]
    for part in parts[1:]:
        g = g + part
    return g


def fresh(tr: Trace, t: Tensor) -> Tensor:
    """A gradient as a tensor of its own, whatever else has the same value."""
    if t._at[0] == tr.epoch and type(t._meta) is Node:
        return tape.result(tr, t._meta)
    slot = t._at[1] if t._at[0] == tr.epoch else tape.enter(tr, t)
    return tape.result(tr, tr.entries()[slot])


def unshared(tr: Trace, t: Tensor) -> Tensor:
    """A pending gradient that the user may hold as a tensor of its own; one with memory is copied where it is kept."""
    return t if t._storage is not None else fresh(tr, t)


class Arrivals:
    """The leaves that a backward reaches. `wanted`: those it is asked for, by identity, if not all."""

    def __init__(self, wanted: dict[int, Tensor] | None, accumulate: bool, create: bool) -> None:
        self.wanted, self.accumulate, self.create = wanted, accumulate, create
        self.leaves: dict[int, tuple[Tensor, list[Tensor]]] = {}  # and the parts of their gradients, the latest last
        self.found: dict[int, Tensor] = {}  # gradients to be returned, by what they are of

    def reach(self, leaf: Tensor, parts: list[Tensor]) -> None:
        """Parts of a leaf's gradient have come."""
        if leaf._stands_for is not None:
            leaf = leaf._stands_for
        known = self.leaves.pop(id(leaf), None) or (leaf, [])
        known[1].extend(parts)
        self.leaves[id(leaf)] = known

    def in_order(self, region: Any) -> Callable[[int, list[Tensor], dict[int, int]], None] | None:
        """Before the last region is walked: if hooks or Functions will see the walk, the leaves that get nothing more from it
        arrive now, and what is returned is to be called with each of the others as soon as it is complete."""
        if not region.hooks and not region.functions:
            return None
        sources = region.sources
        here: list[Tensor] = []
        watched = any([leaf._looked_at for leaf, _ in self.leaves.values()])
        for source in sources.values():
            if source is None or type(source) is tuple or source._origin is not None:
                return None  # there may be more behind
            watched = watched or source._looked_at
            here.append(source if source._stands_for is None else source._stands_for)
        if not watched:
            return None
        last = {id(leaf) for leaf in here}
        for key in [key for key in self.leaves if key not in last]:
            self._deliver(*self.leaves.pop(key))
        return functools.partial(self._complete, dict(zip(sources, here, strict=True)))

    def _complete(self, leaves: dict[int, Tensor], slot: int, parts: list[Tensor], waiting: dict[int, int]) -> None:
        leaf = leaves[slot]
        self.reach(leaf, [unshared(local.trace, part) for part in parts])
        if not any([left and leaves[other] is leaf for other, left in waiting.items()]):  # by another way
            self._deliver(*self.leaves.pop(id(leaf)))

    def _deliver(self, leaf: Tensor, parts: list[Tensor]) -> None:
        """A leaf's gradient is complete in the middle of a walk."""
        if not parts or (self.wanted is not None and id(leaf) not in self.wanted):
            return
        tr = local.trace
        depth, tr.static = tr.static, 0
        try:
            self._arrive(leaf, total(parts))
        finally:
            local.trace.static = depth

    def finish(self, tr: Trace) -> dict[int, Tensor]:
        """All other leaves' gradients are complete; returns what was asked for."""
        wanted = self.wanted
        arrived = [(leaf, total(parts)) for leaf, parts in self.leaves.values() if wanted is None or id(leaf) in wanted]
        writes = self.accumulate and tr.draft is not None and any([_has_memory(leaf._grad) for leaf, _ in arrived])
        if writes:  # writing to memory comes back even where what it follows never does: it is a trace of its own
            tape.flush(tr)
            tape.unfold(tr)
        for leaf, g in arrived:
            self._arrive(leaf, g)
        if writes:
            tape.flush(tr)
        return self.found

    def _arrive(self, leaf: Tensor, g: Tensor) -> None:
        """A leaf's gradient is complete. One that requires none any more keeps none."""
        if local.trace.capture is not None:
            leaf._walked = True
        if leaf._hooks:
            seen = call_hooks(leaf._hooks, g)
            g = g if seen is g else unshared(local.trace, seen)
        if not self.accumulate:
            self.found[id(leaf)] = g
        elif leaf._meta.requires_grad:
            _accumulate(leaf, g, self.create)
            for hook in list((leaf._after_hooks or {}).values()):
                if hook(leaf) is not None:
                    raise RuntimeError("backward: hooks after the accumulation of a gradient must return None")


def _has_memory(t: Tensor | None) -> bool:
    return t is not None and t._storage is not None


def _accumulate(leaf: Tensor, g: Tensor, create: bool) -> None:
    with tape.writing:
        present = leaf.grad
        if present is None:
            leaf.grad = g if g._storage is None else g.clone()
        elif create:
            leaf.grad = present + g
        else:
            present.add_(g)
