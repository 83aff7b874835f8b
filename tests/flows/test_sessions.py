"""Starting in the caller's transaction: the run is there, and its message is sent, if and only if that commits."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import signals
from driving import all_databases, settle
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import orm

from durable import ConfigurationError, Durable, RunConflict, workflow
from durable.store.schema import runs


@workflow(name="sessions.order")
async def order(number: int) -> int:
    return number


@pytest.fixture
def published(engine: Durable) -> Iterator[list[str]]:
    """The ids of the runs whose first turn was sent."""
    sent: list[str] = []

    def note(sender: str, body: Any, **_: object) -> None:
        sent.append(body[0][0])

    signals.before_task_publish.connect(note)
    yield sent
    signals.before_task_publish.disconnect(note)


@pytest.fixture
def theirs(engine: Durable) -> Iterator[sa.Engine]:
    """The application's own SQLAlchemy engine on the same database, as SQLAlchemy makes it by default."""
    made = sa.create_engine(engine.store.url)
    yield made
    made.dispose()


@pytest.fixture
def session(theirs: sa.Engine) -> Iterator[orm.Session]:
    with orm.Session(theirs) as made:
        yield made


@all_databases()
def test_a_run_begins_when_the_transaction_commits(engine, session, published):
    """Before that nobody sees it, and nothing is sent."""
    run = order.with_options(session=session).start(7)
    assert (run.exists, published) == (False, [])

    session.commit()

    assert published == [run.id]
    settle(engine, run)
    assert run.result() == 7


@all_databases()
@pytest.mark.parametrize("end", ["rollback", "close"])
def test_a_run_of_a_transaction_that_is_rolled_back_never_was(engine, session, published, end):
    """No run and no message, neither then nor when the session is used and committed again."""
    run = order.with_options(session=session).start(7)
    getattr(session, end)()
    session.execute(sa.text("SELECT 1"))
    session.commit()

    assert (run.exists, published) == (False, [])


@all_databases()
@pytest.mark.parametrize("kept", [True, False], ids=["released", "rolled back"])
def test_a_savepoint_decides_over_its_run(theirs, published, kept):
    """What was started in a savepoint that is rolled back is gone, what stands around it begins."""
    if theirs.dialect.name == "sqlite":
        begin_as_sqlalchemy_says(theirs)
    with orm.Session(theirs) as session:
        outer = order.with_options(session=session).start(1)
        savepoint = session.begin_nested()
        inner = order.with_options(session=session).start(2)
        savepoint.commit() if kept else savepoint.rollback()
        assert published == []
        session.commit()

    assert (outer.exists, inner.exists) == (True, kept)
    assert published == ([outer.id, inner.id] if kept else [outer.id])


def begin_as_sqlalchemy_says(engine: sa.Engine) -> None:
    """Savepoints on SQLite want this recipe of SQLAlchemy's docs."""

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@all_databases()
def test_a_session_starts_many_runs_one_transaction_after_the_other(engine, session, published):
    """Each transaction sends its own."""
    first = [order.with_options(session=session).start(number).id for number in range(3)]
    session.commit()
    assert published == first

    lost = order.with_options(session=session).start(3)
    session.rollback()
    last = order.with_options(session=session).start(4)
    session.commit()

    assert published == [*first, last.id]
    assert not lost.exists


@all_databases()
def test_a_key_that_is_taken_gives_the_run_that_is_there(engine, session, published):
    """Taken before, or in this very transaction; other arguments are a conflict; the caller's work goes on."""
    keyed = order.with_options(idempotency_key=secrets.token_hex(8))
    before = keyed.start(1)
    published.clear()
    inside = order.with_options(session=session, idempotency_key=secrets.token_hex(8))

    assert keyed.workflow.with_options(**keyed.options, session=session).start(1) == before
    run = inside.start(2)
    assert inside.start(2) == run
    with pytest.raises(RunConflict, match=run.id):
        inside.start(3)
    session.commit()

    assert published == [run.id]


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_key_that_another_transaction_takes_meanwhile_gives_its_run(engine, session, theirs, published):
    """The start waits until the other transaction ends, and the caller's own rows are kept."""
    key = secrets.token_hex(8)
    mine, kept = order.with_options(session=session, idempotency_key=key), secrets.token_hex(8)
    order.with_options(session=session, run_id=kept).start(0)
    with orm.Session(theirs) as other:
        run = order.with_options(session=other, idempotency_key=key).start(1)
        told: list[Any] = []
        waiting = threading.Thread(target=lambda: told.append(mine.start(1)))
        waiting.start()
        waiting.join(0.1)
        assert told == []
        other.commit()
    waiting.join(10)
    session.commit()

    assert told == [run]
    assert published == [run.id, kept]


