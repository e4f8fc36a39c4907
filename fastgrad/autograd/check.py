"""Checks of gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..functions.creation import as_tensor
from ..tensor import Tensor


class GradcheckError(RuntimeError):
    """Analytic and numerical gradients differ."""


def _outputs(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    made = function(*inputs)
    made = made if isinstance(made, (list, tuple)) else (made,)
    return [t for t in made if isinstance(t, Tensor) and t.dtype.is_floating_point]


def _numerical(function: Callable[..., Any], inputs: Sequence[Any], i: int, eps: float) -> list[np.ndarray]:
    """The Jacobians of every output with respect to input i by central differences, (inputs, outputs)."""
    base = inputs[i].detach().numpy().copy()
    columns: list[list[np.ndarray]] = []
    for place in np.ndindex(*base.shape):
        values = []
        for sign in (1, -1):
            moved = base.copy()
            moved[place] += sign * eps
            arguments = [as_tensor(moved).requires_grad_() if j == i else x for j, x in enumerate(inputs)]
            values.append([o.detach().numpy().copy() for o in _outputs(function, arguments)])
        columns.append([(up - down).reshape(-1) / (2 * eps) for up, down in zip(*values, strict=True)])
    if not columns:
        return [np.zeros((0, o.numel())) for o in _outputs(function, inputs)]
    return [np.stack([c[k] for c in columns]) for k in range(len(columns[0]))]


def _analytical(output: Tensor, t: Tensor) -> np.ndarray:
    """The Jacobian of one output by backward passes, (inputs, outputs)."""
    from . import grad

    jacobian = np.zeros((t.numel(), output.numel()))
    for k in range(output.numel()):
        g = np.zeros(output.numel())
        g[k] = 1.0
        seed = as_tensor(g.reshape(tuple(output.shape)))
        row = grad(output, t, seed.to(output.dtype), retain_graph=True, allow_unused=True)[0]
        if row is not None:
            jacobian[:, k] = row.detach().numpy().reshape(-1)
    return jacobian


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    **_: Any,
) -> bool:
    """Compare gradients of `func(*inputs)` with central differences; inputs should be float64.

    Raises GradcheckError (or returns False) where they differ by more than `atol + rtol * |numerical|`.
    """
    inputs = tuple(inputs) if isinstance(inputs, (list, tuple)) else (inputs,)
    if not any(isinstance(t, Tensor) and t.requires_grad for t in inputs):
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True."
        )
    outputs = _outputs(func, inputs)
    for i, t in enumerate(inputs):
        if not (isinstance(t, Tensor) and t.requires_grad):
            continue
        numerical = _numerical(func, inputs, i, eps)
        for k, output in enumerate(outputs):
            analytical = _analytical(output, t) if output.requires_grad else np.zeros_like(numerical[k])
            if not np.allclose(analytical, numerical[k], rtol=rtol, atol=atol):
                if not raise_exception:
                    return False
                raise GradcheckError(
                    f"Jacobian mismatch for output {k} with respect to input {i},\nnumerical:{numerical[k]}\n"
                    f"analytical:{analytical}"
                )
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    **_: Any,
) -> bool:
    """Check second derivatives: gradcheck of the gradient of `func`."""
    from . import grad

    inputs = tuple(inputs) if isinstance(inputs, (list, tuple)) else (inputs,)
    outputs = _outputs(func, inputs)
    if grad_outputs is None:
        random = np.random.default_rng(0)
        grad_outputs = [as_tensor(random.standard_normal(tuple(o.shape))).requires_grad_() for o in outputs]
    n = len(inputs)

    def gradient(*arguments: Any) -> Any:
        given, seeds = arguments[:n], arguments[n:]
        wanted = [t for t in given if isinstance(t, Tensor) and t.requires_grad]
        found = grad(_outputs(func, given), wanted, seeds, create_graph=True, allow_unused=True)
        return tuple([g for g in found if g is not None])

    return gradcheck(gradient, (*inputs, *grad_outputs), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)
