"""The documentation names what there is, and its programs and links work."""

import importlib
import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import durable
from durable import dev, events, registry
from durable.settings import NAMES, Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)

_DURATIONS = ("hold_timeout", "eta_horizon", "continuation", "beat_interval", "dead_after", "sweep_interval")


@pytest.fixture
def forgotten(monkeypatch):
    """What a test imports and defines is unknown again afterwards."""
    monkeypatch.setattr(registry, "steps", dict(registry.steps))
    monkeypatch.setattr(registry, "workflows", dict(registry.workflows))
    before = set(sys.modules)
    made = list(durable.current._latest)
    yield
    durable.current._latest[:] = made
    for name in set(sys.modules) - before:
        if not hasattr(sys.modules[name], "__path__") and "." not in name:
            del sys.modules[name]


def rows(page):
    """The table rows of a page: the cells of each, without backticks around them."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]


def code(text, language):
    """The blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_setting_has_a_row_with_its_variable():
    """docs/settings.md lists each setting, and no other, with the name of its environment variable."""
    found = {row[0].strip("`"): row[1].strip("`") for row in rows("settings.md")}

    assert {name: f"DURABLE_{name.upper()}" for name in NAMES} == found


@pytest.mark.parametrize("name", [*_DURATIONS, "resend_after"])
def test_durations_have_their_default_in_the_docs(name):
    """The default in docs/settings.md is the one in the code."""
    shown = {row[0].strip("`"): row[2] for row in rows("settings.md")}[name]
    number, unit = shown.split()
    written = timedelta(**{{"s": "seconds", "ms": "milliseconds"}[unit]: int(number)})

    assert timedelta(microseconds=getattr(Settings(), name)) == written


@pytest.mark.parametrize("name", ["max_body", "pool_size", "database_url"])
def test_other_defaults_are_in_the_docs(name):
    """So are those of sizes, counts and URLs."""
    shown = {row[0].strip("`"): row[2] for row in rows("settings.md")}[name]

    assert str(getattr(Settings(), name)) == shown.strip("`").split(" ")[0]


@pytest.mark.parametrize("name", sorted(durable.__all__))
def test_every_public_name_is_in_the_docs(name):
    """What can be imported from durable is explained somewhere."""
    assert re.search(rf"\b{name}\b", TEXT)


@pytest.mark.parametrize("kind", sorted(events.KINDS))
def test_every_kind_of_event_is_in_the_docs(kind):
    """What a log may hold is in the table of docs/concepts.md."""
    assert f"`{kind}`" in (ROOT / "docs" / "concepts.md").read_text()


def test_the_program_of_the_readme_is_the_one_that_dev_shows():
    """There is one smallest program."""
    program = code((ROOT / "README.md").read_text(), "python")[0]

    assert program in dev.FIRST_STEPS


def test_the_program_of_the_readme_can_be_imported(tmp_path, monkeypatch, forgotten):
    """It registers its workflow and its step, and the step is a task of its Celery app."""
    (tmp_path / "readme_app.py").write_text(code((ROOT / "README.md").read_text(), "python")[0])
    monkeypatch.syspath_prepend(tmp_path)

    program = importlib.import_module("readme_app")

    assert "readme_app.hello" in registry.workflows
    assert "readme_app.greet" in program.celery.tasks
    assert program.greet.run("world") == "Hello, world!"


def test_the_webhook_of_the_readme_answers(forgotten):
    """Its step takes what a sender may send, and gives an answer that may go on the wire."""
    names = {"__name__": "readme_webhook"}
    exec(code((ROOT / "README.md").read_text(), "python")[1], names)

    confirm = names["confirm"].run
    assert confirm(durable.Request(data=b'{"type": "payment.succeeded"}')) == "payment.succeeded"
    assert confirm(durable.Request(data=b"no json")) == "unknown"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_are_python(page):
    """Every example compiles, given that `...` and `await` may stand anywhere in it."""
    for example in code(page.read_text(), "python"):
        body = "".join(f"    {line}\n" for line in example.splitlines())
        compile(f"async def example():\n{body}    pass\n", str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """A relative link leads to a file of the repository, and its fragment to a heading."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if fragment:
            assert fragment in _anchors(linked), target


def _anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_that_the_docs_name_are_there():
    """The two lives name only files and folders that durable/ has."""
    for page in ("life-of-a-run.md", "life-of-a-webhook.md"):
        text = (ROOT / "docs" / page).read_text()
        named = re.findall(r"\*\*`([\w/]+(?:\.py|/))`", text)
        assert named
        assert [name for name in named if not (ROOT / "durable" / name).exists()] == [], page
