"""Settings of Celery on real workers: those that lose durable's messages are refused, the others do no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import naps
from processes import Deployment, deployed
from servers import OwnRedis, free_port, new_broker, new_database

pytestmark = pytest.mark.live


def _environment(settings: dict[str, object]) -> dict[str, str]:
    # Celery starts no worker as root that accepts pickle, unless it is told to.
    return {"CELERY_SETTINGS": json.dumps(settings), "C_FORCE_ROOT": "1"}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment without processes.  What is lost would be sent again much later than any test waits."""
    folder = tmp_path_factory.mktemp("settings")
    with new_database("sqlite", folder) as database_url, new_broker("redis", folder) as broker_url:
        patient = {"DURABLE_RESEND_AFTER": "10m"}
        with deployed(Deployment(folder, database_url, broker_url, "settings_app", "", patient)) as made:
            yield made


@pytest.mark.parametrize(
    "setting",
    [
        {"accept_content": ["yaml"]},
        {"accept_content": ["pickle"]},
        {"task_protocol": 1},
        {"task_compression": "vacuum"},
        {"task_always_eager": True},
    ],
    ids=str,
)
def test_a_worker_that_would_lose_messages_does_not_start(site: Deployment, setting: dict[str, object]) -> None:
    """It ends with 1, and its last line names the setting."""
    worker = site.start_worker(ready=False, environment=_environment(setting))
    eventually(lambda: not worker.running, 30, "the worker ends")

    assert worker.popen.returncode == 1
    assert f"durable: The Celery setting {next(iter(setting))} is" in worker.tail()


def test_a_worker_on_a_node_of_a_redis_cluster_does_not_start(site: Deployment, tmp_path: Path) -> None:
    """It would reconnect without end, or end with an error of Redis about slots."""
    with OwnRedis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        worker = site.start_worker(ready=False, environment=_environment({}) | {"DURABLE_BROKER_URL": server.url})
        eventually(lambda: not worker.running, 30, "the worker ends")

    assert worker.popen.returncode == 1
    assert "is a node of a Redis Cluster, which Celery cannot use" in worker.tail()


def test_settings_of_an_applications_own_tasks_do_no_harm(site: Deployment) -> None:
    """Another serializer, a compression, other manners and results: no message of a run is lost."""
    settings = {
        "accept_content": ["pickle", "json"],
        "task_serializer": "pickle",
        "task_compression": "gzip",
        "task_annotations": {"*": {"serializer": "pickle", "compression": "vacuum"}},
        "result_serializer": "pickle",
        "result_accept_content": ["pickle"],
        "task_ignore_result": False,
        "task_reject_on_worker_lost": False,
        "task_acks_on_failure_or_timeout": False,
        "worker_pool_restarts": True,
        "worker_deduplicate_successful_tasks": True,
    }
    site.start_worker(environment=_environment(settings))

    assert site.engine.start(naps, "10ms").result(timeout=20) == "awake"
