"""What a rewritten function calls for each thing that it reads, and what a capture notes of it.

`Hooks` are the functions that `rewrite` writes into the text; `Recorder` is the part of a capture that they talk to. Both do what
Python would have done. Objects made during the call are `fresh`: what is in them follows from what else was read. Stores into
others are kept in `stores`; `release` ends the capture where something can't be watched, and the call goes on as it is.
"""

from __future__ import annotations

import collections
import gc
import importlib.util
import operator
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import recording as tape
from . import calls
from .attributes import attribute, is_own, lookup, of_class, own_dict
from .known import ATOMS, USER, is_builtin_name, is_generated, kind_of
from .numbers import Real, Whole, bare, compute, plain
from .sources import is_rewritten
from .watch import MISSING, READ, SMALL, Watch

_PACKAGE = __name__.split(".", 1)[0]
_SCALARS = {int, float, bool, str, bytes, complex, type(None), Real, Whole}
_ITERATORS = {range, str, bytes, tuple, frozenset, map, filter, zip, enumerate, reversed}


class Released(Exception):
    """Never raised: the name of what ends a capture."""


class Recorder:
    """What the hooks note."""

    def __init__(self, varying: dict[tuple[Any, ...], Any] | None = None) -> None:
        self.watch = Watch(varying)
        self.fresh: dict[int, Any] = {}
        self.copies: dict[int, tuple[Any, Any]] = {}
        self.views: dict[int, tuple[Any, Any, str]] = {}
        self.stores: list[tuple[str, Any, Any]] = []  # what, the line, the value
        self.released: tuple[str, Any, bool] | None = None  # why, the line, and whether it may be another way next time
        self.items: dict[tuple[int, Any], Any] = {}  # (container among the arguments, key) -> the number there
        self.containers: dict[int, Any] = {}  # containers among the arguments
        self.allowed: set[Any] = set()  # code whose reach is watched as a whole
        self._noted: set[int] = set()
        self.catching = False  # whether the function has come to a `try`: what may fail from there on can't wait

    # ---- what was made, stored, given up

    def keep(self, thing: Any) -> Any:
        """Note that an object was made by the call."""
        self.fresh[id(thing)] = thing
        return thing

    def adopt(self, found: Any) -> Any:
        """What a function has returned whose reach is watched as a whole: containers that are not in its reach are new ones."""
        stack = [found]
        while stack:
            thing = stack.pop()
            if isinstance(thing, (list, dict, set)) and id(thing) not in self._noted and not self.is_fresh(thing):
                self.keep(thing)
                stack += dict.values(thing) if isinstance(thing, dict) else thing
            elif isinstance(thing, tuple):
                stack += thing
        return found

    def is_fresh(self, thing: Any) -> bool:
        return id(thing) in self.fresh

    def load(self, kind: str, container: Any, key: Any = None) -> Any:
        """Read something in a container; those among the arguments are not watched, their numbers are arguments."""
        if id(container) in self.containers:
            known = self.items.get((id(container), key))
            return READ[kind](container, key) if known is None else known
        return self.watch.load(kind, container, key)

    def store(self, thing: Any, what: str, value: Any) -> None:
        """Note a change of what exists outside."""
        if not self.is_fresh(thing):
            self.stores.append((what, tape.user_line(), value))

    def release(self, what: str, line: Any = None, again: bool = False) -> None:
        """End the capture: the call goes on as it would without `compile`."""
        if self.released is None:
            self.released = (what, line or tape.user_line(), again)
        tr = tape.local.trace
        if tr.capture is self:
            tr.capture = None

    def control(self, f: Any, args: tuple[Any, ...]) -> None:
        """A function of the library's is called that changes what it does: the call has to find that done already."""

    def counts_changes(self, thing: Any, name: str) -> bool:
        """Whether an object counts changes of this attribute itself."""
        return False

    def hooks(self, names: dict[str, Any], cells: dict[str, Any]) -> Hooks:
        return Hooks(names, cells)

    def profile(self, frame: Any, event: str, argument: Any) -> None:
        """Called for every function that runs: the user's must be rewritten copies."""
        if event != "call" or tape.local.trace.capture is not self:
            return
        code = frame.f_code
        known = is_rewritten(code) or is_generated(code) or code in self.allowed or code.co_name == "__del__"
        if kind_of(code) == USER and not known and not _called_by_the_collector(frame):
            name = getattr(code, "co_qualname", code.co_name)
            self.release(
                f"{name}, which is not called by the function itself", (code.co_filename, code.co_firstlineno), True
            )

    # ---- reading

    def call(self, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return calls.call(self, f, args, kwargs)

    def note(self, thing: Any) -> Any:
        """Note all that is in an object; numbers and objects in it must be the same again."""
        kind = type(thing)
        if kind is Real or kind is Whole:
            return plain(thing)
        if kind in _SCALARS or isinstance(thing, (tape.TENSOR, type)) or id(thing) in self._noted:
            return thing
        if isinstance(thing, np.ndarray):
            if self.is_fresh(thing):
                return thing
            if thing.nbytes > SMALL or thing.dtype.hasobject:
                self.release("a large NumPy array")
            else:
                self.watch.load("bytes", thing)
            return thing
        if not isinstance(thing, (list, tuple, dict, set, frozenset, collections.deque)):
            return thing
        self._noted.add(id(thing))
        fresh = self.is_fresh(thing)
        if isinstance(thing, dict):
            if not fresh:
                self.load("elements", thing)
            for key in list(dict.keys(thing)):
                self.note(thing[key] if fresh else self.load("entry", thing, key))
        elif type(thing) is list and not fresh:
            for x in list(self.each(thing)):
                self.note(x)
        else:
            if not fresh and not isinstance(thing, (tuple, frozenset)):
                self.load("elements", thing)
            for x in list(self.each(thing) if isinstance(thing, tuple) else thing):
                self.note(x)
        if fresh:
            self._noted.discard(id(thing))
            self.fresh[id(thing)] = thing
        return thing

    def settled(self, thing: Any) -> Any:
        """An argument of a function that looks at all there is."""
        kind = type(thing)
        if kind is Real or kind is Whole:
            return plain(thing)
        if kind in _SCALARS:
            return thing
        self.note(thing)
        made = kind is tuple or (kind is list and self.is_fresh(thing))
        if made and any([type(x) in (Real, Whole) for x in thing]):
            return kind([bare(x) for x in thing])
        return thing

    def each(self, thing: Any, shape: Any = None) -> Any:
        """What a loop over an object goes through."""
        kind = type(thing)
        if tape.local.trace.capture is not self:
            found: Any = thing
        elif kind is list:
            found = thing if self.is_fresh(thing) else self._list(thing)
        elif isinstance(thing, dict) and kind.__iter__ is dict.__iter__:
            if not self.is_fresh(thing):
                self.load("elements", thing)
            found = thing
        elif id(thing) in self.views:
            found = self._view(*self.views[id(thing)])
        elif isinstance(thing, (set, collections.deque)) and not isinstance(kind.__iter__, types.FunctionType):
            if not self.is_fresh(thing):
                self.load("elements", thing)
            found = thing
        elif isinstance(thing, np.ndarray):
            self.note(thing)
            found = thing
        elif kind in _ITERATORS or isinstance(thing, tape.TENSOR) or self.is_fresh(thing):
            if id(thing) in self.containers:
                found = [self.items.get((id(thing), k), x) for k, x in enumerate(thing)]
            elif is_own(kind) or kind is tuple or isinstance(thing, tuple):
                found = thing
            else:
                found = self._users(thing)
        else:
            found = self._users(thing)
        return found if shape is None else (self.unpack(x, shape) for x in found)

    def _list(self, thing: list[Any]) -> list[Any]:
        length = self.load("length", thing)
        plain(length)
        return [self.load("item", thing, k) for k in range(len(thing))]

    def _view(self, view: Any, owner: dict[Any, Any], name: str) -> Any:
        self.load("elements", owner)
        if name == "keys":
            return list(owner)
        pairs = [(key, self.item(owner, key)) for key in owner]
        return pairs if name == "items" else [x for _, x in pairs]

    def _users(self, thing: Any) -> Any:
        kind = type(thing)
        module = kind.__module__.split(".", 1)[0]
        if module == _PACKAGE:
            return thing
        if kind is types.GeneratorType:
            if not is_rewritten(thing.gi_code) and kind_of(thing.gi_code) == USER:
                self.release("a generator that was made outside")
            return thing
        raw = of_class(self, thing, "__iter__")
        if type(raw) is types.FunctionType:
            made = self.call(raw, (thing,), {})
            step = of_class(self, made, "__next__")
            if type(step) is types.FunctionType and kind_of(step.__code__) == USER:
                return self._steps(made, step)
            return made if made is thing or type(made) is types.GeneratorType else self.each(made)
        raw = of_class(self, thing, "__getitem__")
        if type(raw) is types.FunctionType and of_class(self, thing, "__iter__") is MISSING:
            return self._items(thing)
        if not isinstance(thing, collections.abc.Iterable):
            return thing
        self.release(f"an iterator ({kind.__name__})")
        return thing

    def _steps(self, iterator: Any, step: Any) -> Iterator[Any]:
        while True:
            try:
                value = self.call(step, (iterator,), {})
            except StopIteration:
                return
            yield value

    def _items(self, thing: Any) -> Iterator[Any]:
        k = 0
        while True:
            try:
                value = self.item(thing, k)
            except IndexError:
                return
            yield value
            k += 1

    def unpack(self, thing: Any, shape: Any) -> Any:
        """A value taken apart as its target is nested."""
        if type(shape) is not tuple:
            return thing
        found = self.each(thing)
        if not any([type(s) is tuple for s in shape]):
            return found
        values = list(found)
        star = shape.index("*") if "*" in shape else None
        for k, inner in enumerate(shape):
            if type(inner) is tuple and (at := k if star is None or k < star else k - len(shape)) < len(values):
                values[at] = tuple(self.unpack(values[at], inner))
        return values

    def mapping(self, thing: Any) -> Any:
        """A mapping whose entries are all read."""
        if not isinstance(thing, dict) or self.is_fresh(thing):
            if not isinstance(thing, dict):
                self.release(f"a mapping ({type(thing).__name__})")
            return thing
        self.load("elements", thing)
        return {key: self.item(thing, key) for key in thing}

    def item(self, thing: Any, key: Any) -> Any:
        """`thing[key]`."""
        kind = type(thing)
        if id(thing) in self.containers and isinstance(thing, (list, tuple)) and type(key) in (int, Whole) and key < 0:
            key = len(thing) + plain(key)
        known = self.items.get((id(thing), bare(key))) if self.items and type(key) in _SCALARS else None
        if known is not None:
            plain(key)
            return known
        if isinstance(thing, tape.TENSOR):
            return thing[calls.given(self, key) if type(key) not in (Real, Whole) else plain(key)]
        if kind in ATOMS or (isinstance(thing, tuple) and kind.__getitem__ is tuple.__getitem__):
            return thing[self.settled(key)]
        if self.is_fresh(thing) and kind in (list, dict, collections.OrderedDict, collections.deque):
            return thing[
                self.settled(key)
                if type(key) is not slice
                else slice(plain(key.start), plain(key.stop), plain(key.step))
            ]
        if kind is list:
            return self._item_of_list(thing, key)
        raw = of_class(self, thing, "__getitem__")
        if type(raw) is types.FunctionType:
            return self.call(raw, (thing, key), {})
        if isinstance(thing, dict):
            key = self.settled(key)
            found = self.load("entry", thing, key)
            if found is not MISSING:
                return found
            missing = of_class(self, thing, "__missing__")
            if type(missing) is types.FunctionType:
                return self.call(missing, (thing, key), {})
            if missing is not MISSING:
                self.store(thing, "a missing item that is made", None)
            return thing[key]
        if isinstance(thing, np.ndarray):
            self.note(thing)
            return self.keep(thing[self.settled(key)])
        if isinstance(thing, collections.deque):
            self.note(thing)
            return thing[self.settled(key)]
        if isinstance(thing, (type, np.generic)) or self.is_fresh(thing):
            return operator.getitem(thing, self.settled(key))  # type: ignore[call-overload]
        if kind.__module__.split(".", 1)[0] == _PACKAGE:
            return thing[self.settled(key)]
        self.release(f"an item of a {kind.__name__}")
        return thing[bare(key)]

    def _item_of_list(self, thing: list[Any], key: Any) -> Any:
        if type(key) is slice:
            return self.keep(self._list(thing)[slice(plain(key.start), plain(key.stop), plain(key.step))])
        key = plain(key)
        if type(key) is bool or type(key) is not int:
            key = operator.index(key)
        if key < 0:
            key += plain(self.load("length", thing))
        if not 0 <= key < len(thing):
            plain(self.load("length", thing))
            return thing[len(thing)]
        return self.load("item", thing, key)

    def truth(self, thing: Any) -> Any:
        """What `if` takes: an object of the same truth, which has been noted."""
        kind = type(thing)
        if kind in _SCALARS or isinstance(thing, tape.TENSOR):
            return thing
        if kind in (list, dict, set, collections.deque):
            return thing if self.is_fresh(thing) else self.load("length", thing) != 0
        if kind in ATOMS or isinstance(thing, (type, types.FunctionType, types.MethodType)):
            return thing
        if isinstance(thing, np.ndarray):
            return self.note(thing)
        for name in ("__bool__", "__len__"):
            raw = of_class(self, thing, name)
            if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
                return bool(self.call(raw, (thing,), {}))
            if raw is not MISSING and isinstance(thing, (list, dict, set)) and not self.is_fresh(thing):
                return self.load("length", thing) != 0
            if raw is not MISSING:
                return thing
        return thing

    def text(self, thing: Any) -> Any:
        """What text shows."""
        kind = type(thing)
        raw = MISSING if kind in _SCALARS or isinstance(thing, tape.TENSOR) else of_class(self, thing, "__str__")
        if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
            return self.call(raw, (thing,), {})
        return self.settled(thing)

    # ---- storing

    def put(self, thing: Any, name: str, value: Any) -> None:
        """`object.__setattr__`."""
        own = own_dict(thing)
        if self.is_fresh(thing):
            object.__setattr__(thing, name, value)
            return
        value = bare(value)
        if own is not None and own.get(name, MISSING) is value:
            self.watch.load("entry", own, name)
            plain(self.watch.load("entry", own, name))
            return
        self.store(thing, f"`{name}` is set", value)
        object.__setattr__(thing, name, value)

    def set_attribute(self, value: Any, thing: Any, name: str) -> None:
        """`thing.name = value`."""
        kind = type(thing)
        if isinstance(thing, tape.TENSOR):
            if not hasattr(kind, name):
                self.store(thing, f"`{name}` of a tensor is set", value)
            setattr(thing, name, calls.given(self, value))
            return
        if isinstance(thing, types.ModuleType):
            self.store(thing, f"`{name}` of a module is set", value)
            setattr(thing, name, bare(value))
            return
        if isinstance(thing, type):
            self.store(thing, f"`{name}` of a class is set", value)
            setattr(thing, name, bare(value))
            return
        setter = of_class(self, thing, "__setattr__")
        if type(setter) is types.FunctionType and kind_of(setter.__code__) == USER:
            self.call(setter, (thing, name, value), {})
            return
        raw = of_class(self, thing, name)
        if type(raw) is property and raw.fset is not None:
            self.call(raw.fset, (thing, value), {})
            return
        own = own_dict(thing)
        if raw is not MISSING and type(raw) not in (Real, Whole):
            put = lookup(self, type(raw), "__set__")
            if type(put) is types.FunctionType:
                self.call(put, (raw, thing, value), {})
                return
            if own is None or put is not MISSING:
                self.store(thing, f"`{name}` is set", value)
                setattr(thing, name, bare(value))
                return
        if setter is object.__setattr__:
            self.put(thing, name, value)
            return
        value = bare(value)
        if own is None or own.get(name, MISSING) is not value:
            self.store(thing, f"`{name}` is set", value)
        elif own is not None:
            plain(self.watch.load("entry", own, name))
        setattr(thing, name, value)

    def set_item(self, value: Any, thing: Any, key: Any) -> None:
        """`thing[key] = value`."""
        if isinstance(thing, tape.TENSOR):
            thing[calls.given(self, key) if type(key) is not Whole else plain(key)] = calls.given(self, value)
            return
        kind = type(thing)
        raw = of_class(self, thing, "__setitem__")
        if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
            self.call(raw, (thing, key, value), {})
            return
        if not self.is_fresh(thing):
            self.store(thing, f"an item of a {kind.__name__} that exists outside of it", value)
            value = bare(value)
        thing[self.settled(key)] = self.settled(value) if isinstance(thing, np.ndarray) else value

    def contains(self, value: Any, thing: Any) -> bool:
        """`value in thing`."""
        if isinstance(thing, dict) and not self.is_fresh(thing) and type(thing).__contains__ is dict.__contains__:
            key = self.settled(value)
            return self.load("entry", thing, key) is not MISSING if _hashable(key) else key in thing
        if isinstance(thing, tape.TENSOR) or isinstance(value, tape.TENSOR):
            return value in self.note(thing)
        raw = of_class(self, thing, "__contains__")
        if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
            return bool(self.call(raw, (thing, value), {}))
        if id(thing) in self.views:
            return value in list(self.each(thing))
        self.settled(thing)
        return self.settled(value) in thing


def _called_by_the_collector(frame: Any) -> bool:
    """Whether a frame belongs to one of `gc.callbacks`, which run at any time and are no part of the function."""
    functions = [getattr(f, "__func__", f) for f in gc.callbacks]
    codes = {getattr(f, "__code__", None) or getattr(type(f).__call__, "__code__", None) for f in functions}
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def _hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


class _Manager:
    """A context manager of the user's, whose methods run as copies."""

    def __init__(self, recorder: Recorder, manager: Any) -> None:
        self.recorder, self.manager = recorder, manager

    def __enter__(self) -> Any:
        return self.recorder.call(attribute(self.recorder, self.manager, "__enter__"), (), {})

    def __exit__(self, *error: Any) -> Any:
        if tape.local.trace.capture is not self.recorder:
            return type(self.manager).__exit__(self.manager, *error)
        return self.recorder.call(attribute(self.recorder, self.manager, "__exit__"), error, {})


_EQUALITY = {"eq": "__eq__", "ne": "__ne__"}


class Hooks:
    """The functions in a rewritten function's text; they do what stands in the original where nothing is captured."""

    def __init__(self, names: dict[str, Any], cells: dict[str, Any]) -> None:
        self.names = names
        self.cells = cells
        self.fixed = names.get("__name__", "").split(".", 1)[0] == _PACKAGE  # the library's own names stay

    def name(self, name: str, value: Any) -> Any:
        cap = tape.local.trace.capture
        if cap is None or self.fixed:
            return value
        if is_builtin_name(name, value) and name not in self.names:
            cap.watch.load("entry", self.names, name)
            return value
        return cap.watch.load("entry", self.names, name)

    def cell(self, name: str, value: Any) -> Any:
        cap = tape.local.trace.capture
        if cap is None or name not in self.cells:
            return value
        return cap.watch.load("cell", self.cells[name])

    def attribute(self, thing: Any, name: str) -> Any:
        cap = tape.local.trace.capture
        return getattr(thing, name) if cap is None else attribute(cap, thing, name)

    def item(self, thing: Any, key: Any) -> Any:
        cap = tape.local.trace.capture
        return thing[key] if cap is None else cap.item(thing, key)

    def slice(self, *parts: Any) -> Any:
        return slice(*[plain(x) for x in parts])

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        cap = tape.local.trace.capture
        return function(*args, **kwargs) if cap is None else calls.call(cap, function, args, kwargs)

    def mapping(self, thing: Any) -> Any:
        cap = tape.local.trace.capture
        return thing if cap is None else cap.mapping(thing)

    def each(self, thing: Any, shape: Any = None) -> Any:
        cap = tape.local.trace.capture
        return thing if cap is None else cap.each(thing, shape)

    def unpack(self, thing: Any, shape: Any) -> Any:
        cap = tape.local.trace.capture
        return thing if cap is None else cap.unpack(thing, shape)

    def operand(self, thing: Any) -> Any:
        cap = tape.local.trace.capture
        if cap is None or type(thing) in _SCALARS or isinstance(thing, tape.TENSOR):
            return thing
        return cap.note(thing)

    def compared(self, thing: Any) -> Any:
        """An operand of several comparisons in a row."""
        return plain(thing) if type(thing) is Whole else self.operand(thing)

    def binary(self, name: str, a: Any, b: Any) -> Any:
        function = getattr(operator, name)
        cap = tape.local.trace.capture
        if cap is None:
            return function(a, b)
        if type(b) is Whole and type(a) is float:  # a float takes the int as it is, without a word to it
            return compute(function, (a, b))
        if type(a) in _SCALARS and type(b) in _SCALARS:
            return function(plain(a) if type(b) is str else a, plain(b) if type(a) in (str, bytes) else b)
        if isinstance(a, tape.TENSOR) or isinstance(b, tape.TENSOR):
            return function(self.operand(a), self.operand(b))
        method = _EQUALITY.get(name, f"__{name.rstrip('_')}__")
        raw = of_class(cap, a, method)
        if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER and not is_generated(raw.__code__):
            found = cap.call(raw, (a, b), {})
            if found is not NotImplemented:
                return found
        if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and name == "add" and type(a) is type(b):
            return cap.keep(type(a)([*cap.each(a), *cap.each(b)]))
        if isinstance(a, (list, tuple)) and name == "mul" and type(a) in (list, tuple):
            return cap.keep(type(a)(cap.each(a)) * plain(b))
        return cap.keep(function(cap.settled(a), cap.settled(b)))

    def unary(self, name: str, a: Any) -> Any:
        cap = tape.local.trace.capture
        function = getattr(operator, name)
        if cap is None or type(a) in _SCALARS or isinstance(a, tape.TENSOR):
            return function(a)
        raw = of_class(cap, a, f"__{name}__")
        if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
            return cap.call(raw, (a,), {})
        return cap.keep(function(cap.note(a)))

    def inplace(self, name: str, a: Any, b: Any) -> Any:
        cap = tape.local.trace.capture
        function = getattr(operator, name)
        if cap is None:
            return function(a, b)
        if type(b) is Whole and type(a) is float:
            return compute(getattr(operator, name[1:]), (a, b))
        if type(a) in _SCALARS or isinstance(a, (tuple, tape.TENSOR)):
            return function(a, self.operand(b)) if not isinstance(a, tuple) else self.binary(name[1:], a, b)
        if isinstance(a, (list, dict, set, collections.deque, np.ndarray)):
            if not cap.is_fresh(a):
                cap.store(a, f"a {type(a).__name__} that exists outside of it is changed in place", b)
                return function(a, cap.settled(b))
            return function(
                a,
                cap.mapping(b) if isinstance(b, dict) else cap.settled(b) if isinstance(a, np.ndarray) else cap.each(b),
            )
        raw = of_class(cap, a, f"__{name}__")
        if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
            return cap.call(raw, (a, b), {})
        return self.binary({"iand": "and_", "ior": "or_"}.get(name, name[1:]), a, b)

    def contains(self, value: Any, thing: Any) -> bool:
        cap = tape.local.trace.capture
        return value in thing if cap is None else cap.contains(value, thing)

    def truth(self, thing: Any) -> Any:
        cap = tape.local.trace.capture
        return thing if cap is None else cap.truth(thing)

    def catches(self) -> None:
        """A `try` begins that has handlers."""
        cap = tape.local.trace.capture
        if cap is not None:
            cap.catching = True

    def condition(self, thing: Any) -> Any:
        cap = tape.local.trace.capture
        if cap is not None and type(thing) not in _SCALARS and not isinstance(thing, tape.TENSOR):
            found = cap.truth(thing)
            if found is not thing:
                bool(found)
        return thing

    def text(self, thing: Any) -> Any:
        cap = tape.local.trace.capture
        return thing if cap is None else cap.text(thing)

    def fresh(self, thing: Any) -> Any:
        cap = tape.local.trace.capture
        return thing if cap is None else cap.keep(thing)

    def wrote(self, name: str) -> None:
        cap = tape.local.trace.capture
        if cap is not None:
            cap.stores.append((f"the outer name `{name}` is bound", tape.user_line(), None))

    def set_attribute(self, value: Any, thing: Any, name: str) -> None:
        cap = tape.local.trace.capture
        if cap is None:
            setattr(thing, name, bare(value))
        else:
            cap.set_attribute(value, thing, name)

    def set_item(self, value: Any, thing: Any, key: Any) -> None:
        cap = tape.local.trace.capture
        if cap is None:
            thing[bare(key)] = bare(value)
        else:
            cap.set_item(value, thing, key)

    def del_attribute(self, thing: Any, name: str) -> None:
        cap = tape.local.trace.capture
        if cap is not None:
            cap.store(thing, f"`{name}` is deleted", None)
        delattr(thing, name)

    def del_item(self, thing: Any, key: Any) -> None:
        cap = tape.local.trace.capture
        if cap is not None:
            cap.store(thing, f"an item of a {type(thing).__name__} is deleted", None)
        del thing[plain(key)]

    def manager(self, thing: Any) -> Any:
        cap = tape.local.trace.capture
        if cap is None or is_own(type(thing)):
            if cap is not None and type(thing).__module__.split(".", 1)[0] not in (_PACKAGE, "builtins"):
                cap.release(f"a context manager ({type(thing).__name__})")
            return thing
        if type(of_class(cap, thing, "__enter__")) is not types.FunctionType:
            return thing
        raw = of_class(cap, thing, "__enter__")
        if kind_of(raw.__code__) != USER:
            cap.release(f"a context manager ({type(thing).__name__})")
            return thing
        return _Manager(cap, thing)

    def imported(self, module: str, level: int, name: str, value: Any) -> Any:
        cap = tape.local.trace.capture
        if cap is None:
            return value
        if level:
            module = importlib.util.resolve_name("." * level + module, self.names.get("__package__") or "")
        found = sys.modules.get(module)
        if found is None or name not in vars(found):
            return value
        return attribute(cap, found, name)
