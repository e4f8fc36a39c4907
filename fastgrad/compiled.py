"""`compile`: a step is recorded once per signature of its arguments, and replayed afterwards without running its Python.

The function runs once as a rewritten copy, with a `Capture` on the trace (capture.py): nothing is cut, so the call becomes one trace
whose leaves and numbers remember where they are found next time, and whose reads of Python's state are noted (`watching`). A
`Replay` (replaying.py) binds all that, sweeps, and hands results over. When something is not as it was, the function is captured
again, and that path becomes another replay. What can't be watched makes the call run its Python every time, with one warning.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import execute, tables
from . import recording as tape
from .answers import Unanswerable
from .capture import Capture, CompileError, Escape
from .execute import flush
from .kernels import background
from .recording import Signature, local
from .replaying import MISS, Replay
from .report import Report, report
from .specialize import is_simple, specialize
from .structure import structure_version
from .tensor import Tensor
from .watching.numbers import Real, Whole, bare

if TYPE_CHECKING:
    import numpy as np

VARIANTS = 8  # outcomes of guards, and states of what it reads, that one signature may have
VALUES = 64  # values of float arguments that decide what is recorded
PATIENCE = 2  # calls whose stores are taken for the making of state

__all__ = ["CompileError", "Compiled", "Escape", "compile"]


class Compiled:
    """A compiled function: call it as the original. `replays` counts what it holds."""

    __slots__ = ("__dict__", "__weakref__", "_table")

    def __init__(self, function: Callable[..., Any], wait: bool = False) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._wait = wait
        self._name = getattr(function, "__qualname__", type(function).__name__)
        self._table: Any = None  # of the replays used last, for `entrance.method`
        self._replays: dict[Any, list[Replay]] = {}
        self._steps: list[Any] = []
        self._tables: list[Any] = []
        self._structure = -1
        self._pinned: dict[Any, tuple[int, ...]] = {}  # by key: numbers whose value decides what is recorded
        self._plain: set[Any] = set()  # keys of calls that run their Python every time
        self._always = False  # all of them do
        self._kept: dict[Any, int] = {}
        self._varying: dict[Any, Any] = {}  # places where other numbers have stood
        self._warned = False

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else Bound(self, instance)

    def captured(self) -> tuple[Any, tuple[Any, ...]]:
        """What a capture that calls it runs: the function, and its first arguments."""
        return self._function, ()

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
        found = [r for key, replays in self._replays.items() if _thread(key) is tr for r in replays]
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
                if result is not MISS:
                    return result
        if tr.capture is not None or tr.eager:
            return self._function(*args, **kwargs)
        if self._plain and (self._always or self._key(tr, args, kwargs, []) in self._plain):
            return self._function(*args, **kwargs)
        if tr.draft is not None:
            flush(tr)
        if tr.node is not tr.root and (tr.real.end or tr.live):
            flush(tr)
        flat: list[Any] = []
        key = self._key(tr, args, kwargs, flat)
        if self._structure != structure_version[0]:
            self._forget_modules()
        for replay in self._found(key, flat):
            if replay.accepts(flat):
                result = replay.run(tr, flat)
                if result is not MISS:
                    self._specialize(tr, replay, args, kwargs)
                    return result
        return self._record(tr, key, args, kwargs, flat)

    def _found(self, key: tuple[Any, ...], flat: list[Any]) -> list[Replay] | tuple[()]:
        """The replays of a call."""
        return self._replays.get(self._full(key, flat), ())

    def _full(self, key: tuple[Any, ...], flat: list[Any]) -> tuple[Any, ...]:
        """The key of a call together with the numbers that decide what is recorded."""
        pinned = self._pinned.get(key)
        return key if pinned is None else (key, *[_exactly(flat[k]) for k in pinned])

    def _forget_modules(self) -> None:
        """Modules have other parameters or submodules than before: what was recorded with the old ones won't come back."""
        self._structure = structure_version[0]
        self._table = None
        self._tables.clear()
        self._steps.clear()
        self._replays = {
            key: kept
            for key, replays in self._replays.items()
            if (kept := [r for r in replays if r.structure == self._structure])
        }

    def _key(self, tr: Any, args: Any, kwargs: Any, flat: list[Any]) -> tuple[Any, ...]:
        """What replays are found by; tensors, floats and ints are collected in `flat`."""
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

    def _specialize(self, tr: Any, replay: Replay, args: Any, kwargs: Any) -> None:
        """After some calls, write the quick way of a replay."""
        replay.uses += 1
        if replay.program.hot:
            replay.program.move_up()
        if replay.uses < replay.due or kwargs:
            return
        replay.due = 2 * replay.uses + 4
        if not is_simple(replay, list(args)):
            return
        old = replay.step, replay.table
        given = (replay, list(args), tr.grad_enabled)
        table = tables.table(*given)
        if table is not None:
            replay.table, replay.flags = table, table.flags
        step = replay.step = specialize(*given, MISS)
        self._steps = [step, *[s for s in self._steps if s is not old[0]][:3]]
        self._tables = [t for t in (table, *[t for t in self._tables if t is not old[1]][:3]) if t is not None]
        self._table = tables.chain(self._tables)
        if self._tables:
            tables.install(Compiled)

    __call__ = _general  # until there is a table

    def _record(self, tr: Any, key: Any, args: Any, kwargs: Any, flat: list[Any]) -> Any:
        for replay in self._found(key, flat):
            for load in replay.loads:
                if load.varies():
                    self._varying[load.place] = load.container
        if len(self._varying) > 1000:
            self._varying.clear()
        capture = Capture(flat, self._name, self._varying)
        numbers = iter(range(len(flat)))
        call_args = tuple([capture.arguments(x, numbers) for x in args])
        call_kwargs = {k: capture.arguments(v, numbers) for k, v in kwargs.items()}
        structure = structure_version[0]
        tr.capture = capture
        tr.begin_apart()
        try:
            outputs = capture.run(self._function, call_args, call_kwargs)
            del call_args, call_kwargs
            if capture.released is not None:
                return self._unwatched(tr, key, capture, outputs)
            capture.histories(flat)
            if capture.stores or structure != structure_version[0] or not capture.unchanged():
                return self._kept_state(tr, key, capture, outputs)
            if any([isinstance(t, Tensor) and t._storage in capture.shared() for t in flat]):
                tr.capture = None  # an argument that the function knows by name, too
                flush(tr)
                return stripped(outputs)
            with tape.writing, tr.lock:
                if capture.disturbed:  # another thread has written to what the call had read: right once, but no replay
                    tr.capture = None
                    flush(tr)
                    return stripped(outputs)
                return self._first(tr, key, capture, flat, outputs)
        except Unanswerable as reason:
            capture.release(str(reason), capture.place)
            return self._unwatched(tr, key, capture, outputs)
        except Escape:
            # The call has made what later calls will find (an optimizer's state, say). Its results stand, and the next call is
            # recorded again; a function that always keeps something is refused.
            count = self._kept[key] = self._kept.get(key, 0) + 1
            tr.capture = None
            flush(tr)
            if count > PATIENCE:
                raise
            return stripped(outputs)
        except BaseException:
            if tr.capture is not None:
                tr.capture = None
                flush(tr)
            raise

    def _first(self, tr: Any, key: Any, capture: Capture, flat: list[Any], outputs: Any) -> Any:
        """Execute what a capture has recorded, and keep it as a replay."""
        replay = Replay(tr, capture, flat, outputs)
        tr.capture = None
        made = replay.holders[: replay.n_outputs]
        try:
            replay.first(tr)
        except BaseException:  # nothing has landed: the call has had no effect
            for leaf in (*replay.leaves_with, *[leaf for leaf, _ in replay.handed]):
                leaf._grad = None
            execute.abandon(tr)
            raise
        self._keep(key, capture, replay, flat)
        answer = replay.first_answer(made, flat)
        capture.forget()
        if self._wait:
            background.wait(replay.program.move_up())
        return answer

    def _keep(self, key: Any, capture: Capture, replay: Replay, flat: list[Any]) -> None:
        """Put a new replay where it will be found."""
        alive = {id(trace) for thread, trace in list(tape._traces) if thread}
        self._replays = {k: r for k, r in list(self._replays.items()) if id(_thread(k)) in alive}
        self._kept.pop(key, None)
        pinned = set(self._pinned.get(key, ()))
        if not capture.watch.pinned <= pinned:
            self._replays.pop(key, None)
            self._replays = {k: r for k, r in self._replays.items() if k[0] is not key and k[0] != key}
            self._pinned[key] = tuple(sorted(pinned | capture.watch.pinned))
        full = self._full(key, flat)
        by_value = full not in self._replays and any([type(flat[k]) is float for k in self._pinned.get(key, ())])
        if by_value and len([k for k in self._replays if k[0] == key]) >= VALUES:
            self._run_always(key, "the value of a number among its arguments decides what it does", capture.place)
            return
        replays = self._replays.setdefault(full, [])
        replays.insert(0, replay)
        del replays[VARIANTS:]

    def _unwatched(self, tr: Any, key: Any, capture: Capture, outputs: Any) -> Any:
        """A call that could not be captured has run as it is."""
        tr.capture = None
        flush(tr)
        assert capture.released is not None
        what, line, again = capture.released
        self._kept[key] = self._kept.get(key, 0) + 1
        if not again or self._kept[key] > PATIENCE:
            self._run_always(key, f"it depends on what can't be watched: {what}", line)
        return stripped(outputs)

    def _kept_state(self, tr: Any, key: Any, capture: Capture, outputs: Any) -> Any:
        """A call that has changed what exists outside of it: only the first calls may, which make state."""
        tr.capture = None
        if not capture.stores and capture.allowed:
            capture.store(self, "something that it could reach is other than before", None)
        if not capture.stores:  # what it has read has changed meanwhile, by another thread perhaps
            flush(tr)
            return stripped(outputs)
        count = self._kept[key] = self._kept.get(key, 0) + 1
        pending = [
            (what, line, v)
            for what, line, v in capture.stores
            if isinstance(v, Tensor) and type(v._meta) is not Signature
        ]
        escape = self._escape(*pending[0]) if pending and count > PATIENCE else None
        flush(tr)
        if escape is not None:
            raise escape
        if count > PATIENCE:
            what, line, _ = capture.stores[0]
            self._run_always(key, f"it changes what exists outside of it: {what}", line)
        return stripped(outputs)

    def _escape(self, what: str, line: Any, t: Tensor) -> Escape:
        node = t._meta if type(t._meta) is not Signature else None
        made = getattr(node, "line", None) or line
        where = f" (made at {made[0]}:{made[1]})" if made else ""
        return Escape(
            f"the compiled function {self._name} keeps a tensor of shape {list(t.shape)} outside of itself{where}, which a replay would "
            "not do. Return it, or write it in place into a tensor that exists before the call (with copy_)."
        )

    def _run_always(self, key: Any, reason: str, line: Any) -> None:
        """Calls of a key run their Python from now on, and one warning says so."""
        self._replays = {k: r for k, r in self._replays.items() if k != key and k[0] != key}
        self._plain.add(key)
        if len(self._plain) > VALUES:
            self._always = True
        where = f" ({line[0]}:{line[1]})" if line else ""
        if not self._warned:
            self._warned = True
            message = f"compile: {self._name} runs its Python in every call, because {reason}{where}"
            file, number = tape.user_line() or ("<unknown>", 0)
            warnings.warn_explicit(message, RuntimeWarning, file, number)


