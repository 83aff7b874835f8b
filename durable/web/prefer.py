"""Parses ``Prefer: respond-async, wait=N`` (RFC 7240), by which a sender says how long it waits for the answer."""

from __future__ import annotations

import re
from typing import NamedTuple

_PREFERENCE = re.compile(r"\s*(respond-async|wait\s*=\s*\"?([0-9]{1,9})\"?)\s*(?:;.*)?", re.IGNORECASE | re.ASCII)


class Preference(NamedTuple):
    """Whether the sender prefers a 202 to a long wait; how many seconds it waits, None for the webhook's timeout."""

    respond_async: bool = False
    wait_secs: float | None = None


def parse(header: str | None) -> Preference:
    """Parse the header.  Unknown and malformed parts are ignored."""
    respond_async, wait_secs = False, None
    for part in (header or "").split(","):
        found = _PREFERENCE.fullmatch(part)
        if found is None:
            continue
        if found[2] is None:
            respond_async = True
        elif wait_secs is None:
            wait_secs = float(found[2])
    if respond_async and wait_secs is None:
        wait_secs = 0.0
    return Preference(respond_async, wait_secs)
