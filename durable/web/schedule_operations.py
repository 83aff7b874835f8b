"""The operations of the control routes on schedules, and all operations together."""

from __future__ import annotations

from ..errors import ScheduleNotFound
from ..schedules import Schedule, describe, handle
from . import control_operations, problems, schemas
from .control_operations import Call, Operation, Reply
from .problems import RequestRefused

#: How many planned times an answer has.
_TIMES = 10


def _list(call: Call) -> Reply:
    query: schemas.ScheduleQuery = call.query
    found = describe.list_schedules(call.engine, after=query.after or "", limit=query.limit + 1)
    shown = found[: query.limit]
    return Reply(200, {"schedules": shown, "next": shown[-1]["name"] if len(found) > query.limit else None})


def _show(call: Call) -> Reply:
    found = _find(call)
    return Reply(200, describe.describe(found.row(), found.latest(), call.engine.now(), _TIMES))


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


def _find(call: Call) -> Schedule:
    try:
        return handle.get(call.engine, call.path["schedule"])
    except ScheduleNotFound:
        raise RequestRefused(problems.unknown_schedule()) from None


def _state(found: Schedule) -> dict[str, str]:
    return {"name": found.name, "status": describe.status_of(found.row())}


_NO_SCHEDULE = {404: "There is no schedule with this name."}
_FORM = {**_NO_SCHEDULE, 422: "The body does not fit: it is an empty object."}

SCHEDULE_OPERATIONS = (
    Operation(
        name="listSchedules",
        method="GET",
        path="schedules",
        summary="List schedules",
        act=_list,
        query=schemas.ScheduleQuery,
        answers={200: ("The schedules in the order of their names.", schemas.Schedules)},
        problems={422: "A parameter does not fit."},
    ),
    Operation(
        name="showSchedule",
        method="GET",
        path="schedules/{schedule}",
        summary="Show a schedule, its next ten planned times and its latest runs",
        act=_show,
        answers={200: ("The schedule.", schemas.ScheduleDetails)},
        problems=_NO_SCHEDULE,
    ),
    Operation(
        name="pauseSchedule",
        method="POST",
        path="schedules/{schedule}/pause",
        summary="Let a schedule start no more runs",
        act=_pause,
        body=schemas.Nothing,
        answers={200: ("The schedule is paused.", schemas.ScheduleState)},
        problems=_FORM,
    ),
    Operation(
        name="resumeSchedule",
        method="POST",
        path="schedules/{schedule}/resume",
        summary="Let a paused schedule go on",
        act=_resume,
        body=schemas.Nothing,
        answers={200: ("The schedule goes on at its next planned time.", schemas.ScheduleState)},
        problems=_FORM,
    ),
    Operation(
        name="triggerSchedule",
        method="POST",
        path="schedules/{schedule}/trigger",
        summary="Start a run of a schedule now",
        act=_trigger,
        body=schemas.Nothing,
        answers={201: ("The run is committed.", schemas.Triggered)},
        problems=_FORM,
    ),
)

#: All that a caller of the control routes can do.
OPERATIONS = (*control_operations.OPERATIONS, *SCHEDULE_OPERATIONS)
