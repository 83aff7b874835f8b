"""The dashboard in Debian's chromium, with a real web process and a real worker: as people see and use it."""

from __future__ import annotations

import importlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from celery import Celery
from eventually import eventually
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright
from processes import Deployment, deployed, fetch
from registries import own_definitions
from servers import new_broker, new_database

from durable import Durable, Run, RunFailed, resume_hook
from durable.schedules import define
from durable.schedules.handle import create

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

import driving

pytestmark = pytest.mark.live

CHROMIUM = Path("/usr/bin/chromium")
#: The CPU time that the server may need for a page of a long run: other processes on the machine do not lengthen it.
PAGE_CPU_MS = 500.0
STEPS = 1_000


@pytest.fixture(scope="module")
def flows() -> Iterator[Any]:
    """The workflows, forgotten afterwards."""
    with own_definitions():
        yield importlib.import_module("browser_flows")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, flows: Any) -> Iterator[Deployment]:
    """A web process and a worker of the first release."""
    folder = tmp_path_factory.mktemp("browser")
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        settings = {"DURABLE_RESEND_AFTER": "1"}
        described = Deployment(folder, database_url, broker_url, "browser_app", "browser_app:create_app()", settings)
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


class Reader:
    """A person who reads the dashboard, and notes all that a page must not do."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        self.base = f"{base}/durable"
        self.context: BrowserContext = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        #: Errors on the console (violations of the policy are among them), dialogs, requests to other hosts.
        self.wrong: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        # Chromium says so of every page for a problem; the tests look at the status themselves.
        if message.type in ("error", "warning") and "the server responded with a status of" not in message.text:
            self.wrong.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.base}/", "data:")):
            self.wrong.append(f"request: {request.url}")

    def open(self, path: str, status: int = 200) -> Page:
        response = self.page.goto(self.base + path)
        assert response is not None
        assert response.status == status
        return self.page

    def press(self, name: str) -> None:
        """Press a button, and wait for the page that follows."""
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=name, exact=True).click()


@pytest.fixture
def reader(chromium: Browser, site: Deployment) -> Iterator[Reader]:
    """A reader with JavaScript, whose pages must do nothing wrong."""
    made = Reader(chromium, site.url)
    yield made
    made.context.close()
    assert made.wrong == []


@pytest.fixture(scope="module")
def scene(site: Deployment, flows: Any) -> dict[str, Run[Any]]:
    """Runs that the tests only look at, by what they show."""
    runs = {
        "completed": site.engine.start(flows.greets, "acme"),
        "failed": site.engine.start(flows.fails, "the card has expired"),
        "waiting": site.engine.start(flows.approves, "looked-at"),
        "sleeping": site.engine.start(flows.naps, "late"),
        "doubt": site.engine.start(flows.pays, "looked-at"),
        "attacked": site.engine.start(flows.attacked, flows.ATTACK),
        "parent": site.engine.start(flows.has_a_child, "child"),
    }
    url = eventually(lambda: [hook["url"] for hook in runs["attacked"].hooks() if hook["is_webhook"]])[0]
    sent = fetch("POST", url, flows.ATTACK.encode(), {"X-Attack": flows.ATTACK, "Content-Type": "text/plain"})
    assert sent.status == 202
    options = {"every": None, "tz": "UTC", "overlap": "skip", "catch_up": "last", "jitter": None, "until": None}
    create(site.engine, define("nightly", flows.naps, ("late",), {}, cron="0 3 * * *", **options))
    has_status(runs["doubt"], "blocked")
    has_status(runs["failed"], "failed")
    has_status(runs["attacked"], "failed")
    eventually(runs["waiting"].hooks)
    has_status(runs["parent"], "completed")
    return runs


def has_status(run: Run[Any], status: str, within_secs: float = 30) -> None:
    eventually(lambda: run.status == status, within_secs, f"{run.id} is {status}")


def paths(reader: Reader, scene: dict[str, Run[Any]]) -> dict[str, tuple[str, int]]:
    """Each page, by its name: its path and status."""
    attacked = scene["attacked"].id
    reader.open(f"/run/{attacked}")
    links = reader.page.locator("main a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    request = next(link for link in links if "/request/" in link).removeprefix("/durable")
    operations = {link.removeprefix("/durable") for link in links if "/operation/" in link}
    return {
        "runs": ("/runs", 200),
        "filtered": ("/runs?status=failed&attribute=customer%3Dacme", 200),
        "errors": ("/runs?error=expired", 200),
        **{name: (f"/run/{run.id}", 200) for name, run in scene.items()},
        "request": (request, 200),
        **{f"operation {number}": (path, 200) for number, path in enumerate(sorted(operations))},
        "workflows": ("/workflows", 200),
        "workers": ("/workers", 200),
        "webhooks": ("/webhooks", 200),
        "schedules": ("/schedules", 200),
        "schedule": ("/schedule/nightly", 200),
        "schedule form": ("/schedules/new", 200),
        "start": ("/start", 200),
        "start greets": ("/start?workflow=browser_flows.greets", 200),
        "confirm": ("/runs/bulk?action=cancel&status=running", 200),
        "not found": ("/run/nothing", 404),
        "malformed": ("/runs?status=nothing", 400),
    }


# Reading


def test_a_filter_is_in_the_url_and_the_link_shows_the_same_runs(reader, chromium, site, scene):
    """The form filters by name, attribute and text of the error; another reader who follows the URL sees the same."""
    page = reader.open("/runs")
    page.get_by_label("Workflow").select_option("browser_flows.greets")
    page.get_by_label("Attribute").fill("customer=acme")
    reader.press("Filter")

    assert "name=browser_flows.greets" in page.url
    assert "attribute=customer%3Dacme" in page.url
    shown = page.locator("table.runs a.id").all_inner_texts()
    assert shown == [scene["completed"].id]

    another = Reader(chromium, site.url)
    another.page.goto(page.url)
    assert another.page.locator("table.runs a.id").all_inner_texts() == shown
    another.context.close()

    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Text of the error").fill("card has expired")
    reader.press("Filter")
    assert page.locator("table.runs a.id").all_inner_texts() == [scene["failed"].id]

    page.get_by_role("navigation", name="Statuses").get_by_role("link", name="blocked").click()
    expect(page).to_have_url(re.compile("status=blocked"))


def test_pages_follow_a_run_while_it_goes_on(reader, site, flows):
    """Nobody reloads: a run's page shows its end, and the list shows the status, within the deadline."""
    token = secrets.token_hex(8)
    run = site.engine.start(flows.approves, token)
    eventually(run.hooks)
    page = reader.open(f"/run/{run.id}")
    listed = reader.context.new_page()
    listed.goto(f"{reader.base}/runs?id={run.id}")
    expect(page.locator(".run-head .status")).to_have_text("running")
    expect(listed.locator("table.runs .status")).to_have_text("running")
    page.evaluate("window.isSame = true")

    resume_hook(token, {"by": "ada"})

    expect(page.locator(".run-head .status")).to_have_text("completed", timeout=15_000)
    expect(page.locator("section[aria-labelledby=result]")).to_contain_text('"by": "ada"')
    listed.bring_to_front()
    expect(listed.locator("table.runs .status")).to_have_text("completed", timeout=15_000)
    assert page.evaluate("window.isSame") is True


