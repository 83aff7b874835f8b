"""
absurd: tasks and steps as functions of PostgreSQL, polled by two worker processes as its documentation starts them.

A task's parallel steps are child tasks of another queue.  The caller of a request waits at a Redis list, to which the
step pushes, as the plain tasks of this benchmark do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import redis
from absurd_sdk import Absurd

CHILDREN = 2
#: Of runs, and of the children that a run waits for.
QUEUES = ("runs", "parts")
_WAIT_SECS = 900.0


def made(queue: str) -> Absurd:
    """A client with the tasks of one queue."""
    app = Absurd(os.environ["BENCH_PEER_DATABASE"], queue_name=queue)
    for task in (sequence, fan_out, sleeper, one_request) if queue == "runs" else (part,):
        app.register_task(name=task.__name__)(task)
    return app


@cache
def _side() -> redis.Redis:
    return redis.Redis.from_url(os.environ["BENCH_PEER_REDIS"])


@cache
def _parts() -> Absurd:
    return made("parts")


def stamp(number: int) -> dict[str, Any]:
    """When this line ran."""
    return {"number": number, "at": time.time()}


def sequence(params: Any, ctx: Any) -> list[float]:
    """One step after the other; the first one's stamp, and the last one's."""
    stamps = [ctx.step("stamp", lambda number=number: stamp(number))["at"] for number in range(params["argument"])]
    return [stamps[0], stamps[-1]]


def part(params: Any, ctx: Any) -> dict[str, Any]:
    """A child task of one step."""
    return dict(ctx.step("stamp", lambda: stamp(params["number"])))


def fan_out(params: Any, ctx: Any) -> int:
    """That many child tasks at once, gathered."""

    def spawn() -> list[str]:
        return [str(_parts().spawn("part", {"number": number})["task_id"]) for number in range(params["argument"])]

    return len([ctx.await_task_result(task, queue_name="parts") for task in ctx.step("spawn", spawn)])


def sleeper(params: Any, ctx: Any) -> list[float]:
    """The stamp of a step before a sleep, and of one after it."""
    before = ctx.step("before", lambda: stamp(0))
    ctx.sleep_for("sleep", params["argument"])
    return [before["at"], ctx.step("after", lambda: stamp(1))["at"]]


def one_request(params: Any, ctx: Any) -> dict[str, Any]:
    """Wait for one request, and have it answered."""
    inbox = params["inbox"]
    ctx.await_event(f"request:{inbox}")

    def answer() -> dict[str, Any]:
        answered = stamp(0)
        _side().rpush(inbox, repr(answered["at"]))
        return answered

    return dict(ctx.step("answer", answer))


class Peer:
    """Spawns tasks, and reads their results by polling, as its client does; stamps are taken in the steps."""

    def __init__(self) -> None:
        self._app = made("runs")
        self._rows = psycopg.connect(os.environ["BENCH_PEER_DATABASE"], autocommit=True)

    def start(self, workflow: str, argument: float = 0) -> Any:
        """The ids of a task and of its inbox."""
        inbox = f"bench:{uuid.uuid4().hex}"
        spawned = self._app.spawn(workflow, {"argument": argument, "inbox": inbox})
        return str(spawned["task_id"]), inbox

    def result(self, started: Any) -> Any:
        """By polling."""
        return self._app.await_task_result(started[0], timeout=_WAIT_SECS).result

    def waits(self, started: Any) -> None:
        """When its row says that it sleeps."""
        while self._rows.execute("SELECT state FROM absurd.t_runs WHERE task_id = %s", started[:1]).fetchone() != (
            "sleeping",
        ):
            time.sleep(0.005)

    def request(self, started: Any) -> Any:
        """An event, and what the step pushes."""
        self._app.emit_event(f"request:{started[1]}", {"type": "paid"})
        answer: Any = _side().blpop([started[1]], timeout=60)
        return answer[1]


@contextmanager
def open(environment: Mapping[str, str]) -> Iterator[Peer]:
    """Make the schema, and start the workers."""
    url, schema = environment["BENCH_PEER_DATABASE"], environment.get("BENCH_ABSURD_SQL")
    if schema:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(Path(schema).read_text())
    else:
        # It downloads the schema of its version.
        subprocess.run([Path(sys.executable).parent / "absurdctl", "init", "--database", url], check=True)
    for queue in QUEUES:
        made(queue).create_queue(queue)
    queues = ["runs"] * CHILDREN + ["parts"] * CHILDREN
    workers = [subprocess.Popen([sys.executable, __file__, queue]) for queue in queues]
    try:
        yield Peer()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    made(sys.argv[1]).start_worker()
