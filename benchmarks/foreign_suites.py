"""Runs the test-suites of sklearn-onnx and onnxmltools against edgekit, and writes down what passes and what does not.

    .venv/bin/python benchmarks/foreign_suites.py --sklearn-onnx DIR --onnxmltools DIR > docs/foreign-suites.md

DIR is a checkout of the repository `onnx/sklearn-onnx` or `onnx/onnxmltools` (git clone, any recent commit); its own
package is imported from there, so that tests and package fit. Without the first the tests come from the source
distribution of the installed skl2onnx (`pip download --no-binary`); that of onnxmltools holds no tests. Nothing of
theirs is kept here.

The adapter (`benchmarks/adapter`) puts edgekit in place of convert_sklearn, to_onnx, convert_xgboost, convert_lightgbm
and convert_catboost. A test that converts nothing runs as it is, and is counted apart. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]

HEAD: Final = """# The tests of others

Made by `make foreign-suites`; do not edit. The test-suites of sklearn-onnx and onnxmltools, run against edgekit
through the adapter in `benchmarks/adapter`, which puts edgekit in place of their functions. What edgekit refuses is a
failure of the test. A test that converts nothing runs as it is. Answers are compared through onnxruntime alone: the
second evaluator of sklearn-onnx's tests, onnx's reference with operators of theirs, lacks some that edgekit writes.
"""

REASONS: Final = (
    (r"URLError|HTTPError|Name or service", "needs the network"),
    (r"ModuleNotFoundError", "needs a package that is not installed"),
    (r"NotGiven: \w+'?s? own", "extends or inspects the converter itself: its parsers, converters, names, topology"),
    (r"NotGiven: option", "asks by an option for more than the model's answers"),
    (r"NotDeclared", "an input that is no tensor of numbers or texts"),
    (r"Refused.*(answers at random|random)", "answers at random"),
    (r"Refused", "edgekit refuses the model"),
    (
        r"backend='onnx'|reference_implementation|ReferenceEvaluator",
        "the reference evaluator of onnx differs, or fails",
    ),
    (r"Error not raised|Expecting an error", "expects that the conversion fails, and it does not"),
    (
        r"not found in|node not found|ir_version|Unable to find|False is not true|black list|white list|Wrong opset|"
        r"\d+ (!=|<=) \d+|Condition new_opset|topology|tensor\(float\)|elem_type|read-only|KeyError",
        "asserts on skl2onnx's own graph, operator, opset, name or message, not on an answer",
    ),
    (r"Took longer", "takes longer than two minutes, in the fit of scikit-learn"),
    (
        r"assert np\.float64\(\S+\) <= np\.float64",
        "wants one error to be no larger than another, and both are rounding",
    ),
    (r"XGBRegressor\w*Categorical", "wants one answer for a category and for its number, and XGBoost gives two"),
    (r"", "something else"),
)
"""What the fault says -> why the test does not pass; the first that matches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sklearn-onnx", type=Path, help="a checkout of onnx/sklearn-onnx")
    parser.add_argument("--onnxmltools", type=Path, help="a checkout of onnx/onnxmltools")
    parser.add_argument("--workers", default="2", help="processes")
    given = parser.parse_args()
    print(HEAD)
    names = ("scikit-learn", "onnx", "onnxruntime", "xgboost-cpu", "lightgbm", "catboost")
    print(", ".join(f"{name} {version(name)}" for name in names) + ".")
    with tempfile.TemporaryDirectory() as folder:
        source = given.sklearn_onnx or downloaded(Path(folder))
        report("sklearn-onnx", run(source, ["tests", "--ignore=tests/benchmark.py"], Path(folder), given.workers))
        if given.onnxmltools is not None:
            parts = [f"tests/{name}" for name in ("xgboost", "lightgbm", "catboost")]
            report("onnxmltools", run(given.onnxmltools, parts, Path(folder), given.workers))


def downloaded(folder: Path) -> Path:
    """The source distribution of the installed skl2onnx, unpacked; its tests alone, beside the installed package."""
    wanted = f"skl2onnx=={version('skl2onnx')}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-binary",
        ":all:",
        "--no-deps",
        "-d",
        str(folder),
        wanted,
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    with tarfile.open(next(folder.glob("skl2onnx-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    unpacked = next(path for path in folder.glob("skl2onnx-*") if path.is_dir())
    (unpacked / "skl2onnx").rename(unpacked / "package")
    return unpacked


def run(source: Path, tests: list[str], folder: Path, workers: str) -> list[dict[str, Any]]:
    """One line for each test: outcome, conversions, fault. A test of which a part (subtest) fails has failed."""
    report = folder / f"report-{source.name}"
    arguments = ["-q", "-n", workers, "-p", "no:cacheprovider", "--tb=no", "-W", "ignore", "--rootdir", str(source)]
    plugin = ["-p", "benchmarks.adapter.plugin", "--edgekit-report", str(report)]
    paths = os.pathsep.join(map(str, (source.resolve(), ROOT, ROOT / "converters", ROOT / "runtime")))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    subprocess.run(
        ["nice", sys.executable, "-m", "pytest", *arguments, *plugin, *tests],
        cwd=source,
        env={**os.environ, **threads, "PYTHONPATH": paths},
        stdout=sys.stderr,
        check=False,  # tests fail
    )
    lines = [line for part in folder.glob(f"{report.name}.*") for line in part.read_text("utf-8").splitlines()]
    found: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, lines):
        name: str = line["test"]
        if name not in found or found[name]["outcome"] != "failed":
            found[name] = line
    return [found[name] for name in sorted(found)]


def report(title: str, found: list[dict[str, Any]]) -> None:
    """Counts, and every test that does not pass under its reason."""
    print(f"\n## {title}\n")
    through = [one for one in found if one["conversions"]]
    others = [one for one in found if not one["conversions"]]
    print("| | passed | of | skipped by themselves |\n|---|---:|---:|---:|")
    for name, part in (("through edgekit", through), ("not about converting", others), ("**all**", found)):
        print(f"| {name} | {count(part, 'passed')} | {len(part)} | {count(part, 'skipped')} |")
    groups = defaultdict(list)
    for one in found:
        if one["outcome"] == "failed":
            groups[reason(one)].append(one)
    for why, part in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(f"\n### {len(part)}: {why}\n")
        for one in part:
            fault = " ".join(one["fault"].split())[:160].replace("`", "'")
            print(f"- {one['test'].rpartition('/')[2].replace('.py::', ' ').rpartition('::')[2]}: `{fault}`")


def count(part: list[dict[str, Any]], outcome: str) -> int:
    return sum(one["outcome"] == outcome for one in part)


def reason(one: Mapping[str, Any]) -> str:
    """Why the test does not pass."""
    why = next(why for pattern, why in REASONS if re.search(pattern, one["fault"]))
    return "fails without any conversion" if why == REASONS[-1][1] and not one["conversions"] else why


if __name__ == "__main__":
    main()
