"""From a bare interpreter to a result: import and first gradient, and the first step of a linear regression.

"warm" means that caches on disk are filled by a run before, "nothing cached" that every run gets an empty directory.
Files of the libraries themselves are in the page cache in both. JAX is told to keep what it compiles, which it does not
by default. The time is that of the whole process, the interpreter's own start included.
"""

import os
import subprocess
import sys
import tempfile
from typing import Any

from ..goals import within
from ..peers import ROOT, cache_variables
from ..workload import Step, Workload

_GRADIENT = """
import {library} as torch
x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
(x * x).sum().backward()
print(x.grad.tolist()[2])
"""

_STEP = """
import numpy as np, {library} as torch
x = torch.tensor(np.random.default_rng(0).standard_normal((64, 8)))
y = x.sum(1, keepdim=True)
w, b = (torch.zeros(*s, dtype=torch.float64, requires_grad=True) for s in ((8, 1), (1,)))
optimizer = torch.optim.SGD([w, b], lr=0.01)
loss = ((x @ w + b - y) ** 2).mean()
loss.backward()
optimizer.step()
print(loss.item())
"""

_GRADIENT_COMPILED = """
import torch
x = torch.tensor([1.0, 2.0, 3.0])
print(torch.compile(torch.func.grad(lambda x: (x * x).sum()))(x).tolist()[2])
"""

_STEP_COMPILED = """
import numpy as np, torch
x = torch.tensor(np.random.default_rng(0).standard_normal((64, 8)))
y = x.sum(1, keepdim=True)
p = [torch.zeros(8, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
@torch.compile
def step(p, x, y):
    g, loss = torch.func.grad_and_value(lambda p: ((x @ p[0] + p[1] - y) ** 2).mean())(p)
    for a, da in zip(p, g):
        a.sub_(da, alpha=0.01)
    return loss
print(step(p, x, y).item())
"""

_STEP_FASTGRAD = """
import numpy as np, fastgrad
x = fastgrad.tensor(np.random.default_rng(0).standard_normal((64, 8)))
y = x.sum(1, keepdim=True)
w, b = (fastgrad.zeros(*s, dtype=fastgrad.float64, requires_grad=True) for s in ((8, 1), (1,)))
optimizer = fastgrad.optim.SGD([w, b], lr=0.01)
@fastgrad.compile
def step(x, y):
    optimizer.zero_grad()
    loss = ((x @ w + b - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    return loss
print(step(x, y).item())
"""

_GRADIENT_JAX = """
import jax
print(jax.jit(jax.grad(lambda x: (x * x).sum()))(jax.numpy.array([1.0, 2.0, 3.0]))[2])
"""

_STEP_JAX = """
import numpy as np, jax
jax.config.update("jax_enable_x64", True)
x = jax.numpy.asarray(np.random.default_rng(0).standard_normal((64, 8)))
y = x.sum(1, keepdims=True)
@jax.jit
def step(p, x, y):
    loss, g = jax.value_and_grad(lambda p: ((x @ p[0] + p[1] - y) ** 2).mean())(p)
    return loss, [a - 0.01 * da for a, da in zip(p, g)]
print(step([np.zeros((8, 1)), np.zeros(1)], x, y)[0])
"""

_GRADIENT_AUTOGRAD = """
import autograd.numpy as np
from autograd import grad
print(grad(lambda x: np.sum(x * x))(np.array([1.0, 2.0, 3.0]))[2])
"""

_STEP_AUTOGRAD = """
import autograd.numpy as np
from autograd import value_and_grad
x = np.random.default_rng(0).standard_normal((64, 8))
y = x.sum(1, keepdims=True)
loss, g = value_and_grad(lambda p: np.mean((x @ p[0] + p[1] - y) ** 2))([np.zeros((8, 1)), np.zeros(1)])
print(loss)
"""

_GRADIENT_PYTENSOR = """
import numpy as np, pytensor, pytensor.tensor as pt
x = pt.vector("x", dtype="float64")
print(pytensor.function([x], pytensor.grad((x * x).sum(), x), mode="NUMBA")(np.array([1.0, 2.0, 3.0]))[2])
"""

_STEP_PYTENSOR = """
import numpy as np, pytensor, pytensor.tensor as pt
w, b = pytensor.shared(np.zeros((8, 1))), pytensor.shared(np.zeros(1))
x, y = pt.matrix("x", dtype="float64"), pt.matrix("y", dtype="float64")
loss = ((x @ w + b - y) ** 2).mean()
dw, db = pytensor.grad(loss, [w, b])
values = np.random.default_rng(0).standard_normal((64, 8))
updates = {w: w - 0.01 * dw, b: b - 0.01 * db}
print(pytensor.function([x, y], loss, updates=updates, mode="NUMBA")(values, values.sum(1, keepdims=True)))
"""


