"""Attributes as Python finds them, each step noted: the classes in order, descriptors, the object's own dict, `__getattr__`."""

from __future__ import annotations

import enum
import functools
import gc
import types
from typing import Any

import numpy as np

from .. import recording as tape
from .known import ATOMS, LIBRARY, NUMPY, USER, kind_of
from .numbers import Real, Whole, plain
from .watch import MISSING

_HEAP = 1 << 9
_IMMUTABLE = 1 << 8  # set for types in C that nobody can change, also where they are made at run time
_UNSTABLE = {"_version", "data_ptr"}  # of a tensor: other in every call
_PACKAGE = __name__.split(".", 1)[0]


def is_own(cls: type) -> bool:
    """Whether a class is the library's or Python's, so that nobody changes it."""
    module, flags = cls.__module__, cls.__flags__
    return (
        bool(not flags & _HEAP or flags & _IMMUTABLE)
        or module == _PACKAGE
        or module.startswith((_PACKAGE + ".", "numpy"))
    )


def class_dict(cls: type) -> dict[str, Any]:
    """The dict in which a class keeps its attributes."""
    found = gc.get_referents(cls.__dict__)
    return found[0] if found and type(found[0]) is dict else dict(cls.__dict__)


def lookup(cap: Any, cls: type, name: str, after: type | None = None) -> Any:
    """What a class, or those behind `after` in its order, have under a name; MISSING if nothing."""
    order = cls.__mro__
    if not is_own(cls):
        order = cap.watch.load("mro", cls)
    if after is not None:
        order = order[order.index(after) + 1 :]
    for c in order:
        if is_own(c):
            found = c.__dict__.get(name, MISSING)
        else:
            found = cap.watch.load("entry", class_dict(c), name)
        if found is not MISSING:
            return found
    return MISSING


def of_class(cap: Any, thing: Any, name: str) -> Any:
    """What an object's class has under a name; the class has to be the same at every call."""
    cls = type(thing)
    if not is_own(cls) and not cap.is_fresh(thing):
        cls = cap.watch.load("type", thing)
    return lookup(cap, cls, name)


def attribute(cap: Any, thing: Any, name: str) -> Any:
    """`thing.name`."""
    kind = type(thing)
    field = isinstance(thing, tuple) and type(kind.__dict__.get(name)).__name__ == "_tuplegetter"
    if kind in ATOMS or field or (isinstance(thing, (tuple, BaseException)) and is_own(kind)):
        return getattr(thing, name)
    if kind is Real or kind is Whole:
        return thing if name == "real" else getattr(plain(thing), name)
    if isinstance(thing, tape.TENSOR):
        if name in _UNSTABLE:
            cap.release(f"`{name}` of a tensor")
        elif kind is tape.TENSOR or hasattr(tape.TENSOR, name):
            own = thing.__dict__
            if name in own and not hasattr(kind, name) and name[:1] != "_":
                return cap.watch.load("entry", own, name)
            return getattr(thing, name)
    if isinstance(thing, types.ModuleType):
        if kind_name(thing) == LIBRARY or name not in thing.__dict__:
            return getattr(thing, name)
        return cap.watch.load("entry", thing.__dict__, name)
    if kind is super:
        return _of_super(cap, thing, name)
    if isinstance(thing, type):
        return _of_class(cap, thing, name)
    return _of_instance(cap, thing, name)


def kind_name(module: types.ModuleType) -> str:
    name = module.__name__.split(".", 1)[0]
    return LIBRARY if name == _PACKAGE else NUMPY if name == "numpy" else USER


