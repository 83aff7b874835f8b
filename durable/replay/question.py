"""
``Question``: a payload whose sender waits for a reply.

The reply is the answer to a request, as a webhook's is: a ``Response`` whose body is an encoded value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .. import codec, current
from ..http import Request, Response

if TYPE_CHECKING:
    from pydantic_core import core_schema

T = TypeVar("T")
R = TypeVar("R")

#: The method of the request that stands for a question in the store.  A webhook accepts only methods in upper case.
METHOD = "question"

#: The types of replies by the name of the hook, as ``define_hook`` declares them.
reply_types: dict[str, Any] = {}

#: Makes of a payload what the workflow gets; the request is None if no sender waits for a reply.
Deliver = Callable[[Any, Request | None], Any]


@dataclass(frozen=True, repr=False)
class Question(Generic[T, R]):
    """
    A payload whose sender may wait for a reply.

    You can create one in a test: ``Question(payload)`` has no sender.

    Attributes:
        payload: What was sent.
    """

    payload: T
    #: What the reply answers in the store; None if no sender waits.
    request: Request | None = None
    #: The name of the hook, by which the type of its replies is found.
    hook: str = "hook"

    def __repr__(self) -> str:
        return f"<Question {self.id or '(no sender waits)'} {type(self.payload).__name__}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        """For annotations: pydantic checks the type, not the payload."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)

    @property
    def id(self) -> str | None:
        """The id under which the reply is recorded; None if no sender waits."""
        return None if self.request is None else self.request.id

    def reply(self, value: R) -> bool:
        """
        Send the reply.  Call it in a workflow or in a step.

        The first reply wins.  In a workflow it is committed with the turn; in a step at once, and it stays even when
        the step fails.  If no sender waits, the value is only checked, and the result is True.

        Args:
            value: What a step may return; it has to fit the type of replies, if the hook has one.

        Returns:
            False if the question has a reply already, or this attempt no longer counts.  A workflow knows what the log
            knows, which does not have the reply of an attempt that died.

        Raises:
            SerializationError: The value cannot be encoded, or does not fit the type.  Nothing is recorded.
        """
        text = codec.encode(codec.fit(value, reply_types.get(self.hook, Any), "reply"), "reply")
        if self.id is None:
            return True
        loop = current.workflow_loop()
        if loop is not None:
            return bool(loop.context.reply(self.id, text))
        step = current.running_step.get()
        if step is not None:
            return step.respond(self.id, response_of(text))
        return bool(current.current_engine().respond(self.id, response_of(text)))


def as_sent(payload: Any, request: Request | None) -> Any:
    """What a hook without a type delivers: a payload as itself, and one whose sender waits as a ``Question``."""
    return payload if request is None else Question(payload, request)


def request_of(request_id: str, received_at: Any) -> Request:
    """The request that stands for a question in the store; its payload is in the log."""
    return Request(METHOD, "/", id=request_id, received_at=received_at)


def response_of(text: str) -> Response:
    """An encoded value as the answer to a question."""
    return Response(text, 200, content_type="application/json")


def reply_of(response: Response) -> str | None:
    """The encoded value of an answer; None if the run has ended, or closed the hook, without a reply."""
    return response.body.decode("ascii") if response.status == 200 else None


def _from_plain(fields: Mapping[str, Any]) -> Question[Any, Any]:
    return Question(fields["payload"], fields["request"], fields["hook"])


codec.register(
    "question",
    Question,
    lambda question: {"payload": question.payload, "request": question.request, "hook": question.hook},
    _from_plain,
)
