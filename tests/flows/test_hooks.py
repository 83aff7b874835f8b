"""Hooks from both sides: what a run holds open, and what a sender is told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, kinds, settle
from eventually import eventually

from durable import (
    Durable,
    HookClosed,
    HookConflict,
    HookNotFound,
    Request,
    Run,
    create_hook,
    create_webhook,
    get_run,
    resume_hook,
    sleep,
    step,
    workflow,
)
from durable.broker import PollingNotifier
from durable.client import describe
from durable.engine import completions
from durable.store.schema import inbox
from durable.turns.drive import drive
from durable.web import record_request


def queued(engine: Durable, run: Run[Any]) -> int:
    """How much news waits for the run's next turn."""
    with engine.store.read() as tx:
        return tx.execute(sa.select(sa.func.count()).where(inbox.c.run_id == run.id)).scalar_one()


@step
def note(value: Any) -> Any:
    return value


# Payloads


@workflow
async def conversation(token: str) -> list[Any]:
    seen = []
    async for payload in create_hook(token=token, metadata={"topic": "orders", "steps": (1, 2)}):
        seen.append(payload)
        if payload == "bye":
            break
    return seen


@all_databases()
def test_c44_a_conversation_by_token(engine, token):
    """Three payloads arrive in order, and the last ends the run; each sender learns the run's id."""
    run = engine.start(conversation, token)
    settle(engine, run)

    with pytest.raises(HookNotFound, match="another"):
        engine.resume_hook(f"{token}-another", "lost")
    told = []
    for payload in ("one", {"two": 2}, "bye"):
        told.append(engine.resume_hook(token, payload).id)
        settle(engine, run)

    assert told == [run.id] * 3
    assert run.result(timeout=1) == ["one", {"two": 2}, "bye"]


@all_databases()
def test_c55_metadata_can_be_read_by_token(engine, token):
    """As it was given, while the hook is open."""
    run = engine.start(conversation, token)
    settle(engine, run)

    found = engine.get_hook(token)

    assert (found.token, found.run_id, found.is_webhook) == (token, run.id, False)
    assert found.metadata == {"topic": "orders", "steps": (1, 2)}
    assert found.created_at >= run.created_at


@workflow
async def tells_of_a_request(token: str) -> Any:
    request = await create_webhook()
    return await create_hook(token=token, metadata=request)


def test_c55_metadata_may_be_a_request(engine, token):
    """The hook's metadata contains the recorded request."""
    run = engine.start(tells_of_a_request, token)
    settle(engine, run)
    webhook = record_request.find_webhook(engine, run.hooks()[0]["token"])
    assert webhook is not None
    record_request.accept_request(engine, webhook, Request(id="x" * 24, data=b"the body"), holder=None)
    settle(engine, run)

    assert engine.get_hook(token).metadata.data == b"the body"


@dataclass
class Topic:
    name: str


@workflow
async def has_a_topic(token: str) -> Any:
    return await create_hook(token=token, metadata=Topic("orders"))


def test_open_hooks_are_listed_with_plain_metadata(engine, token):
    """A listing is JSON, also in a process that does not know the classes."""
    run = engine.start(has_a_topic, token)
    settle(engine, run)

    (listed,) = describe.list_hooks(engine, run_id=run.id)

    assert listed["metadata"] == {"name": "orders"}
    assert engine.get_hook(token).metadata == Topic("orders")


@workflow
async def sleeps_beside(token: str) -> list[Any]:
    pending = asyncio.ensure_future(sleep("1d"))
    hook, seen = create_hook(token=token), []
    while not seen or seen[-1] != "last":
        seen.append(await hook)
    pending.cancel()
    return [*seen, await note("done")]


@all_databases()
def test_c45_c21_payloads_come_in_order_while_a_long_sleep_is_pending(engine, token):
    """Three payloads beside a sleep of a day; the step runs on the last one only."""
    run = engine.start(sleeps_beside, token)
    settle(engine, run)
    for payload in ("first", "second"):
        engine.resume_hook(token, payload)
        settle(engine, run)
        assert "step_created" not in kinds(run)
    engine.resume_hook(token, "last")
    settle(engine, run)

    assert run.result(timeout=1) == ["first", "second", "last", "done"]


