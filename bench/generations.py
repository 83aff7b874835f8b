"""
A webhook loop without end: does a request cost the same after 100,000 of them?

::

    python -m bench.generations --requests 100000 --database sqlite

One process posts requests to the blueprint, in its own thread of control, and takes the turns of the run after each few
of them.  No worker, broker or socket is between them, so the times are those of the web's commit and of the turns.  The
workflow checks that each request is the next one: none is lost, doubled or out of order.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import flask
from celery import Celery

from durable import Durable, Request, continue_as_new, create_webhook, should_continue_as_new, workflow
from durable.broker import Broker, Outgoing
from durable.turns import drive
from durable.web import create_blueprint

#: CPU time does not depend on what else the machine does.  The times are shown for each tenth of the requests.
PARTS = 10
#: How many requests come between two turns.
PER_TURN = 50


@workflow(name="bench.requests_without_end")
async def requests_without_end(count: int, expected: int = 0) -> int:
    """Take numbered requests, and fail at the first that is not the next one."""
    webhook = create_webhook(name="loop")
    while expected < count:
        request: Request = await webhook
        if request.text() != str(expected):
            raise ValueError(f"request {request.text()} came, and {expected} was expected")
        expected += 1
        if should_continue_as_new():
            continue_as_new(count, expected)
    return expected


class NoBroker:
    """Takes every message, and delivers none."""

    def send(self, messages: Sequence[Outgoing]) -> bool:
        return True

    def length(self, queue: str) -> int | None:
        return 0

    def keep(self, queue: str) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


class AloneEngine(Durable):
    """An engine whose messages go nowhere: this process takes all turns."""

    def make_broker(self) -> Broker:
        return NoBroker()


def run(database_url: str, count: int, max_events: int) -> list[float]:
    """Send *count* requests through one run; return the CPU time per request of each tenth of them, in milliseconds."""
    engine = AloneEngine(
        Celery("generations", broker="memory://"),
        database_url=database_url,
        public_url="http://x.test",
        max_events=max_events,
    )
    engine.migrate()
    app = flask.Flask("generations")
    app.register_blueprint(create_blueprint(engine))
    client = app.test_client()
    started = engine.start(requests_without_end, count)
    drive(engine, started.id)
    path = str(started.hooks()[0]["url"]).removeprefix("http://x.test")
    current, times = started.id, []
    try:
        for part in range(PARTS):
            first, last = count * part // PARTS, count * (part + 1) // PARTS
            began, cpu_began = time.perf_counter(), time.process_time()
            for number in range(first, last):
                answer = client.post(path, data=str(number))
                assert answer.status_code == 202, answer.get_data(as_text=True)
                if number % PER_TURN == PER_TURN - 1 or number == last - 1:
                    drive(engine, current)
                    while (newer := engine.client.latest(current).id) != current:
                        current = newer
                        drive(engine, current)
            each = 1000 / max(1, last - first)
            times.append((time.process_time() - cpu_began) * each)
            elapsed, generations = (time.perf_counter() - began) * each, len(started.generations())
            print(
                f"{last:>8} requests: {times[-1]:.2f} ms of CPU time each, {elapsed:.2f} ms elapsed,"
                f" {generations} generations",
                flush=True,
            )
        assert started.result(0) == count
    finally:
        engine.close()
    return times


def main() -> int:
    """Run the loop; exit 1 if the last tenth costs more than half as much again as the cheapest one."""
    parser = argparse.ArgumentParser(prog="python -m bench.generations", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--database", default="sqlite", help="a URL, or sqlite for a temporary file")
    parser.add_argument("--max-events", type=int, default=25_000, help="a small number makes many generations")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'durable.db'}" if options.database == "sqlite" else options.database
        times = run(url, options.requests, options.max_events)
    return 0 if times[-1] <= 1.5 * min(times) else 1


if __name__ == "__main__":
    sys.exit(main())
