"""Encryption at rest: nothing of a value is readable in the database, and who lacks a key leaves the run alone."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, restart, settle, settle_family
from servers import migrate
from sqlalchemy.orm import Session

from durable import (
    DecryptionError,
    Durable,
    Request,
    Response,
    RunConflict,
    create_hook,
    create_webhook,
    current,
    doctor,
    get_step_metadata,
    heartbeat,
    registry,
    resume_hook,
    step,
    workflow,
)
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.cipher import Cipher, aes_gcm, fernet
from durable.store.schema import events, metadata, steps
from durable.store.vault import LIMIT
from durable.testing import Environment
from durable.turns.drive import drive
from durable.web import create_blueprint

KEYS = {key_id: os.urandom(32) for key_id in ("new", "old")}
#: Stands in every value that the runs below have; in no name.
MARKED = "plaintext-of-a-secret"
LARGE = MARKED * (LIMIT // len(MARKED) + 1)

Make = Callable[..., Durable]


@pytest.fixture
def make(database: str, manner: dict[str, Any]) -> Iterator[Make]:
    """Engines on one database, each a process of its own with its own keys."""
    made: list[Durable] = []

    def engine(cipher: Cipher | None, **settings: Any) -> Durable:
        celery = Celery(f"test-{secrets.token_hex(4)}", broker="memory://")
        settings = {"public_url": "https://hooks.test", **manner, **settings}
        made.append(Durable(celery, database_url=database, cipher=cipher, **settings))
        migrate(made[-1])
        return made[-1]

    yield engine
    for each in made:
        each.close()


@step
def echo(value: Any) -> Any:
    return value


@step(max_retries=0)
def fails(value: str) -> None:
    raise ValueError(value)


@step(max_retries=1, retry_backoff=0)
def beats(value: str) -> Any:
    before = get_step_metadata().heartbeat
    heartbeat(value)
    if before is None:
        raise ConnectionError(value)
    return before


@step
def reads(request: Request) -> str:
    request.respond_with(Response(f"{MARKED}: the answer", 200, {"X-Secret": MARKED}))
    return request.text()


@workflow
async def child(value: str) -> str:
    return await echo(value)


@workflow
async def in_sequence(value: str) -> list[Any]:
    found = [await echo(value), await beats(value), await child(value)]
    try:
        await fails(value)
    except ValueError as error:
        found.append(str(error))
    return found


@workflow
async def listens(value: str) -> Any:
    return await echo([value, await create_hook(token=f"{value[:5]}-hook", metadata={"told": value})])


@workflow
async def answers(value: str) -> Any:
    webhook = create_webhook(respond_with="manual", timeout=0, metadata=value)
    async for request in webhook:
        return await reads(request)


@workflow
async def answers_at_once() -> Any:
    return await echo(await create_webhook(respond_with=Response(f"{MARKED}: at once")))


def post(engine: Durable, run: Any, body: str) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(create_blueprint(engine))
    url = run.hooks()[0]["url"].removeprefix("https://hooks.test")
    return app.test_client().post(url, data=body, headers={"Authorization": f"Bearer {MARKED}"})


def all_that_is_stored(engine: Durable) -> Iterator[tuple[str, str, bytes]]:
    """Every text and every binary of every table: table, column, bytes."""
    with engine.store.read() as tx:
        for table in metadata.sorted_tables:
            for row in tx.execute(sa.select(table)).mappings():
                for name, value in row.items():
                    if isinstance(value, str | bytes):
                        yield table.name, name, value.encode() if isinstance(value, str) else value


def readable(engine: Durable) -> set[tuple[str, str]]:
    """Where the marked text stands, as it is."""
    return {(table, name) for table, name, value in all_that_is_stored(engine) if MARKED.encode() in value}


def wipe(engine: Durable) -> None:
    with engine.store.begin() as tx:
        for table in metadata.sorted_tables:
            tx.execute(sa.delete(table))


def run_all_patterns(engine: Durable, value: str) -> None:
    """Steps, children, failures and heartbeats; hooks; webhooks with answers."""
    current.register(engine)
    run = engine.start(in_sequence, value)
    settle_family(engine, run)
    assert run.result(timeout=1) == [value, value, value, value]

    run = engine.start(listens, value)
    settle(engine, run)
    resume_hook(f"{value[:5]}-hook", {"payload": value})
    looked_at = readable(engine)
    settle(engine, run)
    assert run.result(timeout=1) == [value, {"payload": value}]

    run = engine.start(answers, value)
    settle(engine, run)
    assert run.hooks()[0]["metadata"] == value
    assert post(engine, run, value).status_code == 202
    looked_at |= readable(engine)
    settle(engine, run)
    assert run.result(timeout=1) == value

    run = engine.start(answers_at_once)
    settle(engine, run)
    looked_at |= readable(engine)
    assert post(engine, run, value).text == f"{MARKED}: at once"
    settle(engine, run)
    assert run.result(timeout=1).text() == value
    assert looked_at == set()


@all_databases()
@pytest.mark.parametrize("made_by", [aes_gcm, fernet])
def test_nothing_of_a_value_is_readable(make, made_by):
    """No column of any table has it, while the runs go on and when they have ended; and it all comes back."""
    engine = make(made_by(KEYS))
    wipe(engine)

    run_all_patterns(engine, MARKED)

    assert readable(engine) == set()


@all_databases()
def test_nothing_of_a_large_value_is_readable(make, tmp_path):
    """Nor in the payload table, nor in files."""
    engine = make(aes_gcm(KEYS), max_body=4 * LIMIT)
    wipe(engine)
    run = engine.start(in_sequence, LARGE)
    settle_family(engine, run)
    assert run.result(timeout=1)[0] == LARGE
    assert "durable_payloads" in {table for table, _, _ in all_that_is_stored(engine)}
    assert readable(engine) == set()

    outside = make(aes_gcm(KEYS), payload_url=f"file://{tmp_path}/payloads")
    run = outside.start(in_sequence, LARGE)
    settle_family(outside, run)
    assert run.result(timeout=1)[0] == LARGE
    files = [path for path in Path(tmp_path, "payloads").rglob("*") if path.is_file()]
    assert files
    assert not any(MARKED.encode() in path.read_bytes() for path in files)


def test_without_a_cipher_the_looking_finds_it(make):
    """The check above sees what it looks for."""
    engine = make(None)
    run = engine.start(listens, MARKED)
    settle(engine, run)

    assert ("durable_events", "value") in readable(engine)
    assert ("durable_hooks", "metadata") in readable(engine)


@all_databases()
@pytest.mark.parametrize("cipher", [None, aes_gcm(KEYS)], ids=["clear", "cipher"])
def test_messages_show_arguments_only_without_a_cipher(make, cipher):
    """The text for Celery's tools in a step's message has the arguments, and with a cipher none."""
    engine = make(cipher)
    run = engine.start(in_sequence, MARKED)
    drive(engine, run.id)

    with engine.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        headers = [queue.get_nowait().headers for _ in range(queue.qsize())]
    # The queue is in memory, and has messages of other tests too.
    (shown,) = [each["kwargsrepr"] for each in headers if each["id"].startswith(run.id) and each["task"] == echo.name]
    assert (MARKED in shown) is (cipher is None)


def test_what_was_written_before_the_cipher_stays_readable(make):
    """A run goes on over the day on which a cipher is set, and its old rows stay as they are."""
    before, after = make(None), make(aes_gcm(KEYS))
    run = before.start(listens, MARKED)
    settle(before, run)
    restart(before)

    after.resume_hook(f"{MARKED[:5]}-hook", MARKED)
    settle(after, run_of(after, run))

    assert run_of(after, run).result(timeout=1) == [MARKED, MARKED]
    with after.store.read() as tx:
        values = tx.execute(
            sa.select(events.c.value)
            .where(events.c.run_id == run.id, events.c.value.is_not(None))
            .order_by(events.c.seq)
        ).scalars()
        assert [value[:1] == "~" for value in values] == [False, True, True, True, True]


def run_of(engine: Durable, run: Any) -> Any:
    return engine.get_run(run.id)


@all_databases()
def test_a_rotation_blocks_no_run(make):
    """Digests, values and payloads of the old key are compared and read; what is written has the new one."""
    old, both = make(aes_gcm({"old": KEYS["old"]})), make(aes_gcm(KEYS))
    run = old.start(listens, LARGE)
    settle(old, run)
    restart(old)

    both.resume_hook(f"{LARGE[:5]}-hook", MARKED)
    settle(both, run_of(both, run))

    assert run_of(both, run).result(timeout=1) == [LARGE, MARKED]
    with both.store.read() as tx:
        values = list(
            tx.execute(sa.select(events.c.value).where(events.c.run_id == run.id).order_by(events.c.seq)).scalars()
        )
    assert values[0].startswith("~r.old.")
    assert values[-1].startswith("~r.new.")


@all_databases()
def test_the_same_start_after_a_rotation(make):
    """The digest of a run's arguments is compared under the key that it was made with."""
    old, both, new = make(aes_gcm({"old": KEYS["old"]})), make(aes_gcm(KEYS)), make(aes_gcm({"new": KEYS["new"]}))
    key = secrets.token_hex(8)
    first = child.with_options(idempotency_key=key)
    current.register(old)
    run = first.start(MARKED)

    current.register(both)
    assert first.start(MARKED).id == run.id
    with pytest.raises(RunConflict):
        first.start("another")
    current.register(new)
    with pytest.raises(DecryptionError, match="'old'"):
        first.start(MARKED)


