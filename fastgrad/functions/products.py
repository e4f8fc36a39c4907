"""Matrix products in all their shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import recording as tape
from ..dispatch import composite, tensor_operand
from ..dtypes import FLOAT
from ..ops import arrays, elementwise
from .arguments import integer
from .reductions import sum as sum_
from .reductions import wrap_dim
from .views import view

if TYPE_CHECKING:
    from ..tensor import Tensor


def _shape(t: Tensor, *shape: int) -> Tensor:
    return tape.apply(arrays.reshape, (t,), shape)


@composite("Mv")
def _matrix_vector(input: Tensor, vec: Tensor) -> Tensor:
    product = tape.apply(arrays.matmul, (input, _shape(vec, vec.shape[0], 1)))
    return _shape(product, *product.shape[:-1])


@composite("Squeeze")
def _vector_matrix(vec: Tensor, mat: Tensor) -> Tensor:
    product = tape.apply(arrays.matmul, (_shape(vec, 1, vec.shape[0]), mat))
    return _shape(product, *product.shape[:-2], product.shape[-1])


@composite("Dot")
def _dot(input: Tensor, other: Tensor) -> Tensor:
    n = input.shape[0]
    return _shape(tape.apply(arrays.matmul, (_shape(input, 1, n), _shape(other, n, 1))))


def _same_size(name: str, a: int, b: int, left: Tensor, right: Tensor) -> None:
    if a != b:
        raise RuntimeError(
            f"{name}: size mismatch, got input {list(left.shape)} and {list(right.shape)}: {a} and {b} differ"
        )


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product: vectors, matrices and broadcast batches of matrices.

    Shapes: (n) (n) -> (); (m, k) (k) -> (m); (k) (k, n) -> (n); (..., m, k) (..., k, n) -> (..., m, n), batches broadcast.

    >>> fastgrad.matmul(fastgrad.ones(2, 3), fastgrad.ones(3))
    tensor([3., 3.])
    """
    tensor_operand(input, "matmul")
    tensor_operand(other, "matmul")
    a, b = len(input._meta.shape), len(other._meta.shape)
    if a >= 2 and b >= 2:
        return tape.apply(arrays.matmul, (input, other))
    if a == 0 or b == 0:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {a}D and {b}D")
    if a == 1 and b == 1:
        return dot(input, other)
    if b == 1:
        _same_size("mv", input.shape[-1], other.shape[0], input, other)
        return _matrix_vector(input, other)
    _same_size("matmul", input.shape[0], other.shape[-2], input, other)
    return _vector_matrix(input, other)


def _dimensions(name: str, t: Tensor, n: int, which: str) -> None:
    tensor_operand(t, name)
    if t.ndim != n:
        kind = {1: "vector", 2: "matrix"}.get(n, f"{n}D tensor")
        raise RuntimeError(f"{name}: {which} must be a {kind}, got {t.ndim}D tensor of shape {list(t.shape)}")


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    _dimensions("mm", input, 2, "self")
    _dimensions("mm", mat2, 2, "mat2")
    return tape.apply(arrays.matmul, (input, mat2))


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices of the same number."""
    _dimensions("bmm", input, 3, "batch1")
    _dimensions("bmm", mat2, 3, "batch2")
    if input.shape[0] != mat2.shape[0] or input.shape[2] != mat2.shape[1]:
        raise RuntimeError(
            f"bmm: Expected size for first two dimensions of batch2 tensor to be: [{input.shape[0]}, {input.shape[2]}] "
            f"but got: [{mat2.shape[0]}, {mat2.shape[1]}]."
        )
    return tape.apply(arrays.matmul, (input, mat2))


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    _dimensions("mv", input, 2, "input")
    _dimensions("mv", vec, 1, "vec")
    _same_size("mv", input.shape[1], vec.shape[0], input, vec)
    return _matrix_vector(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors."""
    for t in (input, tensor):
        tensor_operand(t, "dot")
    for t in (input, tensor):
        if t.ndim != 1:
            raise RuntimeError(f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    if input.shape != tensor.shape:
        raise RuntimeError(
            f"dot: inconsistent tensor size, expected tensor {list(input.shape)} and src {list(tensor.shape)} to have the "
            f"same number of elements, but got {input.shape[0]} and {tensor.shape[0]} elements respectively"
        )
    if input.dtype is not tensor.dtype:
        raise RuntimeError(
            f"dot : expected both vectors to have same dtype, but found {input.dtype} and {tensor.dtype}"
        )
    return _dot(input, tensor)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The outer product of two vectors."""
    _dimensions("outer", input, 1, "self")
    _dimensions("outer", vec2, 1, "vec2")
    return input.reshape(-1, 1) * vec2


ger = outer


def _added(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    if product.dtype.category != FLOAT:
        alpha, beta = int(alpha), int(beta)
    if alpha == 0:  # nothing of the product, not even NaN
        product = elementwise.overwrite(product, product.new_zeros(product.shape))
    elif alpha != 1:
        product = product * alpha
    if beta == 0:  # nothing of the input is taken, not even NaN; its gradient is zero
        return elementwise.overwrite(input.expand(product.shape), product)
    return product + (input if beta == 1 else input * beta)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * (mat1 @ mat2)`; with `beta` 0 the input is ignored, NaN in it, too."""
    product = mm(mat1, mat2)
    return _added(input, product, beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * bmm(batch1, batch2)`; with `beta` 0 the input is ignored, NaN in it, too."""
    product = bmm(batch1, batch2)
    return _added(input, product, beta, alpha)


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    if tensor_operand(input, "trace").ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    return sum_(diagonal(input))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of a diagonal, `offset` columns to the right of the main one, as the last dimension.

    IndexError for a dimension that isn't there, RuntimeError if rows and columns are one dimension.
    """
    n = tensor_operand(input, "diagonal").ndim
    offset = integer("diagonal", "offset", offset)
    dim1, dim2 = wrap_dim("diagonal", dim1, n), wrap_dim("diagonal", dim2, n)
    if dim1 == dim2:
        raise RuntimeError(f"diagonal: dimensions cannot be identical {dim1}, {dim2} (shape {list(input.shape)})")
    return view(input, arrays.diagonal, (offset, dim1, dim2))  # type: ignore[return-value]


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix with the given diagonal."""
    tensor_operand(input, "diag")
    if input.ndim == 2:
        return globals()["diagonal"](input, diagonal)
    if input.ndim != 1:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    size = input.shape[0] + abs(diagonal)
    start = diagonal if diagonal >= 0 else -diagonal * size
    zeros = input.new_zeros(size, size)
    return tape.apply(arrays.as_strided_scatter, (zeros, input), (input.shape, (size + 1,), start))
