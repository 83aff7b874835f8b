"""Check which workers live, answer through the broker, take from which queues, and have which clocks."""

from __future__ import annotations

import json

from .. import duration
from ..engine import versions as own_versions
from ..worker import versions
from .finding import Finding, listed
from .situation import Situation

#: The largest difference between clocks, in microseconds, that the check accepts.
MAX_SKEW = 1_000_000

#: How long workers have to answer.  Most answer at once; on a busy host the second, longer timeout helps.
_ANSWER_TIMEOUTS_SECS = (0.5, 3.0)


def alive(situation: Situation) -> Finding:
    """At least one worker process has sent a heartbeat within ``dead_after``."""
    processes = [f"{worker.host}:{worker.pid}" for worker in situation.alive]
    fix = "" if processes else "Start one with `celery -A … worker`.  On a new database, run `durable migrate` first."
    return Finding(name="workers", ok=bool(processes), detail=listed(processes) or "none alive", fix=fix)


def answers(situation: Situation) -> Finding:
    """The live workers answer through the broker, with their versions."""
    if not situation.alive:
        return Finding(name="answers", ok=True, detail="no worker to ask")
    app = situation.engine.celery
    if not app.conf.worker_enable_remote_control:
        return Finding(name="answers", ok=True, detail="not asked: worker_enable_remote_control is off")
    with app.connection_for_write() as connection:
        can_broadcast = "fanout" in connection.transport.implements.exchange_type
    if not can_broadcast:
        detail = "not asked: this broker cannot broadcast, which Celery's remote control needs"
        return Finding(name="answers", ok=True, detail=detail)
    found = next(filter(None, (versions.of_workers(app, timeout_secs=secs) for secs in _ANSWER_TIMEOUTS_SECS)), {})
    if not found:
        return Finding(
            name="answers",
            ok=False,
            detail="Workers send heartbeats to the database, but none answers through this broker.",
            fix="Give the workers and this process the same broker_url.  (A worker with the solo pool answers only"
            " between two steps.)",
        )
    shown = listed([f"{node} ({described(theirs)})" for node, theirs in sorted(found.items())])
    own = own_versions()["durable"]
    others = {theirs["durable"] for theirs in found.values()} - {own}
    fix = f"This process has durable {own}: finish the deploy." if others else ""
    return Finding(name="answers", ok=True, detail=shown, fix=fix)


def deaf(situation: Situation) -> Finding:
    """No live worker is deaf: it takes no messages, although some wait for it."""
    found = [worker for worker in situation.alive if worker.deaf_since is not None]
    if not found:
        return Finding(name="deaf", ok=True, detail="every worker takes messages")
    since = min(worker.deaf_since or 0 for worker in found)
    shown = listed([f"{worker.host}:{worker.pid}" for worker in found])
    return Finding(
        name="deaf",
        ok=False,
        detail=f"The worker of {shown} has taken no message for {duration.to_text(situation.now - since)}, although"
        " some wait in its queues.",
        fix="Restart this worker: its consumer is dead.  With `on_deaf_worker='exit'` such a worker ends by itself, and"
        " a supervisor can start it again.",
    )


def described(of: dict[str, str]) -> str:
    """The most important versions, on one line."""
    return f"durable {of['durable']}, Python {of['python']}, Celery {of['celery']}"


def queues(situation: Situation) -> Finding:
    """A live worker takes from each queue that turns or steps are sent to now."""
    dispatch = situation.engine.dispatch
    wanted = {dispatch.queue_of_turn(queue) for queue in situation.run_queues}
    wanted |= {dispatch.queue_of_step(name) for name in {step.name for step in situation.steps}}
    in_use = sorted(wanted - {None}, key=str)
    served = {queue for worker in situation.alive for queue in json.loads(worker.queues or "[]")}
    unserved = [str(queue) for queue in in_use if queue not in served]
    if not unserved:
        return Finding(name="queues", ok=True, detail=listed([str(queue) for queue in in_use]) or "none in use")
    return Finding(
        name="queues",
        # A worker of an older version does not record its queues.  Then this is only advice.
        ok=any(worker.queues is None for worker in situation.alive),
        detail=f"No live worker takes from {listed(unserved)}.",
        fix=f"Start a worker with `-Q {','.join(unserved)}`, or add these queues to a running worker.",
    )


def clocks(situation: Situation) -> Finding:
    """The clocks of the workers and of this process are close to the database's; else sleeps may end late."""
    ahead = {f"{worker.host}:{worker.pid}": worker.clock_ahead for worker in situation.alive}
    ahead["this process"] = situation.engine.clock_ahead()
    skewed = {process: skew for process, skew in ahead.items() if skew is not None and abs(skew) > MAX_SKEW}
    if not skewed:
        return Finding(name="clocks", ok=True, detail="within 1 s of the database's")
    described_skews = [
        f"{process} is {abs(skew) / 1e6:.1f} s {'ahead' if skew > 0 else 'behind'}" for process, skew in skewed.items()
    ]
    fix = "Use NTP to set these clocks.  Sleeps may end late; they never end early, and nothing is lost."
    return Finding(name="clocks", ok=True, detail=f"By the database's clock, {listed(described_skews)}.", fix=fix)


def strangers(situation: Situation) -> Finding:
    """No application with another database uses a queue of this one."""
    queue = situation.foreign_queue
    if queue is None:
        return Finding(name="strangers", ok=True, detail="no messages of another installation within the last hour")
    return Finding(
        name="strangers",
        ok=False,
        detail=f"Within the last hour, a worker got a message of an application with another database from queue"
        f" {queue!r}.",
        fix="Give each application a task_default_queue, a virtual host or a database of the broker of its own.",
    )
