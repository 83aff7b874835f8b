"""The documentation names what there is, and its programs and links work."""

import hmac
import importlib
import importlib.util
import re
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import celery
import click
import pytest

import durable
from durable import cli, doctor, events, metrics, registry, testing, verify
from durable.cli import dev
from durable.context import webhooks
from durable.engine.settings import NAMES, Settings

ROOT = Path(__file__).parents[2]


def script(path):
    """A script of the documentation, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_architecture = script(ROOT / "docs" / "tools" / "make_architecture.py")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)

_DURATIONS = (
    "hold_timeout",
    "eta_horizon",
    "continuation",
    "turn_cpu_limit",
    "turn_timeout",
    "beat_interval",
    "dead_after",
)


@pytest.fixture
def forgotten(own_registry):
    """What a test imports and defines is unknown again afterwards."""
    before = set(sys.modules)
    made = list(durable.current._engines)
    yield
    for engine in list(durable.current._engines):
        if engine not in made:
            engine.close()
    durable.current._engines[:] = made
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
    """docs/reference/settings.md lists each setting, and no other, with the name of its environment variable."""
    found = {row[0].strip("`"): row[1].strip("`") for row in rows("reference/settings.md")}

    # Objects of the application have no form as text.
    variables = {name: f"DURABLE_{name.upper()}" for name in NAMES} | {"contextvars": "none"}
    assert variables == found


@pytest.mark.parametrize("name", [*_DURATIONS, "sweep_interval", "resend_after"])
def test_durations_have_their_default_in_the_docs(name):
    """The default in docs/reference/settings.md is the one in the code."""
    shown = {row[0].strip("`"): row[2] for row in rows("reference/settings.md")}[name]
    number, unit = shown.split()
    written = timedelta(**{{"s": "seconds", "ms": "milliseconds"}[unit]: int(number)})

    assert timedelta(microseconds=getattr(Settings(), name)) == written


@pytest.mark.parametrize("name", ["max_body", "max_pending", "pool_size", "database_url"])
def test_other_defaults_are_in_the_docs(name):
    """So are those of sizes, counts and URLs."""
    shown = {row[0].strip("`"): row[2] for row in rows("reference/settings.md")}[name]

    assert str(getattr(Settings(), name)) == shown.strip("`").split(" ")[0]


@pytest.mark.parametrize("name", sorted(durable.__all__))
def test_every_public_name_is_in_the_docs(name):
    """What can be imported from durable is explained somewhere."""
    assert re.search(rf"\b{name}\b", TEXT)


@pytest.mark.parametrize("kind", sorted(events.KINDS))
def test_every_kind_of_event_is_in_the_docs(kind):
    """What a log may hold is in the table of docs/explanation/concepts.md."""
    assert f"`{kind}`" in (ROOT / "docs" / "explanation" / "concepts.md").read_text()


def commands(group, path="durable"):
    """Every command of the command line that does something, by how it is typed."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def long_options(command):
    return {option for p in command.params for option in p.opts if option.startswith("--")}


def test_every_command_is_on_its_page_with_its_options():
    """docs/reference/command-line.md has each command and each of its options, and none that is not there."""
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    head, *sections = re.split(r"^## `", page, flags=re.MULTILINE)
    told = {}
    for section in sections:
        command = re.match(r"[a-z ]*[a-z]", section).group()
        told[command] = set(re.findall(r"^\| `(--[a-z-]+)`", section, re.MULTILINE))

    assert told == {command: long_options(found) for command, found in commands(cli.main)}
    assert long_options(cli.main) <= set(re.findall(r"--[a-z-]+", head))


def test_every_check_of_the_doctor_is_in_the_docs():
    """docs/how-to/operating.md explains each finding by its name."""
    with_names = {cell.strip("`") for row in rows("how-to/operating.md") for cell in row[:1]}
    engine = durable.Durable(celery.Celery("docs", broker="memory://"), database_url="postgresql://127.0.0.1:1/none")
    try:
        assert {finding.name for finding in doctor.examine(engine)} <= with_names
    finally:
        engine.close()


def test_the_program_of_the_readme_is_the_one_that_dev_shows():
    """There is one smallest program, and the home page of the site shows it too."""
    program = code((ROOT / "README.md").read_text(), "python")[0]

    assert program in dev.FIRST_STEPS
    assert program in code((ROOT / "docs" / "index.md").read_text(), "python")


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
        assert compile(f"async def example():\n{body}    pass\n", str(page), "exec")


