"""Find the application that ``--app`` names: import its module as a worker would, and take its engine."""

from __future__ import annotations

import importlib
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import click

from .. import current
from ..errors import ConfigurationError, DurableError
from .default_app import ApplicationNotFound

if TYPE_CHECKING:
    from ..engine import Engine


#: Packages whose frames stand between the command and the author's module.
_BETWEEN = ("celery", "durable", "importlib", "kombu")


class ImportFailed(click.ClickException):
    """
    Raised when a module of the application raises an error while it is imported.

    It is shown as Python shows it, from the author's first line on.  The exit code is 1.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self._error = error

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the traceback on stderr."""
        frames = self._error.__traceback__
        while frames is not None and frames.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
            frames = frames.tb_next
        shown = traceback.TracebackException(type(self._error), self._error, frames)
        click.echo("".join(shown.format()).rstrip("\n"), file=file, err=True)


@dataclass(frozen=True, kw_only=True)
class Application:
    """A module, and the engine that it makes."""

    module: ModuleType
    engine: Engine

    @property
    def celery_path(self) -> str:
        """The argument of ``celery -A`` for this application."""
        for name, value in vars(self.module).items():
            if value is self.engine.celery:
                return f"{self.module.__name__}:{name}"
        raise ApplicationNotFound(
            f"{self.module.__name__} makes an engine, but `celery -A` cannot find its Celery app, because no name of"
            " the module refers to it.  Write `celery = Celery(…)` at the module's top level."
        )


def load(spec: str) -> Application:
    """Import ``MODULE[:NAME]`` and what its Celery app includes.  Raises what ``find`` and ``include`` do."""
    return include(find(spec))


def find(spec: str) -> Application:
    """
    Import ``MODULE[:NAME]``, and find its engine.

    Args:
        spec: NAME is the engine or its Celery app.  A module that makes more than one engine needs it.

    Raises:
        ApplicationNotFound: When the module, the name or an engine is missing.
        ImportFailed: A module raises an error when it is imported.
    """
    module_name, _, name = spec.partition(":")
    module = import_module(module_name)
    # The module has imported it; the command itself does not before it needs an application.
    from ..engine import Engine

    engines = {id(value): value for value in vars(module).values() if isinstance(value, Engine)}
    if name:
        named = find_object(spec)
        if isinstance(named, Engine):
            engines = {id(named): named}
        else:
            engines = {key: engine for key, engine in engines.items() if engine.celery is named}
    elif not engines:
        # The module may have called a function that made the engine: then the process has a current one.
        with suppress(ConfigurationError):
            made = current.current_engine()
            assert isinstance(made, Engine)
            engines = {id(made): made}
    if not engines:
        raise ApplicationNotFound(
            f"{spec} is not a durable engine, and the module makes none.  Write `engine = Durable(celery)` in it."
        )
    if len(engines) > 1:
        raise ApplicationNotFound(
            f"{module_name} makes {len(engines)} engines.  Choose one with --app {module_name}:NAME."
        )
    (engine,) = engines.values()
    return Application(module=module, engine=engine)


def include(found: Application) -> Application:
    """
    Import the modules that the Celery app includes: those of workflows and steps.

    Raises:
        ImportFailed: A module raises an error when it is imported.
    """
    try:
        found.engine.celery.loader.import_default_modules()
    except DurableError:
        raise
    except Exception as error:
        raise ImportFailed(error) from error
    return found


def import_module(name: str) -> ModuleType:
    """
    Import a module; the current folder is importable.

    Raises:
        ApplicationNotFound: No module has this name.
        ImportFailed: The module raises an error, for example because it imports a module that is missing.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not all(part.isidentifier() for part in name.split(".")):
        raise ApplicationNotFound(f"{name!r} is not the name of a module.  Write a name such as worker.app.")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        # The module exists, but it imports a module that does not.
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise ImportFailed(missing) from missing
        raise ApplicationNotFound(f"There is no module {missing.name!r} in {folder} or on Python's path.") from None
    except DurableError:
        # Its message says what to change.
        raise
    except Exception as error:
        raise ImportFailed(error) from error


def find_object(spec: str) -> Any:
    """The object that ``MODULE:NAME`` names, for example a workflow.  Raises ApplicationNotFound when it is missing."""
    module_name, _, path = spec.partition(":")
    if not path:
        raise ApplicationNotFound(
            f"{spec!r} does not name an object.  Write MODULE:NAME, for example worker.workflows.payments:pay."
        )
    found: Any = import_module(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise ApplicationNotFound(f"Module {module_name!r} has no {path!r}.")
        found = getattr(found, name)
    return found
