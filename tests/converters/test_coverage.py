from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_converters import coverage

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


@pytest.fixture(scope="module")
def rows() -> list[coverage.Row]:
    return coverage.measure()


def test_the_page_is_what_a_run_measures(rows: list[coverage.Row]) -> None:
    assert PAGE.read_text() == coverage.markdown(rows), "run 'make coverage'"


def test_what_is_refused_says_why_in_a_sentence(rows: list[coverage.Row]) -> None:
    for row in rows:
        if row.float64 == "refused":
            assert 10 < len(row.why) < 600, row.estimator
            assert "\n" not in row.why
