"""
Turns that ended their process, or hung: a workflow that does it three times in a row is blocked.

An ordinary turn writes nothing here.  Where there is reason for suspicion (the broker delivered its
message again, or the sweep sent it again) a turn notes itself in the run's row before it replays, and its
own fenced update takes the note away.  A note that is found later was left by a process that died in
the turn, unless that process still lives: then nothing is counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from .. import duration, registry
from ..engine import Checkout, Engine, ProcessIdentity, identify, is_gone
from ..errors import TurnLost, TurnTooLong
from ..store import Run, RunStatus, runs, workers
from .commit import commit, current_code_version
from .decide import decide
from .decision import Decision, Overtaken, Placing
from .view import View

#: So many tries of one turn may end badly.
MOST = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """One try of a turn: since when, by which code, in which process, and how it ended (None: not that we know)."""

    at: int
    version: str | None
    worker: str | None = None
    process: ProcessIdentity | None = None
    ended: str | None = None

    def __str__(self) -> str:
        if self.process is None:
            return f"{self.ended}, in a process that is not known"
        return f"{self.ended}, in {self.process.place}, begun at {duration.iso(self.at)}"


class Deferred(Exception):
    """Raised when a turn is left for later: it hung, or this process is in the midst of it already."""


def decide_counted(
    engine: Engine,
    view: View,
    workflow: registry.Workflow[..., object] | None,
    checkout: Checkout,
    *,
    redelivered: bool,
) -> Decision | None:
    """
    What a turn writes, as ``decide`` says it, or that the run is blocked since its turns end badly.

    Raises:
        Left: Nothing is to be written now; the sweep sends the turn again.
        Overtaken: Another turn was here.
    """
    if workflow is None or not view.replays:
        return decide(engine, view, workflow, checkout)
    if redelivered or view.resent or view.run.turn_tried is not None:
        view = _noted(engine, view, redelivered)
        if view.run.turn_tries == MOST:
            return _lost(view.run)
    decision = decide(engine, view, workflow, checkout)
    if decision is not None and isinstance(decision.fault, TurnTooLong) and decision.fault.hung:
        return _hung(engine, view)
    return decision


def _noted(engine: Engine, view: View, redelivered: bool) -> View:
    """The run with its bad tries counted, and this one noted."""
    if engine.watchdog.is_long_at(view.run.id):
        raise Deferred(f"this process is in a turn of run {view.run.id} already")
    bad = _bad(engine, view.run, redelivered)[:MOST]
    going = [] if len(bad) == MOST else [_this(engine, view.run)]
    return replace(view, run=_write(engine, view.run, bad, going))


def _hung(engine: Engine, view: View) -> Decision:
    """The watchdog stopped a turn that hung: it is tried again, three times in all."""
    earlier = [each for each in _known(engine, view.run) if each.ended]
    run = _write(engine, view.run, [*earlier, replace(_this(engine, view.run), ended="hung")], [])
    if run.turn_tries == MOST:
        return _lost(run)
    raise Deferred(f"a turn of run {run.id} hung, for the {run.turn_tries}. time")


def _lost(run: Run) -> Decision:
    fault = TurnLost(run.id, [str(each) for each in _parse(run)])
    return Decision(run=run, placing=Placing(run), fault=fault)


def block_stuck(engine: Engine) -> None:
    """Block the runs whose code hangs in this process for good, so that it takes no more of it."""
    for run_id, reason in list(engine.stuck.items()):
        with engine.store.read() as tx:
            run = runs.find(tx, run_id)
        if run is not None and not run.ended and run.status != RunStatus.BLOCKED:
            try:
                commit(engine, Decision(run=run, placing=Placing(run), fault=reason))
            except Overtaken:
                continue  # at the next tick
        del engine.stuck[run_id]


def _bad(engine: Engine, run: Run, redelivered: bool) -> list[Try]:
    """Those tries that ended badly.  Of the first one, which is not noted, only the broker tells."""
    known = _known(engine, run)
    if not known and redelivered:
        return [Try(at=run.last_at, version=current_code_version(engine, run), ended="killed")]
    return [each for each in (_judged(engine, one, redelivered) for one in known) if each.ended]


def _judged(engine: Engine, one: Try, redelivered: bool) -> Try:
    if one.ended or one.process is None or not _has_died(engine, one, redelivered):
        return one
    limit = engine.settings.turn_timeout
    return replace(one, ended="killed or hung" if 0 < limit <= engine.now() - one.at else "killed")


def _has_died(engine: Engine, one: Try, redelivered: bool) -> bool:
    """Whether the process of a noted try is gone: known on its own host, elsewhere by the broker; or by its beats."""
    assert one.process is not None
    here = identify()
    is_neighbour = (one.process.host, one.process.boot_id) == (here.host, here.boot_id)
    if is_gone(one.process, here) if is_neighbour else redelivered:
        return True
    if one.worker == engine.process_id:
        return False
    with engine.store.read() as tx:
        living = {worker.id for worker in workers.alive(tx, since=engine.now() - engine.settings.dead_after)}
    return one.worker not in living


def _this(engine: Engine, run: Run) -> Try:
    version = current_code_version(engine, run)
    return Try(at=engine.now(), version=version, worker=engine.process_id, process=identify())


def _write(engine: Engine, run: Run, bad: Sequence[Try], going: Sequence[Try]) -> Run:
    text = json.dumps([asdict(each) for each in (*bad, *going)])
    with engine.store.begin() as tx:
        if not runs.record_tries(tx, run, tries=len(bad), tried=text):
            raise Overtaken("another turn came first")
    return replace(run, turn_tries=len(bad), turn_tried=text)


def _known(engine: Engine, run: Run) -> list[Try]:
    """The noted tries of the code that this process has: another version begins anew."""
    version = current_code_version(engine, run)
    return [each for each in _parse(run) if each.version == version]


def _parse(run: Run) -> list[Try]:
    noted = json.loads(run.turn_tried or "[]")
    return [Try(**(each | {"process": each["process"] and ProcessIdentity(**each["process"])})) for each in noted]
