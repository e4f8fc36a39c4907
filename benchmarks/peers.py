"""Whom fastgrad is compared with, what each needs, and in which interpreter it is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OURS", "PEERS", "ROOT", "Peer", "interpreters"]

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Peer:
    """A library in one mode. `threads`: whether one thread and all of them are tried, and the faster kept."""

    label: str
    needs: tuple[str, ...]
    threads: bool = True
    optional: bool = False


PEERS: dict[str, Peer] = {
    "fastgrad_plain": Peer("fastgrad, plain loop", ("fastgrad",)),
    "fastgrad_compiled": Peer("fastgrad.compile", ("fastgrad",)),
    "numba_by_hand": Peer("Numba by hand", ("numba", "scipy")),
    "numpy_by_hand": Peer("NumPy by hand", ("numpy",)),
    "pytensor": Peer("PyTensor (Numba)", ("pytensor", "numba")),
    "casadi": Peer("CasADi (SX)", ("casadi",), threads=False),
    "drjit": Peer("Dr.Jit (LLVM)", ("drjit",)),
    "jax_jit": Peer("JAX jit", ("jax",)),
    "torch_eager": Peer("PyTorch eager", ("torch",)),
    "torch_compiled": Peer("torch.compile", ("torch",), optional=True),
    "hips_autograd": Peer("HIPS autograd", ("autograd",)),
}

OURS = ("fastgrad_compiled", "fastgrad_plain")

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


def environment(threads: int | None) -> dict[str, str]:
    """The variables of a worker's process; `threads` limits every library's pool, None leaves them their default."""
    variables = dict(os.environ)
    if threads is not None:
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            variables[f"{name}_NUM_THREADS"] = str(threads)
        variables["NPROC"] = str(threads)  # XLA's thread pool
        variables["BENCHMARK_THREADS"] = str(threads)  # for libraries that are told by a call
    return variables