def test_durations_grow_while_the_page_stays_the_same(reader, site, flows):
    """Nothing happens to a run that sleeps, so the list is not sent again; its duration is counted on."""
    run = site.engine.start(flows.naps, "grows")
    eventually(lambda: any(event.kind == "wait_created" for event in run.events()))
    page = reader.open(f"/runs?id={run.id}")
    # The first answer may still be a new page: the run's turn has just ended.
    with page.expect_response(lambda response: response.status == 304, timeout=30_000):
        pass
    duration = page.locator("table.runs [data-since]")
    for _ in range(3):
        seen = duration.inner_text()
        assert re.fullmatch(r"[\d.]+ (s|min .*)", seen), seen
        expect(duration).not_to_have_text(seen)


def test_a_page_keeps_what_a_reader_is_doing_when_it_changes(reader, site, flows):
    """A selection and an opened part stay when the list changes; a form that is being filled in is not touched."""
    runs = [site.engine.start(flows.naps, f"kept-{number}") for number in range(2)]
    page = reader.open("/runs?name=browser_flows.naps")
    page.get_by_label(f"Select run {runs[0].id}").check()
    expect(page.locator("#picked")).to_have_text("1 selected")

    new = site.engine.start(flows.naps, "new")
    expect(page.get_by_label(f"Select run {new.id}")).to_be_visible(timeout=15_000)

    expect(page.get_by_label(f"Select run {runs[0].id}")).to_be_checked()
    expect(page.locator("#picked")).to_have_text("1 selected")

    reader.open(f"/run/{runs[0].id}")
    page.get_by_label("Reason to cancel").fill("because")
    runs[0].wake_up()
    has_status(runs[0], "completed")
    # Two intervals of polling, while nothing may happen.
    page.wait_for_timeout(6_500)
    expect(page.get_by_label("Reason to cancel")).to_have_value("because")
    page.get_by_label("Reason to cancel").blur()
    expect(page.locator(".run-head .status")).to_have_text("completed", timeout=15_000)


