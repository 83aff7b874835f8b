"""
The lease of a run's turns: one process takes in the outcomes of a run while several processes record them.

Otherwise each of them would replay the run and write a turn, all but one of these would be overtaken, and the replays
would be lost.  A process that finds the lease taken leaves its outcome in the inbox: the holder reads the inbox again
after it has released the lease.

While many steps run, and a turn has nothing to begin, the holder keeps the lease for a moment: one turn then takes in
several outcomes.

The lease of a dead holder is dropped when a message of the run is delivered again to a process of the same host, or
else by the sweep, which then sends a turn.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import failpoints
from ..engine import Checkout, Engine, ProcessIdentity, identify, is_gone
from ..events import ROOT
from ..sandbox import log_records
from ..store import InboxItem, Run, reason, turn_leases, turns
from .view import View

#: How long a lease is taken for, in microseconds.  A turn that takes longer may be overtaken.
TTL = 10_000_000
#: The lease is kept only while the run waits for more operations than these.
MANY = 8
#: How long it is kept, in seconds.
BATCH_DELAY_SECS = 0.025

log = log_records.get("durable.drive")


class TurnLease:
    """The lease of one run, for one drive, which takes it when it has to."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        self._engine = engine
        self._run_id = run_id
        self._expires_at = 0
        #: The random id of this drive, once it has taken the lease.
        self.holder: str | None = None

    @classmethod
    def resume(cls, engine: Engine, run_id: str) -> TurnLease:
        """Return the lease that a drive of this process has kept; one that is not taken yet where there is none."""
        kept = engine.later.cancel(_key(run_id))
        return kept if isinstance(kept, cls) else cls(engine, run_id)

    @property
    def is_kept(self) -> bool:
        """Whether a drive of this process has kept the lease of this run, and will read the inbox."""
        return _key(self._run_id) in self._engine.later

    def take(self) -> bool:
        """Take the lease, or renew it when half of its time is over; False while another drive has it."""
        now = self._engine.now()
        if self._expires_at - now > TTL // 2:
            return True
        engine, holder = self._engine, self.holder or secrets.token_hex(16)
        if not turn_leases.take(engine.store, self._run_id, holder, worker_id=engine.process_id, ttl=TTL):
            return False
        self.holder, self._expires_at = holder, now + TTL
        failpoints.hit("lease.taken")
        return True

    @contextmanager
    def taken_to_read(self) -> Iterator[tuple[Connection, Run, list[InboxItem]] | None]:
        """
        Take the lease, and read the run and its inbox, at once where the database can.

        Yields them with the connection; None while another drive has the lease.
        """
        engine, self.holder = self._engine, secrets.token_hex(16)
        with turns.read_under_lease(
            engine.store, self._run_id, self.holder, worker_id=engine.process_id, ttl=TTL
        ) as found:
            if found is None:
                self.holder = None
            else:
                failpoints.hit("lease.taken")
            yield found

    def release(self, *, wakes: bool = True, is_over: bool = False) -> None:
        """
        Release the lease, if this drive has taken it.

        Args:
            wakes: Send a turn for what has come meanwhile, and was left to this drive.
            is_over: A turn's commit has released it.
        """
        if self.holder is None:
            return
        try:
            if not is_over:
                turn_leases.release(self._engine.store, self._run_id, self.holder)
        except SQLAlchemyError as error:
            log.debug("The lease of run %s expires by itself (%s).", self._run_id, reason(error))
        failpoints.hit("lease.released")
        if wakes:
            self._engine.send_turn_if_waiting(self._run_id)

    def keep(self) -> None:
        """Release the lease a moment later: what comes until then is taken in by one turn."""
        if self.holder is not None:
            self._engine.later.call(_key(self._run_id), BATCH_DELAY_SECS, self)

    def __call__(self) -> None:
        """Release it: ``keep`` has this called."""
        self.release()


def put_off(engine: Engine, run_id: str) -> None:
    """Leave an outcome to a turn that this process takes a moment later, or sends if it is busy with a long step."""
    if engine.later.put_off(_key(run_id), BATCH_DELAY_SECS):
        return
    key = ("drive", run_id)
    if key not in engine.later:
        engine.later.call(key, BATCH_DELAY_SECS, partial(engine.send_turn_if_waiting, run_id))


def _key(run_id: str) -> tuple[str, str]:
    return ("lease", run_id)


def drop_lease_of_gone_process(engine: Engine, run_id: str) -> None:
    """Drop the lease of a run, if the process that has it is gone from this host: a message was delivered again."""
    with engine.store.read() as tx:
        found = turn_leases.find_holder(tx, run_id)
    if found is None:
        return
    if is_gone(ProcessIdentity(found.host, found.boot_id, found.pid, found.pid_started), identify()):
        log.info("Run %s: process %s:%d is gone with the lease of its turns.", run_id, found.host, found.pid)
        turn_leases.release(engine.store, run_id, found.holder)


def is_contended(view: View, checkout: Checkout) -> bool:
    """Whether other processes may soon have an outcome for the run: it waits for more than what the inbox has."""
    open_count = checkout.kept.replay.pending_count if checkout.kept else 0
    for event in view.past:
        if event.op_id != ROOT:
            open_count += (event.phase == "created") - (event.phase == "ended")
    return open_count > len({item.event.op_id for item in view.inbox})
