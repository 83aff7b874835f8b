"""Questions on every database: a payload whose sender waits for what the workflow or one of its steps replies."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, more_engines, restart, settle
from eventually import eventually

from durable import (
    Durable,
    HookNotFound,
    HookPayloadError,
    Question,
    QuestionNotFound,
    ReplyNotSent,
    ReplyPending,
    Request,
    Run,
    SerializationError,
    aget_reply,
    aresume_hook,
    context,
    continue_as_new,
    create_hook,
    create_webhook,
    current,
    define_hook,
    events,
    get_reply,
    get_step_metadata,
    resume_hook,
    step,
    step_session,
    workflow,
)
from durable.attempts.outcome import give_up
from durable.broker import PollingNotifier
from durable.cipher import aes_gcm
from durable.client import describe
from durable.engine import completions
from durable.store import claimed_attempts, hooks, requests
from durable.store.schema import events as logged
from durable.store.schema import inbox, steps
from durable.store.schema import requests as recorded

pytestmark = all_databases()


@dataclass
class Add:
    amount: int


@dataclass
class Total:
    total: int
    of: int


add = define_hook(Add, name="replying.add", reply=Total)
plain_adds = define_hook(Add, name="replying.plain")

#: What steps do before they reply, by the amount that they are called with.
acts: dict[int, Any] = {}
#: What replies have returned, in their order.
outcomes: list[bool] = []


@pytest.fixture(autouse=True)
def _of_the_test() -> Iterator[None]:
    yield
    acts.clear()
    outcomes.clear()
    add.validators.clear()


@workflow(name="replying.counter")
async def counter(token: str, until: int) -> int:
    """Replies in the workflow itself."""
    total = count = 0
    async for question in add.create(token=token):
        total, count = total + question.payload.amount, count + 1
        outcomes.append(question.reply(Total(total, count)))
        if total >= until:
            break
    return total


@step(name="replying.computes", retry_backoff=0)
def computes(question: Question[Add, Total], total: int) -> bool:
    acts.get(question.payload.amount, lambda _: None)(question)
    return question.reply(Total(total, 1))


@workflow(name="replying.by_steps")
async def by_steps(token: str) -> bool:
    question = await add.create(token=token)
    return await computes(question, question.payload.amount * 2)


@pytest.fixture
def ask(engine: Durable) -> Iterator[Callable[..., Future[Any]]]:
    """Asks in a thread of its own, and returns once the payload is committed, or the call has ended."""
    with ThreadPoolExecutor(8) as threads:

        def begin(call: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
            before = count_payloads(engine)
            asking = threads.submit(call, *args, **options)
            eventually(lambda: asking.done() or count_payloads(engine) > before)
            return asking

        yield begin


def count_payloads(engine: Durable) -> int:
    with engine.store.read() as tx:
        return sum(tx.execute(sa.select(sa.func.count()).select_from(each)).scalar_one() for each in (inbox, logged))


def replies_of(engine: Durable, run: Run[Any]) -> list[Any]:
    """The rows of the run's questions, oldest first."""
    with engine.store.read() as tx:
        query = sa.select(recorded).where(recorded.c.run_id == run.id).order_by(recorded.c.received_at)
        return list(tx.execute(query).all())


def test_a_workflow_replies(engine, ask):
    """Each caller gets its own reply, of the type that the hook declares; the log has who was answered, once."""
    run = engine.start(counter, "replying-1", 10)
    settle(engine, run)
    first = ask(add.ask, "replying-1", Add(3), timeout="20s")
    settle(engine, run)
    assert first.result(20) == Total(3, 1)
    second = ask(add.ask, "replying-1", {"amount": "7"}, timeout="20s")
    settle(engine, run)
    assert second.result(20) == Total(10, 2)
    assert run.result(timeout=0) == 10
    sent = [event.request_id for event in run.events() if isinstance(event, events.ReplySent)]
    assert sent == [row.id for row in replies_of(engine, run)]
    assert outcomes[0] is True


