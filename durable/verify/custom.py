"""An HMAC in a header: what most senders do, each a little differently."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from .delivery import Delivery, Rejected
from .presets import Secrets, Span, Verification, micros, preset, references
from .signatures import b64, hexed, mac, require_fit, require_recent

_FIELD = re.compile(r"\{(\w*)\}")


def _check(delivery: Delivery) -> bool:
    options = delivery.options
    fields = {"body": delivery.body}
    if options["timestamp_header"] is not None:
        fields["timestamp"] = delivery.header(options["timestamp_header"])
        require_recent(delivery, fields["timestamp"])
    if options["id_header"] is not None:
        fields["id"] = delivery.header(options["id_header"])
    # Text and names take turns.
    parts = _FIELD.split(options["message"])
    message = b"".join(part.encode() if i % 2 == 0 else fields[part] for i, part in enumerate(parts))
    write = {"hex": hexed, "base64": b64}[options["encoding"]]
    expected = [write(mac(secret, message, options["algorithm"])) for secret in delivery.secrets]
    require_fit([_signature(delivery)], expected)
    return True


def _signature(delivery: Delivery) -> bytes:
    """What stands after the prefix and blanks; hexadecimal digits in lower case."""
    options = delivery.options
    found, prefix = delivery.header(options["header"]), options["prefix"].encode("latin-1")
    if not found.startswith(prefix):
        raise Rejected("the signature does not begin with the prefix")
    signature = found.removeprefix(prefix).lstrip(b" \t")
    return signature.lower() if options["encoding"] == "hex" else signature


@preset("hmac", _check)
def hmac(
    secrets: Secrets,
    *,
    header: str,
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256",
    encoding: Literal["hex", "base64"] = "hex",
    prefix: str = "",
    message: str = "{body}",
    timestamp_header: str | None = None,
    id_header: str | None = None,
    tolerance: Span = "5m",
) -> Verification:
    """
    An HMAC of the body, or of a text with the body in it.

    Args:
        header: Where the signature stands.
        encoding: How the signature is written; hexadecimal digits may be in either case.
        prefix: What stands before it there, e.g. ``"sha256="``.  Blanks may follow it.
        message: What is signed, of ``{body}``, ``{timestamp}`` and ``{id}``: e.g. ``"{timestamp}.{body}"``.
        timestamp_header: Where the timestamp stands, in seconds; it is held to *tolerance*.
        id_header: Where the id stands.
    """
    known = {"body"} | ({"timestamp"} if timestamp_header else set()) | ({"id"} if id_header else set())
    named = set(_FIELD.findall(message))
    if not {"body"} <= named <= known:
        raise ValueError(
            f"message {message!r} must hold {{body}}, and of {{timestamp}} and {{id}} only what a header is named for."
        )
    if timestamp_header and "timestamp" not in named:
        raise ValueError("A timestamp that is not part of the message is not signed: leave timestamp_header out.")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm[:3] != "sha" or encoding not in ("hex", "base64"):
        raise ValueError(f'algorithm {algorithm!r}, encoding {encoding!r}: use e.g. "sha256", and "hex" or "base64".')
    options = {
        "header": header,
        "algorithm": algorithm,
        "encoding": encoding,
        "prefix": prefix,
        "message": message,
        "timestamp_header": timestamp_header,
        "id_header": id_header,
        "tolerance": micros(tolerance),
    }
    return Verification(by="hmac", references={"secret": references(secrets)}, options=options)
