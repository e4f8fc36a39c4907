"""Backward: adjoint entries recorded by the operations' gradient rules.

`backward_pass` walks a region of tape from its roots in descending slots, pops each entry's gradient and pushes what the
entry's rule makes of it; nothing recurses. A region is the pending trace itself or a `Graph`, what is left of a trace that has
run: its entries, and the values that gradient rules may still need. A walk over the pending trace is remembered as one edge,
so a loop that does the same again records its whole adjoint section with one look-up.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import recording as tape
from .arrival import Arrivals, fresh, total, unshared
from .needed import behind, on_the_way, targets, through_graphs
from .ops import arrays
from .ops.arrays import sum_to
from .ops.table import CONVERT, reads
from .plan.assemble import BINDING, KEPT
from .plan.assemble import Place as _Place
from .plan.section import inputs
from .recording import ALIAS, LEAF, Edge, Node, Signature, Storage, Trace, local
from .shared_graph import SharedGraph
from .shared_graph import region as region_of
from .tensor import Tensor, handle

SECOND_TIME = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)

_sequence = itertools.count()
_new = object.__new__


SAVERS = 64  # graphs noted with a storage, after each so many of which those that are gone are struck out


def save(storage: Storage, graph: Graph) -> None:
    """Note with a storage that a graph will read it."""
    savers = storage.savers
    if savers is None:
        savers = storage.savers = []
    elif len(savers) % SAVERS == 0:
        savers[:] = [reference for reference in savers if reference() is not None]
    savers.append(weakref.ref(graph))


class Alone:
    """Stands for a plan that no other graph has."""

    __slots__ = ("recipes",)

    def __init__(self) -> None:
        self.recipes: dict[Any, list[int]] = {}


class Graph:
    """A trace that has run: what a backward over it needs."""

    __slots__ = (
        "__weakref__", "entries", "functions", "hooks", "numbers", "order", "readers", "ready", "released", "saved", "shared", "sources",
    )  # fmt: skip

    def __init__(self, tr: Trace, ready: Any, kept: Storage | None, past: Any = None) -> None:
        self.order = next(_sequence)
        self.shared: SharedGraph | None = None
        self.ready = ready  # the executed plan: graphs with the same one have the same structure
        self.readers = set(ready.readers)  # entries whose rules will read saved values
        self.entries: Sequence[Node]
        self.entries, released = (tr.entries(), tr.released) if past is None else past
        self.sources = {slot: getattr(t, "_origin", None) or t for slot, t in tr.sources.items()}
        self.released = set(released)
        self.hooks = dict(tr.hooks)  # its own: tensors of the trace that comes next have their hooks elsewhere
        self.functions = dict(tr.functions)
        self.numbers: dict[int, Any] = {}
        self.saved: dict[int, tuple[Storage, int, Any]] = {}  # slot -> memory, offset in bytes, element strides
        numbers: dict[int, int] | None = None  # which number of the trace a slot is, worked out when needed
        for slot, _, place in ready.saved:
            numbers = self._keep(tr, slot, place, kept, numbers)

    def _keep(self, tr: Trace, slot: int, place: _Place, kept: Storage | None, numbers: Any) -> Any:
        if place.reference is None:
            root = self.entries[place.root]
            if root.op is tape.SCALAR:
                if numbers is None:
                    numbers = inputs(self.entries)[1]
                self.numbers[slot] = (tr.scalars[numbers[place.root]], place.strides)
            else:
                self.numbers[slot] = (root.attrs, place.strides)
            return numbers
        kind, number, offset = place.reference
        if kind == KEPT:
            assert kept is not None
            self.saved[slot] = (kept, offset, place.strides)
            return numbers
        assert kind == BINDING
        address = tr.addresses[number]
        storage = next(s for s in tr.leaves if s.address <= address <= s.address + s.nbytes)
        self.saved[slot] = (storage, address - storage.address + offset, place.strides)
        save(storage, self)
        if storage.shared and tape.exported(storage):
            tape.protect({storage: 0})  # somebody outside may write to it at any time
        return numbers

    def fits(self, draft: Any) -> bool:
        """Whether compiled passes can walk it in a draft."""
        return False

    @property
    def is_released(self) -> bool:
        return not self.saved

    def replace(self, old: Storage, new: Storage) -> None:
        """Read a saved value from a copy from now on."""
        for slot, (storage, offset, strides) in list(self.saved.items()):
            if storage is old:
                self.saved[slot] = (new, offset, strides)

    @staticmethod
    def _settle(storage: Storage) -> None:
        """What another thread is to write to a saved value's memory lands now, and the saved value is a copy from then on."""
        tr = local.trace
        if storage.writer is not None and storage.writer is not tr.mark:
            tape.settle_storage(tr, storage)

    def value(self, slot: int) -> Tensor:
        """The tensor of a saved value, with its place in this graph."""
        node = self.entries[slot]
        source = self.sources.get(slot)
        if slot in self.saved:
            self._settle(self.saved[slot][0])
        if isinstance(source, Tensor) and (slot not in self.saved or self.saved[slot][0] is source._storage):
            return source
        if slot in self.numbers:
            value, strides = self.numbers[slot]
            number = tape.constant(value)
            if node.op is not tape.SCALAR and node.op is not tape.CONSTANT:
                number = CONVERT(number, attrs=node.dtype)
            return number if node.shape == () else arrays.expand(number, attrs=node.shape)
        requires = node.requires_grad
        if slot not in self.saved:
            return _shaped(
                node, float("nan") if node.dtype.is_floating_point else 0
            )  # no gradient that is used reads it
        storage, offset, strides = self.saved[slot]
        t = handle(Signature.of(node.shape, node.dtype, requires), storage)
        t._whole = False
        t._offset = offset // node.dtype.itemsize
        t._strides = strides
        if requires:
            t._origin = source._origin if isinstance(source, Tensor) else source if source is not None else (self, slot)
            if isinstance(source, Tensor):
                t._stands_for, t._looked_at = source, True
        return t

    def release(self, slots: Iterable[int]) -> None:
        """Give up the saved values of entries that a backward has passed, once no other entry reads any."""
        for slot in slots:
            if slot in self.functions:
                self.functions[slot].release()
            else:
                self.released.add(slot)
        self.readers.difference_update(slots)
        if not self.readers:
            self.saved = {}
            self.numbers = {}


