"""What a workflow body is refused, with the author's line and the fix; and who is left alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import inspect
import logging
import pickle
import random
import secrets
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
import sqlalchemy as sa
from celery import Celery
from celery import group as celery_group
from simulator import START, Simulator

import durable
from durable import ConfigurationError, NonDeterministicCall
from durable.registry.decorators import step
from durable.registry.definitions import Workflow
from durable.sandbox import forbid, guards, source_lines, unrestricted

guards.install()


@step(name="test_guards.s")
def s(n: Any) -> Any:
    return n


def play(function: Callable[..., Any], **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(Workflow(function, name="test_guards.flow"), **options).turn()


def refusal(call: Callable[[], Any]) -> NonDeterministicCall:
    """The error that a workflow gets that makes this call."""
    errors = []

    async def flow():
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except NonDeterministicCall as error:
            errors.append(error)

    play(flow, checked=False)
    assert errors, "the call was let through"
    return errors[0]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import time; time.sleep(1)", "time.sleep"),
        ("import time; time.time()", "time.time"),
        ("import time; time.monotonic()", "time.monotonic"),
        ("import time; time.perf_counter_ns()", "time.perf_counter_ns"),
        ("import time; time.localtime()", "time.localtime"),
        ("import time; time.strftime('%Y')", "time.strftime"),
        ("import random; random.random()", "random.random"),
        ("import random; random.choice([1])", "random.choice"),
        ("import random; random.seed(1)", "random.seed"),
        ("import random; random.normalvariate()", "random.normalvariate"),
        ("import random; random.Random()", "random.Random"),
        ("import random; random.SystemRandom().randint(1, 6)", "random.Random.randint"),
        ("import uuid; uuid.uuid1()", "uuid.uuid1"),
        ("import uuid; uuid.uuid4()", "uuid.uuid4"),
        ("import os; os.urandom(1)", "os.urandom"),
        ("import secrets; secrets.token_hex()", "secrets.token_hex"),
        ("import secrets; secrets.choice([1])", "secrets.choice"),
        ("open('/dev/null')", "open"),
        ("import os; os.open('/dev/null', 0)", "open"),
        ("import pathlib; pathlib.Path('/dev/null').read_text()", "pathlib.Path.read_text"),
        ("import pathlib; pathlib.Path('/').mkdir()", "pathlib.Path.mkdir"),
        ("import os; os.listdir('/')", "os.listdir"),
        ("import os; os.environ['A'] = 'b'", "os.environ[...] = ..."),
        ("import socket; socket.socket()", "socket.socket"),
        ("import socket; socket.getaddrinfo('localhost', 1)", "socket.getaddrinfo"),
        (
            "import http.client; http.client.HTTPConnection('localhost').request('GET', '/')",
            "http.client.HTTPConnection.request",
        ),
        ("import urllib.request; urllib.request.urlopen('http://localhost')", "urllib.request.urlopen"),
        ("import requests; requests.get('http://localhost')", "requests.get"),
        ("import requests; requests.Session().post('http://localhost')", "requests.Session.post"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.run"),
        ("import os; os.system('true')", "os.system"),
        ("import os; os.fork()", "os.fork"),
        ("import sqlite3; sqlite3.connect(':memory:')", "sqlite3.connect"),
        ("import threading; threading.Thread(target=print).start()", "threading.Thread.start"),
        ("input()", "input"),
    ],
)
def test_c11_what_a_replay_could_not_repeat_is_refused(source, name):
    """Clocks, randomness, files, sockets, processes, threads: the error names the call."""
    code = compile(source, "author.py", "exec")

    assert refusal(lambda: exec(code, {"__name__": "author"})).call == name


@pytest.mark.parametrize(
    ("call", "fix"),
    [
        (lambda: time.sleep(1), "await durable.sleep"),
        (lambda: time.time(), "durable.now()"),
        (lambda: random.random(), "durable.random()"),
        (lambda: uuid.uuid4(), "durable.uuid4()"),
        (lambda: threading.Thread().start(), "asyncio.gather"),
        (lambda: socket.socket(), "move it into a step"),
        (lambda: asyncio.get_running_loop().run_in_executor(None, print), "move it into a step"),
    ],
)
def test_c11_the_error_names_the_line_and_the_fix(call, fix):
    """The line is the author's, however deep in libraries the call is."""
    error = refusal(call)

    assert error.where == f"{__file__}:{call.__code__.co_firstlineno}"
    assert f"({error.where})" in str(error)
    assert fix in str(error)


