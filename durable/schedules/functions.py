"""What the application calls: ``schedule``, ``create_schedule`` and ``get_schedule``, and their forms for asyncio."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .. import current
from ..registry import Workflow
from ..sandbox import refuse_in_workflow
from . import declared
from .definition import define
from .handle import Schedule, create, get

P = ParamSpec("P")
T = TypeVar("T")


def schedule(
    name: str,
    workflow: Workflow[..., Any],
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    cron: Any = None,
    every: Any = None,
    tz: Any = "UTC",
    overlap: str = "skip",
    catch_up: str = "last",
    jitter: Any = None,
    until: datetime | None = None,
) -> Schedule:
    """
    Declare in code, at module level, that a workflow is started at fixed times.

    Args:
        name: Names the schedule; unique in the database.
        workflow: The workflow to start, with *args* and *kwargs*.
        cron: Five fields, as in ``"0 3 * * 1-5"``, or a ``celery.schedules.crontab``.
        every: An interval, as ``sleep`` takes a duration: ``"15m"``.  Give either this or *cron*.
        tz: The time zone of *cron*, by its IANA name.
        overlap: What happens at a planned time while the run before goes on: ``"skip"`` starts none, ``"queue"`` waits
            for its end, ``"allow"`` starts one beside it, ``"cancel"`` cancels it and starts one.
        catch_up: What happens to times that were missed by more than a minute: ``"none"`` starts none, ``"last"`` only
            the last one, ``"all"`` each of them.
        jitter: Starts each run up to so much later, by chance.
        until: No planned time is later than this.

    Raises:
        ConfigurationError: The timing is malformed or never fires, the time zone is unknown, an option has an unknown
            value, the arguments do not fit the workflow, or another schedule has the name.
    """
    definition = define(
        name,
        workflow,
        args,
        kwargs,
        cron=cron,
        every=every,
        tz=tz,
        overlap=overlap,
        catch_up=catch_up,
        jitter=jitter,
        until=until,
    )
    caller = sys._getframe(1)
    declared.declare(definition, f"{caller.f_code.co_filename}:{caller.f_lineno}")
    return Schedule(name)


def create_schedule(
    name: str,
    workflow: Workflow[..., Any],
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    cron: Any = None,
    every: Any = None,
    tz: Any = "UTC",
    overlap: str = "skip",
    catch_up: str = "last",
    jitter: Any = None,
    until: datetime | None = None,
) -> Schedule:
    """
    Make a schedule at run time, on the current engine; ``delete`` removes it.  Takes what ``schedule`` takes.

    If there is a schedule of this name that was made at run time, it is changed.

    Raises:
        ConfigurationError: As ``schedule``; also if the schedule of this name is declared in code.
    """
    refuse_in_workflow("create_schedule", "create the schedule in a step")
    definition = define(
        name,
        workflow,
        args,
        kwargs,
        cron=cron,
        every=every,
        tz=tz,
        overlap=overlap,
        catch_up=catch_up,
        jitter=jitter,
        until=until,
    )
    return create(current.current_engine(), definition)


def get_schedule(name: str) -> Schedule:
    """
    The schedule with this name, on the current engine.

    Raises:
        ScheduleNotFound: There is none.
    """
    refuse_in_workflow("get_schedule", "call it in a step")
    return get(current.current_engine(), name)


def _with_signature_of(_call: Callable[P, object]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Let type checkers see the parameters of another function."""
    return lambda function: function


@_with_signature_of(create_schedule)
async def acreate_schedule(*args: Any, **options: Any) -> Schedule:
    """Do the same as ``create_schedule`` in an event loop."""
    refuse_in_workflow("acreate_schedule", "create the schedule in a step")
    engine = current.current_engine()
    made: Schedule = await engine.loop_calls.run(partial(create_schedule, *args, **options))
    return made


async def aget_schedule(name: str) -> Schedule:
    """Do the same as ``get_schedule`` in an event loop."""
    refuse_in_workflow("aget_schedule", "call it in a step")
    engine = current.current_engine()
    found: Schedule = await engine.loop_calls.run(get, engine, name)
    return found
