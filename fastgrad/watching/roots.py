"""Functions whose source text is not known (made by `exec`, typed at a prompt): all that they could reach is watched instead.

Their code names the globals, cells and defaults that they start from. If those lead to tensors, the library's objects, numbers, text,
containers of such and functions alike, everything there is noted, read or not; else the function can't be watched. Numbers among
the arguments decide what is recorded, because nobody sees what is done with them.
"""

from __future__ import annotations

import math
import operator
import types
from typing import Any

import numpy as np

from .. import recording as tape
from ..structure import Counted
from .attributes import is_own
from .known import LIBRARY, MADE_OF, NUMERIC, NUMPY_OUTSIDE, PURE, kind_of
from .numbers import plain
from .rewrite import Unwatchable
from .watch import MISSING

_PACKAGE = __name__.split(".", 1)[0]
_BUILTINS = {len, sum, max, min, sorted, any, all, isinstance, zip, enumerate, reversed, map, filter, range, list, tuple, dict, set,
             frozenset, float, int, bool, str, type, getattr, hasattr}  # fmt: skip
_MODULES = {math, operator}


def _opcodes(text: str) -> set[int]:
    return set(compile(text, "<probe>", "exec").co_code[::2])


# what only handlers of exceptions need
_CATCH = _opcodes("try: f()\nexcept E: pass") - _opcodes("with f(): pass\nif f: g()\nif not f: g()")


def watch_all(cap: Any, function: types.FunctionType, arguments: list[Any]) -> None:
    """Note all that a function could read; raises Unwatchable where that is not known."""
    line = function.__code__.co_firstlineno
    seen: set[int] = set()
    stack: list[Any] = [function, *arguments]
    names: set[str] = set()
    while stack:
        thing = plain(stack.pop())
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        kind = type(thing)
        if kind is types.FunctionType:
            if kind_of(thing.__code__) != LIBRARY:
                stack += [*_roots(cap, thing, names), thing.__dict__]
        elif kind is types.MethodType:
            stack += [thing.__self__, thing.__func__]
        elif isinstance(thing, (list, tuple, dict)):
            cap.note(thing)
            stack += list(dict.values(thing) if isinstance(thing, dict) else thing)
        elif isinstance(thing, Counted) and is_own(kind):
            stack += _module(cap, thing)
        elif type(getattr(kind, "captured", None)) is types.FunctionType and kind.__module__.startswith(_PACKAGE):
            inner, first = thing.captured()
            stack += [inner, *first]
        elif isinstance(thing, np.ndarray):
            cap.note(thing)
        elif not _is_known(thing, names):
            raise Unwatchable(f"its source text is not known, and it uses `{_name(thing)}`", line)


def _name(thing: Any) -> str:
    return getattr(thing, "__name__", None) or f"an object of type {type(thing).__name__}"


def _is_known(thing: Any, names: set[str]) -> bool:
    kind = type(thing)
    if isinstance(thing, types.ModuleType):
        if thing is np:
            return not names & (NUMPY_OUTSIDE | {"random"})
        return thing in _MODULES or thing.__name__.split(".", 1)[0] == _PACKAGE
    if isinstance(thing, type):
        return thing in _BUILTINS or thing in MADE_OF or is_own(thing)
    if kind is types.BuiltinFunctionType:
        own = getattr(thing, "__module__", None) or ""
        return own.startswith(_PACKAGE) or thing in _BUILTINS or thing in NUMERIC or thing in PURE
    if isinstance(
        thing, (tape.TENSOR, int, float, str, bytes, complex, type(None), np.generic, types.EllipsisType, range, slice)
    ):
        return True
    if kind.__module__ == _PACKAGE or kind.__module__.startswith(_PACKAGE + "."):
        return not (hasattr(thing, "param_groups") and "param_groups" in names)
    return False


def _roots(cap: Any, function: types.FunctionType, names: set[str]) -> list[Any]:
    """What a function starts from."""
    found: list[Any] = []
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        cap.allowed.add(code)
        cap.catching = cap.catching or not _CATCH.isdisjoint(code.co_code[::2])
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        names.update(code.co_names)
        for name in code.co_names:
            value = cap.watch.load("entry", function.__globals__, name)
            if value is MISSING:
                scope = function.__globals__.get("__builtins__", {})
                value = (scope if isinstance(scope, dict) else vars(scope)).get(name)
            found.append(value)
    found += [cap.watch.load("cell", cell) for cell in function.__closure__ or ()]
    for field in ("__code__", "__defaults__", "__kwdefaults__"):
        value = cap.watch.load("field", function, field)
        if isinstance(value, (tuple, dict)):
            found.append(value)
    return [x for x in found if x is not MISSING]


def _module(cap: Any, module: Any) -> list[Any]:
    """All that a layer of the library's holds."""
    own = module.__dict__
    cap.watch.load("elements", own)
    found = [plain(cap.watch.load("entry", own, name)) for name in own if not cap.counts_changes(module, name)]
    return [*found, *[m for m in own.get("_modules", {}).values() if m is not None]]
