"""The application of a folder, where neither ``--app`` nor ``DURABLE_APP`` names one."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ..errors import ConfigurationError

#: Files that may make the engine, and the names of their modules.
CANDIDATES = {"app.py": "app", "celery_app.py": "celery_app", "worker/app.py": "worker.app"}


class ApplicationNotFound(ConfigurationError):
    """Raised when no application is named or found, or when what a name means does not exist."""


def find() -> str:
    """
    Return ``MODULE[:NAME]`` for the current folder.

    It is ``app`` under ``[tool.durable]`` in pyproject.toml, else the first of ``CANDIDATES`` whose text mentions
    durable: an ``app.py`` is often a Flask application that makes no engine.

    Raises:
        ApplicationNotFound: There is none of them, or pyproject.toml is malformed.
    """
    named = _from_pyproject(Path("pyproject.toml"))
    if named is not None:
        return named
    for file, module in CANDIDATES.items():
        path = Path(file)
        if path.is_file() and b"durable" in path.read_bytes():
            return module
    raise ApplicationNotFound(
        f"No application is named, and {Path.cwd()} has none of {', '.join(CANDIDATES)} that uses durable.  Name the"
        " module that makes the engine: with --app MODULE, with the variable DURABLE_APP, or in pyproject.toml:"
        ' app = "MODULE" under [tool.durable].'
    )


def _from_pyproject(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ApplicationNotFound(
            f"{path.resolve()} cannot be read: {error}.  Name the application with --app."
        ) from None
    section = tool.get("durable", {}) if isinstance(tool, dict) else {}
    app = section.get("app") if isinstance(section, dict) else None
    if app is None:
        return None
    if not isinstance(app, str) or not app.strip():
        raise ApplicationNotFound(f'{path.resolve()}: [tool.durable] app is {app!r}.  Write app = "MODULE" there.')
    return app.strip()
