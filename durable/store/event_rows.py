"""Events as rows: their values by way of the vault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from .. import events
from ..events import ChildCreated, Event, StepCreated
from . import vault
from .vault import Vault

#: What a sealed digest looks like within the data of a row.
_SEALED_DIGEST = f'"digest":"{vault.MARK}'


def to_row(tx: Connection, run_id: str, event: Event) -> dict[str, Any]:
    """The event of a run as columns, its value as it is stored."""
    kept = vault.of(tx)
    if kept.cipher is not None and isinstance(event, StepCreated | ChildCreated):
        # Random where a MAC would show which calls have the same arguments; and a new key changes nothing for old runs.
        event = replace(event, digest=kept.seal(tx, run_id, _digest_of(event), event.digest) or "")
    row = events.to_row(event)
    value = row["value"]
    if value is not None and len(value) > kept.plain_up_to:
        row["value"] = kept.seal(tx, run_id, event.op_id, value)
    return row


def from_row(
    kept: Vault, run_id: str, kind: str, *, seq: int, at: int, op_id: str, data: str, value: str | None
) -> Event:
    """
    The event of a row; a large value is a reference.

    Raises:
        DecryptionError: This process cannot read it.
    """
    if value is not None and value[:1] == vault.MARK:
        value = kept.unseal(run_id, op_id, value)
    event = events.from_row(kind, seq=seq, at=at, op_id=op_id, data=data, value=value)
    if _SEALED_DIGEST in data and isinstance(event, StepCreated | ChildCreated):
        return replace(event, digest=kept.unseal(run_id, _digest_of(event), event.digest) or "")
    return event


def outline(row: Any) -> Event:
    """The event of a row, its value as it is stored: nothing is decrypted, so that anybody may list what happened."""
    seq = getattr(row, "seq", 0)  # news have none yet
    return events.from_row(row.kind, seq=seq, at=row.at, op_id=row.op_id, data=row.data, value=row.value)


def fetched(tx: Connection, run_id: str, found: Iterable[Event], *, arguments: bool = True) -> list[Event]:
    """
    Events of a run with large values whole.

    Args:
        arguments: Those of steps and child runs too, which a replay compares by their digest.

    Raises:
        PayloadMissing: One is not there, or not what was stored.
    """
    return [_fetched(tx, run_id, event, arguments) for event in found]


def _fetched(tx: Connection, run_id: str, event: Event, arguments: bool) -> Event:
    value = None if event.value_field is None else getattr(event, event.value_field)
    if value is None or value[:1] != vault.MARK or not (arguments or not isinstance(event, StepCreated | ChildCreated)):
        return event
    return _with_value(event, vault.of(tx).fetch(tx, run_id, value))


def has_large(found: Iterable[Event]) -> bool:
    """Whether a value of theirs is stored by reference."""
    return any(event.value_field and vault.is_large(getattr(event, event.value_field)) for event in found)


def store_early(kept: Vault, run_id: str, found: Iterable[Event]) -> None:
    """Store the large values of events where that need not wait for their transaction."""
    if kept.payloads.is_outside:
        kept.store_early(run_id, (getattr(event, event.value_field) for event in found if event.value_field))


def is_same(found: Event, known: Event) -> bool:
    """Whether an event of the log is one that this process wrote, whose large value it still has."""
    field = found.value_field
    if field is not None and str(getattr(found, field))[:1] == vault.MARK:
        return _with_value(found, getattr(known, field, None)) == known
    return found == known


def _with_value(event: Event, value: str | None) -> Event:
    known: dict[str, Any] = {str(event.value_field): value}
    return replace(event, **known)


def _digest_of(event: Event) -> str:
    return f"{event.op_id} digest"