@workflow
async def between(token: str) -> list[Any]:
    hook = create_hook(token=token)
    first = await hook
    await sleep("20ms")
    second = await hook
    await note(2)
    return [first, second, await hook]


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_c45_payloads_before_and_between_the_awaits(engine, token, sent):
    """However many come ahead of the awaits: all are kept, in order."""
    run = engine.start(between, token)
    drive(engine, run.id)
    for number in range(sent):
        engine.resume_hook(token, number)
    settle(engine, run)
    for number in range(sent, 3):
        engine.resume_hook(token, number)
        settle(engine, run)

    assert run.result(timeout=1) == [0, 1, 2]


@workflow
async def closes_with_one_queued(token: str) -> Any:
    hook = create_hook(token=token)
    await note("busy")
    hook.close()
    hook.close()
    taken = await hook
    await note("a turn later")
    try:
        await hook
    except HookClosed:
        return taken


def test_c52_what_was_queued_before_the_close_is_delivered_on_each_replay(engine, token):
    """Closing twice closes once; awaiting what is closed and empty raises and does not hang."""
    run = engine.start(closes_with_one_queued, token)
    drive(engine, run.id)
    engine.resume_hook(token, "queued")
    drive(engine, run.id)
    settle(engine, run)

    assert run.result(timeout=1) == "queued"
    assert kinds(run).count("hook_closed") == 1


# Tokens


@workflow
async def holds(token: str, how: str) -> Any:
    hook = create_hook(token=token)
    payload = await hook
    if how == "fails":
        raise ValueError(payload)
    if how == "closes":
        hook.close()
        await create_hook(token=f"{token}:end")
    return payload


@all_databases()
@pytest.mark.parametrize("how", ["completes", "fails", "closes", "is cancelled"])
def test_c46_c50_a_token_that_is_given_back(engine, token, how):
    """Whatever frees it: a payload is refused then, and the next run has it without a conflict."""
    run = engine.start(holds, token, how)
    settle(engine, run)
    if how == "is cancelled":
        run.cancel()
    else:
        engine.resume_hook(token, 1)
    settle(engine, run)
    before = kinds(run)

    with pytest.raises(HookNotFound, match=token):
        engine.resume_hook(token, 2)
    with pytest.raises(HookNotFound):
        engine.get_hook(token)
    other = engine.start(holds, token, "completes")
    settle(engine, other)
    assert engine.resume_hook(token, 3) == other
    settle(engine, other)

    assert other.result(timeout=1) == 3
    assert kinds(run) == before


@all_databases()
def test_c50_a_resume_is_acknowledged_after_its_commit(engine, token):
    """A commit that fails is told to the sender, and nothing is recorded; one that is told is there."""
    run = engine.start(holds, token, "completes")
    settle(engine, run)

    def fail(_connection: Any) -> None:
        raise ConnectionError("the database went away")

    sa.event.listen(engine.store.engine, "commit", fail)
    with pytest.raises(ConnectionError):
        engine.resume_hook(token, "lost")
    sa.event.remove(engine.store.engine, "commit", fail)
    assert queued(engine, run) == 0
    engine.resume_hook(token, "kept")
    assert queued(engine, run) == 1

    settle(engine, run)
    assert run.result(timeout=1) == "kept"


@workflow
async def fresh_each_round(token: str, rounds: int) -> list[Any]:
    seen = []
    for number in range(rounds):
        hook = create_hook(token=f"{token}:{number}")
        seen.append(await hook)
        await note(number)
    return seen


@all_databases()
def test_c54_a_fresh_hook_in_each_round_can_be_resumed(engine, token):
    """By its token, in every round; what the rounds before left open stays open."""
    run = engine.start(fresh_each_round, token, 4)
    for number in range(4):
        settle(engine, run)
        assert len(run.hooks()) == number + 1
        engine.resume_hook(f"{token}:{number}", number)
    settle(engine, run)

    assert run.result(timeout=1) == [0, 1, 2, 3]


@workflow
async def drawn_each_round(rounds: int) -> list[Any]:
    seen = []
    for _ in range(rounds):
        async for payload in create_hook():
            seen.append(payload)
            break
    return seen