_GRADIENT_CASADI = """
import casadi as ca
x = ca.SX.sym("x", 3)
print(float(ca.Function("gradient", [x], [ca.gradient(ca.sumsqr(x), x)])([1.0, 2.0, 3.0])[2]))
"""

_STEP_CASADI = """
import numpy as np, casadi as ca
values = np.random.default_rng(0).standard_normal((64, 8))
p = ca.SX.sym("p", 9)
loss = ca.sumsqr(ca.mtimes(ca.SX(ca.DM(values)), p[:8]) + p[8] - ca.SX(ca.DM(values.sum(1)))) / 64
print(float(ca.Function("step", [p], [loss, p - 0.01 * ca.gradient(loss, p)])(np.zeros(9))[0]))
"""

_GRADIENT_DRJIT = """
import drjit as dr
from drjit.llvm.ad import Float
x = Float(1, 2, 3)
dr.enable_grad(x)
dr.backward(dr.sum(x * x))
print(dr.grad(x)[2])
"""

_STEP_DRJIT = """
import numpy as np, drjit as dr
from drjit.llvm.ad import Float64
values = np.random.default_rng(0).standard_normal((64, 8))
columns, y = [Float64(np.ascontiguousarray(column)) for column in values.T], Float64(values.sum(1))
w, b = [Float64(0) for _ in range(8)], Float64(0)
dr.enable_grad(w, b)
loss = dr.mean((sum((c * a for c, a in zip(columns, w)), b) - y) ** 2)
dr.backward(loss)
new = [dr.detach(a) - 0.01 * dr.grad(a) for a in (*w, b)]
dr.eval(loss, new)
print(loss[0])
"""


def _runs(script: str, cold: bool) -> Step:
    """A step that runs `script` in a new interpreter, with its caches in a directory of its own."""
    kept = tempfile.TemporaryDirectory(prefix="benchmarks-")

    def run(directory: str) -> float:
        variables = dict(os.environ) | cache_variables(directory)
        command = [sys.executable, "-c", script]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables)
        if answer.returncode:
            raise RuntimeError(answer.stderr.strip().rpartition("\n")[2])
        return float(answer.stdout)

    def step() -> float:
        if not cold:
            return run(kept.name)
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as fresh:
            return run(fresh)

    return step


def fastgrad_plain(what: str, cold: bool) -> Step:
    return _runs((_GRADIENT if what == "gradient" else _STEP).format(library="fastgrad"), cold)


def fastgrad_compiled(what: str, cold: bool) -> Step:
    return _runs(_STEP_FASTGRAD, cold)


def torch_eager(what: str, cold: bool) -> Step:
    return _runs((_GRADIENT if what == "gradient" else _STEP).format(library="torch"), cold)


def torch_compiled(what: str, cold: bool) -> Step:
    return _runs(_GRADIENT_COMPILED if what == "gradient" else _STEP_COMPILED, cold)


def jax_jit(what: str, cold: bool) -> Step:
    return _runs(_GRADIENT_JAX if what == "gradient" else _STEP_JAX, cold)


def hips_autograd(what: str, cold: bool) -> Step:
    return _runs(_GRADIENT_AUTOGRAD if what == "gradient" else _STEP_AUTOGRAD, cold)


def pytensor(what: str, cold: bool) -> Step:
    return _runs(_GRADIENT_PYTENSOR if what == "gradient" else _STEP_PYTENSOR, cold)


def casadi(what: str, cold: bool) -> Step:
    return _runs(_GRADIENT_CASADI if what == "gradient" else _STEP_CASADI, cold)


def drjit(what: str, cold: bool) -> Step:
    return _runs(_GRADIENT_DRJIT if what == "gradient" else _STEP_DRJIT, cold)


def _workload(what: str, cold: bool, **options: Any) -> Workload:
    task = "import and first gradient" if what == "gradient" else "import and first training step"
    without = ("fastgrad_compiled",) if what == "gradient" else ()
    goals = (within("fastgrad_plain", 3e9 if cold else 0.6e9),) if what == "gradient" else ()
    name = f"{task}, {'nothing cached' if cold else 'warm'}"
    module, arguments = __name__.rpartition(".")[2], {"what": what, "cold": cold}
    return Workload(name, module, arguments, tolerance=1e-5, once=True, without=without, goals=goals, **options)


WORKLOADS = [_workload(what, cold) for what in ("gradient", "step") for cold in (False, True)]
