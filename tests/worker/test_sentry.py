"""What Sentry shows of a step that is retried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
from servers import DATABASES

from durable import get_step_metadata, step, workflow
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.turns import drive
from durable.worker import sentry


@step(name="sentry.fails", max_retries=20, retry_backoff=0, retry_jitter=False)
def fails() -> None:
    raise ConnectionError(f"no answer {get_step_metadata().attempt}" + " " * 2000)


@workflow(name="sentry.flow")
async def flow() -> None:
    await fails()


@pytest.fixture
def crumbs() -> Iterator[Iterable[dict[str, Any]]]:
    """Sentry with its Celery integration, and the breadcrumbs that it has."""
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(sentry_sdk.Client(integrations=[CeleryIntegration()], default_integrations=False))
        yield scope._breadcrumbs


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_each_earlier_attempt_is_a_breadcrumb_with_its_error(engine, crumbs):
    """The latest ten, oldest first, shortened, with the times of the log: those in the inbox too."""
    run = engine.start(flow)
    drive(engine, run.id)
    for number in range(1, 13):
        attempt(engine, fails, Address(run.id, "r#1", number), None)
        if number == 9:
            drive(engine, run.id)

    sentry.note_retry(engine, fails.name, Address(run.id, "r#1", 13))

    own = [crumb for crumb in crumbs if crumb.get("category") == "durable"]
    expected = [f"Attempt {n} of step sentry.fails failed: ConnectionError: no answer {n}" for n in range(3, 13)]
    assert [crumb["message"].rstrip() for crumb in own] == expected
    assert all(len(crumb["message"]) < 1100 for crumb in own)
    assert [crumb["timestamp"] for crumb in own] == sorted(crumb["timestamp"] for crumb in own)


def test_the_first_attempt_has_no_breadcrumb(engine, crumbs):
    """And asks the database nothing."""
    engine.close()
    sentry.note_retry(engine, fails.name, Address("unknown", "r#1", 1))

    assert [crumb for crumb in crumbs if crumb.get("category") == "durable"] == []


def test_a_database_that_is_away_costs_the_breadcrumbs_only(engine, crumbs, monkeypatch, caplog):
    """The attempt goes on, and the log says what is missing."""
    from sqlalchemy.exc import OperationalError

    def refuse() -> Any:
        raise OperationalError("SELECT", {}, ConnectionRefusedError("refused"))

    monkeypatch.setattr(engine.store, "read", refuse)
    sentry.note_retry(engine, fails.name, Address("r-1", "r#1", 2))

    assert "Sentry gets no errors of the earlier attempts of run r-1" in caplog.text
