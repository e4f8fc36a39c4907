"""Fused loops: the source of one kernel that computes a whole group of elementwise operations, and the sums that end it.

What a loop of tier 1 (`loops.py`) does with a record an operation, a fused kernel does with a line an operation; values that
only the loop needs never leave registers. The text of each line is that of the operation's own kernel, rounded as it is, and
sums go through the same blocks in the same order, so the bits are the same.

Record: [kernel, n, 0, 0, 0, pointers, start, 0]: elements start to start + n of everything that `pointers` tells the address of,
in the order operands (three words for a loaded one: block, source, table), results, sums.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .copy import LOAD
from .elementwise import TRIGONOMETRY, TYPES, pointer
from .loops import BLOCK
from .reduce import block_of, wide

SMALL = 64  # loops up to this length have it as a constant
CHUNK = 256  # elements that pass from part to part at a time
NAMES = "abcd"


@dataclass(frozen=True)
class Operand:
    """What a loop reads: `steps` is () for one number, (1,) for elements side by side, (row, column) for the element steps of
    a matrix of `Loop.columns` columns, or None for what is loaded into a block first. `memory` numbers distinct memory. `wide`: a
    loop over rows reads it for each element of a row."""

    dtype: str
    steps: tuple[int, ...] | None
    memory: int
    wide: bool = False


@dataclass(frozen=True)
class Step:
    """One operation: its expression over `a, b, c, d`, what these are (numbers of operands, or of earlier steps as ~number), and
    its dtype; `result`: the memory that its value is written to, or -1. In a loop over rows it is `wide` (computed for each
    element of a row) or computed once a row; a `fold` of that name reduces the elements of the row."""

    expression: str
    reads: tuple[int, ...]
    dtype: str
    result: int = -1
    wide: bool = False
    fold: str = ""


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


def name_of(number: int) -> str:
    return f"t{~number}" if number < 0 else f"x{number}"


class _Text:
    """The parts of a kernel's source.

    The steps run in parts, one after another over a chunk of elements that stays in the L1 cache: every part has one elementary
    function at most (or the sine and cosine of one value), because a loop with several of them has too many constants for the
    registers and the widest of their types for all. What passes from part to part lies in blocks on the stack.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.lines: list[str] = []
        self.parts = [list(range(len(loop.steps)))] if loop.n == 1 else _parts(loop)
        part_of = {k: number for number, part in enumerate(self.parts) for k in part}
        self.crossing: set[int] = (
            set()
        )  # steps whose value a later part reads, and which is not written to memory anyway
        self.stored: set[int] = set()  # steps that a later part reads from the memory of their result
        for k, step in enumerate(loop.steps):
            for x in step.reads:
                if x < 0 and part_of[~x] != part_of[k]:
                    (self.crossing if loop.steps[~x].result < 0 else self.stored).add(~x)
        self.chunk = loop.n or (CHUNK if len(self.parts) > 1 else BLOCK)

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
                self.add(1, f"t{k}_at = {result_pointer(loop.operands, step, word)}")
                word += 1
            elif k in self.crossing:
                self.add(1, f"t{k}_block = {pointer(step.dtype)[:-3]}_block({self.chunk})")
        for k, part in enumerate(loop.sums):
            self.add(1, f"sum{k}_at = {pointer(part.dtype)}(p[{word}])")
            if not self._in_memory(part.of):
                self.add(1, f"sum{k}_block = {TYPES[part.dtype][1]}_block({loop.n or BLOCK})")
            word += 1

    def _in_memory(self, of: int) -> bool:
        """Whether a summed value lies side by side in memory anyway."""
        return self.loop.operands[of].steps == (1,) if of >= 0 else self.loop.steps[~of].result >= 0

    def _read(self, k: int, index: str) -> str:
        operand = self.loop.operands[k]
        text = f"read(x{k}_at, {index}, {operand.memory}, {self.loop.memories})"
        return f"({text} != 0)" if operand.dtype == "b1" else text

    def _wanted(self, part: int) -> set[int]:
        """The operands and earlier steps (~number) that a part reads."""
        inside = set(self.parts[part])
        wanted = {x for k in inside for x in self.loop.steps[k].reads if x >= 0 or ~x not in inside}
        if part == len(self.parts) - 1:
            wanted |= {t.of for t in self.loop.sums if t.of >= 0 and not self._in_memory(t.of)}
        return wanted

    def of_row(self, depth: int, row: str, part: int) -> None:
        """Operands that have one value in a row of the matrix."""
        for k in sorted(self._wanted(part)):
            steps = self.loop.operands[k].steps if k >= 0 else None
            if steps is not None and len(steps) == 2 and steps[1] == 0:
                self.add(depth, f"x{k} = {self._read(k, f'uintp(({row}) * {steps[0]})')}")

    def element(
        self, depth: int, at: str, here: str, inner: str, row: str, column: str, part: int, quick: bool
    ) -> None:
        """One element of a part: index `at` in all, `here` in the block, `inner` in the chunk, at a row and a column of the
        matrix."""
        loop = self.loop
        for k in sorted(self._wanted(part)):
            if k < 0:
                step = loop.steps[~k]
                text = (
                    f"t{~k}_block[{inner}]"
                    if ~k in self.crossing
                    else f"read(t{~k}_at, {at}, {step.result}, {loop.memories})"
                )
                self.add(depth, f"t{~k} = {text} != 0" if step.dtype == "b1" else f"t{~k} = {text}")
                continue
            operand = loop.operands[k]
            if operand.steps == (1,):
                self.add(depth, f"x{k} = {self._read(k, at)}")
            elif operand.steps is None:
                self.add(depth, f"x{k} = {self._read(k, here)}")
            elif len(operand.steps) == 2 and operand.steps[1]:
                far = f"uintp(({row}) * {operand.steps[0]}) + {column}" if operand.steps[0] else column
                self.add(depth, f"x{k} = {self._read(k, far)}")
        for k in self.parts[part]:
            step = loop.steps[k]
            text = filled(step)
            if quick:
                for argument, kind in sorted({(m[3], m[2].upper()) for m in TRIGONOMETRY.finditer(text)}):
                    self.add(depth, f"large |= uint8(abs({argument}) > vmath.TRIG_LIMIT_{kind})")
                text = TRIGONOMETRY.sub(r"vmath.\1_\2(\3)", text)
            if step.dtype == "b1":
                self.add(depth, f"t{k} = ({text}) != 0")
            else:
                self.add(depth, f"t{k} = {TYPES[step.dtype][1]}({text})")
            value = f"uint8(t{k})" if step.dtype == "b1" else f"t{k}"
            if step.result >= 0:
                self.add(depth, f"write(t{k}_at, {at}, {value}, {step.result}, {loop.memories})")
            elif k in self.crossing:
                self.add(depth, f"t{k}_block[{inner}] = {value}")
        for k, total in enumerate(loop.sums):
            here_now = ~total.of in self.parts[part] if total.of < 0 else part == len(self.parts) - 1
            if here_now and not self._in_memory(total.of):
                self.add(depth, f"sum{k}_block[{here}] = {name_of(total.of)}")

    def elements(self, depth: int, part: int, quick: bool) -> None:
        """The elements of a chunk: `count` of them from `first` on."""
        columns = self.loop.columns
        here = "uintp(first - base) + i"
        if not columns:
            self.add(depth, "for i in range(uintp(count)):")
            self.element(depth + 1, "uintp(first) + i", here, "i", "", "", part, quick)
            return
        self.add(
            depth, "done = 0", f"row, column = first // {columns}, first % {columns}", "while done < count:",
            f"    length = min({columns} - column, count - done)",
        )  # fmt: skip
        self.of_row(depth + 1, "row", part)
        self.add(depth + 1, "for i in range(uintp(length)):")
        inner = "uintp(done) + i"
        self.element(
            depth + 2, f"uintp(first) + {inner}", f"uintp(first - base) + {inner}", inner, "row", "(uintp(column) + i)",
            part, quick,
        )  # fmt: skip
        self.add(depth + 1, "done += length", "column = 0", "row += 1")

    def matrix(self, depth: int, part: int, quick: bool) -> None:
        """All elements of a small matrix, whose sizes are constants."""
        columns = self.loop.columns
        self.add(depth, f"for row in range(uintp({self.loop.n // columns})):")
        self.of_row(depth + 1, "row", part)
        self.add(depth + 1, f"for column in range(uintp({columns})):")
        at = f"row * uintp({columns}) + column"
        self.element(depth + 2, at, at, at, "row", "column", part, quick)

    def all_parts(self, depth: int, write: str) -> None:
        """A chunk; where an argument of a trigonometric function turns out to be huge, a part runs again the careful way."""
        emit = getattr(self, write)
        for part, steps in enumerate(self.parts):
            if any(TRIGONOMETRY.search(filled(self.loop.steps[k])) for k in steps):
                self.add(depth, "large = uint8(0)")
                emit(depth, part, True)
                self.add(depth, "if large != 0:")
                emit(depth + 1, part, False)
            else:
                emit(depth, part, False)

    def add_up(self, depth: int) -> None:
        """The sums of a block."""
        for k, part in enumerate(self.loop.sums):
            kind = TYPES[part.dtype][1]
            source, base = f"sum{k}_block", "0"
            if self._in_memory(part.of):
                source, base = f"{name_of(part.of)}_at", "base"
            self.lines += block_of(source, base, kind, "    " * depth).splitlines()
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
            self.add(1, f"base, size, first, count = 0, {loop.n}, 0, {loop.n}")
            self.loads(1)
            self.all_parts(1, "matrix" if loop.columns else "elements")
            self.add_up(1)
            return
        if not (loaded or loop.sums or loop.columns or len(self.parts) > 1 or "_full_" in str(loop.steps)):
            self.add(1, "base, first, count = start, start, n")
            self.all_parts(1, "elements")
            return
        self.add(1, "base, last = start, start + n", "while base < last:", f"    size = min({BLOCK}, last - base)")
        self.loads(2)
        if self.chunk < BLOCK:
            self.add(2, "first = base", "while first < base + size:", f"    count = min({CHUNK}, base + size - first)")
            self.all_parts(3, "elements")
            self.add(3, "first += count")
        else:
            self.add(2, "first, count = base, size")
            self.all_parts(2, "elements")
        self.add_up(2)
        self.add(2, "base += size")


