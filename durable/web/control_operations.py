"""
What callers in other languages may do to runs, by HTTP and JSON: start, list, show, cancel, resume.

Each operation is one entry of ``OPERATIONS``: the blueprint serves from it,
and the OpenAPI document is written from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from .. import registry
from ..client import describe, hooks, start
from ..engine import Engine
from ..errors import HookNotFound, HookPayloadError, RunConflict, RunNotFound, SerializationError
from ..registry import Run, Workflow, definitions
from . import problems as answers
from . import schemas
from .problems import RequestRefused

Shape = TypeVar("Shape", bound=BaseModel)


class Call(NamedTuple):
    """A control request that is well-formed: where it came to, and what it holds."""

    engine: Engine
    #: The address of ``runs``, to say where one is.
    base: str
    run_id: str
    key: str | None
    body: Any
    query: Any


class Reply(NamedTuple):
    """What it is answered: plain JSON."""

    status: int
    document: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """
    One thing that a caller may do.

    Attributes:
        name: Its ``operationId``.
        path: Below ``reading.ROOT``, with ``{run_id}`` where that stands.
        answers: By status, what it means and its shape; *problems*: errors of its own, beside those of all.
        links: Operations on the run that an answer names.
    """

    name: str
    method: str
    path: str
    summary: str
    act: Callable[[Call], Reply]
    answers: Mapping[int, tuple[str, type[BaseModel]]]
    problems: Mapping[int, str] = field(default_factory=dict)
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    takes_key: bool = False
    links: tuple[str, ...] = ()


def _start(call: Call) -> Reply:
    wanted: schemas.Start = call.body
    workflow = registry.workflows.get(wanted.workflow)
    if workflow is None:
        raise RequestRefused(answers.unknown_workflow())
    args, kwargs = (wanted.args, {}) if isinstance(wanted.args, list) else ([], wanted.args)
    _require_fit(workflow, args, kwargs)
    minted = start.new_run_id(call.engine.now())
    options = start.Options(run_id=minted, idempotency_key=call.key, countdown=wanted.countdown or None)
    try:
        run = start.start(call.engine, workflow, tuple(args), kwargs, options)
    except SerializationError as error:
        raise RequestRefused(answers.bad_arguments(str(error))) from None
    except RunConflict:
        raise RequestRefused(answers.idempotency_key_reused()) from None
    location = ("Location", f"{call.base}/{quote(run.id, safe='')}")
    started = {"id": run.id, "name": workflow.name, "status": run.status}
    if run.id == minted:
        return Reply(201, started, (location,))
    return Reply(200, started, (location, ("Idempotent-Replayed", "true")))


def _require_fit(workflow: Workflow[..., Any], args: list[Any], kwargs: dict[str, Any]) -> None:
    """What would fail the run at its first turn is refused here."""
    try:
        definitions.fit_arguments(workflow, workflow.signature.bind(*args, **kwargs))
    except (TypeError, SerializationError) as error:
        raise RequestRefused(answers.bad_arguments(str(error))) from None


def _list(call: Call) -> Reply:
    query: schemas.Query = call.query
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.attribute)]
    wanted = dict(pairs)
    if any(wanted[name] != value for name, value in pairs):
        # No run has an attribute twice.
        return Reply(200, {"runs": [], "next": None})
    found, following = describe.page_of_runs(
        call.engine,
        status=query.status,
        name=query.name,
        attributes=wanted,
        limit=query.limit,
        after=query.after,
    )
    return Reply(200, {"runs": found, "next": following})


def _show(call: Call) -> Reply:
    try:
        return Reply(200, describe.describe(call.engine, call.run_id))
    except RunNotFound:
        raise RequestRefused(answers.unknown_run()) from None


def _cancel(call: Call) -> Reply:
    run: Run[Any] = Run(call.run_id, call.engine)
    try:
        cancelled = run.cancel(call.body.reason)
    except RunNotFound:
        raise RequestRefused(answers.unknown_run()) from None
    if not cancelled:
        raise RequestRefused(answers.run_ended())
    return Reply(202, {"id": run.id, "cancelled": True})


def _resume(call: Call) -> Reply:
    try:
        run_id = hooks.resume_hook(call.engine, call.body.token, call.body.payload)
    except HookNotFound:
        raise RequestRefused(answers.unknown_hook()) from None
    except HookPayloadError as error:
        # Not its own text, which names the token.
        wrong = [f"{'.'.join(map(str, ('payload', *each['loc'])))}: {each['msg']}" for each in error.errors]
        raise RequestRefused(answers.bad_arguments("; ".join(wrong[:10]))) from None
    except SerializationError as error:
        raise RequestRefused(answers.bad_arguments(str(error))) from None
    return Reply(202, {"run_id": run_id})


_NO_RUN = {404: "No run has this id."}

OPERATIONS = (
    Operation(
        name="startRun",
        method="POST",
        path="runs",
        summary="Start a run",
        act=_start,
        body=schemas.Start,
        takes_key=True,
        answers={
            201: ("The run is committed.", schemas.Started),
            200: ("The run that this key started before.", schemas.Started),
        },
        problems={
            404: "No workflow of this name is known to this web process.",
            422: "The body or the arguments do not fit, or the key started another run.",
        },
        links=("showRun", "cancelRun"),
    ),
    Operation(
        name="listRuns",
        method="GET",
        path="runs",
        summary="List runs",
        act=_list,
        query=schemas.Query,
        answers={200: ("The newest runs.", schemas.Runs)},
        problems={422: "A parameter does not fit."},
    ),
    Operation(
        name="showRun",
        method="GET",
        path="runs/{run_id}",
        summary="Show a run",
        act=_show,
        answers={200: ("The run.", schemas.Details)},
        problems=_NO_RUN,
    ),
    Operation(
        name="cancelRun",
        method="POST",
        path="runs/{run_id}/cancel",
        summary="Ask a run to stop",
        act=_cancel,
        body=schemas.Cancel,
        answers={202: ("It is asked to stop, and may clean up first.", schemas.Cancelling)},
        problems={**_NO_RUN, 409: "The run has ended.", 422: "The body does not fit."},
    ),
    Operation(
        name="resumeHook",
        method="POST",
        path="hooks/resume",
        summary="Deliver a payload to a hook",
        act=_resume,
        body=schemas.Resume,
        answers={202: ("The payload is committed.", schemas.Resumed)},
        problems={404: "Nobody holds this token open.", 422: "The body or the payload does not fit."},
    ),
)
