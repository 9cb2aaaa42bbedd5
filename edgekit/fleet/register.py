"""What an authority has given out: every token and every certificate, in SQLite; no row is ever removed.

Whatever counts is committed (`synchronous=FULL`) before anybody is told of it. A token is kept as the SHA-256 of its
secret: who reads the file cannot enrol with it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Self

import msgspec

from edgekit_runtime.transaction import make_durable, stored_in, transaction

SCHEMA_VERSION: Final = 1

How = Literal["token", "renewal", "request", "here"]
"""What a certificate was issued for: a token, an older certificate, a request by file, or a key that was made here."""

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE token (
    digest BLOB PRIMARY KEY, name TEXT NOT NULL, days INTEGER NOT NULL, created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL, used_ms INTEGER, serial TEXT
);
CREATE INDEX token_name ON token (name);
CREATE TABLE certificate (
    serial TEXT PRIMARY KEY, name TEXT NOT NULL, how TEXT NOT NULL, key BLOB NOT NULL, issued_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL, revoked_ms INTEGER, pem BLOB NOT NULL
);
CREATE INDEX certificate_name ON certificate (name);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class Ticket(msgspec.Struct, frozen=True):
    """A token as it is kept."""

    digest: bytes
    """SHA-256 of its secret."""
    name: str
    days: int
    """Life of the certificate that it is good for."""
    created_ms: int
    expires_ms: int
    used_ms: int | None = None
    serial: str | None = None
    """Of the certificate that was issued for it."""


class Issued(msgspec.Struct, frozen=True):
    """A certificate that was given out."""

    serial: str
    """Hexadecimal."""
    name: str
    how: How
    key: bytes
    """SHA-256 of the public key."""
    issued_ms: int
    expires_ms: int
    revoked_ms: int | None = None
    pem: bytes = b""

    def good(self, now_ms: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_ms is None and self.expires_ms > now_ms


class Register:
    """One authority's register; several processes may have it open.

    Args:
        path: The file; made where it is missing.

    Raises:
        StorageFault: It cannot be opened.
        UnsupportedFormat: It is of a newer release.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with stored_in(self.path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            try:
                if make_durable(self._db, "authority's register", SCHEMA_VERSION) == 0:
                    self._db.executescript(_SCHEMA)
            except BaseException:
                self._db.close()
                raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All of it, or nothing; what was read in it stays true until its end."""
        with stored_in(self.path), transaction(self._db):
            yield

    def add_ticket(self, ticket: Ticket) -> None:
        """Takes in a new token."""
        with stored_in(self.path):
            self._db.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(ticket))

    def tickets(self, name: str) -> list[Ticket]:
        """The tokens of a name, used ones too."""
        with stored_in(self.path):
            return [Ticket(*row) for row in self._db.execute("SELECT * FROM token WHERE name = ?", (name,))]

    def use(self, ticket: Ticket, serial: str, now_ms: int) -> None:
        """Marks a token as used."""
        with stored_in(self.path):
            self._db.execute(
                "UPDATE token SET used_ms = ?, serial = ? WHERE digest = ?", (now_ms, serial, ticket.digest)
            )

    def add(self, issued: Issued) -> None:
        """Takes in a certificate."""
        with stored_in(self.path):
            self._db.execute("INSERT INTO certificate VALUES (?, ?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(issued))

    def issued(self, name: str | None = None) -> list[Issued]:
        """The certificates of a name, or all of them; the oldest first."""
        where, values = ("", ()) if name is None else (" WHERE name = ?", (name,))
        with stored_in(self.path):
            return [
                Issued(*row)
                for row in self._db.execute(f"SELECT * FROM certificate{where} ORDER BY issued_ms, rowid", values)
            ]

    def by_serial(self, serial: str) -> Issued | None:
        """A certificate by its number."""
        with stored_in(self.path):
            row = self._db.execute("SELECT * FROM certificate WHERE serial = ?", (serial,)).fetchone()
        return None if row is None else Issued(*row)

    def revoke(self, name: str, now_ms: int) -> int:
        """Revokes every good certificate of a name, and ends its tokens; returns how many certificates that were."""
        with self.writing():
            self._db.execute(
                "UPDATE token SET expires_ms = ? WHERE name = ? AND expires_ms > ?", (now_ms, name, now_ms)
            )
            return self._db.execute(
                "UPDATE certificate SET revoked_ms = ? WHERE name = ? AND revoked_ms IS NULL AND expires_ms > ?",
                (now_ms, name, now_ms),
            ).rowcount

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
