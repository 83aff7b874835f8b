"""The limits of the steps that a turn creates, each with the key that the step's arguments give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .. import codec, registry
from ..errors import WorkflowCodeError
from ..http import Request
from ..registry import StepLimit, definitions
from ..replay import Command, commands
from ..sandbox import raising_line
from ..store import LimitKey


class KeyedLimit(NamedTuple):
    """A limit of a step, and the key of one call."""

    limit: StepLimit
    key: str

    @property
    def as_key(self) -> LimitKey:
        """The key as the store knows it."""
        return LimitKey(self.limit.name, self.key)


#: By operation: the limits of a step, each with its key.
KeyedLimits = dict[str, Sequence[KeyedLimit]]


def find_limits(run_id: str, asked: Iterable[Command], requests: Mapping[str, Request], found: KeyedLimits) -> None:
    """
    Add to *found* the limits of the steps that a workflow asks for.  This calls the key functions of the author.

    Raises:
        WorkflowCodeError: A key function raises, or a key is no text.  It blocks the run: corrected code goes on.
    """
    for command in asked:
        if not isinstance(command, commands.CreateStep):
            continue
        step = registry.steps.get(command.name)
        if step is None or not step.limits:
            continue
        call = codec.decode_call(command.args, requests, step.signature)
        definitions.fit_arguments(step, call)
        keyed = []
        for limit in step.limits:
            try:
                keyed.append(KeyedLimit(limit, registry.key_of(limit, call)))
            except Exception as error:
                summary = codec.error_summary(codec.encode_error(error))
                message = f"{summary.message} (the key of the limit {limit.name!r} of step {step.name})"
                mistake = WorkflowCodeError(run_id, summary.error_type, message, raising_line(error) or step.place)
                raise mistake from error
        found[command.op_id] = keyed
