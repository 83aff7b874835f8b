"""Limits for each sender, checked before a request is read.  They use a bounded amount of memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

MAX_HEADERS = 100
MAX_HEADERS_SIZE = 64 * 1024

#: How many look-ups from one address may fail within ``WINDOW_SECS``, and how many addresses are counted.
FAILURES = 20
WINDOW_SECS = 60.0
ADDRESSES = 10_000


def has_large_headers(headers: Iterable[tuple[str, str]]) -> bool:
    """Return whether a request has too many headers, or too large ones."""
    sizes = [len(name) + len(value) for name, value in headers]
    return len(sizes) > MAX_HEADERS or sum(sizes) > MAX_HEADERS_SIZE


class FailedLookups:
    """
    Counts look-ups of webhooks that do not exist, by address.

    It only turns a 404 into a 429.  A webhook that exists never refuses a request because of it: behind
    a proxy all senders may share one address, and one of them must not block the others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By network: when its window began, and how many look-ups failed in it.  The latest failure is last.
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def count(self, address: str | None) -> int | None:
        """Count a failed look-up; return the seconds to wait before the next one if there were too many, else None."""
        try:
            parsed = ipaddress.ip_address(address or "")
        except ValueError:
            # All senders whose address is unknown are counted as one.
            network = "unknown"
        else:
            # One sender may use all addresses of an IPv6 /64.
            network = str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)
        now = self._clock()
        began, failures = self._failed.pop(network, (now, 0))
        if now - began >= WINDOW_SECS:
            began, failures = now, 0
        self._failed[network] = (began, failures + 1)
        while len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)
        return max(1, round(began + WINDOW_SECS - now)) if failures >= FAILURES else None
