"""How a matrix product becomes records: the kernel by its size and layout, and its cut into tasks for several threads.

The cut depends on sizes alone, never on the number of threads, so bits do not depend on it either. A product cut over k leaves
partial results, which are added in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from ..kernels import gemm, pool, reduce
from ..kernels import matmul as kernels

Reference = tuple[int, int, int]

TASK = 1_500_000  # multiplications of one task of a product of matrices
BYTES = 1 << 19  # of the matrix in one task of a matrix-vector product
MOST = 16  # tasks


class Factor(NamedTuple):
    """An operand: where it is, elements from one matrix of a batch to the next, from a row to the next, a column to the next."""

    at: Reference
    batch: int
    row: int
    column: int

    def turned(self) -> Factor:
        """The transpose."""
        return Factor(self.at, self.batch, self.column, self.row)

    def moved(self, elements: int, size: int) -> Reference:
        """A place further on."""
        kind, number, offset = self.at
        return (kind, number, offset + elements * size)


class Part(NamedTuple):
    """The part of a product that one record computes: batches, rows, columns and inner range, each first and count."""

    batch: tuple[int, int]
    m: tuple[int, int]
    n: tuple[int, int]
    k: tuple[int, int]


def lower(emit: Any, code: str, target: Reference, a: Factor, b: Factor, m: int, n: int, k: int, batches: int) -> None:
    """Write the records of C (m, n) = A (m, k) B (k, n), so many times."""
    if m == 1 and n > 1:  # y' = B' x'
        m, n, a, b = n, 1, b.turned(), a.turned()
    size = 8 if code in ("f8", "i8") else 1 if code == "u1" else 4
    how = kernels.choose(code, m, n, k, (a.row, a.column), (b.row, b.column))
    parts = list(_cut(how, code, size, m, n, k, batches))
    over_k = len(parts) > 1 and parts[0].k[1] < k
    c = Factor(emit.scratch(len(parts) * m * size) if over_k else target, m * n, n, 1)
    records = []
    for number, part in enumerate(parts):
        start = number * m if over_k else part.batch[0] * c.batch + part.m[0] * c.row + part.n[0]
        left = a.moved(part.batch[0] * a.batch + part.m[0] * a.row + part.k[0] * a.column, size)
        right = b.moved(part.batch[0] * b.batch + part.k[0] * b.row + part.n[0] * b.column, size)
        write = _own if how == "own" else _called
        records.append(write(emit, how, code, part, (c.moved(start, size), left, right), a, b, c))
    if len(records) == 1:
        emit.record(*records[0])
    else:
        emit.tasks(records)
    if over_k:
        table = emit.table((1, len(parts), m))
        emit.record(
            reduce.sum_kernel(code), m, target, c.at, table, emit.scratch(reduce.sum_scratch(m)) if m > 1 else 0
        )


def _cut(how: str, dtype: str, size: int, m: int, n: int, k: int, batches: int) -> Iterator[Part]:
    """The parts of a product, one a task."""
    whole = Part((0, batches), (0, m), (0, n), (0, k))
    if how.startswith("gemv") and batches == 1:
        tasks = min(m * k * size // BYTES, MOST)
        if how == "gemv rows" and m >= 64 * MOST:
            return (whole._replace(m=x) for x in _ranges(m, tasks, 64))
        return (whole._replace(k=x) for x in _ranges(k, tasks, 64))
    tasks = min(batches * m * n * k // TASK, MOST) if how in ("own", "gemm") else 1
    if how == "own":  # its bits do not depend on tasks, and each task packs into memory of its own
        tasks = min(tasks, 2 * pool.available())
    if tasks < 2:
        return iter((whole,))
    if batches > 1:
        return (whole._replace(batch=x) for x in _ranges(batches, tasks, 1))
    side = gemm.panel(dtype)
    down = max([d for d in range(1, tasks + 1) if tasks % d == 0 and m * tasks >= d * d * n] or [1])
    rows, columns = _ranges(m, down, side), _ranges(n, tasks // down, side)  # about square: least is packed twice
    return (whole._replace(m=x, n=y) for x in rows for y in columns)


def _ranges(n: int, tasks: int, unit: int) -> list[tuple[int, int]]:
    """0 to n cut into about equal ranges (first, count) of whole units."""
    units = -(-n // unit)
    tasks = max(min(tasks, units), 1)
    bounds = [min(t * units // tasks * unit, n) for t in range(tasks + 1)]
    return [(x, y - x) for x, y in pairwise(bounds)]


def _own(
    emit: Any, how: str, code: str, part: Part, at: tuple[Reference, ...], a: Factor, b: Factor, c: Factor
) -> list[Any]:
    """The record of the own kernel."""
    m, n, k, batches = part.m[1], part.n[1], part.k[1], part.batch[1]
    packs_a, packs_b = gemm.packs(code, m, n, k, a.column == 1, b.column == 1)
    table = emit.table(
        (m, n, k, a.row, a.column, b.row, b.column, c.row, batches, a.batch, b.batch, c.batch, packs_b, packs_a)
    )
    scratch = emit.scratch(gemm.scratch_bytes(code, m, n, k, packs_b, packs_a))
    return [kernels.kernel(how, code)[0], scratch, *at, table]


def _called(
    emit: Any, how: str, code: str, part: Part, at: tuple[Reference, ...], a: Factor, b: Factor, c: Factor
) -> list[Any]:
    """The record of a loop, or of a kernel that calls BLAS."""
    m, n, k, batches = part.m[1], part.n[1], part.k[1], part.batch[1]
    flag_a, lead_a = ("N", a.row) if a.column == 1 and a.row >= k else ("T", a.column)
    flag_b, lead_b = ("N", b.row) if b.column == 1 and b.row >= n else ("T", b.column)
    if how.startswith("gemv"):  # BLAS reads its view of A, which is transposed, from the place of B's flag
        flag_b = "T" if flag_a == "N" else "N"
    one = emit.float_bits(1.0, code)
    table = emit.table(
        (ord(flag_b), ord(flag_a), n, m, k, one, max(lead_b, 1), max(lead_a, 1), 0, c.row, batches, a.batch, b.batch,
         c.batch, a.row, a.column, b.row, b.column)
    )  # fmt: skip
    kernel, routine = kernels.kernel(how, code)
    return [kernel, routine, *at, table]
