"""Limits: their numbers, what is in use of each key, and what waits; see limits.py and run_limits.py."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, Table

from .columns import ascii_key, exact_text, metadata

limits = Table(
    "durable_limits",
    metadata,
    Column("name", exact_text(100), primary_key=True),
    #: How many attempts at once, or within ``per`` microseconds, as the code declares it.
    Column("n", Integer, nullable=False),
    #: The number that was set at run time in its place; NULL for none.
    Column("set_n", Integer),
    #: NULL for a limit of concurrency.
    Column("per", BigInteger),
    Column("burst", Integer),
    #: NULL for a limit of steps, "runs", or "debounce", whose ``per`` is what it waits.
    Column("kind", ascii_key(16)),
)

#: A key has a row while steps wait for it, or its rate has not recovered.
limit_keys = Table(
    "durable_limit_keys",
    metadata,
    Column("name", exact_text(100), primary_key=True),
    Column("key", exact_text(255), primary_key=True),
    #: When the rate has recovered from all that has begun; each attempt moves it on by its share of ``per``.
    Column("recovers_at", BigInteger, nullable=False),
    #: Nothing begins before this time; NULL for no pause.
    Column("paused_until", BigInteger),
    #: When the sweep checks the key; NULL while nothing waits.
    Column("next_check_at", BigInteger),
    Index("durable_limit_keys_by_check", "next_check_at"),
)

#: A step and one of its limits.  Rows of steps that have ended may stay for a while; they count for nothing.
step_limits = Table(
    "durable_step_limits",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("op_id", ascii_key(255), primary_key=True),
    Column("name", exact_text(100), primary_key=True),
    Column("key", exact_text(255), nullable=False),
    #: One of the states in limits.py.
    Column("state", ascii_key(16), nullable=False),
    #: Since when the attempt can be admitted.
    Column("ready_at", BigInteger, nullable=False),
    #: 0 for the highest priority, 9 for the lowest: the order in a line is that of ``level``, ``place``, ``ready_at``.
    Column("level", SmallInteger, nullable=False, server_default="9"),
    #: The place in the line, among the steps of the level.
    Column("place", BigInteger, nullable=False, server_default="0"),
    #: What takes turns with others in the line: a run, or the key of a limit.  NULL if older code wrote the row.
    Column("owner", exact_text(255)),
    Index("durable_step_limits_by_key", "name", "key", "state", "ready_at"),
    Index("durable_step_limits_in_line", "name", "key", "state", "level", "place", "ready_at"),
    Index("durable_step_limits_by_owner", "name", "key", "state", "level", "owner", "place"),
)

#: A key of a limit of workflows: it has a row while runs wait for it, or its rate has not recovered.
run_limit_keys = Table(
    "durable_run_limit_keys",
    metadata,
    Column("name", exact_text(100), primary_key=True),
    Column("key", exact_text(255), primary_key=True),
    #: As in ``limit_keys``.
    Column("recovers_at", BigInteger, nullable=False),
    Column("next_check_at", BigInteger),
    #: Of a debounce: the run that was started last, and when it was started first.
    Column("waiting_run_id", ascii_key(64)),
    Column("waits_since", BigInteger),
    Index("durable_run_limit_keys_by_check", "next_check_at"),
)

#: A run and one of the limits of its workflow.  Rows of runs that have ended may stay for a while; they count for
#: nothing.
run_limits = Table(
    "durable_run_limits",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("name", exact_text(100), primary_key=True),
    Column("key", exact_text(255), nullable=False),
    #: One of the states of ``run_limits.py``.
    Column("state", ascii_key(16), nullable=False),
    #: Since when the run can begin; the earliest of a level comes first.
    Column("ready_at", BigInteger, nullable=False),
    #: As in ``step_limits``.
    Column("level", SmallInteger, nullable=False),
    #: What happens when there is no room, as the code of its start has declared it.
    Column("on_conflict", ascii_key(16), nullable=False),
    Index("durable_run_limits_by_key", "name", "key", "state", "ready_at"),
    Index("durable_run_limits_in_line", "name", "key", "state", "level", "ready_at"),
    Index("durable_run_limits_by_state", "state", "ready_at"),
)
