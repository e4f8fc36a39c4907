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
from .batches import Plan, first
from .dtypes import from_numpy_dtype, get_default_dtype
from .execute import new_bytes
from .functions.creation import Generator, default_generator, permute, wrap
from .interrupts import CtrlC
from .kernels import epochs as kernel
from .kernels.random import permutation_kernel
from .kernels.sweep import WORDS
from .recording import Signature, Storage, local
from .tensor import Tensor, handle

if TYPE_CHECKING:
    from .compiled import Compiled, Replay
    from .recording import Trace

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
        self.buffers: list[Storage] = []
        self._plans: dict[int, Plan] = {}
        self._tables: list[Any] = []
        self.control = np.zeros(kernel.CONTROL, np.int64)
        self.control[kernel.ORDERED] = -1
        self._use_buffers(shuffle or not all([x.dense for x in self.inputs]))

    def _use_buffers(self, gathers: bool) -> None:
        """Whether a batch's rows are copied into a buffer, or read where they lie."""
        self.gathers = gathers
        self.buffers = [
            new_bytes(x.row_bytes * self.size) if gathers else Storage(np.empty(0, np.uint8), 0, 0, 0)
            for x in self.inputs
        ]
        self._plans.clear()

    def new_bases(self, count: int) -> int:
        """Numbers for more addresses that change from batch to batch."""
        self.bases += [0] * count
        return len(self.bases) - count

    def table(self, rows: Any) -> int:
        """The address of a table, which stays until the next slice."""
        array = np.array(rows, np.int64)
        self._tables.append(array)
        return array.ctypes.data

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
            raise
        finally:
            if bar is not None:
                bar.close()
        return self._losses()[:done]

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
            warnings.warn(
                f"loop: {self.step._name} runs batch by batch in Python: {self.reason}", RuntimeWarning, stacklevel=5
            )
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
        full, short = groups
        plans = full + short
        if self.limit == 0:  # the first slice is a short one, since other arrays may be slower to read
            self.limit = max([1, *[int(SLICE / 16 / p.replay.pace) for p in plans if p.replay.pace]])
        limit = self.limit if most is None else min(self.limit, most)
        arena = max([p.program.arena_bytes for p in plans])
        address = execute._arena(tr, arena) if arena else 0
        for owner in [owner for p in plans for _, owner, _ in p.numbers]:
            if owner not in self.generators:
                self.generators.append(owner)
        for p in plans:
            p.begin(address)
        self._tables = []
        states = np.array([g._offset for g in self.generators], np.int64)
        bases = np.array(self.bases, np.int64)
        tables = [np.array([p.row() for p in group], np.int64) for group in (full, short)]
        self._control(states, bases, tables)
        started = time.perf_counter()
        done = kernel.driver()(self.control.ctypes.data, limit)
        seconds = time.perf_counter() - started
        self.bases = bases.tolist()
        runs = [(int(row[kernel.LAST]), int(row[kernel.RUNS]), p) for group, table in zip(groups, tables, strict=True)
                for row, p in zip(table, group, strict=True)]  # fmt: skip
        for _, count, p in sorted(runs, key=lambda x: x[0]):
            p.end(count)
        for g, offset in zip(self.generators, states.tolist(), strict=True):
            g._offset = offset
        if done:
            self.ordinary = 0
            pace = max(seconds, 1e-9) / done
            self.limit = max(1, min(int(SLICE / pace), GROWTH * limit))
            for p in plans:
                p.replay.pace = pace
        return done

    def _control(self, states: Any, bases: Any, tables: list[Any]) -> None:
        """Fill in the driver's control words for a slice."""
        c = self.control
        shuffler = 0
        if self.order is not None:
            seed = self.table([self.source._seed])
            offset = states.ctypes.data + 8 * self.generators.index(self.source)
            words = [permutation_kernel(), self.n, self.order.ctypes.data, seed, offset]
            shuffler = self.table(words + [0] * (WORDS - len(words)))
            c[kernel.SHUFFLED] = self.generators.index(self.source)
        inputs = [
            [x.address, x.stride, x.row_bytes, buffer.address, x.grain] for x, buffer in zip(self.inputs, self.buffers, strict=True)
        ]  # fmt: skip
        values = {
            kernel.ROWS: self.n, kernel.SIZE: self.size, kernel.BATCHES: self.batches, kernel.EPOCHS: self.epochs,
            kernel.ORDER: 0 if self.order is None else self.order.ctypes.data, kernel.SHUFFLER: shuffler,
            kernel.LOSSES: self.losses.ctypes.data, kernel.LOSS_BYTES: self.losses.itemsize,
            kernel.INPUTS: self.table(inputs), kernel.INPUT_COUNT: len(inputs), kernel.BASES: bases.ctypes.data,
            kernel.STATES: states.ctypes.data, kernel.STATE_COUNT: len(states), kernel.FULL: tables[0].ctypes.data,
            kernel.FULL_COUNT: len(tables[0]), kernel.SHORT: tables[1].ctypes.data, kernel.SHORT_COUNT: len(tables[1]),
            kernel.TURN: 0,
        }  # fmt: skip
        for place, value in values.items():
            c[place] = value

    def _find(self, tr: Trace) -> tuple[list[Plan], list[Plan]] | None:
        """The plans for full batches and for a short one, of which the next batch has one; None if it has none."""
        self.generators: list[Generator] = [] if self.order is None else [self.source]
        last = self.n - (self.batches - 1) * self.size
        is_short = last < self.size and self.batch == self.batches - 1
        groups = [self._usable(tr, self.size), self._usable(tr, last) if last < self.size else []]
        now = groups[is_short]
        if not now:
            return None
        if not self.gathers and any([self._writes_input(p.replay) for p in groups[0] + groups[1]]):
            self._use_buffers(True)
            return self._find(tr)
        groups = [[p for p in group if p.program.is_parallel == now[0].program.is_parallel] for group in groups]
        if any([p.reads_gradients for p in groups[0] + groups[1]]):  # one program passes its gradients to itself only
            groups = [groups[0][:1], []] if not is_short else [[], groups[1][:1]]
        plans = groups[0] + groups[1]
        expected = {id(leaf): had for p in plans for leaf, had in p.replay.capture.expected}
        if any([expected.get(id(leaf), has) != has for p in plans for leaf, has in p.after]):
            return None  # a call leaves gradients where the next one expects none, or the other way round
        return groups[0], groups[1]

    def _usable(self, tr: Trace, rows: int) -> list[Plan]:
        """The plans of all replays that accept a batch of so many rows as things are now."""
        step = self.step
        if not step._is_current():
            return []
        windows = [
            handle(Signature.of((rows, *x.shape), x.dtype), Storage(b.array, b.address, 0, 0))
            for x, b in zip(self.inputs, self.buffers, strict=True)
        ]
        flat: list[Any] = []
        found = []
        for replay in step._replays.get(step._key(tr, (*self.before, *windows), {}, flat), ()):
            if replay.accepts(flat):
                plan = self._plans.get(id(replay))
                if plan is None:
                    plan = self._plans[id(replay)] = Plan(replay, self)
                meta = plan.loss()[1]
                if self.losses is None and meta.numel == 1:
                    self._hold(meta.dtype)
                if plan.reason is not None:
                    self.reason = plan.reason
                elif meta.numel == 1 and meta.dtype.numpy == self.losses.dtype:
                    found.append(plan)
        return found

    def _writes_input(self, replay: Replay) -> bool:
        """Whether a batch read where it lies could be changed by the step, which must not show in the arrays."""
        owners = replay.capture.by_storage
        if any([owners.get(storage, ("",))[0] == "argument" for storage in replay.written]):
            return True
        return any([x.overlaps(storage) for x in self.inputs for storage in replay.written])


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