def test_a_step_replies_before_it_has_ended(engine, ask):
    """Its reply is there while it runs on, and stays when its attempt fails; the next attempt's is refused."""
    seen: list[Any] = []

    def look(question: Question[Add, Total]) -> None:
        if get_step_metadata().attempt == 1:
            assert question.reply(Total(0, 0))
            seen.append(asking.result(20))
            raise OSError("after the reply")

    acts[4] = look
    run = engine.start(by_steps, "replying-2")
    settle(engine, run)
    asking = ask(add.ask, "replying-2", Add(4), timeout="20s")
    settle(engine, run)
    assert seen == [Total(0, 0)]
    assert run.result(timeout=0) is False
    (question,) = replies_of(engine, run)
    retrying, completed = (e for e in run.events() if isinstance(e, events.AttemptEnded))
    assert (retrying.responded, completed.responded) == ((question.id,), ())


@workflow(name="replying.twice")
async def twice(token: str) -> list[bool]:
    question = await create_hook(token=token)
    return [question.reply("first"), question.reply("second"), await computes_again(question), question.reply("fourth")]


@step(name="replying.computes_again")
def computes_again(question: Question[Any, Any]) -> bool:
    return question.reply("third")


def test_the_first_reply_wins(engine, ask):
    """As with respond_with: a later one changes nothing and returns False, in the workflow and in a step."""
    run = engine.start(twice, "replying-3")
    settle(engine, run)
    asking = ask(resume_hook, "replying-3", None, reply=True, timeout="20s")
    settle(engine, run)
    assert asking.result(20) == "first"
    assert run.result(timeout=0) == [True, False, False, False]
    assert kinds(run).count("reply_sent") == 1


@workflow(name="replying.after_its_step")
async def after_its_step(token: str) -> tuple[bool, bool]:
    question = await create_hook(token=token)
    return await computes_again(question), question.reply("too late")


def test_a_workflow_knows_what_its_steps_have_replied(engine, ask):
    run = engine.start(after_its_step, "replying-4")
    settle(engine, run)
    asking = ask(resume_hook, "replying-4", None, reply=True, timeout="20s")
    settle(engine, run)
    assert asking.result(20) == "third"
    assert run.result(timeout=0) == (True, False)
    assert "reply_sent" not in kinds(run)


def test_an_attempt_that_was_given_up_replies_nothing(engine, ask):
    def lose_once(question: Question[Add, Total]) -> None:
        metadata, mine = get_step_metadata(), current.current_engine()
        if metadata.attempt == 1:
            with mine.store.read() as tx:
                give_up(mine, claimed_attempts.find(tx, metadata.run_id, metadata.step_id))
            outcomes.append(question.reply(Total(-1, -1)))

    acts[5] = lose_once
    run = engine.start(by_steps, "replying-5")
    settle(engine, run)
    asking = ask(add.ask, "replying-5", Add(5), timeout="20s")
    settle(engine, run)
    assert outcomes == [False]
    assert asking.result(20) == Total(10, 1)


def test_a_replay_sends_nothing_again(engine, ask):
    """Another process replays the whole log for the second question, and the first one keeps its one reply."""
    run = engine.start(counter, "replying-6", 3)
    settle(engine, run)
    first = ask(add.ask, "replying-6", Add(1), timeout="20s")
    settle(engine, run)
    answered_at = replies_of(engine, run)[0].answered_at
    restart(engine)
    second = ask(add.ask, "replying-6", Add(2), timeout="20s")
    settle(engine, run)
    assert (first.result(20), second.result(20)) == (Total(1, 1), Total(3, 2))
    assert replies_of(engine, run)[0].answered_at == answered_at
    assert kinds(run).count("reply_sent") == 2


@step(name="replying.books", semantics="transactional", retry_backoff=0)
def books(question: Question[Any, Any]) -> bool:
    """Its first attempt is rolled back, and the reply with it."""
    step_session().execute(sa.select(sa.literal(1)))
    said = question.reply(get_step_metadata().attempt)
    if get_step_metadata().attempt == 1:
        raise OSError("rolled back")
    return said


