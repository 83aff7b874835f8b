"""Read from the store, once for all checks, which workers live and what waits."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine import Engine
from ..store import (
    InDoubt,
    Pause,
    WaitingRun,
    Worker,
    backlog,
    in_doubt,
    installation,
    key_id_of,
    limit_faults,
    pauses,
    session_settings,
    standbys,
    streams,
    workers,
)
from .finding import SHOWN

#: A day, in microseconds.
DAY = 24 * 3600 * 1_000_000
#: An hour, in microseconds.
HOUR = 3600 * 1_000_000

#: A stream without ``keep`` that has more items than this may grow for ever.
MANY_ITEMS = 100_000

#: The attempts of a process are given up for certain after so many times ``dead_after`` without a heartbeat.
_GONE = 5


@dataclass(frozen=True, kw_only=True)
class Situation:
    """
    The live processes, and a bounded part of the work lists.

    Attributes:
        registered: The workflows and steps that a live process has registered.
        steps: Attempts that no process has claimed.
        turns: Runs with inbox items, which need a turn.
        run_queues: The queues of open runs.  None is the application's default queue.
        blocked: How many runs are blocked by their code, and the ids of the oldest.
        now: The database's time.
        failures: The runs that have failed within a day: their workflow, and when they ended.
        doubts: The oldest steps in doubt, one more than a finding shows.
        set_limits: The limits whose numbers are set at run time.
        limit_keys: The keys of limits that are checked next.
        wrong_slots: Steps whose slots do not fit their attempts.
        pauses: What is paused by name, the oldest first.
        long_streams: Open streams with far more items than their ``keep`` says, or without ``keep`` and with many.
        paused_run: The run that was paused by itself for the longest time, and since when.
        foreign_queue: The queue from which a worker got another installation's message within the last hour.
        unawaited_standbys: How many standbys a PostgreSQL primary has, if its commits wait for none; else None or 0.
        keys: The ids of the keys that waiting values are encrypted with, each with a run that needs it.
    """

    engine: Engine
    alive: list[Worker]
    registered: set[str]
    steps: list[WaitingRun]
    turns: list[WaitingRun]
    run_queues: set[str | None]
    blocked: tuple[int, list[str]]
    now: int
    failures: list[tuple[str, int]]
    doubts: list[InDoubt]
    foreign_queue: str | None
    unawaited_standbys: int | None
    unfit_settings: list[session_settings.UnfitSetting]
    keys: dict[str, str]
    set_limits: dict[str, int]
    limit_keys: list[limit_faults.KeyState]
    wrong_slots: list[limit_faults.WrongSlot]
    pauses: list[Pause]
    paused_run: tuple[str, int] | None
    long_streams: list[streams.LongStream]


def read(engine: Engine) -> Situation:
    """Read the situation."""
    now = engine.now()
    since = now - engine.settings.dead_after
    with engine.store.read() as tx:
        alive = workers.alive(tx, since)
        return Situation(
            engine=engine,
            alive=alive,
            registered=workers.registered(tx, since),
            steps=backlog.pending_steps(tx),
            turns=backlog.runs_with_inbox_items(tx),
            run_queues=backlog.queues_of_runs(tx),
            blocked=backlog.blocked(tx, SHOWN),
            now=now,
            failures=backlog.failures(tx, now - DAY),
            doubts=in_doubt.oldest(tx, SHOWN + 1),
            foreign_queue=installation.foreign_queue(tx, now - HOUR),
            unawaited_standbys=standbys.unawaited(tx),
            unfit_settings=session_settings.unfit(tx, processes=len(alive), max_body=engine.settings.max_body),
            keys={key_id_of(head): run_id for head, run_id in backlog.encrypted_heads(tx, 1000).items()},
            set_limits=limit_faults.set_numbers(tx),
            limit_keys=limit_faults.key_states(tx, now),
            pauses=pauses.every(tx, SHOWN + 1),
            paused_run=pauses.oldest_paused_run(tx),
            long_streams=streams.longest(tx, MANY_ITEMS, SHOWN + 1),
            wrong_slots=limit_faults.wrong_slots(tx, now, now - _GONE * engine.settings.dead_after),
        )
