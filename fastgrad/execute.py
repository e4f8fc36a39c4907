"""Running a trace: find what is still wanted, find or make its program, bind addresses, sweep, hand results over.

`flush` ends the present trace. What must exist afterwards is what live tensors hold: a tensor that only the trace itself
refers to is dead, and reference counts tell. A trace and its pattern of live tensors has one program; the first run executes
straight from the tape (tier 0), from the second on the planned program (tier 1). `compute` and `apart` compute values without
ending the trace, for guards of `compile` and for readers in other threads (`threads.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from sys import getrefcount
from typing import Any

import numpy as np

from . import endings, reverse
from . import recording as tape
from .kernels.entrance import ending
from .kernels.memory import LARGE, lacking, require
from .plan import section
from .plan.build import plan
from .plan.program import Program
from .recording import Signature, Storage, Trace, statistics
from .tensor import Tensor

_forced: list[int | None] = [None]
FAILURES = (IndexError, RuntimeError, MemoryError)  # by which a run tells of a value that cannot be computed
VARIANTS = 16  # patterns of live tensors that one trace may have before all its tensors count as live


def set_tier(tier: int | None) -> None:
    """Force the tier that programs are made for: 0 straight from the tape, 1 planned, 2 planned with every loop compiled into one
    kernel at once; None chooses by use."""
    if tier not in (None, 0, 1, 2):
        raise ValueError(f"tier must be 0, 1, 2 or None, got {tier!r}")
    _forced[0] = tier


def _tier_from_environment() -> None:
    text = os.environ.get("FASTGRAD_TIER", "")
    if text:
        if text not in ("0", "1", "2"):
            raise ValueError(f"FASTGRAD_TIER must be 0, 1 or 2, got {text!r}")
        set_tier(int(text))


_tier_from_environment()


def empty(nbytes: int) -> Any:
    """Aligned uninitialised bytes."""
    if nbytes > LARGE:
        require(nbytes, "a tensor")
    try:
        raw = np.empty(nbytes + 64, np.uint8)
    except MemoryError:
        raise lacking(nbytes, "a tensor") from None
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def new_storage(numel: int, dtype: Any) -> Storage:
    """Fresh memory for a value."""
    nbytes = numel * dtype.itemsize
    if nbytes < 4096:
        array = np.empty(numel, dtype.numpy)
    else:
        array = empty(nbytes).view(dtype.numpy)
    return Storage(array, array.__array_interface__["data"][0], numel, nbytes)


class Ready:
    """A program, and what its run hands back."""

    __slots__ = ("nbytes", "outputs", "pattern", "program", "readers", "recipes", "saved", "specs", "spent")

    def __init__(self, program: Program, specs: list[tuple[int, Any]], saved: Any, readers: set[int]) -> None:
        self.readers = readers
        self.recipes: dict[
            Any, list[int]
        ] = {}  # for backward passes over what the run leaves: the saved values they read
        self.program = program
        self.specs = specs  # (elements, dtype) of each output
        self.saved = saved
        self.outputs: list[list[Storage]] = [[] for _ in specs]  # former results, to be used again
        results = sum([n * dtype.itemsize for n, dtype in specs])
        self.nbytes = results + program.arena_bytes + program.kept_bytes  # that it needs at most
        self.spent: Any = None  # the graph of results whose history a backward has given up
        self.pattern: Any = None  # of the living tensors that it is for

    def forget(self) -> None:
        """The node that it belongs to is given up: let go of what holds it in turn."""
        self.pattern = None
        self.program.unfollow()


def _counts(live: list[Any]) -> list[int]:
    return [getrefcount(t) for t in live]


def drop_dead(tr: Trace) -> None:
    """Leave only tensors that somebody holds, newest first asked: a dead view no longer holds its base."""
    live, kept = tr.live, []
    while live:
        last = [live.pop()]
        if _counts(last)[0] > DEAD:
            kept.append(last[0])
    live.extend(reversed(kept))


def _calibrate() -> int:
    live = [tape.blank(tape.STALE, None)]
    return _counts(live)[0]


DEAD = _calibrate()


def _another(pool: list[Storage], spec: tuple[int, Any]) -> Storage:
    """New memory for a result, which later runs may use again."""
    storage = new_storage(*spec)
    if len(pool) >= POOL:
        del pool[0]
    pool.append(storage)
    return storage


POOL = 3
_FREE = (
    1 << 60,
    1 << 60,
)  # the reference counts, as `results` sees them, of a storage and an array that only a pool holds


def _calibrate_free() -> tuple[int, int]:
    pool = [new_storage(1, tape.dtypes.float32)]
    for storage in pool:
        return getrefcount(storage), getrefcount(storage.array)
    raise AssertionError


_FREE = _calibrate_free()


def flush(tr: Trace) -> None:
    """Run the trace and start a new one; after an error, too."""
    lock, epoch = tr.lock, tr.epoch
    if tr.capture is not None:  # what comes now would be all that a replay has
        tr.capture.release("a value that is needed at once")
    lock.acquire()
    try:
        if tr.draft is not None and tape.finish_draft(tr):
            return
        if not _again(tr):
            _flush(tr)
    except FAILURES as error:
        if tr.epoch == epoch:
            _rescue(tr, error)
        raise
    except BaseException:
        if tr.epoch == epoch:
            abandon(tr)
        raise
    finally:
        lock.release()


class _Pattern:
    """How a trace ended: which of its tensors were alive, and what was done about them."""

    __slots__ = ("alive", "end", "forced", "places", "ready", "rooted", "roots", "slots", "table", "uses")

    def __init__(self, alive: list[bool], slots: list[int], ready: Ready, rooted: list[int], roots: list[int]) -> None:
        self.alive = alive
        self.places = [i for i, x in enumerate(alive) if x]
        self.slots = slots  # of those alive: a tape does not tell in which order the handles of its values were made
        self.ready = ready
        self.rooted = rooted
        self.roots = roots
        self.forced = _forced[0]
        self.uses = 0
        self.table: Any = None  # the same for machine code,
        self.end: Any = None  # and the function that runs it


def _again(tr: Trace) -> bool:
    """Run a trace as it ran the last time, if the same tensors are alive, none of which shares memory."""
    node, live = tr.node, tr.live
    if type(node) is not tape.Node:
        return False
    pattern = node.quick
    if pattern is None or pattern.forced != _forced[0]:
        return False
    table = pattern.table
    if table is not None and pattern.end(tr, table):
        tr.strangers = 0
        tr.reset()
        return True
    if [getrefcount(t) > DEAD for t in live] != pattern.alive:
        return False
    holders = [live[i] for i in pattern.places]
    for t, slot in zip(holders, pattern.slots, strict=True):
        if t._storage is not None or t._at[1] != slot:
            return False
    if tr.strangers:
        _familiar(tr, node)
    pattern.uses += 1
    if pattern.uses == endings.AFTER:
        pattern.ready.program.move_up()
        pattern.table, pattern.end = endings.table(tr, pattern), ending()
    _perform(tr, pattern.ready, holders, [holders[k] for k in pattern.rooted], pattern.roots)
    return True


def _familiar(tr: Trace, node: tape.Node) -> None:
    """A program has come back: new ones are expected to, too, unless they are much longer than this one."""
    if 2 * node.end >= tr.longest:
        tr.strangers //= 2


def _rescue(tr: Trace, error: BaseException) -> None:
    """Save what can be saved of a trace that cannot be run as a whole; if that cannot be run, either, without writes or not at all."""
    try:
        drop_dead(tr)
        cut = None if isinstance(error, MemoryError) else _first_failing(tr)
        try:
            salvage(tr, cut)
        except MemoryError:
            salvage(tr, 0)
    except FAILURES:  # the first error is told
        abandon(tr)


def _pending(tr: Trace) -> tuple[list[Tensor], list[int]]:
    """The tensors that wait for their values, and their slots."""
    pending = [t for t in tr.live if t._at[0] == tr.epoch and (t._storage is None or t._storage.array is None)]
    slots = [t._at[1] if t._storage is None else t._storage.at[1] for t in pending]
    return pending, slots


def salvage(tr: Trace, cut: int | None) -> None:
    """After an entry has failed: what does not depend on it gets its value. Writes happen that were recorded before there were `cut`
    entries, or as many as there is memory for; later ones do not: memory, and tensors that were written in place, have what they had."""
    pending, slots = _pending(tr)
    writes, cut = _written_before(tr, cut)
    holders: list[Any] = []
    want: list[int] = []
    rooted: list[Tensor] = []
    for t, last in zip(pending, slots, strict=True):
        storage = t._storage
        slot = _computable(tr, last, t, cut)
        if slot is None:
            continue
        if storage is None or storage not in holders:
            holders.append(t if storage is None else storage)
            want.append(slot)
        if slot == last and t._meta.requires_grad and type(t._meta) is not Signature:
            rooted.append(t)
    roots = [t._meta.slot for t in rooted]
    ready = prepare(tr, want, roots, 0, writes)
    tr.written = {}
    kept = {id(holder) for holder in holders}
    lost = [t for t in tr.live if t._storage is None and id(t) not in kept]
    _perform(tr, ready, holders, rooted, roots)
    for t in rooted:
        if type(t._meta) is not Signature:
            t._meta = t._meta.signature
    for t in lost:
        t._at = tape.STALE


def _can_be_computed(tr: Trace, slots: list[int]) -> bool:
    try:
        compute(tr, slots)
    except FAILURES:
        return False
    return True


def _most(count: int, works: Callable[[int], bool]) -> int:
    """The largest number up to `count` that works, where what works for a number does for all smaller ones."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if works(middle) else (low, middle - 1)
    return low


