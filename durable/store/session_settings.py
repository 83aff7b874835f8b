"""Settings of a role, a database or a server with which durable cannot do all of its work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

#: The shortest time that the database must leave a statement, and a step's transaction between two, in milliseconds.
LEAST_MS = 1_000
#: How many connections a process needs: one for its steps and turns, one for its heartbeats.
CONNECTIONS = 2
#: What a request's row has beside its body, in bytes.
_ROW_BYTES = 64 * 1024

_POSTGRESQL = text(
    "SELECT name, setting FROM pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout',"
    " 'idle_in_transaction_session_timeout', 'default_transaction_read_only')"
    " UNION ALL SELECT 'rolconnlimit', rolconnlimit::text FROM pg_roles WHERE rolname = current_user"
)


@dataclass(frozen=True, slots=True)
class UnfitSetting:
    """A setting, its value as the database shows it, and what it breaks."""

    name: str
    value: str
    consequence: str


def unfit(tx: Connection, *, processes: int, max_body: int) -> list[UnfitSetting]:
    """
    The settings of this session that cannot work.

    Args:
        processes: How many worker processes there are.
        max_body: The largest body of a request, in bytes.
    """
    if tx.dialect.name == "postgresql":
        return _unfit_postgresql({name: value for name, value in tx.execute(_POSTGRESQL)}, processes)
    if tx.dialect.name in ("mysql", "mariadb"):
        packet = int(tx.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
        if packet < max_body + _ROW_BYTES:
            consequence = f"a request's body may have max_body ({max_body} bytes), and the database refuses it"
            return [UnfitSetting("max_allowed_packet", f"{packet} bytes", consequence)]
    return []


def _unfit_postgresql(settings: dict[str, Any], processes: int) -> list[UnfitSetting]:
    found = [
        UnfitSetting(name, f"{settings[name]} ms", consequence)
        for name, consequence in (
            ("statement_timeout", "the sweep of a long backlog is cancelled each time"),
            ("transaction_timeout", "transactions of steps are cancelled each time"),
            ("idle_in_transaction_session_timeout", "a transactional step is cut while its code runs"),
        )
        if 0 < int(settings.get(name, 0)) < LEAST_MS
    ]
    if settings.get("default_transaction_read_only") == "on":
        found.append(UnfitSetting("default_transaction_read_only", "on", "nothing can be recorded"))
    limit, needed = int(settings.get("rolconnlimit", -1)), CONNECTIONS * processes
    if 0 <= limit < needed:
        consequence = f"{processes} worker processes need {needed} connections, and web processes need more"
        found.append(UnfitSetting("the role's CONNECTION LIMIT", str(limit), consequence))
    return found
