"""Data types and PyTorch's promotion rules.

A `dtype` has a code that kernels use ("f4"), a category (bool < integer < float) and NumPy's type. Promotion looks at three
classes of operands, arrays before 0-d tensors before Python numbers: a class is asked for its type only if it brings a higher
category than the classes before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

BOOL, INTEGER, FLOAT = 0, 1, 2


class dtype:
    """A data type, printed as in PyTorch (`fastgrad.float32`)."""

    __slots__ = ("category", "code", "is_floating_point", "itemsize", "name", "numpy", "rank")

    def __init__(self, name: str, code: str, category: int, rank: int) -> None:
        self.name = name
        self.code = code
        self.category = category
        self.rank = rank
        self.numpy = np.dtype(name)
        self.itemsize = self.numpy.itemsize
        self.is_floating_point = category == FLOAT

    def __repr__(self) -> str:
        return f"fastgrad.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


bool_ = dtype("bool", "b1", BOOL, 0)
uint8 = dtype("uint8", "u1", INTEGER, 1)
int32 = dtype("int32", "i4", INTEGER, 3)
int64 = dtype("int64", "i8", INTEGER, 4)
float32 = dtype("float32", "f4", FLOAT, 5)
float64 = dtype("float64", "f8", FLOAT, 6)

ALL = (bool_, uint8, int32, int64, float32, float64)
_NAMES = {d.name: d for d in ALL}
_NUMPY = {d.numpy: d for d in ALL}
_PYTHON = {bool: bool_, int: int64, float: float64}

_default = float32


def _by_name(name: str) -> dtype:
    return _NAMES[name]


def get_default_dtype() -> dtype:
    """The floating-point type of new tensors made from Python floats."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Set the floating-point type of new tensors made from Python floats: float32 or float64."""
    global _default
    if not isinstance(d, dtype) or not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, not {d}")
    _default = d


def to_dtype(value: Any) -> dtype:
    """A `dtype` from itself, a Python type or anything NumPy reads as a type."""
    if isinstance(value, dtype):
        return value
    if value in _PYTHON:
        return _PYTHON[value]
    try:
        return _NUMPY[np.dtype(value)]
    except (KeyError, TypeError):
        raise TypeError(f"dtype {value!r} is not supported; use one of {', '.join(map(repr, ALL))}") from None


def from_numpy_dtype(d: np.dtype) -> dtype:
    """The `dtype` of a NumPy array's elements."""
    found = _NUMPY.get(d) if d.isnative else None
    if found is None:
        raise TypeError(
            f"can't convert np.ndarray of type {d}. The only supported types are: "
            + ", ".join(x.name for x in reversed(ALL))
            + "."
        )
    return found


def promote_types(a: dtype, b: dtype) -> dtype:
    """The smallest type that both can be converted to."""
    return a if a.rank >= b.rank else b


def result_type(operands: Iterable[tuple[dtype, bool, bool]]) -> dtype:
    """The type an operation computes in; an operand is (dtype, is 0-d, is a Python number)."""
    classes: list[dtype | None] = [None, None, None]
    for d, scalar, python in operands:
        place = 2 if python else 1 if scalar else 0
        if python and d.is_floating_point:
            d = _default
        current = classes[place]
        classes[place] = d if current is None else promote_types(current, d)
    found: dtype | None = None
    for candidate in classes:
        if candidate is not None and (found is None or candidate.category > found.category):
            found = candidate
    assert found is not None
    return found


class finfo:
    """Limits of a floating-point type: `eps`, `max`, `min`, `tiny`, `smallest_normal`, `bits`."""

    def __init__(self, type: dtype | None = None) -> None:
        info = np.finfo((type or _default).numpy)
        self.bits = info.bits
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = float(info.resolution)
        self.dtype = (type or _default).name

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer type: `max`, `min`, `bits`."""

    def __init__(self, type: dtype) -> None:
        info = np.iinfo(type.numpy)
        self.bits = info.bits
        self.max = int(info.max)
        self.min = int(info.min)
        self.dtype = type.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
