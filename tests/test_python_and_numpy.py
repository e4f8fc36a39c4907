"""Tensors among Python's and NumPy's objects: operators, numbers, formats, copies. Tables of expressions, run in both libraries."""

import copy
import itertools
import operator
import pickle
import warnings

import numpy as np
import pytest
from differential import check, generated

import fastgrad

pytest.importorskip("torch")

TENSORS = (
    "T.tensor([1, 2, 3])", "T.tensor([1., 2., 3.])", "T.tensor([1., 2., 3.], dtype=T.float64)", "T.tensor([True, False, True])",
    "T.tensor([1, 2, 3], dtype=T.uint8)", "T.tensor([1, 2, 3], dtype=T.int32)", "T.tensor(2)", "T.tensor(2.)", "T.ones(2, 3)",
    "T.tensor([1., 2., 3.], requires_grad=True)",
)  # fmt: skip
NUMBERS = (
    "2",
    "2.5",
    "True",
    "np.float64(2)",
    "np.float32(2)",
    "np.int64(2)",
    "np.int32(2)",
    "np.uint8(2)",
    "Whole(2)",
    "Double(2.5)",
)
FOREIGN = ("[1, 2, 4]", "(1., 2., 4.)", "None", "'a'", "Fraction(1, 2)", "Decimal(2)", "Index(2)", "Real(2)", "{}")
ARITHMETIC = ("+", "-", "*", "/", "//", "%", "**", "@")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
BITS = ("&", "|", "^")
ARRAYS = (
    np.array([1.0, 2.0, 4.0]), np.array([1, 2, 4]), np.array([1, 2, 4], np.float32), np.array([True, False, True]),
    np.array([1, 2, 4], np.uint8), np.array([[1.0], [2.0]]), np.array(2.0), np.array([4.0, 2.0, 1.0])[::-1], np.ones((2, 6))[:, ::2],
)  # fmt: skip


def test_operators_with_numbers():
    check(generated("<t> <op> <o>", t=TENSORS, op=(*ARITHMETIC, *COMPARISONS, *BITS), o=(*NUMBERS, *FOREIGN)))


def test_operators_with_numbers_on_the_left():
    nonzero = tuple(t for t in TENSORS if "False" not in t)
    check(generated("<o> <op> <t>", t=nonzero, op=(*ARITHMETIC, *COMPARISONS, *BITS), o=(*NUMBERS, *FOREIGN)))


def test_operators_in_place():
    texts = generated(
        "x = <t>; y = x; x <op>= <o>; (x, y, x is y)", t=TENSORS, op=(*ARITHMETIC, *BITS), o=(*NUMBERS, *FOREIGN)
    )
    check(t for t in texts if "requires_grad" not in t)


@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "truediv", "lt", "le", "gt", "ge", "eq", "ne", "and_", "or_", "xor"]
)
@pytest.mark.parametrize("values", [[1, 2, 3], [1.0, 2.0, 3.0], [True, False, True]])
def test_operators_with_arrays_give_what_numpy_gives_as_tensors(name, values):
    function, t = getattr(operator, name), fastgrad.tensor(values)
    for array, swapped in itertools.product(ARRAYS, (False, True)):
        bits = name in ("and_", "or_", "xor")
        if (bits and "f" in (array.dtype.kind, t.numpy().dtype.kind)) or (
            name == "sub" and array.dtype == t.numpy().dtype == bool
        ):
            with pytest.raises((RuntimeError, NotImplementedError)):
                function(t, array)
            continue
        with np.errstate(all="ignore"):
            expected = np.asarray(function(array, t.numpy()) if swapped else function(t.numpy(), array))
        made = function(array, t) if swapped else function(t, array)
        assert type(made) is fastgrad.Tensor and made.numpy().dtype == expected.dtype, (name, array.dtype, made.dtype)
        np.testing.assert_array_equal(made.numpy(), expected)


def test_products_of_tensors_and_arrays():
    t, a = fastgrad.arange(6.0).view(2, 3), np.arange(6.0).reshape(3, 2)
    for made, expected in ((t @ a, t.numpy() @ a), (a @ t, a @ t.numpy()), (t @ a[:, 0], t.numpy() @ a[:, 0])):
        assert type(made) is fastgrad.Tensor and made.dtype is fastgrad.float64
        np.testing.assert_array_equal(made.numpy(), expected)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
def test_gradients_pass_through_operators_with_arrays(name):
    function, array = getattr(operator, name), np.array([3.0, 4.0])
    for swapped in (False, True):
        w = fastgrad.tensor([1.5, 2.5], dtype=fastgrad.float64, requires_grad=True)
        y = function(array, w) if swapped else function(w, array)
        y.sum().backward()
        h = 1e-6
        ahead, behind = w.detach().numpy() + h, w.detach().numpy() - h
        difference = (
            (function(array, ahead) - function(array, behind))
            if swapped
            else function(ahead, array) - function(behind, array)
        )
        np.testing.assert_allclose(w.grad.numpy(), difference / (2 * h), rtol=1e-6)


