"""Clipping of gradients, and all parameters as one vector."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable

from .. import cat, no_grad, stack
from .. import tensor as tensor_of
from ..tensor import Tensor
from .registry import type_name

__all__ = ["clip_grad_norm_", "clip_grad_value_", "get_total_norm", "parameters_to_vector", "vector_to_parameters"]


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all `tensors` as if they were one vector, a 0-d Tensor; `foreach` is accepted and changes nothing.

    RuntimeError with `error_if_nonfinite` if it is NaN or infinite.
    """
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    order = float(norm_type)
    if not tensors:
        return tensor_of(0.0)
    total = _norm(stack([_norm(tensor, order) for tensor in tensors]), order)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {order} for gradients from `parameters` is non-finite, so it cannot be clipped. "
            "To disable this error and scale the gradients by the non-finite norm anyway, "
            "set `error_if_nonfinite=False`"
        )
    return total


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients of `parameters`, in place, to a common norm of at most `max_norm`; returns the norm before.

    >>> import fastgrad
    >>> p = fastgrad.zeros(2, requires_grad=True)
    >>> p.grad = fastgrad.tensor([3.0, 4.0])
    >>> clip_grad_norm_(p, max_norm=1.0)
    tensor(5.)
    >>> p.grad
    tensor([0.6000, 0.8000])
    """
    with no_grad():
        gradients = _gradients(parameters)
        total = get_total_norm(gradients, norm_type, error_if_nonfinite)
        factor = (float(max_norm) / (total + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients of `parameters` to ±`clip_value`, in place."""
    with no_grad():
        for gradient in _gradients(parameters):
            gradient.clamp_(-float(clip_value), float(clip_value))


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All `parameters` one behind the other, as one vector through which gradients flow.

    >>> import fastgrad
    >>> parameters_to_vector([fastgrad.ones(1, 2), fastgrad.zeros(1)])
    tensor([1., 1., 0.])
    """
    return cat([parameter.view(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Cut `vec` into pieces and make them the values of `parameters`: the inverse of `parameters_to_vector`."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected fastgrad.Tensor, but got: {type_name(vec)}")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec[start:end].view_as(parameter).data
        start = end


def _norm(tensor: Tensor, order: float) -> Tensor:
    """The vector norm of all elements."""
    if order == 2.0:
        return tensor.square().sum().sqrt()
    if order == math.inf:
        return tensor.abs().max()
    if order == -math.inf:
        return tensor.abs().min()
    if order == 0.0:
        return (tensor != 0).sum().to(tensor.dtype)
    if order == 1.0:
        return tensor.abs().sum()
    return (tensor.abs() ** order).sum() ** (1.0 / order)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    listed = list(parameters)
    if not listed and isinstance(parameters, types.GeneratorType):
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=4)
    return [parameter.grad for parameter in listed if parameter.grad is not None]
