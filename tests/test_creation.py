"""What tensors are made of: data, sizes, numbers, random draws. Tables of expressions, run in PyTorch and here."""

import itertools

import numpy as np
import pytest
from differential import check, generated
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgrad

pytest.importorskip("torch")

LEAVES = (
    "1", "1.5", "True", "np.float64(1)", "np.float32(1.5)", "np.int32(1)", "np.int64(3)", "np.uint8(1)", "Whole(2)", "Double(2.5)",
)  # fmt: skip
DATA = (
    "[]", "()", "[[]]", "[[], []]", "[[[]]]", "[[1, 2], [3]]", "[[1], 2]", "[1, [2]]", "'abc'", "['a', 'b']", "[1, 2, 'a']", "[None]",
    "None", "[1, None]", "{}", "{1}", "[(1, 2), [3, 4]]", "range(3)", "[range(2), range(2)]", "2**63", "2**63 - 1", "-2**63", "2**64",
    "[1, 2**63]", "[1., 2**70]", "float('nan')", "[np.array([1., 2.]), np.array([3., 4.])]", "[np.array([1, 2]), [3., 4.]]",
    "[np.array([1, 2], 'f4')] * 2", "[T.tensor(1.), T.tensor(2.)]", "[T.tensor(1), 2.5]", "[T.tensor([1., 2.])] * 2",
    "[T.tensor(1., dtype=T.float64)]", "np.array(2.)", "np.array([1, 2])", "np.array(['a'])", "np.array([None])", "np.zeros((0, 3))",
    "np.zeros((2, 3)).T", "Fraction(1, 2)", "[Decimal(1)]", "Index(2)", "[Real(2)]", "object()", "[np.array([True])]", "b'ab'",
    "np.array([1, 2], 'u2')", "np.array([1.5], 'f2')", "(x for x in [1])", "T.tensor([1., 2.])", "[[True], [np.True_]]", "1e300",
)  # fmt: skip
DTYPES = (
    "",
    ", dtype=T.uint8",
    ", dtype=T.int32",
    ", dtype=T.int64",
    ", dtype=T.float32",
    ", dtype=T.float64",
    ", dtype=T.bool",
)


def test_types_of_lists_of_numbers():
    check(generated("T.tensor([<a>, <b>])", a=LEAVES, b=LEAVES))
    check(generated("T.tensor(<a>)", a=LEAVES))
    check(generated("T.tensor([[<a>], [<b>]])", a=LEAVES, b=LEAVES[:4]))


def test_numbers_and_a_given_type():
    plain = ("1", "1.5", "True", "-1", "300", "-0.5", "2**40", "1e30", "float('inf')", "np.float64(2.5)", "np.int32(3)")
    check(generated("T.tensor([<a>]<t>)", a=plain, t=DTYPES))


def test_data_of_every_kind():
    check(generated("T.<f>(<d>)", f=("tensor", "as_tensor"), d=DATA))
    readable = tuple(d for d in DATA if "T.tensor" not in d and "f4" not in d and "True" not in d and "f2" not in d)
    check(generated("T.tensor(<d><t>)", d=readable, t=DTYPES))


def test_what_only_fastgrad_takes():
    assert fastgrad.tensor([np.bool_(True), 2]).tolist() == [1, 2]
    assert fastgrad.tensor([np.float32(2.5)], dtype=fastgrad.int64).tolist() == [2]
    assert fastgrad.tensor(np.arange(4)[::-1]).tolist() == [3, 2, 1, 0]
    with pytest.raises(TypeError, match="complex"):
        fastgrad.tensor([1j])


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.sampled_from([1, 2.5, True, np.float64(2), np.int32(3)]),
        lambda x: st.lists(x, min_size=1, max_size=3),
        max_leaves=6,
    )
)
def test_nested_data(data):
    import torch

    made = []
    for library in (torch, fastgrad):
        try:
            t = library.tensor(data)
            made.append((str(t.dtype).partition(".")[2], tuple(t.shape), t.tolist()))
        except (TypeError, ValueError):
            made.append("refused")
    assert made[0] == made[1]


