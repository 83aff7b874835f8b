"""A deployment in real processes: Celery workers and gunicorn, started, stopped and killed by the tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from eventually import eventually
from servers import free_port

from durable import Durable
from durable.recovery import housekeeping
from durable.store import workers

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
_TAIL = 6000


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Message
    data: bytes

    def json(self) -> Any:
        return json.loads(self.data)


def fetch(
    method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = 40
) -> Answer:
    """One request over real HTTP, as it is: no header added but Host and Content-Length, no redirect followed."""
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=timeout)
    with closing(connection):
        connection.request(method, url.removeprefix(f"http://{parts.netloc}"), data, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def post_json(url: str, body: object) -> Answer:
    return fetch("POST", url, json.dumps(body).encode(), {"Content-Type": "application/json"})


@dataclass
class Process:
    """A process group, and the file that its output goes to."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: int, timeout_secs: float = 45) -> None:
        """
        Send a signal and wait for the end; SIGKILL goes to the whole group.

        A prefork child whose last task ends as its worker is told to stop waits up to 30 s for the worker to read that
        (billiard's ``_ensure_messages_consumed``), which it does no more.
        """
        if number == signal.SIGKILL:
            self._kill()
        elif self.running:
            self.popen.send_signal(number)
        try:
            self.popen.wait(timeout_secs)
        except subprocess.TimeoutExpired:
            self._kill()
            self.popen.wait(10)
            pytest.fail(f"{self.name} did not end within {timeout_secs} s of signal {number}.\n{self.tail()}")

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-_TAIL:]


@dataclass
class Deployment:
    """One database, one broker, and the processes on them; ``engine`` looks at them from this process."""

    folder: Path
    database_url: str
    broker_url: str
    app: str
    web_app: str
    settings: Mapping[str, str] = field(default_factory=dict)
    worker_options: Sequence[str] = ("--pool", "prefork", "--concurrency", "2")
    port: int = field(default_factory=free_port)
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> Durable:
        return self._engine

    @property
    def temporary(self) -> Path:
        """The processes' temporary folder: a worker that is killed leaves billiard's files there."""
        return self.folder / "tmp"

    def open(self) -> None:
        self.temporary.mkdir(exist_ok=True)
        self._engine = Durable(
            Celery("observer"), database_url=self.database_url, broker_url=self.broker_url, public_url=self.url
        )
        self._engine.migrate()

    def close(self) -> None:
        for process in self.processes.values():
            process.signal(signal.SIGKILL)
        housekeeping.end(self._engine)
        self._engine.celery.close()
        self._engine.close()
        shutil.rmtree(self.temporary)

    def start_worker(
        self,
        name: str = "worker",
        *options: str,
        ready: bool = True,
        app: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """A Celery worker, of another *app* than the deployment's if one is given; returns once it beats."""
        arguments = options or self.worker_options
        quiet = ("--without-gossip", "--without-mingle", "--hostname", f"{name}@%h", "--loglevel", "INFO")
        command = ("celery", "-A", app or self.app, "worker", *quiet, *arguments)
        process = self._spawn(name, *command, environment=environment)
        if ready:
            self.wait_for(name)
        return process

    def start_web(self, *options: str, ready: bool = True) -> Process:
        """gunicorn with the recommended worker class; returns once it answers."""
        arguments = options or ("--threads", "32")
        quiet = ("--no-control-socket", "--graceful-timeout", "5")
        bind = ("--bind", f"127.0.0.1:{self.port}", "--worker-class", "gthread")
        process = self._spawn("web", "gunicorn", *bind, *quiet, *arguments, self.web_app)
        if ready:
            self.wait_for("web")
        return process

    def start_program(self, name: str, module: str, *arguments: str) -> Process:
        """Any other program, by its module."""
        return self._spawn(name, module, *arguments)

    def wait_for(self, *names: str) -> None:
        """Return once each does its work: the web process answers, a worker beats."""
        for name in names:
            eventually(partial(self._works, name), 30, f"{name} works")

    def wait_until_idle(self) -> None:
        """
        Wait until the workers have acknowledged all that they took from Redis.

        What a caller sees of a turn is committed shortly before the turn's message is acknowledged.
        """
        with self.engine.celery.connection_for_read() as connection:
            redis = connection.default_channel.client
            eventually(lambda: not redis.hlen("unacked"), what="all messages are acknowledged")

    def stop(self, name: str, number: int) -> None:
        """End a process by a signal."""
        self.processes.pop(name).signal(number)

    def workers(self) -> list[workers.Worker]:
        """The processes that beat."""
        with self._engine.store.read() as tx:
            return workers.alive(tx)

    def log_tails(self) -> dict[str, str]:
        """The last lines of each log, also of the processes that have ended."""
        return {path.name: path.read_text(errors="replace")[-_TAIL:] for path in sorted(self.folder.glob("*.log"))}

    def _spawn(self, name: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env={**self._environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = Process(name, log, popen)
        return self.processes[name]

    def _environment(self) -> dict[str, str]:
        known = {k: v for k, v in os.environ.items() if not k.startswith(("DURABLE_", "CELERY_"))}
        return known | {
            "DURABLE_DATABASE_URL": self.database_url,
            "DURABLE_BROKER_URL": self.broker_url,
            "DURABLE_PUBLIC_URL": self.url,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.temporary),
            **self.settings,
        }

    def _works(self, name: str) -> bool:
        process = self.processes[name]
        if not process.running:
            pytest.fail(f"{name} ended with {process.popen.returncode}.\n{process.tail()}")
        return self._answers() if name == "web" else self._beats(name)

    def _beats(self, name: str) -> bool:
        group = self.processes[name].popen.pid
        with self._engine.store.read() as tx:
            pids = [worker.pid for worker in workers.alive(tx)]
        return any(_group_of(pid) == group for pid in pids)

    def _answers(self) -> bool:
        try:
            return fetch("GET", f"{self.url}/health", timeout=5).status == 200
        except (OSError, HTTPException):
            return False


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@contextmanager
def deployed(deployment: Deployment) -> Iterator[Deployment]:
    """The deployment, migrated and without processes; whatever was started is gone afterwards."""
    deployment.open()
    try:
        yield deployment
    finally:
        deployment.close()
