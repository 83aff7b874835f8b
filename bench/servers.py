"""Databases and brokers of the benchmark's own, and processes; all are gone afterwards."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
import sqlalchemy as sa

ROOT = Path(__file__).resolve().parent.parent

DATABASES = ("postgresql", "sqlite")
BROKERS = ("redis", "rabbitmq")

#: Where the servers are; ``BENCH_POSTGRES`` may create databases, ``BENCH_REDIS`` has a free one.
POSTGRES = os.environ.get("BENCH_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379")
#: The virtual hosts of this one are made with ``rabbitmqctl``.
RABBITMQ = os.environ.get("BENCH_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672")

#: Says that a Redis database is taken; the tests look at the same key.  It expires if we are killed.
_OWNER_KEY = "durable:tests:owner"
_OWNER_SECS = 6 * 3600
_GRACE_SECS = 15
_TAIL = 3000


@contextmanager
def database(kind: str = "postgresql") -> Iterator[str]:
    """The URL of a new database."""
    with _postgresql() if kind == "postgresql" else _sqlite() as url:
        yield url


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="durable-bench-") as folder:
        yield f"sqlite:///{folder}/durable.db"


@contextmanager
def _postgresql() -> Iterator[str]:
    name = f"durable_bench_{secrets.token_hex(6)}"
    server = sa.make_url(POSTGRES).set(drivername="postgresql+psycopg", database="postgres")
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def redis_database() -> Iterator[str]:
    """The URL of a Redis database that held nothing."""
    number = _take_number()
    try:
        yield f"{REDIS}/{number}"
    finally:
        with redis.Redis.from_url(REDIS, db=number) as client:
            client.flushdb()


def _take_number() -> int:
    for number in range(15, 0, -1):
        with redis.Redis.from_url(REDIS, db=number) as client:
            if client.dbsize() == 0 and client.set(_OWNER_KEY, os.getpid(), nx=True, ex=_OWNER_SECS):
                return number
    raise SystemExit(f"{REDIS}: each of the databases 1 to 15 holds keys, and the benchmark needs an empty one.")


@contextmanager
def rabbitmq_vhost() -> Iterator[str]:
    """The URL of a new virtual host."""
    name = f"durable-bench-{secrets.token_hex(6)}"
    _rabbitmqctl("add_vhost", name)
    try:
        user = RABBITMQ.partition("://")[2].partition(":")[0]
        _rabbitmqctl("set_permissions", "-p", name, user, ".*", ".*", ".*")
        yield f"{RABBITMQ}/{name}"
    finally:
        _rabbitmqctl("delete_vhost", name)


def _rabbitmqctl(*arguments: str) -> None:
    subprocess.run(["rabbitmqctl", *arguments], check=True, capture_output=True, text=True, timeout=60)


@contextmanager
def process(name: str, arguments: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """``python -m ARGUMENTS`` in the repository's folder; stopped at the end, and heard after an error."""
    # A worker that is killed leaves billiard's files in its temporary folder.
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="durable-bench-") as folder:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": folder, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield child
        except BaseException:
            log.seek(0)
            written = log.read().decode(errors="replace")
            print(f"The end of what {name} wrote:\n{written[-_TAIL:]}", file=sys.stderr)
            raise
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_GRACE_SECS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
