"""Random programs of everyday statements, run by PyTorch and by fastgrad, all handles compared.

A `Program` is lines of Python over numbered names (`p0` a parameter, `v3` a tensor, `n1` an array, `m0` a module, `o0`
an optimizer, `f2` a function): it prints as a script that runs with either library. The generators (`fuzz_memory`,
`fuzz_training`) write them with PyTorch at hand, so that each line is one that PyTorch accepts; here they are run and
compared. Start reading at `check`, which runs one program; `shortened` leaves lines out of one that fails.

    python -m tests.fuzz_programs --family memory --count 100 --seed 17 --threads --mode plain

PyTorch's side runs with hooks that copy what is saved for backward. So a gradient is that of the values that were used,
which is fastgrad's answer where PyTorch by itself raises (a saved tensor was modified in place) or, if the write went
through `.data` or NumPy, silently takes the new value. This is the one difference that is meant.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import copy
import faulthandler
import functools
import importlib
import itertools
import linecache
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

FAMILIES = ("memory", "training")
MODES = ("plain", "eager", "draft", "compiled")
NAME = re.compile(r"[a-z]\d+$")
UNSEEN = (
    "capturable",
    "differentiable",
    "foreach",
    "fused",
    "decoupled_weight_decay",
)  # PyTorch's ways to execute a step
ROUNDS = 2  # a program in plain mode runs again on the same trace cache: the second time, all is found there

# ------------------------------------------------------------------------------------------------------------ programs


@dataclass(frozen=True)
class Line:
    """A statement, or the head of a block (`for`, `with`, `def`) with its lines; `where` names the thread."""

    source: str
    body: tuple[Line, ...] = ()
    where: str = ""  # "", "in_thread" (a worker that is joined), "in_pool" (a worker that stays)

    def text(self) -> str:
        inner = "".join(textwrap.indent(line.text(), "    ") for line in self.body)
        text = f"{self.source}\n{inner}"
        if not self.where:
            return text
        bound = sorted(names_of(text)[0])
        head = f"    global {', '.join(bound)}\n" if bound else ""
        return f"@{self.where}\ndef _():\n{head}{textwrap.indent(text, '    ')}"


@functools.lru_cache(maxsize=50_000)
def names_of(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The numbered names that a text binds, and those that it needs bound before."""
    bound: set[str] = set()
    read: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef):
            inner_bound, inner_read = names_of("".join(ast.unparse(part) + "\n" for part in node.body))
            own = set() if node.name == "_" else inner_bound | {a.arg for a in node.args.args}
            read.update(inner_read - own - bound)
            bound.update(inner_bound if node.name == "_" else {node.name} if NAME.match(node.name) else ())
            return
        if isinstance(node, ast.Name) and NAME.match(node.id):
            if not isinstance(node.ctx, ast.Store) and node.id not in bound:
                read.add(node.id)
            if not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
            return
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id not in bound:
            read.add(node.target.id)
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            visit(node.value)  # what is read is read before the name is bound
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(text))
    return frozenset(bound), frozenset(name for name in read if NAME.match(name))


@dataclass(frozen=True)
class Program:
    family: str
    seed: int
    lines: tuple[Line, ...]

    def text(self) -> str:
        return "".join(line.text() for line in self.lines)

    def script(self, mode: str = "plain") -> str:
        """A script for `python script.py torch` and `python script.py fastgrad`: it prints all handles."""
        return SCRIPT.format(mode=mode, family=self.family, seed=self.seed, text=self.text())


SCRIPT = '''\
# {family}, seed {seed}, mode {mode}: the argument is the module, torch or fastgrad
import concurrent.futures, copy, importlib, pickle, sys, threading, warnings
import numpy as np
warnings.simplefilter("ignore")
T = importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "fastgrad")
F, mode, log = T.nn.functional, "{mode}", []
compiled = T.compile if mode == "compiled" and T.__name__ == "fastgrad" else lambda f: f
if mode == "draft" and T.__name__ == "fastgrad": T.recording.STRANGERS = 0; T.recording.local.trace.reset()
def guarded(f):
    if mode != "eager" or T.__name__ != "fastgrad": return f()
    with T.eager(): f()
def in_thread(f): in_new(f, concurrent.futures.ThreadPoolExecutor(1))
def in_pool(f, pool=concurrent.futures.ThreadPoolExecutor(1)): pool.submit(guarded, f).result()
def in_new(f, pool): pool.submit(guarded, f).result(); pool.shutdown()
def show():
    for name, value in sorted(globals().items()):
        if name[0].isalpha() and name[1:].isdigit() or name == "log":
            if isinstance(value, T.nn.Module): value = dict(value.state_dict())
            if isinstance(value, T.optim.Optimizer): value = value.state_dict()["state"]
            grad = value.grad if isinstance(value, T.Tensor) and value.is_leaf else None
            print(name, value, "" if grad is None else f"grad {{grad}}")
    print()
def program():
    exec(compile(TEXT, "<program>", "exec"), globals())
TEXT = """\\
{text}"""
guarded(program)
'''


