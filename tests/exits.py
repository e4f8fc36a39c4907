"""Small scripts, each in a process of its own, that must end as Python says: never with a signal.

`python tests/exits.py --count 100` runs 100 of them with a fresh kernel cache each, and then the same 100 with one cache that fills.
A script is drawn by its number: a few ways to work, ways in which values, machine code and threads are still about at the end,
and a way to end. `--only 17 --show` prints one.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

HEAD = """
import atexit, gc, os, sys, threading, time, weakref
import fastgrad
x = fastgrad.tensor([[1.0, 2.0], [3.0, 4.0]])
w = fastgrad.tensor([[0.5], [0.25]], requires_grad=True)
"""

WORK = {
    "plain": """
for i in range(6):
    w.grad = None
    ((x @ w) ** 2).sum().backward()
    with fastgrad.no_grad():
        w -= 0.001 * w.grad
""",
    "read": """
for i in range(3):
    w.grad = None
    loss = (w * w).sum()
    loss.backward()
    loss.item(), w.grad.tolist()
""",
    "compiled": """
@fastgrad.compile
def step(a):
    w.grad = None
    loss = (a * w.sum()).sum()
    loss.backward()
    return loss
for i in range(25):
    step(x)
""",
    "loop": """
@fastgrad.compile
def over(a):
    w.grad = None
    loss = (a.sum() * w).sum()
    loss.backward()
    with fastgrad.no_grad():
        w.sub_(w.grad, alpha=0.001)
    return loss
over.loop(fastgrad.ones(8, 2), batch_size=2, epochs=2)
""",
    "hot": """
for i in range(30):
    (w * 2 + i % 2).sum().item()
""",
    "pool": """
fastgrad.set_num_threads(2)
big = fastgrad.ones(300_000)
(big * 2).sum().item()
""",
    "eager": """
with fastgrad.eager():
    (w + 1).sum().backward()
""",
    "new programs": """
for i in range(40):
    y = w
    for _ in range(i):
        y = y + w
    y.sum().item()
""",
}

LONG = ["compiled", "loop", "new programs"]  # work whose kernels take seconds to compile

LEFT = {
    "nothing": "",
    "cycle": """
class Node: pass
node = Node()
node.me, node.value, node.pending = node, w, (w * 3).sum()
""",
    "finalizer": """
class Last:
    def __del__(self, w=w):
        try:
            (w + 1).sum().item()
            step(x)
        except Exception:
            pass
last = Last()
last.me = last
""",
    "module global": """
import types
sys.modules["kept"] = types.ModuleType("kept")
sys.modules["kept"].value = w
sys.modules["kept"].function = globals().get("step") or fastgrad.compile(lambda a: a + 1)
""",
    "at exit": """
atexit.register(lambda: (w.sum() * 2).item())
late = (w * 5).sum()
atexit.register(lambda: late.item())
""",
    "weak": """
weakref.finalize(w, print, "gone")
""",
    "generator": """
def values():
    with fastgrad.no_grad():
        while True:
            yield (w * 2).sum()
generator = values()
next(generator)
""",
    "daemon": """
def work():
    v = fastgrad.ones(50, requires_grad=True)
    while True:
        v.grad = None
        (v * v).sum().backward()
        v.grad.tolist()
threading.Thread(target=work, daemon=True).start()
time.sleep(0.02)
""",
    "daemon that compiles": """
def work():
    f = fastgrad.compile(lambda a: (a * 2).sum())
    v = fastgrad.ones(100_000)
    while True:
        f(v)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.02)
""",
    "daemon at large sums": """
def work():
    v = fastgrad.ones(400_000)
    while True:
        (v * 2).sum().item()
threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
""",
    "daemon at products": """
def work():
    a = fastgrad.ones(300, 300)
    while True:
        (a @ a)[0, 0].item()
threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
""",
    "thread": """
def work():
    time.sleep(0.05)
    (w * 2).sum().item()
