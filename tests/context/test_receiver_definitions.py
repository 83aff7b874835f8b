"""``receiver``: mistakes that are seen when a module is imported, and what its rules make of a request."""

from __future__ import annotations

from typing import Any

import pytest

from durable import ConfigurationError, Request, Response, context, receiver, step, verify, workflow
from durable.context import ResumeRoute, StartRoute, Unroutable

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "a name has 1 to 64 letters"),
        ({"name": "a/b"}, "a name has 1 to 64 letters"),
        ({"name": 5}, "a name has 1 to 64 letters"),
        ({"respond_with": "later"}, 'use "manual", a Response'),
        ({"methods": ()}, "methods is empty"),
        ({"methods": ("get",)}, "is not an HTTP method"),
        ({"timeout": "2m"}, "is over 55 s"),
        ({"max_body": -1}, "is not a number of bytes"),
        ({"verify": verify.stripe}, "call it with the name of your secret"),
        ({"dedupe": 5}, "dedupe is 5"),
        ({"each": 5}, "each is 5, not a function"),
        ({"each": list, "respond_with": "manual"}, "a batch has one answer"),
        ({"unmatched": 404}, "use a Response with 2xx or 404"),
        ({"unmatched": Response(status=500)}, "use a Response with 2xx or 404"),
    ],
)
def test_a_malformed_receiver_is_an_error_at_once(arguments: dict[str, Any], message: str) -> None:
    """When the module is imported, not at the first request."""
    with pytest.raises(ConfigurationError) as raised:
        receiver(**{"name": "definitions.bad", **arguments})
    assert message in str(raised.value)


def test_two_receivers_of_one_name_are_refused_with_both_places() -> None:
    """A module that is imported again replaces its own."""
    for _ in range(2):
        receiver("definitions.twice")
    with pytest.raises(ConfigurationError, match=r"test_receiver_definitions.py:\d+ and .*definitions.py:\d+"):
        receiver("definitions.twice")


def test_a_start_rule_needs_a_workflow_of_one_argument() -> None:
    """Other parameters may have defaults."""
    found = receiver("definitions.start")

    @workflow(name="definitions.two")
    async def two(request: Request, other: int) -> None: ...

    @step(name="definitions.step")
    def no_workflow(request: Request) -> None: ...

    with pytest.raises(ConfigurationError, match=r"calls definitions\.two with one argument"):
        found.start()(two)
    with pytest.raises(ConfigurationError, match="is no workflow"):
        found.start()(no_workflow)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="when is 'paid', not a function"):
        found.start("paid")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": "order:1"}, "token is 'order:1', not a function"),
        ({"token": str, "missing": "retry"}, "missing is 'retry'"),
        ({"token": str, "wait": "soon"}, "soon"),
        ({"token": str, "payload": {}}, "payload is {}, not a function"),
    ],
)
def test_a_malformed_resume_rule_is_an_error_at_once(arguments: dict[str, Any], message: str) -> None:
    """As for the receiver."""
    with pytest.raises(ConfigurationError) as raised:
        receiver("definitions.resume").resume(**arguments)
    assert message in str(raised.value)


def test_reject_does_not_go_with_batches() -> None:
    """A batch has one answer."""
    with pytest.raises(ConfigurationError, match="a batch has one answer"):
        receiver("definitions.batch", each=list).resume(str, missing="reject")


def test_the_url_needs_public_url() -> None:
    """The error names the setting."""
    found = receiver("definitions.url")

    assert found.url_below("https://a.test/") == "https://a.test/.well-known/workflow/v1/receive/definitions.url"
    with pytest.raises(ConfigurationError, match="A receiver's URL begins with the setting public_url"):
        found.url_below(None)


def test_the_first_rule_that_matches_decides() -> None:
    """In the order of their definition; none is None."""
    found = receiver("definitions.order")
    found.resume(lambda request: "t", when=lambda request: request.data == b"resume", missing="start")

    @found.start(when=lambda request: request.data != b"nothing")
    @workflow(name="definitions.ordered")
    async def ordered(request: Request) -> None: ...

    resumed = context.route(found, Request(data=b"resume"))
    assert isinstance(resumed, ResumeRoute)
    assert (resumed.token, resumed.start and resumed.start.workflow) == ("t", ordered)
    assert isinstance(context.route(found, Request(data=b"start")), StartRoute)
    assert context.route(found, Request(data=b"nothing")) is None


def test_missing_start_without_a_start_rule_is_unroutable() -> None:
    """The rules may be defined in any order, so this is seen at the first request."""
    found = receiver("definitions.no_start")
    found.resume(lambda request: "t", missing="start")

    with pytest.raises(Unroutable, match="no start rule"):
        context.route(found, Request())


def test_an_event_has_the_headers_of_its_batch_and_a_body_of_its_own() -> None:
    """And an id that the batch and its place determine, so that a retry finds it again."""
    found = receiver("definitions.events", each=lambda request: [{"a": 1}, b"raw", "text"])
    batch = Request(data=b"x" * 90, headers={"X-Id": "7", "Content-Type": "text/plain"}, id="batch")  # type: ignore[arg-type]

    events = context.events_of(found, batch)

    assert [event.data for event in events] == [b'{"a": 1}', b"raw", b'"text"']
    assert {event.headers["X-Id"] for event in events} == {"7"}
    assert [event.headers["Content-Length"] for event in events] == ["8", "3", "6"]
    assert events == context.events_of(found, batch)
    assert len({event.id for event in events}) == 3


@pytest.mark.parametrize("each", [lambda request: 5, lambda request: {}, lambda request: [object()], lambda r: r.no])
def test_what_each_returns_must_be_events(each: Any) -> None:
    """Anything else is unroutable, by the rule ``each``."""
    with pytest.raises(Unroutable) as raised:
        context.events_of(receiver("definitions.each", each=each), Request())
    assert raised.value.rule == "each"