@pytest.fixture(scope="module")
def long_run(site: Deployment, flows: Any) -> Iterator[str]:
    """The id of a run with 1,000 steps, which this process has played: on a busy machine, a worker takes minutes."""
    engine = Durable(Celery("filler", broker="memory://"), database_url=site.database_url, continuation="60s")
    run = engine.start(flows.counts, STEPS)
    driving.settle(engine, run, within_secs=120)
    assert run.status == "completed"
    yield run.id
    engine.close()


def test_a_timeline_of_1000_steps_stays_usable(reader, long_run):
    """The server needs little for its pages, the zoom, and all rows at once; each can be shown and clicked."""
    times = {}

    def timed(what: str, act: Any) -> None:
        with page.expect_response(re.compile(f"/run/{long_run}")) as answered:
            act()
        page.wait_for_load_state()
        assert page.locator("table.timeline tbody tr").count() > 0
        times[what] = float(re.search(r"cpu;dur=([\d.]+)", answered.value.headers["server-timing"])[1])

    page = reader.page
    timed("open", lambda: reader.open(f"/run/{long_run}"))
    assert page.locator("table.timeline tbody tr").count() == 200
    timed("earlier", lambda: page.get_by_role("link", name="← Earlier operations").click())
    timed("later", lambda: page.get_by_role("link", name="Later operations →").click())
    timed("zoom", lambda: page.get_by_role("link", name="Zoom in").click())
    timed("zoom again", lambda: page.get_by_role("link", name="Zoom in").click())
    timed("move", lambda: page.get_by_role("link", name="Earlier", exact=True).click())
    timed("whole", lambda: page.get_by_role("link", name="Whole").click())
    reader.open(f"/run/{long_run}")
    timed("all rows", lambda: page.get_by_role("link", name="Show more rows").click())
    assert page.locator("table.timeline tbody tr").count() == STEPS
    assert max(times.values()) < PAGE_CPU_MS, times

    row = page.locator("table.timeline tbody th a").nth(500)
    row.click()
    expect(page.locator("h1")).to_have_text("browser_flows.count_on")


def test_a_bar_leads_to_its_operation(reader, scene):
    """A click on the bars of a failed step shows its attempts with traceback and worker."""
    page = reader.open(f"/run/{scene['failed'].id}")
    page.locator("table.timeline .chart a").first.click()

    expect(page.locator("h1")).to_have_text("browser_flows.breaks")
    expect(page.locator("main")).to_contain_text("attempt 2 on ")
    expect(page.locator("main")).to_contain_text("raise ValueError(text)")


# Actions


def test_cancel(reader, site, flows):
    """The button cancels the run with the reason; the audit names the caller."""
    run = site.engine.start(flows.naps, "x")
    page = reader.open(f"/run/{run.id}")
    page.get_by_label("Reason to cancel").fill("customer called")
    reader.press("Cancel")

    expect(page.get_by_role("status")).to_contain_text("asked to stop")
    has_status(run, "cancelled")
    expect(page.locator(".run-head .status")).to_have_text("cancelled", timeout=15_000)
    expect(page.locator("section[aria-labelledby=audit]")).to_contain_text("ada")
    expect(page.locator("section[aria-labelledby=audit]")).to_contain_text("customer called")