@workflow(name="replying.transactional")
async def transactional(token: str) -> bool:
    return await books(await create_hook(token=token))


def test_a_transactional_step_replies_with_its_result(engine, ask):
    run = engine.start(transactional, "replying-20")
    settle(engine, run)
    asking = ask(resume_hook, "replying-20", None, reply=True, timeout="20s")
    settle(engine, run)
    assert (asking.result(20), run.result(timeout=0)) == (2, True)


@step(name="replying.asks_another")
def asks_another(token: str, amount: int) -> Total:
    return add.ask(token, Add(amount), timeout="20s")


@workflow(name="replying.customer")
async def customer(token: str, amount: int) -> Total:
    return await asks_another(token, amount)


def test_a_step_asks_another_run(engine):
    """While it waits, another worker takes the turn of the run that replies."""
    asked = engine.start(counter, "replying-21", 4)
    settle(engine, asked)
    run = engine.start(customer, "replying-21", 4)
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(settle, engine, run, within_secs=30)
        eventually(lambda: settle(engine, asked) or working.done(), within_secs=30)
        working.result(1)
    assert (run.result(timeout=0), asked.result(timeout=0)) == (Total(4, 1), 4)


# No reply


@workflow(name="replying.never")
async def never(token: str, how: str) -> None:
    hook = create_hook(token=token)
    if how == "takes":
        await hook
    elif how == "closes":
        await create_hook(token=f"{token}/go")
        hook.close()
        await asyncio.sleep(3600)
    elif how == "fails":
        await hook
        raise ValueError("it fails")
    await create_hook(token=f"{token}/stop")


@pytest.mark.parametrize(
    ("how", "end", "reason"),
    [
        ("takes", "stop", "it took the payload, and ended without a reply"),
        ("closes", "go", "it stopped listening before it took the payload"),
        ("leaves", "stop", "it stopped listening before it took the payload"),
        ("leaves", "cancel", "it was cancelled before it replied"),
        ("takes", "cancel", "it was cancelled before it replied"),
        ("fails", None, "it took the payload, and ended without a reply"),
    ],
)
def test_a_caller_is_told_at_once_that_there_will_be_no_reply(engine, ask, how, end, reason):
    """Although it would wait for ever: when the run ends, fails, is cancelled or closes the hook."""
    token = f"replying-{how}-{end}"
    run = engine.start(never, token, how)
    settle(engine, run)
    asking = ask(resume_hook, token, "?", reply=True)
    settle(engine, run)
    if end is not None:
        assert not asking.done()
    if end == "cancel":
        run.cancel()
    elif end is not None:
        resume_hook(f"{token}/{end}", None)
    settle(engine, run)
    with pytest.raises(ReplyNotSent) as told:
        asking.result(20)
    error = told.value
    assert (error.run_id, error.request_id, error.reason) == (run.id, replies_of(engine, run)[0].id, reason)
    assert reason in str(told.value)
    run.cancel()
    settle(engine, run)


@workflow(name="replying.blocks")
async def blocks(token: str) -> None:
    question = await create_hook(token=token)
    time.sleep(0)  # which a workflow may not do
    question.reply("never")


def test_a_blocked_run_may_still_reply(engine, ask):
    """So its caller waits; one whose time is over is told why, and the others when the run is cancelled."""
    run = engine.start(blocks, "replying-23")
    settle(engine, run)
    asking = ask(resume_hook, "replying-23", 1, reply=True)
    settle(engine, run)
    assert (run.status, asking.done()) == ("blocked", False)
    with pytest.raises(ReplyPending, match=r"is blocked by an error(.|\n)*is recorded: do not send it again"):
        resume_hook("replying-23", 2, reply=True, timeout=0)
    run.cancel()
    settle(engine, run)
    with pytest.raises(ReplyNotSent, match="it was cancelled before it replied"):
        asking.result(20)
    assert all(each.answered_at for each in replies_of(engine, run))


