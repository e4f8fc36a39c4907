"""Autograd where it is rarely looked at: each case runs in PyTorch and here, and has the same values or the same error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad

torch = pytest.importorskip("torch")

CASES: list[Callable[[Any], Any]] = []
ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)


def case(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    CASES.append(function)
    return function


def cases(**bodies: Callable[[Any], Any]) -> None:
    """Cases that are one expression each."""
    for name, body in bodies.items():
        body.__name__ = name
        CASES.append(body)


def plain(value: Any) -> Any:
    """Tensors as lists of rounded numbers with their dtype and flag, everything in them compared."""
    if hasattr(value, "requires_grad"):
        numbers = np.round(value.detach().numpy().astype(np.float64), 5).tolist()
        return numbers, str(value.dtype).rpartition(".")[2], value.requires_grad
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def outcome(T: Any, program: Callable[[Any], Any]) -> Any:
    """What a program returns, or the class of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plain(program(T))
        except ERRORS as error:
            return type(error)


def leaf(T: Any, *shape: int) -> Any:
    count = int(np.prod(shape or (3,)))
    return (T.arange(float(count)) + 1).reshape(shape or (3,)).requires_grad_()


# ---------------------------------------------------------------------------------------------- gradients assigned

ASSIGNED: dict[str, Callable[[Any, Any], Any]] = {
    "shape": lambda T, p: T.ones(2),
    "dtype": lambda T, p: T.ones(3, dtype=T.float64),
    "integers": lambda T, p: T.ones(3, dtype=T.int64),
    "number": lambda T, p: 1.0,
    "array": lambda T, p: np.ones(3),
    "list": lambda T, p: [1.0, 2.0, 3.0],
    "itself": lambda T, p: p,
    "computed": lambda T, p: p * 2,
    "none": lambda T, p: None,
    "scalar": lambda T, p: T.tensor(1.0),
    "row": lambda T, p: T.ones(1, 3),
    "data": lambda T, p: p.data,
    "parameter": lambda T, p: T.nn.Parameter(T.ones(3)),
    "expanded": lambda T, p: T.ones(1).expand(3),
    "strided": lambda T, p: T.arange(6.0)[::2],
}
for _name, _make in ASSIGNED.items():

    def _assigned(T: Any, make: Any = _make) -> Any:
        p = leaf(T)
        p.grad = make(T, p)
        return p.grad

    _assigned.__name__ = f"grad_assigned_{_name}"
    CASES.append(_assigned)


@case
def grad_deleted(T: Any) -> Any:
    p = leaf(T)
    p.sum().backward()
    del p.grad
    return p.grad


@case
def grad_is_a_part_of_a_flat_array(T: Any) -> Any:
    p, flat = leaf(T), T.zeros(6)
    p.grad = flat[2:5]
    for _ in range(2):
        (p * 2).sum().backward()
    return flat


@case
def grad_shared_by_two(T: Any) -> Any:
    p, q, g = leaf(T), leaf(T), T.zeros(3)
    p.grad = q.grad = g
    ((p * 2).sum() + (q * 3).sum()).backward()
    return g


@case
def root_is_a_leaf_and_its_gradient_is_written_later(T: Any) -> Any:
    p, g = leaf(T), T.ones(3)
    p.backward(g)
    g.add_(1)
    return p.grad


@case
def gradients_of_two_leaves_are_two(T: Any) -> Any:
    p, q = leaf(T), leaf(T)
    (p + q).backward(T.ones(3))
    p.grad.mul_(5)
    return q.grad


@case
def a_hook_returns_what_it_keeps(T: Any) -> Any:
    p, kept = leaf(T), T.ones(3) * 3
    p.register_hook(lambda g: kept)
    p.sum().backward()
    kept.add_(1)
    return p.grad


# ------------------------------------------------------------------------------------------------------- the flag


def _set_flag(t: Any, value: Any) -> Any:
    t.requires_grad = value
    return t


cases(
    flag_of_integers=lambda T: T.ones(3, dtype=T.int64).requires_grad_(),
    flag_set_on_integers=lambda T: _set_flag(T.ones(3, dtype=T.int64), True),
    flag_1=lambda T: _set_flag(T.ones(3), 1),
    flag_none=lambda T: _set_flag(T.ones(3), None),
    flag_text=lambda T: _set_flag(T.ones(3), "x"),
    flag_numpy=lambda T: _set_flag(T.ones(3), np.True_),
    flag_method_1=lambda T: T.ones(3).requires_grad_(1),
    flag_off_computed=lambda T: _set_flag(leaf(T) * 2, False),
    flag_on_computed=lambda T: _set_flag(leaf(T) * 2, True),
    flag_method_on_computed=lambda T: (leaf(T) * 2).requires_grad_(True),
    flag_method_off_computed=lambda T: (leaf(T) * 2).requires_grad_(False),
    detach_view=lambda T: (leaf(T) * 1)[:2].detach_(),
    detach_view_of_data=lambda T: T.ones(3).data[:2].detach_(),
    detach_detached=lambda T: (leaf(T) * 1).detach().detach_(),
    detach_computed=lambda T: (leaf(T) * 1).detach_(),
)


