"""One soak: servers, processes, senders and faults for a while; then calm, and the verdict."""

from __future__ import annotations

import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .deployment import Deployment
from .faults import Fault, Faults, Field, schedule
from .ports import free_port
from .proxy import Proxy
from .senders import Senders, story
from .servers import BROKERS, PostgreSQL

#: Within this after the last fault every run must have ended.
CALM_SECS = 120.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a soak does; the same plan does the same faults at the same times."""

    seed: int
    secs: float
    broker: str
    #: Runs started a second, and seconds from one fault to the next on average.
    rate: float = 3.0
    pause_secs: float = 3.0
    #: The share of messages that are lost or repeated.
    spoilt: float = 0.15
    #: Only these faults; all when empty.
    only: tuple[str, ...] = ()


def soak(plan: Plan, folder: Path) -> dict[str, Any]:
    """Do it; a report that is JSON.  ``good`` says whether nothing went wrong."""
    draw = random.Random(plan.seed)
    faults = schedule(draw, plan.secs, plan.pause_secs, plan.only)
    with ExitStack() as stack:
        field = _set_up(plan, folder, draw, stack)
        return _play(plan, folder, field, faults, draw)


def _set_up(plan: Plan, folder: Path, draw: random.Random, stack: ExitStack) -> Field:
    database = PostgreSQL(folder)
    broker = BROKERS[plan.broker](folder)
    proxies = []
    for server in (database, broker):
        stack.callback(server.stop)
        server.start()
        proxy = Proxy(server.port, random.Random(draw.random()))
        proxy.start()
        stack.callback(proxy.stop)
        proxies.append(proxy)
    # This process looks at the database itself, not through the bad network.
    os.environ |= {"DURABLE_DATABASE_URL": database.url, "DURABLE_BROKER_URL": broker.url, "CHAOS_FOLDER": str(folder)}
    from .application import engine

    stack.callback(engine.close)
    engine.migrate()
    deployment = Deployment(
        folder,
        database.url_at(proxies[0].port),
        broker.url_at(proxies[1].port),
        free_port(),
        spoilt=plan.spoilt,
    )
    stack.callback(deployment.stop)
    deployment.start()
    deployment.wait_until_up()
    return Field(deployment, database, broker, *proxies)


def _play(plan: Plan, folder: Path, field: Field, schedule: list[Fault], draw: random.Random) -> dict[str, Any]:
    from .application import engine
    from .checking import check, ledger

    began = time.monotonic()
    senders = Senders(field.deployment.url, deadline=began + plan.secs + CALM_SECS)
    doing = Faults(field)
    starter = threading.Thread(target=_start_runs, args=(plan, senders, began, draw), daemon=True)
    starter.start()
    doing.play(schedule, began)
    starter.join()
    doing.heal()
    (folder / "calm").touch()
    calm_at = time.monotonic()
    settled_secs = _settle(engine, field.deployment, senders, calm_at)
    # Whatever is still going on ends here: book, ledger and log are compared as they are now.
    field.deployment.stop()
    executions = ledger(folder)
    verdict = check(engine, senders.stories, executions)
    fates = Counter((folder / "fates").read_text().split()) if (folder / "fates").exists() else Counter()
    return {
        "good": verdict.good and not doing.failed,
        "seed": plan.seed,
        "secs": plan.secs,
        "broker": plan.broker,
        "faults": dict(sorted(doing.done.items())),
        "faults_not_done": doing.failed,
        "messages": dict(fates),
        "acknowledgements_swallowed": field.database_proxy.swallows,
        "runs": dict(Counter(story.kind for story in senders.stories)),
        "requests_answered": sum(len(story.answered) for story in senders.stories),
        "executions": sum(len(entries) for entries in executions.values()),
        "settled_secs": settled_secs,
        "run_secs": _durations(engine),
        **{name: len(lines) for name, lines in asdict(verdict).items()},
        "what": {name: lines[:10] for name, lines in asdict(verdict).items() if lines},
    }


def _start_runs(plan: Plan, senders: Senders, began: float, draw: random.Random) -> None:
    number = 0
    while time.monotonic() < began + plan.secs:
        number += 1
        senders.begin(story(number, draw))
        time.sleep(max(0.0, began + number / plan.rate - time.monotonic()))


def _settle(engine: Any, deployment: Deployment, senders: Senders, calm_at: float) -> float | None:
    """Seconds from the end of the last fault until the last run had ended; None: some have not."""
    while time.monotonic() < calm_at + CALM_SECS:
        deployment.supervise()
        if not senders.busy() and not open_runs(engine):
            return round(time.monotonic() - calm_at, 2)
        time.sleep(0.1)
    senders.deadline = time.monotonic()
    senders.join()
    return None


def open_runs(engine: Any, besides: Sequence[str | None] = ()) -> int:
    """How many runs have not ended, besides those with these ids."""
    with engine.store.read() as tx:
        found = tx.execute(sa.text("SELECT id FROM durable_runs WHERE completed_at IS NULL")).scalars()
        return len(set(found) - set(besides))


def _durations(engine: Any) -> dict[str, float]:
    with engine.store.read() as tx:
        query = "SELECT completed_at - created_at FROM durable_runs WHERE completed_at IS NOT NULL"
        took = sorted(row[0] / 1e6 for row in tx.execute(sa.text(query)))
    if len(took) < 2:
        return {}
    return {"median": round(statistics.median(took), 2), "slowest": round(took[-1], 2)}


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)
