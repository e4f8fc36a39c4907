"""What a user-defined Function keeps for its backward: the tensors, with their histories, as long as nobody writes to them.

A kept tensor is a second handle on the memory, outside of any gradient, beside the place of its history in the graph: the graph
holds the call, which holds what it kept, and none of these holds the graph again.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from .. import recording as tape
from ..functions import views
from ..recording import ALIAS, LEAF, Signature, Storage
from ..tensor import handle

if TYPE_CHECKING:
    from ..reverse import Graph
    from ..tensor import Tensor

__all__ = ["Saved", "version"]


def version(storage: Storage) -> int:
    """How often memory was written to, a write that still waits in this thread's trace included."""
    return storage.version + (storage in tape.local.trace.written)


class Saved:
    """One tensor kept for a backward. `slot`: where the graph of the call has its history, if it is not a leaf's."""

    __slots__ = ("_original", "_slot", "_storage", "_tensor", "_version")

    def __init__(self, tensor: Tensor, slot: int | None) -> None:
        self._storage = views.storage_of(tensor)
        self._version = version(self._storage)
        self._slot = slot
        self._tensor = tensor if slot is None else views.alias(tensor)
        self._original = None if slot is None else weakref.ref(tensor)

    def unpack(self, graph: Graph | None) -> Tensor:
        """The tensor with its history; RuntimeError if it was written to since."""
        now = version(self._storage)
        if now != self._version:
            meta = self._tensor._meta
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[{meta.dtype} {list(meta.shape)}], which a Function saved for its backward, is at version {now}; expected "
                f"version {self._version} instead. Write to a clone() of it."
            )
        if self._slot is None or graph is None:
            return self._tensor
        original = self._original() if self._original is not None else None
        if original is not None and original._meta.requires_grad and not original.is_leaf:
            return original
        return self._with_history(graph, self._slot)

    def _with_history(self, graph: Graph, slot: int) -> Tensor:
        kept, node = self._tensor, graph.entries[slot]
        made = handle(Signature.of(kept._meta.shape, kept._meta.dtype, True), None)
        views.place(made, kept, kept._strides, 0, kept._whole)
        source = graph.sources.get(slot) if node.op is LEAF or node.op is ALIAS else (graph, slot)
        if isinstance(source, tape.TENSOR):
            made._stands_for, made._looked_at = source, True
            source = source._origin
        made._origin = source
        return made


def unpacked(saved: tuple[Saved | None, ...], graph: Any) -> tuple[Any, ...]:
    """The tensors of a call in the order in which they were saved."""
    return tuple([None if s is None else s.unpack(graph) for s in saved])