threading.Thread(target=work).start()
""",
    "thread's tensor": """
found = []
thread = threading.Thread(target=lambda: found.append((w * 7).sum()))
thread.start()
thread.join()
""",
    "fork": """
child = os.fork()
if child == 0:
    (w * 2).sum().item()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
    "fork in a thread": """
def work():
    child = os.fork()
    if child == 0:
        (w * 2).sum().item()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "kernels being compiled": """
for k in range(3):
    fastgrad.kernels.background.request(f"def kernel(record):\\n    record[1] = {k}\\n", lambda address: None)
""",
    "traceback": """
try:
    (w @ fastgrad.ones(7, 7)).sum()
except RuntimeError as error:
    kept = error
""",
    "graph": """
graph = (w * w).sum()
graph.backward(retain_graph=True)
second = fastgrad.autograd.grad((w**3).sum(), w, create_graph=True)
""",
}

ENDS = {
    "falls off": ("", 0),
    "sys.exit": ("sys.exit(0)", 0),
    "sys.exit with a status": ("sys.exit(3)", 3),
    "exception": ("raise ValueError('at the end')", 1),
    "exception in a sum": ("fastgrad.ones(3)[fastgrad.tensor(5)].item()", 1),
    "no collector": ("gc.disable()", 0),
    "collected": ("gc.collect()", 0),
    "names deleted": ("del w, x\ngc.collect()", 0),
    "modules deleted": ("del sys.modules['fastgrad'], fastgrad", 0),
}


class Script(NamedTuple):
    """A script's text, and the status that it ends with."""

    text: str
    status: int


def script(number: int) -> Script:
    """The script of a number."""
    rng = random.Random(number)
    quick = [name for name in WORK if name not in LONG]
    work = [LONG[number // 4 % len(LONG)] if number % 4 == 0 else rng.choice(quick)]
    left = [list(LEFT)[number % len(LEFT)], *rng.sample(list(LEFT), rng.choice([0, 1, 1]))]
    end, status = ENDS[rng.choice(list(ENDS))]
    names = [f"# {', '.join(dict.fromkeys(work))}; {', '.join(dict.fromkeys(left))}"]
    parts = [WORK[k] for k in dict.fromkeys(work)] + [LEFT[k] for k in dict.fromkeys(left)]
    return Script("\n".join([*names, HEAD, *parts, end, ""]), status)


def run(number: int, cache: Path) -> str:
    """Run a script; what was wrong with its end, or nothing."""
    text, status = script(number)
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "FASTGRAD_CACHE_DIR": str(cache)}
    try:
        process = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", text],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired as error:
        return f"script {number} does not end: {error.stderr}"
    if process.returncode == status:
        return ""
    return f"script {number} ends with {process.returncode} instead of {status}:\n{text}\n{process.stderr}"


def run_all(numbers: list[int], cold: bool, scratch: Path, at_once: int) -> Iterator[str]:
    """Run scripts, some at once; yields what was wrong."""
    with ThreadPoolExecutor(at_once) as pool:
        places = [scratch / (f"cold{n}" if cold else "warm") for n in numbers]
        yield from filter(None, pool.map(run, numbers, places))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=100, help="scripts")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--only", type=int, help="one script")
    parser.add_argument("--at-once", type=int, default=2, help="processes at once")
    parser.add_argument("--show", action="store_true", help="print the scripts instead of running them")
    given = parser.parse_args()
    numbers = [given.only] if given.only is not None else list(range(given.first, given.first + given.count))
    if given.show:
        print(*[script(n).text for n in numbers], sep="\n")
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for cold in (True, False):
            start = time.perf_counter()
            for wrong in run_all(numbers, cold, Path(scratch), given.at_once):
                failed += 1
                print(wrong, flush=True)
            kind = "fresh kernel caches" if cold else "one kernel cache"
            print(
                f"{len(numbers)} scripts with {kind}: {time.perf_counter() - start:.0f} s, {failed} failed", flush=True
            )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
