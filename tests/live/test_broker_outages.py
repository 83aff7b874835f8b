"""A broker that goes away, or is full: the worker's process goes on, and so do its runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import naps, noted, works
from processes import Deployment, Process, deployed
from servers import OwnRedis, new_database

pytestmark = pytest.mark.live

#: How long Redis is away: longer than a reconnect takes.
AWAY_SECS = 4.0
#: The step that runs meanwhile ends when the test lets it, and the sleep later than Redis is back.
LONG_SECS = 60.0
SLEEP = "12s"


@dataclass
class Scene:
    """A Redis, and a worker of one pool."""

    name: str
    server: OwnRedis
    site: Deployment

    @property
    def worker(self) -> Process:
        return self.site.processes["worker"]

    @property
    def folder(self) -> Path:
        return self.site.folder

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def scenes(folder: Path, names: Sequence[str]) -> Iterator[list[Scene]]:
    """One for each name, side by side, since the tests mostly wait: a pool, with ``-data`` if Redis keeps its data."""
    with ExitStack() as stack:
        made = []
        for name in names:
            pool, _, keeps = name.partition("-")
            own = folder / name
            own.mkdir()
            kept = ("--appendonly", "yes", "--appendfsync", "always") if keeps else ()
            server = stack.enter_context(OwnRedis(own, *kept))
            database_url = stack.enter_context(new_database("postgresql", own))
            settings, options = {"DURABLE_RESEND_AFTER": "1"}, ("--pool", pool, "--concurrency", "2")
            described = Deployment(own, database_url, server.url, "live_app", "", settings, worker_options=options)
            site = stack.enter_context(deployed(described))
            site.start_worker(ready=False)
            made.append(Scene(name, server, site))
        for scene in made:
            scene.site.wait_for("worker")
        yield made


def test_a_worker_of_any_pool_goes_on_when_redis_was_away(tmp_path):
    """A step runs meanwhile, and the worker holds the alarm of a sleep: each message is unacknowledged."""
    with scenes(tmp_path, ("prefork", "threads", "solo", "gevent", "prefork-data", "gevent-data")) as all_scenes:
        sleeps = [scene.site.engine.start(naps, SLEEP) for scene in all_scenes]
        for scene in all_scenes:
            eventually(lambda scene=scene: scene.server.client.hlen("unacked"), what=f"{scene.name} holds the alarm")
        steps = [scene.site.engine.start(works, str(scene.folder), LONG_SECS) for scene in all_scenes]
        for scene in all_scenes:
            eventually((scene.folder / "begun").exists, what=f"the step of {scene.name} runs")

        for scene in all_scenes:
            scene.server.kill()
        threading.Event().wait(AWAY_SECS)
        for scene in all_scenes:
            scene.server.start()
            (scene.folder / "open").touch()

        for scene, step, sleep in zip(all_scenes, steps, sleeps, strict=True):
            check_that_it_went_on(scene, step, sleep)


def check_that_it_went_on(scene, step, sleep):
    worker = scene.worker
    # The step's own process gave the result, in its first attempt.
    pid = step.result(timeout="40s")
    assert sleep.result(timeout="40s") == "awake", scene.name
    assert scene.site.engine.start(noted, "later").result(timeout="20s") == "later"
    assert worker.running, worker.tail()
    assert scene.lines("begun") == scene.lines("ended") == [f"1 {pid}"], scene.name
    for run in (step, sleep):
        assert [event.kind for event in run.events()].count("step_completed") == 1, scene.name
    # Nothing waits for the visibility timeout, which is six hours.
    eventually(lambda: not scene.server.client.hlen("unacked"), what=f"{scene.name} has acknowledged all messages")
    # Celery's greenlet for remote control writes its own.
    assert scene.name.startswith("gevent") or "Traceback" not in worker.log.read_text(), worker.tail()


def test_a_worker_goes_on_when_redis_was_full(tmp_path):
    """Redis refuses each command that needs memory, while a step runs and messages wait in the queue."""
    with scenes(tmp_path, ("prefork", "gevent")) as both:
        steps = [scene.site.engine.start(works, str(scene.folder), LONG_SECS) for scene in both]
        for scene in both:
            eventually((scene.folder / "begun").exists, what=f"the step of {scene.name} runs")
        queued = [[scene.site.engine.start(noted, str(number)) for number in range(20)] for scene in both]

        for scene in both:
            scene.server.client.config_set("maxmemory", 1)
        refused = [scene.site.engine.start(noted, "in the meantime") for scene in both]
        for scene, run in zip(both, refused, strict=True):
            (scene.folder / "open").touch()
            eventually((scene.folder / "ended").exists, what=f"the step of {scene.name} has ended")
            assert run.status == "pending", scene.name
            scene.server.client.config_set("maxmemory", 0)

        for scene, step, waiting, late in zip(both, steps, queued, refused, strict=True):
            assert step.result(timeout="40s") == int(scene.lines("ended")[0].split()[1])
            assert [run.result(timeout="20s") for run in waiting] == [str(number) for number in range(20)]
            assert late.result(timeout="20s") == "in the meantime"
            assert scene.worker.running, scene.worker.tail()
            assert len(scene.lines("begun")) == 1