SIZES = (
    "2", "2, 3", "(2, 3)", "[2, 3]", "()", "0", "-1", "2.0", "np.int64(2)", "np.int64(2), np.int32(3)", "(np.int64(2), 3)", "T.tensor(2)",
    "T.tensor(2), 3", "(T.tensor(2),)", "T.tensor([2, 3])", "T.tensor(2.)", "np.array([2, 3])", "True", "Whole(2)", "None", "'a'",
    "(2, -1)", "size=(2, 3)", "size=2", "2, size=3", "T.Size([2, 3])", "(2,), 3",
)  # fmt: skip
KEYWORDS = (
    "", ", dtype=T.int64", ", dtype=T.float64, requires_grad=True", ", requires_grad=True, dtype=T.int32", ", require_grad=True",
    ", device='cpu'", ", dtype=float", ", dtype=int", ", dtype=bool", ", dtype=None", ", requires_grad=None", ", dtyp=1", ", generator=None",
    ", generator=3", ", generator=T.Generator()",
)  # fmt: skip


def test_sizes():
    check(generated("T.<f>(<s>)", f=("zeros", "ones"), s=SIZES))
    check(generated("T.<f>(<s>).shape", f=("empty", "rand", "randn"), s=SIZES))
    check(
        generated(
            "T.ones(6).<f>(<s>)",
            f=("view", "reshape"),
            s=("2, 3", "(2, 3)", "np.int64(2), 3", "T.tensor(2), -1", "2.0, 3", "-1"),
        )
    )
    check(
        generated(
            "T.ones(1, 3).<f>(<s>)",
            f=("expand", "repeat"),
            s=("2, 3", "[2, 3]", "np.int64(2), np.uint8(3)", "T.tensor(2), 1"),
        )
    )


def test_keywords():
    check(generated("T.<f>(2<k>)", f=("zeros", "ones"), k=KEYWORDS))
    check(generated("x = T.<f>(2<k>); (x.shape, x.dtype, x.requires_grad)", f=("empty", "rand", "randn"), k=KEYWORDS))
    likes = ("zeros_like", "ones_like", "empty_like", "rand_like", "randn_like")
    check(generated("x = T.<f>(T.ones(2, 3)<k>); (x.shape, x.dtype, x.requires_grad)", f=likes, k=KEYWORDS))
    check(generated("T.full_like(T.ones(2, 3), 5<k>)", k=KEYWORDS))
    check(generated("T.full((2,), <v><k>)", v=("1.", "2", "True"), k=KEYWORDS))
    check(generated("x = T.randint_like(T.ones(2), 5<k>); (x.shape, x.dtype)", k=KEYWORDS))
    check(generated("T.ones(2).<f>((3,)<k>)", f=("new_zeros", "new_ones"), k=KEYWORDS[:12]))


def test_numbers_that_fill():
    values = ("2**70", "300", "-1", "-256", "3.7", "-0.5", "1e30", "float('nan')", "True", "np.float64(1.5)", "np.float32(2.5)", "np.int64(3)",
              "T.tensor(2)", "T.tensor(2.5)", "T.tensor([2])", "None", "'a'", "Fraction(1, 2)", "Real(2)", "np.array(2.)", "[1]")  # fmt: skip
    dtypes = ("T.uint8", "T.int32", "T.float32", "T.bool")
    for form in (
        "T.full((2,), <v>, dtype=<t>)", "T.full_like(T.zeros(2, dtype=<t>), <v>)", "T.zeros(2, dtype=<t>).fill_(<v>)",
        "T.zeros(2, dtype=<t>).new_full((2,), <v>)", "nn.init.constant_(T.zeros(2, dtype=<t>), <v>)",
        "T.zeros(2, dtype=<t>).masked_fill(T.tensor([True, False]), <v>)", "T.zeros(2, dtype=<t>).index_fill(0, T.tensor([0]), <v>)",
    ):  # fmt: skip
        check(generated(form, v=values, t=dtypes))
    check(generated("T.full((2,), <v>)", v=values))
    chosen = [v for v in values if "array" not in v and "bool" not in v]
    for form in ("T.where(T.tensor([True, False]), <v>, T.zeros(2, dtype=<t>))", "T.zeros(2, dtype=<t>).clamp(<v>)",
                 "T.zeros(2, dtype=<t>).clamp(max=<v>)"):  # fmt: skip
        check(t for t in generated(form, v=chosen, t=dtypes) if "bool).clamp" not in t)
    check(
        generated(
            "T.add(T.ones(2, dtype=<t>), 1, alpha=<v>)",
            v=[v for v in values if "1e30" not in v and "nan" not in v],
            t=dtypes[1:3],
        )
    )


