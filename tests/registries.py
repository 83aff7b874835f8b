"""What a test defines is forgotten after it, and the engines that it makes are closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import _state

from durable import context, current, registry
from durable.schedules import declared


@contextmanager
def own_definitions() -> Iterator[None]:
    """Forget at the end what was defined meanwhile: steps, workflows, and tasks that Celery gives to later apps."""
    tables: list[Any] = [registry.steps, registry.workflows, registry.unnamed, _state._on_app_finalizers]
    tables += [registry.limits, context.receivers, declared.definitions, declared._places]
    before = [table.copy() for table in tables]
    registry.unnamed.clear()
    # Celery's current app may be one that an earlier test has closed, and a closed app gets no shared tasks.
    app = getattr(_state._tls, "current_app", None)
    _state._set_current_app(None)
    yield
    _state._set_current_app(app)
    for table, contents in zip(tables, before, strict=True):
        table.clear()
        extend = table.extend if isinstance(table, list) else table.update
        extend(contents)


@contextmanager
def no_engine_left() -> Iterator[None]:
    """
    Fail if an engine that was made meanwhile is still open at the end.

    It would be the current one of later tests, it would be called by Celery's signals, which name no app, and each step
    that a later test defines would become a task of its app.
    """
    before, threads = current.engines(), threading.enumerate()
    yield
    left = [engine for engine in current.engines() if engine not in before]
    for engine in left:
        engine.close()
    assert not left, f"engines left open, with the databases {[engine.settings.database_url for engine in left]}"
    keepers = [each for each in threading.enumerate() if each.name == "durable-housekeeping" and each not in threads]
    assert not keepers, "the housekeeping of an engine goes on, and would log in later tests"
