"""
A webhook's token is a password in a URL: it must not reach the logs.  Nor must signatures and credentials.

``MaskTokens`` is a ``logging.Filter`` that replaces them: the token, what
senders put into the query to prove themselves, and the headers that an access
log may be told to show.  Registering the
blueprint puts one on the loggers that are known to log paths; for a logger of
your own, ``logger.addFilter(MaskTokens())``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from ..http import is_secret

#: Loggers that log the request line: a filter counts only for the logger it is on.
LOGGERS = (
    "gunicorn.access",
    "gunicorn.error",
    "werkzeug",
    "hypercorn.access",
    "granian.access",
    "_granian.access",
)

# As parse_target has it, with what percent-encoding may have made of it.
_TOKEN = re.compile(r"(v1/webhook(?:/|%2F))[A-Za-z0-9_%-]{20,}", re.IGNORECASE)


# What Meta, CloudEvents and Graph put into the query.
_QUERY = re.compile(r"\b((?:hub\.verify_token|access_token|validationToken|crc_token|clientState)=)[^&\s\"'#]+")

#: How gunicorn names a header of the request or the answer among what an access log may show.
_HEADER_ATOM = re.compile(r"\{(.+)\}[io]")


def mask(text: str) -> str:
    """*text* with each token in a webhook's path, and what proves a sender in its query, replaced by ``...``."""
    if "webhook" not in text:
        return text
    return _QUERY.sub(r"\1...", _TOKEN.sub(r"\1...", text))


class MaskTokens(logging.Filter):
    """Masks the tokens in a record's message and in its arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _masked(record.msg)
        if isinstance(record.args, dict):
            # gunicorn's atoms: a dict that looks missing names up, so it must stay the same object.
            record.args.update({key: _masked_atom(key, value) for key, value in record.args.items()})
        elif record.args:
            record.args = tuple(_masked(value) for value in record.args)
        return True


_filter = MaskTokens()


def install(names: Iterable[str]) -> None:
    """Mask tokens in what the loggers of these names log; doing it twice changes nothing."""
    for name in names:
        logging.getLogger(name).addFilter(_filter)


def _masked_atom(key: Any, value: Any) -> Any:
    named = _HEADER_ATOM.fullmatch(key) if isinstance(key, str) else None
    # "-" says that it was not there.
    return "..." if named and is_secret(named[1]) and value != "-" else _masked(value)


def _masked(value: Any) -> Any:
    return mask(value) if isinstance(value, str) else value
