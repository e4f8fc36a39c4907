"""What always holds (docs/design.md), each invariant by its number.

Counters come from `fastgrad.stats()`, sources are read with `ast`, caches and processes are tried out in child processes.
Nothing here measures time.
"""

from __future__ import annotations

import ast
import gc
import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, alone, child_environment, same_bits

import fastgrad as torch
from fastgrad.ops.table import BY_CODE, OPERATIONS, Elementwise, elementwise

F = torch.nn.functional


def network(sizes: tuple[int, ...] = (3, 8, 1), seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for n, m in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(n, m), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def data(rows: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 3)).astype(np.float32)
    return torch.tensor(x), torch.tensor(np.sin(x.sum(1, keepdims=True)))


class Training:
    """A loop over one batch."""

    def __init__(self, optimizer: Callable[..., Any] = torch.optim.SGD, rows: int = 16, seed: int = 0) -> None:
        self.x, self.y = data(rows, seed)
        self.model = network(seed=seed)
        self.optimizer = optimizer(self.model.parameters(), lr=0.01)

    def step(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        return loss

    def parameters(self) -> list[np.ndarray]:
        return [p.detach().numpy().copy() for p in self.model.parameters()]


# -------------------------------------------------- 1. recording computes nothing; executing makes no object per operation


def test_recording_does_no_arithmetic(spent: Any) -> None:
    training = Training()
    training.step()
    count = spent()
    with torch.no_grad():
        prediction = torch.tanh(training.model(training.x) * 2 - 1)
        total = (prediction.sum() + prediction.max(dim=0).values.mean()).reshape(1)
        prediction += 1
        prediction[0] = 5.0
    loss = F.mse_loss(training.model(training.x), training.y)
    loss.backward()
    (gradient,) = torch.autograd.grad((training.model[0].weight ** 2).sum(), training.model[0].weight)
    noise = torch.randn(4, 4) @ torch.ones(4, 4)
    assert count["runs"] == 0
    assert count["planned"] == 0
    for t in (total, prediction, loss, gradient, noise):
        t.tolist()
    assert count["runs"] >= 1


def test_recording_makes_no_large_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        x = torch.zeros(10_000_000)
        y = torch.exp(x * 2 + 1).sum()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    del x, y


def test_nothing_runs_that_nobody_wants(spent: Any) -> None:
    x = torch.tensor([1.0, 2.0])
    lost = x[torch.tensor([5])]  # would be an error
    del lost
    count = spent()
    assert (x * 2).tolist() == [2.0, 4.0]
    assert count["runs"] == 1


def test_observing_a_value_that_is_there_runs_nothing(spent: Any) -> None:
    y = torch.ones(3) * 2
    y.tolist()
    count = spent()
    y.sum, y.shape, y.tolist(), y.numpy(), repr(y), y[0].item(), len(y)
    assert count["runs"] <= 1, "only y[0] is a new value"


def events_of(function: Callable[[], Any]) -> int:
    """How many Python and C functions are called from Python."""
    events = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal events
        events += event in ("call", "c_call")

    gc.disable()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return events


def test_executing_costs_no_python_per_operation() -> None:
    x = torch.ones(3)

    def chain(length: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def function(x: torch.Tensor) -> torch.Tensor:
            for _ in range(length):
                x = torch.sin(x)
            return x

        return torch.compile(function)

    def calls(length: int) -> int:
        step = chain(length)
        for _ in range(5):
            step(x)
        return events_of(lambda: step(x))

    assert calls(10) == calls(1000)


def test_running_a_known_trace_makes_no_object_per_operation() -> None:
    x = torch.ones(3)

    def blocks_made_by_a_run(length: int) -> int:
        made = 0
        for _ in range(4):
            value = x
            for _ in range(length):
                value = torch.sin(value)
            before = sys.getallocatedblocks()
            value._materialize()
            made = sys.getallocatedblocks() - before
        return made

    assert blocks_made_by_a_run(1000) <= blocks_made_by_a_run(10) + 20


# ----------------------------------------------------------------------------------- 2. an operation is declared in one place


def library_sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted([*(ROOT / "fastgrad").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]):
        if (ROOT / "fastgrad" / "kernels") not in path.parents:
            yield path, ast.parse(path.read_text())


def test_every_package_is_in_the_wheel() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^packages = \[(.*)\]$", project, re.MULTILINE)
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fastgrad").rglob("__init__.py")}
    folders |= {"fastgrad.kernels"}  # a link
    assert listed and sorted(re.findall(r'"([\w.]+)"', listed[1])) == sorted(folders)


DECLARATIONS = {"elementwise", "Elementwise", "View", "ArrayOperation", "Convert", "AsStrided"}


def test_every_operation_has_one_row() -> None:
    assert [op.name for op in BY_CODE] == list(OPERATIONS)
    assert [op.code for op in BY_CODE] == list(range(len(BY_CODE)))
    with pytest.raises(ValueError, match="twice"):
        elementwise("add", lambda a, b: a + b)


def declared(tree: ast.Module) -> list[str]:
    """The operations that a source declares."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in DECLARATIONS and node.args and isinstance(node.args[0], ast.Constant):
                found.append(str(node.args[0].value))
    return found


def test_rows_are_declared_in_the_folder_of_operations() -> None:
    inside, outside = [], []
    for path, tree in library_sources():
        in_ops = path.parent == ROOT / "fastgrad" / "ops"
        (inside if in_ops else outside).extend(declared(tree))
    assert outside == []
    assert {op.name for op in BY_CODE if isinstance(op, Elementwise)} <= {*inside, "truth"}


def test_an_elementwise_operation_is_named_nowhere_but_in_its_row() -> None:
    """Neither the planner nor the kernels nor reverse mode know an elementwise operation by name."""
    sources = {path.relative_to(ROOT).as_posix(): tree for path, tree in library_sources()}
    for room in ROOMS:
        trees = {path: tree for path, tree in sources.items() if path == room or path.startswith(f"{room}/")}
        assert trees, f"nothing is left of {room}"
        for path, tree in trees.items():
            assert known_operations(tree) == [], path


ROOMS = ("fastgrad/plan", "fastgrad/reverse.py", "fastgrad/execute.py", "fastgrad/recording.py", "fastgrad/threads.py")
ROOMS += ("kernels/loops.py", "kernels/elementwise.py", "kernels/sweep.py")


def known_operations(tree: ast.Module) -> list[str]:
    """Imports of rows, and names of elementwise operations that something is compared with."""
    names = {op.name for op in BY_CODE if isinstance(op, Elementwise)} - {"truth"}
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.endswith("ops.elementwise")]
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[-2:] == ["ops", "elementwise"]:
                found += [alias.name for alias in node.names if alias.name != "Elementwise"]
            if module.split(".")[-1] == "ops":
                found += [alias.name for alias in node.names if alias.name == "elementwise"]
        if isinstance(node, (ast.Compare, ast.MatchValue)):
            texts = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
            found += sorted(names & texts)
    return found


@pytest.mark.parametrize(
    "source, name",
    [
        ("from .ops import elementwise as e\ny = e.tanh_op", "elementwise"),
        ("from ..ops.elementwise import tanh_op", "tanh_op"),
        ("import fastgrad.ops.elementwise", "fastgrad.ops.elementwise"),
        ("if op.name == 'tanh': pass", "tanh"),
        ("if op.name in ('exp', other): pass", "exp"),
        ("match op.name:\n case 'mul': pass", "mul"),
    ],
)
def test_knowing_an_operation_is_found(source: str, name: str) -> None:
    assert known_operations(ast.parse(source)) == [name]


def test_a_new_operation_is_one_declaration(python: Any) -> None:
    """A row added by a user has values, gradients and second gradients, in both tiers."""
    process = python("""
        import numpy as np
        import fastgrad as torch
        from fastgrad.ops.symbol import exp
        from fastgrad.ops.table import elementwise
        gauss = elementwise("gauss", lambda a, b: exp(-(a * a) * b), lambda g, y, a, b: (-2 * g * y * a * b, -g * y * (a * a)))
        a, b = np.linspace(-2, 2, 5000), np.linspace(0.5, 1, 5000)
        for tier in (0, 1):
            torch.set_tier(tier)
            x, w = (torch.tensor(v, requires_grad=True) for v in (a, b))
            y = gauss(x, w)
            y.sum().backward()
            np.testing.assert_allclose(y.detach().numpy(), np.exp(-a * a * b), rtol=1e-15)
            np.testing.assert_allclose(x.grad.numpy(), -2 * np.exp(-a * a * b) * a * b, rtol=1e-14)
        few = [torch.tensor(v[:3], requires_grad=True) for v in (a, b)]
        assert torch.autograd.gradcheck(gauss, few) and torch.autograd.gradgradcheck(gauss, few)
        print(gauss(*few).grad_fn.name())
    """)
    assert process.stdout == "GaussBackward0\n"


# --------------------------------------------------- 3. the sweep knows no operations; kernels import nothing from above them


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(level, module) of everything a source imports, sources in its strings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module is None:
                yield from ((node.level, alias.name) for alias in node.names)
            else:
                yield node.level, node.module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            for line in textwrap.dedent(node.value).splitlines():
                if line.startswith(("import ", "from ")):
                    yield from imports(ast.parse(line.split(" import ")[0].replace("from ", "import ")))


def test_kernels_import_nothing_from_fastgrad_above_them() -> None:
    paths = sorted((ROOT / "kernels").rglob("*.py"))
    assert len(paths) > 10
    for path in paths:
        for level, module in imports(ast.parse(path.read_text())):
            if level:
                assert level == 1, f"{path} reaches above its package for {module}"
            elif module.split(".")[0] == "fastgrad":
                assert module.startswith("fastgrad.kernels"), f"{path} imports {module}"


def test_the_plan_knows_no_tensors_and_the_tape_no_numpy() -> None:
    for path in (ROOT / "fastgrad" / "plan").glob("*.py"):
        assert not any(
            m.split(".")[0] in ("tensor", "functions", "nn", "optim") for _, m in imports(ast.parse(path.read_text()))
        )
    recording = ast.parse((ROOT / "fastgrad" / "recording.py").read_text())
    assert "numpy" not in {module.split(".")[0] for _, module in imports(recording)}


def test_the_sweep_knows_no_operations() -> None:
    text = (ROOT / "kernels" / "sweep.py").read_text()
    assert not [op.name for op in BY_CODE if op.name in text.split()]
    assert {m for _, m in imports(ast.parse(text)) if "numpy" not in m} <= {
        "build", "native", "fastgrad.kernels.native", "fastgrad.kernels.sweep", "typing", "__future__", "collections.abc", "functools",
    }  # fmt: skip


# -------------------------------------------------------------------- 4. every tier, thread count and run gives the same bits


def workload(seed: int = 0) -> list[np.ndarray]:
    """Elementwise loops, reductions over all and some axes, gathers, random numbers and their gradients, without products of
    matrices, which are as reproducible as the BLAS below."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    found = []
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(generator.normal(size=(301, 1003)), dtype=dtype, requires_grad=True)
        w = torch.tensor(generator.normal(size=1003), dtype=dtype, requires_grad=True)
        y = torch.tanh(x * w + 0.5) * torch.exp(-x * x) / (1.5 + torch.sin(x))
        y = y + torch.rand(301, 1003, dtype=dtype) * 0.01
        rows = torch.logsumexp(y, dim=1)
        picked = y[torch.tensor([5, 300, 5, 17])].var(dim=0)
        loss = (rows * rows).mean() + picked.sum() + F.softmax(y, dim=0).square().sum()
        loss.backward()
        found += [t.detach().numpy().copy() for t in (y, rows, picked, loss, x.grad, w.grad)]
    return found


def assert_same_bits(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    assert [same_bits(a, b) for a, b in zip(left, right, strict=True)] == [True] * len(left)


def test_every_tier_gives_the_same_bits() -> None:
    reference = workload()
    for tier in (0, 1, None, None):
        torch.set_tier(tier)
        assert_same_bits(workload(), reference)
    with torch.eager():
        assert_same_bits(workload(), reference)


def test_every_number_of_threads_gives_the_same_bits() -> None:
    torch.set_num_threads(1)
    reference = workload()
    for threads in (2, 3, 8):
        torch.set_num_threads(threads)
        assert_same_bits(workload(), reference)


def test_every_run_gives_the_same_bits() -> None:
    first, second = Training(torch.optim.Adam), Training(torch.optim.Adam)
    for training in (first, second):
        for _ in range(20):
            training.step()
    assert_same_bits(first.parameters(), second.parameters())


def test_two_threads_train_two_models_and_get_the_serial_answers() -> None:
    def train(seed: int, optimizer: Any) -> list[np.ndarray]:
        training = Training(optimizer, rows=10 + seed, seed=seed)
        losses = [training.step() for _ in range(200)]
        return [*training.parameters(), losses[-1].detach().numpy().copy(), losses[100].detach().numpy().copy()]

    jobs = [(1, torch.optim.SGD), (2, torch.optim.Adam), (3, torch.optim.SGD)]
    torch.manual_seed(0)
    setups = [Training(optimizer, rows=10 + seed, seed=seed) for seed, optimizer in jobs]
    starts = [s.parameters() for s in setups]
    serial = [train(*job) for job in jobs]
    again = [Training(optimizer, rows=10 + seed, seed=seed) for seed, optimizer in jobs]
    assert all(
        same_bits(a, b) for s, t in zip(starts, again, strict=True) for a, b in zip(s, t.parameters(), strict=True)
    )
    together: dict[int, Any] = {}
    gate = threading.Barrier(len(jobs))

    def run(i: int) -> None:
        training = again[i]
        gate.wait()
        losses = [training.step() for _ in range(200)]
        together[i] = [*training.parameters(), losses[-1].detach().numpy().copy(), losses[100].detach().numpy().copy()]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(together) == [0, 1, 2]
    for i, expected in enumerate(serial):
        assert_same_bits(together[i], expected)


def test_two_threads_train_compiled_steps_and_get_the_serial_answers() -> None:
    def compiled(seed: int) -> tuple[Training, Callable[..., Any]]:
        training = Training(rows=10 + seed, seed=seed)
        model, optimizer = training.model, training.optimizer

        @torch.compile
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return training, step

    def run(setup: tuple[Training, Callable[..., Any]], gate: threading.Barrier | None) -> None:
        training, step = setup
        if gate is not None:
            gate.wait()
        for _ in range(500):
            step(training.x, training.y)

    serial, together = [compiled(s) for s in (1, 2)], [compiled(s) for s in (1, 2)]
    for setup in serial:
        run(setup, None)
    gate = threading.Barrier(2)
    threads = [threading.Thread(target=run, args=(setup, gate)) for setup in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (a, _), (b, _) in zip(serial, together, strict=True):
        assert_same_bits(a.parameters(), b.parameters())


def test_a_grad_mode_belongs_to_its_thread() -> None:
    seen = []
    with torch.no_grad():
        thread = threading.Thread(target=lambda: seen.append(torch.is_grad_enabled()))
        thread.start()
        thread.join()
        assert not torch.is_grad_enabled()
    assert seen == [True]


# ----------------------------------------------------------------------------- 5. a program seen before is not planned again


def looping(step: Callable[[], Any], spent: Any, settled: int = 2) -> None:
    """No iteration misses an entry that the first one recorded, and from the `settled` one on none plans."""
    step()
    for i in range(2, 8):
        count = spent()
        step()
        assert (i, count["missed"], count["kernels compiled"]) == (i, 0, 0)
        if i >= settled:
            assert (i, count["planned"]) == (i, 0)


def trained_once(optimizer: Any) -> Training:
    """A training whose parameters have values and whose optimizer has its state: from here on each iteration is like the next."""
    training = Training(optimizer)
    training.step()
    training.optimizer.zero_grad()
    return training


def test_the_second_iteration_plans_and_misses_nothing(spent: Any) -> None:
    looping(trained_once(torch.optim.SGD).step, spent)


@pytest.mark.parametrize("tier", [0, 1])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW], ids=lambda o: o.__name__)
def test_the_second_iteration_in_one_tier_plans_and_misses_nothing(optimizer: Any, tier: int, spent: Any) -> None:
    torch.set_tier(tier)
    looping(trained_once(optimizer).step, spent)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW], ids=lambda o: o.__name__)
