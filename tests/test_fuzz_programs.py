"""Random programs of everyday statements leave in fastgrad what they leave in PyTorch: `fuzz_programs` runs them.

`FASTGRAD_FUZZ_PROGRAMS=5000` runs that many of each family, `FASTGRAD_FUZZ_SEED=N` begins at another seed. A failure
prints the shortest program found that still fails, as a script.
"""

from __future__ import annotations

import os
from collections import Counter

import fuzz_programs as programs
import pytest

import fastgrad

FIRST = int(os.environ.get("FASTGRAD_FUZZ_SEED", "0"))
COUNT = int(os.environ.get("FASTGRAD_FUZZ_PROGRAMS", "0"))
BATCH = 10
SEEDS = {
    "memory": (
        0,
        1,
        2,
        4,
        6,
        7,
        8,
        10,
        14,
        15,
        16,
        17,
        18,
        19,
        20,
        21,
        22,
        24,
        25,
        26,
        27,
        28,
        31,
        32,
        33,
        35,
        36,
        37,
        38,
        39,
        40,
        41,
        43,
        44,
        46,
        47,
        48,
        49,
        50,
        52,
        53,
        54,
        55,
        56,
        57,
        58,
        59,
        60,
        61,
        62,
        63,
        64,
        65,
        66,
        67,
        68,
        70,
        71,
        72,
        73,
        74,
        75,
        76,
        77,
        78,
        79,
        80,
        81,
        82,
        83,
        84,
        85,
        86,
        87,
        88,
        89,
        90,
        91,
        94,
        96,
        97,
        98,
        99,
    ),
    "training": (
        1,
        4,
        5,
        6,
        9,
        10,
        11,
        12,
        14,
        15,
        17,
        18,
        19,
        24,
        25,
        26,
        27,
        31,
        32,
        33,
        34,
        36,
        38,
        40,
        42,
        45,
        46,
        49,
        50,
        51,
        52,
        53,
        54,
        56,
        58,
        60,
        61,
        62,
        65,
        66,
        69,
        71,
        72,
        73,
        74,
        76,
        78,
        79,
        80,
        81,
        82,
        84,
        85,
        86,
        88,
        90,
        92,
        94,
        96,
        97,
        98,
        99,
    ),
}


def batches(family: str) -> list[tuple[str, tuple[int, ...]]]:
    seeds = tuple(range(FIRST, FIRST + COUNT)) or SEEDS[family]
    return [(family, seeds[i : i + BATCH]) for i in range(0, len(seeds), BATCH)]


@pytest.mark.parametrize("mode", programs.MODES)
@pytest.mark.parametrize("family, seeds", batches("memory") + batches("training"))
def test_programs_leave_what_they_leave_in_pytorch(family: str, seeds: tuple[int, ...], mode: str) -> None:
    torch = pytest.importorskip("torch")
    refused: Counter[str] = Counter()
    for seed in seeds:
        program = programs.generate(family, seed, torch)
        try:
            programs.check(program, fastgrad, torch, [mode], refused)
        except programs.Mismatch as found:
            pytest.fail(programs.shortened(found, fastgrad, torch, seconds=20).report(), pytrace=False)
    assert refused["compile refused"] <= len(seeds), "compile refuses most functions"


def test_a_program_prints_as_a_script_that_runs() -> None:
    torch = pytest.importorskip("torch")
    program = programs.generate("memory", 3, torch, threads=True)
    scope = {"__name__": "script", "print": lambda *shown: None}
    exec(compile(program.script().replace("sys.argv[1] if len(sys.argv) > 1 else", ""), "script", "exec"), scope)


def test_a_failing_program_is_shortened_to_the_lines_that_fail() -> None:
    torch = pytest.importorskip("torch")
    program = programs.generate("memory", 4, torch)
    line = programs.Line("log.append(T.__name__.startswith('torch'))")
    spoilt = programs.Program("memory", 4, (*program.lines[:-1], line, programs.Line("show()")))
    with pytest.raises(programs.Mismatch) as found:
        programs.check(spoilt, fastgrad, torch, ["eager"])
    small = programs.shortened(found.value, fastgrad, torch, seconds=20)
    assert [part.source for part in small.program.lines] == [line.source, "show()"]


def test_names_that_a_line_binds_and_needs() -> None:
    assert programs.names_of("v1 = v2 + v1") == ({"v1"}, {"v1", "v2"})
    assert programs.names_of("v1 = p3; v1.add_(v1)") == ({"v1"}, {"p3"})
    assert programs.names_of("def f1(p0):\n    v1 = p0 * v2\n    return v1") == ({"f1"}, {"v2"})
    assert programs.names_of("v1 += 1; del v3") == ({"v1", "v3"}, {"v1", "v3"})


def test_a_line_in_a_worker_binds_names_for_all() -> None:
    names: dict[str, object] = {"in_thread": lambda function: function()}
    exec(programs.Line("v1 = 3", where="in_thread").text(), names)
    assert names["v1"] == 3
