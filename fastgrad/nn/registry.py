"""Registry: the attributes of a Module, and which of them are parameters, buffers and submodules.

There are three tables, as in PyTorch: `_parameters`, `_buffers` and `_modules`, name -> object, in order of
registration. The same objects stand in the instance's `__dict__`, so that `self.weight` is a plain attribute access and
costs no call of `__getattr__`; a `Table` keeps both the same, whoever writes to it. A pickle or copy holds the tables
alone.

`structure_version[0]` counts changes of any module: whoever replays a recorded step looks at it to notice that a
parameter, buffer, submodule, mode, hook or other attribute is not the one it recorded with (floats it reads anew).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..structure import Counted, structure_version
from ..tensor import Tensor
from .parameter import Parameter

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Registry", "Table", "structure_version", "type_name"]

_ABSENT = object()


class Table(dict[str, Any]):
    """What a module has registered, by name; each write is one to the module's attributes, too."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Registry, items: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._owner = weakref.ref(owner)  # weak: a module must not wait for the garbage collector
        self.update(items or {})

    def __setitem__(self, name: str, value: Any) -> None:
        if (
            self.get(name, _ABSENT) is value
            and (own := self._owner()) is not None
            and own.__dict__.get(name, _ABSENT) is value
        ):
            return  # as in `self.count += 1` of a buffer
        super().__setitem__(name, value)
        if (owner := self._owner()) is not None:
            owner.__dict__[name] = value
        structure_version[0] += 1

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        if (owner := self._owner()) is not None:
            owner.__dict__.pop(name, None)
        structure_version[0] += 1

    def pop(self, name: str, *default: Any) -> Any:
        if name not in self and default:
            return default[0]
        value = self[name]
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        name = next(reversed(self))
        return name, self.pop(name)

    def clear(self) -> None:
        for name in list(self):
            del self[name]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (dict(self),)


_TABLES = ("_parameters", "_buffers", "_modules")


class Registry(Counted):
    """Base class of Module: attribute access with registration; all else is Module's."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]
    _non_persistent_buffers_set: set[str]

    def __init__(self) -> None:
        self.__dict__.update({name: Table(self) for name in _TABLES}, _non_persistent_buffers_set=set())

    def _table_of(self, name: str) -> dict[str, Any] | None:
        """The table in which `name` is registered."""
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                return table
        return None

    def _move_to(self, table: dict[str, Any], name: str) -> None:
        """Forget `name` unless it is in `table` already, so that it can be registered there."""
        old = self._table_of(name)
        if old is not table:
            if old is not None:
                del old[name]
            self.__dict__.pop(name, None)
            self._non_persistent_buffers_set.discard(name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in own:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._move_to(self._parameters, name)
            self.register_parameter(name, value)
        elif isinstance(value, Registry):
            if "_modules" not in own:
                raise AttributeError("cannot assign module before Module.__init__() call")
            if name in self._parameters:
                self._refuse(value, "parameter", name, "fastgrad.nn.Parameter")
            self._move_to(self._modules, name)
            self._modules[name] = value
        elif name in _TABLES:
            own[name] = Table(self, value)
        elif "_parameters" in own and (table := self._table_of(name)) is not None:
            if value is not None:
                if table is self._parameters:
                    self._refuse(value, "parameter", name, "fastgrad.nn.Parameter")
                if table is self._modules:
                    self._refuse(value, "child module", name, "fastgrad.nn.Module")
                if not isinstance(value, Tensor):
                    self._refuse(value, "buffer", name, "fastgrad.Tensor")
            table[name] = value
        else:
            before = own.get(name, _ABSENT)
            if before is not value and not (
                type(before) is float and type(value) is float
            ):  # which `compile` reads anew
                structure_version[0] += 1
            super().__setattr__(name, value)

    @staticmethod
    def _refuse(value: Any, kind: str, name: str, expected: str) -> None:
        raise TypeError(f"cannot assign '{type_name(value)}' as {kind} '{name}' ({expected} or None expected)")

    def __delattr__(self, name: str) -> None:
        table = self._table_of(name)
        if table is not None:
            del table[name]
            self._non_persistent_buffers_set.discard(name)
        else:
            structure_version[0] += 1
            super().__delattr__(name)

    if not TYPE_CHECKING:  # a type checker that sees __getattr__ believes every attribute

        def __getattr__(self, name: str) -> Any:
            """What is registered is found before this is called; classes of the user's own call it all the same."""
            for table in _TABLES:
                if name in (found := self.__dict__.get(table, ())):
                    return found[name]
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted(name for name in super().__dir__() if not name[0].isdigit())

    def __getstate__(self) -> dict[str, Any]:
        names = {name for table in _TABLES for name in self.__dict__.get(table, ())}
        state = {name: value for name, value in self.__dict__.items() if name not in names}
        return {name: dict(value) if isinstance(value, Table) else value for name, value in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for table in _TABLES:
            if table in state:
                self.__dict__[table] = Table(self, state[table])

    def __copy__(self) -> Self:
        copied = type(self).__new__(type(self))
        own = {n: v.copy() if type(v) in (dict, set) and n[0] == "_" else v for n, v in self.__getstate__().items()}
        Registry.__setstate__(copied, own)
        return copied

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register `param`, or a place for one with None, as attribute `name` (a string without a dot)."""
        self._check_name("_parameters", "parameter", name)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"cannot assign '{type_name(param)}' object to parameter '{name}' "
                    "(fastgrad.nn.Parameter or None required)"
                )
            if param.grad_fn is not None:
                raise ValueError(
                    f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly."
                    f" To express '{name}' as a function of another Tensor, compute the value in the forward() method."
                )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a Tensor that is state but no parameter, as attribute `name`; in the state dict if `persistent`."""
        self._check_name("_buffers", "buffer", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type_name(tensor)}' object to buffer '{name}' (fastgrad Tensor or None required)"
            )
        self._buffers[name] = tensor
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Any) -> None:
        """Register `module` as child `name` (a string without a dot)."""
        if not isinstance(module, Registry) and module is not None:
            raise TypeError(f"{type_name(module)} is not a Module subclass")
        self._check_name("_modules", "module", name)
        self._modules[name] = module

    def register_module(self, name: str, module: Any) -> None:
        """The same as `add_module`."""
        self.add_module(name, module)

    def _check_name(self, table: str, kind: str, name: str) -> None:
        if table not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain "."' + (f", got: {name}" if kind == "module" else ""))
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in self.__dict__[table] and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")


def type_name(value: Any) -> str:
    """The type as PyTorch's messages write it: `fastgrad.FloatTensor`, `int`, `package.module.Class`."""
    if type(value) is Tensor:
        return value.type()
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
