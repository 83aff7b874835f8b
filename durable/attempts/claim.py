"""
Claims the attempt that a message carries.

The claim is committed before the step's function runs.  A second delivery of the message finds nothing to claim.  If
the process that runs the attempt is gone from this host, the second delivery gives the attempt up at once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from ..broker import header_of
from ..client import pauses
from ..engine import Engine, ProcessIdentity, identify, is_gone
from ..errors import DecryptionError
from ..registry import SEMANTICS, Step
from ..store import RETRY_DELAYS_SECS, Claim, ClaimedAttempt, claimed_attempts, claims, retry_until_available
from ..turns import drop_lease_of_gone_process
from .outcome import give_up_and_send, release

#: A worker goes on in place with one step of a run at a time.  Where more run than this, each has its own message.
_MOST = 10


@dataclass(frozen=True, slots=True)
class Address:
    """Which attempt a message carries, as its header says."""

    run: str
    op: str
    attempt: int

    @classmethod
    def of(cls, request: Any) -> Address | None:
        """Return the address in the message behind a Celery request; None when it carries no attempt."""
        match header_of(request):
            case {"run": str(run), "op": str(op), "attempt": int(number)}:
                return cls(run, op, number)
        return None


def claim(engine: Engine, step: Step[..., Any], address: Address, message_id: str | None) -> Claim | None:
    """
    Claim the attempt.  Return None when there is nothing to run.

    Raises:
        DecryptionError: This process lacks a key.  Another process takes the attempt.
    """
    if engine.pauses and pauses.hold_step(engine, step.name, address.run, address.op, address.attempt):
        return None
    by = secrets.token_hex(16)

    def take() -> Claim | None:
        return claims.commit_claim(
            engine.store,
            address.run,
            address.op,
            address.attempt,
            by=by,
            worker_id=engine.process_id,
            message_id=message_id,
            semantics=step.semantics,
            timeout=step.timeout,
            is_synced=engine.settings.sync_claims or step.semantics != SEMANTICS[0],
        )

    # More than once: a claim whose commit was not acknowledged must not cost the attempt.
    held = retry_until_available(take, tries=len(RETRY_DELAYS_SECS))
    if held is None:
        with engine.store.read() as tx:
            not_before = claims.not_before(tx, address.run, address.op, address.attempt)
        # A worker's clock may deliver a retry some milliseconds before it is due by the database's clock.
        if engine.wait_if_near(not_before):
            held = take()
    if held is None:
        take_over(engine, address)
        return None
    try:
        return claims.decrypted(engine.store.vault, held)
    except DecryptionError:
        retry_until_available(lambda: release(engine, held, has_begun=False, delay=engine.settings.resend_after))
        raise


def take_over(engine: Engine, address: Address) -> None:
    """
    Give up what the process ran that had this message before, if that process is gone from this host.

    That is the message's own attempt, or one that the process had gone on to in place.
    """
    with engine.store.read() as tx:
        own = claimed_attempts.find(tx, address.run, address.op)
    if own is None:
        take_over_run(engine, address.run)
    elif own.attempt == address.attempt:
        _give_up_if_gone(engine, own)


def take_over_run(engine: Engine, run_id: str) -> None:
    """
    Give up what processes had of the run that are gone from this host: a turn's message was delivered again.

    That is the lease of the run's turns, and attempts.
    """
    drop_lease_of_gone_process(engine, run_id)
    with engine.store.read() as tx:
        found = claimed_attempts.of_run(tx, run_id, _MOST)
    for held in found:
        _give_up_if_gone(engine, held)


def _give_up_if_gone(engine: Engine, held: ClaimedAttempt) -> None:
    if held.host is None or held.boot_id is None or held.pid is None or held.pid_started is None:
        return
    if is_gone(ProcessIdentity(held.host, held.boot_id, held.pid, held.pid_started), identify()):
        give_up_and_send(engine, held)
