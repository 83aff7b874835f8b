"""
The settings: their names, defaults and meanings, and where a value comes from.

A keyword of ``Durable(...)`` wins over the environment variable
``DURABLE_<NAME>``, that over ``durable_<name>`` in the Celery app's own
configuration, that over the default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any

from .. import duration
from ..broker import check_url
from ..cipher import Cipher, from_setting
from ..errors import ConfigurationError
from ..nearest import did_you_mean, misspelt
from ..store import PREPARING_CHOICES

SECOND = 1_000_000

#: The least characters of a signing key.
_SHORTEST_KEY = 16

#: What ``on_deaf_worker`` may say.
WARN, EXIT = "warn", "exit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Every setting, parsed.  Durations are microseconds, sizes are bytes."""

    #: SQLAlchemy URL of the store.
    database_url: str = "sqlite:///.durable/durable.db"
    #: Broker URL; None leaves the Celery app's own, else the embedded broker.
    broker_url: str | None = None
    #: What every ``webhook.url`` begins with, with the blueprint's prefix if it has one.
    public_url: str | None = None
    #: How long a manual webhook holds a connection before it answers 202.
    hold_timeout: int = 25 * SECOND
    #: The most connections that one web process holds; None: its threads less a reserve.
    max_held: int | None = None
    #: The largest request body that a webhook accepts.
    max_body: int = 1024 * 1024
    #: A webhook refuses requests while this many wait for the workflow, or for their answer; 0: it refuses none.
    max_pending: int = 1000
    #: A run whose log would grow beyond this many events fails with LogTooLong; 0: none does.
    max_events: int = 25_000
    #: A sleep is published as an ETA task only when it is due within this.
    eta_horizon: int = 120 * SECOND
    #: How long a worker may go on with one run before it goes back through the broker; 0: not at all.
    continuation: int = SECOND // 10
    #: How much CPU time ``start`` may give the workflow's code, to take the first turn itself; 0: a worker takes it.
    first_turn_budget: int = 0
    #: How much memory suspended runs may take in a process; 0: it keeps none.
    replay_cache: int = 64 * 1024 * 1024
    #: How much CPU time one turn may use; 0: no limit.
    turn_cpu_limit: int = 10 * SECOND
    #: How long the code of one turn may take; 0: no limit.
    turn_timeout: int = 60 * SECOND
    #: How often a worker process sends a heartbeat.
    beat_interval: int = 2 * SECOND
    #: A process whose last heartbeat is older than this is dead.
    dead_after: int = 10 * SECOND
    #: How often the sweep checks for what is due and what was lost.
    sweep_interval: int = SECOND
    #: What a worker does that takes no messages although some wait: "warn" or "exit".
    on_deaf_worker: str = "warn"
    #: A message is sent again when it is lost and this long has passed; then with growing delays.
    resend_after: int = 5 * SECOND
    #: Runs that ended longer ago than this are deleted; 0: none are.
    retention: int = 0
    #: What encrypts values at rest; None: they are stored as they are.
    cipher: Cipher | None = None
    #: The fsspec URL of values that are too large for the log; None: the database.
    payload_url: str | None = None
    #: The keys that sign read tokens, the first one, and that check them, all; None: there are no read tokens.
    signing_key: tuple[str, ...] | None = None
    #: How many connections to the database one process keeps.
    pool_size: int = 5
    #: The schema of durable's tables on PostgreSQL; None: the first one of the role's search_path.
    schema: str | None = None
    #: Whether PostgreSQL prepares durable's statements: "auto" (not behind a pooler), "on" or "off".
    prepared_statements: str = "auto"
    #: Whether a step that may run twice begins only when its claim is on disk.
    sync_claims: bool = False
    #: The version of the application's code; None: a hash of each workflow's module.
    code_version: str | None = None
    #: Whether to make OpenTelemetry spans, where its API is installed.
    tracing: bool = True
    #: The context variables whose values cross from ``start`` into steps.
    contextvars: tuple[ContextVar[Any], ...] = ()


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("it must be a non-empty str")
    return value.strip()


def _broker_url(value: object) -> str:
    url = _text(value)
    check_url(url)
    return url


def _public_url(value: object) -> str:
    url = _text(value).rstrip("/")
    if not url.startswith(("http://", "https://")) or any(c.isspace() or c in "?#" for c in url):
        raise ValueError("it must be an http:// or https:// URL without query or fragment")
    return url


def _micros(value: object) -> int:
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    return duration.to_micros(value)  # type: ignore[arg-type]


def _positive(value: object) -> int:
    micros = _micros(value)
    if micros <= 0:
        raise ValueError("it must be more than 0")
    return micros


def _hold(value: object) -> int:
    micros = _micros(value)
    if micros > 55 * SECOND:
        raise ValueError("proxies cut requests at 60 s, so it must be at most 55 s")
    return micros


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("it must be a whole number")
    count = int(value)
    if count < 0:
        raise ValueError("it must not be negative")
    return count


