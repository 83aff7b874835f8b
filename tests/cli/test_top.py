"""``durable top``: what it shows of workers, queues and running steps, on terminals and on pipes."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from driving import settle

from durable.store import Worker, schema, workers
from durable.turns.drive import drive

#: Each test starts processes, some of them on pseudo-terminals.
pytestmark = pytest.mark.slow


@pytest.fixture
def crew(yard):
    """A live process that runs one step for a minute, and a step that waits in a queue that nobody consumes."""
    engine = yard.engine
    run = engine.start(yard.module.weighing, "crate-1")
    drive(engine, run.id)
    other = engine.start(yard.module.weighing, "crate-2")
    drive(engine, other.id)
    now = engine.now()
    row = Worker(
        id="w1",
        host="crane\x1b[2J",
        boot_id="b",
        pid=77,
        pid_started=1,
        started_at=0,
        beat_at=0,
        names="[]",
        queues='["celery"]',
        pool="prefork",
    )
    with engine.store.begin() as tx:
        workers.beat(tx, row, now)
        mine = sa.update(schema.steps).where(schema.steps.c.run_id == run.id)
        tx.execute(mine.values(status="claimed", claim="c", worker_id="w1", claimed_at=now - 60_000_000))
        theirs = sa.update(schema.steps).where(schema.steps.c.run_id == other.id)
        tx.execute(theirs.values(queue="heavy", sent_at=now - 120_000_000))
    yield run
    with engine.store.begin() as tx:
        workers.remove(tx, "w1")
        tx.execute(sa.update(schema.steps).values(status="pending", claim=None, worker_id=None, claimed_at=None))
    settle(engine, run, other)


def test_top_prints_once_on_a_pipe(yard, crew):
    """Tables of workers, queues and running steps, without escapes; names cannot write on the terminal."""
    shown = yard.durable("top")
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\x1b" not in shown.stdout
    assert lines[1].startswith("processes: 1 steps: 1 running, 1 waiting runs: 0 pending, 2 running, 0 blocked")
    (worker,) = [line for line in lines if line.startswith("crane\\x1b[2J:77 prefork celery")]
    assert "yard.weigh for 1 min" in worker
    assert any(line.startswith("heavy 1 2 min") and line.endswith(" 0") for line in lines)
    assert any(line.startswith(f"yard.weigh {crew.id} 1 1 min") for line in lines)


def test_top_has_json(yard, crew):
    """The same as one object, also on a terminal, where it does not refresh."""
    with yard.on_terminal("top", "--json") as shown:
        assert shown.end() == 0
    found = json.loads(shown.text)

    assert found["runs"] == {"pending": 0, "running": 2, "blocked": 0}
    assert [(worker["pid"], worker["pool"], worker["queues"]) for worker in found["workers"]] == [
        (77, "prefork", ["celery"])
    ]
    assert [(step["step"], step["run_id"]) for step in found["workers"][0]["running"]] == [("yard.weigh", crew.id)]
    assert [(queue["name"], queue["waiting"], queue["consumers"]) for queue in found["queues"]] == [
        ("celery", 0, 1),
        ("heavy", 1, 0),
    ]


def test_top_refreshes_a_terminal_until_ctrl_c(yard, crew):
    """It redraws the second screen when something has changed; Ctrl-C gives the first one back, with exit code 0."""
    with yard.on_terminal("top", "--interval", "0.1") as shown:
        shown.read_until("yard.weigh", "0 blocked")
        with yard.engine.store.begin() as tx:
            tx.execute(sa.update(schema.runs).where(schema.runs.c.id == crew.id).values(status="blocked"))
        shown.read_until("1 blocked")
        shown.press(b"\x03")
        assert shown.end() == 0
    with yard.engine.store.begin() as tx:
        tx.execute(sa.update(schema.runs).where(schema.runs.c.id == crew.id).values(status="running"))

    assert shown.text.rstrip().removesuffix("^C").endswith("\x1b[?25h\x1b[?1049l")


def test_once_prints_once_on_a_terminal(yard):
    """`--once` exits; without a live worker it says how to start one."""
    with yard.on_terminal("top", "--once") as shown:
        assert shown.end() == 0

    assert "\x1b[?1049h" not in shown.text
    assert "No worker process has sent a heartbeat" in shown.text
