"""Hints between processes, over a real Redis and a real server that dies."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from eventually import eventually
from no_threads import refuse_thread
from servers import OwnRedis, new_broker

from durable.broker import PollingNotifier, make_notifier
from durable.broker import redis_notifier as notify

# A real Redis.
pytestmark = pytest.mark.slow

PREFIX = "staging-"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A Redis database that nobody else uses."""
    with new_broker("redis", tmp_path) as url:
        yield url


@pytest.fixture
def server(broker: str) -> Iterator[redis.Redis]:
    """A client of the Redis database that this test has to itself."""
    with redis.Redis.from_url(broker) as client:
        yield client


@pytest.fixture
def make(broker: str) -> Iterator[Callable[[], notify.RedisNotifier]]:
    """Makes notifiers that share a Redis, as a web process and a worker do."""
    made: list[notify.RedisNotifier] = []

    def one() -> notify.RedisNotifier:
        notifier = make_notifier(broker, {"global_keyprefix": PREFIX})
        assert isinstance(notifier, notify.RedisNotifier)
        made.append(notifier)
        return notifier

    yield one
    for notifier in made:
        notifier.close()


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_messages_that_are_sent_together_arrive_in_order(make):
    """An answer comes before the id of its request."""
    got: queue.Queue[str] = queue.Queue()
    make().listen("web-1", got.put)

    make().notify("web-1", "the answer", "request-1")

    assert [got.get(timeout=20), got.get(timeout=20)] == ["the answer", "request-1"]


def test_a_hint_arrives(make):
    """What one process sends to an inbox, the process that listens to it gets."""
    got: queue.Queue[str] = queue.Queue()
    make().listen("web-1", got.put)

    make().notify("web-1", "request-1")

    assert got.get(timeout=20) == "request-1"


def test_hints_sent_before_anybody_listens_are_kept(make):
    """An inbox outlives a moment without a reader: hints are read in the order they were sent."""
    worker = make()
    worker.notify("web-1", "a")
    worker.notify("web-1", "b")
    got: queue.Queue[str] = queue.Queue()

    make().listen("web-1", got.put)

    assert [got.get(timeout=20), got.get(timeout=20)] == ["a", "b"]


def test_a_burst_is_taken_at_once(make, monkeypatch):
    """All of it, in its order, in a handful of round trips: each would wait for the threads that hints have woken."""
    sender, listener, got = make(), make(), queue.SimpleQueue()
    for number in range(2500):
        sender.notify("web-1", str(number))
    pops, pop = [], redis.Redis.blpop
    monkeypatch.setattr(redis.Redis, "blpop", lambda *given, **more: pops.append(0) or pop(*given, **more))

    listener.listen("web-1", got.put)

    assert [got.get(timeout=20) for _ in range(2500)] == [str(number) for number in range(2500)]
    assert 0 < len(pops) < 20


def test_an_unread_inbox_expires(make, server):
    """A process that died leaves no list behind for good."""
    make().notify("dead", "a")

    (key,) = server.scan_iter(f"{PREFIX}*")

    assert 0 < server.ttl(key) <= notify.INBOX_SECS


def test_each_process_has_an_inbox_of_its_own(make):
    """A hint to one holder is not seen by another."""
    mine: queue.Queue[str] = queue.Queue()
    other: queue.Queue[str] = queue.Queue()
    make().listen("web-1", mine.put)
    make().listen("web-2", other.put)

    make().notify("web-1", "a")

    assert mine.get(timeout=20) == "a"
    assert other.empty()


def test_listening_twice_starts_one_thread(make):
    """listen() may be called for every request that waits."""
    notifier = make()
    got: queue.Queue[str] = queue.Queue()
    before = threading.active_count()
    for _ in range(3):
        notifier.listen("web-1", got.put)

    assert before + 1 == threading.active_count()
    notifier.notify("web-1", "a")
    notifier.notify("web-1", "b")
    assert [got.get(timeout=20), got.get(timeout=20)] == ["a", "b"]


