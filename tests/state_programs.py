"""Programs about Python's state: a function that reads a value somewhere, and changes of that value between its calls.

A program is a `Place` (how the value is reached, and how another one is put there) times a `Use` (what kind of value it is, what the
function does with it, and how it can be changed where it stands). `source` writes it as a module with a function `f` and a list
`changes`; the module is imported twice, so that the compiled function and the plain one have state of their own.

    python -m tests.state_programs --count 5000 --seed 3
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastgrad

HEAD = """\
import collections, contextvars, dataclasses, enum, functools, itertools, math, operator, os, random, time, types
import numpy as np
import fastgrad as torch
from fastgrad import nn
F = nn.functional

def two(value):
    return value, value

class Scaled:
    def __init__(self, by): self.by = by
    def __call__(self, x): return x * self.by
    def __repr__(self): return f"Scaled({self.by})"
"""


@dataclass(frozen=True)
class Place:
    """Statements that put the value `{v}` somewhere, the expression that reads it, a statement that puts `{v}` there instead."""

    setup: str
    read: str
    write: str
    quick: bool = True  # whether the function stays compiled when only numbers, tensors and layers stand there


def _class(body: str, made: str = "a = A()") -> str:
    return f"class A:\n{body}\n{made}"


_INIT = "    def __init__(self): self.k = {v}\n"

PLACES: dict[str, Place] = {
    # attributes
    "attribute": Place(_class(_INIT), "a.k", "a.k = {v}"),
    "attribute through a method": Place(_class(_INIT + "    def get(self): return self.k"), "a.get()", "a.k = {v}"),
    "attribute through two methods": Place(
        _class(_INIT + "    def inner(self): return self.k\n    def get(self): return self.inner()"), "a.get()", "a.k = {v}"
    ),
    "property": Place(_class(_INIT + "    @property\n    def p(self): return self.k"), "a.p", "a.k = {v}"),
    "call of an object": Place(_class(_INIT + "    def __call__(self): return self.k"), "a()", "a.k = {v}"),
    "class attribute": Place(_class("    k = {v}"), "a.k", "A.k = {v}"),
    "class attribute by class": Place(_class("    k = {v}"), "A.k", "A.k = {v}"),
    "class attribute shadowed": Place(_class("    k = {v}"), "a.k", "a.k = {v}"),
    "class method": Place(_class("    k = {v}\n    @classmethod\n    def get(cls): return cls.k"), "A.get()", "A.k = {v}"),
    "static method replaced": Place(
        _class("    @staticmethod\n    def get(): return {v}"), "a.get()", "A.get = staticmethod(lambda: {v})"
    ),
    "inherited": Place("class B:\n    k = {v}\nclass A(B): pass\na = A()", "a.k", "B.k = {v}"),
    "inherited shadowed": Place("class B:\n    k = {v}\nclass A(B): pass\na = A()", "a.k", "A.k = {v}"),
    "base replaced": Place(
        "class B:\n    k = {v}\nclass C(B): pass\nclass A(C): pass\na = A()", "a.k",
        "A.__bases__ = (type('D', (C,), dict(k={v})),)",
    ),
    "class replaced": Place(_class("    k = {v}"), "a.k", "a.__class__ = type('E', (A,), dict(k={v}))"),
    "class replaced, called": Place(
        _class("    k = {v}\n    def __call__(self): return self.k"), "a()",
        "a.__class__ = type('E', (A,), dict(q={v}, __call__=lambda self: self.q))",
    ),
    "class replaced, item": Place(
        _class("    k = {v}\n    def __getitem__(self, i): return self.k"), "a[0]",
        "a.__class__ = type('E', (A,), dict(q={v}, __getitem__=lambda self, i: self.q))",
    ),
    "class replaced, loop": Place(
        _class("    k = {v}\n    def __iter__(self): return iter([self.k])"), "[y for y in a][0]",
        "a.__class__ = type('E', (A,), dict(q={v}, __iter__=lambda self: iter([self.q])))",
    ),
    "class replaced, operator": Place(
        _class("    k = {v}\n    def __add__(self, other): return self.k"), "a + 1",
        "a.__class__ = type('E', (A,), dict(q={v}, __add__=lambda self, other: self.q))",
    ),
    "super": Place(
        "class B:\n    k = {v}\n    def get(self): return self.k\nclass A(B):\n    def get(self): return super().get()\na = A()",
        "a.get()", "a.k = {v}",
    ),
    "dict of an object": Place(_class(_INIT), "a.__dict__['k']", "a.k = {v}"),
    "vars": Place(_class(_INIT), "vars(a)['k']", "a.k = {v}", False),
    "whole dict replaced": Place(_class(_INIT), "a.k", "a.__dict__ = dict(k={v})"),
    "getattr": Place(_class(_INIT), "getattr(a, 'k')", "a.k = {v}"),
    "getattr with a default": Place(_class("    pass") + "\ndefault = {v}", "getattr(a, 'k', default)", "a.k = {v}"),
    "attrgetter": Place(_class(_INIT) + "\nget = operator.attrgetter('k')", "get(a)", "a.k = {v}"),
    "user's __getattr__": Place(
        _class("    def __init__(self): self.d = dict(k={v})\n    def __getattr__(self, name): return self.d[name]"),
        "a.k", "a.d['k'] = {v}",
    ),
    "user's __getattribute__": Place(
        _class(_INIT + "    def __getattribute__(self, name): return object.__getattribute__(self, name)"), "a.k", "a.k = {v}", False
    ),
    "descriptor": Place(
        "class D:\n    def __init__(self, v): self.v = v\n    def __get__(self, thing, cls): return self.v\n"
        "d = D({v})\nclass A: k = d\na = A()",
        "a.k", "d.v = {v}",
    ),
    "slot": Place(_class("    __slots__ = ('k',)\n    def __init__(self): self.k = {v}"), "a.k", "a.k = {v}"),
    "simple namespace": Place("a = types.SimpleNamespace(k={v})", "a.k", "a.k = {v}"),
    "object replaced": Place(_class(_INIT), "a.k", "a = A(); a.k = {v}"),
    "attribute of an attribute": Place(_class(_INIT, "a = types.SimpleNamespace(b=A())"), "a.b.k", "a.b = A(); a.b.k = {v}"),
    "method swapped on the class": Place(_class("    def get(self): return {v}"), "a.get()", "A.get = lambda self: {v}"),
    "method swapped on the object": Place(_class("    def get(self): return {v}"), "a.get()", "a.get = lambda: {v}"),
    "dataclass": Place("@dataclasses.dataclass\nclass A:\n    k: object\na = A({v})", "a.k", "a.k = {v}"),
    "frozen dataclass replaced": Place(
        "@dataclasses.dataclass(frozen=True)\nclass A:\n    k: object\na = A({v})", "a.k", "a = dataclasses.replace(a, k={v})"
    ),
    "dataclass with slots": Place("@dataclasses.dataclass(slots=True)\nclass A:\n    k: object\na = A({v})", "a.k", "a.k = {v}"),
    "namedtuple": Place("A = collections.namedtuple('A', 'k')\na = A({v})", "a.k", "a = a._replace(k={v})"),
    "enum member": Place(
        "class E(enum.Enum):\n    one = 1\n    two = 2\nby = {{E.one: {v}}}\na = types.SimpleNamespace(e=E.one)", "by[a.e]",
        "by[E.two] = {v}; a.e = E.two",
    ),
    "attribute of a function": Place("def g(): return g.k\ng.k = {v}", "g()", "g.k = {v}"),
    # items
    "item of a list": Place("a = [0, {v}]", "a[1]", "a[1] = {v}"),
    "last item": Place("a = [0, {v}]", "a[-1]", "a.append({v})"),
    "item by a slice": Place("a = [0, {v}]", "a[1:][0]", "a[1] = {v}"),
    "item after an insertion": Place("a = [0, {v}]", "a[1]", "a.insert(1, {v})"),
    "item of a dict": Place("a = dict(k={v})", "a['k']", "a['k'] = {v}"),
    "get": Place("a = dict(k={v})", "a.get('k')", "a['k'] = {v}"),
    "get with a default": Place("a = dict()\ndefault = {v}", "a.get('k', default)", "a['k'] = {v}"),
    "in": Place("a = dict()\ndefault = {v}", "(a['k'] if 'k' in a else default)", "a['k'] = {v}"),
    "nested items": Place("a = [dict(k=({v},))]", "a[0]['k'][0]", "a[0]['k'] = ({v},)"),
    "tuple replaced": Place("a = ({v}, 0)", "a[0]", "a = ({v}, 0)"),
    "unpacked": Place("a = [0, {v}]", "(lambda b: (lambda _, y: y)(*b))(a)", "a[1] = {v}"),
    "default dict": Place("a = collections.defaultdict(int, k={v})", "a['k']", "a['k'] = {v}"),
    "ordered dict": Place("a = collections.OrderedDict(k={v})", "a['k']", "a['k'] = {v}"),
    "first of an ordered dict": Place(
        "a = collections.OrderedDict(k={v})", "list(a.values())[0]", "a[str(len(a))] = {v}; a.move_to_end(str(len(a) - 1), last=False)"
    ),
    "subclass of dict": Place("class A(dict): pass\na = A(k={v})", "a['k']", "a['k'] = {v}"),
    "subclass of list": Place("class A(list): pass\na = A([{v}])", "a[0]", "a[0] = {v}", False),
    "user dict": Place("a = collections.UserDict(k={v})", "a['k']", "a['k'] = {v}", False),
    "deque": Place("a = collections.deque([{v}])", "a[0]", "a[0] = {v}"),
    "itemgetter": Place("a = dict(k={v})\nget = operator.itemgetter('k')", "get(a)", "a['k'] = {v}"),
    "user's __getitem__": Place(
        _class("    def __init__(self): self.d = [{v}]\n    def __getitem__(self, i): return self.d[i]"), "a[0]", "a.d[0] = {v}"
    ),
    "mapping unpacked": Place("a = dict(k={v})\ndef g(k): return k", "g(**a)", "a['k'] = {v}"),
    "chain map": Place("b = dict(k={v})\na = collections.ChainMap({{}}, b)", "a['k']", "b['k'] = {v}", False),
    # loops
    "loop": Place("a = [{v}]", "[y for y in a][-1]", "a.append({v})"),
    "items of a dict": Place("a = dict(k={v})", "[y for _, y in a.items()][-1]", "a['k'] = {v}"),
    "values of a dict": Place("a = dict(k={v})", "list(a.values())[-1]", "a['l'] = {v}"),
    "keys of a dict": Place("a = dict(k={v})", "[a[k] for k in a.keys()][-1]", "a['l'] = {v}"),
    "sorted": Place("a = [(2, {v})]", "sorted(a, key=lambda t: t[0])[0][1]", "a.append((1 - len(a), {v}))"),
    "reversed": Place("a = [{v}]", "list(reversed(a))[0]", "a.append({v})"),
    "enumerate": Place("a = [{v}]", "[y for i, y in enumerate(a)][-1]", "a.append({v})"),
    "zip": Place("a = [{v}]\nb = [1]", "[y for y, z in zip(a, b)][-1]", "a[0] = {v}"),
    "map": Place("a = [{v}]", "list(map(lambda y: y, a))[-1]", "a.append({v})"),
    "filter": Place("a = [{v}]", "list(filter(lambda y: y is not None, a))[-1]", "a.append({v})"),
    "next of a generator": Place("a = [{v}]", "next(y for y in a)", "a[0] = {v}"),
    "chain": Place("a = [{v}]\nb = []", "list(itertools.chain(a, b))[-1]", "b.append({v})"),
    "reduce": Place("a = [{v}]", "functools.reduce(lambda p, q: q, a)", "a.append({v})"),
    "user's __iter__": Place(
        _class("    def __init__(self): self.d = [{v}]\n    def __iter__(self): return iter(self.d)"), "[y for y in a][-1]",
        "a.d.append({v})",
    ),
    "user's generator": Place("a = [{v}]\ndef g():\n    yield from a", "list(g())[-1]", "a.append({v})"),
    "star": Place("a = [{v}]\ndef g(*b): return b[-1]", "g(*a)", "a.append({v})"),
    "list built of others": Place("a = [0]\nb = [{v}]", "(a + b)[1]", "b[0] = {v}"),
    # names
    "global": Place("k = {v}", "k", "k = {v}"),
    "global of a function that is called": Place("k = {v}\ndef g(): return k", "g()", "k = {v}"),
    "global of another module": Place(
        "other = types.ModuleType('other'); other.k = {v}", "other.k", "other.k = {v}"
    ),
    "function of another module": Place(
        "other = types.ModuleType('other'); other.k = lambda: {v}", "other.k()", "other.k = lambda: {v}"
    ),
    "name that hides a builtin": Place("def g(): return ({v}, 1)", "min(g())", "min = lambda t: {v}", False),
    "default": Place("def g(k={v}): return k", "g()", "g.__defaults__ = ({v},)"),
    "keyword default": Place("def g(*, k={v}): return k", "g()", "g.__kwdefaults__ = dict(k={v})"),
    "item of keyword defaults": Place("def g(*, k={v}): return k", "g()", "g.__kwdefaults__['k'] = {v}"),
    "code": Place("def g(): return {v}\ndef other(): return 0", "g()", "def h(): return {v}\ng.__code__ = h.__code__"),
    "closure cell": Place(
        "def make(k):\n    def get(): return k\n    def put(new):\n        nonlocal k\n        k = new\n    return get, put\n"
        "get, put = make({v})",
        "get()", "put({v})",
    ),
    "contents of a cell": Place(
        "def make(k):\n    def get(): return k\n    return get\nget = make({v})", "get()",
        "get.__closure__[0].cell_contents = {v}",
    ),
    "partial": Place("def g(k): return k\nh = functools.partial(g, {v})", "h()", "h = functools.partial(g, {v})"),
    "keyword of a partial": Place("def g(k): return k\nh = functools.partial(g, k={v})", "h()", "h.keywords['k'] = {v}"),
    "wrapped function": Place(
        "def deco(g):\n    @functools.wraps(g)\n    def inner(*a): return g(*a)\n    return inner\nk = {v}\n@deco\ndef h(): return k",
        "h()", "k = {v}",
    ),
    "cached function": Place("k = {v}\n@functools.lru_cache\ndef g(n): return k\nn = 0", "g(n)", "k = {v}; n += 1", False),
    "cached property": Place(
        _class(_INIT + "    @functools.cached_property\n    def p(self): return self.k") + "\na.p", "a.p", "a = A(); a.k = {v}; a.p"
    ),
    "context manager": Place(
        "class M:\n    k = {v}\n    def __enter__(self): return self.k\n    def __exit__(self, *e): return False\nm = M()\n"
        "def g():\n    with m as y:\n        return y",
        "g()", "m.k = {v}",
    ),
    "exception's argument": Place(
        "k = {v}\ndef g():\n    try:\n        raise KeyError(k)\n    except KeyError as e:\n        return e.args[0]", "g()", "k = {v}"
    ),
    "context variable": Place("c = contextvars.ContextVar('c'); c.set({v})", "c.get()", "c.set({v})", False),
    "weak reference": Place(
        "import weakref\nclass H: pass\nh = H(); h.k = {v}\nr = weakref.ref(h)", "r().k", "h.k = {v}", False
    ),
    "generator outside": Place(
        "box = [{v}]\ndef g():\n    while True: yield box[0]\nit = g()", "next(it)", "box[0] = {v}", False
    ),
    "iterator outside": Place("it = itertools.repeat({v})", "next(it)", "it = itertools.repeat({v})", False),
    # layers
    "attribute of a layer": Place(
        "class M(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.k = {v}\n"
        "    def forward(self): return self.k\nm = M()",
        "m()", "m.k = {v}",
    ),
    "attribute of a layer inside of a layer": Place(
        "class M(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.k = {v}\n"
        "    def forward(self): return self.k\nclass N(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.m = M()\n    def forward(self): return self.m()\nn = N()",
        "n()", "n.m.k = {v}",
    ),
    "layer replaced": Place(
        "class M(nn.Module):\n    def __init__(self, k):\n        super().__init__()\n        self.k = k\n"
        "    def forward(self): return self.k\nn = nn.ModuleList([M({v})])",
        "n[0]()", "n[0] = M({v})",
    ),
    "hook": Place(
        "class M(nn.Module):\n    def forward(self, x): return x\nm = M()\nk = {v}\n"
        "m.register_forward_hook(lambda m, a, out: (k, out))",
        "m(1)[0]", "k = {v}",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Use:
    """Values of a kind, statements that make `y` of `x` and the value `v`, and changes of the value where it stands."""

    values: tuple[str, str, str]
    bodies: tuple[str, ...]
    changes: tuple[str, ...] = ()
    quick: bool = True


_LIST_CHANGES = (
    "{r}.append(4.5)", "{r}[0] = 5.5", "del {r}[0]", "{r}.insert(0, 7.5)", "{r}.reverse()", "{r}[:] = [1.5, 2.5, 3.5]", "{r}.pop()",
    "{r}.extend([0.5, 8.5])",
)  # fmt: skip

USES: dict[str, Use] = {
    "float": Use(
        ("2.5", "0.3", "-1.75"),
        ("y = x * v", "y = x + (1.0 - v) ** 2", "y = x * v if v > 0 else -x", "y = torch.clamp(x, max=v)", "y = x * math.exp(v)",
         "y = x * max(v, 0.5)", "y = x * round(v, 1)", "y = x * float(f'{{v:.1f}}')", "y = x, v * 2", "y = F.leaky_relu(x, v)"),
    ),
    "int": Use(
        ("2", "1", "3"),
        ("y = x * v", "y = x[:v]", "y = x.sum(dim=v % 2)", "y = x / (1 + v)", "y = x\nfor _ in range(v): y = y * 1.5",
         "y = x * [1.0, 2.0, 3.0, 4.0][v]", "y = x ** v", "y = x.reshape(-1, v) if v != 3 else x", "y = x, v + 1", "y = x * 0.9 ** v"),
    ),
    "bool": Use(("True", "False", "True"), ("y = x if v else -x", "y = x * v", "y = x.sum(dim=0, keepdim=v)", "y = -x if not v else x + 1")),
    "text": Use(
        ("'relu'", "'tanh'", "'exp'"),
        ("y = getattr(torch, v)(x)", "y = torch.relu(x) if v == 'relu' else torch.tanh(x)", "y = {{'relu': F.relu}}.get(v, torch.sin)(x)",
         "y = x * len(v)", "y = x * (1.0 if v.startswith('r') else 2.0)"),
    ),
    "none": Use(("None", "torch.ones(3)", "None"), ("y = x if v is None else x + v", "y = x * 2 if v is not None else x - 1")),
    "tensor": Use(
        ("torch.tensor([1., 2., 3.])", "torch.tensor([4., 5., 6.])", "torch.tensor([[2.], [3.], [4.], [5.]])"),
        ("y = x + v", "y = (x * v).sum()", "y = x * v.shape[0]", "y = x, v", "y = v.reshape(-1)", "y = torch.cat([x.reshape(-1), v.reshape(-1)])"),
        ("{r}.mul_(2)", "{r}[0] = 9.5", "{r}.data = torch.full((3,), 0.5)", "{r}.fill_(1.5)", "{r}.requires_grad_()"),
    ),
    "numpy scalar": Use(("np.float64(2.5)", "np.float64(0.3)", "np.float64(-1.5)"), ("y = x * v", "y = x if v > 1 else -x", "y = x * float(v)")),
    "array": Use(
        ("np.array([1.5, 2.5, 3.5])", "np.array([0.5, 0.25, 4.0])", "np.array([1.0, 1.0, 2.0])"),
        ("y = x * v[0]", "y = x * float(v.sum())", "y = x + torch.tensor(v)", "y = x * len(v)", "y = x if (v > 1).all() else -x"),
        ("{r}[0] = 7.25", "{r}[:] = 0.5", "{r} .sort()", "{r} *= 2"),
        False,
    ),
    "list": Use(
        ("[1.5, 2.5, 3.25]", "[0.5, 4.5, 0.25]", "[3.5]"),
        ("y = x * sum(v)", "y = x * len(v)", "y = x\nfor s in v: y = y * s", "y = x * v[-1]", "y = x * sorted(v)[0]",
         "y = sum([x * s for s in v])", "y = x if 2.5 in v else -x", "y = x * max(v)", "y = x if v else -x", "y = x if any(s > 4 for s in v) else -x",
         "y = x + torch.tensor(v).sum()", "y = x * v.index(v[0]) + v.count(2.5)", "y = x * (v[0] if len(v) > 1 else 0.5)", "first, *rest = v\ny = x * first + len(rest)",
         "y = x if v == [1.5, 2.5, 3.25] else -x", "y = x if all(v) else -x", "y = [x * s for s in reversed(v)]", "y = x * math.prod(v)",
         "y = torch.stack([x * s for i, s in enumerate(v)])", "y = x * sum(a * b for a, b in zip(v, v[1:], strict=False))", "y = x * np.mean(v)"),
        _LIST_CHANGES,
    ),
    "list of tensors": Use(
        ("[torch.ones(3), torch.full((3,), 2.)]", "[torch.full((3,), 3.)]", "[torch.full((3,), k) for k in (1., 2., 5.)]"),
        ("y = x\nfor t in v: y = y * t", "y = x + torch.stack(v).sum(0)", "y = x + sum(v)", "y = [x * t for t in v]", "y = x * v[0] * len(v)", "y = v[-1], x"),
        ("{r}.append(torch.full((3,), 4.))", "{r}[0] = torch.full((3,), 5.)", "{r}[0].add_(1)", "{r}.pop()", "{r}.reverse()"),
    ),
    "tuple": Use(
        ("(1.5, 2)", "(0.5, 1)", "(2.5, 3)"),
        ("p, q = v\ny = x * p + q", "y = x * v[0] ** v[1]", "y = x if v == (1.5, 2) else -x", "y = x * len(v) * sum(v)", "y = x if 2 in v else -x"),
    ),
    "dict": Use(
        ("dict(a=1.5, b=2.5)", "dict(a=0.5, b=4.5)", "dict(a=3.5)"),
        ("y = x * v['a']", "y = x * v.get('b', 7.5)", "y = x * sum(v.values())", "y = x\nfor k, s in v.items(): y = y * s + len(k)",
         "y = x if 'b' in v else -x", "y = x * len(v)", "y = {{k: x * s for k, s in v.items()}}", "y = (lambda a, b=0.5: x * a + b)(**v)",
         "y = x * float({{**v, 'c': 2.0}}['a'])", "y = x if v else -x", "y = x * [len(k) for k in v][0]", "y = x * (v | dict(c=9.5))['c'] + len(v)"),
        ("{r}['a'] = 6.5", "{r}['c'] = 0.75", "{r}.pop('a'); {r}['a'] = 8.5", "{r}.update(a=2.25, b=1.25)", "{r}.setdefault('b', 9.5)"),
    ),
    "set": Use(
        ("{1, 2}", "{3}", "{2, 5, 7}"), ("y = x * len(v)", "y = x if 2 in v else -x", "y = x * sum(v)", "y = x * max(v)"),
        ("{r}.add(4)", "{r}.discard(2)", "{r}.update([8, 9])"),
    ),
    "function": Use(
        ("torch.relu", "(lambda t: t * 2.5)", "torch.tanh"), ("y = v(x)", "y = v(v(x))", "y = list(map(v, [x]))[0]"),
    ),
    "object": Use(("Scaled(2.5)", "Scaled(0.5)", "Scaled(4)"), ("y = v(x)", "y = x * v.by", "y = x if v.by > 1 else -x"), ("{r}.by = 6.5", "{r}.by = -2")),
    "layer": Use(
        ("nn.Linear(3, 2)", "nn.Linear(3, 4, bias=False)", "nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Dropout(0.5))"),
        ("y = v(x)", "y = v.forward(x)", "y = v(x).sum() * len(list(v.parameters()))", "y = v(x) if v.training else x",
         "y = x\nfor p in v.parameters(): y = y + p.sum()", "y = v(x), [p for p in v.parameters()]"),
        ("{r}.eval()", "{r}.weight.data.mul_(3)", "{r}.weight.data[0] = 2.5", "{r}.weight = nn.Parameter(torch.ones(2, 3))", "{r}.bias = None",
         "{r}.weight.requires_grad_(False)", "{r}.bias.data = torch.full((2,), 4.)", "{r}.register_forward_hook(lambda m, a, out: out * 2)",
         "{r}.load_state_dict(dict(weight=torch.ones(2, 3), bias=torch.zeros(2)))", "{r}.forward = lambda x: x * 3", "{r}.train()",
         "{r}.double().float()"),
    ),
    "layers": Use(
        ("nn.ModuleList([nn.Linear(3, 3), nn.Tanh()])", "nn.Sequential(nn.Linear(3, 3))", "[nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)]"),
        ("y = x\nfor m in v: y = m(y)", "y = v[0](x)", "y = x * len(v)", "y = v[-1](x)", "y = functools.reduce(lambda t, m: m(t), v, x)"),
        ("{r}.append(nn.ReLU())", "{r}[1] = nn.Sigmoid()", "{r}[0] = nn.Linear(3, 3)", "{r}[0].weight.data.add_(1)", "{r}[0].eval()", "{r}.insert(0, nn.Tanh())"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """One program: names of its place and use, and which body of the use."""

    place: str
    use: str
    body: int

    @property
    def name(self) -> str:
        return f"{self.place}: {self.use}, {USES[self.use].bodies[self.body]!r}"

    def source(self) -> str:
        """The text of the module."""
        place, use = PLACES[self.place], USES[self.use]
        body = use.bodies[self.body].format().split("\n")
        lines = [
            HEAD,
            "torch.manual_seed(5)",
            place.setup.format(v=use.values[0]),
            "def f(x):",
            f"    v = {place.read}",
        ]
        lines += [f"    {line}" for line in body]
        lines += ["    return y", "changes = []"]
        writes = [use.values[1], use.values[2], use.values[0]]
        statements = [place.write.format(v=v) for v in writes]
        there = [c.format(r=f"({place.read})") for c in use.changes]
        # the first changes are where the value stands: they fit the first value
        for statement in [*there, *statements]:
            lines.append(f"changes.append({statement!r})")
        return "\n".join(lines) + "\n"


def programs() -> list[Program]:
    """All programs."""
    return [Program(p, u, b) for (p, u) in itertools.product(PLACES, USES) for b in range(len(USES[u].bodies))]


_count = itertools.count()


def twins(program: Program, folder: Path) -> Iterator[Any]:
    """The program's module, imported twice."""
    path = folder / f"state_{next(_count)}.py"
    path.write_text(program.source())
    for k in range(2):
        spec = importlib.util.spec_from_file_location(f"{path.stem}_{k}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


# ------------------------------------------------------------------------------------------------------------ running


def shown(value: Any) -> Any:
    """A value as something that can be compared: types, bits, gradient flags."""
    if isinstance(value, fastgrad.Tensor):
        found = value.detach().numpy()
        return "tensor", found.dtype.str, found.shape, found.tobytes(), value.requires_grad
    if isinstance(value, np.ndarray):
        return "array", value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, (list, tuple)):
        return type(value), *[shown(x) for x in value]
    if isinstance(value, dict):
        return type(value), *[(k, shown(x)) for k, x in value.items()]
    return type(value), value.hex() if type(value) is float else repr(value)


