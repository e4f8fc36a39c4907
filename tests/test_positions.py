"""Functions that read and write at positions: values, and types of errors, where PyTorch has them.

Every function meets every tensor, index and source of the tables below, right and wrong ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgrad

torch = pytest.importorskip("torch")

INPUTS = ["T.zeros(3)", "T.arange(6.).reshape(3, 2)", "T.zeros(2, 3, 2, dtype=T.int64)", "T.tensor(5.)"]
INDICES = [
    "T.tensor([0])", "T.tensor([-1])", "T.tensor([0, 1])", "T.tensor(1)", "T.tensor([[0]])", "T.tensor([9])", "T.tensor([-9])",
    "T.tensor([0], dtype=T.int32)", "T.tensor([0.])", "T.tensor([], dtype=T.int64)", "T.tensor([True])",
]  # fmt: skip
SOURCES = [
    "T.ones(1)", "T.ones(())", "T.ones(1, 2)", "T.ones(2, 2)", "T.ones(2, 1, 2)", "T.ones(1, 2, dtype=T.float64)", "T.ones(0, 2)",
    "T.ones(1, dtype=T.bool)", "T.ones(1, 2, dtype=T.uint8)", "T.ones(3, 2, dtype=T.int64)", "T.ones(1, 3, 2, dtype=T.int64)",
]  # fmt: skip
CALLS = {
    "index_copy": "x.index_copy({d}, {i}, {s})",
    "index_add": "x.index_add({d}, {i}, {s})",
    "scatter": "x.scatter({d}, {i}, {s})",
    "scatter_add": "x.scatter_add({d}, {i}, {s})",
    "scatter a number": "x.scatter({d}, {i}, 3)",
    "index_fill": "x.index_fill({d}, {i}, 2)",
    "take": "x.take({i})",
    "gather": "x.gather({d}, {i})",
    "in place": "x.index_fill_({d}, {i}, 2)",
}


def outcome(library: Any, given: str, call: str) -> Any:
    try:
        names = {"T": library, "x": eval(given, {"T": library})}
        result = eval(call, names)
        return str(result.dtype).rsplit(".", 1)[-1], result.numpy().copy()
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize("given", INPUTS)
def test_positions_give_values_and_errors_as_in_pytorch(name: str, given: str) -> None:
    wrong = []
    calls = {CALLS[name].format(d=d, i=i, s=s) for d in (0, 1, -1) for i in INDICES for s in SOURCES}
    for call in sorted(calls):
        mine, theirs = outcome(fastgrad, given, call), outcome(torch, given, call)
        if isinstance(mine, str) and isinstance(theirs, str):
            fine = mine == theirs or {mine, theirs} == {
                "IndexError",
                "RuntimeError",
            }  # of two faults either may be told
        else:
            fine = type(mine) is type(theirs) and mine[0] == theirs[0] and np.array_equal(mine[1], theirs[1])
        if not fine and not (name == "index_add" and given == "T.tensor(5.)"):  # a vector of one is a number, too
            wrong.append(f"{given}: {call}: {mine}, PyTorch {theirs}")
    assert not wrong, "\n".join(wrong[:10])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("T.zeros(3).scatter(0, T.tensor([9]), 1.0)", RuntimeError),
        ("T.zeros(3).index_add(0, T.tensor([-1]), T.ones(1))", IndexError),
        ("T.zeros(3).index_add(0, T.tensor([[0]]), T.ones(1, 1))", IndexError),
        ("T.zeros(3).index_fill(0, T.tensor([0.0]), 1)", IndexError),
        ("T.zeros(3).index_copy(0, T.tensor([0]), T.ones(1, dtype=T.float64))", RuntimeError),
        ("T.zeros(3, 2).scatter_add(0, T.tensor([0]), T.ones(3, 2))", RuntimeError),
        ("T.zeros(3).take(T.tensor([0], dtype=T.int32))", RuntimeError),
    ],
)
def test_one_fault_has_pytorchs_type(call: str, error: type[Exception]) -> None:
    for library in (fastgrad, torch):
        with pytest.raises(error):
            eval(call, {"T": library})
