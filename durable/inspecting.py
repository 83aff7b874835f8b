"""Runs and hooks as the command line, and whoever looks from outside, see them: dicts of plain JSON."""

from __future__ import annotations

from typing import Any

from . import codec, duration, events
from .engine import Engine
from .errors import RunNotFound
from .events import ROOT, Event
from .store import hooks, log, requests, runs
from .store.runs import Run as RunRow
from .webhooks import url_of


def list_runs(
    engine: Engine, *, status: str | None = None, name: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """The newest runs, as ``durable runs list`` shows them."""
    engine.check_schema()
    with engine.store.read() as tx:
        return [_summary(row) for row in runs.newest(tx, status=status, name=name, limit=limit)]


def describe(engine: Engine, run_id: str) -> dict[str, Any]:
    """One run, as ``durable runs show --json`` prints it; RunNotFound."""
    engine.check_schema()
    with engine.store.read() as tx:
        row = runs.find(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        ended = log.outcome(tx, run_id, ROOT) if row.ended else None
        created = log.creation(tx, run_id, ROOT) or next((n.event for n in log.drain(tx, run_id, limit=1)), None)
        texts = [value_of(e) or "" for e in (created, ended)]
        known = requests.load(tx, codec.request_ids(texts[0]) | codec.request_ids(texts[1]))
    error = value_of(ended) if isinstance(ended, events.RunFailed | events.RunCancelled) else None
    return _summary(row) | {
        "args": codec.plain(texts[0], known) if texts[0] else {},
        "result": codec.plain(texts[1], known) if isinstance(ended, events.RunCompleted) else None,
        "error": row.blocked if error is None else str(codec.error_summary(error)),
        "attributes": {},
    }


def _summary(row: RunRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "created_at": _iso(row.created_at),
        "started_at": _iso(row.started_at),
        "completed_at": _iso(row.completed_at),
        "code_version": row.code_version,
    }


def retry(engine: Engine, run_id: str) -> bool:
    """Let a blocked run be tried again by this code; False when it is not blocked."""
    with engine.store.begin() as tx:
        row = runs.find(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        unblocked = runs.unblock(tx, run_id)
    if unblocked:
        engine.dispatch.drive(run_id, row.queue, row.priority)
    return unblocked


def list_hooks(engine: Engine, *, run_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Open hooks: ``token run_id is_webhook url metadata created_at``."""
    engine.check_schema()
    with engine.store.read() as tx:
        found = hooks.open_hooks(tx, run_id=run_id, limit=limit)
    return [_hook(engine, hook) for hook in found]


def _hook(engine: Engine, hook: hooks.Hook) -> dict[str, Any]:
    is_webhook = hook.config is not None
    base = engine.settings.public_url
    return {
        "token": hook.token,
        "run_id": hook.run_id,
        "is_webhook": is_webhook,
        "url": url_of(base, hook.token) if is_webhook and base else None,
        "metadata": None if hook.metadata is None else codec.decode(hook.metadata),
        "created_at": _iso(hook.created_at),
    }


def value_of(event: Event | None) -> str | None:
    """The encoded value that an event carries, if it carries one."""
    return None if event is None or event.value_field is None else getattr(event, event.value_field)


def _iso(micros: int | None) -> str | None:
    return None if micros is None else duration.to_datetime(micros).isoformat()
