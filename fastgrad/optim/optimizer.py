"""The base of optimizers: parameter groups, state, saving.

A subclass writes its update as a `Rule` of tensors, (parameters and state, gradients, numbers) -> (new parameters and state),
which is recorded and lands its results in the memory of parameters and state. Hyperparameters that may change from step to
step enter as Python numbers on the tape, so a schedule records nothing anew.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

from .. import recording as tape
from ..autograd.modes import enable_grad
from ..functions.in_place import assign
from ..recording import STALE, Edge, Node
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
        capture = tape.local.trace.capture
        if capture is not None:
            self._hold_groups(capture)
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    if capture is not None:
                        p.grad = None
                    else:
                        p._grad = None
                elif p.grad is not None:
                    p._grad.detach().zero_()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update the parameters; `closure` computes the loss again, with gradients, and returns it."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        tr = tape.local.trace
        if tr.draft is not None:
            tape.flush(tr)  # an update comes back even where what it follows never does: it is a trace of its own
            tape.unfold(tr)
        if tr.capture is not None:
            self._hold_groups(tr.capture)
        for group in self.param_groups:
            params = group["params"]
            gradients = [p._grad for p in params] if tr.capture is None else [p.grad for p in params]
            for g in gradients:
                if g is None:
                    params = [p for p, g in zip(params, gradients, strict=True) if g is not None]
                    gradients = [g for g in gradients if g is not None]
                    break
            if params:
                self._step(group, params, gradients)
            if tr.capture is not None:  # a capture may end at any point
                self._hold(group)
        tr = tape.local.trace
        if tr.capture is None:
            tape.flush(tr)
        return loss

    def _hold_groups(self, capture: Any) -> None:
        """Tell `compile` which groups and parameters it goes through: where others stand later, the call is recorded again."""
        groups = self.param_groups
        capture.held.append((self.__dict__, "param_groups", groups))
        capture.hold_items(groups)
        for group in groups:
            capture.held.append((group, "params", group["params"]))
            capture.hold_items(group["params"])

    def _hold(self, group: dict[str, Any]) -> None:
        """Tell `compile` which state it has seen."""
        capture = tape.local.trace.capture
        capture.held.append((self.__dict__, "state", self.state))
        for p in group["params"]:
            state = self.state.get(p)
            if state is not None:
                capture.held.append((self.state, p, state))
                capture.held += [(state, name, value) for name, value in state.items() if isinstance(value, Tensor)]

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
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        by_number: dict[int, Tensor] = {}
        for saved, group in zip(groups, self.param_groups, strict=True):
            by_number.update(zip(saved["params"], group["params"], strict=True))
            group.update({k: deepcopy(v) for k, v in saved.items() if k != "params"})
        self.state.clear()
        for number, state in state_dict["state"].items():
            p = by_number[int(number)]
            self.state[p] = {  # as in PyTorch, tensors of the right type are shared with the dict
                k: (v if k == "step" else v.to(p.dtype)) if isinstance(v, Tensor) else deepcopy(v)
                for k, v in state.items()
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


_SWITCHES = ("weight_decay", "momentum", "nesterov", "maximize", "amsgrad", "decoupled_weight_decay")


class Rule:
    """An update rule, recorded once and found again by one edge of the trace cache.

    `function(old, gradients, numbers, *flags)` gets the lists of tensors `old` that it replaces, parameters first, and returns
    as many lists of new tensors; those whose numbers are in `counts` keep their type whatever the parameters'. `numbers` are options read for every step: names, or (name or names, function of values).
    """

    def __init__(self, function: Callable[..., Any], counts: tuple[int, ...] = ()) -> None:
        self._function = function
        self._counts = counts
        self._identity = f"{function.__module__}.{function.__qualname__}"

    @classmethod
    def with_counts(cls, *counts: int) -> Callable[[Callable[..., Any]], Rule]:
        """A decorator for a rule some of whose lists are counts."""
        return lambda function: cls(function, counts)

    def __call__(
        self, old: Sequence[list[Tensor]], gradients: list[Tensor], options: dict[str, Any], numbers: tuple[Any, ...],
        *flags: Any,
    ) -> None:  # fmt: skip
        """Record the update, and land its results in the memory of the old tensors."""
        tr = tape.local.trace
        if tr.capture is not None:
            tr.capture.switches += [(options, k, bool(options[k])) for k in _SWITCHES if k in options]
        targets = old[0] if len(old) < 2 or not any(old[1:]) else [t for part in old for t in part]
        values = []
        plain = tr.capture is None
        for n in numbers:
            v = options[n] if type(n) is str else tape._option(options, n)
            if type(v) is not float and isinstance(v, Tensor):
                plain = False
            values.append(v)
        with tape.writing:
            slots = []
            inside = 0  # how many of the tensors are on this trace already
            if plain:
                epoch, mark = tr.epoch, tr.mark
                for t in targets:
                    storage = t._storage
                    if (
                        storage is None
                        or storage.writer is not mark
                        or storage.aliases is not None
                        or storage.shared
                        or storage.array is None
                        or storage.savers
                    ):
                        plain = plain and _alone(tr, t)
                    e, slot = t._at
                    inside += e == epoch
                    slots.append(slot)
                for t in gradients:
                    e, slot = t._at
                    inside += e == epoch
                    slots.append(slot)
            if plain:
                where = tuple(slots) if inside == len(slots) else tape.slots_of(tr, targets + gradients)
                key = (self._identity, flags, where)
                edge = tr.node.next.get(key)
                if edge is not None and (not tr.written or not any([t._storage in tr.written for t in targets])):
                    tr.node = edge.end
                    tr.scalars += values
                    land(tr, targets, edge.outputs)
                    return
                start = tr.real
                made = self._record(tr, old, gradients, options, numbers, flags)
                if made is not None and tr is tape.local.trace and type(tr.node) is Node:
                    start.next[key] = Edge(tr.node, made)
                return
            self._record(tr, old, gradients, options, numbers, flags)

    def _record(
        self, tr: Any, old: Any, gradients: Any, options: Any, numbers: Any, flags: Any
    ) -> list[tuple[int, int]] | None:
        """Record the update in full; returns (first slot, new slot) of each target."""
        enabled = tr.grad_enabled
        if enabled:
            set_grad(False)
        epoch = tr.epoch
        try:
            follow_types([part for i, part in enumerate(old) if i not in self._counts])
            before = len(tr.addresses)
            landed = []
            parts = _apart(old, gradients)
            for part, g in parts:
                given = tape.numbers(options, numbers)  # anew: a write may have run the trace
                tr.static += 1
                first = len(tr.live)
                try:
                    new = self._function(part, g, given, *flags)
                finally:
                    tr.static -= 1
                    del tr.live[first:]
                tr.live += [value for values in new for value in values]  # a write may run the trace before the others
                for targets, values in zip(part, new, strict=True):
                    for target, value in zip(targets, values, strict=True):
                        assign(target, value)
                        storage = target._storage
                        landed.append((tr.written.get(storage, -1), value._at[1]))
            return landed if tr.epoch == epoch and len(tr.addresses) == before and len(parts) == 1 else None
        finally:
            if enabled:
                set_grad(True)


def follow_types(old: Sequence[list[Tensor]]) -> None:
    """State goes on in the type of its parameter where the model has been converted since the last step."""
    for part in old[1:]:
        for p, t in zip(old[0], part, strict=False):
            if t._meta.dtype is not p._meta.dtype and t._meta.shape == p._meta.shape:
                t.data = t.to(p.dtype)


def _apart(old: Sequence[list[Tensor]], gradients: list[Tensor]) -> list[tuple[Sequence[list[Tensor]], list[Tensor]]]:
    """What is updated together: all at once, or one parameter after another where two share memory.

    An update reads what the one before it has written.
    """
    storages = [t._storage for part in old for t in part if t._storage is not None]
    if len(set(map(id, storages))) == len(storages):
        return [(old, gradients)]
    return [([part[i : i + 1] for part in old], [g]) for i, g in enumerate(gradients)]


def _alone(tr: Any, t: Tensor) -> bool:
    """Whether a tensor has its memory for itself; then no other trace has anything pending there any more."""
    storage = t._storage
    if storage is None or storage.array is None or not t._whole:
        return False
    if storage.aliases is not None:
        storage.aliases = [r for r in storage.aliases if r() is not None and r() is not t] or None
        if storage.aliases is not None:
            storage.aliases.append(weakref.ref(t))
            return False
    if storage.writer is not tr.mark:
        tape.claim(tr, storage)
    return not storage.savers and not (storage.shared and tape.exported(storage))


def land(tr: Any, targets: Sequence[Tensor], landed: Sequence[tuple[int, int]]) -> None:
    """The tensors have new values, recorded before in this place."""
    written, entered, epoch = tr.written, tr.entered, tr.epoch
    for t, (first, slot) in zip(targets, landed, strict=True):
        storage = t._storage
        written[storage] = first
        entered[storage] = slot
        t._at = STALE if t._meta.requires_grad else (epoch, slot)


def check_not_negative(**options: float) -> None:
    """ValueError for a negative (or NaN) option."""
    for name, value in options.items():
        if not isinstance(value, Tensor) and not value >= 0.0:
            label = "learning rate" if name == "lr" else f"{name} value"
            raise ValueError(f"Invalid {label}: {value}")
