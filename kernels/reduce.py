"""Reductions over (outer, reduced, inner) contiguous arrays, in one fixed order whatever runs them.

A sum over the last axis is cut into blocks of BLOCK elements; a block is added up in LANES interleaved accumulators that are
combined pairwise; the blocks' sums are added in float64. Other folds over the last axis run in LANES accumulators, too. A sum
with an inner axis adds ROWS rows into a scratch row and the scratch rows in float64. Because the partition is fixed, a
loop that produces a block, a row or some rows at a time (`block_sum`, `row_fold`, `rows_sum`) and adds the partial sums
afterwards (`partial_sum`, `rows_total`) gives the bits of the kernel that runs through (`reduction`).

Records: reduction   [kernel, n, y, a, table, scratch, 0, 0]   table: outer, reduced, inner
         block_sum   [kernel, n, partial, a, 0, 0, 0, 0]
         whole_sum   [kernel, n, y, a, 0, 0, 0, 0]
         partial_sum [kernel, blocks, y, partials, 0, 0, 0, 0]
         row_fold    [kernel, rows, y, a, columns, 0, 0, 0]
         rows_sum    [kernel, rows, partials, a, columns, first row, 0, 0]
         rows_total  [kernel, groups, y, partials, columns, 0, 0, 0]
"""

from .build import build
from .elementwise import TYPES, pointer
from .loops import BLOCK, LANES

ROWS = 128
STREAMS = 8  # rows that are read at a time

_HEAD = """
from numba import float32, float64, int32, int64, njit, uint8, uintp
from fastgrad.kernels.lanes import LANES, add_rows, amax_lanes, amin_lanes, prod_lanes, sum_lanes
from fastgrad.kernels.native import float32_at, float64_at, int32_at, int64_at, uint8_at
"""


def block_of(pointer_name: str, base: str, kind: str, indent: str) -> str:
    """Source that adds `size` elements of a pointer from `base` on and leaves the sum in `total`."""
    lines = [
        f"at, end = uintp({base}), uintp({base}) + uintp(size)",
        f"total = {kind}(0)",
        "if size >= LANES:",
        f"    total = {kind}({kind}(0) + sum_lanes({pointer_name}, at, uintp(size)))",
        "    at += uintp(size // LANES * LANES)",
        f"tail = {kind}(0)",
        "while at < end:",
        f"    tail += {pointer_name}[at]",
        "    at += uintp(1)",
        "total = total + tail",
    ]
    return "\n".join(indent + line for line in lines)


def _accumulator(dtype: str) -> str:
    return TYPES[dtype][1]


def block_sum(dtype: str) -> int:
    """The kernel that adds one block."""
    kind = _accumulator(dtype)
    source = f"""{_HEAD}
def kernel(record):
    size, y, a = record[1], {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3])
{block_of("a", "0", kind, "    ")}
    y[0] = total
"""
    return build(source)


def wide(dtype: str) -> str:
    """The type in which the sums of blocks are added."""
    return "float64" if dtype in ("f4", "f8") else _accumulator(dtype)


def whole_sum(dtype: str) -> int:
    """The kernel that adds up to BLOCK elements to the complete sum."""
    kind = _accumulator(dtype)
    source = f"""{_HEAD}
def kernel(record):
    size, y, a = record[1], {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3])
{block_of("a", "0", kind, "    ")}
    y[0] = {kind}({wide(dtype)}(0) + total)
"""
    return build(source)


def partial_sum(dtype: str) -> int:
    """The kernel that adds the sums of blocks."""
    source = f"""{_HEAD}
def kernel(record):
    y, partials = {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3])
    result = {wide(dtype)}(0)
    for i in range(record[1]):
        result += partials[i]
    y[0] = {_accumulator(dtype)}(result)
"""
    return build(source)


