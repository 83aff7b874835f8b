"""docs/how-to/partitions.md: its SQL partitions the log of an installation on PostgreSQL, and everything else works."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import threading
import time
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from celery import Celery
from driving import settle_family
from eventually import eventually
from revisions import differences, upgrade_to
from servers import new_database

from durable import Durable, create_hook, doctor, resume_hook, step, workflow
from durable.recovery.prune import prune
from durable.store.schema import events
from durable.store.schema import runs as run_rows

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "partitions.md"
#: The SQL of the page, by the titles of its blocks.
SQL = dict(re.findall(r'^```sql title="(.*?)"\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL))

MONTHS = ("functions", "months")
HASH = ("functions", "hash")


@step(name="partitions.double")
def double(number: int) -> int:
    return 2 * number


@workflow(name="partitions.child")
async def child(number: int) -> int:
    return await double(number)


@workflow(name="partitions.family")
async def family(number: int, token: str | None = None) -> int:
    """Run a step and a child, and another step after the hook, if a token is given."""
    before = await double(number) + await child(number)
    if token is not None:
        before += await create_hook(token=token)
    return await double(before)


@pytest.fixture
def url(tmp_path):
    with new_database("postgresql", tmp_path) as made:
        yield made


@pytest.fixture
def engine(url):
    made = Durable(Celery("test", broker="memory://"), database_url=url, continuation="60s")
    yield made
    made.close()


def execute(url, *titles):
    """Execute blocks of the page as psql does, with the dates of the page replaced by those of the test."""
    with psycopg.connect(url, autocommit=True) as connection:
        for title in titles:
            connection.execute(in_test(SQL[title]))


def query(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def in_test(sql):
    """The SQL with the months that the conversion makes today, in place of those that the page shows."""
    today = time.gmtime()
    first, following, thirteenth = (
        f"{today.tm_year + (today.tm_mon + i) // 12}-{(today.tm_mon + i) % 12 + 1:02}" for i in (0, 1, 12)
    )
    shown = {"2027-01": first, "2027-02": following, "2028-01": thirteenth}
    shown |= {name.replace("-", "_"): month.replace("-", "_") for name, month in shown.items()}
    return re.sub("|".join(shown), lambda found: shown[found[0]], sql)


def start_in_month(engine, url, month, *args):
    """Start a run whose id is made in that month."""
    [(begin,)] = query(url, in_test(f"SELECT durable_run_id_at('{month} 12:00 UTC')"))
    return family.with_options(run_id=begin + secrets.token_hex(10)).start(*args)


def partitions(engine):
    """How many runs have their log in each partition."""
    query = sa.text("SELECT tableoid::regclass::text, count(DISTINCT run_id) FROM durable_events GROUP BY 1")
    with engine.store.read() as tx:
        return dict(tx.execute(query).all())


@pytest.mark.parametrize("blocks", [MONTHS, HASH], ids=["months", "hash"])
def test_runs_go_on_when_their_log_gets_partitions(engine, url, blocks):
    """Runs that wait and runs that have ended, with children, of an engine that is not stopped."""
    engine.migrate()
    waiting, ended = engine.start(family, 1, "partitions"), engine.start(family, 2)
    settle_family(engine, waiting)
    settle_family(engine, ended)
    before = waiting.events()

    execute(url, *blocks)

    assert (ended.result(0), waiting.events()) == (16, before)
    resume_hook("partitions", 5)
    settle_family(engine, waiting)
    fresh = engine.start(family, 3)
    settle_family(engine, fresh)
    assert (waiting.result(0), fresh.result(0)) == (18, 24)
    assert sum(partitions(engine).values()) == 6
    finding = next(finding for finding in doctor.examine(engine) if finding.name == "database")
    assert (finding.ok, finding.fix) == (True, "")
    assert prune(engine, 0) == 6
    assert partitions(engine) == {}


@pytest.mark.parametrize("blocks", [MONTHS, HASH], ids=["months", "hash"])
def test_migrations_take_a_log_with_partitions(engine, url, blocks):
    """All that follow the first one, whatever they change: the schema is that of the code, but for the partitions."""
    with engine.store.begin() as tx:
        upgrade_to(tx, "0001")
    execute(url, *blocks)

    engine.migrate()
    engine.migrate()

    with engine.store.read() as tx:
        found = differences(tx, lambda name: bool(re.fullmatch("durable_[a-z_]*[a-z]", name)))
    others = [(change[0], change[1].name) for change in found]
    assert others == ([("remove_table", "durable_events_other")] if blocks == MONTHS else [])
    run = engine.start(family, 1)
    settle_family(engine, run)
    assert run.result(0) == 8


def test_a_month_is_dropped_once_no_run_of_it_is_left(engine, url):
    """Not before: retention deletes the ended ones, a run that goes on keeps its month, and the page shows which."""
    engine.migrate()
    execute(url, *MONTHS)
    ended = start_in_month(engine, url, "2027-01-01", 1)
    waiting = start_in_month(engine, url, "2027-01-28", 2, "late")
    later = start_in_month(engine, url, "2027-02-01", 3)
    for run in (ended, waiting, later):
        settle_family(engine, run)
    first, following = in_test("durable_events_2027_01"), in_test("durable_events_2027_02")
    assert partitions(engine) == {first: 2, following: 1, "durable_events_other": 3}

    assert prune(engine, 0) == 5
    assert [row[0] for row in query(url, in_test(SQL["left"]))] == [waiting.id]
    with pytest.raises(psycopg.errors.RaiseException, match="still has the logs of runs"):
        execute(url, "drop")

    resume_hook("late", 5)
    settle_family(engine, waiting)
    assert waiting.result(0) == 26
    assert prune(engine, 0) == 1
    assert query(url, in_test(SQL["left"])) == []
    execute(url, "drop")
    assert query(url, f"SELECT to_regclass('{first}')") == [(None,)]
    # A run of that month that only begins now has its log elsewhere.
    late = start_in_month(engine, url, "2027-01-28", 4)
    settle_family(engine, late)
    assert (late.result(0), partitions(engine)) == (32, {"durable_events_other": 2})


@pytest.mark.parametrize("blocks", [MONTHS, HASH], ids=["months", "hash"])
def test_owner_and_privileges_stay(engine, url, blocks):
    """An application whose role does not own the tables goes on, and the owner can migrate the new ones."""
    engine.migrate()
    owner, user = (f"durable_{kind}_{secrets.token_hex(4)}" for kind in ("owner", "user"))
    with psycopg.connect(url, autocommit=True) as session:
        try:
            session.execute(f"CREATE ROLE {owner}; CREATE ROLE {user}; GRANT CREATE ON SCHEMA public TO {owner}")
            session.execute(
                f"ALTER TABLE durable_events OWNER TO {owner}; GRANT SELECT, INSERT ON durable_events TO {user}"
            )
            execute(url, *blocks)
            may = f"SELECT has_table_privilege('{user}', 'durable_events', unnest(ARRAY['SELECT', 'INSERT', 'DELETE']))"
            assert query(url, may) == [(True,), (True,), (False,)]
            owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename LIKE 'durable_events%'"
            assert query(url, owners) == [(owner,)]
        finally:
            session.execute(f"DROP OWNED BY {owner}, {user} CASCADE; DROP ROLE {owner}, {user}")


def test_more_months_are_made(engine, url):
    """Children's ids are no times: the log of one that is in a new month by chance moves to it, with nothing lost."""
    engine.migrate()
    execute(url, *MONTHS)
    [(begin,)] = query(url, "SELECT durable_run_id_at((current_date + interval '14 months')::timestamptz)")
    run = family.with_options(run_id=begin + 20 * "f").start(1, "moved")
    settle_family(engine, run)
    assert partitions(engine) == {"durable_events_other": 2}
    before = run.events()

    execute(url, "more months")

    assert run.events() == before
    (other,) = partitions(engine).keys() - {"durable_events_other"}
    assert re.fullmatch(r"durable_events_\d{4}_\d\d", other)
    resume_hook("moved", 5)
    settle_family(engine, run)
    assert run.result(0) == 18
    assert query(url, "SELECT count(*) FROM pg_partition_tree('durable_events') WHERE isleaf") == [(25,)]


