"""What Python and NumPy ask of a tensor: its values, conversions to numbers, iteration, formats, copies, pickles, arrays.

Everything that looks at values goes through `_view_of_memory`, which makes pending ones be computed. How a copy or a pickle is put
together again stands in serialize.py.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from sys import getrefcount
from typing import TYPE_CHECKING, Any

import numpy as np

from . import recording as tape
from .dispatch import as_number
from .functions import creation, shapes, views
from .recording import Storage

if TYPE_CHECKING:
    from .tensor import Tensor


class Protocols:
    """Base class of Tensor: Python's and NumPy's protocols."""

    __slots__ = ()

    __array_priority__ = 1000  # operators with an array on the left are the tensor's

    if TYPE_CHECKING:
        _at: tuple[int, int]
        _meta: Any
        _storage: Any
        _whole: bool
        _offset: int
        _grad: Tensor | None

        @property
        def ndim(self) -> int: ...
        @property
        def is_leaf(self) -> bool: ...
        @property
        def requires_grad(self) -> bool: ...
        def detach(self) -> Tensor: ...

    # ---- values

    def _materialize(self) -> None:
        """Make sure that the memory holds the value."""
        storage = self._storage
        if storage is None or storage.array is None:
            tr = tape.local.trace
            if tr.capture is not None:
                tr.capture.refuse("reading a tensor's value")
            tape.materialize(self)
        else:
            tr = tape.local.trace
            if storage in tr.written:
                if tr.capture is not None:
                    tr.capture.refuse("reading a tensor's value")
                tape.flush(tr)
            elif storage.writer is not None and storage.writer is not tr.mark:
                tape.settle_storage(tr, storage)

    def _view_of_memory(self: Any) -> np.ndarray:
        """A NumPy view of the elements."""
        tr = tape.local.trace
        if tr.capture is not None:
            number = tr.capture.number_of(self)
            if number is not None:
                return np.asarray(number)
            tr.capture.refuse("reading a tensor's value")
        self._materialize()
        meta, storage = self._meta, self._storage
        flat = storage.array.reshape(-1)
        if self._whole:
            return flat.reshape(meta.shape)
        size = meta.dtype.itemsize
        if flat.dtype != meta.dtype.numpy:
            flat = flat[: flat.nbytes // size * size].view(meta.dtype.numpy)
        strides = tuple([s * size for s in views.strides_of(self)])
        return np.lib.stride_tricks.as_strided(flat[self._offset :] if meta.numel else flat, meta.shape, strides)

    def item(self) -> Any:
        """The only element, as a Python number."""
        meta = self._meta
        if meta.numel != 1:
            raise RuntimeError(f"a Tensor with {meta.numel} elements cannot be converted to Scalar")
        if self._storage is not None and self._whole and self._storage.array is not None:
            tr = tape.local.trace
            writer = self._storage.writer
            if tr.capture is None and (writer is None or (writer is tr.mark and self._storage not in tr.written)):
                return self._storage.array.item()
        return self._view_of_memory().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._view_of_memory().tolist()

    # ---- Python

    def _number_of_one(self) -> Any:
        if self._meta.numel != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self.item()

    def __float__(self) -> float:
        return float(self._number_of_one())

    def __int__(self) -> int:
        return int(self._number_of_one())

    def __complex__(self) -> complex:
        return complex(self._number_of_one())

    def __bool__(self) -> bool:
        if self._meta.numel != 1:
            if self._meta.numel == 0:
                raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
            raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
        tr = tape.local.trace
        if tr.capture is not None:
            return tr.capture.guard(self)
        return bool(self.item())

    def __index__(self) -> int:
        if self._meta.dtype.is_floating_point or self._meta.numel != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __len__(self) -> int:
        if not self._meta.shape:
            raise TypeError("len() of a 0-d tensor")
        return self._meta.shape[0]

    def __iter__(self: Any) -> Iterator[Tensor]:
        if not self._meta.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(shapes.unbind(self, 0))

    def __reversed__(self: Any) -> Tensor:
        return shapes.flip(self, 0) if self._meta.shape else self

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, (tape.TENSOR, numbers.Number)) or as_number(value) is not None:
            return bool((self == value).any())  # type: ignore[attr-defined]
        raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(value)}.")

    def __format__(self, spec: str) -> str:
        if type(self) is tape.TENSOR and not self._meta.shape:
            return format(self.item(), spec)
        return object.__format__(self, spec)

    def __repr__(self: Any) -> str:
        from .printing import tensor_text

        return tensor_text(self)

    # ---- copies

    def __reduce_ex__(self: Any, protocol: Any) -> tuple[Any, ...]:
        from .serialize import reduce_tensor

        return reduce_tensor(self)

    def __copy__(self: Any) -> Tensor:
        from .serialize import same_memory

        return same_memory(self)

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Tensor:
        from .serialize import deep_copy

        return deep_copy(self, memo)

    # ---- NumPy

    def numpy(self: Any, *, force: bool = False) -> np.ndarray:
        """The elements as a NumPy array that shares the memory: writes are seen on both sides.

        RuntimeError for a tensor that requires a gradient, unless the grad mode is off or with `force`.
        """
        if self._meta.requires_grad and not force and tape.local.trace.grad_enabled:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        array = self._view_of_memory()
        tape.protect({self._storage: 0})
        self._storage.shared = True
        tr = tape.local.trace
        if self._storage in tr.entered:
            tape.flush(tr)  # what was recorded reads the memory before its new holder can write to it
        with tape.writing:
            tape.claim(tr, self._storage)  # what other threads have recorded reads a copy
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"unable to avoid a copy while converting {self._meta.dtype} to {np.dtype(dtype)}")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Tensor:
        """What a NumPy function made of this tensor, as a tensor."""
        return creation.from_numpy(np.asarray(array))

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self._meta.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return self.numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def shared_by_numpy(storage: Storage) -> bool:
    """Whether an array outside of the library still holds the memory."""
    held, owner, references = _references(storage)
    if not isinstance(owner, np.ndarray) or owner.base is not None:
        return True
    own = owner is held
    storage.shared = references[0] > _ALONE[own][0] or references[1] > _ALONE[own][1]
    return storage.shared


def _references(storage: Storage) -> tuple[Any, Any, tuple[int, int]]:
    """The storage's array, the array that owns its memory, and how often each is referred to."""
    held = owner = storage.array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return held, owner, (getrefcount(held), getrefcount(owner))


_ALONE = {
    True: _references(Storage(np.empty(1), 0, 1, 8))[2],
    False: _references(Storage(np.empty(16, np.uint8)[8:].view(np.float64), 0, 1, 8))[2],
}