def test_a_caller_whose_time_is_over_has_lost_nothing(engine, ask):
    """The payload is recorded; the workflow gets it, and its reply is kept."""
    run = engine.start(counter, "replying-7", 1)
    settle(engine, run)
    with pytest.raises(
        TimeoutError, match=r"has not replied after 0\.01\.  It goes on\.  The payload is recorded"
    ) as late:
        add.ask("replying-7", Add(1), timeout=0.01)
    settle(engine, run)
    assert run.result(timeout=0) == 1
    (question,) = replies_of(engine, run)
    assert question.answered_at is not None
    assert isinstance(late.value, ReplyPending)
    assert (late.value.run_id, late.value.request_id) == (run.id, question.id)
    assert str(pickle.loads(pickle.dumps(late.value))) == str(late.value)


def asked(token: str, amount: int) -> str:
    """Ask a question whose reply comes later, and return its id."""
    with pytest.raises(ReplyPending) as late:
        add.ask(token, Add(amount), timeout=0)
    return late.value.request_id


def test_a_reply_that_comes_later_is_picked_up(engine, database):
    """With its type, as often as you like, and by a process that has asked nothing; the payload counts once."""
    run = engine.start(counter, "replying-late", 10)
    settle(engine, run)
    first = asked("replying-late", 3)
    with pytest.raises(ReplyPending, match="get_reply") as again:
        add.get_reply(first, timeout=0)
    assert again.value.request_id == first
    with ThreadPoolExecutor(1) as threads:
        picking = threads.submit(add.get_reply, first, timeout="20s")
        eventually(lambda: engine.completions._waiters.get(first))
        settle(engine, run)
        assert picking.result(20) == Total(3, 1)
    assert add.get_reply(first) == get_reply(first) == Total(3, 1)
    assert asyncio.run(add.aget_reply(first, timeout=1)) == asyncio.run(aget_reply(first)) == Total(3, 1)
    assert kinds(run).count("hook_received") == 1
    with more_engines(database) as make:
        assert make().get_reply(first) == Total(3, 1)
    run.cancel()
    settle(engine, run)


def test_one_that_waits_later_is_notified(engine, monkeypatch):
    """The process that picks the reply up is, in place of the one that has asked, which may be gone."""
    monkeypatch.setattr(engine, "notifier", notifier := LocalNotifier())
    monkeypatch.setattr(completions, "SLOW_SECS", 60.0)
    run = engine.start(by_steps, "replying-late-notified")
    settle(engine, run)
    late = asked("replying-late-notified", 2)
    with engine.store.begin() as tx:
        tx.execute(sa.update(recorded).where(recorded.c.id == late).values(holder="a process that is gone"))
    with ThreadPoolExecutor(1) as threads:
        picking = threads.submit(add.get_reply, late)
        eventually(lambda: engine.completions._waiters.get(late))
        settle(engine, run)
        assert picking.result(20) == Total(4, 1)
    assert notifier.sent == [engine.process_id]


@pytest.mark.parametrize(("how", "reason"), [("takes", "ended without a reply"), ("closes", "stopped listening")])
def test_one_that_picks_up_late_is_told_at_once_that_there_is_no_reply(engine, how, reason):
    """Whether it waits already when the run ends or closes the hook, or comes after that."""
    token = f"replying-late-{how}"
    run = engine.start(never, token, how)
    settle(engine, run)
    with pytest.raises(ReplyPending) as late:
        resume_hook(token, "?", reply=True, timeout=0)
    with ThreadPoolExecutor(1) as threads:
        picking = threads.submit(get_reply, late.value.request_id)
        settle(engine, run)
        resume_hook(f"{token}/{'stop' if how == 'takes' else 'go'}", None)
        settle(engine, run)
        with pytest.raises(ReplyNotSent, match=reason):
            picking.result(20)
    with pytest.raises(ReplyNotSent, match=reason) as told:
        get_reply(late.value.request_id)
    assert (told.value.run_id, told.value.request_id) == (run.id, late.value.request_id)
    run.cancel()
    settle(engine, run)