def fold_function(name: str, dtype: str, columns: int = 0) -> str:
    """Source of `<name>_<dtype>(a, base, columns)`: the fold (sum, prod, amax, amin) of `columns` elements from `base` on.

    `columns` as an argument here is the number if it is known, which then stands in the text (and in the name).
    """
    kind = _accumulator(dtype)
    size = str(columns) if columns else "columns"
    lines = ["@njit", f"def {fold_name(name, dtype, columns)}(a, base, columns):"]
    if name == "sum" and columns and columns < LANES:  # one block without a full set of lanes is its tail
        lines += [f"    tail = {kind}(0)", f"    for i in range(uintp({size})):", "        tail += a[uintp(base) + i]"]
        lines += [f"    return {kind}({wide(dtype)}(0) + tail)"]
    elif name == "sum":
        lines += [f"    result = {wide(dtype)}(0)", "    done = 0", f"    while done < {size}:"]
        lines += [f"        size = min({BLOCK}, {size} - done)"]
        lines += block_of("a", "base + done", kind, " " * 8).splitlines()
        lines += ["        result += total", "        done += size", f"    return {kind}(result)"]
    else:
        lines += _lanes(name, kind, size, columns)
    return "\n".join(lines) + "\n"


def fold_name(name: str, dtype: str, columns: int = 0) -> str:
    """What `fold_function` calls its function."""
    return f"{name}_{dtype}_{columns or 'n'}"


# How a running value takes in the next element x, by name; NaN wins in max and min, as in PyTorch.
_FOLDS = {
    "prod": "value * x",
    "amax": "x if (x > value) | (x != x) else value",
    "amin": "x if (x < value) | (x != x) else value",
}


def _lanes(name: str, kind: str, size: str, columns: int) -> list[str]:
    """The body of a fold that is no sum: LANES accumulators, then the elements that are left."""
    lines = ["    at, end = uintp(base), uintp(base) + uintp(" + size + ")"]
    lines += [f"    value = {kind}(1)" if name == "prod" else f"    value = {kind}(a[at])"]
    if not columns or columns >= LANES:
        lines += [f"    if {size} >= LANES:", f"        value = {name}_lanes(a, at, uintp({size}))"]
        lines += [f"        at += uintp({size} // LANES * LANES)"]
    lines += ["    while at < end:", "        x = a[at]", f"        value = {kind}({_FOLDS[name]})"]
    return [*lines, "        at += uintp(1)", "    return value"]


def row_fold(name: str, dtype: str) -> int:
    """The kernel that folds every row."""
    source = f"""{_HEAD}
{fold_function(name, dtype)}
def kernel(record):
    y, a, columns = {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3]), record[4]
    for r in range(record[1]):
        y[r] = {fold_name(name, dtype)}(a, r * columns, columns)
"""
    return build(source)


def add_groups(indent: str, partials: str, a: str, base: str, count: str, columns: str) -> str:
    """Source that adds `count` rows from number `first` on, which lie from `base` on, to the sums of their groups."""
    lines = [
        "done = 0",
        f"while done < {count}:",
        f"    size = min({ROWS} - (first + done) % {ROWS}, {count} - done)",
        f"    at = uintp((first + done) // {ROWS}) * uintp({columns})",
        f"    here = uintp({base}) + uintp(done) * uintp({columns})",
        f"    add_rows({partials}, at, {a}, here, uintp(size), uintp({columns}), (first + done) % {ROWS} == 0)",
        "    done += size",
    ]
    return "\n".join(indent + line for line in lines)


def rows_sum(dtype: str) -> int:
    """The kernel that adds some rows to the sums of the groups of ROWS rows that they belong to."""
    source = f"""{_HEAD}
def kernel(record):
    partials, a, columns, first = {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3]), uintp(record[4]), record[5]
{add_groups("    ", "partials", "a", "0", "record[1]", "columns")}
"""
    return build(source)


def rows_total(dtype: str) -> int:
    """The kernel that adds the sums of groups of rows."""
    source = f"""{_HEAD}
def kernel(record):
    y, partials, columns = {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3]), uintp(record[4])
    for i in range(columns):
        total = {wide(dtype)}(0)
        for group in range(uintp(record[1])):
            total += partials[group * columns + i]
        y[i] = {_accumulator(dtype)}(total)
"""
    return build(source)


