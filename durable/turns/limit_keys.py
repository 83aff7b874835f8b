"""The limits of the steps and child runs that a turn creates, each with the key that the arguments give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .. import codec, registry
from ..client import run_limits
from ..http import Request
from ..registry import FlowLimit, definitions
from ..replay import Command, commands
from ..store import LimitKey


class KeyedLimit(NamedTuple):
    """A limit of a step or workflow, and the key of one call."""

    limit: FlowLimit
    key: str

    @property
    def as_key(self) -> LimitKey:
        """The key as the store knows it."""
        return LimitKey(self.limit.name, self.key)


#: By operation: the limits of a step or child run, each with its key.
KeyedLimits = dict[str, Sequence[KeyedLimit]]


class CallToLimit(NamedTuple):
    """A step or child run that a workflow asks for, what it calls, and the limits of that."""

    command: commands.CreateStep | commands.CreateChild
    called: registry.Defined
    limits: Sequence[FlowLimit]


def limited(asked: Iterable[Command]) -> list[CallToLimit]:
    """
    Find the steps and child runs that have limits.

    A child run is not debounced: its caller waits for it and no other.
    """
    found = []
    for command in asked:
        called: registry.Defined | None = None
        if isinstance(command, commands.CreateStep):
            called = registry.steps.get(command.name)
        elif isinstance(command, commands.CreateChild):
            called = registry.workflows.get(command.name)
        if called is None or not called.limits:
            continue
        assert isinstance(command, commands.CreateStep | commands.CreateChild)
        if limits := [limit for limit in called.limits if limit.wait is None]:
            found.append(CallToLimit(command, called, limits))
    return found


def find_keys(run_id: str, calls: Iterable[CallToLimit], requests: Mapping[str, Request], found: KeyedLimits) -> None:
    """
    Add to *found* the limits of these calls with their keys, which functions of the author return.

    Raises:
        WorkflowCodeError: A key function raises, or a key is no text.  It blocks the run: corrected code goes on.
    """
    for command, called, wanted in calls:
        call = codec.decode_call(command.args, requests, called.signature)
        definitions.fit_arguments(called, call)
        keyed = []
        for limit in wanted:
            try:
                keyed.append(KeyedLimit(limit, registry.key_of(limit, call)))
            except Exception as error:
                raise run_limits.mistake_in_key(run_id, called, limit.name, error) from error
        found[command.op_id] = keyed
