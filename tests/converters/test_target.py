from __future__ import annotations

import pytest

from edgekit_contracts.errors import UnsupportedRuntime
from edgekit_converters.target import RELEASES, WRITTEN, loads, target_for


@pytest.mark.parametrize(
    ("version", "ml_opset"), [("1.20", 3), ("1.20.1", 3), ("1.23.2", 3), ("1.24.4", 5), ("1.32.0", 5), ("2.0.0", 5)]
)
def test_the_conservative_opset_is_written_with_the_trees_of_newer_releases(version: str, ml_opset: int) -> None:
    target = target_for(version)
    assert (target.opset, target.ml_opset, target.ir) == (18, ml_opset, 8)
    assert target.onnxruntime == version


def test_no_release_is_given_more_than_it_loads() -> None:
    for release in RELEASES.values():
        assert WRITTEN.opset <= release.opset
        assert WRITTEN.ml_opset <= release.ml_opset
        assert WRITTEN.ir <= release.ir


def test_a_release_that_is_not_in_the_table_loads_what_the_newest_one_does() -> None:
    assert loads("1.99.0") == RELEASES[max(RELEASES)]


@pytest.mark.parametrize("version", ["1.19.2", "1.8", "0.5.0"])
def test_a_release_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedRuntime, match="too old") as refusal:
        target_for(version)
    assert "1.20 or newer" in refusal.value.next_step


@pytest.mark.parametrize("version", ["1.26.0", "1.27.0", "1.26"])
def test_a_release_that_is_known_to_answer_wrongly_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedRuntime, match="28557"):
        target_for(version)


@pytest.mark.parametrize("version", ["", "new", "1", "1.2.3.4.5 ; rm", "v1.24"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedRuntime, match="not a version"):
        target_for(version)
