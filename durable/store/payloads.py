"""
The payload store: large values, in chunks in the database or as files at a URL that fsspec supports.

A payload is named by its run and its digest, so that storing it twice has no effect.  In the database it is written in
the transaction that refers to it; outside, before that transaction commits.  A payload that no run refers to, because
its transaction failed or a heartbeat was replaced, is deleted a day later (recovery/orphans.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote

from sqlalchemy import Connection, Insert, delete, insert, or_, select, update
from sqlalchemy.exc import OperationalError

from .. import greenlets
from ..errors import ConfigurationError
from .schema import payloads

#: Bytes in one row, so that no statement exceeds a packet limit.
CHUNK = 128 * 1024
#: Payloads that one query of ``list`` reads.
PAGE = 200
#: A file older than this is written again when its value is stored again, since it may be deleted as an orphan soon.
_FRESH = 12 * 60 * 60 * 1_000_000


#: How long ``put`` remembers a file that was stored before its transaction, to skip it there; and how many files.
_REMEMBERED = 10 * 60 * 1_000_000
_MOST_REMEMBERED = 1000


class StoredPayload(NamedTuple):
    """A payload, and when it was stored, in microseconds."""

    run_id: str
    digest: str
    stored_at: int


class PayloadStoreError(OperationalError):
    """Raised when the payload store cannot be used now; an ``OperationalError``, as an outage of the database is."""


#: Opens a connection for reading.
Reading = Callable[[], contextlib.AbstractContextManager[Connection]]


class PayloadStore(Protocol):
    """
    Bytes by run and digest.  Only a store in the database uses the connections that it is given.

    An outage is raised as a ``PayloadStoreError``, so that callers retry it as they retry one of the database.
    """

    #: Whether it is outside of the database: then it is best written while no transaction is open.
    is_outside: bool

    def put(self, tx: Connection | None, run_id: str, digest: str, data: bytes, now: int) -> None:
        """Store a payload, or renew its time; *tx* is None before the transaction (only outside of the database)."""

    def get(self, tx: Connection, run_id: str, digest: str) -> bytes | None:
        """The payload; None when there is none."""

    def delete_runs(self, run_ids: Collection[str]) -> None:
        """Delete the payloads of deleted runs; in the database ``retention.remove`` has done so."""

    def delete(self, tx: Connection, found: StoredPayload, before: int) -> bool:
        """Delete a payload unless it was stored again since *before*; whether it was deleted."""

    def list(self, reading: Reading) -> Iterator[StoredPayload]:
        """All payloads, read page by page."""


class SqlPayloads:
    """Payloads in ``durable_payloads``, one row for each chunk."""

    is_outside = False

    def put(self, tx: Connection | None, run_id: str, digest: str, data: bytes, now: int) -> None:
        assert tx is not None
        mine = (payloads.c.run_id == run_id, payloads.c.digest == digest)
        # The update also saves an orphan that is needed again: ``delete`` waits for the lock and finds a new time.
        if tx.execute(update(payloads).where(*mine).values(stored_at=now)).rowcount:
            return
        # Another transaction may have inserted the same chunk meanwhile.
        insert_unless_there: Insert
        if tx.dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql

            insert_unless_there = postgresql.insert(payloads).on_conflict_do_nothing()
        else:
            insert_unless_there = insert(payloads).prefix_with("OR IGNORE" if tx.dialect.name == "sqlite" else "IGNORE")
        columns = {"run_id": run_id, "digest": digest, "stored_at": now}
        for part, first in enumerate(range(0, len(data), CHUNK)):
            tx.execute(insert_unless_there, columns | {"part": part, "data": data[first : first + CHUNK]})

    def get(self, tx: Connection, run_id: str, digest: str) -> bytes | None:
        query = select(payloads.c.data).where(payloads.c.run_id == run_id, payloads.c.digest == digest)
        parts = list(tx.execute(query.order_by(payloads.c.part)).scalars())
        return b"".join(parts) if parts else None

    def delete_runs(self, run_ids: Collection[str]) -> None:
        """Nothing to do: their rows were deleted with them."""

    def delete(self, tx: Connection, found: StoredPayload, before: int) -> bool:
        mine = (payloads.c.run_id == found.run_id, payloads.c.digest == found.digest)
        return tx.execute(delete(payloads).where(*mine, payloads.c.stored_at < before)).rowcount > 0

    def list(self, reading: Reading) -> Iterator[StoredPayload]:
        run_id, digest = payloads.c.run_id, payloads.c.digest
        query = select(run_id, digest, payloads.c.stored_at).where(payloads.c.part == 0)
        query = query.order_by(run_id, digest).limit(PAGE)
        page = [StoredPayload("", "", 0)]
        while page:
            last = page[-1]
            # Written so that every database uses the index.
            beyond = (run_id >= last.run_id, or_(run_id > last.run_id, digest > last.digest))
            with reading() as tx:
                page = [StoredPayload(*row) for row in tx.execute(query.where(*beyond))]
            yield from page


class UrlPayloads:
    """
    Files below a URL, ``<url>/run-<run id>/<digest>``.

    Args:
        url: As fsspec takes it: ``s3://bucket/folder``, ``gs://…``, ``az://…``, ``file:///folder``.

    Raises:
        ConfigurationError: fsspec, or a package that it needs for this URL, is not installed; or it does not support
            the URL.
    """

    is_outside = True

    def __init__(self, url: str) -> None:
        self._url = url
        #: When ``put`` has stored which files for a transaction that has not begun.
        self._stored_early: dict[tuple[str, str], int] = {}
        self._files()

    def put(self, tx: Connection | None, run_id: str, digest: str, data: bytes, now: int) -> None:
        if tx is not None and now - self._stored_early.pop((run_id, digest), 0) < _REMEMBERED:
            return
        greenlets.in_thread(self._write, run_id, digest, data, now)
        if tx is None:
            if len(self._stored_early) >= _MOST_REMEMBERED:
                self._stored_early.clear()  # nearly all belong to transactions that failed
            self._stored_early[run_id, digest] = now

    def _write(self, run_id: str, digest: str, data: bytes, now: int) -> None:
        with _as_outage(f"payload {digest} of run {run_id}"):
            files, root = self._files()
            folder = _folder(root, run_id)
            path = f"{folder}/{digest}"
            # Compare the size: a process that died while it wrote may have left a part of the file.
            is_there = files.exists(path) and files.size(path) == len(data)
            if not is_there or now - _stored_at(files, path) >= _FRESH:
                files.makedirs(folder, exist_ok=True)
                files.pipe_file(path, data)

    def get(self, tx: Connection, run_id: str, digest: str) -> bytes | None:
        return greenlets.in_thread(self._read, run_id, digest)

    def _read(self, run_id: str, digest: str) -> bytes | None:
        with _as_outage(f"payload {digest} of run {run_id}"):
            files, root = self._files()
            try:
                return bytes(files.cat_file(f"{_folder(root, run_id)}/{digest}"))
            except FileNotFoundError:
                return None

    def delete_runs(self, run_ids: Collection[str]) -> None:
        with _as_outage("the payloads of runs that are deleted"):
            files, root = self._files()
            for run_id in run_ids:
                with contextlib.suppress(FileNotFoundError):
                    files.rm(_folder(root, run_id), recursive=True)

    def delete(self, tx: Connection, found: StoredPayload, before: int) -> bool:
        with _as_outage(f"payload {found.digest} of run {found.run_id}"):
            files, root = self._files()
            path = f"{_folder(root, found.run_id)}/{found.digest}"
            try:
                if _stored_at(files, path) >= before:
                    return False
                files.rm_file(path)
            except FileNotFoundError:
                return False
            return True

    def list(self, reading: Reading) -> Iterator[StoredPayload]:
        with _as_outage("the list of payloads"):
            files, root = self._files()
            folders = _names(files, root)
        for folder in folders:
            if not folder.startswith(_PREFIX):
                continue
            run_id, path = unquote(folder[len(_PREFIX) :]), f"{root}/{folder}"
            found = []
            with _as_outage("the list of payloads"):
                for name in _names(files, path):
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        found.append(StoredPayload(run_id, name, _stored_at(files, f"{path}/{name}")))
            yield from found

    def _files(self) -> tuple[Any, str]:
        """fsspec's file system, which it caches for each process, and the folder in it."""
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ModuleNotFoundError:
            raise ConfigurationError(
                "payload_url needs the package 'fsspec', which is not installed: pip install 'durable-celery[fsspec]',"
                " and what fsspec needs for the URL: s3fs, gcsfs, adlfs."
            ) from None
        try:
            files, root = url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"payload_url: fsspec cannot use it: {error}") from None
        return files, str(root).rstrip("/")


#: Begins a run's folder, since a run id may be "..".
_PREFIX = "run-"


def _folder(root: str, run_id: str) -> str:
    return f"{root}/{_PREFIX}{quote(run_id, safe='')}"


def _names(files: Any, path: str) -> list[str]:
    try:
        return sorted(each.rstrip("/").rpartition("/")[2] for each in files.ls(path, detail=False))
    except FileNotFoundError:
        return []


def _stored_at(files: Any, path: str) -> int:
    moment = files.modified(path)
    assert isinstance(moment, datetime)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)


@contextlib.contextmanager
def _as_outage(what: str) -> Iterator[None]:
    """Raise errors of the file system as PayloadStoreError."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        cause = OSError(f"payload store ({what}): {type(error).__name__}: {error}")
        raise PayloadStoreError(None, None, cause) from error
