"""The documents tell the truth: their Python code runs, what they print is what is printed, and their commands exist.

A `python` block that is followed by a `text` block must print that text. The blocks of a document run one after the other in
one namespace, each as if it were the file example.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastgrad

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def blocks(document: str) -> Iterator[tuple[str, str, str]]:
    """Language, text and line number of the fenced blocks, indented ones included."""
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", document, re.MULTILINE | re.DOTALL):
        line = document[: found.start()].count("\n") + 2
        yield found[2], textwrap.dedent(found[3]), str(line)


# Runs blocks given as JSON and writes down what each prints; a process of its own, so that nothing is on the tape before.
RUNNER = """
import contextlib, io, json, linecache, sys
namespace, printed = {"__name__": "example"}, []
for source in json.load(sys.stdin):
    linecache.cache["example.py"] = (len(source), None, source.splitlines(True), "example.py")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(source, "example.py", "exec"), namespace)
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


@pytest.mark.parametrize("path", ["README.md", "docs/design.md"])
def test_the_code_runs_and_prints_what_is_shown(path: str, tmp_path: Path) -> None:
    found = list(blocks((ROOT / path).read_text(encoding="utf-8")))
    sources, shown = [], []
    for (language, source, line), (after, text, _) in zip(found, [*found[1:], ("", "", "")], strict=True):
        if language == "python":
            sources.append(source)
            shown.append((line, text if after == "text" else ""))
    assert sources
    run = python("-W", "error", "-c", RUNNER, input=json.dumps(sources), cwd=tmp_path)
    assert list(zip([line for line, _ in shown], json.loads(run), strict=True)) == shown


def test_the_trainer_prints_what_is_shown() -> None:
    shown = next(text for language, text, _ in blocks(README[README.index("<!-- trainer -->") :]) if language == "text")
    printed = python("-m", "fastgrad.linreg").strip().splitlines()
    expected = shown.strip().splitlines()
    assert len(printed) == len(expected)
    for ours, theirs in zip(printed, expected, strict=True):
        assert _words(ours) == _words(theirs)
        if not theirs.startswith("training"):  # the times, and on another machine the number of steps, differ
            assert _numbers(ours) == pytest.approx(_numbers(theirs), rel=2e-2, abs=1e-2)


def test_the_two_commands_set_up_and_do_what_they_say() -> None:
    setups = [text for language, text, _ in blocks(README) if language == "sh" and "venv" in text][:2]
    assert [text.strip().split(" && ")[-1] for text in setups] == [
        ".venv/bin/python -m fastgrad.linreg",
        ".venv/bin/python -m pytest",
    ]
    assert "pip install -e . &&" in setups[0]
    assert 'pip install -e ".[test]" &&' in setups[1]


def test_the_commands_that_are_named_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"^fastgrad-linreg = ", project, re.MULTILINE)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for extra in re.findall(r"\.\[(\w+)\]", README + contributing):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"the extra {extra}"
    for module in ("fastgrad.linreg", "benchmarks", "tests.programs"):
        assert "usage:" in python("-m", module, "--help")


def test_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_names_in_the_table_exist() -> None:
    table = README[README.index("| area | names |") : README.index("Some of these")]
    names = {name.removeprefix("autograd.") for name in re.findall(r"`([A-Za-z][\w.]*)`", table)} - {"None"}
    places = (fastgrad, fastgrad.Tensor, fastgrad.nn, fastgrad.optim, fastgrad.optim.Optimizer, fastgrad.autograd)
    assert len(names) > 150
    assert not [name for name in sorted(names) if not any(hasattr(place, name) for place in places)]


def python(*arguments: str, input: str = "", cwd: Path = ROOT) -> str:
    """What Python prints."""
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, *arguments], input=input, capture_output=True, encoding="utf-8", cwd=cwd, env=variables
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _words(line: str) -> list[str]:
    return NUMBER.sub("0", line).split()


def _numbers(line: str) -> list[float]:
    return [float(text.replace(",", "")) for text in NUMBER.findall(line)]
