"""Three faults, and after each of them what has to be true."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from durable.cli import main as command_line

from .clients import Client, Sender
from .deployment import Deployment, kill_group
from .screen import DemoFailed, Screen

T = TypeVar("T")

PARCELS = 20
#: How long an attempt runs before its process is killed.
_MIDDLE_SECS = 1.0


class Scenario:
    """The order that goes through all three faults."""

    def __init__(self, deployment: Deployment, screen: Screen) -> None:
        self._deployment = deployment
        self._screen = screen
        self._client = Client(deployment.url, deployment.secret)

    def run(self) -> None:
        """Run all parts, and draw the order at the end."""
        self._wait_until_up()
        order = self._kill_a_worker()
        self._kill_the_web_process(order)
        self._flush_the_broker(order)
        self._end_of(order)
        self._draw(order)

    def _wait_until_up(self) -> None:
        self._screen.until("the web process answers and both workers are ready", self._is_up, 60.0)
        self._screen.say(f"up: {self._deployment.url}")

    def _kill_a_worker(self) -> str:
        """``kill -9`` of the worker that runs a step.  Returns the id of the order."""
        screen = self._screen
        screen.heading("1  kill -9 of a worker, in the middle of a step")
        order = self._client.start("order", "order-1")
        screen.say(f"run {order}: the order is packed, which takes 3 s")
        (first,) = self._until("a worker begins to pack", lambda: self._notes("pack order-1", "begins"))
        self._let_it_run(f"process {first['process']} packs")

        kill_group(first["process"])
        screen.fault(f"kill -9 of process {first['process']}, which packs, with its whole worker")
        _, second = self._until("another process begins again", lambda: self._pair("pack order-1", "begins"))
        screen.expect(f"process {second['process']} runs attempt", 2, second["attempt"])
        ends = self._until(f"process {second['process']} packs", lambda: self._notes("pack order-1", "ends"))
        screen.expect("attempts that came to the end of the step", [2], [note["attempt"] for note in ends])
        return order

    def _kill_the_web_process(self, order: str) -> None:
        """``kill -9`` of gunicorn while it holds a webhook request."""
        screen = self._screen
        screen.heading("2  kill -9 of the web process, while it holds a webhook request")
        url = self._until("the order waits for its payment", lambda: self._client.webhook(order))
        sender = Sender(url, {"payment": "payment-7"}, key="event-7")
        sender.start()
        screen.say("the payment provider POSTs to the webhook; a step answers it, which takes 3 s")
        self._until("the step begins", lambda: self._notes("confirm", "begins"))
        self._let_it_run("the provider waits for its answer")

        web = self._deployment.web_process()
        kill_group(web)
        screen.fault(f"kill -9 of gunicorn, process {web} and its child")
        how = self._until("the provider's connection breaks", lambda: sender.broken)[0]
        screen.expect("the provider's connection broke", True, how in ("RemoteDisconnected", "ConnectionResetError"))
        screen.say("the provider sends the same request again, until it is answered")
        answer = self._until("the provider waits for its answer", lambda: sender.answer)
        screen.expect("answer of the step", [200, {"booked": "payment-7"}], list(answer))
        screen.expect("how often the step ran", 1, len(self._notes("confirm", "begins")))

    def _flush_the_broker(self, order: str) -> None:
        """FLUSHALL while messages wait in the broker."""
        screen = self._screen
        screen.heading("3  FLUSHALL of the broker, while one run sleeps and others wait in the queue")
        parcels = {self._client.start("parcel", number): number for number in range(PARCELS)}
        screen.say(f"{PARCELS} more runs are started; each has one step")
        lost = self._deployment.flush_broker()
        screen.fault(f"FLUSHALL: the broker is empty, {lost} messages of the queue are lost")
        screen.expect("messages were lost", True, lost > 0)
        run = self._until("the order is read", lambda: self._client.show(order))
        screen.expect("the order waits for", ["sleep"], [operation["kind"] for operation in run["waiting_for"]])

        results: dict[int, object] = {}

        def all_ended() -> bool:
            for run_id, number in parcels.items():
                if number not in results and (run := self._ended(run_id)):
                    results[number] = run.get("result")
            return len(results) == PARCELS

        self._until(lambda: f"{len(results)} of {PARCELS} runs have ended", all_ended)
        expected = {number: f"label of parcel {number}" for number in range(PARCELS)}
        screen.expect("runs with the right result", PARCELS, sum(results[key] == expected[key] for key in expected))

    def _end_of(self, order: str) -> None:
        screen = self._screen
        screen.heading("The order that went through all of this")
        run = self._until("the order sleeps", lambda: self._ended(order))
        screen.expect("status", "completed", run["status"])
        screen.expect("result", {"paid": "payment-7", "label": "label of order-1 in a box"}, run.get("result"))

    def _draw(self, order: str) -> None:
        """Run ``durable runs show`` in this process: starting another one would take a second."""
        self._screen.heading(f"durable runs show {order}")
        os.environ.update(self._deployment.environment)
        command_line(["--app", "demo.shop", "runs", "show", order], standalone_mode=False)

    def _is_up(self) -> bool:
        for process in self._deployment.processes:
            if not process.running:
                raise DemoFailed(f"{process.name} does not start; the end of its log is above.")
        ready = [process.name for process in self._deployment.processes if "ready." in process.log.read_text()]
        return ready == ["worker-1", "worker-2"] and self._client.answers()

    def _ended(self, run_id: str) -> dict[str, Any] | None:
        run = self._client.show(run_id)
        return run if run.get("status") in ("completed", "failed", "cancelled") else None

    def _notes(self, what: str, event: str) -> list[dict[str, Any]]:
        """What the steps have noted."""
        notes = [json.loads(line) for line in self._deployment.journal.read_text().splitlines()]
        return [note for note in notes if (note["what"], note["event"]) == (what, event)]

    def _pair(self, what: str, event: str) -> list[dict[str, Any]]:
        """The first two notes, once there are two."""
        return notes[:2] if len(notes := self._notes(what, event)) > 1 else []

    def _let_it_run(self, what: str) -> None:
        """Wait until an attempt is in the middle of its step."""
        middle = time.monotonic() + _MIDDLE_SECS
        self._until(what, lambda: time.monotonic() >= middle)

    def _until(self, what: str | Callable[[], str], condition: Callable[[], T | None], within_secs: float = 30.0) -> T:
        """Wait for a condition.  Processes that end meanwhile are started again."""

        def supervised() -> T | None:
            self._deployment.supervise()
            return condition()

        return self._screen.until(what, supervised, within_secs)
