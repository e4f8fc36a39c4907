"""The end of a draft: what is still wanted is lowered by one compiled pass, swept, and handed over.

Nothing is planned, and nothing remembered but a digest of the tape: a draft that comes back is recorded in the trace cache the
next time.
"""

from __future__ import annotations

from array import array
from struct import pack_into
from sys import getrefcount
from typing import Any

from .. import recording as tape
from ..execute import DEAD, _arena, adopt, new_bytes, new_storage
from ..kernels.flat import COMPUTED, DONE, keep, lower
from ..kernels.sweep import RECORD_BYTES, sweep
from ..plan.program import PIECE
from ..recording import Storage, Trace, statistics
from .draft import Draft
from .graph import DraftGraph
from .kinds import Kind

RECENT = 1024  # digests of drafts that are remembered
RETURNS = 3  # how often one has to come back to be planned


def finish(tr: Trace) -> bool:
    """Run a draft and begin the next trace; False if it has been turned into nodes, which have to be run."""
    draft = tr.draft
    if not draft.forms:
        tr.reset()
        return True
    epoch = tr.epoch
    alive = [t for t in tr.live if getrefcount(t) > DEAD]
    holders: list[Any] = []  # tensors, and memory that tensors share; each wants a value
    history = []  # tensors from which a later backward may start
    for t in alive:
        storage = t._storage
        if tr.hooks or tr.functions or (type(t._meta) is Kind and t._at[0] != epoch):
            break
        if storage is None:
            if draft.is_number(t._at[1]):
                break
            holders.append(t)
        elif storage.array is None:
            if storage.at[0] != epoch or draft.is_number(storage.at[1]):
                break
            if storage not in holders:
                holders.append(storage)
        if type(t._meta) is Kind and t._meta.requires_grad:
            history.append(t)
    else:
        _finish(tr, draft, holders, history)
        for t in alive:
            if type(t._meta) is Kind:
                t._meta = t._meta.signature
        return True
    tape.unfold(tr)
    return False


def _finish(tr: Trace, draft: Draft, holders: list[Any], history: list[Any]) -> None:
    roots = [t._at[1] for t in history]
    if all([draft.is_spent(slot) for slot in roots]):
        needed, saved, kept_bytes, readers = array("B", bytes(len(draft.forms))), None, 0, 0
    else:
        needed, saved, kept_bytes, readers = _keep(draft, roots)
    wanted, specs, seen = [], [], set()
    for holder in holders:
        slot = holder.at[1] if type(holder) is Storage else holder._at[1]
        kind = draft.kind(slot)
        specs.append((kind.numel, kind.dtype))
        if slot in seen or needed[slot] == 3 or kind.what != COMPUTED:
            slot = draft.copied(slot)
        seen.add(slot)
        wanted.append(slot)
    _remember(tr, draft, wanted)
    draft.kinds.finished()
    outputs = [new_storage(*spec) for spec in specs]
    kept = new_bytes(kept_bytes) if kept_bytes else None
    places = _execute(tr, draft, needed, wanted, [s.address for s in outputs], kept.address if kept is not None else 0)
    statistics["runs"] += 1
    if history:
        graph = DraftGraph(tr, draft, saved, places, kept, readers)
        if tr.shared is not None:
            tr.shared.add(graph)
        for t in history:
            t._origin = (graph, t._at[1])
    for holder, storage in zip(holders, outputs, strict=True):
        if type(holder) is Storage:
            adopt(holder, storage)
        else:
            holder._storage = storage
    tr.reset()


def _remember(tr: Trace, draft: Draft, wanted: list[int]) -> None:
    """Notice drafts that keep coming back: such programs are recorded in the trace cache from now on, if it can hold what
    lies between two of them. (To plan one costs as much as running it a good many times as a draft.)"""
    kinds = draft.kinds
    recent = kinds.recent
    digest = hash((draft.entries().tobytes(), tuple(wanted)))
    kinds.drafted += len(draft.forms)
    tr.longest = max(len(draft.forms), tr.longest * 7 // 8)
    times, before = recent.pop(digest, (0, 0))
    if times >= RETURNS and 2 * (kinds.drafted - before) <= tape.CACHE_NODES:
        tr.strangers = 0
    if len(recent) >= RECENT:
        del recent[next(iter(recent))]
    recent[digest] = (times + 1, kinds.drafted)


def _keep(draft: Draft, roots: list[int]) -> tuple[array[int], array[int], int, int]:
    """What backward walks from the roots will read: what is needed for it, which slots, bytes, and by how many entries."""
    flat, kinds, count = draft.entries(), draft.kinds, len(draft.forms)
    kinds.prepare(set(draft.forms))
    needed, saved, reached = array("B", bytes(count)), array("B", bytes(count)), array("B", bytes(count))
    for slot in roots:
        reached[slot] = 1
    pack_into(
        "6q", kinds.block, 0, flat.buffer_info()[0], kinds.kinds.buffer_info()[0], reached.buffer_info()[0],
        draft.released_flags(count).buffer_info()[0], needed.buffer_info()[0], saved.buffer_info()[0],
    )  # fmt: skip
    size = keep()(kinds.block_at, count)
    return needed, saved, size, kinds.block[6]


def _execute(
    tr: Trace, draft: Draft, needed: array[int], wanted: list[int], outputs: list[int], kept: int
) -> array[int]:
    """Write the records and sweep them; returns the address of every value that is needed."""
    flat, kinds = draft.entries(), draft.kinds
    count = len(draft.forms)
    addresses = array("q", tr.addresses)
    address = kinds.space(5 * count + 64)
    needed.frombytes(bytes(count - len(needed)))
    for slot, output in zip(wanted, outputs, strict=True):
        needed[slot] = 2
        kinds.room[slot] = output
    block = kinds.block
    pack_into(
        "10q", block, 0, flat.buffer_info()[0], kinds.kinds.buffer_info()[0], kinds.records.buffer_info()[0], count,
        needed.buffer_info()[0], address, address + 8 * count, address + 16 * count, addresses.buffer_info()[0],
        draft.cells.buffer_info()[0],
    )  # fmt: skip
    arena = tr.arena
    size = arena.nbytes if arena is not None else 1 << 16
    while True:
        pack_into(
            "10q", block, 80, kinds.program.buffer_info()[0], len(kinds.program) // 8, _arena(tr, size), size,
            address + 24 * count, address + 24 * count + 512, 0, 0, 0, kept,
        )  # fmt: skip
        if lower()(kinds.block_at, 0) == DONE:
            break
        size = max(block[17], min(2 * size, 1 << 26)) if block[17] > size else size
        if 8 * block[16] > len(kinds.program):
            kinds.program = array("q", bytes(128 * block[16]))
    records, start = block[16], kinds.program.buffer_info()[0]
    while records > 0:
        sweep()(start, min(PIECE, records))
        start += RECORD_BYTES * PIECE
        records -= PIECE
    return kinds.room[:count]


tape.finish_draft = finish
