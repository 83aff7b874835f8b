"""Runs and hooks as dicts of plain JSON, for the command line and the control routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from .. import codec, duration, events
from ..context import recorded_url
from ..engine import Engine
from ..errors import DecryptionError, PayloadMissing, RunNotFound
from ..events import ROOT, Event
from ..store import (
    Pause,
    RunStatus,
    attributes,
    event_rows,
    fork_run,
    generations,
    hooks,
    pauses,
    requests,
    run_list,
    run_log,
    runs,
)
from ..store import Run as RunRow
from .pending import waiting_for

#: How many forks of a run are listed.
FORKS = 100

#: The beginning of an id that durable has made.
_GENERATED = re.compile("[0-9a-f]{1,64}")


def list_runs(
    engine: Engine,
    *,
    status: str | None = None,
    name: str | None = None,
    attributes: Mapping[str, str] | None = None,
    since: timedelta | None = None,
    limit: int = 50,
    paused: bool = False,
) -> list[dict[str, Any]]:
    """
    Return the newest runs, as ``durable runs list`` shows them.

    Args:
        attributes: Only runs that have all of these.
        since: Only runs that were created within this time.
        paused: Only runs that are paused.
    """
    engine.check_schema()
    earliest = 0 if since is None else engine.now() - duration.to_micros(since)
    with engine.store.read() as tx:
        found = runs.newest(
            tx,
            status=status,
            name=name,
            attributes=attributes or {},
            since=earliest,
            limit=limit,
            paused=paused,
        )
    return [_summary(row) for row in found]


def page_of_runs(
    engine: Engine,
    *,
    status: str | None,
    name: str | None,
    attributes: Mapping[str, str],
    since: int | None,
    until: int | None,
    limit: int,
    after: str | None,
    paused: bool = False,
) -> tuple[list[dict[str, Any]], str | None]:
    """
    Return one page of the same list with the runs' attributes, and the *after* of the next page; None for the last.

    Raises:
        ValueError: *after* does not come from an earlier page.
    """
    engine.check_schema()
    place = None if after is None else _place(after)
    with engine.store.read() as tx:
        found = runs.newest(
            tx,
            status=status,
            name=name,
            attributes=attributes,
            since=since or 0,
            until=until,
            limit=limit + 1,
            after=place,
            paused=paused,
        )
        page = found[:limit]
        labels = run_list.attributes_of(tx, [row.id for row in page])
    following = f"{page[-1].created_at}.{page[-1].id}" if len(found) > limit else None
    return [_summary(row) | {"attributes": labels.get(row.id, {})} for row in page], following


def _place(text: str) -> tuple[int, str]:
    at, dot, run_id = text.partition(".")
    if not (dot and run_id and at.isascii() and at.isdecimal() and len(at) <= 18):
        raise ValueError(f"{text!r} is not the `next` of a page.")
    return int(at), run_id


def find_by_prefix(engine: Engine, text: str, limit: int) -> list[dict[str, Any]]:
    """
    Return the run with the id *text*; else the runs with generated ids that begin with it, at most *limit*.

    A generated id consists of digits and letters from a to f.  No other text is looked for as the beginning of an id.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        exact = runs.find(tx, text)
        if exact is not None:
            return [_summary(exact)]
        return [_summary(row) for row in runs.beginning_with(tx, text, limit)] if _GENERATED.fullmatch(text) else []


