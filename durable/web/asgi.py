"""
The ASGI application: webhooks and receivers, whose held connections cost no thread, and all other routes through Flask.

The flow of a request to a webhook is the one of the blueprint's view.  It advances as the client's calls in an event
loop do, and the loop waits for bodies, answers and clients.  So a process holds thousands of connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import flask
from werkzeug.wrappers import Request

from ..engine import LoopCalls, Returned, advance
from . import asgi_request, body, event_stream, problems, servers, shutdown, wsgi_request
from .asgi_request import Environ, Input, Message, Receive, Room, Scope, TooManyBodies
from .control_view import Controller
from .flow import DropBody, Flow, Hold, ReadBody
from .followers import Follower
from .hook_operations import ASK
from .hub import drain
from .problems import Exact
from .read_view import FEED, STREAMS
from .webhook_view import Receiver

log = logging.getLogger("durable.web")

T = TypeVar("T")

Send = Callable[[Message], Awaitable[None]]

#: How many bytes of bodies a process receives at once.
BODIES = 64 * 1024 * 1024


class AsgiApp:
    """
    The ASGI application of one engine; ``create_asgi_app`` makes it.

    Args:
        app: The Flask application that answers all but webhooks and receivers.
        prefix: The path before ``ROOT``.
        controller: The control routes, if there are any.  One of them holds connections.
    """

    def __init__(self, receiver: Receiver, app: flask.Flask, prefix: str, controller: Controller | None) -> None:
        self._receiver = receiver
        self._flask = app
        self._webhook = _latin(prefix + wsgi_request.PATH)
        self._receive_path = _latin(prefix + wsgi_request.RECEIVE)
        self._streams = _latin(prefix + wsgi_request.ROOT + STREAMS)
        self._ask = _latin(prefix + wsgi_request.ROOT + ASK)
        self._controller = controller
        self._room = Room(BODIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the life of the server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    @property
    def _calls(self) -> LoopCalls:
        return self._receiver.engine.loop_calls

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                shutdown.watch_asgi_server()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                drain(self._receiver.engine)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Input(receive, self._room)
        environ = asgi_request.environ_of(scope, incoming)
        flow = self._flow(environ)
        try:
            if flow is not None:
                answer: _Answer | None = _wire(await self._run(flow, environ, incoming), environ)
            else:
                answer = await self._bridge(environ, incoming, send)
        except TooManyBodies:
            log.warning("A request was answered 503: %d bytes of bodies are being received already.", BODIES)
            await incoming.drop(body.DISCARDED)
            answer = _wire(problems.to_flask(problems.unavailable()), environ)
        finally:
            incoming.release()
        if answer is None:
            return
        status, headers, content = answer
        # A client that has left gets no answer; some servers say so.
        with contextlib.suppress(OSError):
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})

    async def _bridge(self, environ: Environ, incoming: Input, send: Send) -> _Answer | None:
        """Let Flask answer a request in a thread, which must not be held: there are few.  None: it is answered."""
        if not environ["PATH_INFO"].startswith(self._streams):
            del environ[servers.ASGI]
            environ["wsgi.multithread"] = False
        await _fill(environ, incoming, self._receiver.engine.settings.max_body)
        status, headers, pieces = await self._calls.in_thread(_call_wsgi, self._flask.wsgi_app, environ)
        try:
            if isinstance(feed := environ.get(FEED), Follower):
                with contextlib.suppress(OSError):
                    await self._send_events(feed, incoming, send, headers)
                return None
            content = await self._calls.in_thread(b"".join, pieces)
        finally:
            await self._calls.in_thread(getattr(pieces, "close", bool))
        await incoming.drop(body.DISCARDED)
        return status, headers, content

    async def _send_events(
        self, feed: Follower, incoming: Input, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Send what ``event_stream.events`` yields; wait in the event loop for what comes next."""
        incoming.release()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        piece = event_stream.AGAIN
        while not incoming.is_cut:
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            batch = await self._calls.run(feed.next, 0)
            if batch is None:
                is_ready = await _wait(event_stream.PING_SECS, feed.when_ready, incoming)
                piece = b"" if is_ready else event_stream.PING
                continue
            piece = b"".join(event for _, event in batch.items)
            if batch.is_over or batch.is_cut:
                piece += event_stream.end(feed.number) if batch.is_over else b""
                await send({"type": "http.response.body", "body": piece})
                return

    def _flow(self, environ: Environ) -> Flow[Exact] | None:
        """Return the flow of a request to a webhook or to a receiver; None for any other request."""
        # Werkzeug looks for a rule by the same spelling of the path.
        path = "/" + environ["PATH_INFO"].lstrip("/")
        if path.startswith(self._webhook):
            rest = path.removeprefix(self._webhook).encode("latin-1").decode(errors="replace")
            target: Any = wsgi_request.parse_target(rest)
        elif path.startswith(self._receive_path):
            rest = path.removeprefix(self._receive_path).encode("latin-1").decode(errors="replace")
            target = wsgi_request.parse_receiver(rest)
        elif path != self._ask or self._controller is None:
            return None
        if not wsgi_request.is_framed(environ):
            return _refuse_framing()
        # A framework that mounts the application does not pass on the start of the server.
        shutdown.watch_asgi_server()
        self._receiver.engine.flusher.ensure()
        if path == self._ask and self._controller is not None:
            return _within(self._flask.request_context(environ), self._controller.flow(ASK))
        return self._receiver.flow(Request(environ), target, secret=rest)

    async def _run(self, flow: Flow[T], environ: Environ, incoming: Input) -> T:
        """Run a flow to its end; its waits for bodies, answers and clients are in the event loop."""
        is_question = environ["PATH_INFO"] == self._ask
        # A control route calls functions of the application, which may block.
        do = self._calls.in_thread if is_question else self._calls.run
        try:
            while True:
                wait = await do(advance, flow)
                if isinstance(wait, Returned):
                    result: T = wait.result
                    return result
                if isinstance(wait, ReadBody):
                    await _fill(environ, incoming, wait.limit)
                elif isinstance(wait, DropBody):
                    await incoming.drop(body.DISCARDED)
                else:
                    if not is_question:
                        _keep_method(environ)
                    await _hold(wait, incoming)
        finally:
            # It runs only if a second cancellation came while it did; then it ends by itself.
            with contextlib.suppress(ValueError):
                flow.close()