@pytest.mark.parametrize("blocks", [MONTHS, HASH], ids=["months", "hash"])
def test_workers_need_not_stop(engine, url, blocks):
    """Turns and steps that run meanwhile wait for the conversion; none fails, and no event is lost."""
    engine.migrate()
    is_over, ended, errors = threading.Event(), [], []

    def work():
        try:
            while not is_over.is_set():
                run = engine.start(family, 1)
                settle_family(engine, run)
                ended.append(run)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    eventually(lambda: len(ended) >= 4 or errors, within_secs=60)
    execute(url, *blocks)
    done = len(ended)
    eventually(lambda: len(ended) >= done + 6 or errors, within_secs=60)
    is_over.set()
    for worker in workers:
        worker.join(30)

    assert errors == []
    assert {run.result(0) for run in ended} == {8}
    with engine.store.read() as tx:
        written = dict(tx.execute(sa.select(events.c.run_id, sa.func.count()).group_by(events.c.run_id)).all())
        assert written == dict(tx.execute(sa.select(run_rows.c.id, run_rows.c.seq)).all())


def test_a_collation_that_does_not_sort_by_time_is_refused(tmp_path):
    """In Danish, aa comes after z: ids would get into wrong months.  Nothing has changed then."""
    with new_database("postgresql", tmp_path, "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'da'") as url:
        engine = Durable(Celery("test", broker="memory://"), database_url=url)
        try:
            engine.migrate()
            with pytest.raises(psycopg.errors.RaiseException, match="does not sort run ids by their time"):
                execute(url, *MONTHS)
            run = engine.start(family, 1)
            settle_family(engine, run)
            assert run.result(0) == 8
        finally:
            engine.close()


