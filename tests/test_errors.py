"""Wrong calls raise what PyTorch raises in that place, on the user's line, with the words that tell what is wrong.

A case holds words that PyTorch's message has too, and words that fastgrad's adds: the operation, the shapes and dtypes.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastgrad


@dataclass(frozen=True)
class Case:
    name: str
    call: Callable[[Any], Any]  # of the module
    error: type[Exception]
    words: str  # a pattern that both messages hold
    ours: tuple[str, ...] = ()  # words that fastgrad's message holds besides


def leaf(m: Any, *shape: int) -> Any:
    return m.ones(*shape, requires_grad=True)


def backward_twice(m: Any) -> None:
    loss = (leaf(m, 3) ** 2).sum()
    loss.backward()
    loss.backward()


def grad_twice(m: Any) -> None:
    x = leaf(m, 3)
    y = (x * x).sum()
    m.autograd.grad(y, x)
    m.autograd.grad(y, x)


def backward_through_a_shared_part(m: Any) -> None:
    shared = m.exp(leaf(m, 3))
    (shared * 2).sum().backward()
    (shared * 3).sum().backward()


def write_item_of_leaf(m: Any) -> None:
    leaf(m, 3)[0] = 1.0


def write_view_of_leaf(m: Any) -> None:
    leaf(m, 3)[1:].add_(1)


def augmented_leaf(m: Any) -> None:
    x = leaf(m, 3)
    x -= 0.1


def assign_grad(m: Any, value: Any) -> None:
    x = leaf(m, 3)
    x.grad = value


def from_numpy_of_strings(m: Any) -> None:
    m.from_numpy(np.array(["a", "b"]))


def f(m: Any, *shape: int) -> Any:
    return m.zeros(*shape)


def index(m: Any, *values: int) -> Any:
    return m.tensor(values, dtype=m.int64)


SHAPES = (
    Case("add", lambda m: f(m, 2, 3) + f(m, 4), RuntimeError, "size|shape", ("add", "2, 3", "4")),
    Case("mul", lambda m: f(m, 2, 3) * f(m, 3, 2), RuntimeError, "size|shape", ("mul", "2, 3", "3, 2")),
    Case("where", lambda m: m.where(f(m, 2) > 0, f(m, 3), f(m, 2)), RuntimeError, "size|shape", ("where",)),
    Case("in-place add that would grow", lambda m: f(m, 3).add_(f(m, 2, 3)), RuntimeError, "shape", ("2, 3",)),
    Case("in-place add", lambda m: f(m, 3).add_(f(m, 2)), RuntimeError, "size|shape"),
    Case("copy_", lambda m: f(m, 3).copy_(f(m, 2)), RuntimeError, "size|shape"),
    Case("setitem", lambda m: f(m, 3, 2).__setitem__(0, f(m, 5)), RuntimeError, "size|shape"),
    Case("matmul", lambda m: f(m, 2, 3) @ f(m, 2, 3), RuntimeError, "2x3 and 2x3|shapes", ("2", "3")),
    Case("matmul of vectors", lambda m: f(m, 3) @ f(m, 4), RuntimeError, "size|shape", ("3", "4")),
    Case("matmul of a number", lambda m: f(m, 3) @ m.tensor(2.0), RuntimeError, "at least 1D|scalar"),
    Case("matmul of batches", lambda m: f(m, 2, 3, 4) @ f(m, 3, 4, 5), RuntimeError, "size|shape", ("2", "3")),
    Case("mm of three dimensions", lambda m: m.mm(f(m, 2, 3, 4), f(m, 4, 2)), RuntimeError, "matri|2D"),
    Case("bmm of two dimensions", lambda m: m.bmm(f(m, 2, 3), f(m, 3, 2)), RuntimeError, "3D"),
    Case("mv", lambda m: m.mv(f(m, 2, 3), f(m, 2)), RuntimeError, "size"),
    Case("dot of matrices", lambda m: m.dot(f(m, 2, 2), f(m, 2, 2)), RuntimeError, "1D"),
    Case("dot", lambda m: m.dot(f(m, 2), f(m, 3)), RuntimeError, "size|number of elements"),
    Case("outer of matrices", lambda m: m.outer(f(m, 2, 2), f(m, 2)), RuntimeError, "1D|1-D|vector"),
    Case(
        "cat", lambda m: m.cat([f(m, 2, 3), f(m, 2, 4)]), RuntimeError, "[Ss]izes of tensors must match except in dim"
    ),
    Case("cat of other dimensions", lambda m: m.cat([f(m, 2, 3), f(m, 2)]), RuntimeError, "same number of dimensions"),
    Case("cat of numbers", lambda m: m.cat([m.tensor(1.0), m.tensor(2.0)]), RuntimeError, "zero-dimensional"),
    Case("cat of nothing", lambda m: m.cat([]), (RuntimeError, ValueError), "non-empty list"),
    Case("stack", lambda m: m.stack([f(m, 2), f(m, 3)]), RuntimeError, "equal size"),
    Case("stack of nothing", lambda m: m.stack([]), RuntimeError, "non-empty"),
    Case("view", lambda m: f(m, 2, 3).view(4), RuntimeError, r"shape '\[4\]' is invalid for input of size 6"),
    Case(
        "reshape",
        lambda m: f(m, 2, 3).reshape(4, -1),
        RuntimeError,
        r"shape '\[4, -1\]' is invalid for input of size 6",
    ),
    Case(
        "two unknown extents", lambda m: f(m, 2, 3).reshape(-1, -1), RuntimeError, "only one dimension can be inferred"
    ),
    Case("view of strides", lambda m: f(m, 2, 3).T.view(6), RuntimeError, r"view size is not compatible.*reshape"),
    Case("expand", lambda m: f(m, 2, 3).expand(4, 3), RuntimeError, "expand", ("4",)),
    Case("expand to fewer", lambda m: f(m, 2, 3).expand(3), RuntimeError, "number of sizes provided"),
    Case("permute", lambda m: f(m, 2, 3).permute(0), RuntimeError, "permute|dims"),
    Case("permute twice", lambda m: f(m, 2, 3).permute(0, 0), RuntimeError, "duplicate|repeated"),
    Case("split", lambda m: f(m, 5).split([2, 2]), RuntimeError, "sum exactly to 5"),
    Case("split by a negative size", lambda m: f(m, 5).split(-1), RuntimeError, "non-negative"),
    Case("chunk into none", lambda m: f(m, 5).chunk(0), RuntimeError, "greater than 0"),
    Case("gather", lambda m: f(m, 3).gather(0, m.zeros(2, 2, dtype=m.int64)), RuntimeError, "dimensions"),
    Case("linear", lambda m: m.nn.functional.linear(f(m, 2, 3), f(m, 4, 5)), RuntimeError, "shape"),
    Case(
        "item of many", lambda m: f(m, 3).item(), RuntimeError, "a Tensor with 3 elements cannot be converted to Scalar"
    ),
    Case(
        "item of none", lambda m: f(m, 0).item(), RuntimeError, "a Tensor with 0 elements cannot be converted to Scalar"
    ),
    Case(
        "bool of many",
        lambda m: bool(f(m, 3)),
        RuntimeError,
        "Boolean value of Tensor with more than one value is ambiguous",
    ),
    Case(
        "if of many",
        lambda m: 1 if f(m, 3) > 0 else 0,
        RuntimeError,
        "Boolean value of Tensor with more than one value",
    ),
    Case("bool of none", lambda m: bool(f(m, 0)), RuntimeError, "Boolean value of Tensor with no values is ambiguous"),
    Case(
        "float of many",
        lambda m: float(f(m, 3)),
        ValueError,
        "converted to (Python )?[sS]calar",
    ),
    Case("negative extent", lambda m: m.zeros(-1), RuntimeError, "negative"),
    Case("max of nothing", lambda m: f(m, 0).max(), RuntimeError, r"numel\(\) == 0|numel"),
    Case("argmax of nothing", lambda m: f(m, 0).argmax(), IndexError, "non-zero|numel|size 0"),
    Case("amax of nothing", lambda m: f(m, 0, 2).amax(0), IndexError, "non-zero size|size 0"),
    Case("ragged tensor", lambda m: m.tensor([[1.0, 2.0], [3.0]]), ValueError, "sequence"),
)
DIMENSIONS = (
    Case(
        "sum",
        lambda m: f(m, 2, 3).sum(2),
        IndexError,
        r"Dimension out of range \(expected to be in range of \[-2, 1\], but got 2\)",
    ),
    Case("mean", lambda m: f(m, 2, 3).mean(-3), IndexError, "Dimension out of range"),
    Case("max", lambda m: f(m, 2, 3).max(5), IndexError, "Dimension out of range"),
    Case("sum over one axis twice", lambda m: f(m, 2, 3).sum((0, -2)), RuntimeError, "multiple times|appears"),
    Case("softmax", lambda m: m.softmax(f(m, 2, 3), 2), IndexError, "Dimension out of range"),
    Case("transpose", lambda m: f(m, 2, 3).transpose(0, 2), IndexError, "Dimension out of range"),
    Case("permute", lambda m: f(m, 2, 3).permute(0, 2), IndexError, "Dimension out of range"),
    Case("unsqueeze", lambda m: f(m, 2, 3).unsqueeze(4), IndexError, r"Dimension out of range.*\[-3, 2\]"),
    Case("squeeze", lambda m: f(m, 2, 3).squeeze(2), IndexError, "Dimension out of range"),
    Case("cat", lambda m: m.cat([f(m, 2), f(m, 2)], dim=1), IndexError, "Dimension out of range"),
    Case("stack", lambda m: m.stack([f(m, 2), f(m, 2)], dim=3), IndexError, "Dimension out of range"),
    Case("flatten", lambda m: f(m, 2, 3).flatten(1, 0), RuntimeError, "start_dim"),
    Case("size", lambda m: f(m, 2, 3).size(2), IndexError, "Dimension out of range"),
    Case("one-dimensional T is no matter, mT is", lambda m: f(m, 3).mT, RuntimeError, "matri|2"),
)
INDEXING = (
    Case("integer", lambda m: f(m, 3)[3], IndexError, "index 3 is out of bounds for dimension 0 with size 3"),
    Case(
        "negative integer",
        lambda m: f(m, 2, 3)[0, -4],
        IndexError,
        "index -4 is out of bounds for dimension 1 with size 3",
    ),
    Case("too many", lambda m: f(m, 3)[0, 0], IndexError, "too many indices"),
    Case("of a number", lambda m: m.tensor(1.0)[0], IndexError, "invalid index of a 0-dim tensor"),
    Case("negative step", lambda m: f(m, 3)[::-1], ValueError, "step must be greater than zero"),
    Case("float", lambda m: f(m, 3)[1.5], IndexError, "integers, slices|valid indices"),
    Case("float tensor", lambda m: f(m, 3)[m.tensor([1.0])], IndexError, "long, int, byte or bool|integer"),
    Case(
        "integer array",
        lambda m: f(m, 3)[index(m, 0, 3)].tolist(),
        IndexError,
        "index 3 is out of bounds for dimension 0 with size 3",
    ),
    Case(
        "list",
        lambda m: f(m, 2, 3)[:, [0, -4]].tolist(),
        IndexError,
        "index -4 is out of bounds for dimension . with size 3",
    ),
    Case(
        "arrays that do not broadcast",
        lambda m: f(m, 3, 3)[index(m, 0, 1), index(m, 0, 1, 2)],
        IndexError,
        "shape mismatch|broadcast",
    ),
    Case("mask of another shape", lambda m: f(m, 3)[m.tensor([True, False])], IndexError, "mask"),
    Case(
        "write",
        lambda m: f(m, 3).__setitem__(5, 1.0),
        IndexError,
        "index 5 is out of bounds for dimension 0 with size 3",
    ),
    Case(
        "gather",
        lambda m: f(m, 3).gather(0, index(m, 4)).tolist(),
        (RuntimeError, IndexError),
        "index 4 is out of bounds",
    ),
    Case(
        "index_select",
        lambda m: f(m, 3).index_select(0, index(m, 4)).tolist(),
        IndexError,
        "index out of range|out of bounds",
    ),
    Case("len of a number", lambda m: len(m.tensor(1.0)), TypeError, "len\\(\\) of a 0-d tensor"),
    Case("iteration of a number", lambda m: list(m.tensor(1.0)), TypeError, "iteration over a 0-d tensor"),
    Case(
        "cross_entropy",
        lambda m: m.nn.functional.cross_entropy(f(m, 2, 3), index(m, 0, 3)).item(),
        IndexError,
        "3 is out of bounds",
    ),
    Case(
        "one_hot",
        lambda m: m.nn.functional.one_hot(index(m, 0, 3), 2).tolist(),
        (RuntimeError, IndexError),
        "smaller than num_classes|out of bounds",
    ),
)
DTYPES = (
    Case(
        "integer leaf",
        lambda m: m.ones(3, dtype=m.int64, requires_grad=True),
        RuntimeError,
        "Only Tensors of floating point.*dtype can require gradients",
    ),
    Case(
        "integer tensor()",
        lambda m: m.tensor([1, 2], requires_grad=True),
        RuntimeError,
        "Only Tensors of floating point.*dtype can require gradients",
    ),
    Case("requires_grad_", lambda m: m.arange(3).requires_grad_(), RuntimeError, "floating point"),
    Case(
        "matmul of two dtypes",
        lambda m: f(m, 2, 2) @ m.zeros(2, 2, dtype=m.float64),
        RuntimeError,
        "same dtype|dtype",
        ("float32", "float64"),
    ),
    Case(
        "mean of integers",
        lambda m: m.arange(3).mean(),
        RuntimeError,
        "mean.*could not infer output dtype|floating point",
        ("int64",),
    ),
    Case("var of integers", lambda m: m.arange(3).var(), RuntimeError, "floating point"),
    Case(
        "softmax of integers",
        lambda m: m.softmax(m.arange(3), 0),
        (RuntimeError, NotImplementedError),
        "implemented for|floating",
    ),
    Case(
        "float into an integer in place",
        lambda m: m.arange(3).add_(0.5),
        RuntimeError,
        "result type Float can't be cast to the desired output type|can't be cast",
    ),
    Case("division of an integer in place", lambda m: m.arange(3).div_(2), RuntimeError, "can't be cast"),
    Case("minus a bool", lambda m: -m.tensor([True]), RuntimeError, "not supported|bool"),
    Case(
        "difference of bools", lambda m: m.tensor([True]) - m.tensor([False]), RuntimeError, "not supported|not defined"
    ),
    Case(
        "integer to a negative power",
        lambda m: m.arange(3) ** -1,
        RuntimeError,
        "[Ii]ntegers to negative integer powers are not allowed",
    ),
    Case("index of floats for gather", lambda m: f(m, 3).gather(0, f(m, 1)), RuntimeError, "int64|int32/int64"),
    Case(
        "target of floats for nll_loss",
        lambda m: m.nn.functional.nll_loss(f(m, 2, 3), f(m, 2)),
        RuntimeError,
        "Long|Float|int64|scalar type",
    ),
    Case("bitwise not of floats", lambda m: ~f(m, 2), TypeError, "integer and Boolean|integral"),
    Case(
        "index_add of another dtype",
        lambda m: f(m, 3).index_add(0, index(m, 0), m.zeros(1, dtype=m.float64)),
        RuntimeError,
        "same (dtype|scalar type)|dtype",
    ),
    Case("a string", lambda m: m.tensor("a"), (TypeError, ValueError), "new\\(\\): invalid data type 'str'|str"),
    Case("an array of strings", from_numpy_of_strings, TypeError, "can't convert np.ndarray of type"),
    Case("from_numpy of a list", lambda m: m.from_numpy([1.0]), TypeError, "expected np.ndarray \\(got list\\)"),
    Case("None", lambda m: f(m, 3) + None, TypeError, "NoneType"),
    Case("a string as a summand", lambda m: f(m, 3) + "a", TypeError, "str"),
    Case("default dtype", lambda m: m.set_default_dtype(m.int64), TypeError, "floating-point|floating point"),
    Case("logical index of eye", lambda m: m.eye(2.5), TypeError, "float"),
    Case("two dtypes for where", lambda m: m.where(f(m, 2), f(m, 2), f(m, 2)), RuntimeError, "bool"),
)
DIFFERENTIATION = (
    Case(
        "backward twice",
        backward_twice,
        RuntimeError,
        "Trying to backward through the graph a second time",
        ("retain_graph=True",),
    ),
    Case(
        "grad twice",
        grad_twice,
        RuntimeError,
        "Trying to backward through the graph a second time",
        ("retain_graph=True",),
    ),
    Case(
        "backward through a released part",
        backward_through_a_shared_part,
        RuntimeError,
        "Trying to backward through the graph a second time",
    ),
    Case(
        "backward from many",
        lambda m: (leaf(m, 3) * 2).backward(),
        RuntimeError,
        "grad can be implicitly created only for scalar outputs",
    ),
    Case(
        "grad from many",
        lambda m: m.autograd.grad(leaf(m, 3) * 2, leaf(m, 3)),
        RuntimeError,
        "grad can be implicitly created only for scalar outputs",
    ),
    Case(
        "backward from a constant",
        lambda m: f(m, 3).sum().backward(),
        RuntimeError,
        "does not require grad and does not have a grad_fn",
    ),
    Case(
        "backward from what no_grad made",
        lambda m: m.no_grad()(lambda: leaf(m, 3).sum())().backward(),
        RuntimeError,
        "does not require grad",
    ),
    Case(
        "gradient of another shape",
        lambda m: (leaf(m, 3) * 2).backward(f(m, 2)),
        RuntimeError,
        "[Mm]ismatch in shape: grad_output",
    ),
    Case(
        "grad of an unused input",
        lambda m: m.autograd.grad(leaf(m, 2).sum(), leaf(m, 3)),
        RuntimeError,
        "appears to not have been used in the graph|not have been used",
        ("allow_unused=True",),
    ),
    Case(
        "grad of a constant",
        lambda m: m.autograd.grad(leaf(m, 2).sum(), f(m, 3)),
        RuntimeError,
        "does not require grad",
    ),
    Case(
        "write to a leaf",
        lambda m: leaf(m, 3).add_(1),
        RuntimeError,
        "a leaf Variable that requires grad is being used in an in-place operation",
    ),
    Case(
        "augmented leaf",
        augmented_leaf,
        RuntimeError,
        "a leaf Variable that requires grad is being used in an in-place operation",
    ),
    Case(
        "write to a leaf's item",
        write_item_of_leaf,
        RuntimeError,
        "a view of a leaf Variable that requires grad is being used in an in-place",
    ),
    Case(
        "write to a leaf's view",
        write_view_of_leaf,
        RuntimeError,
        "a view of a leaf Variable that requires grad is being used in an in-place operation",
    ),
    Case(
        "write to an expanded tensor",
        lambda m: f(m, 1).expand(3).add_(1),
        RuntimeError,
        "more than one element of the written-to tensor refers to a single memory location",
        ("clone",),
    ),
    Case(
        "requires_grad of a result",
        lambda m: setattr(leaf(m, 3) * 2, "requires_grad", False),
        RuntimeError,
        "you can only change requires_grad flags of leaf variables",
    ),
    Case(
        "requires_grad_ of a result",
        lambda m: (leaf(m, 3) * 2).requires_grad_(False),
        RuntimeError,
        "you can only change requires_grad flags of leaf variables",
    ),
    Case(
        "retain_grad of a constant",
        lambda m: f(m, 3).retain_grad(),
        RuntimeError,
        "can't retain_grad on Tensor that has requires_grad=False",
    ),
    Case(
        "numpy of a leaf",
        lambda m: leaf(m, 3).numpy(),
        RuntimeError,
        r"Can't call numpy\(\) on Tensor that requires grad",
        ("detach",),
    ),
    Case(
        "numpy of a result",
        lambda m: (leaf(m, 3) * 2).numpy(),
        RuntimeError,
        r"Can't call numpy\(\) on Tensor that requires grad",
    ),
    Case(
        "np.asarray of a result",
        lambda m: np.asarray(leaf(m, 3) * 2),
        RuntimeError,
        r"Can't call numpy\(\) on Tensor that requires grad",
    ),
    Case(
        "grad of another shape",
        lambda m: assign_grad(m, f(m, 2)),
        RuntimeError,
        "assigned grad has data of a different size|size",
    ),
    Case(
        "grad of another type",
        lambda m: assign_grad(m, 1.0),
        TypeError,
        "assigned grad expected to be a Tensor or None",
    ),
)
OTHERS = (
    Case("cuda", lambda m: f(m, 3).to("cuda"), (RuntimeError, AssertionError), "CUDA|cuda"),
    Case("cuda()", lambda m: f(m, 3).cuda(), (RuntimeError, AssertionError), "CUDA|cuda"),
    Case("zeros on cuda", lambda m: m.zeros(3, device="cuda"), (RuntimeError, AssertionError), "CUDA|cuda"),
    Case("unknown device", lambda m: m.device("abacus"), RuntimeError, "device"),
    Case("unknown keyword", lambda m: f(m, 3).sum(axes=0), TypeError, "argument|keyword"),
    Case("empty optimizer", lambda m: m.optim.SGD([], lr=0.1), ValueError, "optimizer got an empty parameter list"),
    Case(
        "optimizer of a tensor",
        lambda m: m.optim.SGD(leaf(m, 3), lr=0.1),
        TypeError,
        "params argument given to the optimizer should be an iterable",
    ),
    Case(
        "optimizer of a result",
        lambda m: m.optim.SGD([leaf(m, 3) * 2], lr=0.1),
        ValueError,
        "can't optimize a non-leaf Tensor",
    ),
    Case("negative rate", lambda m: m.optim.SGD([leaf(m, 3)], lr=-1.0), ValueError, "Invalid learning rate: -1.0"),
    Case(
        "negative momentum",
        lambda m: m.optim.SGD([leaf(m, 3)], lr=0.1, momentum=-1.0),
        ValueError,
        "Invalid momentum value: -1.0",
    ),
    Case(
        "nesterov without momentum",
        lambda m: m.optim.SGD([leaf(m, 3)], lr=0.1, nesterov=True),
        ValueError,
        "Nesterov momentum requires a momentum and zero dampening",
    ),
    Case(
        "beta of one",
        lambda m: m.optim.Adam([leaf(m, 3)], betas=(1.0, 0.9)),
        ValueError,
        "Invalid beta parameter at index 0: 1.0",
    ),
    Case(
        "unknown reduction",
        lambda m: m.nn.functional.mse_loss(f(m, 3), f(m, 3), reduction="all"),
        ValueError,
        "all is not a valid value for reduction",
    ),
    Case(
        "dropout of more than all",
        lambda m: m.nn.functional.dropout(f(m, 3), 1.5),
        ValueError,
        "dropout probability has to be between 0 and 1, but got 1.5",
    ),
    Case(
        "parameters of another shape",
        lambda m: m.nn.Linear(2, 3).load_state_dict(m.nn.Linear(3, 2).state_dict()),
        RuntimeError,
        "size mismatch for weight",
    ),
    Case(
        "missing parameter",
        lambda m: m.nn.Linear(2, 3).load_state_dict({}),
        RuntimeError,
        r"Missing key\(s\) in state_dict",
    ),
    Case(
        "unknown attribute of a module",
        lambda m: m.nn.Linear(2, 3).wieght,
        AttributeError,
        "object has no attribute 'wieght'",
    ),
    Case("linspace of a negative number", lambda m: m.linspace(0, 1, -1), RuntimeError, "non-negative"),
    Case("arange against its step", lambda m: m.arange(3, 0, 1), RuntimeError, "inconsistent with step sign"),
    Case("arange without a step", lambda m: m.arange(0, 3, 0), RuntimeError, "step must be nonzero"),
    Case("randint of nothing", lambda m: m.randint(3, 3, (2,)), RuntimeError, "from"),
)
GROUPS = {
    "shapes": SHAPES,
    "dimensions": DIMENSIONS,
    "indexing": INDEXING,
    "dtypes": DTYPES,
    "differentiation": DIFFERENTIATION,
    "others": OTHERS,
}
CASES = [pytest.param(case, id=f"{group}: {case.name}") for group, cases in GROUPS.items() for case in cases]


def raised(case: Case, module: Any) -> Exception:
    with pytest.raises(Exception) as caught:
        case.call(module)
    return caught.value


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_raises_and_says_why(case: Case) -> None:
    error = raised(case, fastgrad)
    assert isinstance(error, case.error), f"{type(error).__name__}: {error}"
    assert re.search(case.words, str(error), re.DOTALL), str(error)
    for word in case.ours:
        assert word in str(error), str(error)


@pytest.mark.parametrize("case", CASES)
def test_the_same_call_raises_the_same_type_in_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = raised(case, torch), raised(case, fastgrad)
    assert re.search(case.words, str(theirs), re.DOTALL), str(theirs)
    assert type(ours) is type(theirs) or isinstance(case.error, tuple), f"{ours!r} and {theirs!r}"


@pytest.mark.parametrize("case", SHAPES[:8], ids=lambda case: case.name)
def test_the_error_is_raised_on_the_line_of_the_call(case: Case) -> None:
    try:
        case.call(fastgrad)
    except Exception as error:
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert files.count(__file__) == 2  # this test, and the call: no later observation


@pytest.mark.parametrize("case", CASES)
def test_after_an_error_the_tape_is_usable(case: Case) -> None:
    x = fastgrad.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    raised(case, fastgrad)
    (y * x).sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]


class TestCompile:
    """Inside `fastgrad.compile` no value leaves the function on the way: what asks for one says what to do instead."""

    @pytest.mark.parametrize(
        "look",
        [
            lambda y: y.sum().item(),
            lambda y: float(y.sum()),
            lambda y: y.tolist(),
            lambda y: y.detach().numpy(),
            lambda y: print(y),
        ],
        ids=["item", "float", "tolist", "numpy", "print"],
    )
    def test_a_value_read_inside_is_refused_with_the_remedy(self, look: Callable[[Any], Any]) -> None:
        @fastgrad.compile
        def step(x: Any) -> Any:
            y = x * 2
            look(y)
            return y

        with pytest.raises(RuntimeError, match=r"(?s)compile.*(return|outside)"):
            for _ in range(2):
                step(fastgrad.ones(3))

    def test_an_error_inside_is_the_error_outside(self) -> None:
        @fastgrad.compile
        def step(x: Any) -> Any:
            return x + fastgrad.ones(4)

        for _ in range(2):
            with pytest.raises(RuntimeError, match="add"):
                step(fastgrad.ones(3))

    def test_after_a_refusal_the_function_works_for_other_arguments(self) -> None:
        @fastgrad.compile
        def step(x: Any, look: bool) -> Any:
            y = x * 2
            if look:
                y.tolist()
            return y

        with pytest.raises(RuntimeError, match="compile"):
            step(fastgrad.ones(3), True)
        assert step(fastgrad.ones(3), False).tolist() == [2.0, 2.0, 2.0]


def test_a_wrong_call_inside_no_grad_leaves_recording_on() -> None:
    with pytest.raises(RuntimeError), fastgrad.no_grad():
        fastgrad.zeros(2) + fastgrad.zeros(3)
    assert fastgrad.is_grad_enabled()
    assert (fastgrad.ones(1, requires_grad=True) * 2).requires_grad


def test_an_index_out_of_range_does_not_write_anything() -> None:
    x = fastgrad.zeros(3)
    with pytest.raises(IndexError):
        x[fastgrad.tensor([0, 7])] = 1.0
        x.tolist()
    assert fastgrad.ones(3).tolist() == [1.0, 1.0, 1.0]


def test_a_failing_step_leaves_the_parameters_as_they_were() -> None:
    w = fastgrad.ones(3, requires_grad=True)
    optimizer = fastgrad.optim.SGD([w], lr=0.1)
    with pytest.raises(IndexError):
        loss = (w[fastgrad.tensor([0, 7])] ** 2).sum()
        loss.backward()
        optimizer.step()
        w.tolist()
    assert w.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "call", ["p.sub_(None, alpha=2)", "torch.add(p, None, alpha=2)", "p.add('x', alpha=2.0)", "p.add(p, alpha='x')"]
)
def test_a_scaled_sum_of_something_else_is_a_type_error(call: str) -> None:
    with pytest.raises(TypeError, match="must be Tensor or number"):
        eval(call, {"torch": fastgrad, "p": fastgrad.ones(3)})
