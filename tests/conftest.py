"""What all tests share: databases and brokers of their own, an engine in this process, and logs when a test fails."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import times
from celery import Celery
from litter import TemporaryFolder
from registries import no_engine_left, own_definitions
from servers import migrate, new_broker, new_database, remove_vhosts, take_less_care

from durable import Durable

_temporary = pytest.StashKey[TemporaryFolder]()

#: By this variable, a new Python process sees that coverage is to measure it.
_MEASURED = "COVERAGE_PROCESS_CONFIG"

#: Folders of the rooms that do no I/O.
QUICK = {"vocabulary", "sandbox", "http", "codec", "verify", "registry", "replay", "context"}

#: Live tests that measure no time: they may run beside those that do.
UNTIMED = {
    "test_deaf_workers.py",
    "test_hostile_databases.py",
    "test_framing.py",
    "test_galera.py",
    "test_live_adopted.py",
    "test_live_encryption.py",
    "test_live_fuzzing.py",
    "test_live_observed.py",
    "test_live_receivers.py",
    "test_live_replies.py",
    "test_live_senders.py",
    "test_live_settings.py",
    "test_live_tracing.py",
    "test_live_unusual.py",
    "test_patterns.py",
    "test_read_before.py",
    "test_reading.py",
    "test_strangers.py",
}

#: Live tests whose processes `make coverage` measures.
MEASURED = UNTIMED | {"test_live_dev.py", "test_poolers.py", "test_two_installations.py"}

#: Parameters of a test that needs a server which may not be there.
SERVERS = {"postgresql", "mariadb", "redis", "rabbitmq"}


def pytest_configure(config: pytest.Config) -> None:
    """
    The run has a temporary folder of its own; ``--basetemp`` says where pytest's ``tmp_path`` is kept.

    Hypothesis does not measure: on a busy machine its limits fail tests that are right.
    """
    hypothesis.settings.register_profile(
        "durable", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("durable")
    config.stash[_temporary] = TemporaryFolder()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long bytes give no id: some differ in each process (gzip writes the time), and no two of xdist's may."""
    return argname if isinstance(val, bytes) and len(val) > 20 else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``pytest`` without a path and without ``-m`` runs the quick tests: they are in these folders and in this one."""
    if not _wants_quick(config) or collection_path.parent != Path(__file__).parent:
        return None
    return True if collection_path.is_dir() and collection_path.name not in QUICK else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """
    With ``--dist loadgroup``, one process runs the live tests that measure time, one after the other.

    xdist's own groups do nothing with pytest 9.2: it gives them to tests by changing their ids, which it no longer can.
    """
    if config.option.dist != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            folder, _, name = nodeid.partition("::")[0].rpartition("/")
            if not folder.endswith("live"):
                return nodeid
            return "untimed" if name in UNTIMED else "live"

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark live tests that ``make coverage`` would slow, and leave out what is not quick where only that is wanted."""
    for item in items:
        if item.get_closest_marker("live") and item.path.name not in MEASURED:
            item.add_marker("timed")
    if _wants_quick(config):
        slow = [item for item in items if not _is_quick(item)]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if _is_quick(item)]


def _wants_quick(config: pytest.Config) -> bool:
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr


