"""Elementary functions in a loop: `python -m benchmarks.vmath [names] [--n 1000] [--seconds 0.3]`.

ns an element of fastgrad's elementwise kernel, NumPy's function and the C library's through `math` in a Numba loop, over the
same n arguments in cache, one thread. The three are timed in turns (process time, best of all turns). The cost of a call
that has nothing to do with n is taken off NumPy, and hardly exists for the other two, which run many times a call.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from fastgrad.kernels.elementwise import elementwise
from fastgrad.kernels.sweep import WORDS, sweep

Arguments = tuple[float, float]

POSITIVE: Arguments = (1e-3, 1e3)
UNIT: Arguments = (-0.999, 0.999)
PLAIN: Arguments = (-5.0, 5.0)
# name: the arguments' range, NumPy's function (None: it has none), the same with the C library's functions
FUNCTIONS: dict[str, tuple[Arguments, str | None, str]] = {
    "exp": (PLAIN, "exp", "math.exp(a)"),
    "exp2": (PLAIN, "exp2", "2.0 ** a"),
    "expm1": (PLAIN, "expm1", "math.expm1(a)"),
    "log": (POSITIVE, "log", "math.log(a)"),
    "log2": (POSITIVE, "log2", "math.log2(a)"),
    "log10": (POSITIVE, "log10", "math.log10(a)"),
    "log1p": (POSITIVE, "log1p", "math.log1p(a)"),
    "sin": (PLAIN, "sin", "math.sin(a)"),
    "cos": (PLAIN, "cos", "math.cos(a)"),
    "tan": (PLAIN, "tan", "math.tan(a)"),
    "asin": (UNIT, "arcsin", "math.asin(a)"),
    "acos": (UNIT, "arccos", "math.acos(a)"),
    "atan": (PLAIN, "arctan", "math.atan(a)"),
    "atan2": (PLAIN, "arctan2", "math.atan2(a, b)"),
    "sinh": (PLAIN, "sinh", "math.sinh(a)"),
    "cosh": (PLAIN, "cosh", "math.cosh(a)"),
    "tanh": (PLAIN, "tanh", "math.tanh(a)"),
    "asinh": (PLAIN, "arcsinh", "math.asinh(a)"),
    "acosh": ((1.0, 1e3), "arccosh", "math.acosh(a)"),
    "atanh": (UNIT, "arctanh", "math.atanh(a)"),
    "sigmoid": (PLAIN, None, "one / (one + math.exp(-a))"),
    "logsigmoid": (PLAIN, None, "-math.log1p(math.exp(-a))"),
    "softplus": (PLAIN, None, "math.log1p(math.exp(a))"),
    "silu": (PLAIN, None, "a / (one + math.exp(-a))"),
    "gelu": (PLAIN, None, "half * a * (one + math.erf(a * root))"),
    "gelu_tanh": (PLAIN, None, "half * a * (one + math.tanh(root * a * (one + half * a * a)))"),
    "erf": (PLAIN, None, "math.erf(a)"),
    "erfc": (PLAIN, None, "math.erfc(a)"),
    "pow": ((0.1, 5.0), "power", "a ** b"),
    "sqrt": (POSITIVE, "sqrt", "math.sqrt(a)"),
    "rsqrt": (POSITIVE, None, "one / math.sqrt(a)"),
    "cbrt": (PLAIN, "cbrt", "math.copysign(abs(a) ** third, a)"),
    "hypot": (PLAIN, "hypot", "math.hypot(a, b)"),
}
BINARY = ("atan2", "hypot", "pow")
TRIGONOMETRY = ("sin", "cos", "tan")
CALLS = 16  # of a kernel, or of a loop over the arguments, for one call from Python


def arguments(name: str, dtype: str, n: int) -> list[np.ndarray]:
    """Random arguments in the function's range; positive ones spread over the exponents."""
    random = np.random.default_rng(0)
    (low, high), _, _ = FUNCTIONS[name]
    shape = (2 if name in BINARY else 1, n)
    if low > 0:
        values = np.exp(random.uniform(math.log(low), math.log(high), shape))
    else:
        values = random.uniform(low, high, shape)
    return [row.astype(dtype) for row in values]


