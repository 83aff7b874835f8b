"""The processes of the program, on an embedded broker and SQLite, all in a temporary folder."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis

from durable.broker import embedded

from .screen import Screen

EXAMPLES = Path(__file__).resolve().parents[1]
#: How long a process may take to stop.
GRACE_SECS = 4.0
#: On SIGTERM, remove the folder ``$0`` if it is still there, once the other processes have ended.
_CLEANER = 'trap \'[ ! -e "$0" ] || { sleep 8; rm -rf "$0"; }; exit\' TERM; sleep 86400 & wait'
_WEB_PID = "gunicorn.pid"
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Process:
    """A process that is started again when it ends, as systemd and Kubernetes do."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", *command]
        self._environment = dict(environment)
        self._supervisor: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    def start(self) -> None:
        """Start it.  It ends when the demo ends, even if the demo is killed."""
        with self.log.open("ab") as log:
            self._supervisor = embedded.supervised(
                self._command, grace_secs=GRACE_SECS, stdout=log.fileno(), env=self._environment
            )

    def stop(self) -> None:
        """Ask it to stop, and do not wait."""
        if self._supervisor is not None and self._supervisor.stdin is not None:
            self._supervisor.stdin.close()


class Deployment:
    """
    Two Celery workers with two child processes each, and gunicorn.

    Attributes:
        url: Where gunicorn answers.
        secret: The password of the routes that start and show runs.
        journal: The file in which the steps note what they do.
    """

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.secret = secrets.token_urlsafe()
        self.journal = folder / "journal"
        self.journal.touch()
        self.environment = self._environment(folder)
        self._folder = folder
        self._screen = screen
        celery = ("celery", "-A", "demo.shop", "worker", *_QUIET, "--concurrency", "2", "--loglevel", "INFO")
        bind = ("--bind", self.url.removeprefix("http://"), "--pid", str(folder / _WEB_PID), "--no-control-socket")
        commands = {
            "worker-1": (*celery, "--hostname", "worker-1@%h"),
            "worker-2": (*celery, "--hostname", "worker-2@%h"),
            "web": ("gunicorn", "--worker-class", "gthread", "--threads", "16", *bind, "demo.shop:create_app()"),
        }
        self.processes = [Process(name, command, folder, self.environment) for name, command in commands.items()]

    def start(self) -> None:
        """Start all processes."""
        for process in self.processes:
            process.start()

    def supervise(self) -> None:
        """Start again what has ended."""
        for process in self.processes:
            if not process.running:
                self._screen.say(f"{process.name} has ended, and is started again")
                process.start()

    def web_process(self) -> int:
        """The process id of gunicorn."""
        return int((self._folder / _WEB_PID).read_text())

    def flush_broker(self) -> int:
        """FLUSHALL.  Returns how many messages waited in the queue."""
        with Redis(unix_socket_path=str(embedded.socket_path(self._folder))) as broker:
            waiting, _ = broker.pipeline().llen("celery").flushall().execute()
        return int(waiting)

    def logs(self) -> str:
        """The last lines of each process."""
        tails = {process.name: process.log.read_text(errors="replace").splitlines()[-20:] for process in self.processes}
        return "\n".join(f"{name} | {line}" for name, lines in tails.items() for line in lines)

    def stop(self) -> None:
        """Stop all processes at once, and wait until they have ended."""
        for process in self.processes:
            process.stop()
        self._screen.until(
            "all processes end", lambda: not any(process.running for process in self.processes), GRACE_SECS + 10
        )

    def _environment(self, folder: Path) -> dict[str, str]:
        """That of each process.  Settings and Celery options of the user's own have no effect on the demo."""
        users = {name: value for name, value in os.environ.items() if not name.startswith(("DURABLE_", "CELERY_"))}
        return users | {
            "DEMO_JOURNAL": str(self.journal),
            "DEMO_SECRET": self.secret,
            "DURABLE_BROKER_URL": embedded.url(folder),
            "DURABLE_DATABASE_URL": f"sqlite:///{folder}/durable.db",
            "DURABLE_PUBLIC_URL": self.url,
            "PYTHONPATH": str(EXAMPLES),
            "TMPDIR": tempfile.gettempdir(),
        }


def kill_group(process: int) -> None:
    """``kill -9`` of a process, its parent and its siblings."""
    os.killpg(os.getpgid(process), signal.SIGKILL)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """
    A folder for everything that the demo writes.  It is removed afterwards, even if the demo is killed.

    It is this process's folder for temporary files too: the embedded broker's socket is there.
    """
    before = tempfile.tempdir
    folder = Path(tempfile.mkdtemp(prefix="durable-demo-"))
    cleaner = embedded.supervised(["sh", "-c", _CLEANER, str(folder)], grace_secs=GRACE_SECS + 10)
    try:
        tempfile.tempdir = str(folder)
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
        assert cleaner.stdin is not None
        cleaner.stdin.close()
        cleaner.wait()


@contextmanager
def deployed(screen: Screen) -> Iterator[Deployment]:
    """The program with all its processes.  When the block ends, the processes and their files are gone."""
    with temporary_folder() as folder, embedded.start(folder):
        deployment = Deployment(folder, screen)
        try:
            deployment.start()
            yield deployment
        finally:
            with suppress(KeyboardInterrupt):
                deployment.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
