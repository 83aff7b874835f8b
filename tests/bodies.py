"""
Little programs as trees, and the workflow that carries one out; ``bodies_drawn.py`` lets Hypothesis write them.

A program is a block: a list of nodes.  A node is a list, the name of a method
of ``Body`` and what it takes, which may be further blocks.  So a program is a
value: it crosses as the argument of a run, is kept in its history, and can be
replayed in another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

from durable import Request, create_hook, create_webhook, now, race, random, sleep, uuid4
from durable.context.workflow import patched, set_attributes
from durable.errors import HookClosed, HookConflict, RunCancelled, RunFailed
from durable.registry.decorators import step, workflow
from durable.replay.hooks import Hook

Block = list[Any]

#: Tokens that programs ask for; the last one is another run's.
TOKENS = ("left", "right", "held")

#: What a body may raise and catch.  Anything else is the library's fault.
EXPECTED = (ValueError, TimeoutError, HookClosed, HookConflict, RunFailed, RunCancelled, BaseExceptionGroup)

CAUGHT: dict[str, type[BaseException]] = {
    "error": Exception,
    "late": TimeoutError,
    "cancel": asyncio.CancelledError,
    "everything": BaseException,
}

#: Which spawned task this is, or belongs to.  A task may join only those spawned after it: none waits for itself.
_place: contextvars.ContextVar[int] = contextvars.ContextVar("place", default=-1)


@step(name="bodies.work")
def work(n: int) -> Any: ...


@workflow(name="bodies.child")
async def child(n: int) -> Any: ...


@workflow(name="bodies.flow")
async def flow(program: Block) -> list[Any]:
    body = Body()
    asyncio.get_running_loop().context.body = body  # type: ignore[attr-defined]
    await body.run(program)
    return body.told


class Body:
    """
    One run of a program.

    Attributes:
        told: What the workflow's code has received, in order.
        took: Payloads by the hook's op id, each with the path of the task that received it.
        racing: The number of unfinished races with a hook, by its op id.
        raced: The op ids of all hooks that have been in a race.
        wanted: The number of steps, children and waits whose outcome the program may still await.
        odd: Errors that a workflow's code must never receive.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.took: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        self.racing: Counter[str] = Counter()
        self.raced: set[str] = set()
        self.wanted: Counter[str] = Counter()
        self.odd: list[str] = []
        self._hooks: list[Hook[Any]] = []
        self._calls: list[Any] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._queue: asyncio.Queue[int] = asyncio.Queue(1)
        self._event, self._lock = asyncio.Event(), asyncio.Lock()
        self._two, self._condition = asyncio.Semaphore(2), asyncio.Condition()

    async def run(self, block: Block, label: Any = None) -> Any:
        for name, *rest in block:
            await getattr(self, name)(*rest)
        return label

    # Leaves

    async def step(self, n: int) -> None:
        with self._wanting("step"):
            self.told.append(await work(n))

    async def call(self, n: int) -> None:
        """Called, and awaited later or never."""
        self.wanted["step"] += 1
        self._calls.append(work(n))

    async def outcome(self, k: int) -> None:
        """Of a step that was called before; perhaps for the second time."""
        if self._calls:
            self.told.append(await self._calls[k % len(self._calls)])

    async def child(self, n: int) -> None:
        with self._wanting("child"):
            self.told.append(await child(n))

    async def sleep(self, secs: float, durable: bool) -> None:
        with self._wanting("wait"):
            await (sleep(secs) if durable else asyncio.sleep(secs))

    async def nap(self, secs: float) -> None:
        """A sleep that nobody awaits."""
        self.wanted["wait"] += 1
        self._calls.append(sleep(secs))

    async def pause(self) -> None:
        await asyncio.sleep(0)

    async def draw(self) -> None:
        self.told.append([random().random(), uuid4(), now()])

    async def fail(self) -> None:
        raise ValueError("as written")

    async def patch(self, name: str) -> None:
        if patched(name):
            await self.step(1000)
        set_attributes(phase=name)

    # Tasks

    async def spawn(self, block: Block) -> None:
        self._spawn(block)

    def _spawn(self, block: Block, label: Any = None) -> asyncio.Task[Any]:
        place = len(self._tasks)

        async def task() -> Any:
            _place.set(place)
            return await self.run(block, label)

        self._tasks.append(asyncio.create_task(task()))
        return self._tasks[-1]

    async def cancel(self, k: int) -> None:
        if self._tasks:
            self.told.append(self._tasks[k % len(self._tasks)].cancel())

    async def join(self, k: int) -> None:
        later = self._tasks[_place.get() + 1 :]
        if later:
            await later[k % len(later)]

    async def gather(self, blocks: list[Block], collect: bool) -> None:
        parts = [self.run(block, n) for n, block in enumerate(blocks)]
        self.told.append(_plain(await asyncio.gather(*parts, return_exceptions=collect)))

    async def race(self, blocks: list[Block]) -> None:
        self.told.append(await race(*[self.run(block, n) for n, block in enumerate(blocks)]))

    async def race_sleep(self, secs: float, block: Block) -> None:
        with self._wanting("wait"):
            self.told.append(await race(sleep(secs), self.run(block, "first")))

    async def wait(self, blocks: list[Block], when: str, secs: float | None, give_up: bool) -> None:
        tasks = [self._spawn(block, n) for n, block in enumerate(blocks)]
        with self._wanting("wait"):
            done, pending = await asyncio.wait(tasks, timeout=secs, return_when=when)
        self.told.append([[tasks.index(task) for task in each] for each in (done, pending)])
        if give_up and pending:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)

    async def wait_for(self, secs: float, block: Block) -> None:
        with self._wanting("wait"):
            self.told.append(await asyncio.wait_for(self.run(block, "in time"), secs))

    async def timeout(self, secs: float, block: Block, more: float | None, rest: Block) -> None:
        with self._wanting("wait"):
            async with asyncio.timeout(secs) as limit:
                await self.run(block)
                if not limit.expired():
                    limit.reschedule(None if more is None else asyncio.get_running_loop().time() + more)
                await self.run(rest)

    async def group(self, blocks: list[Block]) -> None:
        async with asyncio.TaskGroup() as group:
            for block in blocks:
                group.create_task(self.run(block))

    async def shield(self, secs: float, block: Block) -> None:
        with self._wanting("wait"):
            self.told.append(await asyncio.wait_for(asyncio.shield(self._spawn(block, "kept")), secs))

    async def as_completed(self, blocks: list[Block], secs: float | None) -> None:
        self.wanted["wait"] += 1  # asyncio leaves its timer, as it leaves its tasks, when nobody iterates any more
        for ended in asyncio.as_completed([self.run(b, n) for n, b in enumerate(blocks)], timeout=secs):
            self.told.append(await ended)

    # Course

    async def attempt(self, block: Block, caught: str, instead: Block, at_last: Block) -> None:
        """``try``, ``except`` and ``finally``."""
        try:
            await self.run(block)
        except CAUGHT[caught] as error:
            self._saw(error)
            await self.run(instead)
        finally:
            await self.run(at_last)

    async def generate(self, blocks: list[Block], until: int, at_last: Block) -> None:
        """An asynchronous generator, perhaps left by ``break``."""

        async def numbers() -> AsyncIterator[int]:
            try:
                for n, block in enumerate(blocks):
                    await self.run(block)
                    yield n
            finally:
                await self.run(at_last)

        async for n in numbers():
            self.told.append(n)
            if n >= until:
                break

    async def context(self, before: Block, block: Block, after: Block) -> None:
        """An asynchronous context manager."""

        @contextlib.asynccontextmanager
        async def manager() -> AsyncIterator[None]:
            await self.run(before)
            try:
                yield
            finally:
                await self.run(after)

        async with manager():
            await self.run(block)

    # Hooks

    async def open(self, token: str | None) -> None:
        self._hooks.append(create_webhook() if token == "web" else create_hook(token=token))

    async def take(self, k: int) -> None:
        if self._hooks:
            hook = self._hooks[k % len(self._hooks)]
            self._took(hook, await hook)

    async def each(self, k: int, count: int, block: Block) -> None:
        """``async for``, left by ``break`` after *count*."""
        if not self._hooks:
            return
        hook = self._hooks[k % len(self._hooks)]
        async for payload in hook:
            self._took(hook, payload)
            await self.run(block)
            count -= 1
            if count <= 0:
                break

    async def race_hook(self, k: int, blocks: list[Block]) -> None:
        """A race of a hook itself against others."""
        if not self._hooks:
            return
        hook = self._hooks[k % len(self._hooks)]
        raced: Any = race(hook, *[self.run(block, n) for n, block in enumerate(blocks)])
        self.raced.add(hook.op_id or "")
        self.racing[hook.op_id or ""] += 1
        try:
            await raced
        finally:
            self.racing[hook.op_id or ""] -= 1
            if raced.done() and not raced.cancelled() and raced.exception() is None:
                if isinstance(raced.result(), int):
                    self.told.append(raced.result())
                else:
                    self._took(hook, raced.result())

    async def with_hook(self, token: str | None, block: Block) -> None:
        with create_hook(token=token) as hook:
            self._hooks.append(hook)
            await self.run(block)

    async def conflict(self, k: int) -> None:
        if self._hooks:
            self.told.append(await self._hooks[k % len(self._hooks)].get_conflict())

    async def close(self, k: int) -> None:
        if self._hooks:
            self._hooks[k % len(self._hooks)].close()

    def _took(self, hook: Hook[Any], payload: Any) -> None:
        known = payload.id if isinstance(payload, Request) else payload
        task: Any = asyncio.current_task()
        self.took[hook.op_id or ""].append((task.path, known))
        self.told.append([hook.op_id, known])

    # Between tasks

    async def put(self, n: int) -> None:
        await self._queue.put(n)

    async def get(self) -> None:
        self.told.append(await self._queue.get())

    async def set(self) -> None:
        self._event.set()

    async def clear(self) -> None:
        self._event.clear()

    async def wait_event(self) -> None:
        await self._event.wait()

    async def lock(self, block: Block) -> None:
        async with self._lock:
            await self.run(block)

    async def semaphore(self, block: Block) -> None:
        async with self._two:
            await self.run(block)

    async def notified(self) -> None:
        async with self._condition:
            await self._condition.wait()

    async def notify(self, n: int) -> None:
        async with self._condition:
            self._condition.notify(n)

    # What is checked

    @contextlib.contextmanager
    def _wanting(self, kind: str) -> Iterator[None]:
        self.wanted[kind] += 1
        try:
            yield
        finally:
            self.wanted[kind] -= 1

    def _saw(self, error: BaseException) -> None:
        self.told.append(_plain(error))
        if not isinstance(error, (*EXPECTED, asyncio.CancelledError)):
            self.odd.append(repr(error))


def _plain(seen: Any) -> Any:
    """What can cross: an error as its text."""
    if isinstance(seen, list):
        return [_plain(each) for each in seen]
    return repr(seen) if isinstance(seen, BaseException) else seen
