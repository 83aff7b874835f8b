"""Runs in flight, recorded under the code of each revision of the schema, go on after ``durable migrate``."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy as sa
import upgraded_flows as flows
from celery import Celery
from servers import DATABASES, new_database
from upgraded_databases import RECORDED, recording, restore, send
from worker_thread import worker_in_thread

from durable import Durable, RunCancelled, RunFailed, SchemaOutOfDate, migrations
from durable.store import REVISION, schema
from durable.web import create_blueprint

REVISIONS = sorted(path.stem for path in RECORDED.glob("*.json"))
#: These are restored on every database, the others on SQLite only; ``make thorough`` restores all of them.
EVERYWHERE = set(REVISIONS) if os.environ.get("TESTS_UPGRADES") == "all" else {"0001", "0014", *REVISIONS[-2:]}
#: A revision, a database, and whether the broker still has its messages.
CASES = [
    *((revision, "sqlite", True) for revision in REVISIONS),
    *((revision, kind, False) for revision in sorted(EVERYWHERE) for kind in DATABASES),
]

#: The results of the runs that each revision has.
RESULTS: dict[str, Any] = {
    "at-hook": ["at-hook/1", "at-hook/2"],
    "at-hook-resumed": ["at-hook-resumed/1", "at-hook-resumed/2"],
    "at-race": ["at-race/1", "at-race/late"],
    "at-webhook": ["at-webhook/first", "at-webhook/second"],
    "at-webhook-held": ["at-webhook-held/held"],
    "at-webhook-recorded": ["at-webhook-recorded/recorded"],
    "blocked": ["blocked/1", "2"],
    "completed": ["completed/1", "completed/2"],
    "in-long-sleep": ["in-long-sleep/1", "in-long-sleep/2"],
    "in-retry": ["in-retry/1", "in-retry/2"],
    "in-sleep": ["in-sleep/1", "in-sleep/2"],
    "in-step": ["in-step/1", "in-step/2", "in-step/3"],
    "in-steps": [f"in-steps/{number}" for number in range(5)],
    "pending": ["pending/1", "pending/2", "pending/3"],
    "race-given": ["race-given/1", "race-given/2"],
    "scheduled": ["scheduled/1", "scheduled/2", "scheduled/3"],
}
#: The payload waits and the sleep is over.  Either may be taken in first, and both steps may be executed.
OTHER_RESULTS = {"race-given": ["race-given/1", "race-given/late"]}
OF_RACE = {("race-given/2", 1), ("race-given/late", 1)}
#: The steps that are executed after the upgrade, with the numbers of their attempts.
EXECUTED = {
    ("at-hook/2", 1),
    ("at-hook-resumed/2", 1),
    ("at-race/late", 1),
    ("at-webhook/first", 1),
    ("at-webhook/second", 1),
    ("at-webhook-held/held", 2),
    ("at-webhook-recorded/recorded", 1),
    ("in-long-sleep/2", 1),
    ("in-retry/1", 2),
    ("in-retry/2", 1),
    ("in-sleep/2", 1),
    ("in-step/2", 2),
    ("in-step/3", 1),
    ("in-steps/3", 2),
    ("in-steps/4", 2),
    ("pending/1", 1),
    ("pending/2", 1),
    ("pending/3", 1),
    ("race-given/2", 1),
    ("scheduled/1", 1),
    ("scheduled/2", 1),
    ("scheduled/3", 1),
}

#: The same of what came with a later revision.
LATER_RESULTS: dict[str, Any] = {
    "with-children": [
        ["with-children/a/1", "with-children/a/2", "with-children/a/3"],
        ["with-children/b/1", "with-children/b/2"],
    ],
    "in-doubt": ["by hand", "in-doubt/2"],
    "in-generation": ["in-generation/2", "in-generation/3"],
    "in-line": ["in-line/0", "in-line/1", "in-line/2"],
    "publishing": "publishing/2",
    "one-by-one-1": ["one-by-one-1/1"],
    "one-by-one-2": ["one-by-one-2/1"],
}
LATER_EXECUTED = {
    "with-children": {("with-children/a/2", 2), ("with-children/a/3", 1), ("with-children/b/2", 1)},
    "in-doubt": {("in-doubt/2", 1)},
    "in-generation": {("in-generation/3", 1)},
    "in-line": {("in-line/0", 2), ("in-line/1", 1), ("in-line/2", 1)},
    "publishing": {("publishing/2", 1)},
    "one-by-one-1": {("one-by-one-1/1", 2)},
    "one-by-one-2": {("one-by-one-2/1", 1)},
}
#: The same of runs whose ids are drawn, by how they were started.
STARTED = {
    "receiver": ("received/1", 1),
    "schedule": ("planned/1", 1),
    "debounce": ("debounced/1", 1),
    "fork": ("completed/2", 1),
}


@contextmanager
def restored(kind: str, folder: Path, recorded: dict[str, Any]) -> Iterator[Durable]:
    """An engine of today on the recorded database, which is not migrated yet."""
    celery = Celery(f"upgrades-{secrets.token_hex(4)}", broker="memory://")
    celery.conf.update(task_default_queue=celery.main, broker_transport_options={"polling_interval": 0.005})
    # The recorded rows name this queue: the worker takes from it too, from its start.
    celery.amqp.queues.add("celery")
    with celery.connection() as connection:
        # kombu's queues in memory are those of the whole process, and other tests leave messages there.
        connection.default_channel.queue_purge("celery")
    with new_database(kind, folder) as url:
        engine = Durable(
            celery,
            database_url=url,
            public_url="http://upgraded.test",
            sweep_interval="50ms",
            resend_after="300ms",
            # The processes of the recorded rows are found dead sooner.
            beat_interval="200ms",
            dead_after="1500ms",
        )
        try:
            restore(engine, recorded)
            yield engine
        finally:
            celery.close()
            engine.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline, pause = time.monotonic() + 30, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("revision", "kind", "keeps_messages"), CASES)
def test_runs_in_flight_go_on_after_a_migration(revision, kind, keeps_messages, tmp_path):
    """
    Every run comes to its right end; what was done is not done again; a step that was running has its second attempt.

    So it is whether the broker still has the messages of the old code, or has lost them.
    """
    recorded = recording(revision)
    with restored(kind, tmp_path, recorded) as engine:
        migrate(engine)
        if keeps_messages:
            send(engine, recorded)
        flows.executed.clear()
        with worker_in_thread(engine.celery):
            known = names(recorded)
            act_from_outside(engine, known)
            check_ends(engine, known)
        check_leftovers(engine)


def migrate(engine: Durable) -> None:
    """A server's database is only migrated when that is asked for."""
    with engine.store.read() as tx:
        is_old = migrations.revision(tx) != REVISION
    if is_old and engine.store.dialect != "sqlite":
        with pytest.raises(SchemaOutOfDate):
            engine.check_schema()
    engine.migrate()
    engine.check_schema()


