"""
One control request: check the caller, read the request, do the operation, answer.

A caller that is not allowed is refused before anything else of the request is read.
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
from . import body, errors, problems, schemas, stream_schemas, wsgi_request
from .control_operations import Call, Operation, Reply
from .flow import DropBody, Flow, Holding, ReadBody, run_in_thread
from .operations import OPERATIONS
from .problems import RequestRefused

log = logging.getLogger("durable.web")

#: Whether the caller may control runs: True; False (403) for a caller who may not; None (401) for an unknown caller.
Authorize = Callable[[flask.Request], bool | None]

#: An ``Idempotency-Key`` in quotes, as a structured field's string.
_QUOTED = re.compile(r'"([^"]+)"')


#: The parameters of paths, each with its pattern.
_PARAMETERS = {
    "run_id": schemas.RUN_ID,
    "schedule": schemas.SCHEDULE,
    "request_id": schemas.REQUEST_ID,
    "limit": schemas.LIMIT,
    "stream": stream_schemas.STREAM,
}


class Controller:
    """The control routes of a blueprint."""

    def __init__(self, engine: Engine, authorize: Authorize, holding: Holding) -> None:
        self._engine = engine
        self._holding = holding
        self._authorize = authorize

    def view(self, rest: str) -> flask.Response:
        """Answer every path below ``runs`` and ``hooks``; this is Flask's view."""
        return run_in_thread(self.flow(rest))

    def flow(self, rest: str) -> Flow[problems.Exact]:
        """Answer one request of Flask; see ``flow.py``."""
        try:
            response = yield from self._receive(rest)
        except RequestRefused as refused:
            response = problems.to_flask(refused.answer)
        except Exception as error:
            response = problems.to_flask(errors.answer(error))
        yield DropBody()
        body.discard(flask.request)
        return response

    def _receive(self, path: str) -> Flow[problems.Exact]:
        """Handle one request, from its credentials to its answer."""
        self._require_permission()
        incoming, settings = flask.request, self._engine.settings
        operation, path_parameters = _find(incoming.method, path)

        key = incoming.headers.get("Idempotency-Key") if operation.takes_key else None
        if key is not None:
            quoted = _QUOTED.fullmatch(key)
            key = quoted[1] if quoted else key
            if not re.fullmatch(schemas.KEY.strip("^$"), key):
                raise RequestRefused(problems.bad_idempotency_key())

        query = None
        if operation.query is not None:
            fields = operation.query.model_fields
            lists = {name for name, declared in fields.items() if declared.default == []}
            # A parameter that is given twice and is no list stays a list, which the model refuses.
            arguments = {
                name: values if name in lists or len(values) > 1 else values[0]
                for name, values in incoming.args.to_dict(flat=False).items()
            }
            query = _validated(operation.query, arguments)

        document = None
        if operation.body is not None:
            if incoming.mimetype != "application/json":
                raise RequestRefused(problems.wrong_media_type())
            yield ReadBody(settings.max_body)
            raw = body.read(incoming, settings.max_body)
            try:
                parsed = json.loads(raw.decode(), parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                detail = f"The body is not JSON in UTF-8: {type(error).__name__}."
                raise RequestRefused(problems.bad_body(detail)) from None
            document = _validated(operation.body, parsed)

        base_url = wsgi_request.base_of(settings.public_url, incoming) + wsgi_request.ROOT
        acted = operation.act(Call(self._engine, base_url, path_parameters, key, document, query, self._holding))
        reply = acted if isinstance(acted, Reply) else (yield from acted)
        return problems.Exact(
            json.dumps(reply.document, separators=(",", ":"), default=str),
            reply.status,
            [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *reply.headers],
        )

    def _require_permission(self) -> None:
        try:
            allowed = self._authorize(flask.request)
        except HTTPException as error:
            raise RequestRefused(problems.from_abort(error)) from None
        if allowed is True:
            return
        if allowed is not None and allowed is not False:
            # Only True counts.  A coroutine is truthy, and so is an object for an anonymous user.
            log.error(
                "The function control= of create_blueprint returned a %s, so its caller got 403.  Only True allows a"
                " request.",
                type(allowed).__name__,
            )
        raise RequestRefused(problems.unauthorized() if allowed is None else problems.forbidden())


def _find(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """Return the operation of this method and path, and the parameters in the path."""
    found = {}
    for operation in OPERATIONS:
        pattern = re.escape(operation.path)
        for name, allowed in _PARAMETERS.items():
            pattern = pattern.replace(rf"\{{{name}\}}", f"(?P<{name}>{allowed.strip('^$')})")
        match = re.fullmatch(pattern, path)
        if match is not None:
            found[operation.method] = operation, match.groupdict()
    if not found:
        raise RequestRefused(problems.unknown_route())
    if method not in found:
        raise RequestRefused(problems.wrong_method(method, list(found)))
    return found[method]


def _validated(model: type[BaseModel], document: object) -> BaseModel:
    try:
        return model.model_validate(document)
    except ValidationError as invalid:
        # Without the input, which may hold a hook's token.
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        text = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in errors[:10])
        raise RequestRefused(problems.bad_arguments(text)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
