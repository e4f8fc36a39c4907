"""Dimensions: numbers as vectors of one, bounds, NumPy's names and NumPy's integers; what is a copy and what a view."""

import numpy as np
import pytest
from differential import check, generated
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastgrad

pytest.importorskip("torch")

ZERO = (
    "sort()", "sort(0)", "sort(-1)", "sort(1)", "sort(descending=True)", "argsort()", "argsort(1)", "topk(1)", "topk(1, 0)", "topk(2)", "topk(0)",
    "flip(0)", "flip(-1)", "flip(1)", "flip(0, 0)", "flip()", "flip([])", "gather(0, T.tensor(0))", "gather(0, T.tensor([0, 0]))",
    "scatter(0, T.tensor(0), T.tensor(5.))", "scatter(0, T.tensor(0), 5.)", "scatter_add(0, T.tensor(0), T.tensor(5.))", "cumsum(0)", "cumsum(1)",
    "max(0)", "min(-1)", "max(1)", "max()", "argmax()", "argmax(0)", "argmax(1)", "argmin(0, True)", "sum(0)", "sum(-1)", "sum(1)", "mean(0)",
    "prod(0)", "sum(())", "sum([0])", "sum((0, -1))", "norm()", "logsumexp(0)", "all()", "any(0)", "amax(0)", "amin()", "unsqueeze(0)",
    "unsqueeze(1)", "unsqueeze(-2)", "squeeze()", "squeeze(0)", "squeeze(1)", "squeeze((0,))", "transpose(0, 0)", "transpose(0, 1)", "permute()",
    "permute([])", "permute(0)", "t()", "index_select(0, T.tensor(0))", "index_select(0, T.tensor([0]))", "index_select(0, T.tensor([0, 0]))",
    "index_add(0, T.tensor(0), T.tensor(2.))", "index_copy(0, T.tensor(0), T.tensor(2.))", "index_fill(0, T.tensor(0), 7.)", "split(1)", "chunk(1)",
    "unbind()", "select(0, 0)", "narrow(0, 0, 1)", "repeat(2)", "repeat(2, 2)", "repeat()", "expand(3)", "expand()", "view(1)", "view(())",
    "view(-1)", "reshape(1)", "flatten()", "flatten(0, 0)", "flatten(1)", "tril()", "triu()", "unique()", "nonzero()", "nonzero(as_tuple=True)",
    "masked_select(T.tensor(True))", "masked_fill(T.tensor([True, False]), 2.)", "take(T.tensor(0))", "take(T.tensor([0, 0]))",
    "repeat_interleave(2)", "movedim(0, 0)", "size(0)", "stride()", "softmax(0)", "softmax(1)", "log_softmax(0)", "tile(2)", "tolist()",
    "is_contiguous()", "expand_as(T.ones(2))", "view_as(T.ones(1))",
)  # fmt: skip
NAMED = ("sum", "mean", "prod", "max", "min", "argmax", "argmin", "amax", "amin", "all", "any", "var", "std")
KEYWORDS = (
    "axis=1", "dim=1", "axis=1, keepdims=True", "dim=1, keepdim=True", "axis=1, keepdim=True", "dim=1, keepdims=True", "dim='a'", "dim=1.0",
    "dim=True", "dim=np.int64(1)", "dim=T.tensor(1)", "dim=2", "dim=-3", "x=1", "axis=-1", "dim=1, out=None, foo=2",
)  # fmt: skip


def test_numbers_are_vectors_of_one():
    check(generated("<x>.<f>", x=("T.tensor(3.)", "T.tensor(float('nan'))"), f=ZERO))
    whole = [
        f for f in ZERO if not any(n in f for n in ("mean", "softmax", "logsumexp", "norm", "scatter", "index_", "add"))
    ]
    check(generated("T.tensor(3).<f>", f=whole))


def test_gradients_of_numbers():
    forms = ("x.sort()[0]", "x.topk(1)[0]", "x.flip(0)", "x.gather(0, T.tensor(0))", "x.gather(0, T.tensor([0, 0])).sum()", "x.cumsum(0)",
             "x.max(0)[0]", "x.scatter_add(0, T.tensor(0), T.tensor(2.))", "x.index_select(0, T.tensor([0]))", "x.unsqueeze(0).squeeze()",
             "x.repeat(2).sum()", "x.expand(3).sum()", "x.index_add(0, T.tensor(0), x)", "x.index_fill(0, T.tensor(0), 2.) + x")  # fmt: skip
    check(generated("x = T.tensor(3., requires_grad=True); (<f> ** 2).backward(); x.grad", f=forms))


