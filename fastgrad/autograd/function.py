"""User-defined functions: a forward and a backward in Python.

`Function.apply` runs `forward` without recording gradients, then records its results as entries of their own, which the returned
tensors stand for; a backward that meets them calls `backward` with the gradients of all results. The trace is cut before such a
backward, so Python code finds values.
"""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from .. import recording as tape
from ..functions import views
from ..functions.creation import zeros
from ..functions.in_place import assign
from ..functions.pointwise import convert
from ..ops import arrays
from ..ops.arrays import sum_to
from ..recording import Signature
from ..reverse import SECOND_TIME, set_grad
from ..tensor import Tensor, handle
from .saved import Saved, unpacked

__all__ = ["Function", "FunctionCtx", "once_differentiable"]


class FunctionCtx:
    """What `forward` leaves for `backward`; any attribute may be set on it."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._to_save: tuple[Any, ...] = ()
        self._saved: tuple[Saved | None, ...] | None = ()
        self._graph: Any = None  # a weak reference to the graph that holds the call
        self._not_differentiable: tuple[Any, ...] = ()
        self._dirty: tuple[Any, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (or None) for `backward`; a second call replaces the first.

        Arguments and results of `forward` are kept with their histories, so `backward` can be differentiated again. One that is
        written to in place before `backward` reads it raises RuntimeError there.
        """
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors that were kept; RuntimeError once a backward without `retain_graph` has given them up."""
        if self._saved is None:
            raise RuntimeError(SECOND_TIME)
        return unpacked(self._saved, self._graph() if self._graph is not None else None)

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """These results have no gradient."""
        self._not_differentiable = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Arguments that `forward` wrote to in place; all of them must be among its results."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether gradients that nobody gave are zeros (the default) or None."""
        self._materialize = value


class _Call:
    """One call of a Function on the tape, and its backward."""

    def __init__(self, kind: type[Function], ctx: FunctionCtx, inputs: Sequence[bool]) -> None:
        self._kind = kind
        self._ctx = ctx
        self._inputs = inputs  # which arguments are tensors
        self.slots: list[int | None] = []  # of the results, None for those without a gradient
        self.shapes: list[Any] = []  # (shape, dtype) of the results, None for those that are not tensors

    def __call__(self, region: Any, slot: int, g: Tensor | None, pending: Any, arrived: dict[int, Any]) -> Any:
        """The gradients of the operands, or None while gradients of other results are still to come."""
        arrived[slot] = g
        if any([s in pending for s in self.slots if s is not None and s < slot]):
            return None
        given: list[Any] = []
        for place, shape in zip(self.slots, self.shapes, strict=True):
            found = arrived.get(place) if place is not None else None
            if found is None and self._ctx._materialize and shape is not None:
                found = zeros(*shape[0], dtype=shape[1])
            given.append(found)
        if self._ctx._graph is None:
            self._ctx._graph = weakref.ref(region.graph)
        tr = tape.local.trace
        depth, tr.static = tr.static, 0
        try:
            answer = self._kind.backward(self._ctx, *given)
            metas = [region.entries[x] for x in region.entries[slot].operands[1:]]
            return [None, *self._checked(_tuple(answer), metas)]
        finally:
            tape.local.trace.static = depth

    def _checked(self, answer: tuple[Any, ...], metas: Sequence[Any]) -> list[Any]:
        """What `backward` returned, as one gradient for each tensor among the arguments, in its shape and dtype."""
        name, expected = f"{self._kind.__name__}Backward", len(self._inputs)
        while len(answer) > expected and answer[-1] is None:
            answer = answer[:-1]
        if len(answer) != expected:
            raise RuntimeError(
                f"function {name} returned an incorrect number of gradients (expected {expected}, got {len(answer)})"
            )
        gradients: list[Any] = []
        for place, (g, is_tensor) in enumerate(zip(answer, self._inputs, strict=True)):
            if g is not None and not is_tensor:
                raise RuntimeError(
                    f"function {name} returned a gradient different than None at position {place + 1}, but the corresponding "
                    "forward input was not a Variable"
                )
            if g is not None and not isinstance(g, Tensor):
                raise RuntimeError(f"expected Variable or None (got {type(g).__name__})")
            if is_tensor:
                meta = metas[len(gradients)]
                gradients.append(None if g is None or not meta.requires_grad else _fitting(name, place, g, meta))
        return gradients

    def release(self) -> None:
        """Give up what was saved."""
        self._ctx._saved = None


def _fitting(name: str, place: int, g: Tensor, meta: Any) -> Tensor:
    """A gradient in the shape and dtype of what it is the gradient of."""
    shape, wanted = g._meta.shape, meta.shape
    if shape != wanted:
        lead = len(shape) - len(wanted)
        if lead < 0 or any([n not in (1, m) for n, m in zip(wanted, shape[lead:], strict=True)]):
            raise RuntimeError(
                f"Function {name} returned an invalid gradient at index {place} - got {list(shape)} but expected shape "
                f"compatible with {list(wanted)}"
            )
        g = sum_to(g, wanted)
    if g._meta.requires_grad and not tape.local.trace.grad_enabled:
        g = g.detach()
    return convert(g, meta.dtype)