@pytest.mark.parametrize(
    ("make", "call"),
    [
        (lambda: asyncio.to_thread(print), "loop.run_in_executor"),
        (lambda: asyncio.open_connection("localhost", 1), "loop.create_connection"),
        (lambda: asyncio.create_subprocess_exec("true"), "loop.subprocess_exec"),
    ],
)
def test_c11_what_asyncio_does_outside_of_the_loop_is_refused(make, call):
    """Threads, connections and processes by asyncio's own functions: where they are awaited, with the fix."""

    async def flow():
        await make()

    with pytest.raises(NonDeterministicCall, match="move it into a step") as refused:
        _ = play(flow, checked=False).result

    assert refused.value.call == call
    assert refused.value.where == f"{__file__}:{flow.__code__.co_firstlineno + 1}"


def test_the_line_is_the_authors_also_when_a_library_makes_the_call():
    """Not that of requests, which reads a clock first; and to use another clock there would be no fix."""

    def fetch():
        session = requests.Session()
        session.trust_env = False
        return session.get("http://localhost")

    error = refusal(fetch)
    assert error.fix == "move it into a step"
    assert error.where == f"{__file__}:{fetch.__code__.co_firstlineno + 3}"


def test_a_package_that_is_installed_is_the_authors_when_the_workflow_is_its(tmp_path, monkeypatch):
    """An application that is installed as a wheel still sees its own helper's line, not that of its workflow."""
    package = tmp_path / "site-packages" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "helpers.py").write_text("import time\n\ndef stamp():\n    return time.time()\n")
    (package / "flows.py").write_text("from . import helpers\n\nasync def flow():\n    return helpers.stamp()\n")
    monkeypatch.syspath_prepend(package.parent)
    from shop.flows import flow  # type: ignore[import-not-found]

    with pytest.raises(NonDeterministicCall) as refused:
        _ = play(flow, checked=False).result

    assert refused.value.where == f"{package}/helpers.py:4"


