"""User-defined functions: a forward and a backward in Python.

`Function.apply` runs `forward` without recording gradients, then records its results as entries of their own; a backward that
meets them calls `backward` with the gradients of all results. The trace is cut at such a call, so Python code finds values.
"""

from __future__ import annotations

from typing import Any

from .. import recording as tape
from ..ops import arrays
from ..reverse import SECOND_TIME, Graph, set_grad
from ..tensor import Tensor


class FunctionCtx:
    """What `forward` leaves for `backward`; any attribute may be set on it."""

    def __init__(self) -> None:
        self._saved: tuple[Any, ...] | None = ()
        self._not_differentiable: set[int] = set()
        self.needs_input_grad: tuple[bool, ...] = ()
        self._tensor_inputs: list[bool] = []
        self._materialize = True

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for `backward`."""
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors that were kept."""
        if self._saved is None:
            raise RuntimeError(SECOND_TIME)
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """These results have no gradient."""
        self._not_differentiable = {id(t) for t in tensors}

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Inputs that were written in place."""

    def set_materialize_grads(self, value: bool) -> None:
        """Whether gradients that nobody gave are zeros (the default) or None."""
        self._materialize = value


class _Call:
    """One call of a Function on the tape: collects the gradients of its results until the first of them is reached."""

    def __init__(
        self, kind: type[Function], ctx: FunctionCtx, slots: list[int | None], shapes: Any, inputs: int
    ) -> None:
        self._kind = kind
        self._ctx = ctx
        self._slots = slots
        self._shapes = shapes
        self._inputs = inputs
        self._gradients: dict[int, Tensor] = {}

    def __call__(self, slot: int, g: Tensor, pending: dict[int, Tensor]) -> list[Any] | None:
        self._gradients[slot] = g
        if slot != min([s for s in self._slots if s is not None]) and any(
            s in pending for s in self._slots if s is not None and s < slot
        ):
            return None
        given = []
        for place, (shape, dtype) in zip(self._slots, self._shapes, strict=True):
            found = self._gradients.pop(place, None) if place is not None else None
            if found is None and self._ctx._materialize:
                from ..functions.creation import zeros

                found = zeros(*shape, dtype=dtype)
            given.append(found)
        tr = tape.local.trace
        depth, tr.static = tr.static, 0
        try:
            results = self._kind.backward(self._ctx, *given)
        finally:
            tape.local.trace.static = depth
        results = results if isinstance(results, tuple) else (results,)
        if len(results) < self._inputs:
            raise RuntimeError(
                f"function {self._kind.__name__}Backward returned an incorrect number of gradients (expected {self._inputs}, "
                f"got {len(results)})"
            )
        tensors = [r for r, is_tensor in zip(results, self._ctx._tensor_inputs, strict=False) if is_tensor]
        return [None, *tensors]


class Function:
    """Base of user-defined functions: define static methods `forward(ctx, ...)` and `backward(ctx, *gradients)`.

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
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Turn the results' gradients into one gradient an input, None where there is none."""
        raise NotImplementedError("You must implement the backward function for custom autograd.Function.")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call the function."""
        tr = tape.local.trace
        if tr.capture is not None:
            tr.capture.refuse("a user-defined autograd Function")
        ctx = FunctionCtx()
        tensors = [a for a in args if isinstance(a, Tensor)]
        ctx.needs_input_grad = tuple([isinstance(a, Tensor) and a.requires_grad for a in args])
        ctx._tensor_inputs = [isinstance(a, Tensor) for a in args]
        enabled = tr.grad_enabled
        set_grad(False)
        try:
            if hasattr(cls, "setup_context"):
                results = cls.forward(*args)
                cls.setup_context(ctx, args, results)
            else:
                results = cls.forward(ctx, *args)
        finally:
            set_grad(enabled)
        single = not isinstance(results, tuple)
        outputs = (results,) if single else results
        if not (enabled and any(ctx.needs_input_grad)):
            return results
        made: list[Any] = []
        slots: list[int | None] = []
        tr = tape.local.trace
        tape.room(tr)
        for i, output in enumerate(outputs):
            if (
                not isinstance(output, Tensor)
                or id(output) in ctx._not_differentiable
                or not output.dtype.is_floating_point
            ):
                made.append(output)
                slots.append(None)
                continue
            operands = tape.slots_of(tr, [output, *tensors])
            key = (arrays.function.code, *operands, (cls, i, id(ctx)))
            meta = output._meta
            node = tape.extend(tr, key, arrays.function, operands, (cls, i), meta.shape, meta.dtype, True)
            node.name = cls.__name__
            made.append(tape.result(tr, node))
            slots.append(node.slot)
        shapes = [(tuple(o.shape), o.dtype) if isinstance(o, Tensor) else ((), None) for o in outputs]
        call = _Call(cls, ctx, slots, shapes, len(args))
        for slot in slots:
            if slot is not None:
                tr.functions[slot] = call
        tape.settle(tr)
        return made[0] if single else tuple(made)


__all__ = ["Function", "FunctionCtx", "Graph"]
