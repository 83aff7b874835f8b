"""``verify.hmac``: an HMAC in a header, as most senders have it, each a little differently."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from .delivery import Delivery, Rejected
from .presets import Secrets, Span, Verification, preset, references, to_micros
from .signatures import mac, require_match, require_recent, to_base64, to_hex

_FIELD = re.compile(r"\{(\w*)\}")


def _check(delivery: Delivery) -> bool:
    options = delivery.options
    fields = {"body": delivery.body}
    if options["timestamp_header"] is not None:
        fields["timestamp"] = delivery.header(options["timestamp_header"])
        require_recent(delivery, fields["timestamp"])
    if options["id_header"] is not None:
        fields["id"] = delivery.header(options["id_header"])
    # split() returns text and names of fields alternately.
    parts = _FIELD.split(options["message"])
    message = b"".join(part.encode() if i % 2 == 0 else fields[part] for i, part in enumerate(parts))
    write = {"hex": to_hex, "base64": to_base64}[options["encoding"]]
    expected = [write(mac(secret, message, options["algorithm"])) for secret in delivery.secrets]
    found, prefix = delivery.header(options["header"]), options["prefix"].encode("latin-1")
    if not found.startswith(prefix):
        raise Rejected("the signature does not begin with the prefix")
    signature = found.removeprefix(prefix).lstrip(b" \t")
    require_match([signature.lower() if options["encoding"] == "hex" else signature], expected)
    return True


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
    An HMAC of the body, or of a text that contains the body.

    Args:
        header: The header with the signature.
        encoding: The encoding of the signature; hexadecimal digits may be upper or lower case.
        prefix: The text before the signature, e.g. ``"sha256="``.  Blanks may follow it.
        message: The text that is signed, e.g. ``"{timestamp}.{body}"``; it may use ``{body}``,
            ``{timestamp}`` and ``{id}``.
        timestamp_header: The header with the timestamp, in seconds; it must be within *tolerance* of now.
        id_header: The header with the id.
    """
    allowed = {"body"} | ({"timestamp"} if timestamp_header else set()) | ({"id"} if id_header else set())
    named = set(_FIELD.findall(message))
    if not {"body"} <= named <= allowed:
        raise ValueError(
            f"message is {message!r}; it must contain {{body}}, and may contain {{timestamp}} and {{id}} only together"
            " with timestamp_header and id_header."
        )
    if timestamp_header and "timestamp" not in named:
        raise ValueError(
            "message does not contain {timestamp}, so the timestamp is not signed: add it, or remove timestamp_header."
        )
    if algorithm not in hashlib.algorithms_guaranteed or algorithm[:3] != "sha" or encoding not in ("hex", "base64"):
        raise ValueError(
            f'algorithm is {algorithm!r} and encoding {encoding!r}; use e.g. "sha256", and "hex" or "base64".'
        )
    options = {
        "header": header,
        "algorithm": algorithm,
        "encoding": encoding,
        "prefix": prefix,
        "message": message,
        "timestamp_header": timestamp_header,
        "id_header": id_header,
        "tolerance": to_micros(tolerance),
    }
    return Verification(by="hmac", references={"secret": references(secrets)}, options=options)
