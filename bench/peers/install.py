"""The environments of the peers: a folder each, made once; delete ``.cache/peers`` to have new versions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..servers import ROOT

FOLDER = ROOT / ".cache" / "peers"
_TAIL = 500


@dataclass(frozen=True, kw_only=True)
class Installation:
    """
    What a peer needs.

    Attributes:
        python: Packages of PyPI.
        npm: Packages of npm.
        binaries: Variables of the peer's module, and the files under the npm packages that they name.
    """

    python: Sequence[str]
    npm: Sequence[str] = ()
    binaries: Mapping[str, str] = field(default_factory=dict)


INSTALLATIONS = {
    "dbos": Installation(python=("dbos",)),
    # absurdctl downloads the schema of its version, unless BENCH_ABSURD_SQL names the file.
    "absurd": Installation(python=("absurd-sdk", "absurdctl", "psycopg[binary]", "redis")),
    "restate": Installation(
        python=("restate-sdk", "hypercorn"),
        npm=("@restatedev/restate-server",),
        binaries={"BENCH_RESTATE_SERVER": "@restatedev/restate-server-*/bin/restate-server"},
    ),
}


class NotInstalled(Exception):
    """A peer cannot be installed here; the text says why."""


def install(name: str) -> tuple[Path, dict[str, str]]:
    """
    Install a peer, if it is not installed yet.

    Returns its Python, and the variables that name its binaries.

    Raises:
        NotInstalled: With the end of what the installer wrote.
    """
    wanted, folder = INSTALLATIONS[name], FOLDER / name
    python, done = folder / "bin" / "python", folder / ".done"
    if not done.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", *wanted.python])
        if wanted.npm:
            _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *wanted.npm])
        done.touch()
    return python, {variable: _binary(folder, path) for variable, path in wanted.binaries.items()}


def _binary(folder: Path, path: str) -> str:
    found = next((folder / "node_modules").glob(path), None)
    if found is None:
        raise NotInstalled(f"{path} is not among its npm packages: there is none for this machine")
    return str(found)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    except OSError as error:
        raise NotInstalled(f"{command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{' '.join(command)}: {error.stderr[-_TAIL:].strip()}") from error
