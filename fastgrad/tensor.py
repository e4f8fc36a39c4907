"""Tensor: what a user holds.

A tensor is a handle. `_at` is its (epoch, slot) on the tape while its value is pending, `_meta` tells shape, dtype and gradient
flag (the tape's node while pending, a `Signature` afterwards), `_storage` is its memory once it has some, with `_offset` and
`_strides` (None: row-major) in elements for views, and `_origin` is its place in the graph of a trace that has run. What loops
read lies in slots, which `recording.blank` fills; what is rarely set has the class's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from sys import getrefcount
from typing import Any

import numpy as np

from . import recording as tape
from .devices import CPU, device
from .dispatch import binary, pair
from .dtypes import bool_, dtype, float32, float64, int32, int64, uint8
from .functions import creation, in_place, indexing, pointwise, products, reductions, shapes, views
from .ops import arrays
from .ops import elementwise as e
from .recording import STALE, Signature, Storage


class Size(tuple[int, ...]):
    """A shape, printed as in PyTorch."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"fastgrad.Size({list(self)})"

    def numel(self) -> int:
        """The number of elements."""
        return tape.count(self)


class Removable:
    """What registering a hook returns; `remove()` takes the hook away."""

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Take the hook away."""
        self._hooks.pop(self._key, None)


class Tensor:
    """A multi-dimensional array that records what is done with it, for gradients.

    >>> x = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ("__dict__", "__weakref__", "_at", "_grad", "_meta", "_origin", "_storage", "_whole")

    _at: tuple[int, int]
    _meta: Any
    _storage: Any
    _whole: bool  # whether it is all of its storage, row-major
    _origin: Any
    _grad: Tensor | None
    _offset: int = 0
    _strides: tuple[int, ...] | None = None
    _base: Tensor | None = None
    _detached: bool = False
    _hooks: dict[int, Any] | None = None
    _after_hooks: dict[int, Any] | None = None
    _retains: bool = False
    _stands_for: Tensor | None = None
    _writes: int = 0
    _number: tuple[Any, ...] | None = None  # what a Python number on the tape is made of
    _followed: int = -1  # the epoch in which the trace lists it although no entry made it
    __array_priority__ = 1000

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor(data)` or `Tensor(sizes...)`, always of the default type; `fastgrad.tensor` is the usual way."""
        if len(args) == 1 and not isinstance(args[0], int):
            made = creation.tensor(args[0], dtype=kwargs.get("dtype") or creation.get_default_dtype())
        elif args:
            made = creation.zeros(*args)
        else:
            made = creation.zeros(0)
        return made

    # ---- what it is

    @property
    def shape(self) -> Size:
        """The sizes of the dimensions."""
        return Size(self._meta.shape)

    @property
    def dtype(self) -> dtype:
        """The type of the elements."""
        return self._meta.dtype

    @property
    def device(self) -> device:
        """Always the CPU."""
        return CPU

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._meta.shape)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are computed for it."""
        self._look()
        return self._meta.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than by an operation with a gradient."""
        self._look()
        meta = self._meta
        return not meta.requires_grad or (type(meta) is Signature and self._origin is None)

    def _look(self) -> None:
        """A tensor whose memory was written through another one finds its place again: it may have got a history."""
        tr = tape.local.trace
        if self._followed == tr.epoch and self._at[0] != tr.epoch and not self._detached:
            tr.static += 1
            try:
                tape.enter(tr, self)
            finally:
                tr.static -= 1

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by `backward`, or None."""
        tr = tape.local.trace
        if tr.capture is not None:
            tr.capture.gradient_read(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"assigned grad expected to be a Tensor or None but got {type(value).__name__}")
            if value._meta.shape != self._meta.shape:
                raise RuntimeError(
                    f"assigned grad has data of a different size: {list(value.shape)} for a tensor of {list(self.shape)}"
                )
            if value._meta.dtype is not self._meta.dtype:
                raise RuntimeError(
                    f"assigned grad has data of a different type: {value.dtype} for a tensor of {self.dtype}"
                )
        tr = tape.local.trace
        if tr.capture is not None:
            tr.capture.gradient_written(self)
        self._grad = value

    @property
    def grad_fn(self) -> Any:
        """What made it, for tensors with a gradient that are not leaves."""
        if self.is_leaf:
            return None
        from .autograd.graph import GradFn

        return GradFn.of(self)

    @property
    def data(self) -> Tensor:
        """The same memory outside of any gradient."""
        return views.alias(self)

    @data.setter
    def data(self, value: Tensor) -> None:
        value = value.detach()
        if value._storage is None or value._storage.array is None:
            tape.materialize(value)
        tape.flush(tape.local.trace)
        views.move(self, value)
        self._meta = Signature.of(value._meta.shape, value._meta.dtype, self._meta.requires_grad)
        self._at = STALE

    @property
    def T(self) -> Tensor:
        """The transpose: all dimensions in reverse order."""
        return shapes.permute(self, *range(self.ndim - 1, -1, -1)) if self.ndim else shapes.permute(self, ())

    @property
    def mT(self) -> Tensor:
        """The last two dimensions exchanged."""
        if self.ndim < 2:
            raise RuntimeError(
                f"tensor.mT is only supported on matrices or batches of matrices. Got {self.ndim}-D tensor."
            )
        return shapes.transpose(self, -2, -1)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._meta.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._meta.numel * self._meta.dtype.itemsize

    @property
    def is_cuda(self) -> bool:
        """False: there is only the CPU."""
        return False

    @property
    def _version(self) -> int:
        storage = self._storage
        return self._writes + (0 if storage is None else storage.version + (storage in tape.local.trace.written))

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self._meta.shape[reductions.wrap_dim("size", dim, self.ndim)]

    def stride(self, dim: int | None = None) -> Any:
        """The element strides, or one of them."""
        strides = views.strides_of(self)
        return strides if dim is None else strides[reductions.wrap_dim("stride", dim, self.ndim)]

    def storage_offset(self) -> int:
        """The place of the first element in the shared memory, in elements."""
        return self._offset

    def data_ptr(self) -> int:
        """The address of the first element."""
        self._materialize()
        return self._storage.address + self._offset * self._meta.dtype.itemsize

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order."""
        return views.is_contiguous(self._meta.shape, views.strides_of(self))

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self._meta.shape)

    ndimension = dim

    def numel(self) -> int:
        """The number of elements."""
        return self._meta.numel

    nelement = numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self._meta.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self._meta.dtype.is_floating_point

    # ---- observation

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

    def _view_of_memory(self) -> np.ndarray:
        """A NumPy view of the elements."""
        tr = tape.local.trace
        if tr.capture is not None:
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

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The elements as a NumPy array that shares the memory: writes are seen on both sides."""
        if self._meta.requires_grad and not force:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        array = self._view_of_memory()
        tape.protect({self._storage: 0})
        self._storage.shared = True
        tr = tape.local.trace
        if self._storage in tr.entered:
            tape.flush(tr)  # what was recorded reads the memory before its new holder can write to it
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def item(self) -> Any:
        """The only element, as a Python number."""
        meta = self._meta
        if meta.numel != 1:
            raise RuntimeError(f"a Tensor with {meta.numel} elements cannot be converted to Scalar")
        if self._storage is not None and self._whole and self._storage.array is not None:
            tr = tape.local.trace
            if tr.capture is None and self._storage not in tr.written:
                return self._storage.array.item()
        return self._view_of_memory().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._view_of_memory().tolist()

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

    def __iter__(self) -> Iterator[Tensor]:
        if not self._meta.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(shapes.unbind(self, 0))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 and spec else repr(self)

    def __repr__(self) -> str:
        from .printing import tensor_text

        return tensor_text(self)

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        from .serialize import rebuild

        return rebuild, (type(self), self.detach().clone().numpy().copy(), self.requires_grad and self.is_leaf)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment. "
                "Use .detach() first."
            )
        made = creation.wrap(self.detach()._view_of_memory().copy(order="C"), self._meta.requires_grad)
        made.__class__ = type(self)
        if self._grad is not None:
            made._grad = self._grad.__deepcopy__(memo)
        memo[id(self)] = made
        return made

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    # ---- gradients

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Accumulate the gradient of this tensor in the `.grad` of the leaves it was computed from.

        Arguments: `gradient`, of this tensor's shape, is needed unless it has one element; `retain_graph` keeps what a second
        backward needs; `create_graph` records the backward itself, for higher derivatives; `inputs` limits the leaves.
        """
        tape.backward(self, gradient, retain_graph, create_graph, inputs)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Start (or stop) recording operations on this leaf for gradients."""
        meta = self._meta
        if requires_grad == meta.requires_grad:
            return self
        if not requires_grad and not self.is_leaf:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
                "subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if requires_grad and not meta.dtype.is_floating_point:
            raise RuntimeError(f"only Tensors of floating point dtype can require gradients, not {meta.dtype}")
        if type(meta) is not Signature or self._storage is None or self._storage.array is None:
            tr = tape.local.trace
            if tr.capture is not None:
                tr.capture.refuse("making a computed tensor a leaf")
            self._materialize()
            meta = self._meta
        self._meta = Signature.of(meta.shape, meta.dtype, requires_grad)
        self._at = STALE
        return self

    def detach(self) -> Tensor:
        """The same memory outside of any gradient."""
        return views.alias(self)

    def detach_(self) -> Tensor:
        """Leave the graph in place."""
        self._materialize()
        self._meta = Signature.of(self._meta.shape, self._meta.dtype)
        self._origin, self._at = None, STALE
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of a tensor that is not a leaf in its `.grad`, too."""
        if not self._meta.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if not self.is_leaf:
            self._retains = True
            self._announce()

    @property
    def retains_grad(self) -> bool:
        """Whether the gradient of this tensor is kept although it is not a leaf."""
        return self._retains

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Removable:
        """Call `hook(gradient)` when this tensor's gradient is complete; what it returns replaces the gradient."""
        if not self._meta.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self._hooks is None:
            self._hooks = {}
        key = max(self._hooks, default=0) + 1
        self._hooks[key] = hook
        if not self.is_leaf:
            self._announce()
        return Removable(self._hooks, key)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], Any]) -> Removable:
        """Call `hook(tensor)` after this leaf's gradient was accumulated."""
        if not self.is_leaf:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        if self._after_hooks is None:
            self._after_hooks = {}
        key = max(self._after_hooks, default=0) + 1
        self._after_hooks[key] = hook
        return Removable(self._after_hooks, key)

    def _announce(self) -> None:
        """Tell the graph that this tensor wants to see its gradient."""
        tr = tape.local.trace
        if type(self._meta) is Signature:
            graph, slot = self._origin
            graph.hooks[slot] = self
        else:
            slot = self._at[1] if self._at[0] == tr.epoch else tape.enter(tr, self)
            if type(self._meta) is Signature:
                self._announce()
            else:
                tr.hooks[slot] = self

    # ---- types and devices

    to = pointwise.to
    type = pointwise.type

    def float(self) -> Tensor:
        """As float32."""
        return pointwise.convert(self, float32)

    def double(self) -> Tensor:
        """As float64."""
        return pointwise.convert(self, float64)

    def long(self) -> Tensor:
        """As int64."""
        return pointwise.convert(self, int64)

    def int(self) -> Tensor:
        """As int32."""
        return pointwise.convert(self, int32)

    def byte(self) -> Tensor:
        """As uint8."""
        return pointwise.convert(self, uint8)

    def bool(self) -> Tensor:
        """As bool."""
        return pointwise.convert(self, bool_)

    def type_as(self, other: Tensor) -> Tensor:
        """In another tensor's type."""
        return pointwise.convert(self, other.dtype)

    def cpu(self) -> Tensor:
        """Itself."""
        return self

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        """An honest error: there is no CUDA here."""
        device("cuda")
        return self

    def pin_memory(self) -> Tensor:
        """Itself."""
        return self

    def new_tensor(self, data: Any, *, dtype: Any = None, requires_grad: Any = False) -> Tensor:
        """A tensor of data in this one's type."""
        return creation.tensor(data, dtype=dtype or self.dtype, requires_grad=requires_grad)

    def new_zeros(self, *size: Any, dtype: Any = None, requires_grad: Any = False) -> Tensor:
        """Zeros in this tensor's type."""
        return creation.zeros(*size, dtype=dtype or self.dtype, requires_grad=requires_grad)

    def new_ones(self, *size: Any, dtype: Any = None, requires_grad: Any = False) -> Tensor:
        """Ones in this tensor's type."""
        return creation.ones(*size, dtype=dtype or self.dtype, requires_grad=requires_grad)

    new_empty = new_zeros

    def new_full(self, size: Any, fill_value: Any, *, dtype: Any = None, requires_grad: Any = False) -> Tensor:
        """A number in this tensor's type."""
        return creation.full(size, fill_value, dtype=dtype or self.dtype, requires_grad=requires_grad)

    # ---- operators

    __add__ = binary(e.add, operator=True)
    __radd__ = binary(e.add, swapped=True, operator=True)
    __sub__ = binary(e.sub, operator=True)
    __rsub__ = binary(e.sub, swapped=True, operator=True)
    __mul__ = binary(e.mul, operator=True)
    __rmul__ = binary(e.mul, swapped=True, operator=True)
    __truediv__ = binary(e.div, operator=True)
    __rtruediv__ = binary(e.div, swapped=True, operator=True)
    __floordiv__ = binary(e.floor_divide, operator=True)
    __rfloordiv__ = binary(e.floor_divide, swapped=True, operator=True)
    __mod__ = binary(e.remainder, operator=True)
    __rmod__ = binary(e.remainder, swapped=True, operator=True)
    __lt__ = binary(e.lt, operator=True)
    __le__ = binary(e.le, operator=True)
    __gt__ = binary(e.gt, operator=True)
    __ge__ = binary(e.ge, operator=True)
    __eq__ = binary(e.eq, operator=True)  # type: ignore[assignment]
    __ne__ = binary(e.ne, operator=True)  # type: ignore[assignment]
    __and__ = binary(e.bitwise_and, operator=True)
    __or__ = binary(e.bitwise_or, operator=True)
    __xor__ = binary(e.bitwise_xor, operator=True)
    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__
    __pow__ = pointwise.pow
    __neg__ = pointwise.neg
    __abs__ = pointwise.abs
    __invert__ = pointwise.invert
    __matmul__ = pair(arrays.matmul, products.matmul)
    __getitem__ = indexing.getitem
    __setitem__ = indexing.setitem

    def __pos__(self) -> Tensor:
        return self

    def __rpow__(self, base: Any) -> Tensor:
        return pointwise.pow(base, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return products.matmul(creation.as_tensor(other), self)

    __iadd__, __isub__ = in_place.add_, in_place.sub_
    __imul__, __itruediv__ = in_place.mul_, in_place.div_
    __ipow__, __imod__, __ifloordiv__ = in_place.pow_, in_place.remainder_, in_place.floor_divide_

    # ---- the functions, as methods

    add, sub, mul, div = pointwise.add, pointwise.sub, pointwise.mul, pointwise.div
    subtract, multiply, divide, true_divide = pointwise.sub, pointwise.mul, pointwise.div, pointwise.div
    floor_divide, remainder, pow = pointwise.floor_divide, pointwise.remainder, pointwise.pow
    neg, negative, abs, absolute, sign = pointwise.neg, pointwise.neg, pointwise.abs, pointwise.abs, pointwise.sign
    exp, exp2, expm1 = pointwise.exp, pointwise.exp2, pointwise.expm1
    log, log2, log10, log1p = pointwise.log, pointwise.log2, pointwise.log10, pointwise.log1p
    sqrt, rsqrt, square, reciprocal = pointwise.sqrt, pointwise.rsqrt, pointwise.square, pointwise.reciprocal
    sin, cos, tan, tanh = pointwise.sin, pointwise.cos, pointwise.tan, pointwise.tanh
    asin, acos, atan, atan2 = pointwise.asin, pointwise.acos, pointwise.atan, pointwise.atan2
    arcsin, arccos, arctan, arctan2 = pointwise.asin, pointwise.acos, pointwise.atan, pointwise.atan2
    sinh, cosh, hypot, sinc = pointwise.sinh, pointwise.cosh, pointwise.hypot, pointwise.sinc
    asinh, acosh, atanh = pointwise.asinh, pointwise.acosh, pointwise.atanh
    arcsinh, arccosh, arctanh = pointwise.asinh, pointwise.acosh, pointwise.atanh
    logaddexp, xlogy = pointwise.logaddexp, pointwise.xlogy
    deg2rad, rad2deg = pointwise.deg2rad, pointwise.rad2deg
    sigmoid, relu, erf = pointwise.sigmoid, pointwise.relu, pointwise.erf
    erfc, erfinv = pointwise.erfc, pointwise.erfinv
    floor, ceil, trunc, round = pointwise.floor, pointwise.ceil, pointwise.trunc, pointwise.round
    isnan, isfinite, isinf = pointwise.isnan, pointwise.isfinite, pointwise.isinf
    logical_not, logical_and = pointwise.logical_not, pointwise.logical_and
    logical_or, logical_xor = pointwise.logical_or, pointwise.logical_xor
    eq, ne, lt, le, gt, ge = pointwise.eq, pointwise.ne, pointwise.lt, pointwise.le, pointwise.gt, pointwise.ge
    maximum, minimum = pointwise.maximum, pointwise.minimum
    clamp, clip, clamp_min, clamp_max = pointwise.clamp, pointwise.clamp, pointwise.clamp_min, pointwise.clamp_max
    lerp, addcmul, addcdiv = pointwise.lerp, pointwise.addcmul, pointwise.addcdiv
    isclose, allclose, equal = pointwise.isclose, pointwise.allclose, pointwise.equal
    bitwise_not = pointwise.invert

    sum, mean, prod = reductions.sum, reductions.mean, reductions.prod
    max, min, amax, amin = reductions.max, reductions.min, reductions.amax, reductions.amin
    argmax, argmin, var, std = reductions.argmax, reductions.argmin, reductions.var, reductions.std
    all, any, logsumexp, norm, cumsum = (
        reductions.all,
        reductions.any,
        reductions.logsumexp,
        reductions.norm,
        reductions.cumsum,
    )

    reshape, view, flatten = shapes.reshape, shapes.view_as_shape, shapes.flatten
    squeeze, unsqueeze, permute = shapes.squeeze, shapes.unsqueeze, shapes.permute
    transpose, swapaxes, t, movedim = shapes.transpose, shapes.transpose, shapes.t, shapes.movedim
    expand, expand_as, view_as, repeat, tile = (
        shapes.expand,
        shapes.expand_as,
        shapes.view_as,
        shapes.repeat,
        shapes.tile,
    )
    contiguous, clone, narrow, split, chunk = (
        shapes.contiguous,
        shapes.clone,
        shapes.narrow,
        shapes.split_method,
        shapes.chunk,
    )
    unbind, select, tril, triu, flip = shapes.unbind, shapes.select, shapes.tril, shapes.triu, shapes.flip

    matmul, mm, bmm, mv, dot = products.matmul, products.mm, products.bmm, products.mv, products.dot
    outer, ger, addmm, trace, diagonal, diag = (
        products.outer,
        products.outer,
        products.addmm,
        products.trace,
        products.diagonal,
        products.diag,
    )

    gather, scatter, scatter_add = indexing.gather, indexing.scatter, indexing.scatter_add
    index_select, index_add, index_copy, index_fill = (
        indexing.index_select,
        indexing.index_add,
        indexing.index_copy,
        indexing.index_fill,
    )
    masked_fill, masked_select, nonzero, take = (
        indexing.masked_fill,
        indexing.masked_select,
        indexing.nonzero,
        indexing.take,
    )
    topk, sort, argsort, unique = indexing.topk, indexing.sort, indexing.argsort, indexing.unique
    repeat_interleave, bernoulli, multinomial = (
        indexing.repeat_interleave,
        creation.bernoulli,
        creation.multinomial,
    )

    add_, sub_, mul_, div_, pow_, neg_ = (
        in_place.add_,
        in_place.sub_,
        in_place.mul_,
        in_place.div_,
        in_place.pow_,
        in_place.neg_,
    )
    abs_, exp_, log_, sqrt_, square_ = in_place.abs_, in_place.exp_, in_place.log_, in_place.sqrt_, in_place.square_
    reciprocal_, tanh_, sigmoid_, relu_ = (
        in_place.reciprocal_,
        in_place.tanh_,
        in_place.sigmoid_,
        in_place.relu_,
    )
    sin_, cos_, floor_, ceil_ = in_place.sin_, in_place.cos_, in_place.floor_, in_place.ceil_
    clamp_, clamp_min_, clamp_max_ = in_place.clamp_, in_place.clamp_min_, in_place.clamp_max_
    addcmul_, addcdiv_, lerp_, remainder_ = (
        in_place.addcmul_,
        in_place.addcdiv_,
        in_place.lerp_,
        in_place.remainder_,
    )
    copy_, fill_, zero_ = in_place.copy_, in_place.fill_, in_place.zero_
    uniform_, normal_, bernoulli_, random_ = (
        in_place.uniform_,
        in_place.normal_,
        in_place.bernoulli_,
        in_place.random_,
    )
    masked_fill_ = in_place.writer("masked_fill_", indexing.masked_fill)
    scatter_ = in_place.writer("scatter_", indexing.scatter)
    scatter_add_ = in_place.writer("scatter_add_", indexing.scatter_add)
    index_add_ = in_place.writer("index_add_", indexing.index_add)
    index_copy_ = in_place.writer("index_copy_", indexing.index_copy)
    index_fill_ = in_place.writer("index_fill_", indexing.index_fill)

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """Own elements where the condition is true, else those of `other`."""
        return pointwise.where(condition, self, other)

    def softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """See `fastgrad.nn.functional.softmax`."""
        from .nn.functional import softmax

        return softmax(self, dim, dtype=dtype)

    def log_softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """See `fastgrad.nn.functional.log_softmax`."""
        from .nn.functional import log_softmax

        return log_softmax(self, dim, dtype=dtype)


def handle(meta: Signature, storage: Storage | None) -> Tensor:
    """A tensor on existing memory."""
    t: Tensor = tape.blank(STALE, meta)
    t._storage = storage
    return t


def as_subclass_leaf(cls: type[Tensor], data: Tensor, requires_grad: bool) -> Tensor:
    """A leaf of a subclass of Tensor on another tensor's memory."""
    source = data.detach()
    if source._storage is None or source._storage.array is None:
        tape.materialize(source)
    t: Tensor = tape.blank(STALE, Signature.of(source._meta.shape, source._meta.dtype, requires_grad), cls)
    if requires_grad and not t._meta.dtype.is_floating_point:
        raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
    views.move(t, source)
    return t


def _shared_by_numpy(storage: Storage) -> bool:
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

tape.TENSOR = Tensor
tape.exported = _shared_by_numpy
tape.snapshot = lambda t: creation.wrap(np.array(t._view_of_memory(), order="C", copy=True), t._meta.requires_grad)
