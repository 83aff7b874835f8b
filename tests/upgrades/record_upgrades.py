"""
``python tests/upgrades/record_upgrades.py 0007 …``: record runs in flight under the code of older revisions.

For each revision it takes the last commit of main that had it, starts workers of that code, brings the runs of
upgraded_flows.py to where they wait, and kills the workers.  What is then in the database and in the broker goes into
``recorded/<revision>.json``.  Without arguments: each revision that is not recorded yet, but the newest.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORDED = HERE / "recorded"

sys.path += [str(ROOT), str(ROOT / "tests")]
from servers import OwnRedis  # noqa: E402  # after the path is set

from chaos.releases import checkout, releases  # noqa: E402

_WORKER = ("-m", "celery", "-A", "upgraded_app:celery", "worker", "--without-gossip", "--without-mingle")


def record(revision: str, commit: str, folder: Path) -> dict[str, Any]:
    """What is in the database and in the broker when the workers of this commit are killed."""
    code = checkout(commit, folder / "code", "durable")
    (folder / "ledger").touch()
    with _redis(folder) as server:
        environment = {
            **os.environ,
            "DURABLE_DATABASE_URL": f"sqlite:///{folder}/durable.db",
            "DURABLE_BROKER_URL": server.url,
            "PYTHONPATH": f"{code}:{HERE}",
            "UPGRADED_LEDGER": str(folder / "ledger"),
            "UPGRADED_STAYS": "1",
        }
        _act(str(HERE / "upgraded_app.py"), "migrate", folder=folder, environment=environment)
        with _worker(folder, environment):
            _act(str(HERE / "upgraded_app.py"), "begin_changed", folder=folder, environment=environment)
        with _worker(folder, {**environment, "UPGRADED_OTHER_VARIANT": "1"}):
            _act(str(HERE / "upgraded_app.py"), "block_changed", folder=folder, environment=environment)
        with _worker(folder, environment):
            _act(str(HERE / "upgraded_app.py"), "begin", folder=folder, environment=environment)
        _act(str(HERE / "upgraded_app.py"), "go_on_alone", folder=folder, environment=environment)
        messages = _messages(server.client)
    tables = _tables(folder / "durable.db")
    assert tables.pop("durable_version")["rows"] == [[revision]]
    return {"revision": revision, "commit": commit, "tables": tables, "messages": messages}


@contextmanager
def _redis(folder: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def _worker(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A worker with a child for each step that stays; killed at the end with all its children."""
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *_WORKER, "--concurrency", "10", "--loglevel", "INFO"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _act(*arguments: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        log = folder / "worker.log"
        worker = log.read_text()[-4000:] if log.exists() else ""
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr[-4000:]}\n{worker}")


def _tables(file: Path) -> dict[str, Any]:
    """Each of our tables that has rows, with its columns and rows."""
    engine = sa.create_engine(f"sqlite:///{file}")
    metadata = sa.MetaData()
    metadata.reflect(engine, only=lambda name, _: name.startswith("durable_"))
    found = {}
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            if rows := connection.execute(sa.select(table).order_by(*table.primary_key)).all():
                found[table.name] = {
                    "columns": [column.name for column in table.columns],
                    "rows": [[_plain(value) for value in row] for row in rows],
                }
    engine.dispose()
    return found


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _messages(client: redis.Redis) -> dict[str, list[Any]]:
    """The messages of each queue; those that the dead workers have not acknowledged come back to it."""
    found: dict[str, list[Any]] = {}
    for key in sorted(client.keys("*")):
        if client.type(key) == b"list":
            found[key.decode()] = [json.loads(each) for each in client.lrange(key, 0, -1)]
    for each in client.hvals("unacked"):
        message, _, queue = json.loads(each)
        found.setdefault(queue, []).append(message)
    return found


def text_of(recording: dict[str, Any]) -> str:
    """A recording as JSON, one row or message on each line."""
    tables = [
        f'"{name}":{{"columns":{_json(table["columns"])},"rows":{_lines(table["rows"])}}}'
        for name, table in recording["tables"].items()
    ]
    queues = [f"{_json(name)}:{_lines(messages)}" for name, messages in recording["messages"].items()]
    head = f'"revision":{_json(recording["revision"])},"commit":{_json(recording["commit"])}'
    return "{" + ",\n".join([head, f'"tables":{{{",".join(tables)}}}', f'"messages":{{{",".join(queues)}}}']) + "}\n"


def _lines(items: list[Any]) -> str:
    return "[\n" + ",\n".join(map(_json, items)) + "]"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Record what the command line names."""
    known = releases()
    missing = [each for each in list(known)[:-1] if not (RECORDED / f"{each}.json").exists()]
    for revision in sys.argv[1:] or missing:
        with tempfile.TemporaryDirectory(prefix="durable-upgrades-") as folder:
            recording = record(revision, known[revision], Path(folder))
        (RECORDED / f"{revision}.json").write_text(text_of(recording))
        print(f"{revision}: {sum(len(each['rows']) for each in recording['tables'].values())} rows")


if __name__ == "__main__":
    main()
