"""Which entries lie on the way from roots to the tensors that a backward is asked for.

A backward with `inputs` passes, and gives up the saved values of, the entries on that way only; it calls their hooks and Functions and
no others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .recording import Node
from .shared_graph import region

__all__ = ["behind", "on_the_way", "targets", "through_graphs"]


def targets(
    sources: Mapping[int, Any],
    wanted: Collection[int],
    inside: Collection[int],
    ways: Mapping[Any, Collection[int]] | None,
) -> frozenset[int]:
    """The slots that a walk has to reach: the wanted tensors' own, and those behind which an earlier graph goes on.

    Arguments: the region's `sources`; `wanted`, identities of leaves; `inside`, slots of wanted tensors that are no leaves; `ways`,
    what `through_graphs` found, without which every earlier graph counts.
    """
    found = set(inside)
    for slot, source in sources.items():
        if source is None:
            found.add(slot)
            continue
        origin = source if type(source) is tuple else source._origin
        if origin is None:
            if id(source) in wanted or (source._stands_for is not None and id(source._stands_for) in wanted):
                found.add(slot)
        elif ways is None:
            found.add(slot)
        else:
            graph = region(origin[0])
            if graph not in ways or origin[1] in ways[graph]:
                found.add(slot)
    return frozenset(found)


def through_graphs(
    starts: Collection[Any], wanted: Collection[int], inside: Mapping[Any, Collection[int]]
) -> dict[Any, set[int]] | None:
    """For each graph behind the regions of the roots, the slots from which a wanted tensor can be reached; None where nobody would
    see the difference: no hooks, no Functions, and nothing that a walk before has given up."""
    graphs: set[Any] = set()
    stack = list(starts)
    while stack:
        graph = stack.pop()
        if graph not in graphs:
            graphs.add(graph)
            stack += [o[0] for o in map(_origin, graph.sources.values()) if o is not None]
    if not any([graph.hooks or graph.functions or graph.released or graph.is_released for graph in graphs]):
        return None
    ways: dict[Any, set[int]] = {}
    for graph in sorted(graphs, key=lambda g: g.order):  # what a graph begins at is older
        goals = targets(graph.sources, wanted, inside.get(graph, ()), ways)
        ways[graph] = on_the_way(graph.entries, goals) or set()
    return ways


def _origin(source: Any) -> tuple[Any, int] | None:
    """Where the history of a source goes on; None for a leaf."""
    origin: tuple[Any, int] | None = source if source is None or type(source) is tuple else source._origin
    return None if origin is None else (region(origin[0]), origin[1])


def on_the_way(
    entries: Sequence[Node], goals: frozenset[int] | None, roots: Iterable[int] | None = None
) -> set[int] | None:
    """The slots, of all or of those that lie behind the roots, from which one of the goals can be reached; None if there are no
    goals, and so no limit."""
    if goals is None:
        return None
    way = set(goals)
    for slot in range(len(entries)) if roots is None else sorted(behind(entries, roots)):
        if slot not in way and any([x in way for x in entries[slot].operands]):
            way.add(slot)
    return way


def behind(entries: Sequence[Node], roots: Iterable[int]) -> set[int]:
    """The slots that a walk from the roots may come to: a long trace has many more."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        slot = stack.pop()
        if slot not in seen:
            seen.add(slot)
            stack += [x for x in entries[slot].operands if entries[x].requires_grad]
    return seen
