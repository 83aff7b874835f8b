"""An encoded value as plain JSON, for people and other programs.  The classes of the value need not be imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..http import Request
from .builtin import shown_request
from .decoder import NO_REQUESTS, load
from .kinds import TAG, Fields, kind_by_tag


def plain(text: str, requests: Mapping[str, Request] = NO_REQUESTS) -> Any:
    """
    The value that ``encode`` wrote, as plain JSON.

    A dataclass becomes an object, a set a list, a date its ISO form, NaN the text "nan".

    Args:
        requests: Recorded requests by id.  Other requests are shown as their id.
    """

    def flatten(fields: Fields) -> Any:
        if TAG not in fields:
            return fields
        try:
            kind = kind_by_tag(fields[TAG])
            if kind.tag == "request" and fields.get("v") in requests:
                return shown_request(requests[fields["v"]])
            return kind.plain(fields)
        except Exception:  # a kind that this process does not have, or has in another form: show its content
            return fields.get("v")

    return load(text, flatten)


#: How many characters of a call are shown, as many as Celery shows; longer encoded calls are not examined.
SHOWN_LENGTH, EXAMINED_LENGTH = 1024, 65_536
#: How many characters of a value are shown in the text of an error, which is logged.
_IN_ERROR_LENGTH = 300


def shown_arguments(text: str) -> str:
    """
    An encoded call as Celery shows keyword arguments: ``{'order': 'A-1', 'amount': 3}``, shortened.

    The values of pydantic's secrets are masked.
    """
    if len(text) > EXAMINED_LENGTH:
        return "{...}"
    try:
        shown = repr(plain(text))
    except Exception:  # a reference to a large value, or the text of another version
        return "{...}"
    return shown if len(shown) <= SHOWN_LENGTH else shown[: SHOWN_LENGTH - 4] + "...}"


def shown_in_error(text: str) -> str:
    """
    An encoded value for the text of an error: compact JSON, shortened.

    The values of pydantic's secrets are masked.
    """
    shown = ""
    if len(text) <= EXAMINED_LENGTH:
        try:
            shown = json.dumps(plain(text), ensure_ascii=False, separators=(",", ":"))
        except Exception:  # a reference to a large value, or the text of another version
            shown = ""
    if shown and len(shown) <= _IN_ERROR_LENGTH:
        return shown
    return f"{shown[:_IN_ERROR_LENGTH]}… ({len(text)} characters)"
