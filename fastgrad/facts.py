"""What machine code knows of tensors and traces, and what tables for it are put together from.

`facts` is made once a process; where this Python's objects do not lie as machine code needs it, it raises `entrance.Unknown`, no
table is made and everything goes its way in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import layouts
from . import recording as tape
from .kernels import entrance as at
from .kernels.sweep import RECORD_BYTES, sweep_address
from .recording import Node, Signature, Storage, Trace
from .tensor import Tensor, handle

LET_GO = 16_384  # elements that a program computes, from which on its sweep goes without the GIL


class Unfit(Exception):
    """A table cannot say this."""


def records(program: Any) -> dict[int, int]:
    """What a table's header says of a program: its records, those that check positions before anything is written apart."""
    first = program.split if program.error_cell is not None else 0
    error = program.error_cell.ctypes.data if first else 0
    return {
        at.PROGRAM: program.address + RECORD_BYTES * first, at.COUNT: program.count - first, at.SWEEP: sweep_address(),
        at.SPLIT: first, at.CHECKS: program.address, at.ERROR: error,
    }  # fmt: skip


class Rows:
    """The rows, lists and objects of a table."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.lists: list[tuple[int, int, list[int]]] = []
        self.alive: list[Any] = []
        self._dicts: dict[int, list[list[int]]] = {}
        self._lists: dict[int, tuple[dict[int, int], list[int]]] = {}

    def add(self, *row: int, **lists: tuple[int, list[int]]) -> None:
        """A row; a list is given with its column."""
        self.rows.append(list(row))
        for column, content in lists.values():
            self.lists.append((len(self.rows) - 1, column, content))

    def entry(self, mapping: dict[Any, Any], *row: int) -> None:
        """A row about a dict, to be put with the others about it."""
        self._dicts.setdefault(self.of(mapping), []).append(list(row))

    def add_dicts(self) -> None:
        """Put the rows about dicts, those about one behind a row that passes them while it has not changed, if that can be told."""
        version = layouts.dict_version()
        for mapping, rows in self._dicts.items():
            if version:
                self.add(at.UNCHANGED, mapping, 0, len(rows) + 1)
            self.rows += rows
            if version:
                self.add(at.CHECKED, len(rows) + 1)
        self._dicts = {}

    def item(self, held: list[Any], key: int, wanted: int) -> None:
        """An item of a list, to be put with the others of that list."""
        self._lists.setdefault(self.of(held), ({}, []))[0][key] = wanted

    def length(self, held: list[Any], n: int) -> None:
        """The length of a list."""
        self._lists.setdefault(self.of(held), ({}, []))[1].append(n)

    def add_lists(self) -> None:
        """Put the rows about lists: one for a list of which all items up to some place have been read."""
        for held, (items, lengths) in self._lists.items():
            n, exact = len(items), lengths[0] if lengths else -1
            first = [items[k] for k in range(n)] if items.keys() == set(range(n)) else []
            self.add(at.ITEMS, held, 0, len(first), exact, items=(2, first))
            if not first:
                for key, wanted in items.items():
                    self.add(at.ITEM, held, key, wanted)
        self._lists = {}

    def of(self, thing: Any) -> int:
        """The address of an object, which the table keeps alive."""
        self.alive.append(thing)
        return id(thing)

    def field(self, thing: Any, name: str, kind: type | None = None) -> int:
        """The address of a slot."""
        return self.of(thing) + at.slot(type(thing) if kind is None else kind, name)


_found: list[at.Table] = []  # the facts, once they are known


def facts() -> at.Table:
    """The facts about this Python, tensors, storages and traces, and about what nobody holds."""
    if _found:
        return _found[0]
    fields = {
        Tensor: {at.STORAGE: "_storage", at.META: "_meta", at.WHOLE: "_whole", at.GRADIENT: "_grad", at.ORIGIN: "_origin", at.AT: "_at"},
        Storage: {
            at.ARRAY: "array", at.ADDRESS: "address", at.SAVERS: "savers", at.SHARED: "shared", at.BYTES: "nbytes",
            at.ALIASES: "aliases", at.VERSION: "version", at.WRITER: "writer",
        },
        Trace: {
            at.LIVING: "live", at.ADDRESSES: "addresses", at.SCALARS: "scalars", at.WRITTEN: "written", at.TEMPORARIES: "arena",
        },
    }  # fmt: skip
    known = at.python_facts() | {n: at.slot(kind, name) for kind, names in fields.items() for n, name in names.items()}
    known |= {
        at.STORAGE_TYPE: id(Storage),
        at.NODE_TYPE: id(Node),
        at.DICT_VERSION: layouts.dict_version(),
        at.LIST_LENGTH: layouts.length(list),
        at.LIST_ITEMS: layouts.items(),
    }

    def storage() -> Storage:
        return Storage(np.empty(1, np.float32), 0, 1, 4)

    tensors = [handle(Signature.of((), tape.dtypes.float32), storage())]
    known[at.FREE_TENSOR] = at.references(id(tensors[0]))
    known[at.FREE_STORAGE] = at.references(id(tensors[0]._storage))
    known[at.FREE_ARRAY] = at.references(id(tensors[0]._storage.array))
    storages = [storage()]
    known[at.POOL_STORAGE] = at.references(id(storages[0]))
    known[at.POOL_ARRAY] = at.references(id(storages[0].array))
    count = max(known) + 1
    made = at.Table(8 * count)
    at.words(made.address, count)[:] = [known.get(i, 0) for i in range(count)]
    _found.append(made)
    return made


def flat(pairs: list[tuple[int, int]]) -> list[int]:
    """Pairs one after the other."""
    return [word for pair in pairs for word in pair]
