"""
The Flask blueprint: it receives webhooks, holds their connections until a step answers, and serves control routes.

::

    app.register_blueprint(create_blueprint(engine))

It may use all rooms below it.  Each rule matches every method, and every path
below its prefix, also with slashes and newlines.  So Flask never answers here
with an HTML page or a redirect.  No request needs a CSRF token, and none uses
the application's session.

Files, in import order::

    fetch.py               fetches a sender's certificate over HTTPS
    event_stream.py        Server-Sent Events of a stream, as bytes, for any transport
    pace.py                how often the thread of held connections reads SQL
    followers.py           the connections of one process that read streams, and how each gets what is new
    stream_source.py       what they read: the items of streams from SQL, each as an event
    waiters.py             held connections that wait for the answer to a request
    hub.py                 the held connections of one process, and how each gets its answer
    flow.py                how a request is handled on any server: what it waits for
    shutdown.py            releases held connections when the server is stopped by a signal
    gunicorn.py            finds gunicorn's worker, and releases held connections when it stops
    limits.py              limits for each sender, in bounded memory
    masking.py             ``MaskTokens``: keeps tokens and credentials out of the logs
    prefer.py              the header ``Prefer: respond-async, wait=N``
    problems.py            the blueprint's own answers: problem details (RFC 9457)
    errors.py              logs an unexpected exception of a view, and answers it
    wsgi_request.py        reads a WSGI request as its sender wrote it
    record_request.py      finds a webhook or receiver, records a request, and finds its answer
    schemas.py             what the models of control requests and answers share
    run_schemas.py         models of the bodies of control requests and answers: those of runs
    hook_schemas.py        those of hooks
    go_on_schemas.py       those that let runs go on
    schedule_schemas.py    those of schedules
    receiver_schemas.py    those of receivers
    stream_schemas.py      those of streams
    limit_schemas.py       those of limits
    pause_schemas.py       those of pauses, and of actions on many runs
    servers.py             what each WSGI server can do: hold connections, notice that a client left
    verification.py        answers handshakes and verifies signatures
    body.py                the whole body of a request, even if the application reads it first
    read_request.py        reads a whole request to a webhook or receiver, and verifies its sender
    bearer.py              ``bearer``: allows control requests that send a secret
    permit.py              who may do what with the control routes, and the audit
    control_operations.py  the operations of the control routes on runs
    hook_operations.py     those on hooks: resume one, ask one, poll for a reply
    stream_operations.py   those on streams
    go_on_operations.py    those that let runs go on: fork, retry, wake and resolve
    schedule_operations.py those on schedules
    receiver_operations.py those on receivers
    limit_operations.py    those on limits
    pause_operations.py    those that pause and resume, and act on many runs
    operations.py          all of them together
    control_view.py        one control request, from its credentials to its answer
    openapi.py             the OpenAPI document
    webhook_view.py        one request to a webhook or receiver, from its URL to its answer
    read_view.py           one request of a browser that reads a stream or a published value
    health.py              the health route
    client_wait.py         the wait of an ASGI request for its client to disconnect
    asgi_request.py        reads an ASGI request as a WSGI server reads one
    asgi.py                the ASGI application
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import flask
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import ClientDisconnected
from werkzeug.routing import BaseConverter

from ..engine import Engine
from ..errors import RunConflict
from ..store import is_unavailable
from . import asgi, body, masking, problems, servers, wsgi_request
from .bearer import bearer
from .control_view import Controller
from .followers import Follower, StreamName
from .health import NAME as HEALTH
from .health import Health
from .hub import Answers, drain
from .masking import MaskTokens
from .openapi import NAME, Describer
from .operations import OPERATIONS
from .permit import Authorize, AuthorizeAction, Permit
from .read_view import STREAMS, VALUES, MayRead, ReadView
from .waiters import Waiter
from .webhook_view import Receiver
from .wsgi_request import PATH, RECEIVE, ROOT

__all__ = [
    "Answers",
    "Follower",
    "MaskTokens",
    "Receiver",
    "StreamName",
    "Waiter",
    "bearer",
    "create_asgi_app",
    "create_blueprint",
    "drain",
]


log = logging.getLogger("durable.web")


def create_blueprint(
    engine: Engine,
    *,
    url_prefix: str | None = None,
    control: Authorize | None = None,
    read: MayRead | None = None,
    authorize: AuthorizeAction | None = None,
) -> flask.Blueprint:
    """
    Make the blueprint named ``durable``, for one engine.

    When you register it, it checks the database's schema, and masks tokens in the loggers that log paths.  A
    RunConflict that leaves any view of the app is answered 409, unless the app has an error handler of its own for it.

    Args:
        url_prefix: Flask's ``url_prefix``; ``public_url`` then has to end with it.
        control: A function of the ``flask.Request`` that says whether its caller may use the control routes: runs,
            hooks, schedules and receivers.  It returns True; False for a caller who may not (403); None for
            an unknown caller (401).  It may call ``flask.abort``.  ``bearer("env:NAME")`` makes one.  Without
            it and *authorize* there are no control routes.
        authorize: A function of ``(action, run_id)`` that says whether the caller of the current Flask request may do
            this: True, or the caller's name for the audit; False (403); None (401).  It is the same as that of
            ``create_dashboard``, and is asked after *control* has allowed the request.
        read: A function of the ``flask.Request``, a run's id, ``"stream"`` or ``"value"``, and the name.  It says
            whether a browser without a read token may read this, and returns what ``control`` does.  Without it, a
            browser needs a token of ``Run.read_token``.

    Raises:
        SchemaOutOfDate: You register the blueprint, and the schema of the database is too old.
    """
    bp = blueprint(Receiver(engine), url_prefix, control, read, authorize)
    bp.before_app_request(engine.flusher.ensure)
    return bp


def create_asgi_app(
    engine: Engine,
    *,
    url_prefix: str = "",
    control: Authorize | None = None,
    read: MayRead | None = None,
    authorize: AuthorizeAction | None = None,
) -> asgi.AsgiApp:
    """
    Make the ASGI application of one engine, for uvicorn, hypercorn, FastAPI, Django and Quart.

    It serves the same routes as the blueprint, with the same answers, and holds thousands of connections at once.  It
    checks the database's schema, and masks tokens in the loggers that log paths.

    Args:
        url_prefix: A path before its routes.  Leave it out where a framework mounts the application below a path.
        control, read, authorize: As for ``create_blueprint``, with ``flask.request`` as in a view of Flask.

    Raises:
        SchemaOutOfDate: The schema of the database is too old.
    """
    receiver, app = Receiver(engine), flask.Flask("durable-asgi", static_folder=None)
    app.register_blueprint(blueprint(receiver, url_prefix or None, control, read, authorize))
    app.before_request(engine.flusher.ensure)
    has_controls = control is not None or authorize is not None
    controller = Controller(engine, Permit(engine, control, authorize), receiver) if has_controls else None
    return asgi.AsgiApp(receiver, app, url_prefix.rstrip("/"), controller)


def blueprint(
    receiver: Receiver,
    url_prefix: str | None = None,
    control: Authorize | None = None,
    read: MayRead | None = None,
    authorize: AuthorizeAction | None = None,
) -> flask.Blueprint:
    """Make the blueprint of a receiver; ``durable.testing`` passes one of its own."""
    engine = receiver.engine
    bp = flask.Blueprint("durable", __name__, url_prefix=url_prefix)

    def register(state: BlueprintSetupState) -> None:
        app: Any = state.app
        masking.install([*masking.LOGGERS, app.name])
        _add_rules(state, receiver, control, read, authorize)
        app.wsgi_app = body.KeepBodies(app.wsgi_app, (state.url_prefix or "").rstrip("/") + ROOT)
        if RunConflict not in app.error_handler_spec[None][None]:
            app.register_error_handler(RunConflict, lambda _: problems.to_flask(problems.run_conflict()))
        engine.check_messages()
        _check_schema(receiver)

    bp.record(register)

    # Flask calls this before any before_request, also before those of the application and of Flask-WTF.
    @bp.url_value_preprocessor
    def prepare(endpoint: str | None, values: dict[str, Any] | None) -> None:
        body.raise_limits(flask.request, engine.settings.max_body)
        exempt_from_csrf = getattr(flask.current_app.extensions.get("csrf"), "exempt", None)
        registered = flask.current_app.blueprints.get(flask.request.blueprint or "")
        if exempt_from_csrf is not None and registered is not None:
            exempt_from_csrf(registered)

    @bp.before_request
    def refuse_ambiguous() -> flask.Response | None:
        # A proxy may take the rest of its body for another request.
        if wsgi_request.is_framed(flask.request.environ):
            return None
        return problems.to_flask(problems.bad_framing())

    @bp.after_request
    def end_connection(response: flask.Response) -> flask.Response:
        response.headers.extend(servers.end_connection(flask.request.environ))
        return response

    bp.register_error_handler(413, body.refused_by_application)
    bp.register_error_handler(ClientDisconnected, body.cut_in_application)
    return bp


class _AnyPath(BaseConverter):
    """The whole rest of a path."""

    regex = r"[\s\S]*"
    part_isolating = False


class _ControlPath(_AnyPath):
    """The path of a control route, or any path below one."""

    regex = rf"(?:{'|'.join(sorted({each.path.partition('/')[0] for each in OPERATIONS}))})(?:/[\s\S]*)?"


def _add_rules(
    state: BlueprintSetupState,
    receiver: Receiver,
    control: Authorize | None,
    read: MayRead | None,
    authorize: AuthorizeAction | None,
) -> None:
    """Add the rules of the routes that ``blueprint`` was asked for."""
    engine = receiver.engine
    has_controls = control is not None or authorize is not None
    reads = read is not None or engine.settings.signing_key is not None
    state.app.url_map.converters |= {"durable_rest": _AnyPath, "durable_control": _ControlPath}
    _add_rule(state, "webhook", PATH + "<durable_rest:token>", receiver.view)
    _add_rule(state, "receive", RECEIVE + "<durable_rest:name>", receiver.receiver_view)
    if reads:
        reading = ReadView(engine, receiver.hub, read)
        _add_rule(state, "stream", ROOT + STREAMS + "<durable_rest:rest>", reading.stream)
        _add_rule(state, "value", ROOT + VALUES + "<durable_rest:rest>", reading.value)
    _add_rule(state, "health", ROOT + HEALTH, Health(receiver).view)
    describer = Describer(engine, control, controls=has_controls, reads=reads)
    _add_rule(state, "openapi", ROOT + NAME, describer.view)
    if has_controls:
        permit = Permit(engine, control, authorize)
        _add_rule(state, "control", ROOT + "<durable_control:rest>", Controller(engine, permit, receiver).view)


def _add_rule(state: BlueprintSetupState, name: str, path: str, view: Callable[..., Any]) -> None:
    """Add a rule for all methods, which ``add_url_rule`` cannot do."""
    app = state.app
    endpoint = ".".join(filter(None, [state.name_prefix, state.name, name]))
    rule = app.url_rule_class(
        (state.url_prefix or "").rstrip("/") + path,
        endpoint=endpoint,
        subdomain=state.subdomain,
        merge_slashes=False,
    )
    app.url_map.add(rule)
    app.view_functions[endpoint] = view


def _check_schema(receiver: Receiver) -> None:
    """Check the database's schema, unless the database is unreachable: then the application starts all the same."""
    try:
        receiver.check_schema()
    except Exception as error:
        if not is_unavailable(error):
            raise
        log.warning(
            "The database is unreachable: %s.  Its schema is checked at the first request to a webhook instead.",
            type(error).__name__,
        )
