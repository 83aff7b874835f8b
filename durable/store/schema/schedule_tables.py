"""Schedules, and the latest runs of each."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table

from .columns import ascii_key, exact_text, long_text, metadata

schedules = Table(
    "durable_schedules",
    metadata,
    Column("name", ascii_key(200), primary_key=True),
    #: Incremented by every change: the fence that lets one process at a time fire the schedule.
    Column("version", BigInteger, nullable=False),
    #: What to start: the workflow's name, its encoded arguments with their digest, and where its turns are sent.
    Column("workflow", exact_text(255), nullable=False),
    Column("arguments", long_text(), nullable=False),
    Column("queue", exact_text(255)),
    Column("priority", Integer),
    #: When: JSON of a timing, and the time zone in which people read it.
    Column("timing", long_text(), nullable=False),
    Column("tz", exact_text(64), nullable=False),
    Column("overlap", ascii_key(8), nullable=False),
    Column("catch_up", ascii_key(8), nullable=False),
    Column("jitter", BigInteger, nullable=False),
    Column("until_at", BigInteger),
    #: When a process that declares the schedule in its code has loaded that code; NULL for one made at run time.
    Column("declared_at", BigInteger),
    #: Since when no live process declares the schedule: it is removed.
    Column("absent_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("paused_at", BigInteger),
    #: The next planned time; NULL when there is none.
    Column("planned_at", BigInteger),
    #: When the sweep fires it, the jitter included; NULL while there is nothing to do.
    Column("fire_at", BigInteger),
    #: Whether the planned time waits for the end of the run before it.
    Column("is_held", Boolean, nullable=False),
    #: How many planned times have started no run because the run before was going on.
    Column("skipped", BigInteger, nullable=False),
    Index("durable_schedules_by_fire", "fire_at"),
    Index("durable_schedules_by_declaration", "declared_at"),
)

#: The runs of a schedule that go on, and the newest ones of those that have ended.
schedule_runs = Table(
    "durable_schedule_runs",
    metadata,
    Column("schedule", ascii_key(200), primary_key=True),
    Column("run_id", ascii_key(64), primary_key=True),
    Column("planned_at", BigInteger, nullable=False),
)