def test_wake_a_sleep(reader, site, flows):
    """The button ends a sleep of 30 days."""
    run = site.engine.start(flows.naps, "awake")
    eventually(lambda: any(event.kind == "wait_created" for event in run.events()))
    reader.open(f"/run/{run.id}")
    reader.press("Wake")

    expect(reader.page.get_by_role("status")).to_contain_text("1 pending sleep")
    assert run.result(timeout=20) == "awake"


def test_pause_a_run_with_its_child_runs(reader, site, flows):
    """The box stays checked when the page changes before the button is pressed; a resume has such a box too."""
    run = site.engine.start(flows.naps_with_a_child, "paused")
    (child_id,) = eventually(lambda: [event.run_id for event in run.events() if event.kind == "child_created"])
    child = site.engine.get_run(child_id)
    page = reader.open(f"/run/{run.id}")
    page.get_by_label("child runs too").check()
    # The bars of a run that goes on are drawn again every five seconds.
    with page.expect_response(lambda response: response.status == 200 and run.id in response.url, timeout=30_000):
        pass
    expect(page.get_by_label("child runs too")).to_be_checked()
    reader.press("Pause")

    expect(page.get_by_role("status")).to_contain_text("The run and its open child runs are paused.")
    expect(page.get_by_label("child runs too")).not_to_be_checked()
    expect(page.locator("section[aria-labelledby=children]")).to_contain_text("paused")
    assert (run.paused, child.paused) == (True, True)
    page.get_by_label("child runs too").check()
    reader.press("Resume the run")
    assert (run.paused, child.paused) == (False, False)


def test_resume_a_hook_with_json(reader, site, flows):
    """The payload arrives as JSON; a text that is none is refused with the reason."""
    run = site.engine.start(flows.approves, secrets.token_hex(8))
    eventually(run.hooks)
    page = reader.open(f"/run/{run.id}")
    page.locator("section[aria-labelledby=hooks] summary").first.click()
    page.get_by_label("Payload").first.fill("{not json")
    reader.press("Resume")
    expect(page.locator("h1")).to_contain_text("is not JSON")

    page.go_back()
    if not page.get_by_label("Payload").first.is_visible():
        page.locator("section[aria-labelledby=hooks] summary").first.click()
    page.get_by_label("Payload").first.fill('{"approved": true}')
    reader.press("Resume")

    expect(page.get_by_role("status")).to_contain_text("The hook has the payload")
    assert run.result(timeout=20) == {"approved": True}


def test_resolve_an_attempt_in_doubt(reader, site, flows):
    """Nobody knows whether the step did its work; what the reader fills in becomes its result or its error."""
    done, failed = (site.engine.start(flows.pays, account) for account in ("1", "2"))
    has_status(done, "blocked")
    page = reader.open(f"/run/{done.id}")
    page.get_by_label("It did its work").fill('"by transfer"')
    reader.press("It did its work")
    assert done.result(timeout=20) == "by transfer"

    has_status(failed, "blocked")
    reader.open(f"/run/{failed.id}")
    page.get_by_label("It did not").fill("the bank has no record")
    reader.press("It failed")
    with pytest.raises(RunFailed, match="the bank has no record"):
        failed.result(timeout=20)


def test_start_again(reader, site, flows):
    """A run with the same arguments starts, and its page opens."""
    run = site.engine.start(flows.greets, "again")
    run.result(timeout=20)
    page = reader.open(f"/run/{run.id}")
    reader.press("Start again")

    expect(page.get_by_role("status")).to_contain_text("started")
    started = site.engine.get_run(urlsplit(page.url).path.rpartition("/")[2])
    assert started.id != run.id
    assert started.result(timeout=20) == "Hello, again."


def test_start_by_a_form(reader, site):
    """The form comes from the signature; what is filled in are the arguments."""
    page = reader.open("/start")
    page.get_by_label("Workflow").select_option("browser_flows.greets")
    reader.press("Choose")
    page.get_by_label("name", exact=False).first.fill("browser")
    page.get_by_label("loudly").select_option("true")
    reader.press("Start")

    expect(page.get_by_role("status")).to_contain_text("started")
    run = site.engine.get_run(urlsplit(page.url).path.rpartition("/")[2])
    assert run.result(timeout=20) == "Hello, browser!"


