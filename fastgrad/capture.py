"""A capture: what is noted of a call while it is recorded, so that it can be replayed.

Leaves note where their memory is found next time, numbers what they are read from, branches on values become guards. What the
function reads of Python's state is noted by `watching.Recorder`, of which a capture is one.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

from . import recording as tape
from .execute import compute
from .recording import Signature, Storage, local
from .structure import Counted
from .tensor import Tensor
from .watching.hooks import Recorder
from .watching.numbers import Argument, Expression, leaf, plain


class CompileError(RuntimeError):
    """A compiled function does something that cannot be replayed."""


class Escape(CompileError):
    """A tensor made by the call is kept outside of it."""


_TABLES = ("_parameters", "_buffers", "_modules")  # of a module


class Capture(Recorder):
    """What is noted while a call is recorded."""

    def __init__(self, arguments: list[Any], name: str, varying: dict[tuple[Any, ...], Any] | None = None) -> None:
        super().__init__(varying)
        self.called = name
        self.disturbed = False  # another thread has taken memory from the trace meanwhile (`threads.let_go`)
        self.hooked: set[int] = set()  # hooks of leaves that the call has registered or removed
        self.seeded: dict[Any, tuple[int, int]] = {}  # generators that the call has given a seed
        self.by_storage: dict[Storage, tuple[Any, ...]] = {}
        self.by_tensor: dict[int, tuple[Any, ...]] = {}
        for k, t in enumerate(arguments):
            if isinstance(t, Tensor):
                self.by_tensor[id(t)] = ("argument", k)
                self.by_storage.setdefault(t._storage, ("argument", k, t._offset))
        # tensors the function may know that lie in an argument's memory
        others = [r() for storage in self.by_storage for r in storage.aliases or ()]
        self.elsewhere = {id(t): t for t in others if t is not None and id(t) not in self.by_tensor}
        self.places: list[tuple[Any, ...]] = []  # for each address: where its tensor is found, and the bytes beyond it
        self.fixed: set[Storage] = set()  # memory in which a view's offset has become part of the program
        self.sources: dict[int, Any] = {}  # number -> where it is read again
        self.guards: list[tuple[Tensor, bool]] = []
        self.gradients: dict[int, Tensor] = {}  # leaves whose gradient the call has replaced
        self.expected: list[tuple[Tensor, bool]] = []  # leaves, and whether they had a gradient before the call
        self.switches: list[
            tuple[dict[str, Any], str, bool]
        ] = []  # an optimizer's options whose truth decides what is recorded
        self.held: list[tuple[Any, Any, Any]] = []  # dicts and lists of an optimizer, keys, and what stood there
        self._held = 0  # how many of those `found` has seen
        self.given: dict[int, tuple[Tensor, Tensor]] = {}  # a gradient's identity -> the gradient and its leaf
        self.present: list[tuple[Tensor, Tensor]] = []  # leaves, and the gradient that they had before the call

    def _owner(self, t: Tensor, storage: Storage) -> tuple[Any, ...]:
        if id(t) in self.elsewhere:
            return ("tensor", t, t._offset)
        found = self.by_storage.get(storage)
        if found is None or (found[0] == "tensor" and found[1] is not t and id(t) in self.found()):
            source = self.source(t, storage)
            given = self.given.get(id(source))
            owner = ("gradient", given[1]) if given is not None else ("tensor", source)
            found = (*owner, source._offset)
            self.by_storage.setdefault(storage, found)
        return found

    def found(self) -> dict[int, Tensor]:
        """The tensors that the call has found in Python's state, by identity."""
        met = self.watch.tensors
        for _, _, value in self.held[self._held :]:
            if isinstance(value, Tensor):
                met[id(value)] = value
        self._held = len(self.held)
        return met

    def hold_items(self, things: Any) -> None:
        """A list of an optimizer's has to have the same items, and as many, in every replay."""
        if type(things) is list:
            plain(self.watch.load("length", things))
            self.held += [(things, i, x) for i, x in enumerate(things)]

    def source(self, t: Tensor, storage: Storage) -> Tensor:
        """The tensor by which the call has come to memory that exists: the handle itself, or what it was made of."""
        met = self.found()
        if id(t) in met or id(t) in self.given:
            return t
        base = t._base
        if base is not None and base._storage is storage and (id(base) in met or id(base) in self.given):
            return base
        others = [*[g for g, _ in self.given.values()], *met.values()]
        return next((x for x in others if x._storage is storage), t)

    def leaf(self, t: Tensor, storage: Storage) -> None:
        """A whole piece of memory enters."""
        kind, owner, _ = self._owner(t, storage)
        self.places.append((kind, owner, None))

    def alias(self, t: Tensor, storage: Storage) -> None:
        """A view enters at an address of its own."""
        kind, owner, offset = self._owner(t, storage)
        if id(t) in self.by_tensor:
            self.places.append((*self.by_tensor[id(t)], 0))
        else:
            self.places.append((kind, owner, (t._offset - offset) * t._meta.dtype.itemsize))

    def scalar(self, number: int, source: Any) -> None:
        """A number enters."""
        if source is None or any([source[0] is g for g in self.seeded]):
            return
        if source[0] == "number" and isinstance(source[1].operands[0], Argument) and type(source[1].value) is float:
            source = ("argument", source[1].operands[0].k)
        self.sources[number] = source

    def constant(self, t: Tensor) -> Tensor:
        """A tensor made from data inside the call: every call gets a copy of its own."""
        if t._meta.requires_grad:
            self.refuse("making a leaf that requires gradients")
        return t.clone()

    def guard(self, t: Tensor) -> bool:
        """The truth of a tensor, which a replay must find again."""
        tr = local.trace
        slot = t._at[1] if t._at[0] == tr.epoch else tape.enter(tr, t)
        outcome = bool(compute(tr, [slot])[0].array.item())
        self.guards.append((tape.result(tr, tr.entries()[slot]), outcome))
        return outcome

    def gradient_read(self, leaf: Tensor) -> None:
        """The call looks at a leaf's gradient."""
        if id(leaf) not in self.gradients:
            present = leaf._grad
            if any([x is leaf for x, _ in self.expected]):
                return
            self.expected.append((leaf, present is not None))
            if present is not None:
                self.given.setdefault(id(present), (present, leaf))
                self.present.append((leaf, present))

    def gradient_written(self, leaf: Tensor) -> None:
        """The call replaces a leaf's gradient."""
        self.gradients[id(leaf)] = leaf

    def refuse(self, what: str) -> None:
        """Raise: this can't be replayed."""
        line = tape.user_line()
        where = f" at {line[0]}:{line[1]}" if line else ""
        raise CompileError(
            f"{what} inside of the compiled function {self.called}{where} can't be replayed: a replay does not run Python. "
            "Return the tensor and read it outside of the function."
        )

    # ---- Python's state

    def run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function; its own code and the user's that it calls run as rewritten copies."""
        self.place = None
        code = getattr(getattr(function, "forward", function), "__code__", None)
        if code is not None:
            self.place = (code.co_filename, code.co_firstlineno)
        self.watch.load("entry", vars(tape.dtypes), "_default")
        free = sys.getprofile() is None
        if free:
            sys.setprofile(self.profile)
        try:
            return self.call(function, args, kwargs)
        finally:
            if free:
                sys.setprofile(None)

    def unchanged(self) -> bool:
        """Whether all that was read still is what it was."""
        return all([x.holds() for x in self.watch.loads.values()])

    def shared(self) -> set[Any]:
        """The memory of tensors that the call has found in Python's state, if it is that of an argument, too."""
        return {t._storage for t in self.found().values()}

    def release_objects(self) -> None:
        """What the call has made lives on only if somebody else keeps it."""
        for held in (self.fresh, self.copies, self.views, self.items, self.containers):
            held.clear()

    def forget(self) -> None:
        """What was only needed during the call."""
        self.watch.forget()

    def arguments(self, value: Any, numbers: Iterator[Any]) -> Any:
        """An argument as the captured call gets it: numbers know that they are arguments, also those in containers."""
        kind = type(value)
        if isinstance(value, Tensor):
            next(numbers)
        elif kind is float or kind is int:
            return leaf(value, Argument(next(numbers)))
        elif kind in (list, tuple, dict):
            self.containers[id(value)] = value
            for key, x in value.items() if kind is dict else enumerate(value):
                given = self.arguments(x, numbers)
                if given is not x:
                    self.items[id(value), key] = given
        return value

    def counts_changes(self, thing: Any, name: str) -> bool:
        """Modules count changes of what is registered in them."""
        if not isinstance(thing, Counted):
            return False
        own = thing.__dict__
        if name in _TABLES and name in own:
            self.containers[id(own[name])] = own[name]
            return True
        for table in _TABLES:
            if name in own.get(table, ()):
                if isinstance(own[table][name], Tensor):
                    self.watch.tensors[id(own[table][name])] = own[table][name]
                return True
        return False

    def control(self, f: Any, args: tuple[Any, ...]) -> None:
        """A mode or flag is set: the next call has to find it as this one leaves it."""
        thing = args[0] if args else None
        if f.__name__ in ("train", "eval") and isinstance(thing, Counted):
            mode = f.__name__ == "train" and bool(args[1] if len(args) > 1 else True)
            for module in thing.modules():  # type: ignore[attr-defined]
                if module.training is not mode:
                    self.store(module, "the training mode is changed", None)
                self.watch.load("entry", module.__dict__, "training")
        elif f.__name__ == "requires_grad_" and isinstance(thing, (Tensor, Counted)):
            wanted = args[1] if len(args) > 1 else True
            for t in [thing] if isinstance(thing, Tensor) else thing.parameters():  # type: ignore[attr-defined]
                exists = type(t._meta) is Signature and t._storage is not None and t._storage.array is not None
                if exists and t._meta.requires_grad != wanted:
                    self.store(t, "`requires_grad` of a tensor is changed", None)
                if exists:
                    self.watch.tensors[id(t)] = t
        else:
            self.store(thing, f"`{f.__name__}`", None)

    def number_of(self, t: Tensor) -> Any:
        """The number that a tensor on the tape is, if it is one: every replay must find it again."""
        if t._number is None:
            return None
        source = t._number[3]
        if source is not None and source[0] == "number":
            self.watch.expect(source[1])
        elif source is not None:
            return None
        return t._number[1]

    def histories(self, arguments: list[Any]) -> None:
        """A tensor that existed before and has got a history by a write is another one for what comes after the call, and so is
        one that has got or lost a hook."""
        if self.hooked:
            self.stores.append(("a hook of a tensor is registered or removed", self.place, None))
        for t in (*self.found().values(), *arguments):
            if isinstance(t, Tensor) and t.requires_grad and type(t._meta) is not Signature:
                line = getattr(t._meta, "line", None)
                self.stores.append(("a tensor gets a history by a write in place", line or self.place, None))

    def seed(self, generator: Any) -> None:
        """The call gives a generator a seed: its numbers are fixed from here on."""
        self.seeded[generator] = (0, 0)


def describe(value: Any) -> str:
    """What a message calls a result that can't be made anew."""
    if isinstance(value, types.FunctionType):
        return "a function"
    return f"an object of type {type(value).__name__}"


__all__ = ["Argument", "Capture", "CompileError", "Escape", "Expression", "describe"]
