"""Recording: the flat tape, and the trace cache that finds a tape again.

A trace is a path in a tree of `Node`s. A node is one tape entry (operation, operand slots, attributes, and what was inferred:
shape, dtype, gradient flag), an edge's key is (operation code, operand slots, attributes), and a slot is the number of an
entry along its path. Recording an operation that was recorded before in the same place is one dictionary look-up; inference
runs on a miss only. Some nodes hold no entry: a switch of grad mode, a write to memory, the start of a composite.

A `Trace` is what one thread is recording now: the node reached, and the run-time inputs met on the way (leaves' addresses,
Python numbers). A tensor says where it stands with `_at = (epoch, slot)`; an epoch is the number of one run of a trace, so a
stale position is never mistaken for a current one. Start reading at `apply`.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from . import dtypes
from .kernels.memory import LARGE, require_passable

if TYPE_CHECKING:
    from .ops.table import Operation
    from .tensor import Tensor

LIMIT = 4096  # entries a trace may hold before it is run
LONGER = (
    65_536  # the same in a thread that has walked back through a trace that was full: it is better off with whole ones
)
LEAF_BYTES = 1 << 30  # bytes of inputs a trace may keep alive
STRANGERS = (
    32  # new programs in a row without one that came back, from which on programs are drafts; 0: always (for tests)
)
SPARE = 16  # traces of ended threads that are kept for new ones
CACHE_NODES = 300_000  # nodes of one thread's tree before it is dropped and grown again
STALE = (-1, -1)

epochs = itertools.count()
statistics = {"missed": 0, "planned": 0, "runs": 0, "foreign runs": 0}
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Signature:
    """Shape, dtype, gradient flag and name of the gradient function of a tensor that has a value; one object per combination."""

    __slots__ = ("dtype", "name", "numel", "requires_grad", "shape", "weak")

    _all: ClassVar[dict[tuple[Any, ...], Signature]] = {}

    def __init__(self, shape: tuple[int, ...], dtype: dtypes.dtype, requires_grad: bool, name: str | None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.requires_grad = requires_grad
        self.name = name
        self.weak = False
        self.numel = count(shape)

    @classmethod
    def of(
        cls, shape: tuple[int, ...], dtype: dtypes.dtype, requires_grad: bool = False, name: str | None = None
    ) -> Signature:
        key = (shape, dtype, requires_grad, name)
        found = cls._all.get(key)
        if found is None:
            if len(cls._all) > 100_000:
                cls._all.clear()
            found = cls._all[key] = cls(shape, dtype, requires_grad, name)
        return found


class Node:
    """One entry of a tape (or a mark on it), and the edges that lead on."""

    __slots__ = (
        "_signature", "attrs", "dtype", "end", "grad_enabled", "leaf_bytes", "line", "name", "next", "numel", "op", "operands", "parent",
        "plans", "quick", "requires_grad", "shape", "slot", "twin", "weak",
    )  # fmt: skip

    shape: tuple[int, ...]  # these four are set for entries only
    dtype: dtypes.dtype
    requires_grad: bool
    numel: int

    def __init__(self, parent: Node | None, op: Any, operands: tuple[int, ...], attrs: Any, grad_enabled: bool) -> None:
        self.parent = parent
        self.op = op
        self.operands = operands
        self.attrs = attrs
        self.grad_enabled = grad_enabled
        self.end: int = parent.end if parent is not None else 0
        self.leaf_bytes: int = parent.leaf_bytes if parent is not None else 0
        self.slot = -1
        self.next: dict[Any, Any] = {}
        self.plans: dict[Any, Any] | None = None
        self.quick: Any = None  # how the last run of a trace that ends here went
        self.twin: Node | None = None
        self.name: str | None = None
        self.line: tuple[str, int] | None = None
        self.weak = False
        self._signature: Signature | None = None

    @property
    def signature(self) -> Signature:
        """What a tensor with this entry's value is once it has been computed."""
        found = self._signature
        if found is None:
            name = self.name or self.op.label if self.requires_grad else None
            found = self._signature = Signature.of(self.shape, self.dtype, self.requires_grad, name)
        return found


class _Never(dict):  # type: ignore[type-arg]
    """The edges of a node that must not be passed quickly: every look-up misses."""

    def get(self, key: Any, default: Any = None) -> Any:
        return None


class Urgent:
    """Stands in for a node so that the next operation takes the slow way, which runs it at once."""

    __slots__ = ("next", "real")

    def __init__(self, real: Node) -> None:
        self.real = real
        self.next = _NEVER


