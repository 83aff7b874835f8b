"""The answers of the blueprint itself (problem details, RFC 9457), and how any answer becomes Flask's."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import flask
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from ..http import Response, problem

#: ``Retry-After`` of a 503, in seconds.
RETRY_AFTER_SECS = 2

#: ``Retry-After`` of a 429, in seconds: the workflow needs time for the requests that wait.
PENDING_RETRY_AFTER_SECS = 10

ACCEPTED = Response(b"", 202)


class RequestRefused(Exception):
    """Raised to end a request before anything of it is recorded; its sender gets ``answer``."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer)
        self.answer = answer


class NotVerified(RequestRefused):
    """Raised for a request whose signature is missing or wrong.  Its sender does not learn the *reason*."""

    def __init__(self, answer: Response, reason: str) -> None:
        super().__init__(answer)
        self.reason = reason


def unknown() -> Response:
    return problem(404, "webhook-not-found", "Not found", "This address names no webhook, and no request to one.")


def too_many_lookups(secs: int) -> Response:
    return problem(
        429,
        "too-many-lookups",
        "Too many requests",
        "Your network address sent too many requests to webhooks that do not exist.",
        headers=[("Retry-After", str(secs))],
    )


def not_verified() -> Response:
    """Return always the same text, which gives no hint to an attacker; the log has the reason."""
    return problem(401, "not-verified", "Unauthorized", "The request does not have the signature that it needs.")


def key_reused() -> Response:
    return problem(
        422,
        "dedupe-key-reused",
        "Unprocessable content",
        "An earlier request with this key had another body.  Nothing was recorded.",
    )


def too_many_pending() -> Response:
    return problem(
        429,
        "too-many-pending",
        "Too many requests",
        "Too many requests to this webhook are waiting.  Nothing was recorded.  Send the request again later.",
        headers=[("Retry-After", str(PENDING_RETRY_AFTER_SECS))],
    )


def headers_too_large(limit: int, size: int) -> Response:
    return problem(
        431,
        "headers-too-large",
        "Request header fields too large",
        f"A request may have at most {limit} headers, of {size} bytes in total.",
    )


def closed() -> Response:
    return problem(410, "webhook-closed", "Gone", "This webhook is closed and accepts no requests.")


def wrong_method(method: str, allowed: Collection[str]) -> Response:
    enabled = ", ".join(allowed)
    return problem(
        405,
        "method-not-allowed",
        "Method not allowed",
        f"This address does not accept {method}.  It accepts {enabled}.",
        headers=[("Allow", enabled)],
    )


def bad_body(detail: str) -> Response:
    return problem(400, "bad-request", "Bad request", f"{detail}  Nothing was recorded.")


def bad_framing() -> Response:
    return bad_body("The headers do not say in exactly one way where the body ends.")


def no_length() -> Response:
    return problem(
        411,
        "length-required",
        "Length required",
        "This server does not support chunked bodies.  Send the header Content-Length.",
    )


def too_large(limit: int) -> Response:
    return problem(413, "too-large", "Content too large", f"This address accepts bodies of up to {limit} bytes.")


def too_large_for_application(limit: int | None) -> Response:
    """Refuse a body that is over a limit of the application, and not over the blueprint's."""
    limit_text = "" if limit is None else f", {limit} bytes for a body"
    return problem(
        413,
        "too-large",
        "Content too large",
        f"The body is over a limit of the application that serves this address{limit_text}.  Nothing was recorded.",
    )


def already_read() -> Response:
    """Return 503 for a body that the application read first: the request succeeds once the application is fixed."""
    return problem(
        503,
        "body-already-read",
        "Service unavailable",
        "The server lost the body of the request before it could be recorded.  Send the request again later.",
        headers=[("Retry-After", str(RETRY_AFTER_SECS))],
    )


def unavailable() -> Response:
    return problem(
        503,
        "store-unreachable",
        "Service unavailable",
        "The request could not be recorded.  Send it again later.",
        headers=[("Retry-After", str(RETRY_AFTER_SECS))],
    )


def internal() -> Response:
    return problem(500, "internal-error", "Internal server error", "The server failed to handle the request.")


def pending(request_id: str, location: str, *, preferred: bool = False) -> Response:
    """Return 202 Accepted (RFC 9110) with the URL to poll for the answer."""
    answer = Response.json({"request_id": request_id, "status": "pending"}, 202)
    headers = [*answer.headers, ("Location", location), ("Cache-Control", "no-store")]
    if preferred:
        headers.append(("Preference-Applied", "respond-async"))
    return Response(answer.body, 202, headers)


# The control routes' own


def unauthorized() -> Response:
    """Return 401 with the way to authenticate (RFC 9110 §15.5.2)."""
    return problem(
        401,
        "unauthorized",
        "Unauthorized",
        "The request has no valid credentials.",
        headers=[("WWW-Authenticate", "Bearer")],
    )


def forbidden() -> Response:
    return problem(403, "forbidden", "Forbidden", "You are not allowed to control runs.")


