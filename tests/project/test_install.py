"""``.ci/install.py``, which the Makefile installs with."""

import importlib.util
import sys
from pathlib import Path

import pytest

#: A uv that notes its arguments, makes what is asked for, and knows --group if KNOWS is in its folder.
UV = """#!/bin/sh
folder=$(dirname "$0")
if [ "$3" = --help ]; then [ ! -e "$folder/knows" ] || echo "--group <GROUP>"; exit; fi
echo "$*" >> "$folder/calls"
for last; do :; done
[ "$1" != venv ] || { mkdir -p "$last/bin"; touch "$last/bin/python"; }
"""


@pytest.fixture
def install(monkeypatch):
    spec = importlib.util.spec_from_file_location("install", Path(__file__).parents[2] / ".ci" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_COLUMNS", 1000)
    return module


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """A folder at the front of PATH, with a uv that knows dependency groups."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uv").write_text(UV)
    (folder / "uv").chmod(0o755)
    (folder / "knows").touch()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("NO_UV", raising=False)
    return folder


def test_uv_installs_where_it_is_there(install, bin_folder, tmp_path, capsys):
    """It makes the environment once, with pip in it, and installs what the arguments say."""
    environment = tmp_path / "environment"
    assert install.main(environment, ["-e", ".[dev]", "--group", "dev"]) == 0
    assert install.main(environment, ["-e", ".[dev]"]) == 0

    python = f"--python {environment}/bin/python"
    assert (bin_folder / "calls").read_text().splitlines() == [
        f"venv --seed --allow-existing --python {sys.executable} {environment}",
        f"pip install --compile-bytecode {python} -e .[dev] --group dev",
        f"pip install --compile-bytecode {python} -e .[dev]",
    ]
    assert f"Installing with uv into {environment} …" in capsys.readouterr().out


def test_pip_installs_where_uv_is_too_old_or_not_wanted(install, bin_folder, monkeypatch):
    """NO_UV, and a uv before dependency groups."""
    assert install.find_uv() == str(bin_folder / "uv")
    monkeypatch.setenv("NO_UV", "1")
    assert install.find_uv() is None
    monkeypatch.delenv("NO_UV")
    (bin_folder / "knows").unlink()
    assert install.find_uv() is None


def test_a_command_that_is_silent_has_lines_of_progress(install, tmp_path, monkeypatch, capsys):
    """Each with what the command has written last; its output is not printed."""
    monkeypatch.setattr(install, "_LINE_SECS", 0.0)
    program = "import time; print('Collecting celery', flush=True); time.sleep(1)"
    assert install.run([sys.executable, "-c", program], "Installing", tmp_path) == 0

    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "Installing …"
    assert lines[-1].endswith("packages.  Collecting celery")
    assert len(lines) > 3


def test_the_output_of_a_command_that_fails_is_printed(install, tmp_path, capsys):
    """With its exit code, which is the script's too."""
    program = "import sys; print('No matching distribution'); sys.exit(7)"
    assert install.run([sys.executable, "-c", program], "Installing", tmp_path) == 7

    printed = capsys.readouterr().err
    assert printed.startswith("No matching distribution\nExit code 7: ")
