"""What one sender may ask of the blueprint before anything is looked at, in bounded memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

MAX_HEADERS = 100
MAX_HEADERS_SIZE = 64 * 1024

#: How many look-ups of one address may fail in a window of time, and how many addresses are remembered.
FAILURES = 20
WINDOW_SECS = 60.0
ADDRESSES = 10_000


def has_large_headers(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether a request has more headers, or larger ones, than it may."""
    sizes = [len(name) + len(value) for name, value in headers]
    return len(sizes) > MAX_HEADERS or sum(sizes) > MAX_HEADERS_SIZE


class FailedLookups:
    """
    Who asked for webhooks that do not exist.

    It only ever makes a 404 a 429.  A webhook that exists is never refused by it: behind a proxy all
    senders may have one address, and one of them must not shut the others out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By network: when its window began, and how many failed in it; the one that failed last is last.
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def note(self, address: str | None) -> int:
        """Count one more: 0, or after how many seconds to try again when there are too many."""
        network, now = _network(address), self._clock()
        began, count = self._failed.pop(network, (now, 0))
        if now - began >= WINDOW_SECS:
            began, count = now, 0
        self._failed[network] = (began, count + 1)
        while len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)
        return max(1, round(began + WINDOW_SECS - now)) if count >= FAILURES else 0


def _network(address: str | None) -> str:
    """IPv6 senders have a /64 of their own."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
