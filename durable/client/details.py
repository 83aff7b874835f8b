"""What ``durable runs show`` has of one run beside its row: its steps, its failure, and its log with the values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from .. import codec, duration, events
from ..display import authors_line, masked_deeply
from ..engine import Engine
from ..errors import DecryptionError, PayloadMissing
from ..events import ROOT, Event
from ..http import Request
from ..store import requests, run_log, run_page, vault
from . import timeline
from .describe import event_as_json, value_of
from .run_view import RunView

#: The note that a failed step's error carries in the workflow.
_STEP_NOTE = re.compile(
    r"^Step (?P<name>.+) \((?P<op_id>r\S*)\) failed after (?P<attempts>\d+) attempts?\.$", re.MULTILINE
)


def steps(engine: Engine, view: RunView) -> list[dict[str, Any]]:
    """
    Return the steps of a run: ``operation name state attempts worker started_at ended_at error``.

    Worker and times are those of the last attempt.  ``error`` is what the last attempt failed with, as one line; None
    for a step that has completed.
    """
    rows = [row for row in view.rows if row.kind == "step"]
    unfinished = [row.op_id for row in rows if row.state != "completed"]
    with engine.store.read() as tx:
        failures = run_page.last_failures(tx, view.run.id, unfinished)
        errors = {event.op_id: _summary(tx, view.run.id, event) for event in failures}
    return [_step(row, errors.get(row.op_id)) for row in rows]


def _step(row: timeline.Row, error: str | None) -> dict[str, Any]:
    last = next((bar for bar in reversed(row.bars) if bar.kind is timeline.BarKind.ATTEMPT), None)
    return {
        "operation": row.op_id,
        "name": row.name,
        "state": row.state,
        "attempts": row.attempts,
        "worker": None if last is None else last.worker,
        "started_at": None if last is None else duration.iso(last.start),
        "ended_at": None if last is None else duration.iso(last.end),
        "error": error,
    }


def _summary(tx: Connection, run_id: str, event: Event) -> str:
    value = read_value(tx, run_id, event)
    if "hidden" in value:
        return str(value["hidden"])
    error = value["value"]
    return f"{error['type']}: {error['message']}" if error["message"] else str(error["type"])


def failure(engine: Engine, run_id: str) -> dict[str, Any] | None:
    """
    Return why a run has failed: ``step file line function type message traceback``; None unless it has failed.

    ``step`` is ``operation name attempts`` of the step that failed; None if the workflow's own code raised the error.
    ``file``, ``line`` and ``function`` are the author's last before the error; None where the traceback has none.
    Without the key of an encrypted error, only ``hidden``, which says so.
    """
    with engine.store.read() as tx:
        ended = run_page.stored(tx, run_id, ROOT, "ended")
        if not isinstance(ended, events.RunFailedEvent):
            return None
        value = read_value(tx, run_id, ended)
    if "hidden" in value:
        return value
    error: dict[str, Any] = value["value"]
    notes = list(_STEP_NOTE.finditer(error["traceback"]))
    step = None
    if notes:
        last = notes[-1]
        step = {"operation": last["op_id"], "name": last["name"], "attempts": int(last["attempts"])}
    file, line, function = authors_line(error["traceback"]) or (None, None, None)
    return {"step": step, "file": file, "line": line, "function": function} | error


def failed_step(traceback: str) -> tuple[str, str] | None:
    """Return the id and the name of the step whose failure an error's traceback names last; None without one."""
    notes = list(_STEP_NOTE.finditer(traceback))
    return (notes[-1]["op_id"], notes[-1]["name"]) if notes else None


def log(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """
    Return the run's log with its values: each event as ``event_as_json`` has it, and what it carries.

    ``carries`` says what that is: ``args``, ``result``, ``error``, ``payload``…; None for an event that carries
    nothing.  ``value`` is plain JSON, an error ``type message traceback``; or ``hidden`` says why it is not there.
    """
    with engine.store.read() as tx:
        return [
            event_as_json(event)
            | {"carries": event.value_field if value_of(event) else None}
            | read_value(tx, run_id, event)
            for event in run_log.stored_log(tx, run_id)
        ]


def read_value(tx: Connection, run_id: str, event: Event) -> dict[str, Any]:
    """
    Return what an event carries as ``{"value": …}``, without tokens of webhooks; nothing when it carries nothing.

    Args:
        event: With its value as it is stored.  If this process does not have the key, or the value is gone, the result
            is ``{"hidden": …}`` with the reason.
    """
    stored = value_of(event)
    if not stored:
        return {}
    own_vault = vault.of(tx)
    try:
        text = str(own_vault.fetch(tx, run_id, own_vault.unseal(run_id, event.op_id, stored)))
    except (DecryptionError, PayloadMissing) as missing:
        return {"hidden": str(missing)}
    if event.value_field == "error":
        error = codec.error_summary(text)
        plain: Any = {"type": error.error_type, "message": error.message, "traceback": error.traceback}
    else:
        plain = codec.plain(text, _requests(tx, text))
    return {"value": masked_deeply(plain)}


def _requests(tx: Connection, text: str) -> Mapping[str, Request]:
    """The webhook requests in a value; one with a large body is left out, and then shown by its id."""
    try:
        found = requests.load(tx, codec.request_ids(text), whole=False)
    except (DecryptionError, PayloadMissing):
        return {}
    return {request_id: request for request_id, request in found.items() if request.is_loaded}
