"""What a captured function returned, as a template that later calls fill in.

Tensors are results made anew (`Made`), tensors that exist (`Found`), or other handles on the memory of one of both (`Seen`); numbers
that depend on arguments or state are computed again (`Computed`). Containers made by the call are made again; others are returned.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from . import recording as tape
from .functions.views import place, strides_of
from .recording import Signature, Trace
from .tensor import Tensor
from .watching.attributes import own_dict
from .watching.numbers import Expression, Real, Whole

if TYPE_CHECKING:
    from .capture import Capture

_ATOMS = (int, float, bool, str, bytes, complex, type(None), np.generic, type, tape.dtypes.dtype)


class Unanswerable(Exception):
    """A result that can't be made anew: what it is."""


class Made:
    """A result made anew by every call, by its number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Found:
    """A result that exists already: an argument, or a tensor the function knows."""

    __slots__ = ("kind", "owner")

    def __init__(self, kind: str, owner: Any) -> None:
        self.kind = kind
        self.owner = owner


class Before:
    """The gradient that a leaf has when the call begins."""

    __slots__ = ("first", "leaf")

    def __init__(self, leaf: Tensor, first: Tensor) -> None:
        self.leaf = leaf
        self.first: Tensor | None = first  # in the first call, which has replaced it already when its answer is built

    def of(self) -> Tensor:
        """What it is in this call."""
        return self.leaf._grad if self.first is None else self.first  # type: ignore[return-value]


class Seen:
    """Another handle on the memory of an argument, of a tensor that the function knows, or of a result."""

    __slots__ = ("base", "detached", "meta", "number", "offset", "related", "strides", "whole")

    def __init__(
        self, base: Made | Found | Before, t: Tensor, meta: Signature, offset: int, number: int | None, related: bool
    ) -> None:
        self.base = base
        self.related = related  # whether it is a view of the base, and not of another handle on the same memory
        self.meta = meta
        self.offset = offset
        self.strides = strides_of(t)
        self.whole = t._whole
        self.detached = t._detached
        self.number = number  # of the result that has its history, if it has one

    def of(self, base: Tensor, made: list[Tensor]) -> Tensor:
        """The handle for this call."""
        t = tape.blank(tape.STALE, self.meta)
        t._detached = self.detached
        if self.related:
            t._base = base if base._base is None else base._base
        if self.number is not None:
            t._origin = made[self.number]._origin
        return place(t, base, self.strides, self.offset, self.whole)


class Computed:
    """A number that is computed again, by its place among those."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


class Remade:
    """An object made by the call: its class and what its attributes are."""

    __slots__ = ("attributes", "kind")

    def __init__(self, kind: type, attributes: dict[str, Any]) -> None:
        self.kind = kind
        self.attributes = attributes