def sum_scratch(inner: int) -> int:
    """The bytes of scratch of `sum_kernel`: a row of totals and a row of a group's sums; none for an inner axis of 1."""
    return 16 * inner if inner > 1 else 0


def sum_kernel(dtype: str) -> int:
    """The kernel that adds over the middle axis of (outer, reduced, inner)."""
    kind = _accumulator(dtype)
    source = f"""{_HEAD}
{fold_function("sum", dtype)}
def kernel(record):
    y, a, table = {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3]), int64_at(record[4])
    outer, reduced, inner = table[0], table[1], table[2]
    totals, scratch = {pointer("f8" if dtype == "f4" else dtype)}(record[5]), {pointer(dtype)}(record[5] + 8 * inner)
    if inner == 1:
        for o in range(outer):
            y[o] = {fold_name("sum", dtype)}(a, o * reduced, reduced)
        return
    width = uintp(inner)
    for o in range(outer):
        target = uintp(o * inner)
        for i in range(width):
            totals[i] = {wide(dtype)}(0)
        done = 0
        while done < reduced:
            size = min({ROWS}, reduced - done)
            for r in range(0, size, {STREAMS}):
                row = uintp((o * reduced + done + r) * inner)
                add_rows(scratch, uintp(0), a, row, uintp(min({STREAMS}, size - r)), width, r == 0)
            for i in range(width):
                totals[i] += scratch[i]
            done += size
        for i in range(width):
            y[target + i] = {kind}(totals[i])
"""
    return build(source)


def fold_kernel(name: str, dtype: str) -> int:
    """The kernel of prod, amax or amin over the middle axis of (outer, reduced, inner)."""
    kind = _accumulator(dtype)
    first = f"{kind}(1)" if name == "prod" else "a[row + i]"
    start = "0" if name == "prod" else "1"
    source = f"""{_HEAD}
{fold_function(name, dtype)}
def kernel(record):
    y, a, table = {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3]), int64_at(record[4])
    outer, reduced, inner = table[0], table[1], table[2]
    if (inner == 1) & (reduced > 0):
        for o in range(outer):
            y[o] = {fold_name(name, dtype)}(a, o * reduced, reduced)
        return
    width = uintp(inner)
    for o in range(outer):
        target, row = uintp(o * inner), uintp(o * reduced * inner)
        for i in range(width):
            y[target + i] = {first}
        for r in range({start}, reduced):
            row = uintp((o * reduced + r) * inner)
            for i in range(width):
                x, value = a[row + i], y[target + i]
                y[target + i] = {kind}({_FOLDS[name]})
"""
    return build(source)


def arg_kernel(name: str, dtype: str) -> int:
    """The kernel of argmax or argmin over the middle axis: the first extreme, a NaN counting as the extreme."""
    compare = ">" if name == "argmax" else "<"
    source = f"""{_HEAD}
def kernel(record):
    y, a, table = int64_at(record[2]), {pointer(dtype)}(record[3]), int64_at(record[4])
    outer, reduced, inner = table[0], table[1], table[2]
    for o in range(outer):
        for i in range(inner):
            base = o * reduced * inner + i
            best, place = a[base], 0
            for r in range(1, reduced):
                x = a[base + r * inner]
                if (x {compare} best) | ((x != x) & (best == best)):
                    best, place = x, r
            y[o * inner + i] = place
"""
    return build(source)


def cumsum_kernel(dtype: str, backwards: bool) -> int:
    """The kernel of running sums along the middle axis of (outer, reduced, inner), from its front or from its end."""
    kind = _accumulator(dtype)
    source = f"""{_HEAD}
def kernel(record):
    y, a, table = {pointer(dtype)}(record[2]), {pointer(dtype)}(record[3]), int64_at(record[4])
    outer, reduced, inner = table[0], table[1], table[2]
    for o in range(outer):
        for i in range(inner):
            running = {wide(dtype)}(0)
            for r in {"range(reduced - 1, -1, -1)" if backwards else "range(reduced)"}:
                at = (o * reduced + r) * inner + i
                running += a[at]
                y[at] = {kind}(running)
"""
    return build(source)
