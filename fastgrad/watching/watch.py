"""What a captured call has read: one `Load` for each thing, which says whether it is as it was, in Python, as text and in rows.

A load is a place (an entry of a dict, a cell, an item of a list, a slot, a type, a length, ...) and what was found there. Numbers
found are read again by every replay; all else has to be the same object. `Watch` is what one capture notes.
"""

from __future__ import annotations

import collections
import enum
import functools
import operator
from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any

from .. import recording as tape
from .numbers import Expression, leaf, same

MISSING = type("MISSING", (), {"__repr__": lambda self: "MISSING"})()
SMALL = 65_536  # bytes of an array that are kept to be compared


def _cell(cell: Any, key: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _item(container: Any, key: int) -> Any:
    return list.__getitem__(container, key) if key < list.__len__(container) else MISSING


def _slot(thing: Any, descriptor: Any) -> Any:
    try:
        return descriptor.__get__(thing, type(thing))
    except AttributeError:
        return MISSING


def _field(thing: Any, name: str) -> Any:
    return getattr(thing, name, MISSING)


def _dict_of(thing: Any, key: Any) -> Any:
    return object.__getattribute__(thing, "__dict__")


def _elements(thing: Any, key: Any) -> tuple[Any, ...]:
    if isinstance(thing, collections.OrderedDict):  # which has an order of its own
        return tuple(collections.OrderedDict.__iter__(thing))
    if isinstance(thing, dict):
        return tuple(dict.keys(thing))
    return tuple(thing)


def _bytes(array: Any, key: Any) -> Any:
    return (array.shape, array.strides, array.dtype.str, array.tobytes())


READ: dict[str, Callable[[Any, Any], Any]] = {
    "entry": lambda d, key: dict.get(d, key, MISSING),
    "cell": _cell,
    "item": _item,
    "slot": _slot,
    "field": _field,
    "dict": _dict_of,
    "type": lambda thing, key: type(thing),
    "mro": lambda cls, key: cls.__mro__,
    "length": lambda thing, key: len(thing),
    "elements": _elements,
    "bytes": _bytes,
}
_EQUAL = ("bytes", "length")
_IMMUTABLE = (int, float, bool, str, bytes, type(None), complex)


class Load:
    """One thing that was read: its place and what stood there. `exact`: it must be the same, not only a number again."""

    __slots__ = ("container", "exact", "key", "kind", "number", "value")

    def __init__(self, kind: str, container: Any, key: Any, value: Any) -> None:
        self.kind = kind
        self.container = container
        self.key = key
        self.value = value
        self.exact = True
        self.number: Any = None  # what a capture gives for it, if it is a number

    def read(self) -> Any:
        """What stands there now."""
        return READ[self.kind](self.container, self.key)

    @property
    def place(self) -> tuple[Any, ...]:
        """What it is found by."""
        return (self.kind, id(self.container), self.key if self.kind != "slot" else id(self.key))

    def varies(self) -> bool:
        """Whether another number stands there than did, so that it is better read anew."""
        if not self.exact or type(self.value) not in (float, int):
            return False
        return type(self.read()) in (float, int) and not self.holds()

    def holds(self) -> bool:
        """Whether it is what it was."""
        found = self.read()
        return found is self.value or self.is_same(found)

    def is_same(self, found: Any) -> bool:
        """Whether another object stands for what it was."""
        if self.kind == "elements":
            return len(found) == len(self.value) and all(map(operator.is_, found, self.value))
        kind = type(found)
        if kind is type(self.value) and (self.kind in _EQUAL or kind is float or kind is int):
            return same(found, self.value)
        return False

    def text(self, program: Any) -> str:
        """Source text that reads it."""
        held = program.name(self.container)
        if self.kind == "entry" and type(self.container) is dict:
            return f"{held}.get({program.name(self.key)}, {program.name(MISSING)})"
        if self.kind == "length":
            return f"len({held})"
        return f"{program.name(READ[self.kind])}({held}, {program.name(self.key)})"

    def test(self, program: Any) -> str:
        """Source text that is true if it is not what it was."""
        if self.kind == "type":
            return f"type({program.name(self.container)}) is not {program.name(self.value)}"
        if self.kind in ("elements", *_EQUAL) or (type(self.value) in (float, int)):
            return f"not {program.name(self.holds)}()"
        return f"{self.text(program)} is not {program.name(self.value)}"


class Watch:
    """The loads and conditions of one capture."""

    def __init__(self, varying: dict[tuple[Any, ...], Any] | None = None) -> None:
        self.varying = {} if varying is None else varying  # places where other numbers have stood: they are read anew
        self.loads: dict[tuple[Any, ...], Load] = {}
        self.conditions: list[tuple[Expression, Any]] = []
        self.pinned: set[int] = set()  # arguments whose value decides what is recorded
        self.tensors: dict[int, Any] = {}  # tensors that were found, by identity
        self._expected: set[int] = set()
        self._alive: list[Any] = []

    def load(self, kind: str, container: Any, key: Any = None) -> Any:
        """Read something and note it; a number where others have stood comes as one that every replay reads anew."""
        place = (kind, id(container), key if kind != "slot" else id(key))
        try:
            known = self.loads.get(place)
        except TypeError:  # an unhashable key can't be in a dict
            return READ[kind](container, key)
        value = READ[kind](container, key)
        if known is not None and value is not known.value and not known.is_same(value):
            return value  # the call has changed it meanwhile
        if known is None:
            known = self.loads[place] = Load(kind, container, key, value)
            if place in self.varying and (type(value) is float or type(value) is int):
                known.exact = False
                known.number = leaf(value, known)
            elif type(value) is not float and type(value) is not int:
                self._find_tensors(value)
        return known.value if known.number is None else known.number

    def _find_tensors(self, value: Any) -> None:
        """Note the tensors in an object that was found, as far as it can't change."""
        stack = [value]
        while stack:
            x = stack.pop()
            if isinstance(x, tape.TENSOR):
                self.tensors[id(x)] = x
            elif isinstance(x, tuple):
                stack += x
            elif isinstance(x, functools.partial):
                stack.append(x.args)
            elif type(x) is MethodType:
                stack.append(x.__self__)
            elif isinstance(x, enum.Enum):
                stack.append(x.value)

    def expect(self, expression: Expression) -> None:
        """A replay must find this value."""
        if id(expression) in self._expected:
            return
        self._expected.add(id(expression))
        self._alive.append(expression)
        source = expression.operands[0] if expression.function is None else None
        if isinstance(source, Load):
            source.exact = True
        elif source is not None:
            self.pinned.add(source.k)
        else:
            self.conditions.append((expression, expression.value))

    def forget(self) -> None:
        """What was only needed during the call."""
        self.loads.clear()
        self.tensors.clear()
        self._alive.clear()

    def decide(self, expression: Expression, outcome: bool) -> None:
        """A replay must find this outcome of a comparison."""
        self.conditions.append((expression, outcome))


def is_function_field(load: Load) -> bool:
    """Whether a load is of a function's code or defaults."""
    return load.kind == "field" and type(load.container) is FunctionType


def is_cell(load: Load) -> bool:
    """Whether a load is of a closure cell."""
    return load.kind == "cell" and isinstance(load.container, CellType)
