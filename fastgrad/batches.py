"""A replay as the driver of `loop` sees it: the tables that `kernels/epochs.py` asks for, and what a run does before and after.

`Plan.begin` does what `Replay.run` does before its sweep, once for a slice of batches, and `end` what it does after, for as many
runs as there were. In between, words of the program that differ from batch to batch are the driver's (`moves`, `counters`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import answers
from . import recording as tape
from .dtypes import from_numpy_dtype
from .execute import new_bytes
from .functions.random import Generator
from .kernels import epochs as kernel
from .plan.program import PIECE
from .recording import statistics
from .tensor import Tensor

if TYPE_CHECKING:
    from .epochs import Epochs
    from .replaying import Replay


class Plan:
    """A replay as the driver sees it."""

    def __init__(self, replay: Replay, run: Epochs) -> None:
        self.replay, self.run = replay, run
        self.program = program = replay.program
        self.reason = self._obstacle()
        self.reads_gradients = bool(replay.from_gradients)
        self.after = [(leaf, False) for leaf in replay.leaves_without] + [(leaf, True) for leaf in replay.leaves_with]
        self.moves: list[tuple[int, int, int]] = []
        self.turns: list[tuple[int, int, int]] = []
        # for each turn: the leaf, if the program reads its gradient; the bases; the number of the result
        self._turning: list[tuple[Any, tuple[int, int, int], int]] = []
        bindings = dict(program._binding_at)
        for i, k, rest in replay.from_arguments:
            if not run.inputs[k].gathers:
                self._move(bindings.get(i, ()), k, rest or 0)
        # A run that may be dropped, or that reads the gradients it replaces, must not write over the last ones.
        if replay.careful:
            outputs = dict(program._output_at)
            read_leaves = {id(leaf) for _, leaf, _ in replay.from_gradients}
            for j, leaf in enumerate(replay.leaves_with, replay.n_outputs):
                read = run.new_bases(3)
                self.turns.append((read, read + 1, read + 2))
                self._turning.append((leaf if id(leaf) in read_leaves else None, self.turns[-1], j))
                self._move(outputs.get(j, ()), read + 1, 0)
                for i, owner, rest in replay.from_gradients:
                    if owner is leaf:
                        self._move(bindings.get(i, ()), read, rest or 0)
        self.numbers = [
            (number, owner, key) for number, (owner, key) in replay.sources if isinstance(owner, Generator) and key != "seed"
        ]  # fmt: skip
        self.writes_input = self._writes_input()
        self.made: list[list[Tensor]] = []
        self.kept: Any = None
        self._row: list[int] = []
        self._tables: list[Any] = []

    def _move(self, uses: Any, base: int, rest: int) -> None:
        self.moves += [(self.program.address + 8 * place, base, offset + rest) for place, offset in uses]

    def _obstacle(self) -> str | None:
        """Why the driver can't run this replay."""
        replay = self.replay
        if replay.program.count > PIECE:
            return ""  # a batch takes so long that a call in Python costs nothing
        if any([meta.requires_grad for meta, _ in replay.results[replay.n_outputs :]]):
            return "the gradients it leaves have a history (create_graph)"
        if replay.handed or replay.before or replay.kin is not None:
            return "the gradients it leaves share memory with each other or with what exists"
        if replay.seeded:
            return "it gives a random generator a seed"
        numbers = {number for number, (owner, key) in replay.sources if isinstance(owner, Generator) and key != "seed"}
        if any([array.dtype != np.int64 for number, _, array in replay.program._cells if number in numbers]):
            return "it does arithmetic with a random generator's counter"
        found = first(replay.template)
        if not isinstance(found, answers.Made) and not (isinstance(found, answers.Found) and found.kind == "tensor"):
            return "its loss is one of its arguments"
        return None

    def _writes_input(self) -> bool:
        """Whether a batch read where it lies could be changed by the step, which must not show in the arrays."""
        owners, written = self.replay.capture.by_storage, self.replay.written
        if any([owners.get(storage, ("",))[0] == "argument" for storage in written]):
            return True
        return any([x.overlaps(storage) for x in self.run.inputs if not x.gathers for storage in written])

    def loss(self) -> tuple[int, Any]:
        """Where a run leaves its loss, and its signature."""
        found = first(self.replay.template)
        if isinstance(found, answers.Made):
            address = self.made[-1][found.number]._storage.address if self.made else 0
            return address, self.replay.results[found.number][0]
        t = found.owner
        t._materialize()
        return t._storage.address + t._offset * t._meta.dtype.itemsize, t._meta

    def begin(self, arena: int) -> None:
        """Bind all that stays as it is during a slice."""
        replay, program, run = self.replay, self.program, self.run
        replay._find_known()
        for i, k, rest in replay.from_arguments:
            replay.addresses[i] = run.buffers[k].address + (rest or 0)
        program.bind_addresses(replay.addresses)
        for number, (owner, key) in replay.sources:
            if type(owner) is dict:
                replay.numbers[number] = float(tape._option(owner, key))
            elif owner == "number":
                replay.numbers[number] = replay.computed[dict(replay.numbers_at)[number]]
            else:
                replay.numbers[number] = owner._seed if key == "seed" else owner._offset
        program.bind_numbers(replay.numbers)
        replay.take_memory(tape.local.trace, replay.written)
        if program.arena_bytes and program.arena != arena:
            program.bind_arena(arena)
        if program.kept_bytes:
            self.kept = new_bytes(program.kept_bytes)
            program.bind_kept(self.kept.address)
        self.made = [replay._hands()]
        if self.turns:
            self.made.append(replay._hands())
            for leaf, (read, written, spare), j in self._turning:
                if leaf is not None:
                    run.bases[read] = leaf._grad._storage.address
                run.bases[written], run.bases[spare] = [m[j]._storage.address for m in self.made]
        if program.hot:
            program.move_up()

    def row(self) -> list[int]:
        """The words of the driver's table."""
        if not self._tables or len(self._tables[-1]) != len(self.run.generators):
            self._row = self._fixed()
        self._row[kernel.LOSS] = self.loss()[0]
        return self._row

    def _fixed(self) -> list[int]:
        """The words that stay as they are while the run knows no other generator; the last table is `advance`."""
        replay, program, run = self.replay, self.program, self.run
        cells: dict[int, list[int]] = {}
        for number, _, array in program._cells:
            cells.setdefault(number, []).append(address_of(array))
        counters, advance = [], [0] * len(run.generators)
        for number, owner, key in self.numbers:
            g = run.generators.index(owner)
            counters += [(cell, g, advance[g]) for cell in cells.get(number, ())]
            advance[g] += key
        guards = []
        for pool, outcome in zip(replay.ready.outputs[len(replay.results) :], replay.guards, strict=True):
            dtype = from_numpy_dtype(pool[-1].array.dtype)
            size = -dtype.itemsize if dtype.is_floating_point else dtype.itemsize
            guards.append((pool[-1].address, size, outcome))
        self._tables = [np.array(x, np.int64) for x in (guards, self.moves, counters, self.turns, advance)]
        at_guards, at_moves, at_counters, at_turns, at_advance = [address_of(x) for x in self._tables]
        error = 0 if program.error_cell is None else address_of(program.error_cell)
        return [
            program.address, program.count, program.split, error, at_guards, len(guards), at_moves, len(self.moves),
            at_counters, len(counters), at_advance, 0, at_turns, len(self.turns), 0, 0,
        ]  # fmt: skip

    def end(self, runs: int) -> None:
        """Leave everything as the last of some runs would have."""
        replay = self.replay
        for i, _, _ in replay.from_arguments:
            replay.addresses[i] = 0
        self.program._bound = ()  # the driver has written words of addresses and cells: the next call writes them anew
        for number, _, _ in self.numbers:
            replay.numbers[number] = None
        if self.turns:
            for j in range(replay.n_outputs, len(replay.places)):
                replay.places[j] = 0
        if runs:
            statistics["runs"] += runs
            for where in replay.written_at:
                if where[0] != "argument":  # what is written to a batch is the driver's own buffer
                    replay._storage_of(where, []).version += runs
            for leaf in replay.leaves_without:
                leaf._grad = None
            for j, leaf in enumerate(replay.leaves_with):
                tensors = [m[replay.n_outputs + j] for m in self.made]
                if self.turns:
                    last = self.run.bases[self.turns[j][0]]
                    leaf._grad = next(t for t in tensors if t._storage.address == last)
                else:
                    leaf._grad = tensors[0]
        self.made, self.kept = [], None


def address_of(array: Any) -> int:
    """Where an array's elements begin."""
    return array.__array_interface__["data"][0]


def first(value: Any) -> Any:
    """The loss in what a step returns."""
    return value[0] if isinstance(value, (tuple, list)) and value else value
