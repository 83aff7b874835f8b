"""
The child processes of ``durable dev``, and what happens to them.

Each child is supervised (``broker/supervise.py``) and has a session of its own.  So Ctrl-C reaches only this process,
which then stops all children.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from dataclasses import dataclass
from queue import SimpleQueue

import click

from ..broker import embedded
from .dev_plan import Plan

#: How long a child may take to stop.
GRACE_SECS = 10.0


def print_line(line: str, name: str = "durable") -> None:
    """Print a line after the name of the process that it comes from."""
    click.echo(f"{name:<7} | {line}")


@dataclass(frozen=True)
class ChildExited:
    """A child process ended without being asked to."""

    name: str
    code: int


@dataclass(frozen=True)
class CodeChanged:
    """Files of the application have changed, and the new code can be loaded."""

    plan: Plan


@dataclass(frozen=True)
class StopRequested:
    """This process received SIGINT (Ctrl-C) or SIGTERM."""

    signum: int


class Supervisor:
    """Starts and stops the child processes, and puts what happens to them into ``events``."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.events: SimpleQueue[ChildExited | CodeChanged | StopRequested] = SimpleQueue()
        self._environment = environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        #: Those that were replaced, and finish what they have begun.
        self._ending: list[subprocess.Popen[bytes]] = []
        self._watchers: list[threading.Thread] = []

    def take_signals(self) -> None:
        """Put a ``StopRequested`` for each SIGINT and SIGTERM from now on, until ``stop``."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda signum, _: self.events.put(StopRequested(signum)))

    def spawn(self, name: str, command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        """Start a child, in place of one of the same name.  Its output is printed, each line after the child's name."""
        self.replace(name)
        child = embedded.supervised(
            command,
            grace_secs=GRACE_SECS,
            pass_fds=pass_fds,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        self._children[name] = child

        def watch() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                print_line(line.decode(errors="replace").rstrip("\n"), name)
            code = child.wait()
            if self._children.get(name) is child:
                self.events.put(ChildExited(name, code))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        self._watchers.append(watcher)

    def replace(self, name: str) -> None:
        """Ask a child to end, if there is one, and do not wait for it."""
        self._ending = [child for child in self._ending if child.poll() is None]
        child = self._children.pop(name, None)
        if child is not None:
            assert child.stdin is not None
            child.stdin.close()
            self._ending.append(child)

    def stop(self) -> None:
        """Stop all children, and wait until they have ended.  A second Ctrl-C kills them."""
        for name in list(self._children):
            self.replace(name)

        def kill(*_: object) -> None:
            for child in self._ending:
                child.send_signal(signal.SIGTERM)

        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, kill)
        for child in self._ending:
            child.wait()
        for watcher in self._watchers:
            watcher.join(timeout=1.0)
