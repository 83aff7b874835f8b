"""
Values <-> JSON text, types kept.

What JSON has is written as it is; everything else as an object with the key
``$``, the tag of its kind: ``{"$":"tuple","v":[1,2]}``.  A dict that has such a
key itself, or keys that are no str, is written as pairs.  The text is ASCII,
and the same in every process.

Kinds are a table (``kinds.py``) that later files add to with ``register``.
Classes are written as ``module:qualname`` and found among the modules already
imported, never imported.  An exact type is carried, a subclass refused: what
came back would not be what was sent.  No pickle.

Files, in import order::

    refusals.py        where and why a value cannot be encoded
    kinds.py           the table of kinds, and how classes are named and found
    encoder.py         a value to JSON text
    decoder.py         JSON text to a value
    builtin.py         kinds: Python's own types, time, requests and responses
    display.py         an encoded value as plain JSON, for people
    failures.py        kinds: exceptions
    objects.py         kinds: enums, named tuples, dataclasses, pydantic models
    arguments.py       a call by parameter name, and its digest
    pydantic_types.py  kinds: URLs, secrets and other types of pydantic
    fit.py             whether a value fits an annotation, by pydantic
"""

from .arguments import bind, decode_arguments, decode_call, digest, encode_arguments
from .decoder import decode, request_ids
from .display import plain
from .encoder import encode
from .failures import ErrorSummary, decode_error, encode_error, error_summary
from .fit import fit, holds_secret, is_checked
from .kinds import register

__all__ = [
    "ErrorSummary",
    "bind",
    "decode",
    "decode_arguments",
    "decode_call",
    "decode_error",
    "digest",
    "encode",
    "encode_arguments",
    "encode_error",
    "error_summary",
    "fit",
    "holds_secret",
    "is_checked",
    "plain",
    "register",
    "request_ids",
]
