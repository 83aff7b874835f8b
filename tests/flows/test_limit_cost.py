"""What an admission costs: 10,000 waiting steps of 100 keys cost no more for each that begins than 100 do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from driving import DATABASES
from limited import Process

from durable.store import admit_steps, limit_lines, limits, schema
from durable.store.limits import LimitKey
from durable.store.outbox import SendTimes

all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)

KEYS = 100
KEY = LimitKey("cost.limit", "key 7")
#: An ended step of this key has just given its slot back; two others run.
SLOTS = 3

#: The tables that grow with the steps that wait.
LONG = ("durable_steps", "durable_step_limits")

Statement = tuple[str, Any]


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    made = Process(database)
    yield made
    with made.engine.store.begin() as tx:
        tx.execute(sa.delete(schema.runs).where(schema.runs.c.id == "cost"))
    made.close()


def fill(process: Process, each: int) -> None:
    """So many steps wait for each of a hundred keys, behind two that run and one that has ended."""
    pending: dict[str, Any] = {"run_id": "cost", "name": "s", "attempt": 1, "status": "pending", "not_before": 0}
    pending |= {"cancelled": False, "sends": 0}
    steps, rows = [], []
    for number in range((each + SLOTS) * KEYS):
        key, place, op_id = f"key {number % KEYS}", number // KEYS - SLOTS, f"r#{number:06}"
        row = {"run_id": "cost", "op_id": op_id, "name": KEY.name, "key": key, "level": 9, "owner": "cost"}
        state = {"state": "waiting" if place >= 0 else "admitted", "place": max(place, 0), "ready_at": number}
        rows.append(row | state)
        if place != -1:
            steps.append(pending | {"op_id": op_id, "claim": None})
    with process.engine.store.begin() as tx:
        run = {"id": "cost", "name": "w", "status": "running", "turn": 1, "seq": 1, "last_at": 1, "digest": "d"}
        tx.execute(sa.insert(schema.runs).values(**run, created_at=1))
        limits.declare(tx, KEY.name, limits.Numbers(SLOTS, None, None))
        tx.execute(sa.insert(schema.steps), steps)
        tx.execute(sa.insert(schema.step_limits), rows)
        keys = [{"name": KEY.name, "key": f"key {n}", "recovers_at": 0, "next_check_at": 2**60} for n in range(KEYS)]
        tx.execute(sa.insert(schema.limit_keys), keys)
    analyze(process)


def analyze(process: Process) -> None:
    store = process.engine.store
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if store.dialect in ("mysql", "mariadb"):
            connection.exec_driver_sql("ANALYZE TABLE durable_step_limits, durable_steps, durable_limit_keys").all()
        else:
            connection.exec_driver_sql("ANALYZE")


def admit_one(tx: sa.Connection) -> None:
    """What follows on the end of a step: its row is deleted, and the next one of its key is sent."""
    ended = f"r#{(SLOTS - 1) * KEYS + 7:06}"
    admission, _ = admit_steps.admit_after(tx, "cost", ended, 10**6, SendTimes(2 * 10**6, 10**6))
    assert [row.op_id for row in admission.rows] == [f"r#{SLOTS * KEYS + 7:06}"]


def enter_one(tx: sa.Connection) -> None:
    """A run calls one more step, and has many waiting already."""
    call = limit_lines.LimitedCall("r#new", [KEY])
    limit_lines.wait(tx, "cost", "cost", [call], 10**6)


def undone(process: Process, act: Callable[[sa.Connection], None], around: Callable[[sa.Connection], Any]) -> Any:
    """Act in a transaction that is rolled back."""
    with process.engine.store.connect() as tx, tx.begin() as transaction:
        before = around(tx)
        act(tx)
        after = around(tx)
        transaction.rollback()
    return before, after


def statements_of(process: Process, act: Callable[[sa.Connection], None]) -> list[Statement]:
    """The statements that this executes which find their rows."""
    asked: list[Statement] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
            asked.append((statement, parameters[0] if many else parameters))

    sa.event.listen(process.engine.store.engine, "before_cursor_execute", note)
    try:
        undone(process, act, lambda _tx: None)
    finally:
        sa.event.remove(process.engine.store.engine, "before_cursor_execute", note)
    return asked


def rows_read(process: Process, act: Callable[[sa.Connection], None]) -> int:
    """The rows that the database reads for it, as it counts them."""
    if process.engine.store.dialect != "postgresql":
        before, after = undone(process, act, handler_reads)
        return int(after - before)
    total = 0
    for statement, parameters in statements_of(process, act):
        plans: list[Any] = []
        explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + statement

        def run(tx: sa.Connection, explain: str = explain, parameters: Any = parameters) -> None:
            plans.append(tx.exec_driver_sql(explain, parameters).scalar_one()[0]["Plan"])  # noqa: B023

        undone(process, run, lambda _tx: None)
        total += sum(read_by(node) for node in nodes(plans[0]) if node.get("Relation Name") in LONG)
    return total


def read_by(node: dict[str, Any]) -> int:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int((node["Actual Rows"] + removed) * node["Actual Loops"])


def handler_reads(tx: sa.Connection) -> int:
    rows = tx.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
    return sum(int(value) for _, value in rows)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("act", [admit_one, enter_one])
def test_a_long_line_costs_no_more_than_a_short_one(process, act):
    """The rows that the database reads, with 100 times as many that wait: it sees that there is one more."""
    fill(process, 1)
    short = rows_read(process, act)
    with process.engine.store.begin() as tx:
        for table in (schema.steps, schema.step_limits, schema.limit_keys, schema.limits, schema.runs):
            tx.execute(sa.delete(table))
    fill(process, 100)
    long = rows_read(process, act)

    # Of a short table, PostgreSQL may read all; and MariaDB counts some looks into an index differently each time.
    assert 0 < long <= min(short + 20, 60)


@all_databases
@pytest.mark.parametrize("act", [admit_one, enter_one])
def test_the_lines_are_read_by_their_indexes(process, act):
    """The very statements, explained: nothing is read as a whole, and no line is sorted."""
    fill(process, 100)
    plans = {statement: explained(process, statement, args) for statement, args in statements_of(process, act)}

    assert len(plans) >= (7 if act is admit_one else 1)
    of_lines = "\n".join(plan for statement, plan in plans.items() if "step_limits" in statement)
    assert "durable_step_limits_in_line" in of_lines
    if act is enter_one:
        assert "durable_step_limits_by_owner" in of_lines
    for statement, plan in plans.items():
        assert "Seq Scan on durable_step" not in plan, (statement, plan)
        assert "SCAN durable_step" not in plan, (statement, plan)
        # What SQLite sorts after it has scanned the subquery is the steps that are found, as many as there is room for.
        assert "USE TEMP B-TREE" not in plan.partition("SCAN anon_1")[0], (statement, plan)


def explained(process: Process, statement: str, parameters: Any) -> str:
    dialect = process.engine.store.dialect
    with process.engine.store.engine.connect() as connection:
        explain = partial(connection.exec_driver_sql, parameters=parameters)
        if dialect == "sqlite":
            return "\n".join(row.detail for row in explain("EXPLAIN QUERY PLAN " + statement))
        if dialect == "postgresql":
            return "\n".join(explain("EXPLAIN " + statement).scalars())
        return json.dumps([dict(row) for row in explain("EXPLAIN " + statement).mappings()], default=str)