def test_ranges():
    check(generated("T.arange(<r>)", r=(
        "5", "1, 5", "1, 5, 2", "0, 1, .1", "5, 1", "5, 0, -2", "1, 1", "0, 5, 0", "1.5", "np.int64(5)", "np.float32(2.5)", "T.tensor(3)",
        "T.tensor(3.)", "True", "'a'", "None", "end=5", "start=1, end=4", "1, end=4", "start=1", "1, 2, 3, 4", "stop=4", "2**63",
        "float('inf')", "float('nan')", "1, 5, dtype=T.float64", "5, dtype=T.uint8", "-3", "Fraction(5, 2)", "3, requires_grad=True",
        "3., requires_grad=True", "np.array(3)", "T.tensor([3])", "0, 2**62, 2**61", "0, 3, np.int32(2)", "3, foo=1", "start=1, end=7, step=3",
    )))  # fmt: skip
    check(generated("T.<f>(<r>)", f=("linspace", "logspace"), r=(
        "0, 1, 5", "0, 1, 0", "0, 1, 1", "0, 1, -1", "0, 1", "0, 1, 2.5", "0, 1, np.int64(3)", "T.tensor(0.), T.tensor(1.), 3",
        "0, 1, T.tensor(3)", "0, 1, steps=3", "0, 1, 3, dtype=T.int64", "0, 1, 3, dtype=T.float64", "0, 1, 3, requires_grad=True",
        "0, 1, 3, foo=1", "'a', 1, 3", "start=0, end=1, steps=3", "0, 1, None", "np.float32(0), 1, 3", "1, 0, 3",
    )))  # fmt: skip
    check(generated("T.eye(<r>)", r=("3", "2, 3", "0", "-1", "2.0", "np.int64(2)", "T.tensor(2)", "2, -1", "None", "2, dtype=T.int64",
                                     "2, requires_grad=True", "n=2, m=3", "2, foo=1", "2, 2, 2")))  # fmt: skip


def test_arguments_of_random_functions():
    described = "x = T.<f>(<r>); (x.shape, x.dtype, x.requires_grad)"
    check(generated(described, f=("randint",), r=(
        "5, (2,)", "1, 5, (2,)", "5", "5, 3", "0, (2,)", "5, 1, (2,)", "2**60, (2,)", "2**63 - 1, (2,)", "300, (2,), dtype=T.uint8",
        "256, (2,), dtype=T.uint8", "2, (3,), dtype=T.bool", "3, (3,), dtype=T.bool", "5, (2,), dtype=T.float32", "5, (2,), requires_grad=True",
        "low=0, high=5, size=(2,)", "high=5, size=(2,)", "0, 5, size=(2,)", "2.5, (2,)", "np.int64(5), (2,)", "T.tensor(5), (2,)",
        "5, (2,), foo=1", "-5, 5, (2,)", "-5, (2,)", "2**31, (2,), dtype=T.int32", "2**31 + 1, (2,), dtype=T.int32", "5, ()", "5, [2]",
        "5, (2,), generator=T.Generator()", "5, (2,), generator=3",
    )))  # fmt: skip
    check(generated(described, f=("normal",), r=(
        "0., 1., (2,)", "0., 1.", "0, 1, (2,)", "0., 1., size=(2,)", "T.zeros(3), T.ones(3)", "T.zeros(3), 1.", "0., T.ones(3)", "T.zeros(3)",
        "T.zeros(3), -1.", "0., -1., (2,)", "0., -T.ones(2)", "mean=0., std=1., size=(2,)", "T.zeros(2, 1), T.ones(3)", "T.zeros(3), T.ones(2)",
        "T.zeros(3, dtype=T.float64), T.ones(3, dtype=T.float64)", "0., 1., (2,), dtype=T.float64", "0., 1., (2,), requires_grad=True",
        "0., 1., (2,), foo=1", "np.float32(0), 1., (2,)", "T.zeros(3), 1., (3,)", "0., 1., (2,), generator=T.Generator()", "'a', 1., (2,)",
    )))  # fmt: skip
    check(generated("x = T.randperm(<r>); (x.shape, x.dtype, sorted(x.tolist()))", r=(
        "5", "0", "-1", "2.5", "np.int64(3)", "T.tensor(3)", "3, dtype=T.int32", "3, dtype=T.float32", "3, requires_grad=True", "3, foo=1",
        "n=3", "3, generator=T.Generator()", "None",
    )))  # fmt: skip
    check(generated("x = T.zeros(3, dtype=<t>); x.<f>; (x.shape, x.dtype)", t=("T.float32", "T.int64", "T.uint8", "T.bool"), f=(
        "uniform_()", "uniform_(0, 1)", "uniform_(1, 0)", "normal_()", "normal_(0, -1)", "random_()", "random_(5)", "random_(2, 5)",
        "random_(5, 2)", "random_(0)", "random_(300)", "bernoulli_()", "bernoulli_(.5)", "bernoulli_(2)", "bernoulli_(T.tensor([.5, .5, .5]))",
        "uniform_(foo=1)", "normal_(mean=1, std=2)", "random_(2.5)", "random_(np.int64(5))", "uniform_(np.float32(0), np.float64(1))",
    )))  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(-(2**63), 2**63 - 2), st.integers(1, 2**64), st.integers(0, 2**30))
