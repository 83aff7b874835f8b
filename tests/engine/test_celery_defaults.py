"""Settings of Celery where the application leaves them unset: a Sentinel that is down, and channels that are closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from durable.broker.producers import Producers
from durable.engine import celery_defaults


@pytest.fixture
def broken() -> Iterator[tuple[int, list[object]]]:
    """The port of a Sentinel that closes each connection, and the connections that it had."""
    asked: list[object] = []

    def close_all() -> None:
        while not ended.is_set():
            connection, address = listener.accept()
            connection.close()
            asked.append(address)

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=close_all)
        thread.start()
        yield port, asked
        ended.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()


def app_of(port: int, **options: object) -> Celery:
    app = Celery("sentinels", set_as_current=False)
    app.conf.broker_transport_options = {"master_name": "main", **options}
    celery_defaults.configure(app, f"sentinel://127.0.0.1:{port}/0")
    return app


def test_a_sentinel_that_is_down_is_asked_once(broken):
    """redis-py would ask it eleven times, with pauses."""
    port, asked = broken
    with closing(app_of(port)) as app:
        producers = Producers(app.connection_for_write())
        with pytest.raises(OperationalError, match="No master found"), producers.producer() as producer:
            producer.publish({}, routing_key="any")
        producers.retire()
    assert len(asked) == 1


def test_what_the_application_says_about_its_sentinels_stays():
    """A password, and a time of its own; the rest is filled in."""
    given = {"password": "of-the-sentinels", "socket_timeout": 7.0}
    with closing(app_of(1, sentinel_kwargs=given)) as app:
        found = app.conf.broker_transport_options["sentinel_kwargs"]
        assert found == {**given, "socket_connect_timeout": 1.0, "retry": None}


def test_other_brokers_get_no_options_of_sentinels():
    """kombu would hand them to a transport that has no such option."""
    with closing(Celery("other", set_as_current=False)) as app:
        celery_defaults.configure(app, "redis://127.0.0.1/0")
        assert "sentinel_kwargs" not in app.conf.broker_transport_options


@pytest.mark.parametrize(("given", "expected"), [({}, True), ({"broker_channel_error_retry": False}, False)], ids=str)
def test_a_worker_reconnects_when_its_channel_is_closed_unless_the_application_says_otherwise(given, expected):
    """RabbitMQ closes it at ``consumer_timeout``, and by Celery's default the worker ends."""
    with closing(Celery("channels", set_as_current=False)) as app:
        app.conf.update(given)
        celery_defaults.configure(app, "amqp://guest@127.0.0.1//")
        assert app.conf.broker_channel_error_retry is expected
