"""Values over 256 KiB: by reference in the log, whole where they are wanted, verified, and gone with their run."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, kinds, restart, settle, settle_family
from eventually import eventually
from servers import migrate
from sqlalchemy.exc import OperationalError
from trouble import cut_off

from durable import (
    BodyNotLoaded,
    ConfigurationError,
    Durable,
    PayloadMissing,
    Request,
    Response,
    create_hook,
    create_webhook,
    get_step_metadata,
    heartbeat,
    step,
    testing,
    workflow,
)
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.cipher import aes_gcm
from durable.client.describe import describe
from durable.client.operate import retry
from durable.recovery import orphans
from durable.recovery.housekeeping import Housekeeping
from durable.recovery.prune import prune, prune_batch
from durable.store import schema
from durable.store.payloads import CHUNK, UrlPayloads
from durable.store.schema import events, inbox, payloads, requests, runs, steps, workers
from durable.store.vault import LIMIT
from durable.turns.drive import drive
from durable.web import create_blueprint

LARGE = "large " * (LIMIT // 5)
#: The longest text that stays in its row: its quotes count.
EDGE = "e" * (LIMIT - 2)
DAY = timedelta(days=1) // timedelta(microseconds=1)
BODY = bytes(range(256)) * (LIMIT // 128)

calls: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()


@pytest.fixture
def make(database: str, manner: dict[str, Any]) -> Iterator[Callable[..., Durable]]:
    """Engines on one database."""
    made: list[Durable] = []

    def engine(**settings: Any) -> Durable:
        celery = Celery(f"test-{secrets.token_hex(4)}", broker="memory://")
        settings = {"public_url": "https://hooks.test", "max_body": 8 * LIMIT, **manner, **settings}
        made.append(Durable(celery, database_url=database, **settings))
        migrate(made[-1])
        return made[-1]

    yield engine
    for each in made:
        each.close()


@pytest.fixture(params=["database", "files", "memory"])
def place(request: pytest.FixtureRequest, make: Callable[..., Durable], tmp_path: Path) -> Durable:
    """An engine for each kind of payload store."""
    urls = {"files": f"file://{tmp_path}/payloads", "memory": f"memory://{secrets.token_hex(8)}"}
    return make(payload_url=urls.get(request.param))


@step
def echo(value: Any) -> Any:
    calls.append("echo")
    return value


@step
def makes(size: int) -> str:
    return "m" * size


@step
def size_of(value: Any) -> int:
    calls.append("size_of")
    return len(value)


@step(max_retries=3, retry_backoff=0)
def beats() -> Any:
    before = get_step_metadata().heartbeat
    if before is None:
        heartbeat(LARGE)
        raise ConnectionError(LARGE)
    return before


@step
def reads(request: Request) -> list[Any]:
    request.respond_with(Response(request.data + request.data[:1], 200))
    return [request.size, hashlib.sha256(request.data).hexdigest()]


@workflow
async def passes_on(value: str) -> str:
    return await echo(await echo(value))


@workflow
async def measured(text: str) -> int:
    # Under another name than its own argument: the two are not one payload.
    return await size_of(text)


@workflow
async def parent(value: str) -> str:
    return await passes_on(value)


@workflow
async def beaten() -> bool:
    return await beats() == LARGE


@workflow
async def listens() -> Any:
    return await size_of(await create_hook(token="large-values", metadata=LARGE))


@workflow
async def measures(size: int) -> int:
    return len(await makes(size))


@workflow
async def answers() -> Any:
    async for request in create_webhook(respond_with="manual", timeout=0, dedupe="X-Id"):
        told = [request.is_loaded, request.size, repr(request).endswith(f"{request.size} bytes>"), request.method]
        told.append(request.args["a"])
        for read in (
            lambda: request.data,  # noqa: B023
            request.text,
            lambda: request.json(default=1),  # noqa: B023
            lambda: request.form,  # noqa: B023
            lambda: request.files,  # noqa: B023
        ):
            try:
                read()
            except BodyNotLoaded as error:
                told.append(str(error))
        return [told, await reads(request)]
    return None


def texts(engine: Durable, run_id: str) -> list[str]:
    """The values of a run's log, as they are stored."""
    with engine.store.read() as tx:
        query = sa.select(events.c.value).where(events.c.run_id == run_id, events.c.value.is_not(None))
        return list(tx.execute(query.order_by(events.c.seq)).scalars())