@all_databases()
def test_a_worker_without_the_key_leaves_the_run(make, caplog):
    """Its turns and its attempts change nothing and say so; a worker with the key goes on, and nothing was counted."""
    able = make(aes_gcm(KEYS))
    for unable in (make(None), make(aes_gcm({"new": os.urandom(32)})), make(aes_gcm({"other": KEYS["old"]}))):
        run = able.start(child, MARKED)
        before = run.status

        caplog.clear()
        drive(unable, run.id)
        assert (run.status, run.events()) == (before, [])
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "left for a worker that can read it" in caplog.text
        assert "'new'" in caplog.text

        drive(able, run.id)
        restart(able)
        with able.store.begin() as tx:
            # As a message of its own finds it.
            tx.execute(
                sa.update(steps)
                .where(steps.c.run_id == run.id)
                .values(status="pending", claim=None, worker_id=None, claimed_at=None, next_send_at=0)
            )
        caplog.clear()
        assert not attempt(unable, registry.steps[echo.name], Address(run.id, "r#1", 1), None)
        assert "left for a worker that can read it" in caplog.text
        with able.store.begin() as tx:
            # Some seconds later.
            tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(not_before=0))
        settle(able, run)
        assert run.result(timeout=1) == MARKED
        assert [e.attempt for e in run.events() if e.kind == "step_completed"] == [1]


