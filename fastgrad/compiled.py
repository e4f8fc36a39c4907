"""`compile`: a step is recorded once per signature of its arguments, and replayed afterwards without running its Python.

While a `Capture` is set on the trace, nothing is cut: the whole call becomes one trace, whose leaves remember where their memory
is to be found next time (an argument, a tensor the function knows, a tensor's gradient) and whose numbers remember what to read
again (an argument, an optimizer's option, a generator). A branch on a tensor's value is computed beside the trace and noted as
a guard. A `Replay` binds all that, sweeps, compares the guards before anything lands in memory, and hands results over; when
a guard differs, the function runs in Python again, and that path becomes another replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import attrgetter, is_
from sys import getrefcount
from typing import TYPE_CHECKING, Any

from . import execute, reverse, tables
from . import recording as tape
from .execute import Ready, compute, flush, new_bytes, new_storage, protect
from .functions.views import place
from .kernels import background
from .names import Names
from .plan.build import plan
from .plan.section import inputs
from .recording import Signature, Storage, Trace, local, statistics
from .report import Report, report
from .specialize import HELD, is_simple, specialize
from .tensor import Tensor

if TYPE_CHECKING:
    import numpy as np

VARIANTS = 8  # outcomes of guards that one signature may have


class CompileError(RuntimeError):
    """A compiled function does something that cannot be replayed."""


class Capture:
    """What is noted while a call is recorded."""

    def __init__(self, arguments: list[Any], name: str) -> None:
        self.name = name
        self.by_storage: dict[Storage, tuple[Any, ...]] = {}
        self.by_tensor: dict[int, tuple[Any, ...]] = {}
        for k, t in enumerate(arguments):
            if isinstance(t, Tensor):
                self.by_tensor[id(t)] = ("argument", k)
                self.by_storage.setdefault(t._storage, ("argument", k, t._offset))
        # tensors the function may know that lie in an argument's memory
        others = [r() for storage in self.by_storage for r in storage.aliases or ()]
        self.elsewhere = {id(t): t for t in others if t is not None and id(t) not in self.by_tensor}
        self.places: list[tuple[Any, ...]] = []  # for each address: where its tensor is found, and the bytes beyond it
        self.fixed: set[Storage] = set()  # memory in which a view's offset has become part of the program
        self.sources: dict[int, Any] = {}  # number -> where it is read again
        self.guards: list[tuple[Tensor, bool]] = []
        self.gradients: dict[int, Tensor] = {}  # leaves whose gradient the call has replaced
        self.expected: list[tuple[Tensor, bool]] = []  # leaves, and whether they had a gradient before the call
        self.switches: list[
            tuple[dict[str, Any], str, bool]
        ] = []  # an optimizer's options whose truth decides what is recorded
        self.held: list[tuple[Any, Any, Any]] = []  # dicts and lists of an optimizer, keys, and what stood there
        self.given: dict[int, tuple[Tensor, Tensor]] = {}  # a gradient's identity -> the gradient and its leaf

    def _owner(self, t: Tensor, storage: Storage) -> tuple[Any, ...]:
        if id(t) in self.elsewhere:
            return ("tensor", t, t._offset)
        found = self.by_storage.get(storage)
        if found is None:
            given = self.given.get(id(t))
            owner = ("gradient", given[1]) if given is not None else ("tensor", t)
            found = self.by_storage[storage] = (*owner, t._offset)
        return found

    def leaf(self, t: Tensor, storage: Storage) -> None:
        """A whole piece of memory enters."""
        kind, owner, _ = self._owner(t, storage)
        self.places.append((kind, owner, None))

    def alias(self, t: Tensor, storage: Storage) -> None:
        """A view enters at an address of its own."""
        kind, owner, offset = self._owner(t, storage)
        if id(t) in self.by_tensor:
            self.places.append((*self.by_tensor[id(t)], 0))
        else:
            self.places.append((kind, owner, (t._offset - offset) * t._meta.dtype.itemsize))

    def scalar(self, number: int, source: Any) -> None:
        """A number enters."""
        if source is not None:
            self.sources[number] = source

    def constant(self, t: Tensor) -> Tensor:
        """A tensor made from data inside the call: every call gets a copy of its own."""
        if t._meta.requires_grad:
            self.refuse("making a leaf that requires gradients")
        return t.clone()

    def guard(self, t: Tensor) -> bool:
        """The truth of a tensor, which a replay must find again."""
        tr = local.trace
        slot = t._at[1] if t._at[0] == tr.epoch else tape.enter(tr, t)
        outcome = bool(compute(tr, [slot])[0].array.item())
        self.guards.append((tape.result(tr, tr.entries()[slot]), outcome))
        return outcome

    def gradient_read(self, leaf: Tensor) -> None:
        """The call looks at a leaf's gradient."""
        if id(leaf) not in self.gradients:
            present = leaf._grad
            if not any([x is leaf for x, _ in self.expected]):
                self.expected.append((leaf, present is not None))
            if present is not None:
                self.given[id(present)] = (present, leaf)

    def gradient_written(self, leaf: Tensor) -> None:
        """The call replaces a leaf's gradient."""
        self.gradients[id(leaf)] = leaf

    def refuse(self, what: str) -> None:
        """Raise: this can't be replayed."""
        line = tape.user_line()
        where = f" at {line[0]}:{line[1]}" if line else ""
        raise CompileError(
            f"{what} inside of the compiled function {self.name}{where} can't be replayed: a replay does not run Python. "
            "Return the tensor and read it outside of the function."
        )