def test_connections_that_are_open_already_are_refused_too():
    """A pool's connection, kept from a step, neither sends nor receives."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"news")

        assert refusal(lambda: ours.send(b"x")).call == "socket.socket.send"
        assert refusal(lambda: ours.recv(1)).call == "socket.socket.recv"
        assert ours.recv(4) == b"news"


def test_a_pooled_database_connection_is_refused():
    """SQLAlchemy's too, whatever its driver is made of; the pool is left whole."""
    engine = sa.create_engine("sqlite://", poolclass=sa.QueuePool, pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")

    error = refusal(lambda: engine.connect())

    assert error.call == "sqlalchemy.engine.base.Engine.connect"
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


@pytest.fixture
def celery() -> Iterator[Celery]:
    app = Celery("test_guards", broker="memory://", set_as_current=False)
    yield app
    app.close()


def test_celery_tasks_are_not_sent_from_a_workflow(celery):
    """``delay``, ``apply_async``, a chain and ``send_task`` are refused, eager or not; awaiting a step is the fix."""

    @celery.task(name="test_guards.mail")
    def mail() -> None: ...

    assert mail.name  # now Celery has loaded what it needs
    guards.install()  # as each turn does
    celery.conf.task_always_eager = True
    chain, group = mail.si() | mail.si(), celery_group(mail.si(), mail.si())
    sends = [mail.delay, mail.apply_async, mail.si().delay, chain.delay, chain, group.apply_async]
    sends.append(lambda: celery.send_task("elsewhere"))
    for send in sends:
        error = refusal(send)
        assert error.call.startswith("celery.")
        assert "make the task a step" in error.fix


def test_a_thread_pool_with_idle_threads_is_refused():
    """Submitting starts no thread then, and is refused all the same."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        guards.install()
        pool.submit(int).result()

        assert refusal(lambda: pool.submit(int)).call == "concurrent.futures.thread.ThreadPoolExecutor.submit"


# Who is left alone


def test_c11_outside_a_workflow_everything_passes():
    """The same functions, in this process, after a replay has installed the guards."""
    with open("/dev/null") as file:
        assert file.read() == ""
    assert time.time() > START / 1e6
    assert random.random() < 1
    assert uuid.uuid4() != uuid.uuid4()
    assert secrets.token_hex(4) != secrets.token_hex(4)
    assert random.Random().random() < 1


def test_other_threads_are_left_alone_while_a_workflow_runs():
    """In a pool of threads only the one that runs the body is refused anything."""
    inside, done = threading.Event(), threading.Event()
    read: list[Any] = []

    def other():
        assert inside.wait(10)
        read.append(time.time())
        with open("/dev/null") as file:
            read.append(file.read())
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    async def flow():
        inside.set()
        assert done.wait(10)
        time.time()

    with pytest.raises(NonDeterministicCall):
        _ = play(flow, checked=False).result
    thread.join()

    assert len(read) == 2


def test_what_only_converts_is_let_through():
    """A generator with a seed, a moment that is given, a time zone, which is a file."""
    ZoneInfo.clear_cache()

    async def flow():
        moment = datetime(2024, 5, 1, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
        made = random.Random(7)
        made.seed(a=7)
        ZoneInfo.clear_cache()
        return made.random(), time.gmtime(0).tm_year, time.strftime("%Y", time.gmtime(0)), f"{moment:%H}"

    assert play(flow).result == (random.Random(7).random(), 1970, "1970", "02")


def test_print_and_the_environment_are_let_through(capsys, monkeypatch):
    """A line that is printed comes again at each replay; what the environment says is the author's to keep alike."""
    import os

    monkeypatch.setenv("REGION", "eu")

    async def flow():
        print("hello")
        return os.environ["REGION"]

    assert play(flow, checked=False).result == "eu"
    assert capsys.readouterr().out == "hello\n"


def test_a_workflow_may_log_and_import(tmp_path, monkeypatch):
    """Whatever a handler does with a line, and wherever a module comes from."""
    (tmp_path / "imported_by_a_workflow.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    logger = logging.getLogger("test_guards.author")
    logger.addHandler(handler)

    async def flow():
        import imported_by_a_workflow

        try:
            raise ValueError
        except ValueError:
            logger.exception("said")
        return imported_by_a_workflow.value

    sim = play(flow, checked=False)
    handler.close()
    logger.removeHandler(handler)
    sys.modules.pop("imported_by_a_workflow", None)

    assert sim.result == 7
    assert "said" in (tmp_path / "log").read_text()


def test_a_guard_cannot_be_walked_around_by_swallowing():
    """While a workflow is parked its finally may not do I/O either."""
    told = []

    async def flow():
        try:
            await s(1)
        finally:
            try:
                open("/dev/null")  # noqa: SIM115
            except Exception as error:
                told.append(type(error).__name__)

    sim = play(flow, checked=False)
    sim.kept.park()

    assert told == ["NonDeterministicCall"]


# What libraries do with the functions that are wrapped


class Limiter:
    """As libraries keep a clock: a builtin does not become a method, and neither may what stands for it."""

    clock = time.monotonic
    draw = random.random


def test_a_class_may_keep_a_guarded_function():
    """It is called without the instance, as the builtin was."""
    assert Limiter().clock() > 0
    assert 0 <= Limiter().draw() < 1


@pytest.mark.parametrize("function", [time.time, random.random, random.choice, uuid.uuid4, threading.Thread.start])
def test_a_guarded_function_is_pickled_and_copied_by_name(function):
    """It arrives as itself."""
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


def test_a_guarded_function_tells_what_it_is():
    """Its name, its signature and its documentation are those of the function."""
    assert str(inspect.signature(random.choice)) == "(seq)"
    assert (random.random.__name__, random.random.__module__) == ("random", "random")
    assert "seconds since the Epoch" in (time.time.__doc__ or "")
    assert "time.time" in repr(time.time)


def test_random_generators_are_pickled():
    """Their class makes one without a seed to fill it, which is no drawing of the author's."""
    made = random.Random(3)
    again = pickle.loads(pickle.dumps(made))

    assert again.random() == made.random()


def test_a_clock_that_is_already_patched_stays_patched(monkeypatch):
    """A patch such as freezegun's or gevent's stays in effect, and a second `install` does not change that."""
    stock = time.time
    monkeypatch.setattr(time, "time", lambda: 7.0)
    guards.install()
    assert time.time() == 7.0

    monkeypatch.undo()
    guards.install()
    assert time.time is stock


def test_a_module_that_is_imported_later_is_guarded_by_the_next_turn(monkeypatch):
    """The guards import nothing themselves."""
    from durable.sandbox.restrictions import Restriction

    monkeypatch.setitem(sys.modules, "late", type(sys)("late"))
    monkeypatch.setattr(guards, "_pending", [Restriction(module="late", names="read absent")])
    sys.modules["late"].read = lambda: 1  # type: ignore[attr-defined]

    error = refusal(lambda: sys.modules["late"].read())  # type: ignore[attr-defined]

    assert error.call == "late.read"
    assert sys.modules["late"].read() == 1  # type: ignore[attr-defined]
    assert guards._pending == []


def test_the_tables_name_what_there_is():
    """Every function on the list exists in some supported Python, and every one that exists is wrapped."""
    for function, call, _ in guards.originals():
        module, _, name = call.rpartition(".")
        assert getattr(sys.modules[module], name).durable_original is function, call
        assert Path(call).suffix == f".{name}"


# What applications change: more calls forbidden, modules and blocks that may pass


@pytest.fixture
def prices(monkeypatch):
    """A module of the application's, with functions and a class."""
    module = ModuleType("test_guards_prices")
    source = """
import time

def current_price():
    return 1

def stamp():
    return time.time()

class Client:
    def fetch(self):
        return 2

    @classmethod
    def default(cls):
        return cls.__name__

    @staticmethod
    def ping():
        return 3
"""
    exec(source, vars(module))
    monkeypatch.setitem(sys.modules, "test_guards_prices", module)
    monkeypatch.setattr(guards, "_restrictions", list(guards._restrictions))
    return module


def test_an_application_forbids_functions_and_methods_of_its_own(prices):
    """The error names the call and the application's fix; outside of workflows they work as before."""
    for name in ("current_price", "Client.fetch", "Client.default", "Client.ping"):
        forbid(f"test_guards_prices:{name}", fix="await fetch_price()")

    for call in (prices.current_price, prices.Client().fetch, prices.Client.default, prices.Client.ping):
        assert refusal(call).fix == "await fetch_price()"
    assert refusal(prices.current_price).call == "test_guards_prices.current_price"
    assert (prices.current_price(), prices.Client().fetch()) == (1, 2)
    assert (prices.Client.default(), prices.Client().default(), prices.Client.ping()) == ("Client", "Client", 3)


def test_forbidding_twice_changes_nothing(prices):
    """As when a module is reloaded."""
    forbid("test_guards_prices:current_price")
    once = prices.current_price
    forbid("test_guards_prices:current_price")

    assert prices.current_price is once


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_guards_prices.current_price", "write it as module:function"),
        ("test_guards_prices:", "write it as module:function"),
        ("test_guards_prices:absent", "no such function"),
        ("test_guards_prices:Absent.fetch", "no such function"),
        ("test_guards_prices:Client", "this is a class"),
        ("test_guards_absent:f", "cannot be imported"),
        ("datetime:datetime.now", "written in C"),
    ],
)
def test_a_name_that_cannot_be_forbidden_is_an_error(prices, name, message):
    """At once, not when the workflow runs."""
    with pytest.raises(ConfigurationError, match=message):
        forbid(name)


