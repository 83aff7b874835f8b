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
from .limits import FlowLimit

#: Every step and workflow of this process, by name.
steps: dict[str, Step[..., Any]] = {}
workflows: dict[str, Workflow[..., Any]] = {}
#: Every limit of the steps and workflows of this process, by name.
limits: dict[str, FlowLimit] = {}
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
    _register_limits(defined)
    table[defined.name] = defined
    if defined in unnamed:
        unnamed.remove(defined)


def _register_limits(defined: Defined) -> None:
    """Add the limits of a step or workflow.  Raises ConfigurationError when they differ from those of another one."""
    for limit in defined.limits:
        before = limits.get(limit.name)
        others = [
            each
            for each in (*steps.values(), *workflows.values())
            if (each.noun, each.name) != (defined.noun, defined.name)
            and limit.name in {one.name for one in each.limits}
        ]
        if before is None or not others:
            continue
        if before.noun != limit.noun or limit.wait is not None:
            why = "a debounce belongs to one workflow" if limit.wait is not None else "steps and runs share no limit"
        elif not before.is_like(limit):
            why = "their numbers differ"
        else:
            continue
        raise ConfigurationError(
            f"Two limits are named {limit.name!r}, and {why}: one of {others[0].noun} {others[0].name} and one of"
            f" {defined.noun} {defined.name}.  Make one limit, and give it to both; or give one of them another name."
        )
    limits.update({limit.name: limit for limit in defined.limits})


def announce(defined: Defined) -> None:
    """Call all subscribers with a new step or workflow."""
    for callback in list(_subscribers):
        callback(defined)