class _Traced:
    """What a later backward needs of a trace, for graphs of replayed results."""

    def __init__(self, tr: Trace) -> None:
        self._entries = list(tr.entries())
        self.released = set(tr.released)
        self.sources = dict(tr.sources)
        self.hooks = dict(tr.hooks)
        self.functions = dict(tr.functions)
        self.leaves = list(tr.leaves)
        self.addresses: list[int] = []
        self.scalars: list[Any] = []

    def entries(self) -> list[Any]:
        return self._entries


class Replay:
    """One recorded call, ready to be executed again."""

    def __init__(self, tr: Trace, capture: Capture, arguments: list[Any], outputs: Any) -> None:
        self.capture = capture
        self.arguments = arguments
        self.metas: list[Any] = []  # of the known tensors, as they were
        self.known_storages: set[Storage] = set()
        self.overlaps: list[int] = []  # arguments that lie in known tensors' memory
        self.returned: dict[int, Any] = {}  # results met so far, by identity
        self.sources = sorted(capture.sources.items())
        self.numbers = list(tr.scalars)
        self.guards = [outcome for _, outcome in capture.guards]
        want: list[int] = []
        roots: list[int] = []
        self.results: list[tuple[Signature, int]] = []  # signature and slot of each result made anew
        self.holders: list[Tensor] = []
        self.template = self._template(tr, outputs, want, roots)
        self.n_outputs = len(want)
        self.leaves_without: list[Tensor] = []
        self.leaves_with: list[Tensor] = []
        for leaf in capture.gradients.values():
            g = leaf._grad
            if g is None:
                self.leaves_without.append(leaf)
            elif g._storage is None:
                self.leaves_with.append(leaf)
                self._want(tr, g, want, roots)
        for t, _ in capture.guards:
            want.append(t._at[1])
        self.roots = roots
        self.written = list(tr.written)
        # and where the memory that is written is found in other calls
        self.written_at = [capture.by_storage.get(storage, ("storage", storage)) for storage in tr.written]
        self._check_escapes(tr)
        self.ready = _prepare(tr, want, roots, bool(self.guards), capture)
        self.traced = _Traced(tr) if roots else None
        self.addresses = [0] * len(capture.places)
        by_kind: dict[str, list[tuple[int, Any, Any]]] = {"argument": [], "gradient": [], "tensor": []}
        for i, (kind, owner, rest) in enumerate(capture.places):
            by_kind[kind].append((i, owner, rest))
        self.from_arguments, self.from_gradients = by_kind["argument"], by_kind["gradient"]
        self.known_places = [i for i, _, _ in by_kind["tensor"]]
        self.known = [t for _, t, _ in by_kind["tensor"]]
        self.known_rests = [rest for _, _, rest in by_kind["tensor"]]
        self.storages: list[Any] = [None] * len(self.known)
        self.fresh = True
        self.uses = 0
        self.pace = 0.0  # seconds that a batch took in `loop`, if it was used there
        self.due = 3  # when its quick way is written, or written anew because calls miss it
        self.step: Any = None
        self.table: Any = None
        self.flags: Any = None  # whether the table has bound something
        self.work = sum([node.numel for node in tr.entries()])
        self.spent: Any = None
        self.program = self.ready.program
        # A call that may be dropped, or that reads the gradients it replaces, must not write over them.
        late = self.program.error_cell is not None and not self.program.checks_first
        self.careful = bool(self.guards or self.from_gradients or late)
        self.hands: list[list[Tensor]] = [[] for _ in self.results]
        self.places = [0] * len(self.results)
        self.fixed = [
            (found[1], found[2]) for storage, found in capture.by_storage.items()
            if storage in capture.fixed and found[0] == "argument"
        ]  # fmt: skip

    def _template(self, tr: Trace, value: Any, want: list[int], roots: list[int]) -> Any:
        """What the function returned, with results that are made anew as their number, and others as where they are found."""
        if isinstance(value, Tensor):
            where = self.capture.by_tensor.get(id(value))
            if where is not None:
                return Found(*where)
            if value._number is not None and type(value._number[3]) is tuple and value._number[3][0] == "argument":
                return Found(*value._number[3])
            if id(value) in self.returned:
                return self.returned[id(value)]
            storage = value._storage
            owner = self.capture.by_storage.get(storage) if storage is not None else None
            of_argument = owner is not None and owner[0] == "argument"  # a view of it: other memory in every call
            view = (
                of_argument
                and not value._meta.requires_grad
                and storage not in tr.written
                and storage.array is not None
            )
            if view and not _is_new(value, tr):
                assert owner is not None
                return Seen(owner[1], value, value._offset - owner[2])
            if storage is not None and storage.array is not None and not _is_new(value, tr) and not of_argument:
                return Found("tensor", value)
            self._want(tr, value, want, roots)
            made = self.returned[id(value)] = Made(len(want) - 1)
            return made
        if isinstance(value, dict):
            return {k: self._template(tr, v, want, roots) for k, v in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*[self._template(tr, v, want, roots) for v in value])
        if isinstance(value, (list, tuple)):
            return type(value)([self._template(tr, v, want, roots) for v in value])
        return value

    def _want(self, tr: Trace, t: Tensor, want: list[int], roots: list[int]) -> None:
        slot = t._at[1] if t._at[0] == tr.epoch else tape.enter(tr, t)
        want.append(slot)
        self.holders.append(t)
        self.results.append((tr.entries()[slot].signature, slot))
        if t._meta.requires_grad:
            roots.append(slot)

    def _check_escapes(self, tr: Trace) -> None:
        allowed = {id(t) for t in self.holders} | {id(t) for t, _ in self.capture.guards}
        memory = {t._storage for t in self.holders if t._storage is not None}
        execute.drop_dead(tr)
        for t in tr.live:
            pending = t._storage is None or (t._storage.array is None and t._storage not in memory)
            if id(t) not in allowed and pending:
                node = tr.entries()[t._at[1]] if t._at[0] == tr.epoch else None
                where = f" (made at {node.line[0]}:{node.line[1]})" if node is not None and node.line else ""
                raise Escape(
                    f"the compiled function {self.capture.name} keeps a tensor of shape {list(t.shape)} outside of itself"
                    f"{where}, which a replay would not do. Return it, or write it in place into a tensor that exists before "
                    "the call (with copy_)."
                )

    # ---- executing again

    def accepts(self, arguments: list[Any]) -> bool:
        """Whether gradients, and views that were written to, are as they were when the call was recorded."""
        for leaf, had in self.capture.expected:
            if (leaf._grad is not None) != had:
                return False
        for k, offset in self.fixed:
            if arguments[k]._offset != offset:
                return False
        if not all(map(is_, map(_META, self.known), self.metas)):
            return False
        for options, key, truth in self.capture.switches:
            if bool(options[key]) is not truth:
                return False
        for container, key, value in self.capture.held:
            if type(container) is list:
                if key >= len(container) or container[key] is not value:
                    return False
            elif container.get(key) is not value:
                return False
        known = self.known_storages
        return [k for k, t in enumerate(arguments) if isinstance(t, Tensor) and t._storage in known] == self.overlaps

    def first(self, tr: Trace) -> None:
        """Execute what was just recorded, into the tensors that the function made."""
        program = self.ready.program
        outputs = execute.results(self.ready)
        kept = new_bytes(program.kept_bytes) if program.kept_bytes else None
        protect(tr.written)
        program.bind(
            tr.addresses, tr.scalars, execute._arena(tr, program.arena_bytes) if program.arena_bytes else 0, [s.address for s in outputs],
            kept.address if kept is not None else 0,
        )  # fmt: skip
        statistics["runs"] += 1
        program.run(None)
        for storage in self.written:
            storage.version += 1
        graph = reverse.Graph(tr, self.ready, kept) if self.roots else None
        if graph is not None and not self.ready.saved and reverse.is_spent(graph.entries, self.roots, tr.released):
            graph.sources = {}
            self.spent, self.roots = graph, []  # the call's own backward has used up the history of its results
        for t, (meta, slot), storage in zip(self.holders, self.results, outputs, strict=False):
            t._at, t._meta = tape.STALE, meta
            t._storage, t._offset, t._strides, t._whole = storage, 0, None, True  # a result has memory of its own
            if meta.requires_grad:
                t._origin = (graph, slot)
        for hands, pool, t in zip(self.hands, self.ready.outputs, self.holders, strict=False):
            if type(t) is Tensor and t.__dict__.keys() <= _PLAIN:  # later calls use its memory when nobody else does
                hands.append(t)
                pool.clear()
        self.holders = []
        self.metas = [t._meta if type(t._meta) is Signature else t._meta.signature for t in self.known]
        self.known_storages = {t._storage for t in self.known}
        self.overlaps = [
            k for k, t in enumerate(self.arguments) if isinstance(t, Tensor) and t._storage in self.known_storages
        ]
        self.arguments = []
        tr.reset()

    def run(self, tr: Trace, arguments: list[Any]) -> Any:
        """Execute; returns `_MISS` when a guard differs."""
        program = self.program
        addresses = self.addresses
        if self.flags is not None and self.flags[0]:
            self._forget()
        moved = self.fresh
        for i, k, rest in self.from_arguments:
            t = arguments[k]
            address = t._storage.address
            if rest is not None:
                address += t._offset * t._meta.dtype.itemsize + rest
            if addresses[i] != address:
                addresses[i] = address
                moved = True
        if not all(map(is_, map(_STORAGE, self.known), self.storages)) or self.from_gradients:
            moved = self._find_known() or moved
        if moved:
            program.bind_addresses(addresses)
            self.fresh = False
        if self.sources:
            self._read_numbers(arguments)
        self.take_memory(tr, [self._storage_of(where, arguments) for where in self.written_at])
        for _, k, _ in self.from_arguments:
            writer = arguments[k]._storage.writer
            if writer is not None and writer is not tr.mark:
                tape.settle_storage(tr, arguments[k]._storage)
        arena = tr.arena
        if program.arena_bytes and (
            arena is None or arena.nbytes < program.arena_bytes or arena.address != program.arena
        ):
            program.bind_arena(execute._arena(tr, program.arena_bytes))
        kept = None
        if program.kept_bytes:
            kept = new_bytes(program.kept_bytes)
            program.bind_kept(kept.address)
        made = self._hands()
        statistics["runs"] += 1
        if self.guards:
            if not program.run(self._guards_hold):
                self._give_back_numbers()
                return _MISS
        else:
            program.run(None)
        for where in self.written_at:
            self._storage_of(where, arguments).version += 1
        if self.roots:
            self._link(made, arguments, kept)
        for leaf in self.leaves_without:
            leaf._grad = None
        n = self.n_outputs
        for leaf in self.leaves_with:
            leaf._grad = made[n]
            n += 1
        template = self.template
        return made[0] if type(template) is Made else _rebuild(template, made, arguments)

    def take_memory(self, tr: Trace, written: list[Storage]) -> None:
        """What other traces are to write to memory that is read has landed, and none of them uses memory that is written."""
        mark = tr.mark
        for storage in self.storages:
            if storage.writer is not None and storage.writer is not mark:
                tape.settle_storage(tr, storage)
        for storage in written:
            if storage.writer is not mark:
                with tape.writing:
                    tape.claim(tr, storage)
            if storage.savers:
                protect({storage: 0})

    def _forget(self) -> None:
        """The table has bound other addresses and numbers than those noted here."""
        self.flags[0] = 0
        self.program.forget()
        self.fresh = True
        self.places[:] = [0] * len(self.places)
        for number, _ in self.sources:
            self.numbers[number] = None

    def _guards_hold(self) -> bool:
        first = len(self.results)
        return [bool(pool[-1].array[0]) for pool in self.ready.outputs[first:]] == self.guards

    def _find_known(self) -> bool:
        """Addresses of tensors that the function knows and of gradients, which may have got other memory."""
        addresses, storages = self.addresses, self.storages
        for j, (i, t, rest) in enumerate(zip(self.known_places, self.known, self.known_rests, strict=True)):
            if t._storage is None or t._storage.array is None:
                tape.materialize(t)
            storage = storages[j] = t._storage
            addresses[i] = (
                storage.address if rest is None else storage.address + t._offset * t._meta.dtype.itemsize + rest
            )
        self.known_storages = set(storages)
        for i, leaf, rest in self.from_gradients:
            t = leaf._grad
            storage = t._storage
            addresses[i] = (
                storage.address if rest is None else storage.address + t._offset * t._meta.dtype.itemsize + rest
            )
        return True

    def _hands(self) -> list[Tensor]:
        """The tensors that this call hands back: those of a former call that nobody else holds, or new ones."""
        hands, places = self.hands, self.places
        made = []
        for j, (meta, slot) in enumerate(self.results):
            for t in hands[j]:
                if getrefcount(t) <= HELD[0] + self._is_gradient(j, t) and _unused(t._storage) and _untouched(t, meta):
                    break
            else:
                t = tape.blank(tape.STALE, meta)
                t._storage = new_storage(meta.numel, meta.dtype)
                if meta.requires_grad and self.spent is not None:
                    t._origin = (self.spent, slot)
                hands[j].append(t)
                if len(hands[j]) > execute.POOL:
                    del hands[j][0]
            address = t._storage.address
            if places[j] != address:
                places[j] = address
                self.program.bind_output(j, address)
            made.append(t)
        return made

    def _is_gradient(self, j: int, t: Tensor) -> bool:
        """Whether a leaf holds a result as its gradient, which the call is about to replace."""
        return not self.careful and j >= self.n_outputs and self.leaves_with[j - self.n_outputs]._grad is t

    def _read_numbers(self, arguments: list[Any]) -> None:
        numbers, before = self.numbers, list(self.numbers)
        for number, (owner, key) in self.sources:
            if owner == "argument":
                numbers[number] = arguments[key]
            elif type(owner) is dict:
                numbers[number] = float(tape._option(owner, key))
            elif key == "seed":
                numbers[number] = owner._seed
            else:
                numbers[number] = owner._offset
                owner._offset += key
        if numbers != before or 0.0 in numbers:  # 0.0 == -0.0
            self.program.bind_numbers(numbers)

    def _give_back_numbers(self) -> None:
        for _, (owner, key) in self.sources:
            if owner != "argument" and type(owner) is not dict and key != "seed":
                owner._offset -= key

    def _link(self, made: list[Tensor], arguments: list[Any], kept: Storage | None) -> None:
        """Give results their place in a graph, for a backward outside of the function."""
        traced = self.traced
        assert traced is not None
        traced.addresses, traced.scalars = self.addresses, self.numbers
        traced.leaves = [self._storage_of(place, arguments) for place in self.capture.places]
        sources = {}
        for slot, t in traced.sources.items():
            where = self.capture.by_tensor.get(id(t))
            sources[slot] = arguments[where[1]] if where is not None else t
        saved, traced.sources = traced.sources, sources
        graph = reverse.Graph(traced, self.ready, kept)  # type: ignore[arg-type]
        traced.sources = saved
        for t, (meta, slot) in zip(made, self.results, strict=True):
            if meta.requires_grad:
                t._origin = (graph, slot)

    def _storage_of(self, place: tuple[Any, ...], arguments: list[Any]) -> Storage:
        kind, owner = place[:2]
        if kind == "storage":
            return owner  # type: ignore[no-any-return]
        t = arguments[owner] if kind == "argument" else owner._grad if kind == "gradient" else owner
        return t._storage


