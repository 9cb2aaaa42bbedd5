from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.fleet.authority import Authority
from tests import bundles
from tests.service import Service


@pytest.fixture
def made(tmp_path: Path) -> bundles.Made:
    return bundles.make(tmp_path)


@pytest.fixture
def service(tmp_path: Path, made: bundles.Made) -> Iterator[Service]:
    service = Service(tmp_path, made)
    yield service
    service.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def authority(place: Path) -> Iterator[Authority]:
    with Authority.create(place / "authority") as made:
        yield made
