"""
The open hooks that a generation was handed over by the one before it.

Each has an op id from the beginning, ``h#1`` and so on, under which it receives payloads.  The workflow takes a hook
over by opening it again, with its token or its name.  Until then its payloads wait here.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ..errors import ConfigurationError
from .commands import OpenHook, UnreadPayload
from .hooks import Hook, Received

#: What the op ids of hooks begin with that were handed over.
PREFIX = "h#"


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """A hook that the workflow has not opened again, and what it has received meanwhile."""

    op_id: str
    name: str
    token: str
    label: str | None
    queue: collections.deque[Received] = field(default_factory=collections.deque)

    @property
    def unread(self) -> list[Received]:
        """What it has received, in that order."""
        return list(self.queue)

    def is_meant(self, name: str, token: str | None, label: str | None) -> bool:
        """Whether a call that opens a hook means this one: by its token, or by its label and what it is."""
        if token is not None:
            return token == self.token
        return label is not None and label == self.label and (name == "webhook") == (self.name == "webhook")


class HandedOver:
    """The hooks of one generation that it has not opened again, by op id."""

    def __init__(self, recorded: Iterable[Mapping[str, str | None]]) -> None:
        """
        Args:
            recorded: ``handed_over`` of the generation's ``RunCreated``.
        """
        self.unclaimed: dict[str, Unclaimed] = {}
        for each in recorded:
            op_id = str(each["op_id"])
            self.unclaimed[op_id] = Unclaimed(op_id, str(each["name"]), str(each["token"]), each.get("label"))

    def claim(self, name: str, token: str | None, label: str | None) -> Unclaimed | None:
        """Return the hook that a call opens again, which is not here any more then; None if it opens a new one."""
        for op_id, each in self.unclaimed.items():
            if each.is_meant(name, token, label):
                return self.unclaimed.pop(op_id)
        return None


def open_hooks(
    hooks: Iterable[Hook[Any]], unclaimed: Iterable[Unclaimed], drawn: Iterable[str]
) -> tuple[tuple[OpenHook, ...], tuple[UnreadPayload, ...]]:
    """
    Return what a run that continues as new hands over, and the payloads that its workflow has not taken.

    Args:
        drawn: The op ids of the hooks with a random token.

    Raises:
        ConfigurationError: The next generation could not find an open hook again.
    """
    without_name = set(drawn)
    handed: list[OpenHook] = []
    unread: list[UnreadPayload] = []
    still_open: list[Unclaimed | Hook[Any]] = [*unclaimed, *(hook for hook in hooks if hook.open)]
    for each in still_open:
        assert each.op_id is not None
        if each.label is None and each.op_id in without_name:
            raise ConfigurationError(
                f"continue_as_new(): the hook {each.op_id} is open with a random token and without a name, so the next"
                ' generation could not find it again.  Give it a name, as in create_webhook(name="payments"); you may'
                " do that for runs that exist.  Or close it before you continue."
            )
        handed.append(OpenHook(op_id=each.op_id, token=each.token, label=each.label))
        for received in each.unread:
            request_id = None if received.request is None else received.request.id
            unread.append(UnreadPayload(received.stamp, each.op_id, received.payload, request_id))
    return tuple(handed), tuple(sorted(unread, key=lambda payload: payload.stamp))


def op_ids(hooks: Iterable[OpenHook]) -> dict[str, str]:
    """The op ids that hooks have in the next generation, by those that they have now."""
    numbers = count(1)
    return {hook.op_id: f"{PREFIX}{next(numbers)}" for hook in hooks}
