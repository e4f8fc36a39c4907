"""Ints read from state, in arithmetic with floats on either side, in functions and comparisons: every call has the value of the function."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from number_expressions import module, texts
from number_functions import FUNCTIONS
from state_programs import outcome

import fastgrad

state = types.SimpleNamespace(t=0)


def _in_place(x: Any) -> Any:
    v = 1.5
    v += state.t
    v *= state.t
    return x * v


WAYS: dict[str, Callable[[Any], Any]] = {
    "quotient": lambda x: x * (1.0 / (1 + state.t)),
    "floor quotient": lambda x: x * (7.5 // (state.t + 1)),
    "remainder": lambda x: x * (7.5 % (state.t + 2)),
    "power": lambda x: x * 0.9**state.t,
    "difference": lambda x: x * (0.5 - state.t),
    "in place": _in_place,
    "max": lambda x: x * max(1.5, state.t),
    "min": lambda x: x * min(2.5, state.t),
    "pow": lambda x: x * math.pow(2.0, state.t),
    "hypot": lambda x: x * math.hypot(1.0, state.t),
    "fsum": lambda x: x * math.fsum([0.5, state.t]),
    "ldexp": lambda x: x * math.ldexp(1.0, state.t),
    "chain": lambda x: x * (1.0 if 0.0 <= state.t < 2.0 else 5.0),
    "comparison": lambda x: x * (1.0 if state.t > 1.5 else 5.0),
    "equality": lambda x: x * (2.0 if 2.0 == state.t else 3.0),  # noqa: SIM300
    "membership": lambda x: x * (1.0 if state.t in [1.0, 3.0] else 2.0),
    "divmod": lambda x: x * divmod(7.5, state.t + 1)[0],
    "sum": lambda x: x * sum([1.5, state.t]),
    "round": lambda x: x * round(2.345, state.t),
    "index": lambda x: x * [1.0, 2.0, 3.0, 4.0, 5.0][state.t],
    "range": lambda x: x * sum(i for i in range(state.t + 1)),
    "text": lambda x: x * float(f"{state.t}.5"),
    "sorted": lambda x: x * sorted([2.5, state.t])[0],
    "complex": lambda x: x * abs(complex(state.t, 0.0)),
    "order": lambda x: (x * fastgrad.arange(4.0) * (state.t - 1.5)).sort(descending=True)[0],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_call_has_the_value_of_the_function(way: str) -> None:
    f = WAYS[way]
    compiled = fastgrad.compile(f)
    for t in (0, 1, 2, 3, 4, 2):
        state.t = t
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert compiled(fastgrad.full((1,), 12.0)).tolist() == f(fastgrad.full((1,), 12.0)).tolist()


def test_data_replaced_and_gradients_kept_inside() -> None:
    def run(wrap: Callable[[Any], Any]) -> list[Any]:
        w, v = fastgrad.ones(2, requires_grad=True), fastgrad.ones(2, requires_grad=True)

        def step(x: Any) -> Any:
            w.grad = v.grad = None
            h = w * x
            h.retain_grad()
            (h * h + v * x).sum().backward()
            w.data = w.data - 0.125 * w.grad
            v.data -= 0.125 * v.grad
            return h.grad

        g = wrap(step)
        return [(g(fastgrad.tensor([1.0, 2.0 + i])).tolist(), w.tolist(), v.tolist()) for i in range(5)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(fastgrad.compile) == run(lambda f: f)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return module(tmp_path_factory.mktemp("numbers")).functions  # type: ignore[no-any-return]


FLOATS, INTS = (0.5, 1.5, 0.5, 2.0, 0.25, 1 / 3, 3.0, 0.1, 0.0), (1, 2, 3, 2, 1, 3, 2, 1, 0)
DATA = [[1.0, 2.0, 3.0, -1.5], [[1.0, 2.0], [3.0, -1.5]]]


def agrees(f: Any, where: str, data: Any) -> None:
    """Compiled and plain, a function gives the same for numbers that differ from call to call."""
    known = types.SimpleNamespace(k=0.0, n=0)
    given = fastgrad.compile(f if where == "argument" else lambda x: f(x, known.n, known.k))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*runs its Python", RuntimeWarning)
        for rows in data:
            x = fastgrad.tensor(rows)
            for known.k, known.n in zip(FLOATS, INTS, strict=True):
                right, text = outcome(f, x, known.n, known.k)
                found, other = outcome(given, x, *([known.n, known.k] if where == "argument" else []))
                if right[0] == "raised" or "nan" in str(text):  # a NaN has either sign
                    shown = ("", "") if right[0] == "raised" else (str(text), str(other))
                    right, found = (right[:2], shown[0]), (found[:2], shown[1])
                assert right == found, f"{other} should be {text}"


@pytest.mark.parametrize("where", ["argument", "state"])
@pytest.mark.parametrize("number", range(len(texts())), ids=texts())
def test_expressions_of_numbers_that_differ_from_call_to_call(number: int, where: str, functions: Any) -> None:
    agrees(functions[number], where, DATA)


@pytest.mark.parametrize("where", ["argument", "state"])
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_statements_with_numbers_that_differ_from_call_to_call(f: Any, where: str) -> None:
    agrees(f, where, DATA[:1])
