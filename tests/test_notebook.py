"""The notebook that introduces automatic differentiation runs cell by cell with the import swapped and prints the same.

Its one random tensor is given the values that its printed results come from. PyTorch, where installed, is held to the
same printed forms: the reference is the notebook, not either library.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Cell:
    number: int
    source: str
    printed: str = ""


CELLS = (
    Cell(
        8,
        """
import torch

x = torch.randn(2, requires_grad=True)
print(x)
""",
        "tensor([-1.2882, -0.1838], requires_grad=True)",
    ),
    Cell(
        9,
        """
y = x+2 # this will create computational graph
# for each operation there will be a node with inputs and outputs
# first we do forward pass --> this will give y
# and the for backward --> grad_fn dy/dx
print(y)
""",
        "tensor([0.7118, 1.8162], grad_fn=<AddBackward0>)",
    ),
    Cell(
        10,
        """
z = y * y * 2
print(z)
""",
        "tensor([1.0132, 6.5972], grad_fn=<MulBackward0>)",
    ),
    Cell(
        11,
        """
z = z.mean()
print(z)
""",
        "tensor(3.8052, grad_fn=<MeanBackward0>)",
    ),
    Cell(
        12,
        """
z.backward() #  this will then calculate gradients with respect to x
print(x.grad)
""",
        "tensor([1.4235, 3.6324])",
    ),
    Cell(
        19,
        """
# let's start with forward propagation
import torch

# initialized 4 scalar tensor
a = torch.tensor([2.], requires_grad=True)
b = torch.tensor([-4.], requires_grad=True)
c = torch.tensor([-2.], requires_grad=True)
d = torch.tensor([2.], requires_grad=True)

# now we do further operations
e = a + b
f = c * d

# further opertatin
g = e * f

# display the outputs of each steps
print(e,f,g)
""",
        "tensor([-2.], grad_fn=<AddBackward0>) tensor([-4.], grad_fn=<MulBackward0>) "
        "tensor([8.], grad_fn=<MulBackward0>)",
    ),
    Cell(
        17,
        """
# during these operations, the code is converted to computational graphs
# these computational graphs help to perform automatic differenations and calculate gradients for back propagation
""",
    ),
    Cell(
        20,
        """
g.backward() # calculates backward propagationo gradients
print(a.grad.data)
print(b.grad.data)
print(c.grad.data)
print(d.grad.data)
""",
        "tensor([-4.])\ntensor([-4.])\ntensor([-4.])\ntensor([4.])",
    ),
    Cell(
        21,
        """
# to remove gradients and calculation of gradients
# a.requires_grad_(False)
# a.detach()
# with torch.no_grad():
""",
    ),
    Cell(
        24,
        """
import torch
weights = torch.ones(4, requires_grad=True)
for epoch in range(2):
    model_output = (weights*3).sum()
    model_output.backward()
    print(weights.grad)
""",
        "tensor([3., 3., 3., 3.])\ntensor([6., 6., 6., 6.])",
    ),
    Cell(
        26,
        """
# to remove gradients accumulation
import torch
weights = torch.ones(4, requires_grad=True)
for epoch in range(2):
    model_output = (weights*3).sum()
    model_output.backward()
    print(weights.grad)
    weights.grad.zero_() # clears gradients
""",
        "tensor([3., 3., 3., 3.])\ntensor([3., 3., 3., 3.])",
    ),
    Cell(
        31,
        """
import torch
x = torch.tensor(1.0)
y = torch.tensor(2.0)
w = torch.tensor(1.0, requires_grad=True)

# forward pass and compute the loss
y_hat = w * x
loss = (y_hat - y)**2

print(loss)

# backward pass
loss.backward()
print(w.grad) # dloss/dw

## update our weights
## next forward and backward pass
""",
        "tensor(1., grad_fn=<PowBackward0>)\ntensor(-2.)",
    ),
)
RANDOM = "torch.randn(2, requires_grad=True)"
DRAWN = "torch.tensor([-1.28824, -0.183795], requires_grad=True)"


def run(source: str, module: str, names: dict[str, object]) -> str:
    """Run a cell with `module` for torch and return what it prints."""
    source = source.replace("import torch", f"import {module} as torch").replace(RANDOM, DRAWN)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "<cell>", "exec"), names)
    return printed.getvalue().strip()


@pytest.mark.parametrize("module", ["fastgrad", "torch"])
@pytest.mark.parametrize("index", range(len(CELLS)), ids=[f"cell {cell.number}" for cell in CELLS])
def test_each_cell_prints_what_the_notebook_shows(index: int, module: str) -> None:
    pytest.importorskip(module)
    names: dict[str, object] = {}
    for cell in CELLS[:index]:
        run(cell.source, module, names)
    assert run(CELLS[index].source, module, names) == CELLS[index].printed


def test_the_cells_run_again_in_the_same_session() -> None:
    names: dict[str, object] = {}
    for _ in range(3):
        for cell in CELLS:
            assert run(cell.source, "fastgrad", names) == cell.printed


def test_a_random_leaf_prints_its_values_and_that_it_requires_a_gradient() -> None:
    printed = run("import torch\nprint(torch.randn((2,), requires_grad=True))", "fastgrad", {})
    number = r" ?-?\d\.\d{4}"
    assert re.fullmatch(rf"tensor\(\[{number}, {number}\], requires_grad=True\)", printed)


def test_what_the_notebook_only_mentions_stops_the_graph() -> None:
    names: dict[str, object] = {}
    run(CELLS[5].source, "fastgrad", names)
    shown = run(
        """
print(a.detach())
with torch.no_grad():
    print(a * b)
print((a * b).requires_grad, a.requires_grad_(False).requires_grad)
""",
        "fastgrad",
        names,
    )
    assert shown == "tensor([2.])\ntensor([-8.])\nTrue False"
