"""
``python -m chaos.rolling [--broker redis|rabbitmq] [--keep FOLDER]``: everything is restarted in turn, as a
deploy does, under load.

Each worker gets SIGTERM and is started again, gunicorn gets SIGHUP and replaces its processes.  Prints a
report as JSON.  Exit code 1: something was lost, done again, or an outsider saw an error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from durable import events
from durable.engine.engine import Engine
from durable.store import run_log

from . import folder as folders
from .deployment import Deployment, Process
from .ports import free_port, until
from .senders import Senders, Story, story
from .servers import BROKERS, PostgreSQL
from .soak import open_runs

#: Runs started a second.
RATE = 4.0
#: Seconds of load before, between and after the restarts.
PAUSE_SECS = 1.0


def roll(broker_kind: str, folder: Path) -> dict[str, Any]:
    """Do it; a report that is JSON.  ``good`` says whether nobody noticed."""
    with ExitStack() as stack:
        database, broker = PostgreSQL(folder), BROKERS[broker_kind](folder)
        for server in (database, broker):
            stack.callback(server.stop)
            server.start()
        known = {"DURABLE_DATABASE_URL": database.url, "DURABLE_BROKER_URL": broker.url, "CHAOS_FOLDER": str(folder)}
        os.environ |= known
        from .application import engine

        stack.callback(engine.close)
        engine.migrate()
        site = Deployment(folder, database.url, broker.url, free_port())
        stack.callback(site.stop)
        site.start()
        site.wait_until_up()
        return _play(engine, site, folder)


def _play(engine: Engine, site: Deployment, folder: Path) -> dict[str, Any]:
    from .checking import check, ledger

    senders, over = Senders(site.url, deadline=time.monotonic() + 60), threading.Event()
    running = threading.Thread(target=load, args=(senders, over), daemon=True)
    running.start()
    ended = _restart_all(site)
    over.set()
    running.join()
    until(lambda: not senders.busy() and not open_runs(engine), "every run has ended", 30)
    site.stop()
    verdict = asdict(check(engine, senders.stories, ledger(folder)))
    verdict |= {"errors": senders.errors, "again": done_again(engine, senders.stories)}
    return {
        "good": not any(verdict.values()),
        "runs": len(senders.stories),
        "requests_answered": sum(len(each.answered) for each in senders.stories),
        "workers_ended_secs": ended,
        **{name: len(lines) for name, lines in verdict.items()},
        "what": {name: lines[:10] for name, lines in verdict.items() if lines},
    }


def load(senders: Senders, over: threading.Event) -> None:
    """Start runs until it is over."""
    draw, number = random.Random(7), 0
    while not over.wait(1 / RATE):
        number += 1
        senders.begin(story(number, draw))


def _restart_all(site: Deployment) -> list[float]:
    """Each worker and all of gunicorn's processes, twice; how long each worker took to end."""
    took = []
    for worker in site.workers:
        time.sleep(PAUSE_SECS)
        began = time.monotonic()
        worker.end(signal.SIGTERM)
        took.append(round(time.monotonic() - began, 2))
        _said_again(worker, "ready.", 1, worker.start)
        _said_again(site.web, "Booting worker", 2, lambda: site.web.tell(signal.SIGHUP))
    time.sleep(PAUSE_SECS)
    return took


def _said_again(process: Process, words: str, times: int, act: Any) -> None:
    """Do *act*, and return once the process has said these words so many more times."""
    wanted = process.log.read_text().count(words) + times
    act()
    until(lambda: process.log.read_text().count(words) >= wanted, f"{process.name} says {words!r} again")


def done_again(engine: Engine, stories: Sequence[Story]) -> list[str]:
    """Attempts that did not come to their end, and were done again: but for those that fail by themselves."""
    found = []
    for each in stories:
        with engine.store.read() as tx:
            told = run_log.read(tx, str(each.run_id))
        failed = [event for event in told if isinstance(event, events.StepRetrying | events.StepFailedEvent)]
        found += [f"{each.name}: {event}" for event in failed if "not the first time" not in event.error]
    return found


def main() -> int:
    """Restart everything; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.rolling")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="redis")
    folders.add_option(parser)
    given = parser.parse_args()
    with folders.opened(given.keep, "durable-rolling-") as folder:
        report = roll(given.broker, folder)
    print(json.dumps(report, indent=2))
    return 0 if report["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
