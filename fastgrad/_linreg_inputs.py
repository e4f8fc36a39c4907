"""What the estimator takes as features and targets: arrays, lists, and the columns of data frames, as scikit-learn takes them.

`features` and `targets` give arrays of numbers, without a copy where there is one already, so that memory maps stay mapped.
`check_names` compares a frame's columns with those of `fit`. Nothing is imported for it: a frame's own methods convert it.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from typing import Any

import numpy as np

MOST_NAMES = 5  # that a message lists


class NotFittedError(ValueError, AttributeError):
    """A model was asked for something that only `fit` provides."""


def not_fitted(message: str) -> NotFittedError:
    """The error to raise; where scikit-learn is in use, also an instance of its `NotFittedError`."""
    theirs = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", None)
    return NotFittedError(message) if theirs is None else _both(theirs)(message)


@cache
def _both(theirs: type) -> Any:
    return type("NotFittedError", (NotFittedError, theirs), {"__module__": __name__, "__doc__": NotFittedError.__doc__})


def is_frame(values: Any) -> bool:
    """Whether this is a data frame: columns with names, each of its own type."""
    return hasattr(values, "columns") and hasattr(values, "__array__") and not isinstance(values, np.ndarray)


def column_names(X: Any) -> np.ndarray | None:
    """The names of a frame's columns if all are text, None for what has none.

    Raises TypeError if only some are text, and ValueError if one occurs twice.
    """
    if not is_frame(X) or len(X.columns) == 0:
        return None
    if len(X.columns) == X.shape[1] != len(set(X.columns)):
        raise ValueError(f"Expected unique names of columns, got {list(X.columns)}")
    names = np.asarray(list(X.columns), dtype=object) if X.shape[1] == len(X.columns) else None
    if names is None or names.ndim != 1:
        return None
    kinds = sorted({type(name).__qualname__ for name in names})
    if len(kinds) > 1 and "str" in kinds:
        raise TypeError(
            f"Feature names are only supported if all input features have string names, but X has {kinds} as names of "
            "columns; convert them by X.columns = X.columns.astype(str)"
        )
    return names if kinds == ["str"] else None


def check_names(model: Any, X: Any) -> None:
    """Compare the columns of `X` with those that `model` was fitted with.

    Raises ValueError for other names and for another order; warns where only one of them had names.
    """
    fitted, given, who = getattr(model, "feature_names_in_", None), column_names(X), type(model).__name__
    if fitted is None and given is None:
        return
    if fitted is None:
        warnings.warn(f"X has feature names, but {who} was fitted without feature names", UserWarning, stacklevel=4)
        return
    if given is None:
        if model._labelled:
            return
        message = f"X does not have valid feature names, but {who} was fitted with feature names"
        warnings.warn(message, UserWarning, stacklevel=4)
        return
    if list(fitted) == list(given):
        return
    message = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted(set(given) - set(fitted)), sorted(set(fitted) - set(given))
    if unseen:
        message += "Feature names unseen at fit time:\n" + _listed(unseen)
    if missing:
        message += "Feature names seen at fit time, yet now missing:\n" + _listed(missing)
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def _listed(names: list[str]) -> str:
    more = "- ...\n" if len(names) > MOST_NAMES else ""
    return "".join(f"- {name}\n" for name in names[:MOST_NAMES]) + more


def features(X: Any) -> np.ndarray:
    """The features (n, p); raises ValueError for other shapes, no rows, no columns, and what is not a number."""
    array = _array(X, "X")
    if array.ndim != 2:
        raise ValueError(
            f"X must have shape (rows, features), not {array.shape}; for one feature use X.reshape(-1, 1), for one row "
            "X.reshape(1, -1)"
        )
    if 0 in array.shape:
        raise ValueError(f"X has {array.shape[0]} rows, {array.shape[1]} features; at least one of each is needed")
    return _numbers(array, "X")


def targets(y: Any, rows: int) -> np.ndarray:
    """The targets (n,) or (n, k) of so many rows; raises ValueError for others and for what is not a number."""
    if y is None:
        raise ValueError("LinearRegression requires y to be passed, but the target y is None")
    array = _array(y, "y")
    if array.ndim == 0:
        raise TypeError(
            f"y must have shape ({rows},) or ({rows}, targets); it is {type(y).__name__}, which has no length"
        )
    if array.ndim not in (1, 2) or len(array) != rows or 0 in array.shape:
        raise ValueError(f"y must have shape ({rows},) or ({rows}, targets), not {array.shape}")
    if array.dtype.kind in "US":  # text that is a number counts as one, in a target
        array = np.asarray(_as_floats(array, "y"))
    return _numbers(array, "y")


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise ValueError for NaN and infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        found = "NaN" if np.isnan(array).any() else "infinity"
        raise ValueError(f"Input {name} contains {found}; every number must be finite")


def _array(values: Any, name: str) -> np.ndarray:
    """An array, or the one that lists, frames, series and tensors make; TypeError for a matrix, or a sparse one."""
    if isinstance(values, np.matrix):
        raise TypeError(f"{name} is an np.matrix, which is not supported; convert it with np.asarray")
    if hasattr(values, "tocsr") and hasattr(values, "toarray"):
        raise TypeError(f"Sparse data was passed for {name}, but dense data is required; use {name}.toarray()")
    if isinstance(values, np.ma.MaskedArray):
        return np.asarray(values.data)
    return values if isinstance(values, np.ndarray) else _converted(values, name)


def _numbers(array: np.ndarray, name: str) -> np.ndarray:
    """An array of real numbers; ValueError or TypeError, as scikit-learn raises, for all else."""
    if array.dtype.kind == "O":
        array = np.asarray(_as_floats(array, name))
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is an array of {array.dtype}")
    if array.dtype.kind not in "fiub":
        kind = TypeError if array.dtype.kind in "mM" else ValueError
        raise kind(f"{name} must be an array of numbers, not of {array.dtype}; convert it to numbers explicitly")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    return array


def _converted(values: Any, name: str) -> np.ndarray:
    """Lists, frames, series, tensors as arrays; nullable columns become float64, with NaN for what is missing."""
    kinds = getattr(values, "dtypes", ()) if is_frame(values) else [getattr(values, "dtype", None)]
    if any(hasattr(kind, "na_value") and getattr(kind, "kind", "O") in "fiub" for kind in kinds):
        return np.asarray(_as_floats(values, name))
    return np.asarray(values)


def _as_floats(values: Any, name: str) -> Any:
    """Elements as float64, by their own conversion to a float: numbers, text that is one, None as NaN."""
    try:
        return values.astype(np.float64)
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} must be an array of numbers; an element is not one: {error}") from None
