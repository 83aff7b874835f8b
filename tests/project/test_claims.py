"""What pages say in numbers, messages and programs is what the code has and does."""

import ast
import importlib
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import durable
from durable.engine.settings import Settings
from durable.testing import Environment

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: Units of sizes in bytes and of times in microseconds; a bare number is a count.
UNITS = {"KiB": 1024, "MiB": 1024**2, "ms": 1_000, "s": 1_000_000}


def rows(page):
    """The table rows of a page, without heads: the text of each cell."""
    lines = [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(page, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


LIMITS = {row[0]: row for row in rows("reference/limits.md") if row[2].startswith("`")}


@pytest.mark.parametrize("row", LIMITS.values(), ids=list(LIMITS))
def test_a_limit_is_the_codes(row):
    """docs/reference/limits.md gives each number as the setting's default, or the constant, has it."""
    _, written, source = row
    number, _, unit = written.partition(" ")
    name = source.strip("`")
    if "." in name:
        module, _, constant = name.rpartition(".")
        given = getattr(importlib.import_module(module), constant)
    else:
        given = getattr(Settings(), name)
    if name.endswith("_SECS"):
        given *= UNITS["s"]

    assert int(number.replace(",", "")) * UNITS.get(unit, 1) == given


def test_there_are_limits():
    """The test above finds the rows."""
    assert len(LIMITS) > 30


def messages():
    """Every text in durable/ that is no docstring, with … for what is filled in, and single blanks."""
    for path in (ROOT / "durable").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if node in docstrings:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield _normal(node.value)
            elif isinstance(node, ast.JoinedStr | ast.BinOp):
                yield _normal(_text(node))


def _text(node):
    """An f-string, or texts and expressions that are added."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def _normal(text):
    return re.sub(r"\s+", " ", re.sub(r"%(?:\(\w+\))?[sdrg]|\{\w*\}", "…", text).replace("`", ""))


MESSAGES = [row[0].strip("`") for row in rows("how-to/troubleshooting.md") if row[0].startswith("`")]


@pytest.fixture(scope="module")
def written():
    return set(messages())


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_written_by_the_code(message, written):
    """docs/how-to/troubleshooting.md quotes only messages that a text in durable/ makes."""
    parts = [re.escape(part) for part in message.split("…") if part]
    pattern = re.compile(".*?".join(parts))

    assert any(pattern.search(text) for text in written)


def test_there_are_messages():
    """The test above finds the rows, and no message twice."""
    assert len(MESSAGES) == len(set(MESSAGES)) > 40


def test_the_versions_that_the_status_needs_are_those_of_the_package():
    """docs/reference/status.md names the minimum of each dependency, the Pythons and the version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (DOCS / "reference" / "status.md").read_text()

    needed = re.findall(r"\| `([a-z]+>=[\d.]+)` \|", text)
    assert len(needed) == 7
    extras = chain.from_iterable(project["optional-dependencies"].values())
    assert set(needed) <= {*project["dependencies"], *extras}
    assert f"| {project['requires-python'].removeprefix('>=')} or newer |" in text
    pythons = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3" in each]
    assert all(each in text for each in pythons)
    assert f"durable {project['version'].rpartition('.')[0]} is Alpha" in text
    assert "Development Status :: 3 - Alpha" in project["classifiers"]
    readme = (ROOT / "README.md").read_text()
    assert "**Celery 5.7 or newer**" in readme
    assert "celery>=5.7" in project["dependencies"]


@pytest.fixture
def schedules(tmp_path, monkeypatch, own_registry):
    """The programs of docs/how-to/schedules.md, as one module."""
    (tmp_path / "schedules_shop.py").write_text("\n".join(code("how-to/schedules.md")))
    monkeypatch.syspath_prepend(tmp_path)
    made = list(durable.current._engines)
    yield importlib.import_module("schedules_shop")
    for engine in list(durable.current._engines):
        if engine not in made:
            engine.close()
    durable.current._engines[:] = made
    del sys.modules["schedules_shop"]


def test_the_schedule_of_the_docs_knows_its_day(schedules):
    """The report of each weekday is of that day in UTC, and the test that the page shows passes."""
    with Environment(celery=schedules.celery) as env:
        schedules.test_the_report_runs_on_weekdays(env)
        results = [run.result(timeout=0) for run in durable.get_schedule("nightly-report").runs()]
        assert results[-1] == "report of 2025-01-01 for EU"


def test_the_schedules_of_the_docs_that_are_made_at_run_time(schedules):
    """One per customer, changed by a second call, and deleted."""
    with Environment(celery=schedules.celery) as env:
        schedules.on_signup("acme", 6)
        schedules.on_signup("acme", 7)
        env.advance("1d")
        (run,) = durable.get_schedule("report:acme").runs()
        assert run.result(timeout=0) == "report of 2025-01-01 for acme"
        schedules.on_leave("acme")
        with pytest.raises(durable.ScheduleNotFound):
            durable.get_schedule("report:acme")


def test_the_ledger_without_end_keeps_its_url(tmp_path, monkeypatch, own_registry):
    """The first program of docs/how-to/runs-without-end.md continues as new, and is one run to its sender."""
    (tmp_path / "ledger_without_end.py").write_text(code("how-to/runs-without-end.md")[0])
    monkeypatch.syspath_prepend(tmp_path)
    ledger = importlib.import_module("ledger_without_end").ledger
    with Environment(max_events=20) as env:
        run = env.start(ledger, "a-17")
        url = run.hooks()[0]["url"]
        for cents in (250, 100, 50, 7):
            assert env.post(url, json={"cents": cents}).status_code == 202
            env.run_until_idle()
        assert run.status == "running"
        assert run.hooks()[0]["url"] == url
        assert len(run.generations()) > 1
        env.post(url, data="close")
        env.run_until_idle()

        assert run.result(timeout=0) == 407
        assert env.post(url, data="close").status_code == 410
    del sys.modules["ledger_without_end"]


@pytest.mark.parametrize("name", ["webhooks.py", "fastapi_app.py", "django_asgi.py", "quart_app.py"])
def test_the_programs_for_frameworks_are_those_that_are_tested(name):
    """docs/how-to/fastapi-django.md shows lines of examples/frameworks/ and no others."""
    (shown,) = [each for each in code("how-to/fastapi-django.md") if each.startswith(f"# {name}\n")]
    lines = (ROOT / "examples" / "frameworks" / name).read_text().splitlines()

    assert [line for line in shown.splitlines()[1:] if line not in lines] == []
