"""Workflows for the acceptance list: what a sender may do to a webhook, and what a step may answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from durable import BadRequestBody, Request, Response, create_webhook, step, verify, workflow

#: What no server may be given, by name.
BAD: dict[str, Any] = {
    "line end in a name": lambda: Response(b"", headers=[("X-A\r\nX-B", "1")]),
    "line end in a value": lambda: Response(b"", headers=[("X-A", "1\r\n\r\nHTTP/1.1 200 OK")]),
    "LF in a value": lambda: Response(b"", headers=[("X-A", "1\nX-B: 2")]),
    "NUL in a value": lambda: Response(b"", headers=[("X-A", "1\x00")]),
    "line end in a type": lambda: Response(b"", content_type="text/plain\r\nX-B: 2"),
    "outside Latin-1": lambda: Response(b"", headers=[("X-A", "\u20ac")]),
    "status with a line": lambda: Response(b"", "200 OK\r\nX-B: 2"),
    "status 1000": lambda: Response(b"", 1000),
    "status 101": lambda: Response(b"", 101),
    "body with 204": lambda: Response(b"x", 204),
    "2 MiB": lambda: Response(b"x" * 2 * 1024 * 1024),
}


@step
def answer(request: Request) -> str:
    request.respond_with(Response(b"answer to " + request.data, content_type="text/plain"))
    return request.text()


@workflow
async def answers(key: str, count: int) -> list[str]:
    """Answer so many, told apart by a header if one is named."""
    found = []
    async for request in create_webhook("manual", dedupe=key or None):
        found.append(await answer(request))
        if len(found) == count:
            break
    return found


@workflow
async def takes(count: int) -> list[bytes]:
    """So many bodies, in the default mode."""
    found: list[bytes] = []
    async for request in create_webhook():
        found.append(request.data)
        if len(found) == count:
            break
    return found


@workflow
async def takes_signed(wanted: dict[str, Any]) -> bytes:
    """One body of a sender that is verified."""
    request = await create_webhook(verify=verify.Verification.from_json(wanted))
    return request.data


@step
def look(request: Request) -> dict[str, Any]:
    """What is there, and whether it is JSON."""
    try:
        request.json()
        said = "json"
    except BadRequestBody as error:
        said = type(error).__name__
    request.respond_with(Response(b""))
    return {"data": request.data, "json": said, "headers": [v for k, v in request.headers if k == "X-Twice"]}


@workflow
async def looks() -> dict[str, Any]:
    return await look(await create_webhook("manual"))


@step
def answer_badly(request: Request) -> list[str]:
    """Try every bad answer, then give a good one that uses what the wire takes apart; the names of those refused."""
    refused = []
    for name, make in BAD.items():
        try:
            request.respond_with(make())
        except (TypeError, ValueError):
            refused.append(name)
    smuggling = [("Transfer-Encoding", "chunked"), ("Content-Length", "1"), ("Connection", "keep-alive")]
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    request.respond_with(Response(b"good", 200, [*smuggling, *cookies], "text/plain"))
    return refused


@workflow
async def answers_badly() -> list[str]:
    return await answer_badly(await create_webhook("manual"))


@step
def answer_as_asked(request: Request) -> None:
    shapes = {
        "204": Response.empty(),
        "304": Response(b"", 304, {"ETag": '"7"'}),
        "303": Response.redirect("https://elsewhere.test/?q=1"),
        "900": Response(b"x" * 900 * 1024),
    }
    request.respond_with(shapes[request.text()])


@workflow
async def answers_as_asked(count: int) -> None:
    webhook = create_webhook("manual")
    for _ in range(count):
        await answer_as_asked(await webhook)


@step
def answer_behind_gate(request: Request, folder: str) -> None:
    """Say that the attempt has begun, wait until the test opens the gate, and answer."""
    (Path(folder) / "begun").touch()
    pause = threading.Event()
    while not (Path(folder) / "open").exists():
        pause.wait(0.01)
    request.respond_with(Response(b"late", content_type="text/plain"))


@workflow
async def answers_behind_gate(folder: str) -> None:
    await answer_behind_gate(await create_webhook("manual", dedupe="X-Id"), folder)