class _Kind(type):
    """Function classes are called by `apply`, not made into objects."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"{cls.__name__}: the methods of an autograd Function are static: call {cls.__name__}.apply(...) instead of making "
            "an object"
        )


class Function(metaclass=_Kind):
    """Base of user-defined functions: define static methods `forward(ctx, ...)` and `backward(ctx, *gradients)`.

    Or `forward(...)` without the context and `setup_context(ctx, inputs, output)`. `backward` gets one gradient for each result and
    returns one for each argument, None for those that are not tensors or need none. A gradient is converted to its argument's
    dtype, and summed if the argument was broadcast to its shape; any other shape is a RuntimeError.

    >>> class Double(fastgrad.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g * 2
    >>> x = fastgrad.ones(2, requires_grad=True)
    >>> Double.apply(x).sum().backward()
    >>> x.grad
    tensor([2., 2.])
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the results; the first argument is the context (unless `setup_context` is defined)."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Leave on `ctx` what `backward` needs; without it, `forward` gets the context as its first argument."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Turn the results' gradients into one gradient an input, None where there is none."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with backward "
            "mode AD."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Call the function. Keywords are for functions with `setup_context` only, which sees their values in place."""
        tr = tape.local.trace
        if tr.capture is not None:
            tr.capture.refuse("a user-defined autograd Function")
        separate = cls.setup_context is not Function.setup_context
        if separate:
            args, kwargs = _bound(cls.forward, args, kwargs), {}
        ctx = FunctionCtx()
        is_tensor = [isinstance(a, Tensor) for a in args]
        ctx.needs_input_grad = tuple([t and a.requires_grad for a, t in zip(args, is_tensor, strict=True)])
        enabled = tr.grad_enabled
        recorded = enabled and any(ctx.needs_input_grad)
        inputs = [a for a, t in zip(args, is_tensor, strict=True) if t]
        before = [_shadow(t) for t in inputs] if recorded else []
        set_grad(False)
        try:
            if separate:
                results = cls.forward(*args)
                cls.setup_context(ctx, args, results)
            else:
                results = cls.forward(ctx, *args, **kwargs)
        finally:
            set_grad(enabled)
        outputs = list(results) if isinstance(results, tuple) else [results]
        _check_marks(ctx, inputs, outputs, recorded)
        if separate:
            _check_saved(ctx, inputs, outputs, recorded)
        for i, t in enumerate(outputs):
            if not recorded and _among(t, inputs) and (t.requires_grad or not _among(t, ctx._dirty)):
                outputs[i] = views.alias(t)
        if recorded:
            _record(cls, ctx, is_tensor, inputs, before, outputs)
        return tuple(outputs) if isinstance(results, tuple) else outputs[0]


def _among(t: Any, others: Sequence[Any]) -> bool:
    return any([t is other for other in others])


def _check_marks(ctx: FunctionCtx, inputs: Sequence[Tensor], outputs: Sequence[Any], recorded: bool) -> None:
    """The arguments of `mark_dirty`, `mark_non_differentiable` and `save_for_backward`."""
    for t in ctx._dirty:
        if not isinstance(t, Tensor):
            raise RuntimeError(f"mark_dirty can only accept variables, but got an argument of type {type(t).__name__}")
        if not _among(t, outputs):
            raise RuntimeError(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that are "
                "modified inplace must all be outputs of the Function."
            )
        if not _among(t, inputs):
            warnings.warn(
                "ctx.mark_dirty() received a tensor that was not an input. Only input Tensors that have been mutated should be "
                "passed to ctx.mark_dirty().",
                stacklevel=3,
            )
        elif recorded and t._meta.requires_grad and t.is_leaf:
            raise RuntimeError("a leaf Variable that requires grad has been used in an in-place operation.")
    for t in ctx._not_differentiable:
        if not isinstance(t, Tensor):
            raise RuntimeError(f"mark_non_differentiable only accepts variable arguments, but got {type(t).__name__}")
    for i, t in enumerate(ctx._to_save):
        if recorded and t is not None and not isinstance(t, Tensor):
            raise TypeError(
                f"save_for_backward can only save variables, but argument {i} is of type {type(t).__name__}"
            )


def _check_saved(ctx: FunctionCtx, inputs: Sequence[Tensor], outputs: Sequence[Any], recorded: bool) -> None:
    """`setup_context` sees results before they stand for the call: an argument among them would be saved for another tensor."""
    for t in ctx._to_save:
        if _among(t, inputs) and _among(t, outputs) and not _among(t, ctx._dirty) and (recorded or not t.requires_grad):
            raise RuntimeError(
                "An input that has been returned as-is as output is being saved for backward. This is not supported if you "
                "override setup_context: return and save x.view_as(x), or save it inside of forward."
            )


def _shadow(t: Tensor) -> Tensor:
    """An argument's history as it is before `forward`, which may write to the argument."""
    meta = t._meta
    if not meta.requires_grad or t.is_leaf:
        return t
    tr = tape.local.trace
    if type(t._meta) is not Signature and t._at[0] != tr.epoch:
        tape.enter(tr, t)
    meta = t._meta
    if type(meta) is not Signature:
        made: Tensor = tape.blank(t._at, meta)
        tr.live.append(made)
        return made
    made = handle(meta, None)
    views.place(made, t, t._strides, 0, t._whole)
    made._origin, made._stands_for, made._looked_at = t._origin, t._stands_for, t._looked_at
    return made


def _record(
    cls: type[Function],
    ctx: FunctionCtx,
    is_tensor: Sequence[bool],
    inputs: Sequence[Tensor],
    before: Sequence[Tensor],
    outputs: list[Any],
) -> None:
    """Put the results on the tape, behind the arguments as they were."""
    tr = tape.local.trace
    tape.room(tr)
    differentiable = [
        isinstance(o, Tensor) and o.dtype.is_floating_point and not _among(o, ctx._not_differentiable) for o in outputs
    ]
    values = [o for o, wanted in zip(outputs, differentiable, strict=True) if wanted]
    slots = tape.slots_of(tr, [*before, *values])
    behind, own = slots[: len(before)], iter(slots[len(before) :])
    call = _Call(cls, ctx, is_tensor)
    for i, (output, wanted) in enumerate(zip(outputs, differentiable, strict=True)):
        call.shapes.append((tuple(output.shape), output.dtype) if isinstance(output, Tensor) else None)
        if not wanted:
            if isinstance(output, Tensor) and output._meta.requires_grad:
                outputs[i] = views.alias(output)
            call.slots.append(None)
            continue
        operands = (next(own), *behind)
        meta = output._meta
        key = (arrays.function.code, *operands, (cls, i))
        node = tape.extend(tr, key, arrays.function, operands, (cls, i), meta.shape, meta.dtype, True)
        node.name = f"{cls.__name__}Backward"
        call.slots.append(node.slot)
        tr.functions[node.slot] = call
        shares = output._storage is not None and _among(output._storage, [t._storage for t in inputs])
        outputs[i] = _standing_for(node, output, _among(output, inputs), _among(output, ctx._dirty), shares)
    _save(ctx, call, inputs, behind, outputs)
    tape.settle(tape.local.trace)


def _standing_for(node: Any, output: Tensor, is_input: bool, is_dirty: bool, shares: bool) -> Tensor:
    """The tensor to return for a result: itself, with the history of the call; a view of it if it is an argument. One that shares
    an argument's memory must not be written to: the argument would get the history of the write instead of the call's."""
    tr = tape.local.trace
    if is_input and is_dirty:
        return assign(output, tape.result(tr, node))
    if is_input:
        made = tape.result(tr, node)
        made._unwritable = True
        return views.place(made, output, views.strides_of(output), 0, output._whole)
    tape.follow(tr, output)
    output._at, output._meta, output._origin = (tr.epoch, node.slot), node, None
    output._unwritable = shares
    return output


def _save(
    ctx: FunctionCtx, call: _Call, inputs: Sequence[Tensor], behind: Sequence[int], outputs: Sequence[Any]
) -> None:
    """Keep what `save_for_backward` named. Versions of memory that waits to be written are not known: it is written first."""
    kept, ctx._to_save = ctx._to_save, ()
    tr = tape.local.trace
    if any([t is not None and t._storage in tr.written for t in kept]):
        tape.flush(tr)
    saved: list[Saved | None] = []
    for t in kept:
        slot = None
        for output, place in zip(outputs, call.slots, strict=True):
            if output is t and place is not None:
                slot = place
        if slot is None and t is not None and t._meta.requires_grad and not t.is_leaf:
            for given, place in zip(inputs, behind, strict=True):
                if given is t:
                    slot = place
        saved.append(None if t is None else Saved(t, slot))
    ctx._saved = tuple(saved)


@functools.lru_cache(maxsize=256)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


def _bound(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of `forward` in their places, defaults filled in."""
    bound = _signature(forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args


class _Once(Function):
    """A gradient that must not be differentiated: the value of the first argument, with the others behind it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *behind: Any) -> Tensor:
        return views.alias(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a `backward` that must not be differentiated again: a second derivative through it raises RuntimeError."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        tr = tape.local.trace
        enabled = tr.grad_enabled
        set_grad(False)
        try:
            answer = backward(ctx, *gradients)
        finally:
            set_grad(enabled)
        if not enabled:
            return answer
        behind = [g for g in gradients if isinstance(g, Tensor) and g.requires_grad]
        if not behind:
            return answer
        made = [_Once.apply(a, *behind) if isinstance(a, Tensor) else a for a in _tuple(answer)]
        return tuple(made)

    return wrapped


def _tuple(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)