class Escape(CompileError):
    """A tensor made by the call is kept outside of it."""


_MISS = object()
_PLAIN = {"_offset", "_strides"}  # what a result has besides its slots
_STORAGE = attrgetter("_storage")
_META = attrgetter("_meta")


def _unused(storage: Storage) -> bool:
    return (
        getrefcount(storage) <= HELD[1]
        and getrefcount(storage.array) <= HELD[2]
        and storage.savers is None
        and not (storage.shared and tape.exported(storage))
    )


def _untouched(t: Tensor, meta: Signature) -> bool:
    """Whether a former result is as it was handed out."""
    return t._meta is meta and t._whole and t._grad is None


def _is_new(t: Tensor, tr: Trace) -> bool:
    return t._at[0] == tr.epoch and type(t._meta) is not Signature


def _prepare(tr: Trace, want: list[int], roots: list[int], guarded: bool, capture: Capture) -> Ready:
    entries = list(tr.entries())
    writes = execute.writes_of(tr)
    save, readers = reverse.saved_slots(entries, roots, tr.released)
    fixed = {s: tr.scalars[n] for s, n in inputs(entries)[1].items() if n not in capture.sources}
    program = plan(entries, writes, want, save, execute._forced[0], guarded, fixed)
    specs = [(entries[s].numel, entries[s].dtype) for s in want]
    return Ready(program, specs, [(s, entries[s], program.kept[s]) for s in sorted(save)], readers)


