"""
Questions: payloads whose sender waits for the reply of the workflow.

A question is recorded as a payload and as a request, in one transaction.  The reply is the answer to the request.  So
its sender waits as a webhook's does: a notification makes it look into the database, and it looks every second in any
case.  A run that ends, or a hook that closes, answers the requests that have no answer.
"""

from __future__ import annotations

import math
import time
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .. import codec, duration
from ..engine import Engine, NextCheck, Waiting, wait_in_loop, wait_in_thread
from ..errors import QuestionNotFound, ReplyNotSent, ReplyPending
from ..http import Response
from ..replay import QUESTION_METHOD, reply_of
from ..sandbox import refuse_in_workflow
from ..store import generations, is_unavailable, requests
from .describe import blocked_reason
from .hooks import NewQuestion, delivering, new_request_id

#: Why there is no reply, by the status of the answer that the run's last turn has recorded instead.
_REASONS = {
    410: "it stopped listening before it took the payload",
    503: "it was cancelled before it replied",
}
_ENDED = "it took the payload, and ended without a reply"


def ask(engine: Engine, token: str, payload: object, wait: Any = None, timeout: Any = None) -> Any:
    """
    Send *payload* to the hook that has this token, and return the reply of the workflow.

    Args:
        wait: How long to wait for a hook that is about to be created, as ``sleep`` takes it.
        timeout: How long to wait for the reply, as ``sleep`` takes it; None: as long as the run goes on.

    Raises:
        HookNotFound, HookPayloadError, SerializationError: Nothing is recorded; see ``hooks.resume_hook``.
        ReplyNotSent: The run has ended, or has closed the hook, without a reply.
        ReplyPending: There is no reply yet.  The payload is recorded; ``get_reply`` waits for the reply.
    """
    refuse_in_workflow("resume_hook", "ask in a step")
    return _decoded(engine, wait_in_thread(_ask(engine, token, payload, wait, timeout)))


async def aask(engine: Engine, token: str, payload: object, wait: Any = None, timeout: Any = None) -> Any:
    """Do the same in an event loop."""
    refuse_in_workflow("aresume_hook", "ask in a step")
    text = await wait_in_loop(engine.loop_calls, _ask(engine, token, payload, wait, timeout))
    return await engine.loop_calls.run(_decoded, engine, text)


def ask_plain(engine: Engine, token: str, payload: object, wait: Any = None, timeout: Any = None) -> Any:
    """As ``ask``, with the reply as plain JSON for people and other programs."""
    refuse_in_workflow("resume_hook", "ask in a step")
    return plain(engine, wait_in_thread(_ask(engine, token, payload, wait, timeout)))


def get_reply(engine: Engine, request_id: str, timeout: Any = None) -> Any:
    """
    Return the reply to a question that was asked before, in any process.

    Args:
        timeout: How long to wait for the reply, as ``sleep`` takes it; None: as long as the run goes on.

    Raises:
        QuestionNotFound: There is no question with this id.
        ReplyNotSent, ReplyPending: See ``ask``.
    """
    refuse_in_workflow("get_reply", "call it in a step")
    return _decoded(engine, wait_in_thread(_get_reply(engine, request_id, timeout)))


async def aget_reply(engine: Engine, request_id: str, timeout: Any = None) -> Any:
    """Do the same in an event loop."""
    refuse_in_workflow("aget_reply", "call it in a step")
    text = await wait_in_loop(engine.loop_calls, _get_reply(engine, request_id, timeout))
    return await engine.loop_calls.run(_decoded, engine, text)


def get_reply_plain(engine: Engine, request_id: str, timeout: Any = None) -> Any:
    """As ``get_reply``, with the reply as plain JSON for people and other programs."""
    return plain(engine, wait_in_thread(_get_reply(engine, request_id, timeout)))


def _ask(engine: Engine, token: str, payload: object, wait: Any, timeout: Any) -> Waiting[str]:
    secs = _secs(timeout)
    question = NewQuestion(new_request_id(), engine.process_id)
    delivered = yield from delivering(engine, token, payload, wait, question=question)
    return (yield from _replied(engine, delivered.run.run_id, question.id, secs, timeout))


def _get_reply(engine: Engine, request_id: str, timeout: Any) -> Waiting[str]:
    secs = _secs(timeout)
    if not is_question(engine, request_id):
        raise QuestionNotFound(request_id)
    # The notification of the reply comes to this process now.  One that waits still finds the reply by looking for it.
    run_id = engine.store.write(lambda tx: requests.set_holder(tx, request_id, engine.process_id))
    if run_id is None:
        raise QuestionNotFound(request_id)
    return (yield from _replied(engine, run_id, request_id, secs, timeout))


def _secs(timeout: Any) -> float:
    return math.inf if timeout is None else duration.to_micros(timeout, what="timeout") / 1_000_000


def _replied(engine: Engine, run_id: str, request_id: str, secs: float, timeout: Any) -> Waiting[str]:
    """Wait for the reply to a question, and return it encoded."""
    until = time.monotonic() + secs
    with engine.completions.expected(request_id, is_addressed=True) as replied:
        while (answer := find_answer(engine, request_id)) is None:
            left = until - time.monotonic()
            if left <= 0:
                raise ReplyPending(run_id, request_id, _why_late(engine, run_id, timeout))
            yield NextCheck(replied, left)
    text = reply_of(answer)
    if text is None:
        raise ReplyNotSent(run_id, request_id, why_none(answer))
    return text


def find_answer(engine: Engine, request_id: str) -> Response | None:
    """Return the answer to a question; None without one, or while the database cannot be reached."""
    try:
        with engine.store.read() as tx:
            return requests.answers(tx, [request_id]).get(request_id)
    except SQLAlchemyError as error:
        # The payload is recorded: an error would make the caller send it again.
        if not is_unavailable(error):
            raise
        return None


def is_question(engine: Engine, request_id: str) -> bool:
    """Whether this is the id of a question."""
    engine.check_schema()
    with engine.store.read() as tx:
        found = requests.load(tx, [request_id], whole=False).get(request_id)
    return found is not None and found.method == QUESTION_METHOD


def why_none(answer: Response) -> str:
    """Return why an answer is no reply."""
    return _REASONS.get(answer.status, _ENDED)


def _why_late(engine: Engine, run_id: str, timeout: Any) -> str:
    """Return why there is no reply after the *timeout*; for a blocked run with the reason."""
    with engine.store.read() as tx:
        row = generations.latest(tx, run_id)
        reason = None if row is None else blocked_reason(engine, tx, row)
    return f"Run {run_id!r} has not replied after {timeout}.  {reason or 'It goes on.'}"


def plain(engine: Engine, text: str) -> Any:
    """An encoded reply as plain JSON."""
    with engine.store.read() as tx:
        return codec.plain(text, requests.load(tx, codec.request_ids(text)))


def _decoded(engine: Engine, text: str) -> Any:
    ids = codec.request_ids(text)
    if not ids:
        return codec.decode(text)
    with engine.store.read() as tx:
        return codec.decode(text, requests.load(tx, ids))
