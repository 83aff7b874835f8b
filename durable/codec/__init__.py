"""
Values as JSON text, with their types.

``encode`` writes JSON types as they are.  It writes any other value as an object with the key ``$``, which holds the
tag of the value's kind: ``{"$":"tuple","v":[1,2]}``.  A dict that has such a key itself, or keys that are not str, is
written as a list of pairs.  The text is ASCII, and the same in every process.

The kinds are in a table (``kinds.py``), to which the files below it add with ``register`` and ``add``.  Classes are
written as ``module:qualname``; ``decode`` finds them in modules that are already imported and imports none.  A value's
exact type must have a kind: an instance of a subclass is refused, because it would come back as the base class.
Nothing is pickled.  The last three files import pydantic, once a value or an annotation needs it.

Files, in import order::

    refusals.py        which part of a value cannot be encoded, and why
    kinds.py           the table of kinds; how classes are named and found
    encoder.py         a value to JSON text
    decoder.py         JSON text to a value
    builtin.py         kinds: Python's own types, dates and times, addresses, requests and responses
    display.py         an encoded value as plain JSON, for people
    failures.py        kinds: exceptions
    objects.py         kinds: enums, named tuples, dataclasses
    arguments.py       a call by parameter name, and its digest
    models.py          kinds: models of pydantic
    pydantic_types.py  kinds: URLs, secrets and other types of pydantic
    fit.py             whether a value fits an annotation, by pydantic
"""

from .arguments import bind, decode_arguments, decode_call, digest, encode_arguments
from .decoder import decode, request_ids
from .display import EXAMINED_LENGTH, plain, shown_arguments, shown_in_error
from .encoder import encode
from .failures import (
    ErrorSummary,
    decode_error,
    encode_error,
    error_summary,
    failed_step,
    find_step_error,
    mark_failed_step,
    members,
    remote_traceback,
)
from .fit import fit, holds_secret, is_checked
from .kinds import load_pydantic, register

__all__ = [
    "EXAMINED_LENGTH",
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
    "failed_step",
    "find_step_error",
    "fit",
    "holds_secret",
    "is_checked",
    "load_pydantic",
    "mark_failed_step",
    "members",
    "plain",
    "register",
    "remote_traceback",
    "request_ids",
    "shown_arguments",
    "shown_in_error",
]
