"""Calls as a capture makes them: user's functions as rewritten copies, the library's as they are, others by what is known of them."""

from __future__ import annotations

import collections
import enum
import functools
import operator
import types
from typing import Any

import numpy as np

from .. import recording as tape
from .attributes import attribute, bind, is_own, lookup, of_class, standard
from .known import (
    ATOMS,
    CONTAINERS,
    COUNTERS,
    FOREIGN,
    ITERATORS,
    LAYER,
    LIBRARY,
    MADE_OF,
    NUMERIC,
    NUMPY,
    PURE,
    READERS,
    USER,
    is_generated,
    is_numpy_pure,
    is_numpy_reader,
    kind_of,
    takes_numbers,
)
from .numbers import Real, Whole, bare, compute, on_tape, plain
from .rewrite import HOOKS, Unwatchable
from .roots import watch_all
from .sources import UNKNOWN, is_rewritten, rewritten
from .watch import MISSING

_PACKAGE = __name__.split(".", 1)[0]
_CONTROLS = {"train", "eval", "requires_grad_", "load_state_dict", "add_param_group", "register_buffer", "register_parameter", "add_module",
             "register_module", "set_default_dtype", "set_num_threads", "set_printoptions", "set_rng_state", "seed", "set_state"}  # fmt: skip


