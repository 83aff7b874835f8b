"""A Flask app with the dashboard; a worker's part is played as in tests/flows."""

from __future__ import annotations

import sys
from pathlib import Path

import flask
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from driving import all_databases  # noqa: F401

from durable.dashboard import create_dashboard


class Permissions:
    """The ``authorize`` of the tests: what is in ``denied`` is refused, and ``asked`` notes every question."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.asked: list[tuple[str, str | None]] = []
        self.actor: bool | str = "ada"

    def __call__(self, action: str, run_id: str | None) -> bool | str:
        self.asked.append((action, run_id))
        return False if action in self.denied else self.actor


@pytest.fixture
def permissions():
    return Permissions()


@pytest.fixture
def app(engine, permissions):
    """An app with the dashboard at ``/durable``."""
    made = flask.Flask("dashboard-test")
    made.register_blueprint(create_dashboard(engine, authorize=permissions), url_prefix="/durable")
    return made


@pytest.fixture
def browser(app):
    return Browser(app)


class Browser:
    """A reader without JavaScript: follows links, and sends forms with their token."""

    def __init__(self, app: flask.Flask) -> None:
        self.client = app.test_client()

    def get(self, path: str, status: int = 200, **options: object) -> str:
        answer = self.client.get(f"/durable{path}", **options)
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, path: str, status: int = 303, **fields: object) -> str:
        """Send a form with this browser's token; the page that follows, or the page itself."""
        self.client.get("/durable/runs")
        cookie = self.client.get_cookie("durable_csrf", path="/durable/")
        token = cookie.value if cookie is not None else ""
        answer = self.client.post(f"/durable{path}", data={"csrf_token": token, **fields})
        assert answer.status_code == status, answer.text
        if status != 303:
            return answer.text
        followed = self.client.get(answer.location)
        assert followed.status_code == 200, followed.text
        return followed.text
