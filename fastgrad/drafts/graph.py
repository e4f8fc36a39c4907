"""What is left of a draft that has run: its entries and the values that gradient rules will read.

A walk in a later draft goes over the integers (`Draft.backward`); for any other one the graph shows nodes and saved values as
an ordinary `Graph` does, made when somebody asks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

from .. import recording as tape
from ..kernels.flat import COMPUTED, ENTRY, NUMBER, VIEW
from ..ops.arrays import contiguous_strides
from ..recording import Signature, Storage, Trace
from ..reverse import Alone, Graph, _sequence, save
from ..tensor import Tensor, handle
from .draft import Draft, nodes


class DraftGraph(Graph):
    """A draft that has run."""

    __slots__ = ("_flags", "_given_up", "_left", "_nodes", "_numbers", "_values", "draft", "inputs", "kept", "places")

    def __init__(
        self, tr: Trace, draft: Draft, saved: array[int] | None, places: array[int], kept: Storage | None, readers: int
    ) -> None:
        self.order = next(_sequence)
        self.shared = None
        self.ready = Alone()
        self.hooks, self.functions = {}, {}
        self.draft = draft
        self.places = places  # by slot: the address of a saved value
        self.kept = kept
        self.sources = {s: getattr(t, "_origin", None) or t for s, t in tr.sources.items()} if saved else {}
        self.inputs: dict[int, Storage] = {}  # saved slots that lie in the memory of an input
        self._flags = (
            saved  # by slot: 1 for a saved value, 2 for one in the memory of an input; None when all are given up
        )
        self._left = readers  # entries whose rules will read saved values
        self._nodes: Any = None
        self._given_up: set[int] | None = None
        self._values: dict[int, tuple[Storage, int, Any]] | None = None
        self._numbers: dict[int, Any] | None = None
        if saved is not None:
            flags = saved.tobytes()
            slot = flags.find(2)
            while slot >= 0:
                self._share(tr, slot, draft.flat[ENTRY * self._root(slot) + 1])
                slot = flags.find(2, slot + 1)

    def _kind(self, slot: int) -> Any:
        return self.draft.by_number[self.draft.forms[slot]]

    def _root(self, slot: int) -> int:
        while self._kind(slot).what == VIEW:
            slot = self.draft.flat[ENTRY * slot + 1]
        return slot

    def _share(self, tr: Trace, slot: int, number: int) -> None:
        """A saved value lies in memory that somebody else may write to: then it is copied."""
        address = tr.addresses[number]
        storage = next((s for s in tr.leaves if s.address <= address <= s.address + s.nbytes), None)
        if storage is None:
            return  # a constant's cell, which nobody writes to
        self.inputs[slot] = storage
        save(storage, self)
        if storage.shared and tape.exported(storage):
            tape.protect({storage: 0})

    # ---- for walks in drafts

    def fits(self, draft: Draft) -> bool:
        """Whether both number the same kinds: each thread has its own."""
        return self.draft.kinds is draft.kinds

    def entered(self, tr: Trace) -> list[tuple[int, int]]:
        """Make the saved values that lie in inputs' memory inputs of the trace; returns their slots here and there."""
        tensors = []
        for storage in set(self.inputs.values()):
            self._settle(storage)
        for slot, storage in self.inputs.items():
            source = self.sources.get(slot)
            if not isinstance(source, Tensor) or source._storage is not storage:
                kind = self._kind(slot)
                source = handle(Signature.of(kind.shape, kind.dtype), storage)
                source._whole = False
                source._offset = (self.places[slot] - storage.address) // kind.dtype.itemsize
                source._strides = kind.form.strides
            tensors.append(source)
        return list(zip(self.inputs, tape.slots_of(tr, tensors), strict=True))

    def memory(self) -> list[Storage]:
        """What has to live as long as somebody reads saved values at their places."""
        held = [self.kept] if self.kept is not None else []
        address, count = self.draft.cells.buffer_info()
        if count:
            held.append(Storage(self.draft.cells, address, count, 8 * count))
        return held

    def passed(self, count: int) -> None:
        """So many entries' saved values have been given up; with the last ones, the memory."""
        self._given_up = None
        self._left -= count
        if self._left <= 0:
            self._flags, self.kept, self.inputs = None, None, {}
            self._values = self._numbers = None

    # ---- for all others

    @property
    def entries(self) -> Any:  # type: ignore[override]
        """The entries as nodes."""
        if self._nodes is None:
            self._nodes = nodes(self.draft)
        return self._nodes

    @property
    def released(self) -> set[int]:  # type: ignore[override]
        """The entries whose saved values have been given up."""
        if self._given_up is None:
            self._given_up = {slot for slot, flag in enumerate(self.draft.released) if flag}
        return self._given_up

    @property
    def is_released(self) -> bool:
        return self._flags is None

    def _saved(self) -> list[int]:
        return [slot for slot, flag in enumerate(self._flags or ()) if flag]

    @property
    def saved(self) -> dict[int, tuple[Storage, int, Any]]:  # type: ignore[override]
        """Memory, offset in bytes and element strides of the saved values."""
        if self._values is not None:
            return self._values
        found = self._values = {}
        for slot in self._saved():
            storage = self.inputs.get(slot) or self.kept
            if slot in self.inputs or self._kind(self._root(slot)).what == COMPUTED:
                assert storage is not None
                found[slot] = (storage, self.places[slot] - storage.address, self._strides(slot))
        return found

    @property
    def numbers(self) -> dict[int, Any]:  # type: ignore[override]
        """Value and strides of saved values that are Python numbers."""
        if self._numbers is not None:
            return self._numbers
        found: dict[int, Any] = {}
        self._numbers = found
        for slot in self._saved():
            root = self._root(slot)
            kind = self._kind(root)
            if kind.what == NUMBER:
                number = root if kind.weak else self.draft.flat[ENTRY * root + 2]
                found[slot] = (self.draft.numbers[number], self._strides(slot))
        return found

    def _strides(self, slot: int) -> Any:
        form = self._kind(slot).form
        return contiguous_strides(form.shape) if form.strides is None else form.strides

    def replace(self, old: Storage, new: Storage) -> None:
        """Read a saved value from a copy from now on."""
        self._values = None
        for slot, storage in self.inputs.items():
            if storage is old:
                self.inputs[slot] = new
                self.places[slot] += new.address - old.address

    def release(self, slots: Iterable[int]) -> None:
        """Give up the saved values of entries that a backward has passed, once no other entry reads any."""
        passed = array("B", bytes(len(self.draft.forms)))
        for slot in slots:
            passed[slot] = 1
        self.passed(self.draft.release(passed))
