"""The documents tell the truth: their Python code runs, what they print is what is printed, and their commands exist.

A `python` block that is followed by a `text` block must print that text. The blocks of a document run one after the other in
one namespace, each as if it were the file example.py.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def blocks(document: str) -> Iterator[tuple[str, str, str]]:
    """Language, text and line number of the fenced blocks, indented ones included."""
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", document, re.MULTILINE | re.DOTALL):
        line = document[: found.start()].count("\n") + 2
        yield found[2], textwrap.dedent(found[3]), str(line)


@pytest.mark.parametrize("path", ["README.md", "docs/design.md"])
def test_the_code_runs_and_prints_what_is_shown(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(blocks((ROOT / path).read_text(encoding="utf-8")))
    assert any(language == "python" for language, _, _ in found)
    namespace: dict[str, object] = {"__name__": "example"}
    for (language, source, line), (after, shown, _) in zip(found, [*found[1:], ("", "", "")], strict=True):
        if language != "python":
            continue
        printed = io.StringIO()
        linecache.cache["example.py"] = (len(source), None, source.splitlines(True), "example.py")
        with contextlib.redirect_stdout(printed):
            exec(compile(source, "example.py", "exec"), namespace)
        expected = shown if after == "text" else ""
        assert printed.getvalue() == expected, f"the block at {path}:{line}"


def test_the_trainer_prints_what_is_shown() -> None:
    shown = next(text for language, text, _ in blocks(README[README.index("<!-- trainer -->") :]) if language == "text")
    command = [sys.executable, "-m", "fastgrad.linreg"]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, env=_environment())
    assert run.returncode == 0, run.stderr
    printed, expected = run.stdout.strip().splitlines(), shown.strip().splitlines()
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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "fastgrad-linreg" in project["scripts"]
    extras = {name for text in (README, _contributing()) for name in re.findall(r"\.\[(\w+)\]", text)}
    assert extras <= set(project["optional-dependencies"])
    for command in (["-m", "fastgrad.linreg", "--help"], ["-m", "benchmarks", "--help"]):
        run = subprocess.run(
            [sys.executable, *command], capture_output=True, encoding="utf-8", cwd=ROOT, env=_environment()
        )
        assert run.returncode == 0, run.stderr


def test_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_names_in_the_table_exist() -> None:
    import fastgrad

    table = README[README.index("| area | names |") : README.index("Three of these")]
    names = {name for code in re.findall(r"`([A-Za-z_.]+)`", table) for name in [code.strip(".")] if name}
    places = (fastgrad, fastgrad.Tensor, fastgrad.nn, fastgrad.optim, fastgrad.autograd)
    missing = [
        name for name in sorted(names) if not any(hasattr(place, name.removeprefix("autograd.")) for place in places)
    ]
    assert not missing


def _contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONIOENCODING": "utf-8"}


def _words(line: str) -> list[str]:
    return NUMBER.sub("0", line).split()


def _numbers(line: str) -> list[float]:
    return [float(text.replace(",", "")) for text in NUMBER.findall(line)]
