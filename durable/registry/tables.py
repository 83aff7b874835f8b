"""
The tables of all steps and workflows of the process, and who is told of a new one.

As with Celery's ``shared_task``, a definition becomes a task of every engine's app, whether the engine is created
before or after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigurationError
from .celery_tasks import AdoptedStep
from .definitions import Step, Workflow

#: Every step and workflow of this process, by name.
steps: dict[str, Step[..., Any]] = {}
workflows: dict[str, Workflow[..., Any]] = {}
#: Adopted Celery tasks whose name is not known yet, because Celery has not created the task.
unnamed: list[AdoptedStep[..., Any]] = []

Defined = Step[..., Any] | Workflow[..., Any]
_subscribers: list[Callable[[Defined], object]] = []


def subscribe(callback: Callable[[Defined], object]) -> Callable[[], None]:
    """Call *callback* for every step and workflow that is defined from now on.  Returns a function that ends this."""
    _subscribers.append(callback)
    return lambda: _subscribers.remove(callback) if callback in _subscribers else None


def all_definitions() -> list[Defined]:
    """All steps and workflows that are defined now."""
    return [*steps.values(), *workflows.values(), *unnamed]


def register(defined: Defined) -> None:
    """Add a step or workflow to the tables.  Raises ConfigurationError when another function has its name."""
    table: dict[str, Any] = steps if isinstance(defined, Step) else workflows
    before = table.get(defined.name)
    # A reloader imports the same lines again.  The later definition replaces the earlier one.
    if before is not None and before.place != defined.place:
        raise ConfigurationError(
            f"Two {defined.noun}s are named {defined.name!r}: {before.place} and {defined.place}."
            "  Give one of them another name with name=..."
        )
    table[defined.name] = defined
    if defined in unnamed:
        unnamed.remove(defined)


def announce(defined: Defined) -> None:
    """Call all subscribers with a new step or workflow."""
    for callback in list(_subscribers):
        callback(defined)
