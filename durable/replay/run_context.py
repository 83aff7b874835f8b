"""
The author's calls as operations of one run's loop.

A call binds and encodes its arguments, and asks the loop for an operation; its
outcome comes with an event, by ``replay``.  Times are microseconds since 1970
UTC.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from secrets import token_bytes
from typing import Any
from unicodedata import category

from .. import attributes, codec, duration
from ..errors import SerializationError
from ..registry import Step, Workflow
from ..sandbox import calling_line
from .commands import CloseHook, CreateChild, CreateHook, CreateStep, RecordMarker, SetAttributes
from .futures import Parked
from .hooks import Hook, Received
from .loop import DurableLoop
from .operations import Identity

#: Characters of the name of a patch: it is part of an op id.
PATCH_LIMIT = 200


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a run knows of itself.  ``started_at`` is microseconds since 1970 UTC."""

    run_id: str
    name: str
    started_at: int
    public_url: str | None = None


class RunContext:
    """
    The author's calls as operations of one run's loop.

    Attributes:
        hooks: By op id; closed ones only as long as something is queued in them.
        taken: Ids of the webhook requests that the workflow has taken out of a queue.
        attributes: What the workflow and its steps have set.
    """

    def __init__(self, loop: DurableLoop, info: RunInfo) -> None:
        self.loop = loop
        self.info = info
        self.hooks: dict[str, Hook[Any]] = {}
        self.taken: set[str] = set()
        self.attributes = attributes.RunAttributes()
        self._randoms: dict[str, Random] = {}
        self._patches: dict[str, bool] = {}
        loop.context = self

    def call_step(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Schedule *step*; TypeError and SerializationError are raised here, at the author's call."""
        bound, digest = _bound_call(step, args, kwargs)
        return self.loop.op(
            Identity("step", step.name, digest),
            lambda op_id: CreateStep(op_id=op_id, name=step.name, digest=digest, args=codec.encode_arguments(bound)),
        )

    def call_child(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Start *workflow* as a run of its own."""
        bound, digest = _bound_call(workflow, args, kwargs)
        return self.loop.op(
            Identity("child", workflow.name, digest),
            lambda op_id: CreateChild(
                op_id=op_id,
                name=workflow.name,
                digest=digest,
                args=codec.encode_arguments(bound),
                run_id=child_run_id(self.info.run_id, op_id),
            ),
        )

    def sleep(self, value: str | float | timedelta | datetime) -> Awaitable[None]:
        """Wait until a moment by the run's clock."""
        due_at = duration.due_at(value, self.loop.now)
        if due_at > self.loop.now:
            return self.loop.op(*self.loop.wait("sleep", due_at))
        future = self.loop.create_future()
        self.loop.call_soon(_end, future)
        return future

    def random(self) -> Random:
        """The generator of the running task: what others draw meanwhile changes nothing."""
        path = self.loop.path()
        if path not in self._randoms:
            # A str seeds the same way in every process; a hash would not.
            self._randoms[path] = Random(f"{self.info.run_id}:{path}")
        return self._randoms[path]

    def open_hook(
        self,
        kind: type[Hook[Any]],
        name: str,
        token: str | None,
        metadata: object,
        *,
        config: str | None = None,
        payload_type: Any = Any,
    ) -> Hook[Any]:
        """Ask for a token, and listen on it."""
        if token is not None:
            _check_token(token)
        told = None if metadata is None else codec.encode(metadata, "metadata")
        digest = _digest(name, token)

        def build(op_id: str) -> CreateHook:
            return CreateHook(
                op_id=op_id,
                name=name,
                digest=digest,
                token=token or _drawn_token(),
                drawn=token is None,
                config=config,
                metadata=told,
            )

        entered: Any = self.loop.issue(Identity("hook", name, digest), build)
        op_id, known = (None, token or "") if entered is None else (entered.op_id, entered.token)
        hook = kind(self.loop, op_id, known, lambda item: self._read(op_id, item, payload_type), self._closed)
        if op_id is not None:
            self.hooks[op_id] = hook
        return hook

    def patched(self, name: str) -> bool:
        """Whether the run goes the new way: decided once per name and run, and recorded."""
        _check_patch(name)
        key = f"patch:{name}"
        if key in self.loop.ledger.noted:
            return True
        if name not in self._patches:
            self._patches[name] = not self.loop.replaying
            if self._patches[name]:
                self.loop.ask(key, RecordMarker(op_id=key, name=name))
        return self._patches[name]

    def set_attributes(self, change: attributes.Changes) -> None:
        """
        Change the run's attributes.

        It shifts no operation, and is never compared with the log: a call that an earlier turn has
        passed sets nothing now, whether that turn recorded it or the code has changed since.
        """
        attributes.check(self.attributes.current(), change)
        if not change:
            return
        op_id = self.loop.numbered("@")
        if not self.loop.replaying:
            self.loop.ask(op_id, SetAttributes(op_id=op_id, attributes=dict(change)))
        elif op_id not in self.loop.ledger.noted:
            return
        self.attributes.request(op_id, change)

    def _closed(self, hook: Hook[Any]) -> None:
        op_id = hook.op_id
        if op_id is None:
            return
        self.loop.ledger.ended.add(op_id)
        if not hook.waiting:
            del self.hooks[op_id]
        if op_id not in self.loop.ledger.given_up and not hook.has_conflict:
            self.loop.ask(f"{op_id}/close", CloseHook(op_id=op_id))

    def _read(self, op_id: str | None, received: Received, payload_type: Any) -> Any:
        if received.request is not None:
            self.taken.add(received.request.id or "")
            return received.request
        try:
            value = codec.decode(received.payload or "null", received.requests)
            return codec.fit(value, payload_type, "payload")
        except SerializationError as error:
            # It was valid where it was sent: this is other code, and no failure of the run.
            sent = codec.plain(received.payload or "null")  # secrets in it are not shown
            self.loop.diverge(str(op_id), f"payload {sent!r}", f"nothing, for {error}", calling_line())
            raise Parked from error


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def child_run_id(run_id: str, op_id: str) -> str:
    """The id of the run that the call *op_id* starts: the same however often it is asked."""
    return hashlib.sha256(f"{run_id}/{op_id}".encode()).hexdigest()[:32]


def _bound_call(
    called: Step[..., Any] | Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """The arguments by name, and by what they are compared."""
    bound = codec.bind(called.signature, args, kwargs)
    return bound, codec.digest(bound, called.signature)


def _drawn_token() -> str:
    return base64.urlsafe_b64encode(token_bytes(32)).rstrip(b"=").decode("ascii")


def _digest(name: str, token: str | None) -> str:
    return hashlib.sha256(json.dumps([name, token]).encode()).hexdigest()[:32]


def _check_token(token: object) -> None:
    if not isinstance(token, str) or not 1 <= len(token) <= 255 or any(map(_is_control, token)):
        raise ValueError(f"token {token!r} must be a str of 1 to 255 characters without control characters.")


def _is_control(character: str) -> bool:
    """Control characters, and halves of surrogate pairs, which no database keeps."""
    return category(character) in ("Cc", "Cs")


def _check_patch(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= PATCH_LIMIT or not name.isascii() or not name.isprintable():
        raise ValueError(f"patched({name!r}): a name has 1 to {PATCH_LIMIT} printable ASCII characters.")
