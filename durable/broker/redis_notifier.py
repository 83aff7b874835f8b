"""``RedisNotifier``: notifications through Redis or Valkey."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from kombu.utils.url import parse_ssl_cert_reqs, url_to_parts
from redis.backoff import NoBackoff
from redis.retry import Retry

from .. import forks, greenlets
from ..sandbox import log_records
from .notifier import SCHEMES, SUBSCRIPTION_SECS, Receive, scheme_of

log = log_records.get("durable.notify")

#: How long an unread inbox is kept.
INBOX_SECS = 120
#: The longest that connecting, or sending one notification, may take.
SEND_SECS = 1.0
#: How long none is sent after one could not be sent.
SKIP_SECS = 1.0
#: How long one pop of the listener waits for a notification.
POP_SECS = 2
#: The same for the first pop: when it returns, the connection works and the process is allowed to pop.
FIRST_POP_SECS = 0.01
#: How long a listener reads from another server than the first one before it tries the first one again.
RETURN_SECS = 5.0
#: The most notifications that are taken from an inbox at once.
MOST_AT_ONCE = 1000


class RedisNotifier:
    """
    An inbox for each process in Redis or Valkey.

    It connects when it is first used, and may be made before a fork: redis-py opens new connections in a child, and
    a child has no listeners of its parent.
    """

    def __init__(self, urls: Sequence[str], key_prefix: str = "", options: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            urls: The servers.  All processes use the first one that answers.
        """
        self._parameters = [connection_parameters(url, options or {}) for url in urls]
        self._prefix = key_prefix
        self._senders = [_Sender(client) for client in self._clients(SEND_SECS)]
        self._forget_listeners()
        forks.call_in_child(self._forget_listeners)

    def _forget_listeners(self) -> None:
        """A child process has none of its parent's threads."""
        self._listeners: dict[str, _Listener] = {}

    @property
    def healthy(self) -> bool:
        listeners = list(self._listeners.values())
        return bool(listeners) and all(listener.healthy for listener in listeners)

    def notify(self, holder: str, *messages: str) -> None:
        self._send(lambda client: _push(client, self._key(holder), *messages))

    def subscribe(self, subject: str, holder: str) -> None:
        def subscribe(client: redis.Redis) -> None:
            key = self._subscribers(subject)
            pipeline = client.pipeline(transaction=False)
            pipeline.sadd(key, holder)
            pipeline.expire(key, SUBSCRIPTION_SECS)
            pipeline.execute()

        self._send(subscribe)

    def notify_subscribers(self, subject: str) -> None:
        def notify_all(client: redis.Redis) -> None:
            subscribers: Any = client.smembers(self._subscribers(subject))
            for holder in subscribers:
                _push(client, self._key(holder), subject)

        self._send(notify_all)

    def _send(self, act: Callable[[redis.Redis], object]) -> None:
        greenlets.in_thread(self._try, act)

    def _try(self, act: Callable[[redis.Redis], object]) -> None:
        """Send something.  An error is logged once, and nothing is sent to that server for ``SKIP_SECS`` after it."""
        for sender in self._senders:
            if time.monotonic() < sender.skip_until:
                continue
            try:
                act(sender.client)
            except Exception as error:
                # The receiver's next poll finds what this notification was about.
                if not sender.skip_until:
                    log.warning("Notifications cannot be sent, processes poll instead: %s", _brief(error))
                sender.skip_until = time.monotonic() + SKIP_SECS
            else:
                sender.skip_until = 0.0
                return

    def listen(self, holder: str, receive: Receive) -> None:
        listener = self._listeners.get(holder)
        if listener is None:
            made = _Listener(self._clients(POP_SECS + 1), self._key(holder))
            listener = self._listeners.setdefault(holder, made)
        listener.add(receive)

    def close(self) -> None:
        closing = [(self._key(holder), self._listeners.pop(holder)) for holder in list(self._listeners)]
        for inbox, listener in closing:
            listener.closed.set()
            # Ends the listener's pop, which otherwise ends by itself after ``POP_SECS``.
            for sender in self._senders:
                with suppress(redis.RedisError):
                    _push(sender.client, inbox, "")
        for _, listener in closing:
            listener.join()
        for sender in self._senders:
            sender.client.close()

    def _key(self, holder: str) -> str:
        return f"{self._prefix}durable:inbox:{holder}"

    def _subscribers(self, subject: str) -> str:
        return f"{self._prefix}durable:expecting:{subject}"

    def _clients(self, timeout_secs: float) -> list[redis.Redis]:
        return [
            redis.Redis(
                **parameters,
                socket_timeout=timeout_secs,
                socket_connect_timeout=SEND_SECS,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )
            for parameters in self._parameters
        ]


