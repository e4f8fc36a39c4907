"""Numbers whose arithmetic is done again by every replay: in Python, on Python's floats and ints, so with the same bits and errors.

While a call is captured, a number that is an argument, or that was read from state, is a `Real` or `Whole`: a float or int that
knows the `Expression` it is the value of. Arithmetic gives others. A comparison is noted as a condition that a replay must find
again; so is the value itself (`plain`) where something needs it that does not know expressions: an index, a hash, text.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

from .. import recording as tape


class Expression:
    """A number that can be computed again: `function` of operands, or what a leaf (an `Argument`, a `Load`) reads."""

    __slots__ = ("function", "operands", "value")

    def __init__(self, function: Callable[..., Any] | None, operands: tuple[Any, ...], value: Any) -> None:
        self.function = function
        self.operands = operands
        self.value = value


class Argument:
    """The k-th float or int among a call's arguments."""

    __slots__ = ("k",)

    def __init__(self, k: int) -> None:
        self.k = k


def _capture() -> Any:
    return tape.local.trace.capture


def tracked(value: Any, expression: Expression) -> Any:
    """A number that knows its expression."""
    made: Any = float.__new__(Real, value) if type(value) is float else int.__new__(Whole, value)
    made.expression = expression
    return made


def leaf(value: Any, source: Any) -> Any:
    """A number read from an argument or from state."""
    return tracked(value, Expression(None, (source,), value))


def plain(value: Any) -> Any:
    """The number itself, which every replay must find again."""
    if type(value) is Real or type(value) is Whole:
        capture = _capture()
        if capture is not None:
            capture.watch.expect(value.expression)
        return value.expression.value
    return value


def bare(value: Any) -> Any:
    """The number itself, for arithmetic that is tracked."""
    return value.expression.value if type(value) is Real or type(value) is Whole else value


