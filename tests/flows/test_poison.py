"""A workflow that ends its process, or hangs: its run is blocked after three tries, and no innocent one ever is."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle

from durable import Durable, Run, workflow
from durable.client import describe, operate
from durable.engine import watchdog
from durable.engine.process import identify
from durable.engine.watchdog import SIGNAL
from durable.recovery import housekeeping
from durable.store import runs as stored
from durable.store.schema import inbox
from durable.turns import poison
from durable.turns.drive import drive
from durable.turns.poison import Try

pytestmark = all_databases()

#: What the body does; a forked child changes its own.
deeds: list[Callable[[], object]] = []


@workflow(name="poison.does")
async def does() -> str:
    for deed in deeds:
        deed()
    return "done"


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Whatever a test has the body do, the next one's does nothing."""
    yield
    deeds.clear()


@pytest.fixture(autouse=True)
def alone() -> None:
    """These tests fork: no other engine's thread may be in the midst of SQLite then, whose locks are inherited."""
    for running in list(housekeeping._running.values()):
        running.stop()
    housekeeping._running.clear()


def in_a_child(act: Callable[[], object]) -> int:
    """Do it in a process of its own; how that ended."""
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_in_turn(engine: Durable, run: Run[str], *, redelivered: bool = True) -> int:
    """A turn whose body kills its process; 0 if the body did not run."""

    def act() -> None:
        deeds.append(lambda: os._exit(7))
        drive(engine, run.id, redelivered=redelivered)

    engine.store.close()  # no connection crosses
    return in_a_child(act)


def resend(engine: Durable, run: Run[str]) -> None:
    """As the sweep does when nothing came of a turn's message."""
    with engine.store.begin() as tx:
        tx.execute(sa.update(inbox).where(inbox.c.run_id == run.id).values(sends=inbox.c.sends + 1))


def noted(engine: Durable, run: Run[str]) -> tuple[int | None, str | None]:
    with engine.store.read() as tx:
        row = stored.find(tx, run.id)
    assert row is not None
    return row.turn_tries, row.turn_tried


def reason(engine: Durable, run: Run[str]) -> str:
    return str(describe.describe(engine, run.id)["error"])


def test_a_body_that_kills_its_process_is_blocked_after_three_tries(engine):
    """It runs three times and no more; the reason says how, in which processes and when, and what to do."""
    run = does.start()

    ends = [die_in_turn(engine, run, redelivered=number > 0) for number in range(5)]

    assert ends == [7, 7, 7, 0, 0]
    assert run.status == "blocked"
    told = reason(engine, run)
    assert "3 times in a row (killed, in an unknown process; killed, in " in told
    assert f"{identify().host}:" in told
    assert "durable runs retry" in told


def test_retrying_gives_it_its_tries_anew(engine):
    """Three more, then it is blocked again; a body that does no harm any more ends the run."""
    run = does.start()
    for number in range(4):
        die_in_turn(engine, run, redelivered=number > 0)

    operate.retry(engine, run.id)
    ends = [die_in_turn(engine, run, redelivered=number > 0) for number in range(4)]
    assert ends == [7, 7, 7, 0]
    assert run.status == "blocked"

    operate.retry(engine, run.id)
    settle(engine, run)
    assert run.result() == "done"
    assert noted(engine, run) == (None, None)


def test_a_new_code_version_has_its_own_tries(engine):
    """What other code did does not count, before the run is blocked and after."""
    run = does.start()
    die_in_turn(engine, run, redelivered=False)
    die_in_turn(engine, run)
    engine.settings = replace(engine.settings, code_version="two")
    ends = [die_in_turn(engine, run, redelivered=number > 0) for number in range(4)]
    assert run.status == "blocked"

    engine.settings = replace(engine.settings, code_version="three")
    settle(engine, run)

    assert ends == [7, 7, 7, 0]
    assert run.result() == "done"


def test_an_ordinary_turn_writes_no_note_and_a_noted_one_takes_it_away(engine):
    """Nothing is counted once a turn has succeeded: only tries in a row do."""
    run = does.start()
    die_in_turn(engine, run, redelivered=False)
    assert noted(engine, run) == (None, None)
    die_in_turn(engine, run)
    assert noted(engine, run)[0] == 1

    drive(engine, run.id)

    assert noted(engine, run) == (None, None)
    assert run.result() == "done"


def test_where_only_the_sweep_tells_what_died_is_counted_by_the_notes(engine):
    """On Redis a whole worker's messages come back late: the sweep's repeat is no proof, a dead process is."""
    run = does.start()
    resend(engine, run)

    ends = [die_in_turn(engine, run, redelivered=False) for _ in range(4)]

    assert ends == [7, 7, 7, 0]
    assert run.status == "blocked"