def test_c54_a_drawn_token_in_each_round(engine):
    """Each round has one of its own, to be found among the run's open hooks."""
    run = engine.start(drawn_each_round, 3)
    for number in range(3):
        settle(engine, run)
        (hook,) = run.hooks()
        engine.resume_hook(hook["token"], number)
    settle(engine, run)

    assert run.result(timeout=1) == [0, 1, 2]


@workflow
async def many(count: int) -> Any:
    return await asyncio.gather(*[create_hook(metadata=number) for number in range(count)])


def test_open_hooks_are_listed_in_the_order_of_their_creation(engine):
    """Also when one turn opens a dozen."""
    run = engine.start(many, 12)
    settle(engine, run)

    assert [hook["metadata"] for hook in run.hooks()] == list(range(12))


# Conflicts


@workflow
async def claims(token: str, how: str) -> list[Any]:
    """Claim a token with a step before, after, or beside the question."""
    if how == "before":
        done = await note("step")
        return [await create_hook(token=token).get_conflict(), done]
    if how == "after":
        owner = await create_hook(token=token).get_conflict()
        return [owner, await note("step")]
    return list(await asyncio.gather(create_hook(token=token).get_conflict(), note("step")))


@workflow
async def owns(token: str) -> Any:
    return await create_hook(token=token)


@all_databases()
@pytest.mark.parametrize("how", ["before", "after", "beside"])
def test_c48_a_claim_and_a_step_in_any_order(engine, token, how):
    """None for the owner, the owner's id for the other; neither claim nor step is lost."""
    free = engine.start(claims, token, how)
    settle(engine, free)
    owner = engine.start(owns, token)
    settle(engine, owner)
    taken = engine.start(claims, token, how)
    settle(engine, taken)

    assert free.result(timeout=1) == [None, "step"]
    assert taken.result(timeout=1) == [owner.id, "step"]
    assert engine.get_hook(token).run_id == owner.id


@workflow
async def awaits(token: str) -> Any:
    try:
        return await create_hook(token=token)
    except HookConflict as conflict:
        return [conflict.token, conflict.run_id]


@all_databases()
def test_c47_a_held_token_raises_and_the_owner_is_untouched(engine, token):
    """The second run learns the owner's id where it awaits; the first takes its payload as if nothing had been."""
    owner = engine.start(owns, token)
    settle(engine, owner)
    before = kinds(owner)
    second = engine.start(awaits, token)
    settle(engine, second)

    assert second.result(timeout=1) == [token, owner.id]
    assert kinds(owner) == before
    assert engine.resume_hook(token, "mine") == owner
    settle(engine, owner)
    assert owner.result(timeout=1) == "mine"


@step
def result_of(run_id: str) -> Any:
    return get_run(run_id).result(timeout=1)


@step
def tell(token: str, payload: str) -> str:
    return str(resume_hook(token, payload).id)


@workflow
async def one_at_a_time(token: str, otherwise: str) -> Any:
    """A hook that nobody needs to resume is a lock, held until the run ends."""
    lock = create_hook(token=token)
    owner = await lock.get_conflict()
    if owner is None:
        said = await lock if otherwise == "listen" else await note("critical")
        return f"did: {said}"
    if otherwise == "tell":
        return await tell(token, "from the other")
    return await result_of(owner)


@all_databases()
def test_c49_a_hook_is_a_mutex(engine, token):
    """Of two runs one does the work; the other, which found it taken, returns the first one's result."""
    first = engine.start(one_at_a_time, token, "work")
    drive(engine, first.id)
    second = engine.start(one_at_a_time, token, "result")
    drive(engine, second.id)
    settle(engine, first)
    settle(engine, second)

    assert [first.result(timeout=1), second.result(timeout=1)] == ["did: critical", "did: critical"]
    assert "step_created" in kinds(first)


def test_c49_the_loser_may_resume_the_owners_hook(engine, token):
    """From a step, by the token that it could not have."""
    owner = engine.start(one_at_a_time, token, "listen")
    settle(engine, owner)
    other = engine.start(one_at_a_time, token, "tell")
    settle(engine, other)
    settle(engine, owner)

    assert other.result(timeout=1) == owner.id
    assert owner.result(timeout=1) == "did: from the other"


# Early callers


@step
def call_back(token: str) -> str:
    return str(resume_hook(token, "called back").id)


@workflow
async def called_back_at_once(token: str) -> Any:
    call = call_back(token)
    hook = create_hook(token=token)
    return [await hook, await call]