class Pending:
    """The pending trace as a region."""

    order = 1 << 62

    def __init__(self, tr: Trace) -> None:
        self.entries = tr.entries()
        self.released = tr.released
        self.sources = tr.sources
        self.hooks = tr.hooks
        self.functions = tr.functions
        self._epoch = tr.epoch

    def value(self, slot: int) -> Tensor:
        return tape.blank((self._epoch, slot), self.entries[slot])


def _rule_reads(op: Any, node: Node, entries: Sequence[Node]) -> frozenset[str]:
    return reads(op, [entries[x] for x in node.operands], node, node.attrs)


def is_spent(entries: Sequence[Node], roots: Sequence[int], released: set[int]) -> bool:
    """Whether every way from the roots to a source passes an entry whose saved values have been given up."""
    if not released:
        return False
    stack, seen = list(roots), set()
    while stack:
        slot = stack.pop()
        if slot in seen or slot in released:
            continue
        seen.add(slot)
        node = entries[slot]
        if node.op is LEAF or node.op is ALIAS:
            return False
        stack.extend([x for x in node.operands if entries[x].requires_grad])
    return True


def saved_slots(entries: Sequence[Node], roots: Sequence[int], released: set[int]) -> tuple[set[int], set[int]]:
    """The slots whose values a backward from the roots would read, and the entries whose rules read them."""
    saved: set[int] = set()
    readers: set[int] = set()
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        slot = stack.pop()
        if slot in seen:
            continue
        seen.add(slot)
        node = entries[slot]
        if node.op is LEAF or node.op is ALIAS or not node.requires_grad:
            continue
        if slot not in released:
            for name in _rule_reads(node.op, node, entries):
                readers.add(slot)
                saved.add(slot if name == "y" else node.operands[ord(name) - ord("a")])
        stack.extend([x for x in node.operands if entries[x].requires_grad])
    return saved, readers


