"""Hooks of modules: the handle that registering one returns, and the call of a module that has some.

A hook table maps a hook's number to `Hook(call, with_kwargs, always_call)`, in the order of execution.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..hooks import RemovableHandle as _RemovableHandle
from .registry import structure_version

if TYPE_CHECKING:
    from .backward_hooks import BackwardHooks
    from .module import Module

__all__ = ["BackwardHook", "Hook", "RemovableHandle", "add_hook", "call_with_hooks"]


class Hook(NamedTuple):
    call: Callable[..., Any]
    with_kwargs: bool
    always_call: bool


class BackwardHook(NamedTuple):
    call: Callable[..., Any]
    before: bool  # whether it gets the gradients of the results only, before the module's own backward


class RemovableHandle(_RemovableHandle):
    """Takes a hook away again: by `remove()`, or at the end of a `with` block.

    >>> import fastgrad
    >>> layer = fastgrad.nn.Identity()
    >>> with layer.register_forward_hook(lambda module, arguments, output: 2 * output):
    ...     layer(21)
    42
    >>> layer(21)
    21
    """

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        structure_version[0] += 1
        super().remove()


def backward_hooks(module: Module) -> BackwardHooks:
    """What shows the gradients of one call to the module's backward hooks; loaded with the first of them."""
    from .backward_hooks import BackwardHooks

    return BackwardHooks(module)


def add_hook(table: dict[int, Any], hook: Any, prepend: bool) -> RemovableHandle:
    """Put `hook` last into `table`, or first with `prepend`."""
    structure_version[0] += 1
    return RemovableHandle(table, hook, prepend)


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward(*args, **kwargs)` between its pre-hooks, which may change the arguments, and its hooks, which may
    change the result. Hooks registered with `always_call` run even when another hook or `forward` raises. Its backward hooks
    stand next to `forward` on the way in and behind the other hooks on the way out."""
    watched = backward_hooks(module) if module._backward_hooks else None
    result = None
    called = set()
    try:
        for hook in tuple(module._forward_pre_hooks.values()):
            args, kwargs = _before(module, hook, args, kwargs)
        if watched is not None:
            args = watched.enter(args)
        result = module.forward(*args, **kwargs)
        for number, hook in tuple(module._forward_hooks.items()):
            called.add(number)
            result = _after(module, hook, args, kwargs, result)
        return result if watched is None else watched.leave(result)
    except Exception:
        for number, hook in tuple(module._forward_hooks.items()):
            if hook.always_call and number not in called:
                try:
                    result = _after(module, hook, args, kwargs, result)
                except Exception as error:
                    warnings.warn(
                        "module forward hook with ``always_call=True`` raised an exception "
                        f"that was silenced as another error was raised in forward: {error}",
                        stacklevel=3,
                    )
        raise


def _before(
    module: Module, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not hook.with_kwargs:
        answer = hook.call(module, args)
        if answer is None:
            return args, kwargs
        return (answer if isinstance(answer, tuple) else (answer,)), kwargs
    answer = hook.call(module, args, kwargs)
    if answer is None:
        return args, kwargs
    if isinstance(answer, tuple) and len(answer) == 2:
        return answer
    raise RuntimeError(f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {answer}.")


def _after(module: Module, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    answer = hook.call(module, args, kwargs, result) if hook.with_kwargs else hook.call(module, args, result)
    return result if answer is None else answer
