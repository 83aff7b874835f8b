"""The run of the tests has a temporary folder of its own, and fails when something stays in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

LEAVES = "import tempfile\n\ndef test_leaves():\n    tempfile.mkdtemp(prefix='left-')\n"
LEAVES_BY_A_KILLED_CHILD = """
import os, signal, subprocess, sys

def test_leaves():
    code = "import os, tempfile; tempfile.mkdtemp(prefix='left-'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
"""
TIDY = "def test_tidy(tmp_path):\n    (tmp_path / 'a').touch()\n"


def run_pytest(folder: Path, test: str, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run one test file with our conftest; how it ended, and what is in the outer temporary folder then."""
    project, outer = folder / "project", folder / "outer"
    project.mkdir()
    outer.mkdir()
    shutil.copy(TESTS / "conftest.py", project)
    (project / "test_it.py").write_text(test)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_it.py"],
        cwd=project,
        env={**os.environ, "TMPDIR": str(outer), "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended, [path.name for path in outer.iterdir()]


@pytest.mark.parametrize("test", [LEAVES, LEAVES_BY_A_KILLED_CHILD], ids=["itself", "a killed child"])
def test_a_run_that_leaves_something_fails_and_names_the_test(tmp_path, test):
    """The tests pass and the run fails: it says what stayed and since which test, and removes it."""
    ended, stayed = run_pytest(tmp_path, test)

    assert (ended.returncode, stayed) == (1, [])
    assert "left-" in ended.stdout
    assert "since test_it.py::test_leaves" in ended.stdout
    assert "1 passed" in ended.stdout


@pytest.mark.parametrize(("test", "code"), [(LEAVES, 1), (TIDY, 0)], ids=["leaves", "tidy"])
def test_processes_of_xdist_report_what_stays_in_their_folders(tmp_path, test, code):
    """With ``-n``, the run fails for what a test in another process left."""
    ended, stayed = run_pytest(tmp_path, test, "-n", "1")

    assert (ended.returncode, stayed) == (code, []), ended.stdout
    assert ("since test_it.py::test_leaves" in ended.stdout) == bool(code)


def test_a_tidy_run_passes_and_leaves_nothing(tmp_path):
    """pytest's own folders are no litter, and are gone too."""
    ended, stayed = run_pytest(tmp_path, TIDY)

    assert (ended.returncode, stayed) == (0, []), ended.stdout