def bind(cap: Any, raw: Any, thing: Any, cls: type) -> Any:
    """What a class's attribute gives when it is read from an object (None: from the class itself)."""
    kind = type(raw)
    if kind is types.FunctionType:
        return raw if thing is None else types.MethodType(raw, thing)
    if kind is staticmethod:
        return raw.__func__
    if kind is classmethod:
        inner = raw.__func__
        return types.MethodType(inner, cls) if type(inner) is types.FunctionType else raw.__get__(thing, cls)
    if kind is property:
        return raw if thing is None else cap.call(raw.fget, (thing,), {}) if raw.fget else raw.__get__(thing, cls)
    if kind is functools.cached_property and thing is not None:
        value = cap.call(raw.func, (thing,), {})
        thing.__dict__[raw.attrname] = value
        cap.store(thing, f"`{raw.attrname}` is kept by its first use", value)
        return value
    if kind in (Real, Whole) or not hasattr(kind, "__get__"):
        return raw
    getter = lookup(cap, kind, "__get__")
    if type(getter) is types.FunctionType and kind_of(getter.__code__) == USER:
        return cap.call(getter, (raw, thing, cls), {})
    return raw.__get__(thing, cls)


def _of_super(cap: Any, thing: Any, name: str) -> Any:
    instance, start = thing.__self__, thing.__self_class__
    raw = lookup(cap, start, name, thing.__thisclass__)
    if raw is MISSING or name == "__class__":
        return getattr(thing, name)
    return bind(cap, raw, None if instance is start else instance, start)


def _of_class(cap: Any, cls: type, name: str) -> Any:
    if isinstance(cls, enum.EnumMeta) or is_own(cls) or (name[:2] == "__" and name in type.__dict__):
        return getattr(cls, name)
    raw = lookup(cap, cls, name)
    if raw is not MISSING:
        return bind(cap, raw, None, cls)
    raw = lookup(cap, type(cls), name)
    return getattr(cls, name) if raw is MISSING else bind(cap, raw, cls, type(cls))


def own_dict(thing: Any) -> dict[str, Any] | None:
    """The dict of an object's own attributes."""
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def _of_instance(cap: Any, thing: Any, name: str) -> Any:
    cls = type(thing)
    fresh = cap.is_fresh(thing)
    getter = of_class(cap, thing, "__getattribute__")
    if type(getter) is types.FunctionType:
        try:
            return cap.call(getter, (thing, name), {})
        except AttributeError:
            return _missing(cap, thing, name)
    if isinstance(thing, (np.ndarray, np.generic)):
        if not fresh and isinstance(thing, np.ndarray) and name not in ("shape", "dtype", "ndim", "size", "strides"):
            cap.note(thing)
        return getattr(thing, name)
    if isinstance(thing, enum.Enum) and not own_function(cls, name):
        return getattr(thing, name)
    return standard(cap, thing, name, fresh)


def own_function(cls: type, name: str) -> bool:
    """Whether a class has a function or property of that name."""
    raw = next((c.__dict__[name] for c in cls.__mro__ if name in c.__dict__), None)
    return type(raw) in (types.FunctionType, property) and not is_own(cls)


def standard(cap: Any, thing: Any, name: str, fresh: bool) -> Any:
    """As `object.__getattribute__` finds it, and `__getattr__` where it does not."""
    cls = type(thing)
    load = cap.watch.load
    if not fresh and not is_own(cls):
        cls = load("type", thing)
    raw = lookup(cap, cls, name)
    kind = type(raw)
    if raw is not MISSING and kind not in (Real, Whole) and (hasattr(kind, "__set__") or hasattr(kind, "__delete__")):
        if kind is types.MemberDescriptorType:
            found = getattr(thing, name, MISSING) if fresh or is_own(cls) else load("slot", thing, raw)
            return _missing(cap, thing, name) if found is MISSING else found
        if kind is types.GetSetDescriptorType:
            return getattr(thing, name)
        try:
            return bind(cap, raw, thing, cls)
        except AttributeError:
            if lookup(cap, cls, "__getattr__") is MISSING:
                raise
            return _missing(cap, thing, name)
    own = own_dict(thing)
    if own is not None:
        if fresh or cap.counts_changes(thing, name):
            found = own.get(name, MISSING)
        else:
            if not is_own(cls):
                load("dict", thing)
            found = load("entry", own, name)
        if found is not MISSING:
            return found
    if raw is not MISSING:
        return bind(cap, raw, thing, cls)
    return _missing(cap, thing, name)


def _missing(cap: Any, thing: Any, name: str) -> Any:
    raw = of_class(cap, thing, "__getattr__")
    if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
        return cap.call(raw, (thing, name), {})
    return getattr(thing, name)
