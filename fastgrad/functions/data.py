"""Arrays from data: numbers, nested sequences, arrays and tensors, as `tensor` takes them.

Sequences are taken apart level by level, which gives the shape; the numbers that are left decide about the dtype, as in PyTorch:
Python's floats are of the default type, NumPy's scalars and tensors keep theirs, and the widest wins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from .. import recording as tape
from ..dtypes import BOOL, FLOAT, dtype, from_numpy_dtype, get_default_dtype
from .arguments import fit, type_of

_PLAIN = (float, int, bool)


def array_of(data: Any, kind: dtype | None) -> np.ndarray:
    """A fresh C-contiguous array of data, in a given dtype or in its own."""
    if isinstance(data, tape.TENSOR):
        data = data.detach().numpy()
    if isinstance(data, (np.ndarray, np.generic)):
        return _converted(np.asarray(data), kind)
    leaves, shape = _leaves(data)
    if isinstance(leaves, np.ndarray):
        return _converted(leaves, kind)
    kinds = set(map(type, leaves))
    inferred = _common(kinds, leaves, kind, bool(shape))
    return _values(leaves, kinds, kind or inferred or get_default_dtype()).reshape(shape)


def _converted(array: np.ndarray, kind: dtype | None) -> np.ndarray:
    if kind is None:
        kind = from_numpy_dtype(array.dtype.newbyteorder("="))
    elif array.dtype.kind not in "biuf":
        raise TypeError(f"can't convert np.ndarray of type {array.dtype} to {kind}")
    with np.errstate(all="ignore"):
        return np.array(array, dtype=kind.numpy, order="C", copy=True)


def _is_sequence(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return True
    kind = type(value)
    if isinstance(value, (tape.TENSOR, np.generic, str, bytes, dict)):
        return False
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return hasattr(kind, "__getitem__") and hasattr(kind, "__len__")


def _leaves(data: Any) -> tuple[Any, tuple[int, ...]]:
    """What nested sequences hold, row-major, and their shape; sequences of arrays are one array."""
    level: list[Any] = [data]
    shape: list[int] = []
    while level and _is_sequence(level[0]):
        n = len(level[0])
        if all([isinstance(x, np.ndarray) for x in level]):
            if any([x.shape != level[0].shape for x in level]):
                raise ValueError(f"expected arrays of one shape, got {sorted({x.shape for x in level})}")
            return np.array(level).reshape(*shape, *level[0].shape), ()
        below: list[Any] = []
        for x in level:
            if not _is_sequence(x):
                raise TypeError(
                    f"tensor(): expected a sequence of length {n} at dimension {len(shape)}, got {type_of(x)}"
                )
            if len(x) != n:
                raise ValueError(f"expected sequence of length {n} at dim {len(shape)} (got {len(x)})")
            below.extend(x)
        shape.append(n)
        level = below
    return level, tuple(shape)


def _common(kinds: set[type], leaves: list[Any], kind: dtype | None, nested: bool) -> dtype | None:
    """The dtype that all leaves can be converted to; raises for what is no number, or can't be read as one of a given dtype."""
    if any([_is_sequence(x) for x in leaves if type(x) not in _PLAIN]):
        raise TypeError("tensor(): the data has a sequence in the place of a number")
    found: list[dtype] = []
    t: Any
    for t in kinds:
        if issubclass(t, np.generic):
            found.append(kind or from_numpy_dtype(np.dtype(t)))
        elif issubclass(t, bool):
            found.append(dtypes.bool_)
        elif issubclass(t, int):
            found.append(dtypes.int64)
        elif issubclass(t, float):
            found.append(get_default_dtype())
        elif issubclass(t, tape.TENSOR):
            found += {x.dtype for x in leaves if type(x) is t}
        elif issubclass(t, np.ndarray):
            found += {from_numpy_dtype(x.dtype) for x in leaves if type(x) is t and not x.shape}
        elif t is str and nested and type(leaves[0]) is str:
            raise ValueError("too many dimensions 'str'")
        elif t in (str, bytes):
            raise TypeError(f"new(): invalid data type '{t.__name__}'")
        elif issubclass(t, complex):
            raise TypeError(f"complex numbers are not supported; use one of {', '.join(map(repr, dtypes.ALL))}")
        elif kind is None:
            raise RuntimeError(f"Could not infer dtype of {t.__qualname__}")
    common = found[0] if found else None
    for d in found[1:]:
        common = dtypes.promote_types(common, d)  # type: ignore[arg-type]
    return common


def _values(leaves: list[Any], kinds: set[type], kind: dtype) -> np.ndarray:
    """Leaves as an array of a dtype."""
    for t in kinds:
        if t not in _PLAIN and not issubclass(t, np.generic):
            leaves = [_number(x, kind) for x in leaves]
            break
    with np.errstate(all="ignore"):
        if kind.category == BOOL:
            return np.array([bool(x) for x in leaves], np.bool_)
        if kind.category == FLOAT:
            return np.array(leaves, kind.numpy)
        try:
            whole = [int(fit("tensor", float(x), kind)) if isinstance(x, (float, np.floating)) else x for x in leaves]
            array = np.array(whole, np.int64)
        except OverflowError:
            raise ValueError(
                "Overflow when unpacking long long: an integer of the data needs more than 64 bits"
            ) from None
    if array.size and kind is not dtypes.int64:
        for x in (array.min(), array.max()):
            fit("tensor", int(x), kind)
    return array.astype(kind.numpy)


def _number(x: Any, kind: dtype) -> Any:
    """One leaf as a Python number that can be of this dtype."""
    if isinstance(x, tape.TENSOR):
        return x._number_of_one()
    if isinstance(x, np.ndarray):
        return x.item()
    if isinstance(x, (*_PLAIN, np.generic)):
        return x
    return float(x) if kind.category == FLOAT else x.__index__() if hasattr(x, "__index__") else _refuse(x)


def _refuse(x: Any) -> Any:
    raise TypeError(f"'{type_of(x)}' object cannot be interpreted as an integer")
