"""
Who sends from outside: each plays one run's story, and sends again what was not answered 2xx.

Every request has an id of its own, also when it says the same as one before.
The book keeps what each was answered: it is compared with what the system has
recorded.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_SECS = 15.0
_PAUSE_SECS = 0.25


class GaveUp(Exception):
    """Raised when there is no time left to send again."""


class Mismatch(Exception):
    """Raised for an answer that must not be."""


@dataclass(frozen=True)
class Answered:
    """A request that was answered 2xx, and its answer."""

    id: str
    status: int
    body: bytes


@dataclass
class Story:
    """One run as the outside knows it."""

    kind: str
    args: list[Any]
    run_id: str | None = None
    answered: list[Answered] = field(default_factory=list)
    #: What went wrong from the outside's view.
    mismatches: list[str] = field(default_factory=list)
    #: The outside had no time left: what it wanted to say was never taken.
    gave_up: str | None = None
    #: The outside has said all that it wanted, or has given up.
    over: bool = False

    @property
    def name(self) -> str:
        return str(self.args[0])


class Senders:
    """Plays stories at *url* in threads; ``deadline`` (monotonic) is when the outside gives up."""

    def __init__(self, url: str, deadline: float) -> None:
        self.url = url
        self.deadline = deadline
        self.stories: list[Story] = []
        #: What went wrong for who sent: connections that broke before there was an answer, and 5xx.
        self.errors: list[str] = []
        self._threads: list[threading.Thread] = []

    def begin(self, story: Story) -> None:
        """Play a story in a thread of its own."""
        self.stories.append(story)
        thread = threading.Thread(target=self._play, args=(story,), name=story.name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        """Wait until all have said what they wanted, or have given up."""
        for thread in self._threads:
            thread.join(max(0.0, self.deadline + _TIMEOUT_SECS - time.monotonic()))

    def busy(self, since: int = 0) -> int:
        """How many stories still go on, of those from this one on."""
        return sum(not story.over for story in self.stories[since:])

    def _play(self, story: Story) -> None:
        try:
            story.run_id = self._json(lambda: self._send("POST", f"/start/{story.kind}", story.args))["run_id"]
            _PLOTS[story.kind](self, story)
        except GaveUp as gave_up:
            story.gave_up = str(gave_up)
        except Mismatch as mismatch:
            story.mismatches.append(str(mismatch))
        finally:
            story.over = True

    def events(self, story: Story, count: int) -> None:
        """Send *count* events, each until it is answered."""
        url = self._webhook(story)
        for number in range(1, count + 1):
            if url is None or not self._event(story, url, number, last=number == count):
                return

    def _event(self, story: Story, url: str, number: int, *, last: bool) -> bool:
        """One event; False when the run was over before it was answered."""
        tries = 0
        while True:
            tries += 1
            event_id = f"{story.name}/{number}/{tries}"
            answer = self._send("POST", url, {"id": event_id, "last": last}, event_id)
            if answer is None or (answer[0] >= 500 and b"webhook-response-not-sent" not in answer[1]):
                self._pause(f"event {event_id}")
                continue
            status, body, location = answer
            if status == 410 and tries > 1 and last:
                # One of the tries before, whose answer was lost, has ended the run.
                return False
            if status == 202 and location:
                status, body = self._poll(location)
            if status == 410 and tries > 1 and last:
                return False
            if status != 200 or json.loads(body) != {"echo": event_id}:
                raise Mismatch(f"event {event_id} was answered {status} {body[:200]!r}")
            story.answered.append(Answered(event_id, status, body))
            return True

    def _poll(self, location: str) -> tuple[int, bytes]:
        while True:
            answer = self._send("GET", location)
            if answer is not None and answer[0] not in (202, 503):
                return answer[0], answer[1]
            self._pause(f"the answer at {location[-30:]}")

    def upload(self, story: Story) -> None:
        """Send the upload's notification until the application accepts it."""
        while True:
            answer = self._send("POST", f"/upload/{story.name}", f"blob:{story.name}")
            if answer is not None and answer[0] == 200:
                return
            if answer is not None and answer[0] < 500 and answer[0] != 404:
                raise Mismatch(f"the upload of {story.name} was answered {answer[:2]}")
            if self.look(story)["status"] not in ("pending", "running"):
                return
            self._pause(f"the upload of {story.name}")

    def _webhook(self, story: Story) -> str | None:
        while True:
            seen = self.look(story)
            if seen["webhooks"]:
                return str(seen["webhooks"][0])
            if seen["status"] not in ("pending", "running"):
                return None
            self._pause(f"the webhook of {story.name}")

    def look(self, story: Story) -> Any:
        """The status and the webhooks of a run."""
        return self._json(lambda: self._send("GET", f"/runs/{story.run_id}"))

    def _json(self, send: Callable[[], tuple[int, bytes, str | None] | None]) -> Any:
        while (answer := send()) is None or answer[0] != 200:
            self._pause("an answer of the application")
        return json.loads(answer[1])

    def _pause(self, what: str) -> None:
        if time.monotonic() > self.deadline:
            raise GaveUp(f"no time left for {what}")
        time.sleep(_PAUSE_SECS)

    def _send(
        self, method: str, url: str, said: object = None, event_id: str | None = None
    ) -> tuple[int, bytes, str | None] | None:
        """Status, body and Location; None when the connection broke."""
        parts = urlsplit(url if url.startswith("http") else self.url + url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT_SECS)
        try:
            headers = {"Content-Type": "application/json"} | ({"X-Event": event_id} if event_id else {})
            connection.request(method, parts.path, None if said is None else json.dumps(said), headers)
            response = connection.getresponse()
            body = response.read()
            if response.status >= 500:
                self.errors.append(f"{method} {parts.path}: {response.status} {body[:200]!r}")
            return response.status, body, response.headers["Location"]
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(f"{method} {parts.path}: {error!r}")
            return None
        finally:
            connection.close()


def _verify(senders: Senders, story: Story) -> None:
    if story.args[1] == CALLED_BACK:
        senders.events(story, 1)


_PLOTS: dict[str, Callable[[Senders, Story], None]] = {
    "payments": lambda senders, story: senders.events(story, EVENTS),
    "verification": _verify,
    "imports": lambda senders, story: senders.upload(story),
    "fan_out": lambda senders, story: None,
    "chain": lambda senders, story: None,
}

#: Events that a payments run is sent, and steps of the other two.
EVENTS = 3
WIDTH = 8
LENGTH = 3
#: Deadlines of a verification that is called back, and of one that never is.
CALLED_BACK = "1h"
SILENT = "5s"


def story(number: int, draw: random.Random) -> Story:
    """The story of a number; what it is about is drawn."""
    kind = draw.choice(("payments", "payments", "verification", "verification", "imports", "fan_out", "chain"))
    name = f"{kind}-{number}"
    more: dict[str, list[Any]] = {
        "verification": [draw.choice((CALLED_BACK, SILENT))],
        "fan_out": [WIDTH],
        "chain": [LENGTH],
    }
    return Story(kind, [name, *more.get(kind, [])])
