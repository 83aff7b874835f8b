"""Models of the bodies of control requests and answers, of receivers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from .schemas import DIGITS

#: As ``RequestOutcome``.
Outcome = Literal["started", "resumed", "waiting", "missed", "accepted", "rejected", "ignored", "unroutable"]


class ReceivedQuery(BaseModel):
    """Which requests to receivers to list; each condition has to match."""

    model_config = ConfigDict(extra="forbid")

    receiver: Annotated[
        Annotated[str, StringConstraints(max_length=64, pattern=r"^[!-~]+$")] | None,
        Field(description="Only requests to this receiver."),
    ] = None
    outcome: Annotated[
        list[Outcome],
        Field(max_length=8, description="Only requests with one of these outcomes."),
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000, description="The most to list."), DIGITS] = 50


class ReceiverSummary(BaseModel):
    """A receiver, and how many requests it has by outcome."""

    name: str
    url: str | None
    place: str | None
    rules: list[str]
    requests: dict[str, int]
    refused: int


class Receivers(BaseModel):
    """The receivers by name."""

    receivers: list[ReceiverSummary]


class ReceivedRequest(BaseModel):
    """A request to a receiver, and what became of it; times in ISO 8601."""

    id: str
    receiver: str
    received_at: str
    outcome: Outcome
    rule: str | None
    run_id: str | None
    token: str | None
    waits_until: str | None
    detail: str | None


class ReceivedRequests(BaseModel):
    """Requests to receivers, newest first."""

    requests: list[ReceivedRequest]


class Routed(BaseModel):
    """What became of a request that was routed again."""

    id: str
    outcome: Outcome
    run_id: str | None


class RoutedRequests(BaseModel):
    """What became of the request, or of each event if it is a batch."""

    requests: list[Routed]
