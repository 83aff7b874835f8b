"""
The ASGI application: webhooks and receivers, whose held connections cost no thread, and all other routes through Flask.

The flow of a request to a webhook is the one of the blueprint's view.  It advances as the client's calls in an event
loop do, and the loop waits for bodies, answers and clients.  So a process holds thousands of connections.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import flask
from werkzeug.wrappers import Request

from ..engine import LoopCalls, Returned, advance
from . import asgi_request, body, event_stream, problems, servers, shutdown, wsgi_request
from .asgi_request import Environ, Input, Message, Receive, Room, Scope, TooManyBodies
from .client_wait import ClientWait
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
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        held = await self._begin(scope, receive, send)
        while held is not None:
            # Held requests spend their time here.  So this is the only frame, and ``held`` all that is kept of them.
            with held:
                while (await receive())["type"] != "http.disconnect":
                    pass
            held = await self._go_on(held, send)

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

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> _Exchange | None:
        """Answer a request; or return it, if its connection is held."""
        incoming = Input(receive, self._room)
        # Werkzeug looks for a rule by the same spelling of the path.
        path = "/" + asgi_request.path_of(scope).lstrip("/")
        is_question = path == self._ask and self._controller is not None
        if is_question or path.startswith((self._webhook, self._receive_path)):
            # A framework that mounts the application does not pass on the start of the server.
            shutdown.watch_asgi_server()
            self._receiver.engine.flusher.ensure()
            make = partial(self._flow, path)
            # A control route calls functions of the application, which may block.
            return await self._go_on(_Exchange(scope, incoming, make, self._calls, may_block=is_question), send)
        environ = asgi_request.environ_of(scope, incoming)
        try:
            answer = await self._bridge(environ, incoming, send)
        except TooManyBodies:
            answer = await _refuse_body(incoming, environ["REQUEST_METHOD"])
        finally:
            incoming.release()
        if answer is not None:
            await _send(answer, send)
        return None

    async def _go_on(self, exchange: _Exchange, send: Send) -> _Exchange | None:
        """Run the flow of a request to its answer, and send it; or return the request, once it is held."""
        try:
            response = await exchange.advance()
            if response is None:
                return exchange
            answer = _wire(response, exchange.method)
        except TooManyBodies:
            answer = await _refuse_body(exchange.incoming, exchange.method)
        finally:
            exchange.incoming.release()
        await _send(answer, send)
        return None

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
        wait = ClientWait()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        piece = event_stream.AGAIN
        while not incoming.is_cut:
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            batch = await self._calls.run(feed.next, 0)
            if batch is None:
                wait.begin(event_stream.PING_SECS, feed.when_ready)
                with wait:
                    await incoming.disconnect()
                piece = b"" if wait.was_called else event_stream.PING
                continue
            piece = b"".join(event for _, event in batch.items)
            if batch.is_over or batch.is_cut:
                piece += event_stream.end(feed.number) if batch.is_over else b""
                await send({"type": "http.response.body", "body": piece})
                return

    def _flow(self, path: str, environ: Environ) -> Flow[Exact]:
        """Return the flow of a request to a webhook, to a receiver or to ``ASK``."""
        if not wsgi_request.is_framed(environ):
            return _refuse_framing()
        if path.startswith(self._webhook):
            rest = path.removeprefix(self._webhook).encode("latin-1").decode(errors="replace")
            target: Any = wsgi_request.parse_target(rest)
        elif path.startswith(self._receive_path):
            rest = path.removeprefix(self._receive_path).encode("latin-1").decode(errors="replace")
            target = wsgi_request.parse_receiver(rest)
        else:
            assert self._controller is not None, "without control routes, no path is that of a question"
            return _within(self._flask.request_context(environ), self._controller.flow(ASK))
        # The environment shall not refer to the request: it is to be freed at once when the request is held.
        return self._receiver.flow(Request(environ, populate_request=False), target, secret=rest)


class _Exchange(ClientWait):
    """
    One request that a flow handles.

    Before its turn has come it is what the server has of it.  While it is held, there is only its method.
    """

    __slots__ = ("_calls", "_environ", "_flow", "_hold", "_make", "_may_block", "_scope", "incoming", "method")

    def __init__(
        self,
        scope: Scope,
        incoming: Input,
        make: Callable[[Environ], Flow[Exact]],
        calls: LoopCalls,
        *,
        may_block: bool,
    ) -> None:
        """
        Args:
            make: Makes the flow.
            may_block: The flow calls functions of the application, so it advances in threads.
        """
        self.method: str = scope["method"]
        self.incoming = incoming
        self._calls = calls
        self._may_block = may_block
        self._scope: Scope | None = scope
        self._make: Callable[[Environ], Flow[Exact]] | None = make
        self._environ: Environ | None = None
        self._flow: Flow[Exact] | None = None
        self._hold: Hold | None = None

    async def advance(self) -> Exact | None:
        """Run the flow until it ends, and return its answer; None: the connection is held, and the wait has begun."""
        if self._hold is not None:
            # The time is over, or the client has disconnected; after an answer this changes nothing.
            self._hold.waiter.release(None)
            self._hold = None
        try:
            while True:
                calls = self._calls
                # A request that has begun is ended before another one begins: it takes more memory.
                call = calls.in_thread if self._may_block else calls.run if self._flow is None else calls.run_next
                step = await call(self._step)
                if isinstance(step, Returned):
                    response: Exact = step.result
                    return response
                if isinstance(step, ReadBody):
                    assert self._environ is not None, "a body is read before the request is held"
                    await _fill(self._environ, self.incoming, step.limit)
                elif isinstance(step, DropBody):
                    await self.incoming.drop(body.DISCARDED)
                else:
                    self._hold, self._environ = step, None
                    self.begin(step.secs, step.waiter.when_released)
                    return None
        except BaseException:
            self._close()
            raise

    def _step(self) -> ReadBody | DropBody | Hold | Returned[Exact]:
        """Advance the flow."""
        if self._flow is None:
            assert self._scope is not None, "a flow is made once"
            assert self._make is not None, "a flow is made once"
            self._environ = asgi_request.environ_of(self._scope, self.incoming)
            self._flow = self._make(self._environ)
            self._scope = self._make = None
        return advance(self._flow)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        is_over = super().__exit__(kind, error, traceback)
        if error is not None and not is_over:
            self._close()
        return is_over

    def _close(self) -> None:
        # A thread runs it only if a second cancellation came while it did; then it ends by itself.
        with contextlib.suppress(ValueError):
            if self._flow is not None:
                self._flow.close()


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


async def _refuse_body(incoming: Input, method: str) -> _Answer:
    log.warning("A request was answered 503: %d bytes of bodies are being received already.", BODIES)
    await incoming.drop(body.DISCARDED)
    return _wire(problems.to_flask(problems.unavailable()), method)


async def _send(answer: _Answer, send: Send) -> None:
    status, headers, content = answer
    # A client that has left gets no answer; some servers say so.
    with contextlib.suppress(OSError):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


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


def _wire(response: Exact, method: str) -> _Answer:
    pieces, status, headers = response.get_wsgi_response({"REQUEST_METHOD": method})
    return _encoded(status, headers, b"".join(pieces))


def _encoded(status: str, headers: Iterable[tuple[str, str]], content: bytes) -> _Answer:
    # ASGI wants names in lower case.
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return int(status[:3]), pairs, content


def _latin(text: str) -> str:
    """Return *text* as PATH_INFO has it."""
    return text.encode().decode("latin-1")