class Made:
    """A result made anew by every call, by its number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Found:
    """A result that exists already: an argument, or a tensor the function knows."""

    __slots__ = ("kind", "owner")

    def __init__(self, kind: str, owner: Any) -> None:
        self.kind = kind
        self.owner = owner


class Seen:
    """A view of an argument: where it lies in the argument's memory."""

    __slots__ = ("argument", "meta", "offset", "strides", "whole")

    def __init__(self, argument: int, t: Tensor, offset: int) -> None:
        self.argument = argument
        self.meta = t._meta
        self.offset = offset
        self.strides = t._strides
        self.whole = t._whole

    def of(self, argument: Tensor) -> Tensor:
        """The view of this call's argument."""
        t = tape.blank(tape.STALE, self.meta)
        t._base = argument
        return place(t, argument, self.strides, self.offset, self.whole)


def _rebuild(value: Any, made: list[Tensor], arguments: list[Any]) -> Any:
    kind = type(value)
    if kind is Made:
        return made[value.number]
    if kind is Seen:
        return value.of(arguments[value.argument])
    if kind is Found:
        return arguments[value.owner] if value.kind == "argument" else value.owner
    if isinstance(value, dict):
        return {k: _rebuild(v, made, arguments) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*[_rebuild(v, made, arguments) for v in value])
    if isinstance(value, (list, tuple)):
        return kind([_rebuild(v, made, arguments) for v in value])
    return value


