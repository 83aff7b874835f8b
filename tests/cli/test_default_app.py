"""Which application the command uses where ``--app`` names none."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from durable.cli import main
from durable.cli.common import Context
from durable.cli.default_app import ApplicationNotFound


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DURABLE_APP", raising=False)
    return tmp_path


def spec_of(*args: str) -> str:
    """The application that ``durable ARGS`` would load."""
    with main.make_context("durable", [*args, "migrate"]) as ctx:
        assert main.callback is not None
        ctx.invoke(main.callback, **ctx.params)
        context = ctx.find_object(Context)
        assert context is not None
        return context.spec


def write_pyproject(folder, text='[tool.durable]\napp = "shop.jobs:engine"\n'):
    (folder / "pyproject.toml").write_text(text)


def test_the_order_is_option_variable_pyproject_file(folder, monkeypatch):
    """What you type wins over the environment, that over pyproject.toml, and that over a file of the usual name."""
    (folder / "app.py").write_text("from durable import Durable\n")
    assert spec_of() == "app"
    write_pyproject(folder)
    assert spec_of() == "shop.jobs:engine"
    monkeypatch.setenv("DURABLE_APP", "staging")
    assert spec_of() == "staging"
    assert spec_of("--app", "typed") == "typed"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"celery_app.py": "import durable"}, "celery_app"),
        ({"app.py": "import flask", "celery_app.py": "import durable"}, "celery_app"),
        ({"app.py": "import durable", "celery_app.py": "import durable"}, "app"),
        ({"worker/app.py": "import durable"}, "worker.app"),
    ],
)
def test_a_file_that_uses_durable_is_found(folder, files, expected):
    """An ``app.py`` of Flask that does not mention durable makes no engine, so it is left out."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    assert spec_of() == expected


def test_a_folder_without_an_application_says_how_to_name_one(folder):
    """The message has the three ways, and the exit code is that of a wrong command line."""
    refused = CliRunner().invoke(main, ["runs", "list"])

    assert refused.exit_code == 2
    assert all(way in refused.stderr for way in ("--app MODULE", "DURABLE_APP", "[tool.durable]", "celery_app.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.durable]\napp = 3\n", "[tool.durable] app is 3"),
        ("[tool.durable]\napp = ''\n", "[tool.durable] app is ''"),
        ("[tool.durable\n", "cannot be read"),
    ],
)
def test_a_malformed_pyproject_is_named(folder, text, message):
    """The message says which file, and what is wrong."""
    write_pyproject(folder, text)

    with pytest.raises(ApplicationNotFound, match=r"pyproject\.toml") as raised:
        spec_of()
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "[project]\nname = 'shop'\n", "[tool.durable]\n", "tool = 3\n"])
def test_a_pyproject_that_names_no_application_is_as_none(folder, text):
    """The files of the usual names are then looked for."""
    write_pyproject(folder, text)
    (folder / "app.py").write_text("import durable")

    assert spec_of() == "app"