def test_what_is_no_question_has_no_reply(engine):
    """An unknown id, and that of a request to a webhook, whose answer is for its sender alone."""
    run = engine.start(refusing, "replying-no-question")
    settle(engine, run)
    webhook = next(each["token"] for each in run.hooks() if each["url"])
    request = Request(id="r" * 24)
    with engine.store.begin() as tx:
        hook = hooks.find(tx, webhook)
        incoming = {"request": request, "holder": None, "dedupe_key": None, "answer": None, "limit": 0, "at": 1}
        requests.create(tx, requests.IncomingRequest(run_id=run.id, op_id=hook.op_id, **incoming))
    for request_id in ("unknown", request.id):
        with pytest.raises(QuestionNotFound, match=f"No question has the id '{request_id}'"):
            get_reply(request_id, timeout=0)
    run.cancel()
    settle(engine, run)


@workflow(name="replying.picks_up")
async def picks_up() -> None:
    get_reply("x")


def test_a_workflow_body_cannot_pick_a_reply_up(engine):
    run = engine.start(picks_up)
    settle(engine, run)
    assert "get_reply was called in a workflow body" in describe.describe(engine, run.id)["error"].replace("()", "")
    run.cancel()
    settle(engine, run)


def test_a_question_to_nobody(engine):
    with pytest.raises(HookNotFound):
        resume_hook("replying-nobody", 1, reply=True)
    with pytest.raises(HookNotFound):
        add.ask("replying-nobody", Add(1))


def test_a_hook_that_is_about_to_be_created(engine, ask):
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(add.ask, "replying-8", Add(2), wait="20s", timeout="20s")
        run = engine.start(counter, "replying-8", 2)
        settle(engine, run)
        eventually(lambda: replies_of(engine, run))
        settle(engine, run)
        assert asking.result(20) == Total(2, 1)


@workflow(name="replying.body")
async def body(typed: bool) -> None:
    if typed:
        add.ask("replying-body", Add(1))
    resume_hook("replying-body", 1, reply=True)


@pytest.mark.parametrize("typed", [True, False])
def test_a_workflow_body_cannot_ask(engine, typed):
    run = engine.start(body, typed)
    settle(engine, run)
    assert run.status == "blocked"
    assert "was called in a workflow body" in describe.describe(engine, run.id)["error"]
    run.cancel()
    settle(engine, run)


class LocalNotifier(PollingNotifier):
    """Notifications within this process."""

    healthy = True

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.receive: Callable[[str], None] = self.sent.append

    def listen(self, holder: str, receive: Callable[[str], None]) -> None:
        self.receive = receive

    def notify(self, holder: str, *messages: str) -> None:
        self.sent.append(holder)
        for message in messages:
            self.receive(message)


@pytest.mark.parametrize("who", ["workflow", "step", "end"])
def test_a_caller_is_notified_of_the_reply(engine, ask, monkeypatch, who):
    """By the turn, by the step, and by the end of the run.  Here it would look by itself once a minute."""
    monkeypatch.setattr(engine, "notifier", notifier := LocalNotifier())
    monkeypatch.setattr(completions, "SLOW_SECS", 60.0)
    flow, *args = {"workflow": (counter, 9), "step": (by_steps,), "end": (never, "leaves")}[who]
    run = engine.start(flow, f"replying-22-{who}", *args)
    settle(engine, run)
    asking = ask(resume_hook, f"replying-22-{who}", {"amount": 2}, reply=True)
    (question,) = replies_of(engine, run)
    eventually(lambda: question.id in engine.completions._waiters)
    if who == "end":
        run.cancel()
    settle(engine, run)
    error = asking.exception(20)
    assert isinstance(error, ReplyNotSent) if who == "end" else error is None
    assert notifier.sent == [engine.process_id]
    run.cancel()
    settle(engine, run)


# Types and validators


