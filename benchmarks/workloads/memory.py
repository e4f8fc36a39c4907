"""Memory of a training step: the perceptron 784-512-512-10 with a batch of 256, in a process of its own.

"training step" is the peak of the resident set while ten steps run, after three others, over what was resident after
the import and a training step of a small model (2-16-16-2), which loads what a library loads on first use: parameters,
gradients, activations, workspace, and what building and compiling the model has left. "whole process" is the peak from
the start of the interpreter to the end of those steps: imports, compilation and all.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..goals import near
from ..peers import ROOT
from ..workload import Step, Unavailable, Workload

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SMALL: dict[str, Any] = {"sizes": [2, 16, 16, 2], "batch": 16, "tanh": False, "adam": False, "dtype": "float32"}
_LARGE: dict[str, Any] = _SMALL | {"sizes": [784, 512, 512, 10], "batch": 256}


def _resident(what: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most there was since the last reset; in bytes."""
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return 1024 * int(value.split()[0])
    raise OSError(f"{_STATUS} has no {what}")


def measure(peer: str, what: str) -> int:
    """Bytes, measured in this process."""
    from . import perceptron

    build = getattr(perceptron, peer)
    small = build(**_SMALL)
    for _ in range(3):
        small()
    before = _resident("VmRSS")
    step = build(**_LARGE)
    for _ in range(3):
        step()
    if what == "step":
        _RESET.write_text("5")  # from here on, VmHWM starts anew
    for _ in range(10):
        step()
    return _resident("VmHWM") - (before if what == "step" else 0)


def _elsewhere(peer: str) -> Callable[..., Step]:
    def build(what: str) -> Step:
        if not _STATUS.exists() or not _RESET.exists():
            raise Unavailable("memory is measured on Linux only")
        command = [sys.executable, "-c", f"from {__name__} import measure; print(measure({peer!r}, {what!r}))"]

        def step() -> int:
            answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if answer.returncode:
                raise RuntimeError(answer.stderr.strip().rpartition("\n")[2])
            return int(answer.stdout.split()[-1])

        return step

    return build


fastgrad_plain = _elsewhere("fastgrad_plain")
fastgrad_compiled = _elsewhere("fastgrad_compiled")
numba_by_hand = _elsewhere("numba_by_hand")
numpy_by_hand = _elsewhere("numpy_by_hand")
pytensor = _elsewhere("pytensor")
jax_jit = _elsewhere("jax_jit")
torch_eager = _elsewhere("torch_eager")
torch_compiled = _elsewhere("torch_compiled")
hips_autograd = _elsewhere("hips_autograd")


def _workload(what: str, name: str, **options: Any) -> Workload:
    module, arguments = __name__.rpartition(".")[2], {"what": what}
    return Workload(
        f"peak memory, 784-512-512-10, batch 256, SGD: {name}",
        module,
        arguments,
        tolerance=None,
        once=True,
        unit="B",
        **options,
    )


WORKLOADS = [
    _workload(
        "step",
        "training step",
        goals=(near("fastgrad_compiled", 1, "torch_eager"), near("fastgrad_plain", 1, "torch_eager")),
    ),
    _workload("process", "whole process"),
]
