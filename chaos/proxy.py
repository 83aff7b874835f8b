"""
A TCP proxy that makes a bad network between the processes and one server.

It runs in a thread of its own.  What it does to connections is set by plain
attributes, from any thread.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from contextlib import suppress

from .ports import free_port

_CHUNK = 65536
#: How long a server is given to apply what was sent before its answer is cut off.
_APPLY_SECS = 0.05


class Proxy:
    """Listens on ``port`` and hands on to *target*, a port of this host."""

    def __init__(self, target: int, draw: random.Random) -> None:
        self.target = target
        self.port = free_port()
        #: Each chunk, in either direction, is late by this.
        self.delay_secs = 0.0
        #: Nothing goes through, and nothing is closed: as if the other host had gone away.
        self.stalled = False
        #: The share of commits which the server gets, and whose acknowledgement nobody does.
        self.swallowed = 0.0
        #: How many acknowledgements were swallowed.
        self.swallows = 0
        self._draw = draw
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{target}", daemon=True)

    def choose(self) -> int:
        """The port that a new connection is handed on to; OSError without one."""
        return self.target

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def reset(self) -> None:
        """Reset every connection that goes through now, in both directions."""
        self._loop.call_soon_threadsafe(self._reset_all)

    def heal(self) -> None:
        """A good network again."""
        self.delay_secs, self.stalled, self.swallowed = 0.0, False, 0.0

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._ready.set()
        await self._stopping.wait()
        listener.close()
        self._reset_all()

    def _reset_all(self) -> None:
        for pair in tuple(self._pairs):
            _abort(*pair)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self.choose())
        except OSError:
            _abort(writer)
            return
        pair = (writer, there[1])
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._forth(reader, pair), self._back(there[0], pair))
        except (OSError, asyncio.CancelledError):
            # Cut, or the proxy stops: asyncio would report a cancelled handler as an error.
            pass
        finally:
            self._pairs.discard(pair)
            _abort(*pair)

    async def _forth(
        self, reader: asyncio.StreamReader, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        client, server = pair
        while chunk := await reader.read(_CHUNK):
            await self._hold_up()
            server.write(chunk)
            if _commits(chunk) and self._draw.random() < self.swallowed:
                self.swallows += 1
                self._pairs.discard(pair)
                _abort(client)
                await server.drain()
                await asyncio.sleep(_APPLY_SECS)
                break
            await server.drain()
        _abort(server, client)

    async def _back(
        self, reader: asyncio.StreamReader, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        client, server = pair
        while chunk := await reader.read(_CHUNK):
            await self._hold_up()
            if client.is_closing():
                continue
            client.write(chunk)
            await client.drain()
        _abort(client, server)

    async def _hold_up(self) -> None:
        if self.delay_secs:
            await asyncio.sleep(self.delay_secs * self._draw.random())
        while self.stalled:
            await asyncio.sleep(0.05)


def _commits(chunk: bytes) -> bool:
    """Whether a client says COMMIT, as PostgreSQL's and MySQL's drivers do."""
    return b"COMMIT" in chunk


def _abort(*writers: asyncio.StreamWriter) -> None:
    """Close with a reset, as a host does that knows nothing of the connection."""
    for writer in writers:
        sock = writer.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
