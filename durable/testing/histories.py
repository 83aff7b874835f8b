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
    ids = {event.request_id for event in log if isinstance(event, events.HookReceived) and event.request_id}
    for event in log:
        value = getattr(event, event.value_field) if event.value_field else None
        ids.update(codec.request_ids(value) if value is not None else ())
    with engine.store.read() as tx:
        stored = requests.load(tx, ids, whole=False)
    exported = []
    for request in stored.values():
        # A large body is left out, since no workflow reads it.
        body = (
            {"body_b64": base64.b64encode(request.data).decode()} if request.is_loaded else {"body_size": request.size}
        )
        exported.append({"head": request.head_json(), **body})
    started = next((event for event in log if isinstance(event, events.RunStarted)), None)
    return {
        "workflow": run.name,
        "run_id": run.id,
        "public_url": started.public_url if started else None,
        "requests": exported,
        "events": [events.to_row(event) for event in log],
    }


def replay(history: History | Path | str, workflow: Workflow[..., Any] | None = None) -> Outcome | None:
    """
    Run today's code against a history.

    Args:
        history: The value that ``export`` returned, or the path of a JSON file that contains it.
        workflow: The workflow to run, by default the one that the history names.

    Returns:
        How the run ends with this code; None when it continues.

    Raises:
        NonDeterminismError: The code does not match the history.  The message names the line.
        WorkflowCodeError: The code makes a mistake that would block the run.  The message names the line.
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
    stored: dict[str, Request] = {}
    for each in fields["requests"]:
        if "body_size" in each:
            request = Request.without_body(each["head"], each["body_size"], LIMIT)
        else:
            request = Request.from_head(each["head"], base64.b64decode(each["body_b64"]))
        stored[request.id or ""] = request
    created = next(event for event in log if isinstance(event, events.RunCreated))
    started = next((event for event in log if isinstance(event, events.RunStarted)), None)
    if started is None:
        # The run has had no turn, so it is pending, or was cancelled before it began.
        return Outcome(status="cancelled") if isinstance(log[-1], events.RunCancelledEvent) else None
    info = RunInfo(
        run_id=fields["run_id"],
        name=chosen.name,
        started_at=started.at,
        public_url=fields["public_url"],
        scheduled_for=created.scheduled_for,
    )
    replay = Replay(chosen, info, created.args, stored)
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
