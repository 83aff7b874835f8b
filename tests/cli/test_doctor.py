"""What ``durable doctor`` finds: each fault is really made, found, and answered with what to change."""

import json
import re
import secrets
import time
from contextlib import contextmanager
from urllib.parse import quote

import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from servers import DATABASES, OwnRedis, free_port, new_broker, new_database

from durable import ConfigurationError, Durable, create_hook, doctor, emit, registry, sleep, start, step, workflow
from durable.doctor.finding import check
from durable.recovery.housekeeping import Housekeeping
from durable.store import schema, workers
from durable.turns.drive import drive
from durable.web import create_blueprint


@step(name="doctor.weigh", queue="scales")
def weigh() -> int:
    return 1


@step(name="doctor.greet")
def greet() -> str:
    return "hello"


@workflow(name="doctor.weighing")
async def weighing() -> int:
    return await weigh()


@workflow(name="doctor.greeting")
async def greeting() -> str:
    return await greet()


@workflow(name="doctor.napping")
async def napping() -> None:
    await sleep("1h")


@contextmanager
def made(broker="memory://", **settings):
    """An engine of an application of its own.  No worker is asked through its broker, which goes nowhere."""
    celery = Celery(f"doctor-{secrets.token_hex(4)}", broker=broker)
    celery.conf.worker_enable_remote_control = False
    engine = Durable(celery, **settings)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(database):
    with made(database_url=database, public_url="https://hooks.test") as engine:
        engine.migrate()
        yield engine


@pytest.fixture
def worker(engine):
    """This process, as a worker of the default queue; a call lets it beat again."""
    housekeeping = Housekeeping(engine)
    housekeeping._beat()
    yield housekeeping._beat
    housekeeping._unregister()


def examined(engine):
    return {finding.name: finding for finding in doctor.examine(engine)}


@pytest.mark.parametrize("kind", DATABASES)
def test_nothing_is_wrong_where_all_is_well(kind, tmp_path):
    """With a worker, and a run that sleeps, there is no fault, on every database."""
    with new_database(kind, tmp_path) as url, made(database_url=url) as engine:
        engine.migrate()
        drive(engine, start(napping).id)
        Housekeeping(engine)._beat()

        assert [finding for finding in doctor.examine(engine) if not finding.ok] == []


def test_a_database_that_is_down_is_found_and_nothing_else_is_guessed(engine):
    """What needs the database is not looked at, and the fault names what to correct."""
    with made(database_url="postgresql://postgres@127.0.0.1:1/none") as without_database:
        found = examined(without_database)

    assert not found["database"].ok
    assert "DURABLE_DATABASE_URL" in found["database"].fix
    assert found["broker"].ok
    assert {found[name].detail for name in ("workers", "queues", "names", "blocked")} == {
        "Not checked: this needs the database."
    }


def test_a_database_without_the_schema_is_found(tmp_path):
    """Before the first `durable migrate` the doctor says one thing: run that command."""
    with new_database("postgresql", tmp_path) as url, made(database_url=url) as engine:
        (before,) = doctor.examine(engine)
        engine.migrate()
        after = examined(engine)["database"]

    assert (before.name, before.ok, after.ok) == ("database", False, True)
    assert "has no tables of durable yet" in before.detail
    assert "durable migrate" in before.fix
    assert schema.REVISION in after.detail


def test_a_schema_of_another_version_is_found(tmp_path):
    """A database that is one migration behind is told with both revisions."""
    with new_database("postgresql", tmp_path) as url, made(database_url=url) as engine:
        engine.migrate()
        with engine.store.begin() as tx:
            tx.execute(sa.text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0001'"))
        found = examined(engine)["database"]

    assert not found.ok
    assert "0001" in found.detail
    assert schema.REVISION in found.detail
    assert "durable migrate" in found.fix


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "amqp://guest@127.0.0.1:1//", "nonsense://", "redis://host:x"]
)
def test_a_broker_that_is_down_is_found(url, database):
    """Neither a broker that refuses nor a URL that means nothing is more than a finding."""
    began = time.monotonic()
    with made(url, database_url=database) as engine:
        engine.migrate()
        found = examined(engine)["broker"]

    assert not found.ok
    assert "DURABLE_BROKER_URL" in found.fix
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_dead_broker_of_several_is_told_of(database, broker):
    """The next one is used, so it is no fault."""
    with made(f"redis://127.0.0.1:1/0;{broker}", database_url=database) as engine:
        engine.migrate()
        found = examined(engine)["broker"]

    assert found.ok
    assert found.detail.endswith(broker.rpartition("@")[2].removeprefix("redis://"))
    assert "127.0.0.1:1/0 did not answer" in found.fix