def test_what_cannot_be_asked_is_refused(engine):
    """By the call itself, by the hook's definition, and by what the hook is; nothing is recorded."""
    with pytest.raises(TypeError, match="timeout"):
        resume_hook("x", 1, timeout=3)
    with pytest.raises(TypeError, match="wait_taken"):
        resume_hook("x", 1, wait_taken=3, reply=True)

    run = engine.start(refusing, "replying-refusing")
    settle(engine, run)
    before = count_payloads(engine)
    with pytest.raises(HookPayloadError, match=r"does not fit its type, and was not recorded: amount: .* valid int"):
        add.ask("replying-refusing/typed", {"amount": "many"})
    with pytest.raises(HookPayloadError, match=r"amount: .* valid int"):
        resume_hook("replying-refusing/typed", {"amount": "many"}, reply=True)
    with pytest.raises(HookPayloadError, match="does not reply: declare the type of its replies"):
        resume_hook("replying-refusing/plain", Add(1), reply=True)
    webhook = next(each["token"] for each in run.hooks() if each["url"])
    with pytest.raises(HookPayloadError, match="a webhook answers over HTTP"):
        resume_hook(webhook, Request(), reply=True)
    with pytest.raises(SerializationError):
        resume_hook("replying-refusing/any", object(), reply=True)
    assert (count_payloads(engine), replies_of(engine, run)) == (before, [])
    run.cancel()
    settle(engine, run)


@workflow(name="replying.refusing")
async def refusing(token: str) -> None:
    add.create(token=f"{token}/typed")
    plain_adds.create(token=f"{token}/plain")
    create_hook(token=f"{token}/any")
    create_webhook()
    await create_hook(token=f"{token}/stop")


def test_a_validator_refuses_before_anything_is_recorded(engine, ask):
    """However the payload is sent, in the caller's process, once; and it gets the payload with its type."""
    seen: list[Any] = []

    @add.validator
    def positive(item: Add) -> None:
        seen.append(item)
        if item.amount <= 0:
            raise ValueError(f"{item.amount} is not positive")

    run = engine.start(counter, "replying-9", 6)
    settle(engine, run)
    before = count_payloads(engine)
    calls: list[Callable[[], Any]] = [
        lambda: add.ask("replying-9", {"amount": 0}),
        lambda: add.resume("replying-9", Add(0)),
        lambda: resume_hook("replying-9", {"amount": 0}),
        lambda: resume_hook("replying-9", {"amount": 0}, reply=True),
        lambda: asyncio.run(add.aask("replying-9", {"amount": 0})),
        lambda: asyncio.run(add.aresume("replying-9", Add(0))),
        lambda: asyncio.run(aresume_hook("replying-9", {"amount": 0})),
        lambda: asyncio.run(aresume_hook("replying-9", {"amount": 0}, reply=True)),
    ]
    for call in calls:
        with pytest.raises(HookPayloadError, match="was refused, and was not recorded: payload: 0 is not pos") as no:
            call()
        assert no.value.errors == [{"type": "refused", "loc": (), "msg": "0 is not positive"}]
    assert seen == [Add(0)] * len(calls)
    assert count_payloads(engine) == before
    asyncio.run(add.aresume("replying-9", Add(1)))
    asyncio.run(aresume_hook("replying-9", {"amount": 2}))
    asking = ask(add.ask, "replying-9", Add(3), timeout="20s")
    settle(engine, run)
    assert asking.result(20) == Total(6, 3)
    assert seen[len(calls) :] == [Add(1), Add(2), Add(3)]


def test_a_validator_that_is_wrong_raises_its_own_error(engine):
    """It is no refusal; and nothing is recorded either.  It may use the database, whose transaction is not open."""

    @add.validator
    def counts(item: Add) -> None:
        with engine.store.begin() as tx:
            tx.execute(sa.delete(steps).where(steps.c.run_id == "nobody"))
        raise KeyError("a mistake")

    run = engine.start(counter, "replying-10", 6)
    settle(engine, run)
    before = count_payloads(engine)
    with pytest.raises(KeyError, match="a mistake"):
        add.ask("replying-10", Add(6))
    assert count_payloads(engine) == before
    run.cancel()
    settle(engine, run)


