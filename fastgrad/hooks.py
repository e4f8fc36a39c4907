"""Hooks on tensors: functions that see a gradient when it is complete, and gradients that tensors keep.

Hooks of a leaf are the leaf's own. Those of another tensor stand in a `Watch` at its slot, in the trace or graph that holds its
history: a write in place gives the tensor another slot, with which the kept gradient goes, while hooks stay where they are.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import recording as tape
from .recording import Signature
from .structure import structure_version

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = ["RemovableHandle", "Watch", "call_hooks", "move_watch", "watch"]

_numbers = itertools.count()


class RemovableHandle:
    """Takes a hook away again: by `remove()`, or at the end of a `with` block."""

    def __init__(self, table: dict[int, Any], hook: Any, prepend: bool = False, leaf: Tensor | None = None) -> None:
        self.table = table
        self.leaf = None if leaf is None else weakref.ref(leaf)
        self.id = next(_numbers)
        others = dict(table) if prepend else {}
        if prepend:
            table.clear()
        table[self.id] = hook
        table.update(others)
        self._tell()

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        if self.table.pop(self.id, None) is not None:
            self._tell()

    def _tell(self) -> None:
        """Compiled functions that have walked to the leaf record anew; one that does this itself has to undo it."""
        leaf = None if self.leaf is None else self.leaf()
        if leaf is None:
            return
        capture = tape.local.trace.capture
        if capture is not None:
            capture.hooked ^= {self.id}
        elif leaf._walked:
            structure_version[0] += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Watch:
    """What wants to see the gradient of one slot: hooks, and after them a tensor that keeps it."""

    __slots__ = ("hooks", "keeper")

    def __init__(self) -> None:
        self.hooks: dict[int, Callable[[Tensor], Any]] = {}
        self.keeper: weakref.ref[Tensor] | None = None

    def see(self, g: Tensor) -> Tensor:
        """Show a complete gradient; returns the one that goes on."""
        if self.hooks:
            g = call_hooks(self.hooks, g)
        t = self.keeper() if self.keeper is not None else None
        if t is not None:
            present = t.grad
            t.grad = g.clone() if present is None else present + g
        return g


def call_hooks(hooks: dict[int, Callable[[Tensor], Any]], g: Tensor) -> Tensor:
    """Call hooks in the order in which they were registered; each may replace the gradient."""
    tr = tape.local.trace
    depth, tr.static = tr.static, 0
    try:
        for hook in list(hooks.values()):
            replaced = hook(g)
            if replaced is None:
                continue
            if not isinstance(replaced, tape.TENSOR):
                raise TypeError(f"expected Variable, but hook returned '{type(replaced).__name__}'")
            name = getattr(hook, "__name__", type(hook).__name__)
            if replaced._meta.shape != g._meta.shape:
                raise RuntimeError(
                    f"hook '{name}' has changed the size of value: {list(g.shape)} became {list(replaced.shape)}"
                )
            if replaced._meta.dtype is not g._meta.dtype:
                raise RuntimeError(f"hook '{name}' has changed the type of value (was {g.dtype} got {replaced.dtype})")
            g = replaced
    finally:
        tape.local.trace.static = depth
    return g


def watch(t: Tensor) -> Watch:
    """The watch at the slot of a tensor that is not a leaf."""
    tr = tape.local.trace
    if type(t._meta) is not Signature and tape.epoch_of(t) != tr.epoch:
        owner = tape.owner_of(tape.epoch_of(t))
        if owner is not None:  # pending in another thread, whose trace has its history
            with owner.lock:
                if type(t._meta) is not Signature and tape.epoch_of(t) == owner.epoch:
                    there: Watch = t._watch or Watch()
                    t._watch = owner.hooks[t._at[1]] = there
                    return there
        tape.enter(tr, t)
    found = t._watch
    if found is None:
        found = t._watch = Watch()
    if type(t._meta) is Signature:
        graph, slot = t._origin
        if graph.sources:  # else its history has been given up, and what is left of it is shared with other tensors
            graph.hooks[slot] = found
    else:
        tr.hooks[t._at[1]] = found
    return found


def move_watch(t: Tensor) -> None:
    """A tensor has got another slot by a write: the gradient that it keeps is the one there from now on."""
    old, t._watch = t._watch, None
    if old is not None and old.keeper is not None:
        old.keeper = None
        watch(t).keeper = weakref.ref(t)


tape.move_watch = move_watch
