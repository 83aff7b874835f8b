"""Kinds: the types of Python, datetime and ``durable.http`` that JSON lacks."""

from __future__ import annotations

from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from werkzeug.datastructures import Headers

from ..errors import SerializationError
from ..http import Request, Response
from . import kinds
from .encoder import canonical_text, dump
from .kinds import Context, Fields, Kind, Writer
from .refusals import Unencodable, shown

_MICROSECOND = timedelta(microseconds=1)
_Message = TypeVar("_Message", Request, Response)


# Numbers, text and dicts that JSON, or Python's JSON decoder, would change.  ``Encoder.write`` writes them.


class IntKind(Kind):
    """Ints that are too large for JSON, in hex."""

    tag = "int"

    def read(self, context: Context, fields: Fields) -> int:
        return int(fields["v"], 16)

    def plain(self, fields: Fields) -> int | str:
        text: str = fields["v"]
        return int(text, 16) if len(text) < 1_000 else text


class FloatKind(Kind):
    """NaN and infinities."""

    tag = "float"

    def read(self, context: Context, fields: Fields) -> float:
        return float(fields["v"])


class StrKind(Kind):
    """Text in which two lone surrogates follow each other, cut between them."""

    tag = "str"

    def read(self, context: Context, fields: Fields) -> str:
        return "".join(fields["v"])

    def plain(self, fields: Fields) -> str:
        return "".join(fields["v"])


class DictKind(Kind):
    """Dicts whose keys cannot be the keys of a JSON object, as pairs."""

    tag = "dict"

    def read(self, context: Context, fields: Fields) -> dict[Any, Any]:
        return dict(fields["v"])

    def plain(self, fields: Fields) -> Fields:
        return {key if isinstance(key, str) else dump(key): value for key, value in fields["v"]}


# Other containers


class TupleKind(Kind):
    """Tuples."""

    tag = "tuple"

    def write(self, writer: Writer, value: tuple[Any, ...]) -> Fields:
        return {"v": writer.items(value, value)}

    def read(self, context: Context, fields: Fields) -> tuple[Any, ...]:
        return tuple(fields["v"])


class SetKind(Kind):
    """Sets or frozensets, sorted, because the order of a set differs between processes."""

    def __init__(self, tag: str, cls: type[set[Any] | frozenset[Any]]) -> None:
        self.tag = tag
        self.cls = cls

    def write(self, writer: Writer, value: set[Any] | frozenset[Any]) -> Fields:
        for item in value:
            hash(item)  # it may have changed since it was added, and the decoder needs its hash
        return {"v": sorted(writer.items(value, value), key=canonical_text)}

    def read(self, context: Context, fields: Fields) -> set[Any] | frozenset[Any]:
        return self.cls(fields["v"])


# Times of day and datetimes


