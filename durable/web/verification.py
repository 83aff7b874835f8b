"""
Handshakes and signatures, in the web process and before anything is recorded: no worker has to run.

Secrets are looked up when a request comes in, and go nowhere but into the
verifier.  What is our trouble (a variable that is missing, a verifier that
this process does not know) is answered 503 and logged: to accept would be
wrong, and a 4xx would make senders give up.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from ..errors import ConfigurationError
from ..http import Request, Response
from ..verify import Delivery, Preset, Rejected, Unavailable, Verification, presets, verdict
from . import problems
from .record_request import WebhookRow

log = logging.getLogger("durable.web")

Fetch = Callable[[str], bytes]


class Refused(Exception):
    """Raised when a request is not recorded; ``answer`` says why."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer)
        self.answer = answer


def greets(row: WebhookRow, method: str) -> bool:
    """Whether the webhook's sender may shake hands by this method."""
    wanted = row.config.verification
    return wanted is not None and method in _sender(row, wanted).greets


def greet(row: WebhookRow, request: Request, fetch: Fetch) -> Response | None:
    """The answer to a handshake that is not signed."""
    wanted = row.config.verification
    if wanted is None:
        return None
    sender = _sender(row, wanted)
    if sender.greeting is None:
        return None
    return _guarded(row, lambda: verdict.answer(sender.greeting, _delivery(row, wanted, request, fetch)))


def verify(row: WebhookRow, request: Request, fetch: Fetch) -> Response | None:
    """
    The answer to a handshake that is signed; None for a request to be recorded.

    Raises:
        Refused: It is not the sender's, or that cannot be told now.
    """
    wanted = row.config.verification
    if wanted is None:
        return None
    sender = _sender(row, wanted)

    def judge() -> Response | None:
        delivery = _delivery(row, wanted, request, fetch)
        why = verdict.refusal(sender, delivery)
        if why is not None:
            raise Rejected(why)
        return verdict.answer(sender.handshake, delivery)

    return _guarded(row, judge)


def _guarded(row: WebhookRow, act: Callable[[], Response | None]) -> Response | None:
    try:
        return act()
    except Rejected as why:
        log.warning("A request to a webhook of run %s was refused: %s", row.run_id, why)
        raise Refused(problems.not_verified()) from None
    except (ConfigurationError, Unavailable) as trouble:
        raise _trouble(row, trouble) from None


def _sender(row: WebhookRow, wanted: Verification) -> Preset[...]:
    try:
        return presets.find(wanted.by)
    except ConfigurationError as trouble:
        raise _trouble(row, trouble) from None


def _trouble(row: WebhookRow, trouble: Exception) -> Refused:
    log.error("A request to a webhook of run %s could not be verified, and was answered 503: %s", row.run_id, trouble)
    return Refused(problems.unavailable())


def _delivery(row: WebhookRow, wanted: Verification, request: Request, fetch: Fetch) -> Delivery:
    assert request.received_at is not None
    sent, mark, query = request.url.partition("?")
    base = row.url or sent
    if sent.endswith("/") and not base.endswith("/"):
        base += "/"
    return Delivery(
        request=request,
        url=base + mark + query,
        now=request.received_at.timestamp(),
        resolved={purpose: resolve(names) for purpose, names in wanted.references.items()},
        options=wanted.options,
        fetch=fetch,
    )


def resolve(references: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """The secrets of these names; ConfigurationError when a variable is not there."""
    names = [reference.removeprefix("env:") for reference in references]
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise ConfigurationError(
            f"The web process has no environment variable {' and no '.join(missing)}.  Set it where gunicorn is"
            " started, or take its name out of what is to be verified with it."
        )
    return tuple(os.fsencode(environ[name]) for name in names)
