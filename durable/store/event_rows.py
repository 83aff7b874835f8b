"""Events as rows, their values encrypted and decrypted by the vault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from .. import events
from ..events import ChildCreated, Event, StepCreated
from . import vault
from .vault import Vault

#: What the data of a row contains if its digest is encrypted.
_SEALED_DIGEST = f'"digest":"{vault.MARK}'


def to_row(tx: Connection, run_id: str, event: Event) -> dict[str, Any]:
    """The event of a run as columns, its value as it is stored."""
    own_vault = vault.of(tx)
    if own_vault.cipher is not None and isinstance(event, StepCreated | ChildCreated):
        # Encrypted rather than a MAC: equal ciphertexts would show which calls have the same arguments.
        event = replace(event, digest=own_vault.seal(tx, run_id, _digest_of(event), event.digest) or "")
    row = events.to_row(event)
    value = row["value"]
    if value is not None and len(value) > own_vault.plain_up_to:
        row["value"] = own_vault.seal(tx, run_id, event.op_id, value)
    return row


def from_row(
    own_vault: Vault, run_id: str, kind: str, *, seq: int, at: int, op_id: str, data: str, value: str | None
) -> Event:
    """
    The event of a row; a large value stays a reference.

    Raises:
        DecryptionError: This process does not have the key.
    """
    if value is not None and value[:1] == vault.MARK:
        value = own_vault.unseal(run_id, op_id, value)
    event = events.from_row(kind, seq=seq, at=at, op_id=op_id, data=data, value=value)
    if _SEALED_DIGEST in data and isinstance(event, StepCreated | ChildCreated):
        return replace(event, digest=own_vault.unseal(run_id, _digest_of(event), event.digest) or "")
    return event


def outline(row: Any) -> Event:
    """The event of a row with its value as it is stored, so that a process without the key can list events."""
    seq = getattr(row, "seq", 0)  # an inbox item has none yet
    return events.from_row(row.kind, seq=seq, at=row.at, op_id=row.op_id, data=row.data, value=row.value)


def load_large_values(tx: Connection, run_id: str, found: Iterable[Event], *, arguments: bool = True) -> list[Event]:
    """
    Replace references in events of a run by the large values that they refer to.

    Args:
        arguments: Also for arguments of steps and child runs; a replay needs only their digests.

    Raises:
        PayloadMissing: A value is gone, or is not what was stored.
    """
    loaded = []
    for event in found:
        value = None if event.value_field is None else getattr(event, event.value_field)
        is_wanted = arguments or not isinstance(event, StepCreated | ChildCreated)
        if is_wanted and value is not None and value[:1] == vault.MARK:
            loaded.append(_with_value(event, vault.of(tx).fetch(tx, run_id, value)))
        else:
            loaded.append(event)
    return loaded


def has_large(found: Iterable[Event]) -> bool:
    """Whether one of these events has a value that is stored by reference."""
    return any(event.value_field and vault.is_large(getattr(event, event.value_field)) for event in found)


def store_early(own_vault: Vault, run_id: str, found: Iterable[Event]) -> None:
    """Store the large values of events before their transaction, if the payload store is outside of the database."""
    if own_vault.payloads.is_outside:
        own_vault.store_early(run_id, (getattr(event, event.value_field) for event in found if event.value_field))


def is_same(found: Event, own: Event) -> bool:
    """Whether an event of the log equals *own*, which this process wrote and whose large value it still has."""
    field = found.value_field
    if field is not None and str(getattr(found, field))[:1] == vault.MARK:
        return _with_value(found, getattr(own, field, None)) == own
    return found == own


def _with_value(event: Event, value: str | None) -> Event:
    changes: dict[str, Any] = {str(event.value_field): value}
    return replace(event, **changes)


def _digest_of(event: Event) -> str:
    return f"{event.op_id} digest"
