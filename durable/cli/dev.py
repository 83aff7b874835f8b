"""
``durable dev``: the broker, the worker and the web app of one application, in one terminal.

Each child process is supervised (``broker/supervise.py``) and has a session of its own.  So Ctrl-C reaches only this
process, which then stops all children.  When one child ends, this process stops the others and exits with its code.

When a file of the application changes, a new worker and a new web process start, and the old ones end: they finish what
they have begun, for ``GRACE_SECS`` at most.  The web processes share one listening socket, so no connection is refused.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.request import urlopen

import click
import flask
from gunicorn.util import import_app
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ..broker import embedded
from ..dashboard import DEV_VARIABLE, create_dashboard
from ..engine import Engine
from ..store import workers
from ..web import create_blueprint
from . import application as applications
from . import dev_reload
from .application import Application
from .common import Context
from .default_app import ApplicationNotFound
from .dev_plan import Plan, plan
from .dev_runs import RunLines

#: Shown when there is no application yet.
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

#: How long a child may take to stop.
GRACE_SECS = 10.0
#: How many requests the web app serves at once; a held webhook request counts as one.
THREADS = 64

#: The path of the dashboard.
DASHBOARD = "/durable"

_READY_SECS = 60.0
#: Exit codes of a worker or a web process that does not start because of the application: after a reload, the next
#: change may correct it.  Celery, and gunicorn when a worker cannot boot.
_FAULTS_OF_CODE = (1, 2, 3)
_FIRST_PORT = 8000


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The web app's address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The web app's port  [default: the next free one from 8000]"
)
@click.option("--web", metavar="MODULE:NAME", help="The Flask app, or a function that makes it.")
@click.option(
    "--concurrency", "-c", type=click.IntRange(1), default=4, show_default=True, help="The worker's processes."
)
@click.option(
    "--no-reload", "reload", flag_value=False, default=True, help="Do not start again when a Python file changes."
)
@click.option(
    "--verbose", "-v", is_flag=True, help="Print Celery's lines about tasks, not one for each event of a run."
)
@click.pass_obj
def dev(context: Context, /, **options: Any) -> None:
    """Run a broker, a worker and the web app in one terminal.  Stop them with Ctrl-C."""
    try:
        application = context.application
    except ApplicationNotFound as error:
        raise click.UsageError(f"{error}\n\n{FIRST_STEPS}") from error
    sys.exit(run(application, context.spec, **options))


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


def run(
    application: Application,
    spec: str,
    *,
    host: str,
    port: int | None,
    web: str | None,
    concurrency: int,
    verbose: bool = False,
    reload: bool = True,
) -> int:
    """
    Run everything until Ctrl-C, SIGTERM or the end of a child.

    Args:
        verbose: Print Celery's lines about tasks instead of a line for each event of a run.
        reload: Start the worker and the web app again when a file below the current folder changes.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, else the child's.
    """
    engine = application.engine
    # This process listens before the first child starts, so no other process can take the port.
    listener = listen(host, port)
    address = f"http://{host}:{listener.getsockname()[1]}"
    environment = {
        **os.environ,
        # A public_url that is set already, for example that of a tunnel, stays.
        "DURABLE_PUBLIC_URL": engine.settings.public_url or address,
        "PYTHONUNBUFFERED": "1",
        # The dashboard then serves this computer without a log-in.
        DEV_VARIABLE: "1",
    }
    supervisor = Supervisor(environment)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, _: supervisor.events.put(StopRequested(signum)))
    uses_embedded_broker = engine.broker_url() == embedded.url()
    broker = embedded.start() if uses_embedded_broker else embedded.Server(engine.broker_url())
    with listener, broker:
        engine.migrate()
        started_at = engine.now()

        def start_all(what: Plan, number: int) -> None:
            hostname = f"dev-{os.getpid()}-{number}@%h"
            supervisor.spawn("worker", _worker_command(what, concurrency, hostname, verbose=verbose))
            gunicorn = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"]
            gunicorn += ["--worker-class", "gthread", "--threads", str(THREADS), "--log-level", "warning"]
            app = f"durable.cli.dev:with_dashboard({what.web!r}, {spec!r})"
            supervisor.spawn("web", [*gunicorn, app], pass_fds=(listener.fileno(),))

        start_all(plan(application, spec, web), 1)
        stopping = threading.Event()
        threads = [threading.Thread(target=_announce, args=(engine, address, started_at), daemon=True)]
        if not verbose:
            lines = RunLines(engine, partial(print_line, name="run"))
            threads.append(threading.Thread(target=lines.follow, args=(stopping,), daemon=True))
        if reload:
            threads.append(
                threading.Thread(target=_watch, args=(supervisor, Path.cwd(), spec, web, stopping), daemon=True)
            )
        for thread in threads:
            thread.start()
        try:
            return _serve(supervisor, start_all)
        finally:
            stopping.set()
            supervisor.stop()


def _serve(supervisor: Supervisor, start_all: Callable[[Plan, int], None]) -> int:
    """Handle what happens until everything has to stop.  Returns the exit code."""
    number = 1
    while True:
        match supervisor.events.get():
            case CodeChanged(changed):
                number += 1
                start_all(changed, number)
            case StopRequested():
                print_line("stopping.")
                return 0
            case ChildExited(name, code) if number > 1 and code in _FAULTS_OF_CODE:
                print_line(f"The {name} has ended with code {code}; waiting for the next change.")
            case ChildExited(name, code):
                print_line(f"The {name} has ended with code {code}; stopping the rest.")
                return code


def _watch(supervisor: Supervisor, folder: Path, spec: str, web: str | None, stopping: threading.Event) -> None:
    """Put a ``CodeChanged`` for each change that can be loaded.  Print the error of any other."""

    def on_change(paths: list[str]) -> None:
        print_line(f"{', '.join(paths)} changed; loading …")
        loaded = dev_reload.load(spec, web)
        if stopping.is_set():
            return
        if isinstance(loaded, Plan):
            supervisor.events.put(CodeChanged(loaded))
            return
        for line in loaded.splitlines():
            print_line(line)
        print_line("This cannot be loaded, so the code from before goes on.  Waiting for the next change.")

    try:
        dev_reload.changes(folder, on_change, stopping)
    except ImportError:
        print_line("Nothing is reloaded, because watchfiles is not installed: pip install 'durable-celery[dev]'.")
    except Exception as error:  # whatever the operating system has against it
        print_line(f"Changes in {folder} cannot be watched, so nothing is reloaded: {error}")


def bare_app(spec: str) -> flask.Flask:
    """A web app with only the blueprint, for an application that has no web app."""
    engine = applications.load(spec).engine
    app = flask.Flask("durable")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/", "index", lambda: flask.redirect(f"{DASHBOARD}/"))
    return app


def with_dashboard(target: str, spec: str) -> Any:
    """
    The web app *target*, as gunicorn names it, with the dashboard at ``DASHBOARD``.

    An application that has routes of its own there is served as it is.
    """
    served = import_app(target)
    if isinstance(served, flask.Flask) and any(
        f"{rule.rule}/".startswith(f"{DASHBOARD}/") for rule in served.url_map.iter_rules()
    ):
        return served
    app = flask.Flask("durable.dashboard")
    app.register_blueprint(create_dashboard(applications.load(spec).engine))
    return DispatcherMiddleware(served, {DASHBOARD: app})


def print_line(line: str, name: str = "durable") -> None:
    """Print a line after the name of the process that it comes from."""
    click.echo(f"{name:<7} | {line}")


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket on *port*, or on the first free port from 8000 if *port* is None."""
    for candidate in range(port or _FIRST_PORT, (port or _FIRST_PORT + 1000) + 1):
        try:
            return socket.create_server((host, candidate))
        except OSError as error:
            failure = error
    raise click.ClickException(f"Cannot listen on {host}: {failure}.  Choose another port with --port.")


