"""
``receiver``: one fixed URL whose requests start runs, or resume them.

A receiver is defined by code, in the web process and in the workers, and not by a run.  Its rules are tried in the
order of their definition; the first one that matches a request decides.  ``routing.py`` does that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar, overload

from .. import current, duration
from ..errors import ConfigurationError
from ..http import Request, Response
from ..registry import Workflow
from ..verify import Dedupe, Verification
from .webhooks import WebhookConfig, config_json, public_base

P = ParamSpec("P")
R = TypeVar("R")

#: The path of receivers below ``public_url``.
RECEIVE_PATH = "/.well-known/workflow/v1/receive"

When = Callable[[Request], object]
Missing = Literal["start", "wait", "accept", "reject"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MISSING = ("start", "wait", "accept", "reject")

#: The receivers of this process, by name.
receivers: dict[str, ReceiverDefinition] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class StartRule:
    """A request that matches starts a run of the workflow."""

    label: str
    workflow: Workflow[..., Any]
    when: When | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeRule:
    """A request that matches goes to the open hook with its token.  ``wait`` is in microseconds."""

    label: str
    token: Callable[[Request], str]
    when: When | None
    missing: Missing
    wait: int
    payload: Callable[[Request], object] | None


class ReceiverDefinition:
    """
    A receiver, as ``receiver`` defines it.

    Attributes:
        name: The last part of its URL.
    """

    def __init__(
        self,
        name: str,
        config: WebhookConfig,
        each: Callable[[Request], Iterable[object]] | None,
        unmatched: Response,
        place: str,
    ) -> None:
        self.name = name
        self.config = config
        self.each = each
        self.unmatched = unmatched
        self.place = place
        self.rules: list[StartRule | ResumeRule] = []

    def __repr__(self) -> str:
        return f"<receiver {self.name}>"

    @property
    def url(self) -> str:
        """The URL for the sender, by the current engine's ``public_url``.  Raises ConfigurationError without one."""
        return self.url_below(current.current_engine().settings.public_url)

    def url_below(self, public_url: str | None) -> str:
        """The URL for the sender, by this ``public_url``."""
        return public_base(public_url, "A receiver's") + f"{RECEIVE_PATH}/{self.name}"

    @overload
    def start(self, when: Workflow[P, R], /) -> Workflow[P, R]: ...  # type: ignore[overload-overlap]  # is callable too
    @overload
    def start(self, when: When | None = None) -> Callable[[Workflow[P, R]], Workflow[P, R]]: ...
    def start(self, when: Any = None) -> Any:
        """
        Start a run of the decorated workflow for each request, or for each that *when* returns true for.

        ::

            @stripe.start(when=lambda request: request.json()["type"] == "invoice.paid")
            @workflow
            async def invoice_paid(request: Request) -> None: ...

        Args:
            when: Gets the request.  It runs in the web process, and must not do I/O.

        Raises:
            ConfigurationError: It decorates no workflow, or one that cannot be called with a request alone.
        """

        def add(workflow: Workflow[P, R]) -> Workflow[P, R]:
            if not isinstance(workflow, Workflow):
                raise ConfigurationError(
                    f"@{self.name}.start decorates {workflow!r}, which is no workflow.  Write @workflow below it,"
                    " next to the function."
                )
            try:
                workflow.signature.bind(None)
            except TypeError as error:
                raise ConfigurationError(
                    f"The receiver {self.name!r} calls {workflow.name} with one argument, the request, but it is"
                    f" {workflow.name}{workflow.signature} ({error}).  Give the other parameters defaults."
                ) from error
            self.rules.append(StartRule(label=f"start {workflow.name}", workflow=workflow, when=when))
            return workflow

        if isinstance(when, Workflow):
            workflow, when = when, None
            return add(workflow)
        self._check_function("when", when)
        return add

    def resume(
        self,
        token: Callable[[Request], str],
        when: When | None = None,
        missing: Missing = "wait",
        *,
        wait: str | float | timedelta = "10m",
        payload: Callable[[Request], object] | None = None,
    ) -> None:
        """
        Send each request, or each that *when* returns true for, to the hook that is open under its token.

        The functions get the request.  They run in the web process, and must not do I/O.

        Args:
            token: Returns the hook's token.
            missing: What to do if no hook with this token is open: "wait" for one, "start" a run by the first start
                rule that matches, "accept" the request and do nothing, or "reject" it with 404.
            wait: How long to wait.
            payload: Returns what the hook receives, for a hook with a type; by default that is the request.

        Raises:
            ConfigurationError: An argument is malformed.
        """
        self._check_function("token", token, is_needed=True)
        self._check_function("when", when)
        self._check_function("payload", payload)
        if missing not in _MISSING:
            raise ConfigurationError(
                f"{self.name}.resume: missing is {missing!r}; use one of {', '.join(map(repr, _MISSING))}."
            )
        if missing == "reject" and self.each is not None:
            raise ConfigurationError(
                f'{self.name}.resume: missing is "reject", but a batch has one answer for all of its events.  Use'
                ' "wait", which keeps an event for a hook, or "accept".'
            )
        try:
            micros = duration.to_micros(wait, what="wait")
        except ValueError as error:
            raise ConfigurationError(f"{self.name}.resume: {error}") from error
        label = f"resume {_calling_line().rpartition('/')[2]}"
        rule = ResumeRule(label=label, token=token, when=when, missing=missing, wait=micros, payload=payload)
        self.rules.append(rule)

    def _check_function(self, what: str, given: object, *, is_needed: bool = False) -> None:
        if not callable(given) and (is_needed or given is not None):
            raise ConfigurationError(f"Receiver {self.name!r}: {what} is {given!r}, not a function of the request.")