def call(cap: Any, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`f(*args, **kwargs)`."""
    kind = type(f)
    if kind is types.FunctionType:
        return function(cap, f, args, kwargs)
    if kind is types.MethodType:
        inner = f.__func__
        return call(cap, inner, (f.__self__, *args), kwargs)
    if kind is types.BuiltinFunctionType:
        return builtin(cap, f, args, kwargs)
    if isinstance(f, type):
        return construct(cap, f, args, kwargs)
    if isinstance(f, functools.partial):
        more = {k: cap.watch.load("entry", f.keywords, k) for k in f.keywords} if f.keywords else {}
        if not cap.is_fresh(f) and f.keywords:
            cap.watch.load("length", f.keywords)
        return call(cap, f.func, (*f.args, *args), {**more, **kwargs})
    if kind in (
        types.MethodDescriptorType,
        types.WrapperDescriptorType,
        types.MethodWrapperType,
        types.ClassMethodDescriptorType,
    ):
        return descriptor(cap, f, args, kwargs)
    compiled = getattr(kind, "captured", None)  # a compiled function inside of another is a part of it
    if compiled is not None and kind.__module__.startswith(_PACKAGE):
        inner, first = f.captured()
        return call(cap, inner, (*first, *args), kwargs)
    if isinstance(f, operator.itemgetter | operator.attrgetter | operator.methodcaller):
        return getter(cap, f, args)
    raw = of_class(cap, f, "__call__")
    if type(raw) is types.FunctionType:
        return function(cap, raw, (f, *args), kwargs)
    if raw is not MISSING and isinstance(raw, (staticmethod, classmethod)):
        return call(cap, bind(cap, raw, f, kind), args, kwargs)
    if is_numpy_pure(f):
        return numpy_function(cap, f, args, kwargs)
    return unknown(cap, f, args, kwargs)


def name_of(f: Any) -> str:
    """What a message calls a function."""
    owner = getattr(f, "__self__", None)
    name = str(getattr(f, "__qualname__", None) or type(f).__qualname__)
    module = getattr(f, "__module__", None)
    if not isinstance(module, str) and isinstance(owner, types.ModuleType):
        module = owner.__name__
    return name if module in (None, "builtins", "__main__") else f"{module}.{name}"


def unknown(cap: Any, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of which nothing is known: from here on the call runs as it would without `compile`."""
    cap.release(f"`{name_of(f)}`")
    return f(*[bare(x) for x in args], **{k: bare(v) for k, v in kwargs.items()})


def function(cap: Any, f: types.FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function written in Python."""
    code = f.__code__
    if is_rewritten(code):
        return f(*args, **kwargs)
    kind = kind_of(code)
    if kind == LIBRARY:
        return library(cap, f, args, kwargs)
    if kind == NUMPY and is_numpy_pure(f):
        return numpy_function(cap, f, args, kwargs)
    if kind in (FOREIGN, NUMPY):
        return unknown(cap, f, args, kwargs)
    if is_generated(code) and args and cap.is_fresh(args[0]):
        return f(*args, **kwargs)
    made = copy(cap, f, [*args, *kwargs.values()])
    if made is None or made is f:
        return cap.adopt(f(*[bare(x) for x in args], **{k: bare(v) for k, v in kwargs.items()}))
    return made(*args, **kwargs)


def copy(cap: Any, f: types.FunctionType, arguments: Any = None) -> types.FunctionType | None:
    """The rewritten copy of a function; the function itself, if all that it could read is watched; None, and the capture is over,
    if neither can be."""
    known = cap.copies.get(id(f))
    if known is not None:
        return known[1]  # type: ignore[no-any-return]
    if not cap.is_fresh(f) and kind_of(f.__code__) == USER:
        for field in ("__code__", "__defaults__", "__kwdefaults__"):
            cap.watch.load("field", f, field)
    try:
        code = rewritten(f)
    except Unwatchable as found:
        if found.reason == UNKNOWN and arguments is not None:
            try:
                watch_all(cap, f, arguments)
                return f
            except Unwatchable as other:
                found = other
        cap.release(f"{f.__qualname__}: {found.reason}", (f.__code__.co_filename, found.line))
        return None
    cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
    hooks = types.CellType(cap.hooks(f.__globals__, cells))
    closure = tuple([hooks if name == HOOKS else cells[name] for name in code.co_freevars])
    made = types.FunctionType(code, f.__globals__, f.__name__, f.__defaults__, closure)
    made.__kwdefaults__ = _entries(cap, f.__kwdefaults__)
    made.__qualname__ = f.__qualname__
    cap.copies[id(f)] = (f, made)
    return made


def _entries(cap: Any, names: Any) -> Any:
    """A dict of values by name, each of them read."""
    if not names or cap.is_fresh(names):
        return names
    cap.watch.load("elements", names)
    return {name: cap.watch.load("entry", names, name) for name in names}


# ---- the library


def library(cap: Any, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of the library's: numbers go onto the tape, functions of the user's as their copies."""
    if f.__name__ in _CONTROLS:
        cap.control(f, args)
    cells = f.__closure__
    if cells is not None:  # a function that the library has wrapped
        held = [_contents(cell) for cell in cells]
        if any([_is_users(x) for x in held]):
            made = [types.CellType(given(cap, x)) if _is_users(x) else c for x, c in zip(held, cells, strict=True)]
            if tape.local.trace.capture is None:
                return f(*[bare(x) for x in args], **{k: bare(v) for k, v in kwargs.items()})
            again = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, tuple(made))
            again.__kwdefaults__ = f.__kwdefaults__
            return again(*args, **kwargs)
    if not takes_numbers(f.__code__):  # options of layers and the like decide what is recorded
        args, kwargs = tuple([plain(x) for x in args]), {k: plain(v) for k, v in kwargs.items()}
    return f(*[given(cap, x) for x in args], **{k: given(cap, v) for k, v in kwargs.items()})


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_users(f: Any) -> bool:
    if type(f) is types.MethodType:
        f = f.__func__
    return type(f) is types.FunctionType and not is_rewritten(f.__code__) and kind_of(f.__code__) in (USER, LAYER)


def given(cap: Any, x: Any) -> Any:
    """An argument as the library gets it."""
    kind = type(x)
    if isinstance(x, tape.TENSOR) or kind in ATOMS:
        return x
    if kind is Real:
        return on_tape(x) if tape.local.trace.capture is not None else bare(x)
    if kind is Whole:
        return plain(x)
    if kind in (list, tuple):
        if kind is list and not cap.is_fresh(x):
            return [given(cap, y) if type(y) in (list, tuple) else plain(y) for y in cap.each(x)]
        return kind([given(cap, y) if type(y) not in (Real, Whole) else plain(y) for y in x])
    if kind is types.FunctionType and _is_users(x):
        return copy(cap, x) or x
    if kind is types.MethodType and _is_users(x):
        made = copy(cap, x.__func__)
        return x if made is None else types.MethodType(made, x.__self__)
    if kind is slice:
        return slice(plain(x.start), plain(x.stop), plain(x.step))
    if kind in (dict, set) or isinstance(x, np.ndarray):
        cap.note(x)
    elif (
        type(x) is types.GeneratorType
        and not cap.is_fresh(x)
        and kind_of(x.gi_code) == USER
        and not is_rewritten(x.gi_code)
    ):
        cap.release("a generator")
    return x


# ---- what is written in C


def numpy_function(cap: Any, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of NumPy's that depends on its arguments only."""
    if kwargs.get("out") is not None:
        return unknown(cap, f, args, kwargs)
    if f is np.asarray or f is np.array:
        pass
    values = [cap.settled(x) for x in args]
    named = {k: cap.settled(v) for k, v in kwargs.items()}
    return cap.keep(f(*values, **named))


def builtin(cap: Any, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function or bound method written in C."""
    owner = f.__self__
    special = _SPECIAL.get(f)
    if special is not None:
        return special(cap, *args, **kwargs)
    try:
        if f in NUMERIC:
            if all([type(x) in (float, int, bool, Real, Whole) for x in args]) and not kwargs:
                return compute(f, args)
            if isinstance(args[0] if args else None, tape.TENSOR):
                return f(*[given(cap, x) for x in args], **kwargs)
            raw = of_class(cap, args[0], f"__{f.__name__}__") if args else MISSING
            if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
                return call(cap, raw, args, kwargs)
            return f(*[cap.settled(x) for x in args], **{k: cap.settled(v) for k, v in kwargs.items()})
        if f in PURE:
            return cap.keep(f(*[cap.settled(x) for x in args], **{k: cap.settled(v) for k, v in kwargs.items()}))
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
    if owner is not None and not isinstance(owner, types.ModuleType):
        return method(cap, f, owner, f.__name__, args, kwargs)
    module = getattr(f, "__module__", None)
    if isinstance(module, str) and module.startswith(_PACKAGE):
        return f(*[given(cap, x) for x in args], **{k: given(cap, v) for k, v in kwargs.items()})
    if is_numpy_pure(f):
        return numpy_function(cap, f, args, kwargs)
    return unknown(cap, f, args, kwargs)


def method(cap: Any, f: Any, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A method, written in C, of `owner`."""
    kind = type(owner)
    if kind in ATOMS or kind in (tuple, frozenset):
        if name == "join" and kind in (str, bytes):
            return f([cap.text(x) for x in cap.each(args[0])])
        return f(*[cap.settled(x) for x in args], **{k: cap.settled(v) for k, v in kwargs.items()})
    if isinstance(owner, type):
        if owner in (dict, collections.OrderedDict, str, bytes, int, float) and name in (
            "fromkeys",
            "maketrans",
            "fromhex",
            "from_bytes",
        ):
            return cap.keep(f(*[cap.settled(x) for x in args], **kwargs))
        if name == "__new__":
            return cap.keep(f(*[args[0], *args[1:]], **kwargs))
        return unknown(cap, f, args, kwargs)
    if isinstance(owner, tuple):
        return f(*[cap.settled(x) for x in args], **{k: cap.settled(v) for k, v in kwargs.items()})
    if isinstance(owner, (np.ndarray, np.generic)):
        if not is_numpy_reader(name) or kwargs.get("out") is not None:
            cap.store(owner, f"`{name}` of an array", None)
            return f(*[cap.settled(x) for x in args], **kwargs)
        cap.note(owner)
        return cap.keep(f(*[cap.settled(x) for x in args], **{k: cap.settled(v) for k, v in kwargs.items()}))
    if isinstance(owner, (list, dict, set, collections.deque)):
        return _container(cap, f, owner, name, args, kwargs)
    if cap.is_fresh(owner) and type(owner) is not types.GeneratorType:
        return f(*[plain(x) for x in args], **{k: plain(v) for k, v in kwargs.items()})
    return unknown(cap, f, args, kwargs)


def _container(cap: Any, f: Any, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if name == "sort" and cap.is_fresh(owner):
        owner[:] = ordered(cap, owner, **kwargs)
        return None
    if cap.is_fresh(owner):
        if name in ("extend", "update", "__ior__", "intersection_update", "difference_update") and args:
            args = tuple([cap.mapping(x) if isinstance(x, dict) else cap.each(x) for x in args])
        elif name in ("insert", "pop", "rotate") and args:
            args = (plain(args[0]), *args[1:])
        found = f(*args, **kwargs)
        return cap.keep(found) if name in ("copy", "items", "keys", "values", "__iter__") else found
    if isinstance(owner, dict) and name == "get" and not kwargs:
        key = cap.settled(args[0])
        found = cap.load("entry", owner, key)
        return (args[1] if len(args) > 1 else None) if found is MISSING else found
    if isinstance(owner, dict) and name in ("items", "keys", "values"):
        found = f()
        cap.views[id(found)] = (found, owner, name)
        return found
    if name == "copy":
        return cap.keep(dict(cap.mapping(owner)) if type(owner) is dict else type(owner)(cap.each(owner)))
    if name in READERS:
        cap.note(owner)
        return f(*[cap.settled(x) for x in args], **kwargs)
    cap.store(owner, f"`{name}` of a {type(owner).__name__} that exists outside of it", args[-1] if args else None)
    return f(*[bare(x) for x in args], **kwargs)


def descriptor(cap: Any, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A method of a type written in C, with its object as the first argument or bound to it."""
    owner = getattr(f, "__self__", MISSING)
    if owner is MISSING and args:
        owner, args = args[0], args[1:]
    name = f.__name__
    if name == "__init__" and (cap.is_fresh(owner) or type(owner).__init__ is object.__init__):
        return f(*args, **kwargs) if hasattr(f, "__self__") else f(owner, *args, **kwargs)
    if name == "__getattribute__" and len(args) == 1:
        return standard(cap, owner, args[0], cap.is_fresh(owner))
    if name == "__setattr__" and len(args) == 2:
        return cap.put(owner, *args)
    if owner is not MISSING:
        bound = getattr(owner, name, None)
        if type(bound) is types.BuiltinFunctionType or (kind_is_plain(owner) and bound is not None):
            return method(cap, bound, owner, name, args, kwargs)
        return unknown(cap, f, args if hasattr(f, "__self__") else (owner, *args), kwargs)
    return unknown(cap, f, args, kwargs)


def kind_is_plain(owner: Any) -> bool:
    return type(owner) in ATOMS or type(owner) in CONTAINERS or isinstance(owner, (tuple, np.ndarray, np.generic))


def getter(cap: Any, f: Any, args: tuple[Any, ...]) -> Any:
    """An itemgetter, attrgetter or methodcaller."""
    _, parts = f.__reduce__()[:2]
    if isinstance(f, operator.itemgetter):
        found = tuple([cap.item(args[0], key) for key in parts])
        return found if len(found) > 1 else found[0]
    if isinstance(f, operator.attrgetter):
        values = []
        for path in parts:
            value = args[0]
            for name in path.split("."):
                value = attribute(cap, value, name)
            values.append(value)
        return tuple(values) if len(values) > 1 else values[0]
    reduced = f.__reduce__()
    if type(reduced[1]) is tuple and reduced[0] is type(f):
        return call(cap, attribute(cap, args[0], parts[0]), tuple(parts[1:]), {})
    return unknown(cap, f, args, {})


# ---- types


def counted(x: Any) -> Any:
    """An argument of a function written in C, which takes an int as it is, without a word to it."""
    return plain(x) if type(x) is Whole else x


def construct(cap: Any, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`cls(*args, **kwargs)`."""
    special = _TYPES.get(cls)
    if special is not None:
        return special(cap, *args, **kwargs)
    if cls in MADE_OF:
        return cap.keep(cls(*[cap.settled(x) for x in args], **{k: cap.settled(v) for k, v in kwargs.items()}))
    if cls in ITERATORS:
        return cap.keep(
            cls(
                *[
                    cap.each(x) if hasattr(type(x), "__iter__") or hasattr(type(x), "__getitem__") else counted(x)
                    for x in args
                ],
                **{k: counted(v) for k, v in kwargs.items()},
            )
        )
    if cls in COUNTERS:
        return cap.keep(cls(*[cap.each(x) if hasattr(type(x), "__iter__") else plain(x) for x in args], **kwargs))
    if cls in CONTAINERS:
        return cap.keep(cls(*[cap.mapping(x) if isinstance(x, dict) else x for x in args], **kwargs))
    if issubclass(cls, (enum.Enum, np.generic, BaseException)) and is_plain_class(cls):
        return cls(*[cap.settled(x) for x in args], **{k: cap.settled(v) for k, v in kwargs.items()})
    module = cls.__module__.split(".", 1)[0]
    if module == _PACKAGE:
        return cap.keep(cls(*[given(cap, x) for x in args], **{k: given(cap, v) for k, v in kwargs.items()}))
    if cls in (types.SimpleNamespace, functools.partial, types.MethodType, super, property, staticmethod, classmethod):
        return cap.keep(cls(*args, **kwargs))
    if is_own(cls) or type(cls).__call__ is not type.__call__:
        return unknown(cap, cls, args, kwargs)
    return _instance(cap, cls, args, kwargs)


def is_plain_class(cls: type) -> bool:
    return (
        issubclass(cls, enum.Enum) or is_own(cls) or (issubclass(cls, BaseException) and "__init__" not in cls.__dict__)
    )


def _instance(cap: Any, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    new, init = lookup(cap, cls, "__new__"), lookup(cap, cls, "__init__")
    new = new.__func__ if isinstance(new, staticmethod) else new
    if type(new) is types.FunctionType:
        if is_generated(new.__code__) or kind_of(new.__code__) != USER:
            made = new(cls, *args, **kwargs)
        else:
            made = function(cap, new, (cls, *args), kwargs)
    elif new is object.__new__ or getattr(new, "__self__", None) is object:
        made = object.__new__(cls)
    elif type(init) is not types.FunctionType or getattr(new, "__self__", None) in (list, dict, set):
        made = new(cls, *[plain(x) for x in args], **kwargs)
    else:
        return unknown(cap, cls, args, kwargs)
    cap.keep(made)
    if isinstance(made, cls):
        if type(init) is types.FunctionType:
            call(cap, init, (made, *args), kwargs)
        elif not isinstance(made, (tuple, int, float, str)):
            init(made, *args, **kwargs)
    return made


# ---- Python's own functions, with what they read noted


def ordered(cap: Any, values: Any, key: Any = None, reverse: Any = False) -> list[Any]:
    """`sorted`."""
    chosen = None if key is None else lambda x: call(cap, key, (x,), {})
    return cap.keep(sorted(cap.each(values), key=chosen, reverse=plain(reverse)))  # type: ignore[no-any-return]


def _extreme(f: Any) -> Any:
    def extreme(cap: Any, *args: Any, key: Any = None, **kwargs: Any) -> Any:
        chosen = None if key is None else lambda x: call(cap, key, (x,), {})
        values = list(cap.each(args[0])) if len(args) == 1 else list(args)
        numbers = key is None and not kwargs and values and all([type(x) in (float, int, Real, Whole) for x in values])
        if numbers and len(values) > 1 and any([type(x) in (Real, Whole) for x in values]):
            return compute(f, tuple(values))
        return f(values, key=chosen, **kwargs)

    return extreme


def _sum(cap: Any, values: Any, start: Any = 0) -> Any:
    found = list(cap.each(values))
    kinds = {type(x) for x in (*found, start)}
    if kinds <= {float, int, bool, Real, Whole} and kinds & {Real, Whole}:
        return compute(lambda first, *rest: sum(rest, first), (start, *found))
    return sum(found, start)


def _all(cap: Any, values: Any) -> bool:
    return all([bool(x) for x in [*_until(cap, values, False)]])


def _any(cap: Any, values: Any) -> bool:
    return any([bool(x) for x in [*_until(cap, values, True)]])


def _until(cap: Any, values: Any, stop: bool) -> list[bool]:
    found = []
    for x in cap.each(values):
        found.append(bool(cap.truth(x)))
        if found[-1] is stop:
            break
    return found


def _len(cap: Any, thing: Any) -> Any:
    if isinstance(thing, (list, dict, set, collections.deque)) and not cap.is_fresh(thing):
        raw = of_class(cap, thing, "__len__")
        if type(raw) is not types.FunctionType:
            return cap.load("length", thing)
    if id(thing) in cap.views:
        return cap.load("length", cap.views[id(thing)][1])
    raw = of_class(cap, thing, "__len__")
    if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
        return function(cap, raw, (thing,), {})
    return len(thing)


def _getattr(cap: Any, thing: Any, name: str, *default: Any) -> Any:
    if not default:
        return attribute(cap, thing, name)
    try:
        return attribute(cap, thing, name)
    except AttributeError:
        return default[0]


def _hasattr(cap: Any, thing: Any, name: str) -> bool:
    try:
        attribute(cap, thing, name)
    except AttributeError:
        return False
    return True


def _setattr(cap: Any, thing: Any, name: str, value: Any) -> None:
    cap.set_attribute(value, thing, name)


def _isinstance(cap: Any, thing: Any, kind: Any) -> bool:
    return isinstance(thing, kind)


def _map(cap: Any, f: Any, *values: Any) -> Any:
    return cap.keep(call(cap, f, given, {}) for given in zip(*[cap.each(v) for v in values], strict=False))


def _filter(cap: Any, f: Any, values: Any) -> Any:
    return cap.keep(x for x in cap.each(values) if cap.truth(x if f is None else call(cap, f, (x,), {})))


def _reduce(cap: Any, f: Any, values: Any, *first: Any) -> Any:
    return functools.reduce(lambda a, b: call(cap, f, (a, b), {}), cap.each(values), *first)


def _next(cap: Any, iterator: Any, *default: Any) -> Any:
    raw = of_class(cap, iterator, "__next__")
    if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
        try:
            return function(cap, raw, (iterator,), {})
        except StopIteration:
            if not default:
                raise
            return default[0]
    if not cap.is_fresh(iterator):
        return unknown(cap, next, (iterator, *default), {})
    return next(iterator, *default)


def _iter(cap: Any, values: Any, *sentinel: Any) -> Any:
    return unknown(cap, iter, (values, *sentinel), {}) if sentinel else cap.keep(iter(cap.each(values)))


def _type(cap: Any, *args: Any, **kwargs: Any) -> Any:
    if len(args) != 1:
        return unknown(cap, type, args, kwargs)
    kind = type(args[0])
    if kind is Real or kind is Whole:
        return float if kind is Real else int
    return kind if kind in ATOMS or cap.is_fresh(args[0]) or is_own(kind) else cap.watch.load("type", args[0])


def _float(cap: Any, *args: Any) -> Any:
    if len(args) == 1 and type(args[0]) in (Real, Whole):
        return compute(float, args)
    return _converted(cap, float, "__float__", args)


def _int(cap: Any, *args: Any) -> Any:
    if len(args) == 1 and type(args[0]) in (Real, Whole):
        return compute(int, args)
    return _converted(cap, int, "__int__", args)


def _str(cap: Any, *args: Any) -> Any:
    return _converted(cap, str, "__str__", args)


def _converted(cap: Any, kind: Any, name: str, args: tuple[Any, ...]) -> Any:
    if args:
        raw = of_class(cap, args[0], name)
        if type(raw) is types.FunctionType and kind_of(raw.__code__) == USER:
            return kind(function(cap, raw, args[:1], {}))
    return kind(*[cap.settled(x) for x in args])


def _list(cap: Any, *args: Any) -> Any:
    return cap.keep(list(*[cap.each(x) for x in args]))


def _tuple(cap: Any, *args: Any) -> Any:
    return tuple(*[cap.each(x) for x in args])


def _set(cap: Any, *args: Any) -> Any:
    return cap.keep(set(*[cap.each(x) for x in args]))


def _frozenset(cap: Any, *args: Any) -> Any:
    return frozenset(*[cap.each(x) for x in args])


def _dict(cap: Any, *args: Any, **kwargs: Any) -> Any:
    return cap.keep(
        dict(
            *[cap.mapping(x) if isinstance(x, dict) else [tuple(cap.each(y)) for y in cap.each(x)] for x in args],
            **kwargs,
        )
    )


def _range(cap: Any, *args: Any) -> Any:
    return range(*[plain(x) for x in args])


def _bool(cap: Any, *args: Any) -> Any:
    return bool(cap.truth(args[0])) if args else False


def _print(cap: Any, *args: Any, **kwargs: Any) -> None:
    if not any([isinstance(x, tape.TENSOR) for x in args]):
        unknown(cap, print, args, kwargs)
    else:
        print(*args, **kwargs)  # which refuses to show a value that is not there yet


_SPECIAL: dict[Any, Any] = {
    print: _print,
    sorted: ordered, max: _extreme(max), min: _extreme(min), sum: _sum, all: _all, any: _any, len: _len, getattr: _getattr, hasattr: _hasattr,
    setattr: _setattr, isinstance: _isinstance, functools.reduce: _reduce, next: _next, iter: _iter,
}  # fmt: skip
_TYPES: dict[Any, Any] = {
    map: _map, filter: _filter, type: _type, float: _float, int: _int, str: _str, list: _list, tuple: _tuple, set: _set, frozenset: _frozenset,
    dict: _dict, range: _range, bool: _bool,
}  # fmt: skip