def test_the_third_iteration_plans_nothing_in_any_tier(optimizer: Any, spent: Any) -> None:
    looping(trained_once(optimizer).step, spent, settled=3)


@pytest.mark.parametrize("forget", ["set to None", "zero"])
def test_a_plain_loop_settles(forget: str, spent: Any) -> None:
    x, y = data()
    w = torch.zeros(3, 1, requires_grad=True)
    w.tolist()

    def step() -> None:
        loss = ((x @ w - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            w.sub_(0.1 * w.grad)
        if forget == "zero":
            w.grad.zero_()
        else:
            w.grad = None

    step()  # runs when the next one reads what it has written
    step()
    looping(step, spent, settled=3)


def test_a_loop_that_observes_the_loss_settles(spent: Any) -> None:
    training = trained_once(torch.optim.SGD)
    looping(lambda: training.step().item(), spent, settled=3)


def test_a_loop_that_observes_the_loss_before_backward_settles(spent: Any) -> None:
    training = trained_once(torch.optim.SGD)

    def step() -> None:
        training.optimizer.zero_grad()
        loss = F.mse_loss(training.model(training.x), training.y)
        loss.item()
        loss.backward()
        training.optimizer.step()

    looping(step, spent, settled=3)


def test_numbers_are_inputs_and_do_not_miss(spent: Any) -> None:
    x = torch.ones(3)

    def step(rate: float) -> list[float]:
        return ((x * rate + 1.5) / (rate + 2.0)).tolist()

    for i in range(3):
        step(float(i))
    count = spent()
    for i in range(3, 50):
        assert step(float(i)) == pytest.approx([(i + 1.5) / (i + 2)] * 3, rel=1e-6)
    assert (count["planned"], count["missed"]) == (0, 0)


def test_every_operation_is_one_edge_the_second_time(spent: Any) -> None:
    def program() -> list[Any]:
        x = torch.ones(4, 6, requires_grad=True)
        y = F.log_softmax(x.reshape(6, 4).T @ torch.ones(6, 2), dim=1)
        z = torch.cat([y[0], y[1:].flatten(), x[:, 0]]).clamp(-1, 1).std()
        z.backward()
        return [z.tolist(), x.grad.tolist(), torch.var(x).item(), x.max(dim=1).indices.tolist(), F.dropout(x).tolist()]

    for _ in range(5):
        program()
    count = spent()
    for _ in range(3):
        program()
    assert (count["planned"], count["missed"]) == (0, 0)


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pytest.skip("this system does not tell a process's memory")


@alone
def test_a_hundred_thousand_iterations_do_not_grow_memory() -> None:
    x, y = data()
    w = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.001)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = ((x @ w - y) ** 2).mean()
            loss.backward()
            optimizer.step()

    run(5_000)
    gc.collect()
    before, objects = resident_bytes(), len(gc.get_objects())
    run(100_000)
    gc.collect()
    assert resident_bytes() - before < 4_000_000
    assert len(gc.get_objects()) - objects < 1_000


@alone
def test_a_hundred_thousand_compiled_iterations_do_not_grow_memory() -> None:
    x, y = data()
    w = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.001)

    @torch.compile
    def step(x: Any, y: Any, rate: float) -> Any:
        optimizer.zero_grad()
        loss = ((x @ w - y) ** 2).mean() * rate
        loss.backward()
        optimizer.step()
        return loss

    for i in range(5_000):
        step(x, y, i * 1e-5)
    before, objects = resident_bytes(), len(gc.get_objects())
    for i in range(100_000):
        step(x, y, i * 1e-5)
    gc.collect()
    assert resident_bytes() - before < 4_000_000
    assert len(gc.get_objects()) - objects < 1_000


