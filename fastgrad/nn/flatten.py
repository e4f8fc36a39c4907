"""Flatten."""

from ..tensor import Tensor
from .module import Module

__all__ = ["Flatten"]


class Flatten(Module):
    """Makes the dimensions from `start_dim` to `end_dim` one; by default everything behind the batch dimension.

    >>> import fastgrad
    >>> fastgrad.nn.Flatten()(fastgrad.ones(32, 1, 28, 28)).shape
    fastgrad.Size([32, 784])
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
