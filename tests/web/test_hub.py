"""The hub of held connections, with answers and notifications made by hand."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from eventually import eventually

from durable.broker.notifier import PollingNotifier
from durable.http import Response
from durable.store import PushedAnswer
from durable.web import hub as holding
from durable.web import pace
from durable.web.event_stream import EventBatch
from durable.web.followers import StreamName, StreamNews
from durable.web.hub import Hub
from durable.web.waiters import Waiter, Waiters

NEVER = threading.Event()


class Inbox(PollingNotifier):
    """A notifier whose notifications the test sends, and which says that they arrive."""

    healthy = True

    def __init__(self) -> None:
        self.receive: Callable[[str], None] | None = None

    def listen(self, holder: str, receive: Callable[[str], None]) -> None:
        self.receive = receive


class Table:
    """The answers in SQL, and the ids that were read."""

    def __init__(self) -> None:
        self.rows: dict[str, Response] = {}
        self.asked: list[set[str]] = []
        self.error: Exception | None = None

    def answers(self, request_ids: Collection[str]) -> dict[str, Response]:
        self.asked.append(set(request_ids))
        if self.error is not None:
            raise self.error
        return {key: self.rows[key] for key in request_ids if key in self.rows}


@pytest.fixture(autouse=True)
def slow_is_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the interval of a second to a quarter, so that the tests are faster."""
    monkeypatch.setattr(pace, "SLOW_SECS", 0.25)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class NoStreams:
    """No stream has anything."""

    def page(self, stream: StreamName, number: int) -> EventBatch:
        return EventBatch()

    def news(self, places: Mapping[StreamName, int]) -> dict[StreamName, StreamNews]:
        return {}


def make_hub(table: Table, notifier: PollingNotifier, is_stopping: Callable[[], bool] = lambda: False) -> Hub:
    return Hub(table.answers, notifier, "web-1", NoStreams(), is_stopping, lambda pushed: Response(pushed.body))


def message(answer: str) -> str:
    """A notification with the answer to the request ``a``, in base64."""
    return f'a ["run", "{{}}", "{answer}"]'


def open_place(hub: Hub, request_id: str, is_gone: Callable[[], bool] = lambda: False) -> Waiter:
    waiter = hub.open(request_id, 10, is_gone)
    assert waiter is not None
    return waiter


def held(threads: ThreadPoolExecutor, waiter: Waiter, secs: float = 5) -> Future[Response | None]:
    return threads.submit(waiter.wait, secs)


def test_a_notification_brings_the_answer_at_once(table, threads):
    """With a healthy inbox the answer is there long before the next poll."""
    inbox = Inbox()
    hub = make_hub(table, inbox)
    waiter = open_place(hub, "a")
    future = held(threads, waiter)
    eventually(lambda: len(table.asked) == 1)
    started = time.monotonic()

    table.rows["a"] = Response(b"yes")
    inbox.receive("a")

    assert future.result().data == b"yes"
    assert time.monotonic() - started < pace.SLOW_SECS / 2
    hub.close(waiter)


def test_an_answer_that_comes_with_its_notification_needs_no_read(table, monkeypatch):
    """The id that follows finds nobody; SQL is not asked."""
    monkeypatch.setattr(pace, "SLOW_SECS", 30)
    inbox = Inbox()
    hub = make_hub(table, inbox)
    waiter = open_place(hub, "a")

    inbox.receive(message("eWVz"))
    inbox.receive("a")

    assert waiter.wait(20).data == b"yes"
    hub.close(waiter)
    assert (len(hub), table.asked) == (0, [])


@pytest.mark.parametrize("odd", [message("!"), "a {", "a []", 'a ["run", "~s.unknown.", ""]'])
def test_a_message_that_cannot_be_read_leaves_the_answer_to_sql(odd, table, threads, caplog):
    """The id comes after it, and nothing of the message is logged."""

    def refuse(pushed: PushedAnswer) -> Response:
        raise ValueError(f"unreadable {pushed}")

    inbox = Inbox()
    hub = Hub(table.answers, inbox, "web-1", NoStreams(), pushed=refuse)
    waiter = open_place(hub, "a")
    table.rows["a"] = Response(b"yes")
    future = held(threads, waiter)

    inbox.receive(odd)
    inbox.receive("a")

    assert future.result().data == b"yes"
    assert "is read from SQL" in caplog.text
    assert "run" not in caplog.text
    hub.close(waiter)


def test_an_answer_that_nobody_waits_for_is_dropped(table):
    """The sender has left, or the answer came by a read before its notification."""
    inbox = Inbox()
    hub = make_hub(table, inbox)
    waiter = open_place(hub, "b")

    inbox.receive(message("eWVz"))

    assert hub._waiters.request_ids() == ("b",)
    hub.close(waiter)


