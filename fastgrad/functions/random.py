"""Random numbers: generators and what they draw.

Random tensors are entries on the tape like any other, so that compiled steps contain them; such an entry draws from its
generator's counter (see `kernels/random.py`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import recording as tape
from ..devices import check_device
from ..dispatch import tensor_operand
from ..dtypes import bool_, get_default_dtype, iinfo, int64, to_dtype
from ..dtypes import dtype as dtype_
from ..kernels.random import permutation_kernel
from ..kernels.sweep import WORDS, sweep
from ..ops import arrays
from ..ops.table import broadcast
from ..recording import count
from .arguments import integer, number
from .creation import finish, sizes_of, wrap

if TYPE_CHECKING:
    from ..tensor import Tensor


class Generator:
    """A stream of random numbers: a seed and a counter."""

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device)
        self._seed = 67280421310721
        self._offset = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream that belongs to a seed."""
        capture = tape.local.trace.capture
        if capture is not None:
            capture.seed(self)
        if not -(1 << 63) <= int(seed) < 1 << 64:
            raise ValueError(f"manual_seed: a seed has 64 bits, {seed} has more")
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


def _source(generator: Any) -> Generator:
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise TypeError(f"argument 'generator' must be fastgrad.Generator, not {type(generator).__name__}")
    return generator


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
    source = _source(generator)
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
        raise NotImplementedError(f'"{name}" not implemented for {wanted}; use a floating-point dtype')
    return finish(draw(kind, shape, wanted, 0.0, 1.0, generator), requires_grad)


