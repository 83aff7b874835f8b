"""
Reloading in ``durable dev``: watches the application's files, and loads a change in a process of its own first.

Only what can be loaded is reloaded: ``main`` runs in that process.  It imports the application, and prints what
``durable dev`` needs to start it, as JSON, or the error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

#: How long the files must be left alone before they are read, in milliseconds: an editor saves several at once.
SETTLE_MS = 200

_MAIN = "import sys; from durable.cli import dev_reload; sys.exit(dev_reload.main(sys.argv[1:]))"
_ROOM = f"{Path(__file__).parents[1]}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """
    What ``durable dev`` starts.

    Attributes:
        celery_path: The argument of ``celery -A``.
        queues: The queues of the worker; empty for the app's default one.
        web: What gunicorn serves.
    """

    celery_path: str
    queues: tuple[str, ...]
    web: str


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


def shown(error: BaseException) -> str:
    """The traceback of an import, from the application's first line on."""
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


def _is_ours(filename: str) -> bool:
    return filename.startswith((_ROOM, "<frozen")) or Path(filename).parent.name == "importlib"


def main(arguments: Iterable[str]) -> int:
    """Load the application of SPEC and WEB, and print the plan.  Returns the exit code."""
    from . import dev
    from .application import load as load_application

    spec, *web = arguments
    try:
        plan = dev.plan(load_application(spec), spec, *web)
    except Exception as error:  # the application's own
        print(shown(error), file=sys.stderr)
        return 1
    print(json.dumps(asdict(plan)))
    return 0
