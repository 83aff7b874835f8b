"""
Verifiers by name, and what a webhook records of the one it asks for.

A webhook's options stand in the database, and the web process that reads them
may run other code than the worker that wrote them.  So they hold names only:
of the verifier, and of the environment variables that hold the secrets.
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

#: What a stranger wrote is sent back: it must not be taken for a page.
_AS_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]


P = ParamSpec("P")

#: ``"env:NAME"``, or several while a secret is being changed.
Secrets: TypeAlias = str | Iterable[str]
#: As ``sleep`` takes it.
Span: TypeAlias = str | float | timedelta

Check = Callable[[Delivery], bool]
Answer = Callable[[Delivery], Response | None]
KeyOf = Callable[[Request], str | None]

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Which verifier a webhook wants, and with what: the names of secrets, never secrets."""

    by: str
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What is recorded."""
        return {"by": self.by, "secrets": self.references, "options": self.options}

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Verification:
        references = {purpose: tuple(names) for purpose, names in known["secrets"].items()}
        return cls(by=known["by"], references=references, options=known["options"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Preset(Generic[P]):
    """
    A sender: how it signs, what it expects to be answered, and by what its duplicates are known.

    Calling it with the names of secrets gives what ``create_webhook(verify=…)`` takes.

    Attributes:
        name: What is recorded.
        check: Returns True for a request to be accepted; for another it returns False, or raises.
        key: What tells a duplicate, None for a request that says nothing.
        same: What of a body has to be equal in a duplicate.
        greets: Methods that ``greeting`` answers, besides those that deliver.
        greeting: Answers a handshake that is not signed.
        handshake: Answers one that is, once it has been verified.
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
_known: dict[str, Preset[Any]] = {}


def preset(name: str, check: Check, **parts: Any) -> Callable[[Callable[P, Verification]], Preset[P]]:
    """Make a sender of the function that writes down what a webhook asks of it."""

    def decorate(make: Callable[P, Verification]) -> Preset[P]:
        made = Preset(name=name, check=check, make=make, **parts)
        object.__setattr__(made, "__doc__", make.__doc__)
        _known[name] = made
        return made

    return decorate


def find(name: str) -> Preset[Any]:
    """
    The verifier of this name.

    Raises:
        ConfigurationError: This process knows none.
    """
    if name not in _known:
        raise ConfigurationError(
            f"A webhook asks for the verifier {name!r}, which this process does not know.  Import the module with"
            f' @verify.register("{name}") in the web application too.'
        )
    return _known[name]


def register(name: str, *, key: KeyOf | None = None) -> Callable[[Check], Preset[...]]:
    """
    Make a verifier of a function, under a name that can be recorded.

    The function is given a ``verify.Delivery`` and returns True to accept the request.  Whatever else
    it returns or raises is a 401.  The result is called as the others are: ``acme("env:ACME_KEY")``;
    further keywords are JSON values, and its ``delivery.options``.  Import it in workers and in the web
    application.

    Args:
        name: Lower-case letters, digits, ``_``, ``.`` and ``-``.
        key: What tells duplicates; given the ``Request``.

    Raises:
        ConfigurationError: The name is malformed, or another verifier's.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot name a verifier: use lower-case letters, digits, _, . and -.")

    def decorate(check: Check) -> Preset[...]:
        before = _known.get(name)
        if before is not None and _place(before.check) != _place(check):
            raise ConfigurationError(f"The verifier {name!r} is {_place(before.check)} already; take another name.")

        def make(secrets: Secrets = (), **options: Any) -> Verification:
            return Verification(by=name, references={"secret": _names(secrets)}, options=_plain(options))

        made: Preset[...] = Preset(name=name, check=check, make=make, key=key)
        _known[name] = made
        return made

    return decorate


def references(secrets: Secrets, what: str = "its secret") -> tuple[str, ...]:
    """
    The names of secrets, one or more.

    Raises:
        TypeError, ValueError: Anything else.  A secret itself is never repeated.
    """
    names = _names(secrets)
    if not names:
        raise ValueError(f'A verifier needs the name of {what}: "env:NAME", or a list of these.')
    return names


def micros(tolerance: Span) -> int:
    """A duration as it is recorded."""
    return duration.to_micros(tolerance, what="tolerance")


def _names(secrets: Secrets) -> tuple[str, ...]:
    given = (secrets,) if isinstance(secrets, str) else tuple(secrets)
    if not all(isinstance(name, str) and _REFERENCE.fullmatch(name) for name in given):
        # Not repeated: it may be the secret itself.
        raise ValueError(
            'A secret is given by the name of an environment variable of the web process, as "env:NAME", so that it'
            " is never written to the database.  This is something else."
        )
    return given


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(options, allow_nan=False)))
    except (TypeError, ValueError):
        raise TypeError(f"The options of a verifier are recorded, so they must be plain JSON: {options!r}.") from None


def _place(check: Check) -> str:
    return f"{getattr(check, '__module__', '?')}.{getattr(check, '__qualname__', '?')}"


def echo(text: str) -> Response:
    """*text* as plain text."""
    return Response(text, 200, [*_AS_TEXT, ("Cache-Control", "no-store")])


def forbidden() -> Response:
    """A handshake that does not know what it would have to."""
    return Response("", 403, [("Cache-Control", "no-store")])