@alone
def test_programs_that_never_repeat_do_not_grow_memory_without_bound() -> None:
    """The cache of traces is bounded."""
    x, random = torch.ones(3), np.random.default_rng(0)
    functions = [torch.sin, torch.cos, torch.exp, torch.tanh, torch.neg, torch.abs]

    def run(programs: int) -> None:
        for _ in range(programs):
            value = x
            for choice in random.integers(0, 6, 30).tolist():
                value = functions[choice](value)
            value.sum().item()

    run(300)
    gc.collect()
    before = resident_bytes()
    run(600)
    assert resident_bytes() - before < 150_000_000


@pytest.mark.timeout(120)
def test_a_chain_of_a_million_operations_goes_forward_and_backward() -> None:
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    value = x
    for _ in range(500_000):
        value = value * 0.999998 + 0.000001
    value.backward()
    expected, slope = 0.5, 1.0
    for _ in range(500_000):
        expected, slope = expected * 0.999998 + 0.000001, slope * 0.999998
    assert value.item() == expected
    assert x.grad.item() == slope


def test_a_long_chain_is_given_back_without_recursion() -> None:
    x = torch.ones((), requires_grad=True)
    value = x
    for _ in range(100_000):
        value = value + 1
    value.item()
    del value
    gc.collect()
    (x * 2).backward()
    assert x.grad.item() == 2


