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


def find_limits(run_id: str, asked: Iterable[Command], requests: Mapping[str, Request], found: KeyedLimits) -> None:
    """
    Add to *found* the limits of the steps and child runs that a workflow asks for.

    This calls the key functions of the author.  A child run is not debounced: its caller waits for it and no other.

    Raises:
        WorkflowCodeError: A key function raises, or a key is no text.  It blocks the run: corrected code goes on.
    """
    for command in asked:
        called: registry.Defined | None = None
        if isinstance(command, commands.CreateStep):
            called = registry.steps.get(command.name)
        elif isinstance(command, commands.CreateChild):
            called = registry.workflows.get(command.name)
        wanted = [] if called is None else [limit for limit in called.limits if limit.wait is None]
        if called is None or not wanted:
            continue
        assert isinstance(command, commands.CreateStep | commands.CreateChild)
        call = codec.decode_call(command.args, requests, called.signature)
        definitions.fit_arguments(called, call)
        keyed = []
        for limit in wanted:
            try:
                keyed.append(KeyedLimit(limit, registry.key_of(limit, call)))
            except Exception as error:
                raise run_limits.mistake_in_key(run_id, called, limit.name, error) from error
        found[command.op_id] = keyed
