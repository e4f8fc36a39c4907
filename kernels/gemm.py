"""The own matrix product: panels of B packed side by side, tiles of C in registers (`tiles`).

C (m, n) = A (m, k) B (k, n), batched, all steps free, as long as A and B are contiguous in one of their two dimensions. k is cut
into equal parts of at most DEPTH: an element is the sum of the parts, each one chain of fused multiply-adds. So its bits depend
on its row of A, its column of B and k alone: not on layouts, on the cut into blocks, or on threads.

Columns of B are packed in panels as wide as a tile; B in blocks of WIDE columns, so that a block stays in the L2 cache while
rows of A pass, a panel in the L1 cache. A is read where it lies, or packed in strips of ROWS rows where its rows are not contiguous.

Record: [kernel, scratch, c, a, b, table, 0, 0]. Table, int64 words: 0 m, 1 n, 2 k, element steps of row and column of 3, 4 A and
5, 6 B, 7 of C's rows (its columns are contiguous), 8 batches, 9, 10, 11 their steps in A, B, C, 12, 13 whether B and A are packed.
"""

from functools import cache

from .build import build
from .vectors import vector_bytes, width

DEPTH = 512  # of a part of k
WIDE = 512  # columns of a block of B
TALL = 256  # rows of a block of A
ROWS = 8 if vector_bytes() == 64 else 4  # of a tile; its columns are two vectors

_SOURCE = """
from numba import {kind}
from numba import njit as _njit
from numba import uintp
from fastgrad.kernels.native import {at}, int64_at
from fastgrad.kernels.tiles import copied, tile, transposed

njit = _njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
ROWS, LANES, SIZE, DEPTH, WIDE, TALL = {rows}, {lanes}, {size}, {depth}, {wide}, {tall}
PANEL = 2 * LANES
{tiles}
transpose = transposed("{dtype}")
copy_panel, copy_strip = copied("{dtype}", PANEL), copied("{dtype}", ROWS)

@njit
def gather(target, source, row, column, rows, columns, whole):
    # Rows of `whole` elements one behind the other, those from `columns` on zero.
    to, values = {at}(target), {at}(source)
    for i in range(rows):
        for q in range(whole):
            to[i * whole + q] = values[i * row + q * column] if q < columns else {kind}(0)

@njit
def pack_panel(target, b, b_row, b_column, depth, columns):
    # depth rows of PANEL elements
    done = 0
    if columns == PANEL and b_column == 1:
        copy_panel(depth, b, b_row * SIZE, target)
        return
    if columns == PANEL and b_row == 1:
        while done + LANES <= depth:
            for q in range(0, PANEL, LANES):
                transpose(
                    b + (done + q * b_column) * SIZE, b_column * SIZE, target + (done * PANEL + q) * SIZE, PANEL * SIZE
                )
            done += LANES
    gather(target + done * PANEL * SIZE, b + done * b_row * SIZE, b_row, b_column, depth - done, columns, PANEL)

@njit
def pack_strips(target, a, a_row, a_column, rows, depth):
    # Strips of ROWS rows, a column of a strip after the other.
    for i in range(0, rows, ROWS):
        if a_row == 1 and i + ROWS <= rows:
            copy_strip(depth, a, a_column * SIZE, target)
        else:
            gather(target, a, a_column, a_row, depth, rows - i, ROWS)
        a += ROWS * a_row * SIZE
        target += ROWS * depth * SIZE

@njit
def tiles(rows, vectors, k, a, a_row, a_column, b, b_row, c, c_row, add):
    # One tile of C, cut into tiles of as many rows as there is code for.
    while rows > 0:
{choose}
        a += done * a_row
        c += done * c_row
        rows -= done

@njit
def spread(rows, columns, buffer, c, n, add):
    # The tile in the buffer to where it belongs.
    to, source = {at}(c), {at}(buffer)
    for i in range(rows):
        for q in range(columns):
            value = source[i * PANEL + q]
            to[i * n + q] = to[i * n + q] + value if add else value

def kernel(record):
    table = int64_at(record[5])
    m, n, k = table[0], table[1], table[2]
    a_row, a_column, b_row, b_column = table[3], table[4], table[5], table[6]
    buffer = record[1]
    panels = buffer + ROWS * PANEL * SIZE
    strips = panels
    if table[12] or n % PANEL != 0:
        strips = panels + min(k, DEPTH) * ((min(n, WIDE) + PANEL - 1) // PANEL * PANEL) * SIZE
    parts = (k + DEPTH - 1) // DEPTH
    for batch in range(table[8]):
        c = record[2] + batch * table[11] * SIZE
        for part in range(parts):
            start = part * k // parts
            depth = (part + 1) * k // parts - start
            for j0 in range(0, n, WIDE):
                wide = min(WIDE, n - j0)
                b = record[4] + (batch * table[10] + start * b_row + j0 * b_column) * SIZE
                for j in range(0, wide, PANEL):
                    columns = min(PANEL, wide - j)
                    if table[12] or columns < PANEL:
                        pack_panel(panels + j * depth * SIZE, b + j * b_column * SIZE, b_row, b_column, depth, columns)
                for i0 in range(0, m, TALL):
                    tall = min(TALL, m - i0)
                    a = record[3] + (batch * table[9] + i0 * a_row + start * a_column) * SIZE
                    left_row, left_column, left_strip = a_row * SIZE, a_column * SIZE, ROWS * a_row * SIZE
                    if table[13]:
                        pack_strips(strips, a, a_row, a_column, tall, depth)
                        a, left_row, left_column, left_strip = strips, SIZE, ROWS * SIZE, ROWS * depth * SIZE
                    for j in range(0, wide, PANEL):
                        columns = min(PANEL, wide - j)
                        vectors = 2 if columns > LANES else 1
                        right, right_row = b + j * b_column * SIZE, b_row * SIZE
                        if table[12] or columns < PANEL:
                            right, right_row = panels + j * depth * SIZE, PANEL * SIZE
                        straight = columns == vectors * LANES
                        target = c + (i0 * table[7] + j0 + j) * SIZE
                        add = 1 if part > 0 else 0
                        left = a
                        for i in range(0, tall, ROWS):
                            rows = min(ROWS, tall - i)
                            if straight:
                                at, at_row, more = target, table[7] * SIZE, add
                            else:
                                at, at_row, more = buffer, PANEL * SIZE, 0
                            tiles(rows, vectors, depth, left, left_row, left_column, right, right_row, at, at_row, more)
                            if not straight:
                                spread(rows, columns, buffer, target, table[7], add)
                            left += left_strip
                            target += ROWS * table[7] * SIZE
"""


