"""
The operations of the control routes on runs: start, list, show and cancel them.

Each is one entry of ``OPERATIONS``.  The blueprint serves it, and the OpenAPI
document describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from .. import attributes, registry
from ..client import describe, run_lists, start, values
from ..engine import Engine
from ..errors import RunConflict, SerializationError
from ..registry import Run, definitions
from ..store import start_run
from . import problems, run_schemas
from .flow import Flow, Holding
from .permit import Permit
from .problems import RequestRefused

Shape = TypeVar("Shape", bound=BaseModel)


class Call(NamedTuple):
    """A control request that is allowed and well-formed."""

    engine: Engine
    #: The URL before the paths of the operations, for ``Location``.
    base_url: str
    #: The parameters in the path: ``run_id``, if the operation's path has it.
    path: Mapping[str, str]
    #: ``Idempotency-Key``.
    key: str | None
    body: Any
    query: Any
    #: Holds the connection of a caller who waits for a reply.
    holding: Holding
    permit: Permit
    #: The caller's name, None if it is not known.
    actor: str | None


class Reply(NamedTuple):
    """An answer, as plain JSON."""

    status: int
    document: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """
    One thing that a caller can do.

    Attributes:
        name: The ``operationId``.
        path: The path below ``wsgi_request.ROOT``; ``{run_id}`` is a parameter.
        answers: By status, what the answer means and its model.
        problems: By status, errors of this operation, besides those that every operation has.
        act: Does it.  It may raise RunNotFound, for which the answer is 404.
        links: Names of operations that can follow with the run of the answer.
        action: As ``authorize`` and the audit have it; "read" for what changes nothing.
    """

    name: str
    method: str
    path: str
    summary: str
    act: Callable[[Call], Reply | Flow[Reply]]
    answers: Mapping[int, tuple[str, type[BaseModel]]]
    problems: Mapping[int, str] = field(default_factory=dict)
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    takes_key: bool = False
    links: tuple[str, ...] = ()
    action: str = "read"


def _start(call: Call) -> Reply:
    body: run_schemas.Start = call.body
    workflow = registry.workflows.get(body.workflow)
    if workflow is None:
        raise RequestRefused(problems.unknown_workflow())
    args, kwargs = (body.args, {}) if isinstance(body.args, list) else ([], body.args)
    try:
        # Arguments that would fail the run at its first turn are refused here.
        definitions.fit_arguments(workflow, workflow.signature.bind(*args, **kwargs))
        attributes.check({}, body.attributes)
    except (TypeError, ValueError, SerializationError) as error:
        raise RequestRefused(problems.bad_arguments(str(error))) from None
    new_id = start_run.new_run_id(call.engine.now())
    options = start.Options(
        run_id=new_id, idempotency_key=call.key, countdown=body.countdown or None, attributes=body.attributes
    )
    try:
        run = start.start(call.engine, workflow, tuple(args), kwargs, options)
    except SerializationError as error:
        raise RequestRefused(problems.bad_arguments(str(error))) from None
    except RunConflict:
        raise RequestRefused(problems.idempotency_key_reused()) from None
    call.permit.note("start", run.id, call.actor)
    location = ("Location", f"{call.base_url}runs/{quote(run.id, safe='')}")
    started = {"id": run.id, "name": workflow.name, "status": run.status}
    if run.id == new_id:
        return Reply(201, started, (location,))
    return Reply(200, started, (location, ("Idempotent-Replayed", "true")))


def _list(call: Call) -> Reply:
    query: run_schemas.Query = call.query
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.attribute)]
    wanted = dict(pairs)
    if any(wanted[name] != value for name, value in pairs):
        # One attribute with two values: no run has that.
        return Reply(200, {"runs": [], "next": None})
    now = call.engine.now()
    runs, next_page = describe.page_of_runs(
        call.engine,
        status=query.status,
        name=query.name,
        attributes=wanted,
        since=run_lists.moment(query.since, now, "since"),
        until=run_lists.moment(query.until, now, "until"),
        limit=query.limit,
        after=query.after,
        paused=query.paused == "true",
    )
    return Reply(200, {"runs": runs, "next": next_page})


def _show(call: Call) -> Reply:
    # A client that polls the run which it has started asks for the last generation.
    return Reply(200, describe.describe(call.engine, call.path["run_id"], follow=True))


def _cancel(call: Call) -> Reply:
    run: Run[Any] = Run(call.path["run_id"], call.engine)
    if not run.cancel(call.body.reason):
        raise RequestRefused(problems.run_ended())
    return Reply(202, {"id": run.id, "cancelled": True})


def _values(call: Call) -> Reply:
    return Reply(200, {"values": values.list_values(call.engine, call.path["run_id"])})


def _events(call: Call) -> Reply:
    query: run_schemas.EventsQuery = call.query
    run: Run[Any] = Run(call.path["run_id"], call.engine)
    found = run.events(after=query.after, limit=query.limit + 1, payloads=False)
    page = found[: query.limit]
    more = page[-1].seq if len(found) > len(page) else None
    return Reply(200, {"events": [describe.event_as_json(event) for event in page], "next": more})


_NO_RUN = {404: "There is no run with this id."}

OPERATIONS = (
    Operation(
        name="startRun",
        action="start",
        method="POST",
        path="runs",
        summary="Start a run",
        act=_start,
        body=run_schemas.Start,
        takes_key=True,
        answers={
            201: ("The run is committed.", run_schemas.Started),
            200: ("The run that an earlier request with this key started.", run_schemas.Started),
        },
        problems={
            404: "The web process has not imported a workflow of this name.",
            422: "The body or the arguments do not fit, or the key belongs to another run.",
        },
        links=("showRun", "cancelRun"),
    ),
    Operation(
        name="listRuns",
        method="GET",
        path="runs",
        summary="List runs",
        act=_list,
        query=run_schemas.Query,
        answers={200: ("The newest runs.", run_schemas.Runs)},
        problems={422: "A parameter does not fit."},
    ),
    Operation(
        name="showRun",
        method="GET",
        path="runs/{run_id}",
        summary="Show a run",
        act=_show,
        answers={200: ("The run.", run_schemas.Details)},
        problems=_NO_RUN,
    ),
    Operation(
        name="listEvents",
        method="GET",
        path="runs/{run_id}/events",
        summary="List the events of a run's log",
        act=_events,
        query=run_schemas.EventsQuery,
        answers={200: ("The events in their order.", run_schemas.Events)},
        problems={**_NO_RUN, 422: "A parameter does not fit."},
    ),
    Operation(
        name="listValues",
        method="GET",
        path="runs/{run_id}/values",
        summary="List the values that a run has published",
        act=_values,
        answers={200: ("The latest value of each name.", run_schemas.Values)},
        problems=_NO_RUN,
    ),
    Operation(
        name="cancelRun",
        action="cancel",
        method="POST",
        path="runs/{run_id}/cancel",
        summary="Ask a run to stop",
        act=_cancel,
        body=run_schemas.Cancel,
        answers={202: ("The run is asked to stop, and may clean up first.", run_schemas.Cancelling)},
        problems={**_NO_RUN, 409: "The run has ended.", 422: "The body does not fit."},
    ),
)
