"""What `grad_fn` shows: the entry a tensor was made by, and the entries behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import recording as tape
from ..ops import arrays
from ..recording import ALIAS, LEAF, Signature

if TYPE_CHECKING:
    from ..tensor import Tensor


class GradFn:
    """A node of the gradient graph: `name()`, and `next_functions`, pairs of nodes and 0."""

    def __init__(self, tensor: Tensor | None, entries: Any = None, slot: int = -1, sources: Any = None) -> None:
        if tensor is not None:
            tr = tape.local.trace
            if type(tensor._meta) is not Signature and tape.epoch_of(tensor) != tr.epoch:
                tape.materialize(tensor)  # another thread's
            tape.unfold(tr)
            meta = tensor._meta
            if type(meta) is not Signature:
                self._entries, self._slot, self._sources = list(tr.entries()), meta.slot, dict(tr.sources)
            else:
                graph, slot = tensor._origin
                self._entries, self._slot, self._sources = graph.entries, slot, graph.sources
        else:
            meta = entries[slot]
            self._entries, self._slot, self._sources = entries, slot, sources
        self._name = meta.name or self._made().label

    def _made(self) -> Any:
        """The operation; an input's is that of the graph in which its history goes on."""
        node, sources = self._entries[self._slot], self._sources
        while node.op is LEAF or node.op is ALIAS:
            source = sources.get(node.slot)
            origin = source if isinstance(source, tuple) or source is None else source._origin
            if origin is None:
                return arrays.clone
            graph, slot = origin
            node, sources = graph.entries[slot], graph.sources
            self._entries, self._slot, self._sources = graph.entries, slot, sources
        return node.op

    @staticmethod
    def of(tensor: Tensor) -> GradFn:
        """The node that made a tensor; its class carries the operation's name, as in PyTorch."""
        return _named(GradFn(tensor))

    def name(self) -> str:
        """The name PyTorch would print: AddBackward0; a label may give all of it (SumBackward1)."""
        return self._name if "Backward" in self._name else f"{self._name}Backward0"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes this one passes gradients to."""
        found: list[tuple[Any, int]] = []
        entry = self._entries[self._slot]
        for operand in entry.operands[entry.op is arrays.function :]:  # the first one of a Function is its own value
            node = self._entries[operand]
            if not node.requires_grad:
                found.append((None, 0))
            elif node.op is LEAF or node.op is ALIAS:
                source = self._sources.get(operand)
                if isinstance(source, tuple):
                    graph, slot = source
                    found.append((_named(GradFn(None, graph.entries, slot, graph.sources)), 0))
                else:
                    found.append((AccumulateGrad(source), 0))
            else:
                found.append((_named(GradFn(None, self._entries, operand, self._sources)), 0))
        return tuple(found)

    def __repr__(self) -> str:
        return f"<{self.name()}>"


_classes: dict[str, type[GradFn]] = {}


def _named(node: GradFn) -> GradFn:
    name = node.name()
    kind = _classes.get(name)
    if kind is None:
        kind = _classes[name] = type(name, (GradFn,), {})
    node.__class__ = kind
    return node


class AccumulateGrad:
    """The end of a gradient's way: a leaf."""

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        self.next_functions: tuple[Any, ...] = ()

    def name(self) -> str:
        """Its class's name."""
        return "AccumulateGrad"

    def __repr__(self) -> str:
        return "<AccumulateGrad>"
