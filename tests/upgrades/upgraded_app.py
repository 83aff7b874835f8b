"""The worker and the web application of upgraded_flows, and what is done with them; run by record_upgrades.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import flask
import upgraded_flows as flows
from celery import Celery

import durable
from durable import Durable
from durable.web import create_blueprint

celery = Celery("upgraded")
celery.conf.worker_prefetch_multiplier = 1
engine = Durable(celery, public_url="http://upgraded.test")


def start(workflow: Any, name: str, **options: Any) -> Any:
    """Start a run, whose id is its only argument."""
    return workflow.with_options(run_id=name, **options).start(name)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after 120 s: {what}")
        time.sleep(0.02)


def has_run(name: str) -> bool:
    """Whether a step has begun."""
    return name in Path(os.environ["UPGRADED_LEDGER"]).read_text().split("\n")


def has_event(run_id: str, kind: str) -> bool:
    """Whether the log of a run has such an event."""
    return any(event.kind == kind for event in engine.get_run(run_id).events())


def post(run_id: str, event: dict[str, Any]) -> int:
    """Send a request to the webhook of a run; the status of the answer."""
    (hook,) = engine.get_run(run_id).hooks()
    return request(hook["url"], event)


def request(url: str, body: object) -> int:
    """Send a request to the web application; the status of the answer."""
    app = flask.Flask("upgraded")
    app.register_blueprint(create_blueprint(engine))
    return app.test_client().post(url, json=body, base_url="http://upgraded.test").status_code


def migrate() -> None:
    """Make the schema."""
    engine.migrate()


def begin_changed() -> None:
    """Before the code changes under it."""
    start(flows.changed, "blocked")
    until(lambda: has_event("blocked", "step_completed"), "it waits at the hook")


def block_changed() -> None:
    """The code has changed."""
    engine.resume_hook("of blocked", {"said": "2"})
    until(lambda: engine.get_run("blocked").status == "blocked", "the run is blocked")


def begin() -> None:
    """Bring the runs to where they wait."""
    for workflow in (flows.in_step, flows.in_steps, flows.in_retry, flows.in_sleep, flows.in_long_sleep, flows.at_hook):
        start(workflow, _name(workflow))
    for name in ("at-race", "race-given"):
        start(flows.at_race, name)
    for name in ("at-webhook", "at-webhook-held", "at-webhook-recorded"):
        start(flows.at_webhook, name)
    start(flows.at_hook, "at-hook-cancelled")
    start(flows.at_hook, "at-hook-resumed")
    start(flows.at_hook, "completed")
    start(flows.refused, "failed")
    start(flows.in_sleep, "cancelled")
    until(lambda: has_event("completed", "step_completed"), "it waits at the hook")
    engine.resume_hook("of completed", {"said": "2"})
    until(lambda: has_event("cancelled", "wait_created"), "it sleeps")
    engine.get_run("cancelled").cancel()
    for name in ("at-webhook", "at-webhook-held", "at-webhook-recorded"):
        until(lambda name=name: engine.get_run(name).hooks(), f"{name} has its webhook")  # type: ignore[misc]
    assert post("at-webhook-held", {"id": "held", "last": True}) == 202
    _begin_later_kinds()
    for name in ("in-step/2", "in-steps/3", "in-steps/4", "in-retry/1", "at-webhook-held/held"):
        until(lambda name=name: has_run(name), f"{name} runs")  # type: ignore[misc]
    until(lambda: has_event("in-retry", "step_retrying"), "it waits for its next attempt")
    for name in ("in-sleep", "in-long-sleep"):
        until(lambda name=name: has_event(name, "wait_created"), f"{name} sleeps")  # type: ignore[misc]
    for name in ("at-hook", "at-hook-cancelled", "at-hook-resumed", "at-race", "race-given"):
        until(lambda name=name: has_event(name, "step_completed"), f"{name} waits")  # type: ignore[misc]
    for name, status in (("completed", "completed"), ("failed", "failed"), ("cancelled", "cancelled")):
        until(lambda name=name, status=status: engine.get_run(name).status == status, status)  # type: ignore[misc]


def _begin_later_kinds() -> None:
    if flows.HAS_CHILDREN:
        start(flows.with_children, "with-children")
        start(flows.in_doubt, "in-doubt")
        for name in ("with-children/a/2", "with-children/b/1", "in-doubt/1"):
            until(lambda name=name: has_run(name), f"{name} runs")  # type: ignore[misc]
    if flows.HAS_GENERATIONS:
        start(flows.in_generation, "in-generation")
        until(lambda: has_run("in-generation/2"), "the third generation runs")
    if flows.HAS_LIMITS:
        start(flows.in_line, "in-line")
        until(lambda: has_run("in-line/0"), "one step has the slot")
    if flows.HAS_PUBLISHED:
        start(flows.publishing, "publishing")
        until(lambda: has_event("publishing", "hook_created"), "it waits at the hook")
    if flows.HAS_RUN_LIMITS:
        start(flows.one_by_one, "one-by-one-1")
        until(lambda: has_run("one-by-one-1/1"), "one run has the slot")
        start(flows.one_by_one, "one-by-one-2")


def go_on_alone() -> None:
    """What other processes do after the workers have died."""
    start(flows.in_step, "pending")
    start(flows.in_step, "scheduled", countdown=30)
    engine.get_run("at-hook-cancelled").cancel()
    engine.resume_hook("of at-hook-resumed", {"said": "2"})
    engine.resume_hook("of race-given", {"said": "2"})
    assert post("at-webhook-recorded", {"id": "recorded", "last": True}) == 202
    if flows.HAS_RECEIVERS:
        assert request("/.well-known/workflow/v1/receive/upgraded-orders", {"id": "1"}) == 202
    if flows.HAS_SCHEDULES:
        until_when = datetime.now(UTC) + timedelta(seconds=50)
        durable.create_schedule("upgraded", flows.planned, ("planned",), every="20s", until=until_when)
    if flows.HAS_RUN_LIMITS:
        for _ in range(2):
            flows.debounced.start("debounced")
    if flows.HAS_FORKS:
        steps = [event.op_id for event in engine.get_run("completed").events() if event.kind == "step_created"]
        engine.get_run("completed").fork(from_step=steps[-1])


def _name(workflow: Any) -> str:
    return str(workflow.name).rpartition(".")[2].replace("_", "-")


if __name__ == "__main__":
    {each.__name__: each for each in (migrate, begin_changed, block_changed, begin, go_on_alone)}[sys.argv[1]]()
    print(json.dumps("done"))
