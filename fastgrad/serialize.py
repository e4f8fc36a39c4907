"""Saving and loading: `save` and `load` of tensors and containers of them.

A file is a NumPy archive: the arrays, and a JSON text of the structure around them. Nothing in it is code, so a file from a
stranger is safe to load. Files are written beside their place and renamed: there is never half a file.
"""

from __future__ import annotations

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
from .functions.creation import wrap

_FORMAT = "fastgrad-1"


def rebuild(kind: type, array: np.ndarray, requires_grad: bool) -> Any:
    """A tensor from its pickled parts."""
    t = wrap(np.array(array, order="C"), requires_grad)
    t.__class__ = kind
    return t


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


def load(f: Any, map_location: Any = None, *, weights_only: bool = True, **_: Any) -> Any:
    """Read what `save` wrote. ValueError for a file of another kind."""
    try:
        archive = np.load(f, allow_pickle=False)
        structure = json.loads(bytes(archive["structure"]).decode())
        if structure["format"] != _FORMAT:
            raise KeyError("format")
    except (KeyError, ValueError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(f"load: {f} is not a file that fastgrad.save wrote ({error})") from None
    return _unpack(structure["root"], lambda i: np.array(archive[str(i)], order="C"))