@case
def a_view_made_under_no_grad_is_written(T: Any) -> Any:
    p = leaf(T)
    with T.no_grad():
        v = p[:2]
    return v.mul_(2)


@case
def a_view_of_a_computed_tensor_made_under_no_grad_is_written(T: Any) -> Any:
    p = leaf(T) * 1
    with T.no_grad():
        v = p[:2]
    return v.mul_(2)


@case
def a_detached_view_is_written(T: Any) -> Any:
    p = leaf(T)
    p.detach()[:2].mul_(2)
    return p


# --------------------------------------------------------------------------------------- arguments of backward, grad


def _after_backward(T: Any, shape: tuple[int, ...], *args: Any, **kwargs: Any) -> Any:
    p = leaf(T, *shape) if shape else T.tensor(2.0, requires_grad=True)
    (p * 2).backward(*args, **kwargs)
    return p.grad


cases(
    backward_of_many=lambda T: _after_backward(T, (3,)),
    backward_of_one=lambda T: _after_backward(T, (1, 1)),
    backward_without_history=lambda T: T.ones(()).backward(),
    gradient_too_short=lambda T: _after_backward(T, (3,), T.ones(2)),
    gradient_to_broadcast=lambda T: _after_backward(T, (3,), T.ones(1)),
    gradient_scalar=lambda T: _after_backward(T, (3,), T.tensor(1.0)),
    gradient_list=lambda T: _after_backward(T, (3,), [1.0, 1.0, 1.0]),
    gradient_list_of_one=lambda T: _after_backward(T, (), [1.0]),
    gradient_number=lambda T: _after_backward(T, (), 2.0),
    gradient_array=lambda T: _after_backward(T, (1,), np.ones(1)),
    gradient_double=lambda T: _after_backward(T, (3,), T.ones(3, dtype=T.float64)),
    gradient_integers=lambda T: _after_backward(T, (3,), T.ones(3, dtype=T.int64)),
    gradient_of_one_for_a_scalar=lambda T: _after_backward(T, (), T.ones(1)),
    gradient_scalar_for_one=lambda T: _after_backward(T, (1,), T.ones(())),
    gradient_with_history=lambda T: _after_backward(T, (3,), leaf(T), create_graph=True),
    inputs_empty=lambda T: _after_backward(T, (1,), inputs=[]),
    inputs_without_flag=lambda T: _after_backward(T, (1,), inputs=[T.ones(1)]),
    backward_of_none_of_them=lambda T: T.autograd.backward([]),
    backward_of_a_generator=lambda T: T.autograd.backward(t for t in [leaf(T).sum()]),
    backward_gradient_number=lambda T: T.autograd.backward(leaf(T).sum(), 2.0),
    backward_too_few_gradients=lambda T: T.autograd.backward([leaf(T) * 2, leaf(T).sum()], [T.ones(3)]),
)


def _two(T: Any, **kwargs: Any) -> Any:
    """Gradients where the second input takes no part."""
    p, q = leaf(T), leaf(T)
    return T.autograd.grad((p**2).sum(), [p, q], **kwargs)


def _rows(T: Any, factors: Any, *extra: Any, **kwargs: Any) -> Any:
    p = leaf(T)
    return T.autograd.grad(p**2, [p, *[make(T) for make in extra]], factors, is_grads_batched=True, **kwargs)


@case
def grad_of_a_dict(T: Any) -> Any:
    p, q = leaf(T), leaf(T)
    return T.autograd.grad((p * q).sum(), {"p": p, "q": q})


@case
def grad_of_a_generator(T: Any) -> Any:
    p = leaf(T)
    return T.autograd.grad((p * 2).sum(), (t for t in [p]))


@case
def rows_of_a_hessian(T: Any) -> Any:
    p = leaf(T)
    (g,) = T.autograd.grad((p**3).prod(), p, create_graph=True)
    return T.autograd.grad(g, p, T.eye(3), is_grads_batched=True)


@case
def rows_with_their_own_derivatives(T: Any) -> Any:
    p = leaf(T)
    (rows,) = T.autograd.grad(p**3, p, T.eye(3), is_grads_batched=True, create_graph=True)
    return rows, T.autograd.grad(rows.sum(), p)


