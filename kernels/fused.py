"""Fused loops: the source of one kernel that computes a whole group of elementwise operations, and the sums that end it.

What a loop of tier 1 (`loops.py`) does with a record an operation, a fused kernel does with a line an operation; values that
only the loop needs never leave registers. The text of each line is that of the operation's own kernel, rounded as it is, and
sums go through the same blocks in the same order, so the bits are the same.

Record: [kernel, n, 0, 0, 0, pointers, start, 0]: elements start to start + n of everything that `pointers` tells the address of,
in the order operands (three words for a loaded one: block, source, table), results, sums.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .copy import LOAD
from .elementwise import TRIGONOMETRY, TYPES, pointer
from .loops import BLOCK
from .reduce import LANES, block_of, wide

SMALL = 64  # loops up to this length have it as a constant
NAMES = "abcd"


@dataclass(frozen=True)
class Operand:
    """What a loop reads: `steps` is () for one number, (1,) for elements side by side, (row, column) for the element steps of
    a matrix of `Loop.columns` columns, or None for what is loaded into a block first. `memory` numbers distinct memory."""

    dtype: str
    steps: tuple[int, ...] | None
    memory: int


@dataclass(frozen=True)
class Step:
    """One operation: its expression over `a, b, c, d`, what these are (numbers of operands, or of earlier steps as ~number), and
    its dtype; `result`: the memory that its value is written to, or -1."""

    expression: str
    reads: tuple[int, ...]
    dtype: str
    result: int = -1


@dataclass(frozen=True)
class Sum:
    """The sum of a step's values (or of an operand's); `whole`: it is complete after one block, else blocks' sums are stored."""

    of: int
    dtype: str
    whole: bool


@dataclass(frozen=True)
class Loop:
    """A loop over n elements (`n` is 0 where the length is read from the record)."""

    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    sums: tuple[Sum, ...]
    memories: int
    n: int = 0
    columns: int = 0


def _name(number: int) -> str:
    return f"t{~number}" if number < 0 else f"x{number}"


