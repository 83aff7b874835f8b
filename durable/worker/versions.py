"""
Which versions run: of this process, and of the workers, asked through the broker.

A worker answers ``versions`` as it answers Celery's own ``inspect`` commands: what it replies has
gone through the broker both ways, so an answer says that the path to it and back is whole.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

import celery
from celery import Celery
from celery.worker.control import inspect_command

COMMAND = "durable_versions"


def versions() -> dict[str, str]:
    """The versions in this process: ``durable``, ``python``, ``celery``."""
    return {
        "durable": version("durable-celery"),
        "python": platform.python_version(),
        "celery": celery.__version__,
    }


def install() -> None:
    """Let workers of this process answer; doing it twice changes nothing."""
    inspect_command(name=COMMAND)(_answer)


def _answer(state: object) -> dict[str, str]:
    """Versions of durable, Python and Celery."""
    return versions()


def of_workers(app: Celery, *, timeout_secs: float) -> dict[str, dict[str, str]]:
    """
    The versions of the workers that answer, by their node's name.

    Args:
        timeout_secs: Seconds to wait for one more answer; the call always takes that long.

    Raises:
        kombu.exceptions.OperationalError, OSError: The broker cannot be reached.
    """
    with app.connection_for_write() as connection:
        # Without this Celery would try for as long as its settings say.
        connection.ensure_connection(max_retries=0, timeout=2.0)
        replies = app.control.broadcast(COMMAND, reply=True, timeout=timeout_secs, connection=connection)
    return {node: answer for reply in replies or () for node, answer in reply.items() if "durable" in answer}