# ------------------------------------------------------------- 6. a wrong program fails on the user's line, with the shapes


def line_of(error: BaseException) -> str:
    """The source of the last line of this file in an error's traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == __file__]
    return frames[-1].line or ""


def test_an_error_is_raised_on_the_users_line() -> None:
    a, b = torch.ones(2, 3), torch.ones(4)
    c = a * 2
    with pytest.raises(RuntimeError) as caught:
        d = c + 1
        d = d + b  # the wrong one
        d.sum().backward()
    assert line_of(caught.value).endswith("# the wrong one")
    assert "[2, 3]" in str(caught.value) and "[4]" in str(caught.value)


def test_a_wrong_dtype_is_named() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.float64)  # the wrong one
    assert line_of(caught.value).endswith("# the wrong one")
    assert "float32" in str(caught.value) and "float64" in str(caught.value)


def test_an_error_found_later_names_the_line_it_was_recorded_at() -> None:
    x, i = torch.ones(3), torch.tensor([0, 7])
    y = x[i]  # noted
    line = sys._getframe().f_lineno - 1
    z = y * 2
    with pytest.raises(IndexError, match="7") as caught:
        z.tolist()
    assert f"{Path(__file__).name}:{line}" in str(caught.value)


def test_an_error_found_later_names_its_own_line_even_if_another_line_has_recorded_the_same() -> None:
    x, fine, wrong = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1]), torch.tensor([0, 8])
    for _ in range(3):
        x[fine].tolist()
    lost = x[wrong]
    line = sys._getframe().f_lineno - 1
    with pytest.raises(IndexError, match="8") as caught:
        lost.tolist()
    assert f"{Path(__file__).name}:{line}" in str(caught.value)


# ------------------------------------------------------------------------------------------ 7. peers are peers


def test_the_library_imports_none_of_its_peers() -> None:
    for path, tree in library_sources():
        tops = {module.split(".")[0] for level, module in imports(tree) if level == 0}
        assert not tops & {"torch", "jax", "jaxlib", "autograd", "tensorflow", "pytensor"}, path


def test_importing_loads_only_what_is_needed(python: Any) -> None:
    process = python("""
        import sys
        import fastgrad
        print(sorted({"torch", "jax", "matplotlib", "tqdm", "safetensors", "pandas", "numba"} & set(sys.modules)))
    """)
    assert process.stdout == "[]\n"


# ------------------------------------------------------------------------------------------------------ the kernel cache

STEP = """
import math
import sys
import fastgrad as torch
x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
(torch.sin(x) * x).sum().backward()
assert all(abs(g - math.sin(v) - v * math.cos(v)) < 1e-6 for g, v in zip(x.grad.tolist(), (1.0, 2.0, 3.0)))
print(torch.stats()["kernels compiled"], torch.stats()["kernels loaded"], "numba" in sys.modules)
"""


def counts(process: subprocess.CompletedProcess[str]) -> tuple[int, int, bool]:
    compiled, loaded, numba = process.stdout.split()
    return int(compiled), int(loaded), numba == "True"


@pytest.fixture(scope="session")
def cold_race(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """A cache directory that two processes have filled at once, and the processes."""
    directory = tmp_path_factory.mktemp("cold") / "cache"
    environment = child_environment({"FASTGRAD_CACHE_DIR": directory})
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", STEP], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    done = []
    for process in running:
        out, errors = process.communicate(timeout=120)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, errors))
    return directory, done


@pytest.fixture
def cache(cold_race: Any, tmp_path: Path) -> Path:
    """A copy of a filled cache directory."""
    return Path(shutil.copytree(cold_race[0], tmp_path / "cache"))


def test_two_processes_fill_a_cold_cache_at_once(cold_race: Any) -> None:
    directory, processes = cold_race
    for process in processes:
        assert (process.returncode, process.stderr) == (0, "")
        assert counts(process)[0] > 0
    assert not list(directory.glob("*.tmp"))


def test_a_process_that_has_its_kernels_does_not_compile_and_does_not_import_numba(cache: Path, python: Any) -> None:
    compiled, loaded, numba = counts(python(STEP, FASTGRAD_CACHE_DIR=cache))
    assert (compiled, numba) == (0, False)
    assert loaded > 0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 100)


def replace_by_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, replace_by_garbage], ids=lambda f: f.__name__)
def test_a_damaged_cache_heals(damage: Callable[[Path], None], cache: Path, python: Any) -> None:
    before = counts(python(STEP, FASTGRAD_CACHE_DIR=cache))
    victims = sorted(p for p in cache.iterdir() if p.is_file())[:2]
    for path in victims:
        damage(path)
    healing = counts(python(STEP, FASTGRAD_CACHE_DIR=cache))
    assert 0 < healing[0] <= len(victims)
    assert counts(python(STEP, FASTGRAD_CACHE_DIR=cache)) == before


def test_a_cache_entry_that_cannot_be_read_or_replaced_costs_only_time(cache: Path, python: Any) -> None:
    replace_by_a_directory(next(p for p in sorted(cache.iterdir()) if p.is_file()))
    compiled, _, _ = counts(python(STEP, FASTGRAD_CACHE_DIR=cache))
    assert compiled == 1


@pytest.mark.parametrize("below", [False, True], ids=["is a file", "is below a file"])
def test_a_cache_directory_that_cannot_be_made_costs_only_time(below: bool, tmp_path: Path, python: Any) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    process = python(STEP, FASTGRAD_CACHE_DIR=blocker / "cache" if below else blocker)
    assert counts(process)[0] > 0
    assert blocker.read_text() == "in the way"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_directory_costs_only_time(tmp_path: Path, python: Any) -> None:
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o500)
    assert counts(python(STEP, FASTGRAD_CACHE_DIR=directory))[0] > 0
    assert not list(directory.iterdir())


def test_a_read_only_filled_cache_is_used(cache: Path, python: Any) -> None:
    cache.chmod(0o500)
    try:
        assert counts(python(STEP, FASTGRAD_CACHE_DIR=cache))[0] == 0
    finally:
        cache.chmod(0o700)


def test_the_cache_directory_is_private(cold_race: Any) -> None:
    assert cold_race[0].stat().st_mode & 0o077 == 0


# --------------------------------------------------------------------------------------------------------------- fork

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@needs_fork
def test_a_forked_child_still_works(python: Any) -> None:
    process = python("""
        import os
        import warnings
        import fastgrad as torch
        warnings.simplefilter("ignore", DeprecationWarning)

        def train(w, steps=20):
            optimizer = torch.optim.SGD([w], lr=0.125)
            for _ in range(steps):
                optimizer.zero_grad()
                ((w - 3) ** 2).sum().backward()
                optimizer.step()
            return w.tolist()

        step = torch.compile(lambda x: (torch.exp(x) @ torch.ones(300, 2)).sum())
        big = torch.ones(400, 300)
        first = [step(big).item() for _ in range(4)]
        w, pending = torch.zeros(2, requires_grad=True), torch.ones(3) * 2
        train(w, 3)
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert pending.tolist() == [2.0, 2.0, 2.0]
                assert [step(big).item() for _ in range(4)] == first
                assert (torch.ones(500, 500) @ torch.ones(500, 500)).sum().item() == 500.0 ** 3
                os.write(writes, repr(train(w)).encode())
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert pending.tolist() == [2.0, 2.0, 2.0]
        assert repr(train(w)) == os.read(reads, 10_000).decode()
        print("done")
    """)
    assert process.stdout == "done\n"


@needs_fork
def test_a_child_forked_while_another_thread_computes_still_works(python: Any) -> None:
    process = python("""
        import os
        import signal
        import threading
        import warnings
        import fastgrad as torch
        warnings.simplefilter("ignore", DeprecationWarning)
        go, stop = threading.Event(), threading.Event()

        def work():
            x = torch.ones(200_000)
            while not stop.is_set():
                torch.exp(torch.sin(x)).sum().item()
                go.set()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        go.wait()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                code = 1
                signal.alarm(10)
                try:
                    assert (torch.ones(5000) * 2).sum().item() == 10_000
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        thread.join()
        print("done")
    """)
    assert process.stdout == "done\n"
