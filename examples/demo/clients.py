"""HTTP clients: one starts and reads runs, the other sends a webhook request as payment providers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

ROUTES = "/.well-known/workflow/v1"
_PAUSE_SECS = 0.25


class Client:
    """A client of the routes that start and show runs (docs/how-to/control.md)."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url + ROUTES
        self._headers = {"Authorization": f"Bearer {secret}"}

    def answers(self) -> bool:
        """Whether the web process is up."""
        return self._get("/runs?limit=1") is not None

    def start(self, workflow: str, argument: object) -> str:
        """Start a run, and return its id."""
        body = {"workflow": f"demo.shop.{workflow}", "args": [argument]}
        status, answer = send("POST", f"{self._url}/runs", body, self._headers)
        if status != 201:
            raise HTTPException(f"POST {self._url}/runs was answered {status}: {answer}")
        return str(answer["id"])

    def show(self, run_id: str) -> dict[str, Any]:
        """A run; nothing while the web process does not answer."""
        return self._get(f"/runs/{run_id}") or {}

    def webhook(self, run_id: str) -> str | None:
        """The URL of the webhook that a run waits for."""
        waiting = self.show(run_id).get("waiting_for", [])
        return next((operation["url"] for operation in waiting if operation["kind"] == "webhook"), None)

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            status, answer = send("GET", self._url + path, None, self._headers)
        except (OSError, HTTPException):
            return None
        return answer if status == 200 else None


class Sender(threading.Thread):
    """
    Sends one webhook request.  When a connection breaks it sends the request again, with the same key.

    Attributes:
        broken: For each connection that broke, how.
        answer: The status and the body that it got at last.
    """

    def __init__(self, url: str, body: object, key: str) -> None:
        super().__init__(daemon=True)
        self.broken: list[str] = []
        self.answer: tuple[int, Any] | None = None
        self._request = ("POST", url, body, {"Idempotency-Key": key})

    def run(self) -> None:
        while self.answer is None:
            try:
                self.answer = send(*self._request)
            except (OSError, HTTPException) as error:
                self.broken.append(type(error).__name__)
                time.sleep(_PAUSE_SECS)


def send(method: str, url: str, body: object, headers: Mapping[str, str]) -> tuple[int, Any]:
    """Send one request with a JSON body.  Returns the status and the JSON of the answer."""
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    try:
        data = None if body is None else json.dumps(body)
        target = url.removeprefix(f"{parts.scheme}://{parts.netloc}")
        connection.request(method, target, data, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()
