"""
Keeps secrets out of the logs: a webhook's token is a password in a URL.

``MaskTokens`` is a ``logging.Filter``.  It replaces tokens, the credentials
that some senders put into the query, and secret headers that an access log may
be configured to show.  Registering the blueprint adds it to the loggers that
log paths.  For a logger of your own, call ``logger.addFilter(MaskTokens())``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from ..display import has_route, mask, mask_query
from ..http import is_secret

#: Loggers that log the request line.  A filter works only on its own logger, so each gets one.
LOGGERS = (
    "gunicorn.access",
    "gunicorn.error",
    "werkzeug",
    "hypercorn.access",
    "uvicorn.access",
    "uvicorn.error",
    "granian.access",
    "_granian.access",
)

#: How gunicorn's access log format names a header of the request or the answer, or a header in the WSGI environment.
_HEADER_ATOM = re.compile(r"\{(.+)\}[io]|\{http_(.+)\}e")
#: The atoms of gunicorn, hypercorn and granian that are the query without the path.
_QUERY_ATOMS = ("q", "{query_string}e", "query_string")


class MaskTokens(logging.Filter):
    """Masks the tokens in a record's message and in its arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _masked(record.msg)
        if isinstance(record.args, dict):
            _mask_atoms(record.args)
        elif record.args:
            record.args = tuple(_masked(value) for value in record.args)
        return True


_filter = MaskTokens()


def install(names: Iterable[str]) -> None:
    """Mask tokens in the records of these loggers.  Calling it twice changes nothing."""
    for name in names:
        logging.getLogger(name).addFilter(_filter)


def _mask_atoms(atoms: dict[Any, Any]) -> None:
    """Mask gunicorn's atoms: a dict subclass that finds missing names, so it must stay the same object."""
    # Only the path, which is another atom, tells whose query it is.
    is_ours = any(isinstance(value, str) and has_route(value) for value in atoms.values())
    for key, value in atoms.items():
        header = _HEADER_ATOM.fullmatch(key) if isinstance(key, str) else None
        # gunicorn writes "-" for a header that was not sent.
        name = "" if header is None else header[1] or header[2].replace("_", "-")
        is_hidden = is_secret(name) and value != "-"
        masked = _masked(value)
        if is_ours and key in _QUERY_ATOMS and isinstance(masked, str):
            masked = mask_query(masked)
        atoms[key] = "..." if is_hidden else masked


def _masked(value: Any) -> Any:
    return mask(value) if isinstance(value, str) else value
