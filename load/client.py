"""A sender that costs little: requests are bytes, and a connection is used for as long as the server keeps it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What came back.  ``status`` is 0 when the connection ended instead."""

    status: int
    headers: dict[str, str]
    body: bytes


GONE = Answer(0, {}, b"")


class Line:
    """A connection to 127.0.0.1 that is opened when it is needed."""

    def __init__(self, port: int, timeout_secs: float = 70.0) -> None:
        self._port = port
        self._timeout_secs = timeout_secs
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, raw: bytes) -> Answer:
        """Send these bytes; the answer to them."""
        try:
            async with asyncio.timeout(self._timeout_secs):
                return await self._ask(raw)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.close()
            return GONE

    async def _ask(self, raw: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(raw)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(first.split(" ", 2)[1]), headers, body)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def post(path: str, body: bytes, *headers: str, host: str = "127.0.0.1") -> bytes:
    """The bytes of a POST; without a framing of its own it has a length."""
    framed = any(each.lower().startswith(("content-length", "transfer-encoding")) for each in headers)
    length = () if framed else (f"Content-Length: {len(body)}",)
    lines = (f"POST {path} HTTP/1.1", f"Host: {host}", *headers, *length)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
