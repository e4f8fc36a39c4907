"""Stochastic gradient descent, with momentum (Sutskever et al. 2013, in PyTorch's form)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer, Rule, check_not_negative


@Rule
def _sgd(
    old: Sequence[Sequence[Tensor]], gradients: Sequence[Tensor], numbers: Sequence[Tensor], decays: bool, nesterov: bool,
    maximize: bool, first: bool,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    params, buffers = old
    lr, weight_decay, momentum, share = (*numbers, None, None, None)[:4]
    new_params, new_buffers = [], []
    for i, (p, g) in enumerate(zip(params, gradients, strict=True)):
        if maximize:
            g = -g
        if decays:
            g = g + p * weight_decay
        if buffers:
            buffer = g * 1 if first else buffers[i] * momentum + g * share
            new_buffers.append(buffer)
            g = g + buffer * momentum if nesterov else buffer
        new_params.append(p - g * lr)
    return new_params, new_buffers


class SGD(Optimizer):
    """`p -= lr * g`, where g is the gradient plus `weight_decay * p`, or its running sum with `momentum`.

    >>> w = fastgrad.ones(2, requires_grad=True)
    >>> optimizer = fastgrad.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([0.8000, 0.8000])
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False, *, maximize: bool = False, foreach: Any = None, differentiable: bool = False,
        fused: Any = None,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _step(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        momentum, decays = group["momentum"], group["weight_decay"] != 0
        if not momentum and not decays:
            _sgd((params, []), gradients, group, ("lr",), False, False, group["maximize"], False)
            return
        flags = (decays, group["nesterov"], group["maximize"])
        if not momentum:
            _sgd((params, []), gradients, group, _NUMBERS, *flags, False)
            return
        fresh = {id(p) for p in params if self.state[p].get("momentum_buffer") is None}
        for first in (True, False):
            some = [(p, g) for p, g in zip(params, gradients, strict=True) if (id(p) in fresh) == first]
            if some:
                chosen = [p for p, _ in some]
                buffers = self._state(chosen, "momentum_buffer")
                _sgd((chosen, buffers), [g for _, g in some], group, _NUMBERS, *flags, first)


_NUMBERS = ("lr", "weight_decay", "momentum", ("dampening", lambda share: 1.0 - share))
