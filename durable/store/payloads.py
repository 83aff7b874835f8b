"""
Where large values are kept: in chunks in the database, or as files at any URL that fsspec knows.

A payload's name is its run and its digest, so that storing one twice stores it once.  What is stored in the database
belongs to the transaction that refers to it; what is stored outside is there before that commits.  One that no run
refers to (its transaction failed, a heartbeat was replaced) is deleted by the sweep a day later (``orphans.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote

from sqlalchemy import Connection, Insert, Select, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError

from ..errors import ConfigurationError
from .schema import payloads

#: Bytes of one row: no packet and no statement becomes large by it.
CHUNK = 128 * 1024
#: Payloads that one query of a listing reads.
PAGE = 200
#: A file this old is written again when it is stored again: it may be about to be taken for an orphan.
_FRESH = 12 * 60 * 60 * 1_000_000


#: What was stored ahead of its transaction is not looked for again in it: for so long, and so many at most.
_MOMENT = 10 * 60 * 1_000_000
_MOST_AHEAD = 1000


class StoredPayload(NamedTuple):
    """A payload of a listing, and when it was stored, in microseconds."""

    run_id: str
    digest: str
    stored_at: int


class PayloadStoreError(OperationalError):
    """A payload store that cannot be used now."""


#: Opens a connection for reading.
Reading = Callable[[], contextlib.AbstractContextManager[Connection]]


class PayloadStore(Protocol):
    """
    Bytes by run and digest.  A store in the database works on the connection; another one leaves it alone.

    Trouble that may pass is raised as the database's own is: ``PayloadTrouble``, an ``OperationalError``.
    """

    #: Whether it is outside of the database: best written to while no transaction is open.
    is_outside: bool

    def put(self, tx: Connection | None, run_id: str, digest: str, data: bytes, now: int) -> None:
        """Store it, or note that it is wanted again; None for *tx*, outside only: before its transaction begins."""

    def get(self, tx: Connection, run_id: str, digest: str) -> bytes | None:
        """What was stored; None when there is nothing."""

    def delete_runs(self, run_ids: Collection[str]) -> None:
        """Delete all of these runs', which are gone; in the database that is ``retention.remove``'s to do."""

    def delete(self, tx: Connection, found: StoredPayload, before: int) -> bool:
        """Delete one, unless it was stored again since *before*; whether it was deleted."""

    def list(self, reading: Reading) -> Iterator[StoredPayload]:
        """All of them, read bit by bit."""


class SqlPayloads:
    """In ``durable_payloads``, a row per chunk."""

    is_outside = False

    def put(self, tx: Connection | None, run_id: str, digest: str, data: bytes, now: int) -> None:
        assert tx is not None
        mine = (payloads.c.run_id == run_id, payloads.c.digest == digest)
        # Also what keeps an orphan that is wanted again from being deleted: whoever would has to wait, and look again.
        if tx.execute(update(payloads).where(*mine).values(stored_at=now)).rowcount:
            return
        known = {"run_id": run_id, "digest": digest, "stored_at": now}
        for part, first in enumerate(range(0, len(data), CHUNK)):
            tx.execute(_unless_there(tx), known | {"part": part, "data": data[first : first + CHUNK]})

    def get(self, tx: Connection, run_id: str, digest: str) -> bytes | None:
        query = select(payloads.c.data).where(payloads.c.run_id == run_id, payloads.c.digest == digest)
        parts = list(tx.execute(query.order_by(payloads.c.part)).scalars())
        return b"".join(parts) if parts else None

    def delete_runs(self, run_ids: Collection[str]) -> None:
        """Their rows went with them."""

    def delete(self, tx: Connection, found: StoredPayload, before: int) -> bool:
        mine = (payloads.c.run_id == found.run_id, payloads.c.digest == found.digest)
        return tx.execute(delete(payloads).where(*mine, payloads.c.stored_at < before)).rowcount > 0

    def list(self, reading: Reading) -> Iterator[StoredPayload]:
        page = [StoredPayload("", "", 0)]
        while page:
            last = page[-1]
            with reading() as tx:
                page = [StoredPayload(*row) for row in tx.execute(_after(last))]
            yield from page


def _after(last: StoredPayload) -> Select[Any]:
    """The next page of a listing, in words in which every database looks into the index."""
    run_id, digest = payloads.c.run_id, payloads.c.digest
    beyond = (run_id >= last.run_id, or_(run_id > last.run_id, digest > last.digest))
    query = select(run_id, digest, payloads.c.stored_at).where(payloads.c.part == 0, *beyond)
    return query.order_by(run_id, digest).limit(PAGE)


def _unless_there(tx: Connection) -> Insert:
    """Two that store the same at once are not in each other's way: one of them waits, and finds it there."""
    if tx.dialect.name == "postgresql":
        return postgresql.insert(payloads).on_conflict_do_nothing()
    return insert(payloads).prefix_with("OR IGNORE" if tx.dialect.name == "sqlite" else "IGNORE")


