"""More than one engine in a process: which one a Celery app serves, which one is current, and when a worker refuses."""

from __future__ import annotations

import importlib
import secrets
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from servers import migrate
from worker_thread import worker_in_thread

from durable import ConfigurationError, Durable, Run, current, start, step, workflow
from durable.recovery import housekeeping
from durable.store import workers
from durable.testing import Environment, crash_everywhere, export, replay

FLOW = """
from durable import step, workflow

@step(name="engines.price")
def price(n: int) -> int:
    return n * {factor}

@workflow(name="engines.quote")
async def quote(n: int) -> int:
    return await price(n)
"""


@pytest.fixture(autouse=True)
def forgotten(own_registry: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test defines is forgotten after it, and no engine of it is left.  Those of imported apps are hidden."""
    monkeypatch.setattr(current, "_engines", [])
    yield
    sys.modules.pop("engines_flow", None)
    for engine in current.engines():
        housekeeping.end(engine)
        engine.close()
    assert current.engines() == ()


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app that Celery has not finalized yet."""
    made = Celery(f"engines-{secrets.token_hex(4)}", broker="memory://")
    made.conf.update(task_default_queue=made.main, broker_transport_options={"polling_interval": 0.005})
    yield made
    made.close()


@pytest.fixture
def make(app: Celery, tmp_path: Path) -> Callable[[str], Durable]:
    """Make an engine of the app, with a database of this name."""

    def make(name: str) -> Durable:
        engine = Durable(app, database_url=f"sqlite:///{tmp_path}/{name}.db", continuation=0)
        migrate(engine)
        return engine

    return make


def ended(run: Run[Any]) -> Any:
    """The result of a run that a worker runs."""
    return run.result(timeout=20)


def load(folder: Path, factor: int, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the flow, with this factor; reloaded when it is known."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (folder / "engines_flow.py").write_text(FLOW.format(factor=factor))
    importlib.invalidate_caches()
    if known := sys.modules.get("engines_flow"):
        return importlib.reload(known)
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("engines_flow")


@workflow(name="engines.doubled")
async def doubled(n: int) -> int:
    return await double(n)


@step(name="engines.double")
def double(n: int) -> int:
    return n * 2


# One Celery app.


@pytest.mark.parametrize("finalized", [False, True])
def test_the_engine_made_last_serves_the_app(app, make, finalized):
    """Its runs end, whether the app was finalized before the two were made or not, and Celery warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = make("same")
        if finalized:
            app.finalize()
        last = make("same")
        with worker_in_thread(app):
            results = [ended(start(doubled, 1)), ended(first.start(doubled, 2))]

    assert results == [2, 4]
    assert app.tasks["engines.double"].durable_engine is last


@pytest.mark.parametrize("finalized", [False, True])
def test_a_closed_engine_serves_no_more(app, make, finalized):
    """The engine made before it has the app, also with another database."""
    first = make("first")
    if finalized:
        app.finalize()
    make("last").close()

    with worker_in_thread(app):
        assert ended(start(doubled, 1)) == 2
    assert app.tasks["durable.drive"].durable_engine is first


def test_a_worker_leaves_engines_of_other_apps_alone(app, make, tmp_path):
    """No housekeeping of theirs starts in it: it would sweep their runs, and their database need not be there yet."""
    other = Durable(Celery("other", broker="memory://"), database_url=f"sqlite:///{tmp_path}/other.db")
    migrate(other)
    make("own")

    with worker_in_thread(app):
        assert ended(start(doubled, 1)) == 2
        with other.store.read() as tx:
            assert workers.count(tx) == 0


def test_a_worker_refuses_two_engines_with_two_databases(tmp_path):
    """It cannot serve both: it stops, and names the databases without their passwords."""
    (tmp_path / "two_engines.py").write_text(
        textwrap.dedent(
            """
            from celery import Celery
            from durable import Durable

            app = Celery("two", broker="memory://")
            first = Durable(app, database_url="postgresql://me:secret@127.0.0.1/one")
            last = Durable(app, database_url="sqlite:///last.db")
            """
        )
    )
    command = [sys.executable, "-m", "celery", "-A", "two_engines", "worker", "-P", "solo", "-l", "WARNING"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "Two engines exist for the Celery app 'two'" in done.stderr
    assert "127.0.0.1/one" in done.stderr
    assert "sqlite:///last.db" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("finalized", [False, True])
def test_a_module_that_is_reloaded_counts_as_it_is_now(app, make, tmp_path, monkeypatch, finalized):
    """A worker runs the code of the later import, and Celery warns of nothing."""
    make("reloaded")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path, 10, monkeypatch)
        if finalized:
            app.finalize()
        flow = load(tmp_path, 100, monkeypatch)
        with worker_in_thread(app):
            assert ended(start(flow.quote, 1)) == 100


def test_a_task_with_the_name_of_a_step_stops_the_worker(app, make):
    """Its messages would run the application's own task: the error has the name and the step's place."""

    @app.task(name="engines.taken", shared=False)
    def task() -> None: ...

    @step(name="engines.taken")
    def taken() -> None: ...

    make("taken")

    with pytest.raises(SystemExit), worker_in_thread(app):
        pass
    assert app.tasks["engines.taken"].run() is None


# An environment beside the application's engine.


@pytest.mark.parametrize("finalized", [False, True])
def test_an_environment_with_the_applications_celery_app(app, make, finalized):
    """The app's own task carries the environment's attempts within it, and the engine's again afterwards."""
    calls: list[int] = []

    @app.task(name="engines.charge", shared=False)
    def charge(n: int) -> int:
        calls.append(n)
        return n + 1

    charge_step = step(charge)

    @workflow(name="engines.charges")
    async def charges(n: int) -> int:
        return await charge_step(n)

    make("module")
    if finalized:
        app.finalize()

    with Environment(celery=app) as env:
        assert env.run(charges, 1) == 2
    app.conf.task_always_eager = False
    with worker_in_thread(app):
        assert ended(start(charges, 10)) == 11
    assert calls == [1, 10]


def test_the_engine_of_before_is_current_after_an_environment(make):
    """Within it the environment's is, also after a restart; nested ones end one by one."""
    before = make("before")

    with Environment() as outer:
        with Environment() as inner:
            assert current.current_engine() is inner.engine
            inner.restart()
            assert current.current_engine() is inner.engine
        assert current.current_engine() is outer.engine

    assert current.current_engine() is before


def test_environments_may_end_in_any_order(make):
    """No engine that is closed is ever the current one."""
    before, first, second = make("before"), Environment(), Environment()
    first.__enter__()
    second.__enter__()

    first.__exit__(None, None, None)
    assert current.current_engine() is second.engine
    second.__exit__(None, None, None)
    assert current.current_engine() is before


def test_an_environment_that_ends_in_an_error_gives_the_engine_back(make):
    """As when a test fails in it."""
    before = make("before")

    with pytest.raises(ZeroDivisionError), Environment():
        _ = 1 / 0

    assert current.current_engine() is before


def test_the_engine_of_before_is_current_after_the_tools_of_tests(make):
    """`crash_everywhere` and `replay` leave it where it was."""
    before = make("before")

    crash_everywhere(doubled, 1, sample=2)
    assert current.current_engine() is before

    with Environment() as env:
        history = export(env.start(doubled, 1))
    replay(history)
    assert current.current_engine() is before


def test_the_fixture_gives_the_engine_back(tmp_path):
    """In a suite of its own: a test after one with `durable_env` starts runs on the application's engine."""
    (tmp_path / "test_suite.py").write_text(
        textwrap.dedent(
            """
            from celery import Celery
            from durable import Durable, current

            pytest_plugins = ["durable.testing.plugin"]
            engine = Durable(Celery("suite", broker="memory://"), database_url="sqlite:///suite.db")

            def test_within(durable_env):
                assert current.current_engine() is durable_env.engine

            def test_afterwards():
                assert current.current_engine() is engine
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_suite.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert "2 passed" in done.stdout, done.stdout


def test_a_closed_engine_is_not_current(make):
    """When the last one is closed there is none."""
    first, last = make("first"), make("last")
    last.close()
    assert current.current_engine() is first

    first.close()
    with pytest.raises(ConfigurationError, match="no durable engine"):
        current.current_engine()
