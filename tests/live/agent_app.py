"""The agent of the examples with a model of its own, which notes each request that it gets in a file."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import flask
from pydantic_ai import ModelMessage, ModelRequest, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "agent"))

import agent
import web
from agent import celery, engine

__all__ = ["celery", "create_app", "engine"]

WORDS = 200


async def clerk(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
    """Look up the order, ask for the refund, and tell in 200 words what came of it."""
    requests = [each for each in messages if isinstance(each, ModelRequest)]
    told: list[Any] = [part.content for each in requests for part in each.parts if isinstance(part, ToolReturnPart)]
    with open(os.environ["REQUESTS"], "a") as file:
        file.write(f"{len(told)}\n")
    if not told:
        yield "I look it up. "
        yield {1: DeltaToolCall("find_order", '{"order_id": "7"}', tool_call_id="c-1")}
    elif len(told) == 1:
        yield {0: DeltaToolCall("refund", '{"order_id": "7", "cents": 2500}', tool_call_id="c-2")}
    else:
        yield f"{told[-1]}:"
        for number in range(WORDS):
            await asyncio.sleep(0.01)
            yield f" {number}"


agent.assistant.model = FunctionModel(stream_function=clerk)


def create_app() -> flask.Flask:
    app = web.create_app()
    app.add_url_rule("/health", view_func=lambda: {"status": "ok"})
    return app
