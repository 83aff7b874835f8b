"""What a database lost that did not keep all of its commits: counted by what the outside knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from durable.engine.engine import Engine
from durable.store.schema import requests, runs

from ..senders import Story


def losses(engine: Engine, stories: Sequence[Story], executions: Mapping[str, list[dict[str, Any]]]) -> dict[str, int]:
    """
    Compare what these stories' senders were told with what is there.

    Returns:
        How many runs were started, and are not there; how many requests were answered, and are not there; how many
        runs wait for what was lost; and how many steps were executed again.
    """
    with engine.store.read() as tx:
        known = {row.id: row.completed_at for row in tx.execute(sa.select(runs.c.id, runs.c.completed_at))}
        heads = " ".join(tx.execute(sa.select(requests.c.head)).scalars())
    started = [story for story in stories if story.run_id is not None]
    done = Counter((entry["run"], entry["op"]) for story in started for entry in executions.get(str(story.run_id), []))
    return {
        "runs_active": len(started),
        "runs_lost": sum(story.run_id not in known for story in started),
        "requests_lost": sum(f'"{answer.id}"' not in heads for story in started for answer in story.answered),
        "runs_waiting": sum(story.run_id in known and known[story.run_id] is None for story in started),
        "executions_repeated": sum(times - 1 for times in done.values()),
    }
