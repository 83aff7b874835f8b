"""The addresses that ``durable dev`` prints once the web app answers and the worker has begun."""

from __future__ import annotations

import http.client
import time
from urllib.request import urlopen

from ..broker import embedded
from ..engine import Engine
from ..store import workers
from .dev_supervisor import print_line
from .dev_web import DASHBOARD

_READY_SECS = 60.0


def announce(engine: Engine, address: str, started_at: int) -> None:
    """Print all addresses once the web app answers and the worker has sent a heartbeat."""
    deadline = time.monotonic() + _READY_SECS
    while True:
        with engine.store.read() as tx:
            has_heartbeat = any(worker.beat_at >= started_at for worker in workers.alive(tx))
        if has_heartbeat and _answers(address):
            break
        if time.monotonic() > deadline:
            print_line(f"Web app and worker are not both ready after {_READY_SECS:g} s.  See the messages above.")
            return
        time.sleep(0.1)
    is_embedded = engine.broker_url() == embedded.url()
    print_line(f"web       {address}")
    if _is_served(f"{_local(address)}{DASHBOARD}/runs"):
        print_line(f"dashboard {_local(address)}{DASHBOARD}/")
    print_line(f"webhooks  {engine.settings.public_url or address}/.well-known/workflow/v1/webhook/…")
    print_line(f"database  {engine.store.url.render_as_string()}")
    print_line(f"broker    {'embedded, in .durable/broker' if is_embedded else 'as configured'}")
    print_line("ready; Ctrl-C stops everything.")


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=2.0)
    try:
        connection.request("HEAD", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _local(address: str) -> str:
    """An address at which this computer reaches the web app: the dashboard answers only a loopback address."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//:::", "//[::1]:")


def _is_served(url: str) -> bool:
    try:
        with urlopen(url, timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
