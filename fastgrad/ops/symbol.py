"""The vocabulary of rules, read three ways: symbols become kernel source, Tensors record entries, NumPy arrays are computed.

A rule is an ordinary expression over `g, y, a, b, c` with Python's operators and the functions of this file. Applied to a
`Symbol`, a function yields the text of the scalar computation; applied to a Tensor, it records the operation of the same name;
applied to anything else, it calls NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_TYPE_NAMES = {"f4": "float32", "f8": "float64", "i8": "int64", "i4": "int32", "u1": "uint8", "b1": "uint8"}


class Symbol:
    """Text of a scalar expression in the compute type `code`, and the operand names it reads."""

    __slots__ = ("code", "names", "text")

    def __init__(self, text: str, names: frozenset[str], code: str) -> None:
        self.text = text
        self.names = names
        self.code = code

    def _literal(self, other: Any) -> Symbol:
        if isinstance(other, Symbol):
            return other
        if self.code in ("f4", "f8"):
            text = repr(float(other)).replace("inf", "1e999")
        else:
            text = str(int(other))
        return Symbol(f"{_TYPE_NAMES[self.code]}({text})", frozenset(), self.code)

    def _binary(self, other: Any, operator: str) -> Symbol:
        right = self._literal(other)
        return Symbol(f"({self.text} {operator} {right.text})", self.names | right.names, self.code)

    def _swapped(self, other: Any, operator: str) -> Symbol:
        return self._literal(other)._binary(self, operator)

    def __add__(self, other: Any) -> Symbol:
        return self._binary(other, "+")

    def __sub__(self, other: Any) -> Symbol:
        return self._binary(other, "-")

    def __mul__(self, other: Any) -> Symbol:
        return self._binary(other, "*")

    def __truediv__(self, other: Any) -> Symbol:
        return self._binary(other, "/")

    def __radd__(self, other: Any) -> Symbol:
        return self._swapped(other, "+")

    def __rsub__(self, other: Any) -> Symbol:
        return self._swapped(other, "-")

    def __rmul__(self, other: Any) -> Symbol:
        return self._swapped(other, "*")

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._swapped(other, "/")

    def __neg__(self) -> Symbol:
        return Symbol(f"(-{self.text})", self.names, self.code)

    def __lt__(self, other: Any) -> Symbol:
        return self._binary(other, "<")

    def __le__(self, other: Any) -> Symbol:
        return self._binary(other, "<=")

    def __gt__(self, other: Any) -> Symbol:
        return self._binary(other, ">")

    def __ge__(self, other: Any) -> Symbol:
        return self._binary(other, ">=")

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._binary(other, "==")

    def __ne__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._binary(other, "!=")

    def __and__(self, other: Any) -> Symbol:
        return self._binary(other, "&")

    def __or__(self, other: Any) -> Symbol:
        return self._binary(other, "|")

    def __xor__(self, other: Any) -> Symbol:
        return self._binary(other, "^")

    __hash__ = None  # type: ignore[assignment]


class Function:
    """A scalar function of the vocabulary; `source` is its text with `{0}, {1}` for the arguments and `{t}` for f32 or f64,
    `integer` the same for integers where it differs, with `{bits}` for how many they have."""

    def __init__(self, name: str, source: str, numpy: Callable[..., Any], integer: str | None = None) -> None:
        self.name = name
        self.source = source
        self.integer = integer or source
        self.numpy = numpy
        self.tensor: Callable[..., Any] | None = None  # the operation of the same name, set by the table

    def __call__(self, *args: Any) -> Any:
        symbol = next((x for x in args if isinstance(x, Symbol)), None)
        if symbol is not None:
            parts = [symbol._literal(x) for x in args]
            names = frozenset().union(*(p.names for p in parts))
            kind = {"f4": "f32", "f8": "f64"}.get(symbol.code)
            source = self.source if kind else self.integer
            bits = 8 * int(symbol.code[1])
            return Symbol(source.format(*[p.text for p in parts], t=kind, bits=bits), names, symbol.code)
        if any(hasattr(x, "_at") for x in args):
            assert self.tensor is not None
            return self.tensor(*args)
        return self.numpy(*args)

    def __repr__(self) -> str:
        return f"<rule function {self.name}>"


FUNCTIONS: dict[str, Function] = {}


def _function(name: str, source: str, numpy: Callable[..., Any], integer: str | None = None) -> Function:
    found = FUNCTIONS[name] = Function(name, source, numpy, integer)
    return found


def _vmath(name: str, numpy: Callable[..., Any]) -> Function:
    return _function(name, f"vmath.{name}_{{t}}({{0}})", numpy)


def _scipy(name: str) -> Callable[..., Any]:
    def function(*args: Any) -> Any:
        import scipy.special

        return getattr(scipy.special, name)(*args)

    return function


def _where(c: Any, a: Any, b: Any) -> Any:
    return np.where(c, a, b)


def _truncated_quotient(a: Any, b: Any) -> Any:
    return (a - np.fmod(a, b)) // b if np.result_type(a, b).kind in "iu" else np.trunc(a / b)


exp = _vmath("exp", np.exp)
exp2 = _vmath("exp2", np.exp2)
expm1 = _vmath("expm1", np.expm1)
log = _vmath("log", np.log)
log2 = _vmath("log2", np.log2)
log10 = _vmath("log10", np.log10)
log1p = _vmath("log1p", np.log1p)
sin = _function("sin", "vmath.sin_full_{t}({0})", np.sin)
cos = _function("cos", "vmath.cos_full_{t}({0})", np.cos)
tan = _function("tan", "vmath.tan_full_{t}({0})", np.tan)
asin = _vmath("asin", np.arcsin)
acos = _vmath("acos", np.arccos)
atan = _vmath("atan", np.arctan)
atan2 = _function("atan2", "vmath.atan2_{t}({0}, {1})", np.arctan2)
hypot = _function("hypot", "vmath.hypot_{t}({0}, {1})", np.hypot)
sinh = _vmath("sinh", np.sinh)
cosh = _vmath("cosh", np.cosh)
tanh = _vmath("tanh", np.tanh)
asinh = _vmath("asinh", np.arcsinh)
acosh = _vmath("acosh", np.arccosh)
atanh = _vmath("atanh", np.arctanh)
erf = _vmath("erf", _scipy("erf"))
erfc = _vmath("erfc", _scipy("erfc"))
erfinv = _vmath("erfinv", _scipy("erfinv"))
pow_ = _function("pow", "vmath.pow_{t}({0}, {1})", np.power, "division.power({0}, {1})")
floordiv = _function("floordiv", "division.floor_divide_{t}({0}, {1})", np.floor_divide, "division.quotient({0}, {1})")
modulo = _function("modulo", "division.remainder({0}, {1})", np.mod, "({0} % {1})")
truncdiv = _function(
    "truncdiv", "native.trunc({0} / {1})", _truncated_quotient, "division.truncated_quotient({0}, {1})"
)
fmod_ = _function("fmod", "division.fmod({0}, {1})", np.fmod, "division.truncated_remainder({0}, {1})")
lshift = _function("lshift", "", np.left_shift, "division.left_shift({0}, {1}, {bits})")
rshift = _function("rshift", "", np.right_shift, "division.right_shift({0}, {1}, {bits})")
zero = _function("zero", "0 * {0}", np.zeros_like)
sigmoid = _vmath("sigmoid", _scipy("expit"))
softplus = _vmath("softplus", lambda a: np.logaddexp(a, 0))
logsigmoid = _vmath("logsigmoid", lambda a: -np.logaddexp(-a, 0))
sqrt = _function("sqrt", "native.sqrt({0})", np.sqrt)
abs_ = _function("abs", "abs({0})", np.abs)
floor = _function("floor", "native.floor({0})", np.floor, "{0}")
ceil = _function("ceil", "native.ceil({0})", np.ceil, "{0}")
trunc = _function("trunc", "native.trunc({0})", np.trunc, "{0}")
round_ = _function("round", "native.rint({0})", np.rint, "{0}")
where = _function("where", "({1} if {0} else {2})", _where)


def read(rule: Callable[..., Any], codes: tuple[str, ...]) -> Symbol:
    """The text of a forward rule over operands `a, b, c, d` of the given dtype codes."""
    operands = [Symbol(name, frozenset(name), code) for name, code in zip("abcd", codes, strict=False)]
    result = rule(*operands)
    return result if isinstance(result, Symbol) else operands[0]._literal(result)
