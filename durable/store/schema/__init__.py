"""
The tables (SQLAlchemy Core).

The log (``durable_events``) is the only history of a run.  The work lists (inbox, steps, waits) have rows only while
there is work to do, so they stay small however many runs have ended.

Times are microseconds since 1970 UTC by the database's clock.

Files, in import order::

    columns.py         the types of columns, on each database
    run_tables.py      runs, their logs, and what is kept with them
    work_tables.py     the work lists: rows only while there is work to do
    limit_tables.py    limits, and the steps and runs that wait for them
    pause_tables.py    what is paused
    hook_tables.py     hooks and webhooks, and the requests that they and receivers have received
    schedule_tables.py schedules, and their latest runs
    process_tables.py  what processes know of each other, and what they have measured
"""

from .columns import long_text, metadata
from .hook_tables import hooks, received, receivers, references, requests
from .limit_tables import limit_keys, limits, run_limit_keys, run_limits, step_limits
from .pause_tables import paused_runs, pauses
from .process_tables import broker_sentinel, installation, leases, totals, turn_leases, workers
from .run_tables import attributes, audit, events, payloads, runs, stream_items, streams, values
from .schedule_tables import schedule_runs, schedules
from .work_tables import inbox, run_calls, steps, waits

#: The Alembic revision that describes these tables.
REVISION = "0032"
#: Alembic's table with our revision; the application's own migrations have another one.
VERSION_TABLE = "durable_version"

__all__ = [
    "REVISION",
    "VERSION_TABLE",
    "attributes",
    "audit",
    "broker_sentinel",
    "events",
    "hooks",
    "inbox",
    "installation",
    "leases",
    "limit_keys",
    "limits",
    "long_text",
    "metadata",
    "paused_runs",
    "pauses",
    "payloads",
    "received",
    "receivers",
    "references",
    "requests",
    "run_calls",
    "run_limit_keys",
    "run_limits",
    "runs",
    "schedule_runs",
    "schedules",
    "step_limits",
    "steps",
    "stream_items",
    "streams",
    "totals",
    "turn_leases",
    "values",
    "waits",
    "workers",
]
