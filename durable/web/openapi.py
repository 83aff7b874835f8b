"""The OpenAPI 3.1 document of the blueprint, made from the same data as its routes."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

import flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ..engine import Engine
from ..http import Response
from . import body, errors, problems, schemas, stream_schemas, wsgi_request
from .control_operations import Operation
from .operations import OPERATIONS
from .permit import Authorize

NAME = "openapi.json"

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
_LOCATION = {"schema": {"type": "string", "format": "uri-reference"}, "required": True}
_SECS = {"schema": {"type": "integer"}, "required": True}

_TOKEN = {
    "name": "token",
    "in": "path",
    "required": True,
    "description": "The token at the end of `webhook.url`.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{20,128}$"},
}
_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The name of the receiver.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
}
_REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": schemas.REQUEST_ID},
}
_RUN_ID = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": schemas.RUN_ID}}
_SCHEDULE = {
    "name": "schedule",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": schemas.SCHEDULE},
}
_LIMIT = {"name": "limit", "in": "path", "required": True, "schema": {"type": "string", "pattern": schemas.LIMIT}}
_STREAM_NAME = {
    "name": "stream",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": stream_schemas.STREAM},
}
_WORKFLOW, _QUEUE, _RECEIVER = (
    {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}
    for name, pattern in (
        ("workflow", schemas.LISTED_NAME),
        ("queue", schemas.LISTED_NAME),
        ("receiver", schemas.RECEIVER),
    )
)
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "An earlier request with this key started a run: that run is returned, until it is pruned.",
    "schema": {"type": "string", "pattern": schemas.KEY},
}

#: The errors of a webhook itself.  Its workflow may answer with any status, also with these.
_WEBHOOK_PROBLEMS = {
    400: "The body is incomplete, or framed wrongly.",
    401: "The request does not have the signature that the webhook requires.",
    404: "There is no webhook at this address.",
    405: "The webhook does not accept this method; Allow lists those it accepts.",
    410: "The webhook is closed.",
    411: "The body is chunked, which this server does not support.",
    413: "The body is too large.",
    422: "An earlier request with the same dedupe key had another body.",
    429: "Too many requests to this webhook wait; or the caller asked for too many webhooks that do not exist.",
    431: "The headers are too large.",
    500: "The run ended without an answer.",
    503: "The request could not be recorded, or its run was cancelled.",
}
_CONTROL_PROBLEMS = {
    401: "The request has no valid credentials.",
    403: "The caller is not allowed to control runs.",
    503: "The database is unreachable, or its schema is too old.",
}
_BODY_PROBLEMS = {
    400: "The body is not JSON or incomplete, or the Idempotency-Key is malformed.",
    411: _WEBHOOK_PROBLEMS[411],
    413: _WEBHOOK_PROBLEMS[413],
    415: "The media type of the body is not application/json.",
}


def document(
    base: str, root: str, *, security: Mapping[str, Any] | None, controls: bool, reads: bool
) -> dict[str, Any]:
    """
    Return the document.

    Args:
        base: The URL before *root*.
        root: The path of the blueprint.
        security: The OpenAPI security scheme of the control routes; None if it is unknown.
        controls: Whether there are control routes.
        reads: Whether there are routes on which browsers read.
    """
    paths = {
        root + "webhook/{token}": _deliveries("deliver", _TOKEN, "pollAnswer"),
        root + "webhook/{token}/requests/{request_id}": _poll("pollAnswer", _TOKEN),
        root + "receive/{name}": _deliveries("receive", _NAME, "pollReceived"),
        root + "receive/{name}/requests/{request_id}": _poll("pollReceived", _NAME),
    }
    paths[root + NAME] = {"get": {"operationId": "describe", "summary": "This document", "responses": _OK}}
    paths[root + "health"] = {"get": {"operationId": "health", "summary": "Health", "responses": _HEALTH}}
    if reads:
        paths[root + "streams/{run_id}/{stream}"] = {"get": _STREAM}
        paths[root + "values/{run_id}/{value}"] = {"get": _VALUE}
    for operation in OPERATIONS if controls else ():
        at = paths.setdefault(root + operation.path, {})
        at[operation.method.lower()] = _control(operation, secured=security is not None)

    models: list[type[BaseModel]] = [schemas.Problem, schemas.Pending]
    for operation in OPERATIONS if controls else ():
        models += [shape for _, shape in operation.answers.values()]
        models += [operation.body] if operation.body is not None else []
    _, schema = models_json_schema(
        [(shape, "validation") for shape in dict.fromkeys(models)], ref_template="#/components/schemas/{model}"
    )
    components: dict[str, Any] = {"schemas": schema["$defs"]}
    if controls and security is not None:
        components["securitySchemes"] = {"control": dict(security)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "durable",
            "version": "1",
            "description": "Webhooks of runs, receivers, and the control of runs.",
        },
        "servers": [{"url": base or "/"}],
        "paths": paths,
        "components": components,
    }


_OK = {"200": {"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}}}


_HEALTH = {
    "200": {"description": "Webhooks are accepted.", "content": {"application/json": {"schema": {"type": "object"}}}},
    "503": {"description": _CONTROL_PROBLEMS[503], "content": {"application/problem+json": _PROBLEM}},
}


def _read(operation_id: str, summary: str, name: str, content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Describe a route on which browsers read."""
    address = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    token = {"name": "token", "in": "query", "description": "A read token; or as `Authorization: Bearer`."}
    problems = {
        "401": "The token is missing, is not valid, or has expired.",
        "403": "The token permits to read something else.",
        "404": more.pop("missing"),
        "422": "The name or a parameter does not fit.",
        "503": _CONTROL_PROBLEMS[503],
    }
    parameters = [_RUN_ID, address, token | {"schema": {"type": "string"}}, *more.pop("parameters", ())]
    responses: dict[str, Any] = {"200": content, **more}
    for status, description in problems.items():
        responses[status] = {"description": description, "content": {"application/problem+json": _PROBLEM}}
    responses["401"]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    return {"operationId": operation_id, "summary": summary, "parameters": parameters, "responses": responses}


