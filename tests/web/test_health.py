"""The health route, and what Flask answers when a view lets a RunConflict pass."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest
from celery import Celery

from durable import Durable, RunConflict, workflow
from durable.cli import dev_web
from durable.recovery import housekeeping
from durable.web import create_blueprint

HEALTH = "/.well-known/workflow/v1/health"


@workflow(name="test_health.order")
async def order(order_id: str) -> str:
    return order_id


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Durable]:
    made = Durable(Celery("test_health", broker="memory://"), database_url=f"sqlite:///{tmp_path}/d.db")
    housekeeping.Housekeeping(made).tick()
    yield made
    made.close()


def make_app(engine: Durable) -> flask.Flask:
    app = flask.Flask("test_health")
    app.register_blueprint(create_blueprint(engine))

    @app.post("/orders/<order_id>")
    def start_order(order_id: str) -> str:
        return order.with_options(idempotency_key="k").start(order_id).id

    return app


def test_c103_a_web_process_says_that_it_is_well(engine):
    """GET and HEAD answer 200 without being stored; other methods are refused."""
    client = make_app(engine).test_client()
    answer = client.get(HEALTH)

    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.head(HEALTH).status_code == 200
    assert client.post(HEALTH).status_code == 405


def test_c103_a_web_process_without_its_database_says_so():
    """503, so that a load balancer sends requests elsewhere."""
    down = Durable(
        Celery("test_health_down", broker="memory://"), database_url="postgresql://postgres@127.0.0.1:1/none"
    )
    try:
        app = flask.Flask("test_health_down")
        app.register_blueprint(create_blueprint(down))
        answer = app.test_client().get(HEALTH)
    finally:
        down.close()

    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")


def test_the_root_of_the_bare_app_leads_to_the_dashboard(engine, monkeypatch):
    """``durable dev`` of an application without a web app answers ``/``."""
    monkeypatch.setattr(dev_web.applications, "load", lambda spec: type("Loaded", (), {"engine": engine}))
    answer = dev_web.bare_app("shop").test_client().get("/")

    assert (answer.status_code, answer.location) == (302, "/durable/")


def test_a_run_conflict_that_leaves_a_view_is_a_409(engine):
    """A problem document that names neither the key nor the run."""
    client = make_app(engine).test_client()
    run_id = client.post("/orders/1").text
    answer = client.post("/orders/2")

    assert (answer.status_code, answer.content_type) == (409, "application/problem+json")
    assert run_id not in answer.text
    assert client.post("/orders/1").text == run_id


def test_an_application_may_answer_a_run_conflict_itself(engine):
    """Its error handler is used, whether it was registered before the blueprint or after."""
    for is_first in (True, False):
        app = flask.Flask("test_health_own")
        if is_first:
            app.register_error_handler(RunConflict, lambda error: ("mine", 418))
        app.register_blueprint(create_blueprint(engine))
        if not is_first:
            app.register_error_handler(RunConflict, lambda error: ("mine", 418))

        @app.get("/")
        def conflict() -> str:
            raise RunConflict("k", "r")

        assert app.test_client().get("/").status_code == 418


def test_a_run_conflict_has_no_database_error_in_its_chain(engine):
    """The traceback is the author's call and the conflict, without an IntegrityError."""
    order.with_options(idempotency_key="chain").start("1")
    with pytest.raises(RunConflict) as caught:
        order.with_options(idempotency_key="chain").start("2")

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "IntegrityError" not in "".join(traceback.format_exception(caught.value))
