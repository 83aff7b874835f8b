"""
Requests and responses of webhooks, as values.

They are frozen, compare by value, and can be serialized.  This room does not use Flask's current request.

Files, in import order::

    headers.py   immutable headers; which headers may be sent
    response.py  ``Response``: the answer to a webhook request
    coding.py    decompresses gzip and deflate bodies up to a limit
    request.py   ``Request``: a request that a webhook received
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
