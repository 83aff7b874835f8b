"""
What a workflow body may not call, and what to do instead: the list that ``guards`` and ``lint`` go by.

Not on it, for Python gives no way to see them cheaply: reads of ``os.environ``, ``os.stat`` and what is made of it
(``Path.exists``), waiting for a lock or a queue of ``threading``, and queries over a connection that is
open already and belongs to a driver written in C.  Allowed on purpose: ``print`` and ``logging``.
"""

from __future__ import annotations

from dataclasses import dataclass

IN_A_STEP = "move it into a step"
_SLEEP = "await durable.sleep(...)"
CLOCK = "use durable.now(), which is the same on every replay"
_RANDOM = "use durable.random(), which draws the same on every replay"
_UUID = "use durable.uuid4(), which is the same on every replay"
_THREAD = "make the function a step; asyncio.gather(step(1), step(2)) runs several at once"
_TASK = "make the task a step and await it, or send it in a step"

#: What helps only where the author wrote the call: of a library's, the author can but move the whole.
IN_PLACE = {_SLEEP, CLOCK, _RANDOM, _UUID}

_OS = """
    chdir chmod chown exec fork forkpty kill killpg link listdir mkdir posix_spawn remove rename rmdir scandir
    spawn symlink system truncate utime
"""
_SOCKET = "bind connect getaddrinfo gethostbyaddr gethostbyname gethostname sendmsg sendto"

#: Python's own audit events, and what their calls are named in the error; all belong into a step.
AUDITED = {
    "builtins.input": "input",
    "open": "open",
    "os.putenv": "os.environ[...] = ...",
    "os.unsetenv": "del os.environ[...]",
    "socket.__new__": "socket.socket",
    "sqlite3.connect": "sqlite3.connect",
    "subprocess.Popen": "subprocess.Popen",
    **{f"os.{name}": f"os.{name}" for name in _OS.split()},
    **{f"socket.{name}": f"socket.{name}" for name in _SOCKET.split()},
}


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """
    Functions that Python audits by no event.

    Attributes:
        module: Where they are.  Not imported: whoever wants to call them has.
        owner: The class whose methods they are; None for functions of the module.
        names: Theirs.  One that this version of Python lacks is passed over.
        fix: What to do instead.
        given: The place of an argument with which the call is harmless.
    """

    module: str
    names: str
    fix: str = IN_A_STEP
    owner: str | None = None
    given: int | None = None

    def call(self, name: str) -> str:
        """What a call is named in errors: ``time.sleep``, ``threading.Thread.start``."""
        return ".".join(part for part in (self.module, self.owner, name) if part)


GUARDED = (
    Guarded(module="time", names="sleep", fix=_SLEEP),
    Guarded(
        module="time",
        names="time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns"
        " thread_time thread_time_ns clock_gettime clock_gettime_ns",
        fix=CLOCK,
    ),
    # With a time they convert it; without one they read the clock.
    Guarded(module="time", names="localtime gmtime ctime asctime", fix=CLOCK, given=0),
    Guarded(module="time", names="strftime", fix=CLOCK, given=1),
    Guarded(
        module="random",
        names="seed random uniform triangular randint choice randrange sample shuffle choices normalvariate"
        " lognormvariate expovariate vonmisesvariate gammavariate gauss betavariate binomialvariate"
        " paretovariate weibullvariate getstate setstate getrandbits randbytes",
        fix=_RANDOM,
    ),
    # random.Random() without a seed; with one it draws the same on every replay.
    Guarded(module="random", owner="Random", names="seed", fix=_RANDOM, given=1),
    # Not randbytes: webhooks draw their tokens by it.
    Guarded(module="random", owner="SystemRandom", names="random getrandbits"),
    Guarded(module="uuid", names="getnode uuid1 uuid4 uuid6 uuid7", fix=_UUID),
    Guarded(module="os", names="urandom getrandom", fix=_RANDOM),
    Guarded(module="secrets", names="token_bytes token_hex token_urlsafe randbelow randbits choice"),
    Guarded(module="threading", owner="Thread", names="start", fix=_THREAD),
    Guarded(module="concurrent.futures.thread", owner="ThreadPoolExecutor", names="submit", fix=_THREAD),
    Guarded(module="concurrent.futures.process", owner="ProcessPoolExecutor", names="submit", fix=_THREAD),
    # Connections that were open before: new ones are audited.
    Guarded(module="socket", owner="socket", names="accept recv recv_into recvfrom recvmsg send sendall sendfile"),
    Guarded(module="ssl", owner="SSLSocket", names="read recv recv_into send sendall write"),
    Guarded(module="sqlalchemy.engine.base", owner="Engine", names="connect raw_connection"),
    Guarded(module="celery.app.task", owner="Task", names="apply_async", fix=_TASK),
    Guarded(module="celery.app.base", owner="Celery", names="send_task", fix=_TASK),
    *(
        Guarded(module="celery.canvas", owner=owner, names="apply_async", fix=_TASK)
        for owner in ("Signature", "_chain", "_chord", "group")
    ),
)
