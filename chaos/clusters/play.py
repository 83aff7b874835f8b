"""One set-up under load: what is done to it, how long it takes until work goes on, and the verdict."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..deployment import Deployment
from ..ports import free_port
from ..senders import WIDTH, Senders, Story, story
from ..soak import open_runs, say
from .set_up import Hurt, SetUp

#: Within this after the last hurt is mended, every run must have ended.
CALM_SECS = 90.0
#: What began before commits were lost has this time, in all: some of those runs wait for ever.
LOSING_CALM_SECS = 10.0
#: Within this, work must go on.
GOES_ON_SECS = 60.0
#: Load before the first hurt, between two, and after the last.
PAUSE_SECS = 2.0


def play(set_up: SetUp, folder: Path, *, short: bool, only: str, rate: float | None) -> dict[str, Any]:
    """
    Start everything, do everything, and compare; a report that is JSON.

    Args:
        short: Only what the short form does; what was hurt last is not mended then.
        only: Only what has these words in its name.
        rate: How many runs are started a second; None: as the set-up says.
    """
    with ExitStack() as stack:
        stack.callback(set_up.stop)
        set_up.start()
        os.environ |= {
            "DURABLE_DATABASE_URL": set_up.database_url,
            "DURABLE_BROKER_URL": set_up.broker_url,
            "CHAOS_FOLDER": str(folder),
            "CHAOS_CELERY": json.dumps(dict(set_up.celery)),
        }
        from ..application import engine

        stack.callback(engine.close)
        engine.migrate()
        site = Deployment(folder, set_up.database_url, set_up.broker_url, free_port(), celery=set_up.celery)
        stack.callback(site.stop)
        site.start()
        site.wait_until_up()
        hurts = [each for each in set_up.hurts() if (each.short or not short) and only in each.name]
        return _play(set_up, site, folder, hurts, short=short, rate=rate or set_up.rate)


def _play(
    set_up: SetUp, site: Deployment, folder: Path, hurts: list[Hurt], *, short: bool, rate: float
) -> dict[str, Any]:
    from ..application import engine
    from ..checking import check, ledger
    from .losses import losses

    senders, over = Senders(site.url, deadline=time.monotonic() + 3600), threading.Event()
    load = threading.Thread(target=_load, args=(senders, over, rate), daemon=True)
    load.start()
    done = []
    #: The stories that began before the database lost commits.
    before = 0
    for hurt in hurts:
        time.sleep(PAUSE_SECS)
        done.append(_hurt(hurt, senders, mends=not (short and hurt is hurts[-1])))
        before = done[-1].pop("stories") if hurt.loses else before
        say(f"{set_up.name}: {json.dumps(done[-1])}")
    time.sleep(PAUSE_SECS)
    over.set()
    load.join()
    calm_at = time.monotonic()
    senders.deadline = calm_at + CALM_SECS
    if before:
        _settle(lambda: not senders.busy() and not open_runs(engine), calm_at, LOSING_CALM_SECS)
    earlier = [story.run_id for story in senders.stories[:before]]
    settled_secs = _settle(lambda: not senders.busy(before) and not open_runs(engine, besides=earlier), calm_at)
    senders.deadline = time.monotonic()
    senders.join()
    died = [process.name for process in site.processes if not process.running]
    # Whatever is still going on ends here: book, ledger and log are compared as they are now.
    site.stop()
    executions = ledger(folder)
    verdict = asdict(check(engine, senders.stories[before:], executions)) | {"died": died}
    return {
        "set_up": set_up.name,
        "good": not any(verdict.values()) and all(each["goes_on_secs"] is not None for each in done),
        "runs": len(senders.stories),
        "requests_answered": sum(len(each.answered) for each in senders.stories),
        "executions": sum(len(entries) for entries in executions.values()),
        "hurts": done,
        "settled_secs": settled_secs,
        **({"of_earlier_runs": losses(engine, senders.stories[:before], executions)} if before else {}),
        **{name: len(lines) for name, lines in verdict.items()},
        "what": {name: lines[:10] for name, lines in verdict.items() if lines},
    }


def _load(senders: Senders, over: threading.Event, rate: float) -> None:
    draw, number = random.Random(7), 0
    while not over.wait(1 / rate):
        number += 1
        senders.begin(story(number, draw))


def _hurt(hurt: Hurt, senders: Senders, *, mends: bool) -> dict[str, Any]:
    """Do it, see how long a run takes that is started then, and mend it."""
    began = time.monotonic()
    found = hurt.do()
    hurt_at = time.monotonic()
    stories = len(senders.stories)
    goes_on = _goes_on(f"after-{hurt.name}", senders)
    mending_at = time.monotonic()
    if mends:
        hurt.mend()
    return {
        "hurt": hurt.name,
        "took_secs": round(hurt_at - began, 2),
        "goes_on_secs": None if goes_on is None else round(goes_on - hurt_at, 2),
        "mended_secs": round(time.monotonic() - mending_at, 2),
        **({"stories": stories} if hurt.loses else {}),
        **(found or {}),
    }


def _goes_on(name: str, senders: Senders) -> float | None:
    """When a fan-out that is started now has ended (monotonic); None: not within the time."""
    probe = Story("fan_out", [name.replace(" ", "-"), WIDTH])
    senders.begin(probe)

    def ended() -> bool:
        return probe.run_id is not None and senders.look(probe)["status"] == "completed"

    began = time.monotonic()
    return began + taken if (taken := _settle(ended, began, GOES_ON_SECS)) is not None else None


def _settle(condition: Callable[[], bool], began: float, within_secs: float = CALM_SECS) -> float | None:
    """Seconds from *began* until the condition holds; None when it does not."""
    while time.monotonic() < began + within_secs:
        if condition():
            return round(time.monotonic() - began, 2)
        time.sleep(0.05)
    return None
