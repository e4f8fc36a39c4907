"""Matrix products: BLAS by address, and own loops where a call costs more than the work.

C (m, n) = A (m, k) B (k, n), batched. The table of a product, int64 words (BLAS reads its integers from the low half of a
word): 0 flag of B, 1 flag of A ('N' or 'T'), 2 n, 3 m, 4 k, 5 one, 6 leading dimension of B, 7 leading dimension of A,
8 zero, 9 leading dimension of C, 10 batches, 11 step of A, 12 step of B, 13 step of C, 14 to 17 element steps of a row and a
column of A and of B. BLAS is column-major, so it computes C' = B' A'.
Record: [kernel, address of gemm, c, a, b, table, 0, 0]
"""

import ctypes
from functools import cache, lru_cache
from typing import Any

from .build import build
from .elementwise import TYPES, pointer

PARALLEL = 30_000_000  # multiplications from which on a product is worth a second thread
_SMALL = 512  # multiplications below which the own loop is faster than a call of BLAS

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

# y = A' x with A's rows contiguous: y[:] += x[j] A[j, :]; here a is the matrix (k, m), m contiguous
_COLUMNS = """
        for i in range(uintp(m)):
            c[uintp(c_base) + i] = {kind}(0)
        for j in range(k):
            factor = b[b_base + j * b_row]
            row = uintp(a_base + j * a_column)
            for i in range(uintp(m)):
                c[uintp(c_base) + i] = {fma}(factor, a[row + i], c[uintp(c_base) + i])
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


@cache
def blas_address(name: str, dtype: str) -> int:
    """The address of a BLAS routine (gemm, gemv) for float32 or float64 in the library that SciPy brings."""
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[("s" if dtype == "f4" else "d") + name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, get_name(capsule))


blas_threads = [0]


@lru_cache(maxsize=1)
def _libraries() -> tuple[Any, ...]:
    """The BLAS libraries in this process whose number of threads can be set."""
    from threadpoolctl import ThreadpoolController

    blas_address("gemm", "f8")
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return tuple([x for x in found if "scipy" in (x.filepath or "")]) or tuple(found)


def use_threads(n: int) -> None:
    """Let the BLAS that SciPy brings use n threads."""
    if blas_threads[0] != n:
        blas_threads[0] = n
        for library in _libraries():
            library.set_num_threads(n)


def product(dtype: str, m: int, n: int, k: int, a_steps: tuple[int, int], b_steps: tuple[int, int]) -> tuple[int, int]:
    """(kernel address, gemm address or 0) for C (m, n) = A (m, k) B (k, n) with the element steps of a row and a column.

    BLAS needs one of the two steps of each operand to be 1; `by_blas` says so.
    """
    floating = dtype in ("f4", "f8")
    size = 4 if dtype == "f4" else 8
    if n == 1 and floating and m * k > _SMALL and b_steps[0] > 0:
        if a_steps[1] == 1 and a_steps[0] >= k:
            return build(_GEMV.format(rows=32, columns=24, bytes=size)), blas_address("gemv", dtype)
        if a_steps[0] == 1 and a_steps[1] >= m:
            return build(_GEMV.format(rows=24, columns=32, bytes=size)), blas_address("gemv", dtype)
    if n == 1 and a_steps[1] == 1:
        return _loops("rows", dtype), 0
    if n == 1 and a_steps[0] == 1:
        return _loops("columns", dtype), 0
    if floating and m * n * k > _SMALL:
        return build(_GEMM.format(bytes=size)), blas_address("gemm", dtype)
    if b_steps[1] == 1:
        return _loops("outer", dtype), 0
    return _loops("plain", dtype), 0
