"""
Crash count: a run is blocked when its workflow ends its process, or hangs, in three tries of one turn.

The same for a turn that the database refuses to store, though neither process nor database is at fault.

An ordinary turn writes nothing here.  When the broker delivers a turn's message again, or the sweep sends it again, the
turn may have killed the process that tried it.  Then the turn records the try in the run's row before it replays, and
its commit deletes that record.  A record that a later turn finds was left by a process that died in the turn.  While
that process lives, the try does not count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from .. import duration, registry
from ..engine import Checkout, Engine, ProcessIdentity, identify, is_gone
from ..errors import TurnLost, TurnRefused, TurnTooLong
from ..store import Run, RunStatus, is_contention, is_unavailable, reason, runs, workers
from .commit import commit
from .decide import decide
from .decision import Decision, Overtaken
from .report import log_change
from .run_row import current_code_version
from .view import View

#: How many tries of one turn may end badly before the run is blocked.
MOST = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """
    One try of a turn.

    Attributes:
        at: When it began.
        version: The version of the workflow's code.
        worker: The process's id in the table of workers; *process* is its identity on its host.
        ended: How it ended badly; None: it goes on, as far as anyone knows.
    """

    at: int
    version: str | None
    worker: str | None = None
    process: ProcessIdentity | None = None
    ended: str | None = None

    def __str__(self) -> str:
        if self.process is None:
            return f"{self.ended}, in an unknown process"
        return f"{self.ended}, in {self.process.place}, begun at {duration.iso(self.at)}"


class Deferred(Exception):
    """Raised when a turn is left for later: it hung, or another thread of this process is in it."""


def decide_counted(
    engine: Engine,
    view: View,
    workflow: registry.Workflow[..., object] | None,
    checkout: Checkout,
    *,
    redelivered: bool,
) -> Decision | None:
    """
    Decide what the turn writes, as ``decide`` does, and block the run when its turns end badly.

    Raises:
        Deferred: There is nothing to write now; the sweep sends the turn again.
        Overtaken: Another turn came first.
    """
    if workflow is None or not view.replays:
        return decide(engine, view, workflow, checkout)
    if redelivered or view.was_resent or view.run.turn_tried is not None:
        # Count the tries that ended badly, and record this one in the run's row.
        if engine.watchdog.is_long_at(view.run.id):
            raise Deferred(f"another thread of this process is in a turn of run {view.run.id}")
        tries = _tries_of_this_code(engine, view.run)
        if not tries and redelivered:
            # The first try is not recorded: only the broker knows that there was one.
            bad = [Try(at=view.run.last_at, version=current_code_version(engine, view.run), ended="killed")]
        else:
            bad = [each for each in (_with_end(engine, one, redelivered) for one in tries) if each.ended][:MOST]
        going_on = [] if len(bad) == MOST else [_this_try(engine, view.run)]
        view = replace(view, run=_write(engine, view.run, bad, going_on))
        if view.run.turn_tries == MOST:
            return _block(view.run)
    decision = decide(engine, view, workflow, checkout)
    if decision is not None and isinstance(decision.fault, TurnTooLong) and decision.fault.hung:
        # The watchdog stopped the turn.
        earlier = [each for each in _tries_of_this_code(engine, view.run) if each.ended]
        run = _write(engine, view.run, [*earlier, replace(_this_try(engine, view.run), ended="hung")], [])
        if run.turn_tries == MOST:
            return _block(run)
        raise Deferred(f"a turn of run {run.id} hung ({run.turn_tries} of {MOST} tries)")
    return decision


def _block(run: Run) -> Decision:
    return Decision.block(run, TurnLost(run.id, [str(each) for each in _parse(run)]))


def count_refusal(engine: Engine, decision: Decision, error: Exception) -> Decision:
    """
    Count a turn that the database has refused to store.  Return what blocks its run, after three of them.

    Raises:
        Deferred: It is not the third one; the sweep sends the turn again.
        Exception: *error*, if the turn was to block the run, or if trying again helps.
    """
    if decision.fault is not None or is_unavailable(error) or is_contention(error):
        raise error
    earlier = [each for each in _tries_of_this_code(engine, decision.run) if each.ended]
    run = _write(engine, decision.run, [*earlier, replace(_this_try(engine, decision.run), ended="refused")], [])
    if run.turn_tries == MOST:
        return Decision.block(run, TurnRefused(run.id, reason(error)))
    raise Deferred(
        f"the database refused a turn of run {run.id} ({run.turn_tries} of {MOST} tries): {reason(error)}"
    ) from error


def block_stuck(engine: Engine) -> None:
    """Block the runs whose code hangs in this process for good, so that it hangs in no other thread."""
    for run_id, fault in list(engine.stuck.items()):
        with engine.store.read() as tx:
            run = runs.find(tx, run_id)
        if run is not None and not run.ended and run.status != RunStatus.BLOCKED:
            try:
                decision = Decision.block(run, fault)
                commit(engine, decision)
                # The handlers may take long, and this thread sends heartbeats: the sweep has them called.
                log_change(decision)
            except Overtaken:
                continue  # at the next tick
        del engine.stuck[run_id]


def _with_end(engine: Engine, one: Try, redelivered: bool) -> Try:
    """
    Return a recorded try with its end, if its process has died.

    The operating system knows the processes of its own host.  A process of another host has died if the broker has
    delivered the message again.  A process without a recent heartbeat has died too, on either host.
    """
    if one.ended or one.process is None:
        return one
    own = identify()
    is_on_this_host = (one.process.host, one.process.boot_id) == (own.host, own.boot_id)
    has_died = is_gone(one.process, own) if is_on_this_host else redelivered
    if not has_died and one.worker != engine.process_id:
        with engine.store.read() as tx:
            living = {worker.id for worker in workers.alive(tx, since=engine.now() - engine.settings.dead_after)}
        has_died = one.worker not in living
    if not has_died:
        return one
    limit = engine.settings.turn_timeout
    return replace(one, ended="killed or hung" if 0 < limit <= engine.now() - one.at else "killed")


def _this_try(engine: Engine, run: Run) -> Try:
    version = current_code_version(engine, run)
    return Try(at=engine.now(), version=version, worker=engine.process_id, process=identify())


def _write(engine: Engine, run: Run, bad: Sequence[Try], going_on: Sequence[Try]) -> Run:
    text = json.dumps([asdict(each) for each in (*bad, *going_on)])
    with engine.store.begin() as tx:
        if not runs.record_tries(tx, run, tries=len(bad), tried=text):
            raise Overtaken("another turn came first")
    return replace(run, turn_tries=len(bad), turn_tried=text)


def _tries_of_this_code(engine: Engine, run: Run) -> list[Try]:
    """Return the recorded tries of the code that this process has.  Another version starts with none."""
    version = current_code_version(engine, run)
    return [each for each in _parse(run) if each.version == version]


def _parse(run: Run) -> list[Try]:
    recorded = json.loads(run.turn_tried or "[]")
    return [Try(**(each | {"process": each["process"] and ProcessIdentity(**each["process"])})) for each in recorded]
