"""
``durable dev``: broker, worker and web app of one application, in one terminal.

Each child runs on a leash (see ``supervisor.py``), in a session of its own: Ctrl-C
reaches this process only, which then stops them together.  When one ends,
the others are stopped and its exit code is ours.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click
import flask
from celery import Celery

from .. import registry
from ..broker import embedded
from ..engine import Engine
from ..store import workers
from ..web import create_blueprint
from . import application as loading
from .application import Application

#: What is shown when there is no application yet.
FIRST_STEPS = """\
The smallest program.  Save it as app.py, then: durable --app app dev

# app.py
from celery import Celery
from durable import Durable, sleep, step, workflow

celery = Celery("app")
engine = Durable(celery)

@step
def greet(name: str) -> str:
    return f"Hello, {name}!"

@workflow
async def hello(name: str) -> str:
    await sleep("2s")
    return await greet(name)

And in another terminal: durable --app app start app:hello '["world"]'
"""

#: What a child may take to finish when it is stopped.
GRACE_SECS = 10.0
#: Requests served at once; a held webhook takes one of them.
THREADS = 64

_READY_SECS = 60.0
_FIRST_PORT = 8000


@dataclass(frozen=True)
class Ended:
    """A child has ended by itself."""

    name: str
    code: int


@dataclass(frozen=True)
class Stop:
    """Somebody pressed Ctrl-C, or sent SIGTERM."""

    signum: int


class Supervisor:
    """The children, and what happens to them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.news: SimpleQueue[Ended | Stop] = SimpleQueue()
        self._environment = environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watchers: list[threading.Thread] = []

    def spawn(self, name: str, command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        """Start a child; its output appears line by line behind its name."""
        child = embedded.supervised(
            command,
            grace_secs=GRACE_SECS,
            pass_fds=pass_fds,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        self._children[name] = child
        watcher = threading.Thread(target=self._watch, args=(name, child), daemon=True)
        watcher.start()
        self._watchers.append(watcher)

    def stop(self) -> None:
        """Stop all children at once, and wait for their end; a second Ctrl-C kills them."""
        for child in self._children.values():
            assert child.stdin is not None
            child.stdin.close()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda *_: self._kill())
        for child in self._children.values():
            child.wait()
        for watcher in self._watchers:
            watcher.join(timeout=1.0)

    def _kill(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)

    def _watch(self, name: str, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            say(line.decode(errors="replace").rstrip("\n"), name)
        self.news.put(Ended(name, child.wait()))


def run(application: Application, spec: str, *, host: str, port: int | None, web: str | None, concurrency: int) -> int:
    """
    Run everything until Ctrl-C, SIGTERM or the end of a child.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, else the child's.
    """
    engine = application.engine
    listener = listen(host, port)
    address = f"http://{host}:{listener.getsockname()[1]}"
    supervisor = Supervisor(_environment(engine, address))
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, _: supervisor.news.put(Stop(signum)))
    with listener, _broker(engine):
        engine.migrate()
        began = engine.now()
        supervisor.spawn("worker", _worker_command(application, concurrency))
        supervisor.spawn("web", _web_command(web or web_target(application, spec), listener), (listener.fileno(),))
        watcher = threading.Thread(target=_announce, args=(engine, address, began), daemon=True)
        watcher.start()
        try:
            return _exit_code(supervisor.news.get())
        finally:
            supervisor.stop()


def bare_app(spec: str) -> flask.Flask:
    """The web app of an application that has none: only the blueprint."""
    engine = loading.load(spec).engine
    app = flask.Flask("durable")
    app.register_blueprint(create_blueprint(engine))
    return app


def say(line: str, name: str = "durable") -> None:
    """Print a line behind the name of who says it."""
    click.echo(f"{name:<7} | {line}")


def _environment(engine: Engine, address: str) -> dict[str, str]:
    """The children's environment; a public_url that is set already (a tunnel's, say) stays."""
    public_url = engine.settings.public_url or address
    return {**os.environ, "DURABLE_PUBLIC_URL": public_url, "PYTHONUNBUFFERED": "1"}


def _broker(engine: Engine) -> embedded.Server:
    if engine.broker_url() == embedded.url():
        return embedded.start()
    return embedded.Server(engine.broker_url())


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket: on *port*, else on the next free one from 8000."""
    for candidate in range(port or _FIRST_PORT, (port or _FIRST_PORT + 1000) + 1):
        try:
            return socket.create_server((host, candidate))
        except OSError as error:
            failure = error
    raise click.ClickException(f"No port to listen on at {host}: {failure}.  Choose another with --port.")


def _worker_command(application: Application, concurrency: int) -> list[str]:
    celery = [sys.executable, "-m", "celery", "-A", application.celery_path, "worker"]
    options = ["--loglevel", "INFO", "--concurrency", str(concurrency), "--hostname", f"dev-{os.getpid()}@%h"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    queues = queues_of(application.engine.celery)
    return [*celery, *options, *quiet, *(["--queues", ",".join(queues)] if queues else [])]


def queues_of(celery: Celery) -> list[str]:
    """All queues that workflows and steps ask for, and the app's own; none when that is its default only."""
    defined: list[registry.Workflow[..., Any] | registry.Step[..., Any]] = []
    defined += registry.workflows.values()
    defined += registry.steps.values()
    asked = {item.options["queue"] for item in defined if item.options.get("queue")}
    return sorted({*asked, *celery.amqp.queues}) if asked else []


def _web_command(target: str, listener: socket.socket) -> list[str]:
    # The socket is ours since before the first child began: nobody else can take the port.
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"]
    return [*gunicorn, "--worker-class", "gthread", "--threads", str(THREADS), "--log-level", "warning", target]


def web_target(application: Application, spec: str) -> str:
    """What gunicorn serves: the module's Flask app, else that of a ``webapp`` beside it, else a bare one."""
    beside = _webapp_beside(application.module)
    for module in [application.module, *([beside] if beside else [])]:
        if callable(getattr(module, "create_app", None)):
            return f"{module.__name__}:create_app()"
        if callable(getattr(module, "app", None)) and not isinstance(module.app, Celery):
            return f"{module.__name__}:app"
    return f"durable.cli.dev:bare_app({spec!r})"


def _webapp_beside(module: Any) -> Any | None:
    """The package ``webapp`` in the folder that *module* was imported from."""
    found = importlib.util.find_spec("webapp")
    if found is None or found.origin is None or module.__file__ is None:
        return None
    root = Path(module.__file__).resolve().parents[module.__name__.count(".")]
    return loading.import_module("webapp") if Path(found.origin).resolve().is_relative_to(root) else None


def _announce(engine: Engine, address: str, began: int) -> None:
    """Say where everything is, once the web app answers and the worker beats."""
    deadline = time.monotonic() + _READY_SECS
    while not (_answers(address) and _beats(engine, began)):
        if time.monotonic() > deadline:
            say(f"Web app and worker are not both up after {_READY_SECS:g} s: see above.")
            return
        time.sleep(0.1)
    is_embedded = engine.broker_url() == embedded.url()
    say(f"web       {address}")
    say(f"webhooks  {engine.settings.public_url or address}/.well-known/workflow/v1/webhook/…")
    say(f"database  {engine.store.url.render_as_string()}")
    say(f"broker    {'embedded, in .durable/broker' if is_embedded else 'as configured'}")
    say("ready; Ctrl-C stops everything.")


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=2.0)
    try:
        connection.request("HEAD", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _beats(engine: Engine, began: int) -> bool:
    with engine.store.read() as tx:
        return any(worker.beat_at >= began for worker in workers.alive(tx))


def _exit_code(news: Ended | Stop) -> int:
    if isinstance(news, Stop):
        say("stopping.")
        return 0
    say(f"The {news.name} has ended with code {news.code}; stopping the rest.")
    return news.code
