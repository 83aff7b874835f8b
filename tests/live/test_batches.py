"""A bounded batch on many children: one process takes in the outcomes, and the others only record them."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import bounded_batch, completed_batch, many_short, queued_batch
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable.store import totals

pytestmark = pytest.mark.live

ITEMS = 100


@contextmanager
def working(folder: Path, children: Sequence[int]) -> Iterator[Deployment]:
    """Workers with so many children each."""
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(folder, database_url, broker_url, "live_app", "")
        with deployed(described) as site:
            for number, count in enumerate(children):
                site.start_worker(f"worker-{number}", "--concurrency", str(count))
            yield site


def counted(site: Deployment) -> Mapping[tuple[str, str, str], int]:
    """What the workers have counted; ends them, since a process adds what it has counted when it ends."""
    for name in list(site.processes):
        site.stop(name, signal.SIGTERM)
    with site.engine.store.read() as tx:
        return totals.read(tx)


#: What counts the turns that were for nothing.
OVERTAKEN = ("durable_turns_overtaken", "", "")


@pytest.mark.parametrize("children", [(2,), (8,), (4, 4)])
def test_turns_of_a_batch_do_not_overtake_each_other(tmp_path, children):
    """
    Ten steps at once, 100 in all: hardly a turn is for nothing, in one worker and in two (2 of 3 were, before).

    No step has more than one message, and few turns have one.
    """
    with working(tmp_path, children) as site:
        run = site.engine.start(bounded_batch, ITEMS)
        assert run.result(timeout="120s") == ITEMS
        found = counted(site)
        assert found.get(OVERTAKEN, 0) <= ITEMS // 30
        assert found["durable_messages_sent", "step", ""] <= ITEMS
        assert found["durable_messages_sent", "turn", ""] <= ITEMS // 3


def test_turns_of_batches_of_every_form_do_not_overtake_each_other(tmp_path):
    """All at once, taken in one by one, by tasks with a queue, and several runs side by side."""
    forms = (many_short, completed_batch, queued_batch, bounded_batch, bounded_batch, bounded_batch)
    with working(tmp_path, (8,)) as site:
        for form in forms[:3]:
            assert site.engine.start(form, ITEMS // 2).result(timeout="120s") == ITEMS // 2
        runs = [site.engine.start(form, ITEMS // 4) for form in forms]
        assert [run.result(timeout="120s") for run in runs] == [ITEMS // 4] * len(forms)
        assert counted(site).get(OVERTAKEN, 0) <= ITEMS // 10


@pytest.mark.parametrize("point", ["lease.taken", "lease.released"])
def test_a_process_that_dies_with_the_lease_costs_no_outcome(tmp_path, point):
    """It is killed just after it has taken the lease, or released it: another worker ends the batch."""
    with working(tmp_path, ()) as site:
        crashes = {"DURABLE_FAILPOINTS": f"{point}=crash"}
        fragile = site.start_worker("fragile", "--pool", "solo", environment=crashes)
        run = site.engine.start(bounded_batch, ITEMS // 4)
        eventually(lambda: not fragile.running, 30, "the process dies")
        site.processes.pop("fragile")
        assert run.status == "running"

        site.start_worker("healthy", "--concurrency", "4")
        assert run.result(timeout="60s") == ITEMS // 4
