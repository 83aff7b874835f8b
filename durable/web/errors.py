"""Logs an unexpected exception of a view, without secrets, and makes the answer."""

from __future__ import annotations

import logging
import traceback

from ..display import mask
from ..errors import ConfigurationError, DecryptionError, SchemaOutOfDate
from ..http import Response
from ..store import is_unavailable
from . import problems

log = logging.getLogger("durable.web")


def answer(error: Exception, *, secret: str | None = None) -> Response:
    """Log *error* and return the answer.  *secret* is a part of the request's URL that must not be logged."""
    if is_unavailable(error):
        cause = getattr(error, "orig", None) or error
        log.warning(
            "A request was answered 503, since the database is unreachable: %s: %s",
            type(cause).__name__,
            _masked(str(cause), secret),
        )
        return problems.unavailable()
    if isinstance(error, ConfigurationError | DecryptionError | SchemaOutOfDate):
        log.error("A request was answered 503.  %s", error)
        return problems.unavailable()
    text = "".join(traceback.format_exception(error))
    log.error("A request failed with an unexpected error, and was answered 500\n%s", _masked(text, secret))
    return problems.internal()


def _masked(text: str, secret: str | None) -> str:
    return mask(text.replace(secret, "...") if secret else text)
