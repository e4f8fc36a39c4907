"""Random programs give the same bits lazily, eagerly, in every tier and compiled, and what PyTorch gives.

`FASTGRAD_FUZZ=5000` runs that many programs, `FASTGRAD_FUZZ_SEED=N` begins at another seed. A failure prints the
smallest program found that still fails, as a script; `python -m tests.programs --seed N` runs one by hand.
"""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import programs
import pytest

import fastgrad

FIRST = int(os.environ.get("FASTGRAD_FUZZ_SEED", "0"))
COUNT = int(os.environ.get("FASTGRAD_FUZZ", "200"))
BATCH = 10
BATCHES = [range(start, min(start + BATCH, FIRST + COUNT)) for start in range(FIRST, FIRST + COUNT, BATCH)]
OWN_MODES = [mode for mode in programs.MODES if mode not in ("torch", "tier2")]
FUSED = int(
    os.environ.get("FASTGRAD_FUZZ_FUSED", "30")
)  # programs that run at tier 2: every loop of theirs is compiled

each_batch = pytest.mark.parametrize("seeds", BATCHES, ids=[f"{seeds[0]}-{seeds[-1]}" for seeds in BATCHES])

# what cannot be replayed (`retain_grad`) runs its Python, with the same bits
pytestmark = pytest.mark.filterwarnings("ignore:compile. .*runs its Python in every call:RuntimeWarning")


def check_all(seeds: range, torch: object, modes: list[str]) -> Counter[str]:
    accepted: Counter[str] = Counter()
    for seed in seeds:
        try:
            programs.check(programs.generate(seed), fastgrad, torch, modes, accepted)
        except programs.Mismatch as mismatch:
            pytest.fail(programs.minimised(mismatch, fastgrad, torch, seconds=30).report(), pytrace=False)
    return accepted


@each_batch
def test_every_mode_gives_the_same_bits(seeds: range) -> None:
    check_all(seeds, None, OWN_MODES)


@each_batch
def test_programs_agree_with_pytorch(seeds: range) -> None:
    torch = pytest.importorskip("torch")
    excused = check_all(seeds, torch, ["torch"])
    assert sum(excused.values()) <= len(seeds) // 2, f"most of these programs compare nothing: {excused}"


@pytest.mark.parametrize("seeds", [range(s, min(s + 5, FIRST + FUSED)) for s in range(FIRST, FIRST + FUSED, 5)])
def test_fused_kernels_give_the_same_bits(seeds: range) -> None:
    check_all(seeds, None, ["tier2"])


def test_a_seed_gives_one_program() -> None:
    assert programs.generate(7) == programs.generate(7)
    assert programs.generate(7) != programs.generate(8)


def test_a_program_prints_as_a_script_that_runs() -> None:
    program = next(p for p in map(programs.generate, range(100)) if p.observes and p.setup)
    code = compile(program.script(), "script", "exec")
    exec(code, {"print": lambda *shown: None})


def test_a_failing_program_is_reduced_to_the_statement_that_fails() -> None:
    program = next(p for p in map(programs.generate, range(100)) if len(p.body) > 20)
    wanted = next(s.source for s in program.body if ".backward(" in s.source)
    small = programs.minimise(program, lambda p: any(s.source == wanted for s in p.body), seconds=30)
    assert small.body[-1].source == wanted
    assert len(small.body) < len(program.body) / 2
    bound = {leaf.name for leaf in small.leaves}
    for statement in small.body:
        names, read = statement.names()
        assert read <= bound
        bound |= names


def test_bits_tell_zeros_apart_and_nans_not() -> None:
    assert programs.same_bits(np.array([np.nan, 1.0]), np.array([-np.nan, 1.0]))
    assert not programs.same_bits(np.array([0.0]), np.array([-0.0]))
    assert not programs.same_bits(np.array([1.0]), np.array([1.0], dtype=np.float32))
