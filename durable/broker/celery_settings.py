"""
Checks of the Celery app's settings: with some values durable's messages cannot be sent, or workers throw them away.

durable's messages are JSON, in version 2 of Celery's message protocol, since version 1 has no chains.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import compression
from kombu.transport import TRANSPORT_ALIASES

from ..errors import ConfigurationError
from ..nearest import did_you_mean

#: kombu's functions have no types.
_compression: Any = compression


def check_url(url: str) -> None:
    """Raise ValueError for a broker URL, or a list of them, with a scheme for which kombu has no transport."""
    for each in url.split(";"):
        scheme, is_url, _ = each.strip().partition("://")
        # sqla+sqlite:// has a transport and the scheme of a URL of its own; a path names a class.
        transport = scheme.partition("+")[0]
        if is_url and transport not in TRANSPORT_ALIASES and not {".", ":"} & set(transport):
            raise ValueError(
                f"Celery knows no broker with the scheme {scheme}://.{did_you_mean(transport, TRANSPORT_ALIASES)}"
                "  Write for example redis://, rediss:// or amqp://"
            )


def check_settings(celery: Celery) -> None:
    """Raise ConfigurationError for settings with which durable's messages are lost."""
    conf = celery.conf
    given = conf.broker_write_url or ()
    for url in [given] if isinstance(given, str) else given:
        try:
            check_url(url)
        except ValueError as error:
            raise ConfigurationError(f"The Celery setting broker_url is wrong: {error}.") from None
    accepted = conf.accept_content
    if accepted is not None and not {"json", "application/json"} & set(accepted):
        raise ConfigurationError(
            f"The Celery setting accept_content is {accepted!r}: workers throw away durable's messages, which are"
            " JSON.  Add 'json' to accept_content.  Your own tasks may keep their serializer."
        )
    if conf.task_protocol != 2:
        raise ConfigurationError(
            f"The Celery setting task_protocol is {conf.task_protocol!r}.  Messages of that version carry no chain,"
            " and each step needs one.  Remove the setting, or set it to 2."
        )
    if conf.task_compression and not _is_installed(conf.task_compression):
        raise ConfigurationError(
            f"The Celery setting task_compression is {conf.task_compression!r}, which is not installed here, so no"
            " message can be sent.  Install its package, or choose one of"
            f" {', '.join(_compression.encoders())}."
        )
    soft, hard = conf.task_soft_time_limit, conf.task_time_limit
    if soft and hard and soft > hard:
        raise ConfigurationError(
            f"The Celery setting task_soft_time_limit is {soft:g} s, longer than task_time_limit, {hard:g} s: Celery"
            " sends no task at all.  Make it shorter."
        )


def check_worker_settings(celery: Celery) -> None:
    """Raise ConfigurationError for settings with which a worker gets no messages, or loses them."""
    if celery.conf.task_always_eager:
        raise ConfigurationError(
            "The Celery setting task_always_eager is on: tasks run where they are called, nothing goes through the"
            " broker, and a worker has nothing to do.  Remove it here; it is for tests without a worker."
        )
    check_settings(celery)


def _is_installed(method: str) -> bool:
    try:
        _compression.get_encoder(method)
    except KeyError:
        return False
    return True
