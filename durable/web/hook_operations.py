"""The operations of the control routes on hooks: resume one, ask one, and poll for a reply."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flask

from ..client import hooks, new_request_id, replies
from ..errors import HookNotFound, HookPayloadError, SerializationError
from ..http import Response
from ..replay import reply_of
from . import hook_schemas, problems, schemas
from .control_operations import Call, Operation, Reply
from .flow import Flow, Hold
from .problems import RequestRefused

#: The path of the operation that holds connections.
ASK = "hooks/ask"


def _resume(call: Call) -> Reply:
    body: hook_schemas.Resume = call.body
    with _refusing():
        run_id = hooks.resume_hook(call.engine, body.token, body.payload)
    call.permit.note("resume", run_id, call.actor)
    return Reply(202, {"run_id": run_id})


def _ask(call: Call) -> Flow[Reply]:
    """Record the question, and hold the connection until there is a reply, as for a request to a manual webhook."""
    body: hook_schemas.Ask = call.body
    engine, holding, request_id = call.engine, call.holding, new_request_id()
    secs = engine.settings.hold_timeout / 1_000_000 if body.timeout is None else body.timeout
    hub = holding.hub()
    # Opened before the question is committed: a worker may reply before this thread continues.
    waiter = holding.open_waiter(hub, flask.request, request_id) if secs else None
    try:
        question = hooks.NewQuestion(request_id, None if waiter is None else engine.process_id)
        with _refusing():
            delivered = hooks.deliver(engine, body.token, body.payload, question=question)
        call.permit.note("resume", delivered.run.run_id, call.actor)
        if waiter is None:
            return _reply(call, request_id, replies.find_answer(engine, request_id))
        hub.recorded(waiter)
        yield (hold := Hold(waiter, secs))
        return _reply(call, request_id, hold.end(engine.measures))
    finally:
        if waiter is not None:
            hub.close(waiter)


def _poll(call: Call) -> Reply:
    request_id = call.path["request_id"]
    if not replies.is_question(call.engine, request_id):
        raise RequestRefused(problems.unknown_question())
    return _reply(call, request_id, replies.find_answer(call.engine, request_id))


def _reply(call: Call, request_id: str, answer: Response | None) -> Reply:
    """The reply as plain JSON; 202 with the URL to poll while there is none."""
    if answer is None:
        location = ("Location", f"{call.base_url}hooks/replies/{request_id}")
        return Reply(202, {"request_id": request_id, "status": "pending"}, (location,))
    text = reply_of(answer)
    if text is None:
        raise RequestRefused(problems.reply_not_sent(replies.why_none(answer)))
    return Reply(200, {"request_id": request_id, "reply": replies.plain(call.engine, text)})


@contextmanager
def _refusing() -> Iterator[None]:
    """Make answers of the errors with which nothing is recorded.  Their own texts name the token."""
    try:
        yield
    except HookNotFound:
        raise RequestRefused(problems.unknown_hook()) from None
    except HookPayloadError as error:
        found: list[Any] = [*error.errors[:10]]
        texts = [f"{'.'.join(map(str, ('payload', *each.get('loc', ()))))}: {each['msg']}" for each in found]
        raise RequestRefused(problems.bad_arguments("; ".join(texts))) from None
    except SerializationError as error:
        raise RequestRefused(problems.bad_arguments(str(error))) from None


_NO_HOOK = {404: "No open hook has this token.", 422: "The body or the payload does not fit."}
_NO_REPLY = "The run has ended, or has closed the hook, without a reply."

OPERATIONS = (
    Operation(
        name="resumeHook",
        action="resume",
        method="POST",
        path="hooks/resume",
        summary="Deliver a payload to a hook",
        act=_resume,
        body=hook_schemas.Resume,
        answers={202: ("The payload is committed.", hook_schemas.Resumed)},
        problems=_NO_HOOK,
    ),
    Operation(
        name="askHook",
        action="resume",
        method="POST",
        path=ASK,
        summary="Deliver a payload to a hook, and wait for the reply of the workflow",
        act=_ask,
        body=hook_schemas.Ask,
        answers={
            200: ("The reply.", hook_schemas.Replied),
            202: ("The payload is committed, and there is no reply yet: poll Location.", schemas.Pending),
        },
        problems={**_NO_HOOK, 409: _NO_REPLY},
    ),
    Operation(
        name="pollReply",
        method="GET",
        path="hooks/replies/{request_id}",
        summary="Poll the reply to a payload",
        act=_poll,
        answers={
            200: ("The reply.", hook_schemas.Replied),
            202: ("There is no reply yet.", schemas.Pending),
        },
        problems={404: "No payload with this id waits for a reply or has one.", 409: _NO_REPLY},
    ),
)
