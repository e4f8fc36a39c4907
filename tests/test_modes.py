"""Grad modes: generated nests of contexts, decorated functions and generators do what they do in PyTorch, in the same order."""

from __future__ import annotations

import contextlib
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import fastgrad


class Stop(Exception):
    """What a generated program raises."""


def _mode(rng: random.Random, T: Any, inference: bool = True) -> Callable[[], Any]:
    """A generated mode, as a function that makes the context."""
    kind = rng.choice(["no_grad", "enable_grad", "set", *["inference"] * inference])
    value = rng.random() < 0.5
    if kind == "set":
        return lambda: T.set_grad_enabled(value)
    if kind == "inference":
        return lambda: T.inference_mode(value)
    return lambda: getattr(T, kind)()


def _body(rng: random.Random, T: Any, note: Callable[[str], None], depth: int) -> None:
    """Some statements, each followed by a note of the mode."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(
            ["with", "function", "generator", "bare", "call", "raise", "backward"] if depth < 4 else ["call"]
        )
        if kind == "with":
            with _mode(rng, T)():
                note("in")
                _body(rng, T, note, depth + 1)
        elif kind in ("function", "bare"):
            decorate = (
                _mode(rng, T)() if kind == "function" else rng.choice([T.no_grad, T.enable_grad, T.inference_mode])
            )
            note("decorating")

            @decorate
            def function() -> None:
                note("function")
                _body(rng, T, note, depth + 1)

            note("decorated")
            function()
        elif kind == "generator":
            _generator(rng, T, note, depth)
        elif kind == "call":
            enabled = rng.random() < 0.6
            T.set_grad_enabled(enabled)
        elif kind == "raise":
            try:
                with _mode(rng, T)():
                    note("raising")
                    raise Stop
            except Stop:
                pass
        elif kind == "backward":
            with T.set_grad_enabled(True):
                w = T.ones(1, requires_grad=True)
                if (w * 2).requires_grad:
                    w.register_hook(lambda g: note("hook"))
                    T.autograd.grad((w * w).sum(), w, create_graph=rng.random() < 0.5)
        note(kind)


def _generator(rng: random.Random, T: Any, note: Callable[[str], None], depth: int) -> None:
    inner = _mode(rng, T, inference=False) if rng.random() < 0.4 else None
    catches = rng.random() < 0.5

    @_mode(rng, T)()
    def generator(n: int) -> Any:
        try:
            for k in range(n):
                note(f"before {k}")
                try:
                    if inner is None:
                        got = yield k
                    else:
                        with inner():
                            got = yield k
                    note(f"got {got}")
                except Stop:
                    note("caught")
                    if not catches:
                        raise
            return "end"
        finally:
            note("finally")

    running = generator(3)
    try:
        note(f"first {next(running)}")
        while True:
            step = rng.choice(["next", "next", "send", "throw", "close", "body"])
            if step == "next":
                note(f"yielded {next(running)}")
            elif step == "send":
                note(f"yielded {running.send('sent')}")
            elif step == "throw":
                note(f"yielded {running.throw(Stop())}")
            elif step == "close":
                running.close()
                break
            else:
                _body(rng, T, note, depth + 2)
    except StopIteration as end:
        note(f"value {end.value}")
    except Stop:
        note("stopped")


def _log(T: Any, seed: int) -> list[Any]:
    log: list[Any] = []
    w = T.ones(1, requires_grad=True)

    def note(what: str) -> None:
        log.append((what, (w * 1).requires_grad, T.ones(1, requires_grad=True).requires_grad))

    try:
        _body(random.Random(seed), T, note, 0)
    finally:
        T.set_grad_enabled(True)
    return log


@pytest.mark.parametrize("block", range(10))
def test_modes_nest_as_in_pytorch(block: int) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(30 * block, 30 * block + 30):
        assert _log(fastgrad, seed) == _log(torch, seed), seed
        assert not fastgrad.autograd.is_inference_mode_enabled()


def test_one_context_may_be_entered_again_inside_of_itself() -> None:
    mode = fastgrad.no_grad()
    with mode, mode:
        assert not fastgrad.is_grad_enabled()
    assert fastgrad.is_grad_enabled()


def test_a_decorated_function_keeps_its_name_and_may_call_itself() -> None:
    @fastgrad.no_grad()
    def power(x: Any, n: int) -> Any:
        """x to the n."""
        assert not fastgrad.is_grad_enabled()
        return x if n == 1 else x * power(x, n - 1)

    assert power.__name__ == "power" and power.__doc__ == "x to the n."
    assert power(fastgrad.tensor(2.0, requires_grad=True), 5).item() == 32
    assert fastgrad.is_grad_enabled()


def test_a_decorated_class_warns_and_the_mode_holds_in_its_constructor() -> None:
    with pytest.warns(FutureWarning, match="decorating a class"):

        @fastgrad.no_grad()
        class Thing:
            def __init__(self) -> None:
                self.enabled = fastgrad.is_grad_enabled()

            def now(self) -> bool:
                return fastgrad.is_grad_enabled()

    thing = Thing()
    assert (thing.enabled, thing.now()) == (False, True)


@pytest.mark.parametrize("wrong", [0, 1, None, "off", len])
def test_set_grad_enabled_takes_booleans_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match="must be bool"):
        fastgrad.set_grad_enabled(wrong)
    assert fastgrad.is_grad_enabled()


@pytest.mark.parametrize("wrong", [3, "x"])
def test_only_functions_are_decorated(wrong: Any) -> None:
    for decorate in (fastgrad.no_grad, fastgrad.no_grad(), fastgrad.enable_grad, fastgrad.inference_mode):
        with pytest.raises(TypeError, match="expected a function"):
            decorate(wrong)


def test_a_generator_that_was_thrown_at_leaves_nothing_to_the_collector() -> None:
    class Held:
        pass

    @fastgrad.no_grad()
    def generator(held: Held) -> Any:
        while True:
            yield held

    gc.disable()
    try:
        held = Held()
        reference = weakref.ref(held)
        running = generator(held)
        next(running)
        with contextlib.suppress(Stop):
            running.throw(Stop())
        del held, running
        assert reference() is None
    finally:
        gc.enable()


def test_numpy_needs_the_grad_mode_off_or_a_detached_tensor() -> None:
    w = fastgrad.ones(2, requires_grad=True)
    for t in (w, w * 3, (w * 3)[:1]):
        with pytest.raises(RuntimeError, match="Can't call numpy"):
            t.numpy()
        for mode in (fastgrad.no_grad(), fastgrad.inference_mode()):
            with mode:
                assert t.numpy().tolist() == t.detach().numpy().tolist() == t.numpy(force=True).tolist()
