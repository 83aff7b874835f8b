"""
Answer handshakes and verify signatures, before anything of a request is recorded.

This runs in the web process; it needs no worker.  The secrets are read from
the environment for each request, and only the verifier sees them.

A wrong set-up of this process (a variable that is not set, a verifier that is
not imported) is logged and answered 503.  Accepting the request
would be unsafe, and after a 4xx the sender would not send it again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import greenlets
from ..errors import ConfigurationError
from ..http import Request, Response
from ..verify import Delivery, Preset, Rejected, Unavailable, Verification, presets, verdict
from . import problems
from .problems import RequestRefused
from .record_request import Endpoint

log = logging.getLogger("durable.web")

Fetch = Callable[[str], bytes]


def takes_handshakes_by(webhook: Endpoint, method: str) -> bool:
    """
    Return whether the webhook's preset answers handshakes of this method, even if the method does not deliver.

    Raises:
        RequestRefused: This process has not imported the verifier.
    """
    verification = webhook.config.verification
    if verification is None:
        return False
    with _refusals(webhook):
        return method in presets.find(verification.by).greets


def answer_unsigned_handshake(webhook: Endpoint, request: Request, fetch: Fetch) -> Response | None:
    """
    Return the answer to a handshake that its sender does not sign; None for any other request.

    Raises:
        NotVerified: The handshake is refused.
        RequestRefused: It cannot be checked now: a secret is missing, or this process has not imported the verifier.
    """
    verification = webhook.config.verification
    if verification is None:
        return None
    with _refusals(webhook):
        preset = presets.find(verification.by)
        if preset.greeting is None:
            return None
        delivery = _delivery(webhook, verification, request, fetch)
        return greenlets.in_thread(verdict.answer, preset.greeting, delivery)


def verify(webhook: Endpoint, request: Request, fetch: Fetch) -> Response | None:
    """
    Verify the request's sender.

    Returns:
        The answer to a signed handshake; None for a request to be recorded.

    Raises:
        NotVerified: The signature is missing or wrong.
        RequestRefused: It cannot be checked now.
    """
    verification = webhook.config.verification
    if verification is None:
        return None
    with _refusals(webhook):
        preset = presets.find(verification.by)
        delivery = _delivery(webhook, verification, request, fetch)
        # It may call a verifier of the application, or fetch a certificate, and so may block.
        return greenlets.in_thread(_judge, preset, delivery)


def _judge(preset: Preset[Any], delivery: Delivery) -> Response | None:
    reason = verdict.refusal(preset, delivery)
    if reason is not None:
        raise Rejected(reason)
    return verdict.answer(preset.handshake, delivery)


@contextmanager
def _refusals(webhook: Endpoint) -> Iterator[None]:
    """Log why a request cannot be accepted, and raise RequestRefused, which says less to its sender."""
    try:
        yield
    except Rejected as reason:
        log.warning("A request to %s was refused: %s", webhook, reason)
        raise problems.NotVerified(problems.not_verified(), str(reason)) from None
    except (ConfigurationError, Unavailable) as error:
        log.error("A request to %s could not be verified, and was answered 503: %s", webhook, error)
        raise RequestRefused(problems.unavailable()) from None


def _delivery(webhook: Endpoint, verification: Verification, request: Request, fetch: Fetch) -> Delivery:
    assert request.received_at is not None
    # Senders sign the URL that they were given: the webhook's own, with the query and the last slash as sent.
    sent_url, question_mark, query = request.url.partition("?")
    url = webhook.url or sent_url
    if sent_url.endswith("/") and not url.endswith("/"):
        url += "/"
    return Delivery(
        request=request,
        url=url + question_mark + query,
        now=request.received_at.timestamp(),
        resolved={purpose: resolve(names) for purpose, names in verification.references.items()},
        options=verification.options,
        fetch=fetch,
    )


def resolve(references: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """
    Return the secrets that these references name.

    Raises:
        ConfigurationError: A variable is not set, or empty.
    """
    names = [reference.removeprefix("env:") for reference in references]
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise ConfigurationError(
            f"The web process has no environment variable {' and no '.join(missing)}.  Set it where the web server is"
            " started, or remove its name from the code that names this secret."
        )
    return tuple(os.fsencode(environ[name]) for name in names)
