"""What goes wrong while a request is handled: logged without its secrets, and answered."""

from __future__ import annotations

import logging
import traceback

from ..errors import ConfigurationError, DecryptionError, SchemaOutOfDate
from ..http import Response
from ..store import is_unavailable
from . import problems
from .masking import mask

log = logging.getLogger("durable.web")


def answer(error: Exception, secret: str = "") -> Response:
    """The answer to a request that met *error*; *secret* is a part of its address that no log may show."""
    if is_unavailable(error):
        cause = getattr(error, "orig", None) or error
        log.warning(
            "A request was refused, the database is unreachable: %s: %s",
            type(cause).__name__,
            _masked(str(cause), secret),
        )
        return problems.unavailable()
    if isinstance(error, ConfigurationError | DecryptionError | SchemaOutOfDate):
        log.error("A request was refused.  %s", error)
        return problems.unavailable()
    text = "".join(traceback.format_exception(error))
    log.error("A request could not be handled\n%s", _masked(text, secret))
    return problems.internal()


def _masked(text: str, secret: str) -> str:
    return mask(text.replace(secret, "...") if secret else text)
