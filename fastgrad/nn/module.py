"""Module: the call, and everything that walks over parameters, buffers and submodules.

How attributes are stored and registered, and the counter `structure_version`, stand in registry.py; hooks in hooks.py;
what is saved and loaded for one module in state.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import device as device_of
from .. import dtype as DType
from .. import float32, float64, no_grad
from ..tensor import Tensor
from .hooks import BackwardHook, Hook, RemovableHandle, add_hook, call_with_hooks
from .parameter import Parameter
from .registry import Registry, structure_version
from .state import IncompatibleKeys, load_own_state, save_own_state

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Module", "structure_version"]

_ABSENT = object()


class Module(Registry):
    """Base class of all layers and models.

    A subclass calls `super().__init__()` first, assigns `Parameter`s and other Modules to attributes, and defines
    `forward`. Calling the module calls `forward` (and hooks, where there are any).

    >>> import fastgrad
    >>> from fastgrad import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Linear(2, 3)
    ...         self.scale = nn.Parameter(fastgrad.ones(1))
    ...     def forward(self, x):
    ...         return self.scale * self.hidden(x).tanh()
    >>> net = Net()
    >>> net
    Net(
      (hidden): Linear(in_features=2, out_features=3, bias=True)
    )
    >>> [name for name, _ in net.named_parameters()]
    ['scale', 'hidden.weight', 'hidden.bias']
    >>> net(fastgrad.zeros(4, 2)).shape
    fastgrad.Size([4, 3])
    """

    training: bool
    _forward_hooks: dict[int, Hook]
    _forward_pre_hooks: dict[int, Hook]
    _backward_hooks: dict[int, BackwardHook]

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.update(training=True, _forward_hooks={}, _forward_pre_hooks={}, _backward_hooks={})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._forward_hooks or self._forward_pre_hooks or self._backward_hooks:
            return call_with_hooks(self, args, kwargs)
        return self.forward(*args, **kwargs)

    # --- walking over modules, parameters and buffers ----------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted names, parents first; each once if `remove_duplicate`."""
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(seen, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules with their names, each once."""
        seen: set[Module] = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        return (child for _, child in self.named_children())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in module.__dict__[table].items():
                if member is not None and id(member) not in seen:
                    if remove_duplicate:
                        seen.add(id(member))
                    yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their dotted names, a shared one once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, a shared one once: what an optimizer is given."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their dotted names, a shared one once."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, a shared one once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at the dotted path `target` ("" is this one); AttributeError where there is none."""
        module = self
        for name in target.split(".") if target else ():
            found = getattr(module, name, _ABSENT)
            if found is _ABSENT:
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            if not isinstance(found, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at the dotted path `target`; AttributeError where there is none."""
        return self._get_member(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at the dotted path `target`; AttributeError where there is none."""
        return self._get_member(target, "_buffers", "a buffer")

    def _get_member(self, target: str, table: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        if module.__dict__[table].get(name) is None:
            raise AttributeError(f"`{name}` is not {kind}")
        return module.__dict__[table][name]

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every submodule, children first, and on this module last."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # --- modes and gradients -----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set `training` here and below: Dropout and its like look at it."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """The same as `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let all parameters require gradients, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients; with `set_to_none=False` fill them with zeros."""
        for module in self.modules():
            for parameter in module._parameters.values():
                if parameter is None or parameter.grad is None:
                    continue
                if set_to_none:
                    parameter.grad = None
                else:
                    parameter.grad = parameter.grad.detach()
                    parameter.grad.zero_()

    # --- dtype and device --------------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replace the values of all parameters, their gradients and all buffers by `fn` of them."""
        if recurse:
            for child in self.children():
                child._apply(fn, recurse)
        with no_grad():
            for parameter in self._parameters.values():
                if parameter is not None:
                    gradient = parameter.grad
                    parameter.data = fn(parameter.data)
                    if gradient is not None:
                        parameter.grad = fn(gradient)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Convert parameters and buffers of floating dtype, in place.

        The forms are `to(dtype)`, `to(device)`, `to(device, dtype)` and `to(tensor)`. The only device is the CPU. A
        dtype that is not floating is a TypeError.

        >>> import fastgrad
        >>> fastgrad.nn.Linear(2, 1).to(fastgrad.float64).weight.dtype
        fastgrad.float64
        """
        dtype = kwargs.pop("dtype", None)
        device = kwargs.pop("device", None)
        kwargs.pop("non_blocking", None)
        if kwargs:
            raise TypeError(f"to() got an unexpected keyword argument '{next(iter(kwargs))}'")
        for argument in args:
            if isinstance(argument, Tensor):
                dtype = argument.dtype
            elif isinstance(argument, DType):
                dtype = argument
            elif argument is not None and not isinstance(argument, bool):
                device = argument
        if device is not None:
            device_of(device)
        if dtype is None:
            return self
        if not dtype.is_floating_point:
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}"
            )
        return self._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)

    def float(self) -> Self:
        """The same as `to(float32)`."""
        return self.to(float32)

    def double(self) -> Self:
        """The same as `to(float64)`."""
        return self.to(float64)

    def type(self, dst_type: Any) -> Self:
        """Convert all parameters and buffers to `dst_type`, those of integer dtype too."""
        return self._apply(lambda tensor: tensor.type(dst_type))

    def cpu(self) -> Self:
        """This module: everything is on the CPU."""
        return self

    def cuda(self, device: Any = None) -> Self:
        """There is no such device; raises as `fastgrad.device("cuda")` does."""
        return self.to("cuda" if device is None else device)

    # --- state dict --------------------------------------------------------------------------------------------

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by dotted name: detached (sharing memory), or not with `keep_vars`.

        >>> import fastgrad
        >>> list(fastgrad.nn.Sequential(fastgrad.nn.Linear(1, 1)).state_dict())
        ['0.weight', '0.bias']
        """
        state = OrderedDict() if destination is None else destination
        self._save_to_state_dict(state, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy the values of `state_dict` into this module's parameters and buffers, or bind them with `assign`.

        Returns the names found on one side only; with `strict` those are a RuntimeError, as wrong shapes always are.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []

        left: list[tuple[Module, dict[str, Any], str]] = [(self, dict(state_dict), "")]
        while left:
            module, state, prefix = left.pop()
            module._load_from_state_dict(
                state, prefix, {"assign_to_params_buffers": assign}, True, missing, unexpected, errors
            )
            for name, child in reversed(module._modules.items()):
                if child is not None:
                    path = f"{prefix}{name}."
                    left.append((child, {key: value for key, value in state.items() if key.startswith(path)}, path))
        if strict and missing:
            errors.insert(0, "Missing key(s) in state_dict: {}. ".format(", ".join(f'"{key}"' for key in missing)))
        if strict and unexpected:
            place = 1 if missing else 0
            names = ", ".join(f'"{key}"' for key in unexpected)
            errors.insert(place, f"Unexpected key(s) in state_dict: {names}. ")
        if errors:
            details = "\n\t".join(errors)
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{details}")
        return IncompatibleKeys(missing, unexpected)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        save_own_state(self, destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        assign = local_metadata.get("assign_to_params_buffers", False)
        load_own_state(self, state_dict, prefix, assign, missing_keys, unexpected_keys, error_msgs)

    # --- hooks -------------------------------------------------------------------------------------------------

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after every `forward`; what it returns, unless None, replaces the output.

        `with_kwargs` makes the call `hook(module, args, kwargs, output)`; `prepend` puts the hook before the others;
        `always_call` calls it even if `forward` raises. The handle that is returned removes it.
        """
        return add_hook(self._forward_hooks, Hook(hook, with_kwargs, always_call), prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before every `forward`; what it returns, unless None, replaces the arguments.

        With `with_kwargs` the call is `hook(module, args, kwargs)` and its answer None or `(new_args, new_kwargs)`.
        """
        return add_hook(self._forward_pre_hooks, Hook(hook, with_kwargs, False), prepend)

    def register_full_backward_hook(
        self, hook: Callable[[Module, Any, Any], Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the module's arguments are there.

        Both are tuples, of the positional arguments and of the results, with None for what is no tensor or has no gradient. What
        the hook returns, unless None, replaces `grad_input`. Where no argument requires a gradient it is called with Nones when
        the gradients of the results are there.

        >>> import fastgrad
        >>> layer = fastgrad.nn.Linear(2, 1)
        >>> handle = layer.register_full_backward_hook(lambda module, inputs, outputs: print(outputs[0]))
        >>> layer(fastgrad.ones(1, 2, requires_grad=True)).sum().backward()
        tensor([[1.]])
        """
        return add_hook(self._backward_hooks, BackwardHook(hook, False), prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[[Module, Any], Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_output)` when the gradients of the results are there, before the module's own backward; what it
        returns, unless None, replaces them."""
        return add_hook(self._backward_hooks, BackwardHook(hook, True), prepend)

    # --- printed form ------------------------------------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of the printed form, before the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {indent(repr(child))}" for name, child in self._modules.items()]
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({lines[0]})"
        if lines or children:
            return f"{self._get_name()}(\n  " + "\n  ".join(lines + children) + "\n)"
        return f"{self._get_name()}()"


def indent(text: str) -> str:
    """`text` with all lines but the first moved right by two; empty lines stay empty."""
    return "\n".join(line if i == 0 or not line.strip() else "  " + line for i, line in enumerate(text.split("\n")))
