"""Kinds: the types of Python, datetime and ``durable.http`` that JSON lacks."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
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
_Clock = TypeVar("_Clock", datetime, time)
_Message = TypeVar("_Message", Request, Response)


# Numbers and text that JSON, or Python's JSON decoder, would change.  ``Encoder.write`` writes them.


def _written_inline(_writer: Writer, value: object) -> Fields:
    raise AssertionError(f"Encoder.write writes {shown(value)} itself")


def _plain_int(fields: Fields) -> int | str:
    text: str = fields["v"]
    return int(text, 16) if len(text) < 1_000 else text


kinds.add(Kind("int", _written_inline, lambda _context, f: int(f["v"], 16), plain=_plain_int))
kinds.add(Kind("float", _written_inline, lambda _context, f: float(f["v"])))
kinds.add(Kind("str", _written_inline, lambda _context, f: "".join(f["v"]), plain=lambda f: "".join(f["v"])))


# Containers


def _write_items(writer: Writer, value: tuple[Any, ...]) -> Fields:
    return {"v": writer.items(value, value)}


def _write_set(writer: Writer, value: set[Any] | frozenset[Any]) -> Fields:
    """Sorted, since the order of a set differs from process to process."""
    for item in value:
        hash(item)  # it may have changed since it was added, and the decoder needs its hash
    return {"v": sorted(writer.items(value, value), key=canonical_text)}


def _plain_pairs(fields: Fields) -> Fields:
    return {key if isinstance(key, str) else dump(key): value for key, value in fields["v"]}


kinds.add(Kind("dict", _written_inline, lambda _context, f: dict(f["v"]), plain=_plain_pairs))
kinds.add(Kind("tuple", _write_items, lambda _context, f: tuple(f["v"])), tuple)
kinds.add(Kind("set", _write_set, lambda _context, f: set(f["v"])), set)
kinds.add(Kind("frozenset", _write_set, lambda _context, f: frozenset(f["v"])), frozenset)


# Scalars, as text or numbers

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


# Times of day and datetimes, with their zone


def _write_clock(_writer: Writer, value: datetime | time) -> Fields:
    """As ISO 8601 text if that is exact; else as the naive time, the fold and the zone."""
    zone = value.tzinfo
    if not value.fold and (zone is None or _is_bare_offset(zone)):
        return {"v": value.isoformat()}
    naive = {"v": value.replace(tzinfo=None, fold=0).isoformat(), "fold": value.fold}
    return naive if zone is None else {**naive, "zone": _write_zone(zone)}


def _is_bare_offset(zone: object) -> bool:
    return type(zone) is timezone and zone.tzname(None) == timezone(zone.utcoffset(None)).tzname(None)


def _write_zone(zone: object) -> Any:
    if type(zone) is ZoneInfo and zone.key is not None and _is_loadable(zone.key):
        return zone.key
    if type(zone) is timezone:
        return [zone.utcoffset(None) // _MICROSECOND, None if _is_bare_offset(zone) else zone.tzname(None)]
    raise Unencodable(
        f"its time zone {shown(zone)} has no name that other processes know.  Use UTC or zoneinfo.ZoneInfo(name)."
    )


def _is_loadable(key: str) -> bool:
    """Whether a zone can be loaded by its key.  A zone that was made from a file may have any key."""
    try:
        ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError):
        return False
    return True


def _read_clock(cls: type[_Clock], fields: Fields) -> _Clock:
    value = cls.fromisoformat(fields["v"])
    if "fold" in fields:
        return value.replace(fold=fields["fold"], tzinfo=_read_zone(fields.get("zone")))
    return value


def _read_zone(zone: Any) -> timezone | ZoneInfo | None:
    if zone is None:
        return None
    if not isinstance(zone, str):
        offset, name = timedelta(microseconds=zone[0]), zone[1]
        return timezone(offset) if name is None else timezone(offset, name)
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise SerializationError(
            "value", f"time zone {zone!r} is not known on this machine.  Install the package tzdata."
        ) from error


def _plain_clock(fields: Fields) -> str:
    zone = fields.get("zone")
    return str(fields["v"]) if zone is None else f"{fields['v']}[{zone if isinstance(zone, str) else _read_zone(zone)}]"


kinds.add(Kind("datetime", _write_clock, lambda _context, f: _read_clock(datetime, f), plain=_plain_clock), datetime)
kinds.add(Kind("time", _write_clock, lambda _context, f: _read_clock(time, f), plain=_plain_clock), time)


# Requests and responses


def _write_request(_writer: Writer, request: Request) -> Fields:
    """A recorded request as its id, because the store has it; another in full."""
    return {"v": request.id} if request.recorded else _in_full(request, request.data)


def _digest_request(_writer: Writer, request: Request) -> Fields:
    return {"v": request.id} if request.id is not None else _in_full(_lowered(request), request.data)


def _read_request(context: Context, fields: Fields) -> Request:
    if "v" not in fields:
        return _new_request(fields)
    request = context.get(fields["v"])
    if not isinstance(request, Request):
        raise SerializationError(
            "value", f"request {fields['v']!r} is not in the store; it may have been deleted after its retention."
        )
    return request


def _new_request(fields: Fields) -> Request:
    # ``replace`` makes a new object, which is not marked as recorded.
    return replace(Request.from_head(fields["head"], b64decode(fields["body"])))


def shown_request(request: Request) -> Fields:
    """A request as plain JSON for people, without its URL (which has the token) and its headers (credentials)."""
    return {
        "id": request.id,
        "method": request.method,
        "content_type": request.content_type,
        "text": request.text(),
    }


def _plain_request(fields: Fields) -> Any:
    return fields["v"] if "v" in fields else shown_request(_new_request(fields))


def _write_response(_writer: Writer, response: Response) -> Fields:
    return _in_full(response, response.body)


def _digest_response(_writer: Writer, response: Response) -> Fields:
    return _in_full(_lowered(response), response.body)


def _read_response(_context: Context, fields: Fields) -> Response:
    return Response.from_head(fields["head"], b64decode(fields["body"]))


def _plain_response(fields: Fields) -> Fields:
    response = _read_response({}, fields)
    return {"status": response.status, "content_type": response.content_type, "bytes": len(response.body)}


def _lowered(message: _Message) -> _Message:
    """The message with header names in lower case, because their case makes no difference."""
    return replace(message, headers=Headers([(name.lower(), value) for name, value in message.headers]))


def _in_full(message: Request | Response, body: bytes) -> Fields:
    return {"head": message.head_json(), "body": b64encode(body).decode()}


kinds.add(Kind("request", _write_request, _read_request, _digest_request, _plain_request), Request)
kinds.add(Kind("response", _write_response, _read_response, _digest_response, _plain_response), Response)
