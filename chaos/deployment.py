"""The processes under chaos: Celery workers with two children each, and gunicorn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from .ports import until

ROOT = Path(__file__).resolve().parent.parent

_WORKER = ("celery", "-A", "chaos.application:celery", "worker", "--without-gossip", "--without-mingle")
_WEB = ("gunicorn", "--worker-class", "gthread", "--threads", "24", "--no-control-socket")


class Process:
    """A process group that can be started again under the same name."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._arguments = arguments
        self._environment = environment
        self._popen: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it unless it runs."""
        self._wanted = True
        self.supervise()

    def supervise(self) -> None:
        """Start it again if it has ended by itself, as a supervisor does."""
        with self._lock:
            if self._wanted and not self.running:
                self._popen = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *self._arguments],
                cwd=self._folder,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def deploy(self, code: Path) -> None:
        """Have the next start use the packages of this folder."""
        self._environment = {**self._environment, "PYTHONPATH": str(code)}

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        if self.running:
            assert self._popen is not None
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def tell(self, number: int) -> None:
        """Send a signal to the main process alone."""
        if self.running:
            assert self._popen is not None
            self._popen.send_signal(number)

    def end(self, number: int, within_secs: float = 30.0) -> None:
        """Ask the main process to end, and wait until it has."""
        self._wanted = False
        self.tell(number)
        if self._popen is not None:
            self._popen.wait(within_secs)

    def kill(self) -> None:
        """End the whole group at once; it stays down until it is started."""
        self._wanted = False
        self.signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(20)

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen is not None else None

    def has_said(self, words: str) -> bool:
        """Whether these words are in its log."""
        return words in self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        """The pids of its direct children, oldest first."""
        if not self.running:
            return []
        assert self._popen is not None
        try:
            tasks = Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in tasks.split()]


class Deployment:
    """Workers and web on one database and one broker, each given by URL."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        broker_url: str,
        port: int,
        *,
        workers: int = 2,
        webs: int = 2,
        spoilt: float = 0.0,
        celery: Mapping[str, Any] | None = None,
        code: Path = ROOT,
    ) -> None:
        """
        Args:
            webs: How many web processes gunicorn has.
            celery: Settings of Celery, as JSON can hold them.
            code: The folder with the packages ``durable`` and ``chaos``.
        """
        self.url = f"http://127.0.0.1:{port}"
        # A worker that is killed leaves billiard's files in its temporary folder.
        temporary = folder / "tmp"
        temporary.mkdir()
        environment = {
            "DURABLE_DATABASE_URL": database_url,
            "DURABLE_BROKER_URL": broker_url,
            "DURABLE_PUBLIC_URL": self.url,
            "CHAOS_FOLDER": str(folder),
            "CHAOS_SPOILT": str(spoilt),
            "CHAOS_CELERY": json.dumps(dict(celery or {})),
            "PYTHONPATH": str(code),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(temporary),
        }
        self.workers = [
            Process(
                f"worker-{number}",
                folder,
                (*_WORKER, "--hostname", f"chaos-{number}@%h", "--concurrency", "2", "--loglevel", "INFO"),
                environment,
            )
            for number in range(workers)
        ]
        self.web = Process(
            "web",
            folder,
            (*_WEB, "--workers", str(webs), "--bind", f"127.0.0.1:{port}", "chaos.application:create_app()"),
            environment,
        )

    @property
    def processes(self) -> list[Process]:
        return [*self.workers, self.web]

    def start(self) -> None:
        """Start what does not run."""
        for process in self.processes:
            process.start()

    def supervise(self) -> None:
        """Start again what has ended by itself: Celery's main process gives up when it cannot fork, say."""
        for process in self.processes:
            process.supervise()

    def wait_until_up(self) -> None:
        """Return once every worker has its children, and the web process answers."""
        for worker in self.workers:
            until(partial(worker.has_said, "ready."), f"{worker.name} is ready")
        until(partial(self.web.has_said, "Booting worker"), "gunicorn is up")

    def stop(self) -> None:
        """Kill everything."""
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()
