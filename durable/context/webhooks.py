"""
The options of ``create_webhook``: checked, and written as the JSON text that the blueprint reads.

::

    {"methods": ["POST"], "mode": "default" | "static" | "manual",
     "response": {"head": …, "body_b64": …} | null, "timeout": microseconds | null,
     "on_timeout": {"head": …, "body_b64": …} | null, "max_body": bytes | null,
     "verify": {"by": name, "secrets": {purpose: ["env:NAME", …]}, "options": {…}} | null,
     "dedupe": {"by": …} (see verify/keys.py) | null}
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from .. import duration
from ..errors import ConfigurationError
from ..http import Response
from ..verify import keys, presets

#: The path of webhooks below ``public_url``.
PATH = "/.well-known/workflow/v1/webhook"

#: The longest time to hold a connection, in microseconds.  Many proxies end requests after 60 s.
MAX_HOLD = 55_000_000

_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_NEVER = ("CONNECT", "HEAD", "OPTIONS", "TRACE")


def url_of(public_url: str | None, token: str) -> str:
    """
    The URL of the webhook with this token.

    Raises:
        ConfigurationError: The setting ``public_url`` is missing.
    """
    return public_base(public_url, "A webhook's") + f"{PATH}/{token}"


def public_base(public_url: str | None, whose: str) -> str:
    """The setting ``public_url`` without a slash at its end; raises ConfigurationError without one."""
    if public_url is None:
        raise ConfigurationError(
            f"{whose} URL begins with the setting public_url, which is not set.  Set DURABLE_PUBLIC_URL,"
            " or Durable(celery_app, public_url=...), to the public address of the web app, e.g."
            ' "https://example.com".'
        )
    return public_url.rstrip("/")


def recorded_url(config: str, token: str) -> str | None:
    """The URL that the workflow was given; None for options written by a version that did not record it."""
    base = json.loads(config).get("public_url")
    return None if base is None else url_of(base, token)


def config_json(
    *,
    public_url: str | None,
    respond_with: Response | Literal["manual"] | None,
    methods: Iterable[str],
    timeout: str | float | timedelta | None,
    on_timeout: Response | None,
    max_body: int | None,
    verify: presets.Verification | None = None,
    dedupe: keys.Dedupe = None,
) -> str:
    """
    The options of ``create_webhook`` as JSON text.

    Raises:
        TypeError, ValueError: An option is invalid.
    """
    if respond_with is not None and respond_with != "manual" and not isinstance(respond_with, Response):
        raise TypeError(f'respond_with is {respond_with!r}; use "manual", a Response, or leave it out to answer 202.')
    mode = {None: "default", "manual": "manual"}.get(respond_with, "static")  # type: ignore[arg-type]
    config = {
        "public_url": public_url,
        "methods": _methods(methods),
        "mode": mode,
        "response": _response("respond_with", respond_with if mode == "static" else None),
        "timeout": _timeout(timeout),
        "on_timeout": _response("on_timeout", on_timeout),
        "max_body": _size(max_body),
        "verify": _verification(verify),
        "dedupe": keys.rule(dedupe, verify),
    }
    return json.dumps(config, separators=(",", ":"))


def _methods(methods: Iterable[str]) -> list[str]:
    given = [methods] if isinstance(methods, str) else list(methods)
    if not given:
        raise ValueError('methods is empty; use e.g. methods=("POST",).')
    for method in given:
        if not isinstance(method, str) or not _METHOD.fullmatch(method):
            raise ValueError(f'{method!r} is not an HTTP method; they are upper-case words, e.g. "POST".')
        if method in _NEVER:
            raise ValueError(f"A webhook never accepts {method}; leave it out of methods.")
    return list(dict.fromkeys(given))


def _response(option: str, response: object) -> dict[str, Any] | None:
    if response is None:
        return None
    if not isinstance(response, Response):
        raise TypeError(f"{option} is {response!r}; use a Response.")
    checked = response.checked()
    return {"head": checked.head_json(), "body_b64": base64.b64encode(checked.body).decode("ascii")}


def _timeout(value: str | float | timedelta | None) -> int | None:
    if value is None:
        return None
    micros = duration.to_micros(value, what="timeout")
    if micros > MAX_HOLD:
        raise ValueError(f"timeout {value!r} is over 55 s, and many proxies end requests after 60 s.")
    return micros


def _verification(value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, presets.Verification):
        return value.as_json()
    if isinstance(value, presets.Preset):
        raise TypeError(f'verify is {value!r}; call it with the name of your secret: verify.{value.name}("env:NAME").')
    raise TypeError(
        f"verify is {type(value).__name__}; use a preset with the name of your secret,"
        ' e.g. verify.stripe("env:STRIPE_WHSEC"), or a function decorated with @verify.register(name).'
    )


def _size(value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"max_body {value!r} is not a number of bytes.")
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookConfig:
    """How a webhook accepts and answers requests.  Durations are in microseconds, sizes in bytes."""

    methods: tuple[str, ...] = ("POST",)
    mode: str = "default"
    response: Response | None = None
    timeout: int | None = None
    on_timeout: Response | None = None
    max_body: int | None = None
    verification: presets.Verification | None = None
    dedupe: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, text: str) -> WebhookConfig:
        config = json.loads(text)
        return cls(
            methods=tuple(config["methods"]),
            mode=config["mode"],
            response=_read_response(config.get("response")),
            timeout=config.get("timeout"),
            on_timeout=_read_response(config.get("on_timeout")),
            max_body=config.get("max_body"),
            verification=presets.Verification.from_json(config["verify"]) if config.get("verify") else None,
            dedupe=config.get("dedupe"),
        )


def _read_response(fields: dict[str, Any] | None) -> Response | None:
    return None if fields is None else Response.from_head(fields["head"], base64.b64decode(fields["body_b64"]))
