"""Tensors from data and from sizes.

Data is copied or wrapped at once. Filled tensors are entries on the tape like any other, so that compiled steps contain them.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from .. import recording as tape
from ..devices import check_device
from ..dispatch import tensor_operand
from ..dtypes import BOOL, from_numpy_dtype, get_default_dtype, int64, to_dtype
from ..dtypes import dtype as dtype_
from ..kernels.memory import LARGE, require
from ..ops import arrays
from ..ops.table import CONVERT
from ..recording import Signature, Storage
from .arguments import fit, integer, known_number, number
from .data import array_of
from .ranges import evenly, progression

if TYPE_CHECKING:
    from ..tensor import Tensor


def wrap(array: np.ndarray, requires_grad: bool = False) -> Tensor:
    """A tensor on an array's own memory (C-contiguous), which nobody else writes to."""
    kind = from_numpy_dtype(array.dtype)
    storage = Storage(array, array.ctypes.data, array.size, array.nbytes)
    t = _on(storage, Signature.of(array.shape, kind, requires_grad))
    capture = tape.local.trace.capture
    return t if capture is None else capture.constant(t)


def _on(storage: Storage, meta: Signature) -> Tensor:
    t = tape.blank(tape.STALE, meta)
    t._storage = storage
    return t


def _check_grad(kind: dtype_, requires_grad: bool) -> None:
    if requires_grad and not kind.is_floating_point:
        raise RuntimeError(f"Only Tensors of floating point and complex dtype can require gradients (got {kind})")


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor with a copy of the data: numbers, nested sequences, arrays or tensors.

    Python floats become float32 (the default type), integers int64; NumPy's arrays and scalars keep their type. ValueError for
    sequences of different lengths, RuntimeError for numbers that the dtype cannot hold, TypeError or RuntimeError for what is none.

    >>> fastgrad.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    check_device(device)
    if isinstance(data, tape.TENSOR) and not data._meta.weak:  # a weak one is a number while `compile` records
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
            "sourceTensor.detach().clone().requires_grad_(True), rather than fastgrad.tensor(sourceTensor).",
            stacklevel=2,
        )
    kind = None if dtype is None else to_dtype(dtype)
    if isinstance(data, tape.TENSOR) and data._meta.weak:
        return finish(_of_number(data, kind), requires_grad)
    array = array_of(data, kind)
    _check_grad(from_numpy_dtype(array.dtype), requires_grad)
    return wrap(array, requires_grad)


