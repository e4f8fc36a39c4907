"""Copies, pickles and files: how tensors are taken apart and put together again; `save` and `load`.

A file is a NumPy archive: the arrays, and a JSON text of the structure around them. Nothing in it is code, so a file from a
stranger is safe to load. Files are written beside their place and renamed: there is never half a file.
"""

from __future__ import annotations

import copy
import copyreg
import io
import json
import os
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import recording as tape
from .dtypes import dtype as DType
from .dtypes import to_dtype
from .functions.creation import wrap
from .functions.views import attach
from .recording import Signature, Storage
from .tensor import Tensor, as_subclass_leaf

_FORMAT = "fastgrad-1"


# ---- pickles and copies


def _reduce_storage(storage: Storage) -> tuple[Any, ...]:
    return _rebuild_storage, (np.array(storage.array.reshape(-1), order="C", copy=True),)


def _rebuild_storage(array: np.ndarray) -> Storage:
    return Storage(array, array.ctypes.data, array.size, array.nbytes)


copyreg.pickle(Storage, _reduce_storage)  # so tensors that share memory share it in a pickle or a deep copy, too


def _place(t: Tensor) -> tuple[Any, ...]:
    """A tensor as what `_rebuild_tensor` wants after class and storage."""
    meta = t._meta
    return meta.dtype, meta.shape, t._strides, t._offset, t._whole, t.requires_grad


def _rebuild_tensor(
    kind: type[Tensor], storage: Storage, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...] | None, offset: int,
    whole: bool, requires_grad: bool,
) -> Tensor:  # fmt: skip
    t = tape.blank(tape.STALE, Signature.of(tuple(shape), dtype, requires_grad), kind)
    if not whole:
        t._whole, t._strides, t._offset = False, strides, offset
    attach(t, storage)
    return t


def _own(t: Tensor) -> dict[str, Any]:
    """The attributes that a user has given to a tensor."""
    return {name: value for name, value in t.__dict__.items() if not hasattr(tape.TENSOR, name)}


def reduce_tensor(t: Tensor) -> tuple[Any, ...]:
    """A tensor for pickle: its memory, which tensors pickled with it share as they do now, and its place in it."""
    t._materialize()
    made = (_rebuild_tensor, (type(t), t._storage, *_place(t)))
    own = _own(t)
    return (*made, own) if own else made


def same_memory(t: Tensor) -> Tensor:
    """What `copy.copy` makes: another leaf on the same memory."""
    made = as_subclass_leaf(type(t), t, t.requires_grad)
    made.__dict__.update(_own(t))
    return made


def deep_copy(t: Tensor, memo: dict[int, Any]) -> Tensor:
    """What `copy.deepcopy` makes of a leaf: its memory, with those who share it, its gradient and its attributes, all copied."""
    found: Tensor | None = memo.get(id(t))
    if found is not None:
        return found
    if not t.is_leaf:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment. "
            "Use .detach() first."
        )
    t._materialize()
    made = memo[id(t)] = _rebuild_tensor(type(t), copy.deepcopy(t._storage, memo), *_place(t))
    made._grad = copy.deepcopy(t._grad, memo)
    made.__dict__.update(copy.deepcopy(_own(t), memo))
    return made


# ---- files


