"""A wide run on real workers: few messages for quick steps, every child busy with long ones, and a worker that dies."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import many_long, many_short
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable.events import StepCompleted
from durable.store import totals

pytestmark = pytest.mark.live


@contextmanager
def working(folder: Path, children: Sequence[int], **settings: str) -> Iterator[Deployment]:
    """Workers with so many children each, which hold four messages for each child."""
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(folder, database_url, broker_url, "live_app", "", settings)
        with deployed(described) as site:
            for number, count in enumerate(children):
                site.start_worker(f"worker-{number}", "--concurrency", str(count), "--prefetch-multiplier", "4")
            eventually(lambda: len(site.workers()) >= sum(children), 30, "all children beat")
            yield site


def test_c101_quick_steps_need_few_messages(tmp_path):
    """Each of two children takes many of 400 steps with one message, on a busy machine several."""
    # On a machine that is so busy that the run takes seconds, the sweep would send what is offered.
    with working(tmp_path, (2,), DURABLE_RESEND_AFTER="60s") as site:
        assert site.engine.start(many_short, 400).result(timeout="60s") == 400

        site.wait_until_idle()
        site.stop("worker-0", signal.SIGTERM)
        with site.engine.store.read() as tx:
            assert totals.read(tx)["durable_messages_sent", "step", ""] < 300


def test_no_long_step_waits_while_a_child_is_idle(tmp_path):
    """Two workers of two children share 40 steps of a quarter of a second: each child has its part."""
    with working(tmp_path, (2, 2)) as site:
        run = site.engine.start(many_long, 40, 0.25)
        assert run.result(timeout="60s") == 40

        ended = [event for event in run.events() if isinstance(event, StepCompleted)]
        by_process = Counter(event.worker for event in ended)
        assert len(by_process) == 4
        assert min(by_process.values()) >= 5, by_process


def test_a_worker_that_is_killed_leaves_no_step_behind(tmp_path):
    """It is killed in the middle of its part, and the other worker ends the run."""
    with working(tmp_path, (2, 2)) as site:
        run = site.engine.start(many_long, 60, 0.1)
        eventually(lambda: len(run.events()) > 80, 30, "some steps have ended")
        site.stop("worker-0", signal.SIGKILL)

        assert run.result(timeout="60s") == 60