def test_a_receiver_that_raises_does_not_stop_the_others(make):
    """A bug in one receiver leaves the inbox read."""
    got: queue.Queue[str] = queue.Queue()

    def broken(message: str) -> None:
        raise RuntimeError(message)

    notifier = make()
    notifier.listen("web-1", broken)
    notifier.listen("web-1", got.put)
    notifier.notify("web-1", "a")
    notifier.notify("web-1", "b")

    assert [got.get(timeout=20), got.get(timeout=20)] == ["a", "b"]


def test_healthy_while_the_inbox_can_be_read(make):
    """The poller may be slow only once a listener is connected, and no longer when it is closed."""
    notifier = make()
    assert not notifier.healthy

    notifier.listen("web-1", print)

    eventually(lambda: notifier.healthy)
    notifier.close()
    assert not notifier.healthy


def test_an_inbox_that_got_no_thread_is_read_after_the_next_listen(make, monkeypatch, caplog):
    """Out of threads, the process polls; the next ``listen`` starts the thread, and each receiver gets the messages."""
    first: queue.Queue[str] = queue.Queue()
    second: queue.Queue[str] = queue.Queue()
    notifier = make()
    refuse_thread(monkeypatch, "durable-inbox")
    notifier.listen("web-1", first.put)
    assert not notifier.healthy
    assert "can't start new thread" in caplog.text

    notifier.listen("web-1", second.put)
    notifier.notify("web-1", "a")

    assert [first.get(timeout=20), second.get(timeout=20)] == ["a", "a"]


def test_close_ends_the_thread(make):
    """A closed notifier leaves no thread behind."""
    before = threading.active_count()
    notifier = make()
    notifier.listen("web-1", print)
    eventually(lambda: notifier.healthy)

    notifier.close()

    assert before == threading.active_count()


def test_a_cut_connection_is_made_again(make, server):
    """After Redis drops the listener's connection, hints arrive again without anybody's doing."""
    notifier = make()
    got: queue.Queue[str] = queue.Queue()
    notifier.listen("web-1", got.put)
    eventually(lambda: notifier.healthy)

    here = str(server.get_connection_kwargs()["db"])
    ours = {int(c["id"]) for c in server.client_list() if c["cmd"] == "blpop" and c["db"] == here}
    assert ours
    for client in ours:
        server.client_kill_filter(_id=str(client))
    notifier.notify("web-1", "a")

    assert got.get(timeout=20) == "a"


def test_a_hint_to_a_dead_redis_costs_little_and_raises_nothing(caplog):
    """With Redis down a hint is dropped, one warning is logged, and the next ones are not even tried."""
    notifier = notify.RedisNotifier([f"redis://127.0.0.1:{free_port()}/0"])
    started = time.monotonic()

    for _ in range(1000):
        notifier.notify("web-1", "a")

    assert time.monotonic() - started < notify.SEND_SECS + 1
    assert len([record for record in caplog.records if record.name == "durable.notify"]) == 1


