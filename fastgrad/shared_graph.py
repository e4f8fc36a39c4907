"""One history in several graphs: that of a trace which other threads have looked at before it ran.

A look (`threads.observe`) leaves a graph of what the trace held by then, and the trace goes on; when it runs, it leaves another
one. They number the same entries alike, so a backward walks them as one region: each entry once, with all of its gradient.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .recording import Node, Trace

if TYPE_CHECKING:
    from .reverse import Graph
    from .tensor import Tensor

__all__ = ["SharedGraph", "region"]


def region(graph: Any) -> Any:
    """What is walked where a graph is met: all graphs of its trace."""
    return graph.shared or graph


class SharedGraph:
    """The graphs of one trace at one epoch. Each of them holds it, and it holds none of them.

    Its `order` is that of the first: what the trace takes in from younger graphs comes after an end of the trace
    (`recording.enter`), so no way leads from a region to a younger one.
    """

    shared = None  # it is no part of another one

    def __init__(self, tr: Trace, order: int) -> None:
        self.order = order
        self._trace = weakref.ref(tr)
        self._epoch = tr.epoch
        self._members: list[weakref.ref[Graph]] = []
        self._released: set[int] = set()

    def add(self, graph: Graph) -> None:
        """One more graph of the trace."""
        graph.shared = self
        self._members.append(weakref.ref(graph))

    @property
    def members(self) -> list[Graph]:
        """The graphs that somebody holds, the oldest first."""
        return [graph for reference in self._members if (graph := reference()) is not None]

    @property
    def entries(self) -> Sequence[Node]:
        """The entries of the longest one."""
        return max([graph.entries for graph in self.members], key=len)

    @property
    def sources(self) -> dict[int, Any]:
        """Where gradients leave them."""
        return {slot: source for graph in self.members for slot, source in graph.sources.items()}

    @property
    def functions(self) -> dict[int, Any]:
        """Calls of user-defined Functions."""
        return {slot: call for graph in self.members for slot, call in graph.functions.items()}

    @property
    def hooks(self) -> dict[int, Any]:
        """What watches for gradients, the trace's own included while it has not run."""
        found = {slot: watch for graph in self.members for slot, watch in graph.hooks.items()}
        tr = self._trace()
        if tr is not None and tr.epoch == self._epoch:
            found |= tr.hooks
        return found

    @property
    def released(self) -> set[int]:
        """Entries whose saved values have been given up."""
        return self._released.union(*[graph.released for graph in self.members])

    @property
    def is_released(self) -> bool:
        """Whether no saved value is left."""
        return all([graph.is_released for graph in self.members])

    def fits(self, draft: Any) -> bool:
        """Whether compiled passes can walk it in a draft."""
        return False

    def value(self, slot: int) -> Tensor:
        """A saved value, of the one that has it."""
        members = self.members
        longest = max(members, key=lambda graph: len(graph.entries))
        found = next((graph for graph in members if slot in graph.saved or slot in graph.numbers), longest)
        return found.value(slot)

    def release(self, slots: Iterable[int]) -> None:
        """Give up the saved values of entries that a backward has passed."""
        functions = self.functions
        self._released.update([slot for slot in slots if slot not in functions])
        for graph in self.members:
            graph.release(slots)