def describe(engine: Engine, run_id: str, *, follow: bool = False) -> dict[str, Any]:
    """
    Return one run, as ``durable runs show --json`` prints it.  Raise RunNotFound for an unknown id.

    Args:
        follow: Describe the last generation of the run.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        row = generations.latest(tx, run_id) if follow else runs.find(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        run_id = row.id
        args, arguments = _shown(tx, lambda: creation(tx, run_id))
        ended, result = _shown(tx, lambda: run_log.outcome(tx, run_id, ROOT) if row.ended else None)
        labels = attributes.read(tx, run_id)
        pending = waiting_for(engine, tx, row)
        blocked = blocked_reason(engine, tx, row)
        before, after = generations.neighbours(tx, row)
        forks = [each.id for each in fork_run.forks_of(tx, [row.id], FORKS)]
        paused_by = [pause_as_json(each) for each in pauses.causes_of(tx, [row.id]).get(row.id, [])]
    error = value_of(ended) if isinstance(ended, events.RunFailedEvent | events.RunCancelledEvent) else None
    has_failed = row.status in (RunStatus.FAILED, RunStatus.CANCELLED)
    return _summary(row) | {
        "args": arguments if args is None or value_of(args) else {},
        "result": None if has_failed or row.status == RunStatus.CONTINUED else result,
        "error": str(codec.error_summary(error)) if error is not None else result if has_failed else blocked,
        "attributes": labels,
        "parent": row.parent_run_id,
        "scheduled_for": duration.iso(row.scheduled_for),
        "generation": row.generation,
        "previous_generation": before,
        "next_generation": after,
        "forked_from": row.forked_from,
        "forks": forks,
        "paused_by": paused_by,
        "waiting_for": pending,
    }


def blocked_reason(engine: Engine, tx: Connection, row: RunRow) -> str | None:
    """Return why a run is blocked, or why this process cannot say it; None if it is not blocked."""
    vault = engine.store.vault
    try:
        return vault.fetch(tx, row.id, vault.unseal(row.id, "blocked", row.blocked))
    except (DecryptionError, PayloadMissing) as missing:
        return str(missing)


def _shown(tx: Connection, read: Callable[[], Event | None]) -> tuple[Event | None, Any]:
    """Return an event and its value as plain JSON; or None, and why the value cannot be shown."""
    try:
        event = read()
        text = value_of(event)
        return event, codec.plain(text, requests.load(tx, codec.request_ids(text))) if text else None
    except (DecryptionError, PayloadMissing) as missing:
        return None, str(missing)


def creation(tx: Connection, run_id: str) -> Event | None:
    """Return the event that created the run: from its log, or from its inbox before its first turn."""
    created = run_log.creation(tx, run_id, ROOT)
    if created is not None:
        return created
    return next(
        iter(event_rows.load_large_values(tx, run_id, (n.event for n in run_log.read_inbox(tx, run_id, limit=1)))), None
    )


def event_as_json(event: Event) -> dict[str, Any]:
    """Return an event without its value: ``seq at kind operation name``."""
    return {
        "seq": event.seq,
        "at": duration.iso(event.at),
        "kind": event.kind,
        "operation": event.op_id,
        "name": getattr(event, "name", None),
    }


def _summary(row: RunRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "paused_at": duration.iso(row.paused_at),
        "created_at": duration.iso(row.created_at),
        "started_at": duration.iso(row.started_at),
        "completed_at": duration.iso(row.completed_at),
        "code_version": row.code_version,
    }


def list_hooks(engine: Engine, *, run_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Return open hooks: ``token run_id is_webhook url metadata created_at``."""
    engine.check_schema()
    with engine.store.read() as tx:
        found = hooks.open_hooks(tx, run_id=run_id, limit=limit)
        return [_hook(tx, hook) for hook in found]


def _hook(tx: Connection, hook: hooks.Hook) -> dict[str, Any]:
    try:
        text = hooks.metadata_of(tx, hook)
        metadata = None if text is None else codec.plain(text, requests.load(tx, codec.request_ids(text)))
    except PayloadMissing as missing:
        metadata = str(missing)
    return {
        "token": hook.token,
        "run_id": hook.run_id,
        "is_webhook": hook.config is not None,
        "url": None if hook.config is None else recorded_url(hook.config, hook.token),
        "metadata": metadata,
        "created_at": duration.iso(hook.created_at),
    }


def pause_as_json(each: Pause) -> dict[str, Any]:
    """Return why a run is paused, ``kind name paused_at reason``; a run's own pause has the kind "run" and no name."""
    return {
        "kind": each.kind,
        "name": None if each.kind == pauses.OWN else each.name,
        "paused_at": duration.iso(each.paused_at),
        "reason": each.reason,
    }


def value_of(event: Event | None) -> str | None:
    """Return the encoded value that an event carries, if it carries one."""
    return None if event is None or event.value_field is None else getattr(event, event.value_field)
