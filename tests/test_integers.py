"""Integers: divisions, remainders, shifts and bits, for every type, at the ends of their ranges, in every way of running them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastgrad

TYPES = ["uint8", "int32", "int64"]
DIVISIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "//": lambda t, a, b: a // b,
    "%": lambda t, a, b: a % b,
    "floor_divide": lambda t, a, b: t.floor_divide(a, b),
    "remainder": lambda t, a, b: t.remainder(a, b),
    "fmod": lambda t, a, b: t.fmod(a, b),
    "floor": lambda t, a, b: t.div(a, b, rounding_mode="floor"),
    "trunc": lambda t, a, b: t.div(a, b, rounding_mode="trunc"),
}
SHIFTS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "<<": lambda t, a, b: a << b,
    ">>": lambda t, a, b: a >> b,
    "left": lambda t, a, b: t.bitwise_left_shift(a, b),
    "right": lambda t, a, b: t.bitwise_right_shift(a, b),
}


def values(kind: str, seed: int = 0, count: int = 60) -> np.ndarray:
    """Integers of every size, with both ends of the range and what is next to them and to zero."""
    ends = np.iinfo(kind)
    near = [x for x in (ends.min, ends.min + 1, -2, -1, 0, 1, 2, 7, 63, 64, ends.max - 1, ends.max) if x >= ends.min]
    random = np.random.default_rng(seed)
    sizes = random.integers(0, ends.bits, count).tolist()
    more = [int(random.integers(ends.min, ends.max, endpoint=True, dtype=kind)) >> s for s in sizes]
    return random.permutation(np.array(near + more, dtype=kind))


@pytest.fixture(params=["plain", "eager", "tier0", "tier1", "draft", "compiled"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Calls a function of tensors, three times in a way of running, and gives the last result."""
    mode = request.param

    def call(function: Callable[..., Any], *operands: Any) -> Any:
        for _ in range(3):
            with fastgrad.eager() if mode == "eager" else fastgrad.no_grad():
                result = function(*operands).numpy()
        return result

    def compiled(function: Callable[..., Any], *operands: Any) -> Any:
        return call(fastgrad.compile(function), *operands)

    if mode.startswith("tier"):
        fastgrad.set_tier(int(mode[-1]))
    if mode == "draft":
        fastgrad.recording.local.trace.strangers = 1 << 20
    yield compiled if mode == "compiled" else call
    fastgrad.set_tier(None)


def exact(name: str, a: int, b: int, kind: Any) -> int:
    """The result in integers without an end, as much of it as the type holds."""
    bits = np.iinfo(kind).bits
    if name in SHIFTS:
        away = b < 0 or b >= bits
        left = name in ("<<", "left")
        result = (0 if away else a << b) if left else a >> (bits if away else b)
    elif name in ("trunc", "fmod"):
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        result = quotient if name == "trunc" else a - quotient * b
    else:
        result = a % b if name in ("%", "remainder") else a // b
    result &= (1 << bits) - 1
    return result - (1 << bits) if np.iinfo(kind).min < 0 and result >> (bits - 1) else result


@pytest.mark.parametrize("kinds", list(itertools.product(TYPES, TYPES)), ids="-".join)
@pytest.mark.parametrize("name", [*DIVISIONS, *SHIFTS])
def test_integers_of_all_types_have_exact_results(name: str, kinds: tuple[str, str], run: Any) -> None:
    left, right = values(kinds[0]), values(kinds[1], 1)
    left, right = left[: min(left.size, right.size)], right[: min(left.size, right.size)]
    if name in DIVISIONS:
        right = np.where(right == 0, right.dtype.type(3), right)
    function = (DIVISIONS | SHIFTS)[name]
    got = run(lambda a, b: function(fastgrad, a, b), fastgrad.tensor(left), fastgrad.tensor(right))
    kind = np.result_type(*kinds)
    assert got.dtype == kind
    assert got.tolist() == [exact(name, a, b, kind) for a, b in zip(left.tolist(), right.tolist(), strict=True)]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", [*DIVISIONS, *SHIFTS])
