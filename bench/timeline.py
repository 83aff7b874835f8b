"""
Where the time of a request goes: ``python -m bench.timeline [--requests 100]``.

Runs that wait for one request each get it, one after the other, as W5 has them.  Prints the medians, in milliseconds
from the POST, of the moments that the log, the request's row and the step tell of, and of the answer; and a plain
task's round trip beside them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from statistics import median

import sqlalchemy as sa

from durable import Run, events
from durable.store import run_log
from durable.store.schema import requests

from .client import post
from .figures import ms
from .site import TIMEOUT_SECS, Setup, Site, opened, until
from .workflows import one_request

#: What the log tells of, in order.
STATIONS = {
    events.HookReceived: "the request is recorded",
    events.StepCreated: "the turn has decided",
    events.StepCompleted: "the step has returned",
    events.RunCompleted: "the run has ended",
}
FIRST_LINE, RECORDED, ANSWER = "the step's first line", "its answer is recorded", "the sender has the answer"
_WARMING = 20


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.timeline", description="Where the time of a request goes.")
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    with opened(Setup()) as site, site.web():
        for _ in range(_WARMING):
            _moments(site)
        moments = defaultdict[str, list[float]](list)
        plain = []
        for _ in range(options.requests):
            for name, secs in _moments(site).items():
                moments[name].append(ms(secs))
            plain.append(ms(site.plain_secs()[1]))
    for name, each in sorted(moments.items(), key=lambda item: median(item[1])):
        print(f"{median(each):7.2f} ms  {name}")
    print(f"{median(plain):7.2f} ms  a plain task's round trip")


def _moments(site: Site) -> dict[str, float]:
    """Of one request: seconds from its POST to each."""
    run: Run[dict[str, float]] = site.engine.start(one_request)
    until(run.hooks, "the run has opened its webhook")
    url = str(run.hooks()[0]["url"])
    began = time.time()
    _, body = post(url, b"{}")
    arrived = time.time()
    run.result(timeout=TIMEOUT_SECS)
    with site.engine.store.read() as tx:
        told = run_log.read(tx, run.id)
        recorded = tx.execute(sa.select(requests.c.answered_at).where(requests.c.run_id == run.id)).scalar_one()
    found = {STATIONS[type(event)]: event.at / 1_000_000 - began for event in told if type(event) in STATIONS}
    found |= {FIRST_LINE: json.loads(body)["at"] - began, RECORDED: recorded / 1_000_000 - began}
    return found | {ANSWER: arrived - began}


if __name__ == "__main__":
    main()
