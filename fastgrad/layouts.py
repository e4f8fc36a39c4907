"""Where in Python's own objects the words lie that tables of checks look at: found by looking for known values, never assumed."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from .kernels import entrance as at


def _list(n: int) -> Any:
    made = [0] * (n + 5)
    del made[-5:]  # more room than elements
    return made


def _set(n: int) -> Any:
    made = set(range(-3, n))
    return made - {-1, -2, -3}


_OF: dict[type, Any] = {list: _list, set: _set, dict: lambda n: dict.fromkeys(range(n))}


@cache
def length(kind: Any) -> int:
    """The offset of the number of elements in a list, dict or set."""
    if kind not in _OF:
        raise at.Unknown
    made = [(n, _OF[kind](n)) for n in (1009, 2003)]
    samples: list[tuple[int, int, int]] = [(id(thing), kind.__basicsize__, n) for n, thing in made]
    return at._found(samples)


@cache
def items() -> int:
    """The offset of the address of a list's items."""
    thing = _list(1009)
    place = length(list) + 8
    address = at.words(id(thing), list.__basicsize__ // 8)[place // 8] if place < list.__basicsize__ else 0
    if address < 1 << 16 or at.words(id(thing), 2)[1] != id(list):  # a number of elements is no address
        raise at.Unknown
    sample = [object(), object(), object()]
    at_items = at.words(id(sample) + place, 1)[0]
    if list(at.words(at_items, 3)) != [id(x) for x in sample]:
        raise at.Unknown
    return place


@cache
def order() -> int:
    """The offset of a class's order of bases."""
    classes = [type("Sample", (), {}) for _ in range(2)]
    return at._found([(id(c), cast(int, type.__basicsize__), id(c.__mro__)) for c in classes])


@cache
def of_function(name: str) -> int:
    """The offset of a function's code or defaults."""
    samples: list[Any] = []
    alive = []
    for k in range(2):
        f: Any = types.FunctionType((lambda a=0: a).__code__, {}, f"f{k}")
        value: Any = (k,) if name == "__defaults__" else {"a": k}
        if name == "__code__":
            value = f.__code__.replace(co_name=f"g{k}")
        setattr(f, name, value)
        alive.append((f, value))
        samples.append((id(f), types.FunctionType.__basicsize__, id(getattr(f, name))))
    return at._found(samples)


@cache
def _offset_of_dict(kind: Any) -> int:
    offset = kind.__dictoffset__
    places = range(-32, 0, 8) if offset < 0 else (offset,)
    common: set[int] | None = None
    for _ in range(2):
        thing: Any = object.__new__(kind)
        own = object.__getattribute__(thing, "__dict__")
        own["sample"] = 0
        found = {p for p in places if at.words(id(thing) + p, 1)[0] == id(own)}
        common = found if common is None else common & found
    if common is None or len(common) != 1:
        raise at.Unknown
    return common.pop()


@cache
def dict_version() -> int:
    """The offset of the number that a dict gets anew with every change (PEP 509), or 0 in a Python whose dicts have none."""
    offset = dict.__basicsize__ - 24  # of reference count, type, size, version, keys, values
    if offset != 24:
        return 0
    thing = _Plain()
    names: dict[str, Any] = {"k": 0}
    own = thing.__dict__
    seen: set[int] = set()

    def is_new(d: dict[Any, Any]) -> bool:
        before = len(seen)
        seen.add(at.words(id(d) + offset, 1)[0])
        return len(seen) > before

    code = compile("global k\nfor i in range(100): k = i + 1000; assert is_new(names)", "<layouts>", "exec")
    names |= {"is_new": is_new, "names": names}
    changes: list[tuple[dict[Any, Any], Callable[[dict[Any, Any]], object]]] = [
        ({1: 2}, lambda d: d.update({1: 3})),
        ({1: 2}, lambda d: d.pop(1)),
        ({1: 2}, lambda d: d.setdefault(2, 3)),
        ({1: 2}, lambda d: d.clear()),
        ({1: 2}, lambda d: d.__setitem__(1, 3)),
        ({1: 2}, lambda d: d.__delitem__(1)),
        ({1: 2}, lambda d: d.popitem()),
        ({1: 2}, lambda d: d.__ior__({1: 3})),
    ]
    try:
        for k in range(200):  # often enough for the interpreter to specialise the instruction
            thing.value = k + 1000
            if not is_new(own):
                return 0
        exec(code, names)
    except AssertionError:
        return 0
    for mapping, change in changes:
        if not is_new(mapping):
            return 0
        if mapping.get(1) != 2 or is_new(mapping):  # reading does not count
            return 0
        change(mapping)
        if not is_new(mapping):
            return 0
    return offset


class _Plain:
    value: int


def own_dict(thing: Any) -> int:
    """The address of the word that leads to an object's own dict."""
    kind: Any = type(thing)
    if not kind.__dictoffset__ or not kind.__flags__ & (1 << 9) or kind.__basicsize__ > 4096:
        raise at.Unknown
    try:
        offset = _offset_of_dict(kind)
    except TypeError:
        raise at.Unknown from None
    address = id(thing) + offset
    if at.words(address, 1)[0] != id(object.__getattribute__(thing, "__dict__")):
        raise at.Unknown
    return address
