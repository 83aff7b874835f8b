"""What mypy and pyright say of programs that use durable: nothing of right ones, and the line of each mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TYPING = HERE / "typing"
ROOT = HERE.parents[1]


def mypy(path: Path) -> set[int]:
    """Lines of *path* with an error, by ``mypy --strict``."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert said.returncode in (0, 1), said.stdout + said.stderr
    return {int(line) for line in re.findall(rf"{re.escape(path.name)}:(\d+): error", said.stdout)}


def pyright(path: Path) -> set[int]:
    """Lines of *path* with an error, by pyright."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    found = json.loads(said.stdout)
    assert found["summary"]["filesAnalyzed"] == 1, said.stdout
    return {each["range"]["start"]["line"] + 1 for each in found["generalDiagnostics"] if each["severity"] == "error"}


def marked(path: Path) -> set[int]:
    """Lines that say they are wrong."""
    return {n for n, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# wrong")}


# Two type checkers over all of the package take seconds.
pytestmark = pytest.mark.slow

CHECKERS = pytest.mark.parametrize("checker", [mypy, pyright])


@CHECKERS
def test_right_programs_have_the_types_that_they_say(checker: Callable[[Path], set[int]]) -> None:
    """Results of steps, runs, children, races, hooks and webhooks have their types, without a cast."""
    assert checker(TYPING / "right.py") == set()


@CHECKERS
def test_each_mistake_is_found_where_it_is(checker: Callable[[Path], set[int]]) -> None:
    """Wrong arguments, results and options are errors on the author's own line; nothing else is."""
    path = TYPING / "wrong.py"

    assert checker(path) == marked(path)
    assert len(marked(path)) > 20