def rows_of(engine: Durable, run_id: str) -> int:
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(payloads).where(payloads.c.run_id == run_id)
        return tx.execute(query).scalar_one()


def stored(engine: Durable, run_id: str) -> set[str]:
    """The digests of a run's payloads, wherever they are."""
    found = engine.store.vault.payloads.list(engine.store.read)
    return {each.digest for each in found if each.run_id == run_id}


@all_databases()
def test_a_large_value_is_whole_everywhere_and_its_rows_are_small(place):
    """From start through steps and a child to the result; every row of the log stays under 1 KiB."""
    run = place.start(parent, LARGE)
    settle_family(place, run)

    assert run.result(timeout=1) == LARGE
    [child_id] = [event.run_id for event in run.events() if event.kind == "child_created"]
    for run_id in (run.id, child_id):
        with place.store.read() as tx:
            found = tx.execute(sa.select(events).where(events.c.run_id == run_id)).all()
        assert max(sum(len(str(column)) for column in row) for row in found) < 1024
        assert all(text.startswith("~r.") for text in texts(place, run_id))
        # One text in all places of a run, but for the names of arguments around it.
        assert 1 < len(stored(place, run_id)) <= 3
    assert [event.result for event in run.events() if event.kind == "run_completed"] == ['"' + LARGE + '"']


@all_databases()
def test_what_is_just_small_enough_stays_in_its_row(make):
    """The limit is 256 KiB of encoded text."""
    engine = make()
    for value, is_reference in ((EDGE, False), (EDGE + "e", True)):
        run = engine.start(measures, len(value))
        settle(engine, run)

        assert run.result(timeout=1) == len(value)
        assert texts(engine, run.id)[2].startswith("~r.") is is_reference
        assert bool(rows_of(engine, run.id)) is is_reference


@all_databases()
def test_a_value_larger_than_a_packet(make):
    """20 MiB, where MariaDB takes statements of 16 MiB: no statement is larger than a chunk."""
    engine = make()
    run = engine.start(measures, 20 * 1024 * 1024)
    settle(engine, run)

    assert run.result(timeout=1) == 20 * 1024 * 1024


@all_databases()
def test_a_cold_replay_has_the_large_values(make):
    """Another process that knows nothing of the run goes on with it."""
    engine = make()
    run = engine.start(parent, LARGE)
    for _ in range(12):
        settle(engine, run)
        restart(engine)
    settle_family(engine, run)

    assert run.result(timeout=1) == LARGE


@all_databases()
def test_heartbeats_and_errors_may_be_large(make):
    """The next attempt sees the details; the failure is in the log."""
    engine = make()
    run = engine.start(beaten)
    settle(engine, run)

    assert run.result(timeout=1) is True


def test_a_heartbeat_is_read_once_the_payload_store_is_back(make, tmp_path, monkeypatch, caplog):
    """An attempt begins while the payload store is away: it waits for the details, and has them."""
    engine = make(payload_url=f"file://{tmp_path}/payloads", continuation=0)
    run = engine.start(beaten)
    drive(engine, run.id)
    attempt(engine, beats, Address(run.id, "r#1", 1), None)
    get, folder, away = engine.store.vault.payloads.get, tmp_path / "payloads", tmp_path / "away"

    def get_from_a_store_that_was_away(*args: Any) -> bytes | None:
        if not away.exists():
            return get(*args)
        try:
            return get(*args)
        finally:
            folder.unlink()
            away.rename(folder)

    folder.rename(away)
    folder.symlink_to(folder)  # which no system call can follow
    monkeypatch.setattr(engine.store.vault.payloads, "get", get_from_a_store_that_was_away)
    attempt(engine, beats, Address(run.id, "r#1", 2), None)
    settle(engine, run)

    assert run.result(timeout=0) is True
    assert "payload store" in caplog.text
    assert kinds(run).count("step_retrying") == 1


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_connection_that_is_cut_while_a_heartbeat_is_read_costs_no_attempt(make):
    """It is read on another one, and the attempt goes on from its details."""
    engine = make(continuation=0)
    run = engine.start(beaten)
    drive(engine, run.id)
    attempt(engine, beats, Address(run.id, "r#1", 1), None)

    with cut_off(engine, "SELECT durable_payloads.") as cut:
        attempt(engine, beats, Address(run.id, "r#1", 2), None)
    settle(engine, run)

    assert len(cut) == 1
    assert run.result(timeout=0) is True
    assert kinds(run).count("step_retrying") == 1


