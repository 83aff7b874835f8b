"""What is in the wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The names of the files in a wheel, built from a copy: what is built in place is found by the next build."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = shutil.copytree(
        ROOT, folder / "tree", ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info")
    )
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.live
def test_the_wheel_holds_the_package_and_nothing_else(names):
    """Neither tests nor the example application are installed, and nothing of durable/ is missing."""
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "durable").rglob("*.py")} | {"durable/py.typed"}
    for folder in ("static", "templates"):
        sources |= {str(path.relative_to(ROOT)) for path in (ROOT / "durable" / "dashboard" / folder).iterdir()}

    assert {name for name in names if ".dist-info/" not in name} == sources


@pytest.mark.live
def test_the_wheel_has_the_migrations_and_the_licence(names):
    """A database can be migrated by what was installed, without the repository."""
    assert "durable/migrations/env.py" in names
    assert any(name.startswith("durable/migrations/versions/0001") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
