from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from edgekit import cli
from tests.postgres import Postgres

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a collector's store may be: each kind in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    address: str = request.getfixturevalue("where_postgres")
    return address


@pytest.fixture
def where_postgres(postgres: Postgres) -> str:
    """An empty database for a store."""
    # One database for all, emptied: to make one takes longer than most tests.
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS edgekit CASCADE")
    return postgres.url()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """One that the test may kill."""
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key directory for the test instead of the user's own."""
    monkeypatch.setenv("EDGEKIT_KEYS", str(tmp_path / "keys"))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return tmp_path / "keys"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `edgekit` and gives exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call