def test_integers_over_any_range(low, width, seed):
    high = min(low + width, 2**63 - 1)
    x = fastgrad.randint(low, high, (500,), generator=fastgrad.Generator().manual_seed(seed)).tolist()
    width = high - low
    assert min(x) >= low and max(x) < high
    if width > 10**6:
        mean = sum(v - low for v in x) / len(x) / width
        assert abs(mean - 0.5) < 0.12  # nine deviations
        assert len({(v - low) % 1024 for v in x}) > 300  # the low bits are random, too
    elif width < 20:
        assert set(x) == set(range(low, high))


def test_drawing_without_bounds_covers_the_type():
    for dtype, least in (
        (fastgrad.uint8, 200),
        (fastgrad.int32, 2**30),
        (fastgrad.int64, 2**62),
        (fastgrad.float32, 2**23),
    ):
        assert fastgrad.zeros(500, dtype=dtype).random_().max().item() > least
    assert set(fastgrad.zeros(50, dtype=fastgrad.bool).random_().tolist()) == {True, False}


def test_normal_numbers_of_tensors_of_means_and_deviations():
    mean, std = fastgrad.arange(4.0) * 100, fastgrad.arange(4.0)
    x = fastgrad.stack([fastgrad.normal(mean, std) for _ in range(400)])
    np.testing.assert_allclose(x.mean(0).numpy(), mean.numpy(), atol=1.0)
    np.testing.assert_allclose(x.std(0).numpy(), std.numpy(), rtol=0.2)


def test_memory_shared_with_arrays():
    check([
        "a = np.ones(3); t = T.from_numpy(a); a[0] = 5; t", "a = np.ones(3); t = T.as_tensor(a); t[0] = 5; a",
        "a = np.ones(3, 'f4'); t = T.asarray(a); t[0] = 5; a", "a = np.ones(3); t = T.as_tensor(a, dtype=T.float32); t[0] = 5; a",
        "a = np.ones(3); t = T.asarray(a, copy=True); t[0] = 5; a", "T.asarray([1], copy=False)", "T.asarray(np.ones(2), dtype=T.int64, copy=False)",
        "t = T.ones(2); T.as_tensor(t) is t", "t = T.ones(2); T.asarray(t) is t", "T.asarray([1., 2.], requires_grad=True)",
        "t = T.ones(2); u = T.asarray(t, copy=True); u[0] = 4; t", "T.from_numpy(np.ones(3)[::-1])", "T.as_tensor(np.ones(3)[::-1])",
        "T.from_numpy(np.array(['a']))", "T.from_numpy([1])", "T.from_numpy(np.ones(2, 'c16'))", "T.from_numpy(np.ones(2, '>f8'))",
        "T.from_numpy(np.ones((2, 3)).T)", "T.from_numpy(np.arange(6)[::2])", "T.from_numpy(np.array(1.5))", "a = np.ones(4); t = T.from_numpy(a[::2]); a[2] = 7; t",
        "a = np.ones(2); a.flags.writeable = False; T.from_numpy(a)", "T.from_numpy(np.broadcast_to(np.ones(1), (3,)).copy())",
        "t = T.ones(2); u = T.tensor(t); u[0] = 3; t",
    ])  # fmt: skip


