"""
Requests whose framing is wrong or ambiguous, byte by byte.

Each ends in text that looks like a second request.  A server finds it if it reads the end of the first request
differently from the proxy in front of it.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass

#: What the first request says, and what nobody may take for a request.
BODY = b"abc"
SECOND = b"S"

REFUSED = frozenset({400, 404, 405, 411, 413, 414, 417, 431, 501, 505})


@dataclass(frozen=True)
class Case:
    """
    What goes over one connection.

    ``before`` is the request line with ``{path}`` in it, ``lines`` the headers, ``rest`` what follows them, in which
    ``{second}`` is the second request.
    """

    lines: tuple[bytes, ...] = ()
    rest: bytes = BODY + b"{second}"
    before: bytes = b"POST {path} HTTP/1.1"
    #: The bodies that may be recorded, ``{rest}`` for all that follows the headers; none: it has to be refused.
    bodies: tuple[bytes, ...] = ()
    #: Whether it has to be recorded: nothing is wrong with it.
    good: bool = False
    #: Whether the second request is one: it follows where the first one surely ends.
    follows: bool = False
    #: Whether what follows surely is no part of the first request, and no request either.
    garbage: bool = False
    host: bytes = b"Host: hooks.test"
    end: bytes = b"\r\n"

    def bytes(self, path: str, name: str) -> bytes:
        """As sent, to this path; what it is shows in the query."""
        mine = f"{path}?{name}&first".encode()
        head = self.end.join([self.before.replace(b"{path}", mine), *([self.host] if self.host else []), *self.lines])
        rest = self._rest(path, name)
        return head.replace(b"{all}", b"%d" % len(rest)) + self.end * 2 + rest

    def allowed(self, path: str, name: str) -> set[builtins.bytes]:
        """The bodies that may be recorded."""
        known = {b"{rest}": self._rest(path, name), b"{second}": second(path, name)}
        return {known.get(body, body) for body in self.bodies}

    def _rest(self, path: str, name: str) -> builtins.bytes:
        other = second(path, name)
        return self.rest.replace(b"{length}", b"%x" % len(other)).replace(b"{second}", other)


def second(path: str, name: str) -> bytes:
    """What nobody may take for a request, unless it is one."""
    return (
        b"POST %s HTTP/1.1\r\nHost: hooks.test\r\nContent-Length: 1\r\n\r\n" % f"{path}?{name}&second".encode() + SECOND
    )


def _lines(*lines: bytes) -> tuple[bytes, ...]:
    return lines


def _length(value: bytes, bodies: tuple[bytes, ...] = ()) -> Case:
    return Case(_lines(b"Content-Length:" + value), bodies=bodies)


def _coded(
    value: bytes,
    *more: bytes,
    rest: bytes = b"3\r\nabc\r\n0\r\n\r\n{second}",
    bodies: tuple[bytes, ...] = (),
    garbage: bool = False,
) -> Case:
    return Case(_lines(b"Transfer-Encoding:" + value, *more), rest, bodies=bodies, garbage=garbage)


def _chunks(rest: bytes) -> Case:
    return _coded(b" chunked", rest=rest)


_CHUNKED = b"Transfer-Encoding: chunked"
_THREE = b"Content-Length: 3"
_FOLLOWING = b"3\r\nabc\r\n0\r\n\r\n"

#: Nothing is wrong with these, and what follows is another request.
FINE: dict[str, Case] = {
    "length": Case(_lines(_THREE), bodies=(BODY,), good=True, follows=True),
    "chunked": Case(_lines(_CHUNKED), _FOLLOWING + b"{second}", bodies=(BODY,), good=True, follows=True),
    "Chunked": Case(
        _lines(b"TRANSFER-ENCODING: Chunked"), _FOLLOWING + b"{second}", bodies=(BODY,), good=True, follows=True
    ),
    "extension": Case(_lines(_CHUNKED), b"3;a=b\r\nabc\r\n0\r\n\r\n{second}", bodies=(BODY,), good=True, follows=True),
    "trailer": Case(
        _lines(_CHUNKED), b"3\r\nabc\r\n0\r\nX-T: a\r\n\r\n{second}", bodies=(BODY,), good=True, follows=True
    ),
    "no body": Case(_lines(b"Content-Length: 0"), b"{second}", bodies=(b"",), good=True, follows=True),
    "1.0": Case(_lines(_THREE), b"abc", b"POST {path} HTTP/1.0", bodies=(BODY,), good=True),
    "absolute": Case(_lines(_THREE), b"abc", b"POST http://hooks.test{path} HTTP/1.1", bodies=(BODY,)),
    "another host": Case(_lines(_THREE), b"abc", b"POST http://evil.test{path} HTTP/1.1", bodies=(BODY,)),
    "latin-1 header": Case(_lines(b"X-A: \xe9", _THREE), b"abc", bodies=(BODY,)),
}

#: Lengths that two readers may read otherwise.
LENGTHS: dict[str, Case] = {
    "same twice": Case(_lines(_THREE, _THREE), bodies=(BODY,)),
    "short and long": Case(_lines(_THREE, b"Content-Length: {all}"), bodies=(BODY,)),
    "long and short": Case(_lines(b"Content-Length: {all}", _THREE), bodies=(BODY, b"{rest}")),
    "list": _length(b" 3, 3"),
    "list without blanks": _length(b" 3,3"),
    "plus": _length(b" +3"),
    "minus": _length(b" -3"),
    "hexadecimal": _length(b" 0x3"),
    "fraction": _length(b" 3.0"),
    "underscore": _length(b" 0_3"),
    "blank inside": _length(b" 3 3"),
    "nothing": _length(b""),
    "other digits": _length(b" \xb3"),
    "huge": _length(b" " + b"9" * 30),
    "blank before the colon": Case(_lines(b"Content-Length : 3"), bodies=(b"",)),
    "underscored name": Case(_lines(b"Content_Length: 3"), bodies=(b"",), garbage=True),
    "folded": Case(_lines(b"Content-Length:", b" 3"), bodies=(BODY,), follows=True),
    "folded first": Case(_lines(b" Content-Length: 3"), bodies=(b"", BODY), host=b""),
    "after a line that is no header": Case(_lines(b"no header", _THREE), bodies=(b"",)),
    "after NUL": Case(_lines(b"X-A: a\x00b", _THREE), bodies=(BODY,)),
    "after bare CR": Case(_lines(b"X-A: a\rb", _THREE), bodies=(b"", BODY)),
    "hidden by bare CR": Case(_lines(b"X-A: a\rContent-Length: 3"), bodies=(b"", BODY)),
    "hidden by bare LF": Case(_lines(b"X-A: a\nContent-Length: 3"), bodies=(b"", BODY)),
    "bare LF": Case(_lines(_THREE), end=b"\n", bodies=(BODY,)),
    "none": Case(_lines(), b"{second}", bodies=(b"",), follows=True),
}

#: A length and chunks, and codings that two readers may understand otherwise.
CODINGS: dict[str, Case] = {
    "CL.TE": Case(_lines(b"Content-Length: {all}", _CHUNKED), b"0\r\n\r\n{second}", bodies=(b"",)),
    "TE.CL": Case(_lines(_CHUNKED, b"Content-Length: 4"), b"{length}\r\n{second}\r\n0\r\n\r\n", bodies=(b"{second}",)),
    "list ends in chunked": _coded(b" gzip, chunked"),
    "list begins with chunked": _coded(b" chunked, identity"),
    "twice in a list": _coded(b" chunked, chunked", bodies=(BODY,)),
    "twice": _coded(b" chunked", _CHUNKED, bodies=(BODY,)),
    "another beside": _coded(b" chunked", b"Transfer-Encoding: identity"),
    "unknown": _coded(b" xchunked"),
    "unknown with length": _coded(b" xchunked", _THREE, rest=b"abc{second}"),
    "identity with length": _coded(b" identity", _THREE, rest=b"abc{second}"),
    "empty": _coded(b"", bodies=(b"",), garbage=True),
    "quoted": _coded(b' "chunked"'),
    "vertical tab": _coded(b" \x0bchunked", bodies=(BODY,)),
    "next line": _coded(b" chunked\x85", bodies=(BODY,)),
    "vertical tab with length": _coded(b" \x0bchunked", b"Content-Length: {all}"),
    "in 1.0": Case(
        _lines(_CHUNKED, b"Connection: keep-alive"), _FOLLOWING + b"{second}", b"POST {path} HTTP/1.0", bodies=(BODY,)
    ),
    "in 1.0 with length": Case(
        _lines(_CHUNKED, _THREE, b"Connection: keep-alive"), _FOLLOWING + b"{second}", b"POST {path} HTTP/1.0"
    ),
    "blank before the colon (TE)": Case(_lines(b"Transfer-Encoding : chunked", _THREE), bodies=(b"", BODY)),
    "underscored name (TE)": Case(_lines(b"Transfer_Encoding: chunked", _THREE), bodies=(BODY,), follows=True),
    "upgrade": Case(_lines(b"Connection: upgrade", b"Upgrade: websocket", _THREE), bodies=(BODY,), follows=True),
}

#: Chunks that are none, or whose end two readers may see elsewhere.
CHUNKS: dict[str, Case] = {
    "letters": _chunks(b"zz\r\nabc\r\n0\r\n\r\n{second}"),
    "minus": _chunks(b"-3\r\nabc\r\n0\r\n\r\n{second}"),
    "plus": _chunks(b"+3\r\nabc\r\n0\r\n\r\n{second}"),
    "prefix": _chunks(b"0x3\r\nabc\r\n0\r\n\r\n{second}"),
    "underscore": _chunks(b"0_3\r\nabc\r\n0\r\n\r\n{second}"),
    "blank before the size": _chunks(b" 3\r\nabc\r\n0\r\n\r\n{second}"),
    "size of 70 digits": _chunks(b"f" * 70 + b"\r\nabc\r\n0\r\n\r\n{second}"),
    "longer than its size": _chunks(b"2\r\nabc\r\n0\r\n\r\n{second}"),
    "no line end after the data": _chunks(b"3\r\nabc0\r\n\r\n{second}"),
    "bare LF after the size": _chunks(b"3\nabc\r\n0\r\n\r\n{second}"),
    "bare CR after the size": _chunks(b"3\rabc\r\n0\r\n\r\n{second}"),
    "bare LF after the data": _chunks(b"3\r\nabc\n0\r\n\r\n{second}"),
    "bare LF in an extension": _coded(b" chunked", rest=b"3;a\nb\r\nabc\r\n0\r\n\r\n{second}", bodies=(BODY,)),
    "without an end": _chunks(b"3\r\nabc\r\n"),
    "cut": _chunks(b"5\r\nabc"),
}

#: Targets, versions, heads and lengths of heads.
HEADS: dict[str, Case] = {
    "no version": Case((), b"", b"POST {path}", host=b"", bodies=(b"",)),
    "0.9": Case(_lines(_THREE), b"abc{second}", b"POST {path} HTTP/0.9", bodies=(BODY,)),
    "2.0": Case(_lines(_THREE), b"abc{second}", b"POST {path} HTTP/2.0", bodies=(BODY,)),
    "two blanks": Case(_lines(_THREE), b"abc{second}", b"POST  {path} HTTP/1.1", bodies=(BODY,), follows=True),
    "tab": Case(_lines(_THREE), b"abc{second}", b"POST\t{path}\tHTTP/1.1", bodies=(BODY,)),
    "asterisk": Case(_lines(_THREE), b"abc{second}", b"POST * HTTP/1.1", follows=True),
    "authority": Case(_lines(_THREE), b"abc", b"POST hooks.test:443 HTTP/1.1"),
    "newline in the target": Case(_lines(_THREE), b"abc", b"POST {path}%0d%0aX-A:1 HTTP/1.1", bodies=(BODY,)),
    "method in small letters": Case(_lines(_THREE), b"abc", b"post {path} HTTP/1.1", bodies=(BODY,)),
    "a header of 70 kB": Case(_lines(b"X-A: " + b"a" * 70_000, _THREE), follows=True),
    "a header of 300 kB": Case(_lines(b"X-A: " + b"a" * 300_000, _THREE), follows=True),
    "120 headers": Case(_lines(*[b"X-%d: a" % number for number in range(120)], _THREE), follows=True),
    "a target of 70 kB": Case(
        _lines(_THREE), b"abc", b"POST {path}" + b"a" * 70_000 + b" HTTP/1.1", bodies=(BODY,), follows=True
    ),
    "another expectation": Case(_lines(b"Expect: tea", _THREE), b"abc", bodies=(BODY,)),
    "short": Case(_lines(b"Content-Length: 10"), b"abc"),
}
CASES: dict[str, Case] = {
    f"{group} {name}".replace(" ", "-"): case
    for group, cases in (
        ("fine", FINE),
        ("length", LENGTHS),
        ("coding", CODINGS),
        ("chunk", CHUNKS),
        ("head", HEADS),
    )
    for name, case in cases.items()
}
