"""The agent of examples/agent: what it asks the model, and what it asks again; approvals; tools that fail."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

if os.environ.get("CI") != "true":
    pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed; the dependency group `test` has it")

from pydantic_ai import ModelMessage, ModelRequest, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from durable import Run, workflow
from durable.testing import Environment, crash_everywhere

FOLDER = Path(__file__).parents[2] / "examples" / "agent"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "agents.md"


@pytest.fixture
def agent(own_registry: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the example."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("agent")
    module.engine.close()  # the environment has its own
    yield module
    for name in ("agent", "web"):
        sys.modules.pop(name, None)


@pytest.fixture
def env(agent: Any) -> Iterator[Environment]:
    with Environment(signing_key="signs the tokens of the agent") as made:
        yield made


Said = str | dict[int, DeltaToolCall]


class Clerk:
    """A model: it looks up the order, then asks for the refund, then says what came of it.  It notes each request."""

    def __init__(self, **refund: Any) -> None:
        self.refund = refund or {"order_id": "7", "cents": 2_500}
        self.requests: list[str] = []

    async def reply(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        told = told_of(messages)
        self.requests.append(f"request {len(told)}")
        if not told:
            yield "I look it up."
            yield {1: DeltaToolCall("find_order", '{"order_id": "7"}', tool_call_id="c-1")}
        elif len(told) == 1:
            yield {0: DeltaToolCall("refund", self.refund, tool_call_id="c-2")}
        else:
            for word in ("Done: ", str(told[-1])):
                yield word

    def model(self) -> FunctionModel:
        return FunctionModel(stream_function=self.reply)


def told_of(messages: list[ModelMessage]) -> list[Any]:
    """What the tools have returned so far."""
    requests = [each for each in messages if isinstance(each, ModelRequest)]
    return [part.content for each in requests for part in each.parts if isinstance(part, ToolReturnPart)]


def approval_of(agent: Any, run: Run[Any]) -> Any:
    """What the run has asked a person."""
    return next(iter(run.stream(agent.approvals, timeout=0)))


def test_each_request_to_the_model_is_made_once(env: Environment, agent: Any) -> None:
    """The process is lost before the approval: another one replays the log, and asks the model nothing again."""
    clerk = Clerk()
    with agent.assistant.override(model=clerk.model()):
        run = env.start(agent.answer, "my money back")
        assert clerk.requests == ["request 0", "request 1"]
        env.restart()
        run = env.engine.get_run(run.id)
        approval = approval_of(agent, run)
        assert (approval.call.tool, approval.call.arguments) == ("refund", {"order_id": "7", "cents": 2_500})
        sent = env.post(approval.url, data="approve")
        assert (sent.status_code, sent.text) == (200, "refund: approved\n")
        env.run_until_idle()
    assert run.result(timeout=0).startswith("Done: paid back 2500 cents of order 7")
    assert clerk.requests == ["request 0", "request 1", "request 2"]
    assert "".join(run.stream(agent.tokens)) == "I look it up." + run.result(timeout=0)


def test_a_refusal_is_told_to_the_model_and_pays_nothing(env: Environment, agent: Any) -> None:
    """Whatever else is sent is answered with 400, and the agent waits on."""
    with agent.assistant.override(model=Clerk().model()):
        run = env.start(agent.answer, "my money back")
        url = approval_of(agent, run).url
        assert env.post(url, data="perhaps").status_code == 400
        assert run.status == "running"
        assert env.post(url, data="refuse").text == "refund: refused\n"
        env.run_until_idle()
        assert env.post(url, data="approve").status_code == 410
    assert run.result(timeout=0) == "Done: A person has refused this."
    assert "refund" not in [each.name.rpartition(".")[2] for each in run.events() if each.kind == "step_created"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"order_id": "7", "cents": 2_500, "euros": 25}, "euros"), ({"order_id": "7", "cents": "many"}, "cents")],
    ids=["unknown argument", "wrong type"],
)
def test_arguments_that_a_tool_does_not_take_are_told_to_the_model(
    env: Environment, agent: Any, arguments: dict[str, Any], reason: str
) -> None:
    with agent.assistant.override(model=Clerk(**arguments).model()):
        run = env.start(agent.answer, "my money back")
        env.post(approval_of(agent, run).url, data="approve")
        env.run_until_idle()
    told = run.result(timeout=0)
    assert told.startswith("Done: The tool has failed: ")
    assert reason in told


def test_without_a_key_the_page_works_with_the_test_model(env: Environment, agent: Any) -> None:
    """The model "test" calls each tool once; the view's token reads both streams."""
    agent.engine = env.engine
    web = importlib.import_module("web")
    client = web.create_app().test_client()
    assert b"EventSource" in client.get("/").data
    asked = client.post("/questions", data="hello").json
    env.run_until_idle()
    run: Run[str] = Run(asked["run"], env.engine)
    env.post(approval_of(agent, run).url, data="approve")
    env.run_until_idle()
    assert '"refund":"paid back 0 cents' in run.result(timeout=0)
    path = f"/.well-known/workflow/v1/streams/{run.id}/tokens?token={asked['token']}"
    items = re.findall(r'"item":"((?:[^"\\]|\\.)*)"', env.post(path, method="GET").text)
    assert "".join(items).replace('\\"', '"') == run.result(timeout=0)


def test_the_agent_s_own_loop_is_refused_in_a_workflow(env: Environment, agent: Any) -> None:
    """pydantic-ai draws a random id there: the run is blocked at the line, as docs/how-to/agents.md says."""

    @workflow
    async def loops(question: str) -> str:
        return str((await agent.assistant.run(question)).output)

    run = env.start(loops, "my money back")
    assert run.status == "blocked"
    with pytest.raises(TimeoutError, match="NonDeterministicCall"):
        run.result(timeout=0)


@pytest.mark.slow
def test_wherever_it_crashes_the_answer_is_the_same(agent: Any) -> None:
    """The person's approval is answered once, and the model ends with the same words."""
    clerk = Clerk()

    def during(env: Environment, run: Run[Any]) -> None:
        while run.status in ("pending", "running") and (run.hooks() or env.jump()):
            for hook in run.hooks():
                env.post(hook["url"], data="approve")
                env.jump()

    with agent.assistant.override(model=clerk.model()):
        report = crash_everywhere(agent.answer, "my money back", during=during, sample=30)
    assert report.played == 30


def test_the_page_shows_the_agent_as_it_is(env: Environment, agent: Any) -> None:
    """Each example of docs/how-to/agents.md is in examples/agent, word for word; the test that it shows passes."""
    program = "\n".join((FOLDER / name).read_text() for name in ("agent.py", "web.py", "page.html"))
    shown = re.findall(r"^```(?:python|js)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(shown) > 5
    (own,) = [each for each in shown if each not in program]
    names = dict(vars(agent))
    exec(own, names)
    names["test_a_refusal"](env)