def names(recorded: dict[str, Any]) -> set[str]:
    """The ids of the recorded runs, and the ways in which others were or will be started."""
    runs = recorded["tables"]["durable_runs"]
    rows = [dict(zip(runs["columns"], row, strict=True)) for row in runs["rows"]]
    ways = {
        "receiver": any(row["name"] == "upgraded_flows.received" for row in rows),
        "schedule": "durable_schedules" in recorded["tables"],
        "debounce": any(row["name"] == "upgraded_flows.debounced" for row in rows),
        "fork": any(row.get("forked_from") for row in rows),
    }
    return {row["id"] for row in rows} | {way for way, is_there in ways.items() if is_there}


def act_from_outside(engine: Durable, known: set[str]) -> None:
    """What people, senders and other programs do."""
    assert engine.get_run("in-long-sleep").wake_up() == 1
    engine.resume_hook("of at-hook", {"said": "2"})
    for name, last in (("first", False), ("second", True)):
        assert post(engine, {"id": name, "last": last}) == {"answers": name}
    # It has gone on by itself where a new version of durable takes the code for a new version too.
    engine.get_run("blocked").retry()
    if "publishing" in known:
        assert engine.get_run("publishing").value("stage") == "waits"
        engine.resume_hook("of publishing", {"said": "2"})
    if "in-doubt" in known:
        run = engine.get_run("in-doubt")
        until(lambda: run.status == "blocked", "the step is in doubt")
        run.resolve(result="by hand")


def post(engine: Durable, event: dict[str, Any]) -> Any:
    """Send a request to the webhook that waits for it, and poll the answer if it takes longer."""
    app = flask.Flask("upgrades")
    app.register_blueprint(create_blueprint(engine))
    client = app.test_client()
    (hook,) = engine.get_run("at-webhook").hooks()
    # Its sender has its URL; revision 0001 recorded it nowhere.
    path = f"/.well-known/workflow/v1/webhook/{hook['token']}"
    answered = client.post(path, json=event, base_url="http://upgraded.test")
    while answered.status_code == 202:
        answered = client.get(answered.headers["Location"], base_url="http://upgraded.test")
    assert answered.status_code == 200, answered.text
    return answered.json


def check_ends(engine: Durable, known: set[str]) -> None:
    """Every run has ended as it should, and nothing was executed but what was left to do."""
    later = {name: result for name, result in LATER_RESULTS.items() if name in known}
    for name, result in (RESULTS | later).items():
        assert engine.get_run(name).result(timeout=30) in (result, OTHER_RESULTS.get(name)), name
    with pytest.raises(RunFailed, match="no failed/1"):
        engine.get_run("failed").result(timeout=0)
    for name in ("cancelled", "at-hook-cancelled"):
        with pytest.raises(RunCancelled):
            engine.get_run(name).result(timeout=30)
    started = {step for way, step in STARTED.items() if way in known}
    until(lambda: started <= set(flows.executed) and not open_runs(engine), "the others have ended")
    expected = EXECUTED.union(started, *(LATER_EXECUTED[name] for name in later))
    executed = Counter(flows.executed)
    assert {executed.pop(step, 0) for step in OF_RACE} in ({1}, {0, 1})
    assert executed == Counter(expected - OF_RACE)


def open_runs(engine: Durable) -> list[str]:
    """The runs that have not ended."""
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(schema.runs.c.id).where(schema.runs.c.completed_at.is_(None))).scalars())


def check_leftovers(engine: Durable) -> None:
    """No work is left, all other runs have completed, and every request has its answer."""
    with engine.store.read() as tx:
        ended = tx.execute(sa.select(schema.runs.c.id, schema.runs.c.status)).all()
        others = {run_id for run_id, status in ended if status not in ("completed", "continued")}
        assert others == {"failed", "cancelled", "at-hook-cancelled"}
        for table in (schema.steps, schema.waits, schema.inbox, schema.step_limits, schema.run_limits):
            assert tx.execute(sa.select(table)).all() == [], table.name
        unanswered = sa.select(schema.requests.c.id).where(schema.requests.c.answered_at.is_(None))
        assert tx.execute(unanswered).all() == []