def test_a_module_may_pass(prices):
    """By its name or its package's, for the workflows that name it; what it calls passes too."""

    async def flow():
        return prices.stamp() > 0

    def result(*modules: str) -> Any:
        return (
            Simulator(Workflow(flow, name="test_guards.flow", passthrough_modules=modules), checked=False).turn().result
        )

    prices.__name__ = vars(prices)["__name__"] = "test_guards_prices.clock"
    assert result("test_guards_prices") is True
    assert result("test_guards_prices.clock") is True
    for others in ((), ("test_guards_price",), ("test_guards_prices.clock.more",)):
        with pytest.raises(NonDeterministicCall):
            result(*others)


def test_passthrough_modules_are_a_list():
    """One str would be a list of letters."""

    async def flow(): ...

    with pytest.raises(ConfigurationError, match="Pass a list"):
        Workflow(flow, name="test_guards.flow", passthrough_modules="shop")


def test_a_block_may_pass():
    """Calls in it, and nothing after it; other tasks are guarded meanwhile; our own functions are still refused."""
    seen = []

    async def other():
        try:
            time.time()
        except NonDeterministicCall:
            seen.append("guarded")

    async def flow():
        task = asyncio.create_task(other())
        with unrestricted():
            seen.append(time.time() > 0)
            with open("/dev/null") as file:
                seen.append(file.read())
            await task
            with unrestricted():
                pass
            seen.append(random.random() < 1)
            with pytest.raises(NonDeterministicCall):
                durable.get_run("r1")
        time.time()

    with pytest.raises(NonDeterministicCall):
        _ = play(flow, checked=False).result
    assert seen == [True, "", "guarded", True]


def test_what_is_below_a_workflow_on_the_stack_exempts_nothing():
    """A turn that runs below a frame of logging or importlib, as under a module runner, is guarded like any other."""

    async def flow():
        return time.time()

    def turn():
        with pytest.raises(NonDeterministicCall):
            _ = play(flow, checked=False).result
        return True

    assert eval("turn()", {"__name__": "importlib.fake", "turn": turn})
    assert source_lines.BOTTOM in sys.modules