@pytest.mark.slow
def test_a_node_of_a_redis_cluster_is_no_broker(tmp_path, database):
    """It answers, and then refuses most commands; ``durable doctor`` says so, and what to use."""
    with (
        OwnRedis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server,
        made(server.url, database_url=database) as engine,
    ):
        engine.migrate()
        found = examined(engine)["broker"]

    assert not found.ok
    assert f":{server.port}/0 is a node of a Redis Cluster, which Celery cannot use" in found.detail
    assert "Sentinel" in found.fix


def test_a_visibility_timeout_below_the_horizon_is_found(database):
    """Messages that wait in a worker for longer than that would be delivered again and again."""
    with made("redis://127.0.0.1:1/0", database_url=database, eta_horizon="90s") as engine:
        engine.celery.conf.broker_transport_options = {"visibility_timeout": 60}
        found = examined(engine)["transport"]
        engine.celery.conf.broker_transport_options = {"visibility_timeout": 90}

        assert not found.ok
        assert "60 s is below eta_horizon 90 s" in found.detail
        assert examined(engine)["transport"].ok


@pytest.mark.parametrize(
    ("broker", "given", "told"),
    [
        ("redis://127.0.0.1:1/0", {"socket_timeout": None}, "socket_timeout = 5.0"),
        ("amqp://127.0.0.1:1//", {"confirm_publish": False}, "confirm_publish = True"),
    ],
)
def test_transport_options_set_otherwise_are_told(database, broker, given, told):
    """Where the application sets an option against the recommendation, that is advice; left unset, all is well."""
    with made(broker, database_url=database) as engine:
        engine.celery.conf.broker_transport_options = given
        found = examined(engine)["transport"]
    with made(broker, database_url=database) as engine:
        unset = examined(engine)["transport"]

    assert found.ok
    assert told in found.fix
    assert (unset.detail, unset.fix) == ("as recommended", "")


def test_a_missing_public_url_is_advice(database):
    """Only webhooks need it."""
    with made(database_url=database) as engine:
        found = examined(engine)["public_url"]

    assert found.ok
    assert "DURABLE_PUBLIC_URL" in found.fix


def test_no_worker_is_found(engine, worker):
    """A worker that has not beaten for longer than dead_after is none."""
    assert examined(engine)["workers"].ok
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.workers).values(beat_at=engine.now() - engine.settings.dead_after - 1))

    found = examined(engine)["workers"]
    assert (found.ok, found.detail) == (False, "none alive")
    assert "celery -A" in found.fix


def test_workers_that_do_not_answer_through_the_broker_are_found(tmp_path):
    """A worker on another broker beats in the database, and would never get a message from here."""
    with new_broker("embedded", tmp_path) as url, made(url, database_url=f"sqlite:///{tmp_path}/a.db") as engine:
        engine.migrate()
        housekeeping = Housekeeping(engine)
        housekeeping._beat()
        engine.celery.conf.worker_enable_remote_control = True
        found = examined(engine)["answers"]

    assert not found.ok
    assert "same broker_url" in found.fix


def test_a_default_queue_without_a_worker_is_found_when_runs_are_open(engine, worker):
    """Turns of an open run go to the default queue, and this worker was started with -Q other."""
    engine.celery.amqp.queues.select(["other"])
    worker()
    assert examined(engine)["queues"].ok

    start(napping)
    found = examined(engine)["queues"]
    assert not found.ok
    assert found.detail == "No live worker takes from celery."
    assert "-Q celery" in found.fix