def test_an_array_changed_afterwards_does_not_change_what_was_recorded():
    w, a = fastgrad.ones(3, requires_grad=True), np.array([1.0, 2.0, 3.0])
    y = w * a
    a[:] = 0.0
    y.sum().backward()
    assert y.tolist() == [1, 2, 3] and w.grad.tolist() == [1, 2, 3]


def test_numpy_functions_of_tensors():
    check(
        generated(
            "np.<f>(T.tensor(<v>))",
            f=("exp", "sqrt", "log", "abs", "square", "negative"),
            v=("[1., 2.]", "[4, 9]", "2."),
        )
    )
    check(
        generated(
            "np.<f>(np.array([1., 2.]), T.tensor(<v>))", f=("add", "multiply", "maximum"), v=("[1., 5.]", "[1, 2]")
        )
    )
    check(
        [
            "np.add(T.ones(2), T.ones(2), out=np.zeros(2))",
            "np.exp(T.ones(2, requires_grad=True))",
            "np.sort(T.tensor([2., 1.]))",
        ]
    )


def test_numpy_comparisons_of_tensors_are_masks():
    t = fastgrad.tensor([1.0, float("nan")])
    assert np.isnan(t).tolist() == [False, True] and np.greater(t, 0).dtype is fastgrad.bool


def test_arrays_of_tensors():
    check(
        generated(
            "np.<f>(T.<t>)",
            f=("asarray", "array"),
            t=("ones(2)", "tensor([1, 2])", "tensor(3.)", "ones(2, requires_grad=True)"),
        )
    )
    check([
        "np.asarray(T.ones(2), dtype='f8')", "np.array(T.ones(2), dtype='i4')", "np.array([T.tensor(1.), T.tensor(2.)])",
        "x = T.ones(2); a = np.asarray(x); a[0] = 5.; x", "x = T.ones(2); a = np.array(x); a[0] = 5.; x",
        "T.ones(2, requires_grad=True).numpy()", "T.ones(2, requires_grad=True).numpy(force=True)", "np.from_dlpack(T.ones(2))",
        "np.from_dlpack(T.ones(2, requires_grad=True))", "np.copy(T.ones(2))", "np.stack([T.ones(2), T.ones(2)])",
    ])  # fmt: skip
    with pytest.raises(ValueError, match="copy"):
        np.asarray(fastgrad.ones(2), dtype="f8", copy=False)
    assert np.asarray(fastgrad.ones(2), copy=False).tolist() == [1, 1]


def test_conversions_to_python():
    values = ("2.7", "3", "True", "[1.5]", "[[2]]", "[1., 2.]", "[]", "float('nan')")
    check(
        generated(
            "<f>(T.tensor(<v>))",
            f=("float", "int", "bool", "len", "operator.index", "list", "abs"),
            v=values,
        )
    )
    check(generated("T.tensor(<v>).<f>()", f=("item", "tolist"), v=values))
    check(generated("list(range(T.tensor(<v>)))", v=("3", "2.5", "[3]", "[1, 2]", "True")))
    check(
        [
            "['a', 'b', 'c'][T.tensor(2)]",
            "'abcd'[:T.tensor(2)]",
            "[0] * T.tensor(2)",
            "T.tensor(2) * [0]",
            "math.floor(T.tensor(1.7))",
        ]
    )


def test_formats():
    tensors = ("T.tensor(1.5)", "T.tensor(7)", "T.tensor(True)", "T.tensor(1.5, requires_grad=True) * 1", "T.tensor([1., 2.])",
               "nn.Parameter(T.tensor(1.5))", "T.tensor(2.5, dtype=T.float64)")  # fmt: skip
    check(generated("format(<t>, '<s>')", t=tensors, s=("", ".2f", ">8", "d", "e")))


def test_membership_order_and_hash():
    values = ("1.", "9", "np.float32(1)", "True", "T.tensor(2.)", "T.tensor([1., 2.])", "'a'", "None", "[1.]", "1j")
    check(generated("<v> in T.tensor([[1., 2.], [3., 4.]])", v=values[:-1]))
    check(
        [
            "list(reversed(T.tensor([1, 2])))",
            "reversed(T.tensor(1))",
            "len({T.ones(1), T.ones(1)})",
            "x = T.ones(2); {x: 1}[x]",
        ]
    )


LEAVES = (
    "T.tensor([1., 2.])",
    "T.tensor([1., 2.], requires_grad=True)",
    "nn.Parameter(T.ones(2))",
    "T.arange(4)[1:3]",
    "T.ones(2, 3).t()",
)


