"""Read the whole of a request to a webhook or receiver, and verify its sender."""

from __future__ import annotations

from collections.abc import Callable

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Request as Incoming

from .. import duration, measures
from ..engine import Engine
from ..http import Request, Response
from ..store import Refusals
from . import body, limits, problems, verification, wsgi_request
from .flow import Flow, ReadBody
from .problems import NotVerified, RequestRefused
from .record_request import Endpoint
from .verification import Fetch

#: Methods that never deliver: link previewers and browsers send them on their own.
_NEVER_DELIVER = frozenset({"HEAD", "OPTIONS"})


def read_and_verify(
    engine: Engine, new_id: Callable[[], str], fetch: Fetch, incoming: Incoming, webhook: Endpoint
) -> Flow[tuple[Request, Response | None]]:
    """
    Read the whole request and verify its sender.

    Args:
        new_id: Makes the id of a request.
        fetch: Fetches what a verifier needs, such as a certificate.

    Returns:
        The request; and the answer, if the request is a handshake, which is not recorded.

    Raises:
        NotVerified: The signature is missing or wrong, or the handshake is refused.
        RequestRefused: The method is not enabled, the headers or the body are too large, the body cannot be read as it
            was sent, or the signature cannot be checked now.
    """
    delivers = incoming.method in webhook.config.methods and incoming.method not in _NEVER_DELIVER
    if not delivers and not verification.takes_handshakes_by(webhook, incoming.method):
        raise RequestRefused(problems.wrong_method(incoming.method, webhook.config.methods))
    headers = list(incoming.headers)
    if limits.has_large_headers(headers):
        raise RequestRefused(problems.headers_too_large(limits.MAX_HEADERS, limits.MAX_HEADERS_SIZE))
    max_body = engine.settings.max_body if webhook.config.max_body is None else webhook.config.max_body
    yield ReadBody(max_body)
    request = Request(
        id=new_id(),
        method=incoming.method,
        url=wsgi_request.exact_url(incoming.environ),
        headers=Headers(headers),
        data=body.read(incoming, max_body),
        remote_addr=incoming.remote_addr,
        received_at=duration.to_datetime(engine.now()),
    )
    unsigned_answer = verification.answer_unsigned_handshake(webhook, request, fetch)
    if unsigned_answer is not None:
        return request, unsigned_answer
    if not delivers:
        raise RequestRefused(problems.wrong_method(incoming.method, webhook.config.methods))
    try:
        return request, verification.verify(webhook, request, fetch)
    except NotVerified as refused:
        sender = "" if webhook.config.verification is None else webhook.config.verification.by
        engine.measures.count(measures.NOT_VERIFIED, sender)
        reason = "".join(c if c.isprintable() else " " for c in refused.reason)
        last = Refusals(1, engine.now(), reason)
        webhook.count_refused(engine, last)
        raise