def test_a_session_of_another_database_is_refused(engine, tmp_path):
    """The error names both; nothing is written to either."""
    other = sa.create_engine(f"sqlite:///{tmp_path}/other.db")
    with orm.Session(other) as session:
        with pytest.raises(ConfigurationError, match=r"other\.db.*durable\.db") as refused:
            order.with_options(session=session).start(1)
        assert "Give both the same URL" in str(refused.value)
        session.commit()
    other.dispose()

    with engine.store.read() as tx:
        assert tx.execute(sa.select(runs)).all() == []


def test_a_session_without_a_database_is_refused(engine):
    """It cannot write anywhere."""
    with orm.Session() as session, pytest.raises(ConfigurationError, match="no database of its own"):
        order.with_options(session=session).start(1)


def test_a_sqlite_file_is_the_same_by_whatever_path(engine, published, monkeypatch):
    """A relative URL names the same file as an absolute one."""
    path = Path(engine.store.url.database)
    monkeypatch.chdir(path.parent.parent)
    other = sa.create_engine(f"sqlite:///{os.path.relpath(path)}")
    with orm.Session(other) as session:
        run = order.with_options(session=session).start(1)
        session.commit()
    other.dispose()

    assert published == [run.id]


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_server_is_the_same_by_whatever_of_its_local_names(engine, published):
    """localhost and 127.0.0.1, with the usual port or without, by another driver's name."""
    url = engine.store.url.set(host="localhost", port={"postgresql": 5432, "mysql": 3306}[engine.store.dialect])
    other = sa.create_engine(url.set(drivername=url.drivername.replace("mysql+", "mariadb+")))
    with orm.Session(other) as session:
        run = order.with_options(session=session).start(1)
        session.commit()
    other.dispose()

    assert published == [run.id]


@all_databases()
def test_flask_sqlalchemys_session_works_as_it_is(engine, published):
    """`session=db.session` in a view: committed with the row of the order, rolled back with it."""
    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = engine.store.url.render_as_string(hide_password=False)
    db = SQLAlchemy()
    name = f"shop_{secrets.token_hex(4)}"
    table = sa.Table(name, db.metadata, sa.Column("id", sa.Integer, primary_key=True))
    db.init_app(app)

    @app.post("/orders/<int:number>")
    def place(number: int) -> dict[str, str]:
        db.session.execute(sa.insert(table), {"id": number})
        run = order.with_options(session=db.session).start(number)
        if number == 13:
            raise ValueError("unlucky")
        db.session.commit()
        return {"run_id": run.id}

    with app.app_context():
        table.create(db.engine)
    client = app.test_client()
    placed = client.post("/orders/7").json
    assert client.post("/orders/13").status_code == 500
    with app.app_context():
        ids = db.session.execute(sa.select(table.c.id)).scalars().all()
        db.session.remove()
        db.engine.dispose()

    assert ids == [7]
    assert published == [placed["run_id"]]
    run = engine.get_run(placed["run_id"])
    settle(engine, run)
    assert run.result() == 7


def test_a_database_that_is_away_after_the_commit_does_not_undo_it(engine, session, published, monkeypatch):
    """The commit does not raise: the run is there, and the sweep sends its turn."""
    run = order.with_options(session=session).start(1)
    monkeypatch.setattr(engine.store.engine.pool, "connect", refuse)

    session.commit()

    monkeypatch.undo()
    assert run.exists
    assert published == []


def refuse() -> Any:
    raise sa.exc.OperationalError("connect", {}, Exception("the server is away"))
