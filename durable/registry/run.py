"""
``Run``: the handle of a run, which ``start`` and ``get_run`` return.

The handle keeps only the run's id.  Each call goes to the engine's client (``client/run.py``), which uses the database.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, TypeVar, overload

from .. import codec, duration
from ..current import current_engine
from ..errors import RunNotFound
from ..events import Event
from ..sandbox import refuse_in_workflow
from .async_run import AsyncRun
from .run_client import RunClient, RunRow
from .streams import Stream, StreamReader, check_stream_name
from .values import Value, check_name

R = TypeVar("R")
T = TypeVar("T")

_MISSING: Any = object()


class Run(AsyncRun[R]):
    """
    A run, by its id.  Creating the object does no I/O; each property reads the database again.

    Each property and method has a form for asyncio, whose name begins with ``a``: ``await run.aresult()``.

    All properties and methods except ``id`` and ``exists`` raise RunNotFound when there is no such run.

    If the run has continued as new, its handle speaks for its last generation, except for ``name``, ``created_at``,
    ``started_at`` and ``events``.
    """

    def __init__(self, run_id: str, engine: Any = None) -> None:
        self.id = run_id
        self._engine = engine

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def exists(self) -> bool:
        """Whether there is such a run."""
        return self._client("Run.exists").find(self.id) is not None

    @property
    def status(self) -> str:
        """``pending running completed failed cancelled blocked``; a waiting run is ``running``."""
        return self._client("Run.status").latest(self.id).status

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self._row("Run.name").name

    @property
    def created_at(self) -> datetime:
        """When the run was committed."""
        return duration.to_datetime(self._row("Run.created_at").created_at)

    @property
    def started_at(self) -> datetime | None:
        """When its first turn began."""
        return _moment(self._row("Run.started_at").started_at)

    @property
    def completed_at(self) -> datetime | None:
        """When it ended."""
        return _moment(self._client("Run.completed_at").latest(self.id).completed_at)

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes that the run has set with ``set_attributes``, by name.  They stay after the run has ended."""
        return self._client("Run.attributes").attributes(self.id)

    def result(self, timeout: Any = None) -> R:
        """
        Wait for the end, and return what the workflow returned.

        Args:
            timeout: How long to wait, as ``sleep`` takes it; None: as long as it takes.

        Raises:
            RunFailed: The run has failed; ``__cause__`` is the original exception.
            RunCancelled: The run was cancelled; ``__cause__`` is what its cleanup raised, if it did.
            TimeoutError: It goes on.
        """
        return self._client("Run.result").result(self.id, timeout)  # type: ignore[no-any-return]

    @overload
    def value(self, name: Value[T], timeout: Any = None) -> T: ...
    @overload
    def value(self, name: str, timeout: Any = None) -> Any: ...
    def value(self, name: str | Value[Any], timeout: Any = None) -> Any:
        """
        Return the latest value that the run has published under this name; wait for the first one.

        Args:
            name: The name, or a ``Value``, whose type the value then has.
            timeout: How long to wait, as ``sleep`` takes it; None: as long as the run goes on.

        Raises:
            ValueNotPublished: The run has ended without it.
            TimeoutError: The run goes on without it.
            SerializationError: The value does not have the type any more.
        """
        key = check_name(str(name) if isinstance(name, Value) else name)
        found = self._client("Run.value").value(self.id, key, timeout)
        return name.fit(found) if isinstance(name, Value) else found

    def values(self) -> dict[str, Any]:
        """The latest values that the run has published, by name."""
        return self._client("Run.values").values(self.id)

    @overload
    def stream(self, name: Stream[T], *, start: int = 0, timeout: Any = None) -> StreamReader[T]: ...
    @overload
    def stream(self, name: str, *, start: int = 0, timeout: Any = None) -> StreamReader[Any]: ...
    def stream(self, name: str | Stream[Any], *, start: int = 0, timeout: Any = None) -> StreamReader[Any]:
        """
        Return the items that the run emits to a stream, as they come, until the run has ended or the stream is closed.

        The loop raises TimeoutError, and SerializationError for an item that does not have the type any more.

        Args:
            name: The name, or a ``Stream``, whose type the items then have.
            start: The number of the first item; they are numbered from 0.
            timeout: How long to wait for one item, as ``sleep`` takes it; None: until the stream is over.
        """
        key = check_stream_name(str(name) if isinstance(name, Stream) else name)
        client = self._client("Run.stream")
        return StreamReader(
            lambda: client.stream(self.id, key, start, timeout), name.fit if isinstance(name, Stream) else None
        )

    def streams(self) -> list[dict[str, Any]]:
        """The run's streams by name, each as a dict: ``name items keep created_at closed_at is_over``."""
        return self._client("Run.streams").streams(self.id)

    def read_token(
        self,
        *,
        streams: Collection[str | Stream[Any]] = (),
        values: Collection[str | Value[Any]] = (),
        expires: Any = "1h",
    ) -> str:
        """
        Return a signed text that permits a browser to read some streams and published values of the run.

        *streams* and *values* are names; *expires* is for how long it may be used to connect, as ``sleep`` takes it.

        Raises:
            ConfigurationError: The setting ``signing_key`` is missing.
            ValueError: The names are too many for one token of 4,096 characters.
        """
        if isinstance(streams, str) or isinstance(values, str):
            raise TypeError("Run.read_token takes lists of names: streams=[…], values=[…].")
        of_streams = [check_stream_name(str(each) if isinstance(each, Stream) else each) for each in streams]
        of_values = [check_name(str(each) if isinstance(each, Value) else each) for each in values]
        return self._client("Run.read_token").read_token(self.id, of_streams, of_values, expires)

    def cancel(self, reason: str | None = None) -> bool:
        """Ask the run to stop: its next await raises CancelledError.  Returns False when the run has ended."""
        return self._client("Run.cancel").cancel(self.id, reason)

    @overload
    def resolve(self, *, result: object, step: str | None = None) -> str: ...
    @overload
    def resolve(self, *, fail: str, step: str | None = None) -> str: ...
    def resolve(self, *, result: object = _MISSING, fail: str | None = None, step: str | None = None) -> str:
        """
        Record the outcome of a step that is in doubt (``semantics="at_most_once"``), so that the run goes on.

        Args:
            result: The step's result, if it did its work.
            fail: Why the step failed, if it did not.  Pass either *result* or *fail*.
            step: The step's id, when several steps are in doubt.

        Returns:
            The step's id.

        Raises:
            NotInDoubt: No step is in doubt, or several are and *step* is missing.
            SerializationError: The result does not fit the step's return annotation.
        """
        if (result is _MISSING) == (fail is None):
            raise TypeError("Run.resolve takes either result=… or fail='why'.")
        return self._client("Run.resolve").resolve(self.id, step, result=result, fail=fail)

    def fork(
        self,
        *,
        from_step: str | None = None,
        from_event: int | None = None,
        code: str = "current",
        reapply_payloads: bool = True,
    ) -> Run[R]:
        """
        Start a new run that begins as this one did, up to a point, and goes on from there with the code of now.

        This run stays as it is.  Without *from_step* and *from_event*, the fork is at the step that has failed the run.

        Args:
            from_step: Call this step again: its name, or the id of one call.
            from_event: Go on behind this event, by its ``seq``.
            code: ``"current"``, the code that is deployed.  There is no other.
            reapply_payloads: Whether the fork gets the payloads that have come since to the hooks that are open then.

        Raises:
            ForkRefused: The run has no such point, or a fork there could not be right.
            TypeError: Both *from_step* and *from_event* are given.
        """
        if code != "current":
            raise ValueError(f'code={code!r}: a fork runs with the code that is deployed, code="current".')
        made: Run[R] = self._client("Run.fork").fork(
            self.id, from_step=from_step, from_event=from_event, reapply_payloads=reapply_payloads
        )
        return made

    def retry(self) -> Run[R] | None:
        """
        Let the run go on with the code that is deployed now, and return the run that goes on; None if none does.

        A blocked run goes on itself.  A run that has failed has ended: a new run goes on, its ``fork`` at the step that
        has failed.  If it was forked before, its latest fork goes on, and is retried if it needs that.

        Raises:
            ForkRefused: The run has failed, and a fork could not be right.
        """
        return self._client("Run.retry").retry(self.id)  # type: ignore[no-any-return]

    def pause(self, reason: str | None = None, *, children: bool = False) -> bool:
        """
        Pause the run: it has no turns, and no attempt of a step begins, until ``resume``.

        Attempts that are running end, and what they return is recorded.  Sleeps go on, and hooks receive payloads; the
        run takes that in after the resume.  ``cancel`` ends the pause.

        Args:
            reason: At most 1,000 characters, for the people who find the run paused.
            children: Pause its child runs that have not ended too, and theirs.

        Returns:
            False when the run has ended or was paused already; with *children*, when each of them was so too.
        """
        return self._client("Run.pause").pause(self.id, reason, children=children)

    def resume(self, *, children: bool = False) -> bool:
        """
        End the pause of the run.  It stays paused while its workflow or its queue is.

        Args:
            children: End the pauses of its child runs too, and of theirs; they go on at 100 a second.

        Returns:
            False when ``pause`` has not paused it; with *children*, when it has paused none of them either.
        """
        return self._client("Run.resume").resume(self.id, children=children)

    @property
    def paused(self) -> bool:
        """Whether the run is paused: by ``pause``, or because its workflow or its queue is."""
        return self._client("Run.paused").latest(self.id).paused_at is not None

    def wake_up(self) -> int:
        """End the run's pending sleeps, and return how many there were."""
        return self._client("Run.wake_up").wake_up(self.id)

    def events(
        self,
        *,
        after: int = 0,
        before: int = 2**62,
        limit: int | None = None,
        newest_first: bool = False,
        payloads: bool = True,
    ) -> list[Event]:
        """
        The run's log, in order.  To read it page by page, pass the ``seq`` of the last event as *after*.

        Args:
            after, before: Only events whose ``seq`` is between these two.
            limit: The largest number of events.
            newest_first: Start at the end of the log.
            payloads: False leaves out arguments, results, errors and payloads; they are empty strings then.
        """
        return self._client("Run.events").events(
            self.id, after=after, before=before, limit=limit, newest_first=newest_first, payloads=payloads
        )

    def hooks(self) -> list[dict[str, Any]]:
        """The run's open hooks in the order of their creation, each as a dict; webhooks have a ``url``."""
        return self._client("Run.hooks").hooks(self.id)

    def generations(self) -> list[Run[R]]:
        """The runs that continue each other, the first one first; this run alone if it has not continued as new."""
        return [Run(each, self._engine) for each in self._client("Run.generations").generations(self.id)]

    async def afork(
        self,
        *,
        from_step: str | None = None,
        from_event: int | None = None,
        code: str = "current",
        reapply_payloads: bool = True,
    ) -> Run[R]:
        """Start a new run that begins as this one did."""
        options = {"from_step": from_step, "from_event": from_event, "reapply_payloads": reapply_payloads}
        return await self._acall("afork", lambda run: run.fork(code=code, **options))

    async def aretry(self) -> Run[R] | None:
        """Let the run go on with the code that is deployed now."""
        return await self._acall("aretry", lambda run: run.retry())

    async def agenerations(self) -> list[Run[R]]:
        """The runs that continue each other."""
        return await self._acall("agenerations", lambda run: run.generations())

    def _client(self, call: str) -> RunClient:
        refuse_in_workflow(call)
        engine = self._engine or current_engine()
        engine.check_schema()
        return engine.client  # type: ignore[no-any-return]

    def _row(self, call: str) -> RunRow:
        row = self._client(call).find(self.id)
        if row is None:
            raise RunNotFound(self.id)
        return row


codec.register("run", Run, lambda run: run.id, lambda run_id: Run(run_id))


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else duration.to_datetime(micros)
