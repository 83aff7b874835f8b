"""
``python -m chaos.upgrade [REVISION] [--back] [--database mariadb] [--broker rabbitmq]``: upgrade durable under load.

The processes begin with the code of an older revision of the schema, from the history of this repository.  Then the
database is migrated, and the processes are replaced one after the other, so that old and new ones run side by side.
With ``--back``, they are replaced once more, by the old code on the new schema; code from before revision 0030 refuses
to start on a newer one.  The application stays as it was.  Prints a report as JSON.  Exit code 1: something was lost,
done twice, wrong or stuck.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from durable.engine.engine import Engine

from . import folder as folders
from .deployment import Deployment, Process
from .ports import free_port, until
from .releases import ROOT, checkout, releases
from .rolling import done_again, load
from .senders import Senders
from .servers import BROKERS, DATABASES, MariaDB
from .soak import open_runs

#: The revision whose code first had an application under chaos.
_OLDEST = "0007"
#: Seconds of load before and after each step of the upgrade.
PAUSE_SECS = 3.0
#: Within this after the last step, every run must have ended.
CALM_SECS = 60.0


def upgrade(commit: str, database_kind: str, broker_kind: str, folder: Path, *, back: bool) -> dict[str, Any]:
    """Do it; a report that is JSON."""
    old = checkout(commit, folder / "old", "durable", "chaos")
    new = folder / "new"
    new.mkdir()
    (new / "durable").symlink_to(ROOT / "durable")
    (new / "chaos").symlink_to(old / "chaos")
    with ExitStack() as stack:
        database, broker = DATABASES[database_kind](folder), BROKERS[broker_kind](folder)
        for server in (database, broker):
            stack.callback(server.stop)
            server.start()
        if isinstance(database, MariaDB):
            database.create()
        known = {"DURABLE_DATABASE_URL": database.url, "DURABLE_BROKER_URL": broker.url, "CHAOS_FOLDER": str(folder)}
        os.environ |= known
        migrate(old)
        engine = application(old).engine
        stack.callback(engine.close)
        site = Deployment(folder, database.url, broker.url, free_port(), code=old)
        stack.callback(site.stop)
        site.start()
        site.wait_until_up()
        return _play(engine, site, folder, [new, old] if back else [new])


def migrate(code: Path) -> None:
    """Make the schema of this code, with this code."""
    program = "from chaos.application import engine; engine.migrate()"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(code)}, cwd="/", check=True)


def application(code: Path) -> Any:
    """The application of this code, on today's durable, in the place of today's application."""
    spec = importlib.util.spec_from_file_location("chaos.application", code / "chaos" / "application.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chaos.application"] = module
    spec.loader.exec_module(module)
    return module


def _play(engine: Engine, site: Deployment, folder: Path, codes: Sequence[Path]) -> dict[str, Any]:
    from .checking import check, ledger

    senders, over = Senders(site.url, deadline=time.monotonic() + 3600), threading.Event()
    running = threading.Thread(target=load, args=(senders, over), daemon=True)
    running.start()
    time.sleep(PAUSE_SECS)
    engine.migrate()
    started = {"before the migration": len(senders.stories)}
    first, second = site.workers
    for code in codes:
        for process in (first, site.web, second):
            time.sleep(PAUSE_SECS)
            _replace(process, code)
            started[f"before {process.name} was {code.name}"] = len(senders.stories)
    time.sleep(PAUSE_SECS)
    over.set()
    running.join()
    senders.deadline = time.monotonic() + CALM_SECS
    _settle(engine, senders)
    died = [process.name for process in site.processes if not process.running]
    site.stop()
    verdict = asdict(check(engine, senders.stories, ledger(folder))) | {"died": died}
    return {
        "good": not any(verdict.values()),
        "runs": len(senders.stories),
        "started": started,
        "requests_answered": sum(len(each.answered) for each in senders.stories),
        "attempts_again": len(done_again(engine, senders.stories)),
        **{name: len(lines) for name, lines in verdict.items()},
        "what": {name: lines[:10] for name, lines in verdict.items() if lines},
    }


def _replace(process: Process, code: Path) -> None:
    """End a process as a deploy does, and start it with other code."""
    # A child of billiard's may wait for 30 s until its worker reads that its last task has ended.
    process.end(signal.SIGTERM, 60)
    words = "Booting worker" if process.name == "web" else "ready."
    wanted = process.log.read_text().count(words) + 1
    process.deploy(code)
    process.start()
    until(lambda: process.log.read_text().count(words) >= wanted, f"{process.name} says {words!r} again")


def _settle(engine: Engine, senders: Senders) -> None:
    """Wait until every run has ended, or the time is over: what is open then is counted as stuck."""
    while time.monotonic() < senders.deadline and (senders.busy() or open_runs(engine)):
        time.sleep(0.05)
    senders.join()


def main() -> int:
    """Upgrade; the exit code."""
    known = {revision: commit for revision, commit in releases().items() if revision >= _OLDEST}
    parser = argparse.ArgumentParser(prog="python -m chaos.upgrade")
    parser.add_argument("revision", nargs="?", choices=list(known), metavar="REVISION", help=", ".join(known))
    parser.add_argument("--database", choices=sorted(DATABASES), default="postgresql")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="redis")
    parser.add_argument("--back", action="store_true", help="then go back to the old code")
    folders.add_option(parser)
    given = parser.parse_args()
    revision = given.revision or list(known)[-2]
    with folders.opened(given.keep, "durable-upgrade-") as folder:
        report = {"from": revision, **upgrade(known[revision], given.database, given.broker, folder, back=given.back)}
    print(json.dumps(report, indent=2))
    return 0 if report["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
