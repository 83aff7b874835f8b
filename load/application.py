"""What the worker and the web process under load serve."""

from __future__ import annotations

from bench.application import celery, create_app, engine

from . import workflows

__all__ = ["celery", "create_app", "engine", "workflows"]
