"""Matrix products: which kernel computes one, and those that are not `gemm`'s: calls of BLAS, and short loops.

C (m, n) = A (m, k) B (k, n), batched. The table of a product that BLAS or a loop computes, int64 words (BLAS reads its integers
from the low half of a word, or all of it, as wide as its integers are): 0 flag of B, 1 flag of A ('N' or 'T'), 2 n, 3 m, 4 k,
5 one, 6 leading dimension of B, 7 leading dimension of A, 8 zero, 9 leading dimension of C, 10 batches, 11 step of A, 12 step
of B, 13 step of C, 14 to 17 element steps of a row and a column of A and of B. BLAS is column-major, so it computes C' = B' A'.
Record: [kernel, address of the BLAS routine, c, a, b, table, 0, 0]
"""

from . import gemm
from .blas import address, forced
from .build import build
from .elementwise import TYPES, pointer
from .vectors import has_fma, vector_bytes

_TINY = 64  # multiplications up to which a plain loop is fastest
_SMALL = 512  # multiplications up to which no call of BLAS pays
# Multiplications up to which `gemm` is faster than BLAS, by bytes of a vector.
_OWN = {64: 1 << 62, 32: 4_000_000, 16: 30_000}

_GEMM = """
from numba import uintp
from fastgrad.kernels.native import int64_at, call_gemm

def kernel(record):
    c, a, b, at = record[2], record[3], record[4], record[5]
    table = int64_at(at)
    for i in range(table[10]):
        call_gemm(record[1], at, at + 8, at + 16, at + 24, at + 32, at + 40, b, at + 48, a, at + 56, at + 64, c, at + 72)
        a += table[11] * {bytes}
        b += table[12] * {bytes}
        c += table[13] * {bytes}
"""

# y = A x by gemv, word 0 the flag of BLAS's (transposed) view of A, rows and columns of that view given
_GEMV = """
from fastgrad.kernels.native import int64_at, call_gemv

def kernel(record):
    c, a, b, at = record[2], record[3], record[4], record[5]
    table = int64_at(at)
    for i in range(table[10]):
        call_gemv(record[1], at, at + {rows}, at + {columns}, at + 40, a, at + 56, b, at + 128, at + 64, c, at + 16)
        a += table[11] * {bytes}
        b += table[12] * {bytes}
        c += table[13] * {bytes}
"""

_LOOPS = """
from numba import float32, float64, int32, int64, uint8, uintp
from fastgrad.kernels.native import float32_at, float64_at, int32_at, int64_at, uint8_at, fma

def kernel(record):
    c, a, b, table = {at}(record[2]), {at}(record[3]), {at}(record[4]), int64_at(record[5])
    n, m, k, batches = table[2], table[3], table[4], table[10]
    a_row, a_column, b_row, b_column = table[14], table[15], table[16], table[17]
    for batch in range(batches):
        a_base, b_base, c_base = batch * table[11], batch * table[12], batch * table[13]
{body}
"""

# y = A x, A's rows contiguous: a dot product a row in eight interleaved accumulators
_ROWS = """
        for i in range(m):
            row = uintp(a_base + i * a_row)
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = {kind}(0)
            whole = k // 8 * 8
            if b_row == 1:
                column = uintp(b_base)
                for j in range(uintp(0), uintp(whole), uintp(8)):
                    s0 = {fma}(a[row + j], b[column + j], s0)
                    s1 = {fma}(a[row + j + uintp(1)], b[column + j + uintp(1)], s1)
                    s2 = {fma}(a[row + j + uintp(2)], b[column + j + uintp(2)], s2)
                    s3 = {fma}(a[row + j + uintp(3)], b[column + j + uintp(3)], s3)
                    s4 = {fma}(a[row + j + uintp(4)], b[column + j + uintp(4)], s4)
                    s5 = {fma}(a[row + j + uintp(5)], b[column + j + uintp(5)], s5)
                    s6 = {fma}(a[row + j + uintp(6)], b[column + j + uintp(6)], s6)
                    s7 = {fma}(a[row + j + uintp(7)], b[column + j + uintp(7)], s7)
                for j in range(uintp(whole), uintp(k)):
                    s0 = {fma}(a[row + j], b[column + j], s0)
            else:
                for j in range(k):
                    s0 = {fma}(a[a_base + i * a_row + j], b[b_base + j * b_row], s0)
            c[c_base + i] = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
"""

# C row by row: c[i, :] += a[i, j] b[j, :], B's rows contiguous
_OUTER = """
        for i in range(m):
            row = uintp(c_base + i * n)
            for q in range(uintp(n)):
                c[row + q] = {kind}(0)
            for j in range(k):
                factor = a[a_base + i * a_row + j * a_column]
                right = uintp(b_base + j * b_row)
                for q in range(uintp(n)):
                    c[row + q] = {fma}(factor, b[right + q], c[row + q])
"""

_LANES = range(8)


