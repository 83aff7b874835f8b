"""
Templates to responses: pages, pages that answer 304 while nothing has changed, and pages for problems.

The templates have an environment of their own, so that no setting of the application turns escaping off.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from .. import display
from ..engine import Engine
from ..errors import RunNotFound, SchemaOutOfDate
from ..store import is_unavailable
from . import formats, security
from .security import Guard, Refused

FOLDER = Path(__file__).parent

_PARAMETERS = re.compile(r"<path:(\w+)>")

log = logging.getLogger("durable.dashboard")

#: A user's function of ``(value, where)`` that returns what a page may show.
Redact = Callable[[Any, str], Any]


class Dashboard:
    """What all views share: the engine, the permissions, and how pages are made."""

    def __init__(self, engine: Engine, authorize: security.Authorize | None, redact: Redact | None) -> None:
        self.engine = engine
        self.guard = Guard(authorize)
        self.redact = redact

    def import_workflows(self) -> None:
        """Import what the Celery app's ``include`` and ``imports`` name: a web process may not have done so."""
        self.engine.celery.loader.import_default_modules()

    @cached_property
    def _templates(self) -> Environment:
        environment = Environment(
            loader=PackageLoader("durable.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(formats.FILTERS)
        environment.globals.update(
            link=link, csrf_token=security.csrf_token, percent=display.formats.percent, version=_version_of_static()
        )
        return environment

    def page(self, template: str, status: int = 200, **context: Any) -> flask.Response:
        """A page."""
        context.setdefault("refresh", None)
        context.setdefault("now", None)
        text = self._templates.get_template(template).render(context, may=self.guard.allows)
        return flask.Response(text, status, mimetype="text/html")

    def live_page(self, template: str, *, seen: object, refresh: int | None = 3, **context: Any) -> flask.Response:
        """
        A page that its script reloads every *refresh* seconds.

        Args:
            seen: What the page shows, without what changes with every reading.  While it stays the same, the answer
                is 304 and nothing is rendered.
        """
        state = json.dumps([flask.request.full_path, seen, security.csrf_token()], default=str, sort_keys=True)
        etag = hashlib.sha256(state.encode()).hexdigest()[:32]
        if flask.request.if_none_match.contains(etag):
            response = flask.Response(status=304)
        else:
            response = self.page(template, refresh=refresh, **context)
        response.set_etag(etag)
        return response

    def problem(self, status: int, title: str, detail: str) -> flask.Response:
        """A page that says what happened, and what to do."""
        return self.page("problem.html", status, title=title, detail=detail)

    def serve(self, view: Callable[..., flask.Response], path: str) -> Callable[..., flask.typing.ResponseReturnValue]:
        """Flask's view of a page: checks a form, calls *view*, and turns every error into a page."""

        def served(**arguments: str) -> flask.typing.ResponseReturnValue:
            began, cpu_began = time.perf_counter(), time.thread_time()
            try:
                if flask.request.method == "POST":
                    security.check_form()
                response = view(self, **arguments)
            except HTTPException as error:
                if not _is_of_werkzeug(error):
                    raise
                response = self.problem(error.code or 400, error.name, error.description or "")
            except Exception as error:
                response = self._failed(error)
            total, cpu = time.perf_counter() - began, time.thread_time() - cpu_began
            # Browsers show this beside the request; it tells a slow database from a slow page.
            response.headers["Server-Timing"] = f"total;dur={total * 1000:.1f}, cpu;dur={cpu * 1000:.1f}"
            return security.secure(response, flask.request.script_root + path)

        return served

    def _failed(self, error: Exception) -> flask.Response:
        """The page for an exception.  The log has its traceback; the page has not."""
        if isinstance(error, Refused):
            return self.problem(error.status, error.title, error.detail)
        if isinstance(error, RunNotFound):
            detail = "There is no run with this id.  Ended runs are deleted after their retention time."
            return self.problem(404, "Run not found", detail)
        if isinstance(error, SchemaOutOfDate):
            log.error("The dashboard cannot use the database: %s", error)
            return self.problem(
                503, "The database has an older schema", "Run `durable migrate`, then reload this page."
            )
        if isinstance(error, SQLAlchemyError) and is_unavailable(error):
            log.warning("The dashboard cannot use the database now: %s", type(error).__name__)
            detail = "The database does not answer.  Nothing was done.  Reload the page when it is back."
            response = self.problem(503, "The database is away", detail)
            response.headers["Retry-After"] = "5"
            return response
        log.error("The dashboard failed to serve %s.", flask.request.path, exc_info=error)
        return self.problem(
            500, "The dashboard failed", "This is an error in the dashboard.  The log has its traceback."
        )


def _is_of_werkzeug(error: HTTPException) -> bool:
    """Whether Werkzeug has raised it while it read the request: a form that is too large, an unreadable body."""
    return error.code in (400, 413)


#: The paths of the pages and forms, by endpoint; the blueprint fills it.
PATHS: dict[str, str] = {}


def link(endpoint: str, *, anchor: str | None = None, **values: Any) -> str:
    """
    The URL of a page of the dashboard, wherever it is registered.

    A list has hundreds of links, so they are not made by ``flask.url_for``, which takes as long as the queries.

    Args:
        values: The parameters of the path, and those of the query.
    """
    base = flask.g.get("durable_base")
    if base is None:
        base = flask.g.durable_base = flask.url_for(".home").rstrip("/")
    # Hashable, for the cache: a parameter may have several values.
    given = tuple((name, tuple(each) if isinstance(each, list) else (each,)) for name, each in values.items())
    return f"{base}{_relative(endpoint, given)}{'#' + anchor if anchor else ''}"


@lru_cache(4_096)
def _relative(endpoint: str, values: tuple[tuple[str, tuple[object, ...]], ...]) -> str:
    """The URL below the dashboard's own.  Pages have the same links again and again: of runs, attributes, filters."""
    path, pairs = PATHS[endpoint], []
    in_path = set(_PARAMETERS.findall(path))
    for name, several in values:
        for each in several:
            quoted = quote(str(each), safe="")
            if name in in_path:
                path = path.replace(f"<path:{name}>", quoted)
            else:
                pairs.append(f"{name}={quoted}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def back_to(endpoint: str, **values: Any) -> flask.Response:
    """The answer to a form: a redirect, so that a reload does not send the form again."""
    response = flask.redirect(link(endpoint, **values), 303)
    assert isinstance(response, flask.Response)
    return response


def _version_of_static() -> str:
    """A digest of the static files, so that browsers can keep them."""
    digest = hashlib.sha256()
    for path in sorted((FOLDER / "static").iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
