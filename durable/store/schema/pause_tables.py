"""What is paused; see pauses.py and pause_runs.py."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table

from .columns import ascii_key, exact_text, long_text, metadata

#: Paused workflows, queues and receivers; and, with the kind "run", the runs that a filter has resumed.
pauses = Table(
    "durable_pauses",
    metadata,
    #: "workflow", "queue" or "receiver".
    Column("kind", ascii_key(16), primary_key=True),
    Column("name", exact_text(255), primary_key=True),
    Column("paused_at", BigInteger, nullable=False),
    Column("reason", long_text()),
    #: Since when what it holds goes on, batch by batch; NULL while it is paused.
    Column("resuming_at", BigInteger),
    #: When the sweep pauses what has come since, or resumes the next batch; NULL when there is nothing to do.
    Column("next_check_at", BigInteger),
    Index("durable_pauses_by_check", "next_check_at"),
)

#: The causes for which a run is paused, or for which some of its steps are.
paused_runs = Table(
    "durable_paused_runs",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    #: "run" for the run itself, with the name "resuming" while it waits to go on; "workflow" or "queue"; "steps" for
    #: steps of a queue, whose run goes on.
    Column("kind", ascii_key(16), primary_key=True),
    Column("name", exact_text(255), primary_key=True),
    Column("paused_at", BigInteger, nullable=False),
    Column("reason", long_text()),
    #: Since when the run goes on in spite of this cause, because it was cancelled; NULL while it is paused.
    Column("released_at", BigInteger),
    Index("durable_paused_runs_by_cause", "kind", "name", "run_id"),
    Index("durable_paused_runs_by_age", "paused_at", "run_id"),
)
