"""What is done to many runs that match a filter: batch by batch, each of bounded size, with a place to go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..engine import Engine
from ..errors import DurableError, RunNotFound
from ..store import RunFilter, RunStatus, run_list
from . import fork, operate, pauses
from .run import Client

#: The statuses in which a run can be cancelled and paused, in the order in which a run has them.
OPEN = (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.BLOCKED)

#: ``count`` counts no further.
COUNTED = 10_000

#: Why a run is refused whose action has returned False.
NOTHING_TO_DO = "There was nothing to do: the run has changed meanwhile, or was so already."

_PLACE = re.compile(r"([0-9])\.([0-9]{1,18})\.([0-9]{1,18})\.([!-~]{0,64})")


@dataclass(frozen=True, slots=True)
class Given:
    """
    What some actions take beside the run: the reason of a cancel or a pause; where and how to fork.

    Attributes:
        children: Pause or resume the child runs too.
    """

    reason: str | None = None
    from_step: str | None = None
    from_event: int | None = None
    reapply_payloads: bool = True
    children: bool = False


@dataclass(frozen=True, slots=True)
class BulkAction:
    """
    Something that is done to runs.

    Attributes:
        statuses: Only to runs with these, in the order in which a run has them.
        act: Does it to one run; returns False when there was nothing to do.  It may raise DurableError.
        only_paused: Only to runs that are paused.
        go_on: Called after each batch in which it was done to a run.
    """

    statuses: Sequence[RunStatus]
    act: Callable[[Engine, str, Given], object]
    only_paused: bool = False
    go_on: Callable[[Engine], None] | None = None


def _fork(engine: Engine, run_id: str, given: Given) -> str:
    """Fork a run that was not forked before, and return the fork's id."""
    return fork.fork(
        engine,
        run_id,
        from_step=given.from_step,
        from_event=given.from_event,
        reapply_payloads=given.reapply_payloads,
        once=True,
    ).id


def _retry(engine: Engine, run_id: str, _given: Given) -> bool:
    """Retry a blocked run; a retry does not resolve a step in doubt."""
    return not operate.is_in_doubt(engine, run_id) and operate.retry(engine, run_id)


ACTIONS: Mapping[str, BulkAction] = {
    "cancel": BulkAction(OPEN, lambda engine, run_id, given: Client(engine).cancel(run_id, given.reason)),
    "retry": BulkAction([RunStatus.BLOCKED], _retry),
    "fork": BulkAction([RunStatus.FAILED], _fork),
    "pause": BulkAction(
        OPEN, lambda engine, run_id, given: pauses.pause_run(engine, run_id, given.reason, children=given.children)
    ),
    "resume": BulkAction(
        OPEN,
        lambda engine, run_id, given: pauses.resume_in_turn(engine, run_id, children=given.children),
        only_paused=True,
        go_on=pauses.go_on_with_pauses,
    ),
}


@dataclass(frozen=True, slots=True)
class BulkPlace:
    """
    Where a batch begins.  ``str`` makes a text of it, and ``parse`` reads that.

    Attributes:
        number: Which of the action's statuses.
        until: Only runs that were created before: what starts later is left alone.
        before: The run of the last batch, by ``(created_at, id)``; None at the beginning of a status.
    """

    number: int
    until: int
    before: run_list.Place | None = None

    def __str__(self) -> str:
        at, run_id = self.before or (0, "")
        return f"{self.number}.{self.until}.{at}.{run_id}"

    @classmethod
    def parse(cls, text: str) -> BulkPlace:
        """Return the place; raise ValueError for a text that is none."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not the `next` of a batch.")
        number, until, at, run_id = found.groups()
        return cls(int(number), int(until), (int(at), run_id) if run_id else None)


@dataclass(slots=True)
class BulkBatch:
    """
    What came of a batch.

    Attributes:
        done: The runs to which it was done, each with what the action returned.
        refused: The runs to which it was not done, each with the reason.
        next: Where the next batch begins; None when all is done.
    """

    done: list[tuple[str, Any]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    next: BulkPlace | None = None


def first_place(engine: Engine, wanted: RunFilter) -> BulkPlace:
    """Where the first batch begins."""
    # Up to this microsecond: the clock of a test environment stands still.
    now = engine.now() + 1
    return BulkPlace(0, now if wanted.until is None else min(now, wanted.until))


def matching(
    engine: Engine, wanted: RunFilter, action: str, place: BulkPlace, limit: int
) -> tuple[list[str], BulkPlace | None]:
    """
    Return the ids of the next runs that match and that the action is for, at most *limit*, and the place behind them.

    There may be fewer although more match: the place is None at the end only.
    """
    statuses = ACTIONS[action].statuses
    wanted = replace(wanted, until=place.until, paused=ACTIONS[action].only_paused or wanted.paused)
    ids: list[str] = []
    while place.number < len(statuses):
        status = statuses[place.number]
        if wanted.status not in (None, status):
            place = BulkPlace(place.number + 1, place.until)
            continue
        with engine.store.read() as tx:
            page = run_list.page(tx, replace(wanted, status=status), before=place.before, limit=limit - len(ids))
        ids += [run.id for run in page.runs]
        place = BulkPlace(place.number + (page.next is None), place.until, page.next)
        if ids:
            break
    return ids, place if place.number < len(statuses) else None


def count(engine: Engine, wanted: RunFilter, action: str) -> int:
    """Return how many runs match and the action is for, counted up to ``COUNTED``."""
    found = ACTIONS[action]
    counted = 0
    with engine.store.read() as tx:
        for status in found.statuses:
            if wanted.status in (None, status):
                each = replace(wanted, status=status, paused=found.only_paused or wanted.paused)
                counted += run_list.count(tx, each, COUNTED - counted)
    return counted


def act_on_batch(
    engine: Engine,
    wanted: RunFilter,
    action: str,
    given: Given,
    place: BulkPlace,
    limit: int,
    each: Callable[[str, Callable[[], object]], object] = lambda _run_id, act: act(),
    refusal: type[DurableError] | None = DurableError,
) -> BulkBatch:
    """
    Do something to the next runs that match, at most *limit*.

    Args:
        each: Called with the id of a run and with what does it.
        refusal: The error that refuses one run; others are raised.
    """
    ids, following = matching(engine, wanted, action, place, limit)
    batch = BulkBatch(next=following)
    for run_id in ids:
        try:
            outcome = each(run_id, lambda run_id=run_id: ACTIONS[action].act(engine, run_id, given))  # type: ignore[misc]
        except RunNotFound:
            # It was pruned meanwhile.
            continue
        except DurableError as error:
            if refusal is None or not isinstance(error, refusal):
                raise
            batch.refused.append((run_id, str(error)))
            continue
        if outcome is False:
            batch.refused.append((run_id, NOTHING_TO_DO))
        else:
            batch.done.append((run_id, outcome))
    go_on = ACTIONS[action].go_on
    if batch.done and go_on is not None:
        go_on(engine)
    return batch
