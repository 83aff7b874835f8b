"""Client calls of an event loop on PostgreSQL: they wait in greenlets, and take no thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from asgi_client import client_of
from driving import call_threads, settle
from forking import in_child
from sqlalchemy.exc import OperationalError

from durable import (
    Durable,
    Response,
    RunNotFound,
    create_hook,
    create_webhook,
    define_hook,
    greenlets,
    receiver,
    workflow,
)
from durable.engine import loop_calls
from durable.store.schema import requests, runs
from durable.web import create_asgi_app
from durable.web.wsgi_request import PATH, RECEIVE

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

DEADLINE_SECS = 20


@workflow(name="loop_calls.waits")
async def waits(token: str) -> Any:
    return await create_hook(token=token)


checked = define_hook(int, name="loop_calls.checked")


@checked.validator
def note_thread(payload: int) -> None:
    validated_in.append(threading.current_thread().name)
    if payload < 0:
        raise ValueError("it is negative")


validated_in: list[str] = []


routed = receiver("loop_calls.routed")
routed.resume(lambda request: request.json()[0], payload=lambda request: request.json()[1])


@workflow(name="loop_calls.checks")
async def checks(token: str) -> int:
    return await checked.create(token=token)


@workflow(name="loop_calls.listens")
async def listens(mode: str | None) -> None:
    hook = create_webhook() if mode is None else create_webhook(respond_with="manual", timeout="20s")
    async for _ in hook:
        pass


@pytest.fixture
def engine(engine: Durable) -> Durable:
    """The first call of a loop is in a greenlet already."""
    engine.loop_calls.settled_secs = 0
    return engine


class Admin:
    """A connection that sees the sessions of the engine, and another that makes their statements wait."""

    def __init__(self, url: str) -> None:
        given = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._sees, self._locks = (psycopg.connect(given, autocommit=True, application_name="admin") for _ in range(2))

    def sessions(self, state: str = "true") -> list[int]:
        """The pids of the engine's sessions that are in this state, an SQL condition."""
        asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'admin'"
        return [pid for (pid,) in self._sees.execute(f"{asked} AND {state}")]

    def waiting(self) -> list[int]:
        """The sessions that wait for the lock of ``locked``."""
        return self.sessions("wait_event_type = 'Lock'")

    @contextlib.contextmanager
    def locked(self, table: str = "durable_runs") -> Iterator[None]:
        """Statements that read or write this table wait meanwhile."""
        with self._locks.transaction():
            self._locks.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            self._sees.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    def close(self) -> None:
        self._sees.close()
        self._locks.close()


@pytest.fixture
def admin(database: str, engine: Durable) -> Iterator[Admin]:
    made = Admin(database)
    yield made
    made.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait in the loop until the condition holds."""
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition():
        assert time.monotonic() < deadline, "the condition does not hold"
        await asyncio.sleep(0.005)


def places(engine: Durable) -> int:
    """How many calls of a loop run at once."""
    return engine.settings.pool_size + 3


# Side by side.


def test_calls_overlap_and_start_no_thread(engine, admin, token):
    """As many reads as there are places wait for SQL at once, in the loop's thread, while the loop goes on."""

    async def main() -> None:
        run = engine.start(waits, token)
        await run.astatus()
        before = threading.active_count()
        with admin.locked():
            reads = [asyncio.create_task(run.astatus()) for _ in range(places(engine))]
            await until(lambda: len(admin.waiting()) == places(engine))
            assert threading.active_count() == before
        assert await asyncio.gather(*reads) == ["pending"] * places(engine)

    asyncio.run(main())


def test_more_calls_wait_for_a_place_and_no_connection_more_is_opened(engine, admin, token):
    """Two hundred reads of a database that hangs wait in the loop: the pool refuses none, and is not exceeded."""

    async def main() -> None:
        run = engine.start(waits, token)
        engine.store.close()
        with admin.locked():
            reads = [asyncio.create_task(run.astatus()) for _ in range(200)]
            await until(lambda: len(admin.waiting()) == places(engine))
            assert len(admin.sessions()) == places(engine)
        assert await asyncio.gather(*reads) == ["pending"] * 200

    asyncio.run(main())


