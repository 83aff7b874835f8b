"""Runs, their logs, and what is kept with them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, UniqueConstraint

from .columns import ascii_key, exact_text, long_binary, long_text, metadata, op_ref, run_ref

runs = Table(
    "durable_runs",
    metadata,
    Column("id", ascii_key(64), primary_key=True),
    Column("name", exact_text(255), nullable=False),
    #: A RunStatus.
    Column("status", ascii_key(16), nullable=False),
    #: The number of the last turn: the fence that makes each turn the only writer of the log (see runs.py).
    Column("turn", BigInteger, nullable=False),
    #: ``seq`` of the last event.
    Column("seq", BigInteger, nullable=False),
    #: ``at`` of the last event; later events have no earlier time.
    Column("last_at", BigInteger, nullable=False),
    Column("queue", exact_text(255)),
    Column("priority", Integer),
    #: Digest of the arguments, which start compares for an idempotency key (see codec.digest).
    Column("digest", ascii_key(64), nullable=False),
    Column("idempotency_key", exact_text(255), unique=True),
    Column("code_version", exact_text(64)),
    Column("python_version", ascii_key(16)),
    Column("parent_run_id", ascii_key(64)),
    Column("parent_op_id", ascii_key(255)),
    #: The first turn is not before this time (countdown, eta).
    Column("not_before", BigInteger),
    #: The time for which a schedule has started the run.
    Column("scheduled_for", BigInteger),
    #: Why the run is blocked, and by which code version.
    Column("blocked", long_text()),
    Column("blocked_version", exact_text(64)),
    #: When a mistake in the code blocked the run: a process that started later tries it once, whatever its version.
    Column("mistake_at", BigInteger),
    #: How often the next turn has killed its process or hung, and JSON with a note for each time; NULL for never.
    Column("turn_tries", Integer),
    Column("turn_tried", long_text()),
    #: What crosses from the caller of ``start`` into the steps: trace context, baggage, context variables, as JSON.
    Column("trace_context", long_text()),
    #: The first generation of the run, and which of its generations this is; NULL if it has not continued as new.
    Column("first_run_id", ascii_key(64)),
    Column("generation", Integer),
    #: The run that this one was forked from.
    Column("forked_from", ascii_key(64)),
    #: Since when the run is paused: it has no turns, and its steps do not begin.  ``pause_runs.py`` says by what.
    Column("paused_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Index("durable_runs_by_age", "created_at", "id"),
    Index("durable_runs_by_status", "status", "created_at"),
    Index("durable_runs_by_name", "name", "created_at"),
    #: The runs of one workflow with one status; counts of open runs by workflow.
    Index("durable_runs_by_status_and_name", "status", "name", "created_at", "id"),
    Index("durable_runs_by_parent", "parent_run_id"),
    Index("durable_runs_by_generation", "first_run_id", "generation", unique=True),
    Index("durable_runs_by_origin", "forked_from", "created_at"),
    #: Ended runs in order; the dashboard's numbers by workflow are read from it alone.
    Index("durable_runs_by_end", "completed_at", "id", "name", "status", "started_at"),
)

events = Table(
    "durable_events",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", ascii_key(32), nullable=False),
    op_ref(),
    #: "created" or "ended", each once for an operation; NULL for events that may repeat.
    Column("phase", ascii_key(8)),
    Column("data", long_text(), nullable=False),
    Column("value", long_text()),
    UniqueConstraint("run_id", "op_id", "phase", name="durable_events_once"),
)

#: Large values in chunks; see payloads.py.
payloads = Table(
    "durable_payloads",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("digest", ascii_key(64), primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    #: When the payload was stored last.
    Column("stored_at", BigInteger, nullable=False),
    Column("data", long_binary(), nullable=False),
)

attributes = Table(
    "durable_attributes",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("name", exact_text(256), primary_key=True),
    Column("value", exact_text(256), nullable=False),
    #: When the run was created, so that a list of runs with an attribute is in order; 0 if an older version wrote it.
    Column("created_at", BigInteger, nullable=False, server_default="0"),
    Index("durable_attributes_by_value", "name", "value", "created_at", "run_id"),
)

#: The latest value of each name that a run has published.
values = Table(
    "durable_values",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("name", exact_text(255), primary_key=True),
    Column("published_at", BigInteger, nullable=False),
    Column("value", long_text(), nullable=False),
)

#: The streams of each run; of a run that has continued as new, they belong to its first generation.
streams = Table(
    "durable_streams",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("name", exact_text(255), primary_key=True),
    #: The number of the next item: how many were ever emitted.
    Column("next_number", BigInteger, nullable=False),
    #: How many items stay; NULL: all.
    Column("keep", BigInteger),
    #: The run and the op id of the step whose outcome closes the stream, if one does.
    Column("step_run_id", ascii_key(64)),
    Column("step_id", ascii_key(255)),
    Column("created_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
)

#: The items of streams.  A writer locks the stream's row, so the items of one stream are committed in order.
stream_items = Table(
    "durable_stream_items",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("name", exact_text(255), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    #: The step and its attempt; NULL for an item of the workflow itself.
    Column("step_id", ascii_key(255)),
    Column("attempt", Integer),
    #: Whether the earlier items of the step were deleted.
    Column("discards", Boolean, nullable=False),
    Column("item", long_text(), nullable=False),
)

#: What people did to runs by the dashboard.
audit = Table(
    "durable_audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    run_ref(),
    Column("at", BigInteger, nullable=False),
    #: The action, as ``authorize`` gets it.
    Column("action", ascii_key(32), nullable=False),
    #: Who did it; NULL when the application did not say.
    Column("actor", exact_text(255)),
    #: What was asked for, and what came of it; NULL while the action goes on.
    Column("detail", long_text()),
    Column("outcome", long_text()),
    Index("durable_audit_by_run", "run_id", "id"),
)
