"""Grad modes: context managers and decorators that switch the recording of gradients in this thread."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from .. import recording as tape
from ..reverse import set_grad

F = TypeVar("F", bound=Callable[..., Any])


class _Mode:
    """Sets the grad mode on entry and the previous one on exit; usable as a decorator."""

    _enabled = False

    def __init__(self) -> None:
        self._previous: list[bool] = []

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and callable(args[0]) and not kwargs:  # used as a decorator without parentheses
            return cls()(args[0])
        return object.__new__(cls)

    def __enter__(self) -> Any:
        self._previous.append(tape.local.trace.grad_enabled)
        set_grad(self._enabled)
        return self

    def __exit__(self, *exception: Any) -> None:
        set_grad(self._previous.pop())

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)._again(self):
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    def _again(self) -> Any:
        return type(self)()


class no_grad(_Mode):
    """Operations are not recorded for gradients.

    >>> w = fastgrad.ones(2, requires_grad=True)
    >>> with fastgrad.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """


class enable_grad(_Mode):
    """Operations are recorded for gradients, inside of `no_grad`."""

    _enabled = True


class inference_mode(_Mode):
    """As `no_grad`; `inference_mode(False)` does nothing."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self._mode = mode
        self._inferred: list[bool] = []

    def __enter__(self) -> Any:
        tr = tape.local.trace
        self._previous.append(tr.grad_enabled)
        self._inferred.append(tr.inference)
        if self._mode:
            tr.inference = True
            set_grad(False)
        return self

    def __exit__(self, *exception: Any) -> None:
        tape.local.trace.inference = self._inferred.pop()
        super().__exit__(*exception)

    def _again(self) -> Any:
        return inference_mode(self._mode)


class set_grad_enabled(_Mode):
    """Switch the grad mode, as a function or as a context manager."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self._enabled = bool(mode)
        self._before = tape.local.trace.grad_enabled
        set_grad(self._enabled)

    def __enter__(self) -> Any:
        self._previous.append(self._before)
        set_grad(self._enabled)
        return self

    def __call__(self, function: F) -> F:
        set_grad(self._before)  # as a decorator it takes effect in the function only
        return super().__call__(function)

    def _again(self) -> Any:
        return set_grad_enabled(self._enabled)


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside of `inference_mode`."""
    return tape.local.trace.inference


def is_grad_enabled() -> bool:
    """Whether operations are recorded for gradients in this thread."""
    return tape.local.trace.grad_enabled
