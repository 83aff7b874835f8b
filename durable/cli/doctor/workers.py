"""Workers: who is alive, who answers through the broker, on which queues they are, and what their clocks say."""

from __future__ import annotations

import json

from ...worker import versions as health
from .finding import Finding, listed
from .situation import Situation

#: Microseconds by which clocks may differ before it is worth a word.
SKEW = 1_000_000

#: Seconds that workers have to answer: most do at once, a busy host may take a while.
_PATIENCE_SECS = (0.5, 3.0)


def alive(seen: Situation) -> Finding:
    """Some process has beaten within ``dead_after``."""
    processes = [f"{worker.host}:{worker.pid}" for worker in seen.alive]
    fix = "" if processes else "Start one, `celery -A … worker`; on a new database run `durable migrate` first."
    return Finding(name="workers", ok=bool(processes), detail=listed(processes) or "none alive", fix=fix)


def answers(seen: Situation) -> Finding:
    """Workers that are alive answer through the broker, with their versions."""
    if not seen.alive:
        return Finding(name="answers", ok=True, detail="no worker to ask")
    app = seen.engine.celery
    if not app.conf.worker_enable_remote_control:
        return Finding(name="answers", ok=True, detail="not asked: worker_enable_remote_control is off")
    found = next(filter(None, (health.of_workers(app, timeout_secs=secs) for secs in _PATIENCE_SECS)), {})
    if not found:
        return Finding(
            name="answers",
            ok=False,
            detail="Workers beat in the database, but none answers through this broker.",
            fix="Give workers and this process the same broker_url.  (A worker of the solo pool answers only"
            " between two steps.)",
        )
    shown = listed([f"{node} ({described(versions)})" for node, versions in sorted(found.items())])
    others = {versions["durable"] for versions in found.values()} - {health.versions()["durable"]}
    fix = f"This process has durable {health.versions()['durable']}: finish the deploy." if others else ""
    return Finding(name="answers", ok=True, detail=shown, fix=fix)


def described(versions: dict[str, str]) -> str:
    """Versions on one line."""
    return f"durable {versions['durable']}, Python {versions['python']}, Celery {versions['celery']}"


def queues(seen: Situation) -> Finding:
    """Each queue that turns or steps are sent to now has a live worker."""
    dispatch = seen.engine.dispatch
    wanted = {dispatch.queue_of_turn(queue) for queue in seen.run_queues}
    wanted |= {dispatch.queue_of_step(name) for name in {step.name for step in seen.steps}}
    in_use = sorted(wanted - {None}, key=str)
    served = {queue for worker in seen.alive for queue in json.loads(worker.queues or "[]")}
    idle = [str(queue) for queue in in_use if queue not in served]
    if not idle:
        return Finding(name="queues", ok=True, detail=listed([str(queue) for queue in in_use]) or "none in use")
    return Finding(
        name="queues",
        # A worker of an older version does not say what it takes from: then this is advice.
        ok=any(worker.queues is None for worker in seen.alive),
        detail=f"No live worker takes from {listed(idle)}.",
        fix=f"Start a worker with `-Q {','.join(idle)}`, or add that to one that runs.",
    )


def clocks(seen: Situation) -> Finding:
    """The clocks of workers, and of this process, are close to the database's: only alarm clocks depend on it."""
    ahead = {f"{worker.host}:{worker.pid}": worker.clock_ahead for worker in seen.alive}
    ahead["this process"] = seen.engine.clock_ahead()
    skewed = {where: skew for where, skew in ahead.items() if skew is not None and abs(skew) > SKEW}
    if not skewed:
        return Finding(name="clocks", ok=True, detail="within 1 s of the database's")
    told = [f"{where} is {abs(skew) / 1e6:.1f} s {_side(skew)}" for where, skew in skewed.items()]
    fix = "Let NTP set these clocks.  Nothing is lost, and no sleep ends early, but sleeps may end late."
    return Finding(name="clocks", ok=True, detail=f"By the database's clock, {listed(told)}.", fix=fix)


def _side(skew: int) -> str:
    return "ahead" if skew > 0 else "behind"