def test_names_of_dimensions():
    check(generated("T.arange(6.).view(2, 3).<f>(<k>)", f=NAMED, k=KEYWORDS))
    check(
        generated(
            "T.arange(6.).view(2, 3).<f>(<k>)",
            f=("cumsum", "softmax", "log_softmax", "logsumexp"),
            k=KEYWORDS[:2] + KEYWORDS[6:],
        )
    )
    check(generated("T.<f>([T.ones(2, 3), T.zeros(2, 3)], <k>)", f=("cat", "stack"), k=("axis=1", "dim=1", "axis=-1", "dim=3", "dim=np.int32(0)",
                                                                                  "dim=T.tensor(1)", "1, axis=1", "x=1")))  # fmt: skip


def test_integers_of_numpy_and_tensors_as_arguments():
    texts = (
        "sort(axis=0)", "sort(dim=np.int64(0))", "argsort(axis=1)", "topk(2, axis=1)", "topk(np.int64(2))", "topk(T.tensor(1))", "topk(1.5)",
        "unsqueeze(axis=1)", "squeeze(axis=0)", "squeeze(np.int64(0))",   "split([1, np.int64(2)], 1)",
        "chunk(np.int64(2))", "narrow(1, np.int64(0), T.tensor(2))", "select(axis=1, index=np.int64(2))", "select(1, T.tensor(2))",
        "index_select(axis=1, index=T.tensor([0]))", "gather(axis=1, index=T.tensor([[0], [1]]))", "unbind(axis=1)", "transpose(np.int64(0), 1)",
        "permute(np.int64(1), 0)", "flip(np.int64(1))", "flip([0, 1])", "flip(5)", "flip(0, 0)", "flip(0, -2)", "flip(dims=(1,))",
        "flatten(np.int64(0))", "sum((np.int64(0), T.tensor(1)))", "max(1, True)", "max(T.zeros(2, 3))", "max(dim=T.tensor(1))",
        "sum(dim=1, axis=1)", "max(1, dim=1)", "tril(np.int64(1))", "triu(T.tensor(0))", "sum([0, 1])", "sum([])", "size(np.int64(1))",
        "size(T.tensor(0))", "size(2)", "size('a')", "stride(np.int64(1))",
    )  # fmt: skip
    check(generated("T.arange(6.).view(2, 3).<f>", f=texts))


def test_triangles_of_every_type():
    for dtype in ("bool", "uint8", "int32", "int64", "float32", "float64"):
        check(generated(f"T.ones(3, 4).to(T.{dtype}).<f>(<d>)", f=("tril", "triu"), d=("", "1", "-1", "5", "-5")))
    check(generated("T.<f>(T.ones(3))", f=("tril", "triu")))


def test_copies_and_views():
    copies = ("repeat(1, 1)", "repeat(1, 2)", "tile(1, 1)", "flip(0)", "flip([])", "clone()", "index_select(0, T.tensor([0, 1]))", "sort(0)[0]",
              "masked_fill(T.zeros(2, 2, dtype=T.bool), 0.)", "to(T.float32, copy=True)", "tril(1)", "cumsum(0)", "x[[0, 1]]", "max(0)[0]")  # fmt: skip
    views = ("view(4)", "reshape(4)", "flatten()", "expand(2, 2)", "expand(3, 2, 2)", "t()", "T", "permute(1, 0)", "narrow(0, 0, 1)", "select(0, 0)",
             "squeeze()", "unsqueeze(0)", "contiguous()", "to(T.float32)", "detach()", "data", "unbind(0)[0]", "split(1)[0]", "chunk(2)[0]",
             "broadcast_to((2, 2))", "x[0]", "x[:, 1:]", "x[None]", "x[...]", "as_strided", "movedim(0, 1)", "view_as(x)", "float()", "swapaxes(0, 1)")  # fmt: skip
    for form in (*copies, *[v for v in views if v not in ("as_strided", "broadcast_to((2, 2))")]):
        text = form if form.startswith("x") else f"x.{form}"
        check(
            [
                f"x = T.ones(2, 2); y = {text}; x.fill_(7.); y",
                f"x = T.ones(2, 2); y = {text}; y.mul_(3.) if y.numel() < 8 else 0; x",
            ]
        )
    check(["x = T.ones(1, 2); y = T.broadcast_to(x, (2, 2)); x.fill_(7.); y", "x = T.ones(3); x.expand(2, 3).add_(1)"])