@all_databases()
def test_an_attempt_is_released_when_nothing_is_known_of_it(make, monkeypatch):
    """Its description fails for an unknown reason: another process takes it, some seconds later."""
    engine = make(continuation=0)
    run = engine.start(beaten)
    drive(engine, run.id)
    attempt(engine, beats, Address(run.id, "r#1", 1), None)

    monkeypatch.setattr(engine.store.vault.payloads, "get", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attempt(engine, beats, Address(run.id, "r#1", 2), None)

    assert not engine.running
    with engine.store.read() as tx:
        row = tx.execute(sa.select(steps).where(steps.c.run_id == run.id)).one()
    assert (row.status, row.claim, row.attempt, row.interruptions) == ("pending", None, 2, 0)
    assert row.not_before > engine.now()


@all_databases()
def test_hook_payloads_and_metadata_may_be_large(place):
    """The inbox's row is small too."""
    run = place.start(listens)
    settle(place, run)
    assert run.hooks()[0]["metadata"] == LARGE
    place.resume_hook("large-values", LARGE)

    with place.store.read() as tx:
        [text] = tx.execute(sa.select(inbox.c.value).where(inbox.c.run_id == run.id)).scalars()
    assert text.startswith("~r.")
    settle(place, run)
    assert run.result(timeout=1) == len(LARGE)


def client(engine: Durable) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(create_blueprint(engine))
    return app.test_client()


@all_databases()
def test_a_large_body_is_for_steps(place):
    """A workflow is told its size and what to do, a step has every byte; the answer may be large as well."""
    run = place.start(answers)
    settle(place, run)
    url = run.hooks()[0]["url"].removeprefix("https://hooks.test") + "?a=b"
    first = client(place).post(url, data=BODY, headers={"X-Id": "1"})
    again = client(place).post(url, data=BODY, headers={"X-Id": "1"})
    other = client(place).post(url, data=BODY[1:], headers={"X-Id": "1"})
    settle(place, run)

    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 422)
    told, seen = run.result(timeout=1)
    assert told[:5] == [False, len(BODY), True, "POST", "b"]
    assert len(told[5:]) == 5
    assert all("pass the request to a step" in each for each in told[5:])
    assert seen == [len(BODY), hashlib.sha256(BODY).hexdigest()]
    assert client(place).post(url, data=BODY, headers={"X-Id": "1"}).data == BODY + BODY[:1]
    with place.store.read() as tx:
        row = tx.execute(sa.select(requests).where(requests.c.run_id == run.id)).one()
    assert len(row.body) < 200
    assert len(row.answer_body) < 200


def test_an_exported_history_replays_a_large_body_as_it_was(make):
    """The body stays in the store: no workflow reads it."""
    engine = make()
    run = engine.start(answers)
    settle(engine, run)
    client(engine).post(run.hooks()[0]["url"].removeprefix("https://hooks.test") + "?a=b", data=BODY)
    settle(engine, run)

    history = testing.export(run)

    assert len(str(history)) < LIMIT
    outcome = testing.replay(history)
    assert outcome is not None
    assert outcome.status == "completed"


