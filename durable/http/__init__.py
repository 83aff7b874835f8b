"""
Requests and responses of webhooks, as values.

They are frozen, compare by value, and cross between processes.  This room knows nothing of Flask's current request.

Files, in import order::

    headers.py   immutable headers, and what they may hold on the wire
    response.py  ``Response``: what a step answers
    coding.py    gzip and deflate bodies, decompressed up to a limit
    request.py   ``Request``: what a webhook received
"""

from .headers import FrozenHeaders, is_secret, wire_headers
from .request import Request
from .response import MAX_BODY, Response, problem

__all__ = [
    "MAX_BODY",
    "FrozenHeaders",
    "Request",
    "Response",
    "is_secret",
    "problem",
    "wire_headers",
]
