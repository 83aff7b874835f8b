"""Receivers, and the requests that they have received, as dicts of plain JSON."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .. import context, duration
from ..engine import Engine
from ..errors import DecryptionError, PayloadMissing
from ..store import ReceivedRow, received

#: The most receivers whose refusals are counted.
MOST = 1_000


def list_receivers(engine: Engine) -> list[dict[str, Any]]:
    """
    Return the receivers that this process has imported, and those that have received requests.

    ``refused`` counts requests whose sender was not verified.  ``url`` and ``place`` are None for a receiver that this
    process has not imported; ``url`` also without the setting ``public_url``.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        counted = received.counts(tx)
        refused = received.refusing(tx, 0, MOST)
    names = sorted({*context.receivers, *(name for name, _ in counted), *refused})
    return [
        _receiver(engine, name, counted) | {"refused": refused[name].count if name in refused else 0} for name in names
    ]


def _receiver(engine: Engine, name: str, counted: dict[tuple[str, str], int]) -> dict[str, Any]:
    defined, public_url = context.receivers.get(name), engine.settings.public_url
    return {
        "name": name,
        "url": None if defined is None or public_url is None else defined.url_below(public_url),
        "place": None if defined is None else defined.place,
        "rules": [] if defined is None else [rule.label for rule in defined.rules],
        "requests": {outcome: count for (receiver, outcome), count in sorted(counted.items()) if receiver == name},
    }


def list_received(
    engine: Engine,
    *,
    receiver: str | None = None,
    outcomes: Collection[str] = (),
    limit: int = 50,
    oldest_first: bool = False,
) -> list[dict[str, Any]]:
    """
    Return the newest requests, of one receiver or of all, with one of these outcomes or with any.

    Args:
        oldest_first: Return the oldest ones instead, the oldest first.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        rows = received.newest(tx, receiver=receiver, outcomes=outcomes, limit=limit, oldest_first=oldest_first)
        details = [detail_of(tx, row) for row in rows]
    return [_request(row, detail) for row, detail in zip(rows, details, strict=True)]


def detail_of(tx: Any, row: ReceivedRow) -> str | None:
    """The reason why a request could not be routed; None if there is none, or if it cannot be decrypted here."""
    try:
        return received.detail_of(tx, row)
    except (DecryptionError, PayloadMissing):
        return None


def _request(row: ReceivedRow, detail: str | None) -> dict[str, Any]:
    return {
        "id": row.request_id,
        "receiver": row.receiver,
        "received_at": duration.iso(row.received_at),
        "outcome": row.outcome,
        "rule": row.rule,
        "run_id": row.run_id,
        "token": row.token,
        "waits_until": duration.iso(row.waits_until),
        "detail": detail,
    }