def test_the_recipes_of_senders_are_what_a_webhook_takes():
    """Each example of docs/how-to/webhooks.md is run: one for each preset, with the key that the table tells."""
    _, _, text = (ROOT / "docs" / "how-to" / "webhooks.md").read_text().partition("## Who sends")
    recorded = []

    def create_webhook(respond_with=None, *, timeout=None, on_timeout=None, max_body=None, **options):
        given = {"methods": ["POST"], "timeout": timeout, "on_timeout": on_timeout, "max_body": max_body}
        recorded.append(
            webhooks.config_json(public_url="https://a.test", respond_with=respond_with, **given, **options)
        )

    names = {"create_webhook": create_webhook, "verify": verify, "Response": durable.Response, "hmac": hmac}
    for example in code(text, "python"):
        exec(example.replace("from durable import create_webhook, verify", ""), names)
    assert len(recorded) == 10

    table = re.findall(r"^\| [^|]+ \| `(verify\.[^`]+)` \| ([^|]+) \|", text, re.MULTILINE)
    told = {eval(call, {"verify": verify}).by: key for call, key in table}
    keyed = {name: verify.presets.find(name).key is not None for name in told}
    assert keyed == {name: key != "nothing" for name, key in told.items()}
    public = {name for name in verify.__all__ if isinstance(getattr(verify, name), verify.Preset)}
    assert set(told) | {"hmac"} == public


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """A relative link leads to a file of the repository, and its fragment to a heading."""
    prose = re.sub(r"`[^`\n]*`", "", page.read_text())
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose):
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
    for page in ("explanation/life-of-a-run.md", "explanation/life-of-a-webhook.md"):
        text = (ROOT / "docs" / page).read_text()
        named = re.findall(r"\*\*`([\w/]+(?:\.py|/))`", text)
        assert named
        assert [name for name in named if not (ROOT / "durable" / name).exists()] == [], page


def documented():
    """The objects that the pages of the reference show, each by its path."""
    pages = (ROOT / "docs" / "reference" / "api").glob("*.md")
    return [path for page in pages for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


#: The names of each module that users import.  Of the last five, ``__all__`` is also for other rooms, or is not there.
PUBLIC_NAMES = {
    "durable": durable.__all__,
    "durable.verify": verify.__all__,
    "durable.testing": testing.__all__,
    "durable.metrics": metrics.__all__,
    "durable.dashboard": ["create_dashboard"],
    "durable.web": ["MaskTokens", "bearer", "create_asgi_app", "create_blueprint", "drain"],
    "durable.web.gunicorn": ["post_worker_init"],
    "durable.cipher": ["Cipher", "aes_gcm", "fernet"],
    "durable.sandbox": ["forbid", "unrestricted"],
}


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_every_public_name_is_in_the_reference(module):
    """The reference shows every name that users import, except types that stand only in annotations."""
    only_annotations = {"Dedupe", "DedupeKey", "Preset", "Unavailable"}
    shown = {path.rpartition(".")[2] for path in documented()}

    assert set(PUBLIC_NAMES[module]) - only_annotations <= shown
    assert [name for name in PUBLIC_NAMES[module] if not hasattr(importlib.import_module(module), name)] == []


def test_the_modules_with_public_names_are_those_of_the_status():
    """docs/reference/status.md says whose names are stable; the test above finds them in the reference."""
    (promise,) = re.findall(r"^\| names that you import from (.*?) \|", TEXT, re.MULTILINE)

    assert set(re.findall(r"`([a-z.]+)`", promise)) == set(PUBLIC_NAMES)


def test_the_reference_shows_each_object_once():
    """A second page with the same object would make links to it ambiguous."""
    assert [path for path, count in Counter(documented()).items() if count > 1] == []


def test_every_page_is_in_the_navigation():
    """Each page of docs/ has one place in the site."""
    in_the_navigation = re.findall(r"^ +- (?:[\w-]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)

    assert sorted(in_the_navigation) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


def test_the_architecture_is_what_the_code_imports():
    """docs/explanation/architecture.md is up to date; `make docs` writes it."""
    assert make_architecture.PAGE.read_text() == make_architecture.page()


def test_pages_that_the_code_names_are_there():
    """A docstring, a comment or a message that names a page names its path."""
    folders = ("durable", "bench", "chaos", "load", "examples", "worker", "webapp")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in files for name in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text())}

    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_example_of_testing_is_the_file_that_is_tested():
    """docs/how-to/testing.md shows examples/test_orders.py word for word."""
    shown = (ROOT / "examples" / "test_orders.py").read_text().partition("if __name__")[0].rstrip()

    assert f"```python\n{shown}\n```" in (ROOT / "docs" / "how-to" / "testing.md").read_text()
