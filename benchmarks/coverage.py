"""How much converts: skl2onnx alone beside edgekit, over all estimators and over the set of pipelines, in one run.

    .venv/bin/python benchmarks/coverage.py [estimators | pipelines] [--only WORDS] [--every N]

Each estimator is fitted on the data of `edgekit_converters.suited`, each pipeline on its own table. skl2onnx is
called at its best and as its first example does (`stock`), and compared on the data's rows with a tolerance of 1e-4
and one in a thousand; edgekit is compared by its own verification: the data's rows, rows with a value missing or a
text unknown, and rows mined at thresholds. Where the original magnifies the rounding of float32 (`rounded` in
docs/coverage.md), its numbers in float64 are right as well, for both. A conversion that succeeds and answers
differently counts as *wrong*; edgekit's build refuses those. About ten minutes.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Final

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.utils import all_estimators

from benchmarks import stock
from benchmarks.pipelines import cases
from benchmarks.pipelines.judge import fitted, judge
from edgekit_converters import coverage
from edgekit_converters.suited import fit, instance, suited
from edgekit_converters.tasks import task_of

OUTCOMES: Final[Mapping[str, str]] = {
    "exact": "right", "close": "right", "rounded": "right", "by nature": "refused", "refused": "refused",
    "wrong": "wrong",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["estimators", "pipelines"], help="by default both")
    parser.add_argument("--only", default="", help="pipelines whose name holds these words")
    parser.add_argument("--every", type=int, default=1, help="every so many of the pipelines, for a quick look")
    given = parser.parse_args()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "skl2onnx", "onnxruntime"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {libraries}\n")
    stock.register_boosters()
    if given.what != "pipelines":
        estimators()
    if given.what != "estimators":
        pipelines(given.only, given.every)


def estimators() -> None:
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401

    ours = {row.estimator: row for row in coverage.measure(lambda name: say(name))}
    for title, dtype in (("float64", np.float64), ("float32", np.float32)):
        best, plain, mine = {}, {}, {}
        for name, kind in all_estimators():
            made = instance(name, kind)
            task = task_of(made) if made is not None else None
            if task is None:
                continue
            say(f"skl2onnx: {name}")
            data = suited(made, task, dtype)
            documents = "text" in data.frame
            model = ColumnTransformer([("text", made, "text")]) if documents else made
            X = data.frame if documents else data.frame.to_numpy()
            try:
                with stock.limited():
                    fit(model, X, data.target)
            except Exception:  # whatever an estimator makes of a plain table
                best[name] = plain[name] = "refused"
            else:
                # What edgekit is granted where the original magnifies its rounding, skl2onnx is granted too.
                widened = getattr(ours[name], title) == "rounded"
                best[name] = stock.best(model, X, widened=widened)
                plain[name] = stock.plain(model, X, widened=widened)
            mine[name] = OUTCOMES[getattr(ours[name], title)]
        table(
            f"{title} input, {len(mine)} estimators",
            {"skl2onnx at its best": best, "skl2onnx, plain call": plain, "edgekit": mine},
        )


def pipelines(only: str, every: int) -> None:
    best, plain, mine, why = {}, {}, {}, {}
    rows = mined = 0
    nature = {case.name for case in cases() if case.refusal}
    for case in [case for case in cases() if only in case.name][::every]:
        say(case.name)
        model, X = fitted(case)
        found = judge(model, X)
        mine[case.name], why[case.name] = found.outcome, found.why
        rows, mined = rows + found.rows, mined + found.mined
        best[case.name], plain[case.name] = stock.best(model, X), stock.plain(model, X)
    table(f"{len(mine)} pipelines", {"skl2onnx at its best": best, "skl2onnx, plain call": plain, "edgekit": mine})
    print(f"edgekit was compared on {rows:,} rows, {mined:,} of them mined.")
    kept = [name for name, outcome in mine.items() if outcome != "right"]
    print(f"Refused by their nature: {', '.join(name for name in kept if name in nature)}")
    for name in kept:
        if name not in nature:
            print(f"  {mine[name]}: {name}: {why[name]}")


def table(title: str, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Counts, and the names of what is wrong."""
    print(f"{title}:")
    for name, outcomes in columns.items():
        counts = Counter(outcomes.values())
        print(f"  {name}: {counts['right']} right, {counts['refused']} refused, {counts['wrong']} wrong")
    for name, outcomes in columns.items():
        listed(f"  wrong by {name}", (key for key, outcome in outcomes.items() if outcome == "wrong"))
    print(flush=True)


def listed(title: str, names: Iterable[str]) -> None:
    print(f"{title}: {'; '.join(names) or 'none'}")


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"\r{text[:100]:<100}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