def values_read(op: Any, metas: Sequence[Node], y: Node, attrs: Any) -> frozenset[str]:
    """Which values an operation's gradient rule reads, found by recording it on a tape of its own."""
    if op.gradient is None or op is arrays.function:
        return frozenset()
    outer = local.trace
    tr = local.trace = Trace()
    try:
        tr.grad_enabled = False
        tr.reset()
        tr.static = 1
        made = []
        for i, m in enumerate([*metas, y, y]):
            node = tape.extend(tr, ("operand", i), LEAF, (), None, m.shape, m.dtype, False)
            made.append(tape.blank((tr.epoch, node.slot), node))
        *operands, own, g = made
        gradients = op.gradients(g, own, operands, attrs)
        entries = tr.entries()
        stack = [t._at[1] for t, m in zip(gradients, metas, strict=False) if t is not None and m.requires_grad]
    finally:
        local.trace = outer
    reached = set()
    while stack:
        slot = stack.pop()
        if slot not in reached:
            reached.add(slot)
            stack.extend(entries[slot].operands)
    names = ["abcdefghijklmnopqrstuvwx"[i] for i in range(len(metas))] if len(metas) < 24 else []
    return frozenset([n for i, n in enumerate(names) if i in reached] + (["y"] if len(metas) in reached else []))


def consumers(entries: Sequence[Node], roots: Iterable[int], way: set[int] | None) -> dict[int, int]:
    """How many parts of a gradient each source will get in a walk from the roots."""
    counts: dict[int, int] = {}
    stack, seen = list(roots), set()
    while stack:
        slot = stack.pop()
        if slot in seen:
            continue
        seen.add(slot)
        for x in entries[slot].operands:
            if not entries[x].requires_grad or (way is not None and x not in way):
                continue
            if entries[x].op is LEAF or entries[x].op is ALIAS:
                counts[x] = counts.get(x, 0) + 1
            else:
                stack.append(x)
    return counts


def backward_pass(
    region: Any,
    start: dict[int, list[Tensor]],
    keep: frozenset[int],
    seen: Callable[[int, Tensor], Tensor] | None,
    way: set[int] | None = None,
    complete: Callable[[int, list[Tensor], dict[int, int]], None] | None = None,
) -> tuple[dict[int, list[Tensor]], dict[int, Tensor], list[int]]:
    """Walk a region from the slots of `start` (slot -> parts of its gradient) to its sources.

    Returns the parts of gradients at sources by slot, in the order in which they were complete, the gradients at the slots of
    `keep`, and the slots whose saved values were read. Only slots of `way` are passed, if it is given. `seen` is called with
    each slot's complete gradient and returns the one to use (hooks); `complete` with a source's parts as soon as all are
    there, and those are not returned. Parts come in the order of their consumers, youngest first, and are added up in that
    order only when all are there, so that it does not matter for the bits where a trace was cut.
    """
    entries = region.entries
    waiting = {} if complete is None else consumers(entries, start, way)
    latest: dict[int, None] = {}  # sources, by when the last part came
    pending = {slot: list(parts) for slot, parts in start.items() if way is None or slot in way}
    heap = [-slot for slot in pending]
    heapq.heapify(heap)
    at_sources: dict[int, list[Tensor]] = {}
    kept: dict[int, Tensor] = {}
    passed: list[int] = []
    arrived: dict[int, Any] = {}  # gradients of results of user-defined Functions
    while heap:
        slot = -heapq.heappop(heap)
        if slot not in pending:
            continue  # a source that was complete
        parts = pending.pop(slot)
        node = entries[slot]
        op = node.op
        if op is LEAF or op is ALIAS:
            at_sources[slot] = parts
            continue
        g = total(parts) if parts else None  # None: a Function has returned None for it
        if g is not None and seen is not None:
            g = seen(slot, g)
        if g is not None and slot in keep:
            kept[slot] = g
        if way is not None and not any([x in way for x in node.operands]):
            continue
        if op is arrays.function:
            gradients = region.functions[slot](region, slot, g, pending, arrived)
            if gradients is None:
                continue
            passed.append(slot)
        elif g is None:
            gradients = (None,) * len(node.operands)
        else:
            needs = _rule_reads(op, node, entries)
            if needs:
                if slot in region.released:
                    raise RuntimeError(SECOND_TIME)
                passed.append(slot)
            gradients = op.gradients(g, region.value(slot), [region.value(x) for x in node.operands], node.attrs)
        for operand, gradient in zip(node.operands, gradients, strict=False):
            meta = entries[operand]
            if not meta.requires_grad or (way is not None and operand not in way):
                continue
            if gradient is None:
                if (g is None or op is arrays.function) and operand not in pending:
                    pending[operand] = []  # a Function further back is called all the same
                    heapq.heappush(heap, -operand)
            else:
                gradient = sum_to(gradient, meta.shape)
                present = pending.get(operand)
                if present is None:
                    pending[operand] = [gradient]
                    heapq.heappush(heap, -operand)
                else:
                    present.append(gradient)
            if meta.op is LEAF or meta.op is ALIAS:
                latest.pop(operand, None)
                latest[operand] = None
                if operand in waiting:
                    waiting[operand] -= 1
                    if not waiting[operand] and complete is not None:
                        complete(operand, pending.pop(operand, []), waiting)
    at_sources = {
        slot: at_sources[slot] for slot in (*latest, *(at_sources.keys() - latest.keys())) if slot in at_sources
    }
    return at_sources, kept, passed


