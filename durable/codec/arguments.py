"""A call: bound by parameter name, written, read back, and compared by a digest."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ..errors import SerializationError
from ..http import Request
from .decoder import decode
from .encoder import Encoder, canonical_text, text_of, written
from .objects import without_defaults


def bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """
    The arguments by parameter name, without defaults; those of ``*args`` and ``**kwargs`` under these names.

    Raises:
        TypeError: When the call doesn't fit, as Python's own.
    """
    return dict(signature.bind(*args, **kwargs).arguments)


def encode_arguments(bound: Mapping[str, Any], path: str = "args") -> str:
    """Bound arguments as a JSON object by parameter name.  Errors: as ``encode``."""
    writer = Encoder()
    return text_of({name: written(writer, item, f"{path}.{name}") for name, item in bound.items()}, path)


def decode_arguments(
    text: str, requests: Mapping[str, Request], signature: inspect.Signature
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments as they are called with.  Errors: as ``decode_call``."""
    call = decode_call(text, requests, signature)
    return call.args, call.kwargs


def decode_call(text: str, requests: Mapping[str, Request], signature: inspect.Signature) -> inspect.BoundArguments:
    """
    The encoded arguments as those of a call.

    Raises:
        SerializationError: Also when the function has lost a parameter that was given, or has a new one
            without a default.
    """
    bound: dict[str, Any] = decode(text, requests)
    for name in bound:
        if name not in signature.parameters:
            raise SerializationError(
                f"args.{name}",
                f"the function has no parameter {name!r} any more.  Keep it until the runs that gave it end.",
            )
    arguments = inspect.BoundArguments(signature, bound)
    try:
        return signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError as error:
        raise SerializationError(
            "args", f"the function can no longer be called so: {error}.  Give a new parameter a default."
        ) from error


def digest(bound: Mapping[str, Any], signature: inspect.Signature) -> str:
    """
    32 hex digits by which two calls are compared.

    What harmless deploys change has no part in it: the order of parameters and of dict keys, parameters
    and fields that equal their default, where a class is defined.  A request, run or hook counts by its
    id or token, an exception by its type's name and its arguments.

    Raises:
        SerializationError: As ``encode_arguments``.
    """
    writer = Encoder(for_digest=True)
    plain = {name: written(writer, item, f"args.{name}") for name, item in bound.items()}
    parameters = signature.parameters
    defaults = {name: each for name in bound if (each := parameters[name].default) is not inspect.Parameter.empty}
    kept = without_defaults(writer, plain, defaults.__getitem__) if defaults else plain
    return sha256(canonical_text(kept).encode()).hexdigest()[:32]