class Bound:
    """A compiled method of an object."""

    __slots__ = ("__func__", "__self__")

    def __init__(self, step: Compiled, instance: Any) -> None:
        self.__func__, self.__self__ = step, instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__func__(self.__self__, *args, **kwargs)

    def captured(self) -> tuple[Any, tuple[Any, ...]]:
        """What a capture that calls it runs: the function, and its first arguments."""
        return self.__func__._function, (self.__self__,)

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
    """The key of an argument; tensors, floats and ints are collected."""
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
    if kind is float or kind is int:
        flat.append(value)
        return kind
    if kind is tuple or kind is list:
        return (kind, *[_flatten(v, flat) for v in value])
    if kind is dict:
        return (kind, *[(k, _flatten(v, flat)) for k, v in value.items()])
    if kind in _BY_VALUE:
        return (kind, value)
    try:
        hash(value)
    except TypeError:
        if kind.__flags__ & _HEAP and not isinstance(value, (set, list, dict)):
            return Same(value)
        raise CompileError(
            f"a compiled function's arguments are tensors, numbers, text and containers of them; got {kind.__name__}"
        ) from None
    return (kind, value) if not kind.__flags__ & _HEAP else Same(value)


_BY_VALUE = {bool, str, bytes, type(None), complex}
_HEAP = 1 << 9