class ClockKind(Kind):
    """
    Datetimes or times of day, as ISO 8601 text if that is exact; else as the naive time, the fold and the zone.

    A zone of zoneinfo is written as its key, a ``timezone`` as its offset in microseconds and its name.
    """

    def __init__(self, tag: str, cls: type[datetime | time]) -> None:
        self.tag = tag
        self.cls = cls

    def write(self, writer: Writer, value: datetime | time) -> Fields:
        zone = value.tzinfo
        if type(zone) is timezone:
            offset = zone.utcoffset(None)
            # Python derives the name from the offset unless it was given.
            name = zone.tzname(None) if zone.tzname(None) != timezone(offset).tzname(None) else None
            if name is None and not value.fold:
                return {"v": value.isoformat()}
            return {**self._naive(value), "zone": [offset // _MICROSECOND, name]}
        if zone is None:
            return self._naive(value) if value.fold else {"v": value.isoformat()}
        if type(zone) is ZoneInfo and zone.key is not None:
            # A zone that was made from a file may have any key.
            with suppress(ZoneInfoNotFoundError, ValueError):
                return {**self._naive(value), "zone": ZoneInfo(zone.key).key}
        raise Unencodable(
            f"its time zone {shown(zone)} has no name that other processes know.  Use UTC or zoneinfo.ZoneInfo(name)."
        )

    def read(self, context: Context, fields: Fields) -> datetime | time:
        value = self.cls.fromisoformat(fields["v"])
        if "fold" in fields:
            return value.replace(fold=fields["fold"], tzinfo=_zone(fields.get("zone")))
        return value

    def plain(self, fields: Fields) -> str:
        zone = fields.get("zone")
        return str(fields["v"]) if zone is None else f"{fields['v']}[{zone if isinstance(zone, str) else _zone(zone)}]"

    @staticmethod
    def _naive(value: datetime | time) -> Fields:
        return {"v": value.replace(tzinfo=None, fold=0).isoformat(), "fold": value.fold}


def _zone(written: Any) -> timezone | ZoneInfo | None:
    """The zone that ``ClockKind`` wrote."""
    if written is None:
        return None
    if not isinstance(written, str):
        offset, name = timedelta(microseconds=written[0]), written[1]
        return timezone(offset) if name is None else timezone(offset, name)
    try:
        return ZoneInfo(written)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise SerializationError(
            "value", f"time zone {written!r} is not known on this machine.  Install the package tzdata."
        ) from error


# Requests and responses


class RequestKind(Kind):
    """Recorded requests as their id, because the store has them; others in full."""

    tag = "request"

    def write(self, writer: Writer, value: Request) -> Fields:
        return {"v": value.id} if value.recorded else _in_full(value, value.data)

    def digest(self, writer: Writer, value: Request) -> Fields:
        return {"v": value.id} if value.id is not None else _in_full(_lowered(value), value.data)

    def read(self, context: Context, fields: Fields) -> Request:
        if "v" not in fields:
            # ``replace`` makes a new object, which is not marked as recorded.
            return replace(Request.from_head(fields["head"], b64decode(fields["body"])))
        request = context.get(fields["v"])
        if not isinstance(request, Request):
            raise SerializationError(
                "value", f"request {fields['v']!r} is not in the store; it may have been deleted after its retention."
            )
        return request

    def plain(self, fields: Fields) -> Any:
        return fields["v"] if "v" in fields else shown_request(self.read({}, fields))


class ResponseKind(Kind):
    """Responses in full."""

    tag = "response"

    def write(self, writer: Writer, value: Response) -> Fields:
        return _in_full(value, value.body)

    def digest(self, writer: Writer, value: Response) -> Fields:
        return _in_full(_lowered(value), value.body)

    def read(self, context: Context, fields: Fields) -> Response:
        return Response.from_head(fields["head"], b64decode(fields["body"]))

    def plain(self, fields: Fields) -> Fields:
        response = self.read({}, fields)
        return {"status": response.status, "content_type": response.content_type, "bytes": len(response.body)}


def shown_request(request: Request) -> Fields:
    """A request as plain JSON for people, without its URL (which has the token) and its headers (credentials)."""
    return {
        "id": request.id,
        "method": request.method,
        "content_type": request.content_type,
        "text": request.text(),
    }


def _lowered(message: _Message) -> _Message:
    """The message with header names in lower case, because their case makes no difference."""
    return replace(message, headers=Headers([(name.lower(), value) for name, value in message.headers]))


def _in_full(message: Request | Response, body: bytes) -> Fields:
    return {"head": message.head_json(), "body": b64encode(body).decode()}


for _kind in (IntKind(), FloatKind(), StrKind(), DictKind()):
    kinds.add(_kind)
kinds.add(TupleKind(), tuple)
kinds.add(SetKind("set", set), set)
kinds.add(SetKind("frozenset", frozenset), frozenset)
kinds.register("bytes", bytes, lambda value: b64encode(value).decode(), b64decode)
kinds.register("decimal", Decimal, str, Decimal)
kinds.register("uuid", UUID, str, UUID)
kinds.register("date", date, date.isoformat, date.fromisoformat)
kinds.register(
    "timedelta",
    timedelta,
    lambda value: [value.days, value.seconds, value.microseconds],
    lambda parts: timedelta(*parts),
)
kinds.add(ClockKind("datetime", datetime), datetime)
kinds.add(ClockKind("time", time), time)
kinds.add(RequestKind(), Request)
kinds.add(ResponseKind(), Response)
for _cls in (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network):
    kinds.register(_cls.__name__.lower(), _cls, str, _cls)