_STREAM = _read(
    "readStream",
    "Read a stream as Server-Sent Events",
    "stream",
    {"description": "The items as they come.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    missing="There is no run with this id.",
    parameters=[
        {"name": "start", "in": "query", "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"}},
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}},
    ],
    **{"204": {"description": "The stream is over, and has nothing after Last-Event-ID."}},
)
_VALUE = _read(
    "readValue",
    "Read a published value",
    "value",
    {"description": "The latest value.", "content": {"application/json": {"schema": {"type": "object"}}}},
    missing="There is no run with this id, or it has not published the value.",
)


def _deliveries(verb: str, address: dict[str, Any], poll: str) -> dict[str, Any]:
    """Describe every method that a webhook or receiver may accept; each accepts some of them."""
    body = {"content": {"*/*": {}}, "description": "Anything, up to the webhook's limit."}
    methods: dict[str, Any] = {}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        methods[method.lower()] = {
            "operationId": f"{verb}{method.capitalize()}",
            "summary": f"Deliver a request to a workflow by {method}",
            "parameters": [address],
            **({} if method == "GET" else {"requestBody": body}),
            "responses": {
                "202": _accepted(
                    "Recorded.  The body is empty, the workflow's answer, or `pending`: then poll Location.",
                    address,
                    poll,
                ),
                **{str(status): _anything(description) for status, description in _WEBHOOK_PROBLEMS.items()},
                "default": {"description": "The workflow's answer.", "content": {"*/*": {}}},
            },
        }
    return methods


def _poll(operation_id: str, address: dict[str, Any]) -> dict[str, Any]:
    problems = {status: _WEBHOOK_PROBLEMS[status] for status in (404, 405, 410, 429, 500, 503)}
    get = {
        "operationId": operation_id,
        "summary": "Poll the answer to a request",
        "parameters": [address, _REQUEST_ID],
        "responses": {
            "202": _accepted("There is no answer yet; or the answer is a 202.", address, operation_id),
            **{str(status): _anything(text) for status, text in problems.items()},
            "default": {"description": "The workflow's answer.", "content": {"*/*": {}}},
        },
    }
    return {"get": get}