def _is_quick(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    needs_server = callspec is not None and any(
        isinstance(value, str) and value in SERVERS for value in callspec.params.values()
    )
    return not (needs_server or item.get_closest_marker("live") or item.get_closest_marker("slow"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Processes that a timed live test starts are not measured for `make coverage`, which would slow them."""
    config = os.environ.pop(_MEASURED, None) if item.get_closest_marker("timed") else None
    try:
        return (yield)
    finally:
        if config is not None:
            os.environ[_MEASURED] = config


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Note what the test has left in the temporary folder."""
    try:
        return (yield)
    finally:
        item.config.stash[_temporary].note(item.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The run fails when something stays in the temporary folder; a worker of xdist reports what stays in its own."""
    left = session.config.stash[_temporary].left()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = left
    elif session.exitstatus == pytest.ExitCode.OK and left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker of xdist reports as left."""
    node.config.stash[_temporary].add(getattr(node, "workeroutput", {}).get("left", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which files took long.  Name what stayed in the temporary folder, and the tests during which it came."""
    reports = [each for some in terminalreporter.stats.values() for each in some if hasattr(each, "duration")]
    if lines := times.table(reports):
        terminalreporter.section("slowest files")
        for line in lines:
            terminalreporter.line(line)
    if left := config.stash[_temporary].left():
        terminalreporter.section("left in the temporary folder", red=True)
        for name, test in left.items():
            terminalreporter.line(f"{name}, since {test}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the run's virtual hosts and its temporary folder."""
    remove_vhosts()
    config.stash[_temporary].remove()


@pytest.fixture(autouse=True, scope="module")
def _engines_of_the_module() -> Iterator[None]:
    """The fixtures of a module close the engines that they make."""
    with no_engine_left():
        yield


@pytest.fixture(autouse=True)
def _engines_of_the_test(_engines_of_the_module: None) -> Iterator[None]:
    """A test closes the engines that it makes; those of its module's fixtures were made before."""
    with no_engine_left():
        yield


@pytest.fixture(autouse=True)
def _signals_of_the_test() -> Iterator[None]:
    """A test leaves Ctrl-C and SIGTERM as it found them: whether a KeyboardInterrupt ends a process depends on it."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {signum: signal.getsignal(signum) for signum in before}
    for signum, handler in before.items():
        signal.signal(signum, handler)
    assert after == before, "the test has left signal handlers behind"


@pytest.fixture
def own_registry() -> Iterator[None]:
    """What a test defines is forgotten after it."""
    with own_definitions():
        yield


@pytest.fixture
def patient_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """All runs of a message begin together, however slow the machine is."""
    monkeypatch.setattr(sys.modules["durable.turns.begin_runs"], "MOST_SECS", 60)


@pytest.fixture
def unmeasured() -> None:
    """Skip in `make coverage`: Python 3.11 may hang when an exception is thrown into a thread that is traced."""
    if sys.gettrace() is not None:
        pytest.skip("Exceptions that are thrown into a traced thread may hang it.")


@pytest.fixture(scope="session")
def _databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """One database of each kind for the tests in this process, made when it is first wanted."""
    known: dict[str, str] = {}
    with ExitStack() as stack:

        def url_of(kind: str) -> str:
            if kind not in known:
                known[kind] = stack.enter_context(new_database(kind, tmp_path_factory.mktemp("database")))
                if kind == "postgresql":
                    take_less_care(known[kind])
            return known[kind]

        yield url_of


@pytest.fixture
def database(request: pytest.FixtureRequest, _databases: Callable[[str], str], tmp_path: Path) -> str:
    """The URL of a database; ``parametrize("database", DATABASES, indirect=True)`` for every kind."""
    kind = getattr(request, "param", "sqlite")
    return f"sqlite:///{tmp_path}/durable.db" if kind == "sqlite" else _databases(kind)


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty broker; ``parametrize("broker", BROKERS, indirect=True)`` for every kind."""
    with new_broker(getattr(request, "param", "embedded"), tmp_path) as url:
        yield url


@pytest.fixture
def token() -> str:
    """A token that no other test uses: they share a database."""
    return f"tok-{secrets.token_hex(8)}"


#: Settings for how runs are gone on with.
MANNERS: dict[str, dict[str, Any]] = {
    "by-messages": {"continuation": 0, "replay_cache": 0},
    "in-place": {"continuation": "60s"},
    "uncached": {"continuation": "60s", "replay_cache": 0},
}


@pytest.fixture
def manner(database: str) -> dict[str, Any]:
    """What ``TESTS_MANNER`` names; without it, message by message on SQLite, and in place on the others."""
    usual = "by-messages" if database.startswith("sqlite") else "in-place"
    return MANNERS[os.environ.get("TESTS_MANNER", usual)]


@pytest.fixture
def engine(database: str, manner: dict[str, Any]) -> Iterator[Durable]:
    """An engine in this process, migrated, whose messages go nowhere."""
    made = Durable(
        Celery(f"test-{secrets.token_hex(4)}", broker="memory://"),
        database_url=database,
        public_url="https://hooks.test",
        **manner,
    )
    migrate(made)
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failed test shows the last lines of what its processes said."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for name, tail in getattr(value, "log_tails", dict)().items():
                report.sections.append((name, tail))
    return report
