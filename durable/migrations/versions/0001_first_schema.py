"""
The first schema: runs, their log, and the work lists beside it.

Pre-deploy: there is no release before it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision, down_revision, phase = "0001", None, "pre"


def _ascii(length):
    variant = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _exact(length):
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(variant, "mysql", "mariadb")


def _long_text():
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def _long_binary():
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _row_id():
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "durable_events",
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", _ascii(32), nullable=False),
        sa.Column("op_id", _ascii(255), nullable=False),
        sa.Column("phase", _ascii(8), nullable=True),
        sa.Column("data", _long_text(), nullable=False),
        sa.Column("value", _long_text(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        sa.UniqueConstraint("run_id", "op_id", "phase", name="durable_events_once"),
    )
    op.create_table(
        "durable_hooks",
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("op_id", _ascii(255), nullable=False),
        sa.Column("name", _exact(255), nullable=False),
        sa.Column("token", _exact(255), nullable=False),
        sa.Column("token_hash", _ascii(64), nullable=False),
        sa.Column("active_token_hash", _ascii(64), nullable=True),
        sa.Column("config", _long_text(), nullable=True),
        sa.Column("metadata", _long_text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "op_id"),
        sa.UniqueConstraint("active_token_hash"),
    )
    op.create_index("durable_hooks_by_age", "durable_hooks", ["created_at"], unique=False)
    op.create_index("durable_hooks_by_token", "durable_hooks", ["token_hash", "created_at"], unique=False)
    op.create_table(
        "durable_inbox",
        sa.Column("id", _row_id(), autoincrement=True, nullable=False),
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", _ascii(32), nullable=False),
        sa.Column("op_id", _ascii(255), nullable=False),
        sa.Column("data", _long_text(), nullable=False),
        sa.Column("value", _long_text(), nullable=True),
        sa.Column("next_send_at", sa.BigInteger(), nullable=True),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("durable_inbox_by_run", "durable_inbox", ["run_id", "id"], unique=False)
    op.create_index("durable_inbox_by_send", "durable_inbox", ["next_send_at"], unique=False)
    op.create_table(
        "durable_leases",
        sa.Column("name", _ascii(32), nullable=False),
        sa.Column("owner", _ascii(64), nullable=True),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "durable_requests",
        sa.Column("id", _ascii(64), nullable=False),
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("op_id", _ascii(255), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("head", _long_text(), nullable=False),
        sa.Column("body", _long_binary(), nullable=False),
        sa.Column("holder", _ascii(64), nullable=True),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("answer_head", _long_text(), nullable=True),
        sa.Column("answer_body", _long_binary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("durable_requests_by_run", "durable_requests", ["run_id", "answered_at"], unique=False)
    op.create_table(
        "durable_runs",
        sa.Column("id", _ascii(64), nullable=False),
        sa.Column("name", _exact(255), nullable=False),
        sa.Column("status", _ascii(16), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("queue", _exact(255), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("digest", _ascii(64), nullable=False),
        sa.Column("idempotency_key", _exact(255), nullable=True),
        sa.Column("code_version", _exact(64), nullable=True),
        sa.Column("python_version", _ascii(16), nullable=True),
        sa.Column("parent_run_id", _ascii(64), nullable=True),
        sa.Column("parent_op_id", _ascii(255), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("blocked", _long_text(), nullable=True),
        sa.Column("blocked_version", _exact(64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
    )
    op.create_index("durable_runs_by_age", "durable_runs", ["created_at", "id"], unique=False)
    op.create_index("durable_runs_by_name", "durable_runs", ["name", "created_at"], unique=False)
    op.create_index("durable_runs_by_parent", "durable_runs", ["parent_run_id"], unique=False)
    op.create_index("durable_runs_by_status", "durable_runs", ["status", "created_at"], unique=False)
    op.create_table(
        "durable_steps",
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("op_id", _ascii(255), nullable=False),
        sa.Column("name", _exact(255), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", _ascii(16), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("claimed_at", sa.BigInteger(), nullable=True),
        sa.Column("claim", _ascii(64), nullable=True),
        sa.Column("worker_id", _ascii(64), nullable=True),
        sa.Column("message_id", _ascii(64), nullable=True),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("next_send_at", sa.BigInteger(), nullable=True),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "op_id"),
    )
    op.create_index("durable_steps_by_send", "durable_steps", ["next_send_at"], unique=False)
    op.create_index("durable_steps_by_worker", "durable_steps", ["worker_id"], unique=False)
    op.create_table(
        "durable_waits",
        sa.Column("run_id", _ascii(64), nullable=False),
        sa.Column("op_id", _ascii(255), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("next_send_at", sa.BigInteger(), nullable=True),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "op_id"),
    )
    op.create_index("durable_waits_by_send", "durable_waits", ["next_send_at"], unique=False)
    op.create_table(
        "durable_workers",
        sa.Column("id", _ascii(64), nullable=False),
        sa.Column("host", _exact(255), nullable=False),
        sa.Column("boot_id", _ascii(64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("beat_at", sa.BigInteger(), nullable=False),
        sa.Column("names", _long_text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("durable_workers_by_beat", "durable_workers", ["beat_at"], unique=False)


def downgrade() -> None:
    op.drop_index("durable_workers_by_beat", table_name="durable_workers")
    op.drop_table("durable_workers")
    op.drop_index("durable_waits_by_send", table_name="durable_waits")
    op.drop_table("durable_waits")
    op.drop_index("durable_steps_by_worker", table_name="durable_steps")
    op.drop_index("durable_steps_by_send", table_name="durable_steps")
    op.drop_table("durable_steps")
    op.drop_index("durable_runs_by_status", table_name="durable_runs")
    op.drop_index("durable_runs_by_parent", table_name="durable_runs")
    op.drop_index("durable_runs_by_name", table_name="durable_runs")
    op.drop_index("durable_runs_by_age", table_name="durable_runs")
    op.drop_table("durable_runs")
    op.drop_index("durable_requests_by_run", table_name="durable_requests")
    op.drop_table("durable_requests")
    op.drop_table("durable_leases")
    op.drop_index("durable_inbox_by_send", table_name="durable_inbox")
    op.drop_index("durable_inbox_by_run", table_name="durable_inbox")
    op.drop_table("durable_inbox")
    op.drop_index("durable_hooks_by_token", table_name="durable_hooks")
    op.drop_index("durable_hooks_by_age", table_name="durable_hooks")
    op.drop_table("durable_hooks")
    op.drop_table("durable_events")
