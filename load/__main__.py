"""
``python -m load [--secs S] [--held N] [--rate R]``: hold connections, and send requests of all sorts beside them.

One gunicorn process (gthread), one Celery worker of two children, PostgreSQL and Redis.  Prints one line of JSON.
Exit code 1: a 5xx, an accepted request that is not in the log exactly once, a wrong answer, or memory or threads that
have not come back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from bench.site import MANY_THREADS, Setup, Site, opened, until
from durable import Run

from .checking import Verdict, check, waiting
from .measuring import EVERY_SECS, Size, most, size, watch
from .siege import Book, Siege
from .traffic import Traffic
from .workflows import SECRET, hold, listen

#: Runs that share the held connections, and runs that share the requests.
HOLDING = 10
LISTENING = 8
#: Threads beside those that are held.
MORE_THREADS = 40
#: Seconds for which the warm-up holds; it sends for a quarter of the time, and no less than that.
WARM_SECS = 3.0


def main(arguments: Sequence[str]) -> int:
    """Run one; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m load")
    parser.add_argument("--secs", type=float, default=120.0)
    parser.add_argument("--held", type=int, default=500, help="connections held all the time")
    parser.add_argument("--hold-secs", type=float, default=30.0, help="for how long each is held")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second beside them")
    parser.add_argument(
        "--default-malloc", action="store_true", help="without what docs/how-to/operating.md has for glibc"
    )
    options = parser.parse_args(arguments)
    with opened(Setup(), application="load.application") as site:
        site.environment |= {SECRET: secrets.token_hex(16)}
        threads = options.held + MORE_THREADS
        keep = ("--keep-alive", "75", "--worker-connections", "2000")
        with site.web(*keep, threads=threads, environment={} if options.default_malloc else MANY_THREADS) as master:
            report = asyncio.run(_report(site, lambda: size(master), options))
    print(json.dumps(report), flush=True)
    return 0 if report["good"] else 1


async def _report(site: Site, look: Callable[[], Size], options: argparse.Namespace) -> dict[str, Any]:
    listening = _started(site, [site.engine.start(listen) for _ in range(LISTENING)])
    short, long = (
        _started(site, [site.engine.start(hold, secs) for _ in range(HOLDING)])
        for secs in (WARM_SECS, options.hold_secs)
    )
    siege = Siege(site.port, Traffic(list(listening.values()), site.environment[SECRET]))
    cold = look()
    # Gunicorn ends no thread of its pool, and each keeps what it has once used of its stack: what is to be come back to
    # is a process that has been busy for a while.
    warm_secs = max(WARM_SECS, options.secs / 4)
    await siege.lay(warm_secs, list(short.values()), held=options.held, rate=options.rate)
    before = look()
    siege.book.begin_anew()
    seen, reached = await _measured(siege, list(long.values()), look, options)
    run_ids = [*listening, *short, *long]
    until(lambda: not waiting(site.engine, run_ids), "the runs have looked at all that was accepted")
    after = await _settled(look, before)
    found = check(site.engine, run_ids, siege.book)
    sizes = {"cold": cold, "before": before, "during": most(seen), "after": after}
    return _told(siege.book, found, sizes, options) | {
        "reached": round(reached, 1),
        f"kib_every_{EVERY_SECS:g}_secs": [each.kib for each in seen],
    }


async def _measured(
    siege: Siege, hold_paths: list[str], look: Callable[[], Size], options: argparse.Namespace
) -> tuple[list[Size], float]:
    done = asyncio.Event()
    seen = asyncio.create_task(watch(look, done))
    reached = await siege.lay(options.secs, hold_paths, held=options.held, rate=options.rate)
    done.set()
    return await seen, reached


async def _settled(look: Callable[[], Size], before: Size) -> Size:
    """The size once it has come back, or after ten seconds."""
    for _ in range(20):
        if look().fits(before, MORE_THREADS):
            break
        await asyncio.sleep(0.5)
    return look()


def _told(book: Book, found: Verdict, sizes: dict[str, Size], options: argparse.Namespace) -> dict[str, Any]:
    fits = sizes["after"].fits(sizes["before"], MORE_THREADS)
    return {
        "good": fits and not (book.server_errors or book.wrong or found.lost or found.unasked),
        **{name: getattr(options, name) for name in ("secs", "held", "rate")},
        "statuses": {kind: dict(sorted(counts.items())) for kind, counts in sorted(book.statuses.items())},
        "server_errors": book.server_errors,
        "accepted": len(book.accepted),
        "lost": len(found.lost),
        "recorded_though_refused": len(found.unasked),
        "wrong": len(book.wrong),
        "size": {name: asdict(each) for name, each in sizes.items()},
        "ms": _spread(book.latencies),
        "what": (found.lost + found.unasked + book.wrong)[:10],
    }


def _spread(latencies: list[float]) -> dict[str, float]:
    """Of the requests that were not held."""
    at = statistics.quantiles(latencies, n=100)
    return {"p50": round(at[49] * 1000, 1), "p95": round(at[94] * 1000, 1), "p99": round(at[98] * 1000, 1)}


def _started(site: Site, runs: list[Run[Any]]) -> dict[str, str]:
    """The paths of the runs' webhooks, once they listen."""
    paths = {}
    for run in runs:
        until(run.hooks, f"run {run.id} listens")
        paths[run.id] = str(run.hooks()[0]["url"]).removeprefix(site.environment["DURABLE_PUBLIC_URL"])
    return paths


if __name__ == "__main__":
    # A time limit of CI's ends us so: what we have made goes all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
