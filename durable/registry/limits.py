"""
Limits: how many attempts of steps run at once, or begin in a time, over all processes.

``concurrency`` and ``rate`` make them.  The numbers in force are in the database (``store/limits.py``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .. import duration
from ..errors import ConfigurationError
from ..nearest import did_you_mean
from .signatures import Signature

#: Returns the key of a call, from the step's arguments.
KeyFunction = Callable[..., str]

LONGEST_NAME = 100
LONGEST_KEY = 255
#: The largest number of a limit.
MOST = 1_000_000

#: A rate makes up for turns that come late: tokens of so long a time, in microseconds, or of a part of ``per``.
_SLACK = 250_000
_SLACK_PART = 20


@dataclass(frozen=True)
class StepLimit:
    """
    A limit as the code declares it.

    Attributes:
        name: Steps with a limit of the same name share it.
        n: How many attempts may run at once; or begin within *per*.
        per: In microseconds; None for a limit of concurrency.
        burst: How many may begin at once, when none has begun for a while.
        key: A parameter of the step, or a function of its arguments, whose text names what is counted on its own.
    """

    name: str
    n: int
    per: int | None = None
    burst: int | None = None
    key: str | KeyFunction | None = None

    @property
    def numbers(self) -> tuple[int, int | None, int | None]:
        """What two limits of one name have in common."""
        return self.n, self.per, self.burst


def concurrency(name: str, n: int, key: str | KeyFunction | None = None) -> StepLimit:
    """
    Let at most *n* attempts run at once, over all processes; give it to ``@step(limits=[…])``.

    Args:
        name: The limit's name.  Steps whose limits have the same name share it.
        key: What is counted on its own: a parameter of the step, or a function of its arguments that returns text.

    Raises:
        ConfigurationError: *n* is no whole number from 1 on, or another value is not as described.
    """
    return StepLimit(_name(name), check_number(n), key=_key(name, key))


def rate(
    name: str, n: int, per: str | float | timedelta, burst: int | None = None, key: str | KeyFunction | None = None
) -> StepLimit:
    """
    Let at most *n* attempts begin within *per*, over all processes; give it to ``@step(limits=[…])``.

    Args:
        name, key: As in ``concurrency``.
        per: A duration: ``"1s"``.
        burst: How many may begin at once, when none has begun for a while.  By default few, so that attempts begin
            evenly: the share of 250 ms, or of a twentieth of *per* if that is longer.

    Raises:
        ConfigurationError: *n* or *burst* is no whole number from 1 on, or another value is not as described.
    """
    try:
        micros = duration.to_micros(per, what="per")
    except ValueError as error:
        raise ConfigurationError(f"rate({name!r}): {error}") from error
    if micros == 0:
        raise ConfigurationError(f"rate({name!r}): per={per!r} is no time at all.  Use 1 second, say: per='1s'.")
    if burst is None:
        burst = max(1, check_number(n) * max(_SLACK, micros // _SLACK_PART) // micros)
    return StepLimit(_name(name), check_number(n), micros, check_number(burst, "burst"), _key(name, key))


def check_number(n: object, what: str = "n") -> int:
    """Return the number of a limit.  Raises ConfigurationError when it is none."""
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST:
        raise ConfigurationError(
            f"{what}={n!r} is no number for a limit: use a whole number from 1 to {MOST:,}."
            "  With 0 no step would ever run."
        )
    return n


def check_limits(limits: Iterable[StepLimit], step: str, signature: Signature) -> tuple[StepLimit, ...]:
    """Return the limits of a step, each name once.  Raises ConfigurationError for what can be no limit of it."""
    given = tuple(limits) if isinstance(limits, Iterable) and not isinstance(limits, str) else (limits,)
    for each in given:
        if not isinstance(each, StepLimit):
            raise ConfigurationError(
                f"@step: limits of {step} has {each!r}, which is no limit.  Write for example"
                " limits=[concurrency('stripe', 10)]."
            )
        if isinstance(each.key, str) and each.key not in signature.parameters:
            raise ConfigurationError(
                f"@step: the limit {each.name!r} of {step} has key={each.key!r}, and the step has no such parameter."
                f"{did_you_mean(each.key, signature.parameters)}"
            )
    names = [each.name for each in given]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"@step: {step} has the limit {twice!r} twice.  Give one of them another name.")
    return given


def key_of(limit: StepLimit, call: inspect.BoundArguments) -> str:
    """
    Return the key of a call.

    Raises:
        TypeError: It is no text, or there is no such parameter.
        Exception: Whatever the author's function raises.
    """
    if limit.key is None:
        return ""
    if isinstance(limit.key, str):
        call.apply_defaults()
        key, source = call.arguments[limit.key], f"the parameter {limit.key!r}"
    else:
        key, source = limit.key(*call.args, **call.kwargs), "its key function"
    if not isinstance(key, str):
        raise TypeError(
            f"{source} gives {type(key).__name__} for the limit {limit.name!r}, and a key has to be text.  Return a"
            " str, or write key=lambda …: str(…)."
        )
    if len(key) > LONGEST_KEY or "\0" in key:
        raise ValueError(
            f"{source} gives a text of {len(key)} characters for the limit {limit.name!r}; a key has at most"
            f" {LONGEST_KEY}, none of them NUL."
        )
    return key


def _name(name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise ConfigurationError(f"The name of a limit is text of 1 to {LONGEST_NAME} characters, and not {name!r}.")
    return name


def _key(name: str, key: Any) -> str | KeyFunction | None:
    if key is None or isinstance(key, str):
        return key
    if not callable(key) or inspect.iscoroutinefunction(key):
        raise ConfigurationError(
            f"The key of the limit {name!r} is {key!r}.  Use the name of a parameter of the step, or a `def` that takes"
            " the step's arguments and returns text."
        )
    return key  # type: ignore[no-any-return]
