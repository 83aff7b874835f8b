"""What a case of the corpus is, and what several of them use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from durable import HookNotFound, Run, step
from durable.registry.definitions import Workflow
from durable.store import run_log
from durable.testing import Environment

During = Callable[[Environment, Run[Any]], object]


@dataclass(frozen=True)
class Case:
    """A workflow, its arguments, what the outside world does meanwhile, and what is compared in the end."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...] = ()
    during: During | None = None
    outcome: Callable[[Run[Any]], Any] | None = None

    def __str__(self) -> str:
        return self.workflow.name.removeprefix("corpus.")


@step(name="corpus.add", retry_backoff=0)
def add(a: int, b: int) -> int:
    return a + b


@step(name="corpus.echo", retry_backoff=0)
def echo(value: str) -> str:
    return value


def resumes(*payloads: tuple[str, Any]) -> During:
    """The outside world: resumes these tokens in this order, each once, as far as the log tells."""

    def during(env: Environment, run: Run[Any]) -> None:
        for number, (token, payload) in enumerate(payloads):
            received = sum(event.kind == "hook_received" for event in waited(env, run).events())
            if received <= number:
                resume(env, run, token, payload)

    return during


def during_posts(*kinds: str) -> During:
    """The outside world: posts these, one after the other, and each again until it is answered with 200 or 410."""

    def during(env: Environment, run: Run[Any]) -> None:
        env.run_until_idle()
        while not is_over(run) and not run.hooks():
            if not env.jump():
                return
        url = next((hook["url"] for hook in run.hooks()), None)
        for kind in kinds:
            while not is_over(run) and url is not None:
                answer = env.post(url, json={"type": kind})
                if answer.status_code in (200, 410):
                    break
                env.jump()

    return during


def resume(env: Environment, run: Run[Any], token: str, payload: Any) -> None:
    """Resume a hook once it is there; not when the run has ended without it."""
    while True:
        try:
            return env.resume(token, payload)
        except HookNotFound:
            if is_over(run) or not env.jump():
                return


def waited(env: Environment, run: Run[Any]) -> Run[Any]:
    """The run, once what lies in its inbox has come into its log."""
    while _has_news(env, run) and not is_over(run):
        env.jump()
    return run


def is_over(run: Run[Any]) -> bool:
    return run.status in ("completed", "failed", "cancelled")


def _has_news(env: Environment, run: Run[Any]) -> bool:
    with env.store.read() as tx:
        return run_log.first_inbox_item(tx, run.id) is not None