def _index(n):
    """A part of an index into a dimension of size n, as text."""
    bounds = st.one_of(st.none(), st.integers(-n - 1, n + 1))
    whole = st.integers(-n, n - 1)
    return st.one_of(
        whole.map(str), whole.map(lambda i: f"np.int64({i})"), whole.map(lambda i: f"T.tensor({i})"), st.just("..."), st.just("None"),
        st.tuples(bounds, bounds, st.sampled_from([None, 1, 2])).map(lambda b: f"slice({b[0]}, {b[1]}, {b[2]})"), st.just(":"),
        st.lists(whole, min_size=1, max_size=3).map(str), st.lists(whole, min_size=2, max_size=2).map(lambda p: f"np.array({p})"),
        st.lists(whole, min_size=2, max_size=2).map(lambda p: f"T.tensor({p})"), st.lists(st.booleans(), min_size=n, max_size=n).map(str),
        st.lists(st.booleans(), min_size=n, max_size=n).map(lambda p: f"np.array({p})"),
    )  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(
    st.tuples(_index(3), _index(4), _index(2)),
    st.integers(1, 3),
    st.sampled_from(["7", "np.float64(2.5)", "T.tensor(3.)", "-1"]),
)
def test_indices_of_every_kind(parts, n, value):
    index = ", ".join(parts[:n])
    assume(index.count("...") <= 1)
    check([f"x = T.arange(24.).view(3, 4, 2); x[{index}]", f"x = T.arange(24.).view(3, 4, 2); x[{index}] = {value}; x"])


def test_values_that_are_assigned():
    values = ("7", "-1", "2.7", "True", "np.float64(2)", "np.int32(4)", "T.tensor(3)", "T.tensor(3.)", "T.tensor([7])", "T.tensor([1., 2., 3.])",
              "T.tensor([[1.], [2.]])", "T.ones(2, 3)", "T.ones(1, 2, 3)", "T.ones(4)", "None", "'a'", "Fraction(1, 2)", "2**70", "{}")  # fmt: skip
    places = (
        "0",
        ":",
        "...",
        "[0, 1]",
        "T.tensor([0, 1])",
        "T.tensor([True, False])",
        ":, 0",
        ":, [0, 2]",
        "x > 2",
        "0, 1",
        "None",
        "np.array([1])",
    )
    for dtype in ("float32", "int64", "uint8", "bool"):
        check(
            generated(
                f"x = T.arange(6).view(2, 3).to(T.{dtype}); x[<i>] = <v>; x",
                i=places[:9] if dtype != "bool" else places[:6],
                v=values,
            )
        )


def test_steps_that_are_not_positive():
    check(
        generated(
            "x = T.arange(5.); x[<s>]", s=("::-1", "4:0:-2", "::0", "::T.tensor(-1)", "::np.int64(-1)", "slice(0, 1.5)")
        )
    )
    check(generated("x = T.arange(5.)\ntry: x[<s>] = 0.\nexcept ValueError: pass\nx", s=("::-1", "4:0:-2", "::0")))


@pytest.mark.parametrize(
    "index", ["7", "(slice(None), 0)", "T.tensor([0, 9])", "1.5", "np.array([True, False])", "::-1"]
)
@pytest.mark.parametrize("value", ["1.", "T.tensor([1., 2., 3., 4.])"])
def test_a_tensor_after_a_caught_error(index, value):
    index = f"slice{index}" if index == "::-1" else index
    index = "slice(None, None, -1)" if index == "slice::-1" else index
    tried = f"\ntry: x[{index}] = {value}; x.tolist()\nexcept (IndexError, RuntimeError, TypeError, ValueError): pass\n"
    check([f"x = T.arange(3.); y = x * 2{tried}x[1] = 8.; (x.tolist()[1:], y, x[1:] + 1)"])
    check([f"w = T.arange(3.).requires_grad_(); x = w * 2{tried}x[1] = 8.; x.sum().backward(); w.grad"])


WRITERS = ("x[i] = 1.", "x.index_fill_(0, i, 2.)", "x.index_add_(0, i, T.ones(2))", "x.index_copy_(0, i, T.ones(2))", "x.scatter_(0, i, T.ones(2))",
           "x.scatter_add_(0, i, T.ones(2))")  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("positions", ["[0, 9]", "[-4, 0]"])
def test_a_tensor_after_a_caught_write_out_of_range(write, positions):
    tried = f"i = T.tensor({positions})\ntry: {write}; x.tolist()\nexcept (IndexError, RuntimeError): pass\n"
    check([f"x = T.arange(3.); y = x * 2; {tried}x[1] = 8.; (x.tolist()[1:], y, x[1:] + 1)"])
    check(
        [f"w = T.arange(3.).requires_grad_(); x = w * 2; {tried}x[1] = 8.; x[1:].sum().backward(); (w.grad[1:], x[1:])"]
    )


def test_masks_choose_without_reading():
    x = fastgrad.tensor([-1.0, 2.0, -3.0], requires_grad=True)
    y = x * 2
    runs = fastgrad.stats()["runs"]
    y[y < 0] = np.float32(0.5)
    assert fastgrad.stats()["runs"] == runs
    y.sum().backward()
    assert y.tolist() == [0.5, 4, 0.5] and x.grad.tolist() == [0, 2, 0]
