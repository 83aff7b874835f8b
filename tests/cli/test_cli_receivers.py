"""``durable receivers``: what it lists, and what it routes again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from click.testing import CliRunner, Result
from driving import settle

from durable import Durable, Request, context, receiver, workflow
from durable.cli import main
from durable.web import create_blueprint


@pytest.fixture
def rules(own_registry: None) -> Iterator[dict[str, Any]]:
    """A receiver whose start rule says what this dict has."""
    found: dict[str, Any] = {"when": lambda request: request.json()["type"] == "paid"}
    shop = receiver("cli.shop")

    @shop.start(when=lambda request: found["when"](request))
    @workflow(name="cli.on_payment")
    async def on_payment(request: Request) -> str:
        return str(request.json()["id"])

    yield found
    context.receivers.pop("cli.shop", None)


@pytest.fixture
def durable(engine: Durable, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command on the engine of this process."""
    monkeypatch.setattr("durable.cli.common.Context.engine", engine)

    def run(*args: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main, ["receivers", *args])
        assert done.exit_code == code, done.output
        return done

    return run


def post(engine: Durable, *bodies: Any) -> None:
    app = flask.Flask("cli-receivers")
    app.register_blueprint(create_blueprint(engine))
    for body in bodies:
        app.test_client().post("/.well-known/workflow/v1/receive/cli.shop", json=body)


def test_the_list_shows_receivers_and_their_requests(engine: Durable, rules: dict[str, Any], durable: Any) -> None:
    """The URL to give to the sender, how many requests have which outcome, and the reason of those that are kept."""
    post(engine, {"id": 1, "type": "paid"}, {"id": 2, "type": "sent"}, {"id": 3})

    (listed,) = (each for each in json.loads(durable("list", "--json").stdout) if each["name"] == "cli.shop")
    requests = json.loads(durable("list", "--requests", "--json").stdout)
    kept = durable("list", "--outcome", "unroutable").stdout

    assert listed["url"] == "https://hooks.test/.well-known/workflow/v1/receive/cli.shop"
    assert listed["rules"] == ["start cli.on_payment"]
    assert listed["requests"] == {"ignored": 1, "started": 1, "unroutable": 1}
    assert [each["outcome"] for each in requests] == ["unroutable", "ignored", "started"]
    assert "when raised KeyError: 'type'" in kept
    assert kept.count("\n") == 2
    assert re.search(r"cli\.shop +1 +1 ignored, 1 started, 1 unroutable", durable("list").stdout)


def test_retry_takes_what_a_corrected_rule_routes(engine: Durable, rules: dict[str, Any], durable: Any) -> None:
    """It asks, names the runs, and finds nothing more to do afterwards."""
    post(engine, {"id": 7}, {"id": 8})
    rules["when"] = lambda request: True

    durable("retry", "--all", code=1)
    (first, second) = json.loads(durable("retry", "--all", "--yes", "--json").stdout)
    runs = [engine.get_run(each["requests"][0]["run_id"]) for each in (first, second)]
    settle(engine, *runs)

    assert [run.result(timeout=0) for run in runs] == ["7", "8"]
    assert durable("retry", "--all").stdout == "No request is unroutable or missed.\n"
    assert "cannot be routed again" in durable("retry", first["id"], code=1).output
    durable("retry", code=2)


def test_retry_of_all_takes_the_oldest(
    engine: Durable, rules: dict[str, Any], durable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are more requests than one call takes, it takes the oldest, so that their order is kept."""
    monkeypatch.setattr("durable.cli.receivers._MOST", 2)
    post(engine, {"id": 1}, {"id": 2}, {"id": 3})
    rules["when"] = lambda request: True

    results = []
    for expected in (2, 1):
        results.append(json.loads(durable("retry", "--all", "--yes", "--json").stdout))
        assert len(results[-1]) == expected
    runs = [engine.get_run(each["requests"][0]["run_id"]) for batch in results for each in batch]
    settle(engine, *runs)

    assert [run.result(timeout=0) for run in runs] == ["1", "2", "3"]


def test_retry_without_the_receiver_says_what_to_import(engine: Durable, rules: dict[str, Any], durable: Any) -> None:
    """The request stays as it is."""
    post(engine, {"id": 7})
    (kept,) = json.loads(durable("list", "--requests", "--json").stdout)
    context.receivers.pop("cli.shop")

    assert "which this application does not have" in durable("retry", kept["id"], code=1).output
    assert "not imported" in durable("list").stdout
