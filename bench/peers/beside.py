"""Runs the program of a peer, and asks it for rounds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .. import servers
from .install import INSTALLATIONS, NotInstalled, install

#: The workloads that peers have.
WORKLOADS = ("W1", "W2", "W3", "W4", "W5", "W6")
_GRACE_SECS = 15


class PeerProgram:
    """The program of one peer.  After an error it is asked no more."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process

    def measure(self, workload: str, sizes: Any) -> dict[str, float] | None:
        """The figures of a round; None if the program has ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"workload": workload, "sizes": asdict(sizes)}) + "\n")
            self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, float] | None:
        """The next line that it writes; None if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else None


@contextmanager
def opened(name: str) -> Iterator[PeerProgram | None]:
    """
    A peer with a database of its own, ready and warm.

    None, with the reason on standard error, where it cannot be installed or does not start.
    """
    try:
        python, binaries = install(name)
    except NotInstalled as reason:
        print(f"{name} is left out: {reason}", file=sys.stderr)
        yield None
        return
    with servers.database() as database, servers.redis_database() as side:
        environment = {
            "BENCH_PEER_DATABASE": sa.make_url(database).set(drivername="postgresql").render_as_string(False),
            "BENCH_PEER_REDIS": side,
            **binaries,
        }
        process = subprocess.Popen(
            [str(python), "program.py", f"{name}_peer"],
            cwd=Path(__file__).parent,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            program = PeerProgram(name, process)
            if program.read() is None:
                print(f"{name} is left out: its program has ended; see above.", file=sys.stderr)
                yield None
            else:
                yield program
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Let it end, and then all that it has started."""
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


NAMES = tuple(INSTALLATIONS)
