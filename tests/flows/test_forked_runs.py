"""Forks on every database: a run goes on where another has stood, and nothing is done or paid twice."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from driving import all_databases, kinds, settle, settle_family, work

from durable import (
    ForkRefused,
    Run,
    RunFailed,
    create_hook,
    get_run,
    get_step_metadata,
    get_workflow_metadata,
    list_runs,
    now,
    patched,
    publish,
    random,
    resume_hook,
    set_attributes,
    sleep,
    step,
    uuid4,
    workflow,
)
from durable.client import describe

pytestmark = all_databases()

#: How often each step has run, by what it was called with, and the idempotency keys that it had.
ran: Counter[str] = Counter()
keys: dict[str, list[str]] = {}
#: What fails now.
broken: set[str] = set()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    ran.clear()
    keys.clear()
    broken.clear()
    yield
    broken.clear()


@step(name="forks.does", max_retries=0)
def does(what: str, given: str = "") -> str:
    ran[what] += 1
    keys.setdefault(what, []).append(get_step_metadata().idempotency_key)
    if what in broken:
        raise LookupError(what)
    return f"{what} done"


@step(name="forks.last", max_retries=0)
def last(what: str) -> str:
    return does.run(what)


@workflow(name="forks.in_order")
async def in_order() -> list[str]:
    set_attributes(phase="begun")
    publish("first", 1)
    drawn = f"{random().random()} {uuid4()} {now()} {get_workflow_metadata().run_id}"
    return [await does("one", drawn), await does("two", drawn), await last("three")]


def failed_run(engine: Any, started: Run[Any]) -> Run[Any]:
    settle(engine, started)
    assert started.status == "failed"
    return started


def test_a_failed_run_goes_on_at_the_step_that_failed(engine):
    """Steps before it do not run again, and it keeps its key; the failed run stays as it is."""
    broken.add("three")
    run = failed_run(engine, engine.start(in_order))
    log = run.events()
    broken.clear()
    fork = run.retry()
    assert isinstance(fork, Run)
    assert fork.id != run.id
    settle(engine, fork)
    assert fork.result(0) == ["one done", "two done", "three done"]
    assert ran == {"one": 1, "two": 1, "three": 2}
    assert len(set(keys["three"])) == 1
    assert keys["three"][0].startswith(run.id)
    assert (run.status, run.events()) == ("failed", log)
    assert (fork.attributes, fork.values()) == ({"phase": "begun"}, {"first": 1})
    assert kinds(fork).count("run_forked") == 1


def test_a_second_retry_starts_nothing_new(engine):
    """It returns the fork that goes on, or retries it if it has failed too; so does a list of runs that have failed."""
    customer = secrets.token_hex(4)
    broken.add("three")
    run = failed_run(engine, in_order.with_options(attributes={"customer": customer}).start())
    listed = list_runs(attributes={"customer": customer})
    (first,) = listed.fork()
    assert run.retry() == first
    settle(engine, first)
    assert first.status == "failed"
    second = run.retry()
    assert second not in (run, first)
    assert listed.fork() == []
    broken.clear()
    settle(engine, second)
    assert run.retry() == second
    assert second.result(0) == ["one done", "two done", "three done"]
    assert ran == {"one": 1, "two": 1, "three": 3}


def test_a_list_of_runs_is_forked_behind_an_event(engine):
    """As one run is: what is behind the event is done again."""
    customer = secrets.token_hex(4)
    broken.add("three")
    run = failed_run(engine, in_order.with_options(attributes={"customer": customer}).start())
    broken.clear()
    listed = list_runs(attributes={"customer": customer})
    with pytest.raises(TypeError, match="not both"):
        listed.fork(from_step="forks.does", from_event=2)
    first = next(event for event in run.events() if event.kind == "step_completed")
    (fork,) = listed.fork(from_event=first.seq)
    settle(engine, fork)
    assert fork.result(0) == ["one done", "two done", "three done"]
    assert ran == {"one": 1, "two": 2, "three": 2}


def test_a_fork_of_a_fork_keeps_the_first_key(engine):
    """However often a run fails and is retried, the step has one key: that of its first call."""
    broken.add("three")
    run = engine.start(in_order)
    runs = [run]
    for _ in range(3):
        failed_run(engine, runs[-1])
        runs.append(runs[-1].retry())
    broken.clear()
    settle(engine, runs[-1])
    assert runs[-1].result(0) == ["one done", "two done", "three done"]
    assert (ran["one"], ran["three"], len(set(keys["three"]))) == (1, 4, 1)


def test_an_earlier_step_is_called_again_with_what_follows(engine):
    """Steps from there on run again, each with the key that it had; those before do not."""
    run = engine.start(in_order)
    settle(engine, run)
    fork = run.fork(from_step=keys["two"][0].partition(":")[2])
    settle(engine, fork)
    assert fork.result(0) == run.result(0)
    assert ran == {"one": 1, "two": 2, "three": 2}
    assert all(len(set(found)) == 1 for found in keys.values())


def test_a_run_is_forked_behind_any_event(engine):
    """Whichever event: the fork ends as the run did, and what was done before is not done again."""
    run = engine.start(in_order)
    settle(engine, run)
    end = len(run.events())
    for seq in range(1, end):
        before = Counter(event.kind for event in run.events()[:seq])
        ran.clear()
        fork = run.fork(from_event=seq)
        settle(engine, fork)
        assert fork.result(0) == run.result(0), f"behind event {seq}"
        assert sum(ran.values()) <= 3 - before["step_completed"], f"behind event {seq}"
        # Behind the first two events, the workflow begins anew, and so does its clock.
        assert seq < 3 or all(len(set(found)) <= 1 for found in keys.values()), f"behind event {seq}"
        if seq < 3:
            keys.clear()
    for seq in (0, end, end + 1):
        with pytest.raises(ForkRefused, match=f"from 1 to {end - 1}"):
            run.fork(from_event=seq)


@workflow(name="forks.beside")
async def beside() -> list[str]:
    async def branch(*names: str) -> list[str]:
        return [await does(name) for name in names]

    found = await asyncio.gather(branch("left 1", "left 2"), branch("right 1", "right 2"), does("slow"))
    return [str(each) for each in found]


def test_parallel_branches_keep_what_they_have_done(engine):
    """Only the step that has failed runs again: not what ran beside it, nor what ended after it."""
    broken.add("right 2")
    run = failed_run(engine, engine.start(beside))
    before = Counter(ran)
    assert before == {"left 1": 1, "left 2": 1, "right 1": 1, "right 2": 1, "slow": 1}
    broken.clear()
    fork = run.retry()
    settle(engine, fork)
    assert fork.result(0) == [
        "['left 1 done', 'left 2 done']",
        "['right 1 done', 'right 2 done']",
        "slow done",
    ]
    assert ran - before == {"right 2": 1}


def test_a_step_that_went_on_after_the_failure_does_not_run_again(engine):
    """The run fails while a step is under way; its late result counts in the fork."""
    broken.add("right 1")
    run = engine.start(outlives)
    settle(engine, run)
    assert run.status == "failed"
    assert ran == {"right 1": 1, "late": 1}
    broken.clear()
    fork = run.retry()
    settle(engine, fork)
    assert fork.result(0) == ["right 1 done", "late done"]
    assert ran == {"right 1": 2, "late": 1}


def test_a_run_with_branches_is_forked_behind_any_event(engine):
    """Wherever: the fork comes to the same, and runs nothing that had a result before."""
    run = engine.start(beside)
    settle(engine, run)
    log = run.events()
    for seq in range(3, len(log)):
        done = sum(event.kind == "step_completed" for event in log[:seq])
        ran.clear()
        fork = run.fork(from_event=seq)
        settle(engine, fork)
        assert fork.result(0) == run.result(0), f"behind event {seq}"
        assert sum(ran.values()) <= 5 - done, f"behind event {seq}"


@step(name="forks.late", max_retries=0)
def late() -> str:
    return does.run("late")


@workflow(name="forks.outlives")
async def outlives() -> list[str]:
    failing, outliving = does("right 1"), late()
    return [await failing, await outliving]


@step(name="forks.once", semantics="at_most_once")
def once(what: str) -> str:
    return does.run(what)


@workflow(name="forks.at_most_once")
async def at_most_once() -> list[str]:
    return [await once("one"), await once("two"), await last("three")]


def test_an_at_most_once_step_is_not_repeated(engine):
    """Its result stays.  If it has failed, only a caller who names it may have it run a second time."""
    broken.add("three")
    run = failed_run(engine, engine.start(at_most_once))
    broken.clear()
    fork = run.retry()
    settle(engine, fork)
    assert fork.result(0) == ["one done", "two done", "three done"]
    assert ran == {"one": 1, "two": 1, "three": 2}

    broken.add("two")
    other = failed_run(engine, engine.start(at_most_once))
    broken.clear()
    with pytest.raises(ForkRefused, match="at_most_once"):
        other.retry()
    step_id = keys["two"][-1].partition(":")[2]
    named = other.fork(from_step=step_id)
    settle(engine, named)
    assert named.result(0) == ["one done", "two done", "three done"]


def test_an_at_most_once_step_that_has_begun_refuses_the_fork(engine):
    """It has no outcome, so nobody knows whether it has done its work; before it was called, a fork can be made."""
    run = engine.start(at_most_once)
    settle_until(engine, run, "two")
    with pytest.raises(ForkRefused, match=r"forks.once \(r#2\) is at_most_once"):
        run.fork(from_event=len(run.events()))
    fork = run.fork(from_step="r#1")
    settle(engine, run, fork)
    assert fork.result(0) == run.result(0)
    assert ran["one"] == 2


def settle_until(engine: Any, run: Run[Any], what: str) -> None:
    """Do all up to the call of the step that follows on the first."""
    from durable.turns.drive import drive

    drive(engine, run.id)
    work(engine, run)
    drive(engine, run.id)
    assert what not in ran


@workflow(name="forks.sleeps")
async def sleeps() -> list[str]:
    async def tick() -> str:
        await sleep("1h")
        return await does("ticked")

    async with asyncio.timeout(7200):
        ticking = asyncio.ensure_future(tick())
        return [await does("one"), await last("three"), await ticking]


def test_open_sleeps_have_the_time_left_that_they_had(engine):
    """A timeout that would be over by now does not end the step that runs again."""
    broken.add("three")
    run = failed_run(engine, engine.start(sleeps))
    broken.clear()
    fork = run.retry()
    settle(engine, fork)
    assert fork.status == "running"
    pending = {each["kind"] for each in describe.describe(engine, fork.id)["waiting_for"]}
    assert "sleep" in pending, pending
    assert fork.wake_up() == 1
    settle(engine, fork)
    assert fork.result(0) == ["one done", "three done", "ticked done"]


@workflow(name="forks.listens")
async def listens(token: str | None, until: str) -> list[Any]:
    hook = create_hook(token)
    got: list[Any] = [await does("one", hook.token)]
    while not got or got[-1] != until:
        got.append(await hook)
    return [*got, await last("three"), await hook]


def test_a_fork_takes_over_the_hooks_of_a_run_that_has_ended(engine):
    """With their tokens, random or chosen; payloads that were taken are not delivered again."""
    for token in (None, f"forks-{secrets.token_hex(4)}"):
        ran.clear()
        broken.add("three")
        run = engine.start(listens, token, "go")
        settle(engine, run)
        (open_hook,) = run.hooks()
        for payload in ("a", "go"):
            resume_hook(open_hook["token"], payload)
        failed_run(engine, run)
        assert run.hooks() == []
        broken.clear()
        fork = run.retry()
        settle(engine, fork)
        (taken_over,) = fork.hooks()
        assert taken_over["token"] == open_hook["token"]
        assert resume_hook(open_hook["token"], "b") == fork
        settle(engine, fork)
        assert fork.result(0) == ["one done", "a", "go", "three done", "b"]
        assert ran == {"one": 1, "three": 2}


def test_a_run_that_goes_on_keeps_its_tokens(engine):
    """The fork has new ones, though the old one was an argument of a step; payloads that came are delivered again."""
    run = engine.start(listens, None, "go")
    settle(engine, run)
    token = run.hooks()[0]["token"]
    resume_hook(token, "a")
    settle(engine, run)
    behind_call = next(event.seq for event in run.events() if event.kind == "step_completed")
    fork, without = run.fork(from_event=behind_call), run.fork(from_event=behind_call, reapply_payloads=False)
    settle(engine, fork, without)
    tokens = [each.hooks()[0]["token"] for each in (run, fork, without)]
    assert tokens[0] == token
    assert len(set(tokens)) == 3
    for each, address in zip((run, fork, without), tokens, strict=True):
        for payload in ("go", "end"):
            assert resume_hook(address, payload) == each
    settle(engine, run, fork, without)
    assert run.result(0) == fork.result(0) == ["one done", "a", "go", "three done", "end"]
    assert without.result(0) == ["one done", "go", "three done", "end"]
    assert ran == {"one": 1, "three": 3}
    assert len(set(keys["three"])) == 1


def test_a_token_of_your_own_is_not_taken_from_a_run_that_goes_on(engine):
    token = f"forks-{secrets.token_hex(4)}"
    run = engine.start(listens, token, "go")
    settle(engine, run)
    with pytest.raises(ForkRefused, match="token of your own"):
        run.fork(from_event=len(run.events()))
    with pytest.raises(ForkRefused, match="has not failed at a step"):
        run.fork()
    run.cancel()
    settle(engine, run)
    created = next(event.seq for event in run.events() if event.kind == "step_completed")
    fork = run.fork(from_event=created)
    assert fork.hooks()[0]["token"] == token
    with pytest.raises(ForkRefused, match="asked to cancel"):
        run.fork(from_event=len(run.events()) - 1)


@workflow(name="forks.child")
async def child(what: str) -> str:
    return await does(what)


@workflow(name="forks.waiting_child")
async def waiting_child(token: str) -> str:
    return str(await create_hook(token))


@workflow(name="forks.parent")
async def parent(token: str) -> list[str]:
    quick, slow = child("quick"), waiting_child(token)
    return [await quick, await last("three"), await slow]


def test_children_are_referred_to_and_not_started_again(engine):
    """One that has ended, and one that goes on and ends later; its result reaches every fork."""
    token = f"forks-{secrets.token_hex(4)}"
    broken.add("three")
    run = engine.start(parent, token)
    settle_family(engine, run)
    assert run.status == "failed"
    broken.clear()
    forks = [run.fork(), run.fork()]
    with pytest.raises(ForkRefused, match="has not begun"):
        forks[0].fork()
    settle(engine, *forks)
    forks.append(forks[0].fork(from_step="forks.last"))
    for fork in forks:
        settle_family(engine, fork)
        assert fork.status == "running"
    settle(engine, resume_hook(token, "slow done"), *forks)
    settle(engine, *forks)
    assert [fork.result(0) for fork in forks] == [["quick done", "three done", "slow done"]] * 3
    assert ran["quick"] == 1


def test_a_run_that_its_child_has_failed_is_not_forked_blindly(engine):
    broken.add("quick")
    run = engine.start(parent, f"forks-{secrets.token_hex(4)}")
    settle_family(engine, run)
    with pytest.raises(RunFailed):
        run.result(0)
    with pytest.raises(ForkRefused, match="its child run"):
        run.retry()


@workflow(name="forks.patched")
async def changed() -> str:
    way = "new" if patched("forks") else "old"
    return await does("one") + way + await last("three")


def test_a_fork_takes_the_way_that_was_taken(engine):
    """``patched`` answers in the fork as it did, at every point."""
    run = engine.start(changed)
    settle(engine, run)
    for seq in range(1, len(run.events())):
        fork = run.fork(from_event=seq)
        settle(engine, fork)
        assert fork.result(0) == "one donenewthree done", f"behind event {seq}"


def test_what_cannot_be_is_refused(engine):
    run = engine.start(in_order)
    with pytest.raises(ForkRefused, match="has not begun"):
        run.fork(from_event=1)
    settle(engine, run)
    with pytest.raises(ForkRefused, match=r"no step 'forks.dos'.*forks.does, forks.last"):
        run.fork(from_step="forks.dos")
    with pytest.raises(ForkRefused, match=r"called forks.does 2 times: name one of the calls r#1, r#2"):
        run.fork(from_step="forks.does")
    with pytest.raises(TypeError, match="not both"):
        run.fork(from_step="r#1", from_event=1)
    with pytest.raises(ValueError, match="current"):
        run.fork(from_event=1, code="old")
    assert run.retry() is None
    assert get_run(run.id).status == "completed"
