"""A node of a Redis Cluster is no broker: Celery's commands have keys of several slots, which a cluster refuses."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from ..errors import ConfigurationError
from .producers import tries

#: How long a worker waits for its broker before it starts without this check.
_WAIT_SECS = 2.0


def refuse_cluster(connection: Any) -> None:
    """Raise ConfigurationError if what an open connection of kombu leads to is a node of a Redis or Valkey Cluster."""
    if connection.transport.driver_type != "redis":
        return
    from redis.exceptions import ResponseError

    try:
        is_cluster = connection.default_channel.client.info("cluster").get("cluster_enabled")
    except ResponseError:
        return  # an ACL does not allow INFO
    if is_cluster:
        raise ConfigurationError(
            f"The broker {connection.as_uri()} is a node of a Redis Cluster, which Celery cannot use: it refuses"
            " commands with keys of several slots.  Use a single Redis or Valkey, or Redis with Sentinel."
        )


def refuse_cluster_of(celery: Celery) -> None:
    """The same for a worker that starts; without an answer from its broker it does nothing."""
    with celery.connection_for_read() as connection:
        try:
            connection.ensure_connection(max_retries=tries(connection), timeout=_WAIT_SECS)
        except (OperationalError, *connection.connection_errors):
            return
        refuse_cluster(connection)
