"""The arguments of a call: bound by parameter name, encoded, decoded, and compared by a digest."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from ..errors import SerializationError
from ..http import Request
from .decoder import decode
from .encoder import Encoder, canonical_text, text_of, written
from .kinds import TAG
from .objects import without_defaults

#: The tags of values whose items are sorted for a digest: sets, and dicts as pairs.
_SORTED = ("set", "frozenset", "dict")


def bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """
    The arguments by parameter name, without defaults; ``*args`` and ``**kwargs`` under these names.

    Raises:
        TypeError: If the call does not fit the signature, as Python raises it.
    """
    return dict(signature.bind(*args, **kwargs).arguments)


def encode_arguments(bound: Mapping[str, Any], path: str = "args") -> str:
    """Bound arguments as a JSON object by parameter name.  Raises as ``encode``."""
    writer = Encoder()
    return text_of({name: written(writer, item, f"{path}.{name}") for name, item in bound.items()}, path)


def decode_arguments(
    text: str, requests: Mapping[str, Request], signature: inspect.Signature
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments of an encoded call.  Raises as ``decode_call``."""
    call = decode_call(text, requests, signature)
    return call.args, call.kwargs


def decode_call(text: str, requests: Mapping[str, Request], signature: inspect.Signature) -> inspect.BoundArguments:
    """
    The arguments of an encoded call, bound to *signature*.

    Raises:
        SerializationError: As ``decode``.  Also if the function no longer has a parameter that was given, or has a
            new one without a default.
    """
    bound: dict[str, Any] = decode(text, requests)
    for name in bound:
        if name not in signature.parameters:
            raise SerializationError(
                f"args.{name}",
                f"the function has no parameter {name!r} any more.  Keep it until the runs that pass it have ended.",
            )
    arguments = inspect.BoundArguments(signature, bound)
    try:
        return signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError as error:
        raise SerializationError(
            "args", f"the function cannot be called with these any more: {error}.  Give a new parameter a default."
        ) from error


def digest(bound: Mapping[str, Any], signature: inspect.Signature, renamed: Mapping[str, str] | None = None) -> str:
    """
    A digest of the arguments, 32 hex digits, by which a replay compares two calls.

    It does not change when a harmless deploy changes the order of parameters or dict keys, parameters and fields that
    equal their default, or the module of a class.  Of a request, run or hook it includes the id or token, of an
    exception the name of its type and its arguments.

    Args:
        renamed: What stands for what in the texts of the arguments, for a fork: its own id and tokens, and those that
            the log has in their place.

    Raises:
        SerializationError: As ``encode_arguments``.
    """
    writer = Encoder(for_digest=True)
    plain = {name: written(writer, item, f"args.{name}") for name, item in bound.items()}
    parameters = signature.parameters
    defaults = {name: each for name in bound if (each := parameters[name].default) is not inspect.Parameter.empty}
    kept = without_defaults(writer, plain, defaults.__getitem__) if defaults else plain
    text = _renamed_text(kept, renamed) if renamed else canonical_text(kept)
    return sha256(text.encode()).hexdigest()[:32]


def _renamed_text(plain: Any, renamed: Mapping[str, str]) -> str:
    """Plain JSON for a digest as ``canonical_text`` has it, renamed first: the order is that of the original texts."""
    if isinstance(plain, str):
        return canonical_text(_renamed(plain, renamed))
    if isinstance(plain, list):
        return _list_of(_renamed_text(item, renamed) for item in plain)
    if not isinstance(plain, dict):
        return canonical_text(plain)
    if plain.get(TAG) in _SORTED:
        items = _list_of(sorted(_renamed_text(item, renamed) for item in plain["v"]))
        return f'{{"{TAG}":"{plain[TAG]}","v":{items}}}'
    # Two keys may get the same name, so this cannot be a dict.  Keys are sorted as they are, not as they are escaped.
    pairs = [(_renamed(key, renamed), _renamed_text(item, renamed)) for key, item in plain.items()]
    return "{" + ",".join(f"{canonical_text(key)}:{item}" for key, item in sorted(pairs)) + "}"


def _list_of(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


def _renamed(text: str, renamed: Mapping[str, str]) -> str:
    for own, original in renamed.items():
        text = text.replace(own, original)
    return text
