"""
A request to a receiver before it is recorded: its route by the receiver's rules, and the run that it may start.

The author's functions read the request here, and the run is prepared, so that the transaction waits for neither.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from .. import codec, context
from ..context import ReceiverDefinition, ResumeRoute, StartRoute, StartRule, Unroutable
from ..engine import Engine
from ..http import Request, Response
from ..sandbox import log_records
from ..store import RequestOutcome
from ..verify import keys
from . import run_limits
from .new_run import PreparedRun
from .start import prepare

log = log_records.get("durable.receivers")

#: The most characters that are kept of why a request could not be routed.
_MAX_DETAIL = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """The route of a request that needs no run."""

    outcome: RequestOutcome
    answer: Response
    rule: str | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A request with its route, and with the run that it may start."""

    request: Request
    key: str | None
    route: StartRoute | ResumeRoute | Settled
    run: PreparedRun | None = None
    #: Until when it waits for a hook, if it has waited before.
    waits_until: int | None = None

    @property
    def request_id(self) -> str:
        assert self.request.id is not None, "a request is recorded under its id"
        return self.request.id


def arrivals_of(engine: Engine, receiver: ReceiverDefinition, request: Request) -> list[Arrival]:
    """Split a batch, and route each event."""
    request = _as_recorded(request)
    key = keys.key_of(receiver.config.dedupe, request)
    if receiver.each is None:
        return [arrival_of(engine, receiver, request, key)]
    try:
        found = [_as_recorded(event) for event in context.events_of(receiver, request)]
    except Unroutable as reason:
        return [Arrival(request=request, key=key, route=unroutable(receiver, request, reason))]
    if not found:
        nothing = Settled(
            outcome=RequestOutcome.IGNORED, answer=receiver.unmatched, rule="each", detail="each returned no events"
        )
        return [Arrival(request=request, key=key, route=nothing)]
    event_keys = [_event_key(receiver, key, event, number) for number, event in enumerate(found)]
    return [arrival_of(engine, receiver, event, key) for event, key in zip(found, event_keys, strict=True)]


def _as_recorded(request: Request) -> Request:
    """The request as it comes from the store: arguments and payloads then hold its id."""
    return Request.from_head(request.head_json(), request.data)


def _event_key(receiver: ReceiverDefinition, batch_key: str | None, event: Request, number: int) -> str | None:
    """The key of one event.  A header is the same for all events of a batch, so their numbers tell them apart."""
    key = keys.key_of(receiver.config.dedupe, event)
    if key is None or key != batch_key:
        return key
    return hashlib.sha256(f"{key}/{number}".encode()).hexdigest()


def arrival_of(
    engine: Engine, receiver: ReceiverDefinition, request: Request, key: str | None, waits_until: int | None = None
) -> Arrival:
    """Route a request, and prepare the run that it may start."""
    try:
        route = context.route(receiver, request)
    except Unroutable as reason:
        return Arrival(request=request, key=key, route=unroutable(receiver, request, reason))
    if route is None:
        ignored = Settled(outcome=RequestOutcome.IGNORED, answer=receiver.unmatched)
        return Arrival(request=request, key=key, route=ignored)
    rule = route.rule if isinstance(route, StartRoute) else route.start
    try:
        run = None if rule is None else _prepared(engine, rule, request)
    except Unroutable as reason:
        return Arrival(request=request, key=key, route=unroutable(receiver, request, reason))
    return Arrival(request=request, key=key, route=route, run=run, waits_until=waits_until)


def _prepared(engine: Engine, rule: StartRule, request: Request) -> PreparedRun:
    workflow = rule.workflow
    bound = codec.bind(workflow.signature, (request,), {})
    run = prepare(engine, workflow, bound)
    try:
        run = replace(run, limits=run_limits.of_start(workflow, bound))
    except Exception as error:
        raise Unroutable(rule.label, f"the key of a limit raised {type(error).__name__}: {error}") from error
    run_limits.declare(engine, workflow.limits)
    engine.store.vault.store_early(run.row.id, [request.data])
    return run


def unroutable(receiver: ReceiverDefinition, request: Request, reason: Unroutable) -> Settled:
    # The reason may repeat what the sender wrote, so it is recorded, where it is encrypted, and not logged.
    log.error(
        "Request %s to the receiver %r cannot be routed by the rule `%s`, and is kept: see `durable receivers list"
        " --requests`.  Correct the rule, then run `durable receivers retry`.",
        request.id,
        receiver.name,
        reason.rule,
    )
    return Settled(
        outcome=RequestOutcome.UNROUTABLE, answer=_kept(request), rule=reason.rule, detail=str(reason)[:_MAX_DETAIL]
    )


def _kept(request: Request) -> Response:
    """The answer to a request that is kept until it is routed again: its sender need not send it again."""
    return Response.json({"request_id": request.id, "status": RequestOutcome.UNROUTABLE}, 202)
