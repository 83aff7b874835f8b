"""The program of docs/how-to/replies.md runs, and does what the page says."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durable import Question
from durable.testing import Environment

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "replies.md"


@pytest.fixture
def page(own_registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's examples, one after the other, as one module."""
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "replies_page.py").write_text("\n".join(examples))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("replies_page")
    del sys.modules["replies_page"]


@pytest.fixture
def env(page: Any) -> Iterator[Environment]:
    with Environment() as made:
        yield made


def test_a_view_returns_the_reply(env: Environment, page: Any) -> None:
    """The test that the page shows passes, without waiting for a worker that there is not."""
    began = time.monotonic()
    page.test_a_cart_has_a_total(env)
    assert time.monotonic() - began < 4


def test_a_reply_that_comes_later_is_polled(env: Environment, page: Any) -> None:
    """The view that has not waited long enough answers 202 with an id, and the other one has the reply to it."""
    client = page.app.test_client()
    env.start(page.shopping, "eve")
    done = client.post("/carts/eve/slow-items", json={"sku": "tea", "cents": 250})
    assert (done.status_code, done.json) == (200, {"total": 250})
    env.engine.completions._work = lambda: None
    late = client.post("/carts/eve/slow-items", json={"sku": "tea", "cents": 100})
    assert late.status_code == 202
    assert client.get(f"/replies/{late.json['poll']}").status_code == 202
    env.run_until_idle()
    assert client.get(f"/replies/{late.json['poll']}").json == {"total": 350}


def test_a_cart_is_a_run(env: Environment, page: Any) -> None:
    """Each item has a reply of its own, and the last one ends the run."""
    run = env.start(page.shopping, "ann")
    assert page.add_item.ask("cart:ann", {"sku": "tea", "cents": 250}) == page.Cart(["tea"], 250)
    assert page.add_item.ask("cart:ann", page.AddItem("checkout", 0)) == page.Cart(["tea", "checkout"], 250)
    assert run.result(timeout=0).total == 250


def test_the_validator_refuses(env: Environment, page: Any) -> None:
    run = env.start(page.shopping, "bob")
    with pytest.raises(Exception, match="cents must be more than 0") as refused:
        page.add_item.ask("cart:bob", page.AddItem("tea", 0))
    assert type(refused.value).__name__ == "HookPayloadError"
    assert [event.kind for event in run.events()].count("hook_received") == 0


def test_a_step_replies(env: Environment, page: Any) -> None:
    env.start(page.price_list)
    assert page.prices.ask("prices", "tea") == 300
    assert page.price.run(Question("coffee")) is None


def test_a_hook_without_a_type_replies(env: Environment, page: Any) -> None:
    run = env.start(page.echo)
    assert page.hello() == "hello"
    assert run.result(timeout=0) is None


def test_there_is_no_reply_and_no_worker(env: Environment, page: Any) -> None:
    """In a test nothing else goes on meanwhile, so the caller waits for its own time."""
    env.start(page.shopping, "eve")
    with env.replace(page.price, lambda question: None):
        env.start(page.price_list)
        with pytest.raises(TimeoutError, match=r"has not replied after 0\.1"):
            page.prices.ask("prices", "tea", timeout=0.1)
