"""A site: a database, a broker, a worker and web processes of the benchmark's own, as this process sees them."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
import sqlalchemy as sa
from celery import Celery

from durable import Durable, current
from durable.recovery import housekeeping
from durable.store import workers

from . import plain, servers
from .client import is_up
from .rows import Rows

CHILDREN = 2
#: How long a workload waits for a result before it fails.
TIMEOUT_SECS = 900.0
#: As docs/how-to/operating.md has it for a process of hundreds of threads: glibc keeps for each of its arenas, and for
#: each thread, what they have once used.
MANY_THREADS = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0"}
_UP_SECS = 60.0
_QUIET = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the processes are run with."""

    database: str = "postgresql"
    broker: str = "redis"
    #: The setting of that name.
    continuation: str = "100ms"
    #: The setting ``first_turn_budget`` of the process that starts runs.
    first_turn: str = "0"
    #: Celery's ``worker_prefetch_multiplier``, as docs/how-to/operating.md recommends it.
    prefetch: int = 1

    @property
    def is_reference(self) -> bool:
        """Whether the targets are meant for this."""
        given = (self.database, self.broker, self.prefetch, self.first_turn)
        usual = given == ("postgresql", "redis", 1, "0")
        return usual and self.continuation not in ("0", "0s", "0ms")


@dataclass(kw_only=True)
class Site:
    """What workloads use.  ``engine`` starts runs, ``celery`` sends plain tasks, ``rows`` is the bare commit."""

    setup: Setup
    environment: dict[str, str]
    engine: Durable
    celery: Celery
    side: redis.Redis
    rows: Rows
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    port: int
    #: The module with ``celery`` and ``create_app``.
    application: str

    @property
    def worker(self) -> subprocess.Popen[bytes]:
        """The worker, of a site that has one."""
        (worker,) = self.workers
        return worker

    def task(self, name: str) -> Any:
        """A plain task: ``nap``, ``nothing``, ``row``, ``tell``, ``part``, ``whole``."""
        return self.celery.tasks[plain.PREFIX + name]

    def told(self, inbox: str) -> float:
        """The time that a plain task pushes to that list."""
        answer: Any = self.side.blpop([inbox], timeout=TIMEOUT_SECS)
        if answer is None:
            raise RuntimeError(f"no plain task has pushed a time to {inbox} within {TIMEOUT_SECS:g} s")
        return float(answer[1])

    def plain_secs(self, **options: Any) -> tuple[float, float]:
        """Seconds from the publishing of a plain task to its body, and until the caller has heard of it."""
        inbox = f"bench:{uuid.uuid4().hex}"
        began, ticks = time.time(), time.perf_counter()
        self.task("tell").apply_async((inbox,), **options)
        at = self.told(inbox)
        return at - began, time.perf_counter() - ticks

    @contextmanager
    def web(
        self, *more: str, threads: int = 16, port: int = 0, environment: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A gunicorn with one process and *more* options; without a port, where ``webhook.url`` says."""
        port = port or self.port
        options = ["--worker-class", "gthread", "--threads", str(threads), "--bind", f"127.0.0.1:{port}"]
        quiet = ["--log-level", "warning", "--no-control-socket"]
        command = ["gunicorn", *options, *quiet, *more, f"{self.application}:create_app()"]
        with servers.process("gunicorn", command, self.environment | dict(environment or {})) as process:
            until(lambda: is_up(port), "gunicorn answers")
            yield process

    def children(self) -> list[int]:
        """The process ids of the workers' children that beat."""
        with self.engine.store.read() as tx:
            beating = {worker.pid for worker in workers.alive(tx)}
        groups = {worker.pid for worker in self.workers}
        return sorted(pid for pid in beating if _group_of(pid) in groups)


@contextmanager
def opened(
    setup: Setup, application: str = "bench.application", children: Sequence[int] = (CHILDREN,)
) -> Iterator[Site]:
    """A site whose workers are ready and warm, with that many *children* each."""
    with ExitStack() as stack:
        database_url = stack.enter_context(servers.database(setup.database))
        side_url = stack.enter_context(servers.redis_database())
        vhost = setup.broker == "rabbitmq"
        broker_url = stack.enter_context(servers.rabbitmq_vhost()) if vhost else side_url
        port = servers.free_port()
        site = _site(setup, database_url, broker_url, side_url, port, application)
        stack.callback(_close, site)
        for number, count in enumerate(children):
            site.workers.append(stack.enter_context(_worker(site, number, count)))
        _warm_up(site, sum(children))
        yield site


def _site(setup: Setup, database_url: str, broker_url: str, side_url: str, port: int, application: str) -> Site:
    public_url = f"http://127.0.0.1:{port}"
    celery = Celery("bench-client", broker=broker_url, backend=side_url, set_as_current=False)
    engine = Durable(
        Celery("bench-starter", set_as_current=False),
        database_url=database_url,
        broker_url=broker_url,
        public_url=public_url,
        max_events=0,
        first_turn_budget=setup.first_turn,
    )
    engine.migrate()
    rows = Rows(database_url)
    rows.create()
    environment = {
        "DURABLE_DATABASE_URL": _named(database_url, "bench-worker"),
        "DURABLE_BROKER_URL": broker_url,
        "DURABLE_PUBLIC_URL": public_url,
        "DURABLE_CONTINUATION": setup.continuation,
        "DURABLE_MAX_EVENTS": "0",
        "BENCH_SIDE_URL": side_url,
        "BENCH_ROWS_URL": database_url,
    }
    # Its answers are waited for in BLPOP, which says how long.
    side = redis.Redis.from_url(side_url, socket_timeout=None)
    return Site(
        setup=setup,
        environment=environment,
        engine=engine,
        celery=celery,
        side=side,
        rows=rows,
        port=port,
        application=application,
    )


def _named(database_url: str, name: str) -> str:
    """The URL of a PostgreSQL database with the name by which its connections are counted."""
    if not database_url.startswith("postgresql"):
        return database_url
    return sa.make_url(database_url).update_query_dict({"application_name": name}).render_as_string(False)


@contextmanager
def _worker(site: Site, number: int, children: int) -> Iterator[subprocess.Popen[bytes]]:
    sizes = ("--concurrency", str(children), "--prefetch-multiplier", str(site.setup.prefetch))
    command = ["celery", "-A", f"{site.application}:celery", "worker", *sizes, *_QUIET]
    command += ["--hostname", f"bench-{site.port}-{number}@%h"]
    with servers.process("the worker", command, site.environment) as process:
        yield process


def _warm_up(site: Site, children: int) -> None:
    until(lambda: len(site.children()) >= children, f"{children} children of the workers beat")
    for _ in range(2 * children):
        site.plain_secs()


def _close(site: Site) -> None:
    housekeeping.end(site.engine)
    site.engine.close()
    current.forget(site.engine)
    site.engine.celery.close()
    site.celery.close()
    site.rows.close()
    site.side.close()


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def until(condition: Callable[[], object], what: str, secs: float = _UP_SECS) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + secs
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not so within {secs:g} s: {what}")
        time.sleep(0.005)
