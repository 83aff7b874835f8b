"""What is sent, and what it has to be answered."""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .client import post
from .workflows import ID, MAX_BODY


@dataclass(frozen=True)
class Sent:
    """A request.  ``id`` is None when nothing of it may be recorded."""

    kind: str
    raw: bytes
    statuses: frozenset[int]
    id: str | None = None
    #: Whether nothing else goes over its connection.
    alone: bool = False
    #: Of a good one: which it is, and what it says, for those that repeat it.
    original: tuple[int, bytes] | None = None


class Traffic:
    """Requests to the webhooks at these paths, each of another kind than the one before."""

    def __init__(self, paths: Sequence[str], secret: str) -> None:
        self._paths = paths
        self._secret = secret.encode()
        self._numbers = itertools.count()
        self._kinds = itertools.cycle(_mixed(SHARES))
        #: The last that was taken of each path.
        self._taken: dict[int, tuple[str, bytes]] = {}

    def next(self) -> Sent:
        """One more request."""
        number = next(self._numbers)
        kind = next(self._kinds)
        return _MAKERS[kind](self, kind, number)

    def remember(self, sent: Sent) -> None:
        """It has been accepted, so that it may be repeated."""
        if sent.original is not None and sent.id is not None:
            number, body = sent.original
            self._taken[number % len(self._paths)] = sent.id, body

    def _path(self, number: int) -> str:
        return self._paths[number % len(self._paths)]

    def _good(self, kind: str, number: int) -> Sent:
        name, body = f"good-{number}", b'{"number": %d, "filling": "%s"}' % (number, b"x" * (number * 37 % 2000))
        return Sent(kind, self._signed(number, body, name), frozenset({202}), name, original=(number, body))

    def _repeated(self, kind: str, number: int) -> Sent:
        known = self._taken.get(number % len(self._paths))
        if known is None:
            return self._good("good", number)
        return Sent(kind, self._signed(number, known[1], known[0]), frozenset({202}), known[0])

    def _reused(self, kind: str, number: int) -> Sent:
        known = self._taken.get(number % len(self._paths))
        if known is None:
            return self._good("good", number)
        return Sent(kind, self._signed(number, b"another body", known[0]), frozenset({422}))

    def _forged(self, kind: str, number: int) -> Sent:
        raw = post(self._path(number), b"{}", "X-Hub-Signature-256: sha256=" + "0" * 64, f"{ID}: forged-{number}")
        return Sent(kind, raw, frozenset({401}))

    def _oversized(self, kind: str, number: int) -> Sent:
        body = b"x" * (MAX_BODY + 1)
        if number % 2:
            return Sent(kind, self._signed(number, body, f"large-{number}"), frozenset({413}))
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        return Sent(kind, post(self._path(number), chunks, "Transfer-Encoding: chunked"), frozenset({413}))

    def _unknown(self, kind: str, number: int) -> Sent:
        path = self._path(number)[:-20] + f"{number:020}"
        return Sent(kind, post(path, b"{}"), frozenset({404, 429}))

    def _other_method(self, kind: str, number: int) -> Sent:
        return Sent(kind, post(self._path(number), b"{}").replace(b"POST", b"PUT", 1), frozenset({405}))

    def _malformed(self, kind: str, number: int) -> Sent:
        headers, body = _MALFORMED[number % len(_MALFORMED)]
        return Sent(kind, post(self._path(number), body, *headers), frozenset({400, 0}), alone=True)

    def _signed(self, number: int, body: bytes, name: str) -> bytes:
        signature = hmac.new(self._secret, body, "sha256").hexdigest()
        return post(self._path(number), body, f"X-Hub-Signature-256: sha256={signature}", f"{ID}: {name}")


_MALFORMED: list[tuple[list[str], bytes]] = [
    (["Content-Length: 3", "Content-Length: 5"], b"abcde"),
    (["Content-Length: 3", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    (["Transfer-Encoding: chunked"], b"zz\r\nabc\r\n0\r\n\r\n"),
    (["X-A: \x00", "Content-Length: 3"], b"abc"),
    (["Content-Length: +3"], b"abc"),
]

_MAKERS: dict[str, Callable[[Traffic, str, int], Sent]] = {
    "good": Traffic._good,
    "repeated": Traffic._repeated,
    "key reused": Traffic._reused,
    "forged": Traffic._forged,
    "oversized": Traffic._oversized,
    "unknown": Traffic._unknown,
    "other method": Traffic._other_method,
    "malformed": Traffic._malformed,
}

#: Of twenty requests.
SHARES = {
    "good": 8,
    "repeated": 3,
    "key reused": 1,
    "forged": 3,
    "oversized": 2,
    "unknown": 1,
    "other method": 1,
    "malformed": 1,
}


def _mixed(shares: dict[str, int]) -> list[str]:
    """Each kind as often as its share, spread evenly."""
    total = sum(shares.values())
    places = [((place + 0.5) * total / share, kind) for kind, share in shares.items() for place in range(share)]
    return [kind for _, kind in sorted(places)]
