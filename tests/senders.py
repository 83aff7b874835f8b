"""The senders of webhooks: by their own library where there is one, else by what their documentation says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import slack_sdk.signature
import standardwebhooks
import stripe
import svix.webhooks
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import Headers, MultiDict

from durable import Request, verify
from durable.verify import Delivery, Verification

NOW = 1_700_000_000
URL = "https://hooks.test/hook"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:orders"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"

Sign = Callable[[bytes, int, bytes], dict[str, str]]


@dataclass(frozen=True)
class Sender:
    """A sender: its two secrets (before and after a change), and how it signs."""

    verification: Verification
    sign: Sign
    secrets: tuple[bytes, bytes]
    body: bytes = b'{"id": "evt_1", "type": "ping"}'
    query: str = ""
    more: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    #: Whether a moment is signed.
    dated: bool = True

    def deliver(
        self,
        body: bytes | None = None,
        *,
        at: int = NOW,
        signed_with: int = 0,
        known: tuple[int, ...] = (0,),
        sent: bytes | None = None,
        headers: dict[str, str] | None = None,
        now: int = NOW,
    ) -> Delivery:
        """A delivery signed at a moment; *sent* is what arrives instead of the body."""
        body = self.body if body is None else body
        told = headers if headers is not None else self.sign(self.secrets[signed_with], at, body)
        return Delivery(
            request=Request("POST", URL + self.query, Headers(told), body if sent is None else sent),
            url=URL + self.query,
            now=now,
            resolved={"secret": tuple(self.secrets[i] for i in known), **self.more},
            options=self.verification.options,
            fetch=fetch,
        )


def fetch(url: str) -> bytes:
    assert url == CERTIFICATE_URL
    return CERTIFICATE


def _mac(key: bytes, message: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(key, message, algorithm).digest()


def sign_stripe(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signer = stripe.WebhookSignature
    return {"Stripe-Signature": signer.generate_signature_header(body.decode(), secret.decode(), timestamp=at)}


def sign_standard(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signature = standardwebhooks.Webhook(secret.decode()).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}


def sign_svix(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signature = svix.webhooks.Webhook(secret.decode()).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return {"svix-id": "msg_1", "svix-timestamp": str(at), "svix-signature": signature}


def sign_standard_with_a_pair(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signature = base64.b64encode(_pair(secret).sign(f"msg_1.{at}.".encode() + body)).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": f"v1,AAAA v1a,{signature}"}


def sign_slack(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signature = slack_sdk.signature.SignatureVerifier(secret.decode()).generate_signature(timestamp=str(at), body=body)
    return {"X-Slack-Request-Timestamp": str(at), "X-Slack-Signature": str(signature)}


def sign_github(secret: bytes, _at: int, body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + _mac(secret, body).hex(), "X-GitHub-Delivery": "guid-1"}


def sign_shopify(secret: bytes, _at: int, body: bytes) -> dict[str, str]:
    return {"X-Shopify-Hmac-SHA256": base64.b64encode(_mac(secret, body)).decode(), "X-Shopify-Webhook-Id": "wh_1"}


def sign_twilio(secret: bytes, _at: int, body: bytes, url: str = URL + "?a=%20b") -> dict[str, str]:
    form = MultiDict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    signature = RequestValidator(secret.decode()).compute_signature(url, form)
    return {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}


def sign_discord(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signature = _pair(bytes.fromhex(secret.decode())).sign(str(at).encode() + body).hex()
    return {"X-Signature-Timestamp": str(at), "X-Signature-Ed25519": signature}


def sign_zoom(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signature = _mac(secret, b"v0:%d:" % at + body).hex()
    return {"x-zm-request-timestamp": str(at), "x-zm-signature": "v0=" + signature}


def sign_x(secret: bytes, _at: int, body: bytes) -> dict[str, str]:
    return {"x-twitter-webhooks-signature": "sha256=" + base64.b64encode(_mac(secret, body)).decode()}


def sign_own(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    signature = _mac(secret, b"7/%d/" % at + body, "sha512").hex()
    return {"X-Own": "sha512=" + signature, "X-Time": str(at), "X-Id": "7"}


def sign_nothing(secret: bytes, _at: int, _body: bytes) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret.decode()}"}


def sns_message(at: int = NOW, version: str = "2", key: Any = None, **fields: str) -> bytes:
    """A message of SNS, signed."""
    stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    message = {
        "Type": "Notification",
        "MessageId": "m-1",
        "TopicArn": TOPIC,
        "Message": "hello",
        "Timestamp": stamp,
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
        **fields,
    }
    signed = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in signed if name in message)
    algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()
    signature = (key or _RSA).sign(text.encode(), padding.PKCS1v15(), algorithm)
    return json.dumps({**message, "Signature": base64.b64encode(signature).decode()}).encode()


#: Private keys by their public one, as it is given to a verifier.
_pairs: dict[bytes, ed25519.Ed25519PrivateKey] = {}


def _new_pair() -> bytes:
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    _pairs[public] = private
    return public


def _whpk() -> bytes:
    return b"whpk_" + base64.b64encode(_new_pair())


def _whsec(secret: bytes) -> bytes:
    return b"whsec_" + base64.b64encode(hashlib.sha256(secret).digest())


def _pair(public: bytes) -> ed25519.Ed25519PrivateKey:
    if public.startswith(b"whpk_"):
        public = base64.b64decode(public.removeprefix(b"whpk_"))
    return _pairs[public]


def _certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CERTIFICATE = _certificate(_RSA)

_TEXT = (b"first secret", b"second secret")
_WHSEC = (_whsec(_TEXT[0]), _whsec(_TEXT[1]))
_WHPK = (_whpk(), _whpk())
_HEX = (_new_pair().hex().encode(), _new_pair().hex().encode())

SENDERS: dict[str, Sender] = {
    "stripe": Sender(verify.stripe("env:A"), sign_stripe, _TEXT),
    "standard_webhooks": Sender(verify.standard_webhooks("env:A"), sign_standard, _WHSEC),
    "standard_webhooks, a key pair": Sender(verify.standard_webhooks("env:A"), sign_standard_with_a_pair, _WHPK),
    "svix": Sender(verify.svix("env:A"), sign_svix, _WHSEC),
    "github": Sender(verify.github("env:A"), sign_github, _TEXT, dated=False),
    "slack": Sender(verify.slack("env:A"), sign_slack, _TEXT),
    "shopify": Sender(verify.shopify("env:A"), sign_shopify, _TEXT, dated=False),
    "twilio": Sender(
        verify.twilio("env:A"), sign_twilio, _TEXT, b"To=%2B1&Body=caf%C3%A9&a=2&a=1&a=2&e=", "?a=%20b", dated=False
    ),
    "discord": Sender(verify.discord("env:A"), sign_discord, _HEX),
    "meta": Sender(
        verify.meta("env:A", verify_token="env:B"), sign_github, _TEXT, more={"verify_token": (b"mine",)}, dated=False
    ),
    "zoom": Sender(verify.zoom("env:A"), sign_zoom, _TEXT),
    "x": Sender(verify.x("env:A"), sign_x, _TEXT, dated=False),
    "hmac": Sender(
        verify.hmac(
            "env:A",
            header="X-Own",
            algorithm="sha512",
            prefix="sha512=",
            message="{id}/{timestamp}/{body}",
            timestamp_header="X-Time",
            id_header="X-Id",
        ),
        sign_own,
        _TEXT,
    ),
}