class Compiled:
    """A compiled function: call it as the original. `replays` counts what it holds."""

    __slots__ = ("__dict__", "__weakref__", "_table")

    def __init__(self, function: Callable[..., Any], wait: bool = False) -> None:
        from .nn.module import structure_version

        self._version = structure_version
        functools.update_wrapper(self, function)
        self._function = function
        self._wait = wait
        self._name = getattr(function, "__qualname__", type(function).__name__)
        self._table: Any = None  # of the replays used last, for `entrance.method`
        self._replays: dict[Any, list[Replay]] = {}
        self._steps: list[Any] = []
        self._tables: list[Any] = []
        self._names = Names(getattr(function, "forward", function))
        self._structure = -1
        self._kept: dict[Any, int] = {}

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else Bound(self, instance)

    def report(self) -> Report:
        """What the program of the last recorded call consists of: units with their records, tier, bytes, flops, estimated and
        measured time, and the memory that a call needs. Measuring takes some milliseconds, on memory of its own.

        >>> step = fastgrad.compile(lambda x: (x * x).sum())
        >>> step(fastgrad.ones(4))
        tensor(4.)
        >>> report = step.report()
        >>> report.records, report.input_bytes, report.rows[0].operations
        (1, 16, 'mul sum')
        """
        tr = local.trace
        found = [r for (thread, *_), replays in self._replays.items() if thread is tr for r in replays]
        if not found:
            raise RuntimeError(
                f"report: {self._name} has no recorded call in this thread yet; call it first (twice, if the first call makes an "
                "optimizer's state)"
            )
        last = found[-1]
        return report(last.program, last.ready.specs)

    @property
    def replays(self) -> int:
        """The number of recorded calls that can be replayed."""
        return sum([len(r) for r in self._replays.values()])

    def _general(self, *args: Any, **kwargs: Any) -> Any:
        tr = local.trace
        if tr.node is tr.root and not kwargs:  # nothing is pending, captured or run at once
            for step in self._steps:
                try:
                    result = step(tr, *args)
                except TypeError:  # another number of arguments
                    if len(args) != step.__code__.co_argcount - 1:
                        continue
                    raise
                except ValueError:  # a closure cell that has lost its value
                    break
                if result is not _MISS:
                    return result
        if tr.capture is not None or tr.eager:
            return self._function(*args, **kwargs)
        if tr.draft is not None:
            flush(tr)
        if tr.node is not tr.root and (tr.real.end or tr.live):
            flush(tr)
        if not self._is_current():
            self._table = None
            self._tables.clear()
            self._replays.clear()
            self._steps.clear()
            self._kept.clear()
            self._names.take()
            self._structure = self._version[0]
        flat: list[Any] = []
        key = self._key(tr, args, kwargs, flat)
        replays = self._replays.get(key)
        if replays is not None:
            for replay in replays:
                if replay.accepts(flat):
                    result = replay.run(tr, flat)
                    if result is not _MISS:
                        self._specialize(tr, replay, args, kwargs)
                        return result
        bound = {v._storage for _, _, v in self._names.bindings if isinstance(v, Tensor)}
        if any([isinstance(t, Tensor) and t._storage in bound for t in flat]):
            return self._function(*args, **kwargs)  # an argument that the function knows by name, too: it runs as it is
        return self._record(tr, key, args, kwargs, flat)

    def _is_current(self) -> bool:
        """Whether names and modules are what they were when the replays were recorded."""
        return self._version[0] == self._structure and self._names.unchanged()

    def _key(self, tr: Trace, args: Any, kwargs: Any, flat: list[Any]) -> tuple[Any, ...]:
        """What replays are found by; tensors and floats are collected in `flat`."""
        key: tuple[Any, ...] = (tr, tr.grad_enabled, *[_flatten(x, flat) for x in args])
        if kwargs:
            key = (*key, _flatten(kwargs, flat))
        if len(flat) > 1:
            key = (*key, _sharing(flat))
        return key

    def loop(
        self, *arrays: Any, batch_size: int | None = None, epochs: int = 1, shuffle: bool = False, generator: Any = None,
        drop_last: bool = False, progress: Any = None,
    ) -> np.ndarray:  # fmt: skip
        """Call the step with all batches of rows of some arrays, for several epochs, and return its losses.

        `arrays` are tensors or NumPy arrays (memory-mapped and read-only ones, too) with the same number of rows; batch `b`
        is their rows `b * batch_size` to `(b + 1) * batch_size`, the last one shorter or left out (`drop_last`); without a
        `batch_size` it is all rows. The step returns its loss, a tensor of one element, or a tuple that begins with it. The
        result is a NumPy array of the losses' type, one row an epoch, one column a batch.

        Parameters, gradients, optimizer state and random generators end with the same bits as after the Python loop

            for epoch in range(epochs):
                for rows in fastgrad.arange(n).split(batch_size):    # fastgrad.randperm(n, generator=generator) with `shuffle`
                    losses.append(step(*[x[rows] for x in arrays]))

        but only the first batch of a kind runs Python; the others run in compiled code without the GIL. Batches are read from
        the arrays' memory as they are needed. An array whose single rows have gaps (a transposed one) is copied at the start.
        An optimizer's options are read again whenever Python runs: between calls of `loop`, and in `progress`.

        `progress` is True for a progress bar, or a function `progress(epoch, losses of the epoch)`, called after every epoch;
        the loop ends when it returns True. Ctrl-C and errors end the loop between two batches: everything is then as after the
        last complete batch, and the exception's attributes are the `losses` (NaN for batches that have not run) and the number of `steps`.
        A step that can't run in compiled code (its calls keep being recorded anew, or leave gradients with a history) is called
        for every batch instead, and a RuntimeWarning says so.

        >>> x, w = fastgrad.arange(8.0).reshape(8, 1), fastgrad.zeros(1, requires_grad=True)
        >>> optimizer = fastgrad.optim.SGD([w], lr=0.01)
        >>> @fastgrad.compile
        ... def step(x, y):
        ...     optimizer.zero_grad()
        ...     loss = ((x @ w - y) ** 2).mean()
        ...     loss.backward()
        ...     optimizer.step()
        ...     return loss
        >>> losses = step.loop(x, 2 * x[:, 0], batch_size=4, epochs=50, shuffle=True)
        >>> losses.shape, w.detach()
        ((50, 2), tensor([2.]))
        """
        from .epochs import Epochs

        return Epochs(self, (), arrays, batch_size, epochs, shuffle, generator, drop_last, progress).run()

    def _specialize(self, tr: Trace, replay: Replay, args: Any, kwargs: Any) -> None:
        """After some calls, write the quick way of a replay."""
        replay.uses += 1
        if replay.program.hot:
            replay.program.move_up()
        if replay.uses < replay.due or kwargs:
            return
        replay.due = 2 * replay.uses + 4
        if not is_simple(replay, list(args), self._names):
            return
        old = replay.step, replay.table
        given = (replay, list(args), tr.grad_enabled, self._names, self._version)
        table = tables.table(*given)
        if table is not None:
            replay.table, replay.flags = table, table.flags
        step = replay.step = specialize(*given, _MISS)
        self._steps = [step, *[s for s in self._steps if s is not old[0]][:3]]
        self._tables = [t for t in (table, *[t for t in self._tables if t is not old[1]][:3]) if t is not None]
        self._table = tables.chain(self._tables)
        if self._tables:
            tables.install(Compiled)

    __call__ = _general  # until there is a table

    def _record(self, tr: Trace, key: Any, args: Any, kwargs: Any, flat: list[Any]) -> Any:
        capture = tr.capture = Capture(flat, self._name)
        tr.begin_apart()
        given = [tape.scalar(x, ("argument", i)) if type(x) is float else x for i, x in enumerate(flat)]
        iterator = iter(given)
        call_args, call_kwargs = _unflatten(args, iterator), _unflatten(kwargs, iterator)
        try:
            outputs = self._function(*call_args, **call_kwargs)
            del call_args, call_kwargs, given, iterator
            replay = Replay(tr, capture, flat, outputs)
        except Escape:
            # The call has made what later calls will find (an optimizer's state, say). Its results stand, and the next call is
            # recorded again; a function that always keeps something is refused.
            count = self._kept[key] = self._kept.get(key, 0) + 1
            tr.capture = None
            flush(tr)
            if count > 2:
                raise
            return outputs
        except BaseException:
            tr.capture = None
            flush(tr)
            raise
        tr.capture = None
        made = replay.holders[: replay.n_outputs]
        try:
            replay.first(tr)
        except BaseException:  # nothing has landed: the call has had no effect
            for leaf in replay.leaves_with:
                leaf._grad = None
            execute.abandon(tr)
            raise
        alive = {id(trace) for thread, trace in list(tape._traces) if thread.is_alive()}
        self._replays = {k: r for k, r in list(self._replays.items()) if id(k[0]) in alive}
        replays = self._replays.setdefault(key, [])
        replays.insert(0, replay)
        del replays[VARIANTS:]
        self._kept.pop(key, None)
        if self._wait:
            background.wait(replay.program.move_up())
        return _rebuild(replay.template, made, flat)


