"""What ``durable doctor`` looks at: whether this application can work here, and what to change if not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import SQLAlchemyError

from . import embedded, migrations
from .engine import Engine
from .errors import DurableError
from .schema import REVISION
from .store import workers

_UNHEALTHY = (SQLAlchemyError, BrokerError, KombuError, CeleryError, DurableError, OSError)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at.  ``fix`` says what to change; with ``ok`` it is advice."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine(engine: Engine) -> list[Finding]:
    """Look at everything; a check that cannot be made is a finding that is not ok."""
    return [_finding(name, check, engine) for name, check in _CHECKS.items()]


def _finding(name: str, check: Callable[[Engine], Finding], engine: Engine) -> Finding:
    try:
        return check(engine)
    except _UNHEALTHY as error:
        text = str(error).splitlines()
        detail = f"{type(error).__name__}: {text[0] if text else ''}"
        return Finding(name=name, ok=False, detail=detail, fix=_FIXES[name])


def _database(engine: Engine) -> Finding:
    where = engine.store.url.render_as_string()
    with engine.store.read() as tx:
        found = migrations.revision(tx)
    ok = found == REVISION or engine.is_embedded()
    detail = f"{where}, schema {found or '(none yet)'}"
    return Finding(name="database", ok=ok, detail=detail, fix="" if ok else f"Run `durable migrate` for {REVISION}.")


def _broker(engine: Engine) -> Finding:
    with engine.celery.connection_for_write() as connection:
        connection.ensure_connection(max_retries=0, timeout=2.0)
        where = connection.as_uri()
    is_embedded = engine.broker_url() == embedded.url()
    return Finding(name="broker", ok=True, detail="the embedded one" if is_embedded else where)


def _public_url(engine: Engine) -> Finding:
    # Only webhooks need it, and `durable dev` gives it to its own processes.
    url = engine.settings.public_url
    fix = "" if url else "Set DURABLE_PUBLIC_URL where workflows create webhooks; without it that raises an error."
    return Finding(name="public_url", ok=True, detail=url or "not set", fix=fix)


def _workers(engine: Engine) -> Finding:
    with engine.store.read() as tx:
        rows = workers.alive(tx)
    since = engine.now() - engine.settings.dead_after
    alive = [f"{row.host}:{row.pid}" for row in rows if row.beat_at >= since]
    fix = "" if alive else _FIXES["workers"]
    return Finding(name="workers", ok=bool(alive), detail=", ".join(_first(alive)) or "none alive", fix=fix)


def _first(names: list[str], count: int = 10) -> Iterator[str]:
    yield from names[:count]
    if len(names) > count:
        yield f"{len(names) - count} more"


_CHECKS: dict[str, Callable[[Engine], Finding]] = {
    "database": _database,
    "broker": _broker,
    "public_url": _public_url,
    "workers": _workers,
}

_FIXES = {
    "database": "Start the database, or correct DURABLE_DATABASE_URL.",
    "broker": "Start it, or correct DURABLE_BROKER_URL; a worker and `durable dev` start the embedded one.",
    "public_url": "Correct DURABLE_PUBLIC_URL.",
    "workers": "Start one, `celery -A … worker`, and run `durable migrate` first on a new database.",
}