def _first_failing(tr: Trace) -> int:
    """The slot of the first entry that finds an error, of those that something wanted or written is made from."""
    entries = tr.entries()
    needed = section.live(entries, [*_pending(tr)[1], *writes_of(tr).values()])
    fallible = [slot for slot in needed if getattr(entries[slot].op, "fallible", None)]
    good = _most(len(fallible), lambda n: _can_be_computed(tr, fallible[:n]))
    return fallible[good] if good < len(fallible) else len(entries)


def _written_before(tr: Trace, cut: int | None) -> tuple[dict[int, int], int]:
    """What leaves' memory gets (see `writes_of`): writes recorded before there were `cut` entries, or as many as there is memory for;
    and the number of entries up to which they reach."""
    marks: list[Any] = []
    node: Any = tr.real
    while node is not None:
        if node.op is tape.WRITE:
            marks.append(node)
        node = node.parent
    marks.reverse()
    if cut is None:
        n = _most(len(marks), lambda n: _can_be_computed(tr, [m.operands[1] for m in marks[:n]]))
        cut = marks[n].end if n < len(marks) else tr.real.end
    return {m.operands[0]: m.operands[1] for m in marks if m.end <= cut}, cut


def _computable(tr: Trace, slot: int, t: Tensor, cut: int) -> int | None:
    """The value of a tensor without the writes in place since there were more than `cut` entries, or an older one; None if there is none."""
    writes = [*tr.before.get(id(t), ()), *tr.before.get(id(t._storage), ())]
    while writes and writes[-1][0] == slot:  # the list may be another tensor's that has died
        made, old, end = writes.pop()
        if end <= cut and _can_be_computed(tr, [made]):
            return made
        slot = old
    return slot if _can_be_computed(tr, [slot]) else None