@cache
def _source(dtype: str) -> str:
    heights = []
    height = ROWS
    while height:
        heights.append(height)
        height //= 2
    tiles = [f'tile_{r}_{v} = tile("{dtype}", {r}, {v})' for r in heights for v in (1, 2)]
    choose: list[str] = []
    for r in heights:
        for v in (2, 1):
            word = "elif" if choose else "if"
            choose += [
                f"        {word} rows >= {r} and vectors == {v}:",
                f"            tile_{r}_{v}(k, a, a_row, a_column, b, b_row, c, c_row, add)",
                f"            done = {r}",
            ]
    choose += ["        else:", "            return"]
    at, kind, size = ("float32_at", "float32", 4) if dtype == "f4" else ("float64_at", "float64", 8)
    return _SOURCE.format(
        dtype=dtype, at=at, kind=kind, size=size, rows=ROWS, lanes=width(dtype), depth=DEPTH, wide=WIDE, tall=TALL,
        tiles="\n".join(tiles), choose="\n".join(choose),
    )  # fmt: skip


def kernel(dtype: str) -> int:
    """The address of the kernel for float32 or float64."""
    return build(_source(dtype))


def scratch_bytes(dtype: str, m: int, n: int, k: int, packs_b: bool, packs_a: bool) -> int:
    """Memory that the kernel needs for its panels and strips."""
    size = 4 if dtype == "f4" else 8
    depth = min(k, DEPTH)
    side = panel(dtype)
    columns = -(-min(n, WIDE) // side) * side if packs_b or n % side else 0
    rows = -(-min(m, TALL) // ROWS) * ROWS if packs_a else 0
    return size * (ROWS * side + depth * (columns + rows))


def panel(dtype: str) -> int:
    """Columns of a tile."""
    return 2 * width(dtype)


def packs(dtype: str, m: int, n: int, k: int, a_rows: bool, b_rows: bool) -> tuple[bool, bool]:
    """Whether A and B are packed, given whether their rows are contiguous: B always if they are not, else for more than two
    rows of tiles; A if they are not and it does not fit into half of the L1 cache."""
    size = 4 if dtype == "f4" else 8
    return not a_rows and m * k * size > 1 << 14, not b_rows or m > 2 * ROWS
