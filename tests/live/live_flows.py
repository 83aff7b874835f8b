"""Workflows for the live tests: small variations of the patterns, with steps that a test can hold up."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from durable import (
    Request,
    Response,
    StepFailed,
    concurrency,
    continue_as_new,
    create_hook,
    create_webhook,
    get_step_metadata,
    race,
    rate,
    receiver,
    set_attributes,
    sleep,
    step,
    step_session,
    workflow,
)

SECRET = b"the secret of the sender"


@step
def answer(request: Request) -> str:
    """Answer a request with its own body."""
    request.respond_with(Response(b"answer to " + request.data, content_type="text/plain"))
    return request.text()


@step
def note(text: str) -> str:
    return text


@workflow
async def deadline(limit: str) -> dict[str, Any]:
    """A callback against a deadline, as in the verification pattern."""
    webhook = create_webhook(respond_with="manual")

    async def callback() -> dict[str, Any]:
        async for request in webhook:
            return {"status": "verified", "body": await answer(request)}
        raise AssertionError("closed without callback")

    async def until() -> dict[str, Any]:
        await sleep(limit)
        return {"status": "timed_out"}

    return await race(callback(), until())


@workflow
async def naps(limit: str) -> str:
    """Sleep, then run a step."""
    await sleep(limit)
    return await note("awake")


@step(max_retries=1)
def kills_its_process(folder: str) -> None:
    """Note the attempt, and die without a word."""
    attempt = get_step_metadata().attempt
    (Path(folder) / f"attempt-{attempt}").touch()
    os._exit(1)


@workflow
async def survives(folder: str) -> dict[str, Any]:
    """Catch what is left of a step that never comes back."""
    try:
        await kills_its_process(folder)
    except StepFailed as error:
        return {"error": error.error_type, "attempts": error.attempts, "after": await note("alive")}
    return {}


@step(max_retries=1, retry_backoff=0)
def long_work(folder: str, secs: float) -> int:
    """Note each beginning and each end, by attempt and process."""
    here = f"{get_step_metadata().attempt} {os.getpid()}"
    with (Path(folder) / "begun").open("a") as notes:
        notes.write(f"{here}\n")
    pause, until = threading.Event(), time.monotonic() + secs
    while time.monotonic() < until and not (Path(folder) / "open").exists():
        pause.wait(0.01)
    with (Path(folder) / "ended").open("a") as notes:
        notes.write(f"{here}\n")
    return os.getpid()


@workflow
async def works(folder: str, secs: float) -> int:
    """One step that takes so long, and has two attempts."""
    return await long_work(folder, secs)


@step
def answer_behind_gate(request: Request, folder: str) -> str:
    """Say that the attempt has begun, wait until the test opens the gate, and answer."""
    (Path(folder) / "begun").touch()
    pause = threading.Event()
    while not (Path(folder) / "open").exists():
        pause.wait(0.01)
    request.respond_with(Response(b"answer to " + request.data, content_type="text/plain"))
    return request.text()


@workflow
async def gated_orders(folder: str) -> dict[str, Any]:
    """The payment pattern with a step that a test can hold up: a ledger of what came, until the last."""
    webhook = create_webhook(respond_with="manual")
    ledger = []
    async for request in webhook:
        gated = request.args.get("gated")
        ledger.append(await (answer_behind_gate(request, folder) if gated else answer(request)))
        if request.args.get("last"):
            break
    return {"ledger": ledger, "status": "settled"}


@workflow
async def answers_late(go: str) -> str:
    """Answer the request only after the hook *go* was resumed; the connection is long released then."""
    webhook = create_webhook(respond_with="manual", timeout="300ms")
    request = await webhook
    await create_hook(token=go)
    return await answer(request)


@workflow
async def never_answers(how: str) -> str:
    """Take a request, and end without answering it."""
    webhook = create_webhook(respond_with="manual")
    request = await webhook
    if how == "fails":
        raise ValueError(f"{request.method} is not to my taste")
    return await note("forgotten")


@workflow
async def gathers(count: int, go: str) -> list[str]:
    """Take *count* requests, and answer them all once the hook *go* was resumed."""
    webhook = create_webhook(respond_with="manual")
    requests = [await webhook for _ in range(count)]
    await create_hook(token=go)
    return list(await asyncio.gather(*(answer(request) for request in requests)))


@step
def look_at(request: Request) -> dict[str, Any]:
    """What a step sees of a request."""
    request.respond_with({"size": len(request.data)})
    return {
        "method": request.method,
        "url": request.url,
        "args": list(request.args.items(multi=True)),
        "data": request.data,
        "text": request.text(),
        "content_type": request.content_type,
        "form": list(request.form.items(multi=True)),
        "files": [
            (name, file.filename, file.content_type, file.read()) for name, file in request.files.items(multi=True)
        ],
    }


@step
def verify(request: Request) -> bool:
    """Check the signature of the body, as the docs of many a sender say."""
    signature = hmac.new(SECRET, request.data, hashlib.sha256).hexdigest()
    good = hmac.compare_digest(request.headers.get("X-Signature", ""), signature)
    request.respond_with(Response.json({"verified": good}, 200 if good else 401))
    return good


@workflow
async def looks(kind: str) -> Any:
    """One request, looked at by a step."""
    request = await create_webhook(respond_with="manual", methods=("POST", "PUT"))
    return await (verify(request) if kind == "signed" else look_at(request))


@workflow
async def fibonacci(n: int) -> int:
    """Each call but the last two is a run that waits for two others."""
    if n < 2:
        return n
    return sum(await asyncio.gather(fibonacci(n - 1), fibonacci(n - 2)))


@step(queue="gated")
def work_behind_gate(folder: str) -> None:
    """Say that work has begun, and wait until the test opens the gate."""
    set_attributes(phase="working")
    pause = threading.Event()
    while not (Path(folder) / "open").exists():
        pause.wait(0.01)


@workflow
async def tells_how_far(folder: str) -> str:
    """A step that says how far the run is while it works."""
    await work_behind_gate(folder)
    set_attributes(phase="done")
    return "done"


@step
async def sleeps_long(folder: str) -> str:
    """Say that the attempt has begun; when it is cancelled, clean up and say so."""
    (Path(folder) / "begun").touch()
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
        (Path(folder) / "tidied up").touch()
        raise
    return "slept"


@step
def works_long(folder: str) -> str:
    """Say that the attempt has begun; between two pieces of work, look whether anybody still wants it."""
    (Path(folder) / "begun").touch()
    metadata, pause = get_step_metadata(), threading.Event()
    for _ in range(60_000):
        if metadata.cancelled:
            (Path(folder) / "tidied up").touch()
            return "stopped early"
        pause.wait(0.01)
    return "did all of it"


@workflow
async def long_job(kind: str, folder: str, stop: str) -> str:
    """A long step, until the hook *stop* is resumed; undone when the run is cancelled."""
    try:
        return await race(sleeps_long(folder) if kind == "async" else works_long(folder), create_hook(token=stop))
    except asyncio.CancelledError:
        await note("undone")
        raise


@workflow
async def spins() -> None:
    """A body that never comes to an end, and will not be told."""
    await note("before")
    while True:
        try:
            sum(divmod(number, 7)[0] for number in range(1000))
        except BaseException:
            continue


@step(semantics="at_most_once")
def pays_behind_gate(folder: str) -> str:
    """Note that it was paid, then hang until the process is killed."""
    with (Path(folder) / "paid").open("a") as ledger:
        ledger.write("paid\n")
    threading.Event().wait(600)
    return "paid"


@workflow
async def pays(folder: str) -> str:
    return await pays_behind_gate(folder)


@step(semantics="transactional", retry_backoff=0)
def books(folder: str) -> int:
    """Write a row, and die before the commit the first time, about when it commits the second time."""
    metadata = get_step_metadata()
    session = step_session()
    session.execute(sa.text("INSERT INTO live_ledger (run) VALUES (:run)"), {"run": metadata.run_id})
    (Path(folder) / f"attempt-{metadata.attempt}").touch()
    if metadata.attempt == 1:
        os._exit(1)
    if metadata.attempt == 2:
        sa.event.listen(session.get_bind().engine, "commit", lambda _: _die_soon())
    return metadata.attempt


def _die_soon() -> None:
    threading.Timer(0.001, os._exit, [1]).start()


@workflow
async def books_it(folder: str) -> int:
    return await books(folder)


@step(timeout=0.5, retry_backoff=0, max_retries=1)
def dawdles(how: str, folder: str) -> str:
    """Take too long the first time: in a call that a signal interrupts, or deaf to that signal."""
    metadata = get_step_metadata()
    (Path(folder) / f"attempt-{metadata.attempt}").write_text(str(os.getpid()))
    if metadata.attempt == 1:
        if how == "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        time.sleep(600)
    return f"attempt {metadata.attempt}"


@workflow
async def hurries(how: str, folder: str) -> str:
    return await dawdles(how, folder)


@workflow
async def dies() -> None:
    """A body that ends its process."""
    os._exit(3)


@workflow
async def hangs() -> None:
    """A body that waits for a lock that nobody gives back."""
    threading.Event().wait()


@workflow
async def noted(text: str) -> str:
    """One step."""
    return await note(text)


@step
def count_on(n: int, folder: str) -> int:
    """One more; the process dies in the third, the first time."""
    mark = Path(folder) / "died"
    if folder and n == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n + 1


@step
def count_frozen() -> int:
    """How many of this process's objects the garbage collector does not look at."""
    return gc.get_freeze_count()