def _of_number(value: Tensor, kind: dtype_ | None) -> Tensor:
    """A tensor of a number that every replay of a compiled call reads again."""
    if kind is not None and not kind.is_floating_point:
        return wrap(array_of(known_number("tensor", "data", value), kind))
    return full((), value, dtype=kind)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of the data, without a copy where it is a tensor or an array of the right type."""
    check_device(device)
    kind = None if dtype is None else to_dtype(dtype)
    if isinstance(data, tape.TENSOR):
        if data._meta.weak:
            return _of_number(data, kind)
        return data if kind is None or data.dtype is kind else data.to(kind)
    if isinstance(data, np.ndarray) and (kind is None or kind.numpy == data.dtype):
        return from_numpy(data)
    return wrap(array_of(data, kind))


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of the object, on its memory unless `copy` is True; with False a copy that cannot be avoided is a ValueError."""
    made = as_tensor(obj, dtype, device)
    shares = made is obj or (isinstance(obj, np.ndarray) and np.shares_memory(obj, made.detach().numpy()))
    if copy is False and not shares:
        raise ValueError("can't alias tensor with dtype or arbitrary sequence without a copy")
    if made is obj and not copy:
        return obj.requires_grad_() if requires_grad else obj
    return finish(made.clone() if copy and shares else made, requires_grad)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on an array's own memory: writes are seen on both sides. An array that is not writable is copied, with a warning."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if not ndarray.dtype.isnative:
        raise ValueError(
            f"given numpy array has byte order different from the native byte order ({ndarray.dtype}); convert it with "
            "array.astype(array.dtype.newbyteorder('='))"
        )
    kind = from_numpy_dtype(ndarray.dtype)
    if any([s < 0 for s in ndarray.strides]):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not currently "
            "supported. (You can probably work around this by making a copy of your array with array.copy().)"
        )
    if any([s % ndarray.itemsize for s in ndarray.strides]) or not ndarray.flags.aligned:
        raise ValueError("given numpy array strides not a multiple of the element byte size. Copy array to avoid this.")
    if not ndarray.flags.writeable:
        warnings.warn("The given NumPy array is not writable: the tensor gets a copy of it.", stacklevel=2)
        return wrap(np.array(ndarray, order="C", copy=True))
    if ndarray.flags.c_contiguous:
        storage = Storage(ndarray, ndarray.ctypes.data, ndarray.size, ndarray.nbytes)
        storage.shared = True
        return _on(storage, Signature.of(ndarray.shape, kind))
    strides = tuple([s // ndarray.itemsize for s in ndarray.strides])
    extent = 1 + sum([(n - 1) * s for n, s in zip(ndarray.shape, strides, strict=True)]) if ndarray.size else 0
    flat = np.lib.stride_tricks.as_strided(ndarray, (extent,), (ndarray.itemsize,))
    storage = Storage(flat, ndarray.ctypes.data, extent, extent * ndarray.itemsize)
    storage.shared = True
    t = _on(storage, Signature.of(ndarray.shape, kind))
    t._whole, t._strides = False, strides
    return t


def finish(t: Tensor, requires_grad: bool) -> Tensor:
    """A tensor just made, as a leaf with a gradient if that is wanted."""
    _check_grad(t.dtype, requires_grad)
    return t.requires_grad_() if requires_grad else t


def sizes_of(name: str, sizes: tuple[Any, ...], size: Any = None) -> tuple[int, ...]:
    """The shape of a new tensor from sizes one by one, as one sequence, or by keyword."""
    from .shapes import sizes as shape_of

    shape = shape_of(name, sizes, size)
    if any([n < 0 for n in shape]):
        raise RuntimeError(f"{name}: Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
    return shape


def _filled(name: str, shape: tuple[int, ...], value: Any, kind: dtype_, constant: bool) -> Tensor:
    tr = tape.local.trace
    if math.prod(shape) > LARGE:
        require(math.prod(shape) * kind.itemsize, name)
    if isinstance(value, tape.TENSOR):
        filler = value
    else:
        value = fit(name, value, kind)
        filler = tape.constant(value) if constant else tape.scalar(value)
    if filler.dtype is not kind:
        filler = tape.apply(CONVERT, (filler,), kind)
    made = tape.apply(arrays.expand, (filler,), shape)
    tape.settle(tr)
    return made


def _constant(
    name: str, sizes: tuple[Any, ...], size: Any, value: float, dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    check_device(device)
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    return finish(_filled(name, sizes_of(name, sizes, size), value, kind, True), requires_grad)


def zeros(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of zeros of the given sizes."""
    return _constant("zeros", sizes, size, 0.0, dtype, device, requires_grad)


def ones(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of ones of the given sizes."""
    return _constant("ones", sizes, size, 1.0, dtype, device, requires_grad)


def empty(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor whose contents mean nothing (they are zero here)."""
    return _constant("empty", sizes, size, 0.0, dtype, device, requires_grad)


def _filler(name: str, value: Any) -> Any:
    """A number to fill with; a tensor of one number stays on the tape."""
    if isinstance(value, tape.TENSOR):
        if value.ndim or value.requires_grad:
            raise TypeError(f"{name}(): argument 'fill_value' must be Number, not Tensor with dimensions or a gradient")
        return value
    return number(name, "fill_value", value)


def _weak_dtype(value: Any) -> dtype_:
    """The dtype of a tensor that a number alone decides about."""
    kind = value.dtype if isinstance(value, tape.TENSOR) else dtypes._PYTHON[type(value)]
    return get_default_dtype() if kind.is_floating_point else kind


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with a number; its type follows the number's: bool, int64 or the default type."""
    check_device(device)
    value = _filler("full", fill_value)
    kind = _weak_dtype(value) if dtype is None else to_dtype(dtype)
    return finish(_filled("full", sizes_of("full", (), size), value, kind, False), requires_grad)


def _like(
    name: str, input: Tensor, value: Any, dtype: Any, device: Any, requires_grad: bool, constant: bool = True
) -> Tensor:
    check_device(device)
    kind = tensor_operand(input, name).dtype if dtype is None else to_dtype(dtype)
    return finish(_filled(name, tuple(input.shape), value, kind, constant), requires_grad)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros in the shape and type of a tensor."""
    return _like("zeros_like", input, 0.0, dtype, device, requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones in the shape and type of a tensor."""
    return _like("ones_like", input, 1.0, dtype, device, requires_grad)


empty_like = zeros_like


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A number in the shape and type of a tensor."""
    value = _filler("full_like", fill_value)
    return _like("full_like", input, value, dtype, device, requires_grad, False)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    check_device(device)
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    _check_grad(kind, requires_grad)
    rows = integer("eye", "n", n)
    columns = rows if m is None else integer("eye", "m", m)
    if min(rows, columns) < 0:
        raise RuntimeError(f"eye: n and m must not be negative, got {rows} and {columns}")
    return wrap(np.eye(rows, columns, dtype=kind.numpy), requires_grad)


def arange(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **named: Any) -> Tensor:
    """Numbers from `start` (included, 0 by default) to `end` (excluded) in steps: `arange(end)`, `arange(start, end, step=1)`.

    The type is int64 unless one of them is a floating-point number. RuntimeError for a step of zero or of the wrong sign.
    """
    check_device(device)
    start, end, step = (known_number("arange", "start, end or step", x) for x in _range(args, named))
    if step == 0:
        raise RuntimeError("arange: step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RuntimeError(f"arange: unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError("arange: upper bound and lower bound inconsistent with step sign")
    floating = any([isinstance(x, float) for x in (start, end, step)])
    kind = to_dtype(dtype) if dtype is not None else get_default_dtype() if floating else int64
    _check_grad(kind, requires_grad)
    _not_bool("arange", kind)
    if kind is int64:  # the bounds are converted first
        start, end, step, floating = int(start), int(end), int(step), False
        if step == 0:
            raise ValueError("arange: step must be nonzero in an integer type")
    if not floating:
        for x in (start, end, step):
            fit("arange", x, int64)
        n = -((start - end) // step)
        return wrap((start + np.arange(n, dtype=np.int64) * step).astype(kind.numpy), requires_grad)
    n = math.ceil((end - start) / step)
    if kind.is_floating_point:
        return wrap(progression(start, step, n, kind.numpy), requires_grad)
    return wrap((start + np.arange(n, dtype=np.float64) * step).astype(kind.numpy), requires_grad)


def _not_bool(name: str, kind: dtype_) -> None:
    if kind.category == BOOL:
        raise NotImplementedError(f'"{name}" not implemented for {kind}; convert the numbers with .bool()')


def _range(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Start, end and step as `arange` takes them."""
    if len(args) > 3 or named.keys() - {"start", "end", "step"}:
        raise TypeError(f"arange() takes start, end and step, got {len(args)} and {', '.join(named) or 'no names'}")
    names = ("end",) if len(args) == 1 and "end" not in named else ("start", "end", "step")[: len(args)]
    given = dict(zip(names, args, strict=True))
    if (twice := given.keys() & named.keys()) or "end" not in (given | named):
        raise TypeError(f"arange(): {'got ' + twice.pop() + ' twice' if twice else 'end is missing'}")
    given |= named
    return given.get("start", 0), given["end"], given.get("step", 1)


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` numbers from `start` to `end`, both included."""
    check_device(device)
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    _check_grad(kind, requires_grad)
    _not_bool("linspace", kind)
    numbers = _evenly("linspace", start, end, steps, kind.numpy if kind.is_floating_point else np.dtype(np.float64))
    return wrap(numbers.astype(kind.numpy, copy=False), requires_grad)


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`base` to the powers from `start` to `end`."""
    check_device(device)
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    _check_grad(kind, requires_grad)
    powers = _evenly("logspace", start, end, steps, np.dtype(np.float64))
    return wrap((float(known_number("logspace", "base", base)) ** powers).astype(kind.numpy), requires_grad)


def _evenly(name: str, start: Any, end: Any, steps: Any, kind: np.dtype) -> np.ndarray:
    steps = integer(name, "steps", steps)
    if steps < 0:
        raise RuntimeError(f"{name}: number of steps must be non-negative")
    return evenly(known_number(name, "start", start), known_number(name, "end", end), steps, kind)
