"""Reads the streams of a run: item by item as they come, or as plain JSON."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from .. import codec, duration
from ..engine import Engine, NextCheck
from ..errors import DecryptionError, PayloadMissing, RunNotFound
from ..registry import StreamItem
from ..store import StoredItem, StreamRow, requests, runs, streams


@dataclass(frozen=True, slots=True)
class StreamPage:
    """
    Some items of a stream.

    Attributes:
        next_number: The number to read from next.
        is_over: Whether no item can follow.
    """

    items: Sequence[StreamItem[Any]]
    next_number: int
    is_over: bool


def key_of(engine: Engine, run_id: str) -> str:
    """
    Return the run that the streams of this one belong to: its first generation.

    Raises:
        RunNotFound: There is no run of this id.
    """
    with engine.store.read() as tx:
        row = runs.find(tx, run_id)
    if row is None:
        raise RunNotFound(run_id)
    return row.first_run_id or row.id


def read(engine: Engine, place: streams.StreamPlace, limit: int = streams.PAGE) -> StreamPage:
    """
    Return the items from a place on.

    Raises:
        DecryptionError: This process does not have the key.
        SerializationError: It does not know the type of an item.
    """
    with engine.store.read() as tx:
        # The head first: what is emitted before the end is there when the head says that the stream is over.
        head = streams.heads(tx, [place[:2]])[place[:2]]
        found = streams.page(tx, place, limit) if head.next_number > place.number else []
        texts = [streams.load(tx, place.key, place.name, each) for each in found]
        loaded = requests.load(tx, {each for text in texts for each in codec.request_ids(text)})
    items = [_item(each, codec.decode(text, loaded)) for each, text in zip(found, texts, strict=True)]
    following = items[-1].number + 1 if items else max(place.number, head.next_number if not found else 0)
    return StreamPage(items, following, head.is_over and following >= head.next_number)


def follow(engine: Engine, run_id: str, name: str, start: int, timeout: Any) -> Iterator[StreamItem[Any]]:
    """
    Yield the items of a stream from *start* on, as they come, until the stream is over.

    Raises:
        RunNotFound: There is no run of this id.
        TimeoutError: No item has come within *timeout*.
        ValueError: *start* is no number of an item.
    """
    for step in _follow(engine, run_id, name, start, timeout):
        if isinstance(step, NextCheck):
            step.completion.wait(step.at_most_secs)
        else:
            yield step


async def afollow(engine: Engine, run_id: str, name: str, start: int, timeout: Any) -> AsyncIterator[StreamItem[Any]]:
    """Do the same in an event loop: a thread reads, and none waits."""
    steps = _follow(engine, run_id, name, start, timeout)
    try:
        while True:
            items, check = await engine.loop_calls.run(_read_on, engine, steps)
            for each in items:
                yield each
            if check is None and not items:
                return
            if check is not None:
                await check.completion.wait_in_loop(check.at_most_secs)
    finally:
        # It runs only if it was cancelled twice; then it is closed when its thread lets go of it.
        with suppress(ValueError):
            steps.close()


def _read_on(engine: Engine, steps: _Steps) -> tuple[list[StreamItem[Any]], NextCheck | None]:
    """Return the next items, at most a page, and what is waited for after them; two times nothing at the end."""
    engine.check_schema()
    items: list[StreamItem[Any]] = []
    for step in steps:
        if isinstance(step, NextCheck):
            step.completion.subscribe()
            return items, step
        items.append(step)
        if len(items) == streams.PAGE:
            break
    return items, None


_Steps = Generator[StreamItem[Any] | NextCheck, None, None]


def _follow(engine: Engine, run_id: str, name: str, start: int, timeout: Any) -> _Steps:
    """Yield the items, and what is waited for when there is none."""
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise ValueError(f"start={start!r} must be the number of an item, from 0 on.")
    secs = math.inf if timeout is None else duration.to_micros(timeout) / 1_000_000
    place = streams.StreamPlace(key_of(engine, run_id), name, start)
    page = read(engine, place)
    while True:
        yield from page.items
        place = place._replace(number=page.next_number)
        if page.is_over:
            return
        if page.items:
            page = read(engine, place)
            continue
        until = time.monotonic() + secs
        with engine.completions.expected(place.key) as news:
            page = read(engine, place)
            while not page.items and not page.is_over:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"Run {run_id!r} has emitted no item {place.number} to the stream {name!r} after {timeout}."
                        "  It may do so later.  Compare the name with that in the workflow."
                    )
                yield NextCheck(news, left)
                page = read(engine, place)


def list_streams(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """
    Return the streams of a run by name: ``name items keep created_at closed_at is_over``.

    ``items`` is how many were emitted, also if only the last ``keep`` of them are left.

    Raises:
        RunNotFound: There is no run of this id.
    """
    engine.check_schema()
    key = key_of(engine, run_id)
    with engine.store.read() as tx:
        found = streams.of_run(tx, key)
        heads = streams.heads(tx, [(key, each.name) for each in found])
    return [_as_json(each, heads[key, each.name].is_over) for each in found]


def list_items(engine: Engine, run_id: str, name: str, *, start: int, limit: int) -> dict[str, Any]:
    """
    Return a page of a stream: ``items next is_over``, each item as ``as_json`` has it.

    An item that cannot be read here says why.  ``next`` is the number to go on with.

    Raises:
        RunNotFound: There is no run of this id.
    """
    engine.check_schema()
    place = streams.StreamPlace(key_of(engine, run_id), name, start)
    with engine.store.read() as tx:
        head = streams.heads(tx, [place[:2]])[place[:2]]
        found = streams.page(tx, place, limit)
        items = [as_json(each, plain(tx, place.key, name, each)) for each in found]
    following = found[-1].number + 1 if found else max(start, head.next_number)
    return {"items": items, "next": following, "is_over": head.is_over and following >= head.next_number}


def as_json(item: StoredItem, value: Any) -> dict[str, Any]:
    """Return an item as plain JSON: ``number at item step attempt discards``."""
    return {
        "number": item.number,
        "at": duration.iso(item.at),
        "item": value,
        "step": item.step_id,
        "attempt": item.attempt,
        "discards": item.discards,
    }


def plain(tx: Connection, key: str, name: str, item: StoredItem) -> Any:
    """Return the value of an item as plain JSON, or why it cannot be read here."""
    try:
        text = streams.load(tx, key, name, item)
        ids = codec.request_ids(text)
        return codec.plain(text, requests.load(tx, ids) if ids else {})
    except (DecryptionError, PayloadMissing) as missing:
        return str(missing)


def _item(stored: StoredItem, value: Any) -> StreamItem[Any]:
    return StreamItem(
        number=stored.number,
        at=duration.to_datetime(stored.at),
        value=value,
        step_id=stored.step_id,
        attempt=stored.attempt,
        discards=stored.discards,
    )


def _as_json(row: StreamRow, is_over: bool) -> dict[str, Any]:
    return {
        "name": row.name,
        "items": row.items,
        "keep": row.keep,
        "created_at": duration.iso(row.created_at),
        "closed_at": None if row.closed_at is None else duration.iso(row.closed_at),
        "is_over": is_over,
    }