class Edge:
    """A shortcut over a recorded stretch (a composite, a backward pass): the node behind it and the nodes of its results."""

    __slots__ = ("end", "outputs")

    def __init__(self, end: Node, outputs: Any) -> None:
        self.end = end
        self.outputs = outputs


_NEVER = _Never()


class Storage:
    """Memory that tensors share: a flat buffer and its address, or the slot of a value that is still to be computed."""

    __slots__ = (
        "__weakref__", "address", "alias_limit", "aliases", "array", "at", "family", "nbytes", "numel", "savers", "shared", "version",
        "writer",
    )  # fmt: skip

    def __init__(self, array: Any, address: int, numel: int, nbytes: int) -> None:
        self.array = array
        self.address = address
        self.numel = numel
        self.nbytes = nbytes
        self.at = STALE  # where the pending value stands
        self.version = 0
        self.aliases: list[Any] | None = None  # weak references to the tensors that share it, once there are several
        self.alias_limit = 64  # how long that list may grow before the dead ones are struck out
        self.savers: list[Any] | None = None  # weak references to graphs that will read the present value
        self.shared = False  # memory that NumPy may hold, too
        self.family: Any = (
            None  # a weak reference to the base of the views through which it was last written with a history
        )
        # left by the trace that wrote last: while it is there, no other trace uses the memory
        self.writer: Mark | None = None


def count(shape: Sequence[int]) -> int:
    """The number of elements of a shape."""
    n = 1
    for size in shape:
        n *= size
    return n


class Mark:
    """What a trace leaves on storages that it writes."""

    __slots__ = ("trace",)

    def __init__(self, tr: Trace) -> None:
        self.trace = weakref.ref(tr)


