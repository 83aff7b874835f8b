"""What a worker logs when a turn fails in place: an outage in one line, a mistake with its traceback."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from durable.broker import HEADER, QUEUE
from durable.worker import tasks


class Cut(Exception):
    """The driver's error for a cut connection."""


class Undone(Exception):
    """The driver's error for a serialization failure."""

    sqlstate = "40001"


@pytest.fixture
def request_of_chain():
    """The request of a task whose chain goes on in the same queue."""
    link = {"options": {"headers": {HEADER: {QUEUE: "celery"}}}}
    headers = {HEADER: {QUEUE: "celery"}}
    continuation = SimpleNamespace(has_turned=False)
    return SimpleNamespace(
        chain=[link], durable_continuation=continuation, delivery_info={}, headers=headers, **headers
    )


@pytest.mark.parametrize(
    ("error", "level", "said"),
    [
        (sa.exc.OperationalError("SELECT 1", None, Cut("terminating connection")), logging.WARNING, "cannot be used"),
        (sa.exc.DBAPIError("SELECT 1", None, Undone("could not serialize access")), logging.WARNING, "has undone"),
        (sa.exc.OperationalError("SELECT 1", None, Undone("deadlock detected")), logging.WARNING, "has undone"),
        (ZeroDivisionError("a mistake"), logging.ERROR, "failed in place"),
    ],
)
def test_only_a_mistake_is_an_error(request_of_chain, monkeypatch, caplog, error, level, said):
    """Each leaves the chain as it is, so that Celery sends its next message; the log says what has happened."""

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(tasks, "go_on", fail)
    tasks._drive_in_place(None, request_of_chain, "run-1")

    (record,) = caplog.records
    assert (record.levelno, record.exc_info is None) == (level, level == logging.WARNING)
    assert "run-1" in record.getMessage()
    assert said in record.getMessage()
    assert request_of_chain.chain
