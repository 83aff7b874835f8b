"""Schedules fire once at each planned time, on every database, whatever happens at once."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, more_engines, settle

from durable import (
    ConfigurationError,
    Durable,
    ScheduleNotFound,
    continue_as_new,
    create_schedule,
    get_schedule,
    get_workflow_metadata,
    schedule,
    sleep,
    step,
    workflow,
)
from durable.cipher import aes_gcm
from durable.duration import from_datetime, to_datetime
from durable.recovery import Housekeeping
from durable.schedules import declared, describe
from durable.schedules.fire import BATCH, fire_due
from durable.schedules.handle import Schedule
from durable.store import Vault, schedules

pytestmark = all_databases()

MINUTE = 60_000_000


@step(name="scheduled.planned")
def planned_step() -> datetime | None:
    return get_workflow_metadata().scheduled_for


@workflow(name="scheduled.short")
async def short(what: str = "") -> list[Any]:
    return [what, get_workflow_metadata().scheduled_for, await planned_step()]


@workflow(name="scheduled.long")
async def long_flow() -> None:
    await sleep("365d")


@workflow(name="scheduled.endless")
async def endless(generation: int = 1) -> None:
    if generation < 3:
        continue_as_new(generation + 1)
    await sleep("365d")


class At:
    """An engine whose time is a number; the database's own clock goes on."""

    def __init__(self, engine: Durable) -> None:
        self.engine = engine
        self.now = engine.now() // (60 * MINUTE) * 60 * MINUTE
        engine.now = lambda: self.now  # type: ignore[method-assign]

    def fire(self, minutes: float = 0) -> None:
        """Let so much time pass, then do what the process with the lease does."""
        self.now += int(minutes * MINUTE)
        while fire_due(self.engine):
            pass


@pytest.fixture
def at(engine: Durable) -> At:
    return At(engine)


@pytest.fixture
def name(own_registry: None) -> str:
    """A schedule's name of the test's own, since tests share databases."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture(autouse=True)
def _no_schedule_left(engine: Durable) -> Iterator[None]:
    yield
    with engine.store.begin() as tx:
        for row in schedules.page(tx, after="", limit=1_000):
            schedules.remove(tx, row.name)


def planned(found: Schedule) -> list[int]:
    """The planned times of its runs."""
    return sorted(run.planned_at for run in found.latest())


def test_each_planned_time_starts_one_run_that_knows_it(at, name):
    found = create_schedule(name, short, ("x",), every="15m")
    at.fire(14)
    assert found.latest() == []
    at.fire(1)
    at.fire()
    (run,) = found.runs()
    settle(at.engine, run)
    when = to_datetime(at.now)
    assert run.result(timeout=0) == ["x", when, when]
    at.fire(15)
    assert planned(found) == [at.now - 15 * MINUTE, at.now]


def test_two_processes_that_fire_at_once_start_one_run(at, name, database):
    found = create_schedule(name, short, every="1m", overlap="allow")
    with more_engines(database) as make:
        others = [at.engine, make(), make()]
        for other in others[1:]:
            other.now = lambda: at.now
        at.now += MINUTE
        gate, errors = threading.Barrier(3), []

        def fire(engine):
            gate.wait()
            try:
                fire_due(engine)
            except Exception as error:
                errors.append(error)

        for _ in range(5):
            threads = [threading.Thread(target=fire, args=(engine,)) for engine in others]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            at.now += MINUTE
        assert errors == []
        assert len(planned(found)) == len(set(planned(found))) == 5


def test_a_schedule_that_was_deleted_and_made_again_does_not_repeat_a_time(at, name):
    """The key of a run is the schedule's name and the planned time."""
    create_schedule(name, short, every="1h")
    at.fire(60)
    get_schedule(name).delete()
    at.now -= MINUTE
    again = create_schedule(name, short, every="1h")
    at.fire(1)
    assert again.latest() == []


