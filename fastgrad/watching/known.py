"""What is known of code that is not the user's: whose it is, and which of its functions depend on their arguments only."""

from __future__ import annotations

import builtins
import cmath
import collections
import fractions
import functools
import itertools
import math
import operator
import os
import sysconfig
import types
from typing import Any

import numpy as np

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LAYERS = os.path.join(_HERE, "nn") + os.sep
_LAYER_CODE = {"forward", "__call__", "call_with_hooks", "_before", "_after"}
_STANDARD = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_SITES = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})
_NUMPY = os.path.dirname(np.__file__) + os.sep
_MADE = ("<frozen", "<fastgrad", "<__array")

LIBRARY, LAYER, FOREIGN, NUMPY, USER = "library", "layer", "foreign", "numpy", "user"
_kinds: dict[tuple[str, bool], str] = {}


def kind_of(code: types.CodeType) -> str:
    """Whose code it is."""
    name, layer = code.co_filename, code.co_name in _LAYER_CODE
    found = _kinds.get((name, layer))
    if found is None:
        if len(_kinds) > 10_000:
            _kinds.clear()
        found = _kinds[name, layer] = _kind(name, layer)
    return found


def takes_numbers(code: types.CodeType) -> bool:
    """Whether a function of the library's takes numbers that differ from call to call: operations do, layers do not."""
    name = code.co_filename[len(_HERE) :]
    return name.startswith(("functions", "tensor", "protocols", "dispatch", "methods"))


def _kind(name: str, layer: bool) -> str:
    if name.startswith(_HERE):
        return LAYER if layer and name.startswith(_LAYERS) else LIBRARY
    if name.startswith(_NUMPY):
        return NUMPY
    if name.startswith(_MADE) or (name.startswith(_STANDARD) and not name.startswith(_SITES)):
        return FOREIGN
    return USER


def is_generated(code: types.CodeType) -> bool:
    """Whether a function was written by `dataclass` or `namedtuple`: it does nothing but store or compare."""
    special = code.co_name.startswith("__") or code.co_name == "<lambda>"
    return code.co_filename.startswith("<string>") and special


def _functions(module: types.ModuleType, *without: str) -> set[Any]:
    kinds = (types.BuiltinFunctionType, np.ufunc)
    return {v for k, v in vars(module).items() if k not in without and k[:1] != "_" and isinstance(v, kinds)}


# Functions of numbers: with a tracked number among their arguments, their result is tracked
NUMERIC: set[Any] = {abs, round, divmod, pow, *_functions(math, "dist", "fsum", "prod", "sumprod")} | {
    getattr(operator, n)
    for n in (
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "neg",
        "pos",
        "abs",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
    )
}
# Functions of their arguments and what is in them
PURE: set[Any] = {
    chr, ord, bin, hex, oct, ascii, callable, issubclass, math.dist, math.fsum, math.prod, format, repr,
    *_functions(operator, "setitem", "delitem", "call"), *_functions(cmath),
} - NUMERIC  # fmt: skip
PURE -= {
    v
    for k, v in vars(operator).items()
    if k[:1] == "i" and k not in ("inv", "invert", "is_", "is_not", "index", "indexOf")
}

# Types that are made of their arguments
MADE_OF: set[Any] = {
    bool, complex, str, bytes, slice, object, range, fractions.Fraction, collections.OrderedDict, collections.deque,
    collections.Counter, bytearray,
}  # fmt: skip
# Iterators over what they are given
ITERATORS: set[Any] = {zip, enumerate, reversed} | {
    v for v in vars(itertools).values() if isinstance(v, type) and v.__name__ not in ("count", "cycle", "tee")
}
COUNTERS: set[Any] = {itertools.count, itertools.cycle}

ATOMS: set[Any] = {
    int, float, bool, str, bytes, complex, type(None), range, slice, types.BuiltinFunctionType, type(Ellipsis), type(NotImplemented),
    types.CodeType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType,
}  # fmt: skip
CONTAINERS: set[Any] = {
    list,
    dict,
    set,
    collections.deque,
    collections.OrderedDict,
    collections.defaultdict,
    collections.Counter,
}
READERS: set[str] = {
    "index", "count", "copy", "get", "items", "keys", "values", "union", "intersection", "difference", "symmetric_difference", "issubset",
    "issuperset", "isdisjoint", "most_common", "elements", "total", "__len__", "__contains__", "__getitem__", "__iter__", "__eq__", "__ne__",
    "__lt__", "__le__", "__gt__", "__ge__", "__add__", "__mul__", "__rmul__", "__reversed__", "__or__", "__and__", "__sub__", "__xor__",
}  # fmt: skip

_NUMPY_WRITES = {
    "fill",
    "sort",
    "put",
    "resize",
    "itemset",
    "setflags",
    "partition",
    "setfield",
    "byteswap",
    "tofile",
    "dump",
}
NUMPY_OUTSIDE = {
    "load", "save", "savez", "savez_compressed", "loadtxt", "savetxt", "genfromtxt", "fromfile", "memmap", "fromregex", "seterr", "seterrcall",
    "setbufsize", "set_printoptions", "copyto", "put", "putmask", "place", "fill_diagonal", "put_along_axis", "shuffle", "empty", "empty_like",
    "nditer", "frompyfunc", "vectorize", "apply_along_axis", "apply_over_axes", "piecewise", "fromiter", "from_dlpack", "frombuffer",
}  # fmt: skip


def is_numpy_pure(function: Any) -> bool:
    """Whether a function of NumPy depends on its arguments only, and changes nothing."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "")
    if isinstance(function, np.ufunc):
        return True
    parts = module.split(".")
    return parts[0] == "numpy" and "random" not in parts and name not in NUMPY_OUTSIDE


def is_numpy_reader(name: str) -> bool:
    """Whether a method of an array leaves it as it is."""
    return name not in _NUMPY_WRITES


def is_builtin_name(name: str, value: Any) -> bool:
    """Whether a global is Python's own."""
    return getattr(builtins, name, None) is value


PARTIAL = functools.partial
