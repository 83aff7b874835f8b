"""The registry of a test: what it defines is forgotten after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import _state, signals

from durable import current, registry


@contextmanager
def own_definitions() -> Iterator[None]:
    """Forget at the end what was defined meanwhile: steps, workflows, and tasks that Celery gives to later apps."""
    tables: list[Any] = [registry.steps, registry.workflows, registry.unnamed, _state._on_app_finalizers]
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
def only_own_engines() -> Iterator[None]:
    """
    Hide engines that other tests have left in this process.

    None of them is current, and none hears that a worker starts in a thread: Celery's signal names no app, so each
    would start its housekeeping.
    """
    signal = signals.worker_process_init
    before, signal.receivers = signal.receivers, []
    engines = current.engines()
    for engine in engines:
        current.forget(engine)
    try:
        yield
    finally:
        signal.receivers = before
        for engine in engines:
            current.register(engine)