@dataclass(slots=True)
class _Sender:
    """One server to send to; not before ``skip_until``, by the monotonic clock."""

    client: redis.Redis
    skip_until: float = 0.0


def _push(client: redis.Redis, inbox: str, *messages: str) -> None:
    pipeline = client.pipeline(transaction=False)
    pipeline.rpush(inbox, *messages)
    pipeline.expire(inbox, INBOX_SECS)
    pipeline.execute()


class _Listener:
    """The thread that empties one inbox, until it is closed or its process ends."""

    def __init__(self, clients: Sequence[redis.Redis], inbox: str) -> None:
        self.healthy = False
        self.closed = threading.Event()
        self._clients = clients
        self._inbox = inbox
        self._receivers: list[Receive] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, receive: Receive) -> None:
        try:
            with self._lock:
                if receive not in self._receivers:
                    self._receivers.append(receive)
                self._ensure_thread()
        except RuntimeError as error:
            # Out of threads.  The next call tries again.
            log.warning("No thread could be started that reads the inbox, this process polls instead: %s", error)

    def _ensure_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="durable-inbox", daemon=True)
            thread.start()
            self._thread = thread

    def join(self) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(POP_SECS + 2)

    def _run(self) -> None:
        pause = 0.05
        while not self.closed.is_set():
            error = self._read_first_that_answers()
            if error is None:
                pause = 0.05
                continue
            if self.healthy:
                log.warning("The inbox cannot be read, this process polls faster until it can: %s", _brief(error))
            self.healthy = False
            self.closed.wait(pause)
            pause = min(1.0, pause * 2)
        self.healthy = False
        for client in self._clients:
            client.close()

    def _read_first_that_answers(self) -> Exception | None:
        """Read the inbox on a server until it fails, or for a while if it is not the first.  None: one answered."""
        refused: Exception | None = None
        for client in self._clients:
            until = math.inf if client is self._clients[0] else time.monotonic() + RETURN_SECS
            try:
                self._pop(client, FIRST_POP_SECS)
                self.healthy = True
                while not self.closed.is_set() and time.monotonic() < until:
                    self._pop(client, POP_SECS)
            except (redis.RedisError, OSError) as error:
                refused = error
            else:
                return None
        return refused

    def _pop(self, client: redis.Redis, timeout_secs: float) -> None:
        popped: Any = client.blpop([self._inbox], timeout=timeout_secs)
        if not popped:
            return
        self._deliver(popped[1])
        # Take the rest of the inbox at once: in a burst, each round trip would wait for all threads just woken.
        pipeline = client.pipeline(transaction=True)
        pipeline.lrange(self._inbox, 0, MOST_AT_ONCE - 1)
        pipeline.ltrim(self._inbox, MOST_AT_ONCE, -1)
        for message in pipeline.execute()[0]:
            self._deliver(message)

    def _deliver(self, message: str) -> None:
        if not message:
            return  # it only ends the pop
        for receive in tuple(self._receivers):
            try:
                receive(message)
            except Exception:
                # An error of one receiver must not end the thread.
                log.exception("A receiver of a notification failed.")


def connection_parameters(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    The keywords of ``redis.Redis`` for a broker URL in kombu's spelling.

    ``redis://[user:password@]host[:port][/db]``, ``rediss://…?ssl_cert_reqs=…``,
    ``redis+socket:///path?virtual_host=db``; *options* ``["ssl"]`` is Celery's
    ``broker_use_ssl``.
    """
    kind = SCHEMES[scheme_of(url)]
    parts = url_to_parts(url)
    path, query = parts.path or "", dict(parts.query)
    parameters: dict[str, Any] = {"username": parts.username, "password": parts.password}
    if kind == "socket":
        db = query.get("virtual_host", "")
        parameters["unix_socket_path"] = "/" + path
    else:
        db = path
        parameters |= {"host": parts.hostname or "127.0.0.1", "port": parts.port or 6379}
    if kind == "tls" or options.get("ssl"):
        parameters |= {"ssl": True} | {key: value for key, value in query.items() if key.startswith("ssl_")}
        if "ssl_check_hostname" in query:
            parameters["ssl_check_hostname"] = query["ssl_check_hostname"].lower() != "false"
        if "ssl_cert_reqs" in query:
            parameters["ssl_cert_reqs"] = parse_ssl_cert_reqs(query["ssl_cert_reqs"])
        if isinstance(options.get("ssl"), Mapping):
            parameters |= options["ssl"]
    return parameters | {"db": int(str(db).strip("/") or 0)}


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
