"""Followers of streams: what each gets, how few reads that takes, and what happens when something fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from eventually import eventually

from durable.broker.notifier import PollingNotifier
from durable.web import event_stream, pace
from durable.web.event_stream import EventBatch
from durable.web.followers import Follower, StreamName, StreamNews
from durable.web.hub import Hub

PAGE = 5
NEVER = threading.Event()


class Heard(PollingNotifier):
    """A notifier whose notifications the test sends, and which says that they arrive."""

    healthy = True

    def __init__(self) -> None:
        self.receive: Callable[[str], None] = lambda _: None
        self.subscribed: list[str] = []

    def listen(self, holder: str, receive: Callable[[str], None]) -> None:
        self.receive = receive

    def subscribe(self, subject: str, holder: str) -> None:
        self.subscribed.append(subject)


class Streams:
    """Streams in memory: a source, and how often it was read."""

    def __init__(self) -> None:
        self.items: dict[StreamName, list[bytes]] = {}
        self.over: set[StreamName] = set()
        self.pages = 0
        self.reads = 0
        self.error: Exception | None = None

    def page(self, stream: StreamName, number: int) -> EventBatch:
        self.pages += 1
        if self.error is not None:
            raise self.error
        items = self._from(stream, number)[:PAGE]
        following = number + len(items)
        is_over = stream in self.over and following >= len(self.items.get(stream, ()))
        return EventBatch(items, is_over=is_over)

    def news(self, places: Mapping[StreamName, int]) -> dict[StreamName, StreamNews]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        found = {}
        for stream, number in places.items():
            first = max(number, len(self.items.get(stream, ())) - PAGE)
            items = self._from(stream, first)
            if items or stream in self.over:
                found[stream] = StreamNews(first, items, stream in self.over)
        return found

    def _from(self, stream: StreamName, number: int) -> list[tuple[int, bytes]]:
        return list(enumerate(self.items.get(stream, ())))[number:]


S: StreamName = ("run-1", "s")


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def hub(streams: Streams, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub whose intervals are shorter, so that the tests are faster."""
    monkeypatch.setattr(pace, "SLOW_SECS", 0.25)
    made = Hub(lambda ids: {}, heard, "web-1", streams)
    yield made
    made.drain()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def follow(hub: Hub, stream: StreamName = S, number: int = 0, is_gone: Callable[[], bool] = lambda: False) -> Follower:
    follower = hub.follow(stream, number, 50, is_gone)
    assert follower is not None
    return follower


def all_of(follower: Follower, secs: float = 5) -> list[bytes]:
    """What it gets until its stream is over."""
    found: list[bytes] = []
    deadline = time.monotonic() + secs
    while time.monotonic() < deadline:
        batch = follower.next(0.2)
        if batch is not None:
            found += [item for _, item in batch.items]
            if batch.is_over or batch.is_cut:
                return found
    raise AssertionError(f"it did not end; {found}")


def waits(*them: Follower) -> bool:
    """Whether they all wait for the hub, in time."""
    return eventually(lambda: all(each.is_waiting for each in them))


def test_what_there_is_comes_first_page_by_page(hub, streams):
    streams.items[S] = [b"%d" % n for n in range(12)]
    streams.over.add(S)
    assert all_of(follow(hub)) == streams.items[S]
    assert all_of(follow(hub, number=10)) == [b"10", b"11"]
    assert all_of(follow(hub, number=12)) == []


def test_a_notification_brings_what_is_new_to_all_with_one_read(hub, streams, heard, threads):
    """However many follow; and long before the next regular read."""
    streams.items[S] = [b"0"]
    mine = [follow(hub) for _ in range(30)]
    results: list[Future[list[bytes]]] = [threads.submit(all_of, each) for each in mine]
    assert waits(*mine)
    reads = streams.reads
    streams.items[S].append(b"1")
    began = time.monotonic()
    heard.receive("run-1")
    while not all(each.number == 2 for each in mine):
        assert time.monotonic() < began + 5
        NEVER.wait(0.001)
    assert streams.reads - reads <= 3
    streams.over.add(S)
    heard.receive("run-1")
    assert [each.result(20) for each in results] == [[b"0", b"1"]] * 30
    assert heard.subscribed.count("run-1") == 1


def test_without_a_notification_the_next_regular_read_brings_it(hub, streams, threads):
    mine = follow(hub)
    result = threads.submit(all_of, mine)
    assert waits(mine)
    streams.items[S] = [b"0"]
    streams.over.add(S)
    assert result.result(20) == [b"0"]


