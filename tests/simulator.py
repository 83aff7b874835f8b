"""
One run in memory: this class owns the log and plays worker, clock and the world outside by hand.

Every turn is thought twice: by a replay that is kept and fed only what is new,
and by a fresh one that is fed the whole log.  They have to agree.  The log can
be written to a file and replayed for ever after (``tests/histories``).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from durable import attributes, codec, current, events, registry
from durable.errors import WorkflowCodeError
from durable.http import Request, Response
from durable.replay import RunInfo, commands
from durable.replay.replay import Replay

#: When every run starts: 2023-11-14 22:13:20 UTC.
START = 1_700_000_000_000_000
SECOND = 1_000_000

RECORDS: dict[type, Callable[[Any], events.Event]] = {
    commands.CreateStep: lambda c: events.StepCreated(at=0, op_id=c.op_id, name=c.name, digest=c.digest, args=c.args),
    commands.CreateWait: lambda c: events.WaitCreated(at=0, op_id=c.op_id, digest=c.digest, due_at=c.due_at),
    commands.CreateChild: lambda c: events.ChildCreated(
        at=0, op_id=c.op_id, name=c.name, digest=c.digest, args=c.args, run_id=c.run_id
    ),
    commands.CloseHook: lambda c: events.HookClosedEvent(at=0, op_id=c.op_id),
    commands.RecordMarker: lambda c: events.MarkerRecorded(at=0, op_id=c.op_id, name=c.name),
    commands.SetAttributes: lambda c: events.AttributesSet(at=0, op_id=c.op_id, attributes=c.attributes),
    commands.PublishValue: lambda c: events.ValuePublished(at=0, op_id=c.op_id, name=c.name, value=c.value),
    commands.SendReply: lambda c: events.ReplySent(at=0, op_id=c.op_id, request_id=c.request_id),
}
WITHDRAWN = {"step": events.StepCancelled, "wait": events.WaitCancelled, "child": events.ChildCancelled}


def record(command: commands.Command) -> events.Event:
    """The event that a turn writes for a command."""
    if isinstance(command, commands.Withdraw):
        return WITHDRAWN[command.kind](at=0, op_id=command.op_id)
    return RECORDS[type(command)](command)


def terminal(outcome: commands.Outcome, reason: str | None) -> events.Event:
    """The event that ends a run."""
    if outcome.status == "completed":
        return events.RunCompleted(at=0, result=outcome.value or "")
    if outcome.status == "failed":
        return events.RunFailedEvent(at=0, error=outcome.value or "")
    return events.RunCancelledEvent(at=0, error=outcome.value, reason=reason)


@dataclass
class Turn:
    """Where a turn begins in the log, and how many events it found in the inbox."""

    past: int
    drained: int


@dataclass
class Attempt:
    """What a step sees of the attempt that runs it: here, the answers to the requests and the run's attributes."""

    answers: dict[str, Response]
    post: Callable[[dict[str, str | None]], object]
    engine: Any = None
    metadata: Any = None
    workflow_metadata: Any = None

    def respond(self, request_id: str, response: Response) -> bool:
        return self.answers.setdefault(request_id, response) is response

    def set_attributes(self, change: attributes.Changes) -> None:
        self.post(dict(change))

    def publish(self, name: str, value: str) -> None:
        raise NotImplementedError("a simulated run has no readers")

    def emit(self, name: str, item: str | None, options: Any) -> None:
        raise NotImplementedError("a simulated run has no readers")

    def heartbeat(self, details: object) -> None:
        raise NotImplementedError("no step of a simulated run has a heartbeat")

    def session(self) -> NoReturn:
        raise NotImplementedError("a simulated run has no database")