def _worker_command(what: Plan, concurrency: int, hostname: str, *, verbose: bool) -> list[str]:
    celery = ["celery"] if verbose else ["durable.cli.dev_worker", "--quiet"]
    celery = [sys.executable, "-m", *celery, "-A", what.celery_path, "worker"]
    options = ["--loglevel", "INFO", "--concurrency", str(concurrency), "--hostname", hostname]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [*celery, *options, *quiet, *(["--queues", ",".join(what.queues)] if what.queues else [])]


def _announce(engine: Engine, address: str, started_at: int) -> None:
    """Print all addresses once the web app answers and the worker has sent a heartbeat."""
    deadline = time.monotonic() + _READY_SECS
    while True:
        with engine.store.read() as tx:
            has_heartbeat = any(worker.beat_at >= started_at for worker in workers.alive(tx))
        if has_heartbeat and _answers(address):
            break
        if time.monotonic() > deadline:
            print_line(f"Web app and worker are not both ready after {_READY_SECS:g} s.  See the messages above.")
            return
        time.sleep(0.1)
    is_embedded = engine.broker_url() == embedded.url()
    print_line(f"web       {address}")
    if _is_served(f"{_local(address)}{DASHBOARD}/runs"):
        print_line(f"dashboard {_local(address)}{DASHBOARD}/")
    print_line(f"webhooks  {engine.settings.public_url or address}/.well-known/workflow/v1/webhook/…")
    print_line(f"database  {engine.store.url.render_as_string()}")
    print_line(f"broker    {'embedded, in .durable/broker' if is_embedded else 'as configured'}")
    print_line("ready; Ctrl-C stops everything.")


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


def _local(address: str) -> str:
    """An address at which this computer reaches the web app: the dashboard answers only a loopback address."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//:::", "//[::1]:")


def _is_served(url: str) -> bool:
    try:
        with urlopen(url, timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