class Copied:
    """An array or a set made by the call."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Template:
    """Makes the template of one answer; collects the tensors that the call must hand over."""

    def __init__(self, tr: Trace, capture: Capture, arguments: list[Any]) -> None:
        self.tr = tr
        self.capture = capture
        self.arguments = arguments
        self.wanted: list[Tensor] = []  # results, in the order of their numbers
        self.computed: list[Expression] = []
        self.views: list[tuple[Tensor, Made, int]] = []  # handles that the first call puts on a result's memory
        self.before: list[Before] = []
        self.repeated = False  # whether something that is made anew appears twice
        self._known: dict[int, Any] = {}
        self._bases: dict[Any, Made] = {}  # storage -> the result that is all of it
        self._places: dict[int, int] = {}
        self._here = capture.found()

    def of(self, value: Any) -> Any:
        """The template of a value."""
        found = self._known.get(id(value))
        if found is not None:
            self.repeated = self.repeated or type(found) in _MADE_ANEW
            return found
        if isinstance(value, Tensor):
            found = self._known[id(value)] = self._tensor(value)
            return found
        found = self._thing(value)
        if type(found) in _MADE_ANEW:
            self._known[id(value)] = found
        return found

    def _thing(self, value: Any) -> Any:
        """The template of what is no tensor."""
        kind = type(value)
        if kind is Real or kind is Whole:
            place = self._places.setdefault(id(value.expression), len(self.computed))
            if place == len(self.computed):
                self.computed.append(value.expression)
            return Computed(place)
        capture = self.capture
        among = id(value) in capture.containers
        if isinstance(value, tuple):
            values = [self.of(capture.items.get((id(value), k), v) if among else v) for k, v in enumerate(value)]
            return (
                kind(*values) if hasattr(value, "_fields") else kind(values) if kind is tuple else self._refuse(value)
            )
        if isinstance(value, (list, dict)):
            if among:
                raise Unanswerable(f"a {kind.__name__} that is one of its arguments is returned")
            if not capture.is_fresh(value):
                return value
            if isinstance(value, dict) and kind.__init__ is dict.__init__:
                return Fresh(kind, {k: self.of(v) for k, v in value.items()})
            return Fresh(kind, [self.of(v) for v in value]) if kind is list else self._refuse(value)
        if isinstance(value, _ATOMS) or (not capture.is_fresh(value) and not callable(value)):
            return value
        if isinstance(value, np.ndarray) or kind in (set, bytearray):
            if kind is set and not all([isinstance(x, _ATOMS) for x in value]):
                self._refuse(value)
            return Copied(value)
        own = own_dict(value)
        if own is None or kind.__basicsize__ > _Plain.__basicsize__ or not kind.__flags__ & (1 << 9):
            return self._refuse(value)
        return Remade(kind, {k: self.of(v) for k, v in own.items()})

    def _refuse(self, value: Any) -> Any:
        raise Unanswerable(f"it returns an object of type {type(value).__name__}")

    def gradient(self, g: Tensor, others: list[Tensor]) -> Any:
        """The template of a gradient that the call leaves; None for a result that is the gradient and nothing else."""
        storage = g._storage
        alone = not any([x is g or (storage is not None and x._storage is storage) for x in others])
        new = storage is None or (storage.array is None and storage.at[0] == self.tr.epoch and g._whole)
        handed = id(g) in self._known or storage in self._bases
        return None if alone and new and not handed and type(g) is Tensor else self.of(g)

    # ---- tensors

    def want(self, t: Tensor) -> Made:
        """A tensor that every call makes."""
        self.wanted.append(t)
        return Made(len(self.wanted) - 1)

    def _tensor(self, t: Tensor) -> Any:
        tr, capture = self.tr, self.capture
        where = capture.by_tensor.get(id(t))
        if where is not None:
            return Found(*where)
        storage = t._storage
        elsewhere = tape.epoch_of(t) if storage is None or storage.array is not None else storage.at[0]
        if elsewhere != tr.epoch and tape.owner_of(elsewhere) is not None:
            tape.materialize(t)  # it is another thread's, and pending there
        if id(t) in capture.given and _exists(t):
            return self._before(t)
        if id(t) in self._here and _exists(t):
            return Found("tensor", t)
        if type(t) is not Tensor or (t.requires_grad and t.is_leaf):
            raise Unanswerable(f"it returns a leaf that it makes (a {type(t).__name__})")
        storage = t._storage
        if storage is None or (t._at[0] == tr.epoch and t._whole and storage.aliases is None):
            return self.want(t)
        if storage.array is not None:
            return self._handle(t)
        base = self._bases.get(storage)
        if base is None and storage.at[0] == tr.epoch:
            whole = self._all_of(t)
            base = self._bases[storage] = self.want(whole)
            if whole is t:
                return base
        if base is None:
            return self.want(t)
        number = self.want(t).number if t._meta.requires_grad else None
        self.views.append((t, base, t._offset))
        return Seen(base, t, _signature(t), t._offset, number, t._base is not None and not t._base._detached)

    def _before(self, g: Tensor) -> Before:
        found = Before(self.capture.given[id(g)][1], g)
        self.before.append(found)
        return found

    def _all_of(self, t: Tensor) -> Tensor:
        """A tensor that is all of a pending storage: one of the handles, or one for the purpose."""
        storage = t._storage
        whole = [x for r in (lambda: t, *(storage.aliases or ())) if (x := r()) is not None and x._whole]
        for other in whole:
            if other._at == storage.at and not other._detached:
                return other  # type: ignore[no-any-return]
        for other in whole:  # one that has to find its place again, after writes to parts of it
            if other._at[0] != self.tr.epoch and not other._meta.requires_grad:
                return other  # type: ignore[no-any-return]
        return tape.blank(storage.at, self.tr.entries()[storage.at[1]])  # type: ignore[no-any-return]

    def _handle(self, t: Tensor) -> Any:
        """A tensor on memory that exists."""
        capture, storage = self.capture, t._storage
        owner = capture.by_storage.get(storage)
        base: Any = None
        offset = 0
        if owner is not None and owner[0] == "argument":
            base, offset = Found("argument", owner[1]), owner[2]
            root = self.arguments[owner[1]]
        else:
            found = next((x for x in self._here.values() if x._storage is storage), None)
            given = next((g for g, _ in capture.given.values() if g._storage is storage), None)
            if given is not None:
                base, offset, root = self._before(given), given._offset, given
            elif found is not None:
                base, offset, root = Found("tensor", found), found._offset, found
        if base is None:
            return self.want(t) if t._at[0] == self.tr.epoch and type(t._meta) is not Signature else Found("tensor", t)
        number = self.want(t).number if t._meta.requires_grad else None
        related = t._base is not None and (t._base is root or t._base is root._base)
        return Seen(base, t, _signature(t), t._offset - offset, number, related)


class _Plain:
    """An object with a dict and nothing else."""


def _exists(t: Tensor) -> bool:
    """Whether a tensor has memory, and no history on this trace."""
    return (
        t._storage is not None
        and t._storage.array is not None
        and not (type(t._meta) is not Signature and t._meta.requires_grad)
    )


def _signature(t: Tensor) -> Signature:
    return t._meta if type(t._meta) is Signature else t._meta.signature  # type: ignore[no-any-return]


def rebuild(value: Any, made: list[Tensor], arguments: list[Any], numbers: tuple[Any, ...]) -> Any:
    """The answer of one call."""
    return Rebuilding(made, arguments, numbers).of(value)


class Rebuilding:
    """Builds what one call hands over. What appears twice is one object."""

    __slots__ = ("arguments", "known", "made", "numbers")

    def __init__(self, made: list[Tensor], arguments: list[Any], numbers: tuple[Any, ...]) -> None:
        self.made, self.arguments, self.numbers = made, arguments, numbers
        self.known: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        kind = type(value)
        if kind is Made:
            return self.made[value.number]
        if kind is Found:
            return self.arguments[value.owner] if value.kind == "argument" else value.owner
        if kind is Before:
            return value.of()
        if kind is Computed:
            return self.numbers[value.place]
        if kind in _MADE_ANEW:
            thing = self.known.get(id(value))
            if thing is None:
                thing = self.known[id(value)] = self._anew(kind, value)
            return thing
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return kind(*[self.of(v) for v in value])
        if kind is tuple:
            return tuple([self.of(v) for v in value])
        return value

    def _anew(self, kind: type, value: Any) -> Any:
        if kind is Seen:
            return value.of(self.of(value.base), self.made)
        if kind is Copied:
            return copy.copy(value.value)
        if kind is Remade:
            thing = object.__new__(value.kind)
            thing.__dict__.update({k: self.of(v) for k, v in value.attributes.items()})
            return thing
        if type(value.values) is dict:
            return value.kind({k: self.of(v) for k, v in value.values.items()})
        return value.kind([self.of(v) for v in value.values])


class Fresh:
    """A list or dict made by the call."""

    __slots__ = ("kind", "values")

    def __init__(self, kind: type, values: Any) -> None:
        self.kind = kind
        self.values = values


_MADE_ANEW = (Seen, Remade, Copied, Fresh)
