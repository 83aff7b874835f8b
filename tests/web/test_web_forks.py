"""A web process that forks, as gunicorn does with ``preload_app`` and as an application may at any time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HELD = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

import flask
import sqlalchemy as sa
from celery import Celery
from durable import Durable, Response, create_webhook, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web import create_blueprint, drain
from durable.web import hub as holding
from durable.web.waiters import Waiter

engine = Durable(Celery("forks", broker="memory://"), database_url=sys.argv[1], public_url="https://hooks.test")

@workflow
async def held():
    async for _ in create_webhook(respond_with="manual", timeout="30s"):
        pass

app = flask.Flask("forks")
app.register_blueprint(create_blueprint(engine))
run = engine.start(held)
drive(engine, run.id)
path = run.hooks()[0]["url"].removeprefix("https://hooks.test")

def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def received():
    with engine.store.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(requests)).scalar_one()

# A request that is still being recorded or sent on has locks of C libraries and of Celery, which a fork copies.
is_waiting, wait = threading.Event(), Waiter.wait
def wait_and_tell(waiter, timeout_secs):
    is_waiting.set()
    return wait(waiter, timeout_secs)
Waiter.wait = wait_and_tell

def hold(body):
    # Send a request on a thread, and wait until it is recorded, sent on and held.
    before = received()
    is_waiting.clear()
    answer = ThreadPoolExecutor(1).submit(lambda: app.test_client().post(path, data=body).text)
    assert is_waiting.wait(20) and received() > before
    [(hub, request_id)] = [(hub, request_id) for hub in holding._hubs for request_id in hub._waiters.request_ids()]
    return hub, request_id, answer

# The hub's thread reads SQL only with this lock: a C library's lock that it held during the fork would stay locked.
reading, release_answered = threading.Lock(), holding.Hub._release_answered
def release_with_lock(hub, now):
    with reading:
        release_answered(hub, now)
holding.Hub._release_answered = release_with_lock

hub, request_id, answer = hold(b"parent")

with reading:
    # As if another thread were just changing the hub.
    hub._lock.acquire()
    pid = os.fork()
    if pid:
        hub._lock.release()
if pid == 0:
    signal.alarm(60)
    try:
        drain()
        drain(engine)
        child_hub, child_request, child_answer = hold(b"child")
        assert child_hub is not hub and child_hub.holder != hub.holder
        assert engine.respond(child_request, Response(b"to the child").checked())
        print(child_answer.result(20), flush=True)
    finally:
        os._exit(0)

wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
assert not answer.done()
assert engine.respond(request_id, Response(b"to the parent").checked())
print(answer.result(20))
drain()
engine.close()
"""

FETCHING = """
import os, time
from durable.web import fetch

fetcher = fetch.Fetcher()
fetch.get = lambda url: b"fetched"
for _ in range(fetch.AT_ONCE):
    assert fetcher._places.acquire(blocking=False)
pid = os.fork()
if pid == 0:
    try:
        print(fetcher("https://a.test/"), flush=True)
    finally:
        os._exit(0)
os.waitpid(pid, 0)
"""


def run_program(program: str, *arguments: str) -> list[str]:
    """The lines that a program prints, in a process of its own, since a fork copies all threads' locks."""
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_fork_while_a_connection_is_held_leaves_each_process_its_own_hub(tmp_path: Path) -> None:
    """The child can drain and hold although the parent's hub was locked; the parent's request keeps its connection."""
    assert run_program(HELD, f"sqlite:///{tmp_path}/durable.db") == ["to the child", "to the parent"]


def test_a_fork_while_files_are_fetched_leaves_the_child_all_places() -> None:
    """The threads that would release the places are not in the child."""
    assert run_program(FETCHING) == ["b'fetched'"]