@all_databases()
def test_large_values_go_with_the_run(place):
    """``prune`` leaves no payload, in the database or elsewhere."""
    run = place.start(parent, LARGE)
    settle_family(place, run)
    with place.store.read() as tx:
        family = list(tx.execute(sa.select(runs.c.id).where(runs.c.id.like(f"{run.id}%"))).scalars()) or [run.id]
    assert stored(place, run.id)

    with place.store.begin() as tx:
        tx.execute(sa.update(runs).values(completed_at=1))
    prune(place, "1d")

    assert not run.exists
    for run_id in family:
        assert stored(place, run_id) == set()
        assert rows_of(place, run_id) == 0


def change(engine: Durable, run_id: str, what: str) -> None:
    """Lose, or change a byte of, each of a run's payloads."""
    outside = engine.store.vault.payloads
    if isinstance(outside, UrlPayloads):
        files, root = outside._files()
        for path in files.find(root):
            if what == "lost":
                files.rm_file(path)
            else:
                files.pipe_file(path, b"X" + files.cat_file(path)[1:])
        return
    with engine.store.begin() as tx:
        mine = payloads.c.run_id == run_id
        if what == "lost":
            tx.execute(sa.delete(payloads).where(mine))
        else:
            tx.execute(sa.update(payloads).where(mine, payloads.c.part == 1).values(data=b"changed"))


@all_databases()
@pytest.mark.parametrize("what", ["lost", "changed"])
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_result_that_is_gone_raises(make, what, is_encrypted):
    """`result()` raises at once; the error names the payload, its run, and what to compare."""
    engine = make(cipher=aes_gcm({"k": os.urandom(32)}) if is_encrypted else None)
    run = engine.start(passes_on, LARGE)
    settle(engine, run)
    change(engine, run.id, what)

    with pytest.raises(PayloadMissing, match=run.id) as caught:
        run.result(timeout=1)

    assert ("is not there" if what == "lost" else "is not what was stored") in str(caught.value)
    assert "DURABLE_PAYLOAD_URL" in str(caught.value)


@all_databases()
@pytest.mark.parametrize("what", ["lost", "changed"])
def test_a_turn_that_misses_a_payload_blocks_its_run(place, what):
    """With the reason; once the payload is back, ``retry`` lets it go on; a cancel ends it without."""
    run, other = place.start(parent, LARGE), place.start(parent, LARGE)
    with place.store.read() as tx:
        kept = tx.execute(sa.select(payloads).where(payloads.c.run_id == run.id)).mappings().all()
    outside = place.store.vault.payloads
    files = {}
    if isinstance(outside, UrlPayloads):
        system, root = outside._files()
        files = {path: system.cat_file(path) for path in system.find(root)}
    change(place, run.id, what)
    change(place, other.id, what) if not files else None

    settle(place, run, other)
    assert (run.status, other.status) == ("blocked", "blocked")
    assert "cannot be read from the payload store" in blocked_by(place, run.id)
    other.cancel()
    settle(place, other)
    assert other.status == "cancelled"

    if files:
        for path, data in files.items():
            system.pipe_file(path, data)
    else:
        with place.store.begin() as tx:
            tx.execute(sa.delete(payloads).where(payloads.c.run_id == run.id))
            tx.execute(sa.insert(payloads), [dict(row) for row in kept])
    assert retry(place, run.id)
    settle_family(place, run)
    assert run.result(timeout=1) == LARGE


def blocked_by(engine: Durable, run_id: str) -> str:
    with engine.store.read() as tx:
        return str(tx.execute(sa.select(runs.c.blocked).where(runs.c.id == run_id)).scalar_one())


@all_databases()
def test_a_step_whose_arguments_are_gone_fails_at_once(make):
    """Without a retry, with the error's name; the workflow can catch it, and the run ends."""
    engine = make(continuation=0)
    run = engine.start(measured, LARGE)
    drive(engine, run.id)
    with engine.store.begin() as tx:
        [reference] = tx.execute(
            sa.select(events.c.value).where(events.c.run_id == run.id, events.c.kind == "step_created")
        ).scalars()
        tx.execute(sa.delete(payloads).where(payloads.c.run_id == run.id, payloads.c.digest == reference.split(".")[3]))
    settle(engine, run)

    assert calls == []
    assert run.status == "failed"
    [failed] = [event for event in run.events(payloads=False) if event.kind == "step_failed"]
    assert failed.attempt == 1
    with pytest.raises(Exception, match="PayloadMissing"):
        run.result(timeout=1)


