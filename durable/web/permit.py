"""Who may do what with the control routes, and the audit of what they did."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TypeVar

import flask
from werkzeug.exceptions import HTTPException

from ..client import audited, bulk
from ..engine import Engine
from ..errors import DurableError
from . import problems
from .problems import RequestRefused

#: Whether the caller may control runs: True; False (403) for a caller who may not; None (401) for an unknown caller.
Authorize = Callable[[flask.Request], bool | None]

#: ``(action, run_id)`` → whether the caller may; a non-empty str also names the caller, for the audit.
AuthorizeAction = Callable[[str, str | None], bool | str | None]

T = TypeVar("T")

log = logging.getLogger("durable.web")


class Permit:
    """Decides about each control request, by the functions of the application."""

    def __init__(self, engine: Engine, control: Authorize | None, authorize: AuthorizeAction | None) -> None:
        self._engine = engine
        self._control = control
        self._authorize = authorize

    def require_caller(self) -> None:
        """Raise RequestRefused unless ``control`` allows the caller; nothing else of the request is read before."""
        if self._control is not None:
            _check("control", lambda: self._control(flask.request))  # type: ignore[misc]

    def require(self, action: str, run_id: str | None = None) -> str | None:
        """Return the caller's name, None if it is not known.  Raise RequestRefused when the caller may not do this."""
        if self._authorize is not None:
            answer = _check("authorize", lambda: self._authorize(action, run_id))  # type: ignore[misc]
            if isinstance(answer, str):
                return answer
        return flask.request.remote_user

    def audited(self, action: str, subject: str, detail: str | None, do: Callable[[], T], actor: str | None) -> T:
        """
        Do something that changes something, with an entry in the audit that is committed before.

        What came of it is written afterwards: False of *do* means that there was nothing to do.  If that fails, it is
        logged, and the entry stays without an outcome.

        Args:
            subject: The id of a run, or what ``audit.subject`` returns.

        Raises:
            SQLAlchemyError: The entry could not be committed, so nothing was done.

        What *do* raises is raised again.
        """
        finish = audited.begin(self._engine, subject, action, actor, detail)
        try:
            result = do()
        except RequestRefused as refused:
            finish(f"refused: {json.loads(refused.answer.body)['detail']}")
            raise
        except DurableError as error:
            finish(f"refused: {error}")
            raise
        finish(f"refused: {bulk.NOTHING_TO_DO}" if result is False else "done")
        return result

    def note(self, action: str, run_id: str, actor: str | None) -> None:
        """Write the entry of something that is committed already.  If that fails, it is logged."""
        audited.note(self._engine, run_id, action, actor)


_NOT_TRUE = {
    "control": "The function control= of create_blueprint returned a %s, so its caller got 403.  Only True allows a"
    " request.",
    "authorize": "The function authorize= of create_blueprint returned a %s, so its caller got 403.  Only True, or the"
    " caller's name as a str, allows an action.",
}


def _check(name: str, ask: Callable[[], object]) -> object:
    """Return the answer of the application's function if it allows the request; raise RequestRefused if not."""
    try:
        allowed = ask()
    except HTTPException as error:
        raise RequestRefused(problems.from_abort(error)) from None
    if allowed is True or (name == "authorize" and isinstance(allowed, str) and allowed):
        return allowed
    if allowed not in (None, False, ""):
        # Only True counts.  A coroutine is truthy, and so is an object for an anonymous user.
        log.error(_NOT_TRUE[name], type(allowed).__name__)
    raise RequestRefused(problems.unauthorized() if allowed is None else problems.forbidden())
