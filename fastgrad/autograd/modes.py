"""Grad modes: context managers and decorators that switch the recording of gradients in this thread."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from .. import recording as tape
from ..reverse import set_grad

F = TypeVar("F", bound=Callable[..., Any])


def _switch(enabled: bool) -> None:
    """Set the grad mode; in inference mode nothing is recorded, whatever is asked for."""
    set_grad(enabled and not tape.local.trace.inference)


class _Mode:
    """Sets the grad mode on entry and the previous one on exit; usable as a decorator."""

    _enabled = False

    def __init__(self) -> None:
        self._previous: list[Any] = []

    def __enter__(self) -> None:
        self._previous.append(tape.local.trace.grad_enabled)
        _switch(self._enabled)

    def __exit__(self, *exception: Any) -> None:
        set_grad(self._previous.pop())

    def __call__(self, function: F) -> F:
        if not callable(function):
            raise TypeError(f"{type(self).__name__}: expected a function to decorate, got {type(function).__name__}")
        made: Any = function
        if inspect.isclass(function):
            warnings.warn(
                f"{type(self).__name__}: decorating a class is deprecated: it changes into a function, and the mode holds in "
                "its constructor only. Decorate its methods instead",
                FutureWarning,
                stacklevel=2,
            )
            made = functools.partial(function)
        if inspect.isgeneratorfunction(function):
            return _in_turns(self._again, function)  # type: ignore[return-value]

        @functools.wraps(function, updated=() if inspect.isclass(function) else ("__dict__",))
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return made(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    def _again(self) -> _Mode:
        """The same mode for another call of a decorated function, which may be running already."""
        return type(self)()


def _in_turns(mode: Callable[[], _Mode], function: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function whose generators run in a mode and are left by it whenever they yield."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        try:
            with mode():
                value = generator.send(None)
            while True:
                try:
                    given = yield value
                except GeneratorExit:
                    with mode():
                        generator.close()
                    raise
                except BaseException as error:
                    with mode():
                        value = generator.throw(error)
                else:
                    with mode():
                        value = generator.send(given)
        except StopIteration as end:
            return end.value

    return wrapped


class _Plain(_Mode):
    """A mode without arguments, which decorates without parentheses, too."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return object.__new__(cls) if function is None else cls()(function)


class no_grad(_Plain):
    """Operations are not recorded for gradients.

    As a context manager or as a decorator of a function or of a generator function, with or without parentheses. Tensors that
    are made with `requires_grad=True` inside keep it.

    >>> w = fastgrad.ones(2, requires_grad=True)
    >>> with fastgrad.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """


class enable_grad(_Plain):
    """Operations are recorded for gradients, inside of `no_grad`."""

    _enabled = True


class inference_mode(_Mode):
    """As `no_grad`, and `is_inference_mode_enabled()` says so; `inference_mode(False)` is the ordinary mode again."""

    def __new__(cls, mode: Any = True) -> Any:
        return object.__new__(cls) if isinstance(mode, bool) else cls()(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self._mode = mode

    def __enter__(self) -> None:
        tr = tape.local.trace
        self._previous.append((tr.grad_enabled, tr.inference))
        tr.inference = self._mode
        set_grad(not self._mode)

    def __exit__(self, *exception: Any) -> None:
        enabled, tape.local.trace.inference = self._previous.pop()
        set_grad(enabled)

    def _again(self) -> inference_mode:
        made: inference_mode = inference_mode(self._mode)
        return made


class set_grad_enabled(_Mode):
    """Switch the grad mode, as a function or as a context manager. TypeError unless `mode` is a bool."""

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise TypeError(
                f"set_grad_enabled(): argument 'enabled' (position 1) must be bool, not {type(mode).__name__}"
            )
        super().__init__()
        self._enabled = self.mode = mode
        self.prev = tape.local.trace.grad_enabled
        _switch(mode)

    def __enter__(self) -> None:
        _switch(self.mode)

    def __exit__(self, *exception: Any) -> None:
        set_grad(self.prev)

    def __call__(self, function: F) -> F:
        set_grad(self.prev)  # as a decorator it takes effect in the function only
        return super().__call__(function)

    def __repr__(self) -> str:
        return f"fastgrad.set_grad_enabled(mode={self.mode})"

    def _again(self) -> set_grad_enabled:
        return set_grad_enabled(self.mode)


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside of `inference_mode`."""
    return tape.local.trace.inference


def is_grad_enabled() -> bool:
    """Whether operations are recorded for gradients in this thread."""
    return tape.local.trace.grad_enabled
