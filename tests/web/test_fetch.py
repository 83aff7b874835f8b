"""What verifiers fetch: only from public addresses, once, and a few at a time."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from durable.verify import Unavailable
from durable.web import fetch as fetching

URL = "https://sns.eu-west-1.amazonaws.com/a.pem"


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["10.0.0.1"],
        ["192.168.1.1"],
        ["::1"],
        ["fe80::1%eth0"],
        ["fd00::1"],
        ["::ffff:127.0.0.1"],
        ["0.0.0.0"],
        ["8.8.8.8", "127.0.0.1"],
        [],
    ],
)
def test_an_address_that_is_not_on_the_internet_is_not_connected_to(monkeypatch, addresses):
    """A host is refused if one of its addresses is private."""
    found = [(0, 0, 0, "", (address, 443)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))

    with pytest.raises(Unavailable, match="not on the internet"):
        fetching.get(URL)


@pytest.mark.parametrize("url", ["http://a.test/", "https:///x", "https://a.test:8443/", "file:///etc/passwd"])
def test_only_https_on_its_own_port_is_fetched(url):
    """For any other URL, not even the name is resolved."""
    with pytest.raises(Unavailable, match="not https"):
        fetching.get(url)


def test_a_name_without_an_address_is_unavailable(monkeypatch):
    """Not an error of the process."""

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match="gaierror"):
        fetching.get(URL)


def test_a_certificate_is_fetched_once_and_few_are_kept(monkeypatch):
    """Other files than certificates, such as a confirmation, are fetched each time."""
    got: list[str] = []
    monkeypatch.setattr(fetching, "get", lambda url: got.append(url) or b"x")
    fetch = fetching.Fetcher()
    for _ in range(2):
        assert fetch(URL) == b"x"
        fetch("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription")
    for number in range(100):
        fetch(f"{URL}{number}.pem")

    assert len(got) == 103
    assert len(fetch._kept) == fetching.KEPT


def test_a_third_at_once_is_told_to_come_again(monkeypatch):
    """Requests that name many certificates cannot take all threads."""
    inside, go = threading.Barrier(3), threading.Event()

    def slow(_url: str) -> bytes:
        inside.wait(10)
        go.wait(10)
        return b"x"

    monkeypatch.setattr(fetching, "get", slow)
    fetch = fetching.Fetcher()
    with ThreadPoolExecutor(2) as threads:
        two = [threads.submit(fetch, f"{URL}{number}.pem") for number in range(2)]
        inside.wait(10)
        with pytest.raises(Unavailable, match="being fetched"):
            fetch(URL)
        go.set()
        assert [future.result() for future in two] == [b"x", b"x"]
