"""What must hold for a run that has ended, whatever faults there were (docs/explanation/reliability.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from .. import events
from ..context import event_id
from ..events import ROOT
from ..http import Response
from ..registry import Run
from ..store import RequestOutcome, requests, runs, schema
from .environment import Environment
from .histories import export, replay
from .senders import SentRequest

#: How many events of a batch are looked for.
_EVENTS = 100


def check(env: Environment, run: Run[Any]) -> Iterable[str]:
    """What is wrong with a run that has ended, with its child runs, and with the responses to webhook requests."""
    runs = run_tree(env, run)
    received: Counter[str | None] = Counter()
    for each in runs:
        # A request that one generation has not taken is in the log of the next one too.
        received |= Counter(event.request_id for event in each.events() if isinstance(event, events.HookReceived))
    for sent in tuple(env.sent_requests):
        yield from (f"{sent.request_id}: {problem}" for problem in _check_sent(env, sent, received[sent.request_id]))
    # At most one attempt may answer a request.
    answered = Counter(
        request_id for each in runs for event in _own_events(each) for request_id in getattr(event, "responded", ())
    )
    twice = [request_id for request_id, count in answered.items() if count > 1]
    if twice:
        yield f"attempts have answered requests that had an answer: {twice}"
    yield from unfinished_work(env, run)
    for each in runs:
        yield from (f"run {each.id}: {problem}" for problem in _check_run(env, each))


def run_tree(env: Environment, run: Run[Any]) -> list[Run[Any]]:
    """A run with its generations, its child runs and its forks with theirs, their child runs, and so on."""
    found = level = run.generations()
    while level:
        ids = [each.id for each in level]
        with env.store.read() as tx:
            # Each generation of a child has the same parent.
            belongs = schema.runs.c.parent_run_id.in_(ids) | schema.runs.c.forked_from.in_(ids)
            below = sa.select(schema.runs.c.id).where(belongs).order_by(schema.runs.c.id)
            level = [env.engine.get_run(each) for each in tx.execute(below).scalars()]
        found = [*found, *level]
    return found


def _own_events(run: Run[Any]) -> list[events.Event]:
    """The events of a run; of a fork those that it does not have from the run that it was forked from."""
    log = run.events()
    forks = [number for number, event in enumerate(log) if isinstance(event, events.RunForked)]
    return log[forks[-1] :] if forks else log


def unfinished_work(env: Environment, run: Run[Any]) -> list[str]:
    """The rows of work that are left, and the requests without a response."""
    problems = []
    ids = [each.id for each in run_tree(env, run)]
    with env.store.read() as tx:
        for table in (schema.steps, schema.waits, schema.inbox, schema.step_limits, schema.run_limits):
            found = tx.execute(sa.select(table).where(table.c.run_id.in_(ids))).all()
            problems += [f"{table.name} still holds {found}"] if found else []
        unanswered = [request for run_id in ids for request in requests.unanswered(tx, run_id)]
    return problems + ([f"requests are not answered: {unanswered}"] if unanswered else [])


def _check_run(env: Environment, run: Run[Any]) -> Iterable[str]:
    log = run.events()
    if [event.seq for event in log] != list(range(1, len(log) + 1)):
        yield f"the log has holes: {[event.seq for event in log]}"
    if [event.at for event in log] != sorted(event.at for event in log):
        yield f"the log's time goes back: {[event.at for event in log]}"
    ended = [event.op_id for event in log if event.phase == "ended"]
    if len(ended) != len(set(ended)):
        yield f"operations have ended twice: {ended}"
    if ROOT not in ended:
        yield f"it has not ended: {[event.kind for event in log]}"
    due = {event.op_id: event.due_at for event in log if isinstance(event, events.WaitCreated)}
    for event in log:
        if isinstance(event, events.WaitCompleted) and not event.early and event.at < due[event.op_id]:
            yield f"{event.op_id} ended {due[event.op_id] - event.at} us early"
    replayed = replay(export(run))
    row = env.engine.client.find(run.id)
    if row is None or replayed is None or replayed.status != row.status:
        yield f"replaying the log comes to {replayed}, and the run is {row and row.status}"


def _check_sent(env: Environment, sent: SentRequest, received: int) -> Iterable[str]:
    """Whether an accepted request is recorded, with the response that its sender got."""
    # A batch to a receiver is recorded as its events.
    ids: list[str | None] = [event_id(sent.request_id or "", number) for number in range(_EVENTS)]
    with env.store.read() as tx:
        is_recorded = _is_recorded(tx, [sent.request_id])
        is_batch = not is_recorded and _is_recorded(tx, ids)
        recorded = requests.answers(tx, [sent.request_id or ""]).get(sent.request_id or "")
    if received > 1:
        yield f"is in the log {received} times"
    if sent.answer is None or sent.is_replayed or is_batch:
        return
    if not is_recorded:
        if sent.answer.status_code < 300 and sent.request_id is not None:
            yield f"was answered {sent.answer.status_code}, and is not recorded"
        return
    if sent.answer.status_code < 300 and not received and not _has_started_a_run(env, sent.request_id):
        yield f"was answered {sent.answer.status_code}, and is not in the log"
    if sent.location is not None:
        said = env.post(sent.location, method="GET")
    elif sent.is_unanswered:
        return  # it got the author's `on_timeout` response, which names no URL to poll
    else:
        said = sent.answer
    if recorded is None or (said.status_code, said.data) != (recorded.status, recorded.body):
        yield f"its sender was answered {said.status} {said.data!r}, and recorded is {_brief(recorded)}"


def _is_recorded(tx: sa.Connection, ids: list[str | None]) -> bool:
    return tx.execute(sa.select(schema.requests.c.id).where(schema.requests.c.id.in_(ids)).limit(1)).first() is not None


def _has_started_a_run(env: Environment, request_id: str | None) -> bool:
    """Whether a receiver has started a run for the request, which is in the run's arguments then."""
    with env.store.read() as tx:
        query = sa.select(schema.received.c.run_id).where(
            schema.received.c.request_id == request_id, schema.received.c.outcome == RequestOutcome.STARTED
        )
        run_id = tx.execute(query).scalar_one_or_none()
        return run_id is not None and runs.find(tx, run_id) is not None


def _brief(answer: Response | None) -> str:
    return "nothing" if answer is None else f"{answer.status} {answer.body!r}"
