from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_converters import coverage

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


@pytest.fixture(scope="module")
def rows() -> list[coverage.Row]:
    return coverage.measure()


def test_the_page_is_what_a_run_measures(rows: list[coverage.Row]) -> None:
    # Where exactly a difference in the last places lies is the processor's and its libraries' affair.
    page, run = PAGE.read_text(), coverage.markdown(rows)
    for outcome in ("close", "rounded"):
        page, run = page.replace(f"| {outcome}", "| exact"), run.replace(f"| {outcome}", "| exact")
    assert page.replace(coverage.ROUNDED, "") == run.replace(coverage.ROUNDED, ""), "run 'make coverage'"


def test_nothing_that_converts_answers_differently(rows: list[coverage.Row]) -> None:
    outcomes = {row.estimator: {row.float64, row.float32, row.piped} for row in rows}
    assert not [name for name, found in outcomes.items() if "wrong" in found]


def test_what_is_refused_says_why_in_a_sentence(rows: list[coverage.Row]) -> None:
    for row in rows:
        if {row.float64, row.float32, row.piped} - coverage.CONVERTS:
            assert 10 < len(row.why) < 600, row.estimator
            assert "\n" not in row.why