def run(
    roots: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor] | None,
    accumulate: bool,
) -> dict[int, Tensor]:
    """Backward from several roots. Accumulates into `.grad` of leaves (of `inputs` only, if given), or returns the gradients of
    `inputs` by their identity."""
    tr = local.trace
    previous = tr.grad_enabled
    if previous != create_graph:
        set_grad(create_graph)
    try:
        return _run(tr, roots, gradients, retain_graph, create_graph, inputs, accumulate)
    finally:
        if local.trace.grad_enabled != previous:
            set_grad(previous)


def quick(root: Tensor) -> bool:
    """The backward of one pending scalar that this trace has seen before, into leaves without gradients or hooks: one
    look-up. False if it is anything else."""
    tr = local.trace
    epoch, slot = root._at
    if epoch != tr.epoch or tr.hooks or tr.functions or tr.capture is not None:
        return False
    edge = tr.node.next.get(("quick backward", slot))
    if edge is None:
        return False
    sources, outputs = tr.sources, edge.outputs
    with tape.writing:  # another thread may give the leaves gradients at the same time
        for source, _ in outputs:
            leaf = sources[source]
            if (
                type(leaf) is tuple
                or leaf._grad is not None
                or leaf._origin is not None
                or leaf._looked_at
                or not leaf._meta.requires_grad
            ):
                return False
        tr.node = edge.end
        live = tr.live
        for source, node in outputs:
            t = _new(Tensor)
            t._at = (epoch, node.slot)
            t._meta = node
            t._storage = t._grad = t._origin = None
            t._whole = True
            live.append(t)
            sources[source]._grad = t
    return True


def remember_quick(tr: Trace, epoch: int, start: Any, inputs: int, slot: int) -> None:
    """Note a backward that `quick` can repeat: it began at a node and has given its gradients to leaves that had none."""
    if tr.epoch != epoch or len(tr.addresses) != inputs or type(tr.node) is not Node or type(start) is not Node:
        return
    outputs = []
    for source, leaf in tr.sources.items():
        if type(leaf) is tuple:
            continue
        if not leaf._meta.requires_grad:  # the next time it may require one
            return
        g = leaf._grad
        if g is not None and g._at[0] == epoch and type(g._meta) is Node and g._at[1] >= start.end:
            outputs.append((source, g._meta))
    start.next[("quick backward", slot)] = Edge(tr.node, outputs)


