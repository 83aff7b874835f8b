"""
A workflow's calls as operations of its run.

A call binds and encodes its arguments and issues an operation on the loop.
``replay`` resolves it when the event with its outcome comes.  Times are
microseconds since 1970 UTC.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable
from datetime import datetime, timedelta
from random import Random
from secrets import token_bytes
from typing import Any, NoReturn
from unicodedata import category

from .. import attributes, codec, duration
from ..errors import SerializationError
from ..registry import Step, StreamOptions, Workflow, definitions
from ..sandbox import calling_line
from . import commands
from .futures import Parked
from .handed_over import HandedOver, open_hooks
from .hooks import Hook, Received, Webhook
from .loop import DurableLoop
from .operations import OperationSpec
from .question import Deliver, as_sent
from .run_info import RunInfo

#: The longest name of a patch, in characters; it is part of an op id.
MAX_PATCH_NAME = 200

#: The longest token of a hook, and the longest name, in characters.
MAX_TOKEN = 255

#: At how many events ``should_continue_as_new`` is true, if the setting ``max_events`` allows twice as many.  Logs
#: without another number rely on this one: a replay must answer as the run did.
CONTINUE_AT = 4_000


class RunContext:
    """
    A workflow's calls as operations of its run.

    Attributes:
        hooks: By op id.  A closed hook stays while its queue holds something.
        taken: Ids of the webhook requests and questions that the workflow has taken out of a queue.
        replied: Ids of the questions that have a reply, as far as the workflow has seen.
        attributes: The attributes that the workflow and its steps have set.
        handed_over: The hooks of the generation before that the workflow has not opened again.
    """

    def __init__(self, loop: DurableLoop, info: RunInfo, workflow: Workflow[..., Any]) -> None:
        self.loop = loop
        self.workflow = workflow
        self.info = info
        self.hooks: dict[str, Hook[Any]] = {}
        self.taken: set[str] = set()
        self.replied: set[str] = set()
        self.attributes = attributes.RunAttributes()
        self.handed_over = HandedOver(info.handed_over)
        #: The op ids of the hooks with a random token.
        self._drawn: set[str] = set()
        self._randoms: dict[str, Random] = {}
        self._patches: dict[str, bool] = {}
        loop.context = self

    def call_step(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Schedule *step*.  Wrong arguments raise TypeError or SerializationError here, at the author's call."""
        bound, digest = self._bound_call(step, args, kwargs)
        return self.loop.schedule(
            OperationSpec("step", step.name, digest),
            lambda op_id: commands.CreateStep(
                op_id=op_id, name=step.name, digest=digest, args=codec.encode_arguments(bound)
            ),
        )

    def call_child(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Start *workflow* as a child run."""
        bound, digest = self._bound_call(workflow, args, kwargs)
        return self.loop.schedule(
            OperationSpec("child", workflow.name, digest),
            lambda op_id: commands.CreateChild(
                op_id=op_id,
                name=workflow.name,
                digest=digest,
                args=codec.encode_arguments(bound),
                run_id=child_run_id(self.info.run_id, op_id),
            ),
        )

    def sleep(self, value: str | float | timedelta | datetime) -> Awaitable[None]:
        """Wait until a time on the run's clock."""
        due_at = duration.due_at(value, self.loop.now)
        if due_at > self.loop.now:
            return self.loop.schedule(*self.loop.wait_spec("sleep", due_at))
        return self.loop.ended_call("sleep")

    def random(self) -> Random:
        """The random generator of the running task.  Each task has its own, so the order of tasks changes nothing."""
        path = self.loop.path()
        if path not in self._randoms:
            # A str seeds the same sequence in every process; a hash does not.
            self._randoms[path] = Random(f"{self.info.seed or self.info.run_id}:{path}")
        return self._randoms[path]

    def open_hook(
        self,
        kind: type[Hook[Any]],
        name: str,
        token: str | None,
        metadata: object,
        *,
        label: str | None = None,
        config: str | None = None,
        deliver: Deliver = as_sent,
    ) -> Hook[Any]:
        """
        Open a hook under *token*, or under a random token.

        A hook of the generation before with this token or *label* is opened again.
        """
        if token is not None:
            _check_token(token)
        self._check_label(name, label)
        encoded_metadata = None if metadata is None else codec.encode(metadata, "metadata")
        digest = hook_digest(name, self._as_recorded(token))

        before = None if self.loop.closing else self.handed_over.claim(name, token, label)
        known = token if before is None else before.token

        def build(op_id: str) -> commands.CreateHook:
            return commands.CreateHook(
                op_id=op_id,
                name=name,
                digest=digest,
                token=known or base64.urlsafe_b64encode(token_bytes(32)).rstrip(b"=").decode("ascii"),
                drawn=known is None,
                config=config,
                metadata=encoded_metadata,
                is_handed_over=before is not None,
            )

        issued: Any = self.loop.issue(
            OperationSpec("hook", name, digest), build, None if before is None else before.op_id
        )
        op_id, address = (None, token or "") if issued is None else (issued.op_id, issued.token)
        hook = kind(self.loop, op_id, address, lambda item: self._read(op_id, item, deliver), self._on_close, label)
        if op_id is not None:
            self.hooks[op_id] = hook
            if token is None:
                self._drawn.add(op_id)
        for received in () if before is None else before.queue:
            hook.put(received)
        return hook

    def _as_recorded(self, token: str | None) -> str | None:
        """The token that a call had in the run that this one was forked from, if its text has this run's id."""
        for own, original in (self.info.renamed or {}).items():
            token = token and token.replace(own, original)
        return token

    def _bound_call(
        self, called: Step[..., Any] | Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """The arguments by name, and their digest."""
        bound = codec.bind(called.signature, args, kwargs)
        return bound, codec.digest(bound, called.signature, self.info.renamed)

    def _check_label(self, name: str, label: str | None) -> None:
        if label is None:
            return
        if not isinstance(label, str) or not 1 <= len(label) <= MAX_TOKEN or not label.isprintable():
            raise ValueError(f"name {label!r} must be a str of 1 to {MAX_TOKEN} printable characters.")
        if any(
            each.open and each.label == label and isinstance(each, Webhook) == (name == "webhook")
            for each in self.hooks.values()
        ):
            raise ValueError(
                f"A hook of this run with the name {label!r} is open already.  Close it, or use another name."
            )

    # Generations

    def should_continue_as_new(self) -> bool:
        """Whether the log is long, as of the event that the workflow sees now; the same on every replay."""
        return self.loop.seq >= (self.info.continue_at or CONTINUE_AT)

    def continue_as_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        """End the run, and start its next generation with these arguments, which are checked here."""
        if self.loop.closing:
            raise Parked
        signature = self.workflow.signature
        try:
            bound = signature.bind(*args, **kwargs)
            definitions.fit_arguments(self.workflow, bound)
            text = codec.encode_arguments(bound.arguments)
        except (TypeError, SerializationError) as error:
            # A TypeError blocks the run, which loses nothing, and goes on with corrected code.
            raise TypeError(
                f"continue_as_new(): {self.workflow.name}{signature} cannot be called with these arguments: {error}"
            ) from error
        handed, unread = open_hooks(self.hooks.values(), self.handed_over.unclaimed.values(), self._drawn)
        outcome = commands.Outcome(
            status="continued", value=text, digest=codec.digest(bound.arguments, signature), hooks=handed, unread=unread
        )
        self.loop.continue_as_new(outcome)

    def patched(self, name: str) -> bool:
        """Whether the run takes the new way.  It is decided once for each name and run, and recorded."""
        is_text = isinstance(name, str) and name.isascii() and name.isprintable()
        if not is_text or not 1 <= len(name) <= MAX_PATCH_NAME:
            raise ValueError(f"patched({name!r}): a name has 1 to {MAX_PATCH_NAME} printable ASCII characters.")
        key = f"patch:{name}"
        if key in self.loop.operations.markers:
            return True
        if name not in self._patches:
            self._patches[name] = not self.loop.replaying
            if self._patches[name]:
                self.loop.add_command(key, commands.RecordMarker(op_id=key, name=name))
        return self._patches[name]

    def set_attributes(self, change: attributes.Changes) -> None:
        """
        Change the run's attributes.

        The call has no op id of its own and is never compared with the log, so code may add and remove
        such calls anywhere.  While an earlier turn is replayed, a call that the log does not record
        changes nothing.
        """
        attributes.check(self.attributes.current(), change)
        if not change:
            return
        op_id = self.loop.next_name("@")
        if not self.loop.replaying:
            self.loop.add_command(op_id, commands.SetAttributes(op_id=op_id, attributes=dict(change)))
        elif op_id not in self.loop.operations.markers:
            return
        self.attributes.request(op_id, change)

    def publish(self, name: str, value: str) -> None:
        """Publish an encoded value.  As with ``set_attributes``, the call is never compared with the log."""
        op_id = self.loop.next_name("=")
        if not self.loop.replaying:
            self.loop.add_command(op_id, commands.PublishValue(op_id=op_id, name=name, value=value))

    def reply(self, request_id: str, value: str) -> bool:
        """
        Reply to a question with an encoded value; False if it has a reply already, as far as the log tells.

        As with ``set_attributes``, the call is never compared with the log.
        """
        op_id = self.loop.next_name("!")
        if request_id in self.replied:
            return False
        if not self.loop.replaying:
            self.loop.add_command(op_id, commands.SendReply(op_id=op_id, request_id=request_id, value=value))
        elif op_id not in self.loop.operations.markers:
            return True
        self.replied.add(request_id)
        return True

    def emit(self, name: str, item: str | None, options: StreamOptions) -> None:
        """Add an encoded item to a stream, or close it with None.  The call is never compared with the log either."""
        op_id = self.loop.next_name("~")
        if not self.loop.replaying:
            self.loop.add_command(op_id, commands.EmitItem(op_id=op_id, name=name, item=item, options=options))

    def _on_close(self, hook: Hook[Any]) -> None:
        op_id = hook.op_id
        if op_id is None:
            return
        self.loop.operations.ended.add(op_id)
        if not hook.queue:
            del self.hooks[op_id]
        if op_id not in self.loop.operations.given_up and not hook.has_conflict:
            self.loop.add_command(f"{op_id}/close", commands.CloseHook(op_id=op_id))

    def _read(self, op_id: str | None, received: Received, deliver: Deliver) -> Any:
        request = received.request
        if request is not None:
            self.taken.add(request.id or "")
            if received.payload is None:
                return request
        try:
            return deliver(codec.decode(received.payload or "null", received.requests), request)
        except SerializationError as error:
            # The sender checked it, so the type has changed since.  That is a divergence, and no failure of the run.
            sent = codec.shown_in_error(received.payload or "null")
            self.loop.diverge(str(op_id), f"payload {sent}", f"nothing, for {error}", calling_line())
            raise Parked from error


def _check_token(token: object) -> None:
    """Raise ValueError for what cannot be a token."""
    # Cc: control characters; Cs: halves of surrogate pairs, which databases refuse.
    if (
        not isinstance(token, str)
        or not 1 <= len(token) <= MAX_TOKEN
        or any(category(character) in ("Cc", "Cs") for character in token)
    ):
        raise ValueError(f"token {token!r} must be a str of 1 to {MAX_TOKEN} characters without control characters.")


def child_run_id(run_id: str, op_id: str) -> str:
    """The id of the child run that the call *op_id* starts, the same on every replay."""
    return hashlib.sha256(f"{run_id}/{op_id}".encode()).hexdigest()[:32]


def hook_digest(name: str, token: str | None) -> str:
    """The digest of a hook's creation; *token* is None for a random one."""
    return hashlib.sha256(json.dumps([name, token]).encode()).hexdigest()[:32]