def ours(name: str, dtype: str, operands: list[np.ndarray], y: np.ndarray) -> Callable[[], Any]:
    """Call fastgrad's kernel for the function CALLS times, as a program does."""
    kind = {"f4": "f32", "f8": "f64"}[dtype]
    full = "_full" if name in TRIGONOMETRY else ""
    expression = f"vmath.{name}{full}_{kind}({', '.join('ab'[: len(operands)])})"
    address = elementwise(expression, dtype, (dtype,) * len(operands), "v" * len(operands))
    record = [address, y.size, y.ctypes.data, *(a.ctypes.data for a in operands)]
    program = np.zeros((CALLS, WORDS), np.int64)
    program[:, : len(record)] = record
    run, first = sweep(), program.ctypes.data
    return lambda keep=program: run(first, len(keep))


def by_math(name: str, dtype: str, operands: list[np.ndarray], y: np.ndarray) -> Callable[[], Any]:
    """Run a Numba loop over the C library's function CALLS times."""
    scalar = {"f4": np.float32, "f8": np.float64}[dtype]
    text = f"""
def loop(y, a_, b_):
    for _ in range({CALLS}):
        for i in range(y.size):
            a, b = a_[i], b_[i]
            y[i] = {FUNCTIONS[name][2].replace("2.0 ** a", "two ** a")}
"""
    constants = {"one": 1.0, "two": 2.0, "half": 0.5, "third": 1 / 3, "root": math.sqrt(0.5)}
    scope: dict[str, Any] = {"math": math, **{key: scalar(value) for key, value in constants.items()}}
    exec(text, scope)
    compiled = njit(error_model="numpy")(scope["loop"])
    return partial(compiled, y, operands[0], operands[-1])


def times(runs: list[Callable[[], Any]], seconds: float) -> list[float]:
    """The least process time of a call of each, in turns."""
    repeats, best = [], []
    for run in runs:
        run()
        start = time.process_time_ns()
        for _ in range(10):
            run()
        repeats.append(max(1, int(1e7 / max(time.process_time_ns() - start, 1))) * 2)  # about 2 ms a turn
        best.append(math.inf)
    end = time.process_time() + seconds
    while time.process_time() < end:
        for k, run in enumerate(runs):
            start = time.process_time_ns()
            for _ in range(repeats[k]):
                run()
            best[k] = min(best[k], (time.process_time_ns() - start) / repeats[k])
    return best


def measure(name: str, dtype: str, n: int, seconds: float) -> tuple[float, float | None, float]:
    """ns an element: fastgrad, NumPy, math."""
    operands = arguments(name, dtype, n)
    y = np.empty(n, dtype)
    runs = [ours(name, dtype, operands, y), by_math(name, dtype, operands, y)]
    numpy = FUNCTIONS[name][1]
    if numpy is not None:
        function = getattr(np, numpy)
        runs.append(partial(function, *operands, out=y))
        runs.append(partial(function, *(a[:1] for a in operands), out=y[:1]))
    own, c, *rest = times(runs, seconds)
    return own / CALLS / n, (rest[0] - rest[1]) / n if rest else None, c / CALLS / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="functions; all of them if none is named")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--dtype", choices=("f4", "f8"))
    options = parser.parse_args()
    print(f"{'function':16} {'fastgrad':>9} {'NumPy':>9} {'math':>9} {'NumPy/own':>10} {'math/own':>9}   ns an element")
    for name in options.names or FUNCTIONS:
        for dtype in [options.dtype] if options.dtype else ["f4", "f8"]:
            own, numpy, c = measure(name, dtype, options.n, options.seconds)
            column = ("", "") if numpy is None else (f"{numpy:.3f}", f"{numpy / own:.2f}")
            print(f"{name + ' ' + dtype:16} {own:9.3f} {column[0]:>9} {c:9.3f} {column[1]:>10} {c / own:9.1f}")


if __name__ == "__main__":
    main()