@pytest.mark.parametrize("is_typed", [False, True], ids=["aresume_hook", "aresume"])
def test_what_can_only_block_runs_in_a_thread(engine, token, monkeypatch, is_typed):
    """Messages to the broker, and functions of the application such as a validator, which is called once."""
    sent_in: list[str] = []
    send = engine.dispatch.broker.send
    monkeypatch.setattr(
        engine.dispatch.broker, "send", lambda m: (sent_in.append(threading.current_thread().name), send(m))[1]
    )

    async def main() -> None:
        run = await engine.astart(checks, token)
        await asyncio.to_thread(settle, engine, run)
        sent_in.clear()
        validated_in.clear()
        await (checked.aresume(token, 7) if is_typed else engine.aresume_hook(token, 7))

    asyncio.run(main())
    assert len(sent_in) == len(validated_in) == 1
    assert all(name.startswith("durable-call") for name in sent_in + validated_in)


def test_a_validator_of_what_a_receiver_routes_runs_in_a_thread(engine, token):
    """It is called once, and not in the thread of the server's event loop; what it refuses is kept as unroutable."""
    run = engine.start(checks, token)
    settle(engine, run)
    validated_in.clear()
    client = client_of(create_asgi_app(engine))

    answers = [client.post(RECEIVE + routed.name, json=[token, amount]).status_code for amount in (-1, 7)]
    settle(engine, run)
    assert (answers, run.result(timeout=0)) == ([202, 202], 7)
    assert len(validated_in) == 2
    assert all(name.startswith("durable-call") for name in validated_in)


def test_what_was_begun_goes_before_what_begins(engine, admin, token):
    """``run_next`` gets the first place that is free, before those that waited already; a cancelled call gets none."""
    order: list[str] = []

    async def main() -> None:
        run = engine.start(waits, token)
        with admin.locked():
            reads = [asyncio.create_task(run.astatus()) for _ in range(places(engine))]
            await until(lambda: len(admin.waiting()) == places(engine))
            calls = engine.loop_calls
            later = [asyncio.create_task(calls.run(order.append, f"new {n}")) for n in range(3)]
            await asyncio.sleep(0)
            later += [asyncio.create_task(calls.run_next(order.append, "begun"))]
            await asyncio.sleep(0)
            later[0].cancel()
        await asyncio.wait([*reads, *later])

    asyncio.run(main())
    assert order == ["begun", "new 1", "new 2"]


def test_webhooks_are_received_and_held_by_asgi(engine, token):
    """A request is recorded, held and answered by another process; one to a webhook that answers at once is too."""
    app = create_asgi_app(engine)

    async def post(path: str) -> tuple[int, bytes]:
        sent: list[Any] = []
        bodies = [b'{"a": 1}']

        async def receive() -> Any:
            if bodies:
                return {"type": "http.request", "body": bodies.pop()}
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": []}
        await app(scope | {"headers": [(b"content-length", b"8")]}, receive, send)
        return sent[0]["status"], sent[1]["body"]

    def unanswered(run_id: str) -> list[str]:
        with engine.store.read() as tx:
            mine = (requests.c.run_id == run_id, requests.c.answered_at.is_(None))
            return list(tx.execute(sa.select(requests.c.id).where(*mine)).scalars())

    async def main() -> None:
        paths, runs_of = [], []
        for mode in ("manual", None):
            run = await engine.astart(listens, mode)
            await asyncio.to_thread(settle, engine, run)
            paths.append(PATH + (await run.ahooks())[0]["token"])
            runs_of.append(run.id)
        held = asyncio.create_task(post(paths[0]))
        assert await post(paths[1]) == (202, b"")
        await until(lambda: unanswered(runs_of[0]))
        (request_id,) = unanswered(runs_of[0])
        assert await engine.arespond(request_id, Response(b"answered"))
        assert await held == (200, b"answered")

    asyncio.run(main())


def test_what_waits_holds_no_connection(engine, admin, token):
    """A hundred waiters for a result, a value and a stream: between their checks, no session does anything."""

    async def main() -> None:
        run = await engine.astart(waits, token)
        await asyncio.to_thread(settle, engine, run)
        pool: Any = engine.store._loop_engines._of_loops[asyncio.get_running_loop()].engine.pool
        waiting = [asyncio.create_task(run.aresult(timeout="20s")) for _ in range(50)]
        waiting += [asyncio.create_task(run.avalue("none", timeout="20s")) for _ in range(50)]
        await until(lambda: engine.completions.count == 100)
        await until(lambda: pool.checkedout() == 0)
        assert not admin.sessions("state <> 'idle'")
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert engine.completions.count == 0

    asyncio.run(main())


