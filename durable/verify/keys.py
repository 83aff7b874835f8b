"""
What tells that two requests are the same one, sent twice.

``dedupe=`` is written down as one of these, and a request's key is read by it::

    {"by": "auto", "sender": name | null}     the sender's own, else the well-known headers
    {"by": "sender", "sender": name}
    {"by": "headers", "names": [name, …]}     all of them together
    {"by": "pointer", "at": "/data/id"}       RFC 6901, into a JSON body
    {"by": "function", "name": name}          one made by ``verify.dedupe_key``
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

#: Each is a key by itself; the last two are one together.
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


@dataclass(frozen=True)
class DedupeKey:
    """A function that reads a request's key, under a name that can be recorded."""

    name: str
    read: KeyOf

    def __call__(self, request: Request) -> str | None:
        return self.read(request)


#: What ``create_webhook(dedupe=…)`` takes.
Dedupe: TypeAlias = str | Sequence[str] | Preset[Any] | DedupeKey | Literal[False] | None

_functions: dict[str, DedupeKey] = {}


def dedupe_key(name: str) -> Callable[[KeyOf], DedupeKey]:
    """
    Make a key for ``create_webhook(dedupe=…)`` of a function: given a ``Request``, it returns a str, or None.

    Import it in workers and in the web application.  An error in it counts as None.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= 64:
        raise ConfigurationError(f"{name!r} cannot name a dedupe key: use 1 to 64 characters.")

    def decorate(read: KeyOf) -> DedupeKey:
        before = _functions.get(name)
        if before is not None and (before.read.__module__, before.read.__qualname__) != (
            read.__module__,
            read.__qualname__,
        ):
            raise ConfigurationError(f"The dedupe key {name!r} is another function's already; take another name.")
        _functions[name] = DedupeKey(name, read)
        return _functions[name]

    return decorate


def rule(dedupe: Dedupe, verification: Verification | None) -> dict[str, Any] | None:
    """
    How a webhook's duplicates are told, as it is recorded; None: not at all.

    Raises:
        TypeError, ValueError: For what is no rule.
    """
    own = None if verification is None or find(verification.by).key is None else verification.by
    match dedupe:
        case None:
            return None if own is None else {"by": "sender", "sender": own}
        case False:
            return None
        case "auto":
            return {"by": "auto", "sender": own}
        case DedupeKey(name=name):
            return {"by": "function", "name": name}
        case Preset(name=name):
            if dedupe.key is None:
                raise ValueError(f"{name} says nothing by which duplicates could be told; name a header or a pointer.")
            return {"by": "sender", "sender": name}
        case str() if dedupe.startswith("/"):
            return {"by": "pointer", "at": dedupe}
        case str():
            return _headers([dedupe])
        case list() | tuple():
            return _headers(dedupe)
    raise TypeError(
        f'dedupe is {dedupe!r}; use "auto", a header\'s name or a list of them, a JSON pointer ("/id"), a preset'
        " such as verify.stripe, or a function made by @verify.dedupe_key(name)."
    )


def _headers(names: Sequence[Any]) -> dict[str, Any]:
    if not names or not all(isinstance(name, str) and _HEADER.fullmatch(name) for name in names):
        raise ValueError(f"dedupe={names!r}: these are not names of headers.")
    return {"by": "headers", "names": [name.lower() for name in names]}


def key_of(known: dict[str, Any] | None, request: Request) -> str | None:
    """
    The key of a request as it is kept, a hash; None when it says nothing.

    Raises:
        ConfigurationError: This process does not know the function that reads it.
    """
    if known is None:
        return None
    found = _parts(known, request)
    return None if found is None else hashlib.sha256(json.dumps(found).encode("ascii")).hexdigest()


def _parts(known: dict[str, Any], request: Request) -> list[str] | None:
    match known:
        case {"by": "auto", "sender": sender}:
            own = None if sender is None else _one(find(sender).key, request)
            return own or next((found for names in WELL_KNOWN if (found := _of_headers(names, request))), None)
        case {"by": "sender", "sender": sender}:
            return _one(find(sender).key, request)
        case {"by": "headers", "names": names}:
            return _of_headers(names, request)
        case {"by": "pointer", "at": pointer}:
            return _one(json_key(pointer), request)
        case {"by": "function", "name": name}:
            return _one(_function(name), request)
    raise ConfigurationError(f"A webhook tells duplicates by {known!r}, which this code does not know: update it.")


def _function(name: str) -> DedupeKey:
    if name not in _functions:
        raise ConfigurationError(
            f"A webhook tells duplicates by the function {name!r}, which this process does not know.  Import the"
            f' module with @verify.dedupe_key("{name}") in the web application too.'
        )
    return _functions[name]


def _one(read: KeyOf | None, request: Request) -> list[str] | None:
    try:
        found = None if read is None else read(request)
    except Exception:
        # Hostile input, or a bug of the author's: to lose the request would be worse than to take it twice.
        return None
    return [found] if isinstance(found, str) and found else None


def _of_headers(names: Sequence[str], request: Request) -> list[str] | None:
    found = [request.headers.get(name, "") for name in names]
    return [*names, *found] if all(found) else None


def header_key(name: str) -> KeyOf:
    """Reads a header."""
    return lambda request: request.headers.get(name)


def json_key(pointer: str) -> KeyOf:
    """Reads a string or a number out of a JSON body (RFC 6901)."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]

    def read(request: Request) -> str | None:
        found = request.json(default=None)
        for step in steps:
            found = _into(found, step)
        return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None

    return read


def _into(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and re.fullmatch("0|[1-9][0-9]{0,8}", step, re.ASCII) and int(step) < len(value):
        return value[int(step)]
    return None
