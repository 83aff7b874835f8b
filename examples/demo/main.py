"""Starts everything, runs the scenario, stops everything; Ctrl-C stops everything too."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from durable.errors import ConfigurationError

from .deployment import Deployment, deployed
from .scenario import Scenario
from .screen import DemoFailed, Screen


def main() -> int:
    """Run the demo, and return the exit code."""
    screen = Screen()
    screen.say("two Celery workers and gunicorn start, with an embedded broker, SQLite and default settings")
    with interruptible():
        try:
            with deployed(screen) as deployment, logs_of(deployment):
                Scenario(deployment, screen).run()
                screen.heading("Everything stops")
        except KeyboardInterrupt:
            screen.failed("Interrupted; all processes have ended, and their files are removed.")
            return 130
        except (DemoFailed, ConfigurationError, OSError, HTTPException) as error:
            screen.failed(str(error) or repr(error))
            return 1
    screen.passed(f"Everything was as promised, in {screen.secs:.0f} s.")
    return 0


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt too.  Only the first signal counts: stopping takes some seconds."""

    def interrupt(*_: object) -> None:
        for signum in signals:
            signal.signal(signum, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.signal(signum, interrupt) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def logs_of(deployment: Deployment) -> Iterator[None]:
    """If something is not as promised, print the last lines of each process."""
    try:
        yield
    except Exception:
        print(f"\n{deployment.logs()}\n", file=sys.stderr)
        raise
