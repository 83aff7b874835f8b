"""The base of the errors that durable raises."""

from __future__ import annotations


class DurableError(Exception):
    """The base of the errors that durable raises."""
