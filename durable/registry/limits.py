"""
Limits: how many attempts of steps, or runs of workflows, go on at once or begin in a time, over all processes.

``concurrency``, ``rate`` and ``debounce`` make them.  The numbers in force are in the database (``store/limits.py``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from .. import duration
from ..errors import ConfigurationError
from ..nearest import did_you_mean
from .signatures import Signature

#: Returns the key of a call, from the arguments of the step or workflow.
KeyFunction = Callable[..., str]

#: What happens to a run for which a limit of concurrency has no room; the first one is the default.
ON_CONFLICT = ("queue", "cancel_new", "cancel_running")

LONGEST_NAME = 100
LONGEST_KEY = 255
#: The largest number of a limit.
MOST = 1_000_000

#: A rate makes up for turns that come late: tokens of so long a time, in microseconds, or of a part of ``per``.
_SLACK = 250_000
_SLACK_PART = 20


@dataclass(frozen=True)
class FlowLimit:
    """
    A limit as the code declares it.

    Attributes:
        name: Steps, or workflows, with a limit of the same name share it.
        n: How many may go on at once; or begin within *per*.
        per: In microseconds; None for a limit of concurrency.
        burst: How many may begin at once, when none has begun for a while.
        key: A parameter of the function, or a function of its arguments, whose text names what is counted on its own.
        on_conflict: One of ``ON_CONFLICT``.
        wait: Only for a debounce: how long a run waits for the next start of its key, in microseconds.
        at_most: How long it waits at most after the first start, in microseconds; None for no bound.
        noun: What it limits, "step" or "workflow"; empty until a decorator has it.
    """

    name: str
    n: int
    per: int | None = None
    burst: int | None = None
    key: str | KeyFunction | None = None
    on_conflict: str = ON_CONFLICT[0]
    wait: int | None = None
    at_most: int | None = None
    noun: str = ""

    @property
    def numbers(self) -> tuple[int, int | None, int | None]:
        """What the database knows of it."""
        return self.n, self.per, self.burst

    @property
    def kind(self) -> str | None:
        """What the limit is of, as the database knows it: None for attempts of steps, "runs" or "debounce"."""
        if self.noun != "workflow":
            return None
        return "runs" if self.wait is None else "debounce"

    def is_like(self, other: FlowLimit) -> bool:
        """Whether two limits of one name agree on all but the key."""
        return replace(self, key=None) == replace(other, key=None)


def concurrency(name: str, n: int, key: str | KeyFunction | None = None, on_conflict: str = "queue") -> FlowLimit:
    """
    Let at most *n* attempts of a step, or runs of a workflow, go on at once, over all processes.

    Give it to ``@step(limits=[…])`` or ``@workflow(limits=[…])``.

    Args:
        name: The limit's name.  Steps whose limits have the same name share it, and so do workflows.
        key: What is counted on its own: a parameter of the function, or a function of its arguments that returns text.
        on_conflict: What happens to a run for which there is no room: "queue", it waits; "cancel_new", it is
            cancelled; "cancel_running", the oldest run of the key is cancelled.  A step can only wait.

    Raises:
        ConfigurationError: *n* is no whole number from 1 on, or another value is not as described.
    """
    if on_conflict not in ON_CONFLICT:
        raise ConfigurationError(
            f"concurrency({name!r}): on_conflict={on_conflict!r} is not one of {', '.join(map(repr, ON_CONFLICT))}."
        )
    return FlowLimit(_name(name), check_number(n), key=_key(name, key), on_conflict=on_conflict)


def rate(
    name: str, n: int, per: str | float | timedelta, burst: int | None = None, key: str | KeyFunction | None = None
) -> FlowLimit:
    """
    Let *n* attempts of a step, or runs of a workflow, begin within *per* on average, over all processes.

    Within any *per*, at most *n* plus *burst* begin.

    Args:
        name, key: As in ``concurrency``.
        n: How many may begin within *per*, while there are always some that wait.
        per: A duration: ``"1s"``.
        burst: How many may begin at once, when none has begun for a while.  By default few, so that attempts begin
            evenly: the share of 250 ms, or of a twentieth of *per* if that is longer.  1 for a service that counts
            strictly.

    Raises:
        ConfigurationError: *n* or *burst* is no whole number from 1 on, or another value is not as described.
    """
    micros = _duration(f"rate({name!r})", "per", per)
    if burst is None:
        burst = max(1, check_number(n) * max(_SLACK, micros // _SLACK_PART) // micros)
    return FlowLimit(_name(name), check_number(n), micros, check_number(burst, "burst"), _key(name, key))


def debounce(
    name: str,
    wait: str | float | timedelta,
    at_most: str | float | timedelta | None = None,
    key: str | KeyFunction | None = None,
) -> FlowLimit:
    """
    Let one run begin for many starts that follow each other: *wait* after the last one, with its arguments.

    Give it to ``@workflow(limits=[…])``.

    Args:
        name, key: As in ``concurrency``; a debounce belongs to one workflow.
        wait: How long the run waits for the next start: ``"5s"``.
        at_most: How long it waits after the first start, whatever follows; None for no bound.

    Raises:
        ConfigurationError: *wait* is no time, *at_most* is shorter, or another value is not as described.
    """
    what = f"debounce({name!r})"
    micros = _duration(what, "wait", wait)
    bound = None if at_most is None else _duration(what, "at_most", at_most)
    if bound is not None and bound < micros:
        raise ConfigurationError(f"{what}: at_most={at_most!r} is shorter than wait={wait!r}.  Make it longer.")
    return FlowLimit(_name(name), 1, micros, key=_key(name, key), wait=micros, at_most=bound)


def _duration(what: str, parameter: str, value: Any) -> int:
    """Return a duration that is not 0, in microseconds."""
    try:
        micros = duration.to_micros(value, what=parameter)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{what}: {error}") from error
    if micros == 0:
        raise ConfigurationError(
            f"{what}: {parameter}={value!r} is no time at all.  Use 1 second, say: {parameter}='1s'."
        )
    return micros


def check_number(n: object, what: str = "n") -> int:
    """Return the number of a limit.  Raises ConfigurationError when it is none."""
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST:
        raise ConfigurationError(
            f"{what}={n!r} is no number for a limit: use a whole number from 1 to {MOST:,}."
            "  With 0 nothing would ever run."
        )
    return n


def check_limits(limits: Iterable[FlowLimit], noun: str, name: str, signature: Signature) -> tuple[FlowLimit, ...]:
    """
    Return the limits of a step or workflow, each name once.

    Args:
        noun: "step" or "workflow".

    Raises:
        ConfigurationError: One can be no limit of it.
    """
    given = tuple(limits) if isinstance(limits, Iterable) and not isinstance(limits, str) else (limits,)
    for each in given:
        if not isinstance(each, FlowLimit):
            raise ConfigurationError(
                f"@{noun}: limits of {name} has {each!r}, which is no limit.  Write for example"
                " limits=[concurrency('stripe', 10)]."
            )
        if isinstance(each.key, str) and each.key not in signature.parameters:
            raise ConfigurationError(
                f"@{noun}: the limit {each.name!r} of {name} has key={each.key!r}, and the {noun} has no such"
                f" parameter.{did_you_mean(each.key, signature.parameters)}"
            )
        if noun == "step" and (each.wait is not None or each.on_conflict != ON_CONFLICT[0]):
            what = "a debounce" if each.wait is not None else f"on_conflict={each.on_conflict!r}"
            raise ConfigurationError(
                f"@step: the limit {each.name!r} of {name} has {what}, which only a workflow can have: a step that is"
                " called has to run.  Give it to the workflow, @workflow(limits=[…])."
            )
    names = [each.name for each in given]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"@{noun}: {name} has the limit {twice!r} twice.  Give one of them another name.")
    debounces = [each.name for each in given if each.wait is not None]
    if len(debounces) > 1:
        raise ConfigurationError(
            f"@workflow: {name} has {len(debounces)} debounces, {', '.join(debounces)}.  Keep one."
        )
    return tuple(replace(each, noun=noun) for each in given)


def key_of(limit: FlowLimit, call: inspect.BoundArguments) -> str:
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
        given = _with_defaults(limit.key, call)
        key, source = limit.key(*given.args, **given.kwargs), "its key function"
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


def _with_defaults(key: KeyFunction, call: inspect.BoundArguments) -> inspect.BoundArguments:
    """The arguments of a call with the defaults, unless its key function cannot take them."""
    whole = inspect.BoundArguments(call.signature, dict(call.arguments))
    whole.apply_defaults()
    try:
        inspect.signature(key).bind(*whole.args, **whole.kwargs)
    except (TypeError, ValueError):
        return call
    return whole


def _name(name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise ConfigurationError(f"The name of a limit is text of 1 to {LONGEST_NAME} characters, and not {name!r}.")
    return name


def _key(name: str, key: Any) -> str | KeyFunction | None:
    if key is None or isinstance(key, str):
        return key
    if not callable(key) or inspect.iscoroutinefunction(key):
        raise ConfigurationError(
            f"The key of the limit {name!r} is {key!r}.  Use the name of a parameter, or a `def` that takes the"
            " arguments and returns text."
        )
    return key  # type: ignore[no-any-return]
