from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before numpy and scikit-learn are imported: their threads wait by spinning, and small models on few, busy cores are
# many times slower with them than without.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from tests.brokers import Mosquitto  # noqa: E402
from tests.postgres import Postgres  # noqa: E402


@pytest.fixture
def stopped_mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that the test starts, kills and starts again on the same port."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(folder)
    yield broker
    broker.stop()


@pytest.fixture
def mosquitto(stopped_mosquitto: Mosquitto) -> Mosquitto:
    """A broker that runs."""
    stopped_mosquitto.start()
    return stopped_mosquitto


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that runs, for all tests of this process."""
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The address of an empty database."""
    return postgres.create(f"test_{secrets.token_hex(8)}")
