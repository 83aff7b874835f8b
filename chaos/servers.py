"""
A PostgreSQL, Redis or RabbitMQ server of our own: started, stopped and killed here, and never anybody else's.

Data live in a temporary folder.  PostgreSQL runs without fsync: processes die
here, the machine does not.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
import pymysql  # type: ignore[import-untyped]
import redis

from .ports import free_port, listens, until


def find_program(name: str) -> str | None:
    """
    The path of a program, where Debian's packages put it or on the PATH; None if it is not installed.

    What Debian puts on the PATH for RabbitMQ runs as the machine's own node, so the packages' folders come first.
    """
    postgresql = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    folders = [*postgresql, "/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath), "/usr/sbin"]
    return shutil.which(name, path=os.pathsep.join(folders))


def required(name: str) -> str:
    """The path of a program; FileNotFoundError if it is not installed."""
    found = find_program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed here; .ci/services installs what the set-ups need")
    return found


class Server:
    """A server process.  ``start`` after ``stop`` goes on with the same data."""

    name = ""
    #: How long a start may take.
    up_secs = 60.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir(mode=0o755)
        self.port = free_port()
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; returns once it answers."""
        self._popen = self._spawn()
        until(self._is_up, f"{self.name} answers (its log: {self.folder}/log)", self.up_secs)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process by a signal; SIGKILL goes to its whole group."""
        if self._popen is None:
            return
        if number == signal.SIGKILL:
            # It may have ended by itself.
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)
        else:
            self._popen.send_signal(number)
        try:
            self._popen.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait(20)
        self._popen = None

    def kill(self) -> None:
        """End the process at once, also one that is stopped."""
        self.stop(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal to its whole group."""
        assert self._popen is not None
        os.killpg(self._popen.pid, number)

    @property
    def running(self) -> bool:
        return self._popen is not None

    @property
    def pid(self) -> int:
        """The process id of a server that runs."""
        assert self._popen is not None
        return self._popen.pid

    def _spawn(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _is_up(self) -> bool:
        assert self._popen is not None
        if self._popen.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self._popen.returncode}; its log: {self.folder}/log")
        return self._answers()

    def _answers(self) -> bool:
        return listens(self.port)

    def _launch(
        self, command: Sequence[str], user: str | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user and pwd.getpwnam(user).pw_gid,
                extra_groups=[] if user else None,
                env={**os.environ, **(environment or {})},
            )


class PostgreSQL(Server):
    """PostgreSQL with one superuser, ``postgres``, and no passwords."""

    name = "postgresql"

    def __init__(self, folder: Path, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(folder)
        self._settings = settings or {}
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.getuid() == 0 else None
        self._data = self.folder / "data"
        if self._user:
            shutil.chown(self.folder, self._user)
        initdb = self._launch(
            [required("initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync"], self._user
        )
        if initdb.wait(60):
            raise RuntimeError(f"initdb failed; its log: {self.folder}/log")

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The URL by which it is reached at another port."""
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def restart(self, *, immediate: bool, down_secs: float = 0.0) -> None:
        """Stop, in "immediate" mode as a crash would, and start again."""
        self.stop(signal.SIGQUIT if immediate else signal.SIGINT)
        time.sleep(down_secs)
        self.start()

    def cut_connections(self) -> None:
        """Terminate every connection but the one that asks for it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 200,
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._launch([required("postgres"), "-D", str(self._data), *options], self._user)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class MariaDB(Server):
    """MariaDB, as small as it can be, with one user, ``root``, and no password; its data are where *data* says."""

    name = "mariadb"

    _SMALL = ("--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M")

    def __init__(self, folder: Path, data: Path | None = None, *, installs: bool = True) -> None:
        """
        Args:
            data: By default a folder below the server's own.
            installs: Whether it makes the server's own tables; a node that joins a cluster gets them from there.
        """
        super().__init__(folder)
        self._data = data or self.folder / "data"
        self._data.mkdir(exist_ok=True)
        self._user = "mysql" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
            shutil.chown(self._data, self._user)
        if installs:
            self._install()

    def _install(self) -> None:
        install = [
            required("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self._data}",
            # TMPDIR may be a folder of this process's user, in which the server's own user can make no files.
            f"--tmpdir={self.folder}",
            "--auth-root-authentication-method=normal",
        ]
        if self._launch([*install, "--skip-test-db", *self._SMALL], self._user).wait(60):
            raise RuntimeError(f"mariadb-install-db failed; its log: {self.folder}/log")

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/durable"

    def create(self) -> None:
        """Make the database that the URL names."""
        with pymysql.connect(host="127.0.0.1", port=self.port, user="root") as connection:
            connection.cursor().execute("CREATE DATABASE durable")

    def options(self) -> Sequence[str]:
        """More options of its command line, at each start."""
        return ()

    def _spawn(self) -> subprocess.Popen[bytes]:
        where = (
            f"--datadir={self._data}",
            f"--tmpdir={self.folder}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
        )
        address = (f"--port={self.port}", "--bind-address=127.0.0.1")
        return self._launch(
            [required("mariadbd"), "--no-defaults", *where, *address, *self._SMALL, *self.options()], self._user
        )


class Redis(Server):
    """Redis without persistence: a restart forgets everything."""

    name = "redis"

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"

    def restart(self, down_secs: float = 0.0) -> None:
        """Kill it, and start it empty."""
        self.stop(signal.SIGKILL)
        time.sleep(down_secs)
        self.start()

    def flush(self) -> None:
        """Forget all messages."""
        with redis.Redis(port=self.port) as client:
            client.flushall()

    def hang(self, secs: float) -> None:
        """Answer nothing for a while."""
        with redis.Redis(port=self.port) as client:
            client.client_pause(int(secs * 1000))

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return self._launch([required("redis-server"), *options])


class RabbitMQ(Server):
    """A RabbitMQ node of its own; what is durable survives ``restart``."""

    name = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._environment = {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"chaos-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}//"

    def restart(self, down_secs: float = 0.0) -> None:
        """Kill it, and start it with what it had on disk."""
        self.stop(signal.SIGKILL)
        time.sleep(down_secs)
        self.start()

    def flush(self) -> None:
        """Forget all messages, of every queue."""
        listed = self._ctl("-q", "list_queues", "--no-table-headers", "name").stdout
        for queue in listed.decode().split():
            self._ctl("purge_queue", queue)

    def hang(self, secs: float) -> None:
        """Answer nothing for a while."""
        self.send_signal(signal.SIGSTOP)
        time.sleep(secs)
        self.send_signal(signal.SIGCONT)

    def _spawn(self) -> subprocess.Popen[bytes]:
        return self._launch([required("rabbitmq-server")], environment=self._environment)

    def _answers(self) -> bool:
        try:
            return listens(self.port) and self._ctl("await_startup", "--timeout", "30").returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _ctl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [required("rabbitmqctl"), *arguments],
            env={**os.environ, **self._environment},
            capture_output=True,
            timeout=60,
            check=False,
        )


Broker = Redis | RabbitMQ
BROKERS: Mapping[str, type[Broker]] = {"redis": Redis, "rabbitmq": RabbitMQ}
DATABASES: Mapping[str, type[PostgreSQL | MariaDB]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}
