"""The end of a draft: what is still wanted is lowered by one compiled pass, swept, and handed over.

Nothing is planned and nothing kept, but a digest of the tape: a draft that comes back is recorded in the trace cache the next
time. Values that tensors share with views, and histories that a later backward may need, are left to the ordinary way.
"""

from __future__ import annotations

from array import array
from struct import pack_into
from sys import getrefcount
from typing import Any

from .. import recording as tape
from ..execute import DEAD, _arena, new_storage
from ..kernels.flat import COMPUTED, DONE, ENTRY, lower
from ..kernels.matmul import PARALLEL, use_threads
from ..kernels.sweep import RECORD_BYTES, sweep
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
        self._begin({-1})  # not empty: something has been released

    @property
    def entries(self) -> Any:  # type: ignore[override]
        """The entries as nodes."""
        if self._draft is not None:
            self.released = {slot for slot, given_up in enumerate(self._draft.released) if given_up}
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
    kinds, by_number = draft.kinds, draft.by_number
    wanted, seen = [], set()
    for t in holders:
        slot = t._at[1]
        if slot in seen or by_number[draft.forms[slot]].what != COMPUTED:
            slot = draft.copied(slot)
        seen.add(slot)
        wanted.append(slot)
    digest = hash((draft.entries().tobytes(), tuple(wanted)))
    recent = kinds.recent
    tr.longest = len(draft.forms)
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
    flat, kinds = draft.flat, draft.kinds
    count = len(draft.forms)
    addresses, cells = array("q", tr.addresses), draft.cells
    address = kinds.space(5 * count + 64)
    needed = array("B", bytes(count))
    for slot, output in zip(wanted, outputs, strict=True):
        needed[slot] = 2
        kinds.room[slot] = output
    block = kinds.block
    pack_into(
        "10q", block, 0, flat.buffer_info()[0], kinds.kinds.buffer_info()[0], kinds.records.buffer_info()[0], count,
        needed.buffer_info()[0], address, address + 8 * count, address + 16 * count, addresses.buffer_info()[0],
        cells.buffer_info()[0],
    )  # fmt: skip
    arena = tr.arena
    size = arena.nbytes if arena is not None else 1 << 16
    while True:
        pack_into(
            "9q", block, 80, kinds.program.buffer_info()[0], len(kinds.program) // 8, _arena(tr, size), size,
            address + 24 * count, address + 24 * count + 512, 0, 0, 0,
        )  # fmt: skip
        if lower()(kinds.block_at, 0) == DONE:
            break
        size = max(block[17], 2 * size) if block[17] > size else size
        if 8 * block[16] > len(kinds.program):
            kinds.program = array("q", bytes(128 * block[16]))
    records, largest, start = block[16], block[18], kinds.program.buffer_info()[0]
    if largest:
        use_threads(threads[0] if largest >= PARALLEL else 1)
    while records > 0:
        sweep()(start, min(PIECE, records))
        start += RECORD_BYTES * PIECE
        records -= PIECE



tape.finish_draft = finish
