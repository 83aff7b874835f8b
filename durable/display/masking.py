"""Masks tokens of webhooks and credentials in queries, in text that people read and paste: they work like passwords."""

from __future__ import annotations

import re
from typing import Any

# The token of parse_target, also percent-encoded.
_TOKEN = re.compile(r"(v1/webhook(?:/|%2F))[A-Za-z0-9_%-]{20,}", re.IGNORECASE)

# Credentials that Meta, CloudEvents, Graph and X put into the query, and read tokens.
_QUERY = re.compile(
    r"\b((?:hub\.verify_token|access_token|validationToken|crc_token|clientState|(?<=[?&])token)=)[^&\s\"'#]+"
)
#: A text without any of these has neither.
_PLACES = ("webhook", "v1/receive/", "v1/streams/", "v1/values/")


def mask(text: str) -> str:
    """Return *text* with ``...`` for each token in a webhook's path and each credential in a query."""
    if not has_route(text):
        return text
    return _QUERY.sub(r"\1...", _TOKEN.sub(r"\1...", text))


def mask_query(query: str) -> str:
    """Return *query*, which belongs to a route of durable, with ``...`` for each credential."""
    # The first parameter follows a "?" in a URL, and nothing in a query alone.
    return _QUERY.sub(r"\1...", f"?{query}")[1:]


def has_route(text: str) -> bool:
    """Whether *text* can have the URL of a route whose path or query has secrets."""
    return any(place in text for place in _PLACES)


def masked_deeply(value: Any) -> Any:
    """A plain value whose texts have no token of a webhook."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [masked_deeply(item) for item in value]
    if isinstance(value, dict):
        return {mask(str(key)): masked_deeply(item) for key, item in value.items()}
    return value
