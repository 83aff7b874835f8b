"""What came of it: the outside's book and the steps' ledger compared with what the system has recorded."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from durable import Run, codec, events
from durable.engine.engine import Engine
from durable.events import Event
from durable.registry import workflows
from durable.replay import Replay, RunInfo
from durable.store import limit_faults, run_log
from durable.store import requests as asked
from durable.store import runs as stored
from durable.store.schema import inbox, requests

from .senders import CALLED_BACK, EVENTS, LENGTH, WIDTH, Story


@dataclass
class Verdict:
    """What must be empty.  Each line says which run, and what is wrong with it."""

    #: Accepted, and not there; recorded as done, and never done.
    lost: list[str] = field(default_factory=list)
    #: A request, result or end that is recorded twice.
    twice: list[str] = field(default_factory=list)
    #: A run that ended with another result than a run without faults.
    wrong: list[str] = field(default_factory=list)
    #: A run that has not ended, or a sender that nobody answered.
    stuck: list[str] = field(default_factory=list)
    #: A slot of a limit that is still in use, or waited for, when all runs have ended.
    slots: list[str] = field(default_factory=list)
    #: An answer that is not the one that is recorded.
    mismatched: list[str] = field(default_factory=list)
    #: A log that is not as logs are: places missing, payloads out of order, timers early, replay differs.
    broken: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not any(vars(self).values())


def ledger(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The executions of each run's steps, as the steps themselves wrote them down."""
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if (folder / "ledger").exists():
        for line in (folder / "ledger").read_text().splitlines():
            entry = json.loads(line)
            known[entry["run"]].append(entry)
    return known


def check(engine: Engine, stories: Sequence[Story], executions: Mapping[str, list[dict[str, Any]]]) -> Verdict:
    """Compare everything."""
    verdict = Verdict()
    for story in stories:
        verdict.mismatched += story.mismatches
        if story.gave_up:
            verdict.stuck.append(f"{story.name} (run {story.run_id}): {story.gave_up}")
        if story.run_id is not None:
            _check_run(engine, story, executions.get(story.run_id, []), verdict)
    if not verdict.stuck:
        verdict.slots += _slots(engine)
    started = [story.run_id for story in stories if story.run_id]
    verdict.twice += [f"run {run_id} is two stories'" for run_id, times in Counter(started).items() if times > 1]
    return verdict


def _slots(engine: Engine) -> Iterator[str]:
    now = engine.now()
    with engine.store.read() as tx:
        for state in limit_faults.key_states(tx, now):
            if state.in_use or state.waits_since:
                yield f"{state.name} (key {state.key}): {state.in_use} in use, waits since {state.waits_since}"
        for wrong in limit_faults.wrong_slots(tx, now, now):
            yield f"{wrong.op_id} of run {wrong.run_id} {wrong.what}"


def _check_run(engine: Engine, story: Story, done: list[dict[str, Any]], verdict: Verdict) -> None:
    assert story.run_id is not None
    with engine.store.read() as tx:
        run = stored.find(tx, story.run_id)
        told = run_log.read(tx, story.run_id)
        left = tx.execute(sa.select(sa.func.count()).where(inbox.c.run_id == story.run_id)).scalar_one()
    where = f"{story.name} (run {story.run_id})"
    if run is None:
        verdict.lost.append(f"{where} was started, and is not there")
        return
    if not run.ended:
        if not story.gave_up:
            verdict.stuck.append(f"{where} is {run.status}, {left} in its inbox, after {_brief(told)}: {run.blocked}")
        return
    if run.status != "completed":
        verdict.wrong.append(f"{where} is {run.status}: {told[-1]}")
        return
    result: Any = Run(story.run_id, engine).result()
    verdict.wrong += [f"{where}: {wrong}" for wrong in _wrong(story, result)]
    verdict.lost += [f"{where}: {lost}" for lost in _lost(story, result, told, done)]
    verdict.twice += [f"{where}: {twice}" for twice in _twice(result, told)]
    verdict.mismatched += [f"{where}: {other}" for other in _mismatched(engine, story)]
    verdict.broken += [f"{where}: {broken}" for broken in _broken(engine, told)]


def _brief(told: Sequence[Event]) -> str:
    return " ".join(event.kind for event in told[-4:]) or "nothing"


