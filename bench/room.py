"""Views of plain Flask that hold requests: what a connection that waits takes without durable."""

from __future__ import annotations

import threading

import flask

#: Longer than anybody is held.
_MOST_SECS = 120.0


class Room:
    """Who waits here is let go by ``GET /go``; ``GET /waiting`` says how many there are."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = 0
        self._rounds = 0

    def enter(self, app: flask.Flask) -> None:
        """Add the views."""
        app.add_url_rule("/wait", view_func=self.wait, methods=["POST"])
        app.add_url_rule("/waiting", view_func=self.waiting)
        app.add_url_rule("/go", view_func=self.go)

    def wait(self) -> str:
        """Hold this request."""
        flask.request.get_data()
        with self._changed:
            self._waiting += 1
            mine = self._rounds
            self._changed.wait_for(lambda: self._rounds != mine, _MOST_SECS)
            self._waiting -= 1
        return "gone"

    def waiting(self) -> str:
        """How many wait."""
        return str(self._waiting)

    def go(self) -> str:
        """Let all go."""
        with self._changed:
            self._rounds += 1
            self._changed.notify_all()
        return "gone"