class _Text:
    """The parts of a kernel's source."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.lines: list[str] = []
        self.trigonometry = any(TRIGONOMETRY.search(s.expression) for s in loop.steps)

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def head(self) -> None:
        """Pointers, and numbers that hold for the whole loop."""
        loop, word = self.loop, 0
        self.add(1, "p = int64_at(record[5])")
        self.add(1, f"n, start = {loop.n or 'record[1]'}, record[6]")
        for k, operand in enumerate(loop.operands):
            self.add(1, f"x{k}_at = {pointer(operand.dtype)}(p[{word}])")
            if operand.steps is None:
                self.add(
                    1, f"x{k}_source, x{k}_table = {pointer(operand.dtype)}(p[{word + 1}]), int64_at(p[{word + 2}])"
                )
                word += 2
            word += 1
            if operand.steps == ():
                self.add(1, f"x{k} = {self._read(k, 'uintp(0)')}")
        for k, step in enumerate(loop.steps):
            if step.result >= 0:
                self.add(1, f"t{k}_at = {pointer(step.dtype)}(p[{word}])")
                word += 1
        for k, part in enumerate(loop.sums):
            self.add(1, f"sum{k}_at = {pointer(part.dtype)}(p[{word}])")
            self.add(1, f"sum{k}_block = {TYPES[part.dtype][1]}_block({loop.n or BLOCK})")
            word += 1

    def _read(self, k: int, index: str) -> str:
        operand = self.loop.operands[k]
        text = f"read(x{k}_at, {index}, {operand.memory}, {self.loop.memories})"
        return f"({text} != 0)" if operand.dtype == "b1" else text

    def of_row(self, depth: int, row: str) -> None:
        """Operands that have one value in a row of the matrix."""
        for k, operand in enumerate(self.loop.operands):
            if operand.steps is not None and len(operand.steps) == 2 and operand.steps[1] == 0:
                self.add(depth, f"x{k} = {self._read(k, f'uintp(({row}) * {operand.steps[0]})')}")

    def element(self, depth: int, at: str, here: str, row: str, column: str, quick: bool) -> None:
        """One element: index `at` in all, `here` in the block, at a row and a column of the matrix."""
        loop = self.loop
        for k, operand in enumerate(loop.operands):
            if operand.steps == (1,):
                self.add(depth, f"x{k} = {self._read(k, at)}")
            elif operand.steps is None:
                self.add(depth, f"x{k} = {self._read(k, here)}")
            elif len(operand.steps) == 2 and operand.steps[1]:
                far = f"uintp(({row}) * {operand.steps[0]}) + {column}" if operand.steps[0] else column
                self.add(depth, f"x{k} = {self._read(k, far)}")
        for k, step in enumerate(loop.steps):
            names = dict(zip(NAMES, step.reads, strict=False))
            text = re.sub(r"\b[abcd]\b", lambda found: _name(names[found.group()]), step.expression)
            if quick:
                for argument, kind in {(m[3], m[2].upper()) for m in TRIGONOMETRY.finditer(text)}:
                    self.add(depth, f"large |= uint8(abs({argument}) > vmath.TRIG_LIMIT_{kind})")
                text = TRIGONOMETRY.sub(r"vmath.\1_\2(\3)", text)
            if step.dtype == "b1":
                self.add(depth, f"t{k} = ({text}) != 0")
            else:
                self.add(depth, f"t{k} = {TYPES[step.dtype][1]}({text})")
            if step.result >= 0:
                value = f"uint8(t{k})" if step.dtype == "b1" else f"t{k}"
                self.add(depth, f"write(t{k}_at, {at}, {value}, {step.result}, {loop.memories})")
        for k, part in enumerate(loop.sums):
            self.add(depth, f"sum{k}_block[{here}] = {_name(part.of)}")

    def elements(self, depth: int, quick: bool) -> None:
        """All elements of a block: `size` of them from `base` on."""
        columns = self.loop.columns
        if not columns:
            self.add(depth, "for i in range(uintp(size)):")
            self.element(depth + 1, "uintp(base) + i", "i", "", "", quick)
            return
        self.add(
            depth, "done = 0", f"row, column = base // {columns}, base % {columns}", "while done < size:",
            f"    count = min({columns} - column, size - done)",
        )  # fmt: skip
        self.of_row(depth + 1, "row")
        self.add(depth + 1, "for i in range(uintp(count)):")
        self.element(depth + 2, "uintp(base + done) + i", "uintp(done) + i", "row", "(uintp(column) + i)", quick)
        self.add(depth + 1, "done += count", "column = 0", "row += 1")

    def matrix(self, depth: int, quick: bool) -> None:
        """All elements of a small matrix, whose sizes are constants."""
        columns = self.loop.columns
        self.add(depth, f"for row in range(uintp({self.loop.n // columns})):")
        self.of_row(depth + 1, "row")
        self.add(depth + 1, f"for column in range(uintp({columns})):")
        at = f"row * uintp({columns}) + column"
        self.element(depth + 2, at, at, "row", "column", quick)

    def twice(self, depth: int, write: str) -> None:
        """The elements; where an argument of a trigonometric function turns out to be huge, once more the careful way."""
        emit = getattr(self, write)
        if not self.trigonometry:
            emit(depth, False)
            return
        self.add(depth, "large = uint8(0)")
        emit(depth, True)
        self.add(depth, "if large != 0:")
        emit(depth + 1, False)

    def add_up(self, depth: int) -> None:
        """The sums of a block."""
        for k, part in enumerate(self.loop.sums):
            kind = TYPES[part.dtype][1]
            self.lines += block_of(f"sum{k}_block", "0", kind, "    " * depth).splitlines()
            if part.whole:
                self.add(depth, f"sum{k}_at[0] = {kind}({wide(part.dtype)}(0) + total)")
            else:
                self.add(depth, f"sum{k}_at[base // {BLOCK}] = total")

    def loads(self, depth: int) -> None:
        for k, operand in enumerate(self.loop.operands):
            if operand.steps is None:
                self.add(depth, f"load(x{k}_at, x{k}_source, x{k}_table, base, size)")

    def body(self) -> None:
        loop = self.loop
        loaded = any(x.steps is None for x in loop.operands)
        if loop.n:
            self.add(1, f"base, size = 0, {loop.n}")
            self.loads(1)
            self.twice(1, "matrix" if loop.columns else "elements")
            self.add_up(1)
        elif loaded or self.trigonometry or loop.sums or loop.columns:
            self.add(1, "base, last = start, start + n", "while base < last:", f"    size = min({BLOCK}, last - base)")
            self.loads(2)
            self.twice(2, "elements")
            self.add_up(2)
            self.add(2, "base += size")
        else:
            self.add(1, "base, size = start, n")
            self.elements(1, False)


_HEAD = """
from numba import float32, float64, int32, int64, njit, uint8, uintp
from fastgrad.kernels import {modules}
from fastgrad.kernels.native import float32_at, float64_at, int32_at, int64_at, uint8_at, read, write
from fastgrad.kernels.native import float32_block, float64_block, int32_block, int64_block, uint8_block
{load}
LANES = {lanes}

def kernel(record):
"""


def source(loop: Loop) -> str:
    """The text of the kernel of a loop."""
    text = _Text(loop)
    text.head()
    text.body()
    body = "\n".join(text.lines)
    modules = ", ".join([m for m in ("division", "native", "vmath") if m == "native" or f"{m}." in body])
    load = LOAD if any(x.steps is None for x in loop.operands) else ""
    return _HEAD.format(modules=modules, load=load, lanes=LANES) + body + "\n"
