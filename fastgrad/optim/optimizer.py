"""The base of optimizers: parameter groups, state, saving.

A subclass writes its update as a composite of tensors, (parameters, gradients, state, numbers) -> (new parameters, new state);
`update` records it and lands the results in the memory of parameters and state. Hyperparameters that may change from step to
step enter as Python numbers on the tape, so a schedule records nothing anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

from .. import recording as tape
from ..autograd.modes import enable_grad
from ..functions.in_place import assign
from ..reverse import set_grad
from ..tensor import Tensor


class Optimizer:
    """Base class. `params` are tensors, (name, tensor) pairs, or dicts with `params` and options of their own."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got Tensor"
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own."""
        group = dict(param_group)
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else [p[1] if isinstance(p, tuple) else p for p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if len({id(p) for p in params}) != len(params) or any(id(p) in known for p in params):
            raise ValueError("some parameters appear in more than one parameter group")
        group["params"] = params
        for name, value in self.defaults.items():
            group.setdefault(name, value)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if set_to_none:
                        p.grad = None
                    else:
                        p._grad.detach().zero_()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update the parameters; `closure` computes the loss again, with gradients, and returns it."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        tr = tape.local.trace
        enabled = tr.grad_enabled
        if enabled:
            set_grad(False)
        try:
            for group in self.param_groups:
                found = [(p, p.grad) for p in group["params"]]
                params = [p for p, g in found if g is not None]
                if params:
                    self._step(group, params, [g for _, g in found if g is not None])
        finally:
            if enabled:
                set_grad(True)
        tr = tape.local.trace
        if tr.capture is None:
            tape.flush(tr)
        return loss

    def _step(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        raise NotImplementedError

    def _state(self, params: list[Tensor], name: str) -> list[Tensor]:
        """A piece of state for each parameter, zeros at first."""
        found = []
        for p in params:
            state = self.state[p]
            value = state.get(name)
            if value is None:
                value = state[name] = zeros_for(p)
            found.append(value)
        return found

    # ---- saving

    def state_dict(self) -> dict[str, Any]:
        """Options and state, parameters numbered in their order."""
        numbers: dict[int, int] = {}
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
        groups = [
            {**{k: v for k, v in group.items() if k != "params"}, "params": [numbers[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": {numbers[id(p)]: dict(s) for p, s in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take options and state from `state_dict`; the groups must have the same sizes."""
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(g["params"]) != len(h["params"]) for g, h in zip(groups, self.param_groups, strict=True)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
        by_number: dict[int, Tensor] = {}
        for saved, group in zip(groups, self.param_groups, strict=True):
            by_number.update(zip(saved["params"], group["params"], strict=True))
            group.update({k: deepcopy(v) for k, v in saved.items() if k != "params"})
        self.state.clear()
        for number, state in state_dict["state"].items():
            p = by_number[int(number)]
            self.state[p] = {
                k: v.detach().clone() if isinstance(v, Tensor) else deepcopy(v) for k, v in state.items()
            }

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join(lines) + "\n)"


def zeros_for(p: Tensor) -> Tensor:
    """Zeros in the shape of a parameter, in memory of their own."""
    import numpy as np

    from ..functions.creation import wrap

    return wrap(np.zeros(tuple(p.shape), p.dtype.numpy))


def update(rule: Callable[..., Any], old: Sequence[Sequence[Tensor]], *arguments: Any) -> None:
    """Record `rule(*old, *arguments)`, which returns new tensors for the old ones, and land them in their memory."""
    new = rule(*old, *arguments)
    for targets, values in zip(old, new, strict=True):
        for target, value in zip(targets, values, strict=True):
            if value is not None:
                assign(target, value)


def check_not_negative(**options: float) -> None:
    """ValueError for a negative (or NaN) option."""
    for name, value in options.items():
        if not isinstance(value, Tensor) and not value >= 0.0:
            label = "learning rate" if name == "lr" else f"{name} value"
            raise ValueError(f"Invalid {label}: {value}")