@case
def rows_of_two_inputs_and_outputs(T: Any) -> Any:
    w, x = leaf(T, 2, 3), leaf(T)
    outputs = [(w @ x).tanh(), w.sum()]
    return T.autograd.grad(outputs, [w, x], [T.ones(4, 2), T.arange(4.0)], is_grads_batched=True)


cases(
    grad_unused=lambda T: _two(T),
    grad_unused_allowed=lambda T: _two(T, allow_unused=True),
    grad_unused_zeros=lambda T: _two(T, materialize_grads=True),
    grad_unused_zeros_with_history=lambda T: _two(T, materialize_grads=True, create_graph=True),
    grad_unused_zeros_refused=lambda T: _two(T, materialize_grads=True, allow_unused=False),
    grad_of_nothing=lambda T: T.autograd.grad(leaf(T).sum(), []),
    grad_of_none=lambda T: T.autograd.grad(leaf(T).sum(), None),
    grad_from_none=lambda T: T.autograd.grad(None, leaf(T)),
    grad_factor_shape=lambda T: T.autograd.grad(leaf(T) * 2, leaf(T), T.ones(2)),
    rows=lambda T: _rows(T, T.eye(3)),
    rows_of_a_list=lambda T: _rows(T, [T.eye(3)]),
    rows_shape=lambda T: _rows(T, T.ones(3)),
    rows_missing=lambda T: _rows(T, None),
    rows_unused=lambda T: _rows(T, T.eye(3), leaf, allow_unused=True),
    rows_unused_refused=lambda T: _rows(T, T.eye(3), leaf),
)

# --------------------------------------------------------------------------------- second derivatives that are zero

KNEES: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda T, p: T.relu(p),
    "leaky_relu": lambda T, p: T.nn.functional.leaky_relu(p, 0.2),
    "clamp": lambda T, p: p.clamp(-1, 2),
    "sign": lambda T, p: p.sign() * p,
    "maximum": lambda T, p: T.maximum(p, p * 0),
    "where": lambda T, p: T.where(p > 0, p, p * 2),
    "elu": lambda T, p: T.nn.functional.elu(p),
}
for _name, _function in KNEES.items():

    def _knee(T: Any, function: Any = _function) -> Any:
        p = T.tensor([1.0, -1.5, 0.25], requires_grad=True)
        (g,) = T.autograd.grad(function(T, p).sum(), p, create_graph=True)
        if g.requires_grad:
            (g * 2).sum().backward()
        return g, p.grad

    _knee.__name__ = f"second_derivative_{_name}"
    CASES.append(_knee)


@case
def gradient_penalty_of_a_frozen_net(T: Any) -> Any:
    w, v = T.arange(6.0).reshape(2, 3) - 2, T.arange(2.0) + 1
    x = T.tensor([1.0, -1.0, 2.0], requires_grad=True)
    (g,) = T.autograd.grad(T.relu(w @ x) @ v, x, create_graph=True)
    ((g.norm() - 1) ** 2).backward()
    return g, x.grad


# -------------------------------------------------------------------------------------------------- hooks that write


@case
def a_step_in_the_hook_after_accumulation(T: Any) -> Any:
    p, seen = leaf(T), []

    def step(t: Any) -> None:
        with T.no_grad():
            t.sub_(0.1 * t.grad)
        seen.append(t.detach().clone())
        t.grad = None

    p.register_post_accumulate_grad_hook(step)
    for _ in range(4):
        (p**2).sum().backward()
    return p, p.grad, seen


@case
def an_optimizer_for_each_parameter_in_its_hook(T: Any) -> Any:
    parameters = [leaf(T, 2, 3), leaf(T, 2)]
    optimizers = {p: T.optim.SGD([p], lr=0.01, momentum=0.9) for p in parameters}

    def step(p: Any) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in parameters:
        p.register_post_accumulate_grad_hook(step)
    for i in range(5):
        w, b = parameters
        ((w @ T.ones(3) + b - i) ** 2).sum().backward()
    return [*parameters, *[p.grad for p in parameters]]


@case
def a_hook_with_a_backward_of_its_own(T: Any) -> Any:
    p, q = leaf(T), leaf(T)
    p.register_hook(lambda g: (q * 2).sum().backward())
    for _ in range(3):
        (p * 3).sum().backward()
    return p.grad, q.grad


@case
def a_copy_of_a_leaf_has_hooks_and_a_gradient_of_its_own(T: Any) -> Any:
    w, seen = leaf(T), []
    copied = T.empty(3).copy_(w)
    copied.register_hook(lambda g: seen.append(g))
    copied.retain_grad()
    item = T.zeros(3)
    item[:] = w
    part = T.zeros(3)
    part[0:2] = w[1:]
    (copied * 2 + item * 3 + w * 4 + part).sum().backward()
    return w.grad, copied.grad, seen, copied.is_leaf, item.is_leaf, part.is_leaf, copied.grad_fn is None


