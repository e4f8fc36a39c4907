"""Processes end as Python says: whatever is still about at the end, machine code points to memory that is there."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import exits
import pytest

from fastgrad.kernels import build


@pytest.mark.parametrize("number", range(0, 36, 3))
def test_a_script_ends_with_its_own_status(number: int) -> None:
    assert exits.run(number, build.cache_directory()) == ""


@pytest.mark.parametrize("number", [1, 6])
def test_a_script_that_compiles_ends_with_its_own_status(number: int, tmp_path: Path) -> None:
    assert exits.run(number, tmp_path) == ""


def test_scripts_are_of_every_kind() -> None:
    texts = [exits.script(n).text for n in range(100)]
    for pieces in (exits.WORK.values(), exits.LEFT.values(), [end for end, _ in exits.ENDS.values()]):
        assert all([any([piece in text for text in texts]) for piece in pieces])


def test_what_is_kept_forever_is_never_freed() -> None:
    class Thing:
        pass

    thing = build.forever(Thing())
    seen = weakref.ref(thing)
    del thing
    gc.collect()
    assert seen() is not None