def test_a_payload_without_a_question_comes_as_a_question_whose_reply_nobody_waits_for(engine):
    """So the workflow need not know the difference."""
    run = engine.start(counter, "replying-11", 3)
    settle(engine, run)
    add.resume("replying-11", Add(3))
    settle(engine, run)
    assert run.result(timeout=0) == 3
    assert (outcomes, replies_of(engine, run), "reply_sent" in kinds(run)) == ([True], [], False)


@workflow(name="replying.untyped")
async def untyped(token: str) -> list[str]:
    """What comes to a hook without a type: a payload as itself, a question as a Question."""
    seen = []
    async for payload in create_hook(token=token):
        if isinstance(payload, Question):
            seen.append(f"asked {payload.payload}")
            payload.reply({"you said": payload.payload})
        else:
            seen.append(f"told {payload}")
        if len(seen) == 2:
            break
    return seen


def test_a_hook_without_a_type_gets_both(engine, ask):
    run = engine.start(untyped, "replying-12")
    settle(engine, run)
    resume_hook("replying-12", "this")
    asking = ask(resume_hook, "replying-12", "that", reply=True, timeout="20s")
    settle(engine, run)
    assert asking.result(20) == {"you said": "that"}
    assert run.result(timeout=0) == ["told this", "asked that"]


@workflow(name="replying.misfit")
async def misfit(token: str) -> str:
    question = await add.create(token=token)
    try:
        question.reply("no total")
    except SerializationError as error:
        question.reply(Total(0, 0))
        return str(error)
    return "it fits"


def test_a_reply_that_does_not_have_the_type_is_refused_where_it_is_given(engine, ask):
    run = engine.start(misfit, "replying-13")
    settle(engine, run)
    asking = ask(add.ask, "replying-13", Add(1), timeout="20s")
    settle(engine, run)
    assert asking.result(20) == Total(0, 0)
    assert "'no total' does not fit the annotation" in run.result(timeout=0)


# Generations, forks, encryption, large values


@workflow(name="replying.endless")
async def endless(token: str, pending: Question[Add, Total] | None = None) -> None:
    hook = add.create(token=token)
    if pending is None:
        continue_as_new(token, await hook)
    pending.reply(Total(pending.payload.amount, 2))
    question = await hook
    question.reply(Total(question.payload.amount, 3))


def test_a_question_goes_along_to_the_next_generation(engine, ask):
    """One as an argument that the first generation has taken, and one that it has not."""
    run = engine.start(endless, "replying-14")
    settle(engine, run)
    taken = ask(add.ask, "replying-14", Add(1), timeout="20s")
    left = ask(add.ask, "replying-14", Add(2), timeout="20s")
    settle(engine, run)
    assert not taken.done()
    settle(engine, run.generations()[-1])
    assert (taken.result(20), left.result(20)) == (Total(1, 2), Total(2, 3))
    assert len(run.generations()) == 2


def test_a_fork_does_not_answer_again(engine, ask):
    """The question was answered by the run that was forked from; the fork replays it, and goes on to the next."""
    run = engine.start(counter, "replying-15", 5)
    settle(engine, run)
    first = ask(add.ask, "replying-15", Add(2), timeout="20s")
    settle(engine, run)
    assert first.result(20) == Total(2, 1)
    second = ask(add.ask, "replying-15", Add(3), timeout="20s")
    settle(engine, run)
    assert second.result(20) == Total(5, 2)
    before = replies_of(engine, run)

    received = next(event.seq for event in run.events() if event.kind == "hook_received")
    fork = run.fork(from_event=received - 1)
    settle(engine, fork)
    assert fork.result(timeout=0) == 5
    assert replies_of(engine, run) == before
    assert replies_of(engine, fork) == []


