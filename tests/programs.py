"""Random programs over PyTorch's API, as plain data, and an interpreter that runs them with any module of that API.

A `Program` is leaves (described, not stored: shape, dtype, kind, seed), scalars `s[i]`, and statements: lines of Python
over numbered names. `p0` is a leaf, `v3` a variable, `h1` a variable that a loop carries, `n2` a NumPy array that
shares memory with a tensor, `o0` an optimizer. A statement is its own source: a program prints as a script that runs.

Start reading at `check`, which runs one program in all modes of fastgrad and in PyTorch and compares. `Generator`
writes programs, `run` and `run_function` execute them, `minimise` shrinks one that fails.

    python -m tests.programs --seed 17 --count 100 --modes eager tier0 torch
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import math
import random
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

MODES = ("eager", "tier0", "tier1", "tier2", "draft", "compiled", "captured", "looped", "torch")
VARIANTS = (0, 1, 0, 2)  # the rounds of a run, each with other data and other scalars: the trace is found again
NAME = re.compile(r"[phvno]\d+$")


# ----------------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Leaf:
    """A tensor that a program starts from. `kind` says what its values are: see `array`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    requires_grad: bool
    seed: int

    def expression(self, variant: int = 0) -> str:
        rng = f"np.random.default_rng({self.seed + 1000 * variant})"
        kind, _, high = self.kind.partition(":")
        text = {
            "normal": f"{rng}.uniform(-1.5, 1.5, {self.shape})",
            "unit": f"{rng}.uniform(0, 1, {self.shape})",
            "index": f"{rng}.integers(0, {high or 1}, {self.shape})",
            "either": f"{rng}.integers(-{high or 1}, {high or 1}, {self.shape})",
            "distinct": f"{rng}.permutation({high or 1})[:{self.shape[0] if self.shape else 0}]",
            "wild": f"{rng}.choice([np.nan, np.inf, -0.0, 0.5, -1.25, 2.0, 1e3], {self.shape})",
        }[kind]
        return f"np.asarray({text}).astype('{self.dtype}')"

    def array(self, variant: int = 0) -> np.ndarray:
        return eval(self.expression(variant), {"np": np})

    def source(self, variant: int = 0) -> str:
        return f"{self.name} = torch.tensor({self.expression(variant)}, requires_grad={self.requires_grad})"


@dataclass(frozen=True)
class Statement:
    """One line, or the head of a block (`for`, `if`) with its lines."""

    source: str
    body: tuple[Statement, ...] = ()
    orelse: tuple[Statement, ...] = ()

    def lines(self, indent: str = "") -> Iterator[str]:
        yield indent + self.source
        for statement in self.body:
            yield from statement.lines(indent + "    ")
        if self.orelse:
            yield indent + "else:"
            for statement in self.orelse:
                yield from statement.lines(indent + "    ")

    def names(self) -> tuple[set[str], set[str]]:
        """The numbered names that are bound and those that are read, blocks included."""
        bound, read = names_of(self.source)
        for inner in self.body + self.orelse:
            inner_bound, inner_read = inner.names()
            read = read | (inner_read - bound)
            bound = bound | inner_bound
        return bound, read


@functools.lru_cache(maxsize=100_000)
def names_of(source: str) -> tuple[frozenset[str], frozenset[str]]:
    tree = ast.parse(source + " pass" if source.endswith(":") else source)
    bound, read = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            read.add(node.target.id)
        if isinstance(node, ast.Name) and NAME.match(node.id):
            (bound if isinstance(node.ctx, ast.Store) else read).add(node.id)
    return frozenset(bound), frozenset(read)


@dataclass(frozen=True)
class Program:
    seed: int
    leaves: tuple[Leaf, ...]
    scalars: tuple[float, ...]
    setup: tuple[Statement, ...]  # optimizers
    body: tuple[Statement, ...]
    outputs: tuple[str, ...]  # looked at in the end
    double: bool  # all in float64: compared tightly
    observes: bool  # looks at values on the way: not for compile

    def scalar_values(self, variant: int = 0) -> list[float]:
        return [value * (1 + 0.125 * variant) for value in self.scalars]

    def script(self, module: str = "fastgrad", variant: int = 0) -> str:
        lines = [
            f"# program {self.seed}: python -m tests.programs --seed {self.seed}",
            "import numpy as np",
            f"import {module} as torch",
            "F = torch.nn.functional",
            "observe = print",
            f"s = {self.scalar_values(variant)}",
        ]
        lines += [leaf.source(variant) for leaf in self.leaves]
        lines += [line for statement in self.setup + self.body for line in statement.lines()]
        lines += [f"print('{name}', {name})" for name in self.outputs]
        lines += [f"print('{leaf.name}.grad', {leaf.name}.grad)" for leaf in self.leaves if leaf.requires_grad]
        return "\n".join(lines) + "\n"

    def function(self, captured: bool) -> str:
        """The body as a function, of its leaves and scalars or capturing them, that returns the outputs."""
        parameters = "" if captured else ", ".join([leaf.name for leaf in self.leaves] + ["s"])
        bound = {name for statement in self.body for name in statement.names()[0]}
        rebound = sorted(bound & {leaf.name for leaf in self.leaves}) if captured else []
        lines = [f"global {', '.join(rebound)}"] if rebound else []
        lines += [line for statement in self.body for line in statement.lines()]
        lines += [f"return ({''.join(name + ', ' for name in self.outputs)})"]
        return f"def program({parameters}):\n" + "".join(f"    {line}\n" for line in lines)


# ------------------------------------------------------------------------------------------------------ the generator


@dataclass
class Var:
    """What the generator knows of a name."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    bound: float = 1.5  # a rough bound of its values
    grad: bool = False
    leaf: bool = False
    storage: int = 0  # names with the same storage share memory
    history: frozenset[int] = frozenset()  # the recorded operations that lead here
    leaves: frozenset[str] = frozenset()  # and the leaves among them
    frozen: bool = False  # not for in-place writes: expanded, one of several views, NumPy's
    has_grad: bool = False
    spread: bool = False  # its values are all different, as far as one knows

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")


# template, bound of the result for a bound of the operand, largest bound of the operand allowed
UNARY: tuple[tuple[str, Callable[[float], float], float], ...] = (
    ("torch.tanh({a})", lambda m: 1, 99),
    ("{a}.sigmoid()", lambda m: 1, 99),
    ("torch.sin({a})", lambda m: 1, 99),
    ("torch.cos({a})", lambda m: 1, 99),
    ("torch.atan({a})", lambda m: 1.6, 99),
    ("torch.asinh({a})", lambda m: m, 99),
    ("torch.cosh(torch.sin({a}))", lambda m: 1.6, 99),
    ("torch.erfc({a})", lambda m: 2, 99),
    ("torch.asin(torch.tanh({a}) * 0.9)", lambda m: 1.2, 99),
    ("torch.exp({a})", math.exp, 2.5),
    ("torch.exp(-{a} * {a})", lambda m: 1, 4),
    ("torch.log({a}.abs() + 0.5)", lambda m: math.log(m + 1) + 0.7, 99),
    ("torch.log1p({a} * {a})", lambda m: math.log1p(m * m), 99),
    ("torch.sqrt({a} * {a} + 0.5)", lambda m: m + 1, 99),
    ("{a}.square()", lambda m: m * m, 5),
    ("torch.reciprocal({a}.abs() + 1)", lambda m: 1, 99),
    ("-{a}", lambda m: m, 99),
    ("{a}.abs()", lambda m: m, 99),
    ("torch.sign({a}) * {a}", lambda m: m, 99),
    ("torch.relu({a})", lambda m: m, 99),
    ("{a}.clamp({neg}, {pos})", lambda m: m, 99),
    ("torch.clamp({a}, min={neg})", lambda m: m + 2, 99),
    ("{a} ** 2", lambda m: m * m, 5),
    ("{a} ** 3", lambda m: m**3, 3),
    ("({a}.abs() + 0.5) ** {any}", lambda m: (m + 2) ** 2, 4),
    ("{pos} ** torch.tanh({a})", lambda m: 2, 99),
    ("{a} * {any}", lambda m: 2 * m, 99),
    ("{any} * {a}", lambda m: 2 * m, 99),
    ("{a} + {any}", lambda m: m + 2, 99),
    ("{any} - {a}", lambda m: m + 2, 99),
    ("1 - {a}", lambda m: m + 1, 99),
    ("{a} / {pos}", lambda m: 2 * m, 99),
    ("{pos} / ({a}.abs() + 1)", lambda m: 2, 99),
    ("torch.where({a} > {any}, {a}, {a} * {any})", lambda m: 2 * m, 99),
    ("torch.add({a}, {a}, alpha={any})", lambda m: 3 * m, 99),
    ("{a}.clone()", lambda m: m, 99),
)
BINARY: tuple[tuple[str, Callable[[float, float], float]], ...] = (
    ("{a} + {b}", lambda m, k: m + k),
    ("{a} - {b}", lambda m, k: m + k),
    ("{b} - {a}", lambda m, k: m + k),
    ("{a} * {b}", lambda m, k: m * k),
    ("torch.mul({b}, {a})", lambda m, k: m * k),
    ("{a} / ({b}.abs() + 1)", lambda m, k: m),
    ("torch.maximum({a}, {b})", max),
    ("torch.hypot({a} + 0.5, {b}.abs() + 0.5)", lambda m, k: m + k + 1),
    ("torch.atan2({a}, {b}.abs() + 0.5)", lambda m, k: 1.6),
    ("torch.minimum({a}, {b})", max),
    ("torch.where({a} > {b}, {a}, {b} * 0.5)", max),
    ("({a}.abs() + 0.5) ** torch.tanh({b})", lambda m, k: m + 2),
    ("torch.add({a}, {b}, alpha={any})", lambda m, k: m + 2 * k),
    ("({a} < {b}) * {a}", max),
)
IN_PLACE = (
    "{t}.add_({b})",
    "{t}.sub_({b}, alpha={any})",
    "{t}.mul_({b})",
    "{t}.div_({b}.abs() + 1)",
    "{t} += {b}",
    "{t} *= {any}",
    "{t} -= {b}",
    "{t} /= {pos}",
    "{t}.copy_({b})",
    "{t}.fill_({any})",
    "{t}.zero_()",
)


VIEWS = ("reshape", "flatten", "squeeze", "unsqueeze", "transpose", "permute", "T", "expand", "view")
INDEXING = ("basic", "basic", "basic", "array", "list", "pair", "gather", "index_select", "index_add")


def promote(*operands: tuple[str, int]) -> str:
    """The dtype of an elementwise result from (dtype, ndim) of tensors: PyTorch's rule for tensors of no dimension."""

    def widest(dtypes: list[str]) -> str:
        names = ["bool", "uint8", "int32", "int64", "float32", "float64"]
        return max(dtypes, key=names.index)

    def category(dtype: str) -> int:
        return 2 if dtype.startswith("float") else 0 if dtype == "bool" else 1

    full = [dtype for dtype, ndim in operands if ndim > 0]
    zero = [dtype for dtype, ndim in operands if ndim == 0]
    if not full or not zero:
        return widest(full or zero)
    return widest(zero) if category(widest(zero)) > category(widest(full)) else widest(full)