def test_the_queue_of_a_run_without_a_worker_is_found(engine, worker):
    """with_options(queue=…) needs a worker on that queue."""
    napping.with_options(queue="slow").start()

    assert examined(engine)["queues"].detail == "No live worker takes from slow."


def test_the_queue_of_a_pending_step_without_a_worker_is_found(engine, worker):
    """So does @step(queue=…), once a run waits for the step."""
    drive(engine, start(weighing).id)

    assert examined(engine)["queues"].detail == "No live worker takes from scales."


def test_the_applications_router_decides_which_queues_are_in_use(engine, worker):
    """task_routes apply to steps by their names and to turns by durable.drive."""
    engine.celery.conf.task_routes = {"doctor.greet": {"queue": "polite"}, "durable.*": {"queue": "turns"}}
    drive(engine, start(greeting).id)
    assert examined(engine)["queues"].detail == "No live worker takes from polite, turns."

    engine.celery.amqp.queues.select(["polite", "turns", "celery"])
    worker()
    assert examined(engine)["queues"].ok


def test_a_worker_that_does_not_say_its_queues_makes_it_advice(engine, worker):
    """One of an older version may take from any queue."""
    napping.with_options(queue="slow").start()
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.workers).values(queues=None))

    found = examined(engine)["queues"]
    assert found.ok
    assert "slow" in found.fix


def test_a_worker_tells_its_queues_and_its_clock(engine, worker):
    """They stand beside its beat: the default queue, and the same clock as the database's on this host."""
    with engine.store.read() as tx:
        row = workers.alive(tx)[0]

    assert json.loads(row.queues) == ["celery"]
    assert abs(row.clock_ahead) < 1_000_000


def test_a_database_with_another_clock_is_advice(tmp_path):
    """A MariaDB whose clock stands an hour behind: the worker's clock and this process's are told to be ahead."""
    with new_database("mariadb", tmp_path) as url:
        behind = quote(f"SET timestamp = {time.time() - 3600:.0f}")
        with made(database_url=f"{url}?init_command={behind}") as engine:
            engine.migrate()
            housekeeping = Housekeeping(engine)
            housekeeping._beat()
            found = examined(engine)["clocks"]

    assert found.ok
    ahead = [float(secs) for secs in re.findall(r"is ([0-9.]+) s ahead", found.detail)]
    assert ahead == pytest.approx([3600, 3600], abs=60)
    assert "NTP" in found.fix


def test_clocks_that_agree_are_well(engine, worker):
    """On one host there is nothing to say."""
    found = examined(engine)["clocks"]

    assert (found.ok, found.fix) == (True, "")


def test_c05_a_step_that_no_live_worker_knows_is_found(engine, worker, monkeypatch):
    """Its name, how many wait for it, and the oldest of these runs are told."""
    oldest, newer = start(greeting), start(greeting)
    for run in (oldest, newer):
        drive(engine, run.id)
    assert examined(engine)["names"].ok

    monkeypatch.delitem(registry.steps, "doctor.greet")
    worker()
    found = examined(engine)["names"]
    assert not found.ok
    assert f"doctor.greet (2 waiting, oldest run {oldest.id})" in found.detail
    assert "include or imports" in found.fix


def test_c06_a_workflow_that_no_live_worker_knows_is_found(engine, worker, monkeypatch):
    """A run with news waits for a worker that knows its workflow; one that only sleeps does not wait yet."""
    asleep, fresh = start(napping), start(greeting)
    drive(engine, asleep.id)
    for name in ("doctor.napping", "doctor.greeting"):
        monkeypatch.delitem(registry.workflows, name)
    worker()

    found = examined(engine)["names"]
    assert f"doctor.greeting (1 waiting, oldest run {fresh.id})" in found.detail
    assert "doctor.napping" not in found.detail


