"""What the generators of random programs share: a program that grows line by line, run by PyTorch as it grows.

A line is kept if PyTorch accepts it and all values stay finite and small; so a generator need not know what is allowed,
and sees the shapes and kinds of all names in `self.names`.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

if __package__:
    from . import fuzz_programs as programs
else:
    import fuzz_programs as programs

Line = programs.Line
LARGE = 1e4


def in_main(line: Line) -> Line:
    """The line without workers: one that runs in a pool may not wait for the pool."""
    return Line(line.source, tuple(map(in_main, line.body)))


class Writer:
    """Writes one program with PyTorch; `threads` lets workers run some of its lines."""

    family = ""

    def __init__(self, seed: int, torch: Any, threads: bool) -> None:
        self.rng = random.Random(f"{self.family} {seed} {threads}")
        self.seed, self.torch, self.threads = seed, torch, threads
        self.lines: list[Line] = []
        self.count = 0
        self.side = programs.Side(torch)
        self.names: dict[str, Any] = {}
        self.plain = False  # only lines that a compiled function may hold, and no threads
        self.start_anew()

    # lines

    def start_anew(self) -> None:
        """Bring the names back to what the lines make of them, after one that was refused half-way."""
        self.names = self.side.environment([])
        for line in self.lines:
            self._execute(line)

    def _execute(self, line: Line) -> None:
        with warnings.catch_warnings(), self.side.context():
            warnings.simplefilter("ignore")
            exec(programs.code_of(Line(line.source, line.body).text()), self.names)

    def emit(self, source: str | Line, *body: Line) -> bool:
        """Add a line if PyTorch accepts it."""
        line = source if isinstance(source, Line) else Line(source, body)
        if (
            self.threads
            and not self.plain
            and not line.where
            and "class " not in line.source
            and self.rng.random() < 0.35
        ):
            line = Line(line.source, tuple(map(in_main, line.body)), self.rng.choice(["in_thread", "in_pool"]))
        try:
            self._execute(line)
            if self.tame():
                self.lines.append(line)
                return True
        except Exception:
            pass
        self.start_anew()
        return False

    def tame(self) -> bool:
        """Whether all floats are finite and not large."""
        for _, value in self.tensors():
            for part in (value.detach(), value.grad if value.is_leaf else None):
                if part is not None and part.is_floating_point() and part.numel():
                    low, high = part.detach().aminmax()
                    if not float(low) > -LARGE or not float(high) < LARGE:
                        return False
        return True

    @contextlib.contextmanager
    def block(self, plain: bool = False) -> Iterator[list[Line]]:
        """Lines emitted inside go to a list instead of the program, which is as before afterwards."""
        before, was_plain = list(self.lines), self.plain
        body: list[Line] = []
        self.plain = plain or was_plain
        try:
            yield body
            body += self.lines[len(before) :]
        finally:
            self.lines, self.plain = before, was_plain
            self.start_anew()

    def program(self) -> programs.Program:
        return programs.Program(self.family, self.seed, tuple(self.lines))

    # names, operands, numbers

    def new(self, letter: str = "v") -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def tensors(self, test: Callable[[Any], bool] = lambda t: True) -> list[tuple[str, Any]]:
        kind = self.torch.Tensor
        return [(k, v) for k, v in self.names.items() if programs.NAME.match(k) and isinstance(v, kind) and test(v)]

    def of_kind(self, letter: str) -> list[str]:
        return [name for name in self.names if programs.NAME.match(name) and name[0] == letter]

    def pick(self, test: Callable[[Any], bool] = lambda t: True) -> str | None:
        """A tensor's name, younger ones more often."""
        found = [name for name, value in self.tensors(test) if value.is_floating_point()]
        if not found:
            return None
        return found[-1 - min(int(self.rng.expovariate(0.35)), len(found) - 1)]

    def value(self, text: str) -> Any:
        """What PyTorch makes of an expression without effects, or None."""
        try:
            with self.side.context(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return eval(text, self.names)
        except Exception:
            return None

    def number(self) -> str:
        return str(self.rng.choice([0.5, -0.5, 0.25, 1.5, -1.25, 2.0, 0.75, -0.375, 3.0, 0.1]))

    def one_of(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def act(self, actions: list[tuple[float, Callable[[], Any]]], count: int) -> None:
        """Take so many of the weighted actions that add a line."""
        weights, functions = [w for w, _ in actions], [f for _, f in actions]
        for _ in range(count * 4):
            before = len(self.lines)
            self.rng.choices(functions, weights)[0]()
            count -= len(self.lines) > before
            if count <= 0:
                return