def test_what_comes_while_a_follower_reads_is_not_missed(hub, streams, heard, threads):
    """The notification comes before it waits: the hub reads at once when it does."""
    page, inside, go_on = streams.page, threading.Event(), threading.Event()

    def slow(stream: StreamName, number: int) -> EventBatch:
        found = page(stream, number)
        inside.set()
        go_on.wait(20)
        return found

    streams.page = slow  # type: ignore[method-assign]
    mine = follow(hub)
    result = threads.submit(all_of, mine)
    assert inside.wait(20)
    streams.items[S] = [b"0"]
    streams.over.add(S)
    heard.receive("run-1")
    go_on.set()
    assert result.result(20) == [b"0"]


def test_a_slow_follower_reads_by_itself_and_holds_up_nobody(hub, streams, heard, threads):
    """It is more than a page behind when it comes back."""
    slow, fast = follow(hub), follow(hub)
    assert slow.next(0.01) is None
    result = threads.submit(all_of, fast)
    assert waits(slow, fast)
    for number in range(4 * PAGE):
        streams.items.setdefault(S, []).append(b"%d" % number)
        heard.receive("run-1")
        NEVER.wait(0.005)
    streams.over.add(S)
    heard.receive("run-1")
    assert result.result(20) == streams.items[S]
    assert all_of(slow) == streams.items[S]


def test_each_stream_of_a_run_has_its_own_followers(hub, streams, heard, threads):
    other = ("run-1", "other")
    mine, theirs = follow(hub), follow(hub, other)
    results = [threads.submit(all_of, each) for each in (mine, theirs)]
    assert waits(mine, theirs)
    streams.items = {S: [b"mine"], other: [b"theirs"]}
    streams.over |= {S, other}
    heard.receive("run-1")
    assert [each.result(20) for each in results] == [[b"mine"], [b"theirs"]]


def test_followers_count_as_held_connections_do(hub):
    """Over the limit there is none, and each that ends makes room."""
    first = hub.follow(S, 0, 2, lambda: False)
    assert first is not None
    waiter = hub.open("request-1", 2, lambda: False)
    assert waiter is not None
    assert hub.follow(S, 0, 2, lambda: False) is None
    assert hub.open("request-2", 2, lambda: False) is None
    first.close()
    first.close()
    assert len(hub) == 1
    assert hub.follow(S, 0, 2, lambda: False) is not None


def test_a_follower_takes_no_place_when_the_inbox_cannot_be_listened_to(hub, heard, monkeypatch):
    """The caller gets the error, and the only place is free for the next connection."""

    def fail(*_: object) -> None:
        raise OSError("no inbox")

    with monkeypatch.context() as patched:
        patched.setattr(heard, "listen", fail)
        with pytest.raises(OSError, match="no inbox"):
            hub.follow(S, 0, 1, lambda: False)
    assert len(hub) == 0

    following = hub.follow(S, 0, 1, lambda: False)
    assert following is not None
    following.close()
    assert heard.subscribed == ["run-1"]


def test_a_client_that_left_is_forgotten(hub):
    gone = threading.Event()
    follower = follow(hub, is_gone=gone.is_set)
    gone.set()
    batch = follower.next(5)
    assert batch is not None
    assert batch.is_cut
    assert len(hub) == 0


def test_a_process_that_is_stopped_ends_its_connections(hub, threads):
    """The browsers come back, to another process."""
    mine = follow(hub)
    result = threads.submit(all_of, mine)
    assert waits(mine)
    hub.drain()
    assert result.result(20) == []
    assert hub.follow(S, 0, 10, lambda: False) is None


def test_an_outage_of_the_database_costs_no_connection_that_waits(hub, streams, threads, caplog):
    mine = follow(hub)
    result = threads.submit(all_of, mine)
    assert waits(mine)
    streams.error = OSError("down")
    NEVER.wait(0.6)
    assert caplog.text.count("Streams cannot be read: OSError") == 1
    streams.items[S], streams.error = [b"0"], None
    streams.over.add(S)
    assert result.result(20) == [b"0"]


def test_a_follower_that_cannot_read_ends_its_connection(hub, streams, caplog):
    streams.error = OSError("down")
    batch = follow(hub).next(5)
    assert batch is not None
    assert batch.is_cut
    assert "A stream cannot be read: OSError" in caplog.text


# Events as bytes


def test_an_item_is_one_message_whatever_it_contains():
    """A line break in an item must not end the message."""
    sent = event_stream.item({"number": 7, "item": "a\nb\r\u2028"})
    assert sent == b'id: 7\ndata: {"number":7,"item":"a\\nb\\r\\u2028"}\n\n'


@pytest.mark.parametrize(
    ("given", "start"),
    [
        (None, None),
        ("", None),
        ("-1", 0),
        ("0", 1),
        ("41", 42),
        ("x", None),
        ("1e3", None),
        ("-2", None),
        ("9" * 30, None),
    ],
)
def test_the_last_event_id_says_where_to_go_on(given, start):
    assert event_stream.start_after(given) == start