def _accepted(description: str, address: dict[str, Any], poll: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description, "content": {"*/*": {}}}
    answer["headers"] = {"Location": {"schema": {"type": "string"}, "description": "The URL to poll for the answer."}}
    answer["links"] = {
        "answer": {
            "operationId": poll,
            "parameters": {
                address["name"]: f"$request.path.{address['name']}",
                "request_id": "$response.body#/request_id",
            },
        }
    }
    return answer


def _anything(description: str) -> dict[str, Any]:
    """Describe a problem of the blueprint, which a workflow may also answer with."""
    return {
        "description": f"{description}  Or the workflow's answer.",
        "content": {"application/problem+json": {}, "*/*": {}},
    }


def _control(operation: Operation, *, secured: bool) -> dict[str, Any]:
    problems = {**_CONTROL_PROBLEMS, **operation.problems}
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    described["parameters"] = _parameters(operation)
    if operation.body is not None:
        problems |= _BODY_PROBLEMS
        described["requestBody"] = {"required": True, "content": {"application/json": _schema(operation.body)}}
    responses = {str(status): _answer(operation, *answer) for status, answer in operation.answers.items()}
    for status, description in sorted(problems.items()):
        answer: dict[str, Any] = {"description": description, "content": {"application/problem+json": _PROBLEM}}
        if status == http.HTTPStatus.UNAUTHORIZED:
            answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            answer["headers"] = {"Retry-After": _SECS}
        responses[str(status)] = answer
    described["responses"] = responses
    if secured:
        described["security"] = [{"control": []}]
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    in_path = {
        "{run_id}": _RUN_ID,
        "{stream}": _STREAM_NAME,
        "{schedule}": _SCHEDULE,
        "{request_id}": _REQUEST_ID,
        "{limit}": _LIMIT,
    }
    in_path |= {"{workflow}": _WORKFLOW, "{queue}": _QUEUE, "{receiver}": _RECEIVER}
    parameters: list[dict[str, Any]] = [each for name, each in in_path.items() if name in operation.path]
    if operation.takes_key:
        parameters.append(_KEY)
    if operation.query is not None:
        for name, schema in operation.query.model_json_schema()["properties"].items():
            plain = {key: value for key, value in schema.items() if key not in ("title", "default", "anyOf")}
            # A query cannot hold null: a parameter that is not given is left out.
            for option in schema.get("anyOf", ()):
                if option != {"type": "null"}:
                    plain |= option
            parameters.append({"name": name, "in": "query", "schema": plain})
    return parameters


def _answer(operation: Operation, description: str, shape: type[BaseModel]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description, "content": {"application/json": _schema(shape)}}
    if operation.name == "startRun":
        answer["headers"] = {"Location": _LOCATION}
    if operation.links:
        of_run = {"run_id": "$response.body#/id"}
        answer["links"] = {name: {"operationId": name, "parameters": of_run} for name in operation.links}
    return answer


def _schema(shape: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}


class Describer:
    """Serves the OpenAPI document of one blueprint.  It names no run, workflow or token: anybody may read it."""

    def __init__(self, engine: Engine, control: Authorize | None, *, controls: bool, reads: bool) -> None:
        self._engine = engine
        self._reads = reads
        self._control = control
        self._controls = controls

    def view(self) -> flask.Response:
        """Answer with the document; this is Flask's view."""
        method = flask.request.method
        try:
            if method != "GET":
                answer = problems.wrong_method(method, ["GET"])
            else:
                base = wsgi_request.base_of(self._engine.settings.public_url, flask.request)
                scheme = getattr(self._control, "security_scheme", None)
                answer = Response.json(
                    document(base, wsgi_request.ROOT, security=scheme, controls=self._controls, reads=self._reads)
                )
        except Exception as error:
            answer = errors.answer(error)
        body.discard(flask.request)
        return problems.to_flask(answer)
