"""Check for work that cannot continue, because of unknown names, missing keys, blocks or doubts; and for failures."""

from __future__ import annotations

from collections import Counter, defaultdict

from ..store import BOUND, WaitingRun, pauses
from .finding import SHOWN, Finding, listed
from .situation import DAY, Situation


def names(situation: Situation) -> Finding:
    """No work waits for a step or a workflow that no live worker has registered."""
    unknown: dict[str, list[WaitingRun]] = defaultdict(list)
    for waiting in (*situation.steps, *situation.turns):
        if waiting.name not in situation.registered:
            unknown[waiting.name].append(waiting)
    if not unknown:
        return Finding(name="names", ok=True, detail="no work waits for an unknown step or workflow")
    described = []
    for name, entries in sorted(unknown.items()):
        oldest = min(entries, key=lambda entry: entry.created_at)
        described.append(f"{name} ({_count(len(entries))} waiting, oldest run {oldest.run_id})")
    return Finding(
        name="names",
        ok=False,
        detail=f"No live worker has registered {listed(described, '; ')}.",
        fix="Start a worker with the code that defines it, and add its module to the Celery app's include or imports."
        "  The waiting work then continues.",
    )


def blocked(situation: Situation) -> Finding:
    """No run is blocked by its code."""
    count, oldest = situation.blocked
    if not count:
        return Finding(name="blocked", ok=True, detail="no run is blocked by its code")
    more = ", …" if count > SHOWN else ""
    return Finding(
        name="blocked",
        ok=False,
        detail=f"{_count(count)} blocked by their code: {', '.join(oldest)}{more}",
        fix="`durable runs show ID` says why.  Deploy code that matches the log, without the mistake, then run"
        " `durable runs retry --all`.",
    )


def paused(situation: Situation) -> Finding:
    """Nothing is paused for longer than a day: it may be forgotten."""
    before = situation.now - DAY
    by_name = [each for each in situation.pauses if each.cause != pauses.RESUMING]
    found = [f"the {each.kind} {each.name}" for each in by_name if each.paused_at < before]
    if situation.paused_run is not None and situation.paused_run[1] < before:
        found.append(f"run {situation.paused_run[0]}")
    if not found:
        held = ", ".join(f"the {each.kind} {each.name}" for each in by_name[:SHOWN])
        return Finding(name="paused", ok=True, detail=f"paused: {held}" if held else "nothing is paused by name")
    return Finding(
        name="paused",
        ok=False,
        detail=f"Paused for more than a day: {listed(found)}.",
        fix="`durable pauses` and `durable runs list --paused` show what is paused, and why.  Resume it with"
        " `durable workflows resume NAME`, `durable queues resume NAME`, `durable receivers resume NAME` or"
        " `durable runs resume ID`.",
    )


def failures(situation: Situation) -> Finding:
    """How many runs of each workflow have failed within the last hour and the last day: never a fault of the system."""
    by_name = Counter(name for name, _ in situation.failures)
    if not by_name:
        return Finding(name="failures", ok=True, detail="no run has failed within a day")
    hour_ago = situation.now - DAY // 24
    recent = Counter(name for name, ended_at in situation.failures if ended_at >= hour_ago)
    counts = [f"{name} ({recent[name]} in the last hour, {count} in a day)" for name, count in by_name.most_common()]
    bound = f"  Only the {BOUND} failed runs that were started last are counted." if by_name.total() >= BOUND else ""
    return Finding(
        name="failures",
        ok=True,
        detail=f"Runs have failed: {listed(counts)}.{bound}",
        fix="`durable runs list --status failed` names them, and `durable runs show ID` shows the error of one.",
    )


def keys(situation: Situation) -> Finding:
    """This application has the keys to decrypt the values of all waiting work."""
    cipher = situation.engine.store.vault.cipher
    available = () if cipher is None else cipher.key_ids
    missing = [
        f"{key_id} (run {run_id})"
        for key_id, run_id in sorted(situation.keys.items())
        if key_id and key_id not in available
    ]
    if not missing:
        detail = f"keys: {listed(list(available))}" if available else "no cipher is set: values are not encrypted"
        return Finding(name="keys", ok=True, detail=detail)
    return Finding(
        name="keys",
        ok=False,
        detail=f"Waiting values are encrypted with keys that this application does not have: {listed(missing)}.",
        fix="Add them to the setting cipher (DURABLE_CIPHER), after its first key.  The waiting work then continues.",
    )


def doubts(situation: Situation) -> Finding:
    """No step is in doubt."""
    if not situation.doubts:
        return Finding(name="doubts", ok=True, detail="no step is in doubt")
    shown = [f"{doubt.name} of run {doubt.run_id} ({doubt.op_id})" for doubt in situation.doubts[:SHOWN]]
    more = ", …" if len(situation.doubts) > SHOWN else ""
    return Finding(
        name="doubts",
        ok=False,
        detail=f"In doubt, so that their runs are blocked: {', '.join(shown)}{more}.",
        fix="`durable runs show ID` shows what happened.  Find out whether the step did its work, then run"
        " `durable runs resolve ID --result JSON` or `durable runs resolve ID --fail MESSAGE`.",
    )


def _count(number: int) -> str:
    return f"{number} or more" if number >= BOUND else str(number)
