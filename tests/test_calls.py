"""Calls written out, by kind: value, dtype, shape and printed form, or type of error, as in PyTorch.

Here stand the calls that a table of functions and arguments (`test_arguments.py`) doesn't make.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import fastgrad

torch = pytest.importorskip("torch")

DTYPES = ["float32", "float64", "int64", "int32", "uint8", "bool"]
CALLS: dict[str, list[str]] = {
    "variances of what is not finite": [
        f"T.tensor({values}, dtype=T.{kind}).{call}"
        for values in ("[1., math.nan]", "[math.inf, 1., 2.]", "[-math.inf, -math.inf]", "[[1., 2.], [math.nan, 3.]]", "[[], []]", "[3., 3.]")
        for kind in ("float32", "float64")
        for call in ("var()", "std()", "var(-1)", "std(-1, correction=0)", "var(correction=-1)", "std(0)", "std(correction=9)")
    ],
    "views of one number in another dtype": [
        f"T.ones(2, 2, dtype=T.{a}).{view}.to(T.{b}){end}"
        for a in DTYPES for b in DTYPES for view in ("diagonal()", "t()", "[0]", "diagonal()[1:]") for end in ("", ".sum()", " + 1")
    ],
    "masked writes of another dtype": [
        f"put(T.zeros(2, dtype=T.{a}), T.tensor([True, False]), T.ones(1, dtype=T.{b}))" for a in DTYPES for b in DTYPES
    ],
    "numbers of NumPy as exponents": [
        f"T.tensor([2, 3], dtype=T.{kind}) ** np.{number}"
        for kind in DTYPES[:5] for number in ("int64(-1)", "int32(2)", "float32(0.5)", "float64(-2)", "int64(0)", "uint8(3)")
    ],
    "addcmul and addcdiv of mixed dtypes": [
        f"T.{name}(T.ones(2, dtype=T.{a}), 2 * T.ones(2, dtype=T.{b}), T.ones(2, dtype=T.{c}), value={value})"
        for name in ("addcmul", "addcdiv") for a in DTYPES for b in DTYPES[::2] for c in DTYPES[1::2] for value in (1, 2, 0.1)
    ] + [f"T.{name}(T.ones(2, dtype=T.bool), T.ones(2, dtype=T.bool), T.ones(2, dtype=T.bool))" for name in ("addcmul", "addcdiv")],
    "lerp": [
        f"T.lerp(T.tensor([0.1, 1.], dtype=T.{a}), T.tensor([1e30, 3.]).to(T.{b}), {weight})"
        for a in DTYPES for b in (a, "float32")
        for weight in ("0.25", "1.0", "0.75", "-2", "T.tensor([0.25, 0.75])", "T.tensor(0.75)", "T.tensor(0.75, dtype=T.float64)", "T.tensor([1, 0])")
        if b != "int32" and b != "uint8" and b != "int64" and b != "bool"
    ] + ["T.lerp(T.tensor([math.inf, 1.]), T.tensor([1., math.inf]), 0.5)", "T.ones(2).lerp_(T.zeros(2), 0.9)"],
    "closeness": [
        f"T.isclose(T.tensor({a}, dtype=T.{kind}), T.tensor({b}, dtype=T.{other}), **{bounds})"
        for a, b in (([5, 7], [7, 5]), ([1, 0], [0, 1]), ([1, 1], [1, 1])) for kind in DTYPES for other in (kind, "float32")
        for bounds in ({}, {"atol": 3}, {"rtol": 0.5}, {"rtol": -1})
    ] + ["T.allclose(T.ones(2), 1.0)", "T.isclose(T.ones(1), True)", "T.allclose(T.ones(2), T.ones(2).double())"],
    "gradients that are not connected": [
        f"T.autograd.grad((x * 2).sum(), [x, T.tensor([{value}], requires_grad=True)], allow_unused=True, materialize_grads=True)[1]"
        for value in ("math.inf", "math.nan", "1.")
    ],
}  # fmt: skip


def put(target: Any, index: Any, value: Any) -> Any:
    target[index] = value
    return target


def described(result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return [described(x) for x in result]
    if hasattr(result, "detach"):
        return str(result.dtype).rsplit(".", 1)[-1], tuple(result.shape), result.detach().numpy().copy()
    return result.replace("fastgrad", "torch") if isinstance(result, str) else result


def outcome(library: Any, call: str) -> Any:
    library.manual_seed(0)
    names = {"T": library, "F": library.nn.functional, "np": np, "math": math, "put": put}
    names["x"] = library.tensor([1.0, 2.0], requires_grad=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "value", described(eval(call, names))
    except Exception as error:
        return type(error), str(error)


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, list) and isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    if isinstance(mine, tuple) and isinstance(theirs, tuple) and len(mine) == 3 and isinstance(mine[2], np.ndarray):
        close = mine[:2] == theirs[:2] and np.allclose(mine[2], theirs[2], rtol=2e-6, atol=1e-30, equal_nan=True)
        return bool(close)
    return type(mine).__name__ == type(theirs).__name__ and bool(mine == theirs)


@pytest.mark.parametrize("kind", list(CALLS))
def test_calls_give_what_pytorch_gives(kind: str) -> None:
    wrong = []
    for call in CALLS[kind]:
        mine, theirs = outcome(fastgrad, call), outcome(torch, call)
        if mine[0] == "value" and theirs[0] == "value":
            fine = same(mine[1], theirs[1])
        else:
            fine = "value" not in (mine[0], theirs[0]) and issubclass(mine[0], theirs[0])
        if not fine:
            wrong.append(f"{call}: {mine}, PyTorch {theirs}")
    assert not wrong, "\n".join(wrong[:10])
