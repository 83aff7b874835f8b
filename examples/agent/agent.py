"""
An agent that survives: each request to the model and each call of a tool is a step.

Start it in this folder, and open http://localhost:8000:

    export DURABLE_SIGNING_KEY=$(openssl rand -hex 32)
    export AGENT_MODEL=openai:gpt-5        # left out: pydantic-ai's TestModel, which needs no key
    durable --app agent dev --web "web:create_app()"

or its processes, with DURABLE_DATABASE_URL, DURABLE_BROKER_URL and DURABLE_PUBLIC_URL:

    celery -A agent worker
    flask --app web run
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery
from pydantic_ai import (
    Agent,
    AgentStreamEvent,
    DeferredToolRequests,
    DeferredToolResults,
    ExternalToolset,
    ModelMessagesTypeAdapter,
    PartDeltaEvent,
    PartStartEvent,
    RunContext,
    TextPart,
    TextPartDelta,
    Tool,
)

from durable import Durable, Request, Stream, create_webhook, emit, get_step_metadata, step, workflow

celery = Celery("agent")
engine = Durable(celery)


@dataclass
class Call:
    """A tool that the model wants to use."""

    id: str
    tool: str
    arguments: dict[str, Any]


@dataclass
class Reply:
    """What one request to the model brought: calls of tools, or a text."""

    messages: list[Any]
    calls: list[Call]
    text: str


@dataclass
class Approval:
    """What a person is asked, and the URL that takes the answer."""

    call: Call
    url: str


tokens = Stream("tokens", str, on_retry="discard")
approvals = Stream("approvals", Approval)


@step
def find_order(order_id: str) -> dict[str, Any]:
    """Look up what was bought, and its price in cents."""
    return {"order": order_id, "item": "a teapot", "cents": 2_500}


@step
def refund(order_id: str, cents: int) -> str:
    """Pay money back to the customer."""
    key = get_step_metadata().idempotency_key  # for the payment service: it pays once for a key
    return f"paid back {cents} cents of order {order_id} ({key[:8]})"


TOOLS: dict[str, Callable[..., Any]] = {"find_order": find_order, "refund": refund}
NEED_APPROVAL = {"refund"}

assistant = Agent(
    os.environ.get("AGENT_MODEL", "test"),
    instructions="You help the customers of a shop.",
    # The model may call these tools, and the agent's run ends there: the workflow runs them.
    toolsets=[ExternalToolset([Tool(tool).tool_def for tool in TOOLS.values()])],
    output_type=[str, DeferredToolRequests],
)


@step
async def think(question: str | None, history: list[Any], results: dict[str, Any]) -> Reply:
    """One request to the model, which gets all that was said before."""
    run = await assistant.run(
        question,
        message_history=ModelMessagesTypeAdapter.validate_python(history),
        deferred_tool_results=DeferredToolResults(calls=results) if results else None,
        event_stream_handler=show,
    )
    messages = ModelMessagesTypeAdapter.dump_python(run.new_messages(), mode="json")
    if isinstance(run.output, str):
        return Reply(messages, [], run.output)
    calls = [Call(call.tool_call_id, call.tool_name, call.args_as_dict()) for call in run.output.calls]
    return Reply(messages, calls, "")


async def show(context: RunContext, events: AsyncIterable[AgentStreamEvent]) -> None:
    """Emit the text as it comes."""
    async for event in events:
        match event:
            case PartStartEvent(part=TextPart(content=text)):
                emit(tokens, text)
            case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                emit(tokens, text)


@workflow
async def answer(question: str) -> str:
    reply = await think(question, [], {})
    history = reply.messages
    while reply.calls:
        results = await asyncio.gather(*(use(call) for call in reply.calls))
        reply = await think(None, history, {call.id: result for call, result in zip(reply.calls, results, strict=True)})
        history = history + reply.messages
    return reply.text


async def use(call: Call) -> Any:
    """What the tool returns, or why it did not: the model is told either."""
    if call.tool in NEED_APPROVAL and not await approved(call):
        return "A person has refused this."
    try:
        tool = TOOLS[call.tool]
        return await tool(**call.arguments)
    except Exception as error:  # whatever a tool raises, also for arguments that it does not take
        return f"The tool has failed: {error}"


async def approved(call: Call) -> bool:
    """Whether a person approves; waits for a minute or for months."""
    with create_webhook(respond_with="manual") as webhook:
        emit(approvals, Approval(call, webhook.url))
        async for request in webhook:
            if (decision := await decide(request, call)) != "unclear":
                return decision == "approve"
    return False


@step
def decide(request: Request, call: Call) -> str:
    """Read the decision, and answer the person who has sent it."""
    decision = request.text().strip()
    if decision not in ("approve", "refuse"):
        request.respond_with(("Send the word approve or refuse.\n", 400))
        return "unclear"
    request.respond_with(f"{call.tool}: {decision}d\n")
    return decision
