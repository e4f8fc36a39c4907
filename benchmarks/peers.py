"""Whom fastgrad is compared with, what each needs, and in which interpreter it is found."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FLOORS", "OURS", "PEERS", "ROOT", "Peer", "cache_variables", "environment", "interpreters"]

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Peer:
    """A library in one mode. `needs` are the modules that it imports; `threads`: whether one thread and all of them are
    tried, and the faster kept; `slow` ones, which compile for seconds, are left out of `--quick`."""

    label: str
    needs: tuple[str, ...]
    threads: bool = True
    slow: bool = False


PEERS: dict[str, Peer] = {
    "fastgrad_plain": Peer("fastgrad, plain loop", ("fastgrad",)),
    "fastgrad_compiled": Peer("fastgrad.compile", ("fastgrad",)),
    "fastgrad_loop": Peer("fastgrad, step.loop", ("fastgrad",)),
    "numba_by_hand": Peer("Numba by hand", ("numba", "scipy")),
    "numba_loop": Peer("Numba by hand, loop", ("numba", "scipy")),
    "numpy_by_hand": Peer("NumPy by hand", ("numpy",)),
    "pytensor": Peer("PyTensor (Numba)", ("pytensor", "numba")),
    "casadi": Peer("CasADi (SX)", ("casadi",), threads=False),
    "drjit": Peer("Dr.Jit (LLVM)", ("drjit",)),
    "jax_jit": Peer("JAX jit", ("jax",)),
    "jax_eager": Peer("JAX without jit", ("jax",)),
    "torch_eager": Peer("PyTorch eager", ("torch",)),
    "torch_compiled": Peer("torch.compile", ("torch",), slow=True),
    "hips_autograd": Peer("HIPS autograd", ("autograd",)),
}

OURS = ("fastgrad_compiled", "fastgrad_plain", "fastgrad_loop")
FLOORS = ("numba_by_hand", "numba_loop", "numpy_by_hand")

_PROBE = "import importlib.util as u, json, sys; print(json.dumps([bool(u.find_spec(n)) for n in sys.argv[1:]]))"


def interpreters(candidates: list[str] | None = None) -> dict[str, str]:
    """The interpreter of each peer: this one, or the first of `candidates` that has what it needs; else absent."""
    names = sorted({name for peer in PEERS.values() for name in peer.needs})
    found: dict[str, str] = {}
    for python in [sys.executable, *(candidates or [])]:
        answer = subprocess.run([python, "-c", _PROBE, *names], capture_output=True, text=True, check=True, cwd=ROOT)
        here = {name for name, present in zip(names, json.loads(answer.stdout), strict=True) if present}
        for key, peer in PEERS.items():
            if key not in found and here.issuperset(peer.needs):
                found[key] = python
    return found


def environment(threads: int | None, caches: str | None = None) -> dict[str, str]:
    """The variables of a worker's process; `threads` limits every library's pool, None leaves them their default;
    `caches` is a directory for all that libraries keep on disk, None leaves them their usual places."""
    variables = dict(os.environ)
    if threads is not None:
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            variables[f"{name}_NUM_THREADS"] = str(threads)
        variables["NPROC"] = str(threads)  # XLA's thread pool
        variables["BENCHMARK_THREADS"] = str(threads)  # for libraries that are told by a call
    if caches is not None:
        variables |= cache_variables(caches)
    return variables


def cache_variables(directory: str) -> dict[str, str]:
    """Variables that make every library keep its compiled code below `directory`. JAX keeps none unless told so."""
    return {
        "FASTGRAD_CACHE_DIR": os.path.join(directory, "fastgrad"),
        "NUMBA_CACHE_DIR": os.path.join(directory, "numba"),
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(directory, "inductor"),
        "PYTENSOR_FLAGS": f"base_compiledir={os.path.join(directory, 'pytensor')}",
        "JAX_COMPILATION_CACHE_DIR": os.path.join(directory, "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "HOME": directory,  # Dr.Jit's kernels are in ~/.drjit
        "PYTHONUSERBASE": site.getuserbase(),
    }
