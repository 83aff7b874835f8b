"""
Who may do what, that a form was sent by a page of the dashboard, and the headers of every answer.

``authorize`` of the application decides about each action.  Without it, the dashboard serves only ``durable dev``, and
there only this computer.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import re
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import flask
from werkzeug.exceptions import HTTPException

#: ``(action, run_id)`` → whether the caller may; a non-empty str also names the caller, for the audit.
Authorize = Callable[[str, str | None], bool | str]

#: Every action that ``authorize`` is asked about.
ACTIONS = (
    "read",
    "reveal",
    "reveal_token",
    "cancel",
    "retry",
    "fork",
    "resolve",
    "wake",
    "resume",
    "pause",
    "unpause",
    "start",
    "bulk_cancel",
    "bulk_retry",
    "bulk_pause",
    "bulk_resume",
    "pause_workflow",
    "resume_workflow",
    "pause_queue",
    "resume_queue",
    "pause_receiver",
    "resume_receiver",
    "pause_schedule",
    "resume_schedule",
    "trigger_schedule",
    "backfill_schedule",
    "create_schedule",
    "delete_schedule",
    "retry_request",
    "set_limit",
    "resume_limit",
)

#: ``durable dev`` sets this variable for its web process.
DEV_VARIABLE = "DURABLE_DEV"

COOKIE = "durable_csrf"
FIELD = "csrf_token"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

#: Nothing from another host, and no code or style in the page itself.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer", browsers send forms with "Origin: null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = logging.getLogger("durable.dashboard")


class Refused(Exception):
    """Raised to end a request with a page that says what happened and what to do."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail


class Guard:
    """Decides about each action, by the application's ``authorize``."""

    def __init__(self, authorize: Authorize | None) -> None:
        self._authorize = authorize

    def require(self, action: str, run_id: str | None = None) -> str | None:
        """Return the caller's name, None if it is not known.  Raise Refused when the caller may not do this."""
        if self._authorize is None:
            _require_dev()
            return "durable dev"
        answer = self._authorize(action, run_id)
        if answer is True:
            return flask.request.remote_user
        if isinstance(answer, str) and answer:
            return answer
        if answer not in (False, None, ""):
            # A coroutine is truthy, and so is an object for an anonymous user.
            log.error(
                "The function authorize= of create_dashboard returned a %s, so its caller got 403.  Only True, or the"
                " caller's name as a str, allows an action.",
                type(answer).__name__,
            )
        what = f"{action!r}" if run_id is None else f"{action!r} for run {run_id}"
        raise Refused(403, "You may not do this", f"This application does not allow you the action {what}.")

    def allows(self, action: str, run_id: str | None = None) -> bool:
        """Whether the caller may do this; pages show only buttons that work."""
        try:
            self.require(action, run_id)
        except (Refused, HTTPException):
            return False
        return True


def _require_dev() -> None:
    """Raise Refused unless ``durable dev`` serves this request, to this computer."""
    if os.environ.get(DEV_VARIABLE) != "1":
        raise Refused(
            403,
            "The dashboard needs authorize=",
            "This application has not said who may use the dashboard, so nobody can.  Pass a function to"
            " create_dashboard(engine, authorize=…): it gets each action and the id of the run, and returns True, or"
            " the caller's name, if the caller may do it.",
        )
    if not _is_local(flask.request):
        raise Refused(
            403,
            "Only this computer can use the dashboard of durable dev",
            "durable dev serves its dashboard without a log-in, so only to http://127.0.0.1 and http://localhost, and"
            " not through a proxy or a tunnel.  Register create_dashboard(engine, authorize=…) in your application to"
            " use it from elsewhere.",
        )


def _is_local(request: flask.Request) -> bool:
    """
    Whether this computer asks, by a name that no other site can have.

    A page of another site can have its own name point here (DNS rebinding), and a tunnel brings requests of others.
    """
    forwarded = {"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} & set(request.headers.keys())
    return not forwarded and _is_loopback(request.remote_addr) and _is_loopback(urlsplit(f"//{request.host}").hostname)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


# Forms


def csrf_token() -> str:
    """The token that this browser's forms carry: that of its cookie, or a new one, for which a cookie is set."""
    token: Any = flask.g.get("durable_csrf")
    if token is None:
        token = flask.request.cookies.get(COOKIE, "")
        if not _TOKEN.fullmatch(token):
            token = secrets.token_urlsafe(32)
            flask.g.durable_csrf_is_new = True
        flask.g.durable_csrf = token
    return str(token)


def check_form() -> None:
    """Raise Refused for a POST that no page of the dashboard has sent."""
    request = flask.request
    if not _is_same_origin(request):
        raise Refused(
            403,
            "This form came from another site",
            "Your browser says that a page of another site has sent this form, so nothing was done.  If a proxy is in"
            " front of the application, let it pass the header Host unchanged.",
        )
    cookie, sent = request.cookies.get(COOKIE, ""), request.form.get(FIELD, "")
    if not _TOKEN.fullmatch(cookie) or not hmac.compare_digest(cookie.encode(), sent.encode()):
        raise Refused(
            403,
            "The form has expired",
            "The form does not have the token of your browser's cookie, so nothing was done.  Go back, reload the page"
            " and send the form again.",
        )


def _is_same_origin(request: flask.Request) -> bool:
    """Whether the browser says that our own page has sent the request; other clients say nothing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def secure(response: flask.Response, path: str) -> flask.Response:
    """Add the headers, and the cookie for a new token."""
    response.headers.update(HEADERS)
    if flask.g.get("durable_csrf_is_new"):
        response.set_cookie(
            COOKIE,
            flask.g.durable_csrf,
            path=path,
            secure=flask.request.is_secure,
            httponly=True,
            samesite="Strict",
        )
    return response
