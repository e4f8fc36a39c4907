"""Tensors from data, from sizes and from random numbers.

Data is copied or wrapped at once. Filled and random tensors are entries on the tape like any other, so that compiled steps
contain them; a random entry draws from its generator's counter (see `kernels/random.py`).
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from .. import recording as tape
from ..devices import check_device
from ..dtypes import dtype as dtype_
from ..dtypes import from_numpy_dtype, get_default_dtype, int64, to_dtype
from ..kernels.random import permutation_kernel
from ..kernels.sweep import WORDS, sweep
from ..ops import arrays
from ..ops.table import CONVERT
from ..recording import Signature, Storage, count
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


def _array(data: Any, kind: dtype_ | None) -> np.ndarray:
    """A fresh C-contiguous array of data in a supported type."""
    if isinstance(data, tape.TENSOR):
        data = data.detach().numpy()
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
    else:
        array = np.asarray(_plain(data))
        if array.dtype == object:
            raise _ragged(data)
        if kind is None:
            kind = _inferred(array)
    if kind is None:
        kind = from_numpy_dtype(array.dtype)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"can't convert data of type {array.dtype} to a tensor")
    with np.errstate(all="ignore"):
        return np.array(array, dtype=kind.numpy, order="C", copy=True)


def _plain(data: Any) -> Any:
    """Nested sequences with their tensors as numbers or arrays."""
    if isinstance(data, tape.TENSOR):
        return data.detach().numpy()
    if isinstance(data, (list, tuple)):
        data = [_plain(x) for x in data]
        nested = [isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.ndim > 0) for x in data]
        if len({len(x) if deeper else None for x, deeper in zip(data, nested, strict=True)}) > 1:
            raise _ragged(data)
    elif isinstance(data, str) or data is None or isinstance(data, (dict, set)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    return data


def _ragged(data: Any) -> ValueError:
    return ValueError(
        f"tensor(): the sequences in the data have different lengths, or hold something else than numbers: {str(data)[:60]}"
    )


def _inferred(array: np.ndarray) -> dtype_:
    kind = array.dtype.kind
    if array.size == 0 or kind == "f":
        return get_default_dtype()
    return dtypes.bool_ if kind == "b" else int64


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor with a copy of the data: numbers, nested sequences, arrays or tensors.

    Python floats become float32 (the default type), integers int64; NumPy arrays keep their type.

    >>> fastgrad.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    check_device(device)
    array = _array(data, None if dtype is None else to_dtype(dtype))
    _check_grad(from_numpy_dtype(array.dtype), requires_grad)
    return wrap(array, requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of the data, without a copy where it is a tensor or an array of the right type."""
    check_device(device)
    kind = None if dtype is None else to_dtype(dtype)
    if isinstance(data, tape.TENSOR):
        return data if kind is None or data.dtype is kind else data.to(kind)
    if isinstance(data, np.ndarray) and (kind is None or kind.numpy == data.dtype) and data.dtype.isnative:
        return from_numpy(data)
    return wrap(_array(data, kind))


asarray = as_tensor


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on an array's own memory: writes are seen on both sides."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    kind = from_numpy_dtype(ndarray.dtype)
    if any([s < 0 for s in ndarray.strides]):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not currently "
            "supported. (You can probably work around this by making a copy of your array with array.copy().)"
        )
    if any([s % ndarray.itemsize for s in ndarray.strides]) or not ndarray.flags.aligned:
        raise ValueError("given numpy array strides not a multiple of the element byte size. Copy array to avoid this.")
    if not ndarray.flags.writeable:
        ndarray = np.array(ndarray, order="C", copy=True)  # a write to read-only memory would end the process
        return wrap(ndarray)
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


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    _check_grad(t.dtype, requires_grad)
    return t.requires_grad_() if requires_grad else t