class Bound:
    """A compiled method of an object."""

    __slots__ = ("__func__", "__self__")

    def __init__(self, step: Compiled, instance: Any) -> None:
        self.__func__, self.__self__ = step, instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__func__(self.__self__, *args, **kwargs)

    def loop(self, *arrays: Any, **options: Any) -> np.ndarray:
        """As `loop` of a compiled function; the object comes before each call's batches."""
        from .epochs import Epochs

        return Epochs(self.__func__, (self.__self__,), arrays, **options).run()

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "__func__"), name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))


def _sharing(flat: list[Any]) -> tuple[int, ...] | None:
    """Which arguments lie in the memory of an earlier one; None if all have their own."""
    storages = [t._storage for t in flat if isinstance(t, Tensor)]
    if len(set(storages)) == len(storages):
        return None
    offsets = [t._offset for t in flat if isinstance(t, Tensor)]
    return tuple([x for s, offset in zip(storages, offsets, strict=True) for x in (storages.index(s), offset)])


def _flatten(value: Any, flat: list[Any]) -> Any:
    """The key of an argument; tensors and floats are collected."""
    if isinstance(value, Tensor):
        flat.append(value)
        if (
            value._storage is not None
            and value._whole
            and type(value._meta) is Signature
            and value._storage.array is not None
        ):
            return value._meta
        if type(value._meta) is not Signature or value._storage is None or value._storage.array is None:
            value._materialize()
        return value._meta if value._whole else (value._meta, value._strides)
    kind = type(value)
    if kind is float:
        flat.append(value)
        return float
    if kind is tuple or kind is list:
        return (kind, *[_flatten(v, flat) for v in value])
    if kind is dict:
        return (kind, *[(k, _flatten(v, flat)) for k, v in value.items()])
    try:
        hash(value)
    except TypeError:
        raise CompileError(
            f"a compiled function's arguments are tensors, numbers, text and containers of them; got {kind.__name__}"
        ) from None
    return (kind, value)


