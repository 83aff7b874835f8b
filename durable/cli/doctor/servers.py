"""The database and its schema, the broker and how we talk to it, and the web app's address."""

from __future__ import annotations

from typing import Any

from ... import migrations
from ...broker import embedded, publisher
from ...engine import Engine, transport_defaults
from ...errors import ConfigurationError
from ...store import REVISION
from .finding import Finding


def database(engine: Engine) -> Finding:
    """The database answers, holds every text and has the schema of this code; the embedded default gets it here."""
    if engine.is_embedded():
        engine.check_schema()
    url = engine.store.url.render_as_string()
    with engine.store.read() as tx:
        encoding = migrations.unfit_encoding(tx)
        found = migrations.revision(tx)
    if encoding is not None:
        detail = f"{url} has the encoding {encoding}, which does not hold every text."
        return Finding(name="database", ok=False, detail=detail, fix=migrations.ENCODING_FIX)
    detail = f"{url}, schema {found or '(none yet)'}"
    ok = found == REVISION
    return Finding(name="database", ok=ok, detail=detail, fix="" if ok else f"Run `durable migrate` for {REVISION}.")


def broker(engine: Engine) -> Finding:
    """The broker takes a connection within 2 s."""
    with engine.celery.connection_for_write() as connection:
        connection.ensure_connection(max_retries=0, timeout=2.0)
        where = connection.as_uri()
    is_embedded = engine.broker_url() == embedded.url()
    return Finding(name="broker", ok=True, detail="the embedded one" if is_embedded else where)


def transport(engine: Engine) -> Finding:
    """Compare the transport options with docs/how-to/operating.md; only a too short visibility timeout is a fault."""
    options = dict(engine.celery.conf.broker_transport_options or {})
    horizon = engine.settings.eta_horizon
    visible = options.get("visibility_timeout")
    if visible is not None and float(visible) * 1_000_000 < horizon:
        return Finding(
            name="transport",
            ok=False,
            detail=f"visibility_timeout {visible} s is below eta_horizon {horizon / 1_000_000:g} s: a message that"
            " waits for its time in a worker is delivered again and again.",
            fix="Raise visibility_timeout in broker_transport_options, or lower DURABLE_ETA_HORIZON.",
        )
    others = _otherwise(options, transport_defaults(engine.broker_url()))
    detail = ", ".join(f"{name} is {value!r}" for name, (value, _) in others.items()) or "as recommended"
    advice = ", ".join(f"{name} = {wanted!r}" for name, (_, wanted) in others.items())
    fix = f"Recommended in broker_transport_options: {advice}." if others else ""
    return Finding(name="transport", ok=True, detail=detail, fix=fix)


def messages(engine: Engine) -> Finding:
    """Our messages can be sent, and workers with this configuration take them."""
    try:
        publisher.check_worker(engine.celery)
    except ConfigurationError as error:
        happened, _, fix = str(error).partition(".  ")
        return Finding(name="messages", ok=False, detail=f"{happened}.", fix=fix)
    return Finding(name="messages", ok=True, detail="Celery's settings let durable's messages through")


def _otherwise(options: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the application sets to another value than we would: the value, and ours."""
    # Any visibility timeout will do that is above the horizon.
    names = wanted.keys() - {"visibility_timeout"}
    return {name: (options.get(name), wanted[name]) for name in sorted(names) if options.get(name) != wanted[name]}


def public_url(engine: Engine) -> Finding:
    """Only webhooks need it, and `durable dev` gives it to its own processes: advice."""
    url = engine.settings.public_url
    fix = "" if url else "Set DURABLE_PUBLIC_URL where workflows create webhooks; without it that raises an error."
    return Finding(name="public_url", ok=True, detail=url or "not set", fix=fix)
