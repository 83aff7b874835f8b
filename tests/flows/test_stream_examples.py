"""The program of docs/how-to/streams.md runs, and does what the page says."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

from durable.testing import Environment
from durable.web.wsgi_request import ROOT

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "streams.md"


@pytest.fixture
def page(own_registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's examples, one after the other, as one module."""
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "streams_page.py").write_text("\n".join(examples))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("streams_page")
    del sys.modules["streams_page"]


@pytest.fixture
def env(page: Any) -> Iterator[Environment]:
    with Environment(signing_key="signs the tokens of the page") as made:
        yield made


def test_a_loop_shows_what_a_run_emits(env: Environment, page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """And the test that the page shows passes."""
    assert page.show(["a", "b"]) == ["a", "b"]
    assert capsys.readouterr().out.splitlines() == ["1 of 2", "2 of 2"]
    page.test_progress(env)


def test_tokens_of_a_model_are_a_stream(env: Environment, page: Any) -> None:
    """Typed, and closed with the step."""
    run = env.start(page.ask, "why?")
    assert list(run.stream(page.tokens)) == ["Because", " it", " is", " there."]
    assert run.result(timeout=0) == "Because it is there."
    assert run.streams()[0]["closed_at"] is not None


def test_a_page_reads_with_the_token_that_a_view_returns(env: Environment, page: Any) -> None:
    """The route, and the JSON of a message, are those of the page."""
    got = page.app.test_client().post("/batches", json=["a.png"]).json
    text = env.post(f"{ROOT}streams/{got['run']}/progress?token={got['token']}", method="GET").text
    (example,) = re.findall(r"^```json\n(.*?)\n```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (sent,) = re.findall(r"^data: (.*image.*)$", text, re.MULTILINE)
    without_time = [
        re.sub(r'"at":"[^"]*",', "", each.replace(": ", ":").replace(", ", ",")) for each in (example, sent)
    ]
    assert without_time[0] == without_time[1]
    assert f"{ROOT}streams/${{run}}/progress?token=${{token}}" in PAGE.read_text()


def test_the_function_of_the_page_decides_by_the_session(page: Any) -> None:
    page.app.secret_key = "of the test"
    with page.app.test_request_context():
        flask.session["run"] = "r-1"
        found = [page.may_read(flask.request, run, "stream", "progress") for run in ("r-1", "r-2")]
    assert found == [True, False]
