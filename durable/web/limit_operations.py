"""The operations of the control routes on limits."""

from __future__ import annotations

from ..client import limits
from ..errors import ConfigurationError
from . import limit_schemas, problems
from .control_operations import Call, Operation, Reply
from .problems import RequestRefused


def _list(call: Call) -> Reply:
    return Reply(200, {"limits": limits.list_limits(call.engine)})


def _set(call: Call) -> Reply:
    name, n = call.path["limit"], call.body.n
    try:
        limits.set_limit(call.engine, name, n)
    except ConfigurationError as error:
        raise RequestRefused(problems.unknown_limit(str(error))) from None
    return Reply(200, {"limit": name, "n": n})


def _resume(call: Call) -> Reply:
    name = call.path["limit"]
    return Reply(200, {"limit": name, "ended": limits.resume(call.engine, name, call.body.key)})


OPERATIONS = (
    Operation(
        name="listLimits",
        method="GET",
        path="limits",
        summary="List limits, with what is in use and who waits",
        act=_list,
        answers={200: ("The limits in the order of their names, each with its keys.", limit_schemas.Limits)},
    ),
    Operation(
        name="setLimit",
        action="set_limit",
        method="PUT",
        path="limits/{limit}",
        summary="Set the number of a limit for all processes",
        act=_set,
        body=limit_schemas.LimitNumber,
        answers={200: ("The number is in force.", limit_schemas.LimitSet)},
        problems={404: "There is no such limit, or it is a debounce.", 422: "The body does not fit."},
    ),
    Operation(
        name="resumeLimit",
        action="resume_limit",
        method="POST",
        path="limits/{limit}/resume",
        summary="End the pauses of a limit",
        act=_resume,
        body=limit_schemas.PausedKey,
        answers={200: ("No key is paused any more.", limit_schemas.LimitResumed)},
        problems={404: "No limit can have this name.", 422: "The body does not fit."},
    ),
)
