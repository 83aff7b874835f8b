"""``export`` writes a run's history down, ``replay`` runs today's code against it."""

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
        known = requests.load(tx, _references(log), whole=False)
    started = next((event for event in log if isinstance(event, events.RunStarted)), None)
    return {
        "workflow": run.name,
        "run_id": run.id,
        "public_url": started.public_url if started else None,
        "requests": [_exported(each) for each in known.values()],
        "events": [events.to_row(event) for event in log],
    }


def replay(history: History | Path | str, workflow: Workflow[..., Any] | None = None) -> Outcome | None:
    """
    Run today's code against a history; how the run ends by it, None when it goes on.

    Args:
        history: What ``export`` returned, or the path of a file that holds it as JSON.
        workflow: Replayed; the one of the history's name if not given.

    Raises:
        NonDeterminismError: The code does not match the history; says where, with the code's line.
        ConfigurationError: No workflow of that name has been imported.
    """
    known = history if isinstance(history, Mapping) else json.loads(Path(history).read_text())
    chosen = workflow or registry.workflows.get(known["workflow"])
    if chosen is None:
        raise ConfigurationError(f"No workflow is called {known['workflow']!r}.  Import its module, or give workflow=.")
    log = [_event(row) for row in known["events"]]
    stored = [_imported(each) for each in known["requests"]]
    return _replayed(chosen, known, log, {each.id or "": each for each in stored})


def _exported(request: Request) -> dict[str, Any]:
    """A large body stays where it is: no workflow reads it."""
    if request.is_loaded:
        return {"head": request.head_json(), "body_b64": base64.b64encode(request.data).decode()}
    return {"head": request.head_json(), "body_size": request.size}


def _imported(known: Mapping[str, Any]) -> Request:
    if "body_size" in known:
        return Request.without_body(known["head"], known["body_size"], LIMIT)
    return Request.from_head(known["head"], base64.b64decode(known["body_b64"]))


def _replayed(
    workflow: Workflow[..., Any], known: History, log: list[events.Event], stored: Mapping[str, Request]
) -> Outcome | None:
    created = next(event for event in log if isinstance(event, events.RunCreated))
    started = next((event for event in log if isinstance(event, events.RunStarted)), None)
    if started is None:
        # It has run no code: all that can have happened to it is a cancel.
        return Outcome(status="cancelled") if isinstance(log[-1], events.RunCancelledEvent) else None
    info = RunInfo(run_id=known["run_id"], name=workflow.name, started_at=started.at, public_url=known["public_url"])
    made = Replay(workflow, info, created.args, stored)
    try:
        made.feed(log, stored, replaying=True)
        asked, has_ended = made.take(), log[-1].op_id == events.ROOT and log[-1].phase == "ended"
        if made.fault is not None:
            raise made.fault
        if asked and has_ended:
            raise NonDeterminismError(info.run_id, asked[0].op_id, "the end of the run", f"{asked[0]}")
        return made.outcome
    finally:
        made.park()


def _event(row: Mapping[str, Any]) -> events.Event:
    return events.from_row(
        row["kind"], seq=row["seq"], at=row["at"], op_id=row["op_id"], data=row["data"], value=row["value"]
    )


def _references(log: list[events.Event]) -> set[str]:
    found = {event.request_id for event in log if isinstance(event, events.HookReceived) and event.request_id}
    values = (getattr(event, event.value_field) for event in log if event.value_field)
    return found.union(*(codec.request_ids(value) for value in values if value is not None))
