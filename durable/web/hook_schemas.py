"""Models of the bodies of control requests and answers, of hooks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from .schemas import Strict


class Resume(Strict):
    """A payload for the open hook of a token."""

    token: Annotated[str, Field(min_length=1, max_length=255)]
    payload: Annotated[Any, Field(description="Checked against the hook's type, if this process has imported it.")]


class Ask(Resume):
    """A payload for the open hook of a token, whose sender waits for the reply."""

    timeout: Annotated[
        Annotated[float, Field(ge=0, le=55)] | None,
        Field(description="How many seconds to wait for the reply; by default the setting `hold_timeout`."),
    ] = None


class Resumed(BaseModel):
    """The run has the payload in its inbox."""

    run_id: str


class Replied(BaseModel):
    """What the workflow has replied, as plain JSON."""

    request_id: str
    reply: Any
