"""A command on a pseudo-terminal: what it writes there, and keys that are pressed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class OnTerminal:
    """A process whose stdin, stdout and stderr are a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.text = ""
        self._master = master

    def read_until(self, *wanted: str, within_secs: float = 60) -> str:
        """Everything that was written, once all of *wanted* are in it."""
        deadline = time.monotonic() + within_secs
        while not all(text in self.text for text in wanted):
            assert time.monotonic() < deadline, self.text
            assert self._read(0.2), f"it has ended: {self.text}"
        return self.text

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self, within_secs: float = 60) -> int:
        """Read until the process ends; return its exit code."""
        deadline = time.monotonic() + within_secs
        while self._read(0.2):
            assert time.monotonic() < deadline, self.text
        return self.process.wait(timeout=within_secs)

    def _read(self, secs: float) -> bool:
        """Take what comes within this time; False once the terminal is closed."""
        if not select.select([self._master], [], [], secs)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's answer when the last process has closed it
            return False
        self.text += data.decode()
        return bool(data)


@contextmanager
def on_terminal(
    args: tuple[str, ...], folder: Path, environment: Mapping[str, str], *, columns: int = 100, lines: int = 30
) -> Iterator[OnTerminal]:
    """Run the command ``durable`` with these arguments on a terminal of this size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    own = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}

    def take_terminal() -> None:
        # Ctrl-C reaches the process only from its controlling terminal.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", "from durable.cli import main; main(prog_name='durable')", *args],
        cwd=folder,
        env={**own, "TERM": "xterm", "PYTHONUTF8": "1", **environment},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509
    )
    os.close(slave)
    try:
        yield OnTerminal(process, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(master)
