"""``Delivery``: the request that a verifier gets; and the exceptions by which it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import Headers, ImmutableMultiDict

from ..http import Request


class Rejected(Exception):
    """
    Raised by a verifier to refuse a request, which is then answered 401.

    The message is logged, so it must contain nothing that the sender wrote.
    """


class Unavailable(Exception):
    """Raised when something that the verifier needs cannot be fetched now; the request is answered 503."""


def no_fetch(url: str) -> bytes:
    """The default of ``Delivery.fetch``, for tests: it fetches nothing."""
    raise Unavailable("this Delivery has no fetch")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """
    A request that is not recorded yet, and what it is verified with.

    Attributes:
        request: The request; ``request.data`` has the bytes as they were sent.
        url: The webhook's own URL, with the query as it was sent.  Behind a proxy ``request.url`` may have
            another scheme and host.
        now: The current time, in seconds since 1970.
        resolved: The secrets that the webhook names, by purpose.
        options: The options that the verifier got when the webhook was created.
        fetch: Fetches a URL.  The verifier has to check first that the URL is harmless.
    """

    request: Request
    url: str = ""
    now: float = 0.0
    resolved: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    fetch: Callable[[str], bytes] = field(default=no_fetch, repr=False)

    @property
    def method(self) -> str:
        """The method of the request."""
        return self.request.method

    @property
    def headers(self) -> Headers:
        """The headers of the request."""
        return self.request.headers

    @property
    def body(self) -> bytes:
        """The body, byte for byte as it was sent."""
        return self.request.data

    @property
    def form(self) -> ImmutableMultiDict[str, str]:
        """The fields of a form; raises BadRequestBody if it is too large, incomplete or malformed."""
        return self.request.form

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The secrets.  There are several while a secret is being changed; accept a request that matches any."""
        return self.secrets_for("secret")

    def secrets_for(self, purpose: str) -> tuple[bytes, ...]:
        """The secrets of one purpose, such as ``"verify_token"``."""
        return self.resolved.get(purpose, ())

    def header(self, name: str) -> bytes:
        """The bytes of a header; raises Rejected if it is missing."""
        value = self.headers.get(name)
        if value is None:
            raise Rejected(f"the header {name} is missing")
        return value.encode("latin-1")

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; raises Rejected for anything else, and if an object has a name twice."""
        try:
            document = json.loads(self.body, object_pairs_hook=_distinct)
        except (ValueError, RecursionError):
            raise Rejected("the body is not JSON") from None
        if not isinstance(document, dict):
            raise Rejected("the body is not a JSON object")
        return document


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON parsers differ in which of two values counts, so a signature would not protect the one that a step reads.
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Rejected("an object in the body has the same name twice")
    return document
