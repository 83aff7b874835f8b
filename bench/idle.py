"""
What idle processes cost the database: ``python -m bench.idle``, or ``python -m bench.idle 4 5`` for 4 workers of 5.

One web process is idle too.  PostgreSQL says how many transactions it has ended, each of which is one statement here;
Linux says how much CPU time its processes have used for them.
"""

from __future__ import annotations

import json
import sys
import time

import sqlalchemy as sa

from . import procfs
from .site import Setup, Site, opened

#: Until the processes have done what they do at their start.
SETTLE_SECS = 35.0
SECS = 30.0

_ENDED = sa.text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
_BACKENDS = sa.text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND application_name = 'bench-worker'"
)


def main() -> int:
    """Measure, and print a line of JSON."""
    number, children = (int(each) for each in sys.argv[1:3]) if sys.argv[2:] else (4, 5)
    with opened(Setup(), children=[children] * number) as site, site.web():
        time.sleep(SETTLE_SECS)
        print(json.dumps({"workers": number, "children": number * children, **_measure(site)}))
    return 0


def _measure(site: Site) -> dict[str, float]:
    engine = sa.create_engine(site.environment["BENCH_ROWS_URL"], isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        backends = list(connection.execute(_BACKENDS).scalars())
        ended, began = connection.execute(_ENDED).scalar_one(), time.monotonic()
        cpu = sum(map(procfs.cpu_secs, backends))
        time.sleep(SECS)
        secs = time.monotonic() - began
        cpu = sum(map(procfs.cpu_secs, backends)) - cpu
        ended = connection.execute(_ENDED).scalar_one() - ended
    return {
        "connections": len(backends),
        "statements_per_sec": round((ended - 1) / secs, 1),
        "database_cpu_percent": round(100 * cpu / secs, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
