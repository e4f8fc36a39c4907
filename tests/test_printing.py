"""The printed form of tensors is PyTorch's, to the letter but for the library's name."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgrad

torch = pytest.importorskip("torch")

SHAPES = (
    (),
    (1,),
    (3,),
    (30,),
    (1200,),
    (2, 3),
    (1, 1),
    (5, 40),
    (2, 2, 3),
    (0,),
    (2, 0),
    (3, 2, 1, 2),
    (60, 30),
    (7, 7, 7),
    (1, 2000),
    (8, 8),
)
OPTIONS = ({}, {}, {"precision": 2}, {"threshold": 10}, {"edgeitems": 1, "threshold": 5}, {"linewidth": 40}, {"sci_mode": True},
           {"sci_mode": False}, {"profile": "short"})  # fmt: skip
VALUES = (
    lambda r, s: r.normal(size=s), lambda r, s: r.normal(size=s) * 10 ** r.uniform(-8, 8), lambda r, s: np.round(r.normal(size=s) * 10),
    lambda r, s: np.exp(r.normal(size=s) * 8), lambda r, s: np.zeros(s), lambda r, s: np.round(r.normal(size=s) * 1e5),
    lambda r, s: r.integers(0, 2, s) * 1e9, lambda r, s: r.integers(0, 2, s) * 1e-7 + 1,
)  # fmt: skip
KINDS = ("plain", "leaf", "result", "parameter", "transposed")


def text(library, array, kind, options):
    """What a library prints, with one name for both and the breaks before suffixes undone, which depend on the name's length."""
    library.set_printoptions(profile="default")
    library.set_printoptions(**options)
    try:
        t = library.from_numpy(array.copy())
        if kind in ("leaf", "result", "parameter") and array.dtype.kind == "f":
            t.requires_grad_()
            t = t if kind == "leaf" else t * 1 if kind == "result" else library.nn.Parameter(t.detach())
        if kind == "transposed" and t.ndim == 2:
            t = t.t()
        return re.sub(r",\s+(dtype|requires_grad|grad_fn|size)=", r", \1=", repr(t).replace("fastgrad", "torch"))
    finally:
        library.set_printoptions(profile="default")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from(["f4", "f8", "i8", "i4", "u1", "?"]), st.sampled_from(VALUES), st.sampled_from(OPTIONS),
       st.sampled_from(KINDS), st.integers(0, 2**32 - 1), st.lists(st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 1e-4, 1e8]), max_size=3))  # fmt: skip
def test_printed_as_in_pytorch(shape, dtype, values, options, kind, seed, special):
    r = np.random.default_rng(seed)
    if dtype in ("f4", "f8"):
        array = np.array(values(r, shape), dtype)
        for value in special if array.size else ():
            array.reshape(-1)[r.integers(array.size)] = value
    else:
        high = 2 if dtype == "?" else 250 if dtype == "u1" else int(10 ** r.uniform(0, 9)) + 1
        array = np.array(r.integers(0 if dtype in ("u1", "?") else -high, high, shape)).astype(dtype)
    assert text(fastgrad, array, kind, options) == text(torch, array, kind, options)


def test_modules_and_optimizers_are_printed_as_in_pytorch():
    for make in (
        lambda lib: lib.nn.Sequential(lib.nn.Linear(2, 3, bias=False), lib.nn.ReLU(), lib.nn.Dropout(0.3)),
        lambda lib: lib.nn.ModuleDict({"a": lib.nn.ModuleList(lib.nn.Linear(1, 1) for _ in range(3))}),
        lambda lib: lib.nn.ParameterList([lib.ones(2, 3)]),
        lambda lib: lib.nn.Linear(2, 3).state_dict()["bias"].shape,
        lambda lib: (lib.float32, lib.device("cpu"), lib.ones(2, 3).size()),
        lambda lib: lib.finfo(lib.float32).eps,
    ):
        assert repr(make(fastgrad)).replace("fastgrad", "torch") == repr(make(torch))
