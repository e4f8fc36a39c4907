"""The printed form of tensors, PyTorch's to the letter for what it prints often.

Numbers of a tensor share one width; floats switch to scientific notation when the range is large, and drop decimals when all
are integers. `set_printoptions` changes precision, threshold, edge items and line width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import bool_, get_default_dtype, int64

if TYPE_CHECKING:
    from .tensor import Tensor


class _Options:
    precision = 4
    threshold: float = 1000
    edgeitems = 3
    linewidth = 80
    sci_mode: bool | None = None


_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors are printed; `profile` is "default", "short" or "full".

    >>> fastgrad.set_printoptions(precision=2)
    >>> fastgrad.tensor([1.2345])
    tensor([1.23])
    >>> fastgrad.set_printoptions(profile="default")
    """
    if profile is not None:
        presets = {"default": (4, 1000, 3, 80), "short": (2, 1000, 2, 80), "full": (4, math.inf, 3, 80)}
        if profile not in presets:
            raise ValueError(f"profile must be one of {', '.join(presets)}, got {profile!r}")
        _options.precision, _options.threshold, _options.edgeitems, _options.linewidth = presets[profile]
    if precision is not None:
        _options.precision = precision
    if threshold is not None:
        _options.threshold = threshold
    if edgeitems is not None:
        _options.edgeitems = edgeitems
    if linewidth is not None:
        _options.linewidth = linewidth
    _options.sci_mode = sci_mode


class _Formatter:
    """How one number of a tensor is written."""

    def __init__(self, array: np.ndarray) -> None:
        self.floating = array.dtype.kind == "f"
        self.integral = True
        self.scientific = False
        self.width = 1
        flat = array.reshape(-1)
        if not self.floating:
            self.width = max([len(str(x)) for x in flat.tolist()], default=1)
            return
        finite = np.abs(flat[np.isfinite(flat) & (flat != 0)]).astype(np.float64)
        if finite.size == 0:
            return
        low, high = finite.min(), finite.max()
        self.integral = bool((finite == np.ceil(finite)).all())
        p = _options.precision
        if self.integral:
            if high / low > 1000.0 or high > 1e8:
                self.scientific = True
        elif high / low > 1000.0 or high > 1e8 or low < 1e-4:
            self.scientific = True
        if self.integral and self.scientific and not (high / low > 1000.0 or high > 1e8):
            self.scientific = False
        if _options.sci_mode is not None:
            self.scientific = _options.sci_mode
        nonzero = flat[np.isfinite(flat) & (flat != 0)]
        if self.scientific:
            self.width = max([len(f"{x:.{p}e}") for x in nonzero.tolist()])
        elif self.integral:
            self.width = max([len(f"{x:.0f}") for x in nonzero.tolist()]) + 1
        else:
            self.width = max([len(f"{x:.{p}f}") for x in nonzero.tolist()])

    def __call__(self, x: Any) -> str:
        if self.floating and math.isfinite(x):
            if self.scientific:
                text = f"{x:.{_options.precision}e}"
            elif self.integral:
                text = f"{x:.0f}."
            else:
                text = f"{x:.{_options.precision}f}"
        else:
            text = str(x)
        return text.rjust(self.width)


def _vector(array: np.ndarray, indent: int, formatter: _Formatter, summarize: bool) -> str:
    items = array.tolist()
    edge = _options.edgeitems
    per_line = max(1, (_options.linewidth - indent) // (formatter.width + 2))
    if summarize and len(items) > 2 * edge:
        texts = [formatter(x) for x in items[:edge]] + [" ..."] + [formatter(x) for x in items[-edge:]]
    else:
        texts = [formatter(x) for x in items]
    lines = [texts[i : i + per_line] for i in range(0, len(texts), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join([", ".join(line) for line in lines]) + "]"


def _nested(array: np.ndarray, indent: int, formatter: _Formatter, summarize: bool) -> str:
    if array.ndim == 0:
        return formatter(array.item())
    if array.ndim == 1:
        return _vector(array, indent, formatter, summarize)
    edge = _options.edgeitems
    if summarize and len(array) > 2 * edge:
        parts = [_nested(a, indent + 1, formatter, True) for a in array[:edge]]
        parts.append("...")
        parts += [_nested(a, indent + 1, formatter, True) for a in array[-edge:]]
    else:
        parts = [_nested(a, indent + 1, formatter, summarize) for a in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _summarized(array: np.ndarray) -> np.ndarray:
    """The elements that a shortened text shows, for their common width."""
    edge = _options.edgeitems
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            keep = [*range(edge), *range(size - edge, size)]
            array = np.take(array, keep, axis)
    return array


def tensor_text(t: Tensor) -> str:
    """What `print(t)` shows."""
    meta = t._meta
    prefix = "tensor(" if type(t).__name__ == "Tensor" else f"{type(t).__name__} containing:\ntensor("
    suffixes = []
    default = (get_default_dtype(), int64, bool_)
    if meta.numel == 0:
        text = "[]"
        if t.ndim != 1:
            suffixes.append(f"size={tuple(t.shape)}")
        if meta.dtype is not get_default_dtype():
            suffixes.append(f"dtype={meta.dtype}")
    else:
        array = t._view_of_memory()
        summarize = array.size > _options.threshold
        shown = _summarized(array) if summarize else array
        text = _nested(array, 7, _Formatter(shown), summarize)
        if meta.dtype not in default:
            suffixes.append(f"dtype={meta.dtype}")
    function = t.grad_fn
    if function is not None:
        suffixes.append(f"grad_fn=<{function.name()}>")
    elif t.requires_grad:
        suffixes.append("requires_grad=True")
    body = prefix + text
    line = len(body) - body.rfind("\n") - 1
    for suffix in suffixes:
        if line + len(suffix) + 2 > _options.linewidth:
            body += ",\n" + " " * 7 + suffix
            line = 7 + len(suffix)
        else:
            body += ", " + suffix
            line += len(suffix) + 2
    return body + ")"