def test_a_redis_that_does_not_answer_holds_a_hint_up_for_a_second():
    """A server that accepts and then is silent costs the timeout, once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = notify.RedisNotifier([f"redis://127.0.0.1:{silent.getsockname()[1]}/0"])
        started = time.monotonic()
        notifier.notify("web-1", "a")
        notifier.notify("web-1", "b")

        assert time.monotonic() - started < 2 * notify.SEND_SECS + 0.5
        notifier.close()


def test_unhealthy_while_redis_is_down():
    """A listener that cannot connect keeps trying and says so; it can still be closed."""
    notifier = notify.RedisNotifier([f"redis://127.0.0.1:{free_port()}/0"])
    notifier.listen("web-1", print)

    assert not notifier.healthy
    notifier.close()


def test_a_forked_child_listens_for_itself(make):
    """After a fork the parent's listener is not taken for the child's."""
    notifier = make()
    notifier.listen("parent", print)
    eventually(lambda: notifier.healthy)
    answers, answer = os.pipe()

    child = os.fork()
    if child == 0:
        got: queue.Queue[str] = queue.Queue()
        before = notifier.healthy
        notifier.listen("child", got.put)
        notifier.notify("child", "hello")
        os.write(answer, f"{before} {got.get(timeout=20)}".encode())
        os._exit(0)
    os.close(answer)
    with os.fdopen(answers) as reader:
        said = reader.read()
    os.waitpid(child, 0)

    assert said == "False hello"
    assert notifier.healthy


@pytest.mark.parametrize("url", [None, "", "amqp://guest@127.0.0.1//", "memory://", "sentinel://a:1", "sqs://"])
def test_other_brokers_are_polled(url):
    """Without Redis there are no hints: never healthy, so that waiters poll fast."""
    notifier = make_notifier(url, {})
    notifier.listen("web-1", print)
    notifier.notify("web-1", "a")
    notifier.close()

    assert isinstance(notifier, PollingNotifier)
    assert not notifier.healthy


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "127.0.0.1", "port": 6379, "db": 0}),
        ("redis://h:1/2", {"host": "h", "port": 1, "db": 2}),
        ("redis://:p%40ss@h//3", {"host": "h", "port": 6379, "db": 3, "password": "p@ss"}),
        ("valkey://u:p@h", {"host": "h", "port": 6379, "db": 0, "username": "u", "password": "p"}),
        ("redis+socket:///tmp/a.sock", {"unix_socket_path": "/tmp/a.sock", "db": 0}),
        ("redis+socket:///tmp/a.sock?virtual_host=4", {"unix_socket_path": "/tmp/a.sock", "db": 4}),
        (
            "rediss://h/1?ssl_cert_reqs=required&ssl_check_hostname=false",
            {
                "host": "h",
                "port": 6379,
                "db": 1,
                "ssl": True,
                "ssl_cert_reqs": 2,
                "ssl_check_hostname": False,
            },
        ),
    ],
)
def test_urls_are_spelled_as_kombu_spells_them(url, expected):
    """The broker's URL serves both Celery and us."""
    parameters = notify.connection_parameters(url, {})

    assert expected == {key: value for key, value in parameters.items() if value is not None}


def test_of_several_brokers_the_first_one_that_answers_has_the_hints(broker, caplog):
    """Celery separates alternates by semicolons: all processes meet at the same one."""
    notifier = make_notifier(f"redis://127.0.0.1:{free_port()}/0; {broker}", {})
    got: queue.Queue[str] = queue.Queue()
    notifier.listen("web-1", got.put)
    eventually(lambda: notifier.healthy)

    notifier.notify("web-1", "a")

    assert got.get(timeout=20) == "a"
    notifier.close()


def test_processes_meet_at_the_first_broker_again(tmp_path, broker, monkeypatch):
    """Once it is back, a listener that has gone to another one reads the hints that others send to the first."""
    monkeypatch.setattr(notify, "RETURN_SECS", 0.1)
    monkeypatch.setattr(notify, "POP_SECS", 0.1)
    first = OwnRedis(tmp_path)
    notifier = make_notifier(f"{first.url};{broker}", {})
    got: queue.Queue[str] = queue.Queue()
    notifier.listen("web-1", got.put)
    eventually(lambda: notifier.healthy)

    with first:
        make_notifier(first.url, {}).notify("web-1", "a")

        assert got.get(timeout=20) == "a"
    notifier.close()


def test_celerys_tls_options_are_used():
    """broker_use_ssl, handed over as the option "ssl", reaches redis-py."""
    parameters = notify.connection_parameters("redis://h", {"ssl": {"ssl_ca_certs": "/ca.pem"}})

    assert (parameters["ssl"], parameters["ssl_ca_certs"]) == (True, "/ca.pem")
