"""
PostgreSQL: vacuum the work lists and the table of runs after fewer dead rows.

By default autovacuum waits until a fifth of a table is dead.  Of ten million runs, of which only the newest change,
that is two million rows.  A list of a million sleeps would collect 200,000 dead rows at its front, where the sweep
looks.

Pre-deploy: it changes no column.
"""

from alembic import op

revision, down_revision, phase = "0032", "0031", "pre"

#: By table: the part of its rows that may be dead.  Short lists are vacuumed after 1,000.
_TABLES = {"durable_runs": 0.02, "durable_steps": 0.01, "durable_waits": 0.01, "durable_inbox": 0.01}
_NAMES = ("autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, part in _TABLES.items():
            op.execute(f"ALTER TABLE {table} SET ({_NAMES[0]} = {part}, {_NAMES[1]} = 1000)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in _TABLES:
            op.execute(f"ALTER TABLE {table} RESET ({', '.join(_NAMES)})")
