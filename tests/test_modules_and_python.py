"""Modules among Python's ways: tables written by hand, __getattr__ of the user's own, copies, conversions after steps of an optimizer."""

import copy
import gc
import itertools
import pickle
import random
import weakref

import numpy as np
import pytest
from differential import check, generated

import fastgrad
from fastgrad import nn

torch = pytest.importorskip("torch")

WRITES = (
    "m._parameters['weight'] = nn.Parameter(T.ones(1, 2))", "m._parameters.update(weight=nn.Parameter(T.ones(1, 2)))",
    "del m._parameters['weight']; m.weight = T.full((1, 2), 2.)", "m._parameters.pop('weight'); m.weight = T.ones(1, 2)",
    "m._parameters['weight'] = None; m.register_parameter('weight', nn.Parameter(T.ones(1, 2)))", "m._parameters.pop('none', 3)",
    "m._buffers['weight'] = m._parameters.pop('weight').detach()", "m._parameters = dict(weight=nn.Parameter(T.ones(1, 2)), bias=None)",
    "m._parameters |= {'weight': nn.Parameter(T.ones(1, 2))}", "m._parameters.setdefault('weight', 3); m._parameters.setdefault('other', nn.Parameter(T.ones(1)))",
    "m.weight = nn.Parameter(T.zeros(1, 2))", "m.weight = T.ones(1, 2)", "m.weight = None", "m.weight = 3", "del m.weight", "m.weight = nn.Linear(1, 1)",
    "m.register_buffer('b', T.ones(1)); m._buffers['b'] = T.zeros(1)", "m.register_buffer('b', T.ones(1)); m.b = nn.Parameter(T.ones(1))",
    "m.register_buffer('b', T.ones(1), persistent=False)", "m.register_buffer('weight', T.ones(1))", "m.register_parameter('p', None); m.p",
    "m.register_parameter('p', None); m.p = nn.Parameter(T.ones(1))", "m.register_parameter('p', T.ones(1))", "m.register_parameter('a.b', None)",
    "m.register_parameter('', None)", "m.register_buffer('b', 3)", "m.register_buffer('b', None); m.b = T.ones(1)", "m.add_module('x', 3)",
    "m._modules['sub'] = nn.Linear(1, 1); m.sub.weight.data.zero_(); m.sub.bias.data.zero_()", "m._modules.clear()", "m._parameters.clear()",
    "m.sub = nn.Linear(1, 1, bias=False); m.sub.weight.data.fill_(2); m._modules.popitem()", "m.__delattr__('nothing')", "m.nothing",
    "m.extra = [1]; del m.extra; m.extra", "m.training = False", "setattr(m, 'weight', m.weight)", "m.tied = m.weight",
    "m.x = T.ones(1); m.x = nn.Parameter(m.x)", "m.x = nn.Parameter(T.ones(1)); m.register_buffer('x', T.ones(1))",
)  # fmt: skip


def test_writes_to_tables_and_attributes():
    start = "m = nn.Linear(2, 1, bias=False); m.weight.data.fill_(3.); "
    seen = ("[n for n, _ in m.named_parameters()]", "list(m.named_buffers())", "m.state_dict()", "m(T.ones(1, 2))", "[n for n, _ in m.named_modules()]",
            "(hasattr(m, 'weight'), getattr(m, 'weight', None))", "copy.deepcopy(m).state_dict()", "pickle.loads(pickle.dumps(m)).state_dict()")  # fmt: skip
    check(generated(start + "<w>; <s>", w=WRITES, s=seen))


GETATTR = """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.register_buffer('mean', T.ones(1))
        self.plain = 5
    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('inner'), name)
m = M()
"""
SETATTR = """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.log = []
        self.weight = nn.Parameter(T.ones(2))
        self.count = 1
    def __setattr__(self, name, value):
        if name != 'log' and 'log' in self.__dict__:
            self.log.append(name)
        super().__setattr__(name, value)
    def __delattr__(self, name):
        self.log.append('-' + name)
        super().__delattr__(name)
m = M()
"""


