"""The application that the command line works on: the module that ``--app`` names, imported as a worker would."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import current
from ..engine import Engine
from ..errors import ConfigurationError


class NoApplication(ConfigurationError):
    """Raised when what ``--app`` or a ``MODULE:NAME`` argument names is not there."""


@dataclass(frozen=True, kw_only=True)
class Application:
    """A module, and the engine that it makes."""

    module: ModuleType
    engine: Engine

    @property
    def celery_path(self) -> str:
        """What ``celery -A`` is given for this application."""
        for name, value in vars(self.module).items():
            if value is self.engine.celery:
                return f"{self.module.__name__}:{name}"
        raise NoApplication(
            f"{self.module.__name__} makes an engine, but its Celery app is no name of that module, so"
            " `celery -A` cannot find it.  Write `celery = Celery(…)` at the module's top level."
        )


def load(spec: str) -> Application:
    """
    Import ``MODULE[:NAME]`` and the modules that its Celery app includes.

    Args:
        spec: NAME is the engine or its Celery app; needed only where a module makes more than one.

    Raises:
        NoApplication: When the module, the name or an engine is missing.
    """
    module_name, _, name = spec.partition(":")
    module = import_module(module_name)
    engine = _engine(module, name)
    engine.celery.loader.import_default_modules()
    return Application(module=module, engine=engine)


def import_module(name: str) -> ModuleType:
    """Import a module, also from the current folder; NoApplication when there is none of that name."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        # A module that is there and imports one that is not keeps its traceback.
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise
        raise NoApplication(f"There is no module {missing.name!r} in {here} or on Python's path.") from None
    except (TypeError, ValueError):
        raise NoApplication(f"{name!r} is not a module's name; write for example worker.app.") from None


def find(spec: str) -> Any:
    """The object that ``MODULE:NAME`` names, e.g. a workflow; NoApplication when it is not there."""
    module_name, _, path = spec.partition(":")
    if not path:
        raise NoApplication(f"{spec!r} names no object: write MODULE:NAME, e.g. worker.workflows.payments:pay.")
    found: Any = import_module(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise NoApplication(f"Module {module_name!r} has no {path!r}.")
        found = getattr(found, name)
    return found


def _engine(module: ModuleType, name: str) -> Engine:
    engines = {id(value): value for value in vars(module).values() if isinstance(value, Engine)}
    if name:
        named = find(f"{module.__name__}:{name}")
        if isinstance(named, Engine):
            return named
        engines = {key: engine for key, engine in engines.items() if engine.celery is named}
    if len(engines) > 1:
        raise NoApplication(f"{module.__name__} makes {len(engines)} engines: name one, --app {module.__name__}:NAME.")
    if engines:
        return engines.popitem()[1]
    return _engine_made_last(module, name)


def _engine_made_last(module: ModuleType, name: str) -> Engine:
    """For a module that imports or calls what makes its engine."""
    if not name:
        try:
            engine = current.current_engine()
        except ConfigurationError:
            pass
        else:
            assert isinstance(engine, Engine)
            return engine
    raise NoApplication(
        f"{module.__name__}{':' * bool(name)}{name} is no durable engine and the module makes none:"
        " write `engine = Durable(celery)` in it."
    )
