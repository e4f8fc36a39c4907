"""What `state_dict` and `load_state_dict` do for one module: its parameters, persistent buffers and extra state.

A state dict is flat: "child.grandchild.weight" -> Tensor. Modules are visited parents first, children in order of
registration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import no_grad
from ..tensor import Tensor
from .parameter import Parameter

if TYPE_CHECKING:
    from .module import Module

__all__ = ["EXTRA_STATE", "IncompatibleKeys", "load_own_state", "own_state", "save_own_state"]

EXTRA_STATE = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` found in one place only."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def own_state(module: Module) -> dict[str, Tensor]:
    """The Tensors of `module` itself that belong into its state dict, by name."""
    buffers = {name: b for name, b in module._buffers.items() if name not in module._non_persistent_buffers_set}
    return {name: tensor for name, tensor in (module._parameters | buffers).items() if tensor is not None}


def save_own_state(module: Module, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
    """Put the state of `module` itself, without its children, into `destination`."""
    for name, tensor in own_state(module).items():
        destination[prefix + name] = tensor if keep_vars else tensor.detach()
    if (get := getattr(module, "get_extra_state", None)) is not None:
        destination[prefix + EXTRA_STATE] = get()


def load_own_state(
    module: Module,
    state: Mapping[str, Any],
    prefix: str,
    assign: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Copy (or with `assign` bind) what `state` holds for `module` itself; what doesn't fit goes into the lists."""
    own = own_state(module)
    for name, tensor in own.items():
        key = prefix + name
        if key not in state:
            missing.append(key)
            continue
        try:
            error = _load_tensor(module, name, tensor, key, state[key], assign)
        except Exception as exception:
            error = (
                f'While copying the parameter named "{key}", whose dimensions in the model are {tensor.shape} and '
                f"whose dimensions in the checkpoint are {state[key].shape}, an exception occurred : {exception.args}."
            )
        if error:
            errors.append(error)
    extra = prefix + EXTRA_STATE
    if (put := getattr(module, "set_extra_state", None)) is not None:
        if extra in state:
            put(state[extra])
        else:
            missing.append(extra)
    elif extra in state:
        unexpected.append(extra)
    for key in state:
        if key.startswith(prefix) and key != extra:
            head, dot, _ = key[len(prefix) :].partition(".")
            if head not in (module._modules if dot else own):
                unexpected.append(key)


def _load_tensor(module: Module, name: str, tensor: Tensor, key: str, value: Any, assign: bool) -> str | None:
    """Load one Tensor; the answer is what is wrong with it."""
    if not isinstance(value, Tensor):
        return (
            f'While copying the parameter named "{key}", expected fastgrad.Tensor or Tensor-like object '
            f"from checkpoint but received {type(value)}"
        )
    if tensor.dim() == 0 and tuple(value.shape) == (1,):
        value = value[0]
    if tuple(value.shape) != tuple(tensor.shape):
        return (
            f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
            f"the shape in current model is {tensor.shape}."
        )
    if not assign:
        with no_grad():
            tensor.copy_(value)
        return None
    if isinstance(tensor, Parameter):
        if isinstance(value, Parameter):
            value.requires_grad_(tensor.requires_grad)
        else:
            value = Parameter(value, tensor.requires_grad)
    setattr(module, name, value)
    return None
