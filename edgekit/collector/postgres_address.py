"""The address of a PostgreSQL: what libpq is told, and what people see of it."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Final
from urllib.parse import urlsplit

from edgekit_contracts.errors import MissingExtra, UsageError

SCHEMES: Final = ("postgresql", "postgres")

_OPTIONS: Final = (
    "-c search_path=edgekit -c client_encoding=UTF8"
    # A collector that stands still must not hold its locks for ever.
    " -c idle_in_transaction_session_timeout=15s -c lock_timeout=30s"
)
_LINK: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "edgekit",
}
"""Unless the address says otherwise: so that a server that has vanished is missed."""


def is_address(where: str) -> bool:
    """Whether this names a PostgreSQL, and not a file."""
    return where.partition("://")[0] in SCHEMES


def parse(url: str) -> tuple[str, str]:
    """What libpq is told, and the address as people may see it.

    libpq's own complaints can hold a part of the password, where its special characters were not escaped: then the
    first `@` is not the one before the host. So such an address does not reach it.

    Raises:
        UsageError: It is no such address.
        MissingExtra: psycopg is not installed.
    """
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ImportError as error:
        raise MissingExtra("psycopg", "edgekit-toolkit", "postgresql") from error
    address = url.partition("?")[0]
    try:
        if address.count("@") > 1 or ("@" in address and "@" not in urlsplit(address).netloc):
            raise ValueError
        told = conninfo_to_dict(url)
    except (ValueError, psycopg.Error):
        raise UsageError(
            "the store's address is not one of PostgreSQL",
            "write postgresql://USER@HOST:PORT/DATABASE, special characters of a password as %40 and the like; or keep "
            "the password in ~/.pgpass or PGPASSWORD",
        ) from None
    user = f"{told['user']}@" if told.get("user") else ""
    several = zip_longest(str(told.get("host") or "").split(","), str(told.get("port") or "").split(","), fillvalue="")
    hosts = ",".join(f"{host}:{port}" if port else host for host, port in several)
    name = f"postgresql://{user}{hosts}/{told.get('dbname') or ''}"
    options = f"{told.pop('options', '')} {_OPTIONS}".strip()
    settings: dict[str, Any] = {**_LINK, **told, "options": options}
    return make_conninfo("", **settings), name