def _lanes(text: str, depth: int) -> str:
    """A line for each of eight columns; <k> is its number."""
    return "\n".join([" " * depth + text.replace("<k>", str(k)) for k in _LANES])


# y = A' x with A's rows contiguous: y[:] += x[j] A[j, :], eight columns at a time in registers, even and odd rows by themselves;
# here a is the matrix (k, m), m contiguous
_COLUMNS = f"""
        whole, pairs = m // 8 * 8, k // 2 * 2
        for i in range(uintp(0), uintp(whole), uintp(8)):
            {" = ".join([f"s{k}" for k in _LANES])} = {{kind}}(0)
            {" = ".join([f"t{k}" for k in _LANES])} = {{kind}}(0)
            for j in range(0, pairs, 2):
                even, odd = b[b_base + j * b_row], b[b_base + (j + 1) * b_row]
                row = uintp(a_base + j * a_column) + i
                next = row + uintp(a_column)
{_lanes("s<k> = {fma}(even, a[row + uintp(<k>)], s<k>)", 16)}
{_lanes("t<k> = {fma}(odd, a[next + uintp(<k>)], t<k>)", 16)}
            if pairs < k:
                even, row = b[b_base + pairs * b_row], uintp(a_base + pairs * a_column) + i
{_lanes("s<k> = {fma}(even, a[row + uintp(<k>)], s<k>)", 16)}
            to = uintp(c_base) + i
{_lanes("c[to + uintp(<k>)] = s<k> + t<k>", 12)}
        for i in range(uintp(whole), uintp(m)):
            s = t = {{kind}}(0)
            for j in range(0, pairs, 2):
                s = {{fma}}(b[b_base + j * b_row], a[uintp(a_base + j * a_column) + i], s)
                t = {{fma}}(b[b_base + (j + 1) * b_row], a[uintp(a_base + (j + 1) * a_column) + i], t)
            if pairs < k:
                s = {{fma}}(b[b_base + pairs * b_row], a[uintp(a_base + pairs * a_column) + i], s)
            c[uintp(c_base) + i] = s + t
"""

_PLAIN = """
        for i in range(m):
            for q in range(n):
                total = {kind}(0)
                for j in range(k):
                    total = {fma}(a[a_base + i * a_row + j * a_column], b[b_base + j * b_row + q * b_column], total)
                c[c_base + i * n + q] = total
"""

_BODIES = {"rows": _ROWS, "outer": _OUTER, "columns": _COLUMNS, "plain": _PLAIN}


def _loops(name: str, dtype: str) -> int:
    kind = TYPES[dtype][1]
    source = _LOOPS
    if dtype in ("f4", "f8"):
        fma = "fma"
    else:
        source = source.replace(
            "def kernel", f"def madd(a, b, c):\n    return {kind}(a * b + c)\n\nmadd = njit(madd)\n\ndef kernel", 1
        )
        source = source.replace("from numba import", "from numba import njit,", 1)
        fma = "madd"
    return build(source.format(at=pointer(dtype), body=_BODIES[name].format(kind=kind, fma=fma)))


def choose(dtype: str, m: int, n: int, k: int, a_steps: tuple[int, int], b_steps: tuple[int, int]) -> str:
    """What computes C (m, n) = A (m, k) B (k, n) with the element steps of a row and a column, one of which is 1.

    "own" is `gemm.kernel`; "gemm", "gemv rows" and "gemv columns" are BLAS, by whether A's rows or its columns are
    contiguous; the others are loops. It depends on nothing that changes between runs, so that bits do not either.
    """
    floating = dtype in ("f4", "f8")
    if n == 1:
        rows = a_steps[1] == 1 and a_steps[0] >= k
        if floating and m * k > _SMALL and b_steps[0] > 0 and (rows or (a_steps[0] == 1 and a_steps[1] >= m)):
            return "gemv rows" if rows else "gemv columns"
        if a_steps[1] == 1:
            return "rows"
        if a_steps[0] == 1:
            return "columns"
    work = m * n * k
    if floating and work > (_SMALL if forced() else _TINY):
        limit = 0 if forced() or not has_fma() else _OWN[vector_bytes()]
        return "own" if work <= limit else "gemm"
    return "outer" if b_steps[1] == 1 else "plain"


def kernel(how: str, dtype: str) -> tuple[int, int]:
    """The address of the kernel, and that of the BLAS routine it calls, if it does."""
    size = 4 if dtype == "f4" else 8
    if how == "own":
        return gemm.kernel(dtype), 0
    if how == "gemm":
        return build(_GEMM.format(bytes=size)), address("gemm", dtype)
    if how == "gemv rows":
        return build(_GEMV.format(rows=32, columns=24, bytes=size)), address("gemv", dtype)
    if how == "gemv columns":
        return build(_GEMV.format(rows=24, columns=32, bytes=size)), address("gemv", dtype)
    return _loops(how, dtype), 0
