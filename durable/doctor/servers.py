"""Check the database and its schema, the broker and its options, Celery's settings, and ``public_url``."""

from __future__ import annotations

from .. import migrations
from ..broker import check_worker_settings, embedded, refuse_cluster, tries
from ..engine import Engine, transport_defaults
from ..errors import ConfigurationError
from ..store import POOLER_ADVICE, REVISION, galera
from .finding import Finding
from .situation import Situation

#: The beginning of the fix of a database that has an older schema than this code needs.
MIGRATE = "Run `durable migrate`"


def database(engine: Engine) -> Finding:
    """The database answers, stores every text and has this code's schema.  An embedded database is migrated first."""
    if engine.is_embedded():
        engine.check_schema()
    url = engine.store.url.render_as_string()
    with engine.store.read() as tx:
        encoding = migrations.unfit_encoding(tx)
        found = migrations.revision(tx)
    if encoding is not None:
        detail = f"{url} has the encoding {encoding}, which cannot store every text."
        return Finding(name="database", ok=False, detail=detail, fix=migrations.ENCODING_FIX)
    if migrations.suffices(found):
        newer = "" if found == REVISION else f", newer than that of this code ({REVISION})"
        detail, fix = f"{url}, schema {found}{newer}", ""
        if engine.store.preparing.has_pooler and engine.store.preparing.finds_out:
            detail, fix = f"{detail}, behind a pooler: no statements are prepared", POOLER_ADVICE
        return Finding(name="database", ok=True, detail=detail, fix=fix)
    has = f"has the schema {found}" if found else "has no tables of durable yet"
    detail = f"{url} {has}, and this code needs {REVISION}."
    return Finding(name="database", ok=False, detail=detail, fix=f"{MIGRATE}.  Then run `durable doctor` again.")


def broker(engine: Engine) -> Finding:
    """The broker, or one of several, accepts a connection within 2 s, and is no node of a Redis Cluster."""
    silent: list[str] = []
    with engine.celery.connection_for_write() as connection:
        connection.ensure_connection(
            errback=lambda error, interval: silent.append(connection.as_uri()),
            max_retries=tries(connection),
            timeout=2.0,
        )
        where = connection.as_uri()
        try:
            refuse_cluster(connection)
        except ConfigurationError as error:
            return _of(error, "broker")
    is_embedded = engine.broker_url() == embedded.url()
    return Finding(
        name="broker",
        ok=True,
        detail="the embedded one" if is_embedded else where,
        fix=f"{' and '.join(silent)} did not answer.  durable publishes to {where}." if silent else "",
    )


def transport(engine: Engine) -> Finding:
    """Compare the transport options with docs/how-to/operating.md; only a too short visibility timeout is a fault."""
    options = dict(engine.celery.conf.broker_transport_options or {})
    horizon = engine.settings.eta_horizon
    visible = options.get("visibility_timeout")
    if visible is not None and float(visible) * 1_000_000 < horizon:
        return Finding(
            name="transport",
            ok=False,
            detail=f"visibility_timeout {visible} s is below eta_horizon {horizon / 1_000_000:g} s: the broker"
            " delivers a message again while it waits in a worker until it is due.",
            fix="Raise visibility_timeout in broker_transport_options, or lower DURABLE_ETA_HORIZON.",
        )
    recommended = transport_defaults(engine.broker_url())
    # Every visibility timeout above the horizon is fine.
    names = sorted(recommended.keys() - {"visibility_timeout"})
    others = {name: (options.get(name), recommended[name]) for name in names if options.get(name) != recommended[name]}
    detail = ", ".join(f"{name} is {value!r}" for name, (value, _) in others.items()) or "as recommended"
    advice = ", ".join(f"{name} = {wanted!r}" for name, (_, wanted) in others.items())
    fix = f"Recommended in broker_transport_options: {advice}." if others else ""
    return Finding(name="transport", ok=True, detail=detail, fix=fix)


def messages(engine: Engine) -> Finding:
    """Celery's settings let this process send durable's messages, and let workers accept them."""
    try:
        check_worker_settings(engine.celery)
    except ConfigurationError as error:
        return _of(error, "messages")
    return Finding(name="messages", ok=True, detail="Celery's settings accept durable's messages")


def public_url(engine: Engine) -> Finding:
    """``public_url`` is set.  If not, this is advice: only webhooks need it, and ``durable dev`` sets it."""
    url = engine.settings.public_url
    fix = (
        "" if url else "Set DURABLE_PUBLIC_URL if workflows create webhooks.  Without it, creating one raises an error."
    )
    return Finding(name="public_url", ok=True, detail=url or "not set", fix=fix)


def session_settings(situation: Situation) -> Finding:
    """The settings of the role, the database and the server leave durable's sessions enough time, room and rights."""
    found = situation.unfit_settings
    if not found:
        return Finding(name="settings", ok=True, detail="the database's limits and timeouts leave enough")
    return Finding(
        name="settings",
        ok=False,
        detail="; ".join(f"{each.name} is {each.value}: {each.consequence}" for each in found) + ".",
        fix="Raise it for durable's role, for example by `ALTER ROLE … SET …`, or on MySQL and MariaDB in the server's"
        " configuration.",
    )


def standbys(situation: Situation) -> Finding:
    """A PostgreSQL primary that has standbys waits for one of them; if not, this is advice."""
    number = situation.unawaited_standbys
    if not number:
        return Finding(name="standbys", ok=True, detail="none, or commits wait for one of them")
    return Finding(
        name="standbys",
        ok=True,
        detail=f"{number}, and commits wait for none of them: synchronous_standby_names is empty",
        fix="A standby that you promote may lack the last commits: runs, outcomes and accepted requests.  Set"
        " synchronous_standby_names, or accept that loss.",
    )


def nodes(situation: Situation) -> Finding:
    """All connections to a Galera cluster end at one node; if not, this is advice."""
    found = sorted(galera.nodes(situation.engine.store.engine))
    if len(found) < 2:
        detail = f"all connections end at {found[0]} of a Galera cluster" if found else "no Galera cluster"
        return Finding(name="nodes", ok=True, detail=detail)
    return Finding(
        name="nodes",
        ok=True,
        detail=f"connections end at {', '.join(found)} of a Galera cluster",
        fix="Have the proxy send all connections to one node, and to another one only when that one fails.  Locks"
        " are not shared by the nodes: with several writers, a request that comes as its run ends may get no answer.",
    )


def _of(error: ConfigurationError, name: str) -> Finding:
    """The finding of an error that says first what is wrong, and then what to do."""
    problem, _, fix = str(error).partition(".  ")
    return Finding(name=name, ok=False, detail=f"{problem}.", fix=fix)