def set_grad(enabled: bool) -> None:
    """Switch the grad mode of this thread."""
    tr = local.trace
    tr.grad_enabled = enabled
    if tr.draft is not None:
        tr.draft.switch(enabled)
        return
    node = tr.real
    if node.grad_enabled != enabled:
        node = tape.twin(node)
        tr.node = tape.Urgent(node) if type(tr.node) is tape.Urgent else node


def _run(
    tr: Trace, roots: Any, gradients: Any, retain: bool, create: bool, inputs: Sequence[Tensor] | None, accumulate: bool
) -> dict[int, Tensor]:
    if (tr.hooks or tr.functions or tr.shared is not None) and tr.capture is None:
        tape.flush(tr)  # Python code will run in the middle: it finds values, and the trace goes on from there
    wanted: dict[int, Tensor] | None = None if inputs is None else {id(t): t for t in inputs}
    starts: dict[Any, dict[int, list[Tensor]]] = {}
    arrivals = Arrivals(wanted, accumulate, create)
    leaves = arrivals.leaves
    for root, g in zip(roots, gradients, strict=True):
        where = _region_of(tr, root)
        parts = [g if g is not None else _ones(root)]
        if where is None:
            arrivals.reach(root, [unshared(tr, part) for part in parts])
        else:
            starts.setdefault(where[0], {}).setdefault(where[1], []).extend(parts)
    by_region: dict[Any, dict[int, Tensor]] = {}  # region -> slots of inputs that are not leaves
    for t in inputs or ():
        where = _region_of(tr, t)
        if where is not None:
            by_region.setdefault(where[0], {})[where[1]] = t
    ways = None
    if wanted is not None:
        graphs = [*[region for region in starts if region is not None], *_behind(tr, starts.get(None, ()))]
        ways = through_graphs(graphs, wanted, by_region) if graphs else None
    full = 0  # traces that were cut because they were full
    while starts:
        region = max(starts, key=lambda r: r.order if r is not None else 1 << 62)
        start = starts.pop(region)
        inside = by_region.get(region, {})
        keep = {} if accumulate else inside  # a tensor keeps its gradient itself where it has a place for it
        goals = None if wanted is None else targets((tr if region is None else region).sources, wanted, inside, ways)
        if region is None:
            at_sources, kept = _walk_pending(
                tr, start, frozenset(keep), retain, create, None if starts else leaves, goals
            )
        else:
            full += len(region.entries) >= tape.LIMIT
            complete = None if starts else arrivals.in_order(region)
            at_sources, kept = _walk_graph(
                region, start, frozenset(keep), retain, None if starts else leaves, goals, complete
            )
        for slot, g in kept.items():
            arrivals.found[id(keep[slot])] = g
        sources = tr.sources if region is None else region.sources
        for slot, parts in at_sources.items():
            source = sources.get(slot)
            if source is None:
                continue
            origin = source._origin if isinstance(source, Tensor) else source
            if not parts and (origin is None or not origin[0].functions):
                continue
            if origin is not None:
                starts.setdefault(region_of(origin[0]), {}).setdefault(origin[1], []).extend(parts)
            else:
                arrivals.reach(source, parts)
    if 0 < full < tape.LONGER // tape.LIMIT - 1 and tr.lengthened < 3:  # next time, they fit into one
        tr.limit = tape.LONGER
        tr.lengthened += 1
    return arrivals.finish(tr)


def _behind(tr: Trace, roots: Iterable[int]) -> list[Any]:
    """The graphs in which the history of slots of the pending trace goes on."""
    sources = [(slot, region_of(s[0])) for slot, s in tr.sources.items() if type(s) is tuple]
    if not sources:
        return []
    reached = behind(tr.entries(), roots)
    return [region for slot, region in sources if slot in reached]


def _in_any_order(sources: dict[int, Any]) -> bool:
    """Whether no hooks see in which order leaves get their gradients."""
    return not any([type(s) is not tuple and s is not None and s._looked_at for s in sources.values()])


