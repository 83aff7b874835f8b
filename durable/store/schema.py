"""
The tables (SQLAlchemy Core).

The log (``durable_events``) is the only history of a run.  Beside it stand the
work lists (inbox, steps, waits, workers): their rows exist only while there is
something to do, so they stay small however many runs have finished.  A row of
a work list carries ``next_send_at``: the moment at which the sweep would send
its message (again), NULL while nothing needs to be sent.

Times are microseconds since 1970 UTC by the database's clock.  Columns that
hold tokens, keys and ids compare byte by byte (MySQL compares text without
regard to case otherwise).
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
REVISION = "0009"
#: Where Alembic notes a database's revision: apart from the application's own.
VERSION_TABLE = "durable_version"

metadata = MetaData()


def ascii_key(length: int) -> TypeEngine[str]:
    """Ids that we mint or restrict to ASCII."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def exact_text(length: int) -> TypeEngine[str]:
    """Names, tokens and keys that authors choose."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def long_text() -> TypeEngine[str]:
    """Encoded values of up to 256 KiB, more once they are encrypted (MySQL's TEXT ends at 64 KiB)."""
    return Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def long_binary() -> TypeEngine[bytes]:
    """Raw bodies (MySQL's BLOB ends at 64 KiB)."""
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
    Column("status", ascii_key(16), nullable=False),
    #: Counts turns: the fence that makes each turn the only writer of the log.
    Column("turn", BigInteger, nullable=False),
    #: ``seq`` of the last event.
    Column("seq", BigInteger, nullable=False),
    #: ``at`` of the last event: the log's time never goes back.
    Column("last_at", BigInteger, nullable=False),
    Column("queue", exact_text(255)),
    Column("priority", Integer),
    #: What the arguments came to when the run was started (see codec.digest).
    Column("digest", ascii_key(64), nullable=False),
    Column("idempotency_key", exact_text(255), unique=True),
    Column("code_version", exact_text(64)),
    Column("python_version", ascii_key(16)),
    Column("parent_run_id", ascii_key(64)),
    Column("parent_op_id", ascii_key(255)),
    #: Not started before this (countdown, eta).
    Column("not_before", BigInteger),
    #: Why the run is blocked, and the code version that blocked it.
    Column("blocked", long_text()),
    Column("blocked_version", exact_text(64)),
    #: How many tries of the next turn ended their process or hung, and JSON of each that is known; NULL for none.
    Column("turn_tries", Integer),
    Column("turn_tried", long_text()),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Index("durable_runs_by_age", "created_at", "id"),
    Index("durable_runs_by_status", "status", "created_at"),
    Index("durable_runs_by_name", "name", "created_at"),
    Index("durable_runs_by_parent", "parent_run_id"),
    Index("durable_runs_by_end", "completed_at", "id"),
)

events = Table(
    "durable_events",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", ascii_key(32), nullable=False),
    op_ref(),
    #: "created" and "ended" happen once to an operation; NULL repeats.
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
    # Ids must never be used again, not even after the last row went.
    sqlite_autoincrement=True,
)

steps = Table(
    "durable_steps",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("op_id", ascii_key(255), primary_key=True),
    Column("name", exact_text(255), nullable=False),
    Column("attempt", Integer, nullable=False),
    #: "pending", "claimed" or "in_doubt".
    Column("status", ascii_key(16), nullable=False),
    #: Not claimed before this (a retry's delay).
    Column("not_before", BigInteger, nullable=False),
    #: Start of the first attempt, and of the one that runs.
    Column("started_at", BigInteger),
    Column("claimed_at", BigInteger),
    #: Who runs it: a random id per attempt, the process, the message that carried it.
    Column("claim", ascii_key(64)),
    Column("worker_id", ascii_key(64)),
    Column("message_id", ascii_key(64)),
    #: How often the end of a process has interrupted the attempt; NULL: never.
    Column("interruptions", Integer),
    #: The workflow gave the call up while it ran: its outcome is not wanted.
    Column("cancelled", Boolean, nullable=False),
    #: How the attempt that runs is delivered (see definitions.SEMANTICS); NULL: at least once.
    Column("semantics", ascii_key(16)),
    #: Why it is not known what became of the attempt, while that is in doubt.
    Column("doubt", long_text()),
    #: When the attempt that runs has to be over, NULL for no limit.
    Column("deadline_at", BigInteger),
    #: What ``heartbeat`` was told last, by any attempt, encoded; and when.
    Column("heartbeat", long_text()),
    Column("heartbeat_at", BigInteger),
    #: The queue that its last message went to, and when.
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
    #: The hash while the hook is open, NULL once it is closed: a token has one open owner.
    Column("active_token_hash", ascii_key(64), unique=True),
    #: JSON for the blueprint; NULL for a hook that is no webhook.
    Column("config", long_text()),
    Column("metadata", long_text()),
    Column("created_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Index("durable_hooks_by_token", "token_hash", "created_at"),
    Index("durable_hooks_by_age", "created_at"),
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
    #: The web process that holds the connection.
    Column("holder", ascii_key(64)),
    #: A hash of what tells a duplicate, NULL when it said nothing.
    Column("dedupe_key", ascii_key(64)),
    Column("answered_at", BigInteger),
    Column("answer_head", long_text()),
    Column("answer_body", long_binary()),
    Index("durable_requests_by_run", "run_id", "answered_at"),
    Index("durable_requests_once", "run_id", "op_id", "dedupe_key", unique=True),
)

#: A run whose log names a request of another run: that one stays as long as this one does.
references = Table(
    "durable_references",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    run_ref(),
    Column("owner_run_id", ascii_key(64), nullable=False),
    # Neither is unique: two that say the same at once must not fail for it.
    Index("durable_references_by_run", "run_id", "owner_run_id"),
    Index("durable_references_by_owner", "owner_run_id", "run_id"),
)

#: Values too large for the log, in parts that fit into any statement; see payloads.py.
payloads = Table(
    "durable_payloads",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("digest", ascii_key(64), primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    #: When it was stored, or stored again.
    Column("stored_at", BigInteger, nullable=False),
    Column("data", long_binary(), nullable=False),
)

attributes = Table(
    "durable_attributes",
    metadata,
    Column("run_id", ascii_key(64), primary_key=True),
    Column("name", exact_text(256), primary_key=True),
    Column("value", exact_text(256), nullable=False),
    Index("durable_attributes_by_value", "name", "value", "run_id"),
)

workers = Table(
    "durable_workers",
    metadata,
    Column("id", ascii_key(64), primary_key=True),
    Column("host", exact_text(255), nullable=False),
    Column("boot_id", ascii_key(64), nullable=False),
    Column("pid", Integer, nullable=False),
    #: Start of the process in the kernel's ticks: a pid is used again, this pair is not.
    Column("pid_started", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
    #: JSON: the workflows and steps that the process has registered.
    Column("names", long_text(), nullable=False),
    #: JSON: the queues that the process takes messages from; NULL when it did not say.
    Column("queues", long_text()),
    #: How far the process's own clock is ahead of the database's, in microseconds.
    Column("clock_ahead", BigInteger),
    #: JSON: by queue, when the latest message was sent that the process has taken from it.
    Column("progress", long_text()),
    Index("durable_workers_by_beat", "beat_at"),
)

leases = Table(
    "durable_leases",
    metadata,
    Column("name", ascii_key(32), primary_key=True),
    Column("owner", ascii_key(64)),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

__all__ = [
    "attributes",
    "events",
    "hooks",
    "inbox",
    "leases",
    "metadata",
    "payloads",
    "references",
    "requests",
    "runs",
    "steps",
    "waits",
    "workers",
]
