"""The hooks of a fork: their tokens, and their rows."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from secrets import token_bytes

from sqlalchemy import Connection

from .. import events
from ..errors import ForkRefused
from ..replay import CreateHook, ForkPlan, hook_digest
from ..store import Run, hooks


def token_of(tx: Connection, origin: Run, hook: events.HookCreated) -> str:
    """
    Return the token of a hook in the fork: its own where it is free, else a new one.

    A run that has not ended keeps the random tokens that it has, though it may have closed the hook.
    """
    is_random = hook.digest == hook_digest(hook.name, None)
    holder = hooks.owner(tx, hook.token)
    if holder is None and (origin.ended or not is_random):
        return hook.token
    if is_random:
        return base64.urlsafe_b64encode(token_bytes(32)).rstrip(b"=").decode("ascii")
    assert holder is not None
    raise ForkRefused(
        origin.id,
        f"its hook {hook.op_id} is open at the fork under a token of your own, which run {holder[0]} holds, and only"
        " one run can have it.  Cancel that run, or wait until it has ended; or fork before the hook was created",
    )


def open_all(
    tx: Connection,
    origin: Run,
    fork_id: str,
    created: events.RunCreated,
    plan: ForkPlan,
    tokens: Mapping[str, str],
    now: int,
) -> list[str]:
    """
    Open the hooks of a fork, those also that its origin was handed over and has not opened; return their tokens.

    Args:
        created: The event that creates the fork.
        tokens: The tokens of the planned hooks in the fork, by op id.
    """
    known = {event.op_id for event in plan.log if isinstance(event, events.HookCreated | events.HookClosedEvent)}
    wanted = [(hook.op_id, hook.name, tokens[hook.op_id]) for hook in plan.hooks]
    for each in created.handed_over:
        if each["op_id"] not in known:
            wanted.append((str(each["op_id"]), str(each["name"]), str(each["token"])))
    for place, (op_id, name, token) in enumerate(wanted):
        _open(tx, origin, fork_id, op_id, name, token, now + place)
    return [token for _, _, token in wanted]


def _open(tx: Connection, origin: Run, fork_id: str, op_id: str, name: str, token: str, now: int) -> None:
    """Open a hook of the fork, with the options that it has in the run."""
    found = hooks.find_of_run(tx, origin.id, op_id)
    if found is None:
        raise ForkRefused(origin.id, f"the row of its hook {op_id} is gone, so its options are unknown")
    holder = hooks.owner(tx, token)
    if holder is not None:
        raise ForkRefused(origin.id, f"run {holder[0]} holds the token of its hook {op_id}.  Wait until it has ended")
    command = CreateHook(
        op_id=op_id,
        name=name,
        digest="",
        token=token,
        drawn=False,
        config=found.config,
        metadata=hooks.metadata_of(tx, found),
    )
    hooks.create(tx, fork_id, command, now, closed=False)
