"""A plugin of pytest: puts edgekit in place, and writes down for each test whether it went through edgekit.

pytest -p benchmarks.adapter.plugin --edgekit-report FILE TESTS
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.adapter.converting import CALLS, booster_in_place_of, in_place_of, to_onnx_in_place_of

LONGEST_S: Final = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the outcomes go: a line of JSON for each test."""
    parser.addoption("--edgekit-report", default=None, help="file for a line of JSON a test")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported."""
    import skl2onnx
    import skl2onnx.convert

    convert_sklearn = in_place_of(skl2onnx.convert_sklearn)
    to_onnx = to_onnx_in_place_of(skl2onnx.to_onnx, convert_sklearn)
    for module in (skl2onnx, skl2onnx.convert):
        vars(module).update(convert_sklearn=convert_sklearn, to_onnx=to_onnx)
    if find_spec("onnxmltools") is None:
        return
    import onnxmltools
    import onnxmltools.convert
    import onnxmltools.convert.main

    for name, zipmap in (("convert_xgboost", False), ("convert_lightgbm", True), ("convert_catboost", True)):
        replaced = booster_in_place_of(zipmap)
        for module in (onnxmltools, onnxmltools.convert, onnxmltools.convert.main):
            setattr(module, name, replaced)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The suite of sklearn-onnx compares with two evaluators: ours is onnxruntime, for which edgekit writes."""
    del session
    helper = sys.modules.get("test_utils.tests_helper")
    if helper is not None:
        helper.is_backend_enabled = lambda backend: backend == "onnxruntime"  # type: ignore[attr-defined]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call() -> Any:
    """Ends a test that takes too long."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"Took longer than {LONGEST_S} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """One line for each test: outcome, conversions, the last line of what went wrong."""
    outcome = yield
    report = outcome.get_result()
    if call.when == "setup":
        CALLS.count = 0
    path = item.config.getoption("--edgekit-report")
    if path is None or (call.when != "call" and report.outcome == "passed"):
        return
    fault = ""
    if report.outcome == "failed" and call.excinfo is not None:
        fault = f"{call.excinfo.type.__name__}: {call.excinfo.value}"
    line = {"test": item.nodeid, "outcome": report.outcome, "conversions": CALLS.count, "fault": fault[:2000]}
    with Path(f"{path}.{os.environ.get('PYTEST_XDIST_WORKER', 'main')}").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
