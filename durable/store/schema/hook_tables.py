"""Hooks and webhooks, and the requests that they have received."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table

from .columns import ascii_key, exact_text, long_binary, long_text, metadata, op_ref, run_ref

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
