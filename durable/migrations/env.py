"""Alembic's environment: runs the migrations on the connection that ``upgrade`` passes."""

from alembic import context

from durable.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=lambda name, kind, _parents: kind != "table" or (name or "").startswith("durable_"),
)
with context.begin_transaction():
    context.run_migrations()
