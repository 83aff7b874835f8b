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
    texts = {name: form.get(f"arg:{name}", "") for name in workflow.signature.parameters}
    try:
        args, kwargs = _arguments(workflow, texts)
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
    """
    The arguments of the form; an empty field is left out, so that the parameter's default counts.

    Raises:
        Refused: A field is malformed.
        TypeError: An argument is missing, or is given twice.
    """
    values = _values(workflow, texts)
    parameters = list(workflow.signature.parameters.values())
    rest: list[Any] = next((values.get(each.name, []) for each in parameters if each.kind is each.VAR_POSITIONAL), [])
    others: dict[str, Any] = next(
        (values.get(each.name, {}) for each in parameters if each.kind is each.VAR_KEYWORD), {}
    )
    placed = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    # Each parameter before a value that has a place and no name needs a value too, or the later one gets its place.
    nameless = [at for at, each in enumerate(placed, 1) if each.kind is each.POSITIONAL_ONLY and each.name in values]
    positional = placed if rest else placed[: max(nameless, default=0)]
    by_name = [*placed[len(positional) :], *(each for each in parameters if each.kind is each.KEYWORD_ONLY)]
    keywords = {each.name: values[each.name] for each in by_name if each.name in values}
    if twice := sorted(keywords.keys() & others.keys()):
        raise TypeError(f"multiple values for argument {twice[0]!r}")
    return (*(_value_or_default(each, values) for each in positional), *rest), keywords | others


def _value_or_default(parameter: inspect.Parameter, values: dict[str, Any]) -> Any:
    """What the field has, else the default as the code has it, which need not be JSON."""
    value = values.get(parameter.name, parameter.default)
    if value is _MISSING:
        raise TypeError(f"missing a required argument: {parameter.name!r}")
    return value


def _values(workflow: Workflow[..., Any], texts: dict[str, str]) -> dict[str, Any]:
    """By name, the values of the fields that are filled in; a text that is required may be empty."""
    values: dict[str, Any] = {}
    for field in fields_of(workflow):
        text = texts[field.name]
        if not text.strip() and not (field.is_required and field.kind == "text"):
            continue
        value = text if field.kind == "text" else parse_json(field.name, text)
        kind = workflow.signature.parameters[field.name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL and not isinstance(value, list):
            raise Refused(400, f"The field {field.name!r} is malformed", "It is a JSON list.")
        if kind is inspect.Parameter.VAR_KEYWORD and not isinstance(value, dict):
            raise Refused(400, f"The field {field.name!r} is malformed", "It is a JSON object.")
        values[field.name] = value
    return values


def _workflow(name: str) -> Workflow[..., Any]:
    workflow = registry.workflows.get(name)
    if workflow is None:
        raise Refused(
            404,
            "Workflow not found",
            "This web process has not imported a workflow of this name.  Add its module to the Celery app's include.",
        )
    return workflow
