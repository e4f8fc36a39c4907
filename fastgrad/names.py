"""What a function's names are bound to: rebinding one of them must end the replays of a compiled function.

The function's bytecode tells which globals, closure cells, attributes of plain objects and constant items of containers it
reads; each is a binding (container, key, value). Functions of the user's that it calls are read in the same way. Modules of
`nn` are not looked into: they count their changes themselves.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
from typing import Any

_PACKAGE = __name__.split(".", 1)[0]
_MISSING = object()


class Names:
    """The bindings that a function depends on."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.bindings: list[tuple[Any, Any, Any]] = []  # (dict, list, tuple or cell; key; value)
        self._taken = False

    def take(self) -> None:
        """Note what the names are bound to now."""
        self.bindings = []
        self._taken = True
        seen: set[int] = set()
        found: set[tuple[int, Any]] = set()
        stack = [self._function]
        while stack:
            function = stack.pop()
            owner = getattr(function, "__self__", None)
            function = getattr(function, "__func__", function)
            if not isinstance(function, types.FunctionType) or id(function) in seen or _is_own(function):
                continue
            seen.add(id(function))
            for container, key, value in _reads(function, owner):
                if (id(container), key) not in found:
                    found.add((id(container), key))
                    self.bindings.append((container, key, value))
                    stack.append(value)

    def unchanged(self) -> bool:
        """Whether every name is bound to what it was bound to."""
        return self._taken and all([_present(container, key) is value for container, key, value in self.bindings])


def _is_own(function: types.FunctionType) -> bool:
    return (function.__module__ or "").split(".", 1)[0] == _PACKAGE


def _present(container: Any, key: Any) -> Any:
    if isinstance(container, types.CellType):
        try:
            return container.cell_contents
        except ValueError:
            return _MISSING
    if isinstance(container, dict):
        return container.get(key, _MISSING)
    return container[key] if -len(container) <= key < len(container) else _MISSING


def _reads(function: types.FunctionType, owner: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The bindings that a function's code reads, chains of attributes and constant items included."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        self_name = (
            code.co_varnames[0] if owner is not None and code.co_argcount and code is function.__code__ else None
        )
        value, item = _MISSING, _MISSING
        for instruction in dis.get_instructions(code):
            name, argument = instruction.opname, instruction.argval
            step: tuple[Any, Any] | None = None
            if name in ("LOAD_GLOBAL", "LOAD_NAME"):
                step = (function.__globals__, argument)
            elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF") and argument in cells:
                step = (cells[argument], None)
            elif name.startswith("LOAD_FAST") and argument == self_name:
                value = owner
                continue
            elif name in ("LOAD_ATTR", "LOAD_METHOD") and value is not _MISSING:
                attributes = _attributes(value)
                if attributes is None or argument not in attributes:
                    value = getattr(value, argument, _MISSING) if isinstance(value, types.ModuleType) else _MISSING
                    continue
                step = (attributes, argument)
            elif name == "LOAD_CONST" and isinstance(value, (dict, list, tuple)):
                item = argument
                continue
            elif name in ("BINARY_SUBSCR", "BINARY_OP") and item is not _MISSING and _has(value, item):
                step = (value, item)
            elif name in ("PRECALL", "PUSH_NULL", "COPY_FREE_VARS", "CACHE", "EXTENDED_ARG", "RESUME"):
                continue
            item = _MISSING
            value = _MISSING if step is None else _present(*step)
            known = value is not _MISSING or (step is not None and isinstance(step[0], types.CellType))
            if step is not None and known and not isinstance(value, types.ModuleType):
                yield (*step, value)


def _has(container: Any, key: Any) -> bool:
    if isinstance(container, dict):
        return key in container
    return isinstance(container, (list, tuple)) and isinstance(key, int) and -len(container) <= key < len(container)


def _attributes(value: Any) -> dict[str, Any] | None:
    """The attributes of a plain object; None for modules, tensors and whatever counts its own changes."""
    if isinstance(value, types.ModuleType) or type(value).__module__.split(".", 1)[0] == _PACKAGE:
        return None
    from .nn.module import Module

    found = getattr(value, "__dict__", None)
    return found if isinstance(found, dict) and not isinstance(value, (type, Module)) else None