def unreadable() -> Response:
    return problem(403, "forbidden", "Forbidden", "You are not allowed to read this.")


def unknown_value() -> Response:
    return problem(404, "value-not-published", "Not found", "The run has not published a value of this name.")


def from_abort(error: HTTPException) -> Response:
    """Return the status that the application raised with ``flask.abort`` as a problem, with that status's headers."""
    status = error.get_response().status_code
    if status == 401 and "WWW-Authenticate" not in error.get_response().headers:
        return unauthorized()
    title = error.name if 400 <= status <= 599 else "Forbidden"
    kept = [(k, v) for k, v in error.get_response().headers if k in ("WWW-Authenticate", "Retry-After")]
    return problem(
        status if 400 <= status <= 599 else 403,
        "not-authorized",
        title,
        "The application refused this request.",
        headers=kept,
    )


def unknown_route() -> Response:
    return problem(404, "not-found", "Not found", "There is no route at this address.  See openapi.json.")


def unknown_run() -> Response:
    return problem(404, "run-not-found", "Not found", "There is no run with this id.  It may have been pruned.")


def unknown_schedule() -> Response:
    return problem(404, "schedule-not-found", "Not found", "There is no schedule with this name.")


def declared_schedule() -> Response:
    return problem(
        409,
        "schedule-declared",
        "Conflict",
        "This schedule is declared in code.  Change it there and deploy, or choose another name.",
    )


def unknown_limit(why: str) -> Response:
    return problem(404, "limit-not-found", "Not found", why)


def unknown_request() -> Response:
    return problem(
        404,
        "request-not-found",
        "Not found",
        "No request with this id can be routed again: it is unknown, has reached a run, or waits for a hook.",
    )


def unknown_receiver() -> Response:
    return problem(
        409, "receiver-not-imported", "Conflict", "This web process has not imported the request's receiver."
    )


def unknown_hook() -> Response:
    return problem(404, "hook-not-found", "Not found", "No open hook has this token.  Nothing was recorded.")


def unknown_question() -> Response:
    return problem(404, "question-not-found", "Not found", "No payload with this id waits for a reply or has one.")


def reply_not_sent(why: str) -> Response:
    return problem(409, "reply-not-sent", "Conflict", f"The run will not reply: {why}.")


def unknown_workflow() -> Response:
    return problem(
        404,
        "workflow-not-found",
        "Not found",
        "This web process has not imported a workflow of this name.",
    )


def run_ended() -> Response:
    return problem(409, "run-ended", "Conflict", "The run has ended, so it cannot be cancelled.")


def not_paused() -> Response:
    return problem(409, "run-not-paused", "Conflict", "The run has ended, or was paused already.")


def not_resumed() -> Response:
    detail = "The run is not paused by itself.  GET pauses shows which workflows and queues are paused."
    return problem(409, "run-not-resumed", "Conflict", detail)


def nothing_to_pause(why: str) -> Response:
    return problem(404, "nothing-to-pause", "Not found", why)


def not_forked(why: str) -> Response:
    return problem(409, "run-not-forked", "Conflict", why)


def not_retried() -> Response:
    return problem(409, "run-not-retried", "Conflict", "Only a blocked run, or one that has failed, can be retried.")


def not_in_doubt(doubts: Collection[str]) -> Response:
    listed = f"  Name one of these: {', '.join(doubts)}." if doubts else ""
    return problem(409, "step-not-in-doubt", "Conflict", f"The run has no such step in doubt.{listed}")


def run_conflict() -> Response:
    """Return the answer to a request whose view raised RunConflict; it names no key and no run."""
    return problem(
        409,
        "run-conflict",
        "Conflict",
        "An earlier request with the same key or id started a run of another workflow or with other arguments."
        "  Nothing was started.",
    )


def idempotency_key_reused() -> Response:
    return problem(
        422,
        "idempotency-key-reused",
        "Unprocessable content",
        "This Idempotency-Key belongs to a run of another workflow or with other arguments.  Nothing was started.",
    )


def bad_idempotency_key() -> Response:
    return bad_body("Idempotency-Key must have 1 to 255 printable ASCII characters and no spaces.")


def bad_arguments(why: str) -> Response:
    return problem(422, "bad-arguments", "Unprocessable content", why)


def wrong_media_type() -> Response:
    return problem(
        415,
        "wrong-media-type",
        "Unsupported media type",
        "Send JSON, with Content-Type: application/json.",
    )


class Exact(flask.Response):
    """A Flask response that is sent unchanged; Flask's own class adds a charset and rewrites Location."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: object) -> Headers:
        headers = Headers(self.headers)
        if self.status_code not in (204, 304):
            headers["Content-Length"] = str(len(self.get_data()))
        return headers


def to_flask(answer: Response, extra: Iterable[tuple[str, str]] = ()) -> Exact:
    """Return *answer* as a Flask response, with *extra* headers."""
    return Exact(answer.body, answer.status, [*answer.headers, *extra])
