"""Decode: ``json`` reads the text, and each tagged object becomes its value, the innermost first."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..errors import SerializationError
from ..http import Request
from .kinds import TAG, Fields, kind_by_tag

NO_REQUESTS: Mapping[str, Request] = MappingProxyType({})

#: A text without this has no tagged object.  It cannot occur within a string, where quotes are escaped.
_TAGGED = f'"{TAG}":'
_load_plain = json.JSONDecoder().decode
_REQUEST = re.compile(r'"\$":"request","v":("(?:[^"\\]|\\.)*")')


def decode(text: str, requests: Mapping[str, Request] = NO_REQUESTS) -> Any:
    """
    The value that ``encode`` wrote.

    Args:
        requests: The recorded requests that the value refers to (``request_ids``), by id.

    Raises:
        SerializationError: If this process does not have a class, a request or a kind of the value.
    """
    if _TAGGED not in text:
        return load(text, None)

    def revive(fields: Fields) -> Any:
        if TAG not in fields:
            return fields
        return read_tagged(requests, fields)

    return load(text, revive)


def request_ids(text: str) -> set[str]:
    """The ids of the recorded requests in an encoded value."""
    if '"request"' not in text:
        return set()
    return {json.loads(quoted) for quoted in _REQUEST.findall(text)}


def read_tagged(requests: Mapping[str, Request], fields: Fields) -> Any:
    """The value of a tagged object whose fields are decoded."""
    kind = kind_by_tag(fields[TAG])
    try:
        return kind.read(requests, fields)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            "value", f"its {kind.tag} cannot be rebuilt: {type(error).__name__}: {error}"
        ) from error


def load(text: str, hook: Callable[[Fields], Any] | None) -> Any:
    """The value of the JSON text; *hook* replaces each object, the innermost first."""
    try:
        return _load_plain(text) if hook is None else json.loads(text, object_hook=hook)
    except RecursionError:
        raise SerializationError("value", "it is nested too deeply to be read with the stack that is left.") from None
    except ValueError as error:
        raise SerializationError("value", f"its text is not JSON: {error}") from error
