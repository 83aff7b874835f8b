"""The settings of Celery and of its transports that the engine sets where the application leaves them unset."""

from __future__ import annotations

from typing import Any

from celery import Celery

from ..broker import embedded

CELERY_DEFAULTS: dict[str, Any] = {
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}

#: Options of the Redis transport.  See docs/how-to/operating.md for the reasons.
REDIS_OPTIONS: dict[str, Any] = {
    "visibility_timeout": 21600,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5.0,
    "socket_connect_timeout": 2.0,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "queue_order_strategy": "round_robin",
}

#: How redis-py asks one Sentinel where the master is.  By default it tries ten times, which takes 4 s for each new
#: connection while the first of the list is down, and a minute if its host is.
SENTINEL_KWARGS: dict[str, Any] = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "retry": None}


def configure(celery: Celery, url: str | None) -> None:
    """
    Set these settings, now or when the application is configured.

    Args:
        url: The broker that the engine was given; None leaves it to the application, and to the embedded broker.
    """
    if url is not None:
        celery.conf.broker_url = url
    celery.add_defaults(lambda: {**CELERY_DEFAULTS, "broker_url": embedded.url()})
    if celery.configured:
        _fill_transport_options(celery)
    else:
        celery.on_after_configure.connect(_fill_transport_options, weak=False)


def broker_url(celery: Celery) -> str:
    """The broker that messages are sent to; several URLs are separated by semicolons."""
    url = celery.conf.broker_write_url
    return ";".join(map(str, url)) if isinstance(url, list | tuple) else str(url)


def _fill_transport_options(sender: Celery, **_: object) -> None:
    url = broker_url(sender)
    options = {**transport_defaults(url), **(sender.conf.broker_transport_options or {})}
    if _scheme(url) == "sentinel":
        options["sentinel_kwargs"] = {**SENTINEL_KWARGS, **(options.get("sentinel_kwargs") or {})}
    sender.conf.broker_transport_options = options


def transport_defaults(url: str) -> dict[str, Any]:
    """The transport options for a broker of this URL, but for ``sentinel_kwargs``, which may hold a password."""
    scheme = _scheme(url)
    if scheme in ("redis", "rediss", "valkey", "valkeys", "sentinel"):
        return dict(REDIS_OPTIONS)
    if scheme in ("amqp", "amqps", "pyamqp"):
        return {"confirm_publish": True}
    return {}


def _scheme(url: str) -> str:
    return url.partition("://")[0].partition("+")[0]
