"""Hooks and webhooks, the requests that they have received, and the requests that receivers have."""

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
    #: The generation of the run that has the request now, if it was handed over; NULL: the run itself.
    Column("handed_to", ascii_key(64)),
    Column("answered_at", BigInteger),
    Column("answer_head", long_text()),
    Column("answer_body", long_binary()),
    Index("durable_requests_by_run", "run_id", "answered_at"),
    Index("durable_requests_by_age", "received_at", "id"),
    Index("durable_requests_by_handed_to", "handed_to"),
    Index("durable_requests_once", "run_id", "op_id", "dedupe_key", unique=True),
)

#: What became of each request to a receiver.  The request itself is in ``durable_requests``.
received = Table(
    "durable_received",
    metadata,
    Column("request_id", ascii_key(64), primary_key=True),
    Column("receiver", ascii_key(64), nullable=False),
    Column("received_at", BigInteger, nullable=False),
    #: A hash of what identifies a duplicate; NULL when the request had nothing of that.
    Column("dedupe_key", ascii_key(64)),
    Column("outcome", ascii_key(16), nullable=False),
    #: The rule that the request matched, and the run that it has started or resumed.
    Column("rule", exact_text(255)),
    Column("run_id", ascii_key(64)),
    #: The token that a rule has read from the request.
    Column("token", exact_text(255)),
    #: The token's hash while the request waits for a hook, and until when it waits.
    Column("waits_for", ascii_key(64)),
    Column("waits_until", BigInteger),
    #: The token's hash when the request has started the run that is about to open a hook with this token: two requests
    #: that come at once start one run.
    Column("started_for", ascii_key(64), unique=True),
    #: Why the request could not be routed.
    Column("detail", long_text()),
    Index("durable_received_once", "receiver", "dedupe_key", unique=True),
    Index("durable_received_by_age", "receiver", "received_at"),
    Index("durable_received_by_outcome", "receiver", "outcome", "received_at"),
    Index("durable_received_by_run", "run_id", "received_at"),
    Index("durable_received_by_wait", "waits_until"),
    Index("durable_received_by_token", "waits_for"),
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

#: How many requests a receiver has refused because their sender was not verified; when and why the last one was.
receivers = Table(
    "durable_receivers",
    metadata,
    Column("name", ascii_key(64), primary_key=True),
    Column("refused", BigInteger, nullable=False),
    Column("refused_at", BigInteger, nullable=False),
    Column("refusal", exact_text(255), nullable=False),
)
