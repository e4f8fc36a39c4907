"""The end of a draft: what is still wanted is lowered by one compiled pass, swept, and handed over.

Nothing is planned and nothing kept, but a digest of the tape: a draft that comes back is recorded in the trace cache the next
time. Values that tensors share with views, and histories that a later backward may need, are left to the ordinary way.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any

import numpy as np

from .. import recording as tape
from ..execute import DEAD, _arena, new_storage
from ..kernels.flat import COMPUTED, DONE, ENTRY, lower
from ..kernels.matmul import PARALLEL, use_threads
from ..kernels.sweep import sweep
from ..plan.program import PIECE, threads
from ..recording import Trace, statistics
from ..reverse import Graph
from .draft import Draft, nodes

RECENT = 1024  # digests of drafts that are remembered


class Spent(Graph):
    """The graph of results whose history a backward has given up; its entries are made when somebody looks."""

    __slots__ = ("_draft", "_entries")

    def __init__(self, draft: Draft) -> None:
        self._draft: Draft | None = draft
        self._entries: Any = None
        self._begin(set(np.flatnonzero(draft.released).tolist()))

    @property
    def entries(self) -> Any:  # type: ignore[override]
        """The entries as nodes."""
        if self._draft is not None:
            self._entries, self._draft = nodes(self._draft), None
        return self._entries


def finish(tr: Trace) -> bool:
    """Run a draft and begin the next trace; False if it has been turned into nodes, which have to be run."""
    draft = tr.draft
    holders = [t for t in tr.live if getrefcount(t) > DEAD]
    rooted = [t for t in holders if t._meta.requires_grad]
    if (
        any([t._storage is not None for t in holders])
        or tr.hooks
        or tr.functions
        or not all([draft.is_spent(t._at[1]) for t in rooted])
    ):
        tape.unfold(tr)
        return False
    flat, kinds, by_number = draft.entries, draft.kinds, draft.by_number
    wanted, seen = [], set()
    for t in holders:
        slot = t._at[1]
        kind = by_number[flat[ENTRY * slot]]
        if kind.what != COMPUTED or slot in seen:
            slot = draft.copied(slot)
        seen.add(slot)
        wanted.append(slot)
    digest = hash((flat.tobytes(), tuple(wanted)))
    recent = kinds.recent
    tr.longest = len(flat) // ENTRY
    if digest in recent:
        tr.strangers = 0
    elif len(recent) >= RECENT:
        del recent[next(iter(recent))]
    recent[digest] = None
    outputs = [new_storage(t._meta.numel, t._meta.dtype) for t in holders]
    _execute(tr, draft, wanted, [s.address for s in outputs])
    statistics["runs"] += 1
    graph = Spent(draft) if rooted else None
    for t, storage in zip(holders, outputs, strict=True):
        if t._meta.requires_grad:
            t._origin = (graph, t._at[1])
        t._storage = storage
        t._meta = t._meta.signature
    tr.reset()
    return True


def _execute(tr: Trace, draft: Draft, wanted: list[int], outputs: list[int]) -> None:
    flat, kinds = draft.entries, draft.kinds
    count = len(flat) // ENTRY
    addresses = np.array([*tr.addresses, 0], np.int64)
    cells = np.frombuffer(draft.cells or b"\0", np.uint8)
    address = kinds.space(6 * count + 64)
    needed = np.zeros(count, np.uint8)
    places = kinds.room[:count]
    needed[wanted] = 2
    places[wanted] = outputs
    block = kinds.block
    block[:10] = (
        flat.buffer_info()[0], kinds.kinds.buffer_info()[0], kinds.records.buffer_info()[0], count, needed.ctypes.data,
        address, address + 8 * count, address + 16 * count, addresses.ctypes.data, cells.ctypes.data,
    )  # fmt: skip
    block[14:16] = (address + 24 * count, address + 24 * count + 512)
    arena = tr.arena
    size = arena.nbytes if arena is not None else 0
    while True:
        block[10:14] = (kinds.program.ctypes.data, kinds.program.size // 8, _arena(tr, size) if size else 0, size)
        block[16:19] = 0
        if lower()(block.ctypes.data, 0) == DONE:
            break
        if block[17] > size:
            size = max(int(block[17]), 2 * size, 1 << 16)
        if 8 * block[16] > kinds.program.size:
            kinds.program = np.zeros(16 * int(block[16]), np.int64)
    records, largest = int(block[16]), int(block[18])
    if largest:
        use_threads(threads[0] if largest >= PARALLEL else 1)
    start = kinds.program.ctypes.data
    while records > 0:
        sweep()(start, min(PIECE, records))
        start += 64 * PIECE
        records -= PIECE


tape.finish_draft = finish