class Same:
    """An object in a key: itself, whatever it calls equal."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Same and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _exactly(number: Any) -> Any:
    """A number in a key: zeros by sign, NaN as NaN."""
    return (float, number.hex()) if type(number) is float else number


def _thread(key: tuple[Any, ...]) -> Any:
    return key[0] if type(key[0]) is not tuple else key[0][0]


def stripped(value: Any) -> Any:
    """An answer whose numbers are Python's own."""
    kind = type(value)
    if kind is Real or kind is Whole:
        return bare(value)
    if kind is list:
        value[:] = [stripped(x) for x in value]
    elif kind is dict:
        for k, x in value.items():
            value[k] = stripped(x)
    elif kind is tuple:
        return tuple([stripped(x) for x in value])
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

    A signature is the structure, shapes and dtypes of the arguments. Numbers in the arguments and in the state that the function
    reads, an optimizer's options and random numbers are read for every call, and Python arithmetic on them is done in Python's
    precision. Parameters, gradients, buffers and optimizer state are read and written where they are at the time of the call. A
    branch on a tensor's value is checked by every replay, and so is all else that the function has read: names, attributes, items,
    lengths. What can't be watched (an iterator, `time`, `random`, a print, a change of an object outside) makes the call run its
    Python every time, and one RuntimeWarning names the line: slower, never stale. With `wait` a call that records waits until its loops have been compiled into fused kernels, which
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
