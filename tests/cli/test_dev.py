"""What ``durable dev`` decides before it starts anything."""

import socket
import sys
import types

import click
import flask
import pytest
from celery import Celery
from werkzeug.test import Client

from durable import Durable, registry
from durable.cli import application as loading
from durable.cli import dev, dev_plan, dev_web
from durable.cli.application import Application
from durable.errors import ConfigurationError
from durable.registry.retry import RetryPolicy


@pytest.fixture
def engine():
    made = Durable(Celery("test_dev", broker="memory://"))
    yield made
    made.close()


@pytest.fixture
def application(engine, tmp_path, monkeypatch):
    """Makes an application of a module ``shop`` that holds the names given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # The repository's own webapp must not be found here.
    monkeypatch.delitem(sys.modules, "webapp", raising=False)

    def make(**names):
        module = types.ModuleType("shop")
        module.__file__ = str(tmp_path / "shop.py")
        vars(module).update(names)
        return Application(module=module, engine=engine)

    return make


@pytest.mark.parametrize(
    ("names", "target"),
    [
        ({"create_app": lambda: None}, "shop:create_app()"),
        ({"app": lambda environ, start_response: []}, "shop:app"),
        ({"create_app": lambda: None, "app": lambda: None}, "shop:create_app()"),
        ({"app": Celery("another")}, "durable.cli.dev_web:bare_app('shop:engine')"),
        ({}, "durable.cli.dev_web:bare_app('shop:engine')"),
    ],
)
def test_the_web_app_is_the_modules_own_or_a_bare_one(application, names, target):
    """``app`` is taken too, wrapped in middleware or not, unless it is the Celery app."""
    assert dev_plan.web_target(application(**names), "shop:engine") == target


def test_a_webapp_beside_the_module_is_served(application, tmp_path):
    """A package ``webapp`` in the same folder belongs to the application."""
    (tmp_path / "webapp").mkdir()
    (tmp_path / "webapp" / "__init__.py").write_text("def create_app(): ...\n")

    assert dev_plan.web_target(application(), "shop") == "webapp:create_app()"


def test_a_webapp_elsewhere_is_not_ours(application, tmp_path):
    """One that happens to be installed is another application's."""
    (tmp_path / "webapp").mkdir()
    (tmp_path / "webapp" / "__init__.py").write_text("def create_app(): ...\n")
    shop = application()
    shop.module.__file__ = str(tmp_path / "elsewhere" / "shop.py")

    assert dev_plan.web_target(shop, "shop") == "durable.cli.dev_web:bare_app('shop')"


def test_the_worker_serves_the_queues_that_are_asked_for(engine, monkeypatch):
    """A step's own queue is consumed too, beside the app's default."""

    def send() -> None: ...

    parcel = registry.Step(send, name="parcel", policy=RetryPolicy(), timeout=None, options={"queue": "parcels"})
    monkeypatch.setitem(registry.steps, parcel.name, parcel)

    assert {"celery", "parcels"} <= set(dev_plan.queues_of(engine.celery))


def test_the_next_free_port_is_taken():
    """A port in use is no obstacle, unless it was asked for."""
    with dev.listen("127.0.0.1", None) as first, dev.listen("127.0.0.1", None) as second:
        ports = [sock.getsockname()[1] for sock in (first, second)]
        with pytest.raises(click.ClickException, match="Choose another port with --port"):
            dev.listen("127.0.0.1", ports[0])

    assert isinstance(first, socket.socket)
    assert 8000 <= ports[0] < ports[1]


def test_the_celery_app_must_have_a_name(application):
    """``celery -A`` finds it by that only."""
    with pytest.raises(ConfigurationError, match="Write `celery = Celery"):
        _ = application().celery_path


def test_celery_finds_the_app_by_its_name(application, engine):
    """Whatever that name is."""
    assert application(queue_app=engine.celery).celery_path == "shop:queue_app"


def test_the_embedded_application_loads():
    """The default of ``--app``, ``worker.app``, is the example application of this repository."""
    loaded = loading.load("worker.app")

    assert loaded.celery_path == "worker.app:celery"
    assert "worker.workflows.payments.process_event" in loaded.engine.celery.tasks
    loaded.engine.close()


def get(served, path):
    """The status and the text of an answer of a WSGI app."""
    answer = Client(served).get(path, base_url="http://127.0.0.1:8000", environ_base={"REMOTE_ADDR": "127.0.0.1"})
    text = answer.text
    answer.close()
    return answer.status_code, text


@pytest.fixture
def shop(engine, application, tmp_path, monkeypatch):
    """A module ``shop`` with an engine and a Flask app, importable by its name."""
    monkeypatch.setenv("DURABLE_DEV", "1")
    monkeypatch.setenv("DURABLE_DATABASE_URL", f"sqlite:///{tmp_path}/durable.db")
    engine.migrate()
    module = application(celery=engine.celery, engine=engine, app=flask.Flask("shop")).module
    monkeypatch.setitem(sys.modules, "shop", module)
    yield module
    engine.close()


def test_the_web_app_has_the_dashboard_beside_it(shop):
    """``durable dev`` serves the dashboard below /durable, and everything else is the application's."""
    shop.app.add_url_rule("/", view_func=lambda: "the shop")
    served = dev_web.with_dashboard("shop:app", "shop")

    assert get(served, "/") == (200, "the shop")
    status, page = get(served, "/durable/runs")
    assert status == 200
    assert "No run was started yet." in page
    assert 'href="/durable/workflows"' in page
    assert get(served, "/durable/static/dashboard.css")[0] == 200


def test_a_function_that_makes_the_web_app_is_called(shop):
    """``durable dev --web shop:create_app``, as Flask's command has it, besides gunicorn's ``shop:create_app()``."""
    shop.app.add_url_rule("/", view_func=lambda: "the shop")

    def create_app():
        return shop.app

    def application(environ, start_response):
        return shop.app(environ, start_response)

    shop.create_app, shop.application = create_app, application
    for target in ("shop:create_app", "shop:create_app()", "shop:application"):
        assert get(dev_web.with_dashboard(target, "shop"), "/") == (200, "the shop")


def test_routes_of_the_application_come_before_the_dashboard(shop):
    """An application with a dashboard of its own, or other routes at /durable, is served unchanged."""
    shop.app.add_url_rule("/durable/mine", view_func=lambda: "mine")

    assert dev_web.with_dashboard("shop:app", "shop") is shop.app
