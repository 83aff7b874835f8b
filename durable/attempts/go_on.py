"""
What follows an attempt: the run's turn, and an offered step that this process takes without a message.

Where it can, a process records the outcome and what follows in one transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from .. import events, failpoints
from ..engine import Engine
from ..errors import DecryptionError
from ..registry import SEMANTICS, definitions
from ..sandbox import log_records
from ..store import Claim, claims, end_operation, event_rows, offers, reason, retry_until_available
from ..turns import BATCH_DELAY_SECS, Continuation, Gathered, conclude, drive, gather, put_off, write_gathered
from .outcome import record, release

log = log_records.get("durable.steps")


def go_on(engine: Engine, continuation: Continuation, run_id: str, *, redelivered: bool = False) -> None:
    """
    Drive a run after one of its attempts, and claim what this process runs next.

    Args:
        redelivered: Whether the broker has delivered the message before.
    """
    in_batches, has_next = continuation.in_batches, _take_offered(engine, continuation, run_id)
    # While the process takes one offered step after the other, it drives the run once in this time.
    if has_next and in_batches and continuation.puts_off_drive(BATCH_DELAY_SECS):
        put_off(engine, run_id)
        return
    own = None if has_next else continuation
    drive(engine, run_id, continuation=own, redelivered=redelivered, in_batches=in_batches, resumes=has_next)


def record_in_place(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Record an attempt's outcome together with what follows: the claim of the run's next offered step, or a turn.

    Return False when nothing was written.  Then the outcome has to be recorded by itself.
    """
    if continuation.has_offers:
        return _record_and_take_next(engine, continuation, held, ended)
    if continuation.has_others:
        return gather(engine, continuation, held, ended)
    return conclude(engine, continuation, held, ended)


def record_gathered(engine: Engine, continuation: Continuation) -> None:
    """
    Record the outcomes that were gathered of several runs; those that cannot be recorded together, each by itself.

    While the database is away, this waits.  Other errors are logged: no task is there that could fail with them.
    """
    gathered = continuation.take_gathered()
    claims_held = {each.held.claim for each in gathered}
    # Housekeeping gives up what is claimed and not running.
    engine.running |= claims_held
    try:
        for each in write_gathered(engine, continuation, gathered):
            _record_alone(engine, each)
    except Exception:
        log.exception("What follows the outcomes of %d attempts failed.", len(gathered))
    finally:
        engine.running -= claims_held


def _record_alone(engine: Engine, gathered: Gathered) -> None:
    held = gathered.held
    try:
        retry_until_available(partial(record, engine, held, gathered.ended))
    except Exception:
        log.exception("Run %s: the outcome of %s is lost, and it runs again.", held.run_id, held.op_id)
    else:
        engine.send_turns(held.run_id)


def _record_and_take_next(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Record an attempt's outcome, and claim the run's next offered step, in one transaction instead of two.

    Not the outcome of an attempt that may be in doubt, or one that refers to requests or large values.
    """
    is_end = ended.phase == "ended" and held.semantics != definitions.AT_MOST_ONCE
    if not is_end or continuation.is_over:
        return False
    if event_rows.has_large([ended]) or end_operation.request_ids(ended):
        return False
    sending = engine.dispatch.plan(engine.store.now())
    is_recorded = False

    def claim(by: str) -> Claim | None:
        nonlocal is_recorded
        is_recorded, claimed = offers.commit_outcome_and_claim_next(
            engine.store, held, ended, sending, _taker(engine, continuation), by=by
        )
        return claimed

    try:
        continuation.next = _claim_next(engine, claim)
    except Exception as error:
        if not is_recorded:
            log.debug("Run %s: an outcome is recorded by itself (%s).", held.run_id, error)
            return False
        log.warning("Run %s: an offered step was claimed and does not run here: %s", held.run_id, reason(error))
    if is_recorded:
        continuation.has_offers = continuation.next is not None
        failpoints.hit("step.recorded")
    return is_recorded


def _take_offered(engine: Engine, continuation: Continuation, run_id: str) -> bool:
    """Claim the next offered step of the run; when other runs come first, send its message instead."""
    if continuation.next is not None:
        return True
    if not continuation.has_offers:
        return False
    if continuation.is_over:
        _send_next(engine, continuation, run_id)
        return False

    def claim(by: str) -> Claim | None:
        taker, is_synced = _taker(engine, continuation), engine.settings.sync_claims
        return offers.claim_next(engine.store, run_id, taker, by=by, is_synced=is_synced)

    continuation.next = _claim_next(engine, claim)
    continuation.has_offers = continuation.next is not None
    return continuation.has_offers


def _claim_next(engine: Engine, claim: Callable[[str], Claim | None]) -> Claim | None:
    """Claim the next offered step by a new id; None when none is left that may run here."""
    by = secrets.token_hex(16)
    # Before the commit, which may fail and still be applied: housekeeping gives up what is claimed and not running.
    engine.running.add(by)
    held: Claim | None = None
    try:
        claimed = claim(by)
        held = None if claimed is None else _decrypted(engine, claimed)
        return held
    finally:
        if held is None:
            engine.running.discard(by)


def _decrypted(engine: Engine, claimed: Claim) -> Claim | None:
    """The claim with its values decrypted; None, and it is released, when this process lacks a key."""
    try:
        return claims.decrypted(engine.store.vault, claimed)
    except DecryptionError:
        delay = engine.settings.resend_after
        retry_until_available(lambda: release(engine, claimed, has_begun=False, delay=delay))
        return None


def _send_next(engine: Engine, continuation: Continuation, run_id: str) -> None:
    """Send the message of the next offered step, so that as many messages are on their way as before."""
    sending = engine.dispatch.plan(engine.store.now())
    row = offers.commit_next_sent(engine.store, run_id, _taker(engine, continuation), sending)
    if row is not None:
        engine.dispatch.send_step(replace(row, has_offers=True))


def _taker(engine: Engine, continuation: Continuation) -> offers.Taker:
    return offers.Taker(
        queue=continuation.queue, names=continuation.names(), worker_id=engine.process_id, semantics=SEMANTICS[0]
    )
