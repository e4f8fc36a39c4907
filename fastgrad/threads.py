"""Storages between threads: one present value, whoever wrote it, and every thread reads that.

Each thread records on a trace of its own, so a write may still be pending in one thread when another wants the memory. A trace that
has recorded a write leaves its mark on the storage (`Storage.writer`): as long as the mark is there, no other trace has anything
pending on that memory. Whoever finds another trace's mark makes that trace **let go** first (`settle` before reading, `claim` before
writing): its pending write lands, and what it has recorded goes on with a private copy of the memory as it was before, so that its
results stay what they were when it recorded them. The owner need not stop for it: its entries do not change, only the address of an
input does. What a thread has recorded and not run is done when it ends.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from . import recording as tape
from . import reverse
from .execute import Ready, adopt, apart, drop_dead, flush, new_bytes, prepare
from .plan.section import inputs
from .recording import Node, Signature, Storage, Trace, statistics
from .shared_graph import SharedGraph
from .tensor import Tensor

_KEPT = 64  # programs for single values that a trace remembers
_PATIENCE = 1000  # looks at a trace in the middle of an operation, a millisecond apart in the end


def settle(tr: Trace, storage: Storage) -> None:
    """Before `tr` reads a storage: what another trace is to write there lands now."""
    with tape.writing:
        mark = storage.writer
        if mark is not None and mark is not tr.mark:
            owner = mark.trace()
            if owner is not None:
                let_go(owner, storage)
            storage.writer = None


def claim(tr: Trace, storage: Storage) -> None:
    """Before `tr` records a write: no other trace has anything pending on the storage. The caller holds `tape.writing`."""
    for other in tape.traces():
        if other is not tr:
            let_go(other, storage)
    storage.writer = tr.mark


def let_go(owner: Trace, storage: Storage) -> None:
    """What a trace is to write to a storage lands, and what it has recorded reads a copy of what was there before."""
    with owner.lock:
        slot = owner.entered.get(storage)
        if slot is None:
            return
        value = value_of(owner, slot) if storage in owner.written else None
        before = new_bytes(storage.nbytes)
        _bytes(before)[:] = _bytes(storage)
        before.numel = storage.numel
        shift = before.address - storage.address
        leaves, addresses = owner.leaves, owner.addresses
        for i in range(len(leaves)):
            if leaves[i] is storage:
                leaves[i] = before
        for i in range(len(addresses)):
            if storage.address <= addresses[i] < storage.address + max(storage.nbytes, 1):
                addresses[i] += shift
        owner.entered.pop(storage, None)
        owner.written.pop(storage, None)
        if owner.capture is not None:
            owner.capture.disturbed = True
        if value is not None:
            if storage.savers:
                tape.protect({storage: 0})
            _bytes(storage)[:] = _bytes(value)
            storage.version += 1


def _bytes(storage: Storage) -> Any:
    return storage.array.reshape(-1).view(np.uint8)[: storage.nbytes]


def value_of(owner: Trace, slot: int) -> Storage:
    """The value of an entry of another thread's trace, which goes on as if nothing had happened. Holds the trace's lock."""
    return apart(owner, ready_for(owner, slot, []))[0][0]


def ready_for(owner: Trace, slot: int, roots: list[int], past: Any = None) -> Ready:
    """The program for one value of a trace; that of a place in the trace cache is remembered."""
    node = owner.node
    known = owner.apart
    key = (node, slot, tuple(roots)) if type(node) is Node and past is None else None
    found: Ready | None = known.get(key) if key is not None else None
    if found is None:
        found = prepare(owner, [slot], roots, 0, {}, steady(owner) if past is None else past)
        if key is not None and node is owner.node:
            if len(known) >= _KEPT:
                known.clear()
            known[key] = found
    return found


def steady(owner: Trace) -> Any:
    """A trace's entries and released slots at a moment when it has all their inputs: its thread may be recording."""
    for attempt in range(_PATIENCE):
        past = owner.past
        addresses, numbers = inputs(past[0])
        if len(addresses) <= len(owner.addresses) and len(numbers) <= len(owner.scalars):
            return past
        time.sleep(0 if attempt < 10 else 0.001)
    raise RuntimeError("a value that another thread was to compute is missing: an error ended its recording")


def materialize(t: Tensor) -> None:
    """Give a tensor its value and its history: run its trace, or if that is another thread's, compute this one value beside it."""
    tr = tape.local.trace
    storage = t._storage
    epoch = tape.epoch_of(t) if storage is None or storage.array is not None else storage.at[0]
    if epoch == tr.epoch:
        flush(tr)
        return
    owner = tape.owner_of(epoch)
    if owner is not None:
        observe(owner, t, epoch)
    if t._storage is None or t._storage.array is None:
        raise RuntimeError("this tensor's value could not be computed: an error ended the trace that was to compute it")


def observe(tr: Trace, t: Tensor, epoch: int) -> None:
    """Compute one pending tensor of a trace, which goes on as if nothing had happened."""
    with tr.lock:
        storage, meta = t._storage, t._meta
        has_value = storage is not None and storage.array is not None
        has_history = not meta.requires_grad or type(meta) is Signature
        if tr.epoch != epoch or (has_value and has_history):
            return
        slot = t._at[1] if storage is None or has_value else storage.at[1]
        roots = [] if has_history else [t._at[1]]
        past = steady(tr) if roots else None  # a draft goes on as it is: its thread may be recording
        ready = ready_for(tr, slot, roots, past)
        made, kept = apart(tr, ready)
        if storage is None:
            t._storage = made[0]
        elif not has_value:
            adopt(storage, made[0])
        if roots:
            graph = reverse.Graph(tr, ready, kept, past)
            if tr.shared is None:
                tr.shared = SharedGraph(tr, graph.order)
            tr.shared.add(graph)
            t._origin = (graph, roots[0])
        if type(meta) is not Signature:
            t._meta = meta.signature
        statistics["foreign runs"] += 1


def finish(tr: Trace) -> None:
    """Run what a thread that ends has recorded, if anybody holds a result or memory is to be written."""
    drop_dead(tr)
    if tr.live or tr.written:
        flush(tr)


tape.settle_storage = settle
tape.claim = claim
tape.finish = finish
tape.materialize = materialize
