"""A run without end in real processes: a worker that is killed again and again, while senders go on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import tallies_without_end
from processes import Deployment, deployed, fetch
from servers import new_broker, new_database

pytestmark = pytest.mark.live

#: How many requests, from how many senders, and after how many of them a generation ends.
REQUESTS, SENDERS, EACH = 120, 4, 7


@pytest.fixture(params=[("postgresql", "redis"), ("mariadb", "rabbitmq")], ids="-".join)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    database, broker = request.param
    with new_database(database, tmp_path) as database_url, new_broker(broker, tmp_path) as broker_url:
        settings = {"DURABLE_RESEND_AFTER": "1"}
        described = Deployment(tmp_path, database_url, broker_url, "live_app", "live_app:create_app()", settings)
        with deployed(described) as made:
            made.start_web()
            made.start_worker()
            yield made


def test_no_request_is_lost_or_taken_twice_while_the_worker_is_killed(site: Deployment) -> None:
    """Each sender gets the answers to its requests, in its order; the last generation has counted each once."""
    run = site.engine.start(tallies_without_end, EACH)
    url = eventually(lambda: [hook["url"] for hook in run.hooks() if hook["is_webhook"]])[0]

    def send(sender: int) -> list[bytes]:
        answers = []
        for number in range(REQUESTS // SENDERS):
            answer = fetch("POST", url, f"{sender}:{number}".encode())
            assert answer.status == 200
            answers.append(answer.data)
        return answers

    with ThreadPoolExecutor(SENDERS) as threads:
        sent = [threads.submit(send, sender) for sender in range(SENDERS)]
        for least in (3, 7, 11):
            eventually(lambda least=least: len(run.generations()) >= least, 60, "generations follow each other")
            site.stop("worker", 9)
            site.start_worker(ready=False)
        for sender, each in enumerate(sent):
            wanted = [f"answer to {sender}:{number}".encode() for number in range(REQUESTS // SENDERS)]
            assert each.result(120) == wanted

    fetch("POST", url, b"close")
    taken = run.result(timeout=30)
    assert sorted(taken) == sorted(f"{s}:{n}" for s in range(SENDERS) for n in range(REQUESTS // SENDERS))
    for sender in range(SENDERS):
        numbers = [int(each.partition(":")[2]) for each in taken if each.startswith(f"{sender}:")]
        assert numbers == sorted(numbers)
    assert len(run.generations()) >= REQUESTS // EACH
