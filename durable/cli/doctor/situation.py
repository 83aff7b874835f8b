"""What the store says of workers and of what waits, read once for all checks."""

from __future__ import annotations

from dataclasses import dataclass

from ...engine import Engine
from ...store import InDoubt, Waiting, Worker, backlog, doubts, key_id_of, workers
from .finding import SHOWN


@dataclass(frozen=True, kw_only=True)
class Situation:
    """
    Processes alive, and bounded looks at the work lists.

    Attributes:
        registered: The workflows and steps that a live process knows.
        steps: Attempts that nobody has claimed.
        news: Runs with news for a turn.
        run_queues: The queues of open runs; None is the application's default one.
        blocked: How many runs are blocked by their code, and the oldest ones' ids.
        doubts: The oldest steps in doubt, one more than are shown.
        keys: The keys that what waits is encrypted with, each with a run that needs it.
    """

    engine: Engine
    alive: list[Worker]
    registered: set[str]
    steps: list[Waiting]
    news: list[Waiting]
    run_queues: set[str | None]
    blocked: tuple[int, list[str]]
    doubts: list[InDoubt]
    keys: dict[str, str]


def read(engine: Engine) -> Situation:
    """The situation now."""
    since = engine.now() - engine.settings.dead_after
    with engine.store.read() as tx:
        return Situation(
            engine=engine,
            alive=workers.alive(tx, since),
            registered=workers.registered(tx, since),
            steps=backlog.pending_steps(tx),
            news=backlog.news(tx),
            run_queues=backlog.queues_of_runs(tx),
            blocked=backlog.blocked(tx, SHOWN),
            doubts=doubts.oldest(tx, SHOWN + 1),
            keys={key_id_of(head): run_id for head, run_id in backlog.sealed(tx, 1000).items()},
        )
