"""Errors of settings, decorators, the wiring of an application, and its database's schema."""

from __future__ import annotations

from .base import DurableError


class ConfigurationError(DurableError):
    """Raised when a setting, a decorator or the wiring of an application is wrong."""


class SchemaOutOfDate(ConfigurationError):
    """
    Raised when the database has no schema, or an older one than this code needs.

    Attributes:
        found: The revision in the database, None for an empty one.
        needed: The revision that this code was written for.
    """

    def __init__(self, found: str | None, needed: str) -> None:
        super().__init__(found, needed)
        self.found = found
        self.needed = needed

    def __str__(self) -> str:
        return (
            f"The database has durable's schema {self.found or '(none)'}; this code needs {self.needed}."
            "  Run `durable migrate` (with --app, or DURABLE_DATABASE_URL set) and start again."
        )
