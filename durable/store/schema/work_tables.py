"""
The work lists: rows only while there is work to do.

``next_send_at`` is the time at which the sweep sends the row's message (again); NULL while there is nothing to send.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table

from .columns import ascii_key, exact_text, long_text, metadata, op_ref, run_ref

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
    #: While the step is offered: the ``seq`` of its call.  Processes take offered steps in this order; see offers.py.
    Column("offered_seq", BigInteger),
    #: Since when no process may claim an attempt of the step; an attempt that is claimed already goes on.
    Column("paused_at", BigInteger),
    Index("durable_steps_by_send", "next_send_at"),
    # The migration leaves out the steps that are not offered, where the database can.
    Index("durable_steps_offered", "run_id", "queue", "offered_seq"),
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