def test_cancel_many_after_a_confirmation(reader, site, flows):
    """Selected runs, and then all that match a filter: each time the page asks with the number first."""
    runs = [site.engine.start(flows.approves, secrets.token_hex(8)) for _ in range(5)]
    for run in runs:
        eventually(run.hooks)
    page = reader.open("/runs?name=browser_flows.approves&since=10m")
    for run in runs[:2]:
        page.get_by_label(f"Select run {run.id}").check()
    reader.press("Cancel selected…")
    expect(page.locator("h1")).to_have_text("Cancel 2 runs?")
    assert [run.status for run in runs] == ["running"] * 5
    reader.press("Cancel 2 runs")
    expect(page.get_by_role("status")).to_contain_text("2 runs are asked to stop")
    for run in runs[:2]:
        has_status(run, "cancelled")

    page.get_by_label("Select all runs of this page").check()
    count = page.locator("input[name=run]:checked").count()
    expect(page.locator("#picked")).to_have_text(f"{count} selected")

    reader.open(f"/runs?id={runs[2].id}")
    with page.expect_navigation():
        page.get_by_role("link", name="Cancel all that match…").click()
    expect(page.locator("h1")).to_have_text("Cancel 1 run?")
    reader.press("Cancel 1 run")
    has_status(runs[2], "cancelled")
    assert [run.status for run in runs[3:]] == ["running"] * 2


def test_a_blocked_run_shows_its_diff_and_is_retried(reader, site, flows):
    """Another release asks for another step: the page shows both; the button retries once the first is back."""
    token = secrets.token_hex(8)
    run = site.engine.start(flows.changes, token)
    eventually(run.hooks)
    release(site, "2")
    try:
        resume_hook(token, None)
        has_status(run, "blocked")
        page = reader.open(f"/run/{run.id}")
        diff = page.locator("section[aria-labelledby=blocked]")
        expect(diff).to_contain_text("browser_flows.other")
        expect(page.locator(".run-head .status")).to_have_text("blocked")
        reader.open("/runs?status=blocked&name=browser_flows.changes")
        expect(page.locator("table.runs a.id")).to_have_text(run.id)
    finally:
        release(site, "1")
    reader.open(f"/run/{run.id}")
    if run.status == "blocked":
        reader.press("Retry")
        expect(page.get_by_role("status")).to_contain_text("is being retried")
    assert run.result(timeout=30) == "after"


def release(site: Deployment, number: str) -> None:
    """Restart the worker with another release of the workflows."""
    site.stop("worker", 15)
    site.start_worker(environment={"BROWSER_RELEASE": number})


# Everybody


def test_axe_finds_no_violation(chromium, site, scene):
    """axe-core's rules, the contrast of colours among them, on each page, light and dark."""
    found: dict[str, list[str]] = {}
    for theme in ("light", "dark"):
        reader = Reader(chromium, site.url, color_scheme=theme)
        for name, (path, status) in paths(reader, scene).items():
            page = reader.open(path, status)
            for details in page.locator("details").all():
                details.evaluate("each => each.open = true")
            for violation in Axe().run(page).response["violations"]:
                nodes = [f"{node['target']} {node['html'][:200]}" for node in violation["nodes"][:3]]
                found.setdefault(f"{violation['id']}: {violation['help']}", []).append(f"{name}, {theme}: {nodes}")
        reader.context.close()
        assert reader.wrong == []
    assert found == {}


def test_dark_mode(chromium, site, scene):
    """The colours follow the reader's system."""
    colours = {}
    for theme in ("light", "dark"):
        reader = Reader(chromium, site.url, color_scheme=theme)
        page = reader.open(f"/run/{scene['failed'].id}")
        colours[theme] = page.evaluate(
            """() => ["body", ".card", "h1", ".run-head .status", "pre", ".bar-attempt"].map(selector => {
                const style = getComputedStyle(document.querySelector(selector));
                return [selector, style.color, style.backgroundColor, style.fill];
            })"""
        )
        reader.context.close()

    for light, dark in zip(colours["light"], colours["dark"], strict=True):
        assert light[1:] != dark[1:]
    assert _brightness(colours["light"][0][2]) > 200
    assert _brightness(colours["dark"][0][2]) < 60


