"""Which tests a run of pytest has: the quick ones without a path, all with one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

SAMPLE = """
import pytest

def test_quick(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.live
def test_live(): pass

@pytest.mark.parametrize("database", ["sqlite", "mariadb"])
def test_stored(database): pass
"""
ALL = {"test_quick", "test_slow", "test_live", "test_stored[sqlite]", "test_stored[mariadb]"}


@pytest.fixture
def project(tmp_path):
    """A project with our settings, in which a quick folder and another have the same tests."""
    (tmp_path / "tests/codec").mkdir(parents=True)
    (tmp_path / "tests/flows").mkdir()
    for path in (TESTS.parent / "setup.cfg", TESTS / "conftest.py"):
        shutil.copy(path, tmp_path / path.relative_to(TESTS.parent))
    (tmp_path / "tests/codec/test_a.py").write_text(SAMPLE)
    (tmp_path / "tests/flows/test_b.py").write_text(SAMPLE)
    return tmp_path


def run_pytest(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.parametrize(
    ("arguments", "quick", "other"),
    [
        ([], {"test_quick", "test_stored[sqlite]"}, set()),
        (["tests"], ALL, ALL),
        (["-n", "2", "--dist", "loadgroup", "tests"], ALL, ALL),
        (["-m", "live"], {"test_live"}, {"test_live"}),
        (["tests/flows"], set(), ALL),
    ],
    ids=["nothing", "all", "all in two processes", "a mark", "a folder"],
)
def test_pytest_runs_the_quick_tests_unless_it_is_asked_for_others(project, arguments, quick, other):
    """Without a path and without ``-m``, only quick tests run; `make test` names the folder, and runs all."""
    ended = run_pytest(project, *arguments)

    assert ended.returncode == 0, ended.stdout
    passed = set(re.findall(r"tests/(?:codec|flows)/test_[ab]\.py::[\w\[\]]+", ended.stdout))
    expected = {f"tests/codec/test_a.py::{name}" for name in quick}
    assert passed == expected | {f"tests/flows/test_b.py::{name}" for name in other}, ended.stdout


LIVE = """
import pytest

@pytest.mark.live
@pytest.mark.parametrize("number", range(10))
def test_live(number): pass
"""


def test_of_two_processes_one_runs_all_live_tests_that_measure_time(project):
    """They would disturb each other.  Those that measure no time are kept together too, so that they share fixtures."""
    (project / "tests/live").mkdir()
    for name in ("test_c.py", "test_d.py", "test_framing.py", "test_reading.py"):
        (project / "tests/live" / name).write_text(LIVE)

    ended = run_pytest(project, "-n", "2", "--dist", "loadgroup", "tests")

    assert ended.returncode == 0, ended.stdout
    for names in ("c|d", "framing|reading"):
        ran = re.findall(rf"\[(gw\d)\] .* PASSED tests/live/test_(?:{names})\.py::", ended.stdout)
        assert (len(ran), len(set(ran))) == (20, 1), ended.stdout
