"""Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019).

The step count is a tensor like the moments, so a compiled step advances it; bias corrections are computed in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..dtypes import float64
from ..functions.creation import tensor
from ..functions.pointwise import convert, maximum, sqrt
from ..tensor import Tensor
from .optimizer import Optimizer, Rule, check_not_negative


@Rule.with_counts(1)
def _adam(
    old: Sequence[Sequence[Tensor]], gradients: Sequence[Tensor], numbers: Sequence[Tensor], decays: bool, decoupled: bool,
    maximize: bool,
) -> tuple[list[Any], ...]:  # fmt: skip
    params, steps, means, squares, tops = old
    lr, beta1, beta2, rest1, rest2, eps, weight_decay, shrink = numbers
    new: tuple[list[Any], ...] = ([], [], [], [], [])
    for i, (p, g, step, mean, square) in enumerate(zip(params, gradients, steps, means, squares, strict=True)):
        if maximize:
            g = -g
        if decays:
            if decoupled:
                p = p * shrink
            else:
                g = g + p * weight_decay
        step = step + 1
        count = convert(step, float64)
        mean = mean + (g - mean) * rest1
        square = square * beta2 + g * g * rest2
        size = convert(lr / (1 - beta1**count), p.dtype)
        spread = convert(sqrt(1 - beta2**count), p.dtype)
        top = square
        if tops:
            top = maximum(tops[i], square)
            new[4].append(top)
        denominator = sqrt(top) / spread + eps
        new[0].append(p - mean / denominator * size)
        new[1].append(step)
        new[2].append(mean)
        new[3].append(square)
    return new


_NUMBERS = (
    "lr",
    ("betas", lambda b: float(b[0])),
    ("betas", lambda b: float(b[1])),
    ("betas", lambda b: 1.0 - b[0]),
    ("betas", lambda b: 1.0 - b[1]),
    "eps",
    "weight_decay",
    (("lr", "weight_decay"), lambda lr, decay: 1.0 - lr * decay),
)


class Adam(Optimizer):
    """Adam: steps along running means of gradients divided by roots of running means of their squares.

    >>> w = fastgrad.ones(2, requires_grad=True)
    >>> optimizer = fastgrad.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([0.9000, 0.9000])
    """

    _decoupled = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, foreach: Any = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False, fused: Any = None, decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr, epsilon=eps, weight_decay=weight_decay)
        for i, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay or self._decoupled,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _step(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        for p in params:
            if "step" not in self.state[p]:
                self.state[p]["step"] = tensor(0.0)
        steps = [self.state[p]["step"] for p in params]
        means, squares = self._state(params, "exp_avg"), self._state(params, "exp_avg_sq")
        tops = self._state(params, "max_exp_avg_sq") if group["amsgrad"] else []
        decays, decoupled = group["weight_decay"] != 0, group["decoupled_weight_decay"]
        _adam((params, steps, means, squares, tops), gradients, group, _NUMBERS, decays, decoupled, group["maximize"])


class AdamW(Adam):
    """Adam with weight decay that acts on the parameters, not on the gradients."""

    _decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)
