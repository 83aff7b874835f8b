"""A form that is made from the signature of a workflow, and that starts it."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from typing import Any

import flask

from .. import registry
from ..client import Options, audited
from ..client import start as client_start
from ..errors import DurableError
from ..registry import Workflow, definitions
from ..store import start_run
from .actions import parse_json
from .pages import Dashboard, back_to
from .security import Refused

_MISSING: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Field:
    """
    One parameter as a field.

    Attributes:
        kind: ``text``, ``number``, ``bool`` or ``json``.
        annotation: The type, as the code has it.
        text: What is filled in: the default.
    """

    name: str
    kind: str
    annotation: str
    is_required: bool
    text: str


def show(dashboard: Dashboard) -> flask.Response:
    """The form for the workflow in the URL, or a list of workflows to choose from."""
    dashboard.guard.require("start")
    dashboard.import_workflows()
    name = flask.request.args.get("workflow", "")
    workflow = _workflow(name) if name else None
    fields = [] if workflow is None else fields_of(workflow)
    return dashboard.page("start.html", workflow=workflow, fields=fields, names=sorted(registry.workflows))


def start(dashboard: Dashboard) -> flask.Response:
    """Start the workflow with the arguments of the form."""
    actor = dashboard.guard.require("start")
    dashboard.import_workflows()
    engine, form = dashboard.engine, flask.request.form
    workflow = _workflow(form.get("workflow", ""))
    args, kwargs = _arguments(workflow, {name: form.get(f"arg:{name}", "") for name in workflow.signature.parameters})
    try:
        # Arguments that would fail the run at its first turn are refused here.
        definitions.fit_arguments(workflow, workflow.signature.bind(*args, **kwargs))
        key = form.get("idempotency_key", "").strip() or None
        options = Options(run_id=start_run.new_run_id(engine.now()), idempotency_key=key)
        run = client_start.start(engine, workflow, args, kwargs, options)
    except (DurableError, TypeError, ValueError) as error:
        raise Refused(422, "The run was not started", f"{error}  Go back and correct it.") from error
    audited.note(dashboard.engine, run.id, "start", actor)
    return back_to("run", run_id=run.id, done="start")


def fields_of(workflow: Workflow[..., Any]) -> list[Field]:
    """The fields of the form."""
    return [_field(workflow, parameter) for parameter in workflow.signature.parameters.values()]


def _field(workflow: Workflow[..., Any], parameter: inspect.Parameter) -> Field:
    annotation = workflow.annotation(parameter.name)
    is_rest = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    kind = "json" if is_rest else {str: "text", int: "number", float: "number", bool: "bool"}.get(annotation, "json")
    has_default = parameter.default is not _MISSING
    text = ""
    if has_default and parameter.default is not None and isinstance(parameter.default, str | int | float | bool):
        text = str(parameter.default).lower() if isinstance(parameter.default, bool) else str(parameter.default)
        text = f'"{text}"' if kind == "json" and isinstance(parameter.default, str) else text
    named = _named(annotation)
    if is_rest:
        named = f"a list of {named}" if parameter.kind is parameter.VAR_POSITIONAL else f"an object of {named}"
    return Field(parameter.name, kind, named, not (has_default or is_rest), text)


def _named(annotation: Any) -> str:
    if annotation is Any or annotation is _MISSING:
        return "any value"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _arguments(workflow: Workflow[..., Any], texts: dict[str, str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the form; an empty field is left out, so that the parameter's default counts."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    by_name = False
    for field, parameter in zip(fields_of(workflow), workflow.signature.parameters.values(), strict=True):
        text = texts[field.name]
        if not text.strip() and not (field.is_required and field.kind == "text"):
            by_name = by_name or parameter.kind is not parameter.VAR_POSITIONAL
            continue
        value = text if field.kind == "text" else parse_json(field.name, text)
        match parameter.kind:
            case parameter.VAR_POSITIONAL:
                if not isinstance(value, list):
                    raise Refused(400, f"The field {field.name!r} is malformed", "It is a JSON list.")
                positional += value
            case parameter.VAR_KEYWORD:
                if not isinstance(value, dict):
                    raise Refused(400, f"The field {field.name!r} is malformed", "It is a JSON object.")
                keywords |= value
            case parameter.POSITIONAL_ONLY:
                positional.append(value)
            case parameter.POSITIONAL_OR_KEYWORD if not by_name:
                positional.append(value)
            case _:
                keywords[field.name] = value
    return tuple(positional), keywords


def _workflow(name: str) -> Workflow[..., Any]:
    workflow = registry.workflows.get(name)
    if workflow is None:
        raise Refused(
            404,
            "Workflow not found",
            "This web process has not imported a workflow of this name.  Add its module to the Celery app's include.",
        )
    return workflow