def test_copies_and_pickles_of_tensors():
    ways = (
        "copy.copy(<t>)",
        "copy.deepcopy(<t>)",
        "pickle.loads(pickle.dumps(<t>))",
        "pickle.loads(pickle.dumps(<t>, 2))",
    )
    for way in ways:
        check(generated(way, t=(*LEAVES, "T.ones(2, requires_grad=True) * 2")))
    check([
        "x = T.ones(2); y = copy.copy(x); x[0] = 5.; y", "x = T.ones(2); y = copy.deepcopy(x); x[0] = 5.; y",
        "x = T.ones(3); a, b = copy.deepcopy((x, x[1:])); a[1] = 5.; (a, b, x)", "x = T.ones(3); a, b = copy.deepcopy([x, x]); a is b",
        "x = nn.Parameter(T.ones(2)); a, b = pickle.loads(pickle.dumps((x, x))); a is b",
        "x = T.ones(2, requires_grad=True); (x * 3).sum().backward(); copy.deepcopy(x).grad",
        "x = nn.Parameter(T.ones(2)); (x * 3).sum().backward(); copy.deepcopy(x).grad is None",
        "x = T.ones(2, requires_grad=True); (x * 3).sum().backward(); pickle.loads(pickle.dumps(x)).grad is None",
        "x = T.ones(2); x.note = [1]; y = copy.deepcopy(x); y.note", "x = T.ones(2); x.note = [1]; pickle.loads(pickle.dumps(x)).note",
        "x = T.ones(2); x.note = [1]; copy.copy(x).note is x.note", "x = T.ones(2); x += 1; copy.deepcopy(x)",
        "x = T.ones(4).view(2, 2).t(); y = pickle.loads(pickle.dumps(x)); y.stride()",
        "x = T.ones(6)[::2]; y = copy.deepcopy(x); (y, y.stride())", "m = nn.Linear(2, 1); n = copy.copy(m); n.weight is m.weight",
    ])  # fmt: skip


def test_memory_that_tensors_share_is_shared_in_a_pickle():
    x, p = fastgrad.ones(3), fastgrad.nn.Parameter(fastgrad.ones(2))
    a, b, q, r = pickle.loads(pickle.dumps((x, x[1:], p, p.detach())))
    a[1], r[0] = 5.0, 3.0
    assert b.tolist() == [5, 1] and q.tolist() == [3, 1] and q.requires_grad and x.tolist() == [1, 1, 1]


def test_memory_that_tensors_share_is_shared_in_a_file(tmp_path):
    x, p = fastgrad.arange(6.0).view(2, 3), fastgrad.nn.Parameter(fastgrad.ones(2))
    lone = fastgrad.arange(8.0)[2:4]
    fastgrad.save(
        {"x": x, "t": x.t(), "row": x[1], "p": p, "values": [p.detach(), p], "lone": lone, "number": 3}, tmp_path / "f"
    )
    r = fastgrad.load(tmp_path / "f")
    r["row"][0] = 9.0
    with fastgrad.no_grad():
        r["p"].add_(1)
    assert (
        r["x"].tolist() == [[0, 1, 2], [9, 4, 5]] and r["t"].tolist() == [[0, 9], [1, 4], [2, 5]] and r["number"] == 3
    )
    assert r["values"][0].tolist() == [2, 2] and r["values"][1] is r["p"] and type(r["p"]) is fastgrad.nn.Parameter
    assert r["p"].requires_grad and not r["values"][0].requires_grad and r["lone"].tolist() == [2, 3]
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]] and p.tolist() == [1, 1]


def test_a_copied_leaf_and_its_original_share_writes():
    t = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    c = copy.copy(t)
    with fastgrad.no_grad():
        for k in range(3):
            (t if k % 2 else c).add_(1)
            assert t.tolist() == c.tolist() == [2.0 + k, 3.0 + k]
    (c * c).sum().backward()
    assert c.grad.tolist() == [8, 10] and t.grad is None


def test_tied_weights_stay_tied_in_pickles_and_copies():
    nn = fastgrad.nn
    for way in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        m[1].weight = m[0].weight
        n = way(m)
        assert n[1].weight is n[0].weight and n[0].weight is not m[0].weight
        with fastgrad.no_grad():
            n[0].weight.zero_()
        assert n[1].weight.tolist() == [[0, 0], [0, 0]] and m[0].weight.tolist() != [[0, 0], [0, 0]]


def test_a_model_and_its_optimizer_are_copied_together():
    nn, optim = fastgrad.nn, fastgrad.optim
    for make, way in itertools.product(
        (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.1)),
        (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))),
    ):
        m = nn.Linear(2, 1)
        o = make(m.parameters())

        def step(m, o):
            o.zero_grad()
            (m(fastgrad.ones(1, 2)) ** 2).sum().backward()
            o.step()

        step(m, o)
        n, p = way((m, o))
        before = m.weight.tolist()
        step(n, p)
        assert m.weight.tolist() == before and n.weight.tolist() != before
        step(m, o)
        assert n.weight.tolist() == m.weight.tolist() and p.param_groups[0]["params"][0] is n.weight


def test_warnings_stay_away():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.exp(fastgrad.ones(2))
        np.array(fastgrad.ones(2))
        np.asarray(fastgrad.ones(2), dtype="f8")