def _switch(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError("it must be true or false")


def _schema(value: object) -> str:
    name = _text(value)
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ValueError("it must be lower-case letters, digits and _, such as 'jobs'")
    return name


def _preparing(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value).strip().lower()
    if text not in PREPARING_CHOICES:
        raise ValueError(f"it must be one of {', '.join(PREPARING_CHOICES)}")
    return text


def _signing_keys(value: object) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    keys = tuple(each.strip() if isinstance(each, str) else "" for each in given)  # type: ignore[attr-defined]
    if not keys or any(len(each) < _SHORTEST_KEY for each in keys):
        raise ValueError(
            f"it must be a text of at least {_SHORTEST_KEY} characters, or several: the first one signs, all are valid"
        )
    return keys


def _on_deaf_worker(value: object) -> str:
    if value not in (WARN, EXIT):
        raise ValueError(f"it must be {WARN} or {EXIT}")
    return str(value)


def _context_variables(value: object) -> tuple[ContextVar[Any], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, ContextVar) for each in value):
        raise ValueError("it must be a list of contextvars.ContextVar objects, so give it as a keyword of Durable()")
    names = [each.name for each in value]
    if len(set(names)) < len(names):
        raise ValueError("two of the variables have the same name, under which their values are stored")
    return tuple(value)


_PARSERS: dict[str, Callable[[object], Any]] = {
    "database_url": _text,
    "broker_url": _broker_url,
    "public_url": _public_url,
    "hold_timeout": _hold,
    "max_held": _count,
    "max_body": _count,
    "max_pending": _count,
    "max_events": _count,
    "eta_horizon": _positive,
    "continuation": _micros,
    "first_turn_budget": _micros,
    "replay_cache": _count,
    "turn_cpu_limit": _micros,
    "turn_timeout": _micros,
    "beat_interval": _positive,
    "dead_after": _positive,
    "sweep_interval": _positive,
    "on_deaf_worker": _on_deaf_worker,
    "resend_after": _positive,
    "retention": _micros,
    "cipher": from_setting,
    "payload_url": _text,
    "signing_key": _signing_keys,
    "pool_size": _count,
    "schema": _schema,
    "prepared_statements": _preparing,
    "sync_claims": _switch,
    "code_version": _text,
    "tracing": _switch,
    "contextvars": _context_variables,
}

#: What an error shows in place of a value that may contain a password or a key.
_HIDDEN = {"database_url": "(a URL)", "broker_url": "(a URL)", "payload_url": "(a URL)", "cipher": "(keys)"}
_HIDDEN |= {"signing_key": "(keys)"}

NAMES = tuple(field.name for field in fields(Settings))

#: The environment variables that are no settings, and what reads them.
OTHER_VARIABLES = {
    "DURABLE_APP": "the command: the application",
    "DURABLE_DEV": "the dashboard: `durable dev` sets it",
    "DURABLE_FAILPOINTS": "tests: where a process fails",
    "DURABLE_CRASHES": "tests of durable itself: how many crashes they make",
    "DURABLE_SEED": "tests of durable itself: the seed of their random numbers",
}
#: All variables of durable.
VARIABLES = (*(f"DURABLE_{name.upper()}" for name in NAMES), *OTHER_VARIABLES)


def check_names(given: Mapping[str, object]) -> None:
    """Raise ConfigurationError for a keyword that is not a setting."""
    unknown = sorted(set(given) - set(NAMES))
    if unknown:
        raise ConfigurationError(
            f"Durable() has no setting {', '.join(map(repr, unknown))}.{did_you_mean(unknown[0], NAMES)}"
            f"  The settings are {', '.join(NAMES)}."
        )


def check_variables(environment: Mapping[str, str]) -> None:
    """
    Raise ConfigurationError for a variable that is a misspelling of one of durable's.

    Other variables that begin with ``DURABLE_`` are the application's own, for example the one that holds the secret of
    a webhook, or Kubernetes' for a service with the name durable.
    """
    for name in sorted(environment):
        if not name.startswith("DURABLE_") or name in VARIABLES:
            continue
        known = misspelt(name.removeprefix("DURABLE_"), [each.removeprefix("DURABLE_") for each in VARIABLES])
        if known is not None:
            raise ConfigurationError(
                f"The environment variable {name} is not one of durable's, and nothing reads it."
                f"  Did you mean DURABLE_{known}?"
            )


def resolve(keywords: Mapping[str, object], configuration: Callable[[str], object]) -> Settings:
    """
    The settings in force.

    Args:
        keywords: The keywords of ``Durable(...)``; None means not given.
        configuration: Looks a name up in the Celery app's configuration; returns None for unset.

    Raises:
        ConfigurationError: For a malformed value, naming the setting, where it came from, and why.
    """
    values = {}
    for name in NAMES:
        source, value = _find(name, keywords, configuration)
        if value is not None:
            values[name] = _parse(name, source, value)
    settings = Settings(**values)
    if settings.schema is not None and not settings.database_url.startswith("postgres"):
        raise ConfigurationError(
            f"schema={settings.schema!r} is for PostgreSQL, and database_url is of another database."
        )
    return settings


def _find(name: str, keywords: Mapping[str, object], configuration: Callable[[str], object]) -> tuple[str, object]:
    if keywords.get(name) is not None:
        return f"{name}=", keywords[name]
    variable = f"DURABLE_{name.upper()}"
    if os.environ.get(variable):
        return variable, os.environ[variable]
    return f"durable_{name} in the Celery configuration", configuration(f"durable_{name}")


def _parse(name: str, source: str, value: object) -> Any:
    try:
        return _PARSERS[name](value)
    except (TypeError, ValueError) as error:
        shown = _HIDDEN.get(name) or repr(value)
        raise ConfigurationError(f"{source} {shown} is not a setting for {name}: {error}.") from None