def outcome(f: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """What a call gives or raises, to be compared and to be printed."""
    fastgrad.manual_seed(11)
    try:
        value = f(*args)
    except Exception as error:
        return ("raised", type(error), str(error)), repr(error)
    return shown(value), value


@dataclass
class Found:
    """What running a program has shown."""

    differences: list[str]
    frames: int  # of the function's own Python in one call when nothing has changed
    warnings: list[str]


def check(program: Program, folder: Path, calls: int = 5) -> Found:
    """Run a program compiled and plain, change by change."""
    plain, other = twins(program, folder)
    rows = [fastgrad.tensor(np.random.default_rng(k).normal(size=(4, 3)).astype(np.float32)) for k in range(3)]
    found = Found([], 0, [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = fastgrad.compile(other.f)
        for change in ("", *plain.changes):
            errors = []
            for module in (plain, other):
                fastgrad.manual_seed(7)
                try:
                    exec(change, vars(module))
                except Exception as error:
                    errors.append(type(error))
            assert len(errors) in (0, 2), change
            for k in range(calls):
                (expected, right), (given, wrong) = outcome(plain.f, rows[k % 3]), outcome(compiled, rows[k % 3])
                if expected != given:
                    found.differences.append(f"call {k} after {change!r}: {wrong} should be {right}")
                    break
            if not change:
                found.frames = frames(compiled, rows[0], other.__file__)
    found.warnings = [str(w.message) for w in caught if "runs its Python" in str(w.message)]
    return found


def frames(f: Callable[..., Any], x: Any, file: str) -> int:
    """How many functions of a file run in one call."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename == file

    sys.setprofile(profile)
    try:
        outcome(f, x)
    finally:
        sys.setprofile(None)
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the programs' names")
    options = parser.parse_args()
    chosen = [p for p in programs() if options.only in p.name]
    random.Random(options.seed).shuffle(chosen)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for program in chosen[: options.count]:
            found = check(program, Path(folder))
            if found.differences:
                failed += 1
                print(program.name, *found.differences, sep="\n    ", flush=True)
    print(f"{min(options.count, len(chosen))} programs of {len(chosen)}, {failed} differ")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
