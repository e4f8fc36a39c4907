"""Tensor: what a user holds.

A tensor is a handle. `_at` is its (epoch, slot) on the tape while its value is pending, `_meta` tells shape, dtype and gradient
flag (the tape's node while pending, a `Signature` afterwards), `_storage` is its memory once it has some, with `_offset` and
`_strides` (None: row-major) in elements for views, and `_origin` is its place in the graph of a trace that has run. What loops
read lies in slots, which `recording.blank` fills; what is rarely set has the class's default.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from . import recording as tape
from .devices import CPU, check_device, device
from .dtypes import bool_, dtype, float32, float64, int32, int64, uint8
from .functions import creation, pointwise, reductions, shapes, views
from .functions.arguments import flag
from .hooks import RemovableHandle, Watch, watch
from .methods import Methods
from .protocols import Protocols, shared_by_numpy
from .recording import STALE, Signature, Storage

_ONLY_LEAVES = (
    "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a subgraph that doesn't "
    "require differentiation use var_no_grad = var.detach()."
)
_NO_LEAF = (
    "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad attribute won't be populated during "
    "autograd.backward(). If you indeed want the .grad field to be populated for a non-leaf Tensor, use .retain_grad() on the non-leaf "
    "Tensor. If you access the non-leaf Tensor by mistake, make sure you access the leaf Tensor instead."
)


class Size(tuple[int, ...]):
    """A shape, printed as in PyTorch."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"fastgrad.Size({list(self)})"

    def numel(self) -> int:
        """The number of elements."""
        return tape.count(self)

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if type(found) is tuple else found

    def __add__(self, other: Any) -> Any:
        joined = tuple.__add__(self, other)
        return Size(joined) if type(joined) is tuple else joined

    def __radd__(self, other: Any) -> Any:
        return Size(other + tuple(self)) if type(other) is tuple else NotImplemented

    def __mul__(self, times: Any) -> Any:
        return Size(tuple.__mul__(self, times))

    __rmul__ = __mul__


