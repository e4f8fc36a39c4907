"""User-defined Functions: generated ones in generated programs do in fastgrad what they do in PyTorch, calls in the same order."""

from __future__ import annotations

import contextlib
import gc
import random
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import fastgrad


def numbers(t: Any) -> Any:
    """A tensor's values, rounded; None where there is none."""
    return None if t is None else [round(x, 6) for x in t.detach().reshape(-1).tolist()]


def make(T: Any, rng: random.Random, log: list[Any]) -> Any:
    """A Function of generated traits: a(x, k, z) -> one to three results, with a right or a peculiar backward."""
    two = rng.random() < 0.4  # a second tensor argument
    results = rng.choice(["one", "one", "two", "marked", "mixed", "input"])
    saves = rng.sample(["x", "y", "middle", "none", "z"], rng.randint(0, 4))
    setup = rng.random() < 0.4 and "middle" not in saves
    materialize = rng.random() < 0.7
    dirty = rng.random() < 0.25 and results == "one"
    answer = rng.choice(
        ["right"] * 8 + ["double", "none", "short", "long", "history", "shape", "number", "list", "raise"]
    )
    fails = rng.random() < 0.05
    wrapped = rng.choice(["plain", "plain", "inner"])

    def compute(ctx: Any, x: Any, k: float, z: Any) -> Any:
        if fails:
            raise KeyError("forward")
        middle = x * k
        if dirty:
            y = x.mul_(k)
        elif two:
            y = middle * z
        else:
            y = middle * x
        made = {
            "one": y,
            "two": (y, middle),
            "marked": (y, x > 1.5, x * 2),
            "mixed": (y, 3, None),
            "input": (y, x),
        }[results]
        if ctx is not None:
            leave(ctx, (x, k, z), made, middle)
        return made

    def leave(ctx: Any, inputs: Any, made: Any, middle: Any) -> None:
        x, k, z = inputs
        y = made[0] if isinstance(made, tuple) else made
        ctx.k = k
        named = {"x": x, "y": y, "middle": middle, "none": None, "z": z if two else None}
        ctx.save_for_backward(*[named[s] for s in saves])
        ctx.set_materialize_grads(materialize)
        if dirty:
            ctx.mark_dirty(x)
        if results == "marked":
            ctx.mark_non_differentiable(made[1], made[2])
        log.append(("forward", ctx.needs_input_grad, T.is_grad_enabled()))

    def back(ctx: Any, *gradients: Any) -> Any:
        log.append(("backward", [numbers(g) for g in gradients], T.is_grad_enabled()))
        kept = [t for t in ctx.saved_tensors if t is not None]
        log.append([(numbers(t), t.requires_grad, t.is_leaf) for t in kept])
        given = [g for g in gradients if g is not None]
        if not given:
            return (None,) * 3
        g = given[0]
        for other in given[1:]:
            if other.dtype == g.dtype:
                g = g + other
        for t in kept:
            g = g * (0.5 + t)
        if answer == "raise":
            raise ValueError("backward")
        if answer == "double":
            g = g.double()
        elif answer == "none":
            return (None,) * 3
        elif answer == "short":
            return g, None
        elif answer == "long":
            return g, None, g if two else None, None, None
        elif answer == "history":
            with T.enable_grad():
                g = g * T.ones(1, dtype=T.float64, requires_grad=True)
        elif answer == "shape":
            g = g.reshape(-1)[:1].expand(7)
        elif answer == "number":
            return 1.0, None, None
        elif answer == "list":
            return [g, None, None]
        if wrapped == "inner" and T.is_grad_enabled() and g.requires_grad:
            g = square(T).apply(g)
        return g, None, g * 2 if two else None

    if setup:

        class Made(T.autograd.Function):
            @staticmethod
            def forward(x: Any, k: float, z: Any = None) -> Any:
                return compute(None, x, k, z)

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                leave(ctx, inputs, output, None)

            backward = staticmethod(back)
    else:

        class Made(T.autograd.Function):  # type: ignore[no-redef]
            @staticmethod
            def forward(ctx: Any, x: Any, k: float, z: Any = None) -> Any:
                return compute(ctx, x, k, z)

            backward = staticmethod(back)

    Made.two = two
    return Made


