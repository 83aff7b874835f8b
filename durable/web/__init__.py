"""
The Flask blueprint: receives webhooks, and holds their connections until a step answers.

::

    app.register_blueprint(create_blueprint(engine))

Each rule takes every method and whatever stands behind its prefix, slashes and
newlines included, so that nothing here is ever answered by Flask's own HTML
pages or redirects.  No request is redirected, needs a CSRF token, or touches
the application's session.

Files, in import order::

    fetch.py               fetches a sender's certificate over HTTPS
    hub.py                 the held connections of a process, and how each gets its answer
    gunicorn.py            what gunicorn's worker offers, and its end
    limits.py              limits for each sender, in bounded memory
    masking.py             keeps tokens and credentials out of the logs
    prefer.py              the header ``Prefer: respond-async, wait=N``
    problems.py            problem details (RFC 9457), and how any answer is written
    errors.py              an exception of a view, logged and answered
    record_request.py      finds a webhook, records a request, and finds its answer
    schemas.py             the bodies of control requests and answers
    servers.py             what the WSGI server can do: hold connections, notice a client that leaves
    verification.py        handshakes and signatures, before anything is recorded
    wsgi_request.py        the request as its sender wrote it
    body.py                a request's body, whole also where the application reads it first
    bearer.py              ``bearer``: a secret that permits control requests
    control_operations.py  what control requests can do
    control_view.py        one control request: permitted, checked, done, answered
    openapi.py             the OpenAPI document
    webhook_view.py        one webhook request: checked, recorded, answered
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import flask
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import ClientDisconnected
from werkzeug.routing import BaseConverter

from ..store import is_unavailable
from . import body, masking, problems, servers, wsgi_request
from .bearer import bearer
from .control_operations import OPERATIONS
from .control_view import Authorize, Controller
from .hub import Answers, Waiter, drain
from .masking import MaskTokens, mask
from .openapi import NAME, Describer
from .webhook_view import Receiver
from .wsgi_request import PATH, ROOT

__all__ = [
    "Answers",
    "MaskTokens",
    "Receiver",
    "Waiter",
    "bearer",
    "create_blueprint",
    "drain",
    "mask",
]


log = logging.getLogger("durable.web")


def create_blueprint(
    engine: Any, *, url_prefix: str | None = None, control: Authorize | None = None
) -> flask.Blueprint:
    """
    The blueprint named ``durable``, for one engine.

    Registering it checks the database's schema, and masks tokens in the
    loggers that are known to log paths.

    Args:
        url_prefix: As Flask has it; ``public_url`` then ends with it.
        control: Says of a ``flask.Request`` whether its caller may start, list, show and cancel runs and
            resume hooks: True; False for one who may not, answered 403; None for nobody known, 401.
            It may ``flask.abort`` too.  ``bearer("env:NAME")`` is one.  None: there are no control routes.

    Raises:
        SchemaOutOfDate: When it is registered and the database has another schema.
    """
    return blueprint(Receiver(engine), url_prefix, control)


def blueprint(receiver: Receiver, url_prefix: str | None = None, control: Authorize | None = None) -> flask.Blueprint:
    """The blueprint of a receiver."""
    engine = receiver.engine
    made = flask.Blueprint("durable", __name__, url_prefix=url_prefix)
    made.record(partial(_add_rule, "webhook", PATH + "<durable_rest:token>", receiver.view))
    made.record(partial(_add_rule, "openapi", ROOT + NAME, Describer(engine, control).view))
    if control is not None:
        made.record(partial(_add_rule, "control", ROOT + "<durable_control:rest>", Controller(engine, control).view))
    made.record(_keep_bodies)
    made.record(partial(_check, receiver))
    made.url_value_preprocessor(_exempt_from_csrf)
    made.url_value_preprocessor(partial(_raise_limits, engine))
    made.register_error_handler(413, body.refused_by_application)
    made.register_error_handler(ClientDisconnected, body.cut_in_application)
    made.before_request(_refuse_ambiguous)
    made.after_request(_end_connection)
    return made


def _refuse_ambiguous() -> flask.Response | None:
    """Before anything else is looked at: the rest of such a request may be another one to somebody."""
    if wsgi_request.is_framed(flask.request.environ):
        return None
    return problems.to_flask(problems.bad_body("Where the body ends is ambiguous."))


def _end_connection(response: flask.Response) -> flask.Response:
    response.headers.extend(servers.end_connection(flask.request.environ))
    return response


class _Rest(BaseConverter):
    """All that is left of a path."""

    regex = r"[\s\S]*"
    part_isolating = False


class _Controlled(_Rest):
    """The path of a control route, and whatever stands below one."""

    regex = rf"(?:{'|'.join(sorted({each.path.partition('/')[0] for each in OPERATIONS}))})(?:/[\s\S]*)?"


def _add_rule(name: str, path: str, view: Callable[..., Any], state: BlueprintSetupState) -> None:
    app = state.app
    masking.install([*masking.LOGGERS, app.name])
    app.url_map.converters |= {"durable_rest": _Rest, "durable_control": _Controlled}
    endpoint = ".".join(filter(None, [state.name_prefix, state.name, name]))
    # Not add_url_rule, which knows no rule for all methods.
    rule = app.url_rule_class(
        (state.url_prefix or "").rstrip("/") + path,
        endpoint=endpoint,
        subdomain=state.subdomain,
        merge_slashes=False,
    )
    app.url_map.add(rule)
    app.view_functions[endpoint] = view


def _keep_bodies(state: BlueprintSetupState) -> None:
    app: Any = state.app
    app.wsgi_app = body.KeepBodies(app.wsgi_app, (state.url_prefix or "").rstrip("/") + ROOT)


def _raise_limits(engine: Any, _endpoint: str | None, _values: dict[str, Any] | None) -> None:
    body.raise_limits(flask.request, engine.settings.max_body)


def _check(receiver: Receiver, state: BlueprintSetupState) -> None:
    receiver.engine.check_messages()
    try:
        receiver.check_schema()
    except Exception as error:
        if not is_unavailable(error):
            raise
        log.warning(
            "The database is unreachable, so its schema is checked at the first webhook: %s",
            type(error).__name__,
        )


def _exempt_from_csrf(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Exempt the blueprint from Flask-WTF, whose check is a ``before_request`` and comes after this."""
    exempt = getattr(flask.current_app.extensions.get("csrf"), "exempt", None)
    blueprint = flask.current_app.blueprints.get(flask.request.blueprint or "")
    if exempt is not None and blueprint is not None:
        exempt(blueprint)