@workflow(name="partitions.parallel")
async def parallel(count: int) -> int:
    return sum(await asyncio.gather(*(double(number) for number in range(count))))


@pytest.mark.parametrize("continuation", [0, "60s"])
@pytest.mark.parametrize("blocks", [MONTHS, HASH], ids=["months", "hash"])
def test_a_statement_of_a_run_touches_one_partition(url, blocks, continuation):
    """The planner sees from the statement which one: it neither opens nor locks the others."""
    engine = Durable(Celery("test", broker="memory://"), database_url=url, continuation=continuation)
    asked = {}

    def note(connection, cursor, statement, parameters, context, executemany):
        if "durable_events" in statement:
            asked[statement] = parameters[0] if executemany else parameters

    try:
        engine.migrate()
        execute(url, *blocks)
        sa.event.listen(engine.store.engine, "before_cursor_execute", note)
        for run in (engine.start(family, 1), engine.start(parallel, 30)):
            settle_family(engine, run)
            assert run.result(0) is not None
        assert run.events()
        sa.event.remove(engine.store.engine, "before_cursor_execute", note)
        touched = {statement: logs(engine, statement, parameters) for statement, parameters in asked.items()}
    finally:
        engine.close()

    assert len(touched) >= 6
    assert {statement: found for statement, found in touched.items() if len(found) > 1} == {}


def logs(engine, statement, parameters):
    """The partitions in the database's plan of a statement."""
    with engine.store.engine.connect() as connection:
        [plan] = connection.exec_driver_sql("EXPLAIN (FORMAT JSON) " + statement, parameters).scalar_one()
    return set(re.findall(r'"Relation Name": "(durable_events_\w+)"', json.dumps(plan)))


def test_a_locked_month_holds_up_no_run_of_another(url):
    """As while one is rebuilt: plans that are kept for prepared statements do not lock it either."""
    engine = Durable(
        Celery("test", broker="memory://"), database_url=f"{url}?options=-clock_timeout%3D3000", continuation=0
    )
    try:
        engine.migrate()
        execute(url, *MONTHS)
        runs = [start_in_month(engine, url, "2027-01-01", number) for number in range(8)]
        for run in runs:
            settle_family(engine, run)
        waiting = start_in_month(engine, url, "2027-02-01", 8)
        with psycopg.connect(url) as connection:
            connection.execute(in_test("LOCK TABLE durable_events_2027_02"))
            fresh = [start_in_month(engine, url, "2027-01-01", number) for number in range(8)]
            for run in fresh:
                settle_family(engine, run)
        settle_family(engine, waiting)
        assert [run.result(0) for run in [*runs, *fresh, waiting]] == [8 * number for number in [*range(8)] * 2 + [8]]
    finally:
        engine.close()
