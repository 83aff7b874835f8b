"""
Fetches a small file over HTTPS for a verifier, from a host that the verifier allows.

It follows no redirect, uses no proxy, and connects to no private address, even
if the host's name resolves to one.  A certificate is fetched once and kept.
Two files are fetched at the same time; a third request gets 503 meanwhile.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections import OrderedDict
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from .. import forks
from ..verify import Unavailable

TIMEOUT_SECS = 4.0
MAX_SIZE = 64 * 1024
#: How many files are kept, and how many are fetched at the same time.
KEPT = 32
AT_ONCE = 2


class Fetcher:
    """Fetches files and keeps certificates."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._begin_in_process()
        forks.call_in_child(self._begin_in_process)

    def _begin_in_process(self) -> None:
        """Make all places free: the threads that fetch files in the parent process are not in its child."""
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def __call__(self, url: str) -> bytes:
        """
        Return the body of the answer to a GET.

        Raises:
            Unavailable: The file cannot be fetched now.
        """
        body = self._kept.get(url)
        if body is not None:
            return body
        if not self._places.acquire(blocking=False):
            raise Unavailable("other files are being fetched")
        try:
            body = get(url)
        finally:
            self._places.release()
        if url.endswith(".pem"):
            self._kept[url] = body
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return body


def get(url: str) -> bytes:
    """Send one GET and return the body of its 200 answer; raise Unavailable for any other answer."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.port not in (None, 443):
        raise Unavailable("the URL is not https")
    try:
        with closing(_Connection(parts.hostname)) as connection:
            connection.request("GET", url.partition(parts.netloc)[2] or "/", headers={"Accept": "*/*"})
            answer = connection.getresponse()
            body = answer.read(MAX_SIZE + 1)
    except (OSError, HTTPException, UnicodeError) as error:
        raise Unavailable(f"{parts.hostname} does not answer: {type(error).__name__}") from error
    if answer.status != 200 or len(body) > MAX_SIZE:
        raise Unavailable(f"{parts.hostname} answered {answer.status}, {len(body)} bytes")
    return body


def public_address(host: str) -> str:
    """Return a public address of the host; raise Unavailable if any of its addresses is not public."""
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)]
    if not addresses or not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in addresses):
        raise Unavailable(f"{host} has an address that is not on the internet")
    return addresses[0]


class _Connection(HTTPSConnection):
    """Connects to the address that was checked, since the name may resolve to another one a moment later."""

    def __init__(self, host: str) -> None:
        super().__init__(host, timeout=TIMEOUT_SECS)
        self._tls = ssl.create_default_context()

    def connect(self) -> None:
        raw = socket.create_connection((public_address(self.host), 443), timeout=TIMEOUT_SECS)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self.host)
