"""The operations of the control routes on receivers and their requests."""

from __future__ import annotations

from ..client import TooManyPending, receiver_lists, route_again
from ..errors import ConfigurationError
from . import problems, receiver_schemas, schemas
from .control_operations import Call, Operation, Reply
from .problems import RequestRefused


def _list(call: Call) -> Reply:
    return Reply(200, {"receivers": receiver_lists.list_receivers(call.engine)})


def _list_requests(call: Call) -> Reply:
    query: receiver_schemas.ReceivedQuery = call.query
    found = receiver_lists.list_received(
        call.engine, receiver=query.receiver, outcomes=query.outcome, limit=query.limit
    )
    return Reply(200, {"requests": found})


def _retry(call: Call) -> Reply:
    try:
        receptions = route_again.route_again(call.engine, call.path["request_id"])
    except ConfigurationError:
        raise RequestRefused(problems.unknown_receiver()) from None
    except TooManyPending:
        raise RequestRefused(problems.too_many_pending()) from None
    if receptions is None:
        raise RequestRefused(problems.unknown_request())
    routed = [{"id": each.request_id, "outcome": each.outcome, "run_id": each.run_id} for each in receptions]
    return Reply(200, {"requests": routed})


OPERATIONS = (
    Operation(
        name="listReceivers",
        method="GET",
        path="receivers",
        summary="List receivers",
        act=_list,
        answers={200: ("The receivers in the order of their names.", receiver_schemas.Receivers)},
    ),
    Operation(
        name="listReceivedRequests",
        method="GET",
        path="receivers/requests",
        summary="List requests to receivers, with what became of them",
        act=_list_requests,
        query=receiver_schemas.ReceivedQuery,
        answers={200: ("The newest requests.", receiver_schemas.ReceivedRequests)},
        problems={422: "A parameter does not fit."},
    ),
    Operation(
        name="retryReceivedRequest",
        action="retry_request",
        method="POST",
        path="receivers/requests/{request_id}/retry",
        summary="Route a request again that has reached no run",
        act=_retry,
        body=schemas.Nothing,
        answers={200: ("What became of it now.", receiver_schemas.RoutedRequests)},
        problems={
            404: "There is no such request that has reached no run.",
            409: "The web process has not imported its receiver.",
            422: "The body does not fit: it is an empty object.",
            429: "Too many requests to its hook wait.",
        },
    ),
)