@case
def what_was_given_up_does_not_matter_for_another_input(T: Any) -> Any:
    v, p = leaf(T), leaf(T)
    done = (v * v).sum()
    done.backward()
    return T.autograd.grad((p * done * 0.75).sum(), p), T.autograd.grad((p * done).sum(), [p], create_graph=True)


@case
def an_array_changes_what_a_view_with_a_history_shows(T: Any) -> Any:
    v = leaf(T, 4)
    array = v.detach().numpy()
    first, second = v[:2], v.view(-1)[2:]
    product = first * 2
    array[:] += 0.5
    total = (first * first).sum() + second.tanh().sum() + product.sum()
    total.backward()
    array[0] = 7.0
    return first, second, total, v.grad


# --------------------------------------------------------------------------------------- backward hooks of modules


def net(T: Any) -> Any:
    made = T.nn.Sequential(T.nn.Linear(2, 3), T.nn.Tanh(), T.nn.Linear(3, 1))
    with T.no_grad():
        for i, p in enumerate(made.parameters()):
            p.copy_((T.arange(float(p.numel())) - 2).reshape(p.shape) * 0.1 * (i + 1))
    return made


def _watched(T: Any, register: Callable[[Any, list[Any]], None], flag: bool = True, steps: int = 1) -> Any:
    made, log = net(T), []  # type: ignore[var-annotated]
    register(made, log)
    x = T.ones(4, 2, requires_grad=flag)
    for _ in range(steps):
        (made(x) ** 2).mean().backward()
    return log, [p.grad for p in made.parameters()], x.grad


def _note_all(made: Any, log: list[Any]) -> None:
    for layer in [made, *made]:
        layer.register_full_backward_hook(lambda m, i, o: log.append((type(m).__name__, i, o)))
        layer.register_full_backward_pre_hook(lambda m, o: log.append((type(m).__name__, o)))


def _replace(made: Any, log: list[Any]) -> None:
    made[2].register_full_backward_hook(lambda m, i, o: tuple(g * 3 for g in i))
    made[2].register_full_backward_hook(lambda m, i, o: log.append("second"))
    made[2].register_full_backward_hook(lambda m, i, o: log.append("first"), prepend=True)
    made[0].register_full_backward_pre_hook(lambda m, o: (o[0] * 2,))


def _once(made: Any, log: list[Any]) -> None:
    def hook(module: Any, inputs: Any, outputs: Any) -> None:
        log.append(outputs)
        handle.remove()

    handle = made.register_full_backward_hook(hook)


cases(
    module_gradients=lambda T: _watched(T, _note_all),
    module_gradients_without_input=lambda T: _watched(T, _note_all, flag=False),
    module_gradients_thrice=lambda T: _watched(T, _note_all, steps=3),
    module_gradients_replaced=lambda T: _watched(T, _replace, steps=2),
    module_hook_removed=lambda T: _watched(T, _once, steps=3),
    module_hook_number=lambda T: _watched(
        T, lambda m, log: m[1].register_full_backward_hook(lambda m, i, o: (None, None))
    ),
    module_pre_hook_number=lambda T: _watched(T, lambda m, log: m.register_full_backward_pre_hook(lambda m, o: ())),
    module_hook_without_input_answers=lambda T: _watched(
        T, lambda m, log: m.register_full_backward_hook(lambda m, i, o: (o[0],)), flag=False
    ),
)


@case
def module_with_several_arguments_and_results(T: Any) -> Any:
    class Mix(T.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, a: Any, k: float, b: Any) -> Any:
            return a * k, (a + b).sum(), b

    mix, log = Mix(), []
    mix.register_full_backward_hook(lambda m, i, o: log.append((i, o)))
    a, b = leaf(T), leaf(T)
    first, _, third = mix(a, 2.0, b)
    (first.sum() + (third * 3).sum()).backward()
    return log, a.grad, b.grad


@case
def module_gradients_under_create_graph(T: Any) -> Any:
    made, log = net(T), []
    made.register_full_backward_hook(lambda m, i, o: log.append((i[0].requires_grad, o[0].requires_grad)))
    x = T.ones(4, 2, requires_grad=True)
    (g,) = T.autograd.grad(made(x).sum(), x, create_graph=True)
    (g**2).sum().backward()
    return log, g, [p.grad for p in made.parameters()]


@pytest.mark.parametrize("program", CASES, ids=lambda program: program.__name__)
def test_as_in_pytorch(program: Callable[[Any], Any]) -> None:
    expected = outcome(torch, program)
    for _ in range(2):  # the second time all that a trace can remember is found there
        assert outcome(fastgrad, program) == expected
