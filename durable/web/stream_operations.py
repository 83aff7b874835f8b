"""The operations of the control routes on streams."""

from __future__ import annotations

from ..client import streams
from ..registry import check_stream_name
from . import problems, stream_schemas
from .control_operations import Call, Operation, Reply
from .problems import RequestRefused


def _list(call: Call) -> Reply:
    return Reply(200, {"streams": streams.list_streams(call.engine, call.path["run_id"])})


def _items(call: Call) -> Reply:
    query: stream_schemas.ItemsQuery = call.query
    try:
        name = check_stream_name(call.path["stream"])
        page = streams.list_items(call.engine, call.path["run_id"], name, start=query.start, limit=query.limit)
    except ValueError as error:
        raise RequestRefused(problems.bad_arguments(str(error))) from None
    return Reply(200, page)


_NO_RUN = {404: "There is no run with this id."}

OPERATIONS = (
    Operation(
        name="listStreams",
        method="GET",
        path="runs/{run_id}/streams",
        summary="List the streams of a run",
        act=_list,
        answers={200: ("The streams.", stream_schemas.Streams)},
        problems=_NO_RUN,
    ),
    Operation(
        name="listItems",
        method="GET",
        path="runs/{run_id}/streams/{stream}",
        summary="List the items of a stream",
        act=_items,
        query=stream_schemas.ItemsQuery,
        answers={200: ("The items in their order; none if the run has no such stream.", stream_schemas.Items)},
        problems={**_NO_RUN, 422: "The name or a parameter does not fit."},
    ),
)
