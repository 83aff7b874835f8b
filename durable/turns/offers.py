"""
Offers: of many steps that a turn creates at once, only some are sent as messages.

Each of these messages makes one process work on the run.  That process then takes the other steps, one after the other.
So a thousand quick steps do not cost a thousand messages, and long steps still begin in all processes at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from .. import registry
from ..engine import Engine
from ..registry import SEMANTICS, AdoptedStep
from ..replay import commands
from ..store import Run, workers

#: The fewest messages that are sent, for processes of which the database does not know yet.
LEAST = 16

#: The pools in which a process runs one step at a time.
_ONE_AT_A_TIME = ("prefork", "solo", None)

_LIMITS = ("task_time_limit", "task_soft_time_limit", "task_default_rate_limit")


def choose_offers(
    engine: Engine, tx: Connection, run: Run, wanted: Sequence[commands.CreateStep], queues: Mapping[str, str | None]
) -> set[str]:
    """
    Return the operations of those steps that are offered, and not sent.

    Args:
        wanted: The steps that a turn of the run creates.
        queues: The queue of each step, by its name.
    """
    if not engine.settings.continuation or run.priority is not None or len(wanted) <= LEAST:
        return set()
    # A process that takes offered steps drives the run between them.
    queue = engine.dispatch.find_queue_of_turn(run.queue)
    names = {name for name in queues if queues[name] == queue and may_run_in_place(engine, name)}
    if queue is None or not names:
        return set()
    count = _count_to_send(engine, tx, queue)
    op_ids = [command.op_id for command in wanted if command.name in names]
    return set() if count is None else set(op_ids[count:])


def _count_to_send(engine: Engine, tx: Connection, queue: str) -> int | None:
    """
    Return how many messages reach every process of a queue; None when each step needs one.

    A worker holds some messages for each of its processes, so one worker may have many while another has none.
    """
    held = engine.celery.conf.worker_prefetch_multiplier
    pools = workers.consumers(tx, queue, engine.now() - engine.settings.dead_after)
    if not held or any(pool not in _ONE_AT_A_TIME for pool in pools):
        return None
    return max(LEAST, len(pools) * (int(held) + 1))


def may_run_in_place(engine: Engine, name: str) -> bool:
    """Return whether a step may run without a message of its own, in a process that takes messages of its queue."""
    step, task = registry.steps.get(name), engine.celery.tasks.get(name)
    if step is None or task is None or isinstance(step, AdoptedStep):
        return False
    if step.semantics != SEMANTICS[0] or step.timeout is not None or step.limits:
        return False
    # Celery applies its limits and priorities to messages.
    limits = (task.time_limit, task.soft_time_limit, task.rate_limit, task.priority, step.options.get("priority"))
    return all(each is None for each in limits) and not any(task.app.conf.get(each) for each in _LIMITS)