@all_databases()
def test_an_attempt_of_a_fork_is_left_to_a_worker_that_can_read_its_origin(make):
    """Its first call was made under an older key, and its own is readable: the attempt is released for later."""
    before, both = make(aes_gcm({"old": KEYS["old"]}), continuation=0), make(aes_gcm(KEYS), continuation=0)
    new = make(aes_gcm({"new": KEYS["new"]}), continuation=0)
    run = before.start(child, MARKED)
    settle(before, run)
    fork = run_of(both, run).fork(from_step="r#1")
    drive(both, fork.id)

    with pytest.raises(DecryptionError, match="'old'"):
        attempt(new, echo, Address(fork.id, "r#1", 1), None)

    assert not new.running
    with both.store.begin() as tx:
        row = tx.execute(sa.select(steps).where(steps.c.run_id == fork.id)).one()
        assert (row.status, row.claim, row.attempt) == ("pending", None, 1)
        assert row.not_before > both.now()
        tx.execute(sa.update(steps).where(steps.c.run_id == fork.id).values(not_before=0))
    settle(both, fork)
    assert fork.result(timeout=0) == MARKED


def test_who_lacks_the_key_is_told(make):
    """``result``, ``describe`` and the events raise; the list of what happened is there for anybody."""
    able, unable = make(aes_gcm(KEYS)), make(None)
    run = able.start(child, MARKED)
    settle(able, run)

    other = run_of(unable, run)
    assert other.status == "completed"
    assert [e.kind for e in other.events(payloads=False)] == [e.kind for e in run.events()]
    with pytest.raises(DecryptionError, match=r"'new'.*has no cipher.*DURABLE_CIPHER"):
        other.result(timeout=1)
    with pytest.raises(DecryptionError):
        other.events()


def test_doctor_names_the_keys_that_are_missing(make):
    """Before anybody wonders why nothing goes on."""
    able, unable = make(aes_gcm(KEYS)), make(aes_gcm({"other": KEYS["old"]}))
    run = able.start(child, MARKED)

    found = {finding.name: finding for finding in doctor.examine(unable)}["keys"]
    assert not found.ok
    assert "new" in found.detail
    assert run.id in found.detail
    assert "DURABLE_CIPHER" in found.fix
    assert {finding.name: finding for finding in doctor.examine(able)}["keys"].ok


@all_databases()
def test_a_start_in_the_callers_transaction_is_encrypted(make):
    """On a connection that is not the engine's own."""
    engine = make(aes_gcm(KEYS))
    wipe(engine)
    own = sa.create_engine(engine.store.url)
    with Session(own) as session:
        run = child.with_options(session=session).start(MARKED)
        session.commit()
    own.dispose()

    assert readable(engine) == set()
    settle(engine, run)
    assert run.result(timeout=1) == MARKED


def test_a_blocked_run_says_why_to_those_with_the_key(make):
    """The reason may show arguments."""
    engine = make(aes_gcm(KEYS))
    wipe(engine)
    run = engine.start(listens, MARKED)
    settle(engine, run)
    restart(engine)

    async def changed(value: str) -> Any:
        return await fails(value)

    before, listens.function = listens.function, changed
    try:
        engine.resume_hook(f"{MARKED[:5]}-hook", 1)
        drive(engine, run.id)
    finally:
        listens.function = before
    assert run.status == "blocked"
    assert readable(engine) == set()


def test_the_test_kit_takes_a_cipher():
    """The same settings as everywhere; its database holds no value."""
    with Environment(cipher=aes_gcm(KEYS)) as env:
        assert env.run(child, MARKED) == MARKED
        assert readable(env.engine) == set()
        env.restart()
        assert env.run(child, LARGE) == LARGE