# Orphans


def age(engine: Durable, by: int) -> None:
    """Let all payloads have been stored longer ago."""
    outside = engine.store.vault.payloads
    if isinstance(outside, UrlPayloads):
        files, root = outside._files()
        for path in files.find(root):
            if files.protocol == "memory":
                files.store[path].modified -= timedelta(microseconds=by)
            else:
                moment = os.stat(path).st_mtime - by / 1_000_000
                os.utime(path, (moment, moment))
    with engine.store.begin() as tx:
        tx.execute(sa.update(payloads).values(stored_at=payloads.c.stored_at - by))


@all_databases()
def test_orphans_are_collected_and_nothing_else(place):
    """What nobody refers to for a day goes; what a run refers to, and what is young, stays."""
    # Other tests may have left values in this database.
    age(place, DAY + 1)
    orphans.collect_all(place)
    waiting, ended = place.start(listens), place.start(passes_on, LARGE)
    settle(place, waiting, ended)
    place.resume_hook("large-values", LARGE)
    client_run = place.start(answers)
    settle(place, client_run)
    client(place).post(client_run.hooks()[0]["url"].removeprefix("https://hooks.test") + "?a=b", data=BODY)
    vault = place.store.vault
    with place.store.begin() as tx:
        vault.seal(tx, ended.id, "r#9", LARGE + "of a turn that failed")
        vault.seal(tx, "a-run-that-was-never-committed", "r", LARGE)
    kept = {run.id: stored(place, run.id) for run in (waiting, client_run)} | {ended.id: stored(place, ended.id)}

    orphans.collect_all(place)
    assert stored(place, ended.id) == kept[ended.id]

    age(place, DAY + 1)
    assert orphans.collect_all(place) == 2
    assert stored(place, "a-run-that-was-never-committed") == set()
    assert len(stored(place, ended.id)) == len(kept[ended.id]) - 1
    assert {run.id: stored(place, run.id) for run in (waiting, client_run)} == {
        run.id: kept[run.id] for run in (waiting, client_run)
    }
    assert ended.result(timeout=1) == LARGE
    settle(place, waiting, client_run)
    assert waiting.result(timeout=1) == len(LARGE)
    assert client_run.result(timeout=1)[1] == [len(BODY), hashlib.sha256(BODY).hexdigest()]


@all_databases()
def test_an_orphan_that_is_wanted_again_stays(place):
    """Storing the same again makes it young."""
    vault = place.store.vault
    with place.store.begin() as tx:
        vault.seal(tx, "wanted-again", "r", LARGE)
    age(place, DAY + 1)
    with place.store.begin() as tx:
        vault.seal(tx, "wanted-again", "r", LARGE)

    orphans.collect_all(place)
    assert len(stored(place, "wanted-again")) == 1


def test_a_published_value_stays_whose_event_is_in_the_log_of_another_run(place):
    """A fork has a copy of what an earlier generation of its origin had published."""
    vault = place.store.vault
    with place.store.begin() as tx:
        sealed = vault.seal(tx, "a-fork", "r", LARGE)
        row = {"run_id": "a-fork", "name": "report", "published_at": 1, "value": sealed}
        tx.execute(sa.insert(schema.values), row)
    age(place, DAY + 1)

    orphans.collect_all(place)
    assert len(stored(place, "a-fork")) == 1


def test_the_sweep_collects_them(make):
    """A batch a round, by the process that sweeps."""
    engine = make()
    with engine.store.begin() as tx:
        engine.store.vault.seal(tx, "never-committed", "r", LARGE)
    age(engine, DAY + 1)

    keeper = Housekeeping(engine)
    keeper.tick()
    keeper.stop()

    assert stored(engine, "never-committed") == set()


# The stores themselves