def test_blocked_runs_are_found(engine, worker):
    """How many there are, which, and what to do."""
    run = start(napping)
    drive(engine, run.id)
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.runs).values(status="blocked", blocked="(a diff)"))

    found = examined(engine)["blocked"]
    assert not found.ok
    assert found.detail.startswith("1 blocked")
    assert run.id in found.detail
    assert "durable runs retry" in found.fix


def test_failed_runs_are_counted_by_workflow(engine, worker):
    """Those of the last hour, and of the last day; they are no fault of the system."""
    assert examined(engine)["failures"].detail == "no run has failed within a day"
    hour = 3600 * 1_000_000
    ages = [(greeting, 0), (greeting, 2 * hour), (greeting, 25 * hour), (napping, 0)]
    for definition, age in ages:
        run = start(definition)
        with engine.store.begin() as tx:
            failed = sa.update(schema.runs).where(schema.runs.c.id == run.id)
            tx.execute(failed.values(status="failed", completed_at=engine.now() - age))

    found = examined(engine)["failures"]
    assert found.ok
    assert "doctor.greeting (1 in the last hour, 2 in a day)" in found.detail
    assert "doctor.napping (1 in the last hour, 1 in a day)" in found.detail
    assert "durable runs list --status failed" in found.fix


def test_steps_in_doubt_are_found(engine, worker):
    """Which, of which run, and what to do; their runs are not among those that new code could help."""
    run = start(weighing)
    drive(engine, run.id)
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.runs).values(status="blocked", blocked="(in doubt)"))
        tx.execute(sa.update(schema.steps).values(status="in_doubt", claim="theirs", claimed_at=1, doubt="(why)"))

    found = examined(engine)
    assert found["blocked"].ok
    assert not found["doubts"].ok
    assert run.id in found["doubts"].detail
    assert "durable runs resolve" in found["doubts"].fix


