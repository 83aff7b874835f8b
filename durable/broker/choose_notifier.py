"""Chooses the notifier for a broker.  redis-py is imported only for a broker that has notifications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .notifier import SCHEMES, Notifier, PollingNotifier, scheme_of


def make_notifier(broker_url: str | None, transport_options: Mapping[str, Any] | None = None) -> Notifier:
    """
    The notifier for a broker: Redis and Valkey have notifications, other brokers have none.

    Args:
        broker_url: Celery's broker URL, or several, separated by ``;``.
        transport_options: Kombu's options; ``global_keyprefix`` and ``ssl`` are used.
    """
    urls = [url.strip() for url in (broker_url or "").split(";") if url.strip()]
    options = dict(transport_options or {})
    if not urls or any(scheme_of(url) not in SCHEMES for url in urls):
        return PollingNotifier()
    # redis-py takes long to import, and only processes that send or wait for notifications need it.
    from .redis_notifier import RedisNotifier

    return RedisNotifier(urls, str(options.get("global_keyprefix") or ""), options)