def test_repeats_of_a_turn_that_is_only_slow_count_nothing(engine, monkeypatch):
    """A living process that is in the midst of it is not dead, however often the message comes again."""
    # A turn is left alone when another thread of the process has long been in it.  Here it never has.
    monkeypatch.setattr(watchdog, "CHECK_SECS", 60)
    run = does.start()
    go_on, inside = threading.Event(), threading.Event()
    deeds.append(lambda: inside.set() or go_on.wait(60))
    slow = threading.Thread(target=drive, args=(engine, run.id), kwargs={"redelivered": False})
    slow.start()
    try:
        assert inside.wait(10)
        deeds.clear()
        deeds.append(lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
        resend(engine, run)
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                drive(engine, run.id)
        assert noted(engine, run)[0] == 0
    finally:
        go_on.set()
        slow.join(20)
    settle(engine, run)

    assert run.result() == "done"


def test_workers_that_were_killed_outside_of_the_turn_count_nothing(engine):
    """Messages that come again, whose turns end at their first try, block nothing, however many there are."""
    for _ in range(5):
        run = does.start()
        drive(engine, run.id, redelivered=True)
        assert run.result() == "done"
        assert noted(engine, run) == (None, None)


def test_a_cancel_ends_a_run_that_is_blocked_so(engine):
    """At once and without its code; also one that came while the tries were counted."""
    run, other = does.start(), does.start()
    for number in range(4):
        die_in_turn(engine, run, redelivered=number > 0)
    for number in range(3):
        die_in_turn(engine, other, redelivered=number > 0)
    run.cancel()
    other.cancel()
    deeds.append(lambda: os._exit(7))

    drive(engine, run.id)
    drive(engine, other.id)

    assert (run.status, other.status) == ("cancelled", "cancelled")


def hang() -> None:
    threading.Event().wait()


@pytest.mark.usefixtures("unmeasured")
def test_a_body_that_hangs_is_interrupted_and_blocked_after_three_tries(engine):
    """Nothing is written of a turn that hung but the try; the third blocks the run, and the process is well."""
    engine.settings = replace(engine.settings, turn_timeout=50_000)
    run = does.start()
    deeds.append(hang)

    counts = []
    for _ in range(3):
        drive(engine, run.id)
        counts.append((noted(engine, run)[0], run.status))

    assert counts == [(1, "pending"), (2, "pending"), (None, "blocked")]
    assert reason(engine, run).count("hung, in ") == 3
    deeds.clear()
    operate.retry(engine, run.id)
    settle(engine, run)
    assert kinds(run) == ["run_created", "run_started", "run_completed"]


@pytest.mark.usefixtures("unmeasured")
def test_a_child_whose_turn_nothing_stops_is_killed_and_that_is_a_try(engine, monkeypatch):
    """A prefork child that no signal interrupts ends itself; after three of them the run is blocked."""
    monkeypatch.setattr("durable.engine.watchdog.HOPELESS_SECS", 0.05)
    engine.settings = replace(engine.settings, turn_timeout=50_000)
    run = does.start()

    def act() -> None:
        engine.stuck.may_kill_process = True
        deeds.append(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL}))
        deeds.append(hang)
        drive(engine, run.id, redelivered=True)

    engine.store.close()
    ends = [in_a_child(act) for _ in range(3)]

    assert ends == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert "killed or hung, in" in reason(engine, run)


def test_a_process_that_beats_no_more_counts_as_dead_also_on_this_host(engine):
    """A call into C may hold the interpreter for ever: the process is there, and does nothing."""
    run = does.start()
    silent = Try(at=engine.now(), version=engine.code_version(does), worker="silent", process=identify())
    with engine.store.begin() as tx:
        row = stored.find(tx, run.id)
        assert row is not None
        stored.record_tries(
            tx, row, tries=2, tried=json.dumps([*({**asdict(silent), "ended": "killed"},) * 2, asdict(silent)])
        )

    drive(engine, run.id)

    assert run.status == "blocked"


@pytest.mark.usefixtures("unmeasured")
def test_a_run_whose_turn_nothing_stops_is_blocked_by_the_housekeeping(engine, monkeypatch):
    """In a pool of threads a lock is waited for for ever: one thread is lost, and no other one to the same run."""
    monkeypatch.setattr("durable.engine.watchdog.HOPELESS_SECS", 0.05)
    engine.settings = replace(engine.settings, turn_timeout=50_000)
    run = does.start()
    gate = threading.Event()
    deeds.append(gate.wait)
    thread = threading.Thread(target=drive, args=(engine, run.id))
    thread.start()
    tick = threading.Event()
    while not engine.stuck:
        tick.wait(0.01)

    poison.block_stuck(engine)

    assert run.status == "blocked"
    assert "of waiting" in reason(engine, run)
    gate.set()
    thread.join(20)
    assert run.status == "blocked"
    assert engine.stuck == {}
