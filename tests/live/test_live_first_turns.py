"""Many runs that are started at once, on real workers: few messages, every child busy, and a worker that dies."""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from eventually import eventually
from live_flows import many_long, noted
from test_live_offers import working

from durable import measures
from durable.events import StepCompleted

pytestmark = pytest.mark.live


def test_runs_that_are_started_at_once_need_few_messages(tmp_path):
    """Those of 400 come in 50 messages, and children go on with the runs in place."""
    with working(tmp_path, (2,), DURABLE_RESEND_AFTER="60s") as site:
        site.engine.measures.take()
        runs = site.engine.start_many(noted, [(f"run {number}",) for number in range(400)])
        sent = site.engine.measures.take()[measures.MESSAGES_SENT.name, "turn", ""]

        assert [run.result(timeout="60s") for run in runs] == [f"run {number}" for number in range(400)]
        assert sent == 50


def test_no_run_with_a_long_step_waits_while_a_child_is_idle(tmp_path):
    """Two workers of two children share 40 runs with a step of a quarter of a second: each child has its part."""
    with working(tmp_path, (2, 2)) as site:
        runs = site.engine.start_many(many_long, [(1, 0.25)] * 40)
        assert [run.result(timeout="60s") for run in runs] == [1] * 40

        ended = [event for run in runs for event in run.events() if isinstance(event, StepCompleted)]
        by_process = Counter(event.worker for event in ended)
        assert len(by_process) == 4
        assert min(by_process.values()) >= 5, by_process


def test_a_worker_that_is_killed_leaves_no_run_behind(tmp_path):
    """It is killed while it begins runs, and the other worker takes them over."""
    with working(tmp_path, (2, 2)) as site:
        runs = site.engine.start_many(many_long, [(1, 0.05)] * 200)
        eventually(lambda: sum(run.status == "completed" for run in runs) > 10, 30, "some runs have ended")
        site.stop("worker-0", signal.SIGKILL)

        assert [run.result(timeout="60s") for run in runs] == [1] * 200