def receiver(
    name: str,
    *,
    verify: Verification | None = None,
    dedupe: Dedupe = None,
    methods: Iterable[str] = ("POST",),
    respond_with: Response | Literal["manual"] | None = None,
    timeout: str | float | timedelta | None = None,
    on_timeout: Response | None = None,
    max_body: int | None = None,
    each: Callable[[Request], Iterable[object]] | None = None,
    unmatched: Response | None = None,
) -> ReceiverDefinition:
    """
    Define a receiver, at ``<public_url>/.well-known/workflow/v1/receive/<name>``.

    Define it at the top of a module that the workers and the web application import, with the workflows that it starts.

    Args:
        name: The last part of the URL: 1 to 64 letters, digits, ``.``, ``_`` and ``-``.
        verify, dedupe, methods, respond_with, timeout, on_timeout, max_body: As ``create_webhook`` takes them.
        each: Returns the events of a request that is a batch.  Each event is routed by itself, as a request whose
            body is the event as JSON.
        unmatched: The answer to a request that no rule matches: 2xx or 404, by default 202.

    Raises:
        ConfigurationError: An argument is malformed, or another receiver has the name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"receiver({name!r}): a name has 1 to 64 letters, digits, dots, underscores and hyphens, since it is the"
            " last part of the URL."
        )
    place = _calling_line()
    before = receivers.get(name)
    # A reloader imports the same lines again.  The later definition replaces the earlier one.
    if before is not None and before.place != place:
        raise ConfigurationError(f"Two receivers are named {name!r}: {before.place} and {place}.  Rename one of them.")
    _check_each(name, each, respond_with)
    if unmatched is not None and not (
        isinstance(unmatched, Response) and (200 <= unmatched.status < 300 or unmatched.status == 404)
    ):
        raise ConfigurationError(f"receiver({name!r}): unmatched is {unmatched!r}; use a Response with 2xx or 404.")
    try:
        text = config_json(
            public_url=None,
            respond_with=respond_with,
            methods=methods,
            timeout=timeout,
            on_timeout=on_timeout,
            max_body=max_body,
            verify=verify,
            dedupe=dedupe,
        )
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"receiver({name!r}): {error}") from error
    defined = ReceiverDefinition(name, WebhookConfig.from_json(text), each, unmatched or Response(status=202), place)
    receivers[name] = defined
    return defined


def _check_each(name: str, each: object, respond_with: object) -> None:
    """Raise ConfigurationError when a receiver cannot split a request into events, or answer them."""
    if each is not None and not callable(each):
        raise ConfigurationError(f"receiver({name!r}): each is {each!r}, not a function of the request.")
    if each is not None and respond_with == "manual":
        raise ConfigurationError(
            f'receiver({name!r}): respond_with is "manual", but a batch has one answer for all of its events, which no'
            " step can give.  Leave out respond_with or each."
        )


def _calling_line() -> str:
    """The file and the line of the code that calls our caller."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
