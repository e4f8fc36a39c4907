"""Arguments right and wrong, for functions of a tensor: values where PyTorch gives values, errors where it raises.

Calls are generated from tables of inputs and arguments. What is wrong twice may be told in another order; what PyTorch refuses for a
type alone (an explicit None, sizes one by one) may be taken; nothing else that it refuses may give a value.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad

torch = pytest.importorskip("torch")

ERRORS = {"TypeError", "ValueError", "IndexError", "RuntimeError", "NotImplementedError", "OverflowError"}
MORE = {"norm", "logsumexp", "repeat_interleave", "trace", "round", "hypot"}  # that take more than PyTorch's
LESS = {  # name -> what is not taken, which PyTorch takes
    "flip": "a truth value as a dimension", "squeeze": "dimensions one by one",
    "cumsum": "sums of numbers in bool", "softmax": "integers where there is nothing", "log_softmax": "integers where there is nothing",
    "repeat": "a negative number of times where there is nothing", "tile": "a negative number of times where there is nothing",
}  # fmt: skip

INPUTS: dict[str, Callable[[Any], Any]] = {
    "f23": lambda T: T.arange(6, dtype=T.float32).reshape(2, 3) - 2.5,
    "d0": lambda T: T.tensor(1.5, dtype=T.float64),
    "i23": lambda T: T.arange(6).reshape(2, 3) - 2,
    "b23": lambda T: T.tensor([[True, False, True], [False, False, True]]),
    "u3": lambda T: T.tensor([3, 0, 250], dtype=T.uint8),
    "e03": lambda T: T.zeros(0, 3),
    "f234": lambda T: T.arange(24, dtype=T.float32).reshape(2, 3, 4) / 7,
    "i0": lambda T: T.tensor(3),
}
DIMS: list[Any] = [None, 0, 1, -1, -3, 2, 5, -7, (0,), (0, 1), (0, 0), (), (1, -1), 1.0, "x", True, [0, 1], (0, 9)]
CALLS: dict[str, list[Any]] = {}


def add(names: str, calls: list[Any]) -> None:
    for name in names.split():
        if hasattr(fastgrad.Tensor, name) or hasattr(fastgrad, name):
            CALLS.setdefault(name, []).extend(calls)


ONE = (
    [((d,), {}) for d in DIMS]
    + [((), {})]
    + [((), {"dim": d}) for d in (0, -1, (0, 1), 7)]
    + [((d,), {"keepdim": True}) for d in (0, -1, (0, 1), 4)]
    + [
        ((0, True), {}),
        ((0,), {"keepdim": 1}),
        ((0,), {"foo": 1}),
        ((), {"keepdim": True}),
        ((0,), {"axis": 1}),
        ((), {"axis": 0}),
        ((0,), {"keepdims": True}),
        ((0, 0, 0, 0), {}),
    ]
)
add(
    "sum mean prod amax amin max min argmax argmin any all std var norm logsumexp cumsum cumprod softmax log_softmax count_nonzero nansum median argsort sort unique std_mean var_mean aminmax nanmean cummax cummin mode kthvalue diff flip squeeze unsqueeze unbind fliplr flipud",
    ONE,
)
add(
    "sum mean prod cumsum softmax log_softmax",
    [((0,), {"dtype": t}) for t in ("float64", "int64", "bool", "int32")]
    + [((), {"dtype": "float64"}), ((), {"dtype": 5})],
)
add(
    "std var",
    [
        ((), {"unbiased": False}),
        ((0, False), {}),
        ((0,), {"correction": 0}),
        ((0,), {"correction": 7}),
        ((), {"correction": 1.5}),
        ((False,), {}),
        ((0,), {"correction": 2, "unbiased": True}),
    ],
)
TWO = [((a, b), {}) for a in (0, 1, -1, 2, -4, 5, 1.5, None, "x") for b in (0, 1, -2, 3, None)]
add("transpose swapaxes swapdims movedim flatten diagonal narrow select roll squeeze repeat_interleave unflatten", TWO)
add("flatten", [((d,), {}) for d in DIMS])
add("roll", [((d,), {}) for d in DIMS] + [((1, d), {}) for d in DIMS] + [(((1, 2), (0, 1)), {}), (((1, 2), 0), {})])
add("tril triu diagonal trace diag t", [((d,), {}) for d in (0, 1, -1, 9, -9, 1.5, None, True, "x")] + [((), {})])
add(
    "diagonal", [((0, a, b), {}) for a in (0, 1, -1, 2, 5) for b in (0, 1, -2, 3)] + [((9, 0, 1), {}), ((-9, 0, 1), {})]
)
add("narrow", [((d, s, l), {}) for d in (0, 1, -1, 4) for s in (0, 1, -1, 3, 9, -9) for l in (0, 1, 2, 5, -1)])
add(
    "reshape view expand repeat tile permute",
    [
        (a, {})
        for a in [
            (6,),
            (3, 2),
            (-1,),
            (-1, -1),
            (4,),
            (0,),
            (2, -1),
            (-2, 3),
            (6.0,),
            ("x",),
            (None,),
            ((3, 2),),
            ([3, 2],),
            ((),),
            (),
            (2, 3),
            (4, 2, 3),
            (2, 2, 3),
            (1, 0),
            (0, 1),
            (0, 0),
            (0, 5),
            (1, 0, 2),
            (-1, 0),
            ((1, 0),),
            (True,),
        ]
    ],
)
add(
    "split chunk tensor_split unfold",
    [
        (a, {})
        for a in [
            (1,),
            (2,),
            (0,),
            (-1,),
            (5,),
            (2, 1),
            (2, -1),
            (2, 5),
            ((1, 1),),
            ((1, 2), 1),
            ((1, 5),),
            ((1, 1), 1),
            (2, 0),
            (1.5,),
            ("x",),
            ((),),
            (3, 1),
            (0, 2, 1),
            (1, 2, 1),
            (1, 9, 1),
            (1, 2, 0),
            (1, -1, 1),
        ]
    ],
)
add(
    "clamp clip",
    [(a, {}) for a in [(), (None, None), (0,), (None, 1), (0, 1), (2, -1), (0.5,), (None, 0.5), ("x",), (0, True)]]
    + [((), {"min": 0}), ((), {"max": 1.5}), ((), {"min": None, "max": None})],
)
add("topk", [(a, {}) for a in [(1,), (2,), (0,), (9,), (-1,), (1, 0), (1, 5), (1, -1, False), (1.5,)]])
add("round", [((), {"decimals": d}) for d in (0, 1, -1, 2)] + [((), {})])
add(
    "relu abs neg sign exp log sqrt sin floor ceil trunc reciprocal rsqrt square sigmoid tanh erf isnan isfinite isinf logical_not bitwise_not nan_to_num frac expm1 logit",
    [((), {}), ((1,), {}), ((), {"foo": 1})],
)
add(
    "add sub mul div true_divide floor_divide remainder fmod pow atan2 maximum minimum eq lt logical_and bitwise_and bitwise_xor bitwise_left_shift hypot xlogy where lerp copysign",
    [((a,), {}) for a in (2, 2.5, True, "x", None, [1, 2], -1, 0, 2**40)] + [(("T:" + k,), {}) for k in INPUTS],
)
add("add sub", [((2,), {"alpha": a}) for a in (2, 2.5, True, "x", None)])
add("div", [((2,), {"rounding_mode": m}) for m in (None, "floor", "trunc", "x", 1)])
add("matmul mm mv dot bmm inner outer addmm", [(("T:" + k,), {}) for k in INPUTS])
add("cross kron cdist", [(("T:" + k,), {}) for k in INPUTS])
add(
    "index_select gather take masked_select index_fill",
    [
        (a, {})
        for a in [
            (0, "I:[0,1]"),
            (1, "I:[0,2,1]"),
            (0, "I:[5]"),
            (1, "I:[-1]"),
            (7, "I:[0]"),
            (0, "I:[[0,1]]"),
            (0, "I:1"),
            (0, "F:[0.]"),
            ("I:[0]",),
            (0, "I:[]"),
            ("M:",),
        ]
    ],
)
add(
    "masked_fill",
    [
        (a, {})
        for a in [("M:", 1), ("M:", 2.5), ("M:", True), ("M:", "x"), ("I:[0]", 1), ("M:", "T:d0"), ("M:", "T:f23")]
    ],
)
add("bincount histc", [((), {}), ((3,), {})])
add(
    "item tolist numpy numel dim size stride type contiguous clone detach is_floating_point double float int long bool half",
    [((), {}), ((0,), {}), ((5,), {}), ((-9,), {})],
)
add("to", [((t,), {}) for t in ("dtype:float64", "dtype:int64", "cpu", "x", 5)])


def converted(library: Any, value: Any) -> Any:
    """An argument: texts stand for tensors of the library."""
    if not isinstance(value, str):
        return value
    kind, _, text = value.partition(":")
    if kind == "T":
        return INPUTS[text](library)
    if kind == "I":
        return library.tensor(eval(text), dtype=library.int64)
    if kind == "F":
        return library.tensor(eval(text))
    if kind == "M":
        return library.tensor([[True, False, True], [False, True, False]])
    return getattr(library, text) if kind == "dtype" else value


def described(result: Any) -> Any:
    """Shapes, dtypes and values of a result."""
    if isinstance(result, (tuple, list)) and not hasattr(result, "numel"):
        return [described(x) for x in result]
    if hasattr(result, "detach"):
        values = np.asarray(result.detach().numpy(), dtype=np.float64)
        return tuple(result.shape), str(result.dtype).split(".")[-1], values
    return str(result).split(".")[-1]


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, list) and isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return mine[:2] == theirs[:2] and np.allclose(mine[2], theirs[2], rtol=1e-5, atol=1e-6, equal_nan=True)
    return bool(mine == theirs)


def outcome(library: Any, name: str, as_method: bool, given: str, args: Any, kwargs: Any) -> Any:
    x = INPUTS[given](library)
    args = [converted(library, a) for a in args]
    kwargs = {
        k: getattr(library, v) if k == "dtype" and isinstance(v, str) else converted(library, v)
        for k, v in kwargs.items()
    }
    owner = x if as_method else library
    if not hasattr(owner, name):
        return None
    function = getattr(owner, name)
    try:
        return "value", described(function(*args, **kwargs) if as_method else function(x, *args, **kwargs))
    except Exception as error:
        return type(error).__name__, str(error)


def complaint(name: str, mine: Any, theirs: Any) -> str:
    """What is wrong with fastgrad's outcome, beside PyTorch's."""
    if mine[0] != "value" and mine[0] not in ERRORS:
        return "an error from inside"
    if theirs[0] == "value":
        if mine[0] != "value":
            return "" if name in LESS else "refused"
        return "" if same(mine[1], theirs[1]) else "another value"
    if theirs[0] == "TypeError" or name in MORE or mine[0] != "value":
        return ""
    return "taken"


@pytest.mark.parametrize("name", list(CALLS))
def test_calls_give_values_and_errors_where_pytorch_does(name: str) -> None:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for as_method in (True, False):
            for given in INPUTS:
                for args, kwargs in CALLS[name]:
                    mine = outcome(fastgrad, name, as_method, given, args, kwargs)
                    theirs = outcome(torch, name, as_method, given, args, kwargs)
                    if mine is None or theirs is None:
                        continue
                    wrong = complaint(name, mine, theirs)
                    if wrong:
                        found.append(f"{wrong}: {name}({given}, {args}, {kwargs}): {mine}, PyTorch {theirs}")
    assert not found, "\n".join(found[:10])
