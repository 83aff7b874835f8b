"""
``durable dev``: the broker, the worker and the web app of one application, in one terminal.

When one child process ends, this process stops the others and exits with its code.

When a file of the application changes, a new worker and a new web process start, and the old ones end: they finish what
they have begun, for ``dev_supervisor.GRACE_SECS`` at most.  The web processes share one listening socket, so no
connection is refused.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..broker import embedded
from ..dashboard import DEV_VARIABLE
from ..engine import Engine
from . import dev_reload
from .application import Application
from .common import Context
from .default_app import ApplicationNotFound
from .dev_plan import Plan, plan
from .dev_ready import announce
from .dev_runs import RunLines
from .dev_supervisor import ChildExited, CodeChanged, StopRequested, Supervisor, print_line

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

#: How many requests the web app serves at once; a held webhook request counts as one.
THREADS = 64

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
    supervisor = Supervisor(_environment(engine, address))
    supervisor.take_signals()
    uses_embedded_broker = engine.broker_url() == embedded.url()
    broker = embedded.start() if uses_embedded_broker else embedded.Server(engine.broker_url())
    with listener, broker:
        engine.migrate()
        started_at = engine.now()

        def start_all(what: Plan, number: int) -> None:
            worker = _worker_command(what, concurrency, f"dev-{os.getpid()}-{number}@%h", verbose=verbose)
            supervisor.spawn("worker", worker)
            supervisor.spawn("web", _web_command(what, spec, listener), pass_fds=(listener.fileno(),))

        start_all(plan(application, spec, web), 1)
        stopping = threading.Event()
        followed: list[Callable[[], None]] = [partial(announce, engine, address, started_at)]
        if not verbose:
            followed.append(partial(RunLines(engine, partial(print_line, name="run")).follow, stopping))
        if reload:
            followed.append(partial(_watch, supervisor, Path.cwd(), spec, web, stopping))
        for follow in followed:
            threading.Thread(target=follow, daemon=True).start()
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


def _web_command(what: Plan, spec: str, listener: socket.socket) -> list[str]:
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"]
    gunicorn += ["--worker-class", "gthread", "--threads", str(THREADS), "--log-level", "warning"]
    return [*gunicorn, f"durable.cli.dev_web:with_dashboard({what.web!r}, {spec!r})"]


def _environment(engine: Engine, address: str) -> dict[str, str]:
    """The environment of the child processes."""
    return {
        **os.environ,
        # A public_url that is set already, for example that of a tunnel, stays.
        "DURABLE_PUBLIC_URL": engine.settings.public_url or address,
        "PYTHONUNBUFFERED": "1",
        # The dashboard then serves this computer without a log-in.
        DEV_VARIABLE: "1",
    }
