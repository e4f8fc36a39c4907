"""Losses as modules.

`reduction` is "mean", "sum" or "none"; `size_average` and `reduce` are PyTorch's older way to say it.
"""

from ..tensor import Tensor
from . import functional as F
from .module import Module

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "MSELoss", "NLLLoss"]


class _Loss(Module):
    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        super().__init__()
        older = size_average is not None or reduce is not None
        self.reduction = (
            F.reduction_of(reduction, size_average, reduce) if older else reduction
        )  # a name is checked later


class MSELoss(_Loss):
    """`(input - target)**2`, reduced; input and target have the same shape.

    >>> import fastgrad
    >>> fastgrad.nn.MSELoss()(fastgrad.tensor([1.0, 3.0]), fastgrad.tensor([1.0, 1.0]))
    tensor(2.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class NLLLoss(_Loss):
    """`-input[i, target[i]]`, reduced: input (N, classes) are log-probabilities, target (N,) class indices.

    `weight` (classes,) scales each class, and "mean" then divides by the sum of the weights; targets equal to
    `ignore_index` don't count.

    >>> import fastgrad
    >>> fastgrad.nn.NLLLoss()(fastgrad.tensor([[-1.0, -2.0]]), fastgrad.tensor([1]))
    tensor(2.)
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class CrossEntropyLoss(_Loss):
    """`nll_loss(log_softmax(input))`: input (N, classes) are logits, target (N,) indices or (N, classes) probabilities.

    `weight` and `ignore_index` are as in NLLLoss; `label_smoothing` mixes that share of the uniform distribution into
    the target.

    >>> import fastgrad
    >>> fastgrad.nn.CrossEntropyLoss()(fastgrad.zeros(3, 2), fastgrad.tensor([0, 1, 1]))
    tensor(0.6931)
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of `sigmoid(input)` and `target` (same shape, between 0 and 1), reduced, without overflow.

    `weight` scales elements, `pos_weight` the positive term; both broadcast.

    >>> import fastgrad
    >>> fastgrad.nn.BCEWithLogitsLoss()(fastgrad.zeros(2), fastgrad.tensor([0.0, 1.0]))
    tensor(0.6931)
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )
