"""The agent's page in Debian's chromium: the text grows, a person approves with a button, and the answer is whole."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from playwright.sync_api import Page, expect, sync_playwright
from processes import Deployment, deployed
from servers import new_broker, new_database

if os.environ.get("CI") != "true":
    pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed; the dependency group `test` has it")

pytestmark = pytest.mark.live

CHROMIUM = Path("/usr/bin/chromium")
NUMBERS = " ".join(str(number) for number in range(200))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Deployment]:
    """The example's web process and worker."""
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        settings = {
            "DURABLE_SIGNING_KEY": "signs the tokens of the agent",
            "DURABLE_DEAD_AFTER": "2s",
            "DURABLE_BEAT_INTERVAL": "500ms",
            "REQUESTS": str(tmp_path / "requests"),
        }
        with deployed(
            Deployment(tmp_path, database_url, broker_url, "agent_app", "agent_app:create_app()", settings)
        ) as made:
            made.start_worker()
            made.start_web()
            yield made


@pytest.fixture
def page(site: Deployment) -> Iterator[Page]:
    """The page in Debian's chromium; nothing is downloaded."""
    if not CHROMIUM.exists():
        reason = f"There is no {CHROMIUM}; .ci/services installs it."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # Its sandbox does not work for root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        made = browser.new_page()
        made.set_default_timeout(60_000)
        made.goto(site.url)
        yield made
        browser.close()


def test_a_person_approves_and_reads_the_answer_as_it_comes(page, site):
    """The worker is killed in the middle of the answer: the page forgets the lost attempt's text, and shows it once."""
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="approve").click()
    expect(page.locator("#approvals")).to_have_text("refund: approved\n")
    answer = page.get_by_role("status")
    eventually(lambda: " 40 " in answer.inner_text(), 60, what="the answer grows")
    site.stop("worker", signal.SIGKILL)
    assert NUMBERS not in answer.inner_text()
    site.start_worker()
    expect(answer).to_have_text(re.compile(f": {NUMBERS}$"), timeout=60_000)
    assert answer.inner_text().count("I look it up.") == answer.inner_text().count("paid back 2500 cents") == 1