def test_replies_are_encrypted_as_results_are(database):
    """The question, which has no payload of its own, and the reply; nothing of them is in the database in the clear."""
    with more_engines(database) as make, ThreadPoolExecutor(1) as threads:
        engine = make(cipher=aes_gcm({"k1": secrets.token_bytes(32)}))
        run = engine.start(untyped, "replying-16")
        settle(engine, run)
        asking = threads.submit(engine.resume_hook, "replying-16", "a secret", reply=True, timeout="20s")
        eventually(lambda: replies_of(engine, run))
        settle(engine, run)
        assert asking.result(20) == {"you said": "a secret"}
        with engine.store.read() as tx:
            stored = [str(row) for row in tx.execute(sa.select(logged.c.value).where(logged.c.run_id == run.id))]
        assert not any("secret" in text for text in [*stored, *map(str, replies_of(engine, run))])
        run.cancel()
        settle(engine, run)


@pytest.mark.parametrize("how", ["in the workflow", "in a step"])
def test_a_large_payload_and_a_large_reply(engine, ask, how):
    big = "x" * 300_000
    flow = untyped if how == "in the workflow" else by_a_step
    run = engine.start(flow, f"replying-17-{how}")
    settle(engine, run)
    asking = ask(resume_hook, f"replying-17-{how}", big, reply=True, timeout="20s")
    settle(engine, run)
    assert asking.result(20) == {"you said": big}
    (question,) = replies_of(engine, run)
    assert len(question.answer_body) < 1_000
    run.cancel()
    settle(engine, run)


@step(name="replying.repeats")
def repeats(question: Question[Any, Any]) -> None:
    question.reply({"you said": question.payload})


@workflow(name="replying.by_a_step")
async def by_a_step(token: str) -> None:
    await repeats(await create_hook(token=token))


def test_many_callers_at_once_get_their_own_replies(engine):
    run = engine.start(counter, "replying-18", 55)
    settle(engine, run)
    with ThreadPoolExecutor(10) as threads:
        asking = [threads.submit(add.ask, "replying-18", Add(n), timeout="30s") for n in range(1, 11)]
        eventually(lambda: settle(engine, run) or all(each.done() for each in asking), within_secs=30)
    totals = [each.result() for each in asking]
    assert sorted(each.of for each in totals) == list(range(1, 11))
    by_order = sorted(zip(totals, range(1, 11), strict=True), key=lambda each: each[0].of)
    total = 0
    for reply, amount in by_order:
        total += amount
        assert reply.total == total


def test_a_payload_costs_as_many_statements_as_before(engine, monkeypatch):
    """A question costs one more, that of its request; and a validator in the process one to find the hook."""
    for each in context.definitions.values():
        monkeypatch.setattr(each, "validators", [])  # those of other tests' hooks
    run = engine.start(never, "replying-19", "leaves")
    settle(engine, run)
    plain = statements_of(engine, lambda: resume_hook("replying-19", 1))
    # Find the hook and lock it, put the payload into the inbox, read where the run's turn is sent.
    assert (len(plain), any("durable_requests" in each for each in plain)) == (4, False)
    asked = statements_of(engine, lambda: resume_hook("replying-19", 1, reply=True, timeout=0))
    inserts = [each for each in asked if each.startswith("INSERT INTO durable_requests")]
    assert len(inserts) == 1
    add.validators.append(lambda item: None)
    checked = statements_of(engine, lambda: resume_hook("replying-19", 1))
    assert len(checked) == len(plain) + 1
    run.cancel()
    settle(engine, run)


def statements_of(engine: Durable, act: Callable[[], object]) -> list[str]:
    """The statements that a call makes, in their order."""
    seen: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *args: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(engine, "send_turns", lambda *runs: None)
            suppress_timeout(act)
    finally:
        sa.event.remove(engine.store.engine, "before_cursor_execute", note)
    return seen


def suppress_timeout(act: Callable[[], object]) -> None:
    with contextlib.suppress(TimeoutError):
        act()