@workflow
async def looks_at_child() -> int:
    """One step."""
    return await count_frozen()


@workflow
async def counts(to: int, folder: str = "") -> int:
    """Step after step."""
    n = 0
    while n < to:
        n = await count_on(n, folder)
    return n


@step
def short() -> int:
    time.sleep(0.02)
    return 1


@workflow
async def wide(number: int) -> int:
    """Quick steps, all at once."""
    return len(await asyncio.gather(*(count_on(n, "") for n in range(number))))


@workflow
async def many_short(number: int) -> int:
    return sum(await asyncio.gather(*(short() for _ in range(number))))


@step
def lasts(secs: float) -> int:
    time.sleep(secs)
    return 1


@workflow
async def many_long(number: int, secs: float) -> int:
    return sum(await asyncio.gather(*(lasts(secs) for _ in range(number))))


@step(name="live.limited", limits=[concurrency("live.two", 2)])
def limited(secs: float) -> int:
    time.sleep(secs)
    return 1


@workflow
async def many_limited(number: int, secs: float) -> int:
    return sum(await asyncio.gather(*(limited(secs) for _ in range(number))))


@step(name="live.keyed", limits=[concurrency("live.keys", 2, key="key"), concurrency("live.all", 3)], retry_backoff=0)
def keyed(key: str, secs: float) -> int:
    time.sleep(secs)
    return 1


