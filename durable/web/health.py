"""The health route: says whether this web process can accept webhooks, for load balancers and orchestrators."""

from __future__ import annotations

import flask

from ..http import Response
from ..store import runs
from . import body, errors, problems
from .webhook_view import Receiver

NAME = "health"


class Health:
    """Answers 200 when the database answers and has this code's schema, and 503 when not.  Anybody may ask."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def view(self) -> flask.Response:
        """Answer one request; this is Flask's view."""
        method = flask.request.method
        try:
            if method not in ("GET", "HEAD"):
                answer = problems.wrong_method(method, ["GET", "HEAD"])
            else:
                self._receiver.check_schema()
                with self._receiver.engine.store.read() as tx:
                    runs.find(tx, "-")  # a short query, since the schema is checked only once
                answer = Response.json({"status": "ok"})
        except Exception as error:
            answer = errors.answer(error)
        body.discard(flask.request)
        return problems.to_flask(answer, [("Cache-Control", "no-store")] if answer.status == 200 else ())
