"""What ``schedule`` and ``create_schedule`` are given, checked: a definition, which a row of the database holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from .. import codec, duration
from ..errors import ConfigurationError, DecryptionError, SerializationError
from ..nearest import did_you_mean
from ..registry import Workflow, definitions
from ..store import LIMIT, ScheduleRow, Store, schedules
from . import timing as timings
from .timing import Timing

OVERLAPS = ("skip", "queue", "allow", "cancel")
CATCH_UPS = ("none", "last", "all")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
#: From so many of the next planned times ``jitter`` gets the shortest interval.
_SAMPLE = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleDefinition:
    """
    A schedule as its author defines it.

    Attributes:
        args: The encoded arguments.
        digest: Their digest.
        jitter: Microseconds.
        until: The last moment that a planned time may have.
    """

    name: str
    workflow: Workflow[..., Any]
    args: str
    digest: str
    timing: Timing
    tz: str
    overlap: str
    catch_up: str
    jitter: int
    until: int | None

    def columns(self, store: Store, tx: Connection) -> dict[str, Any]:
        """The columns that hold the definition."""
        arguments = schedules.seal_arguments(store.vault, tx, self.name, self.digest, self.args)
        return self._plain_columns() | {"arguments": arguments}

    def _plain_columns(self) -> dict[str, Any]:
        return {
            "workflow": self.workflow.name,
            "queue": self.workflow.options.get("queue"),
            "priority": self.workflow.options.get("priority"),
            "timing": self.timing.to_json(),
            "tz": self.tz,
            "overlap": self.overlap,
            "catch_up": self.catch_up,
            "jitter": self.jitter,
            "until_at": self.until,
        }

    def is_in(self, store: Store, row: ScheduleRow) -> bool:
        """Whether a row holds this definition, arguments that this process can decrypt included."""
        if any(getattr(row, name) != value for name, value in self._plain_columns().items()):
            return False
        try:
            return schedules.arguments_of(store.vault, row) == (self.digest, self.args)
        except DecryptionError:
            return False


def define(
    name: str,
    workflow: Workflow[..., Any],
    args: Any,
    kwargs: Mapping[str, Any] | None,
    *,
    cron: Any,
    every: Any,
    tz: Any,
    overlap: str,
    catch_up: str,
    jitter: Any,
    until: Any,
) -> ScheduleDefinition:
    """
    Check everything that can be checked before the schedule fires.

    Raises:
        ConfigurationError: What is wrong, and what to write instead.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"The schedule's name {name!r} has to be 1 to 200 letters and digits, and . _ : / @ + - after the first."
        )
    what = f"Schedule {name!r}"
    if not isinstance(workflow, Workflow):
        raise ConfigurationError(f"{what} needs a function decorated with @workflow, not {workflow!r}.")
    try:
        timing = timings.make(cron, every, tz)
        text, digest = _arguments(workflow, args, kwargs or {})
    except ConfigurationError as error:
        raise ConfigurationError(f"{what}: {error}") from error
    _check_choice(what, "overlap", overlap, OVERLAPS)
    _check_choice(what, "catch_up", catch_up, CATCH_UPS)
    return ScheduleDefinition(
        name=name,
        workflow=workflow,
        args=text,
        digest=digest,
        timing=timing,
        tz=tz if isinstance(tz, str) else tz.key,
        overlap=overlap,
        catch_up=catch_up,
        jitter=_jitter(what, jitter, timing),
        until=_until(what, until, timing),
    )


def _arguments(workflow: Workflow[..., Any], args: Any, kwargs: Mapping[str, Any]) -> tuple[str, str]:
    """The encoded arguments, and their digest."""
    if not isinstance(args, tuple | list):
        raise ConfigurationError(f"args={args!r} is no tuple.  For one argument write args=({args!r},).")
    try:
        bound = codec.bind(workflow.signature, tuple(args), kwargs)
        # Arguments that would fail each run at its first turn are refused here.
        definitions.fit_arguments(workflow, workflow.signature.bind(*args, **kwargs))
        text = codec.encode_arguments(bound)
    except (TypeError, SerializationError) as error:
        raise ConfigurationError(f"the arguments do not fit {workflow.name}: {error}") from error
    if len(text) > LIMIT:
        raise ConfigurationError(
            f"the arguments have {len(text):,} characters as JSON, and at most {LIMIT:,} are kept.  Keep the data"
            " elsewhere, and pass where it is."
        )
    if codec.request_ids(text):
        raise ConfigurationError("a webhook's Request cannot be an argument: it is deleted with its run.")
    return text, codec.digest(bound, workflow.signature)


def _check_choice(what: str, option: str, given: Any, choices: tuple[str, ...]) -> None:
    if given not in choices:
        hint = did_you_mean(given, choices) if isinstance(given, str) else ""
        raise ConfigurationError(f"{what}: {option}={given!r} is unknown.{hint}  It is one of {', '.join(choices)}.")


def _jitter(what: str, given: Any, timing: Timing) -> int:
    """The jitter in microseconds; it must not bring one planned time behind the next."""
    if given is None:
        return 0
    try:
        jitter = duration.to_micros(given, what="jitter")
    except ValueError as error:
        raise ConfigurationError(f"{what}: {error}") from None
    moment, shortest = timing.next_after(0), duration.LATEST
    for _ in range(_SAMPLE):
        following = None if moment is None else timing.next_after(moment)
        if moment is None or following is None:
            break
        moment, shortest = following, min(shortest, following - moment)
    if jitter > shortest:
        raise ConfigurationError(
            f"{what}: jitter={given!r} is longer than the shortest interval between two planned times,"
            f" {duration.to_text(shortest)}."
        )
    return jitter


def _until(what: str, given: Any, timing: Timing) -> int | None:
    """The last moment that a planned time may have."""
    if given is None:
        return None
    if not isinstance(given, datetime):
        raise ConfigurationError(f"{what}: until={given!r} is no datetime.")
    try:
        until = duration.in_calendar(given)
    except ValueError as error:
        raise ConfigurationError(f"{what}: until: {error}") from None
    first = timing.next_after(0)
    if first is None or first > until:
        raise ConfigurationError(f"{what} never fires: it ends at {given.isoformat()}, before its first planned time.")
    return until
