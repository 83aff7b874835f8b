"""Saga: undo what was done, in reverse order, when a later step fails or the run is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from durable import step, workflow


@step
def book_flight(trip: str) -> str:
    return f"flight for {trip}"


@step
def book_hotel(trip: str) -> str:
    return f"hotel for {trip}"


@step(max_retries=2, retry_backoff=0.1)
def charge(trip: str, limit: int) -> None:
    if limit < 500:
        raise ValueError(f"{trip} costs 500, the limit is {limit}")


@step(max_retries=None)  # undoing must succeed in the end
def cancel_booking(booking: str) -> str:
    return f"cancelled: {booking}"


@workflow
async def book_trip(trip: str, limit: int) -> list[str]:
    booked: list[str] = []
    undo: list[Callable[[], Awaitable[str]]] = []
    try:
        for book in (book_flight, book_hotel):
            booking = await book(trip)
            booked.append(booking)
            undo.append(partial(cancel_booking, booking))
        await charge(trip, limit)
    except (Exception, asyncio.CancelledError):
        for take_back in reversed(undo):
            await take_back()
        raise
    return booked
