"""What a turn reads: its run and the run's news, in one query."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from ..schema import inbox, runs
from .log import TURN_LIMIT, News, news
from .prepared import Prepared
from .runs import Run

_NEWS = [column.label(f"news_{column.name}") for column in inbox.c]
_TURN = Prepared(
    select(runs, *_NEWS)
    .outerjoin(inbox, inbox.c.run_id == runs.c.id)
    .where(runs.c.id == bindparam("run"))
    .order_by(inbox.c.id)
    .limit(TURN_LIMIT)
)


def read(tx: Connection, run_id: str) -> tuple[Run | None, list[News]]:
    """The run, and its news as ``log.drain`` returns them, as they were at one moment."""
    rows = _TURN.rows(tx, {"run": run_id})
    if not rows:
        return None, []
    run = Run(**{name: getattr(rows[0], name) for name in runs.c.keys()})  # noqa: SIM118
    return run, [news(tx, run_id, row, "news_") for row in rows if row.news_id is not None]
