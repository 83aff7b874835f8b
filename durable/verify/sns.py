"""
Amazon SNS.  https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html

SNS signs the messages of all its customers with the same keys, so the topic is
checked too.  The certificate and the confirmation are fetched only from SNS
itself, even if a request names another host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ..http import Request, Response
from .delivery import Delivery, Rejected
from .presets import Span, Verification, preset, to_micros
from .signatures import from_base64, import_cryptography, require_near

_HOST = r"https://sns\.[a-z0-9-]{1,40}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE = re.compile(_HOST + r"/[A-Za-z0-9_-]{1,100}\.pem")
_CONFIRM = re.compile(_HOST + r"/\?Action=ConfirmSubscription&[A-Za-z0-9_.:%&=-]{1,2000}")

_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


def _check(delivery: Delivery) -> bool:
    message = delivery.document()
    text = _signed_text(message)
    if message.get("TopicArn") not in delivery.options["topics"]:
        raise Rejected("the message belongs to another topic")
    try:
        stamp = datetime.fromisoformat(message["Timestamp"])
    except ValueError:
        raise Rejected("the timestamp is malformed") from None
    if stamp.tzinfo is None:
        raise Rejected("the timestamp has no time zone")
    require_near(delivery, stamp.timestamp())
    url = message.get("SigningCertURL")
    if not isinstance(url, str) or not _CERTIFICATE.fullmatch(url):
        raise Rejected("the certificate's URL is not of SNS")
    signature = from_base64(str(message.get("Signature", "")).encode("utf-8", "replace"))
    algorithm = {"1": "SHA1", "2": "SHA256"}.get(str(message.get("SignatureVersion")))
    if algorithm is None:
        raise Rejected("the signature has an unknown version")
    key = import_cryptography("x509").load_pem_x509_certificate(delivery.fetch(url)).public_key()
    padding = import_cryptography("hazmat.primitives.asymmetric.padding").PKCS1v15()
    # It raises InvalidSignature; the caller turns every exception into a refusal.
    key.verify(signature, text, padding, getattr(import_cryptography("hazmat.primitives.hashes"), algorithm)())
    return True


def _signed_text(message: dict[str, Any]) -> bytes:
    names = _SIGNED.get(str(message.get("Type")))
    if names is None:
        raise Rejected("the message has an unknown type")
    present = [name for name in names if name != "Subject" or message.get("Subject") is not None]
    if not all(isinstance(message.get(name), str) for name in present):
        raise Rejected("a field of the message is missing")
    # Names and values are signed as lines.  With a line break in a field, two messages could have the same text.
    if any("\n" in message[name] for name in present if name != "Message"):
        raise Rejected("a field of the message has a line break")
    return "".join(f"{name}\n{message[name]}\n" for name in present).encode("utf-8", "surrogatepass")


def _key(request: Request) -> str | None:
    """The id in the body; the one in the header is not signed."""
    message = request.json(default=None)
    return message.get("MessageId") if isinstance(message, dict) else None


def _handshake(delivery: Delivery) -> Response | None:
    message = delivery.document()
    if message.get("Type") != "SubscriptionConfirmation" or not delivery.options["confirm"]:
        return None
    url = message["SubscribeURL"]
    if not _CONFIRM.fullmatch(url):
        raise Rejected("the confirmation's URL is not of SNS")
    delivery.fetch(url)
    return Response("", 200)


@preset("sns", _check, key=_key, handshake=_handshake)
def sns(topics: str | Iterable[str], *, confirm: bool = False, tolerance: Span = "2h") -> Verification:
    """
    Amazon SNS.  Needs the extra ``verify``.

    Args:
        topics: The ARN of the topic, or several.
        confirm: Whether the web process confirms subscriptions to these topics itself.  Otherwise the
            confirmation is delivered to the workflow like any message.
        tolerance: How old a message may be.  SNS tries for an hour to deliver one.
    """
    arns = [topics] if isinstance(topics, str) else list(topics)
    if not arns or not all(isinstance(arn, str) and arn.startswith("arn:") for arn in arns):
        raise ValueError(f'topics is {topics!r}; use e.g. "arn:aws:sns:eu-west-1:123456789012:orders".')
    options = {"topics": arns, "confirm": bool(confirm), "tolerance": to_micros(tolerance)}
    return Verification(by="sns", options=options)