def _wrong(story: Story, result: Any) -> Iterator[str]:
    """How the result differs from that of a run without faults, whose events may have been sent again."""
    said = [entry["id"] for entry in result.get("ledger", ())]
    match story.kind:
        case "payments":
            numbers = [int(each.split("/")[1]) for each in said]
            if set(numbers) != set(range(1, EVENTS + 1)) or numbers.count(EVENTS) != 1 or numbers[-1] != EVENTS:
                yield f"events {said}"
        case "verification":
            if result["status"] != ("verified" if story.args[1] == CALLED_BACK else "timed_out"):
                yield f"status {result['status']}"
        case "imports":
            if result["indexed"]["blob_token"] != f"blob:{story.name}":
                yield f"indexed {result['indexed']}"
        case "fan_out" | "chain":
            wanted = range(WIDTH if story.kind == "fan_out" else LENGTH)
            if [part["number"] for part in result["parts"]] != list(wanted):
                yield f"parts {result['parts']}"


def _lost(story: Story, result: Any, told: Sequence[Event], done: list[dict[str, Any]]) -> Iterator[str]:
    """What was answered 2xx, or recorded as a step's result, and cannot be found."""
    said = [entry["id"] for entry in result.get("ledger", ())]
    acknowledged = [answer.id for answer in story.answered]
    if [each for each in said if each in acknowledged] != acknowledged:
        yield f"answered {acknowledged}, in this order; in the result: {said}"
    executed = {entry["entry"] for entry in done}
    recorded = [codec.decode(e.result) for e in told if isinstance(e, events.StepCompleted)]
    kept = {value if isinstance(value, str) else value["entry"] for value in recorded}
    if not kept <= executed:
        yield f"results {kept - executed} are of executions that never were"
    if not _entries(result) <= kept:
        yield f"the run's result has {_entries(result) - kept}, which no step recorded"


def _entries(result: Any) -> set[str]:
    """The executions whose results a run's result holds."""
    found = {entry["entry"] for name in ("ledger", "parts") for entry in result.get(name, ())}
    if "indexed" in result:
        found.add(result["indexed"]["entry"])
    return found | ({result["submitted"]} if "submitted" in result else set())


def _twice(result: Any, told: Sequence[Event]) -> Iterator[str]:
    said = [entry["id"] for entry in result.get("ledger", ())]
    yield from (f"event {each} was handled twice" for each, times in Counter(said).items() if times > 1)
    for phase in ("created", "ended"):
        counted = Counter(event.op_id for event in told if event.phase == phase)
        yield from (f"{op_id} is {phase} {times} times" for op_id, times in counted.items() if times > 1)
    received = Counter(e.request_id for e in told if isinstance(e, events.HookReceived) and e.request_id)
    yield from (f"request {each} is in the log {times} times" for each, times in received.items() if times > 1)


def _mismatched(engine: Engine, story: Story) -> Iterator[str]:
    """Requests answered 2xx whose recorded answer is another."""
    with engine.store.read() as tx:
        rows = tx.execute(
            sa.select(requests.c.head, requests.c.answer_body).where(requests.c.run_id == story.run_id)
        ).all()
    recorded = defaultdict(list)
    for row in rows:
        named = dict((name.lower(), value) for name, value in json.loads(row.head)["headers"])
        recorded[named.get("x-event")].append(bytes(row.answer_body or b""))
    for answer in story.answered:
        if recorded[answer.id] != [answer.body]:
            yield f"event {answer.id} was answered {answer.body!r}, recorded is {recorded[answer.id]!r}"


def _broken(engine: Engine, told: Sequence[Event]) -> Iterator[str]:
    if [event.seq for event in told] != list(range(1, len(told) + 1)):
        yield f"places {[event.seq for event in told]}"
    if any(later.at < earlier.at for earlier, later in pairwise(told)):
        yield "times go back"
    ends = [event.kind for event in told if event.kind in ("run_completed", "run_failed", "run_cancelled")]
    if len(ends) != 1:
        yield f"ends {ends}"
    due = {event.op_id: event.due_at for event in told if isinstance(event, events.WaitCreated)}
    early = [e.op_id for e in told if isinstance(e, events.WaitCompleted) and e.at < due[e.op_id]]
    if early:
        yield f"waits {early} are over before their time"
    yield from _replays_otherwise(engine, told)


def _replays_otherwise(engine: Engine, told: Sequence[Event]) -> Iterator[str]:
    """Whether the finished log, replayed, asks for something else than it records."""
    created = next(e for e in told if isinstance(e, events.RunCreated))
    started = next(e for e in told if isinstance(e, events.RunStarted))
    wanted = {e.request_id for e in told if isinstance(e, events.HookReceived) and e.request_id}
    wanted |= {each for e in told if e.value_field for each in codec.request_ids(getattr(e, e.value_field) or "")}
    with engine.store.read() as tx:
        known = asked.load(tx, wanted)
    info = RunInfo.of("checked", created.name, created, started)
    replay = Replay(workflows[created.name], info, created.args, known)
    try:
        replay.feed(told, known, replaying=True)
        if replay.fault is not None:
            yield f"replay: {replay.fault}"
    finally:
        replay.park()
