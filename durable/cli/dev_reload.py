"""
Reloading in ``durable dev``: watches the application's files, and loads a change in a process of its own first.

Only what can be loaded is reloaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from .dev_plan import Plan

#: How long the files must be left alone before they are read, in milliseconds: an editor saves several at once.
SETTLE_MS = 200

_MAIN = "import sys; from durable.cli import dev_plan; sys.exit(dev_plan.main(sys.argv[1:]))"


def changes(folder: Path, on_change: Callable[[list[str]], object], stopping: threading.Event) -> None:
    """Call *on_change* with the names of the Python files below *folder* that have changed, until *stopping* is set."""
    from watchfiles import PythonFilter, watch  # of the extra "dev": no other command needs it

    for changed in watch(folder, watch_filter=PythonFilter(), debounce=SETTLE_MS, stop_event=stopping):
        paths = (Path(path) for _, path in changed)
        on_change(sorted(str(path.relative_to(folder)) for path in paths if path.is_relative_to(folder)))


def load(spec: str, web: str | None) -> Plan | str:
    """Load the application in another process.  Returns the plan, or the error as text."""
    command = [sys.executable, "-c", _MAIN, spec, *([web] if web else [])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip() or f"It ended with code {done.returncode}."
    # The application may print when it is imported.
    found = json.loads(done.stdout.splitlines()[-1])
    return Plan(celery_path=found["celery_path"], queues=tuple(found["queues"]), web=found["web"])
