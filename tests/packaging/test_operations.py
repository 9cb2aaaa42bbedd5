from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks.sizing import FLEETS, MEASURED, PAGE, Size, tables, written


def test_the_page_on_operations_says_what_its_figures_come_to() -> None:
    page = PAGE.read_text()
    assert written(page) == page, "run `.venv/bin/python benchmarks/sizing.py --write`"
    assert all(table in page for table in tables().strip().split("\n\n"))


def test_another_figure_gives_another_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURED, "SQLite window_b", replace(MEASURED["SQLite window_b"], value=9_999))
    page = PAGE.read_text()
    assert written(page) != page
    assert written(page).count("\n") == page.count("\n")


def test_a_larger_fleet_never_needs_less() -> None:
    sizes = [Size(devices) for devices in FLEETS]
    for smaller, larger in pairwise(sizes):
        assert larger.brokers >= smaller.brokers
        assert larger.collectors >= smaller.collectors
        assert larger.least_gb > smaller.least_gb
        assert sum(larger.money) > sum(smaller.money)
