"""Parameter: a leaf Tensor that a Module registers when it is assigned to an attribute."""

from __future__ import annotations

from typing import Any, cast

from .. import empty
from ..tensor import Tensor, as_subclass_leaf

__all__ = ["Parameter"]


class Parameter(Tensor):
    """A leaf Tensor that is a model's state: assigned to an attribute of a `Module`, it is one of its `parameters()`.

    `data` is a Tensor of any shape, whose memory the Parameter shares; its history is not taken along. `requires_grad`
    is True by default, and then `data` must be of a floating dtype (RuntimeError otherwise).

    >>> import fastgrad
    >>> fastgrad.nn.Parameter(fastgrad.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        return cast(Parameter, as_subclass_leaf(cls, empty(0) if data is None else data, requires_grad))

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # all is done in __new__; Tensor.__init__ must not run
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.data.clone(), self.requires_grad)
        return memo[id(self)]
