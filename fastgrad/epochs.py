"""`step.loop`: whole epochs of a compiled step in one compiled call.

The first batch of a kind (a full one, a last short one, a new outcome of a guard) is an ordinary call of the step, which records
it. All batches whose replay is known are executed by the driver in `kernels/epochs.py`, in slices of a bounded time, between
which Python looks for Ctrl-C, shows progress, and checks again all that an ordinary call would check. `Epochs._drive` is
one slice; a `Plan` (`batches.py`) is a replay as the driver sees it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import execute
from . import recording as tape
from .batches import Plan, address_of, first
from .dtypes import from_numpy_dtype, get_default_dtype
from .execute import new_bytes
from .functions.creation import wrap
from .functions.random import Generator, default_generator, permute
from .interrupts import CtrlC
from .kernels import epochs as kernel
from .kernels.random import permutation_kernel
from .kernels.sweep import WORDS
from .recording import Signature, Storage, local
from .structure import structure_version
from .tensor import Tensor, handle

if TYPE_CHECKING:
    from .compiled import Compiled
    from .recording import Trace
    from .replaying import Replay

SLICE = 0.025  # seconds that a compiled call should take at most: how soon Ctrl-C is noticed
GROWTH = 64  # by how much the next slice may be longer than the last
PATIENCE = 16  # ordinary calls in a row after which a warning says so


class _Rows:
    """An array whose rows are given out in batches. Its rows must lie without gaps; one whose rows don't is copied."""

    def __init__(self, given: Any, number: int) -> None:
        if isinstance(given, Tensor):
            if given.requires_grad:
                raise RuntimeError(
                    f"loop: array {number} requires gradients, which batches would not hand on; detach() it"
                )
            array = given._view_of_memory()
        elif isinstance(given, np.ndarray):
            array = given
        else:
            raise TypeError(
                f"loop: array {number} is a {type(given).__name__}; batches are taken of tensors and NumPy arrays"
            )
        if array.ndim == 0:
            raise ValueError(f"loop: array {number} has no rows: it is 0-dimensional")
        self.dtype = from_numpy_dtype(array.dtype)
        if not array[:1].flags.c_contiguous:
            array = np.ascontiguousarray(array)
        self.array = array
        self.shape = array.shape[1:]
        self.row_bytes = tape.count(self.shape) * self.dtype.itemsize
        self.stride = array.strides[0] if len(array) > 1 else self.row_bytes
        self.address = array.__array_interface__["data"][0]
        # Rows that follow each other and are aligned can be read by the step where they lie.
        self.gathers = True
        self.dense = self.stride == self.row_bytes and array.flags.aligned
        spans = (self.address, self.stride, self.row_bytes)
        self.grain = 8 if not any([x % 8 for x in spans]) else 4 if not any([x % 4 for x in spans]) else 1

    def overlaps(self, storage: Storage) -> bool:
        """Whether the array lies in some memory."""
        low, high = sorted((self.address, self.address + self.stride * (len(self.array) - 1)))
        return low < storage.address + storage.nbytes and storage.address < high + self.row_bytes

    def batch(self, rows: Any) -> Tensor:
        """Some rows as a tensor of its own."""
        return wrap(np.array(self.array[rows], order="C", copy=True, subok=False))


