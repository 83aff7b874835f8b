"""``define_hook``: hooks whose payloads, and replies, have a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from .. import codec, current
from ..errors import ConfigurationError, HookPayloadError, SerializationError
from ..http import Request
from ..replay import Hook, Question, reply_types
from ..sandbox import guards
from .workflow import T, run_context

R = TypeVar("R")
#: What the workflow gets for a payload.
Got = TypeVar("Got")
Check = TypeVar("Check", bound=Callable[..., object])

#: The typed hooks of this process, by name.  ``resume_hook`` validates payloads with them.
definitions: dict[str, TypedHook[Any, Any]] = {}

_NO_REPLY: Any = object()


class TypedHook(Generic[T, Got]):
    """
    What hooks with a type have in common: ``T`` is the type of a payload, ``Got`` what the workflow gets for one.

    Attributes:
        validators: Functions that may refuse a payload which fits the type.
        takes_questions: Whether the workflow can reply.
    """

    takes_questions: bool

    def __init__(self, payload_type: type[T] | Any, name: str | None) -> None:
        self.type = payload_type
        self.name = _type_name(payload_type) if name is None else name
        self.validators: list[Callable[[Any], object]] = []

    def create(self, token: str | None = None, metadata: object = None, *, name: str | None = None) -> Hook[Got]:
        """Open a hook for payloads of this type; see ``create_hook``."""
        return run_context(f"{self.name}.create").open_hook(
            Hook,
            self.name,
            token,
            metadata,
            label=name,
            deliver=self.deliver,
        )

    def deliver(self, payload: Any, request: Request | None) -> Got:
        """What the workflow gets for a payload; *request* is None if its sender waits for no reply."""
        raise NotImplementedError

    def resume(self, token: str, payload: Any, *, wait: Any = None, wait_taken: Any = None) -> Any:
        """
        Validate *payload* and send it to the hook with this token; *wait* and *wait_taken* are ``resume_hook``'s.

        Returns:
            The Run that was resumed.

        Raises:
            HookPayloadError: The payload does not fit the type, or a validator refuses it.  Nothing is recorded.
            HookNotFound: No open hook has this token.
        """
        fitted = self._fit_to_send("resume", token, payload)
        return current.current_engine().resume_hook(token, fitted, wait, wait_taken)

    def validator(self, check: Check) -> Check:
        """
        Decorator: call the function with each payload before it is sent, in the process of the caller.

        The payload has the hook's type.  A ValueError refuses it: the caller gets a HookPayloadError with its text, and
        nothing is recorded.
        """
        self.validators.append(check)
        return check

    async def aresume(self, token: str, payload: Any, *, wait: Any = None, wait_taken: Any = None) -> Any:
        """Do the same as ``resume`` in an event loop."""
        fitted = self._fit_to_send("aresume", token, payload)
        return await current.current_engine().aresume_hook(token, fitted, wait, wait_taken)

    def _fit_to_send(self, call: str, token: str, payload: Any, **fix: str) -> T:
        """*payload* with the type.  The engine calls the validators, by the type of the hook that has the token."""
        guards.refuse_in_workflow(f"{self.name}.{call}", **fix)
        return self.fit(token, payload)

    def validate(self, token: str, payload: Any) -> T:
        """
        *payload*, converted to the type by pydantic, if no validator refuses it.

        Only the engine calls it, once for each payload that it accepts, and not in an event loop's thread.

        Raises:
            HookPayloadError: It does not fit the type, or a validator refuses it.
        """
        fitted = self.fit(token, payload)
        for check in self.validators:
            try:
                check(fitted)
            except ValueError as error:
                raise HookPayloadError(token, [{"type": "refused", "loc": (), "msg": str(error)}]) from error
        return fitted

    def fit(self, token: str, payload: Any) -> T:
        """*payload*, converted to the type by pydantic.  Raises HookPayloadError."""
        try:
            return codec.fit(payload, self.type, "payload")  # type: ignore[no-any-return]
        except SerializationError as error:
            from pydantic import ValidationError

            cause = error.__cause__
            hides = codec.holds_secret(self.type)
            found: Any = (
                cause.errors(include_input=not hides, include_context=not hides)
                if isinstance(cause, ValidationError)
                else [{"msg": error.reason}]
            )
            raise HookPayloadError(token, found) from cause


class HookDefinition(TypedHook[T, T]):
    """A hook whose payloads have a type.  A replay compares the ``name``."""

    takes_questions = False

    def deliver(self, payload: Any, request: Request | None) -> T:
        """The payload, with its type."""
        return codec.fit(payload, self.type, "payload")  # type: ignore[no-any-return]


class QuestionDefinition(TypedHook[T, Question[T, R]]):
    """A hook whose payloads and replies have types.  The workflow gets each payload as a ``Question``."""

    takes_questions = True

    def __init__(self, payload_type: type[T] | Any, name: str | None, reply_type: type[R] | Any) -> None:
        super().__init__(payload_type, name)
        self.reply_type = reply_type

    def deliver(self, payload: Any, request: Request | None) -> Question[T, R]:
        """The payload, with its type, as a question."""
        return Question(codec.fit(payload, self.type, "payload"), request, self.name)

    def ask(self, token: str, payload: Any, *, wait: Any = None, timeout: Any = None) -> R:
        """
        Validate *payload*, send it to the hook with this token, and wait for the reply of the workflow.

        Args:
            wait: How long to wait for a hook that is about to be created, as ``sleep`` takes it.
            timeout: How long to wait for the reply, as ``sleep`` takes it; None: as long as the run goes on.

        Raises:
            HookPayloadError, HookNotFound: Nothing is recorded; see ``resume``.
            ReplyNotSent: The run has ended, or closed the hook, without a reply.
            ReplyPending: There is no reply yet (a TimeoutError).  The payload is recorded, so do not send it again:
                ``get_reply`` waits for the reply.
            SerializationError: The reply does not have the type any more.
        """
        fitted = self._fit_to_send("ask", token, payload, fix="call it in a step")
        reply = current.current_engine().ask(token, fitted, wait, timeout)
        return codec.fit(reply, self.reply_type, "reply")  # type: ignore[no-any-return]

    def get_reply(self, request_id: str, *, timeout: Any = None) -> R:
        """
        Wait for the reply to a payload that ``ask`` has sent, in this process or in another one, and return it.

        Args:
            request_id: That of the ``ReplyPending`` which ``ask`` has raised.
            timeout: How long to wait for the reply, as ``sleep`` takes it; None: as long as the run goes on.

        Raises:
            QuestionNotFound: No question has this id.
            ReplyNotSent, ReplyPending, SerializationError: As ``ask`` raises them.
        """
        guards.refuse_in_workflow(f"{self.name}.get_reply", "call it in a step")
        reply = current.current_engine().get_reply(request_id, timeout)
        return codec.fit(reply, self.reply_type, "reply")  # type: ignore[no-any-return]

    async def aget_reply(self, request_id: str, *, timeout: Any = None) -> R:
        """Do the same as ``get_reply`` in an event loop.  It takes no thread while it waits."""
        guards.refuse_in_workflow(f"{self.name}.aget_reply", "call it in a step")
        reply = await current.current_engine().aget_reply(request_id, timeout)
        return codec.fit(reply, self.reply_type, "reply")  # type: ignore[no-any-return]

    async def aask(self, token: str, payload: Any, *, wait: Any = None, timeout: Any = None) -> R:
        """Do the same as ``ask`` in an event loop.  It takes no thread while it waits."""
        fitted = self._fit_to_send("aask", token, payload, fix="call it in a step")
        reply = await current.current_engine().aask(token, fitted, wait, timeout)
        return codec.fit(reply, self.reply_type, "reply")  # type: ignore[no-any-return]


@overload
def define_hook(payload_type: type[T], name: str | None = None) -> HookDefinition[T]: ...


@overload
def define_hook(payload_type: Any, name: str | None = None) -> HookDefinition[Any]: ...


@overload
def define_hook(payload_type: type[T], name: str | None = None, *, reply: type[R]) -> QuestionDefinition[T, R]: ...


@overload
def define_hook(payload_type: type[T], name: str | None = None, *, reply: Any) -> QuestionDefinition[T, Any]: ...


@overload
def define_hook(payload_type: Any, name: str | None = None, *, reply: type[R]) -> QuestionDefinition[Any, R]: ...


@overload
def define_hook(payload_type: Any, name: str | None = None, *, reply: Any) -> QuestionDefinition[Any, Any]: ...


def define_hook(payload_type: Any, name: str | None = None, *, reply: Any = _NO_REPLY) -> TypedHook[Any, Any]:
    """
    Define a hook whose payloads are of *payload_type*, any type that pydantic validates.

    Args:
        name: 1 to 255 characters, by default the type's ``module.qualname``.  Set it to the old name when
            you move the type.
        reply: The type of the workflow's replies, which ``ask`` returns.  The workflow then gets each payload as a
            ``Question``.

    Raises:
        ConfigurationError: pydantic cannot validate a type, the name is invalid, or another type has it.
    """
    for each, of in ((payload_type, "payloads"), (reply, "replies")):
        if each is not _NO_REPLY and not codec.is_checked(each):
            raise ConfigurationError(
                f"define_hook({each!r}): pydantic cannot check {of} against this type, so any would pass.  Use a"
                " dataclass, a TypedDict, a pydantic model or a builtin type, or create_hook for any payload."
            )
    defined: TypedHook[Any, Any]
    if reply is _NO_REPLY:
        defined = HookDefinition(payload_type, name)
    else:
        defined = QuestionDefinition(payload_type, name, reply)
    _check_name(defined)
    definitions[defined.name] = defined
    if isinstance(defined, QuestionDefinition):
        reply_types[defined.name] = reply
    return defined


def _type_name(payload_type: Any) -> str:
    if isinstance(payload_type, type):
        return f"{payload_type.__module__}.{payload_type.__qualname__}"
    return str(payload_type)


def _check_name(defined: TypedHook[Any, Any]) -> None:
    """Refuse a name that is not the same in every process, since it is stored and each replay compares it."""
    name, before = defined.name, definitions.get(defined.name)
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or name in ("hook", "webhook"):
        problem = "does not have 1 to 255 characters, or is reserved for hooks without a type"
    elif " at 0x" in name:
        problem = "contains a memory address, which differs in each process"
    elif before is not None and _type_name(before.type) != _type_name(defined.type):
        problem = f"belongs to {before.type!r}"
    else:
        return
    raise ConfigurationError(
        f"define_hook({defined.type!r}): the name {name!r} {problem}.  Give it another name with name=..."
    )
