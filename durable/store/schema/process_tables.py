"""What processes know of each other, and what they have measured."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table

from .columns import ascii_key, exact_text, long_text, metadata

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
    #: The numbers of the limits that its code declares, as JSON: ``{name: [n, per, burst]}``.
    Column("limits", long_text()),
    #: Since when the worker of this process takes no messages, although some wait; NULL: it does.
    Column("deaf_since", BigInteger),
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

#: One row, made by the migration; see installation.py.
installation = Table(
    "durable_installation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    #: A random id of the database, which its messages carry.
    Column("name", ascii_key(32), nullable=False),
    #: When a worker last got a message of another installation, and from which queue.
    Column("foreign_at", BigInteger),
    Column("foreign_queue", exact_text(255)),
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