class Generator:
    """Writes one random program. A `make_*` method appends statements, or returns False where it finds no operand."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.dtype = self.rng.choice(["float64", "float64", "float32"])
        self.double = self.dtype == "float64" and self.rng.random() < 0.85
        self.observes = self.rng.random() < 0.5
        self.wild = self.rng.random() < 0.04
        self.extents = self.rng.sample([1, 2, 3, 4, 5, 6], 3)
        if self.rng.random() < 0.05:
            self.extents.append(0)
        self.large = self.rng.random() < 0.2
        self.leaves: list[Leaf] = []
        self.scalars: list[float] = []
        self.setup: list[Statement] = []
        self.body: list[Statement] = []
        self.vars: dict[str, Var] = {}
        self.freed: set[int] = set()
        self.count = 0  # names, storages and operations are numbered from this one counter
        self.outer = 0  # the counter where the innermost block began
        self.in_loop = False

    def program(self) -> Program:
        for _ in range(self.rng.randint(1, 3)):
            self.leaf(self.shape(), grad=True)
        for _ in range(self.rng.randint(0, 2)):
            self.leaf(self.shape(), grad=False)
        steps = self.rng.choice([6, 12, 24, 40])
        while len(self.body) < steps:
            self.step(self.actions())
        if not any("backward" in line for statement in self.body for line in statement.lines()):
            self.make_backward()
        outputs = [v.name for v in self.vars.values() if v.name[0] in "vh"]
        outputs = self.rng.sample(outputs, min(len(outputs), self.rng.randint(1, 8)))
        return Program(
            self.seed,
            tuple(self.leaves),
            tuple(self.scalars),
            tuple(self.setup),
            tuple(self.body),
            tuple(outputs),
            self.double and all(leaf.dtype != "float32" for leaf in self.leaves),
            self.observes,
        )

    def actions(self) -> list[tuple[int, Callable[[], Any]]]:
        anywhere = [
            (20, self.make_unary),
            (16, self.make_binary),
            (9, self.make_reduction),
            (12, self.make_view),
            (8, self.make_index),
            (6, self.make_matmul),
            (6, self.make_softmax),
            (5, self.make_join),
            (9, self.make_in_place),
            (6, self.make_setitem),
            (3, self.make_copy),
            (3, self.make_integer),
            (3, self.make_creation),
            (2, self.make_delete),
        ]
        if self.observes:
            anywhere += [(7, self.make_observation), (2, self.make_mask)]
        if self.in_loop:
            return anywhere
        if self.observes:
            anywhere += [(2, self.make_numpy_alias)]
        return [
            *anywhere,
            (6, self.make_backward),
            (4, self.make_grad),
            (3, self.make_update),
            (3, self.make_training_loop),
            (3, self.make_recurrence),
            (2, self.make_branch),
        ]

    def step(self, actions: list[tuple[int, Callable[[], Any]]]) -> None:
        while self.rng.choices([f for _, f in actions], [w for w, _ in actions])[0]() is False:
            pass

    # names, operands, scalars

    def number(self) -> int:
        self.count += 1
        return self.count

    def shape(self) -> tuple[int, ...]:
        if self.large and self.rng.random() < 0.5:
            return self.rng.choice([(1500,), (40, 60), (3, 700), (1025, 2)])
        return tuple(self.rng.choice([*self.extents, 1]) for _ in range(self.rng.choice([0, 1, 1, 2, 2, 2, 3])))

    def leaf(self, shape: tuple[int, ...], grad: bool = False, dtype: str | None = None, kind: str = "normal") -> Var:
        if dtype is None:
            dtype = self.dtype if self.double or self.rng.random() < 0.85 else self.rng.choice(["float32", "float64"])
        if kind == "normal" and self.wild and self.rng.random() < 0.4:
            kind = "wild"
        name = f"p{len(self.leaves)}"
        self.leaves.append(Leaf(name, shape, dtype, kind, grad, self.seed * 100 + len(self.leaves)))
        var = Var(name, shape, dtype, grad=grad, leaf=True, storage=self.number(), spread=kind == "normal")
        if grad:
            var.leaves = frozenset([name])
        self.vars[name] = var
        return var

    def scalar(self, kind: str) -> str:
        value = {
            "any": lambda: self.rng.uniform(-2, 2),
            "pos": lambda: self.rng.uniform(0.5, 2),
            "neg": lambda: -self.rng.uniform(0.1, 1.5),
            "rate": lambda: self.rng.uniform(0.01, 0.1),
        }[kind]()
        self.scalars.append(round(value, 3))
        return f"s[{len(self.scalars) - 1}]"

    def fill(self, template: str, **operands: Var) -> str:
        text = re.sub(r"\{(any|pos|neg)\}", lambda found: self.scalar(found[1]), template)
        return text.format(**{key: self.use(var) for key, var in operands.items()})

    def dead(self, var: Var) -> bool:
        """Its graph was released by a backward: good for its value only."""
        return bool(var.history & self.freed)

    def use(self, var: Var) -> str:
        return f"{var.name}.detach()" if self.dead(var) else var.name

    def pick(self, suits: Callable[[Var], bool] = lambda v: v.is_float) -> Var | None:
        found = [v for v in self.vars.values() if suits(v)]
        if not found:
            return None
        if self.rng.random() < 0.5:
            found = found[-4:]
        return self.rng.choice(found)

    def operand(self, shape: tuple[int, ...], dtype: str | None = None, into: bool = False) -> Var:
        """A float variable that broadcasts with a shape (`into`: to that shape), found or made."""

        def suits(v: Var) -> bool:
            if not v.is_float or v.bound > 30 or (dtype and v.dtype != dtype):
                return False
            try:
                full = np.broadcast_shapes(shape, v.shape)
            except ValueError:
                return False
            return full == shape if into else math.prod(full) <= 20_000

        found = self.pick(suits) if self.rng.random() < 0.85 else None
        if found is None:
            cut = shape[self.rng.randint(0, len(shape)) :]
            found = self.leaf(tuple(n if self.rng.random() < 0.7 else 1 for n in cut), self.rng.random() < 0.4, dtype)
        return found

    def emit(self, source: str, body: Iterable[Statement] = (), orelse: Iterable[Statement] = ()) -> None:
        self.body.append(Statement(source, tuple(body), tuple(orelse)))

    def new(
        self,
        expression: str,
        shape: tuple[int, ...],
        dtype: str,
        bound: float,
        parents: Iterable[Var] = (),
        view: Var | None = None,
        name: str = "",
        frozen: bool = False,
    ) -> Var:
        """Append `name = expression` and remember what is known of the result."""
        if bound > 30 and view is None and dtype.startswith("float"):
            expression, bound = f"torch.sin({expression})", 1
        number = self.number()
        parents = [p for p in parents if not self.dead(p)]
        grad = dtype.startswith("float") and any(p.grad for p in parents)
        var = Var(
            name or f"v{number}",
            tuple(shape),
            dtype,
            bound,
            grad=grad,
            storage=number if view is None else view.storage,
            frozen=frozen or (view is not None and view.frozen),
        )
        if grad:
            var.history = frozenset([number]).union(*(p.history for p in parents))
            var.leaves = frozenset().union(*(p.leaves for p in parents))
        self.emit(f"{var.name} = {expression}")
        self.vars.pop(var.name, None)
        self.vars[var.name] = var
        return var

    @contextlib.contextmanager
    def block(self, loop: bool) -> Iterator[list[Statement]]:
        saved = self.body, self.outer, self.in_loop
        self.body, self.outer, self.in_loop = [], self.count, self.in_loop or loop
        yield self.body
        self.body, self.outer, self.in_loop = saved

    # expressions

    def make_unary(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.bound < 99)
        if a is None:
            return False
        template, bound, most = self.rng.choice(UNARY)
        if a.bound > most:
            return False
        out = self.new(self.fill(template, a=a), a.shape, a.dtype, bound(a.bound), [a])
        out.spread = a.spread and template.startswith(("torch.tanh", "{a} *", "-", "{a}.clone"))
        return out

    def make_binary(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.bound <= 30)
        if a is None:
            return False
        b = self.operand(a.shape)
        template, bound = self.rng.choice(BINARY)
        shape = np.broadcast_shapes(a.shape, b.shape)
        dtype = promote((a.dtype, a.ndim), (b.dtype, b.ndim))
        return self.new(self.fill(template, a=a, b=b), shape, dtype, bound(a.bound, b.bound), [a, b])

    def axes(self, a: Var) -> tuple[Any, bool, tuple[int, ...]]:
        """Axes to reduce (None, an integer or a tuple), keepdim, and the shape that remains."""
        keep = self.rng.random() < 0.4
        if a.ndim == 0 or self.rng.random() < 0.3:
            return None, False, ()
        axes = tuple(sorted(self.rng.sample(range(a.ndim), self.rng.randint(1, a.ndim))))
        if self.rng.random() < 0.5:
            axes = axes[:1]
        shape = tuple(1 if i in axes else n for i, n in enumerate(a.shape) if keep or i not in axes)
        signed = tuple(i - a.ndim if self.rng.random() < 0.4 else i for i in axes)
        return (signed[0] if len(signed) == 1 else signed), keep, shape

    def make_reduction(self) -> Any:
        a = self.pick()
        if a is None or a.bound > 30:
            return False
        axes, keep, shape = self.axes(a)
        extent = max(a.size // max(math.prod(shape), 1), 1) if a.size else 0
        where = "" if axes is None else f"{axes}, keepdim={keep}" if keep else f"{axes}"
        one = not isinstance(axes, tuple)
        names = ["sum", "sum", "mean", "sum"]
        if extent and a.size:
            names += ["amax", "amin"] if axes is not None else ["max", "min"]
            names += ["logsumexp"] if axes is not None else []
            names += ["max.values", "min.values", "argmax", "argmin"] if axes is not None and one else []
            names += ["prod"] if one and extent <= 6 and a.bound <= 2 else []
            names += ["var"] if extent > 1 else []
            names += ["std"] if extent > 2 and a.spread else []
        name = self.rng.choice(names)
        if not extent and name in ("mean",):
            return False
        bounds = {"sum": a.bound * min(extent, 30), "prod": 4.0, "var": a.bound**2, "logsumexp": a.bound + 6}
        bound = bounds.get(name, a.bound)
        if name.startswith("arg"):
            return self.new(f"{self.use(a)}.{name}({where})", shape, "int64", 10)
        method, _, part = name.partition(".")
        expression = f"{self.use(a)}.{method}({where})" + (f".{part}" if part else "")
        return self.new(expression, shape, a.dtype, bound, [a])

    def make_view(self) -> Any:
        a = self.pick(lambda v: v.is_float)
        if a is None:
            return False
        x, name = np.zeros(a.shape), self.use(a)
        kind = self.rng.choice(VIEWS)
        frozen = False
        if kind in ("reshape", "view"):
            shape = self.rng.choice([(-1,), (*a.shape, 1), a.shape[::-1], (a.size, 1)])
            if a.size == 0:
                shape = (*a.shape, 1)
            if kind == "view" and not a.leaf:
                return False
            expression, result = f"{name}.{kind}({', '.join(map(str, shape))})", x.reshape(shape).shape
            if not shape:
                expression = f"{name}.{kind}(())"
        elif kind == "flatten":
            expression, result = f"{name}.flatten()", (a.size,)
        elif kind == "squeeze":
            expression, result = f"{name}.squeeze()", x.squeeze().shape
        elif kind == "unsqueeze":
            axis = self.rng.randint(-a.ndim - 1, a.ndim)
            expression, result = f"{name}.unsqueeze({axis})", np.expand_dims(x, axis).shape
        elif kind == "T" and a.ndim == 2:
            expression, result = f"{name}.T", x.T.shape
        elif kind == "transpose" and a.ndim >= 2:
            i, j = self.rng.sample(range(a.ndim), 2)
            expression, result = f"{name}.transpose({i}, {j - a.ndim})", x.swapaxes(i, j).shape
        elif kind == "permute" and a.ndim >= 2:
            order = self.rng.sample(range(a.ndim), a.ndim)
            expression, result = f"{name}.permute({', '.join(map(str, order))})", x.transpose(order).shape
        elif kind == "expand" and a.size <= 500:
            result = (self.rng.choice([1, 2, 3]), *(3 if n == 1 and self.rng.random() < 0.6 else n for n in a.shape))
            expression, frozen = f"{name}.expand({', '.join(map(str, result))})", True
        else:
            return False
        return self.new(expression, result, a.dtype, a.bound, [a], view=a, frozen=frozen)

    def index(self, shape: tuple[int, ...]) -> str:
        """A basic index of an array: integers, slices, None and an ellipsis."""
        parts = []
        for n in shape[: self.rng.randint(0, len(shape))]:
            start, stop = self.rng.randint(0, n), self.rng.randint(0, n + 1)
            choices = [":", f"{start}:", f":{stop}", "::2", f"{min(start, stop)}:{max(start, stop)}", "-2:"]
            choices += [str(self.rng.randint(-n, n - 1))] * 3 if n else []
            parts.append(self.rng.choice(choices))
        if self.rng.random() < 0.25:
            parts.insert(self.rng.randint(0, len(parts)), "None")
        if not parts or self.rng.random() < 0.25:
            parts.append("...")
        return ", ".join(parts)

    def make_index(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.ndim > 0)
        if a is None:
            return False
        axis = self.rng.randrange(a.ndim)
        n, x = a.shape[axis], np.zeros(a.shape)
        kind = self.rng.choice(INDEXING)
        name = self.use(a)
        if kind == "basic":
            text = self.index(a.shape)
            result = eval(f"x[{text}]", {"x": x}).shape
            return self.new(f"{name}[{text}]", result, a.dtype, a.bound, [a], view=a)
        if n == 0 or a.size > 3000:
            return False
        if kind == "array" and a.shape[0]:
            i = self.leaf(self.rng.choice([(3,), (2, 2), (0,)]), False, "int64", f"either:{a.shape[0]}")
            return self.new(f"{name}[{i.name}]", (*i.shape, *a.shape[1:]), a.dtype, a.bound, [a])
        if kind == "list":
            chosen = [self.rng.randrange(-n, n) for _ in range(self.rng.randint(1, 4))]
            before = ":, " * axis
            result = eval(f"x[{before}{chosen}]", {"x": x}).shape
            return self.new(f"{name}[{before}{chosen}]", result, a.dtype, a.bound, [a])
        if kind == "pair" and a.ndim >= 2 and a.shape[0] and a.shape[1]:
            i = self.leaf((3,), False, "int64", f"either:{a.shape[0]}")
            j = self.leaf(self.rng.choice([(3,), (2, 1)]), False, "int64", f"index:{a.shape[1]}")
            result = (*np.broadcast_shapes(i.shape, j.shape), *a.shape[2:])
            return self.new(f"{name}[{i.name}, {j.name}]", result, a.dtype, a.bound, [a])
        if kind == "gather":
            i = self.leaf(tuple(2 if k == axis else m for k, m in enumerate(a.shape)), False, "int64", f"index:{n}")
            return self.new(f"{name}.gather({axis}, {i.name})", i.shape, a.dtype, a.bound, [a])
        i = self.leaf((self.rng.choice([1, 4]),), False, "int64", f"index:{n}")
        result = tuple(i.shape[0] if k == axis else m for k, m in enumerate(a.shape))
        if kind == "index_select":
            return self.new(f"torch.index_select({name}, {axis}, {i.name})", result, a.dtype, a.bound, [a])
        if kind == "index_add":
            b = self.leaf(result, self.rng.random() < 0.5, a.dtype)
            expression = f"{name}.index_add({axis}, {i.name}, {b.name})"
            return self.new(expression, a.shape, a.dtype, a.bound + 4 * b.bound, [a, b])
        return False

    def make_matmul(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.ndim > 0 and v.size <= 5000 and v.bound <= 10)
        if a is None:
            return False
        k, n = a.shape[-1], self.rng.choice(self.extents)
        shapes = [(k,), (k, n), (k, n), (2, k, n)]
        if a.ndim > 2:
            shapes += [(*a.shape[:-2], k, n), (1,) * (a.ndim - 2) + (k, n)]
        if a.ndim > 2 and a.shape[-3] not in (1, 2):
            shapes.remove((2, k, n))
        wanted = self.rng.choice(shapes)
        b = self.pick(lambda v: v.shape == wanted and v.dtype == a.dtype and v.bound <= 10)
        if b is None or self.rng.random() < 0.3:
            b = self.leaf(wanted, self.rng.random() < 0.6, a.dtype)
        result = (np.zeros(a.shape) @ np.zeros(b.shape)).shape
        form = "{a} @ {b}"
        if len(wanted) == 2 and self.rng.random() < 0.3:
            form = "F.linear({a}, {b}.T)" if k and n else form
        elif a.ndim == 1 and b.ndim == 1 and self.rng.random() < 0.5:
            form, result = self.rng.choice([("torch.dot({a}, {b})", ()), ("torch.outer({a}, {b})", (k, k))])
        return self.new(self.fill(form, a=a, b=b), result, a.dtype, a.bound * b.bound * max(k, 1), [a, b])

    def make_softmax(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.ndim > 0 and v.size > 0 and v.bound <= 30)
        if a is None:
            return False
        axis = self.rng.randrange(-a.ndim, a.ndim)
        how = self.rng.choice(["mean", "mean", "sum", "none"])
        kind = self.rng.choice(["softmax", "log_softmax", "mse_loss", "bce", "cross_entropy", "nll_loss"])
        name = self.use(a)
        if kind == "softmax":
            return self.new(f"F.softmax({name}, dim={axis})", a.shape, a.dtype, 1, [a])
        if kind == "log_softmax":
            return self.new(f"torch.log_softmax({name}, {axis})", a.shape, a.dtype, 2 * a.bound + 7, [a])
        if kind in ("mse_loss", "bce"):
            b = self.leaf(a.shape, False, a.dtype, "unit" if kind == "bce" else "normal")
            function = "mse_loss" if kind == "mse_loss" else "binary_cross_entropy_with_logits"
            expression = f"F.{function}({name}, {b.name}, reduction='{how}')"
            bound = 2 * a.bound + 3 if kind == "bce" else (a.bound + 2) ** 2
            result = a.shape if how == "none" else ()
        elif a.ndim == 2:
            b = self.leaf((a.shape[0],), False, "int64", f"index:{a.shape[1]}")
            inner = name if kind == "cross_entropy" else f"F.log_softmax({name}, dim=1)"
            expression, bound = f"F.{kind}({inner}, {b.name}, reduction='{how}')", 2 * a.bound + 7
            result = (a.shape[0],) if how == "none" else ()
        else:
            return False
        return self.new(expression, result, a.dtype, bound * (min(a.size, 30) if how == "sum" else 1), [a])

    def make_join(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.ndim > 0 and v.size <= 3000)
        if a is None:
            return False
        axis, kind = self.rng.randrange(a.ndim), self.rng.choice(["cat", "stack", "split", "chunk"])
        if kind in ("cat", "stack"):
            b = self.pick(lambda v: v.shape == a.shape and v.dtype == a.dtype) or a
            parts = [a, b, a][: self.rng.randint(2, 3)]
            expression = f"torch.{kind}([{', '.join(self.use(p) for p in parts)}], dim={axis})"
            join = np.concatenate if kind == "cat" else np.stack
            result = join([np.zeros(p.shape) for p in parts], axis).shape
            return self.new(expression, result, a.dtype, max(a.bound, b.bound), parts)
        n = a.shape[axis]
        if n < 2:
            return False
        size = self.rng.randint(1, n)
        count = -(-n // size)
        last = n - (count - 1) * size
        which = self.rng.randrange(count)
        if kind == "chunk":
            count = self.rng.randint(1, n)
            size = -(-n // count)
            pieces = -(-n // size)
            which = self.rng.randrange(pieces)
            last = n - (pieces - 1) * size
            expression = f"{self.use(a)}.chunk({count}, dim={axis})[{which}]"
            extent = last if which == pieces - 1 else size
        else:
            expression = f"torch.split({self.use(a)}, {size}, dim={axis})[{which}]"
            extent = last if which == count - 1 else size
        result = tuple(extent if i == axis else m for i, m in enumerate(a.shape))
        return self.new(expression, result, a.dtype, a.bound, [a], view=a, frozen=True)

    def make_integer(self) -> Any:
        """Comparisons, boolean reductions, conversions and integer arithmetic."""
        a = self.pick(lambda v: True)
        if a is None:
            return False
        name, many = self.use(a), a.ndim > 0
        if a.is_float:
            if self.rng.random() < 0.5:
                return self.new(f"{name} > {self.scalar('any')}", a.shape, "bool", 1)
            to = "float64" if self.double else self.rng.choice(["float32", "float64"])
            return self.new(f"{name}.to(torch.{to})", a.shape, to, a.bound, [a], view=a, frozen=True)
        if a.dtype == "bool":
            kind = self.rng.choice(["float", "any", "all", "sum", "not", "where"])
            if kind == "where":
                b = self.operand(a.shape)
                shape = np.broadcast_shapes(a.shape, b.shape)
                expression = f"torch.where({name}, {self.use(b)}, {self.scalar('any')})"
                return self.new(expression, shape, b.dtype, b.bound + 2, [b])
            if kind == "not":
                return self.new(f"~{name}", a.shape, "bool", 1)
            if kind == "float":
                return self.new(f"{name}.to(torch.{self.dtype})", a.shape, self.dtype, 1)
            return self.new(f"{name}.{kind}()", (), "int64" if kind == "sum" else "bool", a.size)
        if a.dtype == "int64":
            b = self.operand(a.shape)
            choices = [f"{name} * 3 - 1", f"{name}.sum()", f"{name} == 1", f"{name} + {name}"]
            kind = self.rng.randrange(5)
            if kind == 4 and a.bound <= 30:
                dtype = promote((a.dtype, a.ndim), (b.dtype, b.ndim))
                shape = np.broadcast_shapes(a.shape, b.shape)
                return self.new(f"{name} * {self.use(b)}", shape, dtype, 30 * b.bound, [b])
            kind %= 4
            result = () if kind == 1 else a.shape
            return self.new(choices[kind], result, "bool" if kind == 2 else "int64", 10 if many else 5)
        return False

    def make_creation(self) -> Any:
        shape = self.shape()
        functions = ["zeros({0})", "ones({0})", "full({0}, {1})", "arange({2})", "eye({2})", "linspace(-1, 1, {2})"]
        text = self.rng.choice(functions)
        n = self.rng.choice([e for e in self.extents if e] or [1])
        result = {"arange": (n,), "eye": (n, n), "linspace": (n,)}.get(text.split("(")[0], shape)
        value = self.scalar("any") if "{1}" in text else ""
        expression = f"torch.{text.format(shape, value, n)[:-1]}, dtype=torch.{self.dtype})"
        return self.new(expression, result, self.dtype, max(n, 2))

    def make_copy(self) -> Any:
        a = self.pick()
        if a is None:
            return False
        kind = self.rng.choice(["clone", "detach", "contiguous", "like", *["require"] * self.observes])
        if kind == "detach":
            out = self.new(f"{a.name}.detach()", a.shape, a.dtype, a.bound, view=a)
            return out
        if kind == "like":
            function = self.rng.choice(["zeros_like", "ones_like"])
            return self.new(f"torch.{function}({a.name})", a.shape, a.dtype, 1)
        if kind == "require" and not self.in_loop:
            out = self.new(f"{a.name}.detach().clone().requires_grad_()", a.shape, a.dtype, a.bound)
            out.grad, out.leaf, out.leaves = True, True, frozenset([out.name])
            return out
        if kind == "contiguous":
            return self.new(f"{self.use(a)}.contiguous()", a.shape, a.dtype, a.bound, [a], view=a, frozen=True)
        return self.new(f"{self.use(a)}.clone()", a.shape, a.dtype, a.bound, [a])

    # writes

    def writable(self, v: Var) -> bool:
        if v.frozen or not v.is_float or v.bound > 30 or self.dead(v):
            return False
        if self.in_loop and v.storage <= self.outer:
            return False
        family = [other for other in self.vars.values() if other.storage == v.storage]
        return not any(other.leaf and other.grad for other in family) or (not v.grad and not v.leaf)

    def written(self, target: Var, value: Var | None, bound: float) -> None:
        """All names of the target's memory now depend on the value."""
        number = self.number()
        for v in self.vars.values():
            if v.storage != target.storage or not v.is_float:
                continue
            v.bound, v.spread = max(v.bound, bound), False
            if value is not None and value.grad and not self.dead(value) and not v.leaf:
                v.grad = True
                v.leaves |= value.leaves
                v.history |= value.history
            if v.grad and not v.leaf:
                v.history |= {number}

    def target_and_value(self) -> tuple[Var, Var] | None:
        target = self.pick(lambda v: self.writable(v) and (not v.history or not v.leaf))
        if target is None:
            return None
        value = self.operand(target.shape, into=True)
        shares_leaf = any(v.leaf and v.grad and v.storage == target.storage for v in self.vars.values())
        needs_plain = shares_leaf or target.leaf
        if value.storage == target.storage or (needs_plain and value.grad) or value.bound > 10:
            value = self.leaf(target.shape[len(target.shape) // 2 :], False, target.dtype)
        if value.ndim > 0 and target.ndim == 0:
            return None
        return target, value

    def make_in_place(self) -> Any:
        found = self.target_and_value()
        if found is None:
            return False
        target, value = found
        template = self.rng.choice(IN_PLACE)
        grown = target.bound * 2 + value.bound * 2 if "mul" not in template else target.bound * max(value.bound, 1)
        self.emit(self.fill(template.replace("{t}", target.name), b=value))
        self.written(target, value if "{b}" in template else None, grown)
        return None

    def make_setitem(self) -> Any:
        found = self.target_and_value()
        if found is None or not found[0].shape:
            return False
        target, value = found
        text = self.index(target.shape)
        part = eval(f"x[{text}]", {"x": np.zeros(target.shape)}).shape
        if self.rng.random() < 0.2 and target.shape[0] >= 2 and target.size < 2000:
            i = self.leaf((2,), False, "int64", f"distinct:{target.shape[0]}")
            text, part = i.name, (2, *target.shape[1:])
        try:
            fits = np.broadcast_shapes(part, value.shape) == part
        except ValueError:
            fits = False
        by_scalar = not fits or value.dtype != target.dtype or self.rng.random() < 0.3
        source = self.scalar("any") if by_scalar else self.use(value)
        self.emit(f"{target.name}[{text}] {self.rng.choice(['=', '=', '=', '+=', '*='])} {source}")
        self.written(target, None if by_scalar else value, target.bound * 2 + value.bound)
        return None

    def make_numpy_alias(self) -> Any:
        """NumPy and a tensor look at the same memory while either writes."""
        a = self.pick(lambda v: v.is_float and v.size and not v.leaf and not v.grad and not v.frozen)
        if a is None:
            return False
        name = f"n{self.number()}"
        self.emit(f"{name} = {a.name}.detach().numpy()")
        b = self.leaf((), False, a.dtype)
        lines = [
            f"{a.name}.add_({b.name})",
            f"{name}[...] = {name} * 0.5",
            f"observe({name}.copy())",
            f"observe({a.name}.tolist())",
        ]
        for line in self.rng.sample(lines, 3):
            self.emit(line)
        self.written(a, None, a.bound + 1.5)
        if self.rng.random() < 0.7:
            self.emit(f"del {name}")
        return None

    def make_delete(self) -> Any:
        v = self.pick(lambda v: v.name[0] == "v" and not v.leaf and (not self.in_loop or int(v.name[1:]) > self.outer))
        if v is None or len(self.vars) < 6:
            return False
        self.emit(f"del {v.name}")
        del self.vars[v.name]
        return None

    # looking

    def make_observation(self) -> Any:
        v = self.pick(lambda v: True)
        if v is None:
            return False
        choices = [f"{v.name}.detach().numpy().copy()", f"{v.name}.tolist()", f"{v.name}.detach().sum().item()"]
        if v.size == 1:
            choices += [f"{v.name}.item()", f"float({v.name}.detach())"]
        if v.ndim:
            choices += [f"len({v.name})"]
        if v.leaf and v.has_grad:
            choices += [f"{v.name}.grad.tolist()"] * 3
        self.emit(f"observe({self.rng.choice(choices)})")
        return None

    def make_mask(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.size <= 3000 and v.bound <= 30)
        if a is None:
            return False
        name = self.use(a)
        return self.new(f"{name}[{name} > {self.scalar('any')}].sum()", (), a.dtype, a.bound * min(a.size + 1, 30), [a])

    # differentiation

    def loss(self, suits: Callable[[Var], bool] = lambda v: True) -> Var | None:
        v = self.pick(lambda v: v.is_float and v.grad and not v.leaf and not self.dead(v) and suits(v))
        if v is None:
            return None
        forms = ["{a}.sum()", "{a}.mean()", "({a} * {a}).sum()", "torch.tanh({a}).sum()", "{a}.square().mean()"]
        form = self.rng.choice(forms)
        if not v.shape and self.rng.random() < 0.5:
            return v
        if not v.size:
            form = "{a}.sum()"
        return self.new(form.format(a=v.name), (), v.dtype, min(v.size, 30), [v])

    def release(self, loss: Var, retain: bool) -> None:
        for name in loss.leaves:
            if name in self.vars:
                self.vars[name].has_grad = True
        if not retain:
            self.freed |= loss.history

    def make_backward(self) -> Any:
        loss = self.loss()
        if loss is None:
            return False
        inputs = sorted(name for name in loss.leaves if name in self.vars)
        if not inputs:
            return False
        retain = self.rng.random() < 0.4 or (self.in_loop and any(i <= self.outer for i in loss.history))
        arguments = ["retain_graph=True"] if retain else []
        if self.rng.random() < 0.1:
            arguments.append(f"inputs=[{inputs[0]}]")
        source = f"{loss.name}.backward({', '.join(arguments)})"
        if self.rng.random() < 0.1:
            gradient = f"torch.full_like({loss.name}, {self.scalar('any')})"
            source = f"{loss.name}.backward({gradient}{', retain_graph=True' * retain})"
            arguments = []
        self.emit(source)
        self.release(loss, retain)
        if any("inputs" in a for a in arguments):
            for name in inputs[1:]:
                self.vars[name].has_grad = False
        for name in inputs:
            p = self.vars[name]
            if p.has_grad and self.rng.random() < 0.3:
                self.new(f"{name}.grad * {self.scalar('any')}", p.shape, p.dtype, 20)
            if p.has_grad and self.rng.random() < 0.2:
                self.emit(self.rng.choice([f"{name}.grad.zero_()", f"{name}.grad.mul_({self.scalar('pos')})"]))
            elif p.has_grad and self.rng.random() < 0.1:
                self.emit(f"{name}.grad = None")
                p.has_grad = False
        return None

    def make_grad(self) -> Any:
        """autograd.grad, half the time differentiated again."""
        loss = self.loss()
        if loss is None:
            return False
        inputs = sorted(name for name in loss.leaves if name in self.vars)
        if not inputs:
            return False
        inputs = self.rng.sample(inputs, self.rng.randint(1, len(inputs)))
        again = self.rng.random() < 0.5
        number = self.number()
        names = [f"v{number + i + 1}" for i in range(len(inputs))]
        self.count += len(inputs)
        arguments = ", create_graph=True" if again else self.rng.choice(["", ", retain_graph=True"])
        self.emit(f"{', '.join(names)}, = torch.autograd.grad({loss.name}, [{', '.join(inputs)}]{arguments})")
        for name, p in zip(names, inputs, strict=True):
            leaf = self.vars[p]
            self.vars[name] = Var(name, leaf.shape, leaf.dtype, 20, storage=self.number(), frozen=True)
        if again:
            # whether a gradient depends on the leaves is for the module to say: make one that does
            picked = self.rng.choice(names)
            total = f"({picked} * {picked}).sum() + {loss.name}"
            second = self.new(total, (), promote((self.vars[picked].dtype, 0), (loss.dtype, 0)), 30, [loss])
            self.emit(f"{second.name}.backward()")
            self.release(second, False)
            for name in names:
                self.vars[name].history = loss.history
        elif not arguments:
            self.release(replace(loss, leaves=frozenset()), False)
        return None

    def make_update(self) -> Any:
        p = self.pick(lambda v: v.leaf and v.has_grad)
        if p is None:
            return False
        rate = self.scalar("rate")
        self.emit(
            self.rng.choice(
                [
                    f"with torch.no_grad(): {p.name} -= {rate} * {p.name}.grad",
                    f"with torch.no_grad(): {p.name}.sub_({p.name}.grad, alpha={rate})",
                    f"with torch.no_grad(): {p.name}.mul_({rate}).add_({p.name}.grad * {rate})",
                ]
            )
        )
        return None

    # blocks

    def make_training_loop(self) -> Any:
        inputs = [v.name for v in self.vars.values() if v.leaf and v.grad]
        if not inputs or self.in_loop:
            return False
        parameters = self.rng.sample(inputs, self.rng.randint(1, min(3, len(inputs))))
        optimizer = f"o{len(self.setup)}" if self.rng.random() < 0.6 and all(n[0] == "p" for n in parameters) else ""
        if optimizer:
            rate = self.scalar("rate")
            kind = self.rng.choice(
                [
                    f"SGD([{{p}}], lr={rate})",
                    f"SGD([{{p}}], lr={rate}, momentum=0.9)",
                    f"SGD([{{p}}], lr={rate}, momentum=0.5, nesterov=True, weight_decay=0.01)",
                    f"SGD([{{p}}], lr={rate}, momentum=0.9, dampening=0.1, maximize=True)",
                    f"Adam([{{p}}], lr={rate})",
                    f"AdamW([{{p}}], lr={rate}, weight_decay=0.1)",
                ]
            )
            self.setup.append(Statement(f"{optimizer} = torch.optim.{kind.format(p=', '.join(parameters))}"))
        hidden = {name: v for name, v in self.vars.items() if v.history}
        for name in hidden:
            del self.vars[name]
        with self.block(loop=True) as body:
            if optimizer and self.rng.random() < 0.5:
                self.emit(f"{optimizer}.zero_grad()")
                optimizer_zeroes = True
            else:
                optimizer_zeroes = False
            for _ in range(self.rng.randint(1, 6)):
                self.step(self.actions())
            loss = self.loss(lambda v: bool(v.leaves & set(parameters)))
            if loss is None:
                p = self.vars[self.rng.choice(parameters)]
                self.new(f"torch.tanh({p.name}) * {self.scalar('any')}", p.shape, p.dtype, 2, [p])
                loss = self.loss(lambda v: p.name in v.leaves)
                assert loss is not None
            self.emit(f"{loss.name}.backward()")
            self.release(loss, False)
            if self.observes and self.rng.random() < 0.5:
                self.emit(f"observe({loss.name}.item())")
            if optimizer:
                self.emit(f"{optimizer}.step()")
            for name in parameters:
                if optimizer and (optimizer_zeroes or name not in loss.leaves):
                    continue
                if name in loss.leaves and not optimizer:
                    self.emit(f"with torch.no_grad(): {name} -= {self.scalar('rate')} * {name}.grad")
                if name in loss.leaves and self.rng.random() < 0.7:
                    self.emit(self.rng.choice([f"{name}.grad = None", f"{name}.grad.zero_()"]))
                    self.vars[name].has_grad = "None" not in body[-1].source
        self.emit(f"for _ in range({self.rng.randint(2, 5)}):", body)
        # what was made before reads leaves that have been written since: good for its value only
        self.freed |= {i for v in hidden.values() for i in v.history}
        self.vars = {**hidden, **self.vars}
        return None

    def make_recurrence(self) -> Any:
        """A loop that carries a value: unrolled, differentiated later."""
        a = self.pick(lambda v: v.is_float and v.bound <= 10 and v.size <= 3000)
        if a is None or self.in_loop:
            return False
        start, name = f"{self.use(a)} * {self.scalar('any')}", f"h{self.number()}"
        h = self.new(start, a.shape, a.dtype, 2 * a.bound, [a], name=name)
        rng = random.Random(self.seed)  # draws of its own: the other programs stay what they were
        long = rng.random() < 0.4  # enough iterations for a plan to roll them up
        count = rng.randint(8, 16) if long else rng.randint(2, 6)
        rows = None
        if rng.random() < 0.5 and h.size <= 300:
            rows = self.leaf((count, *h.shape), grad=rng.random() < 0.5, dtype=h.dtype)
        with self.block(loop=True) as body:
            for _ in range(self.rng.randint(0, 3)):
                self.step(self.actions())
            b = self.operand(h.shape, into=True, dtype=h.dtype)
            form = self.rng.choice(["torch.tanh({a} * {any} + {b})", "torch.sin({a}) + {b} * {any}", "{a} * 0.5 + {b}"])
            parents = [h, b]
            if rows is not None:
                at = rng.choice(["[i]", f"[{count - 1} - i]", "[i // 2]"])
                form = rng.choice(["torch.tanh({a} + {b} * {c}%s)", "{a} * 0.5 + {b} * {any} + {c}%s"]) % at
                parents.append(rows)
            expression = self.fill(form, a=h, b=b, **({} if rows is None else {"c": rows}))
            bound = 2 * (h.bound + b.bound) + (0 if rows is None else rows.bound)
            carried = self.new(expression, h.shape, h.dtype, bound, parents, name=h.name)
            carried.bound = min(carried.bound, 30)
            carried.history |= h.history
        self.emit(f"for i in range({count}):", body)
        return None

    def make_branch(self) -> Any:
        a = self.pick(lambda v: v.is_float and v.bound <= 30 and v.size > 0)
        if a is None or self.in_loop:
            return False
        dtype, name = a.dtype, f"v{self.number()}"
        sides = []
        for _ in range(2):
            template, bound, _ = self.rng.choice([row for row in UNARY if a.bound <= row[2]])
            with self.block(loop=False) as body:
                var = self.new(self.fill(template, a=a), a.shape, dtype, bound(a.bound), [a], name=name)
            sides.append((body, var))
        var.history |= sides[0][1].history
        var.bound = max(var.bound, sides[0][1].bound)
        self.emit(f"if {a.name}.detach().sum() > {self.scalar('any')}:", sides[0][0], sides[1][0])
        return None


def generate(seed: int) -> Program:
    return Generator(seed).program()


# ---------------------------------------------------------------------------------------------------- the interpreter


@dataclass
class Event:
    """Something a run showed: a value (an array, or None) or an exception. A label begins with the round, "[2] v7"."""

    label: str
    value: Any = None
    error: Exception | None = None


@dataclass
class Run:
    events: list[Event] = field(default_factory=list)
    round: int = 0

    def show(self, label: str, value: Any) -> None:
        self.events.append(Event(f"[{self.round}] {label}", None if value is None else np.array(value)))

    def raised(self, label: str, error: Exception) -> None:
        self.events.append(Event(f"[{self.round}] {label}", error=error))


def environment(program: Program, module: Any, variant: int, observe: Callable[[Any], None]) -> dict[str, Any]:
    names = {"torch": module, "F": module.nn.functional, "np": np, "observe": observe}
    names["s"] = program.scalar_values(variant)
    for leaf in program.leaves:
        names[leaf.name] = module.tensor(leaf.array(variant), requires_grad=leaf.requires_grad)
    return names


@functools.lru_cache(maxsize=100_000)
def code_of(source: str) -> Any:
    return compile(source, "<program>", "exec")


def execute(statement: Statement, names: dict[str, Any]) -> None:
    """Run one statement, a block line by line as Python would."""
    if not statement.body:
        exec(code_of(statement.source), names)
    elif statement.source.startswith("for"):
        for _ in range(int(re.findall(r"\d+", statement.source)[0])):
            for inner in statement.body:
                execute(inner, names)
    else:
        taken = eval(statement.source[2:-1].strip(), names)
        for inner in statement.body if taken else statement.orelse:
            execute(inner, names)


def value_of(tensor: Any) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().numpy().copy()


def show_state(program: Program, names: dict[str, Any], run: Run) -> None:
    """Show the leaves and their gradients."""
    for leaf in program.leaves:
        if leaf.name in names:
            run.show(leaf.name, value_of(names[leaf.name]))
            if leaf.requires_grad:
                run.show(f"{leaf.name}.grad", value_of(names[leaf.name].grad))


def run(program: Program, module: Any) -> Run:
    """Run a program once for each variant of its data. Where a statement raises, that is shown; the next one runs."""
    shown = Run()
    for shown.round, variant in enumerate(VARIANTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            observed: list[Any] = []
            names = environment(program, module, variant, observed.append)
            for statement in program.setup + program.body:
                try:
                    execute(statement, names)
                except Exception as error:
                    if isinstance(error, NameError) and NAME.match(error.name or ""):
                        continue  # what it needs was not made
                    shown.raised("; ".join(statement.lines()), error)
                for value in observed:
                    shown.show("; ".join(statement.lines()), value)
                observed.clear()
            try:
                for name in program.outputs:
                    if name in names:
                        shown.show(f"{name}.requires_grad", names[name].requires_grad)
                        shown.show(name, value_of(names[name]))
                show_state(program, names, shown)
            except Exception as error:
                shown.raised("the outputs", error)
    return shown


def run_function(program: Program, module: Any, captured: bool, wrap: Callable[[Any], Any]) -> Run:
    """Run a program's body as one function, called again with other data (`captured`: on the same leaves)."""
    shown = Run()
    names = environment(program, module, 0, lambda value: None)
    for statement in program.setup:
        execute(statement, names)
    exec(compile(program.function(captured), f"<program {program.seed}>", "exec"), names)
    function = wrap(names["program"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for shown.round, variant in enumerate(VARIANTS):
            if captured:
                results = function()
                state = names
            else:
                state = environment(program, module, variant, lambda value: None)
                results = function(*(state[leaf.name] for leaf in program.leaves), state["s"])
            for name, result in zip(program.outputs, results, strict=True):
                shown.show(name, value_of(result))
            del results, result
            show_state(program, state, shown)
    return shown


def run_loop(program: Program, module: Any, looped: bool) -> Run:
    """Run a program's body as a step with some batches a round, by `loop` or one after another."""
    shown = Run()
    names = environment(program, module, 0, lambda value: None)
    for statement in program.setup:
        execute(statement, names)
    exec(compile(program.function(True), f"<program {program.seed}>", "exec"), names)
    function = names["program"]

    def step(x: Any) -> Any:
        loss = x.sum()
        for result in function():
            loss = loss + result.detach().double().sum()
        return loss

    wrapped = module.compile(step) if looped else None
    rows = np.arange(5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("ignore", "loop: .* runs batch by batch", RuntimeWarning)
        for shown.round, _ in enumerate(VARIANTS):
            if wrapped is not None:
                losses = wrapped.loop(rows, batch_size=2, epochs=3)
            else:
                batches = [module.tensor(rows[i : i + 2]) for i in range(0, 5, 2)]
                losses = np.array([[value_of(step(x)) for x in batches] for _ in range(3)])
            shown.show("losses", losses)
            show_state(program, names, shown)
    return shown


# ----------------------------------------------------------------------------------------------------------- comparing


class Mismatch(AssertionError):
    """Two runs of one program differ."""

    def __init__(self, program: Program, mode: str, what: str) -> None:
        super().__init__(f"{mode}: {what}")
        self.program, self.mode, self.what = program, mode, what

    def report(self) -> str:
        module, function = "fastgrad", ""
        if self.mode in ("compiled", "captured", "looped"):
            function = f"\n# as a function:\n{self.program.function(self.mode != 'compiled')}"
        rounds = "# [k] is round k of the same program with the data and scalars of VARIANTS[k]\n"
        return f"seed {self.program.seed}, {self}\n{rounds}\n{self.program.script(module)}{function}"


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the last bit; NaNs are equal to each other."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind == "f":
        return bool(np.all((a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)))
    return bool(np.array_equal(a, b))


def describe(a: Any, b: Any) -> str:
    def text(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return f"{value.dtype}{list(value.shape)} {np.array2string(value, threshold=20, precision=17)}"
        return repr(value)

    return f"\n    {text(a)}\n    {text(b)}"


def compare_bits(program: Program, mode: str, reference: Run, other: Run) -> None:
    for a, b in zip(reference.events, other.events, strict=False):
        if type(a.error) is not type(b.error):
            raise Mismatch(program, mode, f"{a.label}: raised {a.error!r} and {b.error!r}")
        if a.label != b.label or (a.value is None) != (b.value is None):
            raise Mismatch(program, mode, f"{a.label} and {b.label}:{describe(a.value, b.value)}")
        if a.value is not None and not same_bits(a.value, b.value):
            raise Mismatch(program, mode, f"{a.label} differs:{describe(a.value, b.value)}")
    if len(reference.events) != len(other.events):
        raise Mismatch(program, mode, f"{len(reference.events)} and {len(other.events)} values shown")


def far(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return True
    if a.dtype.kind != "f":
        return not np.array_equal(a, b)
    if a.dtype == np.float32:
        tolerance = max(tolerance, 1e-5)
    scale = np.max(np.abs(b[np.isfinite(b)]), initial=1.0)
    return not np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def with_other_roundings(torch: Any, double: bool, seed: int) -> Any:
    """A context in which every new float tensor of PyTorch is off by a few units in the last place."""
    rng = random.Random(seed)
    size = 1e-15 if double else 5e-7

    class OtherRoundings(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function.__name__ == "__get__" or not isinstance(result, torch.Tensor) or not result.is_floating_point():
                return result
            if result.is_leaf and result.requires_grad:
                return result
            places = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
            return result if result.untyped_storage().data_ptr() in places else result * (1 + rng.uniform(-size, size))

    return OtherRoundings()


def names_of_gradients(statement: Statement) -> set[str]:
    """The names that `autograd.grad` binds in a statement."""
    inner = [names_of_gradients(part) for part in statement.body + statement.orelse]
    own = names_of(statement.source)[0] if "autograd.grad(" in statement.source else set()
    return set(own).union(*inner)


def compare_with_torch(program: Program, ours: Run, module: Any, accepted: Counter[str]) -> None:
    """Close to PyTorch's run of the same program, as close as the program is well conditioned."""
    theirs = run(program, module)
    nudged: list[Run] = []
    derived = {name for statement in program.body for name in names_of_gradients(statement)}
    tolerance = 1e-9 if program.double else 2e-4
    for i, (a, b) in enumerate(zip(ours.events, theirs.events, strict=False)):
        same = a.label == b.label and type(a.error) is type(b.error)
        if b.error is not None and not same and re.search("in-?place", str(b.error)):
            accepted["a tensor saved for backward was modified in place"] += 1
            return  # fastgrad gives the gradient of the value that was used
        if type(a.error) is not type(b.error):
            raise Mismatch(program, "torch", f"{a.label}: fastgrad raised {a.error!r}, PyTorch {b.error!r}")
        if a.label != b.label or (a.value is None) != (b.value is None):
            raise Mismatch(program, "torch", f"{a.label} and {b.label}:{describe(a.value, b.value)}")
        if a.value is None or not far(a.value, b.value, tolerance):
            continue
        if a.label.endswith(".requires_grad") and a.label.split()[1].split(".")[0] in derived:
            continue  # whether a gradient that is constant has a graph is a module's own affair
        if not nudged:
            for seed in range(4):
                with with_other_roundings(module, program.double, seed):
                    nudged.append(run(program, module))
        if a.value.shape == b.value.shape and a.value.dtype == b.value.dtype:
            moved = [n.events[i].value for n in nudged if len(n.events) > i]
            if any(m is None or far(m, b.value, tolerance / 30) for m in moved):
                accepted["PyTorch's own answer moves with its roundings"] += 1
                return
        raise Mismatch(program, "torch", f"{a.label} differs:{describe(a.value, b.value)}")
    if len(ours.events) != len(theirs.events):
        raise Mismatch(program, "torch", f"{len(ours.events)} and {len(theirs.events)} values shown")


@contextlib.contextmanager
def drafted(fastgrad: Any) -> Iterator[None]:
    """Every trace is recorded as a draft, as if no program ever came back."""
    recording = fastgrad.recording
    before, recording.STRANGERS = recording.STRANGERS, 0
    try:
        recording.flush(recording.local.trace)
        recording.local.trace.reset()
        yield
    finally:
        recording.STRANGERS = before
        recording.flush(recording.local.trace)
        recording.local.trace.reset()


def check(
    program: Program,
    fastgrad: Any,
    torch: Any = None,
    modes: Iterable[str] = MODES,
    accepted: Counter[str] | None = None,
) -> None:
    """Run a program lazily and in the given modes; raise Mismatch where two differ.

    Args:
        program: what to run.
        fastgrad: the module under test.
        torch: PyTorch, or None where it is not installed.
        modes: some of MODES.
        accepted: counts differences that are meant, or that a badly conditioned program excuses.
    """
    accepted = Counter() if accepted is None else accepted
    lazy = run(program, fastgrad)
    raises = any(event.error for event in lazy.events)
    for mode in modes:
        if mode == "eager":
            with fastgrad.eager():
                other = run(program, fastgrad)
            compare_bits(program, mode, other, lazy)
        elif mode in ("tier0", "tier1", "tier2"):
            fastgrad.set_tier(int(mode[-1]))
            try:
                other = run(program, fastgrad)
            finally:
                fastgrad.set_tier(None)
            compare_bits(program, mode, lazy, other)
        elif mode == "draft":
            with drafted(fastgrad):
                other = run(program, fastgrad)
            compare_bits(program, mode, lazy, other)
        elif mode in ("compiled", "captured", "looped"):
            captured = mode != "compiled"
            if program.observes or raises or (program.setup and not captured) or not program.outputs:
                continue
            with fastgrad.eager():
                try:
                    if mode == "looped":
                        plain = run_loop(program, fastgrad, False)
                    else:
                        plain = run_function(program, fastgrad, captured, lambda function: function)
                except Exception as error:
                    accepted[f"as a function it raises {type(error).__name__}"] += 1
                    continue
            try:
                if mode == "looped":
                    replayed = run_loop(program, fastgrad, True)
                else:
                    replayed = run_function(program, fastgrad, captured, fastgrad.compile)
            except Exception as error:
                if type(error).__name__ == "CompileError":  # a refusal, with its remedy
                    accepted[f"compile refuses: {str(error)[:60]}"] += 1
                    continue
                raise Mismatch(program, mode, f"raised {type(error).__name__}: {error}") from error
            compare_bits(program, mode, plain, replayed)
        elif mode == "torch" and torch is not None:
            compare_with_torch(program, lazy, torch, accepted)


# ---------------------------------------------------------------------------------------------------------- minimising


def without_orphans(statements: Iterable[Statement], known: set[str]) -> tuple[Statement, ...]:
    """The statements whose names are still bound by an earlier one."""
    kept = []
    for statement in statements:
        read = names_of(statement.source)[1]
        if not read <= known:
            continue
        if statement.body:
            body = without_orphans(statement.body, known)
            orelse = without_orphans(statement.orelse, known)
            if not body or (statement.orelse and not orelse):
                continue
            statement = replace(statement, body=body, orelse=orelse)
        kept.append(statement)
        known |= statement.names()[0]
    return tuple(kept)


def rebuild(program: Program, body: Iterable[Statement], outputs: Iterable[str] | None = None) -> Program:
    """The program with another body, made consistent: no unbound names, no unused leaves."""
    setup = program.setup
    known = {leaf.name for leaf in program.leaves} | {n for statement in setup for n in statement.names()[0]}
    kept = without_orphans(body, known)
    wanted = tuple(n for n in (program.outputs if outputs is None else outputs) if n in known)
    read = {n for statement in kept for n in statement.names()[1] | statement.names()[0]} | set(wanted)
    setup = tuple(statement for statement in setup if statement.names()[0] & read)
    read |= {n for statement in setup for n in statement.names()[1]}
    leaves = tuple(leaf for leaf in program.leaves if leaf.name in read)
    return replace(program, body=kept, outputs=wanted, setup=setup, leaves=leaves)


def smaller(program: Program) -> Iterator[Program]:
    """Programs a step simpler: without a stretch of statements, a block without some of its lines, fewer outputs."""
    body = program.body
    length = len(body)
    while length >= 1:
        for start in range(0, len(body), length):
            yield rebuild(program, body[:start] + body[start + length :])
        length //= 2
    for i, statement in enumerate(body):
        if not statement.body:
            continue
        for inner in (statement.body, statement.orelse):
            if inner:
                yield rebuild(program, body[:i] + inner + body[i + 1 :])
        for j in range(len(statement.body)):
            shorter = replace(statement, body=statement.body[:j] + statement.body[j + 1 :])
            yield rebuild(program, (*body[:i], shorter, *body[i + 1 :]))
        if statement.source.startswith("for") and "range(2)" not in statement.source:
            twice = replace(statement, source="for _ in range(2):")
            yield rebuild(program, (*body[:i], twice, *body[i + 1 :]))
    for name in program.outputs:
        yield rebuild(program, body, [n for n in program.outputs if n != name])


def minimise(program: Program, fails: Callable[[Program], bool], seconds: float = 60.0) -> Program:
    """The smallest program found in the given time that still fails."""
    until = time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < until:
        progress = False
        for candidate in smaller(program):
            if time.monotonic() > until:
                break
            if candidate != program and fails(candidate):
                program, progress = candidate, True
                break
    return program


def minimised(mismatch: Mismatch, fastgrad: Any, torch: Any, seconds: float = 60.0) -> Mismatch:
    """The mismatch of the smallest program that still fails in the same mode."""
    best = mismatch

    def fails(program: Program) -> bool:
        nonlocal best
        try:
            check(program, fastgrad, torch, [mismatch.mode])
        except Mismatch as found:
            if ("raised" in found.what) == ("raised" in mismatch.what):
                best = found
                return True
        except Exception:
            return False
        return False

    minimise(mismatch.program, fails, seconds)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description="Run random programs in all modes of fastgrad and in PyTorch.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=[m for m in MODES if m != "tier2"])
    parser.add_argument("--module", default="fastgrad", help="the module under test")
    parser.add_argument("--show", action="store_true", help="print the programs instead of running them")
    parser.add_argument("--isolate", action="store_true", help="each program in its own process: finds crashes")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for minimising one failure")
    parser.add_argument("--keep-going", action="store_true", help="count failures instead of stopping at the first")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.count)
    if options.show:
        for seed in seeds:
            print(generate(seed).script())
        return 0
    if options.isolate:
        rest = ["--modes", *options.modes, "--module", options.module, "--seconds", str(options.seconds)]
        command = [sys.executable, "-m", "tests.programs", *rest, "--seed"]
        codes = {seed: subprocess.run([*command, str(seed)]).returncode for seed in seeds}
        print("failed:", {seed: code for seed, code in codes.items() if code})
        return int(any(codes.values()))
    fastgrad = importlib.import_module(options.module)
    try:
        torch = importlib.import_module("torch") if "torch" in options.modes else None
    except ImportError:
        torch = None
        print("PyTorch is not installed: compared among the modes of fastgrad only")
    accepted: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for seed in seeds:
        try:
            check(generate(seed), fastgrad, torch, options.modes, accepted)
        except Mismatch as found:
            failures[found.mode] += 1
            print("-" * 100 + "\n" + minimised(found, fastgrad, torch, options.seconds).report(), flush=True)
            if not options.keep_going:
                return 1
    print(f"{len(seeds)} programs, {sum(failures.values())} failed {dict(failures)}; excused: {dict(accepted)}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
