"""``RedisNotifier``: notifications through Redis or Valkey."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from kombu.utils.url import parse_ssl_cert_reqs, url_to_parts
from redis.backoff import NoBackoff
from redis.retry import Retry

from .. import forks
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
#: The most notifications that are taken from an inbox at once.
MOST_AT_ONCE = 1000


class RedisNotifier:
    """
    An inbox for each process in Redis or Valkey.

    It connects when it is first used, and may be made before a fork: redis-py opens new connections in a child, and
    a child has no listeners of its parent.
    """

    def __init__(self, url: str, key_prefix: str = "", options: Mapping[str, Any] | None = None) -> None:
        self._parameters = connection_parameters(url, options or {})
        self._prefix = key_prefix
        self._sender = self._client(SEND_SECS)
        self._skip_until = 0.0
        self._forget_listeners()
        forks.call_in_child(self._forget_listeners)

    def _forget_listeners(self) -> None:
        """A child process has none of its parent's threads."""
        self._listeners: dict[str, _Listener] = {}

    @property
    def healthy(self) -> bool:
        listeners = list(self._listeners.values())
        return bool(listeners) and all(listener.healthy for listener in listeners)

    def notify(self, holder: str, message: str) -> None:
        self._try(lambda: self._push(self._key(holder), message))

    def subscribe(self, subject: str, holder: str) -> None:
        def subscribe() -> None:
            key = self._subscribers(subject)
            pipeline = self._sender.pipeline(transaction=False)
            pipeline.sadd(key, holder)
            pipeline.expire(key, SUBSCRIPTION_SECS)
            pipeline.execute()

        self._try(subscribe)

    def notify_subscribers(self, subject: str) -> None:
        def notify_all() -> None:
            subscribers: Any = self._sender.smembers(self._subscribers(subject))
            for holder in subscribers:
                self._push(self._key(holder), subject)

        self._try(notify_all)

    def _try(self, act: Callable[[], object]) -> None:
        """Send something.  An error is logged once, and nothing is sent for ``SKIP_SECS`` after it."""
        if time.monotonic() < self._skip_until:
            return
        try:
            act()
        except Exception as error:
            # The receiver's next poll finds what this notification was about.
            if not self._skip_until:
                log.warning("Notifications cannot be sent, processes poll instead: %s", _brief(error))
            self._skip_until = time.monotonic() + SKIP_SECS
        else:
            self._skip_until = 0.0

    def listen(self, holder: str, receive: Receive) -> None:
        listener = self._listeners.get(holder)
        if listener is None:
            made = _Listener(self._client(POP_SECS + 1), self._key(holder))
            listener = self._listeners.setdefault(holder, made)
        listener.add(receive)

    def close(self) -> None:
        closing = [(self._key(holder), self._listeners.pop(holder)) for holder in list(self._listeners)]
        for inbox, listener in closing:
            listener.closed.set()
            try:
                self._push(inbox, "")  # ends the listener's pop, which otherwise ends by itself after ``POP_SECS``
            except redis.RedisError:
                log.debug("The listener could not be woken; it ends within %s s.", POP_SECS)
        for _, listener in closing:
            listener.join()
        self._sender.close()

    def _push(self, inbox: str, message: str) -> None:
        pipeline = self._sender.pipeline(transaction=False)
        pipeline.rpush(inbox, message)
        pipeline.expire(inbox, INBOX_SECS)
        pipeline.execute()

    def _key(self, holder: str) -> str:
        return f"{self._prefix}durable:inbox:{holder}"

    def _subscribers(self, subject: str) -> str:
        return f"{self._prefix}durable:expecting:{subject}"

    def _client(self, timeout_secs: float) -> redis.Redis:
        return redis.Redis(
            **self._parameters,
            socket_timeout=timeout_secs,
            socket_connect_timeout=SEND_SECS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )


class _Listener:
    """The thread that empties one inbox, until it is closed or its process ends."""

    def __init__(self, client: redis.Redis, inbox: str) -> None:
        self.healthy = False
        self.closed = threading.Event()
        self._client = client
        self._inbox = inbox
        self._receivers: list[Receive] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, receive: Receive) -> None:
        with self._lock:
            if receive not in self._receivers:
                self._receivers.append(receive)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durable-inbox", daemon=True)
                self._thread.start()

    def join(self) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(POP_SECS + 2)

    def _run(self) -> None:
        pause = 0.05
        while not self.closed.is_set():
            try:
                self._pop(FIRST_POP_SECS)
                pause = 0.05
                self.healthy = True
                while not self.closed.is_set():
                    self._pop(POP_SECS)
            except (redis.RedisError, OSError) as error:
                if self.healthy:
                    log.warning("The inbox cannot be read, this process polls faster until it can: %s", _brief(error))
                self.healthy = False
                self.closed.wait(pause)
                pause = min(1.0, pause * 2)
        self.healthy = False
        self._client.close()

    def _pop(self, timeout_secs: float) -> None:
        popped: Any = self._client.blpop([self._inbox], timeout=timeout_secs)
        if not popped:
            return
        self._deliver(popped[1])
        # Take the rest of the inbox at once: in a burst, each round trip would wait for all threads just woken.
        pipeline = self._client.pipeline(transaction=True)
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
