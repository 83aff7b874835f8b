"""Limits of steps and of workflows: what is in use and who waits, and their numbers at run time."""

from __future__ import annotations

from typing import Any

from .. import duration, registry
from ..engine import Engine
from ..errors import ConfigurationError
from ..nearest import did_you_mean
from ..store import limit_view, limits

#: What a limit is of, by its kind in the database.
KINDS = {None: "attempts", "runs": "runs", "debounce": "debounce"}


def list_limits(engine: Engine, limit: int = 1000) -> list[dict[str, Any]]:
    """Return all limits, each with the keys that are in use or waited for, as plain JSON."""
    engine.check_schema()
    with engine.store.read() as tx:
        found = limit_view.states(tx, limit, engine.store.now())
    return [
        as_json(state)
        | {"waiting": state.waiting, "oldest": duration.iso(state.oldest)}
        | {"paused_until": duration.iso(state.paused_until)}
        for state in found
    ]


def as_json(state: limit_view.LimitState) -> dict[str, Any]:
    """Return a limit, one of its keys, and what is in use of it."""
    per = None if state.per is None else duration.to_text(state.per)
    return {"limit": state.name, "key": state.key, "n": state.n, "per": per, "set": state.is_set} | {
        "of": KINDS[state.kind],
        "in_use": state.in_use,
    }


def resume(engine: Engine, name: str, key: str | None = None) -> int:
    """
    End the pauses of a limit, of one key or of all.

    Returns:
        How many keys were paused.
    """
    engine.check_schema()
    now = engine.store.now()
    return engine.store.write(lambda tx: limits.resume(tx, name, key, now))


def set_limit(engine: Engine, name: str, n: int | None) -> None:
    """
    Set the number of a limit, for all processes; it stays when you deploy.

    Args:
        n: How many at once, or within the limit's time; None for the number in the code.

    Raises:
        ConfigurationError: *n* is no whole number from 1 on, or there is no such limit.
    """
    if n is not None:
        registry.check_number(n)
    engine.check_schema()
    declared = registry.limits.get(name)
    if declared is not None and declared.wait is not None:
        raise ConfigurationError(f"{name!r} is a debounce, which has no number: change its times in the code.")
    now = engine.store.now()
    with engine.store.begin() as tx:
        if declared is not None:
            limits.declare(tx, name, limits.Numbers(*declared.numbers), declared.kind)
        if limits.set_number(tx, name, n, now):
            return
        known = [state.name for state in limit_view.states(tx, 1000, now)]
    raise ConfigurationError(
        f"There is no limit {name!r}.{did_you_mean(name, {*known, *registry.limits})}  A limit is known once the code"
        " that declares it is imported here, or has run."
    )
