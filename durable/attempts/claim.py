"""
Taking an attempt: which one a message carries, and whether it is still there to be run.

A claim is committed before the body runs.  A second delivery finds nothing to claim; where the process
that runs the attempt is gone from this host, it gives the attempt up at once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from ..broker import header_of
from ..engine import Engine, ProcessIdentity, identify, is_gone
from ..errors import DecryptionError
from ..registry import Step
from ..store import RETRY_DELAYS_SECS, Claim, ClaimedAttempt, claims, retry_until_available, steps
from .outcome import give_up, release

#: A run goes on in place with one step at a time: where more run than this, they have messages of their own.
_MOST = 10


@dataclass(frozen=True, slots=True)
class Address:
    """Which attempt a message carries, as its header says."""

    run: str
    op: str
    attempt: int

    @classmethod
    def of(cls, request: Any) -> Address | None:
        """That of the message behind a Celery request, None when it carries no attempt."""
        match header_of(request):
            case {"run": str(run), "op": str(op), "attempt": int(number)}:
                return cls(run, op, number)
        return None


def claim(engine: Engine, step: Step[..., Any], address: Address, message_id: str | None) -> Claim | None:
    """
    Take the attempt; None when it is not there to be run.

    Raises:
        DecryptionError: It is left to a process that has the key.
    """
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
        )

    # More than once: a claim whose commit was not acknowledged must not cost the attempt.
    held = retry_until_available(take, tries=len(RETRY_DELAYS_SECS))
    if held is not None:
        return _opened(engine, held)
    with engine.store.read() as tx:
        not_before = claims.not_before(tx, address.run, address.op, address.attempt)
    if engine.wait_if_near(not_before) and (held := take()) is not None:
        return _opened(engine, held)
    take_over(engine, address)
    return None


def _opened(engine: Engine, held: Claim) -> Claim:
    """What was claimed, readable; DecryptionError: this process lacks the key, and has handed the attempt back."""
    try:
        return claims.decrypted(engine.store.vault, held)
    except DecryptionError:
        retry_until_available(lambda: release(engine, held, has_begun=False, delay=engine.settings.resend_after))
        raise


def take_over(engine: Engine, address: Address) -> None:
    """
    A message that came again: if the process that had it is gone from this host, give up now what it ran.

    That is the message's own attempt, or one that the process had gone on to.
    """
    with engine.store.read() as tx:
        own = steps.claimed(tx, address.run, address.op)
    if own is None:
        take_over_run(engine, address.run)
    elif own.attempt == address.attempt:
        _give_up_vanished(engine, own)


def take_over_run(engine: Engine, run_id: str) -> None:
    """The same of whatever a run's last message, which came again, had led its worker to."""
    with engine.store.read() as tx:
        held = steps.claimed_in_run(tx, run_id, _MOST)
    for each in held:
        _give_up_vanished(engine, each)


def _give_up_vanished(engine: Engine, held: ClaimedAttempt) -> None:
    if not _has_vanished(held, identify()):
        return
    row = give_up(engine, held)
    if row is not None:
        engine.dispatch.step(row)


def _has_vanished(held: ClaimedAttempt, here: ProcessIdentity) -> bool:
    if held.host is None or held.boot_id is None or held.pid is None or held.pid_started is None:
        return False
    return is_gone(ProcessIdentity(held.host, held.boot_id, held.pid, held.pid_started), here)
