"""
Dedupe keys: two requests with the same key are the same request, sent twice.

``rule`` writes ``dedupe=`` as one of these rules, which is recorded with the
webhook.  ``key_of`` reads a request's key by it::

    {"by": "auto", "sender": name | null}     the preset's key, else the well-known headers
    {"by": "sender", "sender": name}          the preset's key
    {"by": "headers", "names": [name, …]}     all of these headers together
    {"by": "pointer", "at": "/data/id"}       a value of a JSON body (RFC 6901)
    {"by": "function", "name": name}          a function registered by ``verify.dedupe_key``
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..errors import ConfigurationError
from ..http import Request
from .presets import KeyOf, Preset, Verification, find

#: The headers that ``"auto"`` tries, in this order; each entry is one key.
WELL_KNOWN = (
    ("webhook-id",),
    ("svix-id",),
    ("idempotency-key",),
    ("x-github-delivery",),
    ("x-shopify-webhook-id",),
    ("i-twilio-idempotency-token",),
    ("x-amz-sns-message-id",),
    ("ce-source", "ce-id"),
)

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_INDEX = re.compile("0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class DedupeKey:
    """A function that returns a request's dedupe key, under a name that can be recorded."""

    name: str
    read: KeyOf

    def __call__(self, request: Request) -> str | None:
        return self.read(request)


#: What ``create_webhook(dedupe=…)`` takes.
Dedupe: TypeAlias = str | Sequence[str] | Preset[Any] | DedupeKey | Literal[False] | None

_functions: dict[str, DedupeKey] = {}


def dedupe_key(name: str) -> Callable[[KeyOf], DedupeKey]:
    """
    Register a function for ``create_webhook(dedupe=…)``: it gets a ``Request`` and returns a str or None.

    Import its module in workers and in the web application.  If it raises, the request has no key.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= 64:
        raise ConfigurationError(f"{name!r} is no name for a dedupe key: use 1 to 64 characters.")

    def decorate(read: KeyOf) -> DedupeKey:
        existing = _functions.get(name)
        if existing is not None and (existing.read.__module__, existing.read.__qualname__) != (
            read.__module__,
            read.__qualname__,
        ):
            raise ConfigurationError(
                f"The dedupe key {name!r} is taken by {existing.read.__module__}.{existing.read.__qualname__}.  Use"
                " another name."
            )
        _functions[name] = DedupeKey(name, read)
        return _functions[name]

    return decorate


def rule(dedupe: Dedupe, verification: Verification | None) -> dict[str, Any] | None:
    """
    The rule for a webhook's ``dedupe=``, as it is recorded; None if its requests have no keys.

    Raises:
        TypeError, ValueError: *dedupe* is malformed.
    """
    preset_name = None if verification is None or find(verification.by).key is None else verification.by
    match dedupe:
        case None:
            return None if preset_name is None else {"by": "sender", "sender": preset_name}
        case False:
            return None
        case "auto":
            return {"by": "auto", "sender": preset_name}
        case DedupeKey(name=name):
            return {"by": "function", "name": name}
        case Preset(name=name):
            if dedupe.key is None:
                raise ValueError(f"Requests of {name} have no key of their own: use a header or a JSON pointer.")
            return {"by": "sender", "sender": name}
        case str() if dedupe.startswith("/"):
            return {"by": "pointer", "at": dedupe}
        case str():
            return _headers_rule([dedupe])
        case list() | tuple():
            return _headers_rule(dedupe)
    raise TypeError(
        f'dedupe is {dedupe!r}; use "auto", a header\'s name or a list of them, a JSON pointer ("/id"), a preset'
        " such as verify.stripe, or a function made by @verify.dedupe_key(name)."
    )


def _headers_rule(names: Sequence[Any]) -> dict[str, Any]:
    if not names or not all(isinstance(name, str) and _HEADER.fullmatch(name) for name in names):
        raise ValueError(f"dedupe is {names!r}, but these are no names of headers.")
    return {"by": "headers", "names": [name.lower() for name in names]}


def key_of(recorded: dict[str, Any] | None, request: Request) -> str | None:
    """
    The key of a request by a recorded rule, as a hash; None if the request has no key.

    Raises:
        ConfigurationError: This process has not imported the function or preset that reads it.
    """
    if recorded is None:
        return None
    parts = _parts(recorded, request)
    return None if parts is None else hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()


def is_same_body(recorded: dict[str, Any] | None, one: bytes, other: bytes) -> bool:
    """
    Whether two requests with the same key have the same body.

    Some senders change a part of the body when they send an event again, such as a count of deliveries.
    """
    sender = (recorded or {}).get("sender")
    same = bytes if sender is None else find(sender).same
    return one == other or same(one) == same(other)


def _parts(recorded: dict[str, Any], request: Request) -> list[str] | None:
    match recorded:
        case {"by": "auto", "sender": sender}:
            own = None if sender is None else _one(find(sender).key, request)
            return own or next((parts for names in WELL_KNOWN if (parts := _of_headers(names, request))), None)
        case {"by": "sender", "sender": sender}:
            return _one(find(sender).key, request)
        case {"by": "headers", "names": names}:
            return _of_headers(names, request)
        case {"by": "pointer", "at": pointer}:
            return _one(json_key(pointer), request)
        case {"by": "function", "name": name}:
            if name not in _functions:
                raise ConfigurationError(
                    f"A webhook has the dedupe key {name!r}, but this process has none of this name.  Import the module"
                    f' with @verify.dedupe_key("{name}") in the web application too.'
                )
            return _one(_functions[name], request)
    raise ConfigurationError(
        f"A webhook has the dedupe rule {recorded!r}, which this version of durable does not support: update it."
    )


def _one(read: KeyOf | None, request: Request) -> list[str] | None:
    try:
        key = None if read is None else read(request)
    except Exception:
        # Hostile input, or a bug in the function.  Losing the request is worse than accepting it twice.
        return None
    return [key] if isinstance(key, str) and key else None


def _of_headers(names: Sequence[str], request: Request) -> list[str] | None:
    values = [request.headers.get(name, "") for name in names]
    return [*names, *values] if all(values) else None


def header_key(name: str) -> KeyOf:
    """A function that returns a header of a request."""
    return lambda request: request.headers.get(name)


def json_key(pointer: str) -> KeyOf:
    """A function that returns a string or a number of a JSON body, by its JSON pointer (RFC 6901)."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]

    def read(request: Request) -> str | None:
        value = request.json(default=None)
        for step in steps:
            if isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
                value = value[int(step)]
            else:
                value = value.get(step) if isinstance(value, dict) else None
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None

    return read
