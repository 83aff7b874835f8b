"""
The request that a webhook received, and the response that a step gives.

Both are frozen values, equal by content: the same in workflow code, in every
step and on every replay.  Neither knows a server.  The store keeps a head
(JSON text) and the raw bytes in columns of their own.
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