def _sizes(name: str, sizes: tuple[Any, ...], size: Any = None) -> tuple[int, ...]:
    from .shapes import sizes as shape_of

    shape = shape_of(name, sizes, size)
    if any([n < 0 for n in shape]):
        raise RuntimeError(f"{name}: Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
    return shape


def _filled(shape: tuple[int, ...], value: Any, kind: dtype_, constant: bool) -> Tensor:
    tr = tape.local.trace
    number = value if isinstance(value, tape.TENSOR) else tape.constant(value) if constant else tape.scalar(value)
    if number.dtype is not kind:
        number = tape.apply(CONVERT, (number,), kind)
    made = tape.apply(arrays.expand, (number,), shape)
    tape.settle(tr)
    return made


def _constant(
    name: str, sizes: tuple[Any, ...], size: Any, value: float, dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    check_device(device)
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    return _finish(_filled(_sizes(name, sizes, size), value, kind, True), requires_grad)


def zeros(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False, out: None = None
) -> Tensor:
    """A tensor of zeros of the given sizes."""
    return _constant("zeros", sizes, size, 0.0, dtype, device, requires_grad)


def ones(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False, out: None = None
) -> Tensor:
    """A tensor of ones of the given sizes."""
    return _constant("ones", sizes, size, 1.0, dtype, device, requires_grad)


def empty(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Tensor:
    """A tensor whose contents mean nothing (they are zero here)."""
    return _constant("empty", sizes, size, 0.0, dtype, device, requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with a number; its type follows the number's."""
    check_device(device)
    if isinstance(fill_value, tape.TENSOR):
        weak = fill_value._meta.weak and fill_value.dtype.is_floating_point
        kind = get_default_dtype() if weak else fill_value.dtype
    else:
        kind = _inferred(np.asarray(fill_value))
    if dtype is not None:
        kind = to_dtype(dtype)
    return _finish(_filled(_sizes("full", (size,)), fill_value, kind, False), requires_grad)


def _like(input: Tensor, value: Any, dtype: Any, requires_grad: bool, constant: bool = True) -> Tensor:
    kind = input.dtype if dtype is None else to_dtype(dtype)
    return _finish(_filled(tuple(input.shape), value, kind, constant), requires_grad)


def zeros_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Tensor:
    """Zeros in the shape and type of a tensor."""
    check_device(device)
    return _like(input, 0.0, dtype, requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Tensor:
    """Ones in the shape and type of a tensor."""
    check_device(device)
    return _like(input, 1.0, dtype, requires_grad)


empty_like = zeros_like


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Tensor:
    """A number in the shape and type of a tensor."""
    check_device(device)
    return _like(input, fill_value, dtype, requires_grad, False)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    check_device(device)
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    _check_grad(kind, requires_grad)
    return wrap(np.eye(n, m, dtype=kind.numpy), requires_grad)


def arange(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from `start` (included) to `end` (excluded) in steps."""
    check_device(device)
    if end is None:
        start, end = 0, start
    start, end, step = (x.item() if isinstance(x, tape.TENSOR) else x for x in (start, end, step))
    if step == 0:
        raise RuntimeError("arange: step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError("arange: upper bound and lower bound inconsistent with step sign")
    floating = any([isinstance(x, float) for x in (start, end, step)])
    kind = to_dtype(dtype) if dtype is not None else get_default_dtype() if floating else int64
    _check_grad(kind, requires_grad)
    n = math.ceil((end - start) / step)
    if floating and kind.is_floating_point:
        return wrap(progression(start, step, n, kind.numpy), requires_grad)
    values = start + np.arange(n, dtype=np.float64 if floating else np.int64) * step
    return wrap(values.astype(kind.numpy), requires_grad)


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` numbers from `start` to `end`, both included."""
    check_device(device)
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    _check_grad(kind, requires_grad)
    start, end = (x.item() if isinstance(x, tape.TENSOR) else x for x in (start, end))
    numbers = evenly(start, end, steps, kind.numpy if kind.is_floating_point else np.dtype(np.float64))
    return wrap(numbers.astype(kind.numpy, copy=False), requires_grad)


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """`base` to the powers from `start` to `end`."""
    check_device(device)
    kind = get_default_dtype() if dtype is None else to_dtype(dtype)
    return wrap(np.logspace(start, end, steps, base=base).astype(kind.numpy))


# ---- random numbers


class Generator:
    """A stream of random numbers: a seed and a counter."""

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device)
        self._seed = 67280421310721
        self._offset = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream that belongs to a seed."""
        self._seed = int(seed) & 0x7FFFFFFFFFFFFFFF
        self._offset = 0
        return self

    def initial_seed(self) -> int:
        """The seed."""
        return self._seed

    def seed(self) -> int:
        """Start a stream from the system's entropy; returns its seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def get_state(self) -> Tensor:
        """Seed and counter, as a tensor."""
        return wrap(np.array([self._seed, self._offset], np.int64))

    def set_state(self, state: Tensor) -> None:
        """Go back to a state from `get_state`."""
        self._seed, self._offset = (int(x) for x in state.tolist())


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Start the default generator's stream of a seed."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Start the default generator from the system's entropy."""
    return default_generator.seed()


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Set the default generator's state."""
    default_generator.set_state(state)


def draw(kind: str, shape: tuple[int, ...], dtype: dtype_, low: Any, high: Any, generator: Generator | None) -> Tensor:
    """Random numbers as an entry of the tape."""
    source = default_generator if generator is None else generator
    tr = tape.local.trace
    tape.room(tr)
    n = count(shape)
    operands = [
        tape.scalar(source._seed, (source, "seed")),
        tape.scalar(source._offset, (source, n)),
        tape.scalar(low),
        tape.scalar(high),
    ]
    source._offset += n
    made = tape.apply(arrays.RANDOM[kind], operands, (shape, dtype))
    tape.settle(tape.local.trace)
    return made


def _random(
    name: str, kind: str, shape: tuple[int, ...], dtype: Any, device: Any, generator: Any, requires_grad: bool
) -> Tensor:
    check_device(device)
    wanted = get_default_dtype() if dtype is None else to_dtype(dtype)
    if not wanted.is_floating_point:
        raise RuntimeError(f'"{name}" not implemented for {wanted}; use a floating-point dtype')
    return _finish(draw(kind, shape, wanted, 0.0, 1.0, generator), requires_grad)


def rand(
    *sizes: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    generator: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return _random("rand", "uniform", _sizes("rand", sizes, size), dtype, device, generator, requires_grad)


def randn(
    *sizes: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    generator: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """Normal numbers of mean 0 and variance 1."""
    return _random("randn", "normal", _sizes("randn", sizes, size), dtype, device, generator, requires_grad)


def rand_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Tensor:
    """Uniform numbers in the shape and type of a tensor."""
    return rand(*input.shape, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def randn_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Tensor:
    """Normal numbers in the shape and type of a tensor."""
    return randn(*input.shape, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def randint(
    low: int, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Integers from `low` (0 by default) to `high`, excluded."""
    check_device(device)
    if size is None:
        low, high, size = 0, low, high
    if high <= low:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    kind = int64 if dtype is None else to_dtype(dtype)
    return _finish(draw("integers", _sizes("randint", (size,)), kind, int(low), int(high), generator), requires_grad)


def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: Any = None) -> Tensor:
    """Integers in the shape and type of a tensor."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.shape, dtype=dtype or input.dtype)


def randperm(
    n: int, *, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A random order of 0 to n - 1."""
    check_device(device)
    capture = tape.local.trace.capture
    if capture is not None:
        capture.refuse("drawing a random order")
    source = default_generator if generator is None else generator
    if n < 0:
        raise RuntimeError(f"randperm: n must not be negative, got {n}")
    order = np.empty(n, np.int64)
    permute(order, source)
    return wrap(order.astype((int64 if dtype is None else to_dtype(dtype)).numpy, copy=False))


def permute(order: np.ndarray, source: Generator) -> None:
    """Write a random order of 0 to n - 1 into n words."""
    state = np.array([source._seed, source._offset])
    record = np.zeros(WORDS, np.int64)
    at = state.ctypes.data
    record[:5] = permutation_kernel(), order.size, order.ctypes.data, at, at + 8
    sweep()(record.ctypes.data, 1)
    source._offset += order.size


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None, **kwargs: Any) -> Tensor:
    """Normal numbers of given means and deviations (numbers or tensors)."""
    if size is not None:
        return randn(*_sizes("normal", (size,)), generator=generator, **kwargs) * std + mean
    shape = np.broadcast_shapes(*[tuple(x.shape) for x in (mean, std) if isinstance(x, tape.TENSOR)])
    kind = next(x.dtype for x in (mean, std) if isinstance(x, tape.TENSOR))
    return randn(*shape, generator=generator, dtype=kind) * std + mean


def bernoulli(input: Tensor, *, generator: Any = None) -> Tensor:
    """1 with the given probabilities, else 0."""
    from .pointwise import convert

    return convert(draw("uniform", tuple(input.shape), input.dtype, 0.0, 1.0, generator) < input, input.dtype)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Positions drawn with the given weights, a row at a time. Observes `input`."""
    source = default_generator if generator is None else generator
    random = np.random.Generator(np.random.Philox(key=source._seed, counter=source._offset))
    weights = np.atleast_2d(input.detach().numpy()).astype(np.float64)
    if (weights < 0).any() or not np.isfinite(weights).all() or (weights.sum(1) <= 0).any():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0, or sums to zero")
    if not replacement and ((weights > 0).sum(1) < num_samples).any():
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    source._offset += weights.size * num_samples
    rows = [random.choice(w.size, num_samples, replacement, w / w.sum()) for w in weights]
    drawn = np.array(rows, np.int64).reshape(len(rows), num_samples)
    return wrap(drawn if input.ndim == 2 else drawn[0])
