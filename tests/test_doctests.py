"""The examples in the docstrings of public modules run and print what they say.

An example finds `fastgrad` and the names of its own module, nothing else.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import pytest

import fastgrad


def public_modules() -> list[str]:
    names = ["fastgrad", *[m.name for m in pkgutil.walk_packages(fastgrad.__path__, "fastgrad.")]]
    return [n for n in names if not any(part.startswith("_") for part in n.split("."))]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for name in public_modules():
        module = importlib.import_module(name)
        tests = finder.find(module, name)
        found += [t for t in tests if t.examples]
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.name for e in EXAMPLES])
def test_an_example_prints_what_it_says(example: doctest.DocTest, doctest_namespace: dict[str, Any]) -> None:
    output: list[str] = []
    example.globs.update(doctest_namespace)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    result = runner.run(example, out=output.append, clear_globs=False)
    assert result.failed == 0, "".join(output)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 15
    assert {e.name for e in EXAMPLES} >= {
        "fastgrad.tensor.Tensor",
        "fastgrad.compiled.compile",
        "fastgrad.control.eager",
    }
