"""The plan of a fused loop over rows: its description, its stages, and what passes from stage to stage (`rows.py` writes the text)."""

from __future__ import annotations

from dataclasses import dataclass, field

from .elementwise import TRIGONOMETRY
from .fused import Operand, Step, Sum, filled
from .loops import BLOCK

CHUNK = 512  # elements that pass from stage to stage at a time, if they are several rows
LONG = 64  # rows from this length on are loops of their own
ELEMENTS, ROWS, FOLDS = "elements", "rows", "folds"


@dataclass(frozen=True)
class ColumnSum:
    """The sum of all rows of a step's values: memory number `partials` gets one row for each group of rows; they are added up into
    `result` unless that is -1."""

    of: int
    dtype: str
    partials: int
    result: int


@dataclass(frozen=True)
class Rows:
    """A loop over rows of `columns` elements (`rows` is 0 where their number is read from the record). `sums` are over all elements,
    which are at most a block, `closing` over all rows' values of a step that is written to memory."""

    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    sums: tuple[Sum, ...]
    closing: tuple[Sum, ...]
    down: tuple[ColumnSum, ...]
    memories: int
    columns: int
    rows: int = 0


@dataclass
class Stage:
    """Steps of one kind, with one elementary function at most (see `fused`)."""

    kind: str
    steps: list[int] = field(default_factory=list)
    function: str | None = None


def _kind(step: Step) -> str:
    return FOLDS if step.fold else ELEMENTS if step.wide else ROWS


def stages(rows: Rows) -> list[Stage]:
    """The steps in stages: each in the first one that has what it reads behind it."""
    found: list[Stage] = []
    stage_of: list[int] = []
    read_in: dict[int, int] = {}  # memory -> the last stage that reads it
    for number, step in enumerate(rows.steps):
        kind, first = _kind(step), 0
        for x in step.reads:
            if x < 0:
                at = stage_of[~x]
                first = max(first, at if kind == found[at].kind != FOLDS else at + 1)
        if step.result >= 0:
            first = max(first, read_in.get(step.result, 0))
        function = None
        if "vmath." in step.expression:
            text = filled(step)
            angle = TRIGONOMETRY.search(text)
            function = text if angle is None else f"angle {angle[3]}"
        while first < len(found):
            stage = found[first]
            alike = function is None or stage.function is None or (stage.function == function and "angle" in function)
            if stage.kind == kind and alike:
                break
            first += 1
        else:
            found.append(Stage(kind))
        found[first].steps.append(number)
        found[first].function = found[first].function or function
        stage_of.append(first)
        for x in step.reads:
            if x >= 0:
                memory = rows.operands[x].memory
                read_in[memory] = max(read_in.get(memory, 0), first)
    return found


class Layout:
    """The stages of a kernel, and the blocks of memory in which values pass from one to the next."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.stages = stages(rows)
        self.stage_of = {k: number for number, stage in enumerate(self.stages) for k in stage.steps}
        self.chunk = rows.rows or max(1, CHUNK // rows.columns)
        self.long = rows.columns >= LONG
        self.allocated: list[tuple[str, int]] = []  # (dtype, elements) of the blocks
        self.blocks: dict[str, int] = {}  # name of a value -> its block
        self.spread: dict[int, set[int]] = {}  # stage -> what is repeated (or copied) for the elements before it
        self._place_blocks()

    # ---- what lies where

    def _place_blocks(self) -> None:
        rows = self.rows
        last: dict[str, int] = {}
        begin: dict[str, int] = {}
        size: dict[str, tuple[str, int]] = {}
        for number, stage in enumerate(self.stages):
            for k in stage.steps:
                for x in rows.steps[k].reads:
                    name, here = self._block_name(x, number)
                    if not name:
                        continue
                    if name not in begin:
                        begin[name] = self.stage_of[~x] if x < 0 and name[0] == "t" else number
                        if name[0] == "w":
                            self.spread.setdefault(number, set()).add(x)
                    last[name] = max(last.get(name, 0), number)
                    size[name] = here
                    if name[0] == "w" and x < 0 and rows.steps[~x].result < 0:
                        # the row's value is read until it is repeated
                        own = f"t{~x}"
                        begin[own], size[own] = self.stage_of[~x], (rows.steps[~x].dtype, self.chunk)
                        last[own] = max(last.get(own, 0), begin[name])
        for total in rows.sums:
            if total.of < 0 and rows.steps[~total.of].result < 0:
                name, step = f"s{~total.of}", rows.steps[~total.of]
                begin[name], last[name] = 0, len(self.stages)
                size[name] = (step.dtype, BLOCK if not rows.rows else rows.rows * rows.columns)
        for column in rows.down:
            step = rows.steps[~column.of]
            if step.result < 0:
                name, last[f"t{~column.of}"] = f"t{~column.of}", len(self.stages)
                begin[name], size[name] = self.stage_of[~column.of], (step.dtype, self.chunk * rows.columns)
        free: list[tuple[int, int]] = []  # (stage from which on it is free, block)
        for name in sorted(begin, key=lambda name: (begin[name], name)):
            for i, (since, block) in enumerate(free):
                if since < begin[name] and self.allocated[block] == size[name]:
                    del free[i]
                    break
            else:
                block = len(self.allocated)
                self.allocated.append(size[name])
            self.blocks[name] = block
            if not self.keeps(name):
                free.append((last[name], block))

    def keeps(self, name: str) -> bool:
        """Whether a block is filled once for all rows."""
        return name[0] == "s" or (
            name[0] == "w" and name[1] == "x" and self.rows.operands[int(name[2:])].steps == (0, 1)
        )

    def _block_name(self, x: int, stage: int) -> tuple[str, tuple[str, int]]:
        """The block in which a stage finds what it reads ("" if it is elsewhere), its dtype and size. t: a step's values, w: what is
        repeated for the elements."""
        rows, kind = self.rows, self.stages[stage].kind
        elements = self.chunk * rows.columns
        if x >= 0:
            operand = rows.operands[x]
            copied = operand.wide and operand.steps is not None and len(operand.steps) == 2 and not self.long
            return (f"wx{x}", (operand.dtype, elements)) if copied else ("", ("", 0))
        step = rows.steps[~x]
        if kind == ELEMENTS and not step.wide and not self.long:
            return f"wt{~x}", (step.dtype, elements)
        if self.stage_of[~x] == stage or step.result >= 0:
            return "", ("", 0)
        return f"t{~x}", (step.dtype, elements if step.wide else self.chunk)

    def block(self, name: str) -> str:
        return f"block{self.blocks[name]}"