def test_the_tensor_class():
    check(generated("T.Tensor(<d>)", d=("[1, 2]", "[[1.5]]", "[]", "()", "np.array([1, 2])", "np.array([1.5])", "2.5", "None", "[1, [2]]", "range(2)",
                                        "T.tensor([1.])", "T.tensor([1])", "[[1], [2]]")))  # fmt: skip
    check(generated("T.Tensor(<d>).shape", d=("2, 3", "0", "", "np.int64(2)", "T.Size([2, 3])")))
    check(["T.Tensor([1], dtype=T.int64)", "T.Tensor([1], foo=1)", "t = T.ones(2); u = T.Tensor(t); u[0] = 4; t"])


SPARED = ("compile", "loop", "Identity")  # nn.Identity takes anything, in PyTorch, too


def test_unknown_keywords_are_refused_everywhere():
    """Every public function and method refuses a keyword that no signature has, whatever its value."""
    x, taken = fastgrad.ones(2, 2), []
    for owner in (fastgrad, fastgrad.nn.functional, fastgrad.nn.init, fastgrad.optim, fastgrad.nn, fastgrad.Tensor):
        functions = [getattr(owner, name) for name in dir(owner) if name[0] != "_" and name not in SPARED]
        for function, n, value in itertools.product(functions, range(4), (None, True, 1, fastgrad.float64)):
            if callable(function):
                try:
                    function(*(x,) * n, no_such_keyword=value)
                except (TypeError, ValueError, RuntimeError):  # the last two where the arguments are wrong as well
                    continue
                taken.append((owner.__name__, function))
    assert not taken


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_tensor_is_refused_by_its_type():
    """Public functions given arrays, lists, text or None in the place of tensors say so; nothing breaks inside of them."""
    x, broken = fastgrad.ones(2, 2), []
    foreign = (x, np.ones((2, 2)), None, "a", 1.0, [1.0])
    spared = (
        *SPARED,
        "save",
        "load",
        "seed",
        "set_num_threads",
        "set_rng_state",
        "manual_seed",
        "promote_types",
        "tape",
        "linear",
        "cross_entropy",
    )
    for owner in (fastgrad, fastgrad.nn.functional):
        for name in owner.__all__:
            function = getattr(owner, name)
            if not callable(function) or isinstance(function, type) or name in spared or name.startswith("set_"):
                continue
            for arguments in itertools.chain.from_iterable(itertools.product(foreign, repeat=n) for n in (1, 2)):
                try:
                    function(*arguments)
                except (AttributeError, KeyError) as error:
                    broken.append((name, error, [type(a).__name__ for a in arguments]))
                except Exception:  # the kinds of errors are compared elsewhere
                    continue
    fastgrad.manual_seed(0)
    assert not broken


VIEWS = {
    "first": lambda t: t[:1],
    "last": lambda t: t[-1:],
    "flat": lambda t: t.reshape(-1),
    "transposed": lambda t: t.transpose(0, -1),
    "expanded": lambda t: t.expand(2, *t.shape),
    "unsqueezed": lambda t: t.unsqueeze(0),
    "stepped": lambda t: t[::2, ...],
}


@pytest.mark.parametrize("first", VIEWS)
@pytest.mark.parametrize("second", VIEWS)
def test_views_of_a_filled_tensor_are_converted(first, second):
    for kind, number in itertools.product([fastgrad.float64, fastgrad.float32, fastgrad.int64], [1, 0.1, 2.75]):
        filled = fastgrad.full((3, 2), number, dtype=kind)
        view = VIEWS[second](VIEWS[first](filled))
        converted = view.to(fastgrad.int32 if kind is fastgrad.float32 else fastgrad.float32)
        again = converted.to(fastgrad.float64)
        expected = np.full(view.shape, number, filled.numpy().dtype)
        assert np.array_equal(view.numpy(), expected)
        expected = expected.astype(converted.numpy().dtype)
        assert np.array_equal(converted.numpy(), expected)
        assert np.array_equal(again.numpy(), expected.astype(np.float64))