@pytest.mark.parametrize(
    ("overlap", "expected"), [("skip", [1]), ("queue", [1]), ("allow", [1, 2, 3]), ("cancel", [1, 2, 3])]
)
def test_what_happens_while_the_run_before_goes_on(at, name, overlap, expected):
    found = create_schedule(name, long_flow, every="1m", overlap=overlap)
    begin = at.now
    for _ in range(3):
        at.fire(1)
        for run in found.runs():
            settle(at.engine, run)
    assert [(each - begin) // MINUTE for each in planned(found)] == expected
    statuses = [run.status for run in found.runs()]
    assert statuses == (["running", "cancelled", "cancelled"] if overlap == "cancel" else ["running"] * len(expected))


@pytest.mark.parametrize(("overlap", "count", "status"), [("skip", 1, "running"), ("cancel", 2, "cancelled")])
def test_a_run_that_has_continued_as_new_goes_on_in_its_last_generation(at, name, overlap, count, status):
    """Its schedule starts none beside it, or cancels that generation."""
    found = create_schedule(name, endless, every="1m", overlap=overlap)
    at.fire(1)
    (first,) = found.runs()
    for generation in (1, 2, 3):
        settle(at.engine, first.generations()[generation - 1])
    assert len(first.generations()) == 3
    at.fire(1)
    settle(at.engine, *found.runs(), first.generations()[-1])
    assert len(found.latest()) == count
    assert first.status == status


def test_with_queue_one_run_waits_the_latest(at, name):
    """Of the times that pass while a run goes on, the latest starts a run when it ends."""
    found = create_schedule(name, long_flow, every="1m", overlap="queue")
    at.fire(1)
    at.fire(1)
    at.fire(3.5)
    (run,) = found.runs()
    run.cancel()
    settle(at.engine, run)
    at.fire(0.25)
    assert [(each - at.now) / MINUTE for each in planned(found)] == [-4.75, -0.75]
    at.fire(0.25)
    assert len(planned(found)) == 2


def test_with_queue_and_all_each_time_waits_for_its_turn(at, name):
    found = create_schedule(name, long_flow, every="1m", overlap="queue", catch_up="all")
    begin = at.now
    at.fire(3)
    for count in (1, 2, 3):
        assert [(each - begin) // MINUTE for each in planned(found)] == list(range(1, count + 1))
        run = found.runs()[0]
        run.cancel()
        settle(at.engine, run)
        at.fire(1 / 60)


@pytest.mark.parametrize(("catch_up", "expected"), [("none", []), ("last", [4]), ("all", [1, 2, 3, 4])])
def test_times_that_were_missed(at, name, catch_up, expected):
    """The machine was suspended for more than four hours."""
    found = create_schedule(name, short, every="1h", overlap="allow", catch_up=catch_up)
    begin = at.now
    at.fire(4 * 60 + 10)
    assert [(each - begin) // (60 * MINUTE) for each in planned(found)] == expected
    at.fire(50)
    assert [(each - begin) // (60 * MINUTE) for each in planned(found)] == [*expected, 5]


@pytest.mark.parametrize("catch_up", ["none", "last"])
def test_what_recovery_takes_is_not_missed(at, name, catch_up):
    """A time that another process fires 40 seconds late, because the first one has died, is like any other."""
    found = create_schedule(name, short, every="20s", overlap="allow", catch_up=catch_up)
    begin = at.now
    at.fire(1)
    assert [each - begin for each in planned(found)] == [20_000_000, 40_000_000, MINUTE]


def test_a_machine_that_was_suspended_for_a_month_starts_one_run(at, name):
    found = create_schedule(name, short, cron="* * * * *", overlap="allow")
    at.fire(30 * 24 * 60)
    assert planned(found) == [at.now]


def test_a_paused_schedule_starts_nothing_and_makes_up_for_nothing(at, name):
    found = create_schedule(name, short, every="1h", catch_up="all")
    assert found.pause()
    assert not found.pause()
    at.fire(5 * 60)
    assert found.resume()
    assert not found.resume()
    at.fire(30)
    assert found.latest() == []
    at.fire(30)
    assert len(planned(found)) == 1


def test_trigger_starts_a_run_now(at, name):
    found = create_schedule(name, short, ("now",), every="1h")
    found.pause()
    run = found.trigger()
    settle(at.engine, run)
    assert run.result(timeout=0)[0] == "now"
    assert planned(found) == [at.now]


def test_backfill_starts_each_time_that_has_no_run(at, name):
    found = create_schedule(name, short, every="1h", overlap="allow")
    begin = at.now
    at.fire(60)
    at.fire(120)
    made = found.backfill(to_datetime(begin - 2 * 60 * MINUTE), to_datetime(at.now))
    assert [(each - begin) // (60 * MINUTE) for each in planned(found)] == [-2, -1, 0, 1, 2, 3]
    assert len(made) == 4
    assert found.backfill(to_datetime(begin - 2 * 60 * MINUTE), to_datetime(at.now)) == []


@pytest.mark.parametrize(
    ("start", "end", "says"), [(-60, 60, "in the future"), (-60, -120, "before it starts"), (-1_000_000, 0, "shorter")]
)
def test_a_backfill_that_cannot_be_meant_is_refused(at, name, start, end, says):
    found = create_schedule(name, short, every="1m")
    now = to_datetime(at.now)
    with pytest.raises(ValueError, match=says):
        found.backfill(now + timedelta(minutes=start), now + timedelta(minutes=end))


@pytest.mark.parametrize("timing", [{"every": "1h"}, {"cron": "0 0 1 1 *", "tz": "America/New_York"}])
def test_a_backfill_from_before_1970_is_refused(at, name, timing):
    """Some libraries send the first day of the year 1 for a time that is not set; no schedule plans a time there."""
    found = create_schedule(name, short, **timing)
    with pytest.raises(ValueError, match="before 1970"):
        found.backfill(datetime(1, 1, 1, tzinfo=UTC), to_datetime(at.now))


def test_nothing_fires_after_until(at, name):
    until = to_datetime(at.now + 2 * MINUTE)
    found = create_schedule(name, short, every="1m", overlap="allow", until=until)
    at.fire(1)
    at.fire(1)
    at.fire(1)
    assert len(planned(found)) == 2
    assert found.next(10) == []


def test_jitter_delays_a_run_and_not_its_planned_time(at, name):
    found = create_schedule(name, short, every="1h", jitter="30m", overlap="allow")
    began, late = at.now, []
    for _ in range(8 * 60 + 31):
        at.fire(1)
        late += [at.now - each for each in planned(found)[len(late) :]]
    assert all(each % (60 * MINUTE) == 0 for each in planned(found))
    assert len(planned(found)) == 8
    assert max(late) <= 31 * MINUTE
    assert len(set(late)) > 1
    assert planned(found)[0] == began + 60 * MINUTE


def test_a_schedule_remembers_its_latest_runs(at, name):
    """The list of its runs stays short, however long it fires."""
    found = create_schedule(name, short, every="1m", overlap="allow")
    for _ in range(15):
        at.fire(1)
        for run in found.runs():
            settle(at.engine, run)
    at.fire(1)
    assert len(planned(found)) <= schedules.KEPT_RUNS + 1


def test_declared_schedules_follow_a_deploy(at, name):
    """The next deploy changes one and leaves the other out."""
    changed, left = f"{name}-changed", f"{name}-left"
    schedule(changed, short, ("old",), every="1h")
    schedule(left, short, every="1h")
    at.engine.loaded_at = lambda: at.now
    declared.write_all(at.engine)
    at.fire(60)
    assert len(planned(get_schedule(changed))) == len(planned(get_schedule(left))) == 1

    declared.clear()
    at.now += MINUTE
    schedule(changed, short, ("new",), every="30m", overlap="allow")
    with_new_code = declared.registered_names()
    declared.write_all(at.engine)
    declared.remove_absent(at.engine, with_new_code)
    at.fire(29)
    run = get_schedule(changed).runs()[0]
    settle(at.engine, run)
    assert run.result(timeout=0)[0] == "new"
    with pytest.raises(ScheduleNotFound):
        get_schedule(left)
    at.fire(60)
    assert len(planned(Schedule(left, at.engine))) == 1


def test_of_two_processes_the_one_with_later_code_decides(at, name):
    """A worker of the release before, which starts again during the deploy, does not bring its schedules back."""
    schedule(name, short, ("new",), every="1h")
    at.engine.loaded_at = lambda: at.now
    declared.write_all(at.engine)
    declared.clear()
    schedule(name, short, ("old",), every="1h")
    at.engine.loaded_at = lambda: at.now - MINUTE
    declared.write_all(at.engine)
    at.fire(60)
    run = get_schedule(name).runs()[0]
    settle(at.engine, run)
    assert run.result(timeout=0)[0] == "new"


def test_a_change_in_code_is_written_though_the_schedule_fires_at_that_moment(at, name, monkeypatch):
    """The process that writes finds the row changed, and looks again."""
    create_schedule(name, short, ("old",), every="1h")
    read, fired = schedules.find_all, []

    def read_and_fire(tx, names):
        found = read(tx, names)
        if not fired:
            fired.append(name)
            at.fire(60)
        return found

    monkeypatch.setattr(schedules, "find_all", read_and_fire)
    create_schedule(name, short, ("new",), every="1h", overlap="allow")
    at.fire(60)
    latest = get_schedule(name).runs()[0]
    settle(at.engine, latest)
    assert latest.result(timeout=0)[0] == "new"
    assert len(planned(get_schedule(name))) == 2


def test_what_workers_have_removed_is_not_brought_back_by_a_web_process(at, name):
    """Its code may be older; and a schedule of that name can be made at run time."""
    schedule(name, short, every="1h")
    declared.write_all(at.engine)
    declared.remove_absent(at.engine, [])
    describe.list_schedules(at.engine, limit=10)
    with pytest.raises(ScheduleNotFound):
        get_schedule(name)
    declared.clear()
    assert create_schedule(name, short, every="1h").next(1)


def test_a_schedule_whose_workers_were_away_goes_on_where_it_was(at, name):
    """Workers of another application go on meanwhile; then the times that were missed are missed as ever."""
    schedule(name, short, every="1h", catch_up="all", overlap="allow")
    declared.write_all(at.engine)
    declared.remove_absent(at.engine, [])
    at.fire(150)
    declared.write_all(at.engine)
    at.fire(0)
    assert len(planned(get_schedule(name))) == 2


def test_a_declared_schedule_is_changed_and_deleted_only_in_code(at, name):
    schedule(name, short, every="1h")
    with pytest.raises(ConfigurationError, match="declared in code"):
        create_schedule(name, short, every="2h")
    with pytest.raises(ConfigurationError, match="remove the call"):
        get_schedule(name).delete()


def test_a_schedule_that_cannot_be_fired_does_not_keep_others_waiting(at, name, caplog):
    """A newer release has written it, say."""
    broken, good = create_schedule(f"{name}-a", short, every="1h"), create_schedule(f"{name}-b", short, every="1h")
    with at.engine.store.begin() as tx:
        schedules.change(tx, schedules.find(tx, broken.name), timing='{"moon": "full"}')
    at.fire(60)
    assert len(planned(good)) == 1
    assert "cannot be fired" in caplog.text


def test_the_housekeeping_writes_and_fires(engine, name):
    """What a worker's thread does: no other process is needed."""
    schedule(name, short, every="1s", overlap="allow")
    housekeeping = Housekeeping(engine)
    housekeeping.tick()
    when = from_datetime(get_schedule(name).next(1)[0])
    at = At(engine)
    at.now = when
    housekeeping.tick()
    assert planned(get_schedule(name))[-1] == when
    assert housekeeping.schedules.next_at == when + 1_000_000
    housekeeping.stop()


def statements(engine: Durable, act: Any) -> int:
    """How many statements *act* sends."""
    sent = []

    def note(_connection, _cursor, statement, _parameters, _context, _many):
        sent.append(statement)

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    act()
    sa.event.remove(engine.store.engine, "before_cursor_execute", note)
    return len(sent)


def test_many_schedules_at_one_time_start_in_few_statements_each_and_cost_nothing_else(at, name):
    """At midnight a few statements for each; at any other time one round costs what it costs without schedules."""
    idle = statements(at.engine, at.fire)
    for number in range(2 * BATCH + 10):
        create_schedule(f"{name}-{number:03}", short, cron="0 0 * * *")
    assert statements(at.engine, lambda: at.fire(1)) == idle
    at.now = from_datetime(get_schedule(f"{name}-000").next(1)[0])
    assert statements(at.engine, at.fire) <= 7 * (2 * BATCH + 10) + 30
    with at.engine.store.read() as tx:
        latest = schedules.latest_runs(tx, [f"{name}-{number:03}" for number in range(2 * BATCH + 10)])
    assert all([run.planned_at for run in runs] == [at.now] for runs in latest.values())
    assert statements(at.engine, lambda: at.fire(1)) == idle


def test_arguments_are_encrypted_with_the_rest(at, name):
    """Nobody who reads the table finds them, and a run gets them."""
    at.engine.store.vault = Vault(aes_gcm({"k": bytes(32)}), None)
    found = create_schedule(name, short, ("very secret",), every="1h")
    assert "secret" not in found.row().arguments
    before = found.row().version
    create_schedule(name, short, ("very secret",), every="1h")
    assert found.row().version == before
    run = found.trigger()
    settle(at.engine, run)
    assert run.result(timeout=0)[0] == "very secret"
