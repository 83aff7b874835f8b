"""
The calls that a workflow body may not make, and what to do instead.  ``guards`` and ``lint`` use this list.

Not on the list, because Python offers no cheap way to see them: reads of ``os.environ``; ``os.stat`` and what uses it
(``Path.exists``); waiting for a lock or a queue of ``threading``; and queries over an open connection of a driver
written in C.  Allowed on purpose: ``print`` and ``logging``.
"""

from __future__ import annotations

from dataclasses import dataclass

IN_A_STEP = "move it into a step"
_SLEEP = "await durable.sleep(...)"
CLOCK = "use durable.now(), which is the same on every replay"
_RANDOM = "use durable.random(), which returns the same numbers on every replay"
_UUID = "use durable.uuid4(), which is the same on every replay"
_THREAD = "make the function a step; asyncio.gather(step(1), step(2)) runs several at once"
_TASK = "make the task a step and await it, or send it in a step"

#: Fixes for a call that the author wrote.  When a library makes the call, the author can only move the library's call.
IN_PLACE = {_SLEEP, CLOCK, _RANDOM, _UUID}

_OS = """
    chdir chmod chown exec fork forkpty kill killpg link listdir mkdir posix_spawn remove rename rmdir scandir
    spawn symlink system truncate utime
"""
_SOCKET = "bind connect getaddrinfo gethostbyaddr gethostbyname gethostname sendmsg sendto"

#: Python's own audit events, each with the name of the call in the error.  All of these calls belong in a step.
AUDIT_EVENTS = {
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
class Restriction:
    """
    Functions that may not be called, and for which Python has no audit event.

    Attributes:
        module: Their module.  ``guards`` does not import it: code that calls them has imported it.
        owner: The class whose methods they are; None for functions of the module.
        names: Their names, separated by spaces.  A name that this version of Python lacks is skipped.
        fix: What to do instead.
        harmless_argument: The position of an argument that makes the call harmless.
    """

    module: str
    names: str
    fix: str = IN_A_STEP
    owner: str | None = None
    harmless_argument: int | None = None

    def call(self, name: str) -> str:
        """The name of a call in errors: ``time.sleep``, ``threading.Thread.start``."""
        return ".".join(part for part in (self.module, self.owner, name) if part)


RESTRICTIONS = (
    Restriction(module="time", names="sleep", fix=_SLEEP),
    Restriction(
        module="time",
        names="time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns"
        " thread_time thread_time_ns clock_gettime clock_gettime_ns",
        fix=CLOCK,
    ),
    # With an argument they convert a time; without one they read the clock.
    Restriction(module="time", names="localtime gmtime ctime asctime", fix=CLOCK, harmless_argument=0),
    Restriction(module="time", names="strftime", fix=CLOCK, harmless_argument=1),
    Restriction(
        module="random",
        names="seed random uniform triangular randint choice randrange sample shuffle choices normalvariate"
        " lognormvariate expovariate vonmisesvariate gammavariate gauss betavariate binomialvariate"
        " paretovariate weibullvariate getstate setstate getrandbits randbytes",
        fix=_RANDOM,
    ),
    # random.Random() without a seed.  With one it returns the same numbers on every replay.
    Restriction(module="random", owner="Random", names="seed", fix=_RANDOM, harmless_argument=1),
    # Not randbytes: webhooks make their tokens with it.
    Restriction(module="random", owner="SystemRandom", names="random getrandbits"),
    Restriction(module="uuid", names="getnode uuid1 uuid4 uuid6 uuid7", fix=_UUID),
    Restriction(module="os", names="urandom getrandom", fix=_RANDOM),
    Restriction(module="secrets", names="token_bytes token_hex token_urlsafe randbelow randbits choice"),
    Restriction(module="threading", owner="Thread", names="start", fix=_THREAD),
    Restriction(module="concurrent.futures.thread", owner="ThreadPoolExecutor", names="submit", fix=_THREAD),
    Restriction(module="concurrent.futures.process", owner="ProcessPoolExecutor", names="submit", fix=_THREAD),
    # For connections that are open already.  Opening a new one raises an audit event.
    Restriction(module="socket", owner="socket", names="accept recv recv_into recvfrom recvmsg send sendall sendfile"),
    Restriction(module="ssl", owner="SSLSocket", names="read recv recv_into send sendall write"),
    Restriction(module="sqlalchemy.engine.base", owner="Engine", names="connect raw_connection"),
    Restriction(module="celery.app.task", owner="Task", names="apply_async", fix=_TASK),
    Restriction(module="celery.app.base", owner="Celery", names="send_task", fix=_TASK),
    *(
        Restriction(module="celery.canvas", owner=owner, names="apply_async", fix=_TASK)
        for owner in ("Signature", "_chain", "_chord", "group")
    ),
)
