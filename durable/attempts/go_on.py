"""
What follows an attempt: the run's turn, and an offered step that this process takes without a message.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from ..engine import Engine
from ..errors import DecryptionError
from ..registry import SEMANTICS
from ..store import Claim, claims, offers
from ..turns import BATCH_DELAY_SECS, Continuation, drive, put_off
from .outcome import release


def go_on(
    engine: Engine, continuation: Continuation, run_id: str, *, redelivered: bool = False, in_batches: bool = True
) -> None:
    """
    Drive a run after one of its attempts, and claim what this process runs next.

    Args:
        redelivered: Whether the broker has delivered the message before.
        in_batches: Take in several outcomes with one turn: while the process takes one offered step after the other,
            drive the run once in ``BATCH_DELAY_SECS``.
    """
    has_next = _take_offered(engine, continuation, run_id)
    if has_next and in_batches and continuation.puts_off_drive(BATCH_DELAY_SECS):
        put_off(engine, run_id)
        return
    own = None if has_next else continuation
    drive(engine, run_id, continuation=own, redelivered=redelivered, in_batches=in_batches, resumes=has_next)


def _take_offered(engine: Engine, continuation: Continuation, run_id: str) -> bool:
    """Claim the next offered step of the run; when other runs come first, send its message instead."""
    if not continuation.has_offers:
        return False
    if continuation.is_over:
        _send_next(engine, continuation, run_id)
        return False
    continuation.next = _claim_next(engine, continuation, run_id)
    continuation.has_offers = continuation.next is not None
    return continuation.has_offers


def _claim_next(engine: Engine, continuation: Continuation, run_id: str) -> Claim | None:
    """Claim the next offered step; None when none is left that may run here."""
    by = secrets.token_hex(16)
    # Before the commit, which may fail and still be applied: housekeeping gives up what is claimed and not running.
    engine.running.add(by)
    held: Claim | None = None
    try:
        held = offers.claim_next(
            engine.store,
            run_id,
            continuation.queue,
            continuation.names(),
            by=by,
            worker_id=engine.process_id,
            semantics=SEMANTICS[0],
        )
        return None if held is None else claims.decrypted(engine.store.vault, held)
    except DecryptionError:
        assert held is not None
        release(engine, held, has_begun=False, delay=engine.settings.resend_after)
        held = None
        return None
    finally:
        if held is None:
            engine.running.discard(by)


def _send_next(engine: Engine, continuation: Continuation, run_id: str) -> None:
    """Send the message of the next offered step, so that as many messages are on their way as before."""
    sending = engine.dispatch.plan(engine.store.now())
    row = offers.commit_next_sent(engine.store, run_id, continuation.queue, continuation.names(), sending)
    if row is not None:
        engine.dispatch.send_step(replace(row, has_offers=True))
