"""A worker in each of Celery's pools, which runs steps in place or message by message."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import Deployment, deployed
from registries import own_definitions
from servers import new_broker, new_database

from durable import registry

#: The mark of a fixture that is made once for each of them: the pool, and how long a worker goes on in place.
MANNERS: dict[str, Any] = {
    "params": [("prefork", "60"), ("prefork", "0"), ("solo", "60"), ("threads", "60"), ("gevent", "60")],
    "ids": lambda each: f"{each[0]}-{'in-place' if each[1] != '0' else 'by-messages'}",
}


@contextmanager
def own_flows(module: str) -> Iterator[Any]:
    """The workflows of a module, forgotten afterwards: a shared task would become one of every app of this process."""
    with own_definitions(), pytest.MonkeyPatch.context() as patched:
        # Engines that other tests have left in this process do not look at what is defined here.
        patched.setattr(registry.tables, "_subscribers", [])
        yield importlib.import_module(module)


@contextmanager
def worker_in_pool(
    manner: tuple[str, str],
    new_folder: Callable[[str], Path],
    app: str,
    web_app: str = "",
    *options: str,
    files: dict[str, str],
) -> Iterator[Deployment]:
    """
    A deployment with one worker, on PostgreSQL and Redis.

    Args:
        manner: One of ``MANNERS``.
        new_folder: Makes a folder by a name.
        options: More options of the worker.
        files: Variables of the environment, each with the name of a file in the deployment's folder.
    """
    pool, continuation = manner
    folder = new_folder(pool)
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        settings = {"DURABLE_CONTINUATION": continuation} | {name: str(folder / file) for name, file in files.items()}
        all_options = ("--pool", pool, "--concurrency", "2", *options)
        described = Deployment(folder, database_url, broker_url, app, web_app, settings, worker_options=all_options)
        with deployed(described) as made:
            made.start_worker()
            yield made
