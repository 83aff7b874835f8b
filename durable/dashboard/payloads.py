"""
Values of runs as pages show them: decoded, without tokens and credentials, and redacted by the application.

With a cipher, a value is decrypted only if this process has the key and the caller may ``reveal`` it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from .. import codec, http
from ..display import mask, masked_deeply
from ..errors import DecryptionError, PayloadMissing
from ..events import Event
from ..replay import reply_of
from ..store import PublishedValue, StoredItem, requests, vault
from .pages import Dashboard


@dataclass(frozen=True, slots=True)
class Shown:
    """A value for a page; ``hidden`` says why it is not there."""

    value: Any = None
    hidden: str | None = None

    @property
    def has_value(self) -> bool:
        """Whether there is a value to show."""
        return self.hidden is None


@dataclass(frozen=True, slots=True)
class ShownError:
    """An error for a page."""

    type: str
    message: str
    traceback: str


class Payloads:
    """Reads the values of one run, or of a request that belongs to no run, for one caller."""

    def __init__(self, dashboard: Dashboard, tx: Connection, run_id: str | None) -> None:
        self._dashboard = dashboard
        self._tx = tx
        self._run_id = run_id or ""
        self._vault = vault.of(tx)
        self.may_reveal = self._vault.cipher is None or dashboard.guard.allows("reveal", run_id)

    def value(self, event: Event | None, where: str) -> Shown:
        """
        The value of an event.

        Args:
            where: What it is, for ``redact``: ``arguments``, ``result``, ``error``, ``payload``.
        """
        text = None if event is None or event.value_field is None else getattr(event, event.value_field)
        if event is None or text is None:
            return Shown(hidden="There is no value.")
        found = self._read(event.op_id, text)
        if isinstance(found, Shown):
            return found
        return Shown(self.redacted(codec.plain(found, self._requests(found)), where))

    def error(self, event: Event) -> ShownError | Shown:
        """The error of an event, with its traceback."""
        text = getattr(event, str(event.value_field))
        if text is None:
            return Shown(hidden="There is no error.")
        found = self._read(event.op_id, text)
        if isinstance(found, Shown):
            return found
        summary = codec.error_summary(found)
        shown = self.redacted(
            {"type": summary.error_type, "message": summary.message, "traceback": summary.traceback}, "error"
        )
        if not (isinstance(shown, Mapping) and {"type", "message", "traceback"} <= shown.keys()):
            return Shown(shown)
        return ShownError(str(shown["type"]), str(shown["message"]), str(shown["traceback"]))

    def text(self, place: str, stored: str | None) -> Shown:
        """A text in a column of the run, decrypted: the reason of a blocked run."""
        if stored is None:
            return Shown(hidden="There is no text.")
        if stored[:1] == vault.MARK and not self.may_reveal:
            return _ENCRYPTED
        try:
            return Shown(
                mask(str(self._vault.fetch(self._tx, self._run_id, self._vault.unseal(self._run_id, place, stored))))
            )
        except (DecryptionError, PayloadMissing) as error:
            return Shown(hidden=str(error))

    def redacted(self, value: Any, where: str) -> Any:
        """A plain value without tokens of webhooks, as ``redact`` of the application returns it."""
        masked = masked_deeply(value)
        return masked if self._dashboard.redact is None else self._dashboard.redact(masked, where)

    def headers(self, message: http.Request | http.Response) -> list[tuple[str, str]]:
        """The headers of a request or an answer; those that prove who sent it are left out."""
        return [
            (name, "[redacted]" if http.is_secret(name) else str(self.redacted(mask(value), f"header:{name}")))
            for name, value in message.headers
        ]

    def published(self, found: PublishedValue) -> Shown:
        """A published value."""
        text = self._read(found.place, found.stored)
        if isinstance(text, Shown):
            return text
        return Shown(self.redacted(codec.plain(text, self._requests(text)), f"value:{found.name}"))

    def replies(self, request_ids: Sequence[str]) -> dict[str, Shown]:
        """The replies to questions, by the ids of their requests."""
        if not request_ids:
            return {}
        if not self.may_reveal:
            return dict.fromkeys(request_ids, _ENCRYPTED)
        try:
            answers = requests.answers(self._tx, request_ids)
        except (DecryptionError, PayloadMissing) as error:
            return dict.fromkeys(request_ids, Shown(hidden=str(error)))
        return {each: self.reply(answers.get(each)) for each in request_ids}

    def reply(self, answer: http.Response | None) -> Shown:
        """The reply to a question, by its answer."""
        if answer is None:
            return Shown(hidden="There is no reply yet.")
        text = reply_of(answer)
        if text is None:
            return Shown(hidden=f"There is no reply: the run is over, or the hook is closed ({answer.status}).")
        return Shown(self.redacted(codec.plain(text, self._requests(text)), "reply"))

    def item(self, key: str, name: str, item: StoredItem) -> Shown:
        """An item of a stream, which belongs to the run *key*."""
        text = self._read(item.place(name), item.stored, key)
        if isinstance(text, Shown):
            return text
        return Shown(self.redacted(codec.plain(text, self._requests(text)), f"stream:{name}"))

    def _read(self, place: str, text: str, run_id: str | None = None) -> str | Shown:
        """The encoded value of an operation, or of another place; or why it cannot be shown."""
        if text[:1] == vault.MARK and self._vault.cipher is not None and not self.may_reveal:
            return _ENCRYPTED
        try:
            plain = self._vault.unseal(run_id or self._run_id, place, text)
            return str(self._vault.fetch(self._tx, self._run_id, plain))
        except (DecryptionError, PayloadMissing) as error:
            return Shown(hidden=str(error))

    def _requests(self, text: str) -> Mapping[str, http.Request]:
        """The webhook requests in a value.  A large body is not loaded, so such a request is shown by its id."""
        try:
            found = requests.load(self._tx, codec.request_ids(text), whole=False)
        except (DecryptionError, PayloadMissing):
            return {}
        return {request_id: request for request_id, request in found.items() if request.is_loaded}


_ENCRYPTED = Shown(hidden="This value is encrypted, and you may not reveal it.")
