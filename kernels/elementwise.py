"""Elementwise kernels from scalar expressions.

A kernel's expression is text over operand names `a, b, c, d` and the functions named below; every constant in it is already
typed. Each operand has a mode: "v" a vector read at i, "s" one scalar read at 0, "w" the vector that y overwrites (the same
memory, so LLVM needs no overlap test). Record: [kernel, n, y, a, b, c, d, 0], operands in order.
"""

import re
from functools import cache

from .build import build

# dtype code -> (pointer intrinsic, Numba scalar type)
TYPES = {
    "f4": ("float32_at", "float32"),
    "f8": ("float64_at", "float64"),
    "i8": ("int64_at", "int64"),
    "i4": ("int32_at", "int32"),
    "u1": ("uint8_at", "uint8"),
    "b1": ("uint8_at", "uint8"),
}

_SOURCE = """
from numba import float32, float64, int32, int64, uint8, uintp
from fastgrad.kernels import {modules}
from fastgrad.kernels.native import float32_at, float64_at, int32_at, int64_at, uint8_at

def kernel(record):
    n = uintp(record[1])
    y_at = {y_at}(record[2])
{loads}
{large}
    for i in range(n):
{values}
        y_at[i] = {result}
"""

# A trigonometric function of an operand runs vectorised where no element needs the reduction of huge arguments.
_LARGE = """
    large = uint8(0)
    for i in range(n):
{values}
        large |= uint8(abs({argument}) > vmath.TRIG_LIMIT_{kind})
    if large == 0:
        for i in range(n):
    {values}
            y_at[i] = {quick}
        return
"""
TRIGONOMETRY = re.compile(r"vmath\.(sin|cos|tan)_full_(f32|f64)\((\w+)\)")


def pointer(dtype: str) -> str:
    """The name of the intrinsic that makes a typed pointer for a dtype code."""
    return TYPES[dtype][0]


@cache
def elementwise(expression: str, y: str, operands: tuple[str, ...], modes: str) -> int:
    """The kernel for `y = expression(a, b, ...)`; y and operands are dtype codes, modes one letter an operand."""
    loads, values = [], []
    for word, (name, dtype, mode) in enumerate(zip("abcd", operands, modes, strict=False), start=3):
        read = f"{name}_at[i]"
        if mode == "w":
            read = "y_at[i]"
        else:
            loads.append(f"    {name}_at = {pointer(dtype)}(record[{word}])")
        if mode == "s":
            loads.append(f"    {name} = {_read(f'{name}_at[0]', dtype)}")
        else:
            values.append(f"        {name} = {_read(read, dtype)}")
    result = f"uint8(({expression}) != 0)" if y == "b1" else f"{TYPES[y][1]}({expression})"
    found = TRIGONOMETRY.search(expression)
    large = ""
    if found is not None:
        large = _LARGE.format(
            values="\n".join(values),
            argument=found.group(3),
            kind=found.group(2).upper(),
            quick=TRIGONOMETRY.sub(r"vmath.\1_\2(\3)", result),
        )
    return build(
        _SOURCE.format(
            modules=", ".join([m for m in ("division", "native", "vmath") if m == "native" or f"{m}." in expression]),
            y_at=pointer(y),
            loads="\n".join(loads),
            values="\n".join(values),
            large=large,
            result=result,
        )
    )


def _read(text: str, dtype: str) -> str:
    return f"({text} != 0)" if dtype == "b1" else text
