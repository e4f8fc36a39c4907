"""A replay: one recorded call, executed again.

`Replay.accepts` says whether everything is as it was when the call was recorded; `run` binds addresses and numbers, sweeps,
compares guards before anything lands, and hands results over. What the function returned is kept as a template.
"""

from __future__ import annotations

from operator import attrgetter, is_
from sys import getrefcount
from typing import Any

from . import execute, reverse
from . import recording as tape
from .answers import Made, Rebuilding, Template, rebuild
from .capture import Capture, Escape, Expression
from .execute import Ready, new_bytes, new_storage, protect
from .functions.views import place, strides_of
from .plan.build import plan
from .plan.section import inputs
from .recording import Signature, Storage, Trace, statistics
from .specialize import HELD
from .structure import structure_version
from .tensor import Tensor
from .watching import numbers as python_numbers
from .watching.watch import Load


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
        self.sources = sorted(capture.sources.items())
        self.loads = [x for x in capture.watch.loads.values() if x.exact]
        self.structure = structure_version[0]
        self.pinned = [(k, arguments[k]) for k in sorted(capture.watch.pinned)]
        self.seeded = [(g, g._seed, g._offset) for g in capture.seeded]
        self.numbers = list(tr.scalars)
        self.guards = [outcome for _, outcome in capture.guards]
        want: list[int] = []
        roots: list[int] = []
        self.results: list[tuple[Signature, int]] = []  # signature and slot of each result made anew
        self.holders: list[Tensor] = []
        answer = Template(tr, capture, arguments)
        self.template = answer.of(outputs)
        self.leaves_without = [leaf for leaf in capture.gradients.values() if leaf._grad is None]
        self.leaves_with: list[Tensor] = []  # whose gradient is a result of its own
        self.handed: list[tuple[Tensor, Any]] = []  # others, and the templates of their gradients
        self._gradients(answer)
        self.views = answer.views
        self.before = answer.before
        # whether the things that are handed over are independent of each other
        self.plain = not (self.handed or self.before or answer.repeated)
        for t in answer.wanted:
            self._want(tr, t, want, roots)
        self.n_outputs = len(want)
        for leaf in self.leaves_with:
            self._want(tr, leaf._grad, want, roots)  # type: ignore[arg-type]
        for t, _ in capture.guards:
            want.append(t._at[1])
        self.roots = roots
        self.written = list(tr.written)
        # and where the memory that is written is found in other calls
        self.written_at = [capture.by_storage.get(storage, ("storage", storage)) for storage in tr.written]
        self._check_escapes(tr)
        self._prepare_numbers(answer.computed)
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
        entered = {id(t) for t in self.known} | capture.by_tensor.keys()
        self.known += [t for t in capture.found().values() if id(t) not in entered]  # whose shape, say, was read
        self.layout: list[Any] = []  # of the known tensors: which have memory in common, and where they lie in it
        self.gradients = [(leaf, *_geometry(g)) for leaf, g in capture.present]  # that the call has found
        self.kin = self._kin([g for _, g in capture.present], arguments)
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
        # memory of which a part is written: arguments, and leaves whose gradients lie there, by place and size
        self.fixed = [
            (*found, storage.numel) for storage, found in capture.by_storage.items()
            if storage in capture.fixed and found[0] != "tensor"
        ]  # fmt: skip

    def _gradients(self, answer: Template) -> None:
        """What the call leaves in leaves, beside what it returns: results, or other handles on memory."""
        left = [(leaf, leaf._grad) for leaf in self.capture.gradients.values() if leaf._grad is not None]
        for leaf, g in left:
            found = answer.gradient(g, [x for other, x in left if other is not leaf])
            if found is None:
                self.leaves_with.append(leaf)
            else:
                self.handed.append((leaf, found))

    def _want(self, tr: Trace, t: Tensor, want: list[int], roots: list[int]) -> None:
        slot = t._at[1] if t._at[0] == tr.epoch else tape.enter(tr, t)
        want.append(slot)
        self.holders.append(t)
        self.results.append((tr.entries()[slot].signature, slot))
        if t._meta.requires_grad:
            roots.append(slot)

    def _check_escapes(self, tr: Trace) -> None:
        allowed = (
            {id(t) for t in self.holders} | {id(t) for t, _ in self.capture.guards} | {id(t) for t, _, _ in self.views}
        )
        memory = {t._storage for t in self.holders if t._storage is not None}
        self.capture.release_objects()
        execute.drop_dead(tr)
        for t in tr.live:
            pending = t._storage is None or (t._storage.array is None and t._storage not in memory)
            if id(t) not in allowed and pending:
                node = tr.entries()[t._at[1]] if t._at[0] == tr.epoch else None
                where = f" (made at {node.line[0]}:{node.line[1]})" if node is not None and node.line else ""
                raise Escape(
                    f"the compiled function {self.capture.called} keeps a tensor of shape {list(t.shape)} outside of itself"
                    f"{where}, which a replay would not do. Return it, or write it in place into a tensor that exists before "
                    "the call (with copy_)."
                )

    def _prepare_numbers(self, returned: list[Expression]) -> None:
        """What Python computes again: numbers on the tape, those that are returned, and conditions."""
        watch = self.capture.watch
        sources = [(n, source[1]) for n, source in self.sources if source[0] == "number"]
        read = [x.number.expression for x in watch.loads.values() if not x.exact]
        self.unused = [x for x in watch.loads.values() if not x.exact and not self._is_source(x)]
        self.numbers_at = [(n, len(returned) + k) for k, (n, _) in enumerate(sources)]
        self.numbers_of: Any = None
        self.computed: tuple[Any, ...] = ()
        self.conditions = watch.conditions
        self.expressions = [*returned, *[x for _, x in sources]]
        if self.expressions or self.conditions or read:
            program = python_numbers.Program()
            for expression, value in watch.conditions:
                program.require(expression, value)
            for expression in read:
                program.of(expression)
            self.numbers_of = program.function(self.expressions)

    def _is_source(self, load: Load) -> bool:
        return any([source[0] == "number" and source[1] is load.number.expression for _, source in self.sources])

    # ---- executing again

    def accepts(self, arguments: list[Any]) -> bool:
        """Whether all that was read, gradients, and views that were written to, are as they were when the call was recorded."""
        if self.structure != structure_version[0]:
            return False
        for load in self.loads:
            if not load.holds():
                return False
        if self.numbers_of is not None:
            self.computed = self.numbers_of(arguments)
            if self.computed is python_numbers.MISS:
                return False
        for leaf, had in self.capture.expected:
            if (leaf._grad is not None) != had:
                return False
        for kind, owner, offset, numel in self.fixed:
            t = arguments[owner] if kind == "argument" else owner._grad
            if t._offset != offset or t._storage.numel != numel:
                return False
        if not all(map(is_, map(_META, self.known), self.metas)):
            return False
        if not all(map(is_, map(_STORAGE, self.known), self.storages)) and self._layout() != self.layout:
            return False
        if self.gradients and not self._gradients_hold(arguments):
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

    def _gradients_hold(self, arguments: list[Any]) -> bool:
        """Whether the gradients that the call has found are of the same kind again, and as much or little related."""
        found = []
        for leaf, meta, strides, whole in self.gradients:
            g = leaf._grad
            if g._meta is not meta or g._strides != strides or g._whole != whole:
                return False
            found.append(g._storage)
        own = set(found)
        if len(own) == len(found) and own.isdisjoint(map(_STORAGE, self.known)):
            for x in arguments:
                if isinstance(x, Tensor) and x._storage in own:
                    break
            else:
                return self.kin is None
        return self._kin([leaf._grad for leaf, *_ in self.gradients], arguments) == self.kin

    def _kin(self, gradients: list[Any], arguments: list[Any]) -> list[Any] | None:
        """Which gradients are, or lie in the memory of, known tensors, arguments or each other; None if none is."""
        given = [x for x in arguments if isinstance(x, Tensor)]
        own = {g._storage for g in gradients}
        if len(own) == len(gradients) and own.isdisjoint([t._storage for t in (*self.known, *given)]):
            return None
        first: dict[Any, Any] = {}
        found = []
        for k, t in enumerate((*self.known, *given, *gradients)):
            at, offset = first.setdefault(t._storage, (k, t._offset))
            found.append((first.setdefault(id(t), k), at, t._offset - offset))
        return found[-len(gradients) :]

    def _layout(self) -> list[Any]:
        first: dict[Any, int] = {}
        return [
            (first.setdefault(t._storage, k), t._offset, t._strides, t._whole or t._storage.numel)
            for k, t in enumerate(self.known)
        ]

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
        for t, base, offset in self.views:
            whole = self.holders[base.number]
            t._at, t._meta = tape.STALE, t._meta if type(t._meta) is Signature else t._meta.signature
            place(t, whole, strides_of(t), offset, t._whole)
        self.holders, self.views = [], []
        for t in tr.live:  # whose memory was written through another handle
            if type(t._meta) is not Signature and t._storage is not None and t._storage.array is not None:
                t._meta = t._meta.signature
        self.metas = [t._meta if type(t._meta) is Signature else t._meta.signature for t in self.known]
        self.known_storages = {t._storage for t in self.known}
        self.layout = self._layout()
        self.overlaps = [
            k for k, t in enumerate(self.arguments) if isinstance(t, Tensor) and t._storage in self.known_storages
        ]
        self.arguments = []
        tr.reset()

    def run(self, tr: Trace, arguments: list[Any]) -> Any:
        """Execute; returns `MISS` when a guard differs."""
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
                return MISS
        else:
            program.run(None)
        for generator, seed, offset in self.seeded:
            generator._seed, generator._offset = seed, offset
        for where in self.written_at:
            self._storage_of(where, arguments).version += 1
        if self.roots:
            self._link(made, arguments, kept)
        template = self.template
        if not self.plain:
            return self._hand_over(made, arguments)
        for leaf in self.leaves_without:
            leaf._grad = None
        n = self.n_outputs
        for leaf in self.leaves_with:
            leaf._grad = made[n]
            n += 1
        return made[0] if type(template) is Made else rebuild(template, made, arguments, self.computed)

    def _hand_over(self, made: list[Tensor], arguments: list[Any]) -> Any:
        """The answer, and gradients that have to do with each other, with it, or with the gradients that they replace."""
        building = Rebuilding(made, arguments, self.computed)
        answer = building.of(self.template)
        handed = [building.of(x) for _, x in self.handed]
        for leaf in self.leaves_without:
            leaf._grad = None
        for leaf, g in zip(self.leaves_with, made[self.n_outputs :], strict=False):
            leaf._grad = g
        for (leaf, _), g in zip(self.handed, handed, strict=True):
            leaf._grad = g
        return answer

    def first_answer(self, made: list[Tensor], arguments: list[Any]) -> Any:
        """What the recorded call itself returns."""
        building = Rebuilding(made, arguments, tuple([x.value for x in self.expressions]))
        answer = building.of(self.template)
        for leaf, template in self.handed:
            leaf._grad = building.of(template)
        for x in self.before:
            x.first = None
        return answer

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
        for j, t in enumerate(self.known):
            if t._storage is None or t._storage.array is None:
                tape.materialize(t)
            storages[j] = t._storage
        for i, t, rest in zip(self.known_places, self.known, self.known_rests, strict=False):
            storage = t._storage
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
        for number, at in self.numbers_at:
            numbers[number] = self.computed[at]
        for number, (owner, key) in self.sources:
            if owner == "argument":
                numbers[number] = arguments[key]
            elif owner == "number":
                pass
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
            if type(owner) is not str and type(owner) is not dict and key != "seed":
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


MISS = object()
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


def _geometry(t: Tensor) -> tuple[Any, ...]:
    return t._meta if type(t._meta) is Signature else t._meta.signature, t._strides, t._whole


def _prepare(tr: Trace, want: list[int], roots: list[int], guarded: bool, capture: Capture) -> Ready:
    entries = list(tr.entries())
    writes = execute.writes_of(tr)
    save, readers = reverse.saved_slots(entries, roots, tr.released)
    fixed = {s: tr.scalars[n] for s, n in inputs(entries)[1].items() if n not in capture.sources}
    program = plan(entries, writes, want, save, execute._forced[0], guarded, fixed)
    specs = [(entries[s].numel, entries[s].dtype) for s in want]
    return Ready(program, specs, [(s, entries[s], program.kept[s]) for s in sorted(save)], readers)
