"""
One control request: check the caller, read the request, do the operation, answer.

A caller that is not allowed is refused before anything else of the request is read.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

import flask
from pydantic import BaseModel, ValidationError

from ..engine import Engine
from ..errors import RunNotFound
from ..store import audit
from . import body, errors, problems, schemas, stream_schemas, wsgi_request
from .control_operations import Call, Operation, Reply
from .flow import DropBody, Flow, Holding, ReadBody, run_in_thread
from .operations import OPERATIONS
from .permit import Permit
from .problems import RequestRefused

#: An ``Idempotency-Key`` in quotes, as a structured field's string.
_QUOTED = re.compile(r'"([^"]+)"')


#: The parameters of paths, each with its pattern.
_PARAMETERS = {
    "run_id": schemas.RUN_ID,
    "schedule": schemas.SCHEDULE,
    "request_id": schemas.REQUEST_ID,
    "limit": schemas.LIMIT,
    "stream": stream_schemas.STREAM,
    "workflow": schemas.LISTED_NAME,
    "queue": schemas.LISTED_NAME,
    "receiver": schemas.RECEIVER,
}


class Controller:
    """The control routes of a blueprint."""

    def __init__(self, engine: Engine, permit: Permit, holding: Holding) -> None:
        self._engine = engine
        self._holding = holding
        self._permit = permit

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
        self._permit.require_caller()
        incoming, settings = flask.request, self._engine.settings
        operation, path_parameters = _find(incoming.method, path)
        action = operation.action
        actor = None if action == "bulk" else self._permit.require(action, path_parameters.get("run_id"))

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
        call = Call(self._engine, base_url, path_parameters, key, document, query, self._holding, self._permit, actor)
        reply = yield from self._act(operation, call)
        return problems.Exact(
            json.dumps(reply.document, separators=(",", ":"), default=str),
            reply.status,
            [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *reply.headers],
        )

    def _act(self, operation: Operation, call: Call) -> Flow[Reply]:
        """Do the operation; what changes something has an entry in the audit."""
        match operation.action:
            case "read" | "start" | "resume":
                # The run of a start, or of a payload, is known once it is committed: they write their entry then.
                return (yield from _reply(operation, call))
            case "bulk":
                # Each run has an entry of its own.
                self._permit.require(f"bulk_{call.body.action}")
                return (yield from _reply(operation, call))
        subject, detail = _subject(call)
        self._engine.check_schema()
        acted = self._permit.audited(operation.action, subject, detail, lambda: _do(operation, call), call.actor)
        assert isinstance(acted, Reply), f"{operation.path} holds its connection, and is audited as if it did not"
        return acted


def _reply(operation: Operation, call: Call) -> Flow[Reply]:
    """Do the operation, which may hold its connection."""
    acted = _do(operation, call)
    return acted if isinstance(acted, Reply) else (yield from acted)


def _do(operation: Operation, call: Call) -> Reply | Flow[Reply]:
    """Do the operation; the answer is 404 where there is no such run."""
    try:
        return operation.act(call)
    except RunNotFound:
        raise RequestRefused(problems.unknown_run()) from None


def _subject(call: Call) -> tuple[str, str | None]:
    """Return what the audit names, and the detail: for what is no run, its name."""
    (kind, name), *_ = call.path.items()
    if kind == "run_id":
        return name, getattr(call.body, "reason", None)
    return (f"request:{name}"[:64] if kind == "request_id" else audit.subject(kind, name)), name


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
