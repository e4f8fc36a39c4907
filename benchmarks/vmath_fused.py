"""Value and gradient of mean(tanh(sin x exp(-x^2))) as one loop, and as four over blocks: `python -m benchmarks.vmath_fused`.

ns an element, one thread, with the same elementary functions and the same bits. One loop keeps everything in registers, but a
body of some hundred instructions with a long chain of dependent ones leaves the CPU nothing else to do while it waits: its
window holds little more than one turn of the loop. Four short loops with their intermediates in the L1 cache overlap many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from benchmarks.vmath import times
from fastgrad.kernels import vmath

BLOCK = 512


def loops(kind: str, scalar: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    """The one loop and the four, over arrays x, y, g and three buffers of BLOCK elements."""
    sin, cos, exp, tanh = (getattr(vmath, f"{name}_{kind}") for name in ("sin", "cos", "exp", "tanh"))
    one, two = scalar(1), scalar(2)

    @njit(error_model="numpy")
    def together(x: Any, y: Any, g: Any, weight: Any, s: Any, c: Any, e: Any) -> None:
        for i in range(x.size):
            a = x[i]
            sine = sin(a)
            bell = exp(-(a * a))
            t = tanh(sine * bell)
            y[i] = t
            d = weight * (one - t * t)
            g[i] = d * bell * cos(a) + d * sine * bell * -(two * a)

    @njit(error_model="numpy")
    def apart(x: Any, y: Any, g: Any, weight: Any, s: Any, c: Any, e: Any) -> None:
        for start in range(0, x.size, BLOCK):
            n = min(BLOCK, x.size - start)
            u, v, w = x[start : start + n], y[start : start + n], g[start : start + n]
            for i in range(n):
                a = u[i]
                sine = sin(a)
                cosine = cos(a)
                s[i] = sine
                c[i] = cosine
            for i in range(n):
                e[i] = exp(-(u[i] * u[i]))
            for i in range(n):
                v[i] = tanh(s[i] * e[i])
            for i in range(n):
                d = weight * (one - v[i] * v[i])
                w[i] = d * e[i] * c[i] + d * s[i] * e[i] * -(two * u[i])

    return together, apart


def main() -> None:
    print(f"{'':16} {'one loop':>9} {'four':>9} {'ratio':>7}   ns an element")
    for kind, scalar in (("f32", np.float32), ("f64", np.float64)):
        for n in (1000, 100_000):
            x = np.random.default_rng(0).uniform(-2, 2, n).astype(scalar)
            buffers = [np.empty(BLOCK, scalar) for _ in range(3)]
            results = [(np.empty_like(x), np.empty_like(x)) for _ in range(2)]
            runs: list[Callable[[], Any]] = [
                partial(loop, x, *result, scalar(1 / n), *buffers)
                for loop, result in zip(loops(kind, scalar), results, strict=True)
            ]
            one, four = (t / n for t in times(runs, 1.0))
            same = all(a.tobytes() == b.tobytes() for a, b in zip(*results, strict=True))
            print(
                f"{kind} n={n:<9} {one:9.3f} {four:9.3f} {one / four:7.2f}   {'same bits' if same else 'BITS DIFFER'}"
            )


if __name__ == "__main__":
    main()
