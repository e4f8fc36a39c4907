"""The numbers of `arange` and `linspace`, with PyTorch's bits.

PyTorch fills ranges with vectors of 32 bytes and fused multiply-adds; where it rounds follows from that, and so it does here. A
fused multiply-add is computed in NumPy's widest float: exact for float32, but for one result in two thousand for float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

VECTOR_BYTES = 32


def _multiply_add(a: Any, b: np.ndarray, c: Any, dtype: np.dtype) -> np.ndarray:
    """a * b + c, rounded to a type once."""
    wide = np.longdouble
    return (wide(a) * b + np.asarray(c, wide)).astype(dtype)


def progression(start: float, step: float, n: int, dtype: np.dtype) -> np.ndarray:
    """start, start + step, ...: n numbers. Each vector starts from a rounded number; the last odd vectors are scalar code."""
    width = VECTOR_BYTES // dtype.itemsize
    i = np.arange(n)
    lane = np.where(i < n // (2 * width) * (2 * width), i % width, 0)
    first = _multiply_add(step, i - lane, start, dtype)
    return np.where(lane == 0, first, _multiply_add(step, lane, first, dtype))


def evenly(start: float, end: float, steps: int, dtype: np.dtype) -> np.ndarray:
    """`steps` numbers from start to end, counted from the nearer of the two."""
    if steps == 1:
        return np.array([start], dtype)
    first, last = dtype.type(start), dtype.type(end)
    step = (last - first) / dtype.type(max(steps - 1, 1))
    i = np.arange(steps)
    return np.where(
        i < steps // 2, _multiply_add(step, i, first, dtype), _multiply_add(-step, steps - 1 - i, last, dtype)
    )