def _brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_everything_can_be_read_and_done_without_javascript(chromium, site, scene, flows):
    """Each page is complete without its script, and forms act."""
    reader = Reader(chromium, site.url, java_script_enabled=False)
    page = reader.page
    for name, (path, status) in paths(reader, scene).items():
        reader.open(path, status)
        expect(page.locator("h1")).to_have_count(1)
        assert page.locator("main").inner_text().strip(), name
    reader.open(f"/run/{scene['failed'].id}")
    expect(page.locator("main")).to_contain_text("the card has expired")
    assert page.locator("table.timeline .bar").count() >= 2

    run = site.engine.start(flows.naps, "x")
    reader.open("/runs?name=browser_flows.naps&status=running")
    eventually(lambda: run.status == "running")
    page.reload()
    page.get_by_label(f"Select run {run.id}").check()
    reader.press("Cancel selected…")
    reader.press("Cancel 1 run")
    has_status(run, "cancelled")
    reader.context.close()
    assert reader.wrong == []


def test_the_keyboard_reaches_everything_and_the_focus_can_be_seen(reader, scene):
    """Tab goes to the filter, the rows and the actions, in this order; each has an outline while it has the focus."""
    page = reader.open("/runs")
    stops = tab_through(page)
    names = [stop["name"] for stop in stops]
    assert names[0] == "Skip to the content"
    order = [
        "name",
        "id",
        "attribute",
        "error",
        "since",
        "until",
        "Filter",
        "pick-all",
        scene["failed"].id,
        "Cancel selected…",
    ]
    places = [names.index(name) for name in order]
    assert places == sorted(places)

    reader.open("/runs")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"

    reader.open(f"/run/{scene['sleeping'].id}")
    stops += tab_through(page)
    names = [stop["name"] for stop in stops]
    for name in ("Wake", "Start again", "reason", "Cancel", "Zoom in", "sleep"):
        assert any(name in each for each in names), name
    assert [stop for stop in stops if not stop["isSeen"]] == []


def tab_through(page: Page) -> list[dict[str, Any]]:
    """Press Tab until the focus leaves the page: each stop, and whether its focus is seen."""
    stops: list[dict[str, Any]] = []
    page.keyboard.press("Tab")
    while len(stops) < 400:
        stop = page.evaluate(
            """() => {
                const each = document.activeElement;
                if (each === document.body || each.dataset.seen) return null;
                each.dataset.seen = "1";
                const style = getComputedStyle(each), box = each.getBoundingClientRect();
                const isSeen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
                    && box.width > 0 && box.bottom > 0 && box.top < innerHeight;
                return {name: each.id || each.innerText.trim() || each.ariaLabel || each.tagName, isSeen,
                        html: each.outerHTML.slice(0, 200)};
            }"""
        )
        if stop is None:
            return stops
        stops.append(stop)
        page.keyboard.press("Tab")
    return stops


def test_what_strangers_sent_stays_text(reader, scene, flows):
    """Markup in names, attributes, tokens, headers, bodies and errors makes no element, no dialog and no request."""
    for path, status in paths(reader, scene).values():
        page = reader.open(path, status)
        assert page.locator("main img, main script, main i, main b").count() == 0, path
    reader.open(f"/run/{scene['attacked'].id}")
    expect(reader.page.locator("main")).to_contain_text(flows.ATTACK)
    expect(reader.page.locator("h1")).to_contain_text("<b>workflow</b>")


def test_a_narrow_window_shows_everything(chromium, site, scene):
    """At 400 pixels, which is 1,400 at a zoom of 350 %, no page scrolls sideways; tables do so on their own."""
    reader = Reader(chromium, site.url)
    reader.page.set_viewport_size({"width": 400, "height": 800})
    for name, (path, status) in paths(reader, scene).items():
        page = reader.open(path, status)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
    reader.context.close()
