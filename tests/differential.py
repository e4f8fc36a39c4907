"""The same text, run with both libraries: what it gives, or what it raises.

`outcome(library, text)` runs statements that know the library as `T` and describes the value of the last one: kinds, dtypes, shapes,
values, gradient flags, of containers part by part. `differences(texts)` are those whose descriptions differ. `generated(template, ...)`
writes texts from tables of parts.
"""

from __future__ import annotations

import ast
import copy
import decimal
import fractions
import itertools
import math
import operator
import pickle
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

import fastgrad

NAMES = {
    "np": np, "copy": copy, "pickle": pickle, "math": math, "operator": operator, "warnings": warnings,
    "Fraction": fractions.Fraction, "Decimal": decimal.Decimal,
}  # fmt: skip
UNKNOWN = (
    "int8",
    "int16",
    "float16",
    "bfloat16",
    "complex",
    "uint16",
    "uint32",
    "uint64",
)  # dtypes that fastgrad lacks


class Index:
    """An integer that is none of Python's or NumPy's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Real:
    """A number that is none of Python's or NumPy's."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class Whole(int):
    """A subclass of int."""


class Double(float):
    """A subclass of float."""


NAMES |= {"Index": Index, "Real": Real, "Whole": Whole, "Double": Double}


def describe(value: Any) -> Any:
    """A value in words that both libraries share."""
    kind = type(value)
    name = kind.__name__
    if hasattr(value, "requires_grad") and hasattr(value, "numel"):
        dtype = str(value.dtype).partition(".")[2]
        return (name, dtype, tuple(value.shape), value.requires_grad, describe(value.detach().cpu().numpy().tolist()))
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.name, value.shape, describe(value.tolist()))
    if isinstance(value, np.generic):
        return (name, describe(value.item()))
    if isinstance(value, dict):
        return [(k, describe(v)) for k, v in value.items()]
    if isinstance(value, (tuple, list, set)):
        return ("sequence", [describe(v) for v in value])
    if isinstance(value, float):
        return f"{float(f'{value:.5g}'):g}"  # to the figures that rounding leaves alike
    if kind.__module__.partition(".")[0] in ("torch", "fastgrad"):
        return str(value).replace("fastgrad", "torch")
    return value if isinstance(value, (int, complex)) or value is None else str(value).replace("fastgrad", "torch")


def outcome(library: Any, text: str) -> Any:
    """The description of the last expression's value, after the statements before it; or ("raises", the exception's type)."""
    names = {"T": library, "nn": library.nn, "F": library.nn.functional, **NAMES}
    program = ast.parse(text)
    last = program.body.pop()
    assert isinstance(last, ast.Expr), text
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            exec(compile(program, "<text>", "exec"), names)
            found = describe(eval(compile(ast.Expression(last.value), "<text>", "eval"), names))
        except Exception as error:
            return ("raises", type(error), str(error))
    kept = sorted(
        {w.category.__name__ for w in caught if w.category is UserWarning and "extremely slow" not in str(w.message)}
    )
    return (found, kept)


def alike(mine: Any, theirs: Any) -> bool:
    """Whether two outcomes are the same; of exceptions the kinds count, not the words."""
    if mine[0] == "raises" and theirs[0] == "raises":
        return issubclass(mine[1], theirs[1]) or issubclass(theirs[1], mine[1])
    return mine == theirs


def differences(texts: Iterable[str]) -> Iterator[tuple[str, Any, Any]]:
    """The texts whose outcomes differ from PyTorch's; those that need a dtype which fastgrad lacks must be refused with TypeError."""
    import torch

    for text in texts:
        for library in (torch, fastgrad):
            library.manual_seed(0)
        theirs, mine = outcome(torch, text), outcome(fastgrad, text)
        if theirs[0] != "raises" and any(f"'{u}" in str(theirs[0]) for u in UNKNOWN):
            if mine[0] == "raises" and issubclass(mine[1], TypeError):
                continue
        elif alike(mine, theirs):
            continue
        yield text, mine, theirs


def generated(template: str, **parts: Iterable[str]) -> Iterator[str]:
    """The template with every combination of its parts."""
    for choice in itertools.product(*parts.values()):
        text = template
        for name, part in zip(parts, choice, strict=True):
            text = text.replace(f"<{name}>", part)
        yield text


def check(texts: Iterable[str]) -> None:
    """All texts give what PyTorch gives."""
    found = list(itertools.islice(differences(texts), 12))
    assert not found, "\n".join(f"{text}\n    fastgrad: {mine}\n    PyTorch:  {theirs}" for text, mine, theirs in found)
