"""The program of docs/how-to/pausing.md runs, and does what the page says."""

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

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "pausing.md"


@pytest.fixture
def page(own_registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's examples, one after the other, as one module."""
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "pausing_page.py").write_text("\n".join(examples))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("pausing_page")
    del sys.modules["pausing_page"]


@pytest.fixture
def env(page: Any) -> Iterator[Environment]:
    with Environment() as made:
        yield made


def test_a_paused_run_waits_as_the_page_says(env: Environment, page: Any) -> None:
    """The test that the page shows passes: nothing is billed before the resume, and the order once after it."""
    page.test_a_paused_run_waits(env)
    assert page.billed == ["o-1"]
    assert [run.status for run in list_runs()] == ["completed"]


def test_a_workflow_waits_and_goes_on(env: Environment, page: Any) -> None:
    """Runs that are open, and one that starts while the workflow is paused."""
    runs = [env.start(page.billing, "o-1")]
    page.pause_billing(env.engine)
    runs.append(env.start(page.billing, "o-2"))
    env.advance("3h")
    assert [run.status for run in runs] == ["running", "pending"]
    assert [each["reason"] for each in env.engine.list_pauses()] == ["the payment service is down"]
    env.restart()
    env.advance("1h")
    assert page.billed == []

    runs = [env.engine.get_run(run.id) for run in runs]
    page.resume_billing(env.engine)
    for run in runs:
        env.finish(run)
    assert [run.result(timeout=0) for run in runs] == ["invoice of o-1", "invoice of o-2"]
    assert env.engine.list_pauses() == []


def test_the_orders_of_one_customer_are_paused(env: Environment, page: Any) -> None:
    """By their attribute; the others go on."""
    mine, other = (
        page.billing.with_options(attributes={"customer": customer}).start(customer) for customer in ("acme", "else")
    )
    env.run_until_idle()
    assert page.pause_orders_of("acme") == 1
    env.advance("2h")
    assert (mine.paused, other.status) == (True, "completed")
    assert mine.resume()
    env.finish(mine)
    assert mine.status == "completed"