#: Status, headers and body of an answer, as ASGI sends them.
_Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


async def _fill(environ: Environ, incoming: Input, limit: int) -> None:
    """Receive a body of up to *limit* bytes, and nothing of one that says that it is larger."""
    declared = body.Body.of(environ).declared
    if declared is None or declared <= limit:
        await incoming.fill(limit + 1)


def _within(context: AbstractContextManager[object], flow: Flow[T]) -> Flow[T]:
    """Run each part of a flow in the context of a request of Flask."""
    while True:
        with context:
            step = advance(flow)
        if isinstance(step, Returned):
            result: T = step.result
            return result
        yield step


def _keep_method(environ: Environ) -> None:
    """Forget all that a held request needs no more, which is most of what it takes."""
    method = environ["REQUEST_METHOD"]
    environ.clear()
    environ["REQUEST_METHOD"] = method


async def _hold(hold: Hold, incoming: Input) -> None:
    """Wait until the waiter is released; release it when the time is over or the client disconnects."""
    incoming.release()
    await _wait(hold.secs, hold.waiter.when_released, incoming)
    hold.waiter.release(None)


async def _wait(secs: float, when: Callable[[Callable[[], None]], None], incoming: Input) -> bool:
    """
    Wait until a call comes from any thread, the time is over, or the client disconnects.

    Args:
        when: Called with the function that ends the wait.

    Returns:
        Whether the call came.
    """
    loop, came = asyncio.get_running_loop(), []

    def call() -> None:
        came.append(True)
        # The loop may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(expire)

    def expire() -> None:
        # The wait may be over.
        with contextlib.suppress(RuntimeError):
            until.reschedule(loop.time())

    with contextlib.suppress(TimeoutError):
        # The request's own task watches its client, and the time-out wakes it: a second task would take 2 KiB more.
        async with asyncio.timeout(secs) as until:
            when(call)
            await incoming.disconnect()
    return bool(came)


def _refuse_framing() -> Flow[Exact]:
    """Refuse a request as the blueprint's ``before_request`` does, and let the server close its connection."""
    yield from ()
    return problems.to_flask(problems.bad_framing(), [("Connection", "close")])


def _call_wsgi(
    app: Callable[..., Iterable[bytes]], environ: Environ
) -> tuple[int, list[tuple[bytes, bytes]], Iterable[bytes]]:
    """Let a WSGI application answer a request whose body has been received."""
    started: list[Any] = []
    pieces = app(environ, lambda status, headers, _error=None: started.append((status, headers)))
    status, headers = started[-1]
    return *_encoded(status, headers, b"")[:2], pieces


def _wire(response: Exact, environ: Environ) -> _Answer:
    pieces, status, headers = response.get_wsgi_response(environ)
    return _encoded(status, headers, b"".join(pieces))


def _encoded(status: str, headers: Iterable[tuple[str, str]], content: bytes) -> _Answer:
    # ASGI wants names in lower case.
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return int(status[:3]), pairs, content


def _latin(text: str) -> str:
    """Return *text* as PATH_INFO has it."""
    return text.encode().decode("latin-1")