# ------------------------------------------------------------------------------------------------------------- running


class Refused(Exception):
    """compile says why it can't take a function."""


@dataclass
class Side:
    """One library in one mode: what a program's names mean."""

    module: Any
    mode: str = "torch"
    refused: set[str] = field(default_factory=set)  # functions that compile has refused
    pool: concurrent.futures.ThreadPoolExecutor | None = None

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """What holds in every thread while its lines run."""
        if self.mode == "torch":
            return self.module.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t)
        return self.module.eager() if self.mode == "eager" else contextlib.nullcontext()

    def _guarded(self, function: Callable[[], Any]) -> None:
        with self.context():
            function()

    def in_thread(self, function: Callable[[], Any]) -> None:
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self._guarded(function)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def in_pool(self, function: Callable[[], Any]) -> None:
        if self.pool is None:
            self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.pool.submit(self._guarded, function).result()

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.mode != "compiled" or function.__name__ in self.refused:
            return function
        replayed = self.module.compile(function)
        error_type = self.module.compiled.CompileError

        def call(*arguments: Any) -> Any:
            try:
                return replayed(*arguments)
            except error_type as error:
                self.refused.add(function.__name__)
                raise Refused(f"{function.__name__}: {error}") from error

        return call

    def environment(self, shown: list[dict[str, Any]]) -> dict[str, Any]:
        names: dict[str, Any] = {"T": self.module, "F": self.module.nn.functional, "np": np, "copy": copy}
        names |= {"pickle": pickle, "log": []}
        names |= {"in_thread": self.in_thread, "in_pool": self.in_pool, "compiled": self.compiled}
        names["show"] = lambda: shown.append(look(names))
        return names

    def run(self, program: Program) -> list[dict[str, Any]]:
        """What each `show()` of the program saw."""
        while True:
            shown: list[dict[str, Any]] = []
            names = self.environment(shown)
            try:
                with warnings.catch_warnings(), self.context():
                    warnings.simplefilter("ignore")
                    has_source = self.mode == "compiled" and len(program.lines) % 4 > 0
                    for line in program.lines:
                        exec(code_of(line.text(), has_source), names)
                return shown
            except Refused:
                continue
            finally:
                names.clear()
                if self.pool is not None:
                    self.pool.shutdown(wait=False)
                    self.pool = None


@functools.lru_cache(maxsize=50_000)
def code_of(text: str, has_source: bool = False) -> Any:
    """The code of some statements. `has_source`: the text is known as a file's is, so that `compile` sees what functions read."""
    name = f"<program {next(_texts)}>" if has_source else "<program>"
    if has_source:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return compile(text, name, "exec")


_texts = itertools.count()


def look(names: dict[str, Any]) -> dict[str, Any]:
    """All that can be seen of all numbered names and of the log, flat: label → array, number, text or None."""
    seen: dict[str, Any] = {}
    for name in sorted(names):
        if NAME.match(name) or name == "log":
            see(name, names[name], seen)
    return seen


def see(label: str, value: Any, seen: dict[str, Any]) -> None:
    if hasattr(value, "detach"):
        dtype = str(value.dtype).split(".")[-1]
        seen[f"{label}: dtype, requires_grad, is_leaf"] = (dtype, value.requires_grad, value.is_leaf)
        seen[label] = np.array(value.detach().tolist(), dtype).reshape(tuple(value.shape))
        if value.is_leaf or value.retains_grad:
            see(f"{label}.grad", value.grad, seen)
    elif isinstance(value, np.ndarray):
        seen[label] = value.copy()
    elif hasattr(value, "named_parameters"):
        seen[f"{label}.training"] = value.training
        for name, part in [*value.named_parameters(), *value.named_buffers()]:
            see(f"{label}.{name}", part, seen)
    elif hasattr(value, "param_groups"):
        see(f"{label}.state", value.state_dict()["state"], seen)
        see(f"{label}.lr", [group["lr"] for group in value.param_groups], seen)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key in UNSEEN:
                continue
            see(f"{label}[{key!r}]", part, seen)
    elif isinstance(value, (list, tuple)):
        seen[f"len({label})"] = len(value)
        for key, part in enumerate(value):
            see(f"{label}[{key}]", part, seen)
    elif value is None or isinstance(value, (bool, int, float, str)):
        seen[label] = np.asarray(float(value)) if isinstance(value, (int, float)) and "state" in label else value