@workflow
async def many_keyed(number: int, secs: float) -> int:
    return sum(await asyncio.gather(*(keyed(f"key {place % 3}", secs) for place in range(number))))


@step(name="live.rated", limits=[rate("live.twenty", 20, per="1s")])
def rated() -> float:
    return time.time()


@workflow
async def many_rated(number: int) -> list[float]:
    return await asyncio.gather(*(rated() for _ in range(number)))


@workflow(limits=[concurrency("live.two_runs", 2)])
async def limited_run(secs: float) -> int:
    return await lasts(secs)


@workflow
async def bounded_batch(number: int) -> int:
    """That many short steps, ten at once."""
    slots = asyncio.Semaphore(10)

    async def one() -> int:
        async with slots:
            return await short()

    return sum(await asyncio.gather(*(one() for _ in range(number))))


@workflow
async def completed_batch(number: int) -> int:
    """That many short steps, all at once, each taken in when it is done."""
    return sum([await done for done in asyncio.as_completed([short() for _ in range(number)])])


@workflow
async def queued_batch(number: int) -> int:
    """That many short steps, by ten tasks that take from a queue."""
    items: asyncio.Queue[int] = asyncio.Queue()
    for item in range(number):
        items.put_nowait(item)

    async def worker() -> int:
        done = 0
        while not items.empty():
            items.get_nowait()
            done += await short()
        return done

    return sum(await asyncio.gather(*(worker() for _ in range(10))))


@step(retry_backoff=0)
def notes_its_attempt(folder: str) -> int:
    """Leave a mark of this attempt."""
    number = get_step_metadata().attempt
    (Path(folder) / f"attempt-{number}").touch()
    return number


@workflow
async def dies_after_a_step(folder: str) -> None:
    """A body that ends its process in the turn that records its step."""
    await notes_its_attempt(folder)
    os._exit(3)


desk = receiver("live.desk", dedupe="/id", respond_with="manual")


@desk.start
@workflow(name="live.received")
async def received(request: Request) -> str:
    """Started by a request to a receiver, and answered by a step."""
    return await answer(request)


@workflow
async def tallies_without_end(each: int, taken: tuple[str, ...] = ()) -> list[str]:
    """Answer the requests to one URL; so many in a generation."""
    mine: list[str] = []
    async for request in create_webhook(name="tally", respond_with="manual"):
        if request.data == b"close":
            break
        mine.append(await answer(request))
        if len(mine) == each:
            continue_as_new(each, (*taken, *mine))
    return [*taken, *mine]


@workflow
async def pausable(rounds: int) -> int:
    """Steps and short sleeps, so that there is always something to pause."""
    for number in range(rounds):
        await asyncio.gather(note(f"{number} a"), note(f"{number} b"))
        await sleep("50ms")
    return rounds