@dataclass
class Simulator:
    """The run of a workflow; ``log`` is its truth."""

    workflow: registry.Workflow[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    run_id: str = "run-1"
    public_url: str | None = "https://example.test"
    #: Tokens that other runs hold, and which.
    taken: dict[str, str] = field(default_factory=dict)
    #: Whether every turn is thought a second time from the whole log.
    checked: bool = True

    def __post_init__(self) -> None:
        self.log: list[events.Event] = []
        self.turns: list[Turn] = []
        self.requests: dict[str, Request] = {}
        self.answers: dict[str, Response] = {}
        self.drawn: set[str] = set()
        #: The items of all streams by the streams' names; None for the end of one.
        self.emitted: list[tuple[str, str | None]] = []
        self.clock = START
        bound = codec.bind(self.workflow.signature, self.args, self.kwargs)
        self.encoded = codec.encode_arguments(bound)
        self.kept = self.replay()

    # What a turn does

    def replay(self, workflow: registry.Workflow[..., Any] | None = None) -> Replay:
        """A fresh replay that was fed nothing."""
        info = RunInfo(run_id=self.run_id, name=self.workflow.name, started_at=START, public_url=self.public_url)
        return Replay(workflow or self.workflow, info, self.encoded, self.requests)

    def cold(self, upto: int | None = None, workflow: registry.Workflow[..., Any] | None = None) -> Replay:
        """A fresh replay that was fed the log, or the first *upto* events of it."""
        replay = self.replay(workflow)
        replay.feed(self.log[:upto], self.requests, replaying=True)
        return replay

    def turn(self, *news: events.Event) -> Simulator:
        """Put news into the log, and with them what the workflow asks for then."""
        past = len(self.log)
        if not self.log:
            created = events.RunCreated(at=self.clock, name=self.workflow.name, args=self.encoded)
            news = (created, events.RunStarted(at=self.clock), *news)
        ended = {e.op_id for e in self.log if e.phase == "ended"}
        # As a turn does: an operation ends once, whatever is told of it later.
        news = tuple(e for e in news if e.phase != "ended" or e.op_id not in ended)
        if not news:
            return self
        drained = [replace(e, at=e.at or self.clock, seq=past + n) for n, e in enumerate(news, 1)]
        self.turns.append(Turn(past, len(drained)))
        self.log += self.think(self.kept, drained)
        once = [(e.op_id, e.phase) for e in self.log if e.phase is not None]
        assert len(once) == len(set(once)), "the store would refuse a second creation or end of one operation"
        if self.checked:
            self.compare()
        return self

    def think(self, replay: Replay, drained: list[events.Event]) -> list[events.Event]:
        """Feed *drained*; they, and the events that record what the workflow asked for."""
        said = list(drained)
        asked: list[commands.Command] = []
        held = self._held(drained[0].seq)

        def say(event: events.Event) -> events.Event:
            said.append(replace(event, at=drained[-1].at, seq=drained[0].seq + len(said)))
            return said[-1]

        replay.feed(drained, self.requests)
        while new := replay.take():
            asked += new
            settled = [say(e) for command in new if (e := self._settle(command, held)) is not None]
            replay.feed(settled)
        for command in asked:
            if isinstance(command, commands.EmitItem):
                self.emitted.append((command.name, command.item))
            elif not isinstance(command, commands.CreateHook):
                say(record(command))
        if replay.outcome is not None and not any(e.phase == "ended" and e.op_id == events.ROOT for e in said):
            reasons = [e.reason for e in (*self.log, *said) if isinstance(e, events.RunCancelRequested)]
            say(terminal(replay.outcome, reasons[0] if reasons else None))
        return said

    def _held(self, before: int) -> dict[str, tuple[str, str]]:
        """Who holds which token: the run, and the operation."""
        held = {token: (run_id, "") for token, run_id in self.taken.items()}
        for event in self.log[: before - 1]:
            if isinstance(event, events.HookCreated):
                held[event.token] = (self.run_id, event.op_id)
            elif isinstance(event, events.HookClosedEvent):
                held = {token: who for token, who in held.items() if who[1] != event.op_id}
        return held

    def _settle(self, command: commands.Command, held: dict[str, tuple[str, str]]) -> events.Event | None:
        if isinstance(command, commands.CloseHook):
            for token in [token for token, who in held.items() if who[1] == command.op_id]:
                del held[token]
        if not isinstance(command, commands.CreateHook):
            return None
        same: dict[str, Any] = {"at": 0, "op_id": command.op_id, "name": command.name, "digest": command.digest}
        if command.token in held:
            owner = held[command.token][0]
            return events.HookConflicted(token=command.token, owner=owner, **same)
        held[command.token] = (self.run_id, command.op_id)
        if command.drawn:
            self.drawn.add(command.token)
        return events.HookCreated(token=command.token, **same)

    def again(self, n: int) -> list[events.Event]:
        """What a fresh replay makes of the n-th turn, given the log before it, and its news."""
        turn = self.turns[n]
        replay = self.cold(turn.past)
        assert replay.take() == []
        said = self.think(replay, self.log[turn.past : turn.past + turn.drained])
        replay.park()
        return said

    def said(self, n: int) -> list[events.Event]:
        """What the log holds of the n-th turn."""
        until = self.turns[n + 1].past if n + 1 < len(self.turns) else None
        return self.log[self.turns[n].past : until]

    def compare(self) -> None:
        """A fresh replay of the whole log asks for nothing, and knows what the kept one knows."""
        cold = self.cold()
        assert cold.take() == []
        assert state(self.kept) == state(cold)
        cold.park()
        assert cold.unclosable is None

    # The world

    @property
    def outcome(self) -> commands.Outcome | None:
        return self.kept.outcome

    @property
    def result(self) -> Any:
        """What the workflow returned; raises what it raised."""
        if isinstance(self.kept.fault, WorkflowCodeError) and self.kept.fault.__cause__ is not None:
            raise self.kept.fault.__cause__
        assert self.outcome is not None, f"the run goes on; open: {sorted(self.open_ops)}"
        if self.outcome.status == "completed":
            return codec.decode(self.outcome.value or "", self.requests)
        assert self.outcome.value is not None, self.outcome
        raise codec.decode_error(self.outcome.value)

    @property
    def open_ops(self) -> dict[str, events.Event]:
        """What was created and has not ended, by op id."""
        ended = {e.op_id for e in self.log if e.phase == "ended"} | {events.ROOT}
        return {e.op_id: e for e in self.log if e.phase == "created" and e.op_id not in ended}

    def open(self, kind: type[events.Event]) -> list[Any]:
        """Open operations of one kind, in the order of the log."""
        return [e for e in self.open_ops.values() if isinstance(e, kind)]

    @property
    def attributes(self) -> dict[str, str]:
        """What the log says of the run's attributes."""
        return attributes.merged({}, *(e.attributes for e in self.log if isinstance(e, events.AttributesSet)))

    def asked(self) -> list[tuple[str, str]]:
        """Op id and name of every step that was asked for."""
        return [(e.op_id, e.name) for e in self.log if isinstance(e, events.StepCreated)]

    def step(self, name: str) -> events.StepCreated:
        """The first open call of the step of this short name, or of this op id."""
        event: events.StepCreated
        for event in self.open(events.StepCreated):
            if name in (event.op_id, event.name.rpartition(".")[2]):
                return event
        raise AssertionError(f"no open call of {name}; open: {self.open_ops}")

    def complete(self, name: str, result: Any = None) -> Simulator:
        """End a step with a result."""
        return self.turn(self.completed(name, result))

    def completed(self, name: str, result: Any = None) -> events.StepCompleted:
        return events.StepCompleted(at=0, op_id=self.step(name).op_id, attempt=1, result=codec.encode(result))

    def fail(self, name: str, error: BaseException, attempt: int = 4) -> Simulator:
        """End a step with an error."""
        op_id = self.step(name).op_id
        return self.turn(events.StepFailedEvent(at=0, op_id=op_id, attempt=attempt, error=codec.encode_error(error)))

    def work(self, name: str | None = None) -> Simulator:
        """Run the author's function of one open step, or of all, and those that follow, one after the other."""
        while self.outcome is None and self.open(events.StepCreated):
            created = self.step(name) if name else self.open(events.StepCreated)[0]
            self._attempt(created)
            if name:
                break
        return self

    def _attempt(self, created: events.StepCreated) -> None:
        step = registry.steps[created.name]
        args, kwargs = codec.decode_arguments(created.args, self.requests, step.signature)
        running = current.running_step.set(Attempt(self.answers, lambda change: self.label(created.op_id, change)))
        try:
            result = step.run(*args, **kwargs)
        except Exception as error:
            self.fail(created.op_id, error)
        else:
            self.complete(created.op_id, result)
        finally:
            current.running_step.reset(running)

    def label(self, name: str, change: dict[str, str | None]) -> Simulator:
        """A change of the run's attributes by the open step of this name."""
        return self.turn(events.AttributesSet(at=0, op_id=self.step(name).op_id, attributes=change))

    def child(self, result: Any) -> Simulator:
        """End the first open child run."""
        op_id = self.open(events.ChildCreated)[0].op_id
        return self.turn(events.ChildCompleted(at=0, op_id=op_id, result=codec.encode(result)))

    def wait(self, seconds: float) -> Simulator:
        """Let time pass; what becomes due meanwhile completes at its moment, each in a turn of its own."""
        until = self.clock + round(seconds * SECOND)
        while self.outcome is None and (due := self._next_due(until)):
            self.clock = max(self.clock, due.due_at)
            self.turn(events.WaitCompleted(at=0, op_id=due.op_id))
        self.clock = until
        return self

    def _next_due(self, until: int) -> events.WaitCreated | None:
        waits = [w for w in self.open(events.WaitCreated) if w.due_at <= until]
        return min(waits, key=lambda w: (w.due_at, w.seq), default=None)

    def token(self, n: int = 0) -> str:
        """The token of the n-th open hook."""
        token: str = self.open(events.HookCreated)[n].token
        return token

    def send(self, payload: Any, token: str | None = None) -> Simulator:
        """A payload for the hook that holds *token*, by default for the first."""
        return self.turn(self.sent(payload, token))

    def sent(self, payload: Any, token: str | None = None) -> events.HookReceived:
        return events.HookReceived(at=0, op_id=self._hook(token), payload=codec.encode(payload))

    def post(self, body: Any = b"", token: str | None = None) -> Simulator:
        """A request to the webhook that holds *token*, by default to the first."""
        return self.turn(self.posted(body, token))

    def posted(self, body: Any = b"", token: str | None = None) -> events.HookReceived:
        return events.HookReceived(at=0, op_id=self._hook(token), request_id=self.request(body).id)

    def request(self, body: Any = b"") -> Request:
        """One that came in, to whichever webhook."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        made = Request(method="POST", url="https://example.test/hook", data=data, id=f"req-{len(self.requests) + 1}")
        request = Request.from_head(made.head_json(), made.data)
        self.requests[request.id or ""] = request
        return request

    def _hook(self, token: str | None) -> str:
        held = self.open(events.HookCreated)
        return str(next(h.op_id for h in held if token in (None, h.token)))

    def cancel(self, reason: str | None = None) -> Simulator:
        return self.turn(events.RunCancelRequested(at=0, reason=reason))

    # Files

    def save(self, path: Path) -> None:
        """Write the history down."""
        known = {
            "workflow": self.workflow.name,
            "run_id": self.run_id,
            "public_url": self.public_url,
            "taken": self.taken,
            "drawn": sorted(self.drawn),
            "args": self.encoded,
            "turns": [[turn.past, turn.drained] for turn in self.turns],
            "requests": [
                {"head": r.head_json(), "body_b64": base64.b64encode(r.data).decode()} for r in self.requests.values()
            ],
            "events": [events.to_row(event) for event in self.log],
        }
        path.write_text(json.dumps(known, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Simulator:
        """A history that was written down."""
        known = json.loads(path.read_text())
        sim = cls.__new__(cls)
        sim.workflow = registry.workflows[known["workflow"]]
        sim.run_id, sim.public_url = known["run_id"], known["public_url"]
        sim.taken, sim.drawn, sim.encoded = known["taken"], set(known["drawn"]), known["args"]
        sim.emitted = []
        sim.turns = [Turn(*each) for each in known["turns"]]
        stored = [Request.from_head(r["head"], base64.b64decode(r["body_b64"])) for r in known["requests"]]
        sim.requests = {r.id or "": r for r in stored}
        sim.log = [
            events.from_row(
                row["kind"],
                seq=row["seq"],
                at=row["at"],
                op_id=row["op_id"],
                data=row["data"],
                value=row["value"],
            )
            for row in known["events"]
        ]
        return sim


def state(replay: Replay) -> dict[str, Any]:
    """What a turn reads off a replay."""
    return {
        "outcome": replay.outcome and plain_outcome(replay.outcome),
        "fault": replay.fault and str(replay.fault),
        "ended": sorted(replay.ended),
        "taken": sorted(replay.taken),
        "open_hooks": sorted(replay.open_hooks),
        "queued": {op_id: replay.queued(op_id) for op_id in sorted(replay.open_hooks | replay.ended)},
    }


def plain_outcome(outcome: commands.Outcome) -> tuple[str, Any]:
    """An outcome without the traceback, whose lines differ with what else is on the stack."""
    if outcome.value is None or outcome.status == "completed":
        return outcome.status, outcome.value
    summary = codec.error_summary(outcome.value)
    return outcome.status, (summary.error_type, summary.message)


def plain(said: Iterable[events.Event], drawn: set[str]) -> list[dict[str, Any]]:
    """Events as what has to be equal: without drawn tokens, and tracebacks."""
    return [_plain(event, drawn) for event in said]


def _plain(event: events.Event, drawn: set[str]) -> dict[str, Any]:
    known = {"kind": event.kind} | {f.name: getattr(event, f.name) for f in fields(event)}
    if "error" in known and known["error"] is not None:
        summary = codec.error_summary(known["error"])
        known["error"] = (summary.error_type, summary.message)
    if any(token in str(value) for token in drawn for value in known.values()):
        for token in drawn:
            known = {k: v.replace(token, "<drawn>") if isinstance(v, str) else v for k, v in known.items()}
        known["digest"] = "<of a drawn token>"
    return known