def rand(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, generator: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Uniform numbers in [0, 1)."""
    return _random("rand", "uniform", sizes_of("rand", sizes, size), dtype, device, generator, requires_grad)


def randn(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, generator: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers of mean 0 and variance 1."""
    return _random("randn", "normal", sizes_of("randn", sizes, size), dtype, device, generator, requires_grad)


def rand_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, generator: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uniform numbers in the shape and type of a tensor."""
    wanted = tensor_operand(input, "rand_like").dtype if dtype is None else dtype
    return _random("rand_like", "uniform", tuple(input.shape), wanted, device, generator, requires_grad)


def randn_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, generator: Any = None, requires_grad: bool = False
) -> Tensor:
    """Normal numbers in the shape and type of a tensor."""
    wanted = tensor_operand(input, "randn_like").dtype if dtype is None else dtype
    return _random("randn_like", "normal", tuple(input.shape), wanted, device, generator, requires_grad)


def randint(
    low: Any = None, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Integers from `low` to `high`, excluded: `randint(high, size)` or `randint(low, high, size)`.

    Bounds may span the whole range of the dtype (int64 by default); RuntimeError for bounds that it does not hold.
    """
    check_device(device)
    if size is None:  # randint(high, size)
        low, high, size = None, low, high
    elif high is None:  # randint(high, size=size)
        low, high = None, low
    if size is None or high is None:
        raise TypeError("randint() takes high and size, or low, high and size")
    low = 0 if low is None else low
    kind = int64 if dtype is None else to_dtype(dtype)
    shape = sizes_of("randint", (), size)
    bounds = integer("randint", "low", low), integer("randint", "high", high)
    return finish(draw_integers("randint", shape, kind, *bounds, generator), requires_grad)


def randint_like(
    input: Tensor, low: Any, high: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Integers in the shape and type of a tensor."""
    low, high = (0, low) if high is None else (low, high)
    wanted = tensor_operand(input, "randint_like").dtype if dtype is None else dtype
    return randint(
        low, high, input.shape, generator=generator, dtype=wanted, device=device, requires_grad=requires_grad
    )


def draw_integers(
    name: str, shape: tuple[int, ...], kind: dtype_, low: int, high: int, generator: Generator | None
) -> Tensor:
    """Integers from `low` to `high`, excluded, after a look whether the dtype holds them."""
    if high <= low:
        raise RuntimeError(f"{name} expects 'from' to be less than 'to', but got from={low} >= to={high}")
    least, most = limits(kind)
    for role, x in (("from", low), ("to - 1", high - 1)):
        if not least <= x <= most:
            raise RuntimeError(f"{name}: {role} = {x} is out of bounds for {kind}, which holds {least} to {most}")
    return draw("integers", shape, kind, low, high, generator)


def limits(kind: dtype_) -> tuple[int, int]:
    """The least and the largest integer that may be drawn: what a dtype holds, or int64 for a floating-point type."""
    if kind is bool_:
        return 0, 1
    held = iinfo(int64 if kind.is_floating_point else kind)
    return held.min, held.max


def all_held(kind: dtype_) -> int:
    """The largest integer up to which a dtype holds all."""
    return 1 << (24 if kind.itemsize == 4 else 53) if kind.is_floating_point else limits(kind)[1]


def randperm(
    n: int, *, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A random order of 0 to n - 1."""
    check_device(device)
    capture = tape.local.trace.capture
    if capture is not None:
        capture.refuse("drawing a random order")
    source = _source(generator)
    n = integer("randperm", "n", n)
    if n < 0:
        raise RuntimeError(f"randperm: n must not be negative, got {n}")
    order = np.empty(n, np.int64)
    permute(order, source)
    return finish(wrap(order.astype((int64 if dtype is None else to_dtype(dtype)).numpy, copy=False)), requires_grad)


def permute(order: np.ndarray, source: Generator) -> None:
    """Write a random order of 0 to n - 1 into n words."""
    state = np.array([source._seed, source._offset])
    record = np.zeros(WORDS, np.int64)
    at = state.ctypes.data
    record[:5] = permutation_kernel(), order.size, order.ctypes.data, at, at + 8
    sweep()(record.ctypes.data, 1)
    source._offset += order.size


def normal(
    mean: Any, std: Any = 1.0, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers: `normal(mean, std)` with one of them a tensor, in its shape, or `normal(mean, std, size)` of two numbers.

    RuntimeError for a negative deviation, TypeError for two numbers without a size.

    >>> fastgrad.normal(0.0, 1.0, (2, 3)).shape
    fastgrad.Size([2, 3])
    """
    tensors = [x for x in (mean, std) if isinstance(x, tape.TENSOR) and not x._meta.weak]
    if size is None:
        if not tensors:
            raise TypeError("normal(): mean or std must be a Tensor, or size must be given")
        shape = broadcast("normal", [tuple(x.shape) for x in tensors])
        kind = tensors[0].dtype
        if dtype is not None or device is not None or requires_grad:
            raise TypeError("normal(): dtype, device and requires_grad go with a size")
    else:
        if tensors:
            raise TypeError("normal(): mean and std must be numbers where a size is given")
        shape, kind = sizes_of("normal", (), size), dtype
    mean, std = (x if isinstance(x, tape.TENSOR) else number("normal", "mean or std", x) for x in (mean, std))
    if (not std >= 0) if not isinstance(std, tape.TENSOR) else (std.numel() and bool((std < 0).any())):
        raise RuntimeError(f"normal expects all elements of std >= 0.0, got std = {std}")
    made = _random("normal", "normal", shape, kind, device, generator, False) * std + mean
    return finish(made, requires_grad)


def bernoulli(input: Tensor, p: Any = None, *, generator: Any = None) -> Tensor:
    """1 with the given probabilities, or with probability `p` in the tensor's shape, else 0.

    RuntimeError for probabilities that are not between 0 and 1.
    """
    from .pointwise import convert

    kind = tensor_operand(input, "bernoulli").dtype
    if p is not None:
        return input.new_empty(input.shape).bernoulli_(p, generator=generator)
    if not kind.is_floating_point:
        raise NotImplementedError(f'"bernoulli" not implemented for {kind}; convert the probabilities with .float()')
    made = convert(draw("uniform", tuple(input.shape), kind, 0.0, 1.0, generator) < input, kind)
    wrong = "bernoulli: all probabilities should be between 0 and 1"
    return tape.apply(arrays.required, (made, (input >= 0) & (input <= 1)), wrong)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Positions drawn with the given weights, a row at a time. Observes `input`."""
    capture = tape.local.trace.capture
    if capture is not None:
        capture.refuse("drawing by weights")
    source, num_samples = _source(generator), integer("multinomial", "num_samples", num_samples)
    if not tensor_operand(input, "multinomial").is_floating_point():
        raise RuntimeError(
            f"multinomial only supports floating-point dtypes for input, got {input.dtype}; use .float()"
        )
    if input.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: prob_dist must be 1 or 2 dim, got {input.ndim}")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    random = np.random.Generator(np.random.Philox(key=source._seed, counter=source._offset))
    weights = np.atleast_2d(input.detach().numpy()).astype(np.float64)
    if (weights < 0).any() or not np.isfinite(weights).all() or (weights.sum(1) <= 0).any():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0, or sums to zero")
    if not replacement and ((weights > 0).sum(1) < num_samples).any():
        raise RuntimeError(
            f"multinomial: cannot draw {num_samples} samples without replacement from fewer weights that are not zero"
        )
    source._offset += weights.size * num_samples
    rows = [random.choice(w.size, num_samples, replacement, w / w.sum()) for w in weights]
    drawn = np.array(rows, np.int64).reshape(len(rows), num_samples)
    return wrap(drawn if input.ndim == 2 else drawn[0])
