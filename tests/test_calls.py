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
    "probabilities": [
        f"F.binary_cross_entropy(T.tensor({p}), T.tensor({t}), reduction='{r}')"
        for p in ([0.5, 1.5], [0.0, 1.0], [0.5, math.nan], [-0.1, 0.5]) for t in ([0.0, 1.0], [0.5, 1.5], [0.25, 1.0]) for r in ("mean", "none")
    ] + [
        "(F.binary_cross_entropy(x, T.zeros(2)).backward(), x.grad)", "T.bernoulli(T.tensor([0., 1.]))", "T.bernoulli(T.tensor([0., 1.5]))",
        "T.bernoulli(T.tensor([0, 1]))", "T.bernoulli(T.zeros(3), 1.)", "T.bernoulli(T.zeros(3), p=0)", "T.bernoulli(T.zeros(3), 2.)",
        "T.zeros(3).bernoulli(1.)", "T.zeros(2).bernoulli_(T.tensor([0., 2.]))", "T.multinomial(T.tensor([1, 2]), 1)",
        "T.normal(0., math.nan, (2,))",
    ],
    "forms of randint": [
        f"T.randint({form}).shape[0]"
        for form in ("5, size=(3,)", "2, 5, size=(3,)", "high=5", "high=5, size=(2,)", "5, (3,)", "5", "low=1, high=2, size=(2,)", "low=1, high=2",
                     "2**40, (3,), dtype=T.float32", "-2**63, 2**63 - 1, (3,)", "5, 5, (3,)", "0, 2**40, (3,), dtype=T.int32")
    ] + ["T.zeros(99).random_().max() <= 2**24", "T.zeros(3).random_(0, 2**60).dtype.itemsize", "T.manual_seed(2**64)"],
    "classes and targets": [
        f"F.{name}(T.ones{input}, {target}, reduction='{reduction}')"
        for name in ("cross_entropy", "nll_loss") for input in ("(3)", "(2, 3)", "(2, 3, 2)") for reduction in ("mean", "none")
        for target in ("T.tensor([1])", "T.tensor(1)", "T.tensor([0, 1])", "T.ones(3)", "T.zeros(2, 2, dtype=T.int64)", "T.tensor([0, 1, 2])")
    ] + ["F.nll_loss(T.tensor(1.), T.tensor([0]))", "F.cross_entropy(T.ones(2, 3), T.ones(2, 3), ignore_index=0)"],
    "weighted losses": [
        f"F.{name}(T.tensor([1., 2.]), T.tensor([0., 5.]), weight=T.tensor({weight}), reduction='{reduction}')"
        for name in ("mse_loss", "l1_loss", "huber_loss") for weight in ("[1., 3.]", "[1.]", "1.", "[0., 0.]") for reduction in ("mean", "sum", "none", "x")
    ],
    "linear of a vector": [f"F.linear(T.ones(3), T.ones(3){bias})" for bias in ("", ", T.tensor(2.)", ", T.ones(1)")],
    "products left out": [
        f"T.{name}(T.ones({shape}), T.full(({shape}), {value}), T.ones({shape}), alpha={alpha}, beta={beta})"
        for name, shape in (("addmm", "2, 2"),) for value in ("math.nan", "math.inf", "2.") for alpha in (0, 1, 2) for beta in (0, 1, 3)
    ] + [f"T.addmm(*[T.ones(2, 2, dtype=T.int64)] * 3, alpha={a}, beta={b})" for a in (1, 2) for b in (1, 2.5, 3)],
    "joined tensors": [f"T.cat([T.ones({a}), T.ones({b})], {d})" for a in ("3", "2, 3", "0", "2, 3, 1") for b in ("3", "2, 3", "0") for d in (0, -1)],
    "sizes": [
        f"{form}.numel()" for form in ("T.ones(2, 3, 4).shape[1:]", "T.ones(2, 3).size()[:0]", "(T.ones(2).shape + (3,))", "((5,) + T.ones(2).shape)", "(T.ones(2).shape * 2)", "(2 * T.ones(2).shape)")
    ] + ["repr(T.ones(2, 3).shape[:1] + T.ones(4).shape)", "T.ones(2).shape + [1]", "T.ones(2, 3).shape[1]", "T.ones(2, 3).shape[::-1] == (3, 2)"],
    "printed": [f"repr(T.tensor([[3., 1.], [2., 5.]]).{call})" for call in ("max(0)", "min(1)", "sort()", "topk(1)")]
    + [f"repr(T.{info})" for info in ("finfo(T.float32)", "finfo(T.float64)", "finfo()", "iinfo(T.int32)", "iinfo(T.uint8)", "iinfo(T.int64)")],
    "norms": [
        f"T.tensor({values}).norm({args})" for values in ("[3., 4.]", "[[1., math.nan], [0., 2.]]", "[]", "[[], []]")
        for args in ("dtype=T.float64", "1, dtype=T.float64", "-1", "-2, 0", "2, dtype=T.int64", "p=3, dim=0, dtype=T.float64", "float('-inf')")
    ] + ["T.tensor([1.], dtype=T.float64).norm(dtype=T.float32)"],
    "different values": [
        f"T.unique(T.tensor({values}){args})" for values in ("[2., math.nan, 1., math.nan]", "[[1, 2], [1, 2], [0, 5]]", "[[3, 3, 1], [3, 3, 1]]", "[]", "3")
        for args in ("", ", return_inverse=True, return_counts=True", ", dim=0", ", dim=-1, return_inverse=True, return_counts=True", ", dim=5")
    ],
    "ranges": [
        f"T.{form}" for form in ("arange(2.5, dtype=T.int64)", "arange(2.5, dtype=T.int32)", "arange(0.5, 5, dtype=T.int64)", "arange(5, dtype=T.bool)", "arange(-2.5, 3, 2, dtype=T.int64)",
                                 "arange(0, 3, 0.5, dtype=T.int64)", "linspace(0, 1, 3, dtype=T.bool)", "arange(5, 0, -1.5, dtype=T.int64)")
    ],
    "operators and statements that tensors refuse": [
        "+T.tensor([True])", "+T.tensor([1])", "T.ones(3).__delitem__(0)", "T.ones(2, 3)[..., ...]", "T.ones(2, 3)[..., 0, ...]", "T.ones(2, 3)[0, ..., ...]",
        "put(T.zeros(2, 3), (..., ...), 1.)", "T.softmax(T.tensor([1, 2]), 0)", "T.log_softmax(T.tensor([1, 2]), 0)",
    ],
    "what asarray returns": ["T.asarray(x) is x", "T.asarray(x, copy=True) is x", "T.asarray(T.nn.Parameter(T.ones(1))).requires_grad", "T.asarray(T.ones(1), requires_grad=True).requires_grad"],
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