def compute(function: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """A function of numbers, some of them tracked."""
    capture = _capture()
    try:
        value = function(*[bare(x) for x in operands])
    except Exception:
        for x in operands:
            plain(x)
        raise
    if capture is None or not any([type(x) is Real or type(x) is Whole for x in operands]):
        return value
    if type(value) is not float and type(value) is not int:
        if type(value) is bool:
            capture.watch.decide(Expression(function, _expressions(operands), value), value)
        else:
            for x in operands:
                plain(x)
        return value
    return tracked(value, Expression(function, _expressions(operands), value))


def _expressions(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([x.expression if type(x) is Real or type(x) is Whole else x for x in operands])


_SIMPLE = {float, int, bool}


def on_tape(value: Any) -> Any:
    """A tracked number as an input of the trace."""
    expression = value.expression
    if type(value) is Whole and not -(2**63) <= expression.value < 2**63:
        return plain(value)
    return tape.scalar(expression.value, ("number", expression))


def _binary(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    function = divmod if name == "divmod" else getattr(operator, name)
    special = name.rstrip("_")

    def forward(self: Any, other: Any) -> Any:
        kind = type(other)
        if kind in _SIMPLE or kind is Real or kind is Whole:
            return compute(function, (self, other))
        if isinstance(other, tape.TENSOR):
            return function(on_tape(self) if _capture() is not None else bare(self), other)
        value = plain(self)
        return getattr(type(value), f"__{special}__")(value, other)

    def backward(self: Any, other: Any) -> Any:
        if type(other) in _SIMPLE:
            return compute(function, (other, self))
        value = plain(self)
        return getattr(type(value), f"__r{special}__")(value, other)

    return forward, backward


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def compare(self: Any, other: Any) -> Any:
        kind = type(other)
        if kind in _SIMPLE or kind is Real or kind is Whole:
            return compute(function, (self, other))
        if isinstance(other, tape.TENSOR):
            return function(on_tape(self) if _capture() is not None else bare(self), other)
        value = plain(self)
        return getattr(type(value), f"__{name}__")(value, other)

    return compare


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: compute(function, (self,))


def _divmod(self: Any, other: Any) -> Any:
    if type(other) in _SIMPLE or type(other) in (Real, Whole):
        return self // other, self % other
    return divmod(plain(self), other)


def _round(self: Any, digits: Any = None) -> Any:
    return compute(round, (self,)) if digits is None else compute(round, (self, digits))


def _power(self: Any, other: Any, modulus: Any = None) -> Any:
    return _POWER(self, other) if modulus is None else pow(plain(self), plain(other), plain(modulus))


_POWER = _binary("pow")[0]
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod")


def _methods(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {"__new__": lambda cls, *value: kind(*value)}  # others make numbers of a number's type
    for name in (*_ARITHMETIC, *(("lshift", "rshift", "and_", "or_", "xor") if kind is int else ())):
        bare_name = name.rstrip("_")
        found[f"__{bare_name}__"], found[f"__r{bare_name}__"] = _binary(name)
    found |= {"__pow__": _power, "__rpow__": _binary("pow")[1], "__divmod__": _divmod}
    found["__rdivmod__"] = lambda self, other: (other // self, other % self)
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        found[f"__{name}__"] = _comparison(name)
    found |= {"__neg__": _unary(operator.neg), "__pos__": _unary(operator.pos), "__abs__": _unary(abs)}
    if kind is int:
        found["__invert__"] = _unary(operator.invert)
        found["__index__"] = plain
    found |= {"__round__": _round, "__floor__": _unary(math.floor), "__ceil__": _unary(math.ceil)}
    found["__trunc__"] = _unary(math.trunc)
    found["__bool__"] = lambda self: compute(bool, (self,))
    found["on_tape"] = lambda self: on_tape(self) if _capture() is not None else bare(self)
    found["__hash__"] = lambda self: hash(plain(self))
    found["__float__"] = lambda self: float(plain(self))
    found["__int__"] = lambda self: int(plain(self))
    found["__complex__"] = lambda self: complex(plain(self))
    found["__repr__"] = lambda self: repr(plain(self))
    found["__str__"] = lambda self: str(plain(self))
    found["__format__"] = lambda self, spec: format(plain(self), spec)
    found["__reduce_ex__"] = lambda self, protocol: (kind, (plain(self),))
    found["__copy__"] = plain
    found["__deepcopy__"] = lambda self, memo: plain(self)
    return found


Real: Any = type("Real", (float,), _methods(float))
Whole: Any = type("Whole", (int,), _methods(int))


# ---- computing again


class Program:
    """Conditions and numbers of a capture as one function of a call's arguments, written out in Python."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.objects: dict[str, Any] = {"MISS": MISS}
        self._names: dict[int, str] = {}
        self._alive: list[Any] = []

    def name(self, thing: Any) -> str:
        """A name for an object in the text."""
        name = f"o{len(self.objects)}"
        self.objects[name] = thing
        return name

    def of(self, x: Any) -> str:
        """A name of an operand's value; what it needs is computed in the lines before."""
        if not isinstance(x, Expression):
            return self.name(x)
        known = self._names.get(id(x))
        if known is not None:
            return known
        stack = [x]
        while stack:
            top = stack[-1]
            if id(top) in self._names:
                stack.pop()
                continue
            waiting = [y for y in top.operands if isinstance(y, Expression) and id(y) not in self._names]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            self._names[id(top)] = name = f"t{len(self._names)}"
            self._alive.append(top)
            self._line(top, name)
        return self._names[id(x)]

    def _line(self, x: Expression, name: str) -> None:
        if x.function is None:
            source = x.operands[0]
            if isinstance(source, Argument):
                text = f"flat[{source.k}]"
            else:
                text = source.text(self)
            self.lines.append(f"{name} = {text}")
            if not isinstance(source, Argument):
                self.lines.append(f"if type({name}) is not {type(x.value).__name__}: return MISS")
        else:
            operands = ", ".join(
                [self._names[id(y)] if isinstance(y, Expression) else self.name(y) for y in x.operands]
            )
            symbol = _SYMBOLS.get(x.function)
            if symbol is not None and len(x.operands) == 2:
                text = f" {symbol} ".join(operands.split(", "))
            else:
                text = f"{self.name(x.function)}({operands})"
            self.lines.append(f"{name} = {text}")

    def require(self, x: Expression, value: Any) -> None:
        """Leave unless an expression has its value."""
        name = self.of(x)
        if type(value) is bool and type(x.value) is bool:
            self.lines.append(f"if {name} is not {value}: return MISS")
            return
        self.lines.append(
            f"if type({name}) is not {type(value).__name__} or not same({name}, {self.name(value)}): return MISS"
        )
        self.objects["same"] = same

    def function(self, results: Iterable[Expression]) -> Callable[[list[Any]], Any]:
        """The function: the results as a tuple, or MISS."""
        names = []
        for x in results:
            name = self.of(x)
            if x.function is not None:
                self.lines.append(f"if type({name}) is not {type(x.value).__name__}: return MISS")
            if type(x.value) is int:
                self.lines.append(f"if not {-(2**63)} <= {name} < {2**63}: return MISS")
            names.append(name)
        answer = "".join([f"{name}, " for name in names])
        body = "".join([f"        {line}\n" for line in [*self.lines, f"return ({answer})"]])
        # an error is raised where the function itself runs into it
        source = f"def numbers(flat):\n    try:\n{body}    except Exception:\n        return MISS\n"
        exec(compile(source, "<fastgrad numbers>", "exec"), self.objects)
        return self.objects["numbers"]  # type: ignore[no-any-return]


MISS = object()
_SYMBOLS = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.floordiv: "//", operator.mod: "%",
    operator.pow: "**", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==",
    operator.ne: "!=",
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Whether two numbers of one type are the same: zeros by sign, NaN as NaN."""
    if type(a) is float:
        return (a == b and (a != 0 or math.copysign(1.0, a) == math.copysign(1.0, b))) or (a != a and b != b)
    return bool(a == b)
