"""
Verifiers by name, and what a webhook records of its verifier.

The worker writes a webhook's options to the database, and the web process
reads them, perhaps with other code.  So only names are recorded: the name of
the verifier, and the names of the environment variables with its secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeAlias

from .. import duration
from ..errors import ConfigurationError
from ..http import Request, Response
from .delivery import Delivery

#: For an answer that repeats text of the request: a browser must not show it as a page.
_AS_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]


P = ParamSpec("P")

#: ``"env:NAME"``; a list of these while a secret is being changed.
Secrets: TypeAlias = str | Iterable[str]
#: A duration, as ``sleep`` takes it.
Span: TypeAlias = str | float | timedelta

Check = Callable[[Delivery], bool]
Answer = Callable[[Delivery], Response | None]
KeyOf = Callable[[Request], str | None]

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The verifier of a webhook, with the names of its secrets and its options."""

    by: str
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The plain JSON that is recorded."""
        return {"by": self.by, "secrets": self.references, "options": self.options}

    @classmethod
    def from_json(cls, recorded: dict[str, Any]) -> Verification:
        """The verification that ``as_json`` recorded."""
        references = {purpose: tuple(names) for purpose, names in recorded["secrets"].items()}
        return cls(by=recorded["by"], references=references, options=recorded["options"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Preset(Generic[P]):
    """
    A sender: how it signs requests, which handshakes it expects, and how its duplicates are recognized.

    Call it with the names of secrets, and pass the result to ``create_webhook(verify=…)``.

    Attributes:
        name: The name that is recorded.
        check: Returns True to accept a request; returns False or raises to refuse it.
        key: Returns the dedupe key of a request; None if the request has none.
        same: Returns the part of a body that has to be equal in a duplicate.
        greets: Methods of unsigned handshakes, which ``greeting`` gets even if they do not deliver.
        greeting: Answers an unsigned handshake; returns None for any other request.
        handshake: Answers a signed handshake after it is verified; returns None for any other request.
    """

    name: str
    check: Check
    make: Callable[P, Verification]
    key: KeyOf | None = None
    same: Callable[[bytes], object] = bytes
    greets: tuple[str, ...] = ()
    greeting: Answer | None = None
    handshake: Answer | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Verification:
        return self.make(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<verifier {self.name}>"


#: Every verifier of this process, by name.
_presets: dict[str, Preset[Any]] = {}


def preset(name: str, check: Check, **parts: Any) -> Callable[[Callable[P, Verification]], Preset[P]]:
    """Decorate the function that users call, ``verify.stripe(…)``, and register its preset."""

    def decorate(make: Callable[P, Verification]) -> Preset[P]:
        verifier = Preset(name=name, check=check, make=make, **parts)
        object.__setattr__(verifier, "__doc__", make.__doc__)
        _presets[name] = verifier
        return verifier

    return decorate


def find(name: str) -> Preset[Any]:
    """
    The verifier of this name.

    Raises:
        ConfigurationError: This process has none of this name.
    """
    if name not in _presets:
        raise ConfigurationError(
            f"A webhook uses the verifier {name!r}, but this process has none of this name.  Import the module with"
            f' @verify.register("{name}") in the web application too.'
        )
    return _presets[name]


def register(name: str, *, key: KeyOf | None = None) -> Callable[[Check], Preset[...]]:
    """
    Register a function as a verifier, under a name that can be recorded.

    The function gets a ``verify.Delivery`` and returns True to accept the request.  If it returns
    anything else or raises, the request is answered 401.  Use it as you use a preset:
    ``verify=acme("env:ACME_KEY")``.  Further keywords have to be JSON values; the function finds them in
    ``delivery.options``.  Import its module in workers and in the web application.

    Args:
        name: Lower-case letters, digits, ``_``, ``.`` and ``-``.
        key: Returns the dedupe key of a ``Request``, or None.

    Raises:
        ConfigurationError: The name is malformed, or another verifier's.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no name for a verifier: use lower-case letters, digits, _, . and -.")

    def decorate(check: Check) -> Preset[...]:
        existing = _presets.get(name)
        if existing is not None and _place(existing.check) != _place(check):
            raise ConfigurationError(
                f"The name {name!r} is taken by the verifier {_place(existing.check)}.  Use another name."
            )

        def make(secrets: Secrets = (), **options: Any) -> Verification:
            return Verification(by=name, references={"secret": _names(secrets)}, options=_plain(options))

        verifier: Preset[...] = Preset(name=name, check=check, make=make, key=key)
        _presets[name] = verifier
        return verifier

    return decorate


def references(secrets: Secrets, what: str = "its secret") -> tuple[str, ...]:
    """
    Check the names of secrets, one or more.

    Raises:
        TypeError, ValueError: They are no such names.  The message does not repeat them.
    """
    names = _names(secrets)
    if not names:
        raise ValueError(f'A verifier needs the name of {what}: "env:NAME", or a list of these.')
    return names


def to_micros(tolerance: Span) -> int:
    """A tolerance in microseconds, as it is recorded."""
    return duration.to_micros(tolerance, what="tolerance")


def _names(secrets: Secrets) -> tuple[str, ...]:
    names = (secrets,) if isinstance(secrets, str) else tuple(secrets)
    if not all(isinstance(name, str) and _REFERENCE.fullmatch(name) for name in names):
        # The message does not repeat the argument, which may be the secret itself.
        raise ValueError(
            'Name an environment variable of the web process that holds the secret, as "env:NAME".  The argument is'
            " not such a name.  (It is recorded in the database, so it must not be the secret itself.)"
        )
    return names


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(options, allow_nan=False)))
    except (TypeError, ValueError):
        raise TypeError(
            f"The options of a verifier are recorded, so they must be plain JSON, but they are {options!r}."
        ) from None


def _place(check: Check) -> str:
    return f"{getattr(check, '__module__', '?')}.{getattr(check, '__qualname__', '?')}"


def echo(text: str) -> Response:
    """An answer with *text*, as plain text."""
    return Response(text, 200, [*_AS_TEXT, ("Cache-Control", "no-store")])


def forbidden() -> Response:
    """The answer to a handshake that fails."""
    return Response("", 403, [("Cache-Control", "no-store")])
