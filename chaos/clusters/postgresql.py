"""PostgreSQL with an asynchronous standby: what is lost when the primary dies, and its return as a standby."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from ..ports import until
from ..servers import PostgreSQL, Redis, required
from .set_up import Hurt, SetUp

#: How long the standby has got nothing when its primary dies.
BEHIND_SECS = 2.5


class Node(PostgreSQL):
    """A primary, or a standby that copies another node."""

    def __init__(self, folder: Path, name: str, primary: Node | None = None) -> None:
        self.name = name
        super().__init__(folder)
        if primary is not None:
            self.copy(primary)

    def copy(self, primary: Node) -> None:
        """Throw away what it has, and become a standby of the primary."""
        shutil.rmtree(self._data)
        source = f"postgresql://postgres@127.0.0.1:{primary.port}/?application_name={self.name}"
        self._do("pg_basebackup", "-D", str(self._data), "-R", "--no-sync", "-c", "fast", "-d", source)

    def rewind(self, primary: Node) -> None:
        """Go back to where the primary and it parted, and become its standby."""
        # Until its first checkpoint, a promoted server's control file says that it has not parted.
        primary.ask("CHECKPOINT")
        source = f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
        self._do("pg_rewind", "-D", str(self._data), "-R", "--no-sync", "--source-server", source)

    def ask(self, query: str) -> Any:
        """The first value of a query; None for a command."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query)
            row = cursor.fetchone() if cursor.description else None
        return row and row[0]

    def follows(self, primary: Node) -> bool:
        """Whether it gets what the primary commits: the primary sends to it, on its own timeline."""
        sends = primary.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        timeline = int(primary.ask("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16)
        return bool(sends) and self.ask("SELECT received_tli FROM pg_stat_wal_receiver") == timeline

    def _do(self, program: str, *arguments: str) -> None:
        if self._launch([required(program), *arguments], self._user).wait(60):
            raise RuntimeError(f"{program} failed; its log: {self.folder}/log")


class PostgreSQLAsynchronous(SetUp):
    """A primary and a standby that no commit waits for."""

    name = "postgresql"
    programs = ("postgres", "pg_basebackup", "pg_rewind", "redis-server")

    def start(self) -> None:
        self._broker = Redis(self.folder)
        self.run(self._broker)
        primary = Node(self.folder, "postgresql-1")
        self.run(primary)
        # So that pg_rewind can tell changed pages.
        primary.ask("ALTER SYSTEM SET wal_log_hints = on")
        # It also reads the log back to before the servers parted.
        primary.ask("ALTER SYSTEM SET wal_keep_size = '256MB'")
        primary.stop(signal.SIGINT)
        primary.start()
        standby = Node(self.folder, "postgresql-2", primary)
        self.run(standby)
        self._primary, self._standby = primary, standby
        until(lambda: standby.follows(primary), "the standby follows")

    @property
    def database_url(self) -> str:
        hosts = "&".join(f"host=127.0.0.1:{node.port}" for node in (self._primary, self._standby))
        return f"postgresql+psycopg://postgres@/postgres?{hosts}&target_session_attrs=read-write"

    @property
    def broker_url(self) -> str:
        return self._broker.url

    def hurts(self) -> Sequence[Hurt]:
        return [
            Hurt(f"primary killed, standby {BEHIND_SECS:g} s behind", self._kill, self._rewind, loses=True),
            Hurt("new primary ended, standby promoted", self._switch, self._copy),
        ]

    def _kill(self) -> None:
        """The standby gets nothing any more, and work goes on for a while; then it becomes the primary."""
        self._standby.ask("ALTER SYSTEM SET primary_conninfo = ''")
        self._standby.ask("SELECT pg_reload_conf()")
        until(lambda: not self._primary.ask("SELECT count(*) FROM pg_stat_replication"), "the standby is cut off")
        time.sleep(BEHIND_SECS)
        self._primary.kill()
        self._promote()

    def _switch(self) -> None:
        """End the primary, which sends all it has to the standby before it does, and promote the standby."""
        self._primary.stop(signal.SIGINT)
        self._promote()

    def _promote(self) -> None:
        self._standby.ask("SELECT pg_promote()")
        self._primary, self._standby = self._standby, self._primary

    def _rewind(self) -> None:
        self._standby.rewind(self._primary)
        self._follow()

    def _copy(self) -> None:
        self._standby.copy(self._primary)
        self._follow()

    def _follow(self) -> None:
        self._standby.start()
        until(lambda: self._standby.follows(self._primary), "the old primary follows")
