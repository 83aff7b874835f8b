"""What a verifier looks at, and how it says no."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import Headers, ImmutableMultiDict

from ..http import Request


class Rejected(Exception):
    """
    Raised by a verifier that does not accept a request: its sender is answered 401.

    The message goes into the log, so it must hold nothing that the sender wrote.
    """


class Unavailable(Exception):
    """Raised when something outside is needed to decide and cannot be had now: the sender is answered 503."""


def no_fetch(url: str) -> bytes:
    """What a ``Delivery`` made by hand fetches with: nothing."""
    raise Unavailable("nothing is fetched here")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """
    A request that has not been recorded, and what it is verified with.

    Attributes:
        request: As it was received; ``request.data`` are the bytes that were sent.
        url: As its sender wrote it: the webhook's own URL, with the query as it was sent.  Behind a
            proxy ``request.url`` may have another scheme and host.
        now: Seconds since 1970.
        resolved: The secrets that the webhook names, by what they are for.
        options: What the verifier was given when the webhook was created.
        fetch: Gets what stands at a URL that the verifier has found harmless.
    """

    request: Request
    url: str = ""
    now: float = 0.0
    resolved: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    fetch: Callable[[str], bytes] = field(default=no_fetch, repr=False)

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def headers(self) -> Headers:
        return self.request.headers

    @property
    def body(self) -> bytes:
        return self.request.data

    @property
    def form(self) -> ImmutableMultiDict[str, str]:
        """The fields of a form; BadRequestBody for one that is too large, cut off or malformed."""
        return self.request.form

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The secrets; several while they are being changed, any of which may fit."""
        return self.secrets_for("secret")

    def secrets_for(self, purpose: str) -> tuple[bytes, ...]:
        return self.resolved.get(purpose, ())

    def header(self, name: str) -> bytes:
        """The bytes of a header; Rejected when it isn't there."""
        value = self.headers.get(name)
        if value is None:
            raise Rejected(f"the header {name} is missing")
        return value.encode("latin-1")

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; Rejected when it is none, or has a name twice: readers differ in which counts."""
        try:
            found = json.loads(self.body, object_pairs_hook=_distinct)
        except (ValueError, RecursionError):
            raise Rejected("the body is not JSON") from None
        if not isinstance(found, dict):
            raise Rejected("the body is not a JSON object")
        return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Rejected("an object in the body has the same name twice")
    return found