def _region_of(tr: Trace, t: Tensor) -> tuple[Any, int] | None:
    """Where a tensor's history is: (None, slot) in the pending trace, (graph, slot), or None for a leaf."""
    if t._stands_for is not None:
        t = t._stands_for
    if type(t._meta) is not Signature:
        at = t._at
        if at[0] == tr.epoch:
            return None, at[1]
        slot = tape.enter(tr, t)
        if type(t._meta) is not Signature:
            return None, slot
    return None if t._origin is None else (region_of(t._origin[0]), t._origin[1])


def _ones(t: Tensor) -> Tensor:
    """The gradient of a root with respect to itself."""
    tr = local.trace
    tr.static += 1
    try:
        return arrays.full_like(t, 1.0)
    finally:
        tr.static -= 1


def _walk_pending(
    tr: Trace, start: dict[int, list[Tensor]], keep: frozenset[int], retain: bool, create: bool, leaves: Any, goals: Any
) -> tuple[dict[int, list[Tensor]], dict[int, Tensor]]:
    """The walk over the pending trace: one edge, if the trace has been here before. `leaves`: what has reached
    leaves by now, if no other region is left to walk. `goals`: the slots to reach, if not all."""
    if (
        tr.draft is not None
        and not keep
        and not create
        and not tr.hooks
        and not tr.functions
        and _in_any_order(tr.sources)
    ):
        drafted = tr.draft.backward(tr, start, retain, leaves)
        if drafted is not None:
            return drafted, {}
    slots = tape.slots_of(tr, [g for parts in start.values() for g in parts])
    plain = not tr.hooks and not tr.functions
    key = ("backward", tuple([(s, len(parts)) for s, parts in start.items()]), slots, keep, goals, retain, create)
    if plain:
        edge = tape.found(tr.real, key)
        if edge is not None:
            tr.node = edge.end if type(tr.node) is not tape.Urgent else tape.Urgent(edge.end)
            sources, kept = edge.outputs
            return (
                {s: [tape.result(tr, n) for n in nodes] for s, nodes in sources},
                {s: tape.result(tr, n) for s, n in kept},
            )
    origin, epoch, given = tr.real, tr.epoch, len(tr.addresses)
    first = len(tr.live)
    tr.static += 1
    try:
        tape.mark(tr, ("start", key), tape.COMPOSITE, (), "backward")
        region = Pending(tr)
        at_sources, kept_values, passed = backward_pass(
            region, start, keep, _hooks(region), on_the_way(region.entries, goals, start)
        )
        if not retain and passed:
            freed = frozenset(passed)
            tape.mark(tr, ("released", freed), tape.RELEASED, (), freed)
    except BaseException:
        del tr.live[first:]
        raise
    finally:
        tr.static -= 1
    del tr.live[first:]
    if plain:
        outputs = (
            [(s, [t._meta for t in parts]) for s, parts in at_sources.items()],
            [(s, t._meta) for s, t in kept_values.items()],
        )
        nodes = [n for _, part in outputs[0] for n in part] + [n for _, n in outputs[1]]
        if all(type(n) is Node for n in nodes) and tr.epoch == epoch and len(tr.addresses) == given:
            origin.next[key] = Edge(tr.real, outputs)
    return (
        {s: [fresh(tr, t) for t in parts] for s, parts in at_sources.items()},
        {s: fresh(tr, t) for s, t in kept_values.items()},
    )


