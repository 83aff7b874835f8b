"""The program of docs/how-to/published-values.md runs, and does what the page says."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durable.testing import Environment

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "published-values.md"


@pytest.fixture
def page(own_registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's examples, one after the other, as one module."""
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "values_page.py").write_text("\n".join(examples))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("values_page")
    del sys.modules["values_page"]


@pytest.fixture
def env(page: Any) -> Iterator[Environment]:
    with Environment() as made:
        yield made


def test_a_view_returns_what_the_run_publishes(env: Environment, page: Any) -> None:
    """The test that the page shows passes, without waiting for a worker that there is not."""
    began = time.monotonic()
    page.test_an_order_has_a_url(env)
    assert time.monotonic() - began < 4


def test_a_step_publishes_how_far_it_is(env: Environment, page: Any) -> None:
    """Now and then; and the value has its type."""
    run = env.start(page.import_all, list(range(2_500)))
    assert run.values() == {"imported": 2_000, "progress": page.Progress(2_500, 2_500)}
    assert page.is_done(run)
    published = [event.kind for event in run.events()].count("value_published")
    assert published == 2 + 3
