"""What ``Run`` does: read a run by its id, wait for its result, cancel it, end its sleeps."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Any

from sqlalchemy import Connection

from .. import codec, duration, events, failpoints, registry
from ..engine import Engine, NextCheck, Waiting, wait_in_loop, wait_in_thread
from ..errors import RunCancelled, RunFailed, RunNotFound, ValueNotPublished
from ..events import ROOT, Event
from ..store import Run as RunRow
from ..store import attributes, cancel_run, generations, published, requests, run_log, runs
from . import fork, operate, pauses, read_tokens, streams
from .describe import blocked_reason, list_hooks, value_of


class Client:
    """The engine's ``registry.RunClient``.  Every call takes one or two short transactions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, run_id: str) -> RunRow | None:
        """Return the run's row; None when there is no such run."""
        with self._engine.store.read() as tx:
            return runs.find(tx, run_id)

    def latest(self, run_id: str) -> RunRow:
        """Return the row of the run's last generation, which is the run itself if it has not continued as new."""
        with self._engine.store.read() as tx:
            row = generations.latest(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        return row

    def generations(self, run_id: str) -> list[str]:
        """Return the ids of the run's generations, the first one first."""
        with self._engine.store.read() as tx:
            found = generations.all_of(tx, run_id)
        if not found:
            raise RunNotFound(run_id)
        return found

    def attributes(self, run_id: str) -> dict[str, str]:
        """Return what the run has set with ``set_attributes``."""
        last = self.latest(run_id)
        with self._engine.store.read() as tx:
            return attributes.read(tx, last.id)

    def result(self, run_id: str, timeout: Any) -> Any:
        """Wait for the run to end, and return its result; see ``Run.result``."""
        return wait_in_thread(self._result(run_id, timeout))

    async def aresult(self, run_id: str, timeout: Any) -> Any:
        """Do the same in an event loop."""
        return await wait_in_loop(self._engine.loop_calls, self._checked(self._result(run_id, timeout)))

    def _checked(self, waiting: Waiting[Any]) -> Waiting[Any]:
        self._engine.check_schema()
        return (yield from waiting)

    def _result(self, run_id: str, timeout: Any) -> Waiting[Any]:
        row = self.latest(run_id)
        if not row.ended:
            until = _until(timeout)
            while not row.ended:
                row = yield from self._wait(row, until, timeout)
        run_id = row.id
        with self._engine.store.read() as tx:
            ended = run_log.outcome(tx, run_id, ROOT)
            loaded = requests.load(tx, codec.request_ids(value_of(ended) or ""))
        match ended:
            case events.RunCompleted(result=text):
                return codec.decode(text, loaded)
            case events.RunFailedEvent(error=text):
                summary = codec.error_summary(text)
                failed = RunFailed(run_id, summary.error_type, summary.message, summary.traceback)
                raise failed from codec.decode_error(text, loaded)
            case events.RunCancelledEvent(reason=reason, error=text):
                raise RunCancelled(run_id, reason) from (codec.decode_error(text, loaded) if text else None)
        raise AssertionError(f"run {run_id} is {row.status} and its log has no end")

    def value(self, run_id: str, name: str, timeout: Any) -> Any:
        """Return the latest value of this name, once there is one; see ``Run.value``."""
        return wait_in_thread(self._value(run_id, name, timeout))

    async def avalue(self, run_id: str, name: str, timeout: Any) -> Any:
        """Do the same in an event loop."""
        return await wait_in_loop(self._engine.loop_calls, self._checked(self._value(run_id, name, timeout)))

    def _value(self, run_id: str, name: str, timeout: Any) -> Waiting[Any]:
        until = _until(timeout)
        row, found = self._look_for(run_id, name)
        while name not in found:
            waited_for = row.id
            with self._engine.completions.expected(waited_for) as news:
                row, found = self._look_for(waited_for, name)
                while name not in found and row.id == waited_for:
                    left = until - time.monotonic()
                    if left <= 0:
                        raise TimeoutError(self._why_missing(row, name, timeout))
                    yield NextCheck(news, left)
                    row, found = self._look_for(waited_for, name)
        return found[name]

    def stream(self, run_id: str, name: str, start: int, timeout: Any) -> Iterator[registry.StreamItem[Any]]:
        """Yield the items of a stream as they come; see ``Run.stream``."""
        return streams.follow(self._engine, run_id, name, start, timeout)

    def astream(self, run_id: str, name: str, start: int, timeout: Any) -> AsyncIterator[registry.StreamItem[Any]]:
        """Yield the items of a stream in an event loop."""
        return streams.afollow(self._engine, run_id, name, start, timeout)

    def streams(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's streams; see ``Run.streams``."""
        return streams.list_streams(self._engine, run_id)

    def read_token(self, run_id: str, streams: Collection[str], values: Collection[str], expires: Any) -> str:
        """Return a signed text that permits to read these; see ``Run.read_token``."""
        expires_at = self._engine.now() + duration.to_micros(expires, what="expires")
        grant = read_tokens.Grant(run_id, frozenset(streams), frozenset(values), expires_at)
        return read_tokens.sign(self._engine.settings.signing_key, grant)

    def _look_for(self, run_id: str, name: str) -> tuple[RunRow, dict[str, Any]]:
        """
        Return the row of the run's last generation, and the value by its name if there is one.

        Raises:
            ValueNotPublished: The run has ended without it.
        """
        # The row first: what a run publishes before its end is there when its row says that it has ended.
        row = self.latest(run_id)
        found = self._published(row, name)
        if row.ended and name not in found:
            raise ValueNotPublished(row.id, name, row.status)
        return row, found

    def values(self, run_id: str) -> dict[str, Any]:
        """Return the latest values that the run has published, by name."""
        return self._published(self.latest(run_id), None)

    def _published(self, row: RunRow, name: str | None) -> dict[str, Any]:
        with self._engine.store.read() as tx:
            texts = {each.name: published.load(tx, row.id, each) for each in published.read(tx, row, name).values()}
            loaded = requests.load(tx, {each for text in texts.values() for each in codec.request_ids(text)})
        return {each: codec.decode(text, loaded) for each, text in texts.items()}

    def _why_missing(self, row: RunRow, name: str, timeout: Any) -> str:
        """Return why there is no value after the *timeout*; for a blocked run with the reason."""
        with self._engine.store.read() as tx:
            reason = blocked_reason(self._engine, tx, row)
        text = f"Run {row.id!r} is {row.status} and has not published {name!r} after {timeout}.  "
        return text + (reason or "It may do so later.  Compare the name with that in the workflow.")

    def _wait(self, row: RunRow, until: float, timeout: Any) -> Waiting[RunRow]:
        """Wait until the run has ended or has a next generation; return the row of the last one."""
        waited_for = row.id
        with self._engine.completions.expected(waited_for) as end:
            while (row := self.latest(waited_for)).id == waited_for and not row.ended:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(self._why_unended(row, timeout))
                yield NextCheck(end, left)
        return row

    def _why_unended(self, row: RunRow, timeout: Any) -> str:
        """Return why there is no result after the *timeout*; for a blocked run with the reason."""
        text = f"Run {row.id!r} is still {row.status} after {timeout}.  "
        with self._engine.store.read() as tx:
            reason = blocked_reason(self._engine, tx, row)
        return text + (reason or "It continues: ask again later.")

    def cancel(self, run_id: str, reason: str | None) -> bool:
        """Ask the run to stop, and wake it.  Return False when it has ended."""
        row = self._engine.store.write(lambda tx: post_cancel(self._engine, tx, run_id, reason))
        if row.ended:
            return False
        failpoints.hit("cancel.recorded")
        self._engine.send_turns(row)
        return True

    def resolve(self, run_id: str, step: str | None, *, result: object, fail: str | None) -> str:
        """Resolve a step in doubt; see ``Run.resolve``."""
        return operate.resolve(self._engine, self.latest(run_id).id, step, result=result, fail=fail)

    def fork(
        self, run_id: str, *, from_step: str | None, from_event: int | None, reapply_payloads: bool
    ) -> registry.Run[Any]:
        """Fork the run; see ``Run.fork``."""
        return fork.fork(
            self._engine, run_id, from_step=from_step, from_event=from_event, reapply_payloads=reapply_payloads
        )

    def retry(self, run_id: str) -> registry.Run[Any] | None:
        """Let a blocked or failed run go on; see ``Run.retry``."""
        return fork.retry(self._engine, run_id)

    def pause(self, run_id: str, reason: str | None, *, children: bool) -> bool:
        """Pause the run; see ``Run.pause``."""
        return pauses.pause_run(self._engine, run_id, reason, children=children)

    def resume(self, run_id: str, *, children: bool) -> bool:
        """Resume the run; see ``Run.resume``."""
        return pauses.resume_run(self._engine, run_id, children=children)

    def wake_up(self, run_id: str) -> int:
        """End the run's pending sleeps, and return how many there were."""
        return operate.wake_up(self._engine, self.latest(run_id).id)

    def events(
        self, run_id: str, *, after: int, before: int, limit: int | None, newest_first: bool, payloads: bool
    ) -> list[Event]:
        """Return a page of the run's log; see ``Run.events``."""
        self._row(run_id)
        with self._engine.store.read() as tx:
            return run_log.page(
                tx, run_id, after=after, before=before, limit=limit, newest_first=newest_first, values=payloads
            )

    def hooks(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's open hooks in the order of their creation."""
        return list_hooks(self._engine, run_id=self.latest(run_id).id, limit=1000)

    def _row(self, run_id: str) -> RunRow:
        row = self.find(run_id)
        if row is None:
            raise RunNotFound(run_id)
        return row


def _until(timeout: Any) -> float:
    """Return when a time-out is over, by the monotonic clock."""
    return math.inf if timeout is None else time.monotonic() + duration.to_micros(timeout) / 1_000_000


def post_cancel(engine: Engine, tx: Connection, run_id: str, reason: str | None) -> RunRow:
    """
    Put a cancel into the inbox of the run's last generation, unless that has ended.

    Returns:
        The row of the last generation, which is locked.
    """
    now = engine.store.now()
    row = cancel_run.post_cancel(tx, run_id, reason, now, engine.dispatch.plan(now))
    if row is None:
        raise RunNotFound(run_id)
    return row