class Tensor(Protocols, Methods):
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
    _watch: Watch | None = None
    _unwritable: bool = False  # a result of a Function that shares an argument's memory
    _stands_for: Tensor | None = None
    _looked_at: bool = False  # whether more may become of its gradient than to be kept: hooks, or it stands for another
    _walked: bool = False  # whether a compiled function has recorded a walk to it, which a hook makes another one
    _writes: int = 0
    _number: tuple[Any, ...] | None = None  # what a Python number on the tape is made of
    _followed: int = -1  # the epoch in which the trace lists it although no entry made it

    def __new__(cls, *args: Any, device: Any = None) -> Tensor:
        """`Tensor(data)` or `Tensor(sizes...)`, always of the default type; `fastgrad.tensor` is the usual way."""
        check_device(device)
        if len(args) == 1:
            data = args[0]
            if isinstance(data, Tensor):
                return views.alias(data)
            if isinstance(data, np.ndarray) or not (isinstance(data, Size) or hasattr(data, "__index__")):
                if not hasattr(data, "__len__"):
                    raise TypeError(f"new(): data must be a sequence (got {type(data).__name__})")
                return creation.tensor(data, dtype=creation.get_default_dtype())
        return creation.zeros(*args) if args else creation.zeros(0)

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
        if type(value) is not bool:
            raise RuntimeError(f"requires_grad must be a bool, not {type(value).__name__}")
        if not self.is_leaf:
            raise RuntimeError(_ONLY_LEAVES)
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
        """The gradient accumulated by `backward`, or None: only leaves get one, and tensors that `retain_grad` was called of."""
        tr = tape.local.trace
        if tr.capture is not None:
            tr.capture.gradient_read(self)
        if self._grad is None and not self.is_leaf and not self.retains_grad:
            warnings.warn(_NO_LEAF, UserWarning, stacklevel=2)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if value is self:
                raise RuntimeError("can't assign a tensor as its own grad")
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

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

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
        views.set_data(self, value)

    set_ = views.set_

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
        requires_grad = flag("requires_grad_", "requires_grad", requires_grad)
        meta = self._meta
        if requires_grad == meta.requires_grad:
            return self
        if not requires_grad and not self.is_leaf:
            raise RuntimeError(_ONLY_LEAVES)
        if requires_grad and not meta.dtype.is_floating_point:
            raise RuntimeError(f"only Tensors of floating point dtype can require gradients, not {meta.dtype}")
        if type(meta) is not Signature or self._storage is None or self._storage.array is None:
            tr = tape.local.trace
            if tr.capture is not None:
                tr.capture.refuse("making a computed tensor a leaf")
            self._materialize()
            meta = self._meta
        tape.leave_capture("whether a tensor requires a gradient is changed")
        self._meta = Signature.of(meta.shape, meta.dtype, requires_grad)
        self._at = STALE
        return self

    def detach(self) -> Tensor:
        """The same memory outside of any gradient."""
        return views.alias(self)

    def detach_(self) -> Tensor:
        """Leave the graph in place. RuntimeError for a view."""
        if self._base is not None:
            raise RuntimeError("detach_: can't detach views in-place. Use detach() instead.")
        if not self.requires_grad:
            return self
        tape.leave_capture("a tensor leaves the graph in place")
        self._materialize()
        self._meta = Signature.of(self._meta.shape, self._meta.dtype)
        self._origin, self._at, self._watch = None, STALE, None
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of a tensor that is not a leaf in its `.grad`, too."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        tape.leave_capture("`retain_grad`")
        if not self.is_leaf and not self.retains_grad:
            watch(self).keeper = weakref.ref(self)

    @property
    def retains_grad(self) -> bool:
        """Whether the gradient of this tensor is kept although it is not a leaf."""
        return self._watch is not None and self._watch.keeper is not None

    def register_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Call `hook(gradient)` when this tensor's gradient is complete; a tensor it returns replaces the gradient.

        Hooks are called in the order of their registration, before the gradient is kept (`retain_grad`) or accumulated. A later
        write in place to the tensor leaves them with the value that was there before. RuntimeError unless the tensor requires a
        gradient.
        """
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if not self.is_leaf:
            return RemovableHandle(watch(self).hooks, hook)
        if self._hooks is None:
            self._hooks = {}
        self._looked_at = True
        return RemovableHandle(self._hooks, hook, leaf=self)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Call `hook(tensor)` after this leaf's gradient was accumulated. RuntimeError for tensors that are not leaves, or require
        no gradient."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if not self.is_leaf:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        if self._after_hooks is None:
            self._after_hooks = {}
        self._looked_at = True
        return RemovableHandle(self._after_hooks, hook, leaf=self)

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

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: Any = False) -> Tensor:
        """A tensor of data in this one's type."""
        return creation.tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

    def new_zeros(
        self, *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: Any = False
    ) -> Tensor:
        """Zeros in this tensor's type."""
        dtype = dtype or self.dtype
        return creation.zeros(*sizes, size=size, dtype=dtype, device=device, requires_grad=requires_grad)

    def new_ones(
        self, *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: Any = False
    ) -> Tensor:
        """Ones in this tensor's type."""
        dtype = dtype or self.dtype
        return creation.ones(*sizes, size=size, dtype=dtype, device=device, requires_grad=requires_grad)

    new_empty = new_zeros

    def new_full(
        self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: Any = False
    ) -> Tensor:
        """A number in this tensor's type."""
        dtype = dtype or self.dtype
        return creation.full(size, fill_value, dtype=dtype, device=device, requires_grad=requires_grad)


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


tape.TENSOR = Tensor
tape.exported = shared_by_numpy
tape.snapshot = lambda t: creation.wrap(np.array(t._view_of_memory(), order="C", copy=True), t._meta.requires_grad)