def _walk_graph(
    graph: Graph,
    start: dict[int, list[Tensor]],
    keep: frozenset[int],
    retain: bool,
    leaves: Any,
    goals: Any,
    complete: Callable[[int, list[Tensor], dict[int, int]], None] | None = None,
) -> tuple[dict[int, list[Tensor]], dict[int, Tensor]]:
    """The walk over a trace that has run: one edge, if graphs of its structure have been walked here before.

    What the rules will read of what the graph saved (the recipe) enters the pending trace first, so that the whole walk hangs on
    one edge behind it.
    """
    tr = local.trace
    tape.room(tr)
    if (
        tr.draft is not None
        and not keep
        and not tr.grad_enabled
        and not graph.hooks
        and graph.fits(tr.draft)
        and _in_any_order(graph.sources)
    ):
        drafted = tr.draft.backward(tr, start, retain, leaves, graph)
        if drafted is not None:
            return drafted, {}
    plain = type(graph) is not SharedGraph and not graph.hooks and not graph.functions and not graph.released
    structure = (tuple([(s, len(parts)) for s, parts in start.items()]), keep, goals, tr.grad_enabled)
    reader = _Reader(graph)
    key: Any = None
    first: Any = None
    if plain:
        recipe = graph.ready.recipes.get(structure)
        if recipe is None:
            needed = saved_slots(graph.entries, list(start), graph.released)[0]
            recipe = graph.ready.recipes[structure] = [s for s in sorted(needed) if s in graph.saved]
        given = [g for parts in start.values() for g in parts]
        slots = tape.slots_of(tr, [*given, *[reader.value(s) for s in recipe]])
        key = ("graph backward", graph.ready, structure, slots, tuple(sorted(graph.numbers.items())))
        edge = tape.found(tr.real, key)
        if edge is not None:
            tr.node = edge.end if type(tr.node) is not tape.Urgent else tape.Urgent(edge.end)
            sources, kept_nodes, passed = edge.outputs
            if not retain:
                graph.release(passed)
            return (
                {s: [tape.result(tr, n) for n in nodes] for s, nodes in sources},
                {s: tape.result(tr, n) for s, n in kept_nodes},
            )
        first = tr.real
        tape.mark(tr, ("start", key), tape.COMPOSITE, (), "backward")
    epoch, entered, live = tr.epoch, len(tr.addresses), len(tr.live)
    tr.static += 1
    try:
        at_sources, kept, passed = backward_pass(
            reader, start, keep, _hooks(graph), on_the_way(graph.entries, goals, start), complete
        )
    finally:
        tr.static -= 1
    if plain:
        del tr.live[live:]
    if key is not None and tr.epoch == epoch:
        edge = _walked(tr, at_sources, kept, passed)
        if len(tr.addresses) == entered:
            first.next[key] = edge
    if not retain:
        graph.release(passed)
    return (
        {s: [fresh(tr, t) for t in parts] for s, parts in at_sources.items()},
        {s: fresh(tr, t) for s, t in kept.items()},
    )


def _walked(tr: Trace, at_sources: dict[int, list[Tensor]], kept: dict[int, Tensor], passed: list[int]) -> Edge:
    """The edge over a walk, with the nodes of its results."""

    def node(t: Tensor) -> Node:
        slot = t._at[1] if t._at[0] == tr.epoch else tape.enter(tr, t)
        return tr.entries()[slot]

    sources = [(s, [node(t) for t in parts]) for s, parts in at_sources.items()]
    return Edge(tr.real, (sources, [(s, node(t)) for s, t in kept.items()], passed))


class _Reader:
    """A graph during one walk: every saved value is one tensor."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.members[-1] if type(graph) is SharedGraph else graph
        self._region = graph
        self._values: dict[int, Tensor] = {}
        self.entries = graph.entries
        self.released = graph.released
        self.functions = graph.functions

    def value(self, slot: int) -> Tensor:
        found = self._values.get(slot)
        if found is None:
            found = self._values[slot] = self._region.value(slot)
        return found


def _shaped(node: Node, value: float) -> Tensor:
    """A number in the shape and dtype of an entry."""
    number = tape.constant(value)
    if number.dtype is not node.dtype:
        number = CONVERT(number, attrs=node.dtype)
    return arrays.expand(number, attrs=node.shape)


def _hooks(region: Any) -> Callable[[int, Tensor], Tensor] | None:
    """What shows the gradients of a region to those who watch for them."""
    if not region.hooks:
        return None

    def seen(slot: int, g: Tensor) -> Tensor:
        watch = region.hooks.get(slot)
        return g if watch is None else watch.see(g)

    return seen
