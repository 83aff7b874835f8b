"""The operations of the control routes on schedules."""

from __future__ import annotations

from typing import Any

from .. import registry
from ..errors import ConfigurationError, ScheduleNotFound
from ..schedules import Schedule, define, describe, handle
from . import problems, schedule_schemas, schemas
from .control_operations import Call, Operation, Reply
from .problems import RequestRefused

#: How many planned times an answer has.
_TIMES = 10
#: The fields of a new schedule that ``define`` takes by the same name.
_OPTIONS = ("cron", "every", "tz", "overlap", "catch_up", "jitter", "until")


def _list(call: Call) -> Reply:
    query: schedule_schemas.ScheduleQuery = call.query
    found = describe.list_schedules(call.engine, after=query.after or "", limit=query.limit + 1)
    shown = found[: query.limit]
    return Reply(200, {"schedules": shown, "next": shown[-1]["name"] if len(found) > query.limit else None})


def _show(call: Call) -> Reply:
    found = _find(call)
    return Reply(200, describe.describe(found.row(), found.latest(), call.engine.now(), _TIMES))


def _put(call: Call) -> Reply:
    body: schedule_schemas.NewSchedule = call.body
    workflow = registry.workflows.get(body.workflow)
    if workflow is None:
        raise RequestRefused(problems.unknown_workflow())
    args, kwargs = (tuple(body.args), {}) if isinstance(body.args, list) else ((), body.args)
    options: dict[str, Any] = {name: getattr(body, name) or None for name in _OPTIONS}
    try:
        definition = define(call.path["schedule"], workflow, args, kwargs, **options)
    except ConfigurationError as error:
        raise RequestRefused(problems.bad_arguments(str(error))) from None
    try:
        made = handle.create(call.engine, definition)
    except ConfigurationError:
        raise RequestRefused(problems.declared_schedule()) from None
    return Reply(200, describe.describe(made.row(), made.latest(), call.engine.now(), _TIMES))


def _delete(call: Call) -> Reply:
    found = _find(call)
    try:
        found.delete()
    except ConfigurationError:
        raise RequestRefused(problems.declared_schedule()) from None
    return Reply(200, {"name": found.name, "deleted": True})


def _pause(call: Call) -> Reply:
    found = _find(call)
    found.pause()
    return Reply(200, _state(found))


def _resume(call: Call) -> Reply:
    found = _find(call)
    found.resume()
    return Reply(200, _state(found))


def _trigger(call: Call) -> Reply:
    found = _find(call)
    return Reply(201, {"name": found.name, "run_id": found.trigger().id})


def _backfill(call: Call) -> Reply:
    found = _find(call)
    try:
        made = found.backfill(call.body.start, call.body.end)
    except ValueError as error:
        raise RequestRefused(problems.bad_arguments(str(error))) from None
    return Reply(201, {"name": found.name, "run_ids": [run.id for run in made]})


def _find(call: Call) -> Schedule:
    try:
        return handle.get(call.engine, call.path["schedule"])
    except ScheduleNotFound:
        raise RequestRefused(problems.unknown_schedule()) from None


def _state(found: Schedule) -> dict[str, str]:
    return {"name": found.name, "status": describe.status_of(found.row())}


_NO_SCHEDULE = {404: "There is no schedule with this name."}
_DECLARED = "The schedule is declared in code."
_FORM = {**_NO_SCHEDULE, 422: "The body does not fit: it is an empty object."}

OPERATIONS = (
    Operation(
        name="listSchedules",
        method="GET",
        path="schedules",
        summary="List schedules",
        act=_list,
        query=schedule_schemas.ScheduleQuery,
        answers={200: ("The schedules in the order of their names.", schedule_schemas.Schedules)},
        problems={422: "A parameter does not fit."},
    ),
    Operation(
        name="showSchedule",
        method="GET",
        path="schedules/{schedule}",
        summary="Show a schedule, its next ten planned times and its latest runs",
        act=_show,
        answers={200: ("The schedule.", schedule_schemas.ScheduleDetails)},
        problems=_NO_SCHEDULE,
    ),
    Operation(
        name="putSchedule",
        action="create_schedule",
        method="PUT",
        path="schedules/{schedule}",
        summary="Make a schedule, or change one that was made at run time",
        act=_put,
        body=schedule_schemas.NewSchedule,
        answers={200: ("The schedule is committed.", schedule_schemas.ScheduleDetails)},
        problems={
            404: "The web process has not imported a workflow of this name.",
            409: _DECLARED,
            422: "The body does not fit, the timing never fires, or the arguments do not fit the workflow.",
        },
    ),
    Operation(
        name="deleteSchedule",
        action="delete_schedule",
        method="DELETE",
        path="schedules/{schedule}",
        summary="Delete a schedule that was made at run time; its runs go on",
        act=_delete,
        answers={200: ("The schedule is deleted.", schedule_schemas.Deleted)},
        problems={**_NO_SCHEDULE, 409: _DECLARED},
    ),
    Operation(
        name="pauseSchedule",
        action="pause_schedule",
        method="POST",
        path="schedules/{schedule}/pause",
        summary="Let a schedule start no more runs",
        act=_pause,
        body=schemas.Nothing,
        answers={200: ("The schedule is paused.", schedule_schemas.ScheduleState)},
        problems=_FORM,
    ),
    Operation(
        name="resumeSchedule",
        action="resume_schedule",
        method="POST",
        path="schedules/{schedule}/resume",
        summary="Let a paused schedule go on",
        act=_resume,
        body=schemas.Nothing,
        answers={200: ("The schedule goes on at its next planned time.", schedule_schemas.ScheduleState)},
        problems=_FORM,
    ),
    Operation(
        name="triggerSchedule",
        action="trigger_schedule",
        method="POST",
        path="schedules/{schedule}/trigger",
        summary="Start a run of a schedule now",
        act=_trigger,
        body=schemas.Nothing,
        answers={201: ("The run is committed.", schedule_schemas.Triggered)},
        problems=_FORM,
    ),
    Operation(
        name="backfillSchedule",
        action="backfill_schedule",
        method="POST",
        path="schedules/{schedule}/backfill",
        summary="Start a run for each planned time of a range that has none",
        act=_backfill,
        body=schedule_schemas.Range,
        answers={201: ("The runs are committed.", schedule_schemas.Backfilled)},
        problems={**_NO_SCHEDULE, 422: "The body does not fit, or the range has more than 1,000 planned times."},
    ),
)
