"""What the blueprint itself answers (problem details, RFC 9457), and how any answer goes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import flask
from werkzeug.datastructures import Headers

from ..http import Response, problem

#: Seconds until a sender may try again when the trouble is ours.
RETRY_AFTER_SECS = 2

ACCEPTED = Response(b"", 202)


def unknown() -> Response:
    return problem(404, "webhook-not-found", "Not found", "No webhook, or request to one, has this address.")


def closed() -> Response:
    return problem(410, "webhook-closed", "Gone", "This webhook no longer takes requests.")


def wrong_method(method: str, allowed: Collection[str]) -> Response:
    enabled = ", ".join(allowed)
    return problem(
        405,
        "method-not-allowed",
        "Method not allowed",
        f"{method} is not among what this address takes: {enabled}.",
        headers=[("Allow", enabled)],
    )


def bad_body(detail: str) -> Response:
    return problem(400, "bad-request", "Bad request", f"{detail}  Nothing was recorded.")


def no_length() -> Response:
    return problem(
        411,
        "length-required",
        "Length required",
        "This server does not deliver chunked bodies.  Send Content-Length.",
    )


def too_large(limit: int) -> Response:
    return problem(413, "too-large", "Content too large", f"This webhook takes bodies of up to {limit} bytes.")


def unavailable() -> Response:
    return problem(
        503,
        "store-unreachable",
        "Service unavailable",
        "The request could not be recorded.  Please send it again.",
        headers=[("Retry-After", str(RETRY_AFTER_SECS))],
    )


def internal() -> Response:
    return problem(500, "internal-error", "Internal server error", "The request could not be handled.")


def pending(request_id: str, location: str) -> Response:
    """RFC 9110's "accepted, not yet processed", and where to ask for the answer."""
    answer = Response.json({"request_id": request_id, "status": "pending"}, 202)
    headers = [*answer.headers, ("Location", location), ("Cache-Control", "no-store")]
    return Response(answer.body, 202, headers)


class Exact(flask.Response):
    """A Flask response that sends what it was given; Flask's own adds a charset and rewrites Location."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: object) -> Headers:
        headers = Headers(self.headers)
        if self.status_code not in (204, 304):
            headers["Content-Length"] = str(len(self.get_data()))
        return headers


def to_flask(answer: Response, extra: Iterable[tuple[str, str]] = ()) -> Exact:
    """*answer* as it goes on the wire, with *extra* headers."""
    return Exact(answer.body, answer.status, [*answer.headers, *extra])