class UrlPayloads:
    """
    Files below a URL, ``<url>/run-<run id>/<digest>``.

    Args:
        url: As fsspec takes it: ``s3://bucket/folder``, ``gs://…``, ``az://…``, ``file:///folder``.

    Raises:
        ConfigurationError: fsspec, or what it needs for this URL, is not installed; or it knows no such URL.
    """

    is_outside = True

    def __init__(self, url: str) -> None:
        self._url = url
        #: Stored a moment ago, for a transaction that is about to refer to them; and when.
        self._ahead: dict[tuple[str, str], int] = {}
        self._files()

    def put(self, tx: Connection | None, run_id: str, digest: str, data: bytes, now: int) -> None:
        if tx is not None and now - self._ahead.pop((run_id, digest), 0) < _MOMENT:
            return
        with _trouble(f"payload {digest} of run {run_id}"):
            files, root = self._files()
            folder = _folder(root, run_id)
            path = f"{folder}/{digest}"
            # By its size: a process that died while it wrote may have left a part.
            is_there = files.exists(path) and files.size(path) == len(data)
            if not is_there or now - _stored_at(files, path) >= _FRESH:
                files.makedirs(folder, exist_ok=True)
                files.pipe_file(path, data)
        if tx is None:
            if len(self._ahead) >= _MOST_AHEAD:
                self._ahead.clear()  # of transactions that failed, nearly all
            self._ahead[run_id, digest] = now

    def get(self, tx: Connection, run_id: str, digest: str) -> bytes | None:
        with _trouble(f"payload {digest} of run {run_id}"):
            files, root = self._files()
            try:
                return bytes(files.cat_file(f"{_folder(root, run_id)}/{digest}"))
            except FileNotFoundError:
                return None

    def delete_runs(self, run_ids: Collection[str]) -> None:
        with _trouble("the payloads of runs that are deleted"):
            files, root = self._files()
            for run_id in run_ids:
                with contextlib.suppress(FileNotFoundError):
                    files.rm(_folder(root, run_id), recursive=True)

    def delete(self, tx: Connection, found: StoredPayload, before: int) -> bool:
        with _trouble(f"payload {found.digest} of run {found.run_id}"):
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
        with _trouble("the list of payloads"):
            files, root = self._files()
            folders = _names(files, root)
        for folder in folders:
            if not folder.startswith(_PREFIX):
                continue
            with _trouble("the list of payloads"):
                path = f"{root}/{folder}"
                found = list(_stored(files, path, unquote(folder[len(_PREFIX) :])))
            yield from found

    def _files(self) -> tuple[Any, str]:
        """fsspec's file system, which keeps one per process, and the folder in it."""
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


#: Of a run's folder: an id may be "..".
_PREFIX = "run-"


def _folder(root: str, run_id: str) -> str:
    return f"{root}/{_PREFIX}{quote(run_id, safe='')}"


def _names(files: Any, path: str) -> list[str]:
    try:
        return sorted(each.rstrip("/").rpartition("/")[2] for each in files.ls(path, detail=False))
    except FileNotFoundError:
        return []


def _stored(files: Any, path: str, run_id: str) -> Iterator[StoredPayload]:
    """What a run's folder holds; a file may go while it is looked at."""
    for name in _names(files, path):
        with contextlib.suppress(FileNotFoundError):
            yield StoredPayload(run_id, name, _stored_at(files, f"{path}/{name}"))


def _stored_at(files: Any, path: str) -> int:
    moment = files.modified(path)
    assert isinstance(moment, datetime)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)


@contextlib.contextmanager
def _trouble(what: str) -> Iterator[None]:
    """A store that cannot be reached is trouble like the database's, and waited for in the same way."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        said = OSError(f"the payload store, at {what}: {type(error).__name__}: {error}")
        raise PayloadStoreError(None, None, said) from error
