"""What cannot go on: names that no live worker knows, keys that are not here, and blocked runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ...store import BOUND, WaitingRun
from .finding import SHOWN, Finding, listed
from .situation import Situation


def names(seen: Situation) -> Finding:
    """Nothing waits for a step or a workflow that no live worker has registered."""
    unknown = _by_name(waiting for waiting in (*seen.steps, *seen.news) if waiting.name not in seen.registered)
    if not unknown:
        return Finding(name="names", ok=True, detail="nothing waits for an unknown step or workflow")
    told = [_told(name, waiting) for name, waiting in sorted(unknown.items())]
    return Finding(
        name="names",
        ok=False,
        detail=f"No live worker knows {listed(told, '; ')}.",
        fix="Start a worker with the code that defines it, and its module among the Celery app's include or imports."
        "  What waits goes on then.",
    )


def _by_name(found: Iterable[WaitingRun]) -> dict[str, list[WaitingRun]]:
    groups: dict[str, list[WaitingRun]] = defaultdict(list)
    for waiting in found:
        groups[waiting.name].append(waiting)
    return groups


def _told(name: str, waiting: list[WaitingRun]) -> str:
    oldest = min(waiting, key=lambda one: one.created_at)
    return f"{name} ({_count(len(waiting))} waiting, oldest run {oldest.run_id})"


def blocked(seen: Situation) -> Finding:
    """No run is blocked by its code."""
    count, oldest = seen.blocked
    if not count:
        return Finding(name="blocked", ok=True, detail="no run is blocked by its code")
    more = ", …" if count > SHOWN else ""
    return Finding(
        name="blocked",
        ok=False,
        detail=f"{_count(count)} blocked: their code no longer matches their log: {', '.join(oldest)}{more}",
        fix="`durable runs show ID` says why.  Deploy code that matches, then `durable runs retry --all`.",
    )


def keys(seen: Situation) -> Finding:
    """What waits can be decrypted with the keys that this application has."""
    cipher = seen.engine.store.vault.cipher
    known = () if cipher is None else cipher.key_ids
    missing = [
        f"{key_id} (run {run_id})" for key_id, run_id in sorted(seen.keys.items()) if key_id and key_id not in known
    ]
    if not missing:
        has = f"keys: {listed(list(known))}" if known else "values are stored as they are: no cipher is set"
        return Finding(name="keys", ok=True, detail=has)
    return Finding(
        name="keys",
        ok=False,
        detail=f"What waits is encrypted with keys that this application does not have: {listed(missing)}.",
        fix="Add them to the setting cipher (DURABLE_CIPHER), after the key that writes.  What waits goes on then.",
    )


def doubts(seen: Situation) -> Finding:
    """No step is in doubt."""
    if not seen.doubts:
        return Finding(name="doubts", ok=True, detail="no step is in doubt")
    shown = [f"{doubt.name} of run {doubt.run_id} ({doubt.op_id})" for doubt in seen.doubts[:SHOWN]]
    more = ", …" if len(seen.doubts) > SHOWN else ""
    return Finding(
        name="doubts",
        ok=False,
        detail=f"Nobody knows what became of {', '.join(shown)}{more}: their runs are blocked.",
        fix="`durable runs show ID` says what happened.  Find out whether the step did its work, then"
        " `durable runs resolve ID --result JSON`, or `--fail MESSAGE`.",
    )


def _count(number: int) -> str:
    return f"{number} or more" if number >= BOUND else str(number)
