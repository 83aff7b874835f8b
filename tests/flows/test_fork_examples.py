"""The program of docs/how-to/forks.md runs, and does what the page says."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durable import list_runs
from durable.testing import Environment

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "forks.md"


@pytest.fixture
def page(own_registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's examples, one after the other, as one module."""
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "forks_page.py").write_text("\n".join(examples))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("forks_page")
    del sys.modules["forks_page"]


@pytest.fixture
def env(page: Any) -> Iterator[Environment]:
    with Environment() as made:
        yield made


def test_a_failed_order_goes_on(env: Environment, page: Any) -> None:
    """The test that the page shows passes: a second run completes, and the card is charged once."""
    page.test_an_order_goes_on(env)
    assert {run.status for run in list_runs()} == {"completed", "failed"}
    assert len(page.charged) == 1


def test_all_that_have_failed_go_on(env: Environment, page: Any) -> None:
    """And the card of none is charged again."""
    for number in range(3):
        env.start(page.order, f"o-{number}")
    page.address["is known"] = True
    env.start(page.order, "o-3")
    forks = page.go_on("forks_page.order")
    for fork in forks:
        env.finish(fork)
    assert {fork.result() for fork in forks} == {f"o-{n} is on its way, receipt of o-{n}" for n in range(3)}
    assert len(page.charged) == 4


def test_a_run_is_forked_elsewhere(env: Environment, page: Any) -> None:
    """By the name of a step and by the id of its call; the key is the same each time."""
    failed = env.start(page.order, "o-1")
    page.address["is known"] = True
    for given in ("forks_page.charge", "r#1"):
        fork = failed.fork(from_step=given)
        env.finish(fork)
        assert fork.result() == "o-1 is on its way, receipt of o-1"
    assert len(page.charged) == 3
    assert len(set(page.charged)) == 1