def test_c56_a_callback_of_the_first_step_finds_the_hook(tmp_path, token):
    """Though the step is called before the hook: a turn opens its hooks before any of its steps is sent."""
    celery = Celery("eager", broker="memory://")
    celery.conf.task_always_eager = True
    engine = Durable(celery, database_url=f"sqlite:///{tmp_path}/eager.db")
    try:
        run = engine.start(called_back_at_once, token)

        assert run.result(timeout=1) == ["called back", run.id]
    finally:
        engine.close()


@all_databases()
def test_wait_finds_a_hook_that_is_created_meanwhile(engine, token):
    """A sender that is early waits for the hook, and is told the run."""
    run = engine.start(owns, token)
    with ThreadPoolExecutor(1) as threads:
        early = threads.submit(engine.resume_hook, token, "early", "10s")
        looked = threading.Event()
        sa.event.listen(engine.store.engine, "before_cursor_execute", lambda *_: looked.set())
        assert looked.wait(20)
        settle(engine, run)
        assert early.result(10) == run
    settle(engine, run)

    assert run.result(timeout=1) == "early"


def test_wait_ends_when_its_time_is_over(engine, token):
    """Nobody opens the hook: HookNotFound after the time given, not before."""
    began = time.monotonic()

    with pytest.raises(HookNotFound, match=token):
        engine.resume_hook(token, 1, wait="200ms")

    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("wait", ["soon", -1, float("nan")])
def test_a_wait_that_is_none_is_refused(engine, token, wait):
    """As sleep refuses it."""
    with pytest.raises(ValueError, match=r"soon|-1|nan"):
        engine.resume_hook(token, 1, wait=wait)


@all_databases()
def test_a_sender_can_wait_until_the_run_has_taken_the_payload_in(engine, token):
    """``wait_taken``: the call returns once a turn has the payload in the log."""
    run = engine.start(conversation, token)
    settle(engine, run)
    with ThreadPoolExecutor(1) as threads:
        sender = threads.submit(engine.resume_hook, token, "one", wait_taken="20s")
        eventually(lambda: queued(engine, run))
        assert not sender.done()
        settle(engine, run)

        assert sender.result(10) == run
    assert kinds(run)[-1] == "hook_received"


class LocalNotifier(PollingNotifier):
    """Notifications within this process."""

    healthy = True

    def __init__(self) -> None:
        self.subscribed: set[str] = set()
        self.receive: Callable[[str], None] = self.subscribed.discard

    def subscribe(self, subject: str, holder: str) -> None:
        self.subscribed.add(subject)

    def listen(self, holder: str, receive: Callable[[str], None]) -> None:
        self.receive = receive

    def notify_subscribers(self, subject: str) -> None:
        if subject in self.subscribed:
            self.receive(subject)


def test_a_sender_that_waits_is_notified_of_the_turn(engine, token, monkeypatch):
    """With a notifier it does not poll: here it would do so once a minute."""
    monkeypatch.setattr(engine, "notifier", notifier := LocalNotifier())
    monkeypatch.setattr(completions, "SLOW_SECS", 60.0)
    run = engine.start(conversation, token)
    settle(engine, run)
    with ThreadPoolExecutor(1) as threads:
        sender = threads.submit(engine.resume_hook, token, "one", wait_taken="30s")
        eventually(lambda: run.id in notifier.subscribed)
        settle(engine, run)

        assert sender.result(10) == run


def test_a_sender_waits_no_longer_than_it_says(engine, token):
    """When the time is over, the call returns: the payload is committed, and a later turn takes it in."""
    run = engine.start(conversation, token)
    settle(engine, run)
    began = time.monotonic()
    engine.resume_hook(token, "bye", wait_taken="100ms")

    assert time.monotonic() - began >= 0.1
    assert queued(engine, run) == 1
    settle(engine, run)
    assert run.result(timeout=1) == ["bye"]


def test_a_wait_for_taking_that_is_none_is_refused(engine, token):
    """Before anything is recorded."""
    run = engine.start(conversation, token)
    settle(engine, run)
    with pytest.raises(ValueError, match="wait_taken"):
        engine.resume_hook(token, 1, wait_taken="soon")

    assert queued(engine, run) == 0
