"""The short form of ``make fuzz``: what strangers' bytes reach first raises nothing but what is documented."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
#: Inputs that each is given.
RUNS = {"request": 5_000, "verifiers": 20_000, "codec": 50_000}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not made for this Python or machine"
)


def fuzz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["-seed=1", "-max_len=2000", f"-artifact_prefix={folder}/"]
    command = [sys.executable, *arguments, *options]
    return subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("target", RUNS)
def test_no_bytes_raise_what_is_not_documented(target, tmp_path):
    """Thousands of inputs, each made from one that had reached something new."""
    ended = fuzz(tmp_path, "fuzzing.py", target, f"-runs={RUNS[target]}")

    assert (ended.returncode, list(tmp_path.iterdir())) == (0, []), ended.stderr[-3000:]
    assert f"Done {RUNS[target]} runs" in ended.stderr


def test_a_mistake_is_found(tmp_path):
    """An exception that is not documented ends it, and the input that raises it is kept."""
    broken = (
        "import sys, fuzzing\n"
        "read = fuzzing.codec.decode\n"
        "def decode(text):\n"
        "    if text[:1] == '[' and text[-1:] == ']' and '7' in text: raise KeyError(text)\n"
        "    return read(text)\n"
        "fuzzing.codec.decode = decode\n"
        "fuzzing.main(['codec', '-runs=200000', *sys.argv[1:]])\n"
    )

    ended = fuzz(tmp_path, "-c", broken)

    assert ended.returncode != 0
    assert "KeyError" in ended.stdout + ended.stderr
    (kept,) = tmp_path.iterdir()
    assert b"7" in kept.read_bytes()