@all_databases()
def test_two_that_store_the_same_at_once(make):
    """Both transactions commit, and what is stored is whole."""
    engine = make(cipher=aes_gcm({"k": os.urandom(32)}))
    run_id, together = secrets.token_hex(8), threading.Barrier(2, timeout=10)

    def store() -> str:
        together.wait()
        return engine.store.write(lambda tx: str(engine.store.vault.seal(tx, run_id, "r", LARGE)))

    with ThreadPoolExecutor(2) as pool:
        references = {future.result() for future in [pool.submit(store) for _ in range(2)]}

    assert len(references) == 1
    with engine.store.read() as tx:
        assert engine.store.vault.fetch(tx, run_id, references.pop()) == LARGE
    assert rows_of(engine, run_id) == len(LARGE) // CHUNK + 1


def test_a_payload_url_set_later(make, tmp_path):
    """What is in the database already is read from there."""
    before, after = make(), make(payload_url=f"file://{tmp_path}/payloads")
    run = before.start(passes_on, LARGE)
    settle(before, run)

    assert after.get_run(run.id).result(timeout=1) == LARGE


def test_a_file_that_was_written_in_part_is_written_again(make, tmp_path):
    """A process died while it wrote."""
    engine = make(payload_url=f"file://{tmp_path}/payloads")
    vault = engine.store.vault
    with engine.store.begin() as tx:
        reference = vault.seal(tx, "run", "r", LARGE)
        [path] = [each for each in Path(tmp_path, "payloads").rglob("*") if each.is_file()]
        path.write_bytes(path.read_bytes()[:1000])
        assert vault.seal(tx, "run", "r", LARGE) == reference
        assert vault.fetch(tx, "run", reference) == LARGE


@pytest.mark.parametrize("run_id", ["..", "../../elsewhere", "a/b", "%2e%2e", "~"])
def test_files_stay_below_the_url(make, tmp_path, run_id):
    """Whatever a run is called."""
    engine = make(payload_url=f"file://{tmp_path}/inside/payloads")
    with engine.store.begin() as tx:
        engine.store.vault.seal(tx, run_id, "r", LARGE)

    [path] = [each for each in tmp_path.rglob("*") if each.is_file() and "durable.db" not in each.name]
    assert path.parent.parent == tmp_path / "inside" / "payloads"
    assert [each.run_id for each in engine.store.vault.payloads.list(engine.store.read)] == [run_id]


def test_a_store_that_cannot_be_reached_is_trouble_like_the_databases(make, tmp_path):
    """It raises the database's error, so that code that retries after a database error retries here too."""
    Path(tmp_path, "file").write_text("no folder")
    engine = make(payload_url=f"file://{tmp_path}/file/below")

    with pytest.raises(OperationalError, match="payload store"):
        engine.start(passes_on, LARGE)


def test_a_payload_url_that_nobody_knows():
    """Told when the store is made, and not when the first large value comes."""
    with pytest.raises(ConfigurationError, match="payload_url"):
        UrlPayloads("nosuch://bucket")


def test_without_a_cipher_digests_show_what_was_stored_and_with_one_they_do_not(make):
    """Content addresses are MACs then."""
    plain, keyed = make(), make(cipher=aes_gcm({"k": os.urandom(32)}))
    guess = hashlib.sha256(b"payload run\0" + LARGE.encode()).hexdigest()
    with plain.store.begin() as tx:
        assert guess in str(plain.store.vault.seal(tx, "run", "r", LARGE))
    with keyed.store.begin() as tx:
        assert guess not in str(keyed.store.vault.seal(tx, "run", "r", LARGE))


def test_kinds_are_what_they_were(make):
    """References change nothing about which events there are."""
    engine = make()
    run = engine.start(passes_on, LARGE)
    settle(engine, run)

    assert kinds(run) == [
        "run_created",
        "run_started",
        "step_created",
        "step_completed",
        "step_created",
        "step_completed",
        "run_completed",
    ]