def test_numbers_on_both_sides_have_exact_results(name: str, kind: str) -> None:
    function = (DIVISIONS | SHIFTS)[name]
    array = values(kind)
    for number in (-70, -2, -1, 1, 2, 3, 8, 31, 63, 64, 200, True):
        if kind == "uint8" and number < 0:
            continue  # what a number becomes that its type does not hold is C's business
        got = function(fastgrad, fastgrad.tensor(array), number)
        assert got.tolist() == [exact(name, a, int(number), kind) for a in array.tolist()], number
        other = array if name in SHIFTS else np.where(array == 0, array.dtype.type(5), array)
        got = function(fastgrad, number, fastgrad.tensor(other))
        assert got.tolist() == [exact(name, int(number), b, kind) for b in other.tolist()], number


def test_a_chain_of_integer_operations_wraps_at_every_step(run: Any) -> None:
    torch = pytest.importorskip("torch")

    def chain(t: Any, a: Any, b: Any) -> Any:
        c = (a // b) * 3 + (a % b)
        return ((c << 5) ^ (a >> (b & 7))) // (b | 1) - t.fmod(c, b) * (c > 0)

    for kind in TYPES:
        left, right = values(kind), values(kind, 1)
        right = np.where(right == 0, right.dtype.type(9), right)
        wanted = chain(torch, torch.from_numpy(left), torch.from_numpy(right))
        got = run(lambda a, b: chain(fastgrad, a, b), fastgrad.tensor(left), fastgrad.tensor(right))
        assert got.tolist() == wanted.tolist(), kind


@pytest.mark.parametrize("kind", ["bool", *TYPES])
@pytest.mark.parametrize("name", DIVISIONS)
@pytest.mark.parametrize("place", [0, 4])
def test_a_division_by_zero_is_an_error_and_what_follows_works(name: str, kind: str, place: int, run: Any) -> None:
    function = DIVISIONS[name]
    divisor = np.ones(5, dtype=kind)
    divisor[place] = 0
    a, b = fastgrad.arange(5), fastgrad.tensor(divisor)
    with pytest.raises(RuntimeError, match=f"ZeroDivisionError.*element {place}.*test_integers.py"):
        run(lambda a, b: function(fastgrad, a, b), a, b)
    good = fastgrad.ones(5, dtype=b.dtype)
    assert run(lambda a, b: function(fastgrad, a, b), a, good).tolist() == function(np_like, np.arange(5), 1).tolist()


class np_like:
    """NumPy under the names of PyTorch, for operands that are not negative."""

    floor_divide, remainder, fmod = np.floor_divide, np.remainder, np.fmod

    @staticmethod
    def div(a: Any, b: Any, rounding_mode: str) -> Any:
        return a // b


def test_a_division_by_the_number_zero_is_an_error_at_once() -> None:
    a = fastgrad.arange(3)
    for zero in (0, False, np.int64(0), np.uint8(0)):
        for name in ("//", "%", "floor", "trunc", "fmod"):
            with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                DIVISIONS[name](fastgrad, a, zero)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        a //= 0
    assert a.tolist() == [0, 1, 2]


def test_floats_are_divided_by_zero_as_floats_are() -> None:
    a = fastgrad.tensor([1, -1, 0])
    assert str((a // 0.0).tolist()) == "[inf, -inf, nan]"
    assert str((a % 0.0).tolist()) == "[nan, nan, nan]"
    assert str((a / 0).tolist()) == "[inf, -inf, nan]"
    assert str((a.double() // fastgrad.zeros(3, dtype=fastgrad.int64)).tolist()) == "[inf, -inf, nan]"


def test_nothing_is_divided_where_nothing_is() -> None:
    none = fastgrad.ones(0, dtype=fastgrad.int64)
    for result in (none // 0, none % fastgrad.zeros(1, dtype=fastgrad.int64), none // fastgrad.zeros_like(none)):
        assert result.tolist() == []


def test_an_integer_division_by_zero_leaves_what_it_would_have_written() -> None:
    a, kept = fastgrad.arange(4), fastgrad.arange(4)
    b = fastgrad.tensor([1, 0, 1, 1])
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        kept.copy_(a // b).tolist()
    assert a.tolist() == [0, 1, 2, 3]
    assert b.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("operator_", [operator.lshift, operator.rshift], ids=["<<", ">>"])
def test_shifts_of_floats_and_of_booleans_are_refused(operator_: Any) -> None:
    whole, real, flag = fastgrad.tensor([1]), fastgrad.tensor([1.0]), fastgrad.tensor([True])
    for left, right in ((whole, 2.5), (2, real), (real, 2), (whole, real), (flag, flag)):
        with pytest.raises(NotImplementedError, match="shift"):
            operator_(left, right)
    for other in ("2", None, [1]):
        with pytest.raises(TypeError):
            operator_(whole, other)


def test_shifts_in_place() -> None:
    a = fastgrad.tensor([1, 2, -8])
    view = a[1:]
    a <<= 2
    view >>= fastgrad.tensor([1, 3])
    assert a.tolist() == [4, 4, -4]
    assert a.bitwise_left_shift_(1).bitwise_right_shift_(2).tolist() == [2, 2, -2]
    assert (a << np.array([1, 2, 3])).tolist() == [4, 8, -16]
    assert (fastgrad.tensor([1], dtype=fastgrad.uint8) << np.array([9])).tolist() == [512]


def test_a_remainder_of_floats_has_the_gradients_of_its_parts() -> None:
    a = fastgrad.tensor([5.5, -7.25, 3.0], requires_grad=True)
    b = fastgrad.tensor([2.0, 2.5, -1.25], requires_grad=True)
    (fastgrad.fmod(a, b) * fastgrad.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert a.grad.tolist() == [1.0, 2.0, 3.0]
    assert b.grad.tolist() == [-2.0, 4.0, 6.0]


def test_bits_seen_as_another_type_share_the_memory() -> None:
    a = fastgrad.tensor([1.0, 2.0, 3.0])
    bits, pending = a.view(fastgrad.int32), a * 2
    bits[0] = 0
    bits += 1
    assert pending.tolist() == [2.0, 4.0, 6.0]
    assert a.tolist() == bits.numpy().view("f4").tolist()
    a.view(fastgrad.uint8)[:4] = 0
    assert a[0].item() == 0 == bits[0].item()
    with fastgrad.no_grad():
        a.fill_(1.0)
    assert bits.tolist() == [0x3F800000] * 3
    assert a[1:].view(dtype=fastgrad.int32).data_ptr() == a[1:].data_ptr()


def test_bits_of_a_parameter_follow_its_training() -> None:
    p = fastgrad.nn.Parameter(fastgrad.ones(3))
    bits = p.view(fastgrad.int32)
    assert not bits.requires_grad
    assert bits.grad_fn is None
    for _ in range(5):
        p.grad = None
        (p * p).sum().backward()
        with fastgrad.no_grad():
            p -= 0.125 * p.grad
        assert bits.tolist() == p.detach().numpy().view("i4").tolist()


@pytest.mark.parametrize(
    "kinds", list(itertools.product(["bool", *TYPES, "float32", "float64"], repeat=2)), ids="-".join
)
def test_bits_seen_as_another_type_have_shape_and_values_of_pytorch(kinds: tuple[str, str]) -> None:
    torch = pytest.importorskip("torch")
    pieces: list[Callable[[Any], Any]] = [
        lambda x: x,
        lambda x: x[1:],
        lambda x: x[:, 2:6],
        lambda x: x[:, 1:5],
        lambda x: x[:, ::2],
        lambda x: x.t(),
        lambda x: x[0, 0],
        lambda x: x[:0],
        lambda x: x[:, :0],
        lambda x: x[:1].expand(3, 8),
        lambda x: x.reshape(2, 2, 8).transpose(0, 1),
    ]

    def seen(library: Any) -> list[Any]:
        results: list[Any] = []
        for piece in pieces:
            x = piece(library.from_numpy((np.arange(32).reshape(4, 8) % 2).astype(kinds[0])))
            try:
                y = x.view(getattr(library, kinds[1]))
            except RuntimeError:
                results.append("RuntimeError")
            else:
                results.append((tuple(y.shape), y.tolist(), str(y.dtype).split(".")[-1]))
        return results

    assert seen(fastgrad) == seen(torch)


def test_bits_inside_a_compiled_function_are_read_at_every_call() -> None:
    function = fastgrad.compile(lambda a: a.view(fastgrad.int32) + 1)
    with pytest.warns(RuntimeWarning, match="another dtype"):
        assert function(fastgrad.zeros(2)).tolist() == [1, 1]
    assert function(fastgrad.ones(2)).tolist() == [0x3F800001] * 2