def test_a_notification_asks_for_its_own_request_only(table):
    """A burst of notifications does not read all answers each time."""
    inbox = Inbox()
    hub = make_hub(table, inbox)
    waiters = [open_place(hub, name) for name in "abc"]
    eventually(lambda: set("abc") in table.asked)
    table.asked.clear()

    inbox.receive("b")
    inbox.receive("unknown")

    eventually(lambda: {"b"} in table.asked)
    assert all("unknown" not in asked for asked in table.asked)
    for waiter in waiters:
        hub.close(waiter)


def test_waiters_are_counted_without_a_look_at_each():
    """Whatever is added, moved, removed twice or popped: as many are counted as there are, per request and in all."""
    waiters, drawn = Waiters(), random.Random(1)
    known = [Waiter(str(number % 5), lambda: False) for number in range(20)]
    model: set[Waiter] = set()
    for _ in range(500):
        waiter = drawn.choice(known)
        act = drawn.choice(("add", "remove", "pop"))
        if act == "pop":
            popped = waiters.pop(waiter.request_id)
            assert set(popped) == {each for each in model if each.request_id == waiter.request_id}
            model -= set(popped)
        elif act == "remove":
            waiters.remove(waiter)
            model.discard(waiter)
        elif waiter not in model:
            waiters.add(waiter)
            model.add(waiter)
        assert len(waiters) == len(waiters.all()) == len(model)
        assert set(waiters.all()) == model
        assert set(waiters.request_ids()) == {each.request_id for each in model}


def test_a_new_waiter_does_not_cost_a_look_at_each_other(table):
    """With thousands of held connections, one more is opened, counted and closed as with one."""
    hub = make_hub(table, Inbox())

    class NotIterated(dict[str, tuple[Waiter, ...]]):
        def _refuse(self) -> Iterator[str]:
            raise AssertionError("each waiter is looked at")

        __iter__ = values = items = keys = _refuse  # type: ignore[assignment]

    hub._polling = True  # no thread, which looks at each once a second
    hub._waiters._of_requests = NotIterated()
    waiters = [open_place(hub, name) for name in "ab"]
    hub.attach(waiters[1], "a")
    assert (len(hub), hub.open("c", 2, lambda: False)) == (2, None)
    for waiter in waiters:
        hub.close(waiter)
    assert len(hub) == 0


def test_copies_wait_for_one_answer_and_count_each(table, threads, monkeypatch):
    """Copies of a request that another process holds are polled often: its notification does not arrive here."""
    monkeypatch.setattr(pace, "SLOW_SECS", 30)
    hub = make_hub(table, Inbox())
    copies = [open_place(hub, name) for name in "bc"]
    for copy in copies:
        hub.attach(copy, "a")
        hub.recorded(copy)
    assert len(hub) == 2
    assert hub.open("d", 2, lambda: False) is None
    futures = [held(threads, copy) for copy in copies]
    eventually(lambda: {"a"} in table.asked)

    table.rows["a"] = Response(b"yes")

    assert [future.result(timeout=20).data for future in futures] == [b"yes"] * 2
    for copy in copies:
        hub.close(copy)
    assert (len(hub), hub._attached) == (0, set())


def test_a_lost_notification_costs_one_poll(table, threads):
    """Without the notification the poll finds the answer."""
    hub = make_hub(table, Inbox())
    waiter = open_place(hub, "a")
    table.rows["a"] = Response(b"yes")

    assert held(threads, waiter, 2 * pace.SLOW_SECS).result().data == b"yes"
    hub.close(waiter)


def test_without_notifications_it_looks_when_the_request_is_recorded(table, threads, monkeypatch):
    """An answer that exists by then, for example of an eager step, does not wait for the first poll."""
    monkeypatch.setattr(pace, "FAST_SECS", 30)
    hub = make_hub(table, PollingNotifier())
    waiter = open_place(hub, "a")
    table.rows["a"] = Response(b"yes")
    hub.recorded(waiter)

    assert held(threads, waiter).result().data == b"yes"
    hub.close(waiter)


def test_without_notifications_it_polls_fast(table, threads):
    """When notifications do not arrive, an answer is found within STEADY_SECS."""
    hub = make_hub(table, PollingNotifier())
    waiter = open_place(hub, "a")
    future = held(threads, waiter)
    eventually(lambda: len(table.asked) >= 3)
    started = time.monotonic()

    table.rows["a"] = Response(b"yes")

    assert future.result().data == b"yes"
    assert time.monotonic() - started < 2 * pace.STEADY_SECS
    hub.close(waiter)


def test_all_waiters_share_one_select(table, threads):
    """One SELECT reads the answers for all waiters."""
    hub = make_hub(table, Inbox())
    waiters = [open_place(hub, name) for name in "abcdefgh"]

    eventually(lambda: set("abcdefgh") in table.asked)
    table.rows = {name: Response(name.encode()) for name in "abcdefgh"}

    answers = [future.result() for future in [held(threads, waiter) for waiter in waiters]]
    assert [answer.data for answer in answers] == [name.encode() for name in "abcdefgh"]
    for waiter in waiters:
        hub.close(waiter)


