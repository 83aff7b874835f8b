"""Events as rows: the columns of an event, and the event of a row."""

from __future__ import annotations

import json
from typing import Any

from .event import KINDS, Event

_dump = json.JSONEncoder(separators=(",", ":")).encode
_load = json.JSONDecoder().decode


def to_row(event: Event) -> dict[str, Any]:
    """The event as the columns ``kind phase seq at op_id data value``; ``data`` is JSON text."""
    kind, phase, in_data = event.row_form
    data = {name: value for name, default in in_data if (value := getattr(event, name)) != default}
    return {
        "kind": kind,
        "phase": phase,
        "seq": event.seq,
        "at": event.at,
        "op_id": event.op_id,
        "data": _dump(data),
        "value": getattr(event, event.value_field) if event.value_field else None,
    }


def from_row(kind: str, *, seq: int, at: int, op_id: str, data: str, value: str | None) -> Event:
    """The event of a row that ``to_row`` made."""
    cls = KINDS[kind]
    values: dict[str, Any] = _load(data)
    if "responded" in values:
        values["responded"] = tuple(values["responded"])
    if "handed_over" in values:
        values["handed_over"] = tuple(values["handed_over"])
    if cls.value_field:
        values[cls.value_field] = value
    return cls(seq=seq, at=at, op_id=op_id, **values)
