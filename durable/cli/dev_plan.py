"""
What ``durable dev`` starts, found by importing the application.

After a change, ``main`` runs in a process of its own.  It prints the plan as JSON, or the error of the import.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from .. import registry
from . import application as applications
from .application import Application

_ROOM = f"{Path(__file__).parents[1]}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """
    What ``durable dev`` starts.

    Attributes:
        celery_path: The argument of ``celery -A``.
        queues: The queues of the worker; empty for the app's default one.
        web: What gunicorn serves.
    """

    celery_path: str
    queues: tuple[str, ...]
    web: str


def plan(application: Application, spec: str, web: str | None = None) -> Plan:
    """What to start for an application that is loaded here."""
    return Plan(
        celery_path=application.celery_path,
        queues=tuple(queues_of(application.engine.celery)),
        web=web or web_target(application, spec),
    )


def queues_of(celery: Celery) -> list[str]:
    """The queues of all workflows and steps and of the app, or none if they all use the app's default queue."""
    definitions: list[registry.Workflow[..., Any] | registry.Step[..., Any]] = []
    definitions += registry.workflows.values()
    definitions += registry.steps.values()
    named = {item.options["queue"] for item in definitions if item.options.get("queue")}
    return sorted({*named, *celery.amqp.queues}) if named else []


def web_target(application: Application, spec: str) -> str:
    """What gunicorn serves: the module's Flask app, else that of a package ``webapp`` beside it, else a bare one."""
    modules = [application.module]
    webapp = importlib.util.find_spec("webapp")
    if webapp is not None and webapp.origin is not None and application.module.__file__ is not None:
        # The folder that the application's module was imported from.
        depth = application.module.__name__.count(".")
        root = Path(application.module.__file__).resolve().parents[depth]
        if Path(webapp.origin).resolve().is_relative_to(root):
            modules.append(applications.import_module("webapp"))
    for module in modules:
        if callable(getattr(module, "create_app", None)):
            return f"{module.__name__}:create_app()"
        if callable(getattr(module, "app", None)) and not isinstance(module.app, Celery):
            return f"{module.__name__}:app"
    return f"durable.cli.dev_web:bare_app({spec!r})"


def shown(error: BaseException) -> str:
    """The traceback of an import, from the application's first line on."""
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


def _is_ours(filename: str) -> bool:
    return filename.startswith((_ROOM, "<frozen")) or Path(filename).parent.name == "importlib"


def main(arguments: Iterable[str]) -> int:
    """Load the application of SPEC and WEB, and print the plan.  Returns the exit code."""
    spec, *web = arguments
    try:
        found = plan(applications.load(spec), spec, *web)
    except Exception as error:  # the application's own
        print(shown(error), file=sys.stderr)
        return 1
    print(json.dumps(asdict(found)))
    return 0
