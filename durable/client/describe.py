"""Runs and hooks as the command line, and whoever looks from outside, see them: dicts of plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from .. import codec, duration, events
from ..context import recorded_url
from ..engine import Engine
from ..errors import PayloadMissing, RunNotFound
from ..events import ROOT, Event
from ..store import Run as RunRow
from ..store import RunStatus, attributes, event_rows, hooks, requests, run_log, runs
from .pending import waiting_for

#: How far runs are counted, and how many are read at once.
COUNTED = 10_000
PAGE = 100


def list_runs(
    engine: Engine,
    *,
    status: str | None = None,
    name: str | None = None,
    attributes: Mapping[str, str] | None = None,
    since: timedelta | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """
    The newest runs, as ``durable runs list`` shows them.

    Of several *attributes* each has to match; *since* leaves out what was started longer ago.
    """
    engine.check_schema()
    earliest = 0 if since is None else engine.now() - duration.to_micros(since)
    with engine.store.read() as tx:
        found = runs.newest(tx, status=status, name=name, attributes=attributes or {}, since=earliest, limit=limit)
    return [_summary(row) for row in found]


def page_of_runs(
    engine: Engine,
    *,
    status: str | None,
    name: str | None,
    attributes: Mapping[str, str],
    limit: int,
    after: str | None,
) -> tuple[list[dict[str, Any]], str | None]:
    """
    One page of the same list, and where the next one begins: its *after*; None when there is none.

    Raises:
        ValueError: *after* is not what a page before gave.
    """
    engine.check_schema()
    place = None if after is None else _place(after)
    with engine.store.read() as tx:
        found = runs.newest(tx, status=status, name=name, attributes=attributes, since=0, limit=limit + 1, after=place)
    page = found[:limit]
    following = f"{page[-1].created_at}.{page[-1].id}" if len(found) > limit else None
    return [_summary(row) for row in page], following


def _place(text: str) -> tuple[int, str]:
    at, dot, run_id = text.partition(".")
    if not (dot and run_id and at.isascii() and at.isdecimal() and len(at) <= 18):
        raise ValueError(f"{text!r} is not the `next` of a page.")
    return int(at), run_id


def count(engine: Engine, *, statuses: Sequence[str], name: str | None) -> int:
    """How many runs are of these statuses, and of this workflow; counts no further than ``COUNTED``."""
    engine.check_schema()
    with engine.store.read() as tx:
        return runs.count(tx, statuses=statuses, name=name, limit=COUNTED)


def each(engine: Engine, *, statuses: Sequence[str], name: str | None) -> Iterator[str]:
    """
    The ids of the runs that have one of these statuses now, read in pages.

    Each is met, also while they change: the statuses are gone through in the order given, so let a
    status come before those that it turns into.
    """
    engine.check_schema()
    upto = engine.now()
    for status in statuses:
        after = (0, "")
        while True:
            with engine.store.read() as tx:
                page = runs.page(tx, status=status, name=name, after=after, upto=upto, limit=PAGE)
            yield from (run_id for _, run_id in page)
            if len(page) < PAGE:
                break
            after = page[-1]


def describe(engine: Engine, run_id: str) -> dict[str, Any]:
    """One run, as ``durable runs show --json`` prints it; RunNotFound."""
    engine.check_schema()
    with engine.store.read() as tx:
        row = runs.find(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        args, arguments = _told(tx, lambda: creation(tx, run_id))
        ended, result = _told(tx, lambda: run_log.outcome(tx, run_id, ROOT) if row.ended else None)
        labels = attributes.read(tx, run_id)
        pending = waiting_for(engine, tx, row)
        kept = engine.store.vault
        blocked = kept.fetch(tx, run_id, kept.unseal(run_id, "blocked", row.blocked))
    error = value_of(ended) if isinstance(ended, events.RunFailedEvent | events.RunCancelledEvent) else None
    has_failed = row.status in (RunStatus.FAILED, RunStatus.CANCELLED)
    return _summary(row) | {
        "args": arguments if args is None or value_of(args) else {},
        "result": None if has_failed else result,
        "error": str(codec.error_summary(error)) if error is not None else result if has_failed else blocked,
        "attributes": labels,
        "parent": row.parent_run_id,
        "waiting_for": pending,
    }


def _told(tx: Connection, read: Callable[[], Event | None]) -> tuple[Event | None, Any]:
    """An event and its value for people; in their place None, and why the value cannot be shown."""
    try:
        event = read()
        text = value_of(event)
        return event, codec.plain(text, requests.load(tx, codec.request_ids(text))) if text else None
    except PayloadMissing as missing:
        return None, str(missing)


def creation(tx: Connection, run_id: str) -> Event | None:
    """The event that created the run, from its log, or from its inbox before its first turn."""
    known = run_log.creation(tx, run_id, ROOT)
    if known is not None:
        return known
    return next(
        iter(event_rows.load_large_values(tx, run_id, (n.event for n in run_log.read_inbox(tx, run_id, limit=1)))), None
    )


def list_events(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """The run's log: ``seq at kind operation name``; the name is that of a step, hook, child or workflow."""
    with engine.store.read() as tx:
        found = run_log.page(tx, run_id, after=0, before=2**62, limit=None, newest_first=False, values=False)
    return [_event(event) for event in found]


def _event(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "at": duration.iso(event.at),
        "kind": str(event.kind),
        "operation": event.op_id,
        "name": getattr(event, "name", None),
    }


def _summary(row: RunRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "created_at": duration.iso(row.created_at),
        "started_at": duration.iso(row.started_at),
        "completed_at": duration.iso(row.completed_at),
        "code_version": row.code_version,
    }


def list_hooks(engine: Engine, *, run_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Open hooks: ``token run_id is_webhook url metadata created_at``."""
    engine.check_schema()
    with engine.store.read() as tx:
        found = hooks.open_hooks(tx, run_id=run_id, limit=limit)
        return [_hook(tx, hook) for hook in found]


def _hook(tx: Connection, hook: hooks.Hook) -> dict[str, Any]:
    return {
        "token": hook.token,
        "run_id": hook.run_id,
        "is_webhook": hook.config is not None,
        "url": None if hook.config is None else recorded_url(hook.config, hook.token),
        "metadata": _metadata(tx, hook),
        "created_at": duration.iso(hook.created_at),
    }


def _metadata(tx: Connection, hook: hooks.Hook) -> Any:
    try:
        told = hooks.metadata_of(tx, hook)
        return None if told is None else codec.plain(told, requests.load(tx, codec.request_ids(told)))
    except PayloadMissing as missing:
        return str(missing)


def value_of(event: Event | None) -> str | None:
    """The encoded value that an event carries, if it carries one."""
    return None if event is None or event.value_field is None else getattr(event, event.value_field)
