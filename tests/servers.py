"""Databases and brokers of the tests' own: made on the servers of this host, and gone afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import redis
import sqlalchemy as sa

from durable import Durable, migrations
from durable.broker import embedded
from durable.store import REVISION
from durable.testing import database as sqlite_file

DATABASES = ("sqlite", "postgresql", "mariadb")
BROKERS = ("redis", "rabbitmq", "embedded")

ADMIN = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1/postgres",
    "mariadb": "mariadb+pymysql://root@127.0.0.1",
}
_URL = {
    "postgresql": "postgresql://postgres@127.0.0.1/{name}",
    "mariadb": "mysql://root@127.0.0.1/{name}",
}
_DROP = {"postgresql": "DROP DATABASE {name} WITH (FORCE)", "mariadb": "DROP DATABASE {name}"}
#: Says whose a Redis database is, so that two sessions never take the same; expires if a session is killed.
_OWNER_KEY = "durable:tests:owner"

#: RabbitMQ's virtual hosts that this process has made, and those of them that no test has had.
_vhosts: list[str] = []
_unused_vhosts: list[str] = []


def absent(what: str, error: object) -> NoReturn:
    """A server is not there: skip, but fail where it must be there."""
    reason = f"{what} does not answer ({error}); .ci/services starts it."
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def new_database(kind: str, folder: Path, options: str = "") -> Iterator[str]:
    """The URL of an empty database; *options* are those of its CREATE DATABASE."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/durable.db"
        return
    name = f"durable_test_{secrets.token_hex(6)}"
    admin = sa.create_engine(ADMIN[kind], isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
    except sa.exc.OperationalError as error:
        absent(kind, error.orig)
    try:
        yield _URL[kind].format(name=name)
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(_DROP[kind].format(name=name))


def migrate(engine: Durable) -> None:
    """Do what ``engine.migrate()`` does, but copy a new file of SQLite, and migrate no database twice."""
    if engine.store.dialect == "sqlite" and not Path(engine.store.url.database or "").exists():
        Path(engine.store.url.database or "").write_bytes(sqlite_file.empty())
    with engine.store.read() as tx:
        found = migrations.revision(tx)
    if found != REVISION:
        engine.migrate()


def take_less_care(url: str) -> None:
    """Have PostgreSQL not wait for its disk in this database: for tests in which no server dies."""
    admin = sa.create_engine(ADMIN["postgresql"], isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {sa.make_url(url).database} SET synchronous_commit = off")


@contextmanager
def new_broker(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty broker."""
    make = {"redis": _redis, "rabbitmq": _rabbitmq, "embedded": _embedded}[kind]
    with make(folder) as url:
        yield url


@contextmanager
def _redis(_folder: Path) -> Iterator[str]:
    number = _take_redis_database()
    try:
        yield f"redis://127.0.0.1:6379/{number}"
    finally:
        with redis.Redis(db=number) as client:
            client.flushdb()


def _take_redis_database() -> int:
    """The number of an empty database that nobody else has taken."""
    try:
        for number in range(15, 0, -1):
            with redis.Redis(db=number) as client:
                if client.dbsize() == 0 and client.set(_OWNER_KEY, os.getpid(), nx=True, ex=3600):
                    return number
    except redis.RedisError as error:
        absent("Redis", error)
    absent("A free Redis database", "numbers 1 to 15 hold keys")


@contextmanager
def _rabbitmq(_folder: Path) -> Iterator[str]:
    if not _unused_vhosts:
        try:
            _make_vhosts()
        except (OSError, subprocess.SubprocessError) as error:
            absent("RabbitMQ", getattr(error, "stderr", None) or error)
    yield f"amqp://guest:guest@127.0.0.1:5672/{_unused_vhosts.pop()}"


def _make_vhosts() -> None:
    """Make several virtual hosts at once: ``rabbitmqctl`` takes more than a second for each call."""
    names = [f"durable-test-{secrets.token_hex(6)}" for _ in range(10)]
    permissions = '<<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>'
    make = f'rabbit_vhost:add(Name, <<"tests">>), rabbit_auth_backend_internal:set_permissions({permissions})'
    _for_vhosts(names, make)
    _vhosts.extend(names)
    _unused_vhosts.extend(names)


def remove_vhosts() -> None:
    """Remove all virtual hosts that this process has made."""
    if _vhosts:
        _for_vhosts(_vhosts, 'rabbit_vhost:delete(Name, <<"tests">>)')
    _vhosts.clear()
    _unused_vhosts.clear()


def _for_vhosts(names: list[str], do: str) -> None:
    listed = ", ".join(f'<<"{name}">>' for name in names)
    expression = f"lists:foreach(fun(Name) -> {do} end, [{listed}])."
    subprocess.run(["rabbitmqctl", "eval", expression], check=True, capture_output=True, text=True, timeout=60)


@contextmanager
def _embedded(folder: Path) -> Iterator[str]:
    with embedded.start(folder) as server:
        yield server.url


class OwnRedis:
    """A Redis server of one test, which may kill it and start it again on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        """
        Args:
            options: Options of its command line, such as ``--appendonly yes``.
        """
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server; returns once it answers."""
        if shutil.which("redis-server") is None:
            absent("Redis", "redis-server is not installed")
        quiet = ("--save", "", "--dir", str(self._folder), "--logfile", str(self._folder / "redis.log"))
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", *quiet, *self._options]
        self._process = embedded.supervised(command, grace_secs=0, stdout=subprocess.DEVNULL)
        wait_for_port(self.port)
        self.client.ping()

    def kill(self) -> None:
        """Kill the server, and return when it has ended."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> OwnRedis:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()


class OwnPgBouncer:
    """A PgBouncer of one test, in transaction mode, before the tests' PostgreSQL.  The test may kill it."""

    def __init__(self, folder: Path, sessions: int = 2) -> None:
        """
        Args:
            sessions: How many sessions of the server all clients share.
        """
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": sessions,
            "max_client_conn": 200,
        }
        (folder / "pgbouncer.ini").write_text(
            "[databases]\n* = host=127.0.0.1 port=5432 user=postgres\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )

    def url(self, url: str) -> str:
        """The URL of a database of PostgreSQL's, through the pooler."""
        through = sa.make_url(url).set(port=self.port)
        return through.render_as_string(hide_password=False)

    def start(self) -> None:
        """Start it; returns once it listens."""
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            absent("PgBouncer", "pgbouncer is not installed")
        # It refuses to run as root, and a test's folder is not for others.
        private = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        with (self._folder / "pgbouncer.ini").open("rb") as settings:
            os.set_inheritable(settings.fileno(), True)
            self._process = embedded.supervised(
                [*private, program, "-q", f"/dev/fd/{settings.fileno()}"],
                grace_secs=0,
                pass_fds=(settings.fileno(),),
                stdout=subprocess.DEVNULL,
            )
        wait_for_port(self.port)

    def kill(self) -> None:
        """Kill it, and return when it has ended."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> OwnPgBouncer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class OwnMariaDB:
    """A MariaDB server of one test, with its own settings and an empty database."""

    def __init__(self, folder: Path, *options: str) -> None:
        """
        Args:
            options: Options of its command line, such as ``--wait-timeout=5``.
        """
        self.port = free_port()
        self.url = f"mysql://root@127.0.0.1:{self.port}/durable"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OwnMariaDB:
        path = f"{os.environ['PATH']}:/usr/sbin"
        install, program = shutil.which("mariadb-install-db", path=path), shutil.which("mariadbd", path=path)
        if install is None or program is None:
            absent("mariadb", "mariadbd is not installed")
        data = self._folder / "mariadb"
        own = ["--no-defaults", f"--datadir={data}", *(["--user=root"] if os.geteuid() == 0 else [])]
        fresh = [install, *own, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(fresh, check=True, capture_output=True, timeout=120)
        # Within the data: the whole path may be longer than the name of a socket can be.
        listen = [f"--port={self.port}", "--bind-address=127.0.0.1", "--socket=socket"]
        careless = ["--innodb-flush-log-at-trx-commit=0", f"--log-error={self._folder}/mariadb.log"]
        self._process = embedded.supervised(
            [program, *own, *listen, *careless, *self._options], grace_secs=0, stdout=subprocess.DEVNULL
        )
        try:
            wait_for_port(self.port)
            admin = sa.create_engine(f"mysql+pymysql://root@127.0.0.1:{self.port}", poolclass=sa.NullPool)
            with admin.connect() as connection:
                connection.exec_driver_sql("CREATE DATABASE durable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        shutil.rmtree(self._folder / "mariadb")


def free_port() -> int:
    """A port of the loopback interface on which nothing listens."""
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        return int(unbound.getsockname()[1])


def wait_for_port(port: int, timeout_secs: float = 30.0) -> None:
    """Return once something listens on a port."""
    deadline, pause = time.monotonic() + timeout_secs, threading.Event()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"Nothing listens on port {port} after {timeout_secs:g} s") from error
            pause.wait(0.02)
