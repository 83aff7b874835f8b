"""
Fixtures for pytest.  In your ``conftest.py``: ``pytest_plugins = ["durable.testing.plugin"]``.

durable_env
    An ``Environment``, entered, for one test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .environment import Environment


@pytest.fixture
def durable_env() -> Iterator[Environment]:
    """An environment for one test.  Its engine is the current engine."""
    with Environment() as env:
        yield env
