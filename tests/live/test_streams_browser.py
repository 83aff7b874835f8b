"""The example page of streams in Debian's chromium: its progress bar moves, and a lost connection loses nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from playwright.sync_api import Browser, Page, expect, sync_playwright
from processes import Deployment, deployed
from servers import new_broker, new_database

pytestmark = pytest.mark.live

CHROMIUM = Path("/usr/bin/chromium")
IMAGES = 200

#: Notes each message and each value of the bar.
NOTE = """
window.numbers = [];
window.values = [];
const Own = window.EventSource;
window.EventSource = class extends Own {
  constructor(url) {
    super(url);
    this.addEventListener("message", (event) => window.numbers.push(JSON.parse(event.data).number));
    setInterval(() => window.values.push(document.getElementById("bar").value), 20);
  }
};
"""


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A web process and a worker that serve the example; with notifications, and with a broker that has none."""
    folder = tmp_path_factory.mktemp("streams")
    with new_database("postgresql", folder) as database_url, new_broker(request.param, folder) as broker_url:
        settings = {"DURABLE_SIGNING_KEY": "signs the tokens of the example"}
        described = Deployment(folder, database_url, broker_url, "streams_app", "streams_app:create_app()", settings)
        with deployed(described) as made:
            made.start_worker()
            made.start_web()
            yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's chromium; nothing is downloaded."""
    if not CHROMIUM.exists():
        reason = f"There is no {CHROMIUM}; .ci/services installs it."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # Its sandbox does not work for root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, site: Deployment) -> Iterator[Page]:
    made = chromium.new_page(viewport={"width": 800, "height": 400})
    made.set_default_timeout(60_000)
    made.add_init_script(NOTE)
    made.goto(site.url)
    yield made
    made.close()


def test_the_bar_moves_to_the_end(page, tmp_path):
    """Step by step, with each of the 200 items once; in the middle it looks so."""
    page.get_by_role("button", name="Make 200 thumbnails").click()
    page.wait_for_function("document.getElementById('bar').value >= 60")
    picture = page.screenshot(path=tmp_path / "progress.png")
    expect(page.get_by_role("status")).to_have_text(f"All {IMAGES} thumbnails are made.", timeout=60_000)
    assert picture.startswith(b"\x89PNG")
    assert page.evaluate("window.numbers") == list(range(IMAGES))
    values = page.evaluate("window.values")
    assert values == sorted(values)
    assert len(set(values)) > 10


def test_a_web_process_that_is_killed_costs_no_item(page, site):
    """The browser comes back by itself, to the process that follows, and gets the rest once."""
    page.get_by_role("button", name="Make 200 thumbnails").click()
    page.wait_for_function("document.getElementById('bar').value >= 40")
    site.stop("web", signal.SIGKILL)
    eventually(lambda: "connecting again" in page.get_by_role("status").inner_text(), what="it has noticed")
    site.start_web()
    expect(page.get_by_role("status")).to_have_text(f"All {IMAGES} thumbnails are made.", timeout=60_000)
    assert page.evaluate("window.numbers") == list(range(IMAGES))


def test_the_token_is_not_in_the_servers_log(page, site):
    site.stop("web", signal.SIGTERM)
    site.start_web("--threads", "32", "--access-logfile", "-")
    page.reload()
    page.get_by_role("button", name="Make 200 thumbnails").click()
    expect(page.get_by_role("status")).to_have_text(f"All {IMAGES} thumbnails are made.", timeout=60_000)
    eventually(lambda: "/progress?token=" in site.log_tails()["web.log"])
    log = site.log_tails()["web.log"]
    assert "/progress?token=... " in log
    assert "token=ey" not in log
