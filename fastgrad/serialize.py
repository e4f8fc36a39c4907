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
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import recording as tape
from .dtypes import dtype as DType
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


def _pack(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, tape.TENSOR):
        arrays.append(value.detach().numpy().copy())
        kind = "parameter" if type(value).__name__ == "Parameter" else "tensor"
        return {kind: len(arrays) - 1, "requires_grad": value.requires_grad}
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        kind = "ordered" if isinstance(value, OrderedDict) else "dict"
        return {kind: [[_pack(k, arrays), _pack(v, arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple, set)):
        return {type(value).__name__: [_pack(v, arrays) for v in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"save: can't save an object of type {type(value).__name__}; save tensors, arrays, numbers, text and containers of "
        "them, such as a module's state_dict()"
    )


def _unpack(value: Any, arrays: Callable[[int], np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    for kind, content in value.items():
        if kind == "tensor":
            return wrap(arrays(content), value["requires_grad"])
        if kind == "parameter":
            from .nn import Parameter

            return Parameter(wrap(arrays(content)), requires_grad=value["requires_grad"])
        if kind == "array":
            return arrays(content)
        if kind in ("dict", "ordered"):
            pairs = [(_unpack(k, arrays), _unpack(v, arrays)) for k, v in content]
            return OrderedDict(pairs) if kind == "ordered" else dict(pairs)
        made = [_unpack(v, arrays) for v in content]
        return {"list": list, "tuple": tuple, "set": set}[kind](made)
    raise ValueError("load: the file's structure is damaged")


def save(obj: Any, f: str | os.PathLike[str] | io.IOBase) -> None:
    """Write tensors, numbers, text and containers of them (a `state_dict`, say) to a file or a binary stream.

    TypeError for anything else; the file appears complete or not at all.
    """
    arrays: list[np.ndarray] = []
    structure = json.dumps({"format": _FORMAT, "root": _pack(obj, arrays)})
    content = {"structure": np.frombuffer(structure.encode(), np.uint8), **{str(i): a for i, a in enumerate(arrays)}}
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
    return _unpack(structure["root"], lambda i: np.array(archive[str(i)], order="C"))
