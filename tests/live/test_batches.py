"""A bounded batch on many children: one process takes in the outcomes, and the others only record them."""

from __future__ import annotations

import pytest
from live_flows import bounded_batch
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable.store import totals

pytestmark = pytest.mark.live

ITEMS = 100


@pytest.mark.parametrize("children", [(2,), (8,), (4, 4)])
def test_turns_of_a_batch_do_not_overtake_each_other(tmp_path, children):
    """Ten steps at once, 100 in all: hardly a turn is for nothing, in one worker and in two (2 of 3 were, before)."""
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        described = Deployment(tmp_path, database_url, broker_url, "live_app", "")
        with deployed(described) as site:
            for number, count in enumerate(children):
                site.start_worker(f"worker-{number}", "--concurrency", str(count))
            run = site.engine.start(bounded_batch, ITEMS)
            assert run.result(timeout="120s") == ITEMS
            # A process adds what it has counted when it ends.
            for number in range(len(children)):
                site.stop(f"worker-{number}", 15)

            with site.engine.store.read() as tx:
                overtaken = totals.read(tx).get(("durable_turns_overtaken", "", ""), 0)
            assert overtaken <= ITEMS // 10
