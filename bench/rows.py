"""The bare commit: an insert of one row and a commit, with SQLAlchemy Core on a held connection."""

from __future__ import annotations

import time
import uuid

import sqlalchemy as sa

_metadata = sa.MetaData()

#: As wide as an event's row.
_rows = sa.Table(
    "bench_rows",
    _metadata,
    sa.Column("series", sa.String(64), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("value", sa.Text),
)


class Rows:
    """The table, by a connection that is kept.  SQLite syncs each commit, as durable's does."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, connect_args={"timeout": 30.0} if url.startswith("sqlite") else {})
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = FULL"))
        self._connection = self._engine.connect()

    def create(self) -> None:
        """Make the table."""
        _metadata.create_all(self._engine)

    def insert(self, series: str, number: int, at: float) -> None:
        """One insert and a commit."""
        row = {"series": series, "number": number, "at": at, "kind": "step_completed", "data": "{}", "value": "{}"}
        with self._connection.begin():
            self._connection.execute(sa.insert(_rows), row)

    def commit_secs(self, count: int) -> float:
        """What one of *count* inserts with its commit takes, on average."""
        series = uuid.uuid4().hex
        began = time.perf_counter()
        for number in range(count):
            self.insert(series, number, 0.0)
        return (time.perf_counter() - began) / count

    def span_secs(self, series: str) -> float:
        """From the first to the last row's time."""
        query = sa.select(sa.func.max(_rows.c.at) - sa.func.min(_rows.c.at)).where(_rows.c.series == series)
        with self._connection.begin():
            return float(self._connection.execute(query).scalar_one())

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()
        self._engine.dispose()
