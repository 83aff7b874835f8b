"""Models of the bodies of control requests and answers that let runs go on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from .run_schemas import Started
from .schemas import NO_NUL, WHOLE, Strict


class Fork(Strict):
    """Where to fork a run; without a step and an event, where it has failed."""

    from_step: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)] | None,
        Field(description="Call this step again: its name, or the id of one call."),
    ] = None
    from_event: Annotated[
        int | None, Field(ge=1, le=2**53, description="Go on behind this event of the log, by its `seq`."), WHOLE
    ] = None
    reapply_payloads: Annotated[
        bool, Field(description="Whether the fork gets what came to the open hooks after that.")
    ] = True


class Resolve(Strict):
    """What has become of a step in doubt: its result, or why it has failed."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["result"]}, {"required": ["fail"]}]})

    step: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)] | None,
        Field(description="The id of the step; needed only if several are in doubt."),
    ] = None
    result: Annotated[Any, Field(description="Checked against the step's type.")] = None
    fail: Annotated[
        str,
        StringConstraints(min_length=1, max_length=1000, pattern=NO_NUL),
        Field(description="It has failed, with this message."),
    ] = ""


class Forked(Started):
    """A run that goes on where the run `forked_from` has stood."""

    forked_from: str


class Retried(Started):
    """The run that goes on: the run itself if it was blocked, its fork if it has failed."""

    forked_from: str | None


class Woken(BaseModel):
    """How many sleeps of a run were ended."""

    id: str
    ended: int


class Resolved(BaseModel):
    """The step whose outcome was recorded."""

    id: str
    step: str