@all_databases()
def test_people_are_told_what_is_gone(make):
    """``durable runs show`` shows the rest, and why the run is blocked."""
    engine = make()
    waiting, run = engine.start(listens), engine.start(passes_on, LARGE)
    settle(engine, waiting)
    change(engine, run.id, "lost")
    change(engine, waiting.id, "lost")
    settle(engine, run)

    shown = describe(engine, run.id)
    assert shown["status"] == "blocked"
    assert "is not there" in shown["args"]
    assert "is not there" in shown["error"]
    assert shown["result"] is None
    assert "is not there" in waiting.hooks()[0]["metadata"]
    assert describe(engine, waiting.id)["args"] == {}


def test_a_payload_store_that_is_away_keeps_nobody_from_housekeeping(make, tmp_path, caplog):
    """The round is finished, and what could not be looked for is looked for later; a prune deletes the rows."""
    engine = make(payload_url=f"file://{tmp_path}/payloads")
    run = engine.start(passes_on, LARGE)
    settle(engine, run)
    folder = Path(tmp_path, "payloads")
    folder.rename(tmp_path / "away")
    folder.symlink_to(folder)  # which no system call can follow
    keeper = Housekeeping(engine)

    keeper.tick()

    assert keeper._beating_since is not None
    assert "Orphaned payloads are collected later: OSError: payload store" in caplog.text
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).values(completed_at=1))
    assert prune_batch(engine, engine.now()).runs == 1
    assert "left to the sweep" in caplog.text
    keeper.stop()

    folder.unlink()
    Path(tmp_path, "away").rename(folder)
    age(engine, DAY + 1)
    assert orphans.collect_all(engine) > 0
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("is_outside", [False, True])
def test_a_crash_anywhere_costs_no_large_value(tmp_path, is_outside):
    """Whatever process dies where: the run ends as it does without, also with payloads stored before their commit."""
    settings: dict[str, Any] = {"cipher": aes_gcm({"k": os.urandom(32)})}
    if is_outside:
        settings["payload_url"] = f"file://{tmp_path}/payloads"

    report = testing.crash_everywhere(passes_on, LARGE, sample=12, **settings)

    assert report.played == 12


@all_databases()
def test_files_are_written_while_no_transaction_is_open(make, tmp_path):
    """Arguments, results, and what a child is given and returns: a slow upload keeps nobody's locks."""
    engine = make(payload_url=f"file://{tmp_path}/payloads")
    files, _ = engine.store.vault.payloads._files()
    write, connections_in_use = files.pipe_file, []

    def noted(path: str, data: bytes) -> None:
        connections_in_use.append(engine.store.engine.pool.checkedout() - len(engine.store._kept))
        write(path, data)

    files.pipe_file = noted
    try:
        run = engine.start(parent, LARGE)
        settle_family(engine, run)
    finally:
        del files.pipe_file

    assert run.result(timeout=1) == LARGE
    assert len(connections_in_use) >= 4
    assert set(connections_in_use) == {0}


def test_files_are_tidied_up_beside_the_beats(make, tmp_path):
    """In a thread of its own: a store that takes its time does not make its process look dead."""
    engine = make(payload_url=f"file://{tmp_path}/payloads", sweep_interval=0.05, beat_interval=0.05)
    with engine.store.begin() as tx:
        engine.store.vault.seal(tx, "never-committed", "r", LARGE)
    age(engine, DAY + 1)
    slow = threading.Event()
    outside = engine.store.vault.payloads
    listed = outside.list

    def waits(reading: Any) -> Any:
        slow.wait(10)
        return listed(reading)

    outside.list = waits
    keeper = Housekeeping(engine)
    keeper.start()
    try:
        eventually(lambda: any(t.name == "durable-payloads" for t in threading.enumerate()))
        first = beat_of(engine)
        eventually(lambda: beat_of(engine) > first)
        assert stored_files(tmp_path)
        slow.set()
        eventually(lambda: not stored_files(tmp_path))
    finally:
        slow.set()
        keeper.stop()


def stored_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "payloads").rglob("*") if path.is_file()]


def beat_of(engine: Durable) -> int:
    with engine.store.read() as tx:
        query = sa.select(workers.c.beat_at).where(workers.c.id == engine.process_id)
        return int(tx.execute(query).scalar_one_or_none() or 0)