def test_finished_runs_cost_nothing(engine, worker):
    """Each statement of the doctor finds its rows by an index: none reads the table of runs from end to end."""
    drive(engine, start(weighing).id)
    statements = []
    sa.event.listen(
        engine.store.engine, "before_cursor_execute", lambda c, cur, text, params, *_: statements.append((text, params))
    )
    doctor.examine(engine)
    looked = [(text, params) for text, params in statements if "durable_runs" in text]

    assert len(looked) > 5
    with engine.store.read() as tx:
        for text, params in looked:
            plan = [row[3] for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", params)]
            assert not [line for line in plan if line.startswith("SCAN durable_runs")], (text, plan)
            assert not [line for line in plan if line == "SCAN durable_events"], (text, plan)


def test_c103_a_web_process_is_asked_for_its_health_at_a_webhook_that_does_not_exist(engine):
    """404 says that blueprint and database are well, 503 that the database is not."""

    def asked(engine):
        app = flask.Flask("health")
        app.register_blueprint(create_blueprint(engine))
        return app.test_client().get("/.well-known/workflow/v1/webhook/health-check-of-the-web-app").status_code

    with made(database_url="postgresql://postgres@127.0.0.1:1/none") as down:
        assert (asked(engine), asked(down)) == (404, 503)


@pytest.mark.parametrize(
    ("setting", "told", "fix"),
    [
        ({"accept_content": ["yaml"]}, "accept_content is ['yaml']", "Add 'json' to accept_content."),
        ({"accept_content": ["pickle"]}, "accept_content is ['pickle']", "Add 'json' to accept_content."),
        ({"task_protocol": 1}, "task_protocol is 1", "Remove the setting, or set it to 2."),
        ({"task_compression": "vacuum"}, "task_compression is 'vacuum'", "Install its package"),
        ({"task_soft_time_limit": 9, "task_time_limit": 3}, "task_soft_time_limit is 9 s", "Make it shorter."),
        ({"task_always_eager": True}, "task_always_eager is on", "Remove it here"),
    ],
    ids=str,
)
def test_settings_of_celery_that_lose_messages_are_found(database, setting, told, fix):
    """Each is a fault of its own, which names the setting and what to change."""
    with made(database_url=database) as engine:
        engine.migrate()
        well = examined(engine)["messages"]
        engine.celery.conf.update(setting)
        found = examined(engine)["messages"]

    assert (well.ok, found.ok) == (True, False)
    assert told in found.detail
    assert fix in found.fix


def test_a_web_app_that_would_lose_messages_registers_no_blueprint(database):
    """The error comes when the app is made, and not with the first webhook."""
    with made(database_url=database) as engine:
        engine.migrate()
        engine.celery.conf.accept_content = ["pickle"]

        with pytest.raises(ConfigurationError, match="accept_content"):
            flask.Flask("losing").register_blueprint(create_blueprint(engine))


@pytest.mark.parametrize("broker", ["reddis://127.0.0.1/0", ["amqp://127.0.0.1", "rabbit://127.0.0.1"]])
def test_a_broker_url_of_an_unknown_scheme_is_found(database, broker):
    """Also in the Celery app's own configuration, which durable does not parse."""
    with made(database_url=database, broker=broker) as engine:
        found = examined(engine)["messages"]

    assert not found.ok
    assert "Celery knows no broker with the scheme" in found.detail


def test_workers_of_a_broker_that_cannot_broadcast_are_not_asked(tmp_path, engine, worker):
    """The check is skipped, and its text says why."""
    celery = Celery("doctor-sqla", broker=f"sqla+sqlite:///{tmp_path}/broker.db")
    other = Durable(celery, database_url=engine.store.url.render_as_string(hide_password=False))
    try:
        found = {each.name: each for each in doctor.examine(other)}
    finally:
        other.close()

    assert found["answers"].ok
    assert "cannot broadcast" in found["answers"].detail


def test_a_check_that_cannot_be_made_here_is_skipped():
    """NotImplementedError of a broker's or a database's driver is no fault of the installation."""

    def count(what):
        raise NotImplementedError("this transport counts no messages")

    skipped = check("queues", count, None)

    assert (skipped.ok, skipped.detail) == (True, "not checked: this transport counts no messages")


def test_what_is_paused_for_long_is_found(engine, worker):
    """A pause of an hour is named, one of two days is a fault; the fix says how to resume."""
    run = engine.start(napping)
    assert run.pause()
    engine.pause(queue="slow", reason="an outage")
    assert (examined(engine)["paused"].ok, examined(engine)["paused"].detail) == (True, "paused: the queue slow")

    long_ago = engine.now() - 2 * 86_400_000_000
    with engine.store.begin() as tx:
        for table in (schema.pauses, schema.paused_runs):
            tx.execute(sa.update(table).values(paused_at=long_ago))
    found = examined(engine)["paused"]
    assert (found.ok, found.detail) == (False, f"Paused for more than a day: the queue slow, run {run.id}.")
    assert "durable queues resume NAME" in found.fix


@workflow(name="doctor.streaming")
async def streaming(count: int) -> None:
    for number in range(count):
        emit("short", number, keep=10)
        emit("whole", number, keep=None)
    await create_hook()


@pytest.mark.parametrize("kind", DATABASES)
def test_streams_that_are_too_long_are_found(kind, tmp_path, monkeypatch):
    """One whose old items were not deleted is a fault; one that keeps all is named; those of ended runs are not."""
    with new_database(kind, tmp_path) as url, made(database_url=url) as engine:
        engine.migrate()
        run = start(streaming, 30)
        drive(engine, run.id)
        assert examined(engine)["streams"].detail == "no stream is longer than it should be"

        with engine.store.begin() as tx:
            tx.execute(sa.update(schema.streams).values(next_number=200_000))
        found = examined(engine)["streams"]
        assert not found.ok
        assert found.detail == f"Streams have far more items than they keep: short of run {run.id} (199,980, keep=10)."

        with engine.store.begin() as tx:
            tx.execute(sa.update(schema.streams).values(keep=None))
        found = examined(engine)["streams"]
        assert found.ok
        assert f"whole of run {run.id} (200,000 items)" in found.detail
        assert "keep=" in found.fix

        run.cancel()
        drive(engine, run.id)
        assert examined(engine)["streams"].detail == "no stream is longer than it should be"
