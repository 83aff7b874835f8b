"""Run the demo: ``cd examples && python -m demo``.  The exit code is 1 if anything is not as promised."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from durable.errors import ConfigurationError

from .deployment import Deployment, deployed
from .screen import DemoFailed, Screen
from .story import Story


def main() -> int:
    """Run the demo, and return the exit code."""
    screen = Screen()
    with interruptible():
        try:
            with deployed(screen) as deployment, logs_of(deployment):
                Story(deployment, screen).tell()
                screen.chapter("Everything stops")
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


if __name__ == "__main__":
    sys.exit(main())