def test_attribute_methods_of_subclasses():
    asked = ("m.out_features", "m.weight.shape", "m.inner is m._modules['inner']", "m.nothing", "m.plain", "m.mean", "len(m.state_dict())",
             "m.__getattr__('inner').in_features", "m.__getattr__('mean')", "hasattr(m, 'nothing')", "M.__new__(M).anything")  # fmt: skip
    check(generated(GETATTR + "<a>", a=asked[:-1]))
    written = ("m.log", "m.weight = None; m.log", "m.weight = nn.Parameter(T.zeros(2)); (m.log, m.weight)", "del m.weight; (m.log, hasattr(m, 'weight'))",
               "m.count = 2; m.log", "m.weight = 3; 0", "m.weight = None; m.log", "m.weight = T.ones(2); 0", "nn.Module.__setattr__(m, 'count', 7); m.count",
               "nn.Module.__delattr__(m, 'weight'); list(m.parameters())", "object.__setattr__(m, 'other', 3); m.other")  # fmt: skip
    check(generated(SETATTR + "<w>", w=written))


def test_random_writes_keep_attributes_and_tables_alike():
    for seed in range(40):
        chance = random.Random(seed)
        texts = ["m = nn.Linear(2, 2); m[0] if False else None"]
        for k in range(6):
            name = chance.choice(["weight", "bias", "a", "b"])
            value = chance.choice([f"nn.Parameter(T.full((2,), {k}.))", "None", f"T.full((2,), {k}.)", "nn.Flatten()"])
            table = chance.choice(["_parameters", "_buffers", "_modules"])
            fits = {
                "_parameters": "Parameter" in value or value == "None",
                "_buffers": value[0] == "T",
                "_modules": "Flatten" in value,
            }
            text = chance.choice([f"m.{name} = {value}", f"m.__delattr__('{name}')"])
            if fits[table] and not any(f"{name}" in t for t in texts[1:]):
                text = chance.choice([text, f"m.__dict__.get('{table}').__setitem__('{name}2', {value})"])
            texts.append(f"\ntry: {text}\nexcept (TypeError, AttributeError): pass")
        described = "[{n: v for n, v in t.items() if not isinstance(v, nn.Module)} for t in (m._parameters, m._buffers)] + [sorted(m._modules)]"
        start = texts[0].partition(";")[0] + "; m.weight.data.zero_(); m.bias.data.zero_()"
        check([start + "".join(texts[1:]) + "\n" + described])
        check([start + "".join(texts[1:]) + "\n[n for n in ('weight', 'bias', 'a', 'b', 'a2', 'b2') if hasattr(m, n)]"])


def test_a_module_is_freed_at_once():
    gc.disable()
    try:
        m = nn.Linear(2, 2)
        m._parameters["weight"] = nn.Parameter(fastgrad.ones(2, 2))
        watched = weakref.ref(m), weakref.ref(m.weight)
        del m
        assert watched[0]() is None and watched[1]() is None
    finally:
        gc.enable()


