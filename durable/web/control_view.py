"""
One control request: whether its caller may, what it holds, and the answer.

Whoever may not is told so before anything else is looked at.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import NoReturn

import flask
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from ..engine import Engine
from ..http import Response
from . import body, errors, problems, schemas, wsgi_request
from .control_operations import OPERATIONS, Call, Operation, Reply
from .problems import RequestRefused

log = logging.getLogger("durable.web")

#: Says of a request whether its caller may control runs: True; False for one who may not; None for nobody known.
Authorize = Callable[[flask.Request], bool | None]

#: How a key may be written: as a structured field's string, or bare.
_QUOTED = re.compile(r'"([^"]+)"')


class Controller:
    """The control routes of a blueprint."""

    def __init__(self, engine: Engine, authorize: Authorize) -> None:
        self._engine = engine
        self._authorize = authorize

    def view(self, rest: str) -> flask.Response:
        """Flask's view of all that stands below ``runs`` and ``hooks``."""
        try:
            self._require_permission()
            operation, run_id = _find(flask.request.method, rest)
            reply = operation.act(self._call(operation, run_id))
        except RequestRefused as refused:
            return _sent(refused.answer)
        except Exception as error:
            return _sent(errors.answer(error))
        return _sent(_response(reply))

    def _require_permission(self) -> None:
        try:
            allowed = self._authorize(flask.request)
        except HTTPException as error:
            raise RequestRefused(problems.turned_away(error)) from None
        if allowed is True:
            return
        if allowed is not None and allowed is not False:
            # A coroutine is true, and so is an object that stands for a stranger.
            log.error(
                "control= of create_blueprint returned a %s: a caller is let in by True alone.", type(allowed).__name__
            )
        raise RequestRefused(problems.unauthorized() if allowed is None else problems.forbidden())

    def _call(self, operation: Operation, run_id: str) -> Call:
        return Call(
            engine=self._engine,
            base=wsgi_request.base_of(self._engine.settings.public_url, flask.request) + wsgi_request.ROOT + "runs",
            run_id=run_id,
            key=_key() if operation.takes_key else None,
            query=None if operation.query is None else _query(operation.query),
            body=None if operation.body is None else self._body(operation.body),
        )

    def _body(self, shape: type[BaseModel]) -> BaseModel:
        if flask.request.mimetype != "application/json":
            raise RequestRefused(problems.wrong_media_type())
        sent = body.read(flask.request, self._engine.settings.max_body)
        try:
            document = json.loads(sent.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise RequestRefused(problems.bad_body(f"The body is not JSON in UTF-8: {type(error).__name__}.")) from None
        return _validated(shape, document)


def _find(method: str, rest: str) -> tuple[Operation, str]:
    parts = rest.split("/")
    found = {each.method: (each, run_id) for each in OPERATIONS if (run_id := _match(each, parts)) is not None}
    if not found:
        raise RequestRefused(problems.unknown_route())
    if method not in found:
        raise RequestRefused(problems.wrong_method(method, list(found)))
    return found[method]


def _match(operation: Operation, parts: list[str]) -> str | None:
    """The run's id in a path of this operation, "" where it has none, None for another path."""
    wanted = operation.path.split("/")
    if len(wanted) != len(parts):
        return None
    run_id = ""
    for want, part in zip(wanted, parts, strict=True):
        if want == "{run_id}" and re.fullmatch(schemas.RUN_ID.strip("^$"), part):
            run_id = part
        elif want != part:
            return None
    return run_id


def _key() -> str | None:
    given = flask.request.headers.get("Idempotency-Key")
    if given is None:
        return None
    quoted = _QUOTED.fullmatch(given)
    key = quoted[1] if quoted else given
    if not re.fullmatch(schemas.KEY.strip("^$"), key):
        raise RequestRefused(problems.bad_key())
    return key


def _query(shape: type[BaseModel]) -> BaseModel:
    args = flask.request.args
    lists = {name for name, known in shape.model_fields.items() if known.default == []}
    return _validated(
        shape,
        {
            name: values if name in lists or len(values) > 1 else values[0]
            for name, values in args.to_dict(flat=False).items()
        },
    )


def _validated(shape: type[BaseModel], document: object) -> BaseModel:
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        said = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in wrong[:10])
        raise RequestRefused(problems.bad_arguments(said)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _response(reply: Reply) -> flask.Response:
    text = json.dumps(reply.document, separators=(",", ":"), default=str)
    return problems.Exact(
        text,
        reply.status,
        [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *reply.headers],
    )


def _sent(answer: Response | flask.Response) -> flask.Response:
    body.discard(flask.request)
    return problems.to_flask(answer) if isinstance(answer, Response) else answer
