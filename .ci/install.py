"""
Make an environment and install into it, with progress: ``python .ci/install.py FOLDER ARGUMENT ...``.

The arguments are those of ``pip install``.  uv installs if it is on PATH and knows dependency groups, else pip does.
With the variable NO_UV pip does anyway: uv does not read pip's configuration.

It runs before anything is installed, so it imports only the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

#: Without a terminal, a line comes after so many seconds.
_LINE_SECS = 2.0
_COLUMNS = shutil.get_terminal_size().columns - 1


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Make *folder* unless it is there, and install.  Returns the exit code of the command that failed, or 0."""
    begun = time.monotonic()
    python = folder / "bin" / "python"
    uv = find_uv()
    if uv is not None:
        make = [[uv, "venv", "--seed", "--allow-existing", "--python", sys.executable, str(folder)]]
        install = [[uv, "pip", "install", "--compile-bytecode", "--python", str(python), *arguments]]
    else:
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        make = [[sys.executable, "-m", "venv", str(folder)]]
        # Older ones do not know --group.
        install = [[*pip, "pip>=25.1"]] if "--group" in arguments else []
        install += [[*pip, *arguments]]
    name = "pip" if uv is None else "uv"
    for command in [*([] if python.exists() else make), *install]:
        code = run(command, f"Installing with {name} into {folder}", folder)
        if code != 0:
            return code
    print(coloured(f"Installed {count(folder)} packages into {folder} in {time.monotonic() - begun:.0f} s.", "32"))
    return 0


def find_uv() -> str | None:
    """The path of a uv that can install what pip can."""
    uv = None if os.environ.get("NO_UV") else shutil.which("uv")
    if uv is None:
        return None
    known = subprocess.run([uv, "pip", "install", "--help"], capture_output=True, text=True, check=False).stdout
    return uv if "--group" in known else None


def run(command: Sequence[str], what: str, folder: Path) -> int:
    """Run a command, and show how far it is.  If it fails, print what it has written.  Returns its exit code."""
    begun = shown = time.monotonic()
    show(f"{what} …")
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        reader = Thread(target=lines.extend, args=(process.stdout,), daemon=True)
        reader.start()
        while process.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if sys.stdout.isatty() or now - shown >= _LINE_SECS:
                last = lines[-1].strip() if lines else ""
                show(f"{what}: {now - begun:.0f} s, {count(folder)} packages.  {last}")
                shown = now
        reader.join()
    if sys.stdout.isatty():
        print("\r\x1b[K", end="", flush=True)
    if process.returncode != 0:
        print(*lines, f"Exit code {process.returncode}: {' '.join(command)}", sep="", file=sys.stderr)
    return process.returncode


def show(line: str) -> None:
    """Show progress: on a terminal in place of the line before."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{coloured(line[:_COLUMNS], '2')}", end="", flush=True)
    else:
        print(line[:_COLUMNS], flush=True)


def coloured(text: str, style: str) -> str:
    """The text in a style, by its number, where there are colours."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{style}m{text}\x1b[0m"


def count(folder: Path) -> int:
    """How many packages there are in an environment."""
    return len(list(folder.glob("lib/python*/site-packages/*.dist-info")))


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