def _unflatten(value: Any, given: Any) -> Any:
    if isinstance(value, Tensor) or type(value) is float:
        return next(given)
    if type(value) in (tuple, list):
        return type(value)([_unflatten(v, given) for v in value])
    if type(value) is dict:
        return {k: _unflatten(v, given) for k, v in value.items()}
    return value


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: Any = None,
    backend: Any = None,
    mode: Any = None,
    wait: bool = False,
) -> Any:
    """Record a function once per signature of its arguments and replay it afterwards, side effects included.

    A signature is the structure, shapes and dtypes of the arguments. Floats in the arguments, an optimizer's options and random
    numbers are read for every call; other values are part of the signature. Parameters, gradients, buffers and optimizer state
    that the function knows are read and written where they are at the time of the call. A branch on a tensor's value is checked
    by every replay. With `wait` a call that records waits until its loops have been compiled into fused kernels, which
    otherwise happens in another process while calls go on. Reading a value (`item`, `numpy`, `print`) inside is an error that names the line.

    >>> @fastgrad.compile
    ... def square_sum(x):
    ...     return (x * x).sum()
    >>> square_sum(fastgrad.ones(3))
    tensor(3.)
    """
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, wait=wait)
    if not callable(model):
        raise RuntimeError(f"compile: expected a function or a module, got {type(model).__name__}")
    return Compiled(model, wait)