class _Packer:
    """A structure of tensors as JSON and arrays. Memory that several of its tensors lie in is written once, whole."""

    def __init__(self, root: Any) -> None:
        self.arrays: list[np.ndarray] = []
        self.tensors: dict[int, int] = {}  # id of a tensor -> its number, in order
        self.memory: dict[int, int] = {}  # id of a storage -> its array
        self.users: Counter[int] = Counter()
        self._count(root, set())
        self.root = self._pack(root)

    def _count(self, value: Any, seen: set[int]) -> None:
        if isinstance(value, tape.TENSOR):
            if id(value) not in seen:
                seen.add(id(value))
                value._materialize()
                self.users[id(value._storage)] += 1
        elif isinstance(value, dict):
            for k, v in value.items():
                self._count(k, seen)
                self._count(v, seen)
        elif isinstance(value, (list, tuple, set)):
            for v in value:
                self._count(v, seen)

    def _array(self, array: np.ndarray) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _tensor(self, t: Tensor) -> Any:
        if id(t) in self.tensors:
            return {"again": self.tensors[id(t)]}
        self.tensors[id(t)] = len(self.tensors)
        kind = "parameter" if type(t).__name__ == "Parameter" else "tensor"
        storage = t._storage
        if self.users[id(storage)] == 1:
            return {kind: self._array(t.detach().numpy().copy()), "requires_grad": t.requires_grad}
        if id(storage) not in self.memory:
            self.memory[id(storage)] = self._array(np.array(storage.array.reshape(-1), copy=True))
        dtype, shape, *place = _place(t)
        return {kind: self.memory[id(storage)], "place": [dtype.name, list(shape), *place]}

    def _pack(self, value: Any) -> Any:
        if isinstance(value, tape.TENSOR):
            return self._tensor(value)
        if isinstance(value, np.ndarray):
            return {"array": self._array(value)}
        if isinstance(value, dict):
            kind = "ordered" if isinstance(value, OrderedDict) else "dict"
            return {kind: [[self._pack(k), self._pack(v)] for k, v in value.items()]}
        if isinstance(value, (list, tuple, set)):
            return {type(value).__name__: [self._pack(v) for v in value]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(
            f"save: can't save an object of type {type(value).__name__}; save tensors, arrays, numbers, text and containers "
            "of them, such as a module's state_dict()"
        )


class _Unpacker:
    """What a `_Packer` has written, put together again."""

    def __init__(self, arrays: Callable[[int], np.ndarray]) -> None:
        self.arrays = arrays
        self.tensors: list[Tensor] = []
        self.memory: dict[int, Storage] = {}

    def _tensor(self, kind: str, content: int, value: dict[str, Any]) -> Tensor:
        from .nn import Parameter

        cls = Parameter if kind == "parameter" else tape.TENSOR
        if "place" in value:
            if content not in self.memory:
                self.memory[content] = _rebuild_storage(self.arrays(content))
            name, shape, strides, offset, whole, requires_grad = value["place"]
            strides = None if strides is None else tuple(strides)
            made = _rebuild_tensor(
                cls, self.memory[content], to_dtype(name), tuple(shape), strides, offset, whole, requires_grad
            )
        else:
            made = wrap(self.arrays(content), value["requires_grad"])
            if cls is Parameter:
                made = Parameter(made.detach(), requires_grad=value["requires_grad"])
        self.tensors.append(made)
        return made

    def unpack(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for kind, content in value.items():
            if kind in ("tensor", "parameter"):
                return self._tensor(kind, content, value)
            if kind == "again":
                return self.tensors[content]
            if kind == "array":
                return self.arrays(content)
            if kind in ("dict", "ordered"):
                pairs = [(self.unpack(k), self.unpack(v)) for k, v in content]
                return OrderedDict(pairs) if kind == "ordered" else dict(pairs)
            made = [self.unpack(v) for v in content]
            return {"list": list, "tuple": tuple, "set": set}[kind](made)
        raise ValueError("load: the file's structure is damaged")


def save(obj: Any, f: str | os.PathLike[str] | io.IOBase) -> None:
    """Write tensors, numbers, text and containers of them (a `state_dict`, say) to a file or a binary stream.

    TypeError for anything else; the file appears complete or not at all. Tensors that share memory share it after `load`, too.
    """
    packer = _Packer(obj)
    structure = np.frombuffer(json.dumps({"format": _FORMAT, "root": packer.root}).encode(), np.uint8)
    content = {"structure": structure, **{str(i): a for i, a in enumerate(packer.arrays)}}
    if not isinstance(f, (str, os.PathLike)):
        np.savez(f, **content)  # type: ignore[arg-type]
        return
    path = Path(f)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **content)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(f: Any, map_location: Any = None, *, weights_only: bool = True, mmap: bool | None = None) -> Any:
    """Read what `save` wrote. ValueError for a file of another kind."""
    try:
        archive = np.load(f, allow_pickle=False)
        structure = json.loads(bytes(archive["structure"]).decode())
        if structure["format"] != _FORMAT:
            raise KeyError("format")
    except (KeyError, ValueError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(f"load: {f} is not a file that fastgrad.save wrote ({error})") from None
    return _Unpacker(lambda i: np.array(archive[str(i)], order="C")).unpack(structure["root"])