def abandon(tr: Trace) -> None:
    """Drop a trace that cannot be run: its tensors have no value, and memory keeps what it holds."""
    for t in tr.live:
        if t._storage is None:
            t._at = tape.STALE
    tr.reset()


def _flush(tr: Trace) -> None:
    node = tr.real
    if node.end == 0:
        tr.reset()
        return
    live = tr.live
    counts = _counts(live)
    sharing = [t for t, n in zip(live, counts, strict=True) if n > DEAD and t._storage is not None]
    if sharing:  # tensors whose memory another tensor may have
        _find_places(tr, sharing)
        node = tr.real
        sharing = [t for t in sharing if not _is_elsewhere(tr, t)]
    everything = node.plans is not None and len(node.plans) >= VARIANTS
    holders: list[Any] = []  # tensors and storages, each with the slot it wants
    want: list[int] = []
    roots: list[int] = []  # slots from which a later backward may start, and their tensors
    rooted: list[Tensor] = []
    for t, references in zip(live, counts, strict=False):
        if references > DEAD or everything:
            if t._storage is None:
                want.append(t._at[1])
                holders.append(t)
                meta = t._meta
                if meta.requires_grad:
                    roots.append(t._at[1])
                    rooted.append(t)
            elif references <= DEAD:
                sharing.append(t)
    if sharing:
        _sharing(sharing, want, holders, roots, rooted)
    plans = node.plans
    if plans is None:
        plans = node.plans = {}
    key = (tuple(want), tuple(roots), _forced[0])
    ready = plans.get(key)
    if ready is None or ready == 1:
        # A program is planned at once, unless the last ones never came back: then the first run goes straight from the tape.
        quickly = ready is None and _forced[0] is None and tr.strangers >= tape.STRANGERS
        tier = 0 if quickly else _forced[0]
        if ready is None:
            tr.strangers = min(tr.strangers + 1 + node.end // 1024, 2 * tape.STRANGERS)
            tr.longest = max(node.end, tr.longest * 7 // 8)
        elif 2 * node.end >= tr.longest:
            tr.strangers = 0  # it has come back
        ready = prepare(tr, want, roots, tier)
        plans[key] = 1 if quickly else ready
    else:
        quickly = False
        _familiar(tr, node)
    if not quickly and not sharing and not everything and len(plans) < VARIANTS:
        alive = [references > DEAD for references in counts]
        if ready.pattern is None or ready.pattern.alive != alive:
            places = {id(t): k for k, t in enumerate(holders)}
            ready.pattern = _Pattern(alive, want, ready, [places[id(t)] for t in rooted], roots)
        node.quick = ready.pattern if sum(alive) == len(holders) else None
    _perform(tr, ready, holders, rooted, roots)
    for t in sharing:
        if type(t._meta) is not Signature:
            t._meta = t._meta.signature


def _is_elsewhere(tr: Trace, t: Tensor) -> bool:
    """Whether another thread has written a history to a tensor that this trace made: it is that thread's now."""
    epoch = tape.epoch_of(t)
    return type(t._meta) is not Signature and epoch >= 0 and epoch != tr.epoch


def _find_places(tr: Trace, sharing: list[Tensor]) -> None:
    """Tensors whose memory was written through another one enter the trace again."""
    tr.static += 1  # nothing is cut here
    try:
        for t in sharing:
            storage = t._storage
            if t._at[0] != tr.epoch and (storage.array is None or storage in tr.written) and not _is_elsewhere(tr, t):
                tape.enter(tr, t)
    finally:
        tr.static -= 1


def _sharing(
    sharing: list[Tensor], want: list[int], holders: list[Any], roots: list[int], rooted: list[Tensor]
) -> None:
    """What tensors that share memory want: each pending memory once."""
    seen: set[Storage] = set()
    for t in sharing:
        storage = t._storage
        if storage.array is None and storage not in seen:
            seen.add(storage)
            want.append(storage.at[1])
            holders.append(storage)
        meta = t._meta
        if meta.requires_grad and type(meta) is not Signature:
            roots.append(meta.slot)
            rooted.append(t)


def prepare(
    tr: Trace,
    want: list[int],
    roots: list[int],
    tier: int | None,
    writes: dict[int, int] | None = None,
    past: Any = None,
) -> Ready:
    """Plan the trace for what is wanted of it, and for its writes (or the given ones). `past`: entries and released slots, if
    they are not the trace's."""
    entries, released = (tr.entries(), tr.released) if past is None else past
    writes = writes_of(tr) if writes is None else writes
    save, readers = reverse.saved_slots(entries, roots, released)
    program = plan(entries, writes, want, save, tier)
    specs = [(entries[slot].numel, entries[slot].dtype) for slot in want]
    saved = [(slot, entries[slot], program.kept[slot]) for slot in sorted(save)]
    return Ready(program, specs, saved, readers)


def writes_of(tr: Trace) -> dict[int, int]:
    """Which leaf's memory gets which slot's value at the end of the trace."""
    writes: dict[int, int] = {}
    node: Any = tr.real
    while node is not None:
        if node.op is tape.WRITE:
            writes.setdefault(node.operands[0], node.operands[1])
        node = node.parent
    return dict(reversed(list(writes.items())))


def _arena(tr: Trace, nbytes: int) -> int:
    arena = tr.arena
    if arena is None or arena.nbytes < nbytes:
        tr.arena = None  # the old one is given back before the new one is asked for
        arena = tr.arena = new_bytes(nbytes)
    return arena.address


def results(ready: Ready) -> list[Storage]:
    """Memory for all results."""
    if ready.nbytes > LARGE:
        _require_fresh(ready)
    found = []
    storages, arrays = _FREE
    for pool, spec in zip(ready.outputs, ready.specs, strict=True):
        for storage in pool:
            if (
                getrefcount(storage) <= storages
                and getrefcount(storage.array) <= arrays
                and storage.savers is None
                and not storage.shared
            ):
                break
        else:
            storage = _another(pool, spec)
        storage.aliases = None
        found.append(storage)
    return found


def _require_fresh(ready: Ready) -> None:
    """An error unless there is memory for all that a run will ask for: the pieces might be given one by one."""
    arena = tape.local.trace.arena
    have = 0 if arena is None else arena.nbytes
    program = ready.program
    fresh = [n * dtype.itemsize for pool, (n, dtype) in zip(ready.outputs, ready.specs, strict=True) if not pool]
    nbytes = sum(fresh) + program.kept_bytes + (program.arena_bytes - have if program.arena_bytes > have else 0)
    if nbytes > LARGE:
        require(nbytes, f"a program of {program.count} records")


def _perform(tr: Trace, ready: Ready, holders: list[Any], rooted: list[Tensor], roots: list[int]) -> None:
    program = ready.program
    outputs = results(ready)
    kept = new_bytes(program.kept_bytes) if program.kept_bytes else None
    arena = _arena(tr, program.arena_bytes) if program.arena_bytes else 0
    written = tr.written
    for storage in written:
        if storage.savers:
            protect(written)
    for storage in written:
        storage.version += 1
    program.bind(tr.addresses, tr.scalars, arena, [s.address for s in outputs], kept.address if kept is not None else 0)
    statistics["runs"] += 1
    program.run(None)
    if rooted:
        graph = ready.spent
        if graph is None:
            graph = reverse.Graph(tr, ready, kept)
            if not ready.saved and reverse.is_spent(graph.entries, roots, tr.released):
                graph.sources, graph.ready = {}, reverse.Alone()
                ready.spent = graph
            elif tr.shared is not None:
                tr.shared.add(graph)
        for t, slot in zip(rooted, roots, strict=True):
            t._origin = (graph, slot)
    for number, (holder, storage) in enumerate(zip(holders, outputs, strict=True)):
        if type(holder) is Storage:
            adopt(holder, storage)
            pool = ready.outputs[number]
            pool[pool.index(storage)] = holder  # else the memory would look as if somebody outside held it
        else:
            holder._storage = storage
            meta = holder._meta
            if type(meta) is not Signature:
                holder._meta = meta._signature or meta.signature
    tr.reset()


def new_bytes(nbytes: int) -> Storage:
    """Fresh memory without a type."""
    array = empty(nbytes)
    return Storage(array, array.ctypes.data, nbytes, nbytes)


def adopt(storage: Storage, made: Storage) -> None:
    """A pending storage gets its memory."""
    storage.array, storage.address = made.array, made.address
    storage.numel, storage.nbytes = made.numel, made.nbytes
    storage.at = tape.STALE


def protect(written: dict[Storage, int]) -> None:
    """Copy what earlier graphs still need of memory that is about to be written."""
    for storage in written:
        if storage.savers:
            fresh = None
            for reference in storage.savers:
                graph = reference()
                if graph is not None and not graph.is_released:
                    if fresh is None:
                        array = np.array(storage.array.reshape(-1).view(np.uint8), copy=True)
                        fresh = Storage(array, array.ctypes.data, storage.numel, storage.nbytes)
                    graph.replace(storage, fresh)
                    fresh.savers = [*(fresh.savers or ()), reference]
            storage.savers = None


def compute(tr: Trace, slots: list[int]) -> list[Storage]:
    """The values of entries of a pending trace, side effects left out."""
    return apart(tr, prepare(tr, slots, [], 0, {}))[0]


def apart(tr: Trace, ready: Ready) -> tuple[list[Storage], Storage]:
    """Run a program beside the trace, in memory of its own; returns results and what is kept for a backward."""
    program = ready.program
    outputs = results(ready)
    arena, kept = new_bytes(program.arena_bytes), new_bytes(program.kept_bytes)
    addresses = [s.address for s in outputs]
    program.bind(list(tr.addresses), list(tr.scalars), arena.address, addresses, kept.address)
    program.run(None)
    return outputs, kept


tape.flush = flush
tape.protect = protect
