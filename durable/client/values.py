"""The published values of a run as plain JSON."""

from __future__ import annotations

from typing import Any

from .. import codec, duration
from ..engine import Engine
from ..errors import DecryptionError, PayloadMissing, RunNotFound
from ..store import generations, published, requests


def list_values(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """
    Return the latest values of the run's last generation, by name: ``name published_at value``.

    ``value`` says why, if it cannot be read here.

    Raises:
        RunNotFound: There is no run of this id.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        row = generations.latest(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        found = published.read(tx, row)
        return [
            {"name": name, "published_at": duration.iso(found[name].at), "value": _plain(tx, row.id, found[name])}
            for name in sorted(found)
        ]


def _plain(tx: Any, run_id: str, found: published.PublishedValue) -> Any:
    try:
        text = published.load(tx, run_id, found)
        return codec.plain(text, requests.load(tx, codec.request_ids(text)))
    except (DecryptionError, PayloadMissing) as missing:
        return str(missing)
