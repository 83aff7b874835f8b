"""``openapi.json``: what the blueprint serves, for programs."""

from __future__ import annotations

from typing import Any

import flask

from ..http import Response
from . import answers, body, failing, openapi, reading
from .controlling import Authorize


class Describer:
    """Serves the OpenAPI document of one blueprint.  It names no run, workflow or token: anybody may read it."""

    def __init__(self, engine: Any, control: Authorize | None) -> None:
        self._engine = engine
        self._control = control

    def view(self) -> flask.Response:
        """Flask's view."""
        try:
            answer = self._answer(flask.request.method)
        except Exception as error:
            answer = failing.answer(error)
        body.discard(flask.request)
        return answers.to_flask(answer)

    def _answer(self, method: str) -> Response:
        if method != "GET":
            return answers.wrong_method(method, ["GET"])
        document = openapi.document(
            reading.base_of(self._engine.settings.public_url, flask.request),
            reading.ROOT,
            security=getattr(self._control, "security_scheme", None),
            controls=self._control is not None,
        )
        return Response.json(document)
