"""
The tables (SQLAlchemy Core).

The log (``durable_events``) is the only history of a run.  The work lists (inbox, steps, waits) have rows only while
there is work to do, so they stay small however many runs have ended.  ``next_send_at`` in a work list is the time at
which the sweep sends the row's message (again); NULL while there is nothing to send.

Times are microseconds since 1970 UTC by the database's clock.  Columns with tokens, keys and ids compare byte by byte;
otherwise MySQL would compare them without regard to case.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

#: The Alembic revision that this file describes.
REVISION = "0017"
#: Alembic's table with our revision; the application's own migrations have another one.
VERSION_TABLE = "durable_version"

metadata = MetaData()


def ascii_key(length: int) -> TypeEngine[str]:
    """Ids, which are ASCII."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def exact_text(length: int) -> TypeEngine[str]:
    """Names, tokens and keys that users choose."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def long_text() -> TypeEngine[str]:
    """Encoded values of up to 256 KiB, longer if encrypted; MySQL's TEXT is limited to 64 KiB."""
    return Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def long_binary() -> TypeEngine[bytes]:
    """Request and response bodies; MySQL's BLOB is limited to 64 KiB."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def run_ref() -> Column[str]:
    return Column("run_id", ascii_key(64), nullable=False)


def op_ref() -> Column[str]:
    return Column("op_id", ascii_key(255), nullable=False)


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
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Index("durable_runs_by_age", "created_at", "id"),
    Index("durable_runs_by_status", "status", "created_at"),
    Index("durable_runs_by_name", "name", "created_at"),
    #: The runs of one workflow with one status; counts of open runs by workflow.
    Index("durable_runs_by_status_and_name", "status", "name", "created_at", "id"),
    Index("durable_runs_by_parent", "parent_run_id"),
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

inbox = Table(
    "durable_inbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    run_ref(),
    Column("at", BigInteger, nullable=False),
    Column("kind", ascii_key(32), nullable=False),
    op_ref(),
    Column("data", long_text(), nullable=False),
    Column("value", long_text()),
    Column("next_send_at", BigInteger),
    Column("sent_at", BigInteger),
    Column("sends", Integer, nullable=False),
    Index("durable_inbox_by_run", "run_id", "id"),
    Index("durable_inbox_by_send", "next_send_at"),
    # Ids must never be reused, even after the last row was deleted.
    sqlite_autoincrement=True,
)

steps = Table(
    "durable_steps",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("op_id", ascii_key(255), primary_key=True),
    Column("name", exact_text(255), nullable=False),
    Column("attempt", Integer, nullable=False),
    #: A StepStatus.
    Column("status", ascii_key(16), nullable=False),
    #: The attempt is not claimed before this time (a retry's delay).
    Column("not_before", BigInteger, nullable=False),
    #: When the first attempt was claimed, and the current one.
    Column("started_at", BigInteger),
    Column("claimed_at", BigInteger),
    #: The current claim: a random id, the process, and the id of the Celery message.
    Column("claim", ascii_key(64)),
    Column("worker_id", ascii_key(64)),
    Column("message_id", ascii_key(64)),
    #: How often a process has stopped in the middle of the attempt and released it; NULL for never.
    Column("interruptions", Integer),
    #: The workflow has cancelled the call while the attempt was running.
    Column("cancelled", Boolean, nullable=False),
    #: How the current attempt is delivered (see definitions.SEMANTICS); NULL for at least once.
    Column("semantics", ascii_key(16)),
    #: Why the attempt is in doubt.
    Column("doubt", long_text()),
    #: The deadline of the current attempt; NULL for none.
    Column("deadline_at", BigInteger),
    #: The details of the last ``heartbeat`` of any attempt, encoded; and its time.
    Column("heartbeat", long_text()),
    Column("heartbeat_at", BigInteger),
    #: The queue of the last message, and its send time.
    Column("queue", exact_text(255)),
    Column("sent_at", BigInteger),
    Column("next_send_at", BigInteger),
    Column("sends", Integer, nullable=False),
    Index("durable_steps_by_send", "next_send_at"),
    Index("durable_steps_by_deadline", "deadline_at"),
    Index("durable_steps_by_worker", "worker_id"),
)

waits = Table(
    "durable_waits",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("op_id", ascii_key(255), primary_key=True),
    Column("due_at", BigInteger, nullable=False),
    Column("next_send_at", BigInteger),
    Column("sent_at", BigInteger),
    Column("sends", Integer, nullable=False),
    Index("durable_waits_by_send", "next_send_at"),
)

hooks = Table(
    "durable_hooks",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("op_id", ascii_key(255), primary_key=True),
    Column("name", exact_text(255), nullable=False),
    Column("token", exact_text(255), nullable=False),
    Column("token_hash", ascii_key(64), nullable=False),
    #: The hash while the hook is open, NULL once it is closed: only one open hook can have a token.
    Column("active_token_hash", ascii_key(64), unique=True),
    #: The webhook's options as JSON; NULL for a hook that is not a webhook.
    Column("config", long_text()),
    Column("metadata", long_text()),
    Column("created_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    #: How many requests were refused because their sender was not verified; when and why the last one was.
    Column("refused", BigInteger),
    Column("refused_at", BigInteger),
    Column("refusal", exact_text(255)),
    Index("durable_hooks_by_token", "token_hash", "created_at"),
    Index("durable_hooks_by_age", "created_at"),
    Index("durable_hooks_by_refusal", "refused_at"),
)

requests = Table(
    "durable_requests",
    metadata,
    Column("id", ascii_key(64), primary_key=True),
    run_ref(),
    op_ref(),
    Column("received_at", BigInteger, nullable=False),
    Column("head", long_text(), nullable=False),
    Column("body", long_binary(), nullable=False),
    #: The web process that holds the sender's connection.
    Column("holder", ascii_key(64)),
    #: A hash of what identifies a duplicate; NULL when the request had nothing of that.
    Column("dedupe_key", ascii_key(64)),
    #: How many copies of the request came later; NULL for none.
    Column("duplicates", BigInteger),
    Column("answered_at", BigInteger),
    Column("answer_head", long_text()),
    Column("answer_body", long_binary()),
    Index("durable_requests_by_run", "run_id", "answered_at"),
    Index("durable_requests_by_age", "received_at", "id"),
    Index("durable_requests_once", "run_id", "op_id", "dedupe_key", unique=True),
)

#: A run refers to a request of another run, which is kept as long as the first one.
references = Table(
    "durable_references",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    run_ref(),
    Column("owner_run_id", ascii_key(64), nullable=False),
    # Not unique: two transactions that insert the same row at once must not fail.
    Index("durable_references_by_run", "run_id", "owner_run_id"),
    Index("durable_references_by_owner", "owner_run_id", "run_id"),
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

workers = Table(
    "durable_workers",
    metadata,
    Column("id", ascii_key(64), primary_key=True),
    Column("host", exact_text(255), nullable=False),
    Column("boot_id", ascii_key(64), nullable=False),
    Column("pid", Integer, nullable=False),
    #: Start time of the process in ticks of the kernel: together with the pid it is unique since the boot.
    Column("pid_started", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
    #: JSON list of the workflows and steps that the process has registered.
    Column("names", long_text(), nullable=False),
    #: JSON list of the queues that the process consumes; NULL when unknown.
    Column("queues", long_text()),
    #: The worker's pool, as ``celery worker --pool`` names it; NULL when unknown.
    Column("pool", ascii_key(32)),
    #: JSON object: the versions of ``durable``, ``celery`` and ``python``; NULL when unknown.
    Column("versions", exact_text(255)),
    #: How far the process's clock is ahead of the database's, in microseconds.
    Column("clock_ahead", BigInteger),
    #: JSON object: for each queue, the send time of the latest message that the process has taken.
    Column("progress", long_text()),
    Index("durable_workers_by_beat", "beat_at"),
)

leases = Table(
    "durable_leases",
    metadata,
    Column("name", ascii_key(32), primary_key=True),
    Column("owner", ascii_key(64)),
    #: How often the lease was taken or renewed.
    Column("token", BigInteger, nullable=False),
    #: From then on another process may take the lease.
    Column("expires_at", BigInteger, nullable=False),
)

#: Which process takes the turns of a run; see turn_leases.py.  On PostgreSQL the table is UNLOGGED: a crash of the
#: database may empty it.
turn_leases = Table(
    "durable_turn_leases",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    #: A random id of the one that took the lease.
    Column("holder", ascii_key(32), nullable=False),
    Column("worker_id", ascii_key(64), nullable=False),
    #: From then on another process may take the lease.
    Column("expires_at", BigInteger, nullable=False),
)

#: At most one row; see broker_sentinel.py.
broker_sentinel = Table(
    "durable_broker_sentinel",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", ascii_key(64), nullable=False),
    #: When the broker lost its messages; NULL once all of them are marked as unsent.
    Column("lost_at", BigInteger),
)

#: Calls of ``on_run_failed`` and ``on_run_blocked`` that are due; see run_calls.py.
run_calls = Table(
    "durable_run_calls",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    #: The RunStatus that the run got.
    Column("status", ascii_key(16), primary_key=True),
    #: How often the functions were called again.
    Column("tries", Integer, nullable=False),
    #: When the sweep sends a turn (again), and how often it did.
    Column("next_send_at", BigInteger, nullable=False),
    Column("sends", Integer, nullable=False),
    Index("durable_run_calls_by_send", "next_send_at"),
)

#: What all processes have measured, in sum; see measures.py.  Durations are microseconds.
totals = Table(
    "durable_totals",
    metadata,
    Column("name", ascii_key(64), primary_key=True),
    #: The value of the first label, a workflow or a step, say; empty without one.
    Column("label", exact_text(255), primary_key=True),
    #: The value of the second label, or a histogram's bucket.
    Column("detail", ascii_key(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

__all__ = [
    "attributes",
    "audit",
    "broker_sentinel",
    "events",
    "hooks",
    "inbox",
    "leases",
    "metadata",
    "payloads",
    "references",
    "requests",
    "run_calls",
    "runs",
    "steps",
    "totals",
    "waits",
    "workers",
]