# Cancellation.


def test_a_cancelled_read_ends_at_once_and_returns_its_connection(engine, admin, token):
    """The server ends the statement too, and all places are free again."""

    async def main() -> None:
        run = engine.start(waits, token)
        with admin.locked():
            reads = [asyncio.create_task(run.astatus()) for _ in range(3 * places(engine))]
            await until(lambda: len(admin.waiting()) == places(engine))
            for read in reads:
                read.cancel()
            await asyncio.wait(reads)
            assert all(read.cancelled() for read in reads)
            assert not admin.waiting()
        assert await asyncio.gather(*(run.astatus() for _ in range(50))) == ["pending"] * 50
        with admin.locked(), pytest.raises(TimeoutError):
            await asyncio.wait_for(run.astatus(), 0.05)
        assert not admin.sessions("state <> 'idle'")

    asyncio.run(main())


@pytest.mark.parametrize("table", ["durable_runs", "durable_inbox"])
def test_a_cancelled_start_commits_nothing(engine, admin, token, table):
    """Whether it waits for its first statement or a later one; and the same start works afterwards."""

    async def main() -> None:
        start = waits.with_options(run_id=f"run-{token}").astart
        with admin.locked(table):
            started = asyncio.create_task(start(token))
            await until(admin.waiting)
            started.cancel()
            with pytest.raises(asyncio.CancelledError):
                await started
        with engine.store.read() as tx:
            assert tx.execute(sa.select(runs.c.id).where(runs.c.id == f"run-{token}")).all() == []
        assert not admin.sessions("state LIKE 'idle in transaction%'")
        assert (await start(token)).id == f"run-{token}"

    asyncio.run(main())


