"""
The versions of the workers, which are asked through the broker.

A worker answers this command as it answers Celery's own ``inspect`` commands.  Question and answer go through the
broker, so an answer proves that the broker works in both directions.
"""

from __future__ import annotations

from celery import Celery
from celery.worker.control import inspect_command

from ..engine import versions

COMMAND = "durable_versions"


def install() -> None:
    """Have the workers of this process answer.  A second call changes nothing."""
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
