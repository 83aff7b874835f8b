"""The operations of the control routes that pause and resume, and those that act on many runs."""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import duration
from ..client import bulk, pauses
from ..errors import ConfigurationError, DurableError
from ..registry import Run
from ..store import RunFilter
from . import pause_schemas, problems, schemas
from .control_operations import Call, Operation, Reply
from .problems import RequestRefused


class NotAllowed(DurableError):
    """Raised for one of many runs to which the caller may not do this."""


def _pause_run(call: Call) -> Reply:
    run: Run[Any] = Run(call.path["run_id"], call.engine)
    if not run.pause(call.body.reason, children=call.body.children):
        raise RequestRefused(problems.not_paused())
    return Reply(200, {"id": run.id, "paused": True})


def _resume_run(call: Call) -> Reply:
    run: Run[Any] = Run(call.path["run_id"], call.engine)
    if not run.resume(children=call.body.children):
        raise RequestRefused(problems.not_resumed())
    return Reply(200, {"id": run.id, "paused": run.paused})


def _list(call: Call) -> Reply:
    return Reply(200, {"pauses": pauses.list_pauses(call.engine)})


def _pause(kind: str, call: Call) -> Reply:
    name = call.path[kind]
    try:
        pauses.pause(call.engine, kind, name, call.body.reason)
    except ConfigurationError as error:
        raise RequestRefused(problems.nothing_to_pause(str(error))) from None
    return Reply(200, {"kind": kind, "name": name, "paused": True})


def _resume(kind: str, call: Call) -> Reply:
    name = call.path[kind]
    pauses.resume(call.engine, kind, name)
    return Reply(200, {"kind": kind, "name": name, "paused": False})


def _bulk(call: Call) -> Reply:
    body: pause_schemas.Bulk = call.body
    engine = call.engine
    engine.check_schema()
    wanted = RunFilter(
        status=body.status,
        name=body.name,
        attributes=body.attributes or {},
        since=None if body.since is None else duration.from_datetime(body.since),
        until=None if body.until is None else duration.from_datetime(body.until),
    )
    place = bulk.first_place(engine, wanted) if body.after is None else bulk.BulkPlace.parse(body.after)
    if body.dry_run:
        ids, _ = bulk.matching(engine, wanted, body.action, place, body.limit)
        found = bulk.count(engine, wanted, body.action)
        runs = [{"id": run_id, "fork": None} for run_id in ids]
        return Reply(200, {"count": found, "runs": runs, "refused": [], "dry_run": True, "next": None})

    action = "unpause" if body.action == "resume" else body.action

    def each(run_id: str, act: Any) -> object:
        try:
            actor = call.permit.require(action, run_id)
        except RequestRefused:
            raise NotAllowed(f"You are not allowed to {body.action} this run.") from None
        return call.permit.audited(action, run_id, "bulk", act, actor)

    given = bulk.Given(body.reason, body.from_step, body.from_event, body.reapply_payloads, body.children)
    batch = bulk.act_on_batch(engine, wanted, body.action, given, place, body.limit, each)
    forks = body.action == "fork"
    return Reply(
        200,
        {
            "count": len(batch.done),
            "runs": [{"id": run_id, "fork": outcome if forks else None} for run_id, outcome in batch.done],
            "refused": [{"id": run_id, "detail": why} for run_id, why in batch.refused],
            "dry_run": False,
            "next": None if batch.next is None else str(batch.next),
        },
    )


_NO_RUN = {404: "There is no run with this id.", 422: "The body does not fit."}

_OF_RUNS = (
    Operation(
        name="pauseRun",
        method="POST",
        path="runs/{run_id}/pause",
        summary="Pause a run",
        act=_pause_run,
        action="pause",
        body=pause_schemas.PauseRun,
        answers={200: ("No turn and no step of the run begins any more.", pause_schemas.PausedRun)},
        problems={**_NO_RUN, 409: "The run has ended, or was paused already."},
    ),
    Operation(
        name="resumeRun",
        method="POST",
        path="runs/{run_id}/resume",
        summary="End the pause of a run",
        act=_resume_run,
        action="unpause",
        body=pause_schemas.ResumeRun,
        answers={200: ("The run goes on, unless its workflow or queue is paused.", pause_schemas.PausedRun)},
        problems={**_NO_RUN, 409: "The run is not paused by itself."},
    ),
    Operation(
        name="actOnRuns",
        method="POST",
        path="bulk",
        summary="Cancel, retry, fork, pause or resume the runs that match",
        act=_bulk,
        action="bulk",
        body=pause_schemas.Bulk,
        answers={200: ("What came of this batch.", pause_schemas.BulkResult)},
        problems={422: "The body does not fit."},
    ),
    Operation(
        name="listPauses",
        method="GET",
        path="pauses",
        summary="List what is paused by name",
        act=_list,
        answers={200: ("Paused workflows, queues and receivers.", pause_schemas.ListedPauses)},
    ),
)


def _of_kind(kind: str) -> tuple[Operation, Operation]:
    """The operations that pause and resume one kind of thing by its name."""
    unknown = {404: f"There is no such {kind}.", 422: "The body does not fit."}
    return (
        Operation(
            name=f"pause{kind.title()}",
            method="POST",
            path=f"{kind}s/{{{kind}}}/pause",
            summary=f"Pause a {kind}",
            act=partial(_pause, kind),
            action=f"pause_{kind}",
            body=pause_schemas.Why,
            answers={200: ("It is paused, maybe since before.", pause_schemas.PausedByName)},
            problems=unknown,
        ),
        Operation(
            name=f"resume{kind.title()}",
            method="POST",
            path=f"{kind}s/{{{kind}}}/resume",
            summary=f"Resume a {kind}",
            act=partial(_resume, kind),
            action=f"resume_{kind}",
            body=schemas.Nothing,
            answers={200: ("What waits goes on, batch by batch.", pause_schemas.PausedByName)},
            problems=unknown,
        ),
    )


OPERATIONS = (*_OF_RUNS, *_of_kind("workflow"), *_of_kind("queue"), *_of_kind("receiver"))
