"""
News for a run in any order: what the world could say at this moment, and numbers that choose among it.

``World`` is the simulator of a run of ``bodies.flow``.  After each turn it
compares more than the simulator does, and asks of the bookkeeping what any
program may expect of it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from bodies import EXPECTED, TOKENS, Block, Body, flow
from hypothesis import strategies as st
from simulator import Simulator

from durable import codec, events
from durable.errors import FatalError
from durable.replay.hooks import Received
from durable.replay.replay import Replay

#: How many turns a run gets after its script, to come to an end.
ENCORE = 40

#: A script: turns, each with the numbers of its news, the milliseconds between them, and whether the process that
#: kept the replay is gone by then.
scripts = st.lists(
    st.tuples(
        st.lists(st.integers(0, 255), min_size=1, max_size=4),
        st.sampled_from([0, 1, 700, 3_000]),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=3,
    max_size=14,
)

#: A number from here on cancels the run.
CANCEL = 245

Script = list[tuple[list[int], int, bool]]
Choices = list[Callable[[], events.Event]]

KINDS: dict[str, type[events.Event]] = {
    "step": events.StepCreated,
    "child": events.ChildCreated,
    "wait": events.WaitCreated,
}


class World(Simulator):
    """
    A run of a program.

    Attributes:
        sent_to: What was sent to each hook, by its op id: the turn, and the payload or the request's id.
    """

    def __init__(self, program: Block) -> None:
        self.sent_to: dict[str, list[tuple[int, Any]]] = defaultdict(list)
        self._count = 0
        super().__init__(flow, (program,), taken={TOKENS[-1]: "run-9"})
        self.turn()

    def play(self, script: Script) -> World:
        """Follow the script, then let everything end that can."""
        try:
            self._follow(script)
        except BaseException:
            self.kept.park()
            raise
        return self

    def _follow(self, script: Script) -> None:
        for numbers, pause, lost in script:
            if self.outcome is not None:
                break
            if lost:
                self.kept.park()
                self.kept = self.cold()
            self.hear(numbers, pause)
        for _ in range(ENCORE):
            if self.outcome is not None or not self._ends():
                break
            self.turn(self._ends()[0]())

    def hear(self, numbers: list[int], pause: int) -> None:
        """One turn, with the news that the numbers choose."""
        choices = [*self._ends(), *self._others()]
        news: list[events.Event] = []
        for number in numbers:
            event = choices[number % len(choices)]() if choices and number < CANCEL else self._cancel()
            # A turn drops a second outcome, as the drive does.
            if event.phase != "ended" or event.op_id not in {each.op_id for each in news if each.phase == "ended"}:
                self.clock += pause * 1_000
                news.append(replace(event, at=self.clock))
        self.turn(*news)

    # What could be said now

    def _ends(self) -> Choices:
        """How open steps, children and waits could end."""
        found: Choices = []
        for event in self.open_ops.values():
            if isinstance(event, events.StepCreated):
                found += [partial(self._result, event), partial(self._failure, event)]
            elif isinstance(event, events.ChildCreated):
                found += [partial(self._child_result, event), partial(self._child_failure, event)]
            elif isinstance(event, events.WaitCreated):
                found.append(partial(self._fire, event))
        return found

    def _others(self) -> Choices:
        """Payloads, also for hooks just closed; outcomes that nobody wants any more; what is read over; wake-ups."""
        told = {event.op_id for event in self.log if isinstance(event, events.StepCompleted | events.WaitCompleted)}
        found: Choices = []
        for event in self.log:
            if isinstance(event, events.HookCreated):
                found += [partial(self._payload, event)] * 2
            elif isinstance(event, events.StepCancelled) and event.op_id not in told:
                found.append(partial(self._result, event))
            elif isinstance(event, events.WaitCancelled) and event.op_id not in told:
                found.append(partial(self._wake, event))
        for event in self.open_ops.values():
            if isinstance(event, events.WaitCreated) and event.digest.startswith("sleep"):
                found.append(partial(self._wake, event))
            elif isinstance(event, events.StepCreated):
                found.append(partial(self._retry, event))
        return found

    def _result(self, of: events.Event) -> events.Event:
        self._count += 1
        return events.StepCompleted(at=0, op_id=of.op_id, attempt=1, result=codec.encode(self._count))

    def _failure(self, of: events.Event) -> events.Event:
        return events.StepFailedEvent(
            at=0, op_id=of.op_id, attempt=4, error=codec.encode_error(ValueError("as played"))
        )

    def _retry(self, of: events.Event) -> events.Event:
        error = codec.encode_error(ValueError("at first"))
        return events.StepRetrying(at=0, op_id=of.op_id, attempt=1, error=error, due_at=self.clock)

    def _child_result(self, of: events.Event) -> events.Event:
        return events.ChildCompleted(at=0, op_id=of.op_id, result=codec.encode("grown up"))

    def _child_failure(self, of: events.Event) -> events.Event:
        return events.ChildFailed(at=0, op_id=of.op_id, error=codec.encode_error(FatalError("as played")))

    def _fire(self, wait: events.WaitCreated) -> events.Event:
        """A timer that is due, or the clock goes on until it is."""
        self.clock = max(self.clock, wait.due_at)
        return events.WaitCompleted(at=0, op_id=wait.op_id)

    def _wake(self, of: events.Event) -> events.Event:
        return events.WaitCompleted(at=0, op_id=of.op_id)

    def _cancel(self) -> events.Event:
        return events.RunCancelRequested(at=0, reason="enough")

    def _payload(self, hook: events.HookCreated) -> events.Event:
        made = self.request() if hook.name == "webhook" else None
        self._count += 1
        known: Any = made.id if made else {"payload": self._count}
        self.sent_to[hook.op_id].append((len(self.turns), known))
        if made:
            return events.HookReceived(at=0, op_id=hook.op_id, request_id=made.id)
        return events.HookReceived(at=0, op_id=hook.op_id, payload=codec.encode(known))

    # What holds after every turn

    def compare(self) -> None:
        assert self.kept.fault is None, self.kept.fault
        super().compare()
        cold = self.cold()
        assert inside(self.kept) == inside(cold)
        cold.park()
        assert leftovers(cold) == []
        self._check_wishes()
        for op_id in self.sent_to:
            self._check_payloads(op_id)

    def _check_wishes(self) -> None:
        """What the log holds open is what the replay waits for, and no more than what the author still wants."""
        body = body_of(self.kept)
        assert body is None or body.odd == []
        if self.outcome is not None or body is None:
            assert self._ended_as_expected(), self.outcome
            return
        open_ops = {kind: [event.op_id for event in self.open(made)] for kind, made in KINDS.items()}
        assert sorted(itertools.chain(*open_ops.values())) == sorted(self.kept._loop.pending)
        assert all(len(found) <= body.wanted[kind] for kind, found in open_ops.items()), (open_ops, body.wanted)

    def _ended_as_expected(self) -> bool:
        if self.outcome is None or self.outcome.value is None or self.outcome.status == "completed":
            return True
        named = codec.error_summary(self.outcome.value).error_type.rpartition(".")[2]
        return named in {"CancelledError", "ExceptionGroup", *(each.__name__ for each in EXPECTED)}

    def _check_payloads(self, op_id: str) -> None:
        """What the body took and what is queued is what was sent, up to the close, in this order."""
        body, hook = body_of(self.kept), self.kept._context.hooks.get(op_id)
        assert body is not None
        took = body.took.get(op_id, [])
        queued = [_sent(item) for item in hook.queue] if hook else []
        sent = [payload for _, payload in self.sent_to[op_id]]
        rank = {str(payload): n for n, payload in enumerate(sent)}
        had = {rank[str(payload)] for payload in [*(payload for _, payload in took), *queued]}
        # A race that the hook has won keeps the payload until those that lost have cleaned up.
        due = set(range(max(len(self._surely_heard(op_id)), *(n + 1 for n in had), 0)))
        story = f"sent {sent}, took {took}, queued {queued}"

        assert len(had) == len(took) + len(queued), story
        assert len(due - had) <= body.racing[op_id], story
        self._check_order([rank[str(payload)] for payload in queued])
        takers = {path for path, _ in took}
        # A race that is cancelled gives its payload back, to be taken after what another task took meanwhile.
        if op_id not in body.raced or len(takers) == 1:
            for path in takers:
                self._check_order([rank[str(payload)] for taker, payload in took if taker == path])

    def _check_order(self, ranks: list[int]) -> None:
        assert ranks == sorted(ranks)

    def _surely_heard(self, op_id: str) -> list[Any]:
        """Payloads of turns before the one in which the hook, or the run, came to its end."""
        over = next((e.seq for e in self.log if e.op_id in (op_id, events.ROOT) and e.phase == "ended"), None)
        if over is None:
            return [payload for _, payload in self.sent_to[op_id]]
        turn = max(n for n, each in enumerate(self.turns) if each.past < over)
        return [payload for n, payload in self.sent_to[op_id] if n < turn]


def body_of(replay: Replay) -> Body | None:
    """The program's course in this replay, once it has begun."""
    return getattr(replay._context, "body", None)


def inside(replay: Replay) -> dict[str, Any]:
    """More than a turn reads off a replay: what its future course depends on."""
    body, loop = body_of(replay), replay._loop
    return {
        "told": body and body.told,
        "took": body and body.took,
        "pending": sorted(loop.pending),
        "issued": loop.operations.issued,
        "counts": loop._counts,
        "now": loop.now,
        "tasks": [task.path for task in loop._tasks.values()],
        "waiting": {op_id: [_sent(item) for item in hook.queue] for op_id, hook in replay._context.hooks.items()},
    }


def _sent(item: Received) -> Any:
    """The payload, or the id of the request."""
    return item.request.id if item.request else codec.decode(item.payload or "")


def leftovers(replay: Replay) -> list[Any]:
    """What a parked replay still holds."""
    loop = replay._loop
    return [*loop._tasks, *loop._ready, *loop.pending, *([loop.unclosable] if loop.unclosable else [])]