def filled(step: Step) -> str:
    """A step's expression with the names of what it reads."""
    names = {letter: name_of(x) for letter, x in zip(NAMES, step.reads, strict=False)}
    return re.sub(r"\b[abcd]\b", lambda found: names[found.group()], step.expression)


def result_pointer(operands: tuple[Operand, ...], step: Step, word: int) -> str:
    """The pointer of a result: that of the operand it overwrites, so that LLVM sees that no element depends on another."""
    for k, operand in enumerate(operands):
        if operand.memory == step.result and operand.steps == (1,) and operand.dtype == step.dtype:
            return f"x{k}_at"
    return f"{pointer(step.dtype)}(p[{word}])"


def _parts(loop: Loop) -> list[list[int]]:
    """The steps in parts with one elementary function each: a step stands in the first part that may have it."""
    part_of: list[int] = []
    read_in: dict[
        int, int
    ] = {}  # memory -> the last part that reads it, which a part that overwrites it must not precede
    functions: list[str | None] = [None]  # for each part, its function: text for the trigonometry of one value
    for step in loop.steps:
        part = max([part_of[~x] for x in step.reads if x < 0], default=0)
        part = max(part, read_in.get(step.result, 0))
        if "vmath." in step.expression:
            text = filled(step)
            angle = TRIGONOMETRY.search(text)
            name = f"angle {angle[3]}" if angle is not None else text
            while part < len(functions) and functions[part] not in (None, name if angle is not None else None):
                part += 1
            if part == len(functions):
                functions.append(None)
            functions[part] = name
        part_of.append(part)
        for memory in [loop.operands[x].memory for x in step.reads if x >= 0]:
            read_in[memory] = max(read_in.get(memory, 0), part)
    return [[k for k, at in enumerate(part_of) if at == part] for part in range(len(functions))]


_HEAD = """
from numba import float32, float64, int32, int64, njit, uint8, uintp
from fastgrad.kernels import {modules}
from fastgrad.kernels.native import float32_at, float64_at, int32_at, int64_at, uint8_at, read, write
from fastgrad.kernels.native import float32_block, float64_block, int32_block, int64_block, uint8_block
from fastgrad.kernels.lanes import LANES, add_rows, amax_lanes, amin_lanes, prod_lanes, sum_lanes
{functions}

def kernel(record):
"""


def complete(lines: list[str], operands: tuple[Operand, ...], functions: Iterable[str] = ()) -> str:
    """The text of a fused kernel around the lines of its body."""
    body = "\n".join(lines)
    modules = ", ".join([m for m in ("division", "native", "vmath") if m == "native" or f"{m}." in body])
    load = [LOAD] if any(x.steps is None for x in operands) else []
    return _HEAD.format(modules=modules, functions="\n".join([*load, *functions])) + body + "\n"


def source(loop: Loop) -> str:
    """The text of the kernel of a loop."""
    text = _Text(loop)
    text.head()
    text.body()
    return complete(text.lines, loop.operands)
