"""``export`` returns a run's history as JSON, ``replay`` runs today's code against a history."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import codec, events, registry
from ..current import current_engine
from ..errors import ConfigurationError, NonDeterminismError
from ..http import Request
from ..registry import Run, Workflow
from ..replay import Outcome, Replay, RunInfo
from ..store import LIMIT, requests

History = Mapping[str, Any]


def export(run: Run[Any]) -> dict[str, Any]:
    """A run's history as plain JSON: its log, and the webhook requests that it refers to."""
    log = run.events()
    engine = run._engine or current_engine()
    with engine.store.read() as tx:
        stored = requests.load(tx, _references(log), whole=False)
    started = next((event for event in log if isinstance(event, events.RunStarted)), None)
    return {
        "workflow": run.name,
        "run_id": run.id,
        "public_url": started.public_url if started else None,
        "requests": [_exported(each) for each in stored.values()],
        "events": [events.to_row(event) for event in log],
    }


def replay(history: History | Path | str, workflow: Workflow[..., Any] | None = None) -> Outcome | None:
    """
    Run today's code against a history.

    Args:
        history: The value that ``export`` returned, or the path of a JSON file that contains it.
        workflow: The workflow to run, by default the one that the history names.

    Returns:
        How the run ends with this code; None when it goes on.

    Raises:
        NonDeterminismError: The code does not match the history.  The message names the line.
        ConfigurationError: No workflow of that name has been imported.
    """
    fields = history if isinstance(history, Mapping) else json.loads(Path(history).read_text())
    chosen = workflow or registry.workflows.get(fields["workflow"])
    if chosen is None:
        name = fields["workflow"]
        raise ConfigurationError(f"No workflow is called {name!r}.  Import its module, or pass workflow=.")
    log = [
        events.from_row(
            row["kind"], seq=row["seq"], at=row["at"], op_id=row["op_id"], data=row["data"], value=row["value"]
        )
        for row in fields["events"]
    ]
    stored = [_imported(each) for each in fields["requests"]]
    return _replayed(chosen, fields, log, {each.id or "": each for each in stored})


def _exported(request: Request) -> dict[str, Any]:
    """A request as JSON.  A large body is left out, since no workflow reads it."""
    if request.is_loaded:
        return {"head": request.head_json(), "body_b64": base64.b64encode(request.data).decode()}
    return {"head": request.head_json(), "body_size": request.size}


def _imported(fields: Mapping[str, Any]) -> Request:
    if "body_size" in fields:
        return Request.without_body(fields["head"], fields["body_size"], LIMIT)
    return Request.from_head(fields["head"], base64.b64decode(fields["body_b64"]))


def _replayed(
    workflow: Workflow[..., Any], fields: History, log: list[events.Event], stored: Mapping[str, Request]
) -> Outcome | None:
    created = next(event for event in log if isinstance(event, events.RunCreated))
    started = next((event for event in log if isinstance(event, events.RunStarted)), None)
    if started is None:
        # The run has had no turn, so it is pending, or was cancelled before it began.
        return Outcome(status="cancelled") if isinstance(log[-1], events.RunCancelledEvent) else None
    info = RunInfo(run_id=fields["run_id"], name=workflow.name, started_at=started.at, public_url=fields["public_url"])
    replay = Replay(workflow, info, created.args, stored)
    try:
        replay.feed(log, stored, replaying=True)
        commands, has_ended = replay.take(), log[-1].op_id == events.ROOT and log[-1].phase == "ended"
        if replay.fault is not None:
            raise replay.fault
        if commands and has_ended:
            raise NonDeterminismError(info.run_id, commands[0].op_id, "the end of the run", f"{commands[0]}")
        return replay.outcome
    finally:
        replay.park()


def _references(log: list[events.Event]) -> set[str]:
    found = {event.request_id for event in log if isinstance(event, events.HookReceived) and event.request_id}
    values = (getattr(event, event.value_field) for event in log if event.value_field)
    return found.union(*(codec.request_ids(value) for value in values if value is not None))