def test_a_call_may_be_cancelled_at_any_point(engine, admin, token):
    """A start is whole or is not there, and no connection is left in use or in a transaction."""

    async def main() -> None:
        for turns in range(0, 240, 3):
            run_id = f"{token}-{turns}"
            started = asyncio.create_task(waits.with_options(run_id=run_id).astart(f"{token}-{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            started.cancel()
            await asyncio.wait([started])
            run = engine.get_run(run_id)
            if await run.aexists():
                assert [event.kind for event in await run.aevents()][:1] in ([], ["run_created"])
                assert await run.acancel()
        pool: Any = engine.store._loop_engines._of_loops[asyncio.get_running_loop()].engine.pool
        assert pool.checkedout() == 0
        assert not admin.sessions("state <> 'idle'")

    asyncio.run(main())


def test_a_start_that_is_cancelled_after_its_commit_sends_its_message(engine, token, monkeypatch):
    """The thread that sends it goes on to its end."""
    began, may_end, sent = threading.Event(), threading.Event(), []
    send = engine.dispatch.broker.send

    def slow(messages: Any) -> bool:
        began.set()
        may_end.wait(DEADLINE_SECS)
        sent.extend(messages)
        return send(messages)

    monkeypatch.setattr(engine.dispatch.broker, "send", slow)

    async def main() -> None:
        started = asyncio.create_task(engine.astart(waits, token))
        await until(began.is_set)
        started.cancel()
        await asyncio.sleep(0)
        assert not started.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await started

    asyncio.run(main())
    assert len(sent) == 1


# Outages.


@pytest.mark.parametrize("table", ["durable_runs", "durable_hooks"])
def test_a_session_that_is_killed_raises_what_the_other_form_raises(engine, admin, token, table):
    """The same class and state, from SQLAlchemy and from a prepared statement; the next call connects again."""
    run = engine.start(waits, token)

    async def kill() -> None:
        await until(admin.waiting)
        admin.kill(admin.waiting())

    def killed(read: Callable[[], object]) -> Any:
        with admin.locked(table), ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, kill())
            with pytest.raises(OperationalError) as raised:
                read()
        return raised.value

    async def read() -> Any:
        return await (run.astatus() if table == "durable_runs" else engine.aget_hook(token))

    asynchronous = killed(lambda: asyncio.run(read()))
    synchronous = killed(lambda: run.status if table == "durable_runs" else engine.get_hook(token))
    for of in (type, lambda e: type(e.orig), lambda e: e.orig.sqlstate, lambda e: e.connection_invalidated):
        assert of(asynchronous) == of(synchronous)

    async def main() -> None:
        assert await asyncio.gather(*(run.astatus() for _ in range(5))) == ["pending"] * 5
        admin.kill(admin.sessions())
        # A connection that was used a moment ago is not checked.  Once one is found broken, none of the others is used.
        with contextlib.suppress(OperationalError):
            await run.astatus()
        assert await asyncio.gather(*(run.astatus() for _ in range(20))) == ["pending"] * 20

    asyncio.run(main())


def test_other_errors_are_those_of_the_other_form(engine, token):
    """An unknown run."""
    with pytest.raises(RunNotFound):
        asyncio.run(engine.get_run("unknown").astatus())


# Loops and processes.


def test_a_loop_that_ends_leaves_no_connection(engine, admin, token):
    """``asyncio.run`` closes them; so does the next loop, for a loop that was closed without more."""
    run = engine.start(waits, token)
    engine.store.close()

    async def main() -> None:
        assert await asyncio.gather(*(run.astatus() for _ in range(5))) == ["pending"] * 5

    for _ in range(5):
        asyncio.run(main())
    asyncio.run(until(lambda: admin.sessions() == []))

    left = asyncio.new_event_loop()
    left.run_until_complete(main())
    assert len(admin.sessions()) == 5
    left.close()
    asyncio.run(main())
    asyncio.run(until(lambda: admin.sessions() == []))


def test_an_engine_that_is_closed_leaves_no_connection(engine, admin, token):
    """In the loop that goes on, and from another thread; the next call opens new ones."""
    run = engine.start(waits, token)

    async def main() -> None:
        await run.astatus()
        engine.store.close()
        await until(lambda: admin.sessions() == [])
        await run.astatus()
        await asyncio.to_thread(engine.store.close)
        await until(lambda: admin.sessions() == [])
        assert await run.astatus() == "pending"

    asyncio.run(main())


def test_a_child_process_opens_connections_of_its_own(engine, admin, token):
    """The parent's go on in the parent."""
    run = engine.start(waits, token)

    def child() -> bool:
        engine.loop_calls.settled_secs = 0
        return asyncio.run(run.astatus()) == "pending"

    loop = asyncio.new_event_loop()
    loop.run_until_complete(run.astatus())
    before = admin.sessions()
    asyncio.set_event_loop(None)
    assert in_child(child)
    assert loop.run_until_complete(run.astatus()) == "pending"
    assert set(before) <= set(admin.sessions())
    loop.close()


def test_a_loop_of_one_request_uses_the_connections_of_the_process(engine, admin, token):
    """Flask makes a loop for each asynchronous view: its calls run in threads, and connect to nothing."""
    engine.loop_calls.settled_secs = loop_calls.SETTLED_SECS
    run = engine.start(waits, token)
    before = admin.sessions()

    assert asyncio.run(run.astatus()) == "pending"
    assert admin.sessions() == before
    assert call_threads() == 1


# Settings.


def test_a_greenlet_is_not_needed(engine, token, monkeypatch):
    """Without the package, calls run in threads."""
    monkeypatch.setattr(greenlets, "are_available", lambda: False)
    engine.__dict__.pop("loop_calls", None)
    engine.loop_calls.settled_secs = 0

    assert asyncio.run(engine.start(waits, token).astatus()) == "pending"
    assert call_threads() == 1


def test_listeners_see_the_statements(engine, token):
    """An application that watches the statements of all engines sees those of event loops too."""
    run = engine.start(waits, token)
    seen: list[str] = []

    def watch(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", watch)
    try:
        asyncio.run(run.astatus())
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", watch)
    assert any("durable_runs" in statement for statement in seen)


def test_sessions_have_the_settings_of_all_others(engine, token):
    """Autocommit, keepalives, the encoding, and prepared statements."""
    run = engine.start(waits, token)

    def settings() -> Any:
        with engine.store.read() as tx:
            driver: Any = tx.connection.driver_connection
            shown = tx.exec_driver_sql("SHOW search_path").scalar(), tx.exec_driver_sql("SHOW client_encoding").scalar()
            parameters = driver.info.get_parameters()
            kept = {name: value for name, value in parameters.items() if name.startswith(("keepalives", "connect_"))}
            return *shown, kept, driver.autocommit, driver.prepare_threshold, type(driver).__name__

    async def main() -> Any:
        await run.astatus()
        return await engine.loop_calls.run(settings)

    *own, kind = asyncio.run(main())
    *others, other_kind = settings()
    assert own == others
    assert (kind, other_kind) == ("AsyncConnection", "Connection")
