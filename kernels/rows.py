"""Fused loops over rows: the source of one kernel for a group of operations over the rows of a matrix, and the elements in them.

The kernel takes some rows at a time and runs through stages: a stage computes steps for all elements, or steps for all rows,
or folds rows. What passes from stage to stage lies in blocks on the stack, in the L1 cache. A row's value that elements read is a
number of its row where rows are long; where they are short it is repeated into a block first, so that one loop runs over all
elements. Lines and folds are those of the operations' own kernels, so the bits are the same.

Record: [kernel, n, 0, 0, 0, pointers, start, 0]: rows start to start + n of everything that `pointers` tells the address of, in
the order operands (three words for a loaded one: block, source, table), results, sums, closing sums, sums of columns (partial
ones, and the result if the kernel makes it from them).
"""

from __future__ import annotations

from .elementwise import TRIGONOMETRY, TYPES, pointer
from .fused import complete, filled, result_pointer
from .reduce import ROWS as ROWS_OF_GROUP
from .reduce import add_groups, fold_function, fold_name, wide
from .stages import ELEMENTS, FOLDS, ColumnSum, Layout, Rows


class _Text(Layout):
    """The parts of a kernel's source."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows)
        self.lines: list[str] = []
        self.functions: dict[str, str] = {}  # name -> source

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def read(self, x: int, index: str) -> str:
        operand = self.rows.operands[x]
        text = f"read(x{x}_at, {index}, {operand.memory}, {self.rows.memories})"
        return f"({text} != 0)" if operand.dtype == "b1" else text

    def head(self) -> None:
        """Pointers, blocks, and what holds for all rows."""
        rows, word = self.rows, 0
        self.add(1, "p = int64_at(record[5])", f"n, start = {rows.rows or 'record[1]'}, record[6]")
        for k, operand in enumerate(rows.operands):
            self.add(1, f"x{k}_at = {pointer(operand.dtype)}(p[{word}])")
            if operand.steps is None:
                at = pointer(operand.dtype)
                self.add(1, f"x{k}_source, x{k}_table = {at}(p[{word + 1}]), int64_at(p[{word + 2}])")
                word += 2
            word += 1
            if operand.steps == ():
                self.add(1, f"x{k} = {self.read(k, 'uintp(0)')}")
        for k, step in enumerate(rows.steps):
            if step.result >= 0:
                self.add(1, f"t{k}_at = {result_pointer(rows.operands, step, word)}")
                word += 1
        for name, sums in (("sum", rows.sums), ("closing", rows.closing)):
            for k, total in enumerate(sums):
                self.add(1, f"{name}{k}_at = {pointer(total.dtype)}(p[{word}])")
                word += 1
        for k, column in enumerate(rows.down):
            for name in ("part", "down")[: 1 + (column.result >= 0)]:
                self.add(1, f"{name}{k}_at = {pointer(column.dtype)}(p[{word}])")
                word += 1
        for number, (dtype, size) in enumerate(self.allocated):
            self.add(1, f"block{number} = {pointer(dtype)[:-3]}_block({size})")
        for name, number in self.blocks.items():
            if name[0] == "w" and self.keeps(name):
                x = int(name[2:])
                self.add(
                    1, f"for i in range(uintp(min({self.chunk}, n))):", f"    for j in range(uintp({rows.columns})):"
                )
                self.add(3, f"block{number}[i * uintp({rows.columns}) + j] = read(x{x}_at, j, "
                         f"{rows.operands[x].memory}, {rows.memories})")  # fmt: skip

    def body(self) -> None:
        rows = self.rows
        if rows.rows:
            self.add(1, f"first, count = 0, {rows.rows}")
            self.chunk_of_rows(1)
        else:
            self.add(
                1, "first, end = start, start + n", "while first < end:", f"    count = min({self.chunk}, end - first)"
            )
            self.chunk_of_rows(2)
            self.add(2, "first += count")
        for k, total in enumerate(rows.sums):
            of = total.of
            source = (
                self.block(f"s{~of}")
                if of < 0 and rows.steps[~of].result < 0
                else f"{'t' if of < 0 else 'x'}{of if of >= 0 else ~of}_at"
            )
            self.add(1, f"sum{k}_at[0] = {self.function('sum', total.dtype)}({source}, 0, n * {rows.columns})")
        for k, total in enumerate(rows.closing):
            self.add(1, f"closing{k}_at[0] = {self.function('sum', total.dtype)}(t{~total.of}_at, 0, n)")
        for k, column in enumerate(rows.down):
            if column.result >= 0:
                self.columns_total(k, column)

    def function(self, fold: str, dtype: str, columns: int = 0) -> str:
        name = fold_name(fold, dtype, columns)
        self.functions[name] = fold_function(fold, dtype, columns)
        return name

    def chunk_of_rows(self, depth: int) -> None:
        """`count` rows from `first` on."""
        rows = self.rows
        self.add(depth, f"base = first * {rows.columns}")
        for k, operand in enumerate(rows.operands):
            if operand.steps is None:
                width = rows.columns if operand.wide else 1
                self.add(depth, f"load(x{k}_at, x{k}_source, x{k}_table, first * {width}, count * {width})")
        for number, stage in enumerate(self.stages):
            for x in sorted(self.spread.get(number, ())):
                self.repeat(depth, x)
            if stage.kind == FOLDS:
                for k in stage.steps:
                    self.fold(depth, k)
                continue
            write = self.row_by_row if stage.kind == ELEMENTS and self.long else self.at_once
            if any(TRIGONOMETRY.search(filled(rows.steps[k])) for k in stage.steps):
                self.add(depth, "large = uint8(0)")
                write(depth, number, True)
                self.add(depth, "if large != 0:")
                write(depth + 1, number, False)
            else:
                write(depth, number, False)

        for k, column in enumerate(rows.down):
            self.add_rows(depth, k, column)

    def add_rows(self, depth: int, k: int, column: ColumnSum) -> None:
        """The chunk's rows, added to the sums of their groups."""
        rows, step = self.rows, self.rows.steps[~column.of]
        source, base = (f"t{~column.of}_at", "base") if step.result >= 0 else (self.block(f"t{~column.of}"), "0")
        text = add_groups("    " * depth, f"part{k}_at", source, base, "count", str(rows.columns))
        self.lines += text.splitlines()

    def columns_total(self, k: int, column: ColumnSum) -> None:
        """The sums of all groups."""
        kind, size, memories = TYPES[column.dtype][1], f"uintp({self.rows.columns})", self.rows.memories
        part = f"read(part{k}_at, i * {size} + j, {column.partials}, {memories})"
        self.add(1, f"for j in range({size}):", f"    total = {wide(column.dtype)}(0)")
        self.add(2, f"for i in range(uintp((n + {ROWS_OF_GROUP - 1}) // {ROWS_OF_GROUP})):", f"    total += {part}")
        self.add(2, f"write(down{k}_at, j, {kind}(total), {column.result}, {memories})")

    def repeat(self, depth: int, x: int) -> None:
        """A row's value for all its elements, or elements at steps of their own side by side."""
        rows, columns = self.rows, self.rows.columns
        if x >= 0 and rows.operands[x].steps == (0, 1):
            return  # done once
        self.add(depth, "for i in range(uintp(count)):")
        target = f"{self.block(f'wx{x}' if x >= 0 else f'wt{~x}')}[i * uintp({columns}) + j]"
        if x < 0:
            self.add(depth + 1, f"value = {self.row_value(x, 'i', False)}")
            source = "value"
        else:
            operand = rows.operands[x]
            assert operand.steps is not None
            row, column = operand.steps
            at = f"uintp((first + int64(i)) * {row})"
            text = f"read(x{x}_at, {at}{' + j' if column else ''}, {operand.memory}, {rows.memories})"
            if column == 0:
                self.add(depth + 1, f"value = {text}")
            source = text if column else "value"
        self.add(depth + 1, f"for j in range(uintp({columns})):", f"    {target} = {source}")

    def row_value(self, x: int, index: str, truth: bool = True) -> str:
        """A row's value (~number) for row `index` of the chunk."""
        step = self.rows.steps[~x]
        if step.result >= 0:
            text = f"read(t{~x}_at, uintp(first) + uintp({index}), {step.result}, {self.rows.memories})"
        else:
            text = f"{self.block(f't{~x}')}[{index}]"
        return f"{text} != 0" if truth and step.dtype == "b1" else text

    def fold(self, depth: int, k: int) -> None:
        """A fold of every row."""
        rows, step = self.rows, self.rows.steps[k]
        x = step.reads[0]
        if x >= 0:
            at = "base" if rows.operands[x].steps == (1,) else "0"
            source = f"x{x}_at"
        else:
            at = "base" if rows.steps[~x].result >= 0 else "0"
            source = f"t{~x}_at" if rows.steps[~x].result >= 0 else self.block(f"t{~x}")
        name = self.function(step.fold, step.dtype, rows.columns)
        value = f"{name}({source}, {at} + int64(i) * {rows.columns}, {rows.columns})"
        self.add(depth, "for i in range(uintp(count)):")
        if step.result >= 0:
            self.add(depth + 1, f"write(t{k}_at, uintp(first) + i, {value}, {step.result}, {rows.memories})")
        else:
            self.add(depth + 1, f"{self.block(f't{k}')}[i] = {value}")

    def at_once(self, depth: int, stage: int, quick: bool) -> None:
        """A stage in one loop over all elements (or all rows) of the chunk."""
        wide = self.stages[stage].kind == ELEMENTS
        count, start = (f"count * {self.rows.columns}", "base") if wide else ("count", "first")
        self.add(depth, f"for i in range(uintp({count})):")
        self.element(depth + 1, stage, f"uintp({start}) + i", "i", quick)

    def row_by_row(self, depth: int, stage: int, quick: bool) -> None:
        """A stage over elements in a loop for each row."""
        rows = self.rows
        self.add(depth, "for row in range(uintp(count)):")
        inside = set(self.stages[stage].steps)
        for x in sorted({x for k in inside for x in rows.steps[k].reads}):
            if x < 0 and not rows.steps[~x].wide:
                self.add(depth + 1, f"t{~x} = {self.row_value(x, 'row')}")
            steps = rows.operands[x].steps if x >= 0 else None
            if steps is not None and len(steps) == 2 and steps[1] == 0:
                self.add(depth + 1, f"x{x} = {self.read(x, f'uintp((first + int64(row)) * {steps[0]})')}")
        self.add(depth + 1, f"here = row * uintp({rows.columns})", "at = uintp(base) + here")
        self.add(depth + 1, f"for j in range(uintp({rows.columns})):")
        self.element(depth + 2, stage, "at + j", "here + j", quick)

    def element(self, depth: int, stage: int, at: str, inner: str, quick: bool) -> None:
        """One element (or row) of a stage: index `at` in all, `inner` in the chunk."""
        rows, inside = self.rows, self.stages[stage].steps
        wide = self.stages[stage].kind == ELEMENTS
        for x in sorted({x for k in inside for x in rows.steps[k].reads if x >= 0 or ~x not in inside}):
            if x < 0:
                self._value(depth, x, stage, at, inner)
                continue
            operand = rows.operands[x]
            if operand.steps == (1,):
                self.add(depth, f"x{x} = {self.read(x, at)}")
            elif operand.steps is None:
                self.add(depth, f"x{x} = {self.read(x, inner)}")
            elif len(operand.steps) == 2 and not self.long:
                text = f"{self.block(f'wx{x}')}[{inner}]"
                self.add(depth, f"x{x} = {text} != 0" if operand.dtype == "b1" else f"x{x} = {text}")
            elif len(operand.steps) == 2 and operand.steps[1]:
                row = f"uintp((first + int64(row)) * {operand.steps[0]}) + j" if operand.steps[0] else "j"
                self.add(depth, f"x{x} = {self.read(x, row)}")
        for k in inside:
            step = rows.steps[k]
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
                self.add(depth, f"write(t{k}_at, {at}, {value}, {step.result}, {rows.memories})")
            elif f"t{k}" in self.blocks:
                self.add(depth, f"{self.block(f't{k}')}[{inner}] = {value}")
            if wide and f"s{k}" in self.blocks:
                self.add(depth, f"{self.block(f's{k}')}[{at}] = {value}")

    def _value(self, depth: int, x: int, stage: int, at: str, inner: str) -> None:
        """An earlier stage's value."""
        step = self.rows.steps[~x]
        if self.stages[stage].kind == ELEMENTS and not step.wide:
            if self.long:
                return  # read before the row's loop
            text = f"{self.block(f'wt{~x}')}[{inner}]"
        elif step.result >= 0:
            text = f"read(t{~x}_at, {at}, {step.result}, {self.rows.memories})"
        else:
            text = f"{self.block(f't{~x}')}[{inner}]"
        self.add(depth, f"t{~x} = {text} != 0" if step.dtype == "b1" else f"t{~x} = {text}")


def source(rows: Rows) -> str:
    """The text of the kernel of a loop over rows."""
    text = _Text(rows)
    text.head()
    text.body()
    return complete(text.lines, rows.operands, text.functions.values())