def fresh(fastgrad: Any) -> None:
    """Nothing of the programs before is left on the thread's trace."""
    trace = fastgrad.recording.local.trace
    with contextlib.suppress(Exception):
        fastgrad.recording.flush(trace)
    trace.reset()
    trace.strangers = 0


# ----------------------------------------------------------------------------------------------------------- comparing


class Mismatch(AssertionError):
    """fastgrad's run of a program is not PyTorch's."""

    def __init__(self, program: Program, mode: str, what: str) -> None:
        super().__init__(what)
        self.program, self.mode, self.what = program, mode, what

    def report(self) -> str:
        command = f"python -m tests.fuzz_programs --family {self.program.family} --seed {self.program.seed}"
        return f"{command} --mode {self.mode}\n{self.what}\n\n{self.program.script(self.mode)}"


def far(ours: Any, theirs: Any, tolerance: float) -> bool:
    """Whether two values differ by more than roundings."""
    if isinstance(ours, str) and isinstance(theirs, str):
        with contextlib.suppress(ValueError):
            ours, theirs, tolerance = float(ours), float(theirs), max(tolerance, 1e-5)
    if not isinstance(ours, np.ndarray) and not isinstance(ours, (float, np.floating)):
        return type(ours) is not type(theirs) or ours != theirs
    a, b = np.asarray(ours), np.asarray(theirs)
    if a.shape != b.shape:
        return True
    return not np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def compare(program: Program, mode: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    tolerance = 1e-4 if "float32" in program.text() else 1e-7
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.keys() != b.keys():
            only = sorted(a.keys() ^ b.keys())
            raise Mismatch(program, mode, f"show {number}: only one has {only[:6]}")
        for label in a:
            if far(a[label], b[label], tolerance):
                values = f"\n    fastgrad {a[label]!r}\n    PyTorch  {b[label]!r}"
                raise Mismatch(program, mode, f"show {number}: {label} differs{values}")


def reference(program: Program, torch: Any) -> list[dict[str, Any]]:
    return Side(torch).run(program)


def check(
    program: Program,
    fastgrad: Any,
    torch: Any,
    modes: Iterable[str] = MODES,
    refusals: Counter[str] | None = None,
) -> None:
    """Run a program in PyTorch and in modes of fastgrad; raise Mismatch where one differs."""
    theirs = reference(program, torch)
    for mode in modes:
        if mode == "compiled" and "@compiled" not in program.text():
            continue
        fresh(fastgrad)
        side = Side(fastgrad, mode)
        with mode_of(fastgrad, mode):
            for _ in range(ROUNDS if mode == "plain" else 1):
                try:
                    with in_time():
                        ours = side.run(program)
                except Hung:
                    raise
                except Exception as error:
                    raise Mismatch(program, mode, f"raised {type(error).__name__}: {error}") from error
                compare(program, mode, ours, theirs)
        if refusals is not None:
            refusals["compile refused"] += len(side.refused)


class Hung(BaseException):
    """A program has not come to its end."""


@contextlib.contextmanager
def in_time(seconds: int = 20) -> Iterator[None]:
    """Raise Hung in the main thread if it takes longer (a thread that waits for another one for ever, say)."""

    def ring(*_: Any) -> None:
        raise Hung(f"has not ended after {seconds} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def mode_of(fastgrad: Any, mode: str) -> Iterator[None]:
    """Settings of a whole run: drafts from the first entry on; no kernels compiled for functions of few calls."""
    strangers = fastgrad.recording.STRANGERS
    if mode == "draft":
        fastgrad.recording.STRANGERS = 0
        fastgrad.recording.local.trace.reset()
    if mode == "compiled":
        fastgrad.set_tier(1)
    try:
        yield
    finally:
        fastgrad.recording.STRANGERS = strangers
        fastgrad.set_tier(None)
        fresh(fastgrad)


# ---------------------------------------------------------------------------------------------------------- shortening


def without_orphans(lines: Iterable[Line], known: set[str]) -> tuple[Line, ...]:
    """The lines whose names an earlier line still binds; `known` grows by what these bind."""
    kept = []
    for line in lines:
        if line.body and not line.source.startswith("def "):
            body = without_orphans(line.body, set(known))
            if not body:
                continue
            line = replace(line, body=body)
        bound, read = names_of(line.text())
        if read <= known:
            kept.append(line)
            known |= bound
    return tuple(kept)


def shorter(lines: tuple[Line, ...]) -> Iterator[tuple[Line, ...]]:
    """Programs a step simpler: without a stretch of lines, or with a simpler block, or in one thread."""
    length = len(lines)
    while length >= 1:
        for start in range(0, len(lines), length):
            yield lines[:start] + lines[start + length :]
        length //= 2
    for i, line in enumerate(lines):
        before, after = lines[:i], lines[i + 1 :]
        if line.where:
            yield (*before, replace(line, where=""), *after)
        if line.where == "in_pool":
            yield (*before, replace(line, where="in_thread"), *after)
        if not line.body:
            continue
        if not line.source.startswith(("def ", "@", "class ")):
            yield (*before, *line.body, *after)
            for body in filter(None, shorter(line.body)):
                yield (*before, replace(line, body=body), *after)
        else:
            for j in range(len(line.body) - 1):
                yield (*before, replace(line, body=line.body[:j] + line.body[j + 1 :]), *after)
        for count in re.findall(r"range\((\d+)\)", line.source)[:1]:
            if int(count) > 2:
                source = line.source.replace(f"range({count})", f"range({int(count) - 1})")
                yield (*before, replace(line, source=source), *after)


def shortened(found: Mismatch, fastgrad: Any, torch: Any, seconds: float = 60.0) -> Mismatch:
    """The mismatch of the shortest program found in that time that fails in the same mode and manner."""
    until = time.monotonic() + seconds

    def kind(what: str) -> str:
        return re.sub(r"[\d.\[\]]+", "", what.split(":")[0]) if what.startswith("raised") else "differs"

    progress = True
    while progress and time.monotonic() < until:
        progress = False
        for lines in shorter(found.program.lines):
            if time.monotonic() > until:
                break
            candidate = replace(found.program, lines=without_orphans(lines, set()))
            if candidate == found.program:
                continue
            try:
                check(candidate, fastgrad, torch, [found.mode])
            except Mismatch as smaller:
                if kind(smaller.what) == kind(found.what):
                    found, progress = smaller, True
                    break
            except Exception:
                continue  # PyTorch refuses it
    return found


# ------------------------------------------------------------------------------------------------------------ by hand


def generate(family: str, seed: int, torch: Any, threads: bool = False) -> Program:
    """The program of a seed; `threads` lets workers run some of its lines."""
    package = f"{__package__}." if __package__ else ""
    return importlib.import_module(f"{package}fuzz_{family}").generate(seed, torch, threads)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run random programs in PyTorch and in fastgrad.")
    parser.add_argument("--family", choices=FAMILIES, default="memory")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--threads", action="store_true", help="worker threads run some of the lines")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--jobs", type=int, default=0, help="run 50 programs a process, so many at a time: finds crashes"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="time for shortening one failure")
    parser.add_argument("--show", action="store_true", help="print the programs instead of running them")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.count)
    if options.jobs:
        return in_processes(options, seeds)
    fastgrad, torch = importlib.import_module("fastgrad"), importlib.import_module("torch")
    torch.set_num_threads(1)
    failures: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for seed in seeds:
        program = generate(options.family, seed, torch, options.threads)
        if options.show:
            print(program.script(options.mode[0]))
            continue
        for mode in options.mode:
            try:
                check(program, fastgrad, torch, [mode], refusals)
            except Mismatch as found:
                failures[mode] += 1
                small = shortened(found, fastgrad, torch, options.seconds)
                print("-" * 100 + "\n" + small.report(), flush=True)
            except Hung as error:  # its threads hold what others would wait for: this process is done
                print("-" * 100 + "\n" + Mismatch(program, mode, str(error)).report(), flush=True)
                faulthandler.dump_traceback()
                os._exit(1)
    print(f"{len(seeds)} programs, failed {dict(failures)}, {dict(refusals)}", flush=True)
    return int(bool(failures))


def in_processes(options: argparse.Namespace, seeds: range) -> int:
    """Run the seeds in processes of their own, 50 each; a signal that ends one is reported like a failure."""

    def run(first: int) -> int:
        command = [sys.executable, "-m", "tests.fuzz_programs", "--family", options.family, "--seed", str(first)]
        command += ["--count", str(min(50, seeds.stop - first)), "--seconds", str(options.seconds), "--mode"]
        command += [*options.mode, *(["--threads"] if options.threads else [])]
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout + (f"ended with {done.returncode}\n{done.stderr}" if done.returncode not in (0, 1) else ""))
        return done.returncode

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(run, range(seeds.start, seeds.stop, 50)))
    print(f"{len(seeds)} programs in {len(codes)} processes, {sum(map(bool, codes))} of these with failures")
    return int(any(codes))


if __name__ == "__main__":  # by the module's own name: what the generators import is this module, not a second one
    sys.exit(importlib.import_module("tests.fuzz_programs").main())
