"""What the blueprint itself answers (problem details, RFC 9457), and how any answer goes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import flask
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from ..http import Response, problem

#: Seconds until a sender may try again when the trouble is ours.
RETRY_AFTER_SECS = 2

#: And when the workflow has to catch up first.
PENDING_RETRY_AFTER_SECS = 10

ACCEPTED = Response(b"", 202)


class RequestRefused(Exception):
    """Raised to end a request before anything of it is recorded; ``answer`` is what its sender gets."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer)
        self.answer = answer


def unknown() -> Response:
    return problem(404, "webhook-not-found", "Not found", "No webhook, or request to one, has this address.")


def too_many_lookups(secs: int) -> Response:
    return problem(
        429,
        "too-many-lookups",
        "Too many requests",
        "Too many requests from this address were for webhooks that do not exist.",
        headers=[("Retry-After", str(secs))],
    )


def not_verified() -> Response:
    """The same whatever was wrong: the log says that."""
    return problem(401, "not-verified", "Unauthorized", "The request is not signed as this webhook wants it.")


def key_reused() -> Response:
    return problem(
        422,
        "dedupe-key-reused",
        "Unprocessable content",
        "A request with this key was here before, and had another body.  Nothing was recorded.",
    )


def too_many_pending() -> Response:
    return problem(
        429,
        "too-many-pending",
        "Too many requests",
        "Too many requests wait on this webhook.  Nothing was recorded; please send it again.",
        headers=[("Retry-After", str(PENDING_RETRY_AFTER_SECS))],
    )


def headers_too_large(limit: int, size: int) -> Response:
    return problem(
        431,
        "headers-too-large",
        "Request header fields too large",
        f"A request may have {limit} headers of {size} bytes in all.",
    )


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
    return problem(413, "too-large", "Content too large", f"This address takes bodies of up to {limit} bytes.")


def too_large_for_application(limit: int | None) -> Response:
    """A limit of the application, which is not the blueprint's."""
    said = "" if limit is None else f", {limit} bytes for a body"
    return problem(
        413,
        "too-large",
        "Content too large",
        f"The body is over a limit of the application that serves this address{said}.  Nothing was recorded.",
    )


def already_read() -> Response:
    """Trouble of the receiving application: the sender may try again."""
    return problem(
        503,
        "body-already-read",
        "Service unavailable",
        "The server lost the request's body before it could be recorded.  Please send it again.",
        headers=[("Retry-After", str(RETRY_AFTER_SECS))],
    )


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


def pending(request_id: str, location: str, *, preferred: bool = False) -> Response:
    """RFC 9110's "accepted, not yet processed", and where to ask for the answer."""
    answer = Response.json({"request_id": request_id, "status": "pending"}, 202)
    headers = [*answer.headers, ("Location", location), ("Cache-Control", "no-store")]
    if preferred:
        headers.append(("Preference-Applied", "respond-async"))
    return Response(answer.body, 202, headers)


# Of the control routes


def unauthorized() -> Response:
    """RFC 9110 §15.5.2: a 401 says how to do better."""
    return problem(
        401,
        "unauthorized",
        "Unauthorized",
        "The request does not say who sends it, or not in a way that is believed here.",
        headers=[("WWW-Authenticate", "Bearer")],
    )


def forbidden() -> Response:
    return problem(403, "forbidden", "Forbidden", "Whoever sends this may not control runs.")


def turned_away(error: HTTPException) -> Response:
    """What the application raised (``flask.abort``), as a problem, with the headers that belong to it."""
    status = error.get_response().status_code
    if status == 401 and "WWW-Authenticate" not in error.get_response().headers:
        return unauthorized()
    title = error.name if 400 <= status <= 599 else "Forbidden"
    kept = [(k, v) for k, v in error.get_response().headers if k in ("WWW-Authenticate", "Retry-After")]
    return problem(
        status if 400 <= status <= 599 else 403,
        "not-authorized",
        title,
        "The application did not let this request through.",
        headers=kept,
    )


def unknown_route() -> Response:
    return problem(404, "not-found", "Not found", "Nothing has this address: see openapi.json.")


def unknown_run() -> Response:
    return problem(404, "run-not-found", "Not found", "No run has this id.  It may have been pruned.")


def unknown_hook() -> Response:
    return problem(404, "hook-not-found", "Not found", "Nobody holds this token open.  Nothing was recorded.")


def unknown_workflow() -> Response:
    return problem(
        404,
        "workflow-not-found",
        "Not found",
        "This web process knows no workflow of this name: it has to import the module that defines it.",
    )


def run_ended() -> Response:
    return problem(409, "run-ended", "Conflict", "The run has ended: nothing is left to cancel.")


def idempotency_key_reused() -> Response:
    return problem(
        422,
        "idempotency-key-reused",
        "Unprocessable content",
        "This Idempotency-Key started another workflow, or the same with other arguments.  Nothing was started.",
    )


def bad_key() -> Response:
    return bad_body("Idempotency-Key must be 1 to 255 printable ASCII characters without blanks.")


def bad_arguments(why: str) -> Response:
    return problem(422, "bad-arguments", "Unprocessable content", why)


def wrong_media_type() -> Response:
    return problem(
        415, "wrong-media-type", "Unsupported media type", "The body has to be JSON: Content-Type: application/json."
    )


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
