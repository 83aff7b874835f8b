"""The program of docs/how-to/receivers.md runs, and does what the page says."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from durable.testing import Environment

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "receivers.md"


@pytest.fixture
def page(own_registry: None) -> dict[str, Any]:
    """The names that the page's examples define, one after the other, as one module."""
    names: dict[str, Any] = {"__name__": "receivers_page"}
    for number, example in enumerate(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)):
        exec(compile(example, f"{PAGE.name}-{number}", "exec"), names)
    return names


@pytest.fixture
def env(page: dict[str, Any]) -> Iterator[Environment]:
    with Environment() as made:
        yield made


def test_an_invoice_starts_a_run(env: Environment, page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed as Stripe signs; another event is ignored, and a copy replayed."""
    monkeypatch.setenv("STRIPE_WHSEC", "whsec_1")

    def post(event: dict[str, Any]) -> Any:
        body, at = json.dumps(event), int(env.now.timestamp())
        signature = hmac.new(b"whsec_1", f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
        return env.post(page["stripe"].url, data=body, headers={"Stripe-Signature": f"t={at},v1={signature}"})

    event = {"id": "evt_1", "type": "invoice.paid", "data": {"object": {"id": "in_7"}}}
    answers = [post(event), post(event), post({"id": "evt_2", "type": "ping"})]
    unsigned = env.post(page["stripe"].url, json=event)

    assert [each.status_code for each in (*answers, unsigned)] == [202, 202, 202, 401]
    paid, other = env.received(page["stripe"])
    assert (paid.outcome, other.outcome) == ("started", "ignored")
    assert env.run_of(paid).result(timeout=0) == "receipt for in_7"


def test_a_step_answers_slack(env: Environment, page: dict[str, Any]) -> None:
    """While the connection is held."""
    assert env.post(page["slack"].url, data={"text": "deploy"}).json == {"text": "On it: deploy"}


def test_a_request_finds_the_run_of_its_order(env: Environment, page: dict[str, Any]) -> None:
    """It waits for an hour, and is missed then."""
    run = env.start(page["order"], "7")
    env.post(page["shop"].url, json={"id": 1, "order": "7", "type": "shipped"})
    env.post(page["shop"].url, json={"id": 2, "order": "8", "type": "shipped"})
    assert run.result(timeout=0) == ["shipped"]

    env.advance("59m")
    assert [each.outcome for each in env.received(page["shop"])] == ["resumed", "waiting"]
    env.advance("2m")
    assert [each.outcome for each in env.received(page["shop"])] == ["resumed", "missed"]


def test_the_first_event_of_a_cart_starts_its_run(env: Environment, page: dict[str, Any]) -> None:
    """And the next ones resume it."""
    for number, kind in enumerate(["opened", "added", "paid"]):
        env.post(page["shop_cart"].url, json={"id": number, "cart": "c", "type": kind})

    found = env.received(page["shop_cart"])
    assert [each.outcome for each in found] == ["started", "resumed", "resumed"]
    assert env.run_of(found[0]).result(timeout=0) == ["opened", "added", "paid"]


def test_the_pages_own_test(env: Environment, page: dict[str, Any]) -> None:
    """The test that the page shows passes: one bounce starts one run."""
    page["Environment"] = lambda: nullcontext(env)
    page["test_a_bounce_is_suppressed"]()
    assert [each.outcome for each in env.received(page["mail"])] == ["started"]
