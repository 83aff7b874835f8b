"""DBOS Transact: workflows and steps in this one process, recorded in PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dbos import DBOS


@DBOS.step()
def stamp(number: int) -> dict[str, Any]:
    """When this line ran."""
    return {"number": number, "at": time.time()}


@DBOS.step()
async def stamp_beside(number: int) -> dict[str, Any]:
    """The same, beside others."""
    return {"number": number, "at": time.time()}


@DBOS.workflow()
def sequence(length: int) -> list[float]:
    """One step after the other; the first one's stamp, and the last one's."""
    stamps = [stamp(number)["at"] for number in range(length)]
    return [stamps[0], stamps[-1]]


@DBOS.workflow()
async def fan_out(count: int) -> int:
    """That many steps at once, gathered."""
    return len(await asyncio.gather(*map(stamp_beside, range(count))))


@DBOS.workflow()
def sleeper(secs: float) -> list[float]:
    """The stamp of a step before a sleep, and of one after it."""
    before = stamp(0)
    DBOS.sleep(secs)
    return [before["at"], stamp(1)["at"]]


@DBOS.workflow()
def one_request(_: float) -> dict[str, Any]:
    """Wait for one request, and have it answered."""
    DBOS.set_event("waits", True)
    DBOS.recv("request", timeout_seconds=60)
    return stamp(0)


WORKFLOWS: dict[str, Any] = {
    "sequence": sequence,
    "fan_out": fan_out,
    "sleeper": sleeper,
    "one_request": one_request,
}


class Peer:
    """Starts in this process, which is the executor too; the fastest that DBOS has."""

    def start(self, workflow: str, argument: float = 0) -> Any:
        """A handle."""
        return DBOS.start_workflow(WORKFLOWS[workflow], argument)

    def result(self, started: Any) -> Any:
        """By the handle."""
        return started.get_result()

    def waits(self, started: Any) -> None:
        """By an event that the workflow sets just before."""
        DBOS.get_event(started.get_workflow_id(), "waits", 60)

    def request(self, started: Any) -> Any:
        """A message, and the workflow's result."""
        DBOS.send(started.get_workflow_id(), "paid", "request")
        return started.get_result()


@contextmanager
def open(environment: Mapping[str, str]) -> Iterator[Peer]:
    """Launch DBOS on the database."""
    DBOS(
        config={
            "name": "durable-bench",
            "system_database_url": environment["BENCH_PEER_DATABASE"],
            "run_admin_server": False,
            "console_log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        yield Peer()
    finally:
        DBOS.destroy(workflow_completion_timeout_sec=1)
