"""
Which rule of a receiver a request matches, and what it says.

The author's functions run in the web process.  Whatever they raise or return becomes ``Unroutable``, with words that
say what is wrong.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import category

from werkzeug.datastructures import Headers

from ..http import Request
from .receivers import ReceiverDefinition, ResumeRule, StartRule

#: The most events of one batch: they are recorded in one transaction.
MAX_EVENTS = 1_000
#: The longest token, in characters.
_MAX_TOKEN = 255
#: Headers that describe the body of a batch, and not that of one event.
_OF_BODY = frozenset({"content-length", "content-type", "content-encoding", "transfer-encoding"})


class Unroutable(Exception):
    """Raised when the functions of a rule cannot be used for a request.  ``rule`` names the rule."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class StartRoute:
    """The request starts a run."""

    rule: StartRule


@dataclass(frozen=True, slots=True)
class ResumeRoute:
    """
    The request goes to the hook with this token.

    Attributes:
        payload: What the hook receives; None for the request itself.
        start: The rule that starts a run if no hook is open.
    """

    rule: ResumeRule
    token: str
    payload: tuple[object] | None
    start: StartRule | None


def events_of(receiver: ReceiverDefinition, request: Request) -> list[Request]:
    """
    The events of a batch, each as a request of its own; the request itself for a receiver without ``each``.

    Raises:
        Unroutable: ``each`` cannot be used for this request.
    """
    if receiver.each is None:
        return [request]
    elements: Any = _call("each", "each", receiver.each, request)
    if isinstance(elements, str | bytes | dict):
        raise Unroutable("each", f"each returned {_short(elements)}; it must return a list of events")
    try:
        bodies = [element if isinstance(element, bytes) else json.dumps(element).encode() for element in elements]
    except Exception as error:
        raise Unroutable("each", f"the events that each returned cannot be read as JSON: {error}") from error
    if len(bodies) > MAX_EVENTS:
        raise Unroutable("each", f"each returned {len(bodies)} events, and a batch may have {MAX_EVENTS}")
    return [_event(request, number, body) for number, body in enumerate(bodies)]


def event_id(batch_id: str, number: int) -> str:
    """The id of an event of a batch.  It is as hard to guess as that of the batch."""
    digest = hashlib.sha256(f"{batch_id}/{number}".encode()).digest()
    return urlsafe_b64encode(digest[:18]).decode().replace("-", "_")


def _event(batch: Request, number: int, body: bytes) -> Request:
    """One event of a batch."""
    headers = Headers([(name, value) for name, value in batch.headers if name.lower() not in _OF_BODY])
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    return replace(batch, id=event_id(str(batch.id), number), data=body, headers=headers)


def route(receiver: ReceiverDefinition, request: Request) -> StartRoute | ResumeRoute | None:
    """
    What the first rule that matches says; None if no rule matches.

    Raises:
        Unroutable: A function of a rule cannot be used for this request.
    """
    for rule in receiver.rules:
        if rule.when is not None and not _call(rule.label, "when", rule.when, request):
            continue
        if isinstance(rule, StartRule):
            return StartRoute(rule)
        token = _checked_token(rule, _call(rule.label, "token", rule.token, request))
        payload = None if rule.payload is None else (_call(rule.label, "payload", rule.payload, request),)
        return ResumeRoute(rule, token, payload, _start_rule(receiver, rule, request))
    return None


def _start_rule(receiver: ReceiverDefinition, rule: ResumeRule, request: Request) -> StartRule | None:
    """The rule that starts a run when the hook of *rule* is missing."""
    if rule.missing != "start":
        return None
    for other in receiver.rules:
        if isinstance(other, StartRule) and (other.when is None or _call(other.label, "when", other.when, request)):
            return other
    raise Unroutable(rule.label, 'missing is "start", but no start rule of the receiver matches the request')


def _call(rule: str, what: str, function: Callable[[Request], object], request: Request) -> object:
    try:
        return function(request)
    except Exception as error:
        raise Unroutable(rule, f"{what} raised {type(error).__name__}: {error}") from error


def _checked_token(rule: ResumeRule, token: object) -> str:
    if not isinstance(token, str):
        raise Unroutable(rule.label, f"token returned {_short(token)}, which is no text")
    # As for the token of a hook: other texts are the token of none.
    if not 1 <= len(token) <= _MAX_TOKEN or any(category(character) in ("Cc", "Cs") for character in token):
        raise Unroutable(
            rule.label,
            f"token returned {_short(token)}; a token has 1 to {_MAX_TOKEN} characters and no control characters",
        )
    return token


def _short(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:80] + '...'}"
