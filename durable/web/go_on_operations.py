"""The operations of the control routes that let runs go on: fork, retry, wake and resolve."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ..client import fork
from ..engine import Engine
from ..errors import ConfigurationError, DurableError, ForkRefused, NotInDoubt, SerializationError
from ..registry import Run
from ..store import runs
from . import go_on_schemas, problems, schemas
from .control_operations import Call, Operation, Reply
from .problems import RequestRefused


def _fork(call: Call) -> Reply:
    body: go_on_schemas.Fork = call.body
    if body.from_step is not None and body.from_event is not None:
        raise RequestRefused(problems.bad_arguments("Give from_step or from_event, not both."))
    try:
        forked = fork.fork(
            call.engine,
            call.path["run_id"],
            from_step=body.from_step,
            from_event=body.from_event,
            reapply_payloads=body.reapply_payloads,
        )
    except DurableError as error:
        raise _refused(error) from None
    return _created(call, forked)


def _retry(call: Call) -> Reply:
    run_id = call.path["run_id"]
    try:
        going_on = fork.retry(call.engine, run_id)
    except DurableError as error:
        raise _refused(error) from None
    if going_on is None:
        raise RequestRefused(problems.not_retried())
    if going_on.id != run_id:
        return _created(call, going_on)
    return Reply(202, {"id": going_on.id, "name": going_on.name, "status": going_on.status, "forked_from": None})


def _wake(call: Call) -> Reply:
    run: Run[Any] = Run(call.path["run_id"], call.engine)
    return Reply(200, {"id": run.id, "ended": run.wake_up()})


def _resolve(call: Call) -> Reply:
    body: go_on_schemas.Resolve = call.body
    # An empty body is no result.
    if len({"result", "fail"} & body.model_fields_set) != 1:
        raise RequestRefused(problems.bad_arguments("Give either result, or fail with the reason."))
    run: Run[Any] = Run(call.path["run_id"], call.engine)
    try:
        if not body.fail:
            step = run.resolve(result=body.result, step=body.step)
        else:
            step = run.resolve(fail=body.fail, step=body.step)
    except NotInDoubt as error:
        raise RequestRefused(problems.not_in_doubt(error.doubts)) from None
    except SerializationError as error:
        raise RequestRefused(problems.bad_arguments(str(error))) from None
    return Reply(200, {"id": run.id, "step": step})


def _origin(engine: Engine, run: Run[Any]) -> str | None:
    with engine.store.read() as tx:
        row = runs.find(tx, run.id)
    return None if row is None else row.forked_from


def _created(call: Call, forked: Run[Any]) -> Reply:
    location = ("Location", f"{call.base_url}runs/{quote(forked.id, safe='')}")
    document = {"id": forked.id, "name": forked.name, "status": forked.status}
    return Reply(201, document | {"forked_from": _origin(call.engine, forked)}, (location,))


def _refused(error: DurableError) -> Exception:
    """Return the answer to an error of a fork; an error that is none of the caller's stays what it is."""
    if isinstance(error, ForkRefused):
        return RequestRefused(problems.not_forked(f"The run was not forked: {error.reason}."))
    if isinstance(error, ConfigurationError):
        return RequestRefused(problems.unknown_workflow())
    return error


_NO_RUN = {404: "There is no run with this id, or the web process has not imported its workflow."}

OPERATIONS = (
    Operation(
        name="forkRun",
        action="fork",
        method="POST",
        path="runs/{run_id}/fork",
        summary="Start a run that goes on where another has stood",
        act=_fork,
        body=go_on_schemas.Fork,
        answers={201: ("The new run is committed.", go_on_schemas.Forked)},
        problems={**_NO_RUN, 409: "A fork there could not be right.", 422: "The body does not fit."},
    ),
    Operation(
        name="retryRun",
        action="retry",
        method="POST",
        path="runs/{run_id}/retry",
        summary="Let a blocked or failed run go on",
        act=_retry,
        body=schemas.Nothing,
        answers={
            201: ("A new run goes on where the run has failed.", go_on_schemas.Retried),
            202: ("The run was blocked, and is tried again.", go_on_schemas.Retried),
        },
        problems={
            **_NO_RUN,
            409: "The run is neither blocked nor failed, or a fork could not be right.",
            422: "The body does not fit.",
        },
    ),
    Operation(
        name="wakeRun",
        action="wake",
        method="POST",
        path="runs/{run_id}/wake",
        summary="End the sleeps of a run",
        act=_wake,
        body=schemas.Nothing,
        answers={200: ("How many sleeps were ended; timeouts stay.", go_on_schemas.Woken)},
        problems={404: "There is no run with this id.", 422: "The body does not fit."},
    ),
    Operation(
        name="resolveStep",
        action="resolve",
        method="POST",
        path="runs/{run_id}/resolve",
        summary="Say what has become of a step in doubt",
        act=_resolve,
        body=go_on_schemas.Resolve,
        answers={200: ("The outcome is committed.", go_on_schemas.Resolved)},
        problems={
            404: "There is no run with this id.",
            409: "No step of the run is in doubt, or several are and the body names none of them.",
            422: "The body or the result does not fit.",
        },
    ),
)