def test_no_answer_in_time_is_none(table):
    """A wait ends by itself."""
    hub = make_hub(table, Inbox())
    waiter = open_place(hub, "a")

    assert waiter.wait(0.05) is None
    hub.close(waiter)


def test_a_full_house_takes_no_more(table):
    """Above the limit no waiter is opened; closing one makes room."""
    hub = make_hub(table, Inbox())
    first = hub.open("a", 1, lambda: False)

    assert hub.open("b", 1, lambda: False) is None
    hub.close(first)
    second = hub.open("c", 1, lambda: False)
    assert second is not None
    hub.close(second)


def test_a_place_is_free_again_when_the_inbox_cannot_be_listened_to(table, threads):
    """The caller gets the error, and the only place is not taken; the next request gets it, and its answer."""

    class DeafOnce(Inbox):
        """``listen`` raises the first time."""

        def listen(self, holder: str, receive: Callable[[str], None]) -> None:
            is_first, self.receive = self.receive is None, receive
            if is_first:
                raise OSError("no inbox")

    hub = make_hub(table, DeafOnce())
    with pytest.raises(OSError, match="no inbox"):
        hub.open("a", 1, lambda: False)
    assert len(hub) == 0

    waiter = hub.open("b", 1, lambda: False)
    assert waiter is not None
    table.rows["b"] = Response(b"yes")
    assert held(threads, waiter).result().data == b"yes"
    hub.close(waiter)


def test_a_client_that_left_frees_the_thread(table, threads):
    """The wait ends at the next check of the clients, which is once a second."""
    gone = threading.Event()
    hub = make_hub(table, Inbox())
    waiter = open_place(hub, "a", gone.is_set)
    future = held(threads, waiter)

    gone.set()

    assert future.result(timeout=20) is None
    hub.close(waiter)


def test_drain_lets_everybody_go_and_takes_no_more(table, threads):
    """A process that is being stopped holds no connection."""
    hub = make_hub(table, Inbox())
    waiters = [open_place(hub, name) for name in "ab"]
    futures = [held(threads, waiter) for waiter in waiters]

    holding.drain()

    assert [future.result(timeout=20) for future in futures] == [None, None]
    assert hub.open("c", 10, lambda: False) is None
    for waiter in waiters:
        hub.close(waiter)


def test_a_stopping_server_drains_by_itself(table, threads):
    """If the server shows that it stops, no call of drain is needed."""
    stopping = threading.Event()
    hub = make_hub(table, Inbox(), stopping.is_set)
    waiter = open_place(hub, "a")
    future = held(threads, waiter)

    stopping.set()

    assert future.result(timeout=20) is None
    hub.close(waiter)


def test_a_database_that_is_down_is_waited_out(table, threads, caplog):
    """Errors while polling are logged once, and the answer is found when the database is back."""
    hub = make_hub(table, PollingNotifier())
    table.error = OSError("down")
    waiter = open_place(hub, "a")
    future = held(threads, waiter)
    eventually(lambda: len(table.asked) >= 3)

    table.rows["a"] = Response(b"yes")
    table.error = None

    assert future.result().data == b"yes"
    assert len([record for record in caplog.records if record.name == "durable.web"]) == 1
    hub.close(waiter)


def test_a_bug_in_one_watch_harms_nobody_else(table, threads, caplog):
    """An error in a client's check does not end the thread."""

    def broken() -> bool:
        raise RuntimeError("bug")

    hub = make_hub(table, Inbox())
    bad, good = open_place(hub, "bad", broken), open_place(hub, "good")
    future = held(threads, good)
    eventually(lambda: "could not be checked" in caplog.text)

    table.rows["good"] = Response(b"yes")

    assert future.result().data == b"yes"
    hub.close(bad)
    hub.close(good)


def test_nothing_runs_while_nobody_waits(table, monkeypatch):
    """The thread stays for the next waiter, ends some time after the last, and starts again with one after that."""
    monkeypatch.setattr(holding, "IDLE_SECS", 0.2)
    hub = make_hub(table, Inbox())
    before = threading.active_count()
    for name in "ab":
        for _ in range(2):
            waiter = open_place(hub, name)
            assert threading.active_count() == before + 1
            hub.close(waiter)
        eventually(lambda: threading.active_count() == before)
        assert len(hub) == 0


def test_a_thread_that_rests_looks_in_time_for_the_next(table, threads, monkeypatch):
    """An idle thread, whose last read is long past, reads a new waiter's answer as soon as a new thread would."""
    monkeypatch.setattr(holding, "IDLE_SECS", 60)
    hub = make_hub(table, Inbox())
    hub.close(open_place(hub, "a"))
    waiter = open_place(hub, "b")
    table.rows["b"] = Response(b"yes")

    assert held(threads, waiter, 2 * pace.SLOW_SECS).result().data == b"yes"
    hub.close(waiter)
    hub.drain()