class Trace:
    """What one thread is recording."""

    __slots__ = (
        "__weakref__", "addresses", "apart", "arena", "aside", "before", "capture", "constants", "draft", "eager", "entered", "epoch", "functions",
        "grad_enabled", "hooks", "inference", "kinds", "known", "leaves", "lengthened", "limit", "live", "lock", "longest", "mark", "node",
        "nodes", "path", "released", "root", "scalars", "shared", "sources", "static", "strangers", "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self.grad_enabled = True
        self.inference = False
        self.eager = False
        self.static = 0  # depth of composites and rules being recorded, in which Python numbers are constants
        self.capture: Any = None  # what `compile` is writing down, while it records
        self.lock = threading.RLock()
        self.mark = Mark(self)
        self.apart: dict[Any, Any] = {}  # programs for single values that other threads wanted
        self.limit = LIMIT
        self.lengthened = 0  # how often that was not enough for a backward pass
        self.nodes = 0
        self.strangers = 0  # new programs in a row without one that came back
        self.longest = 0  # how many entries the last new programs had
        self.draft: Any = None  # the flat tape of a program that is not expected back; it stands in for a node
        self.kinds: Any = None  # what this thread's drafts know of operations
        self.arena: Any = None  # memory for temporaries, shared by this thread's programs
        self.constants: dict[Any, Node] = {}  # constants, and numbers' conversions, that a new stretch may use again
        # id of a tensor or storage that has no memory yet -> for every write in place: new slot, old slot, entries at that time
        self.before: dict[int, list[tuple[int, int, int]]] = {}
        self.path: list[Node] = []  # entries by slot, completed when somebody asks
        self.released: set[int] = set()  # entries whose saved values a backward has given up
        self.hooks: dict[int, Any] = {}  # slot -> (pending tensors that carry hooks or want their gradient kept)
        self.functions: dict[int, Any] = {}  # slot -> the context of a user-defined Function
        self.root = _root()
        self.aside: Node | None = None  # the root of a tree that serves one trace
        self.reset()

    def reset(self) -> None:
        """Start a new trace at the root of the tree."""
        self.epoch = next(epochs)
        if self.nodes > CACHE_NODES:
            old, self.root, self.nodes = self.root, _root(), 0
            fell(old)
        node = self.root
        if not self.grad_enabled:
            node = twin(node)
        self.node: Any = Urgent(node) if self.eager else node
        self.known: Node | None = self.root  # the node up to which `path` and `released` are complete
        self.live: list[Tensor] = []  # tensors made by entries, oldest first
        self.leaves: list[Storage] = []
        self.addresses: list[int] = []  # of leaves and aliases, in the order in which they were met
        self.scalars: list[Any] = []
        self.sources: dict[int, Any] = {}  # slot -> leaf, or (graph, slot): where a gradient leaves the trace
        self.entered: dict[Storage, int] = {}  # storage -> slot of its present value
        self.written: dict[Storage, int] = {}  # storages that a write of this trace changes -> first slot
        if self.path or self.before or self.constants or self.aside is not None:
            self.path, self.before, self.constants = [], {}, {}
            if self.aside is not None:
                old, self.aside = self.aside, None
                fell(old)
        if self.released or self.hooks or self.functions:
            self.released, self.hooks, self.functions = set(), {}, {}
        self.shared: Any = None  # its graphs, once another thread has looked at what it holds
        self.draft = None
        if self.strangers >= STRANGERS:
            begin_draft(self)

    def clear(self) -> None:
        """Leave it as another thread should find it: with the programs that it knows, and nothing else."""
        self.grad_enabled, self.inference, self.eager, self.static, self.capture = True, False, False, 0, None
        self.arena = None
        self.reset()

    def begin_apart(self) -> None:
        """Record from a root of its own, so that every entry is new and names its own line."""
        root = self.aside = _root()
        self.draft = None
        self.known = root
        self.node = root if self.grad_enabled else twin(root)

    def entries(self) -> list[Node]:
        """The nodes that hold an entry, by slot."""
        node: Any = self.real
        last = self.known
        path = self.path
        fresh = []
        while node is not last:
            if node.slot >= 0:
                fresh.append(node)
            elif node.op is RELEASED:
                self.released |= node.attrs
            node = node.parent
        path.extend(reversed(fresh))
        if fresh:
            self.known = fresh[
                0
            ]  # a node that every way on from here has behind it, which a change of mode need not be
        return path

    @property
    def past(self) -> tuple[list[Node], set[int]]:
        """Entries and released slots, found without a change to the trace, which may be another thread's."""
        if self.draft is not None:
            return look(self)
        node = self.node
        node = node.real if type(node) is Urgent else node
        entries, released = [], set()
        while node is not None:
            if node.slot >= 0:
                entries.append(node)
            elif node.op is RELEASED:
                released |= node.attrs
            node = node.parent
        entries.reverse()
        return entries, released

    @property
    def real(self) -> Node:
        """The node reached, whatever stands in for it; a draft is turned into nodes."""
        if self.draft is not None:
            unfold(self)
        node = self.node
        return node.real if type(node) is Urgent else node


def _root() -> Node:
    return Node(None, None, (), None, True)


def fell(root: Node) -> None:
    """Take a tree apart that nobody records in any more: nodes and what they lead to hold each other."""
    left = [root]
    while left:
        node = left.pop()
        if node.twin is not None:
            left.append(node.twin)
        for behind in node.next.values():
            if type(behind) is Node:
                left.append(behind)
        for ready in (node.plans or {}).values():
            if ready != 1:
                ready.forget()
        node.next, node.twin, node.plans, node.quick = {}, None, None, None


def twin(node: Node) -> Node:
    """The same place in the other grad mode."""
    if node.twin is None:
        other = Node(node, None, (), "grad mode", not node.grad_enabled)
        node.twin, other.twin = other, node
    return node.twin


writing = threading.RLock()  # held while a write to memory is recorded, or a gradient added to a leaf's
_traces: list[
    tuple[int, Trace]
] = []  # each with its thread's number; 0 in a forked child, for those of its parent's threads
_ending: dict[int, Trace] = {}  # traces that run while their threads end, by thread
_spare: list[Trace] = []  # traces of threads that have ended: the next ones find their programs known


class _Local(threading.local):
    """One trace a thread."""

    def __init__(self) -> None:
        tr = _ending.pop(threading.get_ident(), None)
        if tr is not None:
            self.trace = tr
            return
        self.trace = _spare.pop() if _spare else Trace()
        _traces.append((threading.get_ident(), self.trace))
        self.ending = Ending(self.trace)


class Ending:
    """Lives in a thread's local data, and so ends with the thread: what it has recorded runs then."""

    __slots__ = ("_thread", "_trace")

    def __init__(self, tr: Trace) -> None:
        self._trace = tr
        self._thread = threading.get_ident()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        tr, thread = self._trace, self._thread
        if is_finalizing() or thread != threading.get_ident():  # a forked child drops the data of its parent's threads
            return
        _ending[thread] = tr
        try:
            finish(tr)
        finally:
            if _ending.pop(thread, None) is None:  # the thread's local data was made again
                del local.trace
            _traces.remove((thread, tr))  # in one step: other threads begin and end at the same time
        if len(_spare) < SPARE:
            tr.clear()
            _spare.append(tr)
        else:
            fell(tr.root)


local = _Local()


def traces() -> list[Trace]:
    """What the threads are recording."""
    return [tr for _, tr in _traces]


def owner_of(epoch: int) -> Trace | None:
    """The trace that a pending tensor belongs to, whatever thread records it."""
    return next((tr for _, tr in _traces if tr.epoch == epoch), None)


def _after_fork() -> None:
    global writing
    writing = threading.RLock()
    for i, (thread, tr) in enumerate(_traces):
        tr.lock = threading.RLock()
        _traces[i] = (thread if thread == threading.get_ident() else 0, tr)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_OWN: dict[Any, bool] = {}  # code object -> whether it is the library's


def user_line() -> tuple[str, int] | None:
    """File and line of the user's code that is calling the library."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        own = _OWN.get(code)
        if own is None:
            own = _OWN[code] = code.co_filename.startswith(_HERE)
        if not own:
            break
        frame = frame.f_back  # type: ignore[assignment]
    if len(_OWN) > 10_000:
        _OWN.clear()
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else None


def found(node: Node, key: Hashable) -> Any:
    """What an edge leads to, also behind a node whose quick look-up always misses."""
    return dict.get(node.next, key)


MAY_BE_CAUGHT = "an error of an operation that the function may catch"


def extend(
    tr: Trace,
    key: Hashable,
    op: Any,
    operands: tuple[int, ...],
    attrs: Any,
    shape: tuple[int, ...],
    dtype: dtypes.dtype,
    requires_grad: bool,
) -> Node:
    """Go along `key` to the node of this entry, which is made if it is new."""
    here = tr.real
    node = found(here, key)
    if node is None:
        if count(shape) > LARGE and type(op) is not Marker and op.kind != "view":
            require_passable(count(shape) * dtype.itemsize, op.name)
        if tr.capture is not None and tr.capture.catching and getattr(op, "fallible", None) is not None:
            tr.capture.release(MAY_BE_CAUGHT)
        node = Node(here, op, operands, attrs, here.grad_enabled)
        node.slot = here.end
        node.end = here.end + 1
        node.shape, node.dtype, node.requires_grad, node.numel = shape, dtype, requires_grad, count(shape)
        node.line = user_line()
        tr.nodes += 1
        statistics["missed"] += 1
        here.next[key] = node
    tr.node = node if type(tr.node) is not Urgent else Urgent(node)
    return node


def mark(tr: Trace, key: Hashable, op: Any, operands: tuple[int, ...], attrs: Any = None) -> Node:
    """Go along `key` to a node without an entry."""
    here = tr.real
    node = found(here, key)
    if node is None:
        node = here.next[key] = Node(here, op, operands, attrs, here.grad_enabled)
        tr.nodes += 1
    tr.node = node if type(tr.node) is not Urgent else Urgent(node)
    return node


_new = object.__new__


def blank(at: tuple[int, int], meta: Any, kind: Any = None) -> Any:
    """A tensor (or one of a subclass) with nothing but its place on the tape and its description.

    Every tensor is made here, or where loops spend their time by these lines written out.
    """
    t = _new(TENSOR if kind is None else kind)
    t._at = at
    t._meta = meta
    t._storage = t._grad = t._origin = None
    t._whole = True
    return t


def result(tr: Trace, node: Node) -> Tensor:
    """The tensor of an entry that was just recorded."""
    t = _new(TENSOR)
    t._at = (tr.epoch, node.slot)
    t._meta = node
    t._storage = t._grad = t._origin = None
    t._whole = True
    tr.live.append(t)
    return t


# Bound by the modules above this one when they load; recording calls them, and this file stays below both.
def _unbound(*_: Any) -> Any:
    raise RuntimeError("fastgrad is not loaded completely")


TENSOR: Any = None
flush: Callable[[Trace], None] = _unbound
materialize: Callable[[Any], None] = _unbound
exported: Callable[[Storage], bool] = _unbound
protect: Callable[[dict[Storage, int]], None] = _unbound
finish: Callable[[Trace], None] = _unbound  # run a trace whose thread ends
settle_storage: Callable[[Trace, Storage], None] = _unbound  # what other traces are to write to memory lands
claim: Callable[[Trace, Storage], None] = _unbound  # no other trace has anything pending on memory
backward: Callable[..., None] = _unbound
unfold: Callable[[Trace], None] = _unbound  # go on with nodes instead of a draft
look: Callable[[Any], tuple[list[Node], set[int]]] = _unbound  # the entries of a draft as nodes, and its released slots
begin_draft: Callable[[Trace], None] = _unbound
finish_draft: Callable[[Trace], bool] = _unbound


def leave_capture(what: str) -> None:
    """What comes now cannot be replayed: a call that `compile` records goes on as it would without, and so do later ones."""
    capture = local.trace.capture
    if capture is not None:
        capture.release(what)


def slots_of(tr: Trace, operands: Sequence[Tensor]) -> tuple[int, ...]:
    """The operands' slots in the trace; those that are not in it enter it."""
    while True:
        epoch = tr.epoch
        slots = tuple([t._at[1] if t._at[0] == epoch else enter(tr, t) for t in operands])
        if tr.epoch == epoch:
            return slots


def room(tr: Trace) -> None:
    """Run the trace if it is full, before anything else is recorded on it."""
    draft = tr.draft
    if draft is not None:
        if len(draft.forms) >= draft.limit and not tr.static:
            flush(tr)
        return
    node = tr.real
    if (node.end >= tr.limit or node.leaf_bytes > LEAF_BYTES) and not tr.static and tr.capture is None:
        if node.end >= LONGER:
            tr.limit = LIMIT  # a program without end: short traces are found again sooner
        flush(tr)


def apply(op: Operation, operands: Sequence[Tensor], attrs: Any = None) -> Tensor:
    """Record one operation on tensors: its inference runs when this place of the trace is new."""
    tr = local.trace
    slots = slots_of(tr, operands)
    key = (op.code, *slots) if attrs is None else (op.code, *slots, attrs)
    if op.fallible:
        key = (*key, user_line())  # an error found later names this line
    node = tr.node.next.get(key)
    if node is not None:
        tr.node = node
        return result(tr, node)
    return apply_slow(tr, op, operands, attrs)


def apply_slow(tr: Trace, op: Operation, operands: Sequence[Tensor], attrs: Any) -> Tensor:
    """Record an operation in a new place, or one that must run at once."""
    room(tr)
    if tr.draft is not None:
        drafted = tr.draft.record(tr, op, operands, attrs)
        if drafted is not None:
            return drafted
    slots = slots_of(tr, operands)
    key = (op.code, *slots) if attrs is None else (op.code, *slots, attrs)
    if op.fallible:
        key = (*key, user_line())
    node = found(tr.real, key)
    if node is None:
        start = tr.real
        node = op.record(tr, key, slots, [t._meta for t in operands], attrs)
        start.next[key] = node
        if node.end >= tr.limit or node.leaf_bytes > LEAF_BYTES:
            _bound(tr)
    else:
        tr.node = node if type(tr.node) is not Urgent else Urgent(node)
    made = result(tr, node)
    settle(tr)
    return made


def _bound(tr: Trace) -> None:
    node = tr.real
    if node.end >= tr.limit or node.leaf_bytes > LEAF_BYTES:
        node.next = _NeverButKept(node.next)


class _NeverButKept(dict):  # type: ignore[type-arg]
    """The edges of the last node of a full trace: the quick look-up misses, so that the slow way runs the trace."""

    def get(self, key: Any, default: Any = None) -> Any:
        return None


def settle(tr: Trace) -> None:
    """Run the trace now if the operation just recorded must not wait."""
    if type(tr.node) is Urgent and not tr.static:
        flush(tr)


def _meta(tr: Trace, slot: int) -> Node:
    return tr.entries()[slot]


def apply_scalar(op: Operation, a: Tensor, value: Any, swapped: bool) -> Tensor:
    """Record an operation of a tensor and a Python number; the number is a run-time input unless a composite is recorded."""
    tr = local.trace
    if tr.static:
        operands = (constant(value), a) if swapped else (a, constant(value))
        return apply(op, operands)
    at = a._at
    slot = at[1] if at[0] == tr.epoch else enter(tr, a)
    key = (op.code, type(value), slot) if swapped else (op.code, slot, type(value))
    node = tr.node.next.get(key)
    if node is not None:
        tr.node = node
        tr.scalars.append(value)
        return result(tr, node)
    room(tr)
    slot = slots_of(tr, (a,))[0]
    if tr.draft is not None:
        drafted = tr.draft.scalar(tr, op, a, slot, value, swapped)
        if drafted is not None:
            return drafted
    start = tr.real
    number = scalar(value)
    slots = (number._at[1], slot) if swapped else (slot, number._at[1])
    node = op.record(tr, (op.code, *slots), slots, [_meta(tr, s) for s in slots], None)
    key = (op.code, type(value), slot) if swapped else (op.code, slot, type(value))
    start.next[key] = node
    _bound(tr)
    made = result(tr, node)
    settle(tr)
    return made


def _number_type(value: Any) -> dtypes.dtype:
    return dtypes._PYTHON[type(value)]


def scalar(value: Any, source: Any = None) -> Tensor:
    """A Python number as a run-time input of the trace; `compile` reads it again from `source` (a dict and a key)."""
    tr = local.trace
    if tr.static:
        return constant(value)
    return _number(tr, SCALAR, value, (SCALAR.code, type(value)), source)


def constant(value: Any) -> Tensor:
    """A Python number as a part of the program."""
    tr = local.trace
    key = (CONSTANT.code, type(value), repr(value))
    if tr.draft is not None:
        return tr.draft.number(tr, CONSTANT, value, key, None)
    known = tr.constants.get(key)
    if known is None:
        made = _number(tr, CONSTANT, value, key, None)
        tr.constants[key] = made._meta
        return made
    t = blank((tr.epoch, known.slot), known)
    t._number = (CONSTANT, value, key, None)
    return t


def _number(tr: Trace, op: Any, value: Any, key: Hashable, source: Any) -> Tensor:
    if tr.draft is not None:
        return tr.draft.number(tr, op, value, key, source)
    dtype = _number_type(value)
    node = extend(tr, key, op, (), value if op is CONSTANT else None, (), dtype, False)
    node.weak = True
    if op is SCALAR:
        if tr.capture is not None:
            tr.capture.scalar(len(tr.scalars), source)
        tr.scalars.append(value)
    t = blank((tr.epoch, node.slot), node)
    t._number = (op, value, key, source)
    return t


# Operations without arithmetic, which the tape itself needs; `ops.table` gives every operation its code.
class Marker:
    """An entry or mark that the tape makes for itself."""

    __slots__ = ("code", "label", "name")

    def __init__(self, name: str, code: int, label: str | None = None) -> None:
        self.name = name
        self.code = code
        self.label = label

    def __repr__(self) -> str:
        return self.name


LEAF = Marker("leaf", -1)
ALIAS = Marker("alias", -2)
SCALAR = Marker("scalar", -3)
CONSTANT = Marker("constant", -4)
WRITE = Marker("write", -5)
COMPOSITE = Marker("composite", -6)
RELEASED = Marker("released", -7)


def follow(tr: Trace, t: Tensor) -> None:
    """Put a tensor that no entry of this trace made into the list of those whose values may be wanted, once."""
    if t._followed != tr.epoch and type(t._meta) is Signature:
        t._followed = tr.epoch
        tr.live.append(t)


def displace(tr: Trace, t: Tensor) -> None:
    """The memory of a pending tensor gets another value, so that it has no place any more; where its history is stays known."""
    epoch, slot = t._at
    if epoch == tr.epoch:
        t._at = (-2 - epoch, slot)
    elif epoch_of(t) != tr.epoch and epoch != STALE[0]:
        materialize(t)  # the trace that has its history is another thread's
        t._at = STALE


def epoch_of(t: Tensor) -> int:
    """The epoch of the trace that a tensor's history is in, also if its value is elsewhere."""
    epoch = t._at[0]
    return epoch if epoch >= 0 else -2 - epoch


def _source(tr: Trace, t: Tensor) -> Any:
    """Where a gradient goes that reaches an input: a leaf, or a place in the graph of an earlier trace."""
    return t if t._origin is None or tr.capture is not None else t._origin


def enter(tr: Trace, t: Tensor) -> int:
    """Make a tensor from outside an input of the trace; returns its slot. May run the trace, which changes its epoch."""
    storage = t._storage
    if storage is not None and storage.array is not None and t._whole and not storage.shared:
        key = t._meta
        node = tr.node.next.get(key)
        if node is not None and storage not in tr.entered and tr.capture is None:  # a whole piece of memory, as before
            tr.node = node
            slot: int = node.slot
            tr.leaves.append(storage)
            tr.addresses.append(storage.address)
            tr.entered[storage] = slot
            t._at = (tr.epoch, slot)
            if key.requires_grad:
                tr.sources[slot] = t._origin or t
                if tr.shared is not None and is_younger(tr, t):
                    flush(tr)
                    return enter(tr, t)
            writer = storage.writer
            if writer is not None and writer is not tr.mark:
                settle_storage(tr, storage)
            return slot
    if t._number is not None:
        t._at = _number(tr, *t._number)._at
        return t._at[1]
    if storage is None or (storage.array is None and storage.at[0] != tr.epoch):
        materialize(t)  # pending in another thread, or left behind by an error
        storage = t._storage
    elif type(t._meta) is not Signature and t._at != STALE and epoch_of(t) != tr.epoch:
        materialize(t)  # only its history is
    if tr.shared is not None and is_younger(tr, t):
        flush(tr)
    if storage.shared and exported(storage):
        return _enter_shared(tr, t)
    current = tr.entered.get(storage) if storage.array is not None else storage.at[1]
    # its history is here; the memory may be another thread's
    if storage.array is not None and type(t._meta) is not Signature:
        return _enter_written(tr, t, enter_storage(tr, t) if current is None else current, False)
    if current is None:
        if t._whole:
            key = t._meta
            node = tr.node.next.get(key)
            if node is not None:
                tr.node = node
                slot = node.slot
            elif tr.draft is not None:
                slot = tr.draft.leaf(tr, key.shape, key.dtype, key.requires_grad, storage.nbytes)
            else:
                node = extend(tr, key, LEAF, (), None, key.shape, key.dtype, key.requires_grad)
                node.leaf_bytes = _leaf_bytes(node, storage)
                slot = node.slot
            tr.leaves.append(storage)
            tr.addresses.append(storage.address)
            tr.entered[storage] = slot
            t._at = (tr.epoch, slot)
            if key.requires_grad:
                tr.sources[slot] = _source(tr, t)
            if tr.capture is not None:
                tr.capture.leaf(t, storage)
            if storage.writer is not None and storage.writer is not tr.mark:
                settle_storage(tr, storage)
            return slot
        current = enter_storage(tr, t)
    return _enter_alias(tr, t, storage, current)


def is_younger(tr: Trace, t: Tensor) -> bool:
    """Whether a tensor's history may lead back to what another thread has looked at in this trace: then the trace ends first."""
    if t._origin is None or not t._meta.requires_grad or tr.static or tr.capture is not None:
        return False
    graph = t._origin[0]
    order: int = (graph.shared or graph).order
    return order >= tr.shared.order


def _leaf_bytes(node: Node, storage: Storage) -> int:
    assert node.parent is not None
    return node.parent.leaf_bytes + storage.nbytes


def enter_storage(tr: Trace, t: Tensor) -> int:
    """Make all the memory that a tensor lies in an input of the trace, as a flat array."""
    storage, dtype = t._storage, t._meta.dtype
    current = tr.entered.get(storage)
    if current is None:
        if tr.draft is not None:
            current = tr.draft.leaf(tr, (storage.numel,), dtype, False, storage.nbytes)
        else:
            node = extend(tr, (LEAF.code, storage.numel, dtype), LEAF, (), None, (storage.numel,), dtype, False)
            node.leaf_bytes = _leaf_bytes(node, storage)
            current = node.slot
        tr.leaves.append(storage)
        tr.addresses.append(storage.address)
        tr.entered[storage] = current
        if tr.capture is not None:
            tr.capture.leaf(t, storage)
        if storage.writer is not None and storage.writer is not tr.mark:
            settle_storage(tr, storage)
    return current


def _enter_alias(tr: Trace, t: Tensor, storage: Storage, current: int) -> int:
    """The slot of a tensor whose memory is in the trace under another tensor's name."""
    meta = t._meta
    if storage.array is not None and storage not in tr.written:
        key: Any = (ALIAS.code, current, meta, t._strides)
        if tr.draft is not None:
            slot = tr.draft.alias(tr, current, meta, t._strides)
        else:
            slot = extend(
                tr, key, ALIAS, (current,), (meta.shape, t._strides, None), meta.shape, meta.dtype, meta.requires_grad
            ).slot
        tr.addresses.append(storage.address + t._offset * meta.dtype.itemsize)
        if tr.capture is not None:
            tr.capture.alias(t, storage)
        if meta.requires_grad:
            tr.sources[slot] = _source(tr, t)
        t._at = (tr.epoch, slot)
        return slot
    outside = meta.requires_grad and type(meta) is Signature  # its history is not in this trace
    if outside and t._origin is None and tr.grad_enabled and tr.capture is None and not tr.static:
        flush(tr)  # a new iteration reads what the last one wrote: the trace ends here
        return enter(tr, t)
    if tr.capture is not None:
        tr.capture.fixed.add(storage)
    return _enter_written(tr, t, current, outside)


def _enter_written(tr: Trace, t: Tensor, current: int, outside: bool) -> int:
    """The slot of a tensor whose memory this trace has written: the present value, with the writer's history if that has one,
    else with the tensor's own."""
    meta, epoch = t._meta, tr.epoch
    geometry = (meta.shape, t._strides, t._offset)
    whole = tr.entries()[current]
    if outside and (t._origin is None or not whole.requires_grad or not is_related(t)):
        node = extend(
            tr, (ALIAS.code, current, meta, geometry), ALIAS, (current,), geometry, meta.shape, meta.dtype, True
        )
        tr.sources[node.slot] = _source(tr, t)
        t._at = (epoch, node.slot)
        return node.slot
    detached = t._detached or (whole.requires_grad and not is_related(t))
    if t._whole and whole.shape == meta.shape and not detached:
        node = whole
    else:
        node = AS_STRIDED.record_value(tr, current, geometry, detached=detached)
    if meta.requires_grad and not node.requires_grad:
        node = rewritten(tr, node, meta)
    t._at = (epoch, node.slot)
    follow(tr, t)
    t._meta = node
    if t._watch is not None:
        move_watch(t)
    return node.slot


def rewritten(tr: Trace, value: Node, history: Node) -> Node:
    """An entry with the value of one and the history of another: what a write outside of any gradient leaves of a tensor that has one."""
    slots = (value.slot, history.slot)
    node = extend(tr, (REWRITTEN.code, *slots), REWRITTEN, slots, None, history.shape, history.dtype, True)
    if node.name is None:
        node.name = history.name or history.op.label
    return node


def is_related(t: Tensor) -> bool:
    """Whether a tensor is a view of what was last written with a history, or the other way round; `detach` ends the relation."""
    family = t._storage.family
    return family is not None and family() is (t if t._base is None else t._base)


SNAPSHOT_BYTES = 32768
move_watch: Callable[[Any], None] = _unbound  # a tensor that keeps its gradient has got another history
snapshot: Callable[[Any], Any] = _unbound  # a copy of a tensor's present value, made at once
AS_STRIDED: Any = None
REWRITTEN: Any = None


def _enter_shared(tr: Trace, t: Tensor) -> int:
    """A tensor whose memory NumPy holds is read now: a small one is copied, a large one makes the operation run at once."""
    storage = t._storage
    storage.shared = False
    try:
        if (
            tr.capture is None
            and storage not in tr.written
            and t._meta.numel * t._meta.dtype.itemsize <= SNAPSHOT_BYTES
        ):
            slot = enter(tr, snapshot(t))
            if type(t._meta) is not Signature and epoch_of(t) == tr.epoch:  # a view, whose history is here
                value = tr.entries()[slot]
                return rewritten(tr, value, t._meta).slot
            if t._meta.requires_grad:
                tr.sources[slot] = _source(tr, t)
            return slot
        if tr.capture is None:
            tr.node = Urgent(tr.real)
        return enter(tr, t)
    finally:
        storage.shared = True
        if type(t._meta) is Signature:
            t._at = STALE
        elif t._at[0] == tr.epoch:
            t._at = (-2 - tr.epoch, t._at[1])


def numbers(options: dict[str, Any], wanted: tuple[Any, ...]) -> list[Any]:
    """Options of an optimizer as run-time inputs: names, or (name or names, function of their values).

    `compile` reads them again for every call. An option that is a tensor is used as it is.
    """
    tr = local.trace
    values = [_option(options, w) for w in wanted]
    if any([isinstance(v, TENSOR) for v in values]) or tr.static or tr.capture is not None:
        return [v if isinstance(v, TENSOR) else scalar(v, (options, w)) for v, w in zip(values, wanted, strict=True)]
    values = [float(v) for v in values]
    key = ("numbers", len(values))
    edge = tr.node.next.get(key)
    if edge is None:
        start = tr.real
        made = [scalar(v) for v in values]
        start.next[key] = Edge(tr.real, [t._meta for t in made])
        return made
    tr.node = edge.end
    tr.scalars += values
    made = []
    epoch = tr.epoch
    for node in edge.outputs:
        made.append(blank((epoch, node.slot), node))
    return made


def _option(options: dict[str, Any], wanted: Any) -> Any:
    """The present value of an option, or of a function of options."""
    if type(wanted) is str:
        return options[wanted]
    name, function = wanted
    return function(options[name]) if type(name) is str else function(*[options[n] for n in name])
