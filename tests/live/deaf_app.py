"""The live tests' Celery app, whose workers can be made deaf: their consumer is cancelled behind Celery's back."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command
from live_app import celery, create_app, engine

__all__ = ["celery", "create_app", "engine"]


@control_command(name="go_deaf")
def go_deaf(state: Any) -> None:
    """Take no more messages, and leave everything else as it is."""
    state.consumer.task_consumer.cancel()


@control_command(name="hear_again")
def hear_again(state: Any) -> None:
    """Take messages again."""
    state.consumer.task_consumer.consume()
