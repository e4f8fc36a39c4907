"""Backward hooks of modules: what shows a module's gradients to its hooks.

A module with such hooks gets its tensors through a `_Gate` and hands its results out through another: Functions that return
what they get, whose backward calls the hooks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..autograd import Function, is_grad_enabled
from ..tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

__all__ = ["BackwardHooks"]

Gradients = Sequence[Tensor | None]


class _Gate(Function):
    """The tensors themselves; their gradients go through `seen`, which may replace them."""

    @staticmethod
    def forward(ctx: Any, seen: Callable[[Gradients], Gradients], *tensors: Tensor) -> Any:
        ctx.seen = seen
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*[t for t in tensors if not t.requires_grad])
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        return None, *ctx.seen(gradients)


class BackwardHooks:
    """One call of a module: `enter` takes its arguments, `leave` its result."""

    def __init__(self, module: Module) -> None:
        self.module = module
        hooks = tuple(module._backward_hooks.values())
        self.before = [hook.call for hook in hooks if hook.before]
        self.after = [hook.call for hook in hooks if not hook.before]
        self.inputs: list[int] | None = None  # which arguments are tensors; None if none of them requires a gradient
        self.outputs: list[int] | None = None
        self.input_count = self.output_count = 0
        self.results: Gradients | None = None  # the gradients of the results, between the two gates

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, watched."""
        self.input_count = len(args)
        args, self.inputs = _through(args, self._arrived)
        return args

    def leave(self, result: Any) -> Any:
        """The result, watched: a tensor or a tuple of them."""
        if not isinstance(result, (Tensor, tuple)):
            warnings.warn(
                "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors but received "
                f"{type(result)}",
                stacklevel=4,
            )
        items = result if isinstance(result, tuple) else (result,)
        self.output_count = len(items)
        items, self.outputs = _through(items, self._begin)
        return items if isinstance(result, tuple) else items[0]

    def _begin(self, gradients: Gradients) -> Gradients:
        """The gradients of the results have come."""
        assert self.outputs is not None
        self.results = _spread(self.outputs, gradients, self.output_count)
        for hook in self.before:
            replaced = hook(self.module, self.results)
            if replaced is not None:
                self.results = _same_number(replaced, self.results, "Backward pre hook", "grad_output")
        results = self.results
        if self.inputs is None and self.after:
            self._call_without_inputs()
        return [results[i] for i in self.outputs]

    def _call_without_inputs(self) -> None:
        warnings.warn(
            "Full backward hook is firing when gradients are computed with respect to module outputs since no inputs require "
            "gradients.",
            stacklevel=2,
        )
        nothing = (None,) * self.input_count
        for hook in self.after:
            answer = hook(self.module, nothing, self.results)
            if answer is not None and not (isinstance(answer, tuple) and all([g is None for g in answer])):
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always return None or None for all "
                    "gradients."
                )
        self.results = None

    def _arrived(self, gradients: Gradients) -> Gradients:
        """The gradients of the arguments have come."""
        assert self.inputs is not None
        if self.results is None:  # they have not passed the results: a derivative of a derivative
            return gradients
        found: Gradients = _spread(self.inputs, gradients, self.input_count)
        for hook in self.after:
            replaced = hook(self.module, found, self.results)
            if replaced is not None:
                found = _same_number(replaced, found, "Backward hook", "grad_input")
        self.results = None
        return [found[i] for i in self.inputs]


def _through(items: tuple[Any, ...], seen: Callable[[Gradients], Gradients]) -> tuple[Any, list[int] | None]:
    """Items with the tensors among them through a gate, and their places; as they are if no gradient will come."""
    places = [i for i, item in enumerate(items) if isinstance(item, Tensor)]
    if not is_grad_enabled() or not any([items[i].requires_grad for i in places]):
        return items, None
    watched = list(items)
    for i, t in zip(places, _Gate.apply(seen, *[items[i] for i in places]), strict=True):
        watched[i] = t
    return (tuple(watched) if type(items) is tuple else type(items)(*watched)), places


def _spread(places: Sequence[int], gradients: Gradients, count: int) -> tuple[Tensor | None, ...]:
    """Gradients at the places of their tensors, None elsewhere."""
    spread: list[Tensor | None] = [None] * count
    for place, g in zip(places, gradients, strict=True):
        spread[place] = g
    return tuple(spread)


def _same_number(replaced: Any, present: Gradients, hook: str, what: str) -> Gradients:
    if len(replaced) != len(present):
        raise RuntimeError(
            f"{hook} returned an invalid number of {what}, got {len(replaced)}, but expected {len(present)}"
        )
    return tuple(replaced)