def test_copies_have_tables_of_their_own():
    m = nn.Linear(2, 1)
    for way in (copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        n = way(m)
        n._parameters["weight"] = nn.Parameter(fastgrad.zeros(1, 2))
        assert n.weight.tolist() == [[0, 0]] and m.weight is m._parameters["weight"] and m.weight.tolist() != [[0, 0]]


def test_parameters_given_twice():
    tie = "m = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)); m[1].weight = m[0].weight; "
    check(generated(tie + "<w>", w=("[n for n, _ in m.named_parameters()]", "[n for n, _ in m.named_parameters(remove_duplicate=False)]",
                                    "len(list(m.parameters()))", "list(m.state_dict())", "m[0].weight is m[1].weight",
                                    "m.double(); m[0].weight is m[1].weight", "m.double(); m[1].weight.dtype")))  # fmt: skip


def _steps(library, make, conversions, rounds=6):
    """Losses and weights of a small fit whose model is converted between steps."""
    m = library.nn.Sequential(library.nn.Linear(3, 4), library.nn.Tanh(), library.nn.Linear(4, 1))
    r = np.random.default_rng(3)
    with library.no_grad():
        for p in m.parameters():
            p.copy_(library.tensor(r.normal(size=tuple(p.shape)).astype("f4")))
    x, y = r.normal(size=(8, 3)), r.normal(size=(8, 1))
    o = make(library, m)
    kept = list(m.parameters())
    for k in range(rounds):
        for at, name in conversions:
            if at == k:
                getattr(m, name)()
        dtype = next(m.parameters()).dtype
        o.zero_grad()
        ((m(library.tensor(x, dtype=dtype)) - library.tensor(y, dtype=dtype)) ** 2).mean().backward()
        o.step()
    assert all(a is b for a, b in zip(kept, m.parameters(), strict=True))
    return [p.detach().numpy().astype("f8") for p in m.parameters()], str(m[0].weight.dtype).partition(".")[2]


@pytest.mark.parametrize(
    "conversions", [[(2, "double")], [(2, "double"), (4, "float")], [(0, "double")], [(3, "double"), (3, "float")]]
)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1}])
def test_a_model_is_converted_between_steps(conversions, options):
    mine = _steps(fastgrad, lambda lib, m: lib.optim.SGD(m.parameters(), lr=0.1, **options), conversions)
    theirs = _steps(torch, lambda lib, m: lib.optim.SGD(m.parameters(), lr=0.1, foreach=False, **options), conversions)
    assert mine[1] == theirs[1]
    for a, b in zip(mine[0], theirs[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_goes_on_when_a_model_is_converted(amsgrad):
    make = lambda lib, m: lib.optim.Adam(m.parameters(), lr=0.1, amsgrad=amsgrad)  # noqa: E731
    plain, converted = _steps(fastgrad, make, []), _steps(fastgrad, make, [(3, "double")])
    for a, b in zip(plain[0], converted[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_loaded_state_has_the_type_of_its_parameters():
    for make, key in (
        (lambda p: fastgrad.optim.SGD(p, lr=0.1, momentum=0.9), "momentum_buffer"),
        (lambda p: fastgrad.optim.Adam(p), "exp_avg"),
    ):
        states = []
        for dtype in (fastgrad.float32, fastgrad.float64):
            p = nn.Parameter(fastgrad.ones(2, dtype=dtype))
            o = make([p])
            (p * p).sum().backward()
            o.step()
            states.append((p, o))
        (_, o), (q, narrow) = states[1], states[0]
        narrow.load_state_dict(o.state_dict())
        assert narrow.state[q][key].dtype is fastgrad.float32


def test_reductions_by_their_older_names():
    pairs = itertools.product((None, True, False), repeat=2)
    flags = [", ".join(f"{n}={v}" for n, v in zip(("size_average", "reduce"), p, strict=True)) for p in pairs]
    x, y = "T.tensor([[.2, .7], [.5, .4]])", "T.tensor([[0., 1.], [1., 1.]])"
    for f in ("mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"):
        check(generated(f"F.{f}({x}, {y}, <k>)", k=flags))
    check(generated(f"F.<f>({x}, T.tensor([0, 1]), <k>)", f=("nll_loss", "cross_entropy"), k=flags))
    losses = [n for n in ("MSELoss", "L1Loss", "SmoothL1Loss", "BCELoss", "BCEWithLogitsLoss") if hasattr(nn, n)]
    check(generated(f"nn.<f>(<k>)({x}, {y})", f=losses, k=flags))
    check(generated(f"nn.<f>(<k>)({x}, T.tensor([0, 1]))", f=("NLLLoss", "CrossEntropyLoss"), k=flags))


def test_names_of_reductions():
    x, y = "T.tensor([[.2, .7], [.5, .4]])", "T.tensor([[0., 1.], [1., 1.]])"
    names = ("'mean'", "'sum'", "'none'", "'average'", "None", "'MEAN'", "''", "3")
    losses = (
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "kl_div",
    )
    for f in [f for f in losses if hasattr(nn.functional, f)]:
        check(generated(f"F.{f}({x}, {y}, reduction=<r>)", r=names))
    check(generated(f"F.<f>({x}, T.tensor([0, 1]), reduction=<r>)", f=("nll_loss", "cross_entropy"), r=names))
