"""The registry of a test: what it defines is forgotten after it."""

from __future__ import annotations

import pytest

from durable import registry


def forget_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the registry copies of its collections, in the room and in the file that fills them, until the test ends."""
    for name in ("steps", "workflows", "unnamed"):
        copy = getattr(registry, name).copy()
        for module in (registry, registry.decorators):
            monkeypatch.setattr(module, name, copy)
