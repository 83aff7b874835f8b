"""
The current engine, the running step and the running workflow of this process.

Authors call ``start(...)``, ``get_step_metadata()`` or ``request.respond_with`` without naming an engine; this file
finds it for them.  Inside the library the engine is passed as an argument.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from .errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from .attributes import Changes


class RunningStep(Protocol):
    """What a running attempt offers to the author's function."""

    engine: Any
    metadata: Any
    workflow_metadata: Any

    def respond(self, request_id: str, response: Any) -> bool: ...

    def set_attributes(self, change: Changes) -> None: ...

    def publish(self, name: str, value: str) -> None: ...

    def emit(self, name: str, item: str | None, options: Any) -> None: ...

    def heartbeat(self, details: object) -> None: ...

    def session(self) -> Session: ...


#: The attempt that runs in this context, None outside a step.
running_step: ContextVar[RunningStep | None] = ContextVar("durable_running_step", default=None)

#: The open engines of this process, the current one last.
_engines: list[Any] = []


def register(engine: Any) -> None:
    """Make *engine* the current one of this process."""
    forget(engine)
    _engines.append(engine)


def forget(engine: Any) -> None:
    """Undo ``register``: the engine that was the current one before is current again."""
    _engines[:] = [each for each in _engines if each is not engine]


def engines() -> tuple[Any, ...]:
    """The open engines of this process, the current one last."""
    return tuple(_engines)


def workflow_loop() -> Any | None:
    """The deterministic loop that runs in this thread; None outside of a workflow body."""
    loop = asyncio._get_running_loop()
    return loop if getattr(loop, "is_durable", False) else None


def current_engine() -> Any:
    """The engine of the running step; outside of steps the newest open engine of this process."""
    step = running_step.get()
    if step is not None:
        return step.engine
    if not _engines:
        raise ConfigurationError(
            "This process has no durable engine.  Create one with Durable(celery_app) in the module"
            " that creates the Celery app, and import that module here."
        )
    return _engines[-1]
