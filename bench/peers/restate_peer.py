"""
Restate: its server, one process of handlers under Hypercorn, and a client of the server's HTTP interface.

The server's binary is named by ``BENCH_RESTATE_SERVER``.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import restate
from restate import Workflow, WorkflowContext, WorkflowSharedContext

_UP_SECS = 60.0
_WAIT_SECS = 900.0

sequence_workflow = Workflow("sequence")
fan_out_workflow = Workflow("fan_out")
sleeper_workflow = Workflow("sleeper")
request_workflow = Workflow("one_request")


async def stamp(number: int) -> dict[str, Any]:
    """When this line ran."""
    return {"number": number, "at": time.time()}


@sequence_workflow.main("run")
async def sequence(ctx: WorkflowContext, length: int) -> list[float]:
    """One step after the other; the first one's stamp, and the last one's."""
    stamps = [(await ctx.run_typed("stamp", stamp, number=number))["at"] for number in range(length)]
    return [stamps[0], stamps[-1]]


@fan_out_workflow.main("run")
async def fan_out(ctx: WorkflowContext, count: int) -> int:
    """That many steps at once, gathered."""
    return len(await restate.gather(*(ctx.run_typed("stamp", stamp, number=number) for number in range(count))))


@sleeper_workflow.main("run")
async def sleeper(ctx: WorkflowContext, secs: float) -> list[float]:
    """The stamp of a step before a sleep, and of one after it."""
    before = await ctx.run_typed("before", stamp, number=0)
    await ctx.sleep(timedelta(seconds=secs))
    return [before["at"], (await ctx.run_typed("after", stamp, number=1))["at"]]


@request_workflow.main("run")
async def one_request(ctx: WorkflowContext, _: float) -> dict[str, Any]:
    """Wait for one request, and have it answered."""
    await ctx.promise("waits").resolve(True)
    await ctx.promise("request").value()
    answer = await ctx.run_typed("answer", stamp, number=0)
    await ctx.promise("answer").resolve(answer)
    return answer


@request_workflow.handler("waits")
async def waits(ctx: WorkflowSharedContext, _: float) -> Any:
    """Return once the workflow is about to wait."""
    return await ctx.promise("waits").value()


@request_workflow.handler("request")
async def request(ctx: WorkflowSharedContext, body: dict[str, str]) -> Any:
    """Take the request; return the workflow's answer."""
    await ctx.promise("request").resolve(body)
    return await ctx.promise("answer").value()


app = restate.app([sequence_workflow, fan_out_workflow, sleeper_workflow, request_workflow])


class Peer:
    """A client on one connection, which the server keeps open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_SECS)

    def start(self, workflow: str, argument: float = 0) -> Any:
        """The workflow and its key."""
        started = f"{workflow}/{uuid.uuid4().hex}"
        self._ask("POST", f"/{started}/run/send", argument)
        return started

    def result(self, started: Any) -> Any:
        """The server answers when it has ended."""
        return self._ask("GET", f"/restate/workflow/{started}/attach")

    def waits(self, started: Any) -> None:
        """By a promise of the workflow."""
        self._ask("POST", f"/{started}/waits", 0)

    def request(self, started: Any) -> Any:
        """One request, which is answered by the workflow's step."""
        return self._ask("POST", f"/{started}/request", {"type": "paid"})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        text = None if body is None else json.dumps(body)
        return ask(self._connection, method, path, text)


def ask(connection: http.client.HTTPConnection, method: str, path: str, text: str | None) -> Any:
    """The answer's JSON."""
    connection.request(method, path, text, {} if text is None else {"Content-Type": "application/json"})
    answer = connection.getresponse()
    read = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"Restate answered {method} {path} with {answer.status}: {read[:500]!r}")
    return json.loads(read) if read else None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def open(environment: Mapping[str, str]) -> Iterator[Peer]:
    """Start the server and the handlers, and register them."""
    node, ingress, admin, handlers = (free_port() for _ in range(4))
    with tempfile.TemporaryDirectory(prefix="durable-bench-") as folder:
        settings = {
            "RESTATE_BASE_DIR": folder,
            # It leaves a folder for each of its threads there.
            "TMPDIR": folder,
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_LOG_FILTER": "error",
            "RESTATE_DISABLE_TELEMETRY": "true",
        }
        server = [environment["BENCH_RESTATE_SERVER"], "--no-logo"]
        serve = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{handlers}", "restate_peer:app"]
        quiet = ["--log-level", "ERROR"]
        processes = [
            subprocess.Popen(server, env={**os.environ, **settings}),
            subprocess.Popen([*serve[:3], *quiet, *serve[3:]]),
        ]
        try:
            _register(admin, handlers)
            yield Peer(ingress)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _register(admin: int, handlers: int) -> None:
    """Tell the server where the handlers are, once both answer."""
    deadline = time.monotonic() + _UP_SECS
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=_UP_SECS)
            ask(connection, "POST", "/deployments", json.dumps({"uri": f"http://127.0.0.1:{handlers}"}))
            return
        except (OSError, RuntimeError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