class Epochs:
    """One call of `loop`."""

    def __init__(
        self, step: Compiled, before: tuple[Any, ...], arrays: Sequence[Any], batch_size: int | None = None, epochs: int = 1,
        shuffle: bool = False, generator: Any = None, drop_last: bool = False, progress: Any = None,
    ) -> None:  # fmt: skip
        if local.trace.capture is not None:
            local.trace.capture.refuse("step.loop")
        if generator is not None and not isinstance(generator, Generator):
            raise TypeError(f"loop: generator must be a fastgrad.Generator, got {type(generator).__name__}")
        if progress is not None and type(progress) is not bool and not callable(progress):
            raise TypeError(f"loop: progress must be True, False or a function, got {type(progress).__name__}")
        if not arrays:
            raise TypeError("loop: expected the arrays that batches are taken of, got none")
        self.step, self.before = step, before
        self.inputs = [_Rows(a, k) for k, a in enumerate(arrays)]
        lengths = [len(x.array) for x in self.inputs]
        if len(set(lengths)) > 1:
            raise ValueError(f"loop: the arrays must have the same number of rows, got {lengths}")
        n = lengths[0]
        size = _natural("batch_size", n if batch_size is None else batch_size)
        if n == 0:
            raise ValueError("loop: the arrays have no rows")
        if size == 0:
            raise ValueError("loop: batch_size must be positive, got 0")
        if drop_last and size > n:
            raise ValueError(f"loop: with drop_last, batch_size {size} leaves nothing of {n} rows")
        self.n, self.size = n, min(size, n)
        self.epochs = _natural("epochs", epochs)
        self.batches = n // self.size if drop_last else -(-n // self.size)
        self.progress = progress
        self.order = np.empty(n, np.int64) if shuffle else None
        self.source = default_generator if generator is None else generator
        self.losses: Any = None
        self.bases: list[int] = [0] * len(self.inputs)
        self.limit = 0  # batches of the next slice
        self.ordinary = 0
        self.warned = False
        self.reason = "its calls are recorded anew every time"
        self.generators = [self.source] if shuffle else []  # whose counters the driver moves on
        self._plans: dict[int, Plan] = {}
        self._windows: dict[int, list[Tensor]] = {}
        self.control = np.zeros(kernel.CONTROL, np.int64)
        self._at_control = address_of(self.control)
        self._seed = np.zeros(1, np.int64)
        self._shuffler = np.zeros(WORDS, np.int64)
        self._use_buffers([shuffle or not x.dense for x in self.inputs])
        self._prepare()

    def _use_buffers(self, gathers: list[bool]) -> None:
        """Which arrays' rows are copied into a buffer for every batch; the others are read where they lie."""
        for x, copied in zip(self.inputs, gathers, strict=True):
            x.gathers = copied
        self.buffers = [
            new_bytes(x.row_bytes * self.size) if x.gathers else Storage(np.empty(0, np.uint8), 0, 0, 0)
            for x in self.inputs
        ]
        rows = [
            [x.address, x.stride, x.row_bytes, b.address, x.grain]
            for x, b in zip(self.inputs, self.buffers, strict=True)
        ]
        self._input_table = np.array(rows, np.int64)
        self.control[kernel.INPUTS] = address_of(self._input_table)
        self._plans.clear()
        self._windows.clear()

    def _prepare(self) -> None:
        """The driver's control words that stay as they are."""
        c = self.control
        c[[kernel.ROWS, kernel.SIZE, kernel.BATCHES, kernel.EPOCHS]] = self.n, self.size, self.batches, self.epochs
        c[kernel.INPUT_COUNT] = len(self.inputs)
        c[kernel.ORDERED] = -1
        if self.order is not None:
            at_order = address_of(self.order)
            self._shuffler[:4] = permutation_kernel(), self.n, at_order, address_of(self._seed)
            c[kernel.ORDER], c[kernel.SHUFFLER], c[kernel.SHUFFLED] = at_order, address_of(self._shuffler), 0

    def new_bases(self, count: int) -> int:
        """Numbers for more addresses that change from batch to batch."""
        self.bases += [0] * count
        return len(self.bases) - count

    # ---- the loop

    def run(self) -> np.ndarray:
        """All epochs."""
        bar = None
        if self.progress is True:
            from tqdm import tqdm

            bar = tqdm(total=self.epochs * self.batches, unit="batch")
        tell = self.progress if callable(self.progress) else None
        done = 0  # epochs that `progress` was told of
        try:
            with CtrlC() as ctrl_c:
                while done < self.epochs:
                    count = self._drive(self.batches - self.batch if tell else None) or self._call()
                    ctrl_c.deliver()
                    if bar is not None:
                        bar.set_postfix_str(f"loss {self._last():.6g}", refresh=False)
                        bar.update(count)
                    if tell is None:
                        done = self.epoch
                    elif self.epoch > done:
                        done += 1
                        answer = tell(done - 1, self.losses[done - 1])
                        if isinstance(answer, (bool, np.bool_)) and answer:
                            break
        except BaseException as error:
            error.losses = self._losses()  # type: ignore[attr-defined]
            error.steps = self.epoch * self.batches + self.batch  # type: ignore[attr-defined]
            raise
        finally:
            self._plans.clear()  # they refer to this object: without them the arrays can be given back at once
            if bar is not None:
                bar.close()
        losses = self._losses()
        return losses if done == self.epochs else losses[:done].copy()

    @property
    def epoch(self) -> int:
        return int(self.control[kernel.EPOCH])

    @property
    def batch(self) -> int:
        return int(self.control[kernel.BATCH])

    def _last(self) -> float:
        """The last loss."""
        return float(self.losses.reshape(-1)[self.epoch * self.batches + self.batch - 1])

    def _losses(self) -> np.ndarray:
        if self.losses is None:
            self._hold(get_default_dtype())
        return self.losses

    def _hold(self, dtype: Any) -> None:
        """Memory for the losses; those of batches that have not run are NaN."""
        self.losses = np.full((self.epochs, self.batches), np.nan if dtype.is_floating_point else 0, dtype.numpy)
        self.control[[kernel.LOSSES, kernel.LOSS_BYTES]] = address_of(self.losses), dtype.itemsize

    def _call(self) -> int:
        """One batch by an ordinary call."""
        c = self.control
        rows: Any = slice(self.batch * self.size, min((self.batch + 1) * self.size, self.n))
        if self.order is not None:
            if c[kernel.ORDERED] != self.epoch:
                permute(self.order, self.source)
                c[kernel.ORDERED] = self.epoch
            rows = self.order[rows]
        settle(local.trace)
        loss = first(self.step(*self.before, *[x.batch(rows) for x in self.inputs]))
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"loop: {self.step._name} must return its loss, or a tuple that begins with it; got {type(loss).__name__}"
            )
        _check_loss(loss)
        value = loss.item()
        if self.losses is None:
            self._hold(loss.dtype)
        self.losses[self.epoch, self.batch] = value
        c[kernel.BATCH] += 1
        if c[kernel.BATCH] == self.batches:
            c[kernel.BATCH] = 0
            c[kernel.EPOCH] += 1
        self.ordinary += 1
        if self.ordinary > PATIENCE and self.reason and not local.trace.eager and not self.warned:
            self.warned = True
            text = f"loop: {self.step._name} runs batch by batch in Python: {self.reason}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)  # the line that calls `loop`
        return 1

    # ---- batches in the driver

    def _drive(self, most: int | None) -> int:
        """One slice: as many batches as the driver gets through; returns their number."""
        tr = local.trace
        if tr.eager:
            return 0
        settle(tr)
        groups = self._find(tr)
        if groups is None:
            return 0
        plans = groups[0] + groups[1]
        if self.limit == 0:  # the first slice is a short one, since other arrays may be slower to read
            self.limit = max([1, *[int(SLICE / 16 / p.replay.pace) for p in plans if p.replay.pace]])
        limit = self.limit if most is None else min(self.limit, most)
        arena = max([p.program.arena_bytes for p in plans])
        address = execute._arena(tr, arena) if arena else 0
        for p in plans:
            p.begin(address)
        offsets = [g._offset for g in self.generators]
        states, bases = np.array(offsets, np.int64), np.array(self.bases, np.int64)
        tables = [np.array([p.row() for p in group], np.int64) for group in groups]
        self._control(states, bases, tables)
        started = time.perf_counter()
        done = kernel.driver()(self._at_control, limit)
        seconds = time.perf_counter() - started
        self.bases = bases.tolist()
        rows = [row for table in tables for row in table.tolist()]
        ends = [(row[kernel.LAST], row[kernel.RUNS], p) for row, p in zip(rows, plans, strict=True)]
        for _, runs, p in sorted(ends, key=lambda x: x[0]):
            p.end(runs)
        for g, before, after in zip(self.generators, offsets, states.tolist(), strict=True):
            g._offset += after - before
        if done:
            self.ordinary = 0
            pace = max(seconds, 1e-9) / done
            self.limit = max(1, min(int(SLICE / pace), GROWTH * limit))
            for p in plans:
                p.replay.pace = pace
        return done

    def _control(self, states: Any, bases: Any, tables: list[Any]) -> None:
        """The driver's control words that differ from slice to slice."""
        full, short = tables
        at_states = address_of(states)
        if self.order is not None:
            self._seed[0], self._shuffler[4] = self.source._seed, at_states
        self.control[kernel.BASES :] = (
            address_of(bases), at_states, len(states), address_of(full), len(full), address_of(short), len(short), 0,
        )  # fmt: skip

    def _find(self, tr: Trace) -> tuple[list[Plan], list[Plan]] | None:
        """The plans for full batches and for a short one, of which the next batch has one; None if it has none."""
        last = self.n - (self.batches - 1) * self.size
        is_short = last < self.size and self.batch == self.batches - 1
        groups = [self._usable(tr, self.size), self._usable(tr, last) if last < self.size else []]
        now = groups[is_short]
        if not now:
            return None
        if any([p.writes_input for p in groups[0] + groups[1]]) and not all([x.gathers for x in self.inputs]):
            self._use_buffers([True] * len(self.inputs))
            return self._find(tr)
        if any([p.reads_gradients for p in groups[0] + groups[1]]):  # one program passes its gradients to itself only
            groups = [groups[0][:1], []] if not is_short else [[], groups[1][:1]]
        plans = groups[0] + groups[1]
        expected = {id(leaf): had for p in plans for leaf, had in p.replay.capture.expected}
        if any([expected.get(id(leaf), has) != has for p in plans for leaf, has in p.after]):
            self.reason = "it leaves gradients where its next call expects none, or the other way round"
            return None
        return groups[0], groups[1]

    def _usable(self, tr: Trace, rows: int) -> list[Plan]:
        """The plans of all replays that accept a batch of so many rows as things are now."""
        step = self.step
        if step._structure != structure_version[0]:
            step._forget_modules()
        windows = self._windows.get(rows)
        if windows is None:
            windows = self._windows[rows] = [
                handle(Signature.of((rows, *x.shape), x.dtype), Storage(b.array, b.address, 0, 0))
                for x, b in zip(self.inputs, self.buffers, strict=True)
            ]
        flat: list[Any] = []
        found = []
        key = step._key(tr, (*self.before, *windows), {}, flat)
        if step._always or key in step._plain:
            self.reason = "it depends on what can't be watched, or changes what exists outside of it"
        for replay in step._found(key, flat):
            plan = self._plans.get(id(replay))
            if plan is None:
                plan = self._plans[id(replay)] = self._plan(replay)
            if plan.reason is not None:
                self.reason = plan.reason
            elif replay.accepts(flat) and not any([leaf._grad._offset for _, leaf, _ in replay.from_gradients]):
                meta = plan.loss()[1]
                if self.losses is None and meta.numel == 1:
                    self._hold(meta.dtype)
                if meta.numel == 1 and meta.dtype.numpy == self.losses.dtype:
                    found.append(plan)
        return found

    def _plan(self, replay: Replay) -> Plan:
        plan = Plan(replay, self)
        for _, owner, _ in plan.numbers:
            if owner not in self.generators:
                self.generators.append(owner)
        return plan


def _check_loss(loss: Tensor) -> None:
    if loss.numel() != 1:
        raise RuntimeError(f"loop: the step's loss must be a single number, got a tensor of shape {list(loss.shape)}")


def _natural(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(type(value), "__index__") or isinstance(value, Tensor):
        raise TypeError(f"loop: {name} must be an integer, got {type(value).__name__}")
    number = value.__index__()
    if number < 0:
        raise ValueError(f"loop: {name} must not be negative, got {number}")
    return number


def settle(tr: Trace) -> None:
    """Run what is pending."""
    if tr.real.end or tr.live:
        tape.flush(tr)
