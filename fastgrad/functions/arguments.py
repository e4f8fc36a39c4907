"""Checks of arguments: numbers, integers, and numbers that a dtype can hold.

NumPy's scalars are numbers like Python's, and so are tensors of one number where a number is asked for.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

from .. import recording as tape
from ..dispatch import as_number
from ..dtypes import BOOL, FLOAT, dtype, iinfo

_LARGEST_FLOAT32 = 3.4028234663852886e38


F = TypeVar("F", bound=Callable[..., Any])
_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}


def numpy_names(function: F) -> F:
    """A function that takes NumPy's names of its arguments, too: `axis` for `dim`, `keepdims`, `x`, `x1` and `x2`."""
    own = set(inspect.signature(function).parameters)
    others = {theirs: ours for theirs, ours in _NAMES.items() if ours in own and theirs not in own}

    @functools.wraps(function)
    def named(*args: Any, **kwargs: Any) -> Any:
        if kwargs and not own >= kwargs.keys():
            for theirs in others.keys() & kwargs.keys():
                if others[theirs] in kwargs:
                    raise TypeError(
                        f"{function.__name__}() got both {others[theirs]} and {theirs}, which are one argument"
                    )
                kwargs[others[theirs]] = kwargs.pop(theirs)
        return function(*args, **kwargs)

    return named  # type: ignore[return-value]


def type_of(value: Any) -> str:
    """The name of a value's type, for messages."""
    return type(value).__name__


def number(name: str, role: str, value: Any) -> Any:
    """A Python number from a number, a NumPy scalar or a tensor of one number (which is read); TypeError for anything else.

    What `compile` has put in a number's place stays the tensor that it is.
    """
    if isinstance(value, tape.TENSOR) and not value._meta.shape:
        if value._meta.weak:
            return value
        if value.requires_grad:
            raise TypeError(f"{name}(): argument '{role}' must be a number, not a Tensor that requires grad")
        return value.item()
    found = as_number(value)
    if found is None:
        raise TypeError(f"{name}(): argument '{role}' must be Tensor or number, not {type_of(value)}")
    return found


def known_number(name: str, role: str, value: Any) -> Any:
    """A number that decides what is recorded: `compile` has to find the same one at every call."""
    found = number(name, role, value)
    capture = tape.local.trace.capture
    if isinstance(found, tape.TENSOR) and capture is not None:
        found = capture.number_of(found)
        if found is None:
            capture.refuse(f"{name}() of a number that the device computes")
    return found


def integer(name: str, role: str, value: Any) -> int:
    """A Python integer from whatever is one: NumPy's, a tensor of one integer, an object with `__index__`."""
    if type(value) is int:
        return value
    try:
        if not isinstance(value, bool):
            return value.__index__()
        raise TypeError
    except (AttributeError, TypeError):
        raise TypeError(f"{name}(): argument '{role}' must be int, not {type_of(value)}") from None


def flag(name: str, role: str, value: Any) -> bool:
    """A truth value from a bool, Python's or NumPy's."""
    if value is True or value is False:
        return value
    if type_of(value) in ("bool", "bool_"):  # NumPy's
        return bool(value)
    raise TypeError(f"{name}(): argument '{role}' must be bool, not {type_of(value)}")


def fit(name: str, value: Any, kind: dtype) -> Any:
    """A Python number that a dtype is to hold; RuntimeError if it cannot. Unsigned types take negative integers modulo 2**bits."""
    if isinstance(value, tape.TENSOR):
        return value
    if kind.category == BOOL:
        return bool(value)
    if kind.category == FLOAT:
        if isinstance(value, int):
            return float(value) if abs(value) >> 53 else value
        fits = kind.itemsize == 8 or not _LARGEST_FLOAT32 < abs(value) < math.inf
    else:
        limits = iinfo(kind)
        low = -limits.max if limits.min == 0 and isinstance(value, int) else limits.min
        fits = low <= value <= limits.max
    if not fits:
        raise RuntimeError(f"{name}(): value {value} cannot be converted to type {kind.name} without overflow")
    return value