def square(T: Any) -> Any:
    """A Function that saves its result and its argument."""

    class Square(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x * x
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, _ = ctx.saved_tensors
            return g * x * 2

    return Square


MODIFIED = "modified by an inplace operation"
ERRORS = (RuntimeError, KeyError, ValueError, TypeError)


def program(T: Any, seed: int) -> list[Any]:
    """Run the program of a seed; what it saw."""
    rng, log = random.Random(seed), []  # type: ignore[var-annotated]
    kinds = [make(T, rng, log) for _ in range(rng.randint(1, 2))]
    leaves = [
        T.tensor([rng.uniform(0.5, 2.0) for _ in range(3)], dtype=T.float64, requires_grad=rng.random() < 0.8)
        for _ in range(2)
    ]
    alive: list[Any] = [*leaves]

    def step(statement: Callable[[], Any]) -> None:
        try:
            statement()
        except ERRORS as error:
            log.append(MODIFIED if MODIFIED in str(error) else type(error).__name__)

    def call() -> None:
        kind, x = rng.choice(kinds), rng.choice(alive)
        form = rng.choice(["as it is", "as it is", "times one", "part", "read"])
        k = rng.choice([0.5, 2.0])
        other = [rng.choice(leaves)] if kind.two else []
        if form == "times one":
            x = x * 1
        elif form == "part" and x.numel() == 3:
            x = (x * 1)[0:3]
        elif form == "read":
            x = x * 1.5
            x.tolist()
        made = kind.apply(x, k, *other)
        for y in made if isinstance(made, tuple) else (made,):
            if isinstance(y, T.Tensor):
                log.append(("result", numbers(y.double()), y.requires_grad, y.is_leaf))
                if y.dtype == T.float64:
                    alive.append(y)

    def calculate() -> None:
        a, b = rng.choice(alive), rng.choice(alive)
        alive.append(rng.choice([lambda: a + b, lambda: a * b, lambda: a[0:2].sum() * b, lambda: a.sin()])())

    def write() -> None:
        rng.choice(alive).add_(0.25)

    def read() -> None:
        log.append(numbers(rng.choice(alive)))

    def back() -> None:
        root = rng.choice(alive[-3:]).sum()
        root.backward(retain_graph=rng.random() < 0.5)
        log.append(("grads", [numbers(t._grad if T is fastgrad else t.grad) for t in leaves]))

    def twice() -> None:
        root, wanted = rng.choice(alive[-3:]).sum(), [t for t in leaves if t.requires_grad]
        found = T.autograd.grad(root, wanted, create_graph=True, allow_unused=True)
        log.append(("first", [numbers(g) for g in found]))
        again = [g for g in found if g is not None and g.requires_grad]
        if again:
            found = T.autograd.grad(sum((g * g).sum() for g in again), wanted, allow_unused=True)
            log.append(("second", [numbers(g) for g in found]))

    def quiet() -> None:
        n = len(alive)
        with T.no_grad():
            call()
        del alive[n:]

    statements = [call, call, call, calculate, calculate, write, read, back, twice, twice, quiet]
    for _ in range(rng.randint(4, 9)):
        step(rng.choice(statements))
        if log and log[-1] == MODIFIED:
            return log
    step(lambda: log.append([numbers(t) for t in alive]))
    return log


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", range(12))
def test_generated_functions_do_as_in_pytorch(block: int) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(40 * block, 40 * block + 40):
        mine, theirs = program(fastgrad, seed), program(torch, seed)
        if theirs and theirs[-1] == MODIFIED:  # fastgrad's own operations give the gradient of the value that was used
            mine, theirs = mine[: len(theirs) - 1], theirs[:-1]
        assert mine == theirs, seed


def saving(T: Any, what: str) -> Any:
    """A cube that saves its argument, its result, or both."""

    class Cube(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x * x * x
            ctx.save_for_backward(*{"x": (x,), "y": (y,), "xy": (x, y)}[what])
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            kept = ctx.saved_tensors
            return g * 3 * (kept[0] ** 2 if what != "y" else kept[0] ** (2 / 3))

    return Cube


def leaf(*values: float) -> Any:
    return fastgrad.tensor(values, dtype=fastgrad.float64, requires_grad=True)


@pytest.mark.parametrize("what", ["x", "y", "xy"])
@pytest.mark.parametrize("read", [False, True])
def test_saved_tensors_have_their_histories(what: str, read: bool) -> None:
    x = leaf(2.0, 3.0)
    y = saving(fastgrad, what).apply(x * 1.0)
    if read:
        y.tolist()
    (g,) = fastgrad.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = fastgrad.autograd.grad(g.sum(), x, create_graph=True)
    (third,) = fastgrad.autograd.grad(h.sum(), x)
    assert numbers(g) == [12, 27] and numbers(h) == [12, 18] and numbers(third) == [6, 6]


@pytest.mark.parametrize("what", ["x", "y", "xy"])
def test_gradients_of_functions_pass_the_checks(what: str) -> None:
    cube = saving(fastgrad, what).apply
    assert fastgrad.autograd.gradcheck(cube, (leaf(1.5, 2.0),))
    assert fastgrad.autograd.gradgradcheck(cube, (leaf(1.5, 2.0),))


WRITES: dict[str, Callable[[Any], Any]] = {
    "add_": lambda t: t.add_(1),
    "item": lambda t: t.__setitem__(0, 5.0),
    "view": lambda t: t[1:].mul_(2),
    "detached": lambda t: t.detach().zero_(),
    "data": lambda t: t.data.add_(1),
    "copy_": lambda t: t.copy_(t * 2),
    "twice": lambda t: (t.add_(1), t.sub_(1)),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("what", ["x", "y"])
@pytest.mark.parametrize("reads", ["never", "before", "between", "both"])
def test_a_saved_tensor_that_was_written_to_raises(write: str, what: str, reads: str) -> None:
    x = leaf(1.0, 2.0)
    h = x * 1
    if reads in ("before", "both"):
        h.tolist()
    y = saving(fastgrad, what).apply(h)
    loss = (y * 1).sum()
    if reads in ("between", "both"):
        loss.item()
    WRITES[write](h if what == "x" else y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert x.grad is None
    (saving(fastgrad, what).apply(x).sum()).backward()
    assert numbers(x.grad) == [3, 12]


@pytest.mark.parametrize("write", ["add_", "item", "view", "copy_"])
@pytest.mark.parametrize("reads", [False, True])
def test_a_parameter_that_was_written_to_raises(write: str, reads: bool) -> None:
    x = leaf(1.0, 2.0)
    loss = saving(fastgrad, "x").apply(x).sum()
    if reads:
        loss.item()
    with fastgrad.no_grad():
        WRITES[write](x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_writes_before_the_call_do_not_matter() -> None:
    x = leaf(1.0, 2.0)
    with fastgrad.no_grad():
        x.add_(1)
    h = (x * 1).add_(1)
    saving(fastgrad, "x").apply(h).sum().backward()
    assert numbers(x.grad) == [27, 48]


@pytest.mark.parametrize("once_more", [False, True])
def test_once_differentiable_refuses_a_second_derivative(once_more: bool) -> None:
    class Square(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @fastgrad.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            assert not fastgrad.is_grad_enabled()
            return 2 * g * ctx.saved_tensors[0]

    x = leaf(1.0, 2.0)
    Square.apply(x).sum().backward(create_graph=once_more)
    assert numbers(x.grad) == [2, 4]
    (g,) = fastgrad.autograd.grad((Square.apply(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


@pytest.mark.parametrize("shape", [(2, 3), (4, 1, 3)])
def test_a_gradient_that_is_too_wide_is_summed(shape: tuple[int, ...]) -> None:
    class Wide(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g.expand(*shape)

    x = leaf(1.0, 2.0, 3.0)
    Wide.apply(x).sum().backward()
    assert numbers(x.grad) == [shape[0]] * 3


def test_a_result_keeps_being_the_same_object_and_the_same_memory() -> None:
    made = []

    class Numpy(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            made.append(fastgrad.from_numpy(x.numpy() * 2))
            return made[0]

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return fastgrad.from_numpy(g.numpy() * 2)

    x = leaf(1.0, 2.0)
    y = Numpy.apply(x)
    assert y is made[0] and not y.is_leaf and type(y.grad_fn).__name__ == "NumpyBackward"
    y.sum().backward()
    assert numbers(x.grad) == [2, 2]


def test_a_function_whose_backward_goes_backward_itself() -> None:
    class Again(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, f: Any, x: Any) -> Any:
            ctx.f = f
            ctx.save_for_backward(x)
            return f(x)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            x = x.detach().requires_grad_()
            with fastgrad.enable_grad():
                y = ctx.f(x)
            fastgrad.autograd.backward(y, g)
            return None, x.grad

    w, x = leaf(3.0), leaf(2.0)
    y = x
    for _ in range(3):
        y = Again.apply(lambda t: (w * t).sin(), y)
    y.sum().backward()
    found = numbers(w.grad), numbers(x.grad)
    w.grad = x.grad = None
    y = x
    for _ in range(3):
        y = (w * y).sin()
    y.sum().backward()
    assert found == (numbers(w.grad), numbers(x.grad))


@pytest.mark.parametrize("where", ["forward", "backward", "consumer"])
def test_an_exception_leaves_nothing_behind(where: str) -> None:
    fails = [True]

    class Both(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            if fails[0] and where == "forward":
                raise KeyError
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            if fails[0] and where == "backward":
                raise KeyError
            return g * 2 + h * 3

    def consume(g: Any) -> None:
        if fails[0] and where == "consumer":
            raise KeyError

    x = leaf(1.0, 2.0)
    for fail in (True, False, True, False):
        fails[0] = fail
        with contextlib.suppress(KeyError):
            a, b = Both.apply(x * 1)
            c = a * 1
            c.register_hook(consume)
            (b * 5 + c).sum().backward(retain_graph=True)
        fails[0] = False
        assert fastgrad.is_grad_enabled()
    assert numbers(x.grad) == [34, 34]


def test_calls_leave_nothing_to_the_collector() -> None:
    class Held:
        pass

    class Pair(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, held: Any) -> Any:
            y = x * x
            ctx.held = held
            ctx.save_for_backward(x, y)
            return y, y + 1

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            x, _ = ctx.saved_tensors
            return 2 * x * (g + h), None

    gc.collect()
    gc.disable()
    try:
        for reads in (False, True):
            for walks in (0, 1, 2):
                w, held = leaf(1.0, 2.0), Held()
                reference = weakref.ref(held)
                a, b = Pair.apply(w * 3, held)
                if reads:
                    a.tolist()
                loss = (a * b).sum()
                for _ in range(walks):
                    loss.backward(retain_graph=True)
                del a, b, loss, w, held
                fastgrad.ones(1).tolist()
                assert reference() is None, (reads, walks)
    finally:
        gc.enable()


def test_history_survives_a_write_without_gradients() -> None:
    for read in (False, True):
        w = leaf(1.0, 2.0)
        h = w * 2
        if read:
            h.tolist()
        with fastgrad.no_grad():
            h.add_(1)
        assert h.requires_grad and not h.is_leaf
        (h * h).sum().backward()
        assert numbers(h) == [3, 5] and numbers(w.grad) == [12, 20]


def test_a_result_that_is_an_argument_cannot_be_written_to() -> None:
    class Same(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, part: bool) -> Any:
            return x[:1] if part else x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g, None

    h = leaf(1.0, 2.0) * 1
    for part in (False, True):
        y = Same.apply(h, part)
        assert y is not h and y.data_ptr() == h.data_ptr()
        with pytest.raises(RuntimeError, match="is being modified inplace"):
            y.add_(1)


def test_a_mark_on_what_is_no_argument_warns() -> None:
    class Marks(fastgrad.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x * 1
            ctx.mark_dirty(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    with pytest.warns(UserWarning, match="not an input"):
        Marks.apply(leaf(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saving(fastgrad, "x").apply(leaf(1.0))


def test_a_function_is_not_made_into_an_object() -> None:
    with pytest.raises(RuntimeError, match=r"Cube\.apply"):
        saving(fastgrad, "x")()
